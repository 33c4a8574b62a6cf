"""What the file holds, and how an older one is brought up to date.

A unit's number is that of its layer, shifted by 24 bits, plus its index, so a layer's units lie side by side and a
unit's layer is known without looking. A body's number is its owner's, shifted by 8 bits, plus that of its service: one
look-up under an integer key. (Blobs under a composite key without rowid take five times as long.)

    sources --< units >-- layers >-- bases >-- models        *_bodies: unit, layer or model, and service
    tokens, postings: which units name a token               unit_tokens: the same by unit
    programs: the graphs of a block of units as they are run (`saelens_n2g.store.programs`)

`postings` are packed (`saelens_n2g.store.postings`). `models.similar_of` says of which graphs `similar` was computed.
`digest` columns are over the rest of their row, so that damage in what no body repeats is found too.
"""

import contextlib
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, TypeVar
from urllib.parse import quote

from saelens_n2g.errors import ArtefactError, InputError

APPLICATION = 0x4E324741
"""Marks the file as ours (SQLite's `application_id`): "N2GA"."""
INDEX_BITS, SERVICE_BITS, PROGRAM_BITS = 24, 8, 14
"""Of a unit's index, of a service, of a unit's place in the block that its graph is compiled with."""
GRAPH = "neuron2graph"
"""The service that programs are compiled from."""
OLDEST_SQLITE = (3, 37, 0)
"""The first with strict tables."""
PAGE = 8192
"""Bytes. Bodies are of a few kB, and pages of 4,096 leave more of themselves empty."""
FIGURES = {
    "maximum": "REAL",
    "density": "REAL",
    "active": "REAL",
    "fit_firing": "INTEGER",
    "test_firing": "INTEGER",
    "nodes": "INTEGER",
    "paths": "INTEGER",
    "precision": "REAL",
    "recall": "REAL",
    "f1": "REAL",
    "auprc": "REAL",
    "correlation": "REAL",
    "random_f1": "REAL",
}
"""Columns of a unit that lists are sorted and filtered by; scores are those of the graph, on held-out
text but for the last."""


class Step(NamedTuple):
    """What brings a store from one version to the next."""

    title: str
    statements: tuple[str, ...]


_BODY = "etag BLOB NOT NULL, size INTEGER NOT NULL, body BLOB NOT NULL"


def _bodies(owner: str, owners: str) -> str:
    """A table of bodies. The key is owner and service in one; both stand there again for foreign keys to hold on to."""
    key = f"CHECK (id = ({owner} << {SERVICE_BITS}) + service_id)"
    return (
        f"CREATE TABLE {owner.removesuffix('_id')}_bodies (id INTEGER PRIMARY KEY, {owner} INTEGER NOT NULL "
        f"REFERENCES {owners}, service_id INTEGER NOT NULL REFERENCES services, {_BODY}, {key}) STRICT"
    )


STEPS: tuple[Step, ...] = (
    Step(
        "models, bases, layers, units, bodies, postings",
        (
            "CREATE TABLE models (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, n_layers INTEGER NOT NULL, "
            "config TEXT NOT NULL, provenance TEXT NOT NULL, digest BLOB NOT NULL, "
            "similar_of TEXT NOT NULL DEFAULT '') STRICT",
            "CREATE TABLE bases (id INTEGER PRIMARY KEY, model_id INTEGER NOT NULL REFERENCES models, "
            "name TEXT NOT NULL, kind TEXT NOT NULL, title TEXT NOT NULL, facts TEXT NOT NULL, digest BLOB NOT NULL, "
            "UNIQUE (model_id, name)) STRICT",
            "CREATE TABLE layers (id INTEGER PRIMARY KEY CHECK (id BETWEEN 1 AND 8388607), "
            "basis_id INTEGER NOT NULL REFERENCES bases, layer INTEGER NOT NULL, width INTEGER NOT NULL, "
            "identity TEXT NOT NULL, provenance TEXT NOT NULL, digest BLOB NOT NULL, UNIQUE (basis_id, layer)) STRICT",
            "CREATE TABLE sources (id INTEGER PRIMARY KEY, checksum TEXT NOT NULL UNIQUE, name TEXT NOT NULL, "
            "kind TEXT NOT NULL, provenance TEXT NOT NULL, digest BLOB NOT NULL, done INTEGER NOT NULL, "
            "total INTEGER NOT NULL) STRICT",
            "CREATE TABLE units (id INTEGER PRIMARY KEY, layer_id INTEGER NOT NULL REFERENCES layers, "
            'source_id INTEGER NOT NULL REFERENCES sources, "index" INTEGER NOT NULL, failure TEXT, '
            + ", ".join(f"{name} {kind}" for name, kind in FIGURES.items())
            + f', CHECK (id = (layer_id << {INDEX_BITS}) + "index")) STRICT',
            "CREATE TABLE services (id INTEGER PRIMARY KEY CHECK (id BETWEEN 1 AND 255), name TEXT NOT NULL UNIQUE, "
            "digest BLOB NOT NULL) STRICT",
            _bodies("unit_id", "units"),
            _bodies("layer_id", "layers"),
            _bodies("model_id", "models"),
            "CREATE TABLE tokens (id INTEGER PRIMARY KEY, text TEXT NOT NULL UNIQUE) STRICT",
            "CREATE TABLE postings (id INTEGER PRIMARY KEY, units BLOB NOT NULL, strengths BLOB NOT NULL) STRICT",
            "CREATE TABLE unit_tokens (unit_id INTEGER PRIMARY KEY REFERENCES units, tokens BLOB NOT NULL) STRICT",
            "CREATE TABLE similar (unit_id INTEGER NOT NULL REFERENCES units, other_id INTEGER NOT NULL "
            "REFERENCES units, similarity REAL NOT NULL, own REAL NOT NULL, other REAL NOT NULL, "
            "PRIMARY KEY (unit_id, other_id)) STRICT, WITHOUT ROWID",
        ),
    ),
    Step(
        "programs",
        (
            "CREATE TABLE programs (id INTEGER PRIMARY KEY, layer_id INTEGER NOT NULL REFERENCES layers, "
            "graphs INTEGER NOT NULL DEFAULT 0, graphs_of TEXT NOT NULL DEFAULT '', digest BLOB NOT NULL DEFAULT x'', "
            "program BLOB NOT NULL DEFAULT x'', "
            f"CHECK (id >> {INDEX_BITS - PROGRAM_BITS} = layer_id)) STRICT",
            f"INSERT INTO programs (id, layer_id) SELECT DISTINCT id >> {PROGRAM_BITS}, layer_id FROM units",
        ),
    ),
)
"""By version: the first makes version 1. A step is never changed once a release has it; new ones are put behind."""


