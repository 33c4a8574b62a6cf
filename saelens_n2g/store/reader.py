"""Store: what is in a store, read only.

    with Store.open(Path("atlas.db")) as store:
        unit = store.unit("embedded", "sae", 1, 1106)
        body = store.body(unit.id, "neuron2graph")     # gzipped JSON, as it is sent
        store.listing("embedded", basis="sae", sort="f1", limit=10)
        store.search("activating:york and not layer=0", model="embedded")

A store may be read while a writer adds to it. Numbers of models, bases, layers and units never change.
"""

import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from saelens_n2g.errors import ArtefactError, InputError
from saelens_n2g.store.bodies import Body
from saelens_n2g.store.records import Basis, Hits, Layer, Model, Page, Place, Similar, Source, Unit
from saelens_n2g.store.schema import FIGURES, INDEX_BITS, SERVICE_BITS, Closing, body_key, connect, speaking, unit_key

PLACE = "place"
"""Sorted by basis, layer, index."""
MOST = 1000
"""Units of a page at most."""
_UNIT = (
    'SELECT u.id, m.name, b.name, l.layer, u."index", u.source_id, u.failure, '
    + ", ".join(f"u.{name}" for name in FIGURES)
    + " FROM units u JOIN layers l ON l.id = u.layer_id JOIN bases b ON b.id = l.basis_id "
    "JOIN models m ON m.id = b.model_id"
)
_OF_MODEL = (
    "FROM models m JOIN bases b ON b.model_id = m.id JOIN layers l ON l.basis_id = b.id "
    f"JOIN units u ON u.id BETWEEN l.id << {INDEX_BITS} AND (l.id << {INDEX_BITS}) + {(1 << INDEX_BITS) - 1}"
)
_UNIT_BODY, _LAYER_BODY, _MODEL_BODY = (
    f"SELECT body, etag, size FROM {owner}_bodies WHERE id = ?" for owner in ("unit", "layer", "model")
)
_LAYER = (
    "SELECT l.id, m.name, b.name, l.layer, l.width, "
    f"(SELECT count(*) FROM units u WHERE u.id BETWEEN l.id << {INDEX_BITS} AND (l.id << {INDEX_BITS}) + "
    f"{(1 << INDEX_BITS) - 1}), l.identity, l.provenance "
    "FROM layers l JOIN bases b ON b.id = l.basis_id JOIN models m ON m.id = b.model_id"
)


