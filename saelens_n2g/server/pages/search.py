"""The search: units whose graphs name tokens, over all models and bases."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from saelens_n2g.errors import InputError
from saelens_n2g.graphs.structure import normal_form
from saelens_n2g.server.catalogue import Entry
from saelens_n2g.server.endpoints import bad
from saelens_n2g.server.pages.links import Links
from saelens_n2g.server.pages.plain import fault, read
from saelens_n2g.server.pages.render import Page
from saelens_n2g.server.problems import Problem, absent
from saelens_n2g.server.queries import known
from saelens_n2g.store.grammar import parse, quoted
from saelens_n2g.store.reader import PLACE, Store
from saelens_n2g.store.records import Hit
from saelens_n2g.store.records import Place as LayerPlace
from saelens_n2g.store.search import STRENGTH, tally, terms

ROWS = 50
"""Units on a page."""
SORTS = {STRENGTH: "strength", PLACE: "place"}
EXAMPLES = (
    ("york", "a word: units whose graphs name it anywhere"),
    ("activating:new", "units that fire on it"),
    ("important:new", "units that look for it before they fire"),
    ("activating:york, important:new", "both; a comma, “and” and a space are the same"),
    ("any:new or any:old", "either"),
    ("any:the and not layer=0", "layers and bases: layer=2, layer=1..3, basis=neurons"),
    ('any:"," and not (any:"." or any:";")', "marks and spaces in quotation marks; parentheses"),
)


class Asked(NamedTuple):
    """What is behind the question mark."""

    query: str = ""
    model: str | None = None
    basis: str | None = None
    layer: int | None = None
    sort: str = STRENGTH
    page: int = 1
    problem: Problem | None = None
    """What is wrong with it."""


def search(store: Store, entries: Sequence[Entry], asked: Asked, links: Links) -> Page:
    """Results, with how many there are in each basis and layer. What cannot be read is marked, and is status 400."""
    values: dict[str, Any] = {
        "asked": asked,
        "models": [entry.model.name for entry in entries],
        "examples": [(query, what, links.page("search", query=query)) for query, what in EXAMPLES],
        "sorts": [(title, _link(links, asked, sort=name), asked.sort == name) for name, title in SORTS.items()],
        "found": None,
        "fault": None,
        "run": None,
    }
    problem = asked.problem
    if asked.query.strip() and problem is None:
        reading = read(asked.query)
        try:
            _check(entries, asked)
            values["found"] = _found(store, entries, asked, reading.run, links)
            values["run"] = values["found"]["run"]
        except InputError as error:
            if error.thing.startswith("store "):
                raise
            problem, values["fault"] = Problem.of(400, error), fault(asked.query, reading, error)
        except Problem as error:
            problem = error
    values["problem"] = problem
    title = f"Search: {asked.query}" if asked.query else "Search"
    return Page("search.html", title, values, status=problem.status if problem else 200)


def _check(entries: Sequence[Entry], asked: Asked) -> None:
    """Raises `Problem` (404) for a model that is not there, and for a basis or layer that no model has."""
    if asked.model is not None:
        known([asked.model], [entry.model.name for entry in entries], "model")
    places = {place for entry in entries if asked.model in (None, entry.model.name) for place in entry.layers}
    if asked.basis is not None:
        known([asked.basis], {basis for basis, _ in places}, "basis")
    if asked.layer is not None and asked.layer not in {layer for _, layer in places}:
        raise absent(f"layer {asked.layer}", "a layer in the store", "no such")


def _found(store: Store, entries: Sequence[Entry], asked: Asked, plain: str, links: Links) -> dict[str, Any]:
    run = plain
    if asked.basis is not None or asked.layer is not None:
        run = f"({plain})"
        run += "" if asked.basis is None else f" basis={quoted(asked.basis)}"
        run += "" if asked.layer is None else f" layer={asked.layer}"
    hits = store.search(run, model=asked.model, sort=asked.sort, limit=ROWS, offset=(asked.page - 1) * ROWS)
    counts = tally(store, plain)
    named, pages = [normal_form(term.text) for term in terms(parse(plain))], max(-(-hits.total // ROWS), 1)
    if asked.page > pages:
        raise bad("page", f"at most {pages}", str(asked.page))
    return {
        "run": run,
        "plain": plain == asked.query,
        "total": hits.total,
        "rows": [_row(store, hit, named, links) for hit in hits.hits],
        "several": len(entries) > 1,
        "facets": _facets(asked, counts, links, several=len(entries) > 1),
        "page": asked.page,
        "pages": pages,
        "previous": _link(links, asked, page=asked.page - 1) if asked.page > 1 else None,
        "next": _link(links, asked, page=asked.page + 1) if asked.page < pages else None,
    }


def _row(store: Store, hit: Hit, named: Collection[str], links: Links) -> dict[str, Any]:
    unit = hit.unit
    return {
        "unit": unit,
        "address": links.unit(unit.model, unit.basis, unit.layer, unit.index),
        "strength": hit.strength,
        "pattern": pattern(store, unit.id, named),
    }


def pattern(store: Store, unit: int, tokens: Collection[str] = ()) -> str:
    """The first line of what is said of a unit in which one of the tokens (in their normal form) can be seen; its first
    line, the strongest pattern, where there is none."""
    body = store.body(unit, "explanation")
    lines = str(body.json()["explanation"]).split("\n") if body else [""]
    return next((line for line in lines if any(token in line.lower() for token in tokens)), lines[0])


def _facets(
    asked: Asked, counts: Mapping[LayerPlace, int], links: Links, *, several: bool
) -> list[tuple[str, list[dict[str, Any]]]]:
    """Of model, basis and layer, what there is to choose, and how many units each choice would find."""
    facets = []
    for name, own in (("model", asked.model), ("basis", asked.basis), ("layer", asked.layer)):
        found: dict[str | int, int] = {}
        if own is not None:
            found[own] = 0
        for place, n in counts.items():
            others: dict[str, str | int] = {"model": place.model, "basis": place.basis, "layer": place.layer}
            value = others.pop(name)
            if all(getattr(asked, other) in (None, there) for other, there in others.items()):
                found[value] = found.get(value, 0) + n
        if name == "model" and not several:
            continue
        offered: list[tuple[str | int | None, int | None]] = [(None, None), *sorted(found.items())]
        choices = [
            {
                "name": "all" if value is None else str(value),
                "n": n,
                "address": _link(links, asked, **{name: value}),
                "current": own == value,
            }
            for value, n in offered
        ]
        facets.append((name, choices))
    return facets


def _link(links: Links, asked: Asked, **changed: Any) -> str:
    """The same search with something changed; from its first page, unless that is what is changed."""
    values = {**asked._asdict(), "page": 1, **changed}
    del values["problem"]
    usual = Asked()._asdict()
    return links.page("search", **{name: value for name, value in values.items() if value != usual[name]})
