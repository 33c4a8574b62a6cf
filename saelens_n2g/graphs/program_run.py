"""How compiled graphs are run: all positions of a text at once, level by level of the merged trie.

A *state* says that reading backwards from a position one has come to a node, so many tokens back. States start at the
roots that the token of a position names (found by token id: a position whose token starts no path is not looked at
again), and each step replaces all states by those one level deeper. A wildcard is one more state, not a search; a gap
is one state for each number of tokens; states that meet again behind a second gap are merged. So the work for a
position is bounded by nodes times the tokens that gaps let it reach. Where a step would get large the positions
are split and run one half after the other, which bounds memory.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int, Int64

from saelens_n2g.graphs.elements import CLASS, GAP, IGNORE, START
from saelens_n2g.graphs.program_tables import Ids, Tables

STATES = 1 << 18
"""States that one step makes, about, unless a single position makes more."""
_TOKEN, _IGNORE, _START, _CLASS, _GAP, _END = 1, 2, 4, 8, 16, 32
_CHILDREN = _END - 1
_SPREAD = np.int64(-7046029254386353131)
"""Odd, with bits all over (2**64 over the golden ratio): multiplied with it, keys differ in their first bits."""


class States(NamedTuple):
    """Places in text and trie at once; `back` is the number of tokens read, that of the position included."""

    position: Ids
    node: Ids
    back: Ids

    def at(self, chosen: Int[np.ndarray, "_"] | Bool[np.ndarray, "_"]) -> "States":
        """Some of them."""
        return States(self.position[chosen], self.node[chosen], self.back[chosen])


class Text(NamedTuple):
    """Rows of tokens laid end to end."""

    tokens: Int64[np.ndarray, "position"]
    """Token ids; every id that no graph names is `Trie.unknown`."""
    reach: Int64[np.ndarray, "position"]
    """Tokens from here back to the first one of the same stretch of text, both included; 0 outside the text."""
    begins: Bool[np.ndarray, "position"]
    """Whether that first one begins the row's text."""


class Keys(NamedTuple):
    """Ascending numbers to be looked up. Most of what is looked up is not there, which one byte says for most."""

    values: Ids
    there: Bool[np.ndarray, "_"]
    """Per hash whether any value has it; four to eight hashes for each value."""
    shift: int
    """What is cut off a 64-bit product to make a hash of it."""

    @classmethod
    def of(cls, values: Ids) -> "Keys":
        """For ascending `values` without repetition."""
        bits = max(len(values) * 4, 2).bit_length()
        there = np.zeros(1 << bits, dtype=np.bool_)
        there[_hash(values, 64 - bits)] = True
        return cls(values, there, 64 - bits)

    def find(self, wanted: Ids) -> tuple[Ids, Ids]:
        """Which of `wanted` are there, and where."""
        maybe = np.flatnonzero(self.there[_hash(wanted, self.shift)])
        wanted = wanted[maybe]
        place = np.searchsorted(self.values, wanted)
        hit = np.flatnonzero(self.values[np.minimum(place, len(self.values) - 1)] == wanted)
        return maybe[hit], place[hit]


def _hash(values: Ids, shift: int) -> Ids:
    return np.asarray(((values * _SPREAD).view(np.uint64) >> np.uint64(shift)).view(np.int64))


