"""Checks: what in a store is damaged.

SQLite looks at its own structure and at foreign keys; every body is unpacked and held against its checksum, every row
of the small tables against its digest; what lists are sorted by against the body `statistics`; posting lists against
what each unit names, and that against its graph; programs against their checksums, and against the graphs, which are
compiled once more.
"""

import re
import sqlite3
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from saelens_n2g.errors import ArtefactError, N2GError
from saelens_n2g.store import postings, programs
from saelens_n2g.store.bodies import HEADER, Body, row_digest
from saelens_n2g.store.postings import BLOCK_BITS, EVERY, SCALE, unpack_tokens
from saelens_n2g.store.reader import Store
from saelens_n2g.store.schema import FIGURES, INDEX_BITS, PROGRAM_BITS, SERVICE_BITS, STEPS, migrate
from saelens_n2g.store.services import graph_of, tokens_of

MOST = 50
"""Findings after which no more are looked for."""
_ROWS = {
    "models": "name, n_layers, config, provenance",
    "bases": "model_id, name, kind, title, facts",
    "layers": "basis_id, layer, width, identity, provenance",
    "services": "name",
    "sources": "checksum, name, kind, provenance, total",
}
"""What the digest of a row is over, as the writer has it."""
_KEYS = {"units": f'(layer_id << {INDEX_BITS}) + "index"'} | {
    f"{owner}_bodies": f"({owner}_id << {SERVICE_BITS}) + service_id" for owner in ("unit", "layer", "model")
}
_KEYS["programs"] = f"(layer_id << {INDEX_BITS - PROGRAM_BITS}) + (id & {(1 << (INDEX_BITS - PROGRAM_BITS)) - 1})"
"""What numbers are made of."""
_SHAPE = ("SELECT type, name, tbl_name, sql FROM sqlite_schema", "SELECT version, title FROM schema_steps")
_FAULTS = (ArtefactError, KeyError, TypeError, ValueError, AttributeError, IndexError)


def verify(store: Store) -> list[str]:
    """What is damaged, a line each; empty if all is well."""
    found: list[str] = []
    for check in (_structure, _small_rows, _shared_bodies, _units, _postings, _programs):
        found += _some(check, store, MOST - len(found))
    return found


def _some(check: Callable[[Store], Iterator[str]], store: Store, most: int) -> list[str]:
    """The first findings of a check; that it could not go on is one too."""
    found: list[str] = []
    try:
        for finding in check(store):
            if len(found) >= most:
                break
            found.append(finding)
    except (N2GError, sqlite3.Error, *_FAULTS) as error:
        found.append(f"{check.__name__.strip('_').replace('_', ' ')}: {error}")
    return found


def _structure(store: Store) -> Iterator[str]:
    expected = sqlite3.connect(":memory:", isolation_level=None)
    migrate(expected, 0)
    for what in _SHAPE:
        if sorted(map(repr, store.rows(what))) != sorted(map(repr, expected.execute(what))):
            yield f"SQLite: its tables are not those of version {len(STEPS)}"
    expected.close()
    for (line,) in store.rows(f"PRAGMA integrity_check({MOST})"):
        if line != "ok":
            yield f"SQLite: {line}"
    for table, key in _KEYS.items():  # SQLite does not look at checks on the key itself
        for (number,) in store.rows(f"SELECT id FROM {table} WHERE id <> {key}"):
            yield f"{table} {number}: its number is not that of what it says it is"
    for table, number, other, _ in store.rows("PRAGMA foreign_key_check"):
        yield f"{table} {number}: there is no {other} that it names"


def _small_rows(store: Store) -> Iterator[str]:
    for table, columns in _ROWS.items():
        for number, kept, *values in store.rows(f"SELECT id, digest, {columns} FROM {table}"):
            if row_digest(*values) != kept:
                yield f"{table} {number}: the row is not what its digest says"
    for number, state in store.rows("SELECT id, similar_of FROM models"):
        if not re.fullmatch("|[0-9a-f]{16}", state):
            yield f"models {number}: no fingerprint of the graphs that similar units were found among"
    for (number,) in store.rows("SELECT id FROM sources WHERE done NOT BETWEEN 0 AND total"):
        yield f"source {number}: more units done than it has"


def _shared_bodies(store: Store) -> Iterator[str]:
    names = dict(store.rows("SELECT id, name FROM services"))
    for owner in ("layer", "model"):
        query = f"SELECT {owner}_id, service_id, body, etag, size FROM {owner}_bodies"
        for number, kind, *body in store.rows(query):
            _, fault = _value(*body)
            if fault:
                yield f"{owner} {number}, {names.get(kind, kind)}: {fault}"


def _value(body: bytes, etag: bytes, size: int) -> tuple[Any, str | None]:
    """The value of a body, or what is wrong with it."""
    try:
        if not body.startswith(HEADER):
            return None, "not the gzip header that all bodies have"
        return Body(body, etag.hex(), size).json(), None
    except _FAULTS as error:
        return None, str(error)


