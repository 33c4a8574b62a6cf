"""Program: one graph, or all graphs of a basis, compiled to arrays and run over text.

    program = Program.compile(graphs)
    found = program.predict(ids)                     # where which graph predicts what: three columns
    found = program.predict_text(windows.tokens, windows.mask)
    for part in program.predict_parts(tokens, mask): ...        # the same, in memory that does not grow with the text
    why = program.matches(ids, graphs=[7])           # every match with its path, nothing left out
    program.places(ids, why[0])                      # and where each element of the path stands

What it says is what `Graph.matches` says, which is the definition: of all paths that match at a position the one of
the highest `Match.rank` counts. (The search of Foote et al. follows an exact token and never comes back for the
wildcard beside it; that of Gao et al. stops at the shortest match. Here nothing is lost to either.) The graphs' tries
are merged into one (`program_tables`), so that a token that starts paths of a thousand graphs is looked up once, and
run level by level over all positions (`program_run`). `program_file` stores graphs in the form they are run in.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Int, Int64

from saelens_n2g.errors import InputError
from saelens_n2g.graphs import elements
from saelens_n2g.graphs.elements import IGNORE, START
from saelens_n2g.graphs.graph import Graph, Match
from saelens_n2g.graphs.program_run import Text, Trie, spread
from saelens_n2g.graphs.program_tables import Ids, Tables, merge

FEWEST_POSITIONS, POSITIONS, MOST_POSITIONS = 1 << 8, 1 << 13, 1 << 17
"""Positions that are run together, with many nodes and with few; so many that arrays stay in the processor's cache."""
Mask = Bool[np.ndarray, "..."]
"""Which positions of a text count; shaped as its tokens, which is checked."""


class Predictions(NamedTuple):
    """Where graphs match, each place and graph once, by row, position and graph. Elsewhere every prediction is 0."""

    graph: Int64[np.ndarray, "k"]
    row: Int64[np.ndarray, "k"]
    position: Int64[np.ndarray, "k"]
    activation: Float32[np.ndarray, "k"]
    """In [0, 1]; below 0.5 where the path that counts says that the unit stays quiet."""

    def dense(self, graph: int, shape: tuple[int, ...]) -> Float32[np.ndarray, "n w"]:
        """The predictions of one graph as an array of the text's shape, 0 where none of its paths matches."""
        out = np.zeros(shape, dtype=np.float32)
        own = self.graph == graph
        out[self.row[own], self.position[own]] = self.activation[own]
        return out


class Counting(NamedTuple):
    """The matches of one text that count, one for each position and graph, in that order."""

    graph: Int64[np.ndarray, "k"]
    position: Int64[np.ndarray, "k"]
    length: Int64[np.ndarray, "k"]
    """Tokens that the match reaches back, that of the position included."""
    activation: Float32[np.ndarray, "k"]
    """As in `Predictions`."""
    end: Int64[np.ndarray, "k"]
    """Which end of the program it is; `Program.found` reads its path off it."""


class Found(NamedTuple):
    """A match and where it is."""

    graph: int
    position: int
    match: Match


class _Ends(NamedTuple):
    """Where paths end, by node; `rank` orders those of one graph that match at the same length (`Match.rank`)."""

    first: Ids
    """Per node where its ends begin."""
    graph: Ids
    rank: Ids
    activation: Float32[np.ndarray, "_"]
    exact: Int64[np.ndarray, "_"]
    """Place in the tables' columns."""
    ranked: Ids
    """Places of the ends by graph and rank."""
    ranked_first: Ids
    """Per graph where its ends begin in `ranked`."""


