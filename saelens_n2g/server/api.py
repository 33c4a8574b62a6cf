"""The API under /api: DeepDecipher's paths, envelope and names, over all bases.

    {"data": ..., "metadata": {...}}                    a service
    {"all's service": {"data": ...} | {"missing_data_types": [...]}, ...}
    {"type", "title", "status", "detail", ...}          what cannot be answered (`problems`)

What is stored is sent as it is stored: the envelope is put around compressed bodies (`store.splice`), in the event
loop, with one look-up. What must be computed goes to a worker.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, NamedTuple

from saelens_n2g.errors import InputError, N2GError
from saelens_n2g.server import queries
from saelens_n2g.server.address import Place, place_name, read_index, read_place, segments
from saelens_n2g.server.catalogue import BODIES, Catalogue, Entry
from saelens_n2g.server.endpoints import BY_NAME, SPELLINGS, Endpoint, Level, read_query
from saelens_n2g.server.problems import TYPE, Problem, absent
from saelens_n2g.server.workers import Workers
from saelens_n2g.store.bodies import Body, digest, serialise
from saelens_n2g.store.programs import Cache
from saelens_n2g.store.reader import Store
from saelens_n2g.store.schema import unit_key
from saelens_n2g.store.splice import Members, Piece, splice, unspliced

Scope = Mapping[str, Any]
Send = Callable[[dict[str, Any]], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]
METHODS = b"GET, HEAD, OPTIONS"
_COMMON: Headers = [
    (b"access-control-allow-origin", b"*"),
    (b"access-control-expose-headers", b"etag"),
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
]
_JSON: Headers = [
    (b"content-type", b"application/json"),
    (b"cache-control", b"no-cache"),
    (b"vary", b"accept-encoding"),
    *_COMMON,
]
_PROBLEM: Headers = [(b"content-type", TYPE), (b"cache-control", b"no-store"), *_COMMON]
_PREFLIGHT: Headers = [
    (b"access-control-allow-methods", METHODS),
    (b"access-control-allow-headers", b"*"),
    (b"access-control-max-age", b"86400"),
    (b"allow", METHODS),
    (b"content-length", b"0"),
    *_COMMON,
]
HOLD = 0.01
"""Seconds of a transaction."""
_PATHS = 10_000
"""Beginnings of paths that are remembered."""
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


class Api:
    """An ASGI application. `store` and `catalogue` are used in the event loop, `workers` beside it."""

    def __init__(self, store: Store, catalogue: Catalogue, workers: Workers, cache: Cache) -> None:
        self.store, self.catalogue, self.workers = store, catalogue, workers
        self._queries = queries.by_name(cache)
        self._paths: dict[bytes, tuple[Entry, str, Place, int, int]] = {}
        """Path but for a unit -> who is asked about what, the number of unit 0 and how many there are."""
        self._held: asyncio.TimerHandle | None = None

    async def __call__(self, scope: Scope, receive: Any, send: Send) -> None:  # noqa: ARG002  # ASGI's signature
        """Answer one request."""
        method = scope["method"]
        if method == "OPTIONS":
            await _send(send, 204, _PREFLIGHT, b"")
            return
        try:
            if method not in ("GET", "HEAD"):
                raise Problem(405, f"method: expected GET or HEAD, found {method}", headers=((b"allow", METHODS),))
            found = self._quick(scope) or self._answer(scope)
            status, headers, body = _packed(found if isinstance(found, Answer) else await found, scope["headers"])
        except Problem as problem:
            status, headers, body = refusal(problem)
        except N2GError as error:  # of the store itself: what was asked has been checked by now
            status, headers, body = refusal(Problem.of(503 if isinstance(error, InputError) else 500, error))
        await _send(send, status, headers, b"" if method == "HEAD" else body)

    def _quick(self, scope: Scope) -> Answer | None:
        """A body of a unit where one of its neighbours was asked for before; None for all else."""
        if self.catalogue.refresh() or len(self._paths) > _PATHS:
            self._paths.clear()
        path, _, unit = scope.get("raw_path", b"").rpartition(b"/")
        known = self._paths.get(path)
        if known is None or scope["query_string"] or not unit.isdigit() or len(unit) > 8:
            return None
        if self._held is None:
            self._hold()
        entry, name, place, first, width = known
        index = int(unit)
        return self._body(Asked(entry, place, index), name, first + index) if index < width else None

    def _hold(self) -> None:
        """Requests of the next milliseconds share a transaction."""
        self.store.hold()
        self._held = asyncio.get_running_loop().call_later(HOLD, self.release)

    def release(self) -> None:
        """End that transaction; may be called without one."""
        if self._held is not None:
            self._held.cancel()
            self._held = None
            self.store.release()

    def _answer(self, scope: Scope) -> Answer | Awaitable[Answer]:
        """Who is asked about what, and what is known of that. Raises `Problem` and the store's errors."""
        parts = segments(scope.get("raw_path") or scope["path"].encode(), scope.get("root_path", ""))
        if parts is None:
            raise Problem(400, "path: expected UTF-8 in percent escapes, found other bytes")
        query = scope["query_string"]
        if parts == ["api"]:
            read_query(query, ())
            return _computed({"models": [dict(entry.metadata) for entry in self.catalogue.entries.values()]})
        entry = self.catalogue.model(parts[1])
        if len(parts) == 2:
            read_query(query, ())
            return _computed(queries.bases(entry), entry.tail)
        endpoint = BY_NAME.get(SPELLINGS.get(parts[2], parts[2]))
        if endpoint is None:
            raise absent(f"service {parts[2]!r}", f"one of {', '.join(BY_NAME)}", "no such service")
        asked = _asked(entry, parts[3:])
        if asked.level not in endpoint.levels:
            there = " or ".join(f"/api/{{model}}/{endpoint.service}{_TEMPLATES[level]}" for level in endpoint.levels)
            raise absent(f"{endpoint.service} of a {asked.level}", there, str(asked))
        if asked.place is not None and asked.unit is not None and endpoint.service in BODIES:
            layer = entry.layer(*asked.place)
            path = scope.get("raw_path", b"").rpartition(b"/")[0]
            self._paths[path] = entry, endpoint.service, asked.place, unit_key(layer.id, 0), layer.width
        return self._service(endpoint, asked, query)

    def _service(self, endpoint: Endpoint, asked: Asked, query: bytes) -> Answer | Awaitable[Answer]:
        name, entry, (_, place, index) = endpoint.service, asked.entry, asked
        if place is not None and index is not None and name != "metadata":
            read_query(query, ())
            unit = entry.unit_id(place.basis, place.layer, index)
            return self._all(asked, unit) if name == "all" else self._body(asked, name, unit)
        values = read_query(query, endpoint.parameters)
        if place is not None:
            layer = entry.layer(place.basis, place.layer)
            if name == "statistics":
                body = self.store.layer_body(layer.id, name)
                if body is None:
                    raise _missing(asked, name)
                return _stored([_DATA, body, entry.tail], body.etag, entry)
            if name == "all":
                return self._all_of_layer(asked, layer.id)
        if name == "metadata":
            return _computed(dict(entry.metadata), entry.tail)
        if name == "all":
            return _computed_alone({"metadata": {"data": dict(entry.metadata)}})
        return self._query(name, entry, place, values)

    async def _query(self, name: str, entry: Entry, place: Place | None, values: Mapping[str, Any]) -> Answer:
        """What must be looked for."""
        function = self._queries[name]
        found = await self.workers.run(lambda store: serialise(function(store, entry, place, **values)))
        return Answer([found[:-1], entry.tail], f"{digest(found).hex()}-{entry.etag}")

    def _body(self, asked: Asked, name: str, unit: int) -> Answer:
        """A service of a unit. Raises `Problem` (404) if there is nothing of it."""
        similar = None
        if name == "neuron2graph":
            body, similar = self.store.two_bodies(unit, name, "similarity")
        else:
            body = self.store.body(unit, BODIES[name])
        if body is None:
            raise self._nothing(asked, name, unit)
        if name == "neuron2graph":
            return _with_similar(body, similar, asked.entry)
        return _stored([_DATA, body, asked.entry.tail], body.etag, asked.entry)

    def _all(self, asked: Asked, unit: int) -> Answer:
        """All services of a unit."""
        there = self.store.bodies(unit)
        if not there and not self.store.units([unit]):
            raise self._nothing(asked, "all", unit)
        entry, pieces, etags = asked.entry, list[Piece](), [asked.entry.etag]
        for name in sorted({*entry.metadata["available_services"], "metadata"}):
            body = there.get(BODIES.get(name, ""))
            if name == "metadata":
                pieces.append(_member(name) + b'{"data":' + serialise(dict(entry.metadata)) + b"}")
            elif body is not None:
                etags.append(body.etag)
                inner = _with_similar(body, there.get("similarity"), entry) if name == "neuron2graph" else None
                pieces += [_member(name), *([*inner.pieces[:-1], b"}"] if inner else [_DATA, body]), b"}"]
            elif name in BODIES:
                pieces.append(_member(name) + serialise({"missing_data_types": [name]}))
        pieces[0] = b"{" + bytes(pieces[0]).lstrip(b",") if isinstance(pieces[0], bytes) else pieces[0]
        return Answer([*pieces, b"}"], digest("".join(etags).encode()).hex())

    def _all_of_layer(self, asked: Asked, layer: int) -> Answer:
        body = self.store.layer_body(layer, "statistics")
        head = b'{"metadata":{"data":' + serialise(dict(asked.entry.metadata)) + b'},"statistics":'
        if body is None:
            return Answer([head + b'{"missing_data_types":["statistics"]}}'], asked.entry.etag)
        return _stored([head + _DATA, body, b"}}"], body.etag, asked.entry)

    def _nothing(self, asked: Asked, name: str, unit: int) -> Problem:
        if not self.store.units([unit]):
            return absent(f"unit {asked}", "a unit that was examined", "none in the store")
        return _missing(asked, name)


