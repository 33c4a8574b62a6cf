"""Finding: the pages that look for units, by token, by text, side by side.

/search?query=york                     units whose graphs name a token
/paste?text=The mayor of New York      units whose graphs say that they fire in a text
/compare?text=... | token=... | units=3/42,3-sae/7
/bookmarks                             what a reader has marked, which the browser keeps

A question that cannot be answered is a page, too, with the form as it was sent.
"""

from collections.abc import Collection, Sequence
from typing import Any
from urllib.parse import parse_qsl

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from saelens_n2g.server.endpoints import MOST_QUERY, MOST_TEXT, Parameter, bad
from saelens_n2g.server.pages import bookmarks, compare, paste, search
from saelens_n2g.server.problems import Problem
from saelens_n2g.server.sending import Sender
from saelens_n2g.store.grammar import MOST_LETTERS
from saelens_n2g.store.match import SORTS
from saelens_n2g.store.reader import PLACE
from saelens_n2g.store.search import STRENGTH

MOST_KEPT = 3 * MOST_QUERY
"""Bytes behind the question mark of which the form is filled again; what is longer is answered with a bare refusal."""
_NAME = 2000
_MODEL = Parameter("model", "string", "Of this model.", most=_NAME)
_TEXT = Parameter("text", "string", "The text.", "", most=MOST_TEXT)
_BASES = Parameter("bases", "string", "Of these bases, with commas between.", most=_NAME)
_PAGE = Parameter("page", "integer", "From 1.", 1, least=1, most=10**6)
SEARCH = (
    Parameter("query", "string", "What for.", "", most=MOST_LETTERS),
    _MODEL,
    Parameter("basis", "string", "In this basis.", most=_NAME),
    Parameter("layer", "integer", "In this layer.", least=0, most=10**6),
    Parameter("sort", "string", "By what.", STRENGTH, choices=(STRENGTH, PLACE)),
    _PAGE,
)
PASTE = (
    _TEXT,
    _MODEL,
    _BASES,
    Parameter("layers", "string", "Of these layers, with commas between.", most=_NAME),
    Parameter("sort", "string", "By what.", SORTS[0], choices=SORTS),
    _PAGE,
)
COMPARE = (
    Parameter("by", "string", "What is compared.", choices=compare.WAYS),
    _TEXT,
    Parameter("token", "string", "The token.", "", most=200),
    Parameter("units", "string", "Units, with commas between.", "", most=4000),
    _MODEL,
    _BASES,
    Parameter("layer", "string", "A layer, or all.", most=9),
)
LIVE = "x-live"
"""Header of a search that a script sends while somebody types."""
SEVERAL = ("bases", "layers")
"""Parameters that forms send once for every box that is ticked."""


class Finding:
    """Routes of these pages."""

    def __init__(self, sender: Sender) -> None:
        self.sender = sender
        self.routes = [
            Route("/search", self.search),
            Route("/paste", self.paste),
            Route("/compare", self.compare),
            Route("/bookmarks", self.bookmarks),
        ]

    async def search(self, request: Request) -> Response:
        """Units by token."""
        values, problem = read(request.scope["query_string"], SEARCH)
        asked, entries = search.Asked(**values, problem=problem), self.sender.entries()
        answer = await self.sender.page(request, lambda store, links: search.search(store, entries, asked, links))
        if LIVE in request.headers and answer.status_code == 400:
            answer.status_code = 200  # half a query, as it is typed, is no error that a browser should report
        return answer

    async def paste(self, request: Request) -> Response:
        """Units that fire in a text."""
        values, problem = read(request.scope["query_string"], PASTE)
        asked, entries, cache = paste.Asked(**values, problem=problem), self.sender.entries(), self.sender.cache
        return await self.sender.page(request, lambda store, links: paste.paste(store, cache, entries, asked, links))

    async def compare(self, request: Request) -> Response:
        """Bases or units side by side."""
        values, problem = read(request.scope["query_string"], COMPARE)
        asked, entries, cache = compare.Asked(**values, problem=problem), self.sender.entries(), self.sender.cache
        return await self.sender.page(
            request, lambda store, links: compare.compare(store, cache, entries, asked, links)
        )

    async def bookmarks(self, request: Request) -> Response:
        """What a reader has marked."""
        return await self.sender.page(request, bookmarks.bookmarks)


def read(raw: bytes, parameters: Sequence[Parameter]) -> tuple[dict[str, Any], Problem | None]:
    """The values of a form, and the first thing that is wrong with them.

    What is empty counts as not given, as forms send all their fields. A value that cannot be taken is replaced by its
    default, a text is kept for the form. Raises `Problem` (414) for more than `MOST_KEPT` bytes.
    """
    if len(raw) > MOST_KEPT:
        raise Problem(414, f"query: expected at most {MOST_QUERY} bytes, found {len(raw)}")
    problems: list[Problem] = []
    if len(raw) > MOST_QUERY:
        problems.append(Problem(414, f"query: expected at most {MOST_QUERY} bytes, found {len(raw)}"))
    pairs: list[tuple[str, str]] = []
    try:
        pairs = parse_qsl(raw.decode("latin-1"), errors="strict", max_num_fields=1000)
    except UnicodeDecodeError:
        problems.append(bad("query", "UTF-8 in percent escapes", "other bytes"))
    except ValueError:
        problems.append(bad("query", "at most 1000 parameters", "more"))
    given = _collected(pairs, {one.name for one in parameters}, problems)
    values = {one.name: _value(one, given.get(one.name), problems) for one in parameters}
    return values, problems[0] if problems else None


def _collected(pairs: Sequence[tuple[str, str]], known: Collection[str], problems: list[Problem]) -> dict[str, str]:
    given: dict[str, str] = {}
    for name, value in pairs:
        if name not in known:
            problems.append(bad("parameters", f"of {', '.join(sorted(known))}", repr(name[:80])))
        elif name not in given:
            given[name] = value
        elif name in SEVERAL:
            given[name] += "," + value
        else:
            problems.append(bad(f"parameter {name}", "it once", "it twice"))
    return given


def _value(one: Parameter, said: str | None, problems: list[Problem]) -> Any:
    if said is None:
        return one.default
    if one.name == "text":
        said = said.replace("\r\n", "\n")  # forms send every line end as two characters
    try:
        return one.read(said)
    except Problem as problem:
        problems.append(problem)
        return said if one.kind == "string" and not one.choices else one.default