@dataclass(frozen=True, eq=False)
class Program:
    """Compiled graphs; see the top of this file."""

    tables: Tables
    trie: Trie
    _ends: _Ends

    @classmethod
    def compile(cls, graphs: Sequence[Graph]) -> "Program":
        """The program of `graphs`, which are numbered in the order given."""
        return cls.of(merge(graphs))

    @classmethod
    def of(cls, tables: Tables) -> "Program":
        """The program of graphs that are arrays already."""
        return cls(tables, Trie.of(tables), _ends_of(tables))

    @property
    def n_graphs(self) -> int:
        """Number of graphs."""
        return self.tables.n_graphs

    def predict(self, tokens: Sequence[int]) -> Predictions:
        """Predictions for one text without BOS, the first token of which begins the text; `row` is 0 throughout."""
        return self.predict_text(np.asarray(tokens, dtype=np.int64)[None])

    def predict_text(self, tokens: Int[np.ndarray, "n w"], mask: Mask | None = None) -> Predictions:
        """Predictions for rows that are texts of their own.

        Positions where `mask` is False (BOS, padding) are outside the text: nothing matches there, and the first
        counted position of a row begins its text. Raises `InputError` if the shapes differ.
        """
        parts = [*self.predict_parts(tokens, mask)]
        if len(parts) == 1:
            return parts[0]
        none = np.zeros(0, dtype=np.int64)
        parts.append(Predictions(none, none, none, none.astype(np.float32)))
        return Predictions(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))

    def predict_parts(self, tokens: Int[np.ndarray, "n w"], mask: Mask | None = None) -> Iterator[Predictions]:
        """`predict_text` in parts of some thousand positions, one after the other: for text of any length."""
        step = self._positions()
        for first, text in self._texts(tokens, mask):
            for start in range(0, len(text.tokens), step):
                stop = min(start + step, len(text.tokens))
                place, end, _ = self._counting(text, start, stop)
                row, position = np.divmod(place, tokens.shape[1])
                yield Predictions(self._ends.graph[end], first + row, position, self._ends.activation[end])

    def count(self, tokens: Sequence[int]) -> Counting:
        """What `predict` says of one text, with what it takes to give the path of any of it: see `found`."""
        parts: list[Counting] = []
        for _, text in self._texts(np.asarray(tokens, dtype=np.int64)[None], None):
            for start in range(0, len(text.tokens), self._positions()):
                stop = min(start + self._positions(), len(text.tokens))
                place, end, back = self._counting(text, start, stop)
                parts.append(Counting(self._ends.graph[end], place, back, self._ends.activation[end], end))
        if len(parts) == 1:
            return parts[0]
        none = np.zeros(0, dtype=np.int64)
        parts.append(Counting(none, none, none, none.astype(np.float32), none))
        return Counting(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))

    def found(self, counting: Counting, row: int) -> Found:
        """The match that one row of `count` is, with its path."""
        graph, position, length, _, end = (column[row].item() for column in counting)
        exact = int(self._ends.exact[end])
        node = int(self.tables.held_node[self.tables.end_held[exact]])
        match = Match(length, float(self.tables.end_activation[exact]), self._path(graph, node))
        return Found(graph, position, match)

    def matches(
        self,
        tokens: Sequence[int],
        *,
        graphs: Collection[int] | None = None,
        positions: Collection[int] | None = None,
    ) -> list[Found]:
        """Every match in one text without BOS, with its path: by position, graph and rank, so that the last counts.

        Of all graphs and positions, or of those named.
        """
        found: list[Found] = []
        paths: dict[tuple[int, int], tuple[int, ...]] = {}
        text = self.trie.text(np.asarray(tokens, dtype=np.int64)[None], None)
        if positions is not None:  # what has nothing to read back from is not looked at
            wanted = np.isin(np.arange(len(tokens)), [*positions])
            text = text._replace(reach=np.where(wanted, text.reach, 0))
        for states in self.trie.ends(text, 0, len(tokens)):
            source, end = spread(self._ends.first, states.node)
            if graphs is not None:
                own = np.isin(self._ends.graph[end], [*graphs])
                source, end = source[own], end[own]
            position, node, back = states.at(source)
            activation = self.tables.end_activation[self._ends.exact[end]]
            columns = (self._ends.graph[end], node, position, back, activation)
            for graph, at, place, length, says in zip(*(column.tolist() for column in columns), strict=True):
                path = paths.get((graph, at))
                if path is None:
                    path = paths[graph, at] = self._path(graph, at)
                found.append(Found(graph, place, Match(length, says, path)))
        return sorted(found, key=lambda one: (one.position, one.graph, one.match.rank, one.match.path))

    def places(self, tokens: Sequence[int], found: Found) -> list[range]:
        """Where each element of a match stands in `tokens`, see `elements.places`; a start and an empty gap nowhere."""
        own = self.tables.classes_of(found.graph)
        path = found.match.path
        members = [self.tables.members(own[elements.class_index(e)]) if elements.is_class(e) else () for e in path]
        return elements.places(path, members, tokens, found.position, found.match.length)

    def _texts(self, tokens: Int[np.ndarray, "n w"], mask: Mask | None) -> Iterator[tuple[int, Text]]:
        """Blocks of rows as they are run, each with the number of its first row."""
        if mask is not None and mask.shape != tokens.shape:
            raise InputError("mask of a text", f"shape {tokens.shape} as the tokens", f"shape {mask.shape}")
        step = max(1, self._positions() // max(tokens.shape[1], 1))
        for first in range(0, len(tokens), step):
            some = slice(first, first + step)
            yield first, self.trie.text(tokens[some], None if mask is None else mask[some])

    def _positions(self) -> int:
        """Positions to run together: fewer with many graphs, each of which may match at each of them."""
        by_nodes = max(POSITIONS, (1 << 22) // max(self.tables.n_nodes, 1))
        by_graphs = max(FEWEST_POSITIONS, (1 << 25) // max(self.n_graphs, 1))
        return min(by_nodes, by_graphs, MOST_POSITIONS)

    def _counting(self, text: Text, start: int, stop: int) -> tuple[Ids, Ids, Ids]:
        """Per position and graph the match that counts: position, end and length, by position and graph."""
        ends = self._ends
        sizes = (stop - start, self.n_graphs, int(text.reach[start:stop].max(initial=0)) + 1, len(ends.ranked))
        bits = [int(size).bit_length() for size in sizes]
        assert sum(bits) < 64, bits  # one sort key
        _, _, for_back, for_rank = bits
        low = for_back + for_rank
        best = np.zeros(0, dtype=np.int64)
        waiting: list[Ids] = []
        for states in self.trie.ends(text, start, stop):
            source, end = spread(ends.first, states.node)
            place = (states.position[source] - start) << bits[1] | ends.graph[end]
            waiting.append((place << for_back | states.back[source]) << for_rank | ends.rank[end])
            if sum(map(len, waiting)) > len(best) + (1 << 20):
                best, waiting = _last_of_each([best, *waiting], low), []
        best = _last_of_each([best, *waiting], low)
        graph = (best >> low) & ((1 << bits[1]) - 1)
        end = ends.ranked[ends.ranked_first[graph] + (best & ((1 << for_rank) - 1))]
        return start + (best >> (low + bits[1])), end, (best >> for_rank) & ((1 << for_back) - 1)

    def _path(self, graph: int, node: int) -> tuple[int, ...]:
        """Elements from the root to `node`, classes numbered as in the graph."""
        own = self.tables.classes_of(graph)
        path: list[int] = []
        while node >= 0:
            element = int(self.tables.element[node])
            if elements.is_class(element):
                element = elements.of_class(own.index(elements.class_index(element)))
            path.append(element)
            node = int(self.tables.parent[node])
        return tuple(reversed(path))


def _last_of_each(parts: list[Ids], low: int) -> Ids:
    """Of the keys that differ in no more than their `low` last bits the largest, ascending."""
    keys = np.sort(np.concatenate(parts))
    high = keys >> low
    return keys[np.append(high[1:] != high[:-1], True)] if len(keys) else keys


def _ends_of(tables: Tables) -> _Ends:
    """The ends of all graphs, by node."""
    node = tables.held_node[tables.end_held]
    by_node = np.argsort(node, kind="stable")
    graph = tables.graph_of_end()
    exact, open_ones = _along_paths(tables)
    last = tables.element[node]
    ranked = np.lexsort((tables.end_activation, -open_ones[node], exact[node], last == START, graph))
    ranked_first = np.searchsorted(graph[ranked], np.arange(tables.n_graphs + 1))
    rank = np.empty(len(node), dtype=np.int64)
    rank[ranked] = np.arange(len(node)) - ranked_first[graph[ranked]]
    place = np.empty(len(node), dtype=np.int64)
    place[by_node] = np.arange(len(node))
    return _Ends(
        first=np.searchsorted(node[by_node], np.arange(tables.n_nodes + 1)),
        graph=graph[by_node],
        rank=rank[by_node],
        activation=np.clip(tables.end_activation[by_node], 0.0, 1.0).astype(np.float32),
        exact=by_node,
        ranked=place[ranked],
        ranked_first=ranked_first,
    )


def _along_paths(tables: Tables) -> tuple[Ids, Ids]:
    """Per node the numbers of exact tokens, and of wildcards and gaps, on the path down to it."""
    element, parent = tables.element, tables.parent
    exact = (element >= 0).astype(np.int64)
    open_ones = ((element == IGNORE) | ((element < elements.GAP) & (element > elements.CLASS))).astype(np.int64)
    start = int(np.searchsorted(parent, 0))
    while start < len(parent):  # level by level
        stop = int(np.searchsorted(parent, start))
        exact[start:stop] += exact[parent[start:stop]]
        open_ones[start:stop] += open_ones[parent[start:stop]]
        start = stop
    return exact, open_ones