@dataclass(frozen=True, eq=False)
class Trie:
    """The merged trie as it is run: children found by what is read."""

    unknown: int
    """Larger than every token id that a graph names; stands for all other tokens."""
    kinds: Int[np.ndarray, "n"]
    """Per node which kinds of children it has, and whether a path ends there, as bits."""
    fan: Ids
    """Per node the most states that one step makes of it."""
    root_of: Ids
    """Per token id up to `unknown` the root that is this token, -1 for none."""
    class_root_first: Ids
    class_root: Ids
    """Per token id the roots that are a class with this token."""
    token_key: Keys
    """parent * (unknown + 1) + token, ascending."""
    token_child: Ids
    ignore: Ids
    """Per node its wildcard child, -1 for none; for the start likewise."""
    start: Ids
    class_edge_first: Ids
    class_child: Ids
    class_number: Ids
    class_key: Keys
    """class * (unknown + 1) + member, ascending."""
    gap_edge_first: Ids
    gap_child: Ids
    gap_width: Ids
    gap_again: Bool[np.ndarray, "_"]
    """Whether there is another gap above this one, so that states may meet."""

    @classmethod
    def of(cls, tables: Tables) -> "Trie":
        """The running form of `tables`."""
        element, parent, n = tables.element, tables.parent, tables.n_nodes
        below = parent >= 0
        token, gap, kind = element >= 0, (element < GAP) & (element > CLASS), element <= CLASS
        unknown = int(max(element.max(initial=0), tables.class_token.max(initial=0))) + 1
        tokens, gaps, classes = (np.flatnonzero(below & which) for which in (token, gap, kind))
        width, number = GAP - element[gaps], CLASS - element[classes]
        member_of = np.repeat(np.arange(len(tables.class_first) - 1), np.diff(tables.class_first))
        kinds, fan = np.zeros(n, dtype=np.int8), np.zeros(n, dtype=np.int64)
        for bit, which in (
            (_TOKEN, token), (_IGNORE, element == IGNORE), (_START, element == START), (_CLASS, kind), (_GAP, gap),
        ):  # fmt: skip
            kinds[parent[below & which]] |= bit
        kinds[tables.held_node[tables.end_held]] |= _END
        np.add.at(fan, parent[classes], 1)
        np.add.at(fan, parent[gaps], width + 1)
        fan += ((kinds[:, None] & (_TOKEN, _IGNORE, _START)) > 0).sum(axis=1)
        class_root_first, class_root = _class_roots(tables, np.flatnonzero(~below & kind), unknown)
        return cls(
            unknown=unknown,
            kinds=kinds,
            fan=fan,
            root_of=_scatter(element[token & ~below], np.flatnonzero(token & ~below), unknown + 1),
            class_root_first=class_root_first,
            class_root=class_root,
            token_key=Keys.of(parent[tokens] * (unknown + 1) + element[tokens]),
            token_child=tokens,
            ignore=_only_child(parent, below & (element == IGNORE)),
            start=_only_child(parent, below & (element == START)),
            class_edge_first=np.searchsorted(parent[classes], np.arange(n + 1)),
            class_child=classes,
            class_number=number,
            class_key=Keys.of(member_of * (unknown + 1) + tables.class_token),
            gap_edge_first=np.searchsorted(parent[gaps], np.arange(n + 1)),
            gap_child=gaps,
            gap_width=width,
            gap_again=_behind_gap(parent, gap)[gaps],
        )

    def text(self, tokens: Int[np.ndarray, "n w"], mask: Bool[np.ndarray, "n w"] | None) -> Text:
        """Rows as they are run; positions where `mask` is False are outside the text."""
        n, w = tokens.shape
        known = np.where((tokens >= 0) & (tokens < self.unknown), tokens, self.unknown).astype(np.int64)
        here = np.arange(w)
        if mask is None:
            return Text(known.ravel(), np.tile(here + 1, n), np.ones(n * w, dtype=np.bool_))
        outside = np.maximum.accumulate(np.where(mask, -1, here), axis=1)  # the last position outside, up to here
        reach = np.where(mask, here - outside, 0)
        first = mask.argmax(axis=1)[:, None] if w else 0
        return Text(known.ravel(), reach.ravel(), (outside + 1 == first).ravel())

    def ends(self, text: Text, start: int, stop: int) -> Iterator[States]:
        """The states that stand at an end of some graph, for the positions from `start` to `stop`, in pieces."""
        states = self._roots(text, start, stop)
        todo: list[States] = []
        while True:
            kinds = self.kinds[states.node]
            if len(ended := np.flatnonzero(kinds & _END)):
                yield states.at(ended)
            todo.extend(self._parts(states.at(np.flatnonzero(kinds & _CHILDREN))))
            if not todo:
                return
            states = self._step(todo.pop(), text)

    def _parts(self, states: States) -> list[States]:
        """The states in parts, by position, so small that the next step makes about `STATES` of each."""
        if not len(states.node):
            return []
        fan = self.fan[states.node]
        if fan.sum() <= STATES:
            return [states]
        low = int(states.position.min())
        part = np.cumsum(np.bincount(states.position - low, fan)).astype(np.int64) // STATES
        of = part[states.position - low]
        order = np.argsort(of, kind="stable")
        bounds = np.flatnonzero(np.diff(of[order])) + 1
        return [states.at(some) for some in np.split(order, bounds)]

    def _roots(self, text: Text, start: int, stop: int) -> States:
        """The states that positions start with."""
        position = start + np.flatnonzero(text.reach[start:stop] > 0)
        token = text.tokens[position]
        root = self.root_of[token]
        hit = np.flatnonzero(root >= 0)
        found = [(position[hit], root[hit])]
        if len(self.class_root):
            source, place = spread(self.class_root_first, token)
            found.append((position[source], self.class_root[place]))
        positions, nodes = (np.concatenate(parts) for parts in zip(*found, strict=True))
        return States(positions, nodes, np.ones(len(nodes), dtype=np.int64))

    def _step(self, states: States, text: Text) -> States:
        """All states one level deeper."""
        kinds, left = self.kinds[states.node], text.reach[states.position] - states.back
        more = left > 0
        found: list[States] = []
        if len(chosen := np.flatnonzero(more & ((kinds & _TOKEN) > 0))):
            found.append(self._tokens(states.at(chosen), text))
        if len(chosen := np.flatnonzero(more & ((kinds & _CLASS) > 0))):
            found.append(self._classes(states.at(chosen), text))
        if len(chosen := np.flatnonzero(more & ((kinds & _IGNORE) > 0))):
            position, node, back = states.at(chosen)
            found.append(States(position, self.ignore[node], back + 1))
        if len(chosen := np.flatnonzero(~more & ((kinds & _START) > 0) & text.begins[states.position])):
            position, node, back = states.at(chosen)
            found.append(States(position, self.start[node], back))
        if len(chosen := np.flatnonzero(kinds & _GAP)):
            found.append(self._gaps(states.at(chosen), left[chosen]))
        if len(found) == 1:
            return found[0]
        if not found:
            return states.at(np.zeros(0, dtype=np.int64))
        return States(*(np.concatenate(parts) for parts in zip(*found, strict=True)))

    def _tokens(self, states: States, text: Text) -> States:
        position, node, back = states
        key = node * (self.unknown + 1) + text.tokens[position - back]
        hit, place = self.token_key.find(key)
        return States(position[hit], self.token_child[place], back[hit] + 1)

    def _classes(self, states: States, text: Text) -> States:
        position, node, back = states
        source, edge = spread(self.class_edge_first, node)
        key = self.class_number[edge] * (self.unknown + 1) + text.tokens[position - back][source]
        hit, _ = self.class_key.find(key)
        source = source[hit]
        return States(position[source], self.class_child[edge[hit]], back[source] + 1)

    def _gaps(self, states: States, left: Ids) -> States:
        source, edge = spread(self.gap_edge_first, states.node)
        times = np.minimum(self.gap_width[edge], left[source]) + 1
        first = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(times)])
        which = np.repeat(np.arange(len(times)), times)
        source = source[which]
        skipped = np.arange(first[-1]) - first[which]
        found = States(states.position[source], self.gap_child[edge[which]], states.back[source] + skipped)
        return _distinct(found) if self.gap_again[edge].any() else found