class Store(Closing):
    """An open store; `Store.open` makes one. One thread at a time may use it."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path, self.connection = path, connection
        self._services: dict[str, int] = {}
        self._layers: dict[tuple[str, str, int], int] = {}

    @classmethod
    def open(cls, path: Path) -> "Store":
        """Raises `InputError` if there is nothing at `path`, `ArtefactError` if it is no store of this version."""
        return cls(path, connect(path, write=False))

    def close(self) -> None:
        """Let go of the file; may be called twice."""
        self.connection.close()

    def hold(self) -> None:
        """Keep the state that is there now, and its lock, until `release`: look-ups in between cost a third. A writer
        waits meanwhile, so it should be milliseconds. Raises `InputError` if a writer keeps the file for long."""
        with speaking(self.path):
            self.connection.execute("BEGIN")
            self.connection.execute("SELECT id FROM services LIMIT 1").fetchall()  # SQLite locks when it reads

    def release(self) -> None:
        """See `hold`; may be called without it."""
        if self.connection.in_transaction:
            self.connection.execute("COMMIT")

    # --- what there is --------------------------------------------------------------------------------------------

    def models(self) -> list[Model]:
        """All models by name."""
        rows = self.rows("SELECT id, name, n_layers, config, provenance FROM models ORDER BY name")
        return [Model(*row[:3], *map(_parsed, row[3:])) for row in rows]

    def bases(self, model: str) -> list[Basis]:
        """The bases of a model by name, with their layers. Raises `InputError` for an unknown model."""
        self._known(model, [one.name for one in self.models()], "model")
        layers: dict[str, list[Layer]] = {}
        for layer in self.layers(model):
            layers.setdefault(layer.basis, []).append(layer)
        rows = self.rows(
            "SELECT b.id, m.name, b.name, b.kind, b.title, b.facts FROM bases b JOIN models m ON m.id = b.model_id "
            "WHERE m.name = ? ORDER BY b.name",
            model,
        )
        return [
            Basis(number, of, basis, kind, title, _parsed(facts), tuple(layers.get(basis, [])))
            for number, of, basis, kind, title, facts in rows
        ]

    def layers(self, model: str | None = None) -> list[Layer]:
        """All layers (of a model) by model, basis and layer."""
        where, values = ("", ()) if model is None else (" WHERE m.name = ?", (model,))
        rows = self.rows(f"{_LAYER}{where} ORDER BY m.name, b.name, l.layer", *values)
        return [Layer._make((*row[:7], _parsed(row[7]))) for row in rows]

    def places(self, model: str | None = None) -> list[Place]:
        """Where there are layers (of a model), by model, basis and layer; quicker than `layers`, which counts units."""
        where, values = ("", ()) if model is None else (" WHERE m.name = ?", (model,))
        query = (
            "SELECT l.id, m.name, b.name, l.layer FROM layers l JOIN bases b ON b.id = l.basis_id "
            f"JOIN models m ON m.id = b.model_id{where} ORDER BY m.name, b.name, l.layer"
        )
        return [Place(*row) for row in self.rows(query, *values)]

    def services(self, unit_id: int) -> list[str]:
        """Names of what is stored of a unit."""
        query = (
            "SELECT s.name FROM unit_bodies u JOIN services s ON s.id = u.service_id "
            "WHERE u.id BETWEEN ? AND ? ORDER BY s.name"
        )
        return [name for (name,) in self.rows(query, body_key(unit_id, 0), body_key(unit_id, 255))]

    def services_of(self, model: str) -> set[str]:
        """Names of what is stored of some unit of a model. Looks at all its units for a name that none of them has and
        those of another model have."""
        body = f"JOIN unit_bodies k ON k.id = (u.id << {SERVICE_BITS}) + ?"
        query = f"SELECT EXISTS (SELECT 1 {_OF_MODEL} {body} WHERE m.name = ?)"
        known = self.rows("SELECT id, name FROM services")
        return {name for number, name in known if self.rows(query, number, model)[0][0]}

    def sources_of(self, model: str) -> list[Source]:
        """What units of a model were imported from."""
        query = f"SELECT DISTINCT u.source_id {_OF_MODEL} WHERE m.name = ?"
        return [self.source(number) for (number,) in self.rows(query, model)]

    def sources(self) -> list[Source]:
        """What was imported, in that order."""
        rows = self.rows("SELECT id, checksum, name, kind, done, total, provenance FROM sources ORDER BY id")
        return [Source._make((*row[:6], _parsed(row[6]))) for row in rows]

    def source(self, number: int) -> Source:
        """Where a unit comes from. Raises `InputError` for an unknown number."""
        columns = "id, checksum, name, kind, done, total, provenance"
        rows = self.rows(f"SELECT {columns} FROM sources WHERE id = ?", number)
        if not rows:
            raise InputError(f"source {number}", "a number that the store knows", "none")
        return Source._make((*rows[0][:6], _parsed(rows[0][6])))

    # --- units ----------------------------------------------------------------------------------------------------

    def unit_id(self, model: str, basis: str, layer: int, index: int) -> int:
        """Number of a unit, whether it is stored or not. Raises `InputError` if the layer is not, or is narrower."""
        key = (model, basis, layer)
        if key not in self._layers:
            found = [one.id for one in self.places(model) if (one.basis, one.layer) == (basis, layer)]
            if not found:
                raise InputError(f"layer {layer} of {basis} of {model}", "a layer in the store", self._there(model))
            self._layers[key] = found[0]
        if not 0 <= index < 1 << INDEX_BITS:
            raise InputError(f"unit {index}", f"0 to {(1 << INDEX_BITS) - 1}", str(index))
        return unit_key(self._layers[key], index)

    def unit(self, model: str, basis: str, layer: int, index: int) -> Unit:
        """A unit by its address. Raises `InputError` if the store does not have it."""
        found = self.units([self.unit_id(model, basis, layer, index)])
        if not found:
            raise InputError(f"unit {layer}/{basis}/{index} of {model}", "a unit in the store", "none")
        return found[0]

    def units(self, numbers: Iterable[int]) -> list[Unit]:
        """Units by number, in that order; those that are not there are left out."""
        wanted = list(numbers)
        found: dict[int, Unit] = {}
        for start in range(0, len(wanted), 500):  # SQLite takes so many values at once
            part = wanted[start : start + 500]
            rows = self.rows(f"{_UNIT} WHERE u.id IN ({', '.join('?' * len(part))})", *part)
            found.update((row[0], _unit(row)) for row in rows)
        return [found[number] for number in wanted if number in found]

    def neighbours(self, unit_id: int) -> tuple[int | None, int | None]:
        """Indices of the units of the same layer before and behind one, whether that is stored or not."""
        first, last = unit_id >> INDEX_BITS << INDEX_BITS, (unit_id >> INDEX_BITS) + 1 << INDEX_BITS
        query = (
            "SELECT (SELECT max(id) FROM units WHERE id >= ? AND id < ?), "
            "(SELECT min(id) FROM units WHERE id > ? AND id < ?)"
        )
        ((before, behind),) = self.rows(query, first, unit_id, unit_id, last)
        return None if before is None else before - first, None if behind is None else behind - first

    def nth(self, layer_id: int, n: int) -> int | None:
        """Index of the unit of a layer that `n` others come before; None if there are fewer."""
        first = (layer_id << INDEX_BITS, (layer_id + 1 << INDEX_BITS) - 1)
        rows = self.rows("SELECT id FROM units WHERE id BETWEEN ? AND ? ORDER BY id LIMIT 1 OFFSET ?", *first, n)
        return rows[0][0] - first[0] if rows else None

    def body(self, unit_id: int, service: str) -> Body | None:
        """What is stored of a unit under the name of a service; None if nothing is."""
        return self._body(_UNIT_BODY, unit_id, service)

    def two_bodies(self, unit_id: int, service: str, other: str) -> tuple[Body | None, Body | None]:
        """Two of a unit's bodies with one look-up."""
        kinds = self._service(service), self._service(other)
        keys = [None if kind is None else body_key(unit_id, kind) for kind in kinds]
        rows = self.rows("SELECT id, body, etag, size FROM unit_bodies WHERE id IN (?, ?)", *keys)
        found = {row[0]: Body(row[1], row[2].hex(), row[3]) for row in rows}
        return found.get(keys[0]), found.get(keys[1])

    def bodies(self, unit_id: int) -> dict[str, Body]:
        """All that is stored of a unit, by service."""
        query = (
            "SELECT s.name, u.body, u.etag, u.size FROM unit_bodies u JOIN services s ON s.id = u.service_id "
            "WHERE u.id BETWEEN ? AND ?"
        )
        rows = self.rows(query, body_key(unit_id, 0), body_key(unit_id, 255))
        return {name: Body(body, etag.hex(), size) for name, body, etag, size in rows}

    def layer_body(self, layer_id: int, service: str) -> Body | None:
        """The same of a layer."""
        return self._body(_LAYER_BODY, layer_id, service)

    def model_body(self, model_id: int, service: str) -> Body | None:
        """The same of a model."""
        return self._body(_MODEL_BODY, model_id, service)

    def similar(self, unit_id: int) -> list[Similar]:
        """Units whose graphs name the same tokens, best first."""
        rows = self.rows(
            "SELECT other_id, similarity, own, other FROM similar WHERE unit_id = ? "
            "ORDER BY similarity DESC, min(own, other) DESC, other_id",
            unit_id,
        )
        return [Similar(unit, *row[1:]) for unit, row in zip(self.units(row[0] for row in rows), rows, strict=True)]

    def columns(self, layer_id: int, *names: str) -> list[tuple[float | int | None, ...]]:
        """Values of some `FIGURES` of every unit of a layer, by index. Raises `InputError` for other names."""
        for name in names:
            self._known(name, tuple(FIGURES), "column")
        first = (layer_id << INDEX_BITS, (layer_id + 1 << INDEX_BITS) - 1)
        return self.rows(f"SELECT {', '.join(names)} FROM units WHERE id BETWEEN ? AND ? ORDER BY id", *first)

    def listing(
        self,
        model: str,
        *,
        basis: str | None = None,
        layer: int | None = None,
        sort: str = PLACE,
        descending: bool = True,
        at_least: Mapping[str, float] | None = None,
        at_most: Mapping[str, float] | None = None,
        limit: int = 50,
        offset: int = 0,
    ) -> Page:
        """Units of a model, of a basis, of a layer; sorted by a column of `FIGURES`, undefined values last.

        at_least, at_most: column -> bound; a unit whose value is undefined is in neither. `PLACE`, the usual order, is
        always ascending. Raises `InputError` for unknown names.
        """
        check_page(limit, offset)
        bounds = [(name, ">=", b) for name, b in (at_least or {}).items()]
        bounds += [(name, "<=", b) for name, b in (at_most or {}).items()]
        for name in (sort, *(name for name, *_ in bounds)):
            self._known(name, (PLACE, *FIGURES) if name == sort else tuple(FIGURES), "column")
        chosen = [one.id for one in self.places(model) if basis in (None, one.basis) and layer in (None, one.layer)]
        if not chosen:
            raise InputError(f"units of {model}", "a model, basis and layer in the store", self._there(model))
        where = f" WHERE {_inside(chosen)}"
        where += "".join(f" AND u.{name} {sign} ?" for name, sign, _ in bounds)
        values = [bound for *_, bound in bounds]
        direction = "DESC" if descending else "ASC"
        order, join = f"u.{sort} IS NULL, u.{sort} {direction}, u.id", ""
        if sort == PLACE:
            order, join = (
                "b.name, l.layer, u.id",
                "JOIN layers l ON l.id = u.layer_id JOIN bases b ON b.id = l.basis_id",
            )
        ((total,),) = self.rows(f"SELECT count(*) FROM units u{where}", *values)
        # Numbers are sorted, not rows: SQLite would carry all columns along.
        query = f"SELECT u.id FROM units u {join}{where} ORDER BY {order} LIMIT ? OFFSET ?"
        return Page(total, tuple(self.units(row[0] for row in self.rows(query, *values, limit, offset))))

    def search(
        self, query: str, *, model: str | None = None, sort: str = PLACE, limit: int = 50, offset: int = 0
    ) -> Hits:
        """Units that name tokens as `query` says (`saelens_n2g.store.grammar`), of one model or of all.

        sort: `PLACE` or `strength`. Raises `InputError` for a query that cannot be read, with the place.
        """
        from saelens_n2g.store.search import find

        return find(self, query, model=model, sort=sort, limit=limit, offset=offset)

    def verify(self) -> list[str]:
        """What is damaged, a line each; empty if all is well. Reads everything (`saelens_n2g.store.checks`)."""
        from saelens_n2g.store.checks import verify

        return verify(self)

    # --- rows -----------------------------------------------------------------------------------------------------

    def rows(self, query: str, *values: Any) -> list[Any]:
        """All rows of a query. Raises `ArtefactError` if the file is damaged."""
        try:
            return self.connection.execute(query, values).fetchall()
        except (sqlite3.Error, UnicodeDecodeError):
            with speaking(self.path):
                raise

    def _body(self, query: str, owner: int, service: str) -> Body | None:
        kind = self._service(service)
        rows = self.rows(query, body_key(owner, kind)) if kind else []
        return Body(rows[0][0], rows[0][1].hex(), rows[0][2]) if rows else None

    def _service(self, name: str) -> int | None:
        """Number of a service."""
        kind = self._services.get(name)
        if kind is None:
            known = self.rows("SELECT id FROM services WHERE name = ?", name)
            if not known:
                return None
            kind = self._services[name] = int(known[0][0])
        return kind

    def _there(self, model: str) -> str:
        """What there is instead, for errors."""
        there = sorted({f"{one.basis} at {one.layer}" for one in self.places(model)})
        more = f" and {len(there) - 8} more" if len(there) > 8 else ""
        return (", ".join(there[:8]) + more) or f"models {', '.join(one.name for one in self.models()) or '(none)'}"

    @staticmethod
    def _known(name: str, known: Sequence[str], what: str) -> None:
        if name not in known:
            raise InputError(f"{what} {name!r}", f"one of {', '.join(known)}", repr(name))


