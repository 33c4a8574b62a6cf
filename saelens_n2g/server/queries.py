"""Queries: lists of units, found or sorted, as the JSON that is sent but for the metadata at its end.

A query function is given the store, the model, the layer or None, and the parameters of its endpoint.
"""

from collections.abc import Callable, Mapping
from typing import Any

from saelens_n2g.errors import InputError
from saelens_n2g.server.address import NEURONS, Place, place_name
from saelens_n2g.server.catalogue import Entry
from saelens_n2g.server.problems import Problem, absent
from saelens_n2g.store.grammar import And, BasisIs, Not, Or, Query, parse
from saelens_n2g.store.reader import Store
from saelens_n2g.store.records import Unit

Value = dict[str, Any]


def bases(entry: Entry) -> list[Value]:
    """The bases of a model with their layers."""
    return [
        {
            "name": basis.name,
            "kind": basis.kind,
            "title": basis.title,
            "layers": [
                {
                    "layer": layer.layer,
                    "address": place_name(basis.name, layer.layer),
                    "width": layer.width,
                    "units": layer.units,
                }
                for layer in basis.layers
            ],
        }
        for basis in entry.bases
    ]


def search(
    store: Store, entry: Entry, _: Place | None, *, query: str, limit: int, offset: int, sort: str, bases: str
) -> Value:
    """Units that name tokens. Where neither the query nor `bases` says otherwise, MLP neurons, as in DeepDecipher."""
    try:
        named = names_basis(parse(query))
        asked = query if named or bases != NEURONS else f"basis={NEURONS} and ({query})"
        parse(asked)  # which is a term and a level more
    except InputError as error:
        raise Problem.of(400, error) from error
    found = store.search(asked, model=entry.model.name, sort=sort, limit=limit, offset=offset)
    data = [{**address(hit.unit), "strength": hit.strength, "f1": hit.unit.figures["f1"]} for hit in found.hits]
    return {"data": data, "total": found.total, "limit": limit, "offset": offset}


def names_basis(node: Query) -> bool:
    """Whether a query says which bases it means."""
    if isinstance(node, Not):
        return names_basis(node.part)
    return isinstance(node, BasisIs) or (isinstance(node, And | Or) and any(map(names_basis, node.parts)))


def units(
    store: Store,
    entry: Entry,
    place: Place | None,
    *,
    sort: str,
    order: str,
    limit: int,
    offset: int,
    basis: str | None,
    layer: int | None,
    **bounds: float | None,
) -> Value:
    """Units by a figure."""
    if place is not None:
        if (basis or place.basis, place.layer if layer is None else layer) != place:
            raise absent("units of a layer", f"parameters of {place_name(*place)}", f"{basis}, {layer}")
        basis, layer = place
    given = {name: bound for name, bound in bounds.items() if bound is not None}
    there = [one for one in entry.layers if basis in (None, one[0]) and layer in (None, one[1])]
    if not there:
        raise absent(f"units of {entry.model.name}", "a basis and a layer that it has", f"{basis}, {layer}")
    found = store.listing(
        entry.model.name,
        basis=basis,
        layer=layer,
        sort=sort,
        descending=order == "descending",
        at_least={name[4:]: bound for name, bound in given.items() if name.startswith("min_")},
        at_most={name[4:]: bound for name, bound in given.items() if name.startswith("max_")},
        limit=limit,
        offset=offset,
    )
    data = [{**address(unit), "failure": unit.failure, "figures": unit.figures} for unit in found.units]
    return {"data": data, "total": found.total, "limit": limit, "offset": offset}


def neuroscope(store: Store, entry: Entry, place: Place | None, *, limit: int) -> Value:
    """Units by their largest activation, ascending, as DeepDecipher has them; the largest if there are too many."""
    basis = place.basis if place else NEURONS
    if not any(name == basis for name, _ in entry.layers):
        raise absent(f"basis {basis} of {entry.model.name}", f"one of {_names(entry)}", "no such basis")
    layer = place.layer if place else None
    found = store.listing(entry.model.name, basis=basis, layer=layer, sort="maximum", limit=limit)
    important = [[address(unit), unit.figures["maximum"]] for unit in reversed(found.units)]
    count = {} if place is None else {"num_neurons": entry.layers[place].width}
    return {"data": {**count, "important_neurons": important}, "total": found.total}


def address(unit: Unit) -> Value:
    """Where a unit is."""
    return {"basis": unit.basis, "layer": unit.layer, "neuron": unit.index}


def _names(entry: Entry) -> str:
    return ", ".join(basis.name for basis in entry.bases) or "(none)"


BY_NAME: Mapping[str, Callable[..., Value]] = {
    "neuron2graph-search": search,
    "units": units,
    "neuroscope": neuroscope,
}
