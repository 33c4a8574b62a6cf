"""Sending: what all pages of a server need, to be made and to be sent."""

from collections.abc import Callable

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from saelens_n2g.errors import N2GError
from saelens_n2g.server.catalogue import Catalogue, Entry
from saelens_n2g.server.pages.links import ServerLinks
from saelens_n2g.server.pages.render import Page, render
from saelens_n2g.server.problems import Problem
from saelens_n2g.server.workers import Workers
from saelens_n2g.store.bodies import digest
from saelens_n2g.store.programs import Cache
from saelens_n2g.store.reader import Store

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


class Sender:
    """Knows what there is, and makes answers of views. `cache`: compiled graphs that are in memory."""

    def __init__(self, catalogue: Catalogue, workers: Workers, cache: Cache) -> None:
        self.catalogue, self.workers, self.cache = catalogue, workers, cache

    def entries(self) -> list[Entry]:
        """All models."""
        self.catalogue.refresh()
        return list(self.catalogue.entries.values())

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
            error = Problem.of_store(error)
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