Self = TypeVar("Self", bound="Closing")


class Closing(ABC):
    """What is closed at the end of its `with` block."""

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @abstractmethod
    def close(self) -> None:
        """Let go of the file."""


def unit_key(layer_id: int, index: int) -> int:
    """Number of a unit."""
    assert 0 <= index < 1 << INDEX_BITS
    return (layer_id << INDEX_BITS) + index


def body_key(owner_id: int, service_id: int) -> int:
    """Number of a body of a unit, a layer or a model."""
    return (owner_id << SERVICE_BITS) + service_id


def connect(path: Path, *, write: bool) -> sqlite3.Connection:
    """A connection to the file at `path`, which must be a store of this version, or, to write, becomes one.

    Raises `InputError` where there is nothing to read or no place to write, `ArtefactError` for a file of another kind,
    a newer version, or, to read, an older one.
    """
    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        raise InputError("SQLite", f"version {'.'.join(map(str, OLDEST_SQLITE))} or later", sqlite3.sqlite_version)
    if not write and not path.is_file():
        raise InputError(f"store {path}", "a file that `saelens-n2g collect` has made", "nothing there")
    uri = f"file:{quote(str(path.absolute()))}?mode={'rwc' if write else 'ro'}"
    try:
        connection = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=write)
    except sqlite3.OperationalError as error:
        raise InputError(f"store {path}", "a file that can be opened", str(error)) from error
    try:
        _set_up(connection, path, write=write)
    except BaseException:
        connection.close()
        raise
    return connection


def _set_up(connection: sqlite3.Connection, path: Path, *, write: bool) -> None:
    with speaking(path):
        if not write:
            connection.execute("PRAGMA query_only = ON")
            connection.execute("PRAGMA trusted_schema = OFF")  # a file may be a stranger's
            connection.execute(f"PRAGMA mmap_size = {1 << 40}")
            _readable(path, version_of(connection, path))
            return
        connection.execute(f"PRAGMA page_size = {PAGE}")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA cache_size = -65536")  # 64 MB
        found = version_of(connection, path)
        if found > len(STEPS):
            _readable(path, found)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        migrate(connection, found)


@contextlib.contextmanager
def speaking(path: Path) -> Iterator[None]:
    """SQLite's errors inside as this package's: `InputError` for a place that does not serve (full, locked, not to be
    written), `ArtefactError` for a damaged or foreign file."""
    try:
        yield
    except sqlite3.OperationalError as error:
        raise InputError(f"store {path}", "a file that can be used so", str(error)) from error
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:  # SQLite's words can be damaged, too
        raise ArtefactError(f"store {path}", "a whole SQLite file", str(error)) from error


def version_of(connection: sqlite3.Connection, path: Path) -> int:
    """Version of the schema in the file, 0 for an empty one. Raises `ArtefactError` for a file of another kind."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    if application == APPLICATION:
        (found,) = connection.execute("SELECT max(version) FROM schema_steps").fetchone()
        return int(found or 0)
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    if application or tables:
        raise ArtefactError(f"store {path}", "a store of this package", "an SQLite file of something else")
    return 0


def _readable(path: Path, found: int) -> None:
    if found > len(STEPS):
        expected = f"schema version {len(STEPS)} or older"
        raise ArtefactError(f"store {path}", expected, f"version {found}; a newer saelens-n2g reads it")
    if 0 < found < len(STEPS):
        advice = f"version {found}; `saelens-n2g collect --store {path}` brings it up to date"
        raise ArtefactError(f"store {path}", f"schema version {len(STEPS)}", advice)
    if found == 0:
        raise ArtefactError(f"store {path}", "a store", "an empty file; `saelens-n2g collect` fills it")


def migrate(connection: sqlite3.Connection, found: int) -> None:
    """Bring the schema from version `found` to the newest, all of it or nothing."""
    if found == len(STEPS):
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        connection.execute(f"PRAGMA application_id = {APPLICATION}")
        connection.execute(
            "CREATE TABLE IF NOT EXISTS schema_steps (version INTEGER PRIMARY KEY, title TEXT NOT NULL) STRICT"
        )
        for version, step in enumerate(STEPS[found:], start=found + 1):
            for statement in step.statements:
                connection.execute(statement)
            connection.execute("INSERT INTO schema_steps VALUES (?, ?)", (version, step.title))
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
