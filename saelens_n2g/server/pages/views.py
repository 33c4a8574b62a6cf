"""Views: models, bases side by side over layers, units of a layer."""

from collections.abc import Mapping, Sequence
from math import log10
from typing import Any

from saelens_n2g.server.address import place_name
from saelens_n2g.server.catalogue import Entry
from saelens_n2g.server.pages.charts import histogram
from saelens_n2g.server.pages.links import Links
from saelens_n2g.server.pages.render import Page
from saelens_n2g.store.reader import PLACE, Store
from saelens_n2g.store.records import Layer

ROWS = 50
"""Units on a page."""
SORTS = {
    PLACE: "index",
    "f1": "F1",
    "precision": "precision",
    "recall": "recall",
    "random_f1": "F1 on random text",
    "density": "density",
    "maximum": "maximum",
    "nodes": "graph size",
}
"""What a list may be sorted by, and how that is called."""


def home(_: Store, entries: Sequence[Entry], __: Links) -> Page:
    """All models."""
    models = [
        {
            "entry": entry,
            "units": sum(layer.units for layer in entry.layers.values()),
            "layers": sorted({layer for _, layer in entry.layers}),
        }
        for entry in entries
    ]
    return Page("home.html", "Atlas", {"models": models})


def model(store: Store, entry: Entry, links: Links) -> Page:
    """The bases of a model over its layers, with how well their graphs predict."""
    numbers = sorted({layer for _, layer in entry.layers})
    rows = []
    for basis in entry.bases:
        there = {layer.layer: layer for layer in basis.layers}
        rows.append({"basis": basis, "cells": [_cell(store, there.get(number)) for number in numbers]})
    values = {"entry": entry, "layers": numbers, "rows": rows}
    return Page("model.html", entry.model.name, values, (("Models", links.home()),))


def _cell(store: Store, layer: Layer | None) -> dict[str, Any] | None:
    if layer is None:
        return None
    scores = [float(f1) for (f1,) in store.columns(layer.id, "f1") if f1 is not None]
    label = f"F1 of {len(scores)} units"
    picture = histogram(scores, low=0, high=1, bins=10, label=label, width=92, height=28, axis=False)
    return {"layer": layer, "scored": len(scores), "mean": _mean(scores), "picture": picture}


def layer(store: Store, entry: Entry, there: Layer, links: Links, *, sort: str, ascending: bool, page: int) -> Page:
    """Units of a layer, sorted, a page at a time, under the distributions of what is known of them."""
    name, basis = entry.model.name, there.basis
    found = store.listing(
        name, basis=basis, layer=there.layer, sort=sort, descending=not ascending, limit=ROWS, offset=(page - 1) * ROWS
    )
    said = {unit.id: store.body(unit.id, "explanation") for unit in found.units}
    texts = {number: _first_line(body.json()["explanation"]) if body else "" for number, body in said.items()}
    columns = list(zip(*store.columns(there.id, "f1", "random_f1", "density"), strict=True)) or [(), (), ()]
    values = {
        "entry": entry,
        "layer": there,
        "basis": next(one for one in entry.bases if one.name == basis),
        "units": found.units,
        "texts": texts,
        "total": found.total,
        "sort": sort,
        "sorts": SORTS,
        "ascending": ascending,
        "page": page,
        "pages": max(-(-found.total // ROWS), 1),
        "charts": _charts(columns),
        "others": [one for one in entry.layers.values() if one.basis == basis],
        "bases": [one for one in entry.layers.values() if one.layer == there.layer],
    }
    trail = (("Models", links.home()), (name, links.model(name)))
    return Page("layer.html", f"{place_name(basis, there.layer)} of {name}", values, trail)


def doc(_: Store, entries: Sequence[Entry], links: Links, said: Mapping[str, Any]) -> Page:
    """What the API may be asked, out of its OpenAPI description."""
    first = next(((entry, one) for entry in entries for one in entry.layers.values()), None)
    example = links.data("units", first[0].model.name, first[1].basis, first[1].layer) if first else None
    groups: dict[str, dict[str, Any]] = {}
    for path, methods in said["paths"].items():
        group = groups.setdefault(methods["get"]["summary"], {"paths": [], "parameters": {}})
        group["paths"].append(path)
        own = [one for one in methods["get"]["parameters"] if "name" in one]
        group["parameters"].update({one["name"]: one for one in own})
    return Page("doc.html", "API", {"doc": said, "groups": groups, "example": example}, (("Models", links.home()),))


def _charts(columns: Sequence[Sequence[float | int | None]]) -> list[dict[str, Any]]:
    """Distributions of F1 on held-out and random text, and of densities."""
    f1, random, density = ([float(one) for one in column if one is not None] for column in columns)
    return [
        {
            "title": f"F1, {name} text",
            "mean": _mean(values),
            "n": len(values),
            "picture": histogram(values, low=0, high=1, bins=20, label=f"F1 of {len(values)} units on {name} text"),
        }
        for name, values in (("held-out", f1), ("random", random))
    ] + [
        {
            "title": "Density, log10",
            "mean": _mean([log10(one) for one in density if one > 0]),
            "n": len(density),
            "picture": histogram(
                [log10(one) for one in density if one > 0],
                low=-6,
                high=0,
                bins=24,
                label="Share of tokens that units fire on, log10",
            ),
        }
    ]


def _first_line(text: str) -> str:
    return text.partition("\n")[0]


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
