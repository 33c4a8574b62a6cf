"""Search: which units a query finds, out of the posting lists.

A set of units is a mask for each block of 65,536 of a layer, so "and", "or" and "not" are a few operations of numpy
each, whatever the tokens are. Without a model or a body being looked at, 100,000 units take milliseconds.
"""

from collections.abc import Mapping, Sequence
from functools import reduce
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int64

from saelens_n2g.errors import ArtefactError, InputError
from saelens_n2g.graphs.structure import normal_form
from saelens_n2g.store import postings
from saelens_n2g.store.grammar import And, BasisIs, LayerIs, Not, Or, Query, Term, parse
from saelens_n2g.store.postings import BLOCK_BITS, EVERY
from saelens_n2g.store.reader import PLACE, Store, check_page
from saelens_n2g.store.records import Hit, Hits, Place
from saelens_n2g.store.schema import INDEX_BITS, speaking

STRENGTH = "strength"
_ROLES = {
    "activating": (postings.ACTIVATING,),
    "important": (postings.IMPORTANT,),
    "any": (postings.ACTIVATING, postings.IMPORTANT),
}
_PER_LAYER = INDEX_BITS - BLOCK_BITS
"""A block's number, shifted right by this, is that of its layer."""


class _Set(NamedTuple):
    """Units of a block."""

    mask: Bool[np.ndarray, "place"]
    strength: Float64[np.ndarray, "place"]
    """0 where the mask is False."""


class _Block(NamedTuple):
    """A block of the units that are searched."""

    number: int
    layer: Place
    there: Bool[np.ndarray, "place"]
    """Places at which there is a unit."""


_Found = Mapping[Term, Mapping[int, _Set]]
"""Term -> block -> units."""


def find(store: Store, query: str, *, model: str | None, sort: str, limit: int, offset: int) -> Hits:
    """See `Store.search`."""
    check_page(limit, offset)
    if sort not in (PLACE, STRENGTH):
        raise InputError("sort", f"{PLACE} or {STRENGTH}", repr(sort))
    blocks, found = _found(store, query, model)
    places = [np.flatnonzero(one.mask) for one in found]
    starts = [block.number << BLOCK_BITS for block in blocks]
    numbers = np.concatenate([[], *(s + at for s, at in zip(starts, places, strict=True))]).astype(np.int64)
    strengths = np.concatenate([[], *(one.strength[at] for one, at in zip(found, places, strict=True))])
    order = _strongest(strengths, offset + limit) if sort == STRENGTH else np.arange(len(numbers))
    chosen = order[offset : offset + limit]
    power = dict(zip(numbers[chosen].tolist(), strengths[chosen].tolist(), strict=True))
    return Hits(len(numbers), tuple(Hit(unit, power[unit.id]) for unit in store.units(power)))


def tally(store: Store, query: str, *, model: str | None = None) -> dict[Place, int]:
    """How many units `Store.search` finds in each layer of each basis; places without any are left out. Raises as it
    does."""
    counts: dict[Place, int] = {}
    for block, one in zip(*_found(store, query, model), strict=True):
        if n := int(one.mask.sum()):
            counts[block.layer] = counts.get(block.layer, 0) + n
    return counts


def _found(store: Store, query: str, model: str | None) -> tuple[list[_Block], list[_Set]]:
    """What a query finds in every block."""
    tree = parse(query)
    blocks = _blocks(store, model)
    named = {term: _term(store, term, blocks) for term in set(terms(tree))}
    return blocks, [_evaluate(tree, block, named) for block in blocks]


def _strongest(strengths: Float64[np.ndarray, "hit"], n: int) -> Int64[np.ndarray, "place"]:
    """Places of the `n` largest (or a few more), largest first, equal ones in their order."""
    few = np.arange(len(strengths))
    if n < len(strengths):
        least = np.partition(strengths, len(strengths) - n)[len(strengths) - n] if n else np.inf
        few = np.flatnonzero(strengths >= least)
    return np.asarray(few[np.argsort(-strengths[few], kind="stable")])


def _blocks(store: Store, model: str | None) -> list[_Block]:
    """The blocks that are searched, by model, basis, layer and place. Raises `InputError` for an unknown model."""
    if model is not None and model not in (names := [one.name for one in store.models()]):
        raise InputError(f"model {model!r}", f"one of {', '.join(names) or '(none)'}", repr(model))
    layers = {layer.id: layer for layer in store.places(model)}
    order = {number: place for place, number in enumerate(layers)}
    blocks = []
    for row in _read(store, EVERY, 0):
        layer = layers.get(row.block >> _PER_LAYER)
        if layer is not None:
            there = np.zeros(int(row.places[-1]) + 1, dtype=bool)
            there[row.places] = True
            blocks.append(_Block(row.block, layer, there))
    return sorted(blocks, key=lambda block: (order[block.layer.id], block.number))


def _read(store: Store, token: int, role: int) -> list[postings.Block]:
    try:
        with speaking(store.path):
            return postings.read(store.connection, token, role)
    except (InputError, ArtefactError):  # the first is a ValueError, too
        raise
    except (TypeError, ValueError) as error:
        raise ArtefactError(f"store {store.path}", "whole posting lists", str(error)) from error


def terms(node: Query) -> list[Term]:
    """The tokens of a query, those behind "not" included."""
    if isinstance(node, Term):
        return [node]
    if isinstance(node, Not):
        return terms(node.part)
    return [term for part in node.parts for term in terms(part)] if isinstance(node, And | Or) else []


def _term(store: Store, term: Term, blocks: Sequence[_Block]) -> dict[int, _Set]:
    """Units that name the token, by block."""
    known = store.rows("SELECT id FROM tokens WHERE text = ?", normal_form(term.text))
    if not known:
        return {}
    sizes = {block.number: len(block.there) for block in blocks}
    found: dict[int, _Set] = {}
    for role in _ROLES[term.role]:
        for row in _read(store, known[0][0], role):
            size = sizes.get(row.block)
            if size is None:
                continue
            if row.places[-1] >= size:
                raise ArtefactError(f"store {store.path}", "posting lists of units that are there", f"{row.places[-1]}")
            mask, strength = found.setdefault(row.block, _nothing(size))
            mask[row.places] = True
            strength[row.places] = np.maximum(strength[row.places], row.strengths)
    return found


def _nothing(size: int) -> _Set:
    return _Set(np.zeros(size, dtype=bool), np.zeros(size))


def _evaluate(node: Query, block: _Block, terms: _Found) -> _Set:
    """The units of a block that a query finds."""
    nothing = _nothing(len(block.there))
    if isinstance(node, Term):
        return terms[node].get(block.number, nothing)
    if isinstance(node, LayerIs | BasisIs):
        layer = block.layer
        inside = node.low <= layer.layer <= node.high if isinstance(node, LayerIs) else node.name == layer.basis
        return nothing._replace(mask=block.there) if inside else nothing
    if isinstance(node, Not):
        return nothing._replace(mask=block.there & ~_evaluate(node.part, block, terms).mask)
    parts = [_evaluate(part, block, terms) for part in node.parts]
    total = reduce(np.add, [part.strength for part in parts])
    if isinstance(node, Or):
        return _Set(reduce(np.logical_or, [part.mask for part in parts]), total)
    mask = reduce(np.logical_and, [part.mask for part in parts])
    return _Set(mask, np.where(mask, total, 0.0))