def spread(first: Ids, items: Ids) -> tuple[Ids, Ids]:
    """Every place of every item: which of `items` it is of, and the place."""
    start = first[items]
    times = first[items + 1] - start
    source = np.repeat(np.arange(len(items)), times)
    shift = start - (np.cumsum(times) - times)
    return source, np.arange(len(source)) + shift[source]


def _distinct(states: States) -> States:
    """Each state once."""
    bits = [int(column.max()).bit_length() for column in states]
    assert sum(bits) < 64, bits
    keys = np.sort((states.position << bits[1] | states.node) << bits[2] | states.back)
    keys = keys[np.append(True, keys[1:] != keys[:-1])]
    node = keys >> bits[2]
    return States(node >> bits[1], node & ((1 << bits[1]) - 1), keys & ((1 << bits[2]) - 1))


def _scatter(at: Ids, values: Ids, size: int) -> Ids:
    out = np.full(size, -1, dtype=np.int64)
    out[at] = values
    return out


def _only_child(parent: Ids, chosen: Bool[np.ndarray, "n"]) -> Ids:
    return _scatter(parent[chosen], np.flatnonzero(chosen), len(parent))


def _class_roots(tables: Tables, roots: Ids, unknown: int) -> tuple[Ids, Ids]:
    """Per token id up to `unknown` the roots that are a class with it."""
    source, place = spread(tables.class_first, CLASS - tables.element[roots])
    token = tables.class_token[place]
    order = np.argsort(token, kind="stable")
    return np.searchsorted(token[order], np.arange(unknown + 2)), roots[source[order]]


def _behind_gap(parent: Ids, gap: Bool[np.ndarray, "n"]) -> Bool[np.ndarray, "n"]:
    """Per node whether one above it is a gap."""
    behind = np.zeros(len(parent), dtype=np.bool_)
    start = int(np.searchsorted(parent, 0))
    while start < len(parent):  # the nodes of one level at a time: those whose parents are known
        stop = int(np.searchsorted(parent, start))
        above = parent[start:stop]
        behind[start:stop] = behind[above] | gap[above]
        start = stop
    return behind
