"""Writer: the one who writes a store, a batch at a time; each batch is in it as a whole or not at all.

    with Writer(Path("atlas.db")) as writer:
        with writer.batch():
            model = writer.model(ModelFacts(...))
            ...
            writer.unit(layer, source, UnitFacts(...))

While it writes, the store is in SQLite's WAL mode: others can read it, and if the process is killed they find the last
finished batch. At the end it is one plain file again. Bodies that are there already with the same content stay as they
are. What is written twice is there once; nothing is ever removed but bodies that a unit no longer has.
"""

import contextlib
import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from saelens_n2g.errors import ArtefactError, InputError
from saelens_n2g.jobs.artefacts import ensure_folder
from saelens_n2g.store.bodies import Body, compress, digest, row_digest, serialise
from saelens_n2g.store.postings import EVERY, Strengths, change, pack_tokens, unpack_tokens
from saelens_n2g.store.records import BasisFacts, LayerFacts, ModelFacts, Source, SourceFacts, UnitFacts
from saelens_n2g.store.schema import (
    FIGURES,
    GRAPH,
    INDEX_BITS,
    PROGRAM_BITS,
    Closing,
    body_key,
    connect,
    speaking,
    unit_key,
)

SIMILARITY = "similarity"
"""The service that is not part of what a unit is imported with."""
_COLUMNS = ("id", "layer_id", "source_id", '"index"', "failure", *FIGURES)
_UPSERT = (
    f"INSERT INTO units ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))}) ON CONFLICT (id) DO UPDATE "
    f"SET {', '.join(f'{name} = excluded.{name}' for name in _COLUMNS[1:])}"
)


