"""Pasted text: the text as the model reads it, and the units whose graphs say that they fire in it."""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

from saelens_n2g.server.address import place_name
from saelens_n2g.server.catalogue import Entry
from saelens_n2g.server.endpoints import MOST_TEXT, bad
from saelens_n2g.server.pages import forms, strips
from saelens_n2g.server.pages.links import Links
from saelens_n2g.server.pages.render import Page
from saelens_n2g.server.problems import Problem
from saelens_n2g.store.match import FIRES, MOST_TOKENS, Matcher
from saelens_n2g.store.matches import Firing, Matches
from saelens_n2g.store.programs import Cache
from saelens_n2g.store.reader import Store
from saelens_n2g.store.records import Unit

ROWS = 25
"""Units on a page."""
SORTS = {"activation": "largest activation", "positions": "most positions", "place": "basis and layer"}
EXAMPLES = (
    "The mayor of New York said on Monday that the city would not pay for the new bridge.",
    "She opened the door, and there was nobody: only rain, 3 cats, and the smell of old books.",
    "def add(x, y):\n    return x + y",
)


class Asked(NamedTuple):
    """What is behind the question mark."""

    text: str = ""
    model: str | None = None
    bases: str | None = None
    layers: str | None = None
    sort: str = "activation"
    page: int = 1
    problem: Problem | None = None
    """What is wrong with it."""


def paste(store: Store, cache: Cache, entries: Sequence[Entry], asked: Asked, links: Links) -> Page:
    """The form, and under it what is found. What cannot be run is said above the form, with its status."""
    entry, problem = forms.tried(partial(forms.chosen, entries, asked.model), None)
    problem = asked.problem or problem
    found = None
    if asked.text and entry is not None:
        found, problem = forms.tried(partial(_found, store, cache, entry, asked, links), problem)
    values = {
        **forms.form(entries, entry),
        "asked": asked,
        "ticked": (_parts(asked.bases), _parts(asked.layers)),
        "sorts": SORTS,
        "problem": problem,
        "found": found,
        "reads": entry is None or asked.text != "" or forms.reads_text(store, entry),
        "most": (MOST_TOKENS, MOST_TEXT),
        "fires": FIRES,
        "examples": [(text, _link(links, Asked(text=text, model=asked.model))) for text in EXAMPLES],
    }
    return Page("paste.html", "Paste text", values, status=problem.status if problem else 200)


def _found(store: Store, cache: Cache, entry: Entry, asked: Asked, links: Links) -> dict[str, Any]:
    bases, layers = forms.bases_of(entry, asked.bases), forms.layers_of(entry, asked.layers)
    found = Matcher(store, cache=cache).match(
        entry.model.name,
        asked.text,
        bases=bases,
        layers=layers,
        sort=asked.sort,
        limit=ROWS,
        offset=(asked.page - 1) * ROWS,
    )
    at, pages = strips.at_each(found.covered, len(found.text.tokens)), max(-(-found.total // ROWS), 1)
    if asked.page > pages:
        raise bad("page", f"at most {pages}", str(asked.page))
    return {
        "matches": found,
        "tokens": [(token, n, strips.amount(n, max(at))) for token, n in zip(found.text.tokens, at, strict=True)],
        "bars": _bars(found, asked, bases, links),
        "wide": strips.WIDE,
        "rows": [_row(firing, found.text.tokens, asked.text, links) for firing in found.firings],
        "skipped": [place_name(place.basis, place.layer) for place in found.skipped],
        "page": asked.page,
        "pages": pages,
        "previous": _link(links, asked, page=asked.page - 1) if asked.page > 1 else None,
        "next": _link(links, asked, page=asked.page + 1) if asked.page < pages else None,
        "compare": links.page("compare", text=asked.text, model=entry.model.name),
    }


def alone(unit: Unit) -> dict[str, str]:
    """What the comparison of units is asked for one of them."""
    return {"units": f"{place_name(unit.basis, unit.layer)}/{unit.index}", "model": unit.model}


def _row(firing: Firing, tokens: Sequence[str], text: str, links: Links) -> dict[str, Any]:
    unit, cells = firing.unit, strips.cells_of(firing.matches)
    return {
        "unit": unit,
        "address": links.unit(unit.model, unit.basis, unit.layer, unit.index),
        "firing": firing,
        "text": strips.strip(tokens, cells),
        "beyond": strips.beyond(cells, len(tokens)),
        "whole": links.page("compare", **alone(unit), text=text),
        "reasons": strips.reasons(firing, tokens),
    }


def _bars(found: Matches, asked: Asked, bases: Sequence[str], links: Links) -> list[strips.Bar]:
    """How many units of each basis fire at each token; none for a text with too many tokens for a table."""
    tokens = found.text.tokens
    if len(tokens) > strips.WIDE:
        return []
    own = {name: [one for one in found.covered if one.layer.basis == name] for name in bases}
    counts = {name: strips.at_each(covered, len(tokens)) for name, covered in own.items()}
    most = max((max(row) for row in counts.values()), default=0) or 1
    units = {name: str(sum(len(one.units) for one in covered)) for name, covered in own.items()}
    return [
        strips.bar(name, _link(links, asked, bases=name, page=1), row, most, tokens, units[name])
        for name, row in counts.items()
    ]


def _parts(said: str | None) -> set[str]:
    return set((said or "").split(","))


def _link(links: Links, asked: Asked, **changed: Any) -> str:
    """The same text with something changed."""
    values = {**asked._asdict(), **changed}
    del values["problem"]
    usual = Asked()._asdict()
    return links.page("paste", **{name: value for name, value in values.items() if value != usual[name]})