_TEMPLATES = {"model": "", "layer": "/{layer}", "unit": "/{layer}/{unit}"}


def _asked(entry: Entry, parts: Sequence[str]) -> Asked:
    """What the end of a path means. Raises `Problem` (404)."""
    if not parts:
        return Asked(entry)
    place = read_place(parts[0])
    if place is None:
        raise absent("layer in the path", "a number, or a number, a hyphen and a basis, such as 3-sae", repr(parts[0]))
    if len(parts) == 1:
        return Asked(entry, place)
    index = read_index(parts[1])
    if index is None or len(parts) > 2:
        raise absent("unit in the path", "a number, and nothing behind it", repr("/".join(parts[1:])))
    return Asked(entry, place, index)


def _missing(asked: Asked, name: str) -> Problem:
    detail = f"{name} of {asked}: expected to be stored, found nothing"
    return Problem(404, detail, missing_data_types=[name], metadata=dict(asked.entry.metadata))


def _with_similar(body: Body, similar: Body | None, entry: Entry) -> Answer:
    """DeepDecipher has similar units inside of `neuron2graph`."""
    members: Piece = b'"similar":[]' if similar is None else Members(similar)
    etag = body.etag if similar is None else body.etag[:16] + similar.etag[:16]
    return _stored([_OPEN, members, b",", Members(body), entry.inner_tail], etag, entry)