def _units(store: Store) -> Iterator[str]:
    """Every unit: its bodies, its columns, what it names, its similar units."""
    names = dict(store.rows("SELECT id, name FROM services"))
    texts = dict(store.rows("SELECT id, text FROM tokens"))
    columns = ", ".join(FIGURES)
    query = f"SELECT u.id, u.failure, t.tokens, {columns} FROM units u LEFT JOIN unit_tokens t ON t.unit_id = u.id"
    for number, failure, tokens, *figures in store.connection.execute(query):
        values: dict[str, Any] = {}
        key = number << SERVICE_BITS
        for kind, *body in store.rows(
            "SELECT service_id, body, etag, size FROM unit_bodies WHERE id BETWEEN ? AND ?", key, key + 255
        ):
            name = names.get(kind, str(kind))
            values[name], fault = _value(*body)
            if fault:
                yield f"unit {number}, {name}: {fault}"
                values.pop(name)
        try:
            yield from _unit(store, number, values, failure, dict(zip(FIGURES, figures, strict=True)), tokens, texts)
        except _FAULTS as error:
            yield f"unit {number}: {type(error).__name__}: {error}"


def _unit(
    store: Store,
    number: int,
    values: dict[str, Any],
    failure: str | None,
    figures: dict[str, Any],
    tokens: bytes | None,
    texts: dict[int, str],
) -> Iterator[str]:
    if (said := values.get("statistics")) is not None:
        if "figures" in said and said["figures"] != figures:
            yield f"unit {number}: columns are not what its statistics say"
        if said.get("failure") != failure:
            yield f"unit {number}: its failure is not what its statistics say"
    if tokens is None:
        yield f"unit {number}: it is not known what it names"
    elif "neuron2graph" in values:
        named = {(role, texts[token]): s for (token, role), s in unpack_tokens(tokens).items() if token != EVERY}
        expected = {key: round(s * SCALE) / SCALE for key, s in tokens_of(graph_of(values["neuron2graph"])).items()}
        if named != expected:
            yield f"unit {number}: it is found by other tokens than its graph names"
    rows = store.rows("SELECT similarity, own, other FROM similar WHERE unit_id = ?", number)
    kept = [
        (one["similarity"], one["own"], one["other"]) for one in values.get("similarity", {"similar": []})["similar"]
    ]
    if sorted(rows) != sorted(kept):
        yield f"unit {number}: similar units are not what is sent of them"


def _postings(store: Store) -> Iterator[str]:
    """Posting lists say what the units say: counted in both, and looked up one way."""
    named: dict[int, dict[int, float]] = {}
    for number, tokens in store.connection.execute("SELECT unit_id, tokens FROM unit_tokens"):
        for (token, role), strength in unpack_tokens(tokens).items():
            key = postings.posting_key(token, role, number >> BLOCK_BITS)
            named.setdefault(key, {})[number & ((1 << BLOCK_BITS) - 1)] = strength
    for key, units, strengths in store.connection.execute("SELECT id, units, strengths FROM postings"):
        row = postings.unpack(key, units, strengths)
        token, role, block = postings.parts_of(key)
        if named.pop(key, {}) != dict(zip(row.places.tolist(), row.strengths.tolist(), strict=True)):
            yield f"postings of token {token} in role {role}, block {block}: not what the units name"
    for key in named:
        yield f"postings of token {postings.parts_of(key)[0]}: missing"


def _programs(store: Store) -> Iterator[str]:
    """Every block has a row; a program in it is what the graphs give that are there now."""
    blocks = {block for (block,) in store.rows("SELECT id FROM programs")}
    for (block,) in store.rows(f"SELECT DISTINCT id >> {PROGRAM_BITS} FROM units"):
        if block not in blocks:
            yield f"program {block}: missing"
    for block in sorted(blocks):
        try:
            if fault := _program(store, block):
                yield f"program {block}: {fault}"
        except _FAULTS as error:
            yield f"program {block}: {error}"


def _program(store: Store, block: int) -> str | None:
    """What is wrong with it."""
    query = "SELECT graphs, graphs_of, digest, program FROM programs WHERE id = ?"
    ((graphs, graphs_of, digest, data),) = store.rows(query, block)
    if not graphs_of:
        return "none, and yet something" if graphs or digest or data else None
    if programs.digest_of(graphs, graphs_of, data) != digest:
        return "not what its checksum says"
    etags = programs.etags_of(store.connection, block)
    if len(etags) != graphs or programs.state_of(etags) != graphs_of:
        return "not of the graphs that are there"
    kept, made = programs.read(data), programs.arrays_of(store.connection, list(etags))
    same = kept.keys() == made.keys() and all(
        kept[name].dtype == made[name].dtype and np.array_equal(kept[name], made[name]) for name in made
    )
    return None if same else "not what the graphs give when they are compiled"