class Writer(Closing):
    """Opens the store at `path` for writing, or makes it.

    Raises `InputError` if another process writes to it or the place cannot be written, `ArtefactError` for a file of
    another kind or of a newer version; an older one is brought up to date.
    """

    def __init__(self, path: Path) -> None:
        ensure_folder(path.parent)
        self.path = path
        self._lock = FileLock(f"{path}.lock")
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise InputError(f"store {path}", "nobody else who writes to it", "another process that does") from None
        try:
            self.connection = connect(path, write=True)
        except BaseException:
            self._lock.release()
            raise
        self._services: dict[str, int] = {}
        self._tokens: dict[str, int] = {}
        self._removed: list[tuple[int, Strengths]] = []
        self._added: list[tuple[int, Strengths]] = []

    def close(self) -> None:
        """Make the store one plain file, unless others read it at this moment, and let go of it."""
        try:
            with speaking(self.path):
                self.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                # Refused while others read: then it stays in WAL mode, which is as good, and the next writer ends it.
                with contextlib.suppress(sqlite3.OperationalError):
                    self.connection.execute("PRAGMA journal_mode = DELETE")
        finally:
            self.connection.close()
            self._lock.release()

    @contextlib.contextmanager
    def batch(self) -> Iterator[None]:
        """What is written inside is there when the block ends, or, if it raises, not at all."""
        with speaking(self.path):
            self.connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                change(self.connection, self._removed, self._added)
                self.connection.execute("COMMIT")
            except BaseException:
                if self.connection.in_transaction:  # SQLite itself rolls back where the disk is full
                    self.connection.execute("ROLLBACK")
                self._services.clear()  # numbers that were given inside are free again
                self._tokens.clear()
                raise
            finally:
                self._removed, self._added = [], []

    # --- who is there ---------------------------------------------------------------------------------------------

    def model(self, facts: ModelFacts) -> int:
        """Number of the model, with its bodies stored. Raises `InputError` if another one has its name."""
        config, provenance = _json(facts.config), _json(facts.provenance)
        known = self._one("SELECT id, n_layers, config FROM models WHERE name = ?", facts.name)
        if known is not None and known[1:] != (facts.n_layers, config):
            raise InputError(
                f"model {facts.name}",
                f"{known[1]} layers and {known[2]}, as in the store",
                f"{facts.n_layers}, {config}",
            )
        values = (facts.name, facts.n_layers, config, provenance)
        model = self._row("models", ("name", "n_layers", "config", "provenance"), values, known)
        for service, value in facts.bodies.items():
            self._body("model", model, service, serialise(value))
        return model

    def basis(self, model: int, facts: BasisFacts) -> int:
        """Number of the basis. Raises `InputError` if one at another kind of site has its name."""
        known = self._one("SELECT id, kind FROM bases WHERE model_id = ? AND name = ?", model, facts.name)
        if known is not None and known[1] != facts.kind:
            raise InputError(f"basis {facts.name}", f"site {known[1]}, as in the store", f"{facts.kind}; {_RENAME}")
        values = (model, facts.name, facts.kind, facts.title, _json(facts.facts))
        return self._row("bases", ("model_id", "name", "kind", "title", "facts"), values, known)

    def layer(self, basis: int, facts: LayerFacts) -> int:
        """Number of the layer, with its bodies stored. Raises `InputError` if its units are others than those there."""
        known = self._one("SELECT id, width, identity FROM layers WHERE basis_id = ? AND layer = ?", basis, facts.layer)
        (name,) = self._one("SELECT name FROM bases WHERE id = ?", basis) or ("",)
        thing = f"basis {name} at layer {facts.layer}"
        if known is not None and known[1:] != (facts.width, facts.identity):
            found = f"others (of {facts.width}); {_RENAME}"
            raise InputError(thing, f"the units that the store has there ({known[1]} wide)", found)
        if not 0 < facts.width <= 1 << INDEX_BITS:
            raise ArtefactError(thing, f"1 to {1 << INDEX_BITS} units", str(facts.width))
        values = (basis, facts.layer, facts.width, facts.identity, _json(facts.provenance))
        layer = self._row("layers", ("basis_id", "layer", "width", "identity", "provenance"), values, known)
        for service, value in facts.bodies.items():
            self._body("layer", layer, service, serialise(value))
        return layer

    def source(self, facts: SourceFacts) -> Source:
        """The source, and how far its import has come."""
        provenance = _json(facts.provenance)
        known = self._one("SELECT id, done FROM sources WHERE checksum = ?", facts.checksum)
        if known is None:
            values = (facts.checksum, facts.name, facts.kind, provenance, facts.total)
            columns = ("checksum", "name", "kind", "provenance", "total")
            known = self._row("sources", columns, values, None, done=0), 0
        number, done = known
        return Source(number, facts.checksum, facts.name, facts.kind, done, facts.total, dict(facts.provenance))

    def progress(self, source: Source, done: int) -> None:
        """So many of a source's units are in the store."""
        self.connection.execute("UPDATE sources SET done = ? WHERE id = ?", (done, source.id))

    # --- units ----------------------------------------------------------------------------------------------------

    def unit(self, layer: int, source: Source, facts: UnitFacts) -> int:
        """Store a unit, in the place of what is known of it; its number.

        Raises `ValueError` for values that are no JSON.
        """
        number = unit_key(layer, facts.index)
        figures = [facts.figures.get(name) for name in FIGURES]
        self.connection.execute(_UPSERT, (number, layer, source.id, facts.index, facts.failure, *figures))
        changed = [name for name, value in facts.bodies.items() if self._body("unit", number, name, serialise(value))]
        kept = [self._service(name) for name in (*facts.bodies, SIMILARITY)]
        removed = self.connection.execute(
            f"DELETE FROM unit_bodies WHERE id BETWEEN ? AND ? AND service_id NOT IN ({', '.join('?' * len(kept))})",
            (body_key(number, 0), body_key(number, 255), *kept),
        )
        self._block(number, stale=GRAPH in changed or (GRAPH not in facts.bodies and removed.rowcount > 0))
        self._name(number, facts.tokens)
        return number

    def replace(self, unit: int, service: str, value: Any) -> bool:
        """Store another body in the place of one that a unit has; whether it is another. The unit is there.

        Raises `ValueError` for what is no JSON.
        """
        return self._body("unit", unit, service, serialise(value))

    def similar(self, unit: int, others: Sequence[tuple[int, float, float, float]], body: Any) -> None:
        """Store which units are similar, as (number, similarity, own, other), best first, and what is sent of it.

        With None for a body the unit has none.
        """
        self.connection.execute("DELETE FROM similar WHERE unit_id = ?", (unit,))
        self.connection.executemany("INSERT INTO similar VALUES (?, ?, ?, ?, ?)", [(unit, *one) for one in others])
        if body is not None:
            self._body("unit", unit, SIMILARITY, serialise(body))
        else:
            key = body_key(unit, self._service(SIMILARITY))
            self.connection.execute("DELETE FROM unit_bodies WHERE id = ?", (key,))

    # --- what was written -----------------------------------------------------------------------------------------

    def units_of(self, model: str) -> list[tuple[int, str, int, int]]:
        """Number, basis, layer and index of every unit of a model, in that order."""
        query = (
            'SELECT u.id, b.name, l.layer, u."index" FROM units u JOIN layers l ON l.id = u.layer_id '
            "JOIN bases b ON b.id = l.basis_id JOIN models m ON m.id = b.model_id WHERE m.name = ? "
            "ORDER BY b.name, l.layer, u.id"
        )
        with speaking(self.path):
            return self.connection.execute(query, (model,)).fetchall()

    def etags(self, model: str, service: str) -> dict[int, str]:
        """Etag of that body by number of the unit, of those units of a model that have one."""
        query = (
            "SELECT u.unit_id, u.etag FROM unit_bodies u JOIN services s ON s.id = u.service_id "
            f"JOIN layers l ON l.id = u.unit_id >> {INDEX_BITS} JOIN bases b ON b.id = l.basis_id "
            "JOIN models m ON m.id = b.model_id WHERE s.name = ? AND m.name = ?"
        )
        with speaking(self.path):
            return {number: etag.hex() for number, etag in self.connection.execute(query, (service, model))}

    def body(self, unit: int, service: str) -> Body:
        """A stored body, which is there."""
        with speaking(self.path):
            query = "SELECT body, etag, size FROM unit_bodies WHERE id = ?"
            row = self._one(query, body_key(unit, self._service(service)))
        return Body(row[0], row[1].hex(), row[2])

    def similar_of(self, model: str) -> str:
        """Which graphs similar units were found among; empty for none."""
        with speaking(self.path):
            found = self._one("SELECT similar_of FROM models WHERE name = ?", model)
        return str(found[0]) if found else ""

    def set_similar_of(self, model: str, state: str) -> None:
        """Note it."""
        self.connection.execute("UPDATE models SET similar_of = ? WHERE name = ?", (state, model))

    # --- what is made of all of it --------------------------------------------------------------------------------

    def blocks(self, model: str) -> list[tuple[int, str]]:
        """Numbers of a model's blocks of units, and of which graphs each has its program; empty for none."""
        query = (
            "SELECT p.id, p.graphs_of FROM programs p JOIN layers l ON l.id = p.layer_id "
            "JOIN bases b ON b.id = l.basis_id JOIN models m ON m.id = b.model_id WHERE m.name = ? ORDER BY p.id"
        )
        with speaking(self.path):
            return self.connection.execute(query, (model,)).fetchall()

    def program(self, block: int, graphs: int, graphs_of: str, digest: bytes, data: bytes) -> None:
        """Store the program of a block; `saelens_n2g.store.programs` says what all that is."""
        query = "UPDATE programs SET graphs = ?, graphs_of = ?, digest = ?, program = ? WHERE id = ?"
        self.connection.execute(query, (graphs, graphs_of, digest, data, block))

    def says(self, model: str, service: str) -> bool:
        """Whether the model has that body."""
        query = (
            "SELECT 1 FROM model_bodies b JOIN services s ON s.id = b.service_id JOIN models m ON m.id = b.model_id "
            "WHERE m.name = ? AND s.name = ?"
        )
        with speaking(self.path):
            return self._one(query, model, service) is not None

    def origin(self, model: str) -> tuple[str, str | None]:
        """Under which name, and revision, the model ran that the units of this one come from."""
        query = (
            "SELECT s.provenance FROM sources s JOIN units u ON u.source_id = s.id JOIN layers l ON l.id = u.layer_id "
            "JOIN bases b ON b.id = l.basis_id JOIN models m ON m.id = b.model_id WHERE m.name = ? LIMIT 1"
        )
        with speaking(self.path):
            found = self._one(query, model)
        subject = json.loads(found[0]).get("subject", {}) if found else {}
        return str(subject.get("model", model)), subject.get("revision")

    def say(self, model: str, service: str, value: Any) -> None:
        """Store a body of a model that is there. Raises `InputError` for another, `ValueError` for what is no JSON."""
        known = self._one("SELECT id FROM models WHERE name = ?", model)
        if known is None:
            raise InputError(f"model {model}", "a model in the store", "none")
        self._body("model", known[0], service, serialise(value))

    # --- parts of a unit ------------------------------------------------------------------------------------------

    def _name(self, unit: int, tokens: Mapping[tuple[int, str], float]) -> None:
        """Note which tokens the unit names; the posting lists are changed when the batch ends."""
        named = {(self._token(text), role): strength for (role, text), strength in tokens.items()}
        packed = pack_tokens({**named, (EVERY, 0): 1.0})
        known = self._one("SELECT tokens FROM unit_tokens WHERE unit_id = ?", unit)
        if known is not None and known[0] == packed:
            return
        if known is not None:
            self._removed.append((unit, unpack_tokens(known[0])))
        self._added.append((unit, {**named, (EVERY, 0): 1.0}))
        self.connection.execute("INSERT OR REPLACE INTO unit_tokens VALUES (?, ?)", (unit, packed))

    def _block(self, unit: int, *, stale: bool) -> None:
        """Note that the unit's block is there; if `stale`, it has no program until it is compiled anew."""
        block = unit >> PROGRAM_BITS
        query = "INSERT INTO programs (id, layer_id) VALUES (?, ?) ON CONFLICT (id) DO NOTHING"
        self.connection.execute(query, (block, unit >> INDEX_BITS))
        if stale:
            query = "UPDATE programs SET graphs = 0, graphs_of = '', digest = x'', program = x'' WHERE id = ? "
            self.connection.execute(f"{query} AND graphs_of <> ''", (block,))

    def _body(self, owner: str, number: int, service: str, raw: bytes) -> bool:
        """Store a body, unless it is there; whether it was not."""
        kind, etag = self._service(service), digest(raw)
        key = body_key(number, kind)
        known = self._one(f"SELECT etag FROM {owner}_bodies WHERE id = ?", key)
        if known is None or known[0] != etag:
            values = (key, number, kind, etag, len(raw), compress(raw))
            self.connection.execute(f"INSERT OR REPLACE INTO {owner}_bodies VALUES (?, ?, ?, ?, ?, ?)", values)
            return True
        return False

    # --- rows -----------------------------------------------------------------------------------------------------

    def _service(self, name: str) -> int:
        if name not in self._services:
            known = self._one("SELECT id FROM services WHERE name = ?", name)
            self._services[name] = int(known[0]) if known else self._row("services", ("name",), (name,), None)
        return self._services[name]

    def _token(self, text: str) -> int:
        if text not in self._tokens:
            known = self._one("SELECT id FROM tokens WHERE text = ?", text)
            if known is None:
                known = (self.connection.execute("INSERT INTO tokens (text) VALUES (?)", (text,)).lastrowid,)
            self._tokens[text] = int(known[0])
        return self._tokens[text]

    def _row(
        self, table: str, columns: Sequence[str], values: Sequence[str | int], known: Sequence[Any] | None, **more: int
    ) -> int:
        """Store a row of a small table with its digest, in the place of the one that is `known`; its number."""
        names = (*columns, "digest", *more)
        row = (*values, row_digest(*values), *more.values())
        if known is not None:
            assignments = ", ".join(f"{name} = ?" for name in names)
            self.connection.execute(f"UPDATE {table} SET {assignments} WHERE id = ?", (*row, known[0]))
            return int(known[0])
        places = ", ".join("?" * len(names))
        cursor = self.connection.execute(f"INSERT INTO {table} ({', '.join(names)}) VALUES ({places})", row)
        return int(cursor.lastrowid or 0)

    def _one(self, query: str, *values: Any) -> Any:
        return self.connection.execute(query, values).fetchone()


_RENAME = "import it under another name with --rename NAME=OTHER"


def _json(value: Any) -> str:
    return serialise(value).decode()
