"""Queries: lists of units, found or sorted, as the JSON that is sent but for the metadata at its end.

A query function is given the store, the model, the layer or None, and the parameters of its endpoint.
"""

import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from saelens_n2g.errors import InputError
from saelens_n2g.server.address import NEURONS, Place, place_name, read_unit
from saelens_n2g.server.catalogue import Entry
from saelens_n2g.server.endpoints import bad
from saelens_n2g.server.problems import Problem, absent
from saelens_n2g.store.grammar import And, BasisIs, Not, Or, Query, parse
from saelens_n2g.store.match import Matcher
from saelens_n2g.store.programs import Cache
from saelens_n2g.store.reader import Store
from saelens_n2g.store.records import Unit

Value = dict[str, Any]
Name = TypeVar("Name", str, int)


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
    with questions():
        named = names_basis(parse(query))
        asked = query if named or bases != NEURONS else f"basis={NEURONS} and ({query})"
        parse(asked)  # which is a term and a level more
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


def match(
    cache: Cache,
    store: Store,
    entry: Entry,
    _: Place | None,
    *,
    text: str | None,
    ids: str | None,
    bases: str | None,
    layers: str | None,
    at_least: float,
    sort: str,
    paths: bool,
    limit: int,
    offset: int,
) -> Value:
    """Units that fire in a text."""
    name, there = entry.model.name, set(entry.layers)
    wanted = None if bases is None else known(bases.split(","), {basis for basis, _ in there}, "basis")
    numbers = None if layers is None else known(integers("layers", layers), {layer for _, layer in there}, "layer")
    with questions():
        found = Matcher(store, cache=cache).match(
            name,
            text,
            ids=None if ids is None else integers("ids", ids),
            bases=wanted,
            layers=numbers,
            at_least=at_least,
            sort=sort,
            with_paths=paths,
            limit=limit,
            offset=offset,
        )
    value = found.to_dict()
    del value["model"]
    return {"data": value, "total": found.total, "limit": limit, "offset": offset}


def predict(
    cache: Cache, store: Store, entry: Entry, _: Place | None, *, text: str | None, ids: str | None, units: str
) -> Value:
    """Predictions of some units."""
    numbers = [unit_of(entry, one) for one in units.split(",")]
    given = None if ids is None else integers("ids", ids)
    with questions():
        found = Matcher(store, cache=cache).predict(entry.model.name, numbers, text, ids=given)
    value = found.to_dict()
    del value["model"]
    return {"data": value}


def unit_of(entry: Entry, said: str) -> int:
    """Number of the unit `3-sae/7`. Raises `Problem`."""
    found = read_unit(said.strip())
    if found is None:
        raise bad("parameter units", "units such as 3/42 and 3-sae/7, with commas between", repr(said[:80]))
    place, index = found
    return entry.unit_id(*place, index)


def integers(name: str, said: str) -> list[int]:
    """Numbers with commas between. Raises `Problem` (400)."""
    parts = [one.strip() for one in said.split(",")]
    if not all(one.isascii() and one.isdigit() and len(one) < 10 for one in parts):
        raise bad(f"parameter {name}", "integers with commas between", repr(said[:80]))
    return [int(one) for one in parts]


def known(wanted: Sequence[Name], there: Collection[Name], what: str) -> Sequence[Name]:
    """What is asked for, all of which is there. Raises `Problem` (404)."""
    for one in wanted:
        if one not in there:
            raise absent(f"{what} {one!r}"[:100], f"one of {', '.join(map(str, sorted(there)))}", "no such")
    return wanted


@contextlib.contextmanager
def questions() -> Iterator[None]:
    """What cannot be asked so is 400; what the file itself refuses is told by others."""
    try:
        yield
    except InputError as error:
        if error.thing.startswith("store "):
            raise
        raise Problem.of(400, error) from error


def address(unit: Unit) -> Value:
    """Where a unit is."""
    return {"basis": unit.basis, "layer": unit.layer, "neuron": unit.index}


def _names(entry: Entry) -> str:
    return ", ".join(basis.name for basis in entry.bases) or "(none)"


def by_name(cache: Cache) -> Mapping[str, Callable[..., Value]]:
    """Service -> its function. `cache`: compiled graphs that are in memory."""
    return {
        "match": partial(match, cache),
        "neuron2graph-search": search,
        "neuroscope": neuroscope,
        "predict": partial(predict, cache),
        "units": units,
    }
