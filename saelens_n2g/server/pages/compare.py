"""Comparisons: one text, or one token, through several bases; some units on one text."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

from saelens_n2g.graphs.structure import normal_form
from saelens_n2g.server.address import place_name
from saelens_n2g.server.catalogue import Entry
from saelens_n2g.server.endpoints import MOST_TEXT
from saelens_n2g.server.pages import forms, strips
from saelens_n2g.server.pages.links import Links
from saelens_n2g.server.pages.render import Page
from saelens_n2g.server.pages.search import pattern
from saelens_n2g.server.problems import Problem, absent
from saelens_n2g.server.queries import unit_of
from saelens_n2g.store.grammar import quoted
from saelens_n2g.store.match import FIRES, MOST_PREDICTED, MOST_TOKENS, Matcher
from saelens_n2g.store.programs import Cache
from saelens_n2g.store.reader import MOST, Store
from saelens_n2g.store.records import Unit
from saelens_n2g.store.search import STRENGTH, tally

WAYS = ("text", "token", "units")
"""What can be compared."""
EVERY = "all"
"""Layers, where it is not one."""
TOP = 5
"""Units of a basis that are shown."""
LINES = 3
"""Patterns of a unit that are shown."""
EXAMPLE = "The mayor of New York said on Monday that the city would not pay for the new bridge."


class Asked(NamedTuple):
    """What is behind the question mark."""

    by: str | None = None
    """One of `WAYS`; None for what the others say."""
    text: str = ""
    token: str = ""
    units: str = ""
    model: str | None = None
    bases: str | None = None
    layer: str | None = None
    problem: Problem | None = None
    """What is wrong with it."""

    @property
    def way(self) -> str:
        """What is compared."""
        return self.by or ("units" if self.units else "token" if self.token else "text")


def compare(store: Store, cache: Cache, entries: Sequence[Entry], asked: Asked, links: Links) -> Page:
    """The form, and under it a comparison. What cannot be compared is said above the form, with its status."""
    entry, problem = forms.tried(partial(forms.chosen, entries, asked.model), None)
    problem = asked.problem or problem
    ways: dict[str, Callable[[Store, Cache, Entry, Asked, Links], dict[str, Any]]]
    ways = {"text": _texts, "token": _tokens, "units": _units}
    found = None
    if entry is not None and getattr(asked, asked.way):
        found, problem = forms.tried(partial(ways[asked.way], store, cache, entry, asked, links), problem)
    values = {
        **forms.form(entries, entry),
        "asked": asked,
        "way": asked.way,
        "ways": [(way, f"a {way}" if way != "units" else "units", _other(links, asked, way)) for way in WAYS],
        "ticked": set((asked.bases or "").split(",")),
        "layer": asked.layer or (EVERY if asked.way == "token" or entry is None else str(widest(entry))),
        "every": EVERY,
        "problem": problem,
        "found": found,
        "most": (MOST_TOKENS, MOST_TEXT, MOST_PREDICTED),
        "reads": entry is None or bool(asked.text) or asked.way == "token" or forms.reads_text(store, entry),
        "fires": FIRES,
        "example": links.page("compare", text=EXAMPLE, **({} if asked.model is None else {"model": asked.model})),
    }
    return Page("compare.html", "Compare", values, status=problem.status if problem else 200)


def widest(entry: Entry) -> int:
    """The layer at which there are most bases, the first of several."""
    numbers = [layer for _, layer in entry.layers]
    return max(sorted(set(numbers)), key=numbers.count, default=0)


def _other(links: Links, asked: Asked, way: str) -> str:
    """The form for another comparison, with what can be kept."""
    kept = {"text": asked.text, "token": asked.token, "units": asked.units, "model": asked.model, "bases": asked.bases}
    return links.page("compare", by=way, **{name: value for name, value in kept.items() if value})


def _layers(entry: Entry, asked: Asked, usual: int | None) -> list[int] | None:
    """The layer that is asked for; None for all. Raises `Problem`."""
    if asked.layer == EVERY or (asked.layer is None and usual is None):
        return None
    return forms.layers_of(entry, asked.layer or str(usual))


def _texts(store: Store, cache: Cache, entry: Entry, asked: Asked, links: Links) -> dict[str, Any]:
    """What fires of each basis in a text."""
    model, bases, layers = entry.model.name, forms.bases_of(entry, asked.bases), _layers(entry, asked, widest(entry))
    matcher, columns, skipped = Matcher(store, cache=cache), [], []
    runs = {
        basis: matcher.match(model, asked.text, bases=[basis], layers=layers, limit=TOP)
        for basis in bases
        if layers is None or (basis, layers[0]) in entry.layers
    }
    tokens: tuple[str, ...] = next((run.text.tokens for run in runs.values()), ())
    each = {basis: strips.at_each(run.covered, len(tokens)) for basis, run in runs.items()}
    most = max((max(at) for at in each.values()), default=0) or 1
    bars = []
    for basis, run in runs.items():
        at = each[basis]
        title, address = _basis(entry, basis), _place(links, entry, basis, layers)
        f1 = [unit.figures["f1"] for unit in store.units(n for one in run.covered for n in one.units)]
        scored = [one for one in f1 if one is not None]
        columns.append(
            {
                "name": basis,
                "title": title,
                "address": address,
                "graphs": run.graphs,
                "total": run.total,
                "f1": sum(scored) / len(scored) if scored else None,
                "covered": sum(n > 0 for n in at),
                "more": _pasted(links, asked, basis, layers),
                "rows": [
                    {
                        **_named(one.unit, links),
                        "activation": one.activation,
                        "text": strips.strip(tokens, strips.cells_of(one.matches)),
                    }
                    for one in run.firings
                ],
            }
        )
        skipped += [place_name(place.basis, place.layer) for place in run.skipped]
        if len(tokens) <= strips.WIDE:
            bars.append(strips.bar(basis, address, at, most, tokens, str(run.total)))
    return {"columns": columns, "skipped": skipped, "tokens": tokens, "bars": bars, "top": TOP}


def _tokens(store: Store, _: Cache, entry: Entry, asked: Asked, links: Links) -> dict[str, Any]:
    """Which units of each basis name a token."""
    model, bases, layers = entry.model.name, forms.bases_of(entry, asked.bases), _layers(entry, asked, None)
    inside = "" if layers is None else f" layer={layers[0]}"
    query = {role: f"{role}:{quoted(asked.token)}{inside}" for role in ("activating", "important", "any")}
    counts = {role: tally(store, said, model=model) for role, said in query.items()}
    columns, named = [], (normal_form(asked.token),)
    for basis in bases:
        there = [one for place, one in entry.layers.items() if place[0] == basis and layers in (None, [place[1]])]
        if not there:
            continue
        said = f"{query['any']} basis={quoted(basis)}"
        hits = store.search(said, model=model, sort=STRENGTH, limit=MOST)
        scored = [hit.unit.figures["f1"] for hit in hits.hits if hit.unit.figures["f1"] is not None]
        columns.append(
            {
                "name": basis,
                "title": _basis(entry, basis),
                "address": _place(links, entry, basis, layers),
                "units": sum(one.units for one in there),
                **{role: sum(n for at, n in found.items() if at.basis == basis) for role, found in counts.items()},
                "f1": sum(scored) / len(scored) if scored else None,
                "more": links.page("search", query=said, model=model),
                "rows": [
                    {**_named(hit.unit, links), "strength": hit.strength, "pattern": pattern(store, hit.unit.id, named)}
                    for hit in hits.hits[:TOP]
                ],
            }
        )
    return {"columns": columns, "top": TOP, "most": MOST, "token": asked.token}


def _units(store: Store, cache: Cache, entry: Entry, asked: Asked, links: Links) -> dict[str, Any]:
    """Some units, and what their graphs predict on a text if there is one."""
    numbers = list(dict.fromkeys(unit_of(entry, one) for one in asked.units.split(",") if one.strip()))
    units = store.units(numbers)
    if len(units) < len(numbers) or not units:
        raise absent(f"units {asked.units[:80]}", "units in the store", f"{len(units)} of {len(numbers)}")
    predicted = Matcher(store, cache=cache).predict(entry.model.name, numbers, asked.text) if asked.text else None
    rows = []
    for place, unit in enumerate(units):
        activations = None if predicted is None else predicted.activations[place]
        body = store.body(unit.id, "explanation")
        rows.append(
            {
                **_named(unit, links),
                "title": _basis(entry, unit.basis),
                "lines": str(body.json()["explanation"]).split("\n")[:LINES] if body else [],
                "activations": activations,
                "maximum": max(activations) if activations else None,
                "text": None if predicted is None else _shaded(predicted.text.tokens, activations),
            }
        )
    tokens = () if predicted is None else predicted.text.tokens
    bars = [
        strips.values(row["name"], row["address"], row["activations"], tokens)
        for row in rows
        if row["activations"] and len(tokens) <= strips.WIDE
    ]
    return {"rows": rows, "tokens": tokens, "bars": bars}


def _shaded(tokens: Sequence[str], activations: Sequence[float] | None) -> Any:
    cells = {i: strips.Cell(a, f"{a:.2f}") for i, a in enumerate(activations or ()) if a}
    return strips.strip(tokens, cells, whole=True)


def _named(unit: Unit, links: Links) -> dict[str, Any]:
    return {
        "unit": unit,
        "name": f"{unit.basis} {unit.layer}/{unit.index}",
        "address": links.unit(unit.model, unit.basis, unit.layer, unit.index),
    }


def _basis(entry: Entry, name: str) -> str:
    return next(basis.title for basis in entry.bases if basis.name == name)


def _place(links: Links, entry: Entry, basis: str, layers: Sequence[int] | None) -> str:
    """The page of a basis at the layer, or at its first."""
    first = layers[0] if layers else min(layer for name, layer in entry.layers if name == basis)
    return links.layer(entry.model.name, basis, first)


def _pasted(links: Links, asked: Asked, basis: str, layers: Sequence[int] | None) -> str:
    """All units of a basis that fire in the text."""
    more: dict[str, str | int] = {} if layers is None else {"layers": layers[0]}
    if asked.model:
        more["model"] = asked.model
    return links.page("paste", text=asked.text, bases=basis, **more)