def _member(name: str) -> bytes:
    return b',"' + name.encode() + b'":'


def _stored(pieces: Sequence[Piece], etag: str, entry: Entry) -> Answer:
    return Answer(pieces, f"{etag}-{entry.etag}")


def _computed(value: Any, tail: bytes | None = None) -> Answer:
    raw = serialise(value)
    return Answer([raw] if tail is None else [_DATA, raw, tail], digest(raw + (tail or b"")).hex())


def _computed_alone(value: Any) -> Answer:
    return _computed(value)


def refusal(problem: Problem) -> tuple[int, Headers, bytes]:
    """A problem as status, headers and body."""
    body = serialise(problem.value())
    length = (b"content-length", str(len(body)).encode())
    return problem.status, [*_PROBLEM, length, *problem.headers], body


def _packed(answer: Answer, headers: Sequence[tuple[bytes, bytes]]) -> tuple[int, Headers, bytes]:
    """Status, headers and body, compressed if the client takes that; 304 if it has it."""
    gzip, known = False, b""
    for name, value in headers:
        if name == b"accept-encoding":
            gzip = accepts_gzip(value)
        elif name == b"if-none-match":
            known = value
    etag = f'W/"{answer.etag}"'.encode()
    if known and matches(known, etag):
        return 304, [*_JSON, (b"etag", etag)], b""
    spliced = splice(answer.pieces) if gzip else None
    if spliced is None:
        body = unspliced(answer.pieces)
        return 200, [*_JSON, (b"etag", etag), (b"content-length", str(len(body)).encode())], body
    length = (b"content-length", str(len(spliced)).encode())
    return 200, [*_JSON, (b"etag", etag), (b"content-encoding", b"gzip"), length], spliced


def accepts_gzip(value: bytes) -> bool:
    """Whether a client that sends this `Accept-Encoding` takes gzip (RFC 9110, 12.5.3)."""
    value = value.lower()
    if b";" not in value:
        return b"gzip" in value or b"*" in value
    weights = {}
    for part in value.decode("latin-1").split(","):
        name, _, weight = part.partition(";")
        weights[name.strip()] = weight.replace(" ", "")
    found = weights.get("gzip", weights.get("*"))
    return found is not None and found not in ("q=0", "q=0.0", "q=0.00", "q=0.000")


def matches(known: bytes, etag: bytes) -> bool:
    """Whether `If-None-Match` names an etag; weak ones are all there are."""
    return known.strip() == b"*" or etag in known or etag.removeprefix(b"W/") in known


async def _send(send: Send, status: int, headers: Headers, body: bytes) -> None:
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
