"""The web: which page is where, and how it is sent."""

from collections.abc import Callable
from functools import cache
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from saelens_n2g.errors import InputError, N2GError
from saelens_n2g.server import units
from saelens_n2g.server.address import read_index, read_place, segments
from saelens_n2g.server.catalogue import Catalogue, Entry
from saelens_n2g.server.endpoints import BY_NAME, SPELLINGS, Parameter, read_query
from saelens_n2g.server.finding import Finding
from saelens_n2g.server.openapi import description
from saelens_n2g.server.pages import views
from saelens_n2g.server.pages.links import ServerLinks
from saelens_n2g.server.pages.render import Page, assets, render
from saelens_n2g.server.problems import Problem, absent
from saelens_n2g.server.workers import Workers
from saelens_n2g.store.bodies import digest
from saelens_n2g.store.programs import Cache
from saelens_n2g.store.reader import PLACE, Store

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors {ancestors}"
)
"""Nothing from elsewhere, no script and no style inside of pages."""
HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}
LAYER_PARAMETERS = (
    Parameter("sort", "string", "By what.", PLACE, choices=tuple(views.SORTS)),
    Parameter("order", "string", "Which first.", "descending", choices=("descending", "ascending")),
    Parameter("page", "integer", "From 1.", 1, least=1, most=10**6),
)


class Web:
    """An ASGI application: the pages of a store."""

    def __init__(self, catalogue: Catalogue, workers: Workers, cache: Cache) -> None:
        self.catalogue, self.workers, self.cache = catalogue, workers, cache
        routes = [
            Route("/", self.home),
            Route("/viz", self.to_home),
            Route("/viz/{rest:path}", self.viz),
            Route("/embed/{rest:path}", self.embed),
            Route("/doc", self.doc),
            Route("/doc/openapi.json", self.openapi),
            *Finding(self).routes,
            Route("/static/{name}", asset),
        ]
        self.app = Starlette(
            routes=routes,
            middleware=[Middleware(GZipMiddleware, minimum_size=1024, compresslevel=5)],
            exception_handlers={Problem: self.problem, HTTPException: self.problem, N2GError: self.problem},
        )

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request."""
        await self.app(scope, receive, send)

    # --- pages ----------------------------------------------------------------------------------------------------

    async def home(self, request: Request) -> Response:
        """All models."""
        self.catalogue.refresh()
        read_query(request.scope["query_string"], ())
        entries = list(self.catalogue.entries.values())
        return await self.page(request, lambda store, links: views.home(store, entries, links))

    async def to_home(self, request: Request) -> Response:
        """DeepDecipher's address of it."""
        return RedirectResponse(links_of(request).home())

    async def viz(self, request: Request) -> Response:
        """A model, a layer, a unit; addresses of DeepDecipher, which have a service in them, lead there."""
        parts = segments(request.scope["raw_path"], request.scope.get("root_path", "")) or [""]
        entry = self.entry(parts[1])
        rest, query, links = parts[2:], request.scope["query_string"], links_of(request)
        if rest and SPELLINGS.get(rest[0], rest[0]) in BY_NAME:
            return RedirectResponse(_without_service(entry, rest[1:], links))
        if not rest:
            read_query(query, ())
            return await self.page(request, lambda store, links: views.model(store, entry, links))
        place = read_place(rest[0])
        if place is None:
            raise absent("layer in the path", "a number, or a number, a hyphen and a basis", repr(rest[0]))
        there = entry.layer(*place)
        if len(rest) == 1:
            asked = read_query(query, LAYER_PARAMETERS)
            ascending = asked["order"] == "ascending"
            return await self.page(
                request,
                lambda store, links: views.layer(
                    store, entry, there, links, sort=asked["sort"], ascending=ascending, page=asked["page"]
                ),
            )
        return await units.answer(self, request, entry, there, rest[1:])

    async def embed(self, request: Request) -> Response:
        """A unit for frames in other pages."""
        return await units.embedded(self, request)

    async def doc(self, request: Request) -> Response:
        """What the API may be asked."""
        self.catalogue.refresh()
        entries = list(self.catalogue.entries.values())
        return await self.page(request, lambda store, links: views.doc(store, entries, links, description(links.root)))

    async def openapi(self, request: Request) -> Response:
        """The same for machines."""
        self.catalogue.refresh()
        said = description(request.scope.get("root_path", ""), self.catalogue.entries.values())
        return JSONResponse(said, headers={**HEADERS, "access-control-allow-origin": "*"})

    # --- how they are sent ----------------------------------------------------------------------------------------

    def entry(self, model: str) -> Entry:
        """A model. Raises `Problem` (404)."""
        self.catalogue.refresh()
        return self.catalogue.model(model)

    async def page(
        self, request: Request, view: Callable[[Store, ServerLinks], Page], *, embedded: bool = False
    ) -> Response:
        """What a view makes, rendered in a worker. Pages may be put into frames of others where they are `embedded`."""
        links = links_of(request)
        status, html = await self.workers.run(lambda store: _rendered(view(store, links), links))
        policy = POLICY.format(ancestors="*" if embedded else "'none'")
        etag = f'W/"{digest(html.encode()).hex()}"'
        headers = {**HEADERS, "content-security-policy": policy, "cache-control": "no-cache", "etag": etag}
        if status == 200 and etag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return HTMLResponse(html, status, headers)

    async def problem(self, request: Request, error: Exception) -> Response:
        """A page that says what is wrong."""
        if isinstance(error, N2GError):
            error = Problem.of(503 if isinstance(error, InputError) else 500, error)
        elif isinstance(error, HTTPException):
            error = Problem(error.status_code, error.detail)
        assert isinstance(error, Problem)
        links = links_of(request)
        value = error.value()
        html = render(Page("problem.html", value["title"], {"problem": value}, (("Models", links.home()),)), links)
        policy = POLICY.format(ancestors="'none'")
        return HTMLResponse(html, error.status, {**HEADERS, "content-security-policy": policy})


def _rendered(page: Page, links: ServerLinks) -> tuple[int, str]:
    return page.status, render(page, links)


def links_of(request: Request) -> ServerLinks:
    """Links under what the application is mounted under."""
    return ServerLinks(request.scope.get("root_path", ""))


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
