"""The web: which page is where, and how it is sent."""

from functools import cache
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from saelens_n2g.errors import N2GError
from saelens_n2g.server import units
from saelens_n2g.server.address import read_index, read_place, segments
from saelens_n2g.server.catalogue import Entry
from saelens_n2g.server.endpoints import BY_NAME, SPELLINGS, Parameter, read_query
from saelens_n2g.server.finding import Finding
from saelens_n2g.server.openapi import description
from saelens_n2g.server.pages import views
from saelens_n2g.server.pages.links import ServerLinks
from saelens_n2g.server.pages.render import assets
from saelens_n2g.server.problems import Problem, absent
from saelens_n2g.server.sending import HEADERS, Sender, links_of
from saelens_n2g.store.bodies import digest
from saelens_n2g.store.reader import PLACE

LAYER_PARAMETERS = (
    Parameter("sort", "string", "By what.", PLACE, choices=tuple(views.SORTS)),
    Parameter("order", "string", "Which first.", "descending", choices=("descending", "ascending")),
    Parameter("page", "integer", "From 1.", 1, least=1, most=10**6),
)


class Web:
    """An ASGI application: the pages of a store."""

    def __init__(self, sender: Sender) -> None:
        self.sender = sender
        routes = [
            Route("/", self.home),
            Route("/viz", self.to_home),
            Route("/viz/{rest:path}", self.viz),
            Route("/embed/{rest:path}", self.embed),
            Route("/doc", self.doc),
            Route("/doc/openapi.json", self.openapi),
            *Finding(sender).routes,
            Route("/static/{name}", asset),
        ]
        self.app = Starlette(
            routes=routes,
            middleware=[Middleware(GZipMiddleware, minimum_size=1024, compresslevel=5)],
            exception_handlers=dict.fromkeys((Problem, HTTPException, N2GError), sender.problem),
        )

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request."""
        await self.app(scope, receive, send)

    # --- pages ----------------------------------------------------------------------------------------------------

    async def home(self, request: Request) -> Response:
        """All models."""
        read_query(request.scope["query_string"], ())
        entries = self.sender.entries()
        return await self.sender.page(request, lambda store, links: views.home(store, entries, links))

    async def to_home(self, request: Request) -> Response:
        """DeepDecipher's address of it."""
        return RedirectResponse(links_of(request).home())

    async def viz(self, request: Request) -> Response:
        """A model, a layer, a unit; addresses of DeepDecipher, which have a service in them, lead there."""
        parts = segments(request.scope["raw_path"], request.scope.get("root_path", "")) or [""]
        entry = self.sender.entry(parts[1])
        rest, query, links = parts[2:], request.scope["query_string"], links_of(request)
        if rest and SPELLINGS.get(rest[0], rest[0]) in BY_NAME:
            return RedirectResponse(_without_service(entry, rest[1:], links))
        if not rest:
            read_query(query, ())
            return await self.sender.page(request, lambda store, links: views.model(store, entry, links))
        place = read_place(rest[0])
        if place is None:
            raise absent("layer in the path", "a number, or a number, a hyphen and a basis", repr(rest[0]))
        there = entry.layer(*place)
        if len(rest) == 1:
            asked = read_query(query, LAYER_PARAMETERS)
            ascending = asked["order"] == "ascending"
            return await self.sender.page(
                request,
                lambda store, links: views.layer(
                    store, entry, there, links, sort=asked["sort"], ascending=ascending, page=asked["page"]
                ),
            )
        return await units.answer(self.sender, request, entry, there, rest[1:])

    async def embed(self, request: Request) -> Response:
        """A unit for frames in other pages."""
        return await units.embedded(self.sender, request)

    async def doc(self, request: Request) -> Response:
        """What the API may be asked."""
        entries = self.sender.entries()
        return await self.sender.page(
            request, lambda store, links: views.doc(store, entries, links, description(links.root))
        )

    async def openapi(self, request: Request) -> Response:
        """The same for machines."""
        said = description(request.scope.get("root_path", ""), self.sender.entries())
        return JSONResponse(said, headers={**HEADERS, "access-control-allow-origin": "*"})


def _without_service(entry: Entry, rest: list[str], links: ServerLinks) -> str:
    """Our address for `/viz/model/service/layer/unit`."""
    model = entry.model.name
    place = read_place(rest[0]) if rest else None
    if place is None:
        return links.model(model)
    index = read_index(rest[1]) if len(rest) > 1 else None
    return links.layer(model, *place) if index is None else links.unit(model, *place, index)


@cache
def _etags() -> dict[str, str]:
    return {name: f'W/"{digest(data).hex()}"' for name, (data, _) in assets().items()}


async def asset(request: Request) -> Response:
    """A file of the package's own, by name."""
    name = request.path_params["name"]
    if name not in assets():
        raise absent(f"asset {name!r}", "one of ours", "no such file")
    data, kind = assets()[name]
    headers = {**HEADERS, "cache-control": "no-cache", "etag": _etags()[name]}
    if _etags()[name] in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(data, media_type=kind, headers=headers)
