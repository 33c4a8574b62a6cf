"""The API under /api: DeepDecipher's paths, envelope and names, over all bases.

    {"data": ..., "metadata": {...}}                    a service
    {"all's service": {"data": ...} | {"missing_data_types": [...]}, ...}
    {"type", "title", "status", "detail", ...}          what cannot be answered (`problems`)

What is stored is sent as it is stored: the envelope is put around compressed bodies (`store.splice`), in the event
loop, with one look-up. What must be computed goes to a worker.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from saelens_n2g.errors import N2GError
from saelens_n2g.server import answers, queries
from saelens_n2g.server.address import Place, read_index, read_place, segments
from saelens_n2g.server.answers import Answer, Asked, computed
from saelens_n2g.server.catalogue import BODIES, Catalogue, Entry
from saelens_n2g.server.endpoints import BY_NAME, SPELLINGS, Endpoint, read_query
from saelens_n2g.server.problems import TYPE, Problem, absent
from saelens_n2g.server.workers import Workers
from saelens_n2g.store.bodies import digest, serialise
from saelens_n2g.store.programs import Cache
from saelens_n2g.store.reader import Store
from saelens_n2g.store.schema import unit_key
from saelens_n2g.store.splice import splice, unspliced

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


class Api:
    """An ASGI application. `store` and `catalogue` are used in the event loop, `workers` beside it."""

    def __init__(self, store: Store, catalogue: Catalogue, workers: Workers, cache: Cache) -> None:
        self.store, self.catalogue, self.workers = store, catalogue, workers
        self._queries = queries.by_name(cache)
        self._paths: dict[bytes, tuple[Entry, str, Place, int, int]] = {}
        """Path but for a unit -> who is asked about what, the number of unit 0 and how many there are."""
        self._paths_of: Mapping[str, Entry] = {}
        """The catalogue's entries that these paths lead to."""
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
            status, headers, body = refusal(Problem.of_store(error))
        await _send(send, status, headers, b"" if method == "HEAD" else body)

    def _quick(self, scope: Scope) -> Answer | None:
        """A body of a unit where one of its neighbours was asked for before; None for all else."""
        self.catalogue.refresh()
        if self._paths_of is not self.catalogue.entries or len(self._paths) > _PATHS:
            self._paths.clear()
            self._paths_of = self.catalogue.entries
        path, _, unit = scope.get("raw_path", b"").rpartition(b"/")
        known = self._paths.get(path)
        if known is None or scope["query_string"] or not unit.isdigit() or len(unit) > 8:
            return None
        if self._held is None:
            self._hold()
        entry, name, place, first, width = known
        index = int(unit)
        return answers.one(self.store, Asked(entry, place, index), name, first + index) if index < width else None

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
            return computed({"models": [dict(entry.metadata) for entry in self.catalogue.entries.values()]})
        entry = self.catalogue.model(parts[1])
        if len(parts) == 2:
            read_query(query, ())
            return computed(queries.bases(entry), entry.tail)
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
            return (
                answers.every(self.store, asked, unit) if name == "all" else answers.one(self.store, asked, name, unit)
            )
        values = read_query(query, endpoint.parameters)
        if place is not None:
            layer = entry.layer(place.basis, place.layer)
            if name == "statistics":
                return answers.of_layer(self.store, asked, name, layer.id)
            if name == "all":
                return answers.every_of_layer(self.store, asked, layer.id)
        if name == "metadata":
            return computed(dict(entry.metadata), entry.tail)
        if name == "all":
            return computed({"metadata": {"data": dict(entry.metadata)}})
        return self._query(name, entry, place, values)

    async def _query(self, name: str, entry: Entry, place: Place | None, values: Mapping[str, Any]) -> Answer:
        """What must be looked for."""
        function = self._queries[name]
        found = await self.workers.run(lambda store: serialise(function(store, entry, place, **values)))
        return Answer([found[:-1], entry.tail], f"{digest(found).hex()}-{entry.etag}")


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
