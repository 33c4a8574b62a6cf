"""Answers: what is stored of units and layers, in the envelope, without being unpacked."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from saelens_n2g.server.address import Place, place_name
from saelens_n2g.server.catalogue import BODIES, Entry
from saelens_n2g.server.endpoints import Level
from saelens_n2g.server.problems import Problem, absent
from saelens_n2g.store.bodies import Body, digest, serialise
from saelens_n2g.store.reader import Store
from saelens_n2g.store.splice import Members, Piece

_DATA, _OPEN = b'{"data":', b'{"data":{'


class Answer(NamedTuple):
    """What will be sent, not yet compressed or unpacked."""

    pieces: Sequence[Piece]
    etag: str


class Asked(NamedTuple):
    """Who is asked about."""

    entry: Entry
    place: Place | None = None
    unit: int | None = None

    @property
    def level(self) -> Level:
        """How much of the model."""
        return "model" if self.place is None else "layer" if self.unit is None else "unit"

    def __str__(self) -> str:
        parts = [] if self.place is None else [place_name(*self.place)]
        parts += [] if self.unit is None else [str(self.unit)]
        return "/".join([self.entry.model.name, *parts])


def computed(value: Any, tail: bytes | None = None) -> Answer:
    """A value as `data`; without a tail, the value alone."""
    raw = serialise(value)
    return Answer([raw] if tail is None else [_DATA, raw, tail], digest(raw + (tail or b"")).hex())


def one(store: Store, asked: Asked, name: str, unit: int) -> Answer:
    """A service of a unit, by its number. Raises `Problem` (404) if there is nothing of it."""
    similar = None
    if name == "neuron2graph":
        body, similar = store.two_bodies(unit, name, "similarity")
    else:
        body = store.body(unit, BODIES[name])
    if body is None:
        raise _nothing(store, asked, name, unit)
    if name == "neuron2graph":
        return _with_similar(body, similar, asked.entry)
    return _stored([_DATA, body, asked.entry.tail], body.etag, asked.entry)


def every(store: Store, asked: Asked, unit: int) -> Answer:
    """All services of a unit. Raises `Problem` (404) for one that is not stored."""
    there = store.bodies(unit)
    if not there and not store.units([unit]):
        raise _nothing(store, asked, "all", unit)
    entry, etags = asked.entry, [asked.entry.etag]
    members: list[list[Piece]] = []
    for name in sorted({*entry.metadata["available_services"], "metadata"}):
        body = there.get(BODIES.get(name, ""))
        if name == "metadata":
            members.append([_member(name), _DATA, serialise(dict(entry.metadata)), b"}"])
        elif body is not None:
            etags.append(body.etag)
            inner = _with_similar(body, there.get("similarity"), entry) if name == "neuron2graph" else None
            members.append([_member(name), *([*inner.pieces[:-1], b"}"] if inner else [_DATA, body]), b"}"])
        elif name in BODIES:
            members.append([_member(name), serialise({"missing_data_types": [name]})])
    pieces: list[Piece] = [b"{"]
    for i, member in enumerate(members):
        pieces += [b","] * (i > 0) + member
    return Answer([*pieces, b"}"], digest("".join(etags).encode()).hex())


def of_layer(store: Store, asked: Asked, name: str, layer: int) -> Answer:
    """A service of a layer, by its number. Raises `Problem` (404) if there is nothing of it."""
    body = store.layer_body(layer, name)
    if body is None:
        raise _missing(asked, name)
    return _stored([_DATA, body, asked.entry.tail], body.etag, asked.entry)


def every_of_layer(store: Store, asked: Asked, layer: int) -> Answer:
    """All services of a layer."""
    body = store.layer_body(layer, "statistics")
    head = b'{"metadata":{"data":' + serialise(dict(asked.entry.metadata)) + b'},"statistics":'
    if body is None:
        return Answer([head + b'{"missing_data_types":["statistics"]}}'], asked.entry.etag)
    return _stored([head + _DATA, body, b"}}"], body.etag, asked.entry)


def _nothing(store: Store, asked: Asked, name: str, unit: int) -> Problem:
    if not store.units([unit]):
        return absent(f"unit {asked}", "a unit that was examined", "none in the store")
    return _missing(asked, name)


def _missing(asked: Asked, name: str) -> Problem:
    detail = f"{name} of {asked}: expected to be stored, found nothing"
    return Problem(404, detail, missing_data_types=[name], metadata=dict(asked.entry.metadata))


def _with_similar(body: Body, similar: Body | None, entry: Entry) -> Answer:
    """DeepDecipher has similar units inside of `neuron2graph`."""
    members: Piece = b'"similar":[]' if similar is None else Members(similar)
    etag = body.etag if similar is None else body.etag[:16] + similar.etag[:16]
    return _stored([_OPEN, members, b",", Members(body), entry.inner_tail], etag, entry)


def _member(name: str) -> bytes:
    return b'"' + name.encode() + b'":'


def _stored(pieces: Sequence[Piece], etag: str, entry: Entry) -> Answer:
    return Answer(pieces, f"{etag}-{entry.etag}")