def _inside(layers: Sequence[int]) -> str:
    """The condition that a unit is of one of these layers, by number where that spares looking at all units."""
    runs: list[list[int]] = []
    for number in sorted(layers):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    if len(runs) > 100:  # SQLite's conditions have a depth
        return f"u.layer_id IN ({', '.join(map(str, layers))})"
    between = (f"u.id BETWEEN {first << INDEX_BITS} AND {(last + 1 << INDEX_BITS) - 1}" for first, last in runs)
    return f"({' OR '.join(between)})"


def check_page(limit: int, offset: int) -> None:
    """Raises `InputError` for pages that cannot be."""
    if not 0 <= limit <= MOST:
        raise InputError("limit", f"0 to {MOST}", str(limit))
    if not 0 <= offset < 1 << 62:
        raise InputError("offset", "an integer >= 0", str(offset))


def _unit(row: Sequence[Any]) -> Unit:
    number, model, basis, layer, index, source, failure, *figures = row
    return Unit(number, model, basis, layer, index, source, failure, dict(zip(FIGURES, figures, strict=True)))


def _parsed(text: str) -> dict[str, Any]:
    """A JSON column. Raises `ArtefactError` if it is damaged."""
    try:
        value: dict[str, Any] = json.loads(text)
    except (TypeError, ValueError) as error:
        raise ArtefactError("store", "whole JSON in its tables", str(error)) from error
    return value
