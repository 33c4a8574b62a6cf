"""Which graphs name the same tokens: similar units, and the index behind search by token.

DeepDecipher (Garde et al. 2023), section 2 and figure 1: "co-occurrence of token nodes is used to calculate the
similarity score as the two-way maximum proportion of overlapping nodes". With A(g) the tokens that graph g activates on
and I(g) those it has as important context, the share of g that is found in h is

    share(g in h) = (|A(g) & A(h)| + |I(g) & I(h)|) / (|A(g)| + |I(g)|)

and the similarity of the two is the larger of share(g in h) and share(h in g). What a "node" is here:

- Tokens are known by their text without surrounding space and case (`structure.word_of`), as in DeepDecipher's store,
  so that graphs of different subjects can be compared. A token counts once in A and once in I, at whatever depth.
- Only nodes on the way to an end that fires count: negative evidence activates nothing. Wildcards, gaps and the start
  of the text name no token.
- A class is one node that its m different words share, each with weight 1/m; a word that several nodes name has the
  largest of its weights. The sizes |A| and |I| are sums of weights, and what is found of g in h is the weight that the
  words have in g, whatever theirs in h.

A small graph is found whole in every graph that holds it, so 1 is common, as it is in the definition; of equal
similarities the one whose other share is larger stands first. Ten thousand graphs of 130 tokens take 4 s of one core.

    index = TokenIndex.of(graphs)
    index.find("the")                        # who fires on it or needs it, strongest first
    nearest = neighbours(index, k=10)
    nearest.graphs[3], nearest.similarity[3]
"""

from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Float64, Int32, Int64, UInt8

from saelens_n2g.errors import InputError
from saelens_n2g.graphs.graph import Graph, Node
from saelens_n2g.graphs.structure import fires, normal_form, word_of

WHOLE = 2**15
"""Weight of a node that names one token. Weights are integers, so that sums are exact in whatever order they are made;
the shares of a class of m are rounded by less than m / 65,536 of themselves, always alike."""
RANKS = 2**20
"""Steps in which similarities are ordered: what differs by less than a millionth counts as equal."""
BLOCK = 2**19
"""Pairs and cells of the table of all pairs that are worked on at a time; some 50 MB."""
COMMON = 2**24 // WHOLE
"""Most words that are taken out of the sparse product and multiplied as dense matrices: with so many, sums of weights
are exact in 32 bits."""
COMMON_CELLS = 2**23
"""Most cells of each of these matrices; 32 MB."""
COMMON_SHARE = 0.1
"""Share of the graphs that a word must be in for that; below, the sparse product is faster."""


_Shares = Float64[np.ndarray, "row graph"]


class Role(IntEnum):
    """What a token is to a graph."""

    ACTIVATING = 0
    IMPORTANT = 1


class Posting(NamedTuple):
    """One row of the index for search, as a store keeps it."""

    word: str
    role: Role
    graph: int
    """Place of the graph among those indexed."""
    strength: float
    """Largest importance of the nodes that name the word, in [0, 1]; of an activating one the largest activation."""


@dataclass(frozen=True, eq=False)
class TokenIndex:
    """All words of many graphs as one table, sorted by word, role, then strength downwards, then graph."""

    units: tuple[str, ...]
    words: tuple[str, ...]
    """Ascending; `word` below counts in it."""
    word: Int32[np.ndarray, "entry"]
    role: UInt8[np.ndarray, "entry"]
    graph: Int32[np.ndarray, "entry"]
    weight: Int32[np.ndarray, "entry"]
    """Share of a node that names the word, in units of 1 / `WHOLE`."""
    strength: Float64[np.ndarray, "entry"]

    @classmethod
    def of(cls, graphs: Iterable[Graph]) -> "TokenIndex":
        """The index of these graphs, which are read one at a time and not kept."""
        units: list[str] = []
        numbers: dict[str, int] = {}
        table, strengths = array("q"), array("d")  # lists of Python's numbers would take ten times the memory
        for place, graph in enumerate(graphs):
            units.append(graph.unit)
            for (role, word), (weight, strength) in words_of(graph).items():
                table.extend((numbers.setdefault(word, len(numbers)), role, place, weight))
                strengths.append(strength)
        words = sorted(numbers)
        rank = np.empty(len(words), dtype=np.int64)
        rank[[numbers[word] for word in words]] = np.arange(len(words))
        columns = np.frombuffer(table, dtype=np.int64).reshape(-1, 4).copy()
        columns[:, 0] = rank[columns[:, 0]]
        power = np.frombuffer(strengths, dtype=np.float64)
        order = np.lexsort((columns[:, 2], -power, columns[:, 1], columns[:, 0]))
        columns = columns[order]
        return cls(
            units=tuple(units),
            words=tuple(words),
            word=columns[:, 0].astype(np.int32),
            role=columns[:, 1].astype(np.uint8),
            graph=columns[:, 2].astype(np.int32),
            weight=columns[:, 3].astype(np.int32),
            strength=power[order],
        )

    def rows(self) -> Iterator[Posting]:
        """Every entry as one row, in the order of the table."""
        columns = (self.word.tolist(), self.role.tolist(), self.graph.tolist(), self.strength.tolist())
        for word, role, graph, strength in zip(*columns, strict=True):
            yield Posting(self.words[word], Role(role), graph, strength)

    def find(self, text: str, role: Role | None = None) -> list[Posting]:
        """Graphs that name a token, strongest first, then as indexed; `role` `None` is DeepDecipher's `any`.

        The text is put in the form of the index first: "The" and " the" are the same. With `role` `None` a graph
        stands there once, with its stronger role. Empty if no graph names it.
        """
        wanted = normal_form(text)
        at = bisect_left(self.words, wanted)
        if at == len(self.words) or self.words[at] != wanted:
            return []
        first, last = np.searchsorted(self.word, [at, at + 1])
        best: dict[int, Posting] = {}
        for i in range(int(first), int(last)):
            posting = Posting(wanted, Role(self.role[i]), int(self.graph[i]), float(self.strength[i]))
            if role in (None, posting.role):
                old = best.get(posting.graph)
                best[posting.graph] = posting if old is None or posting.strength > old.strength else old
        return sorted(best.values(), key=lambda posting: (-posting.strength, posting.graph))


def words_of(graph: Graph) -> dict[tuple[Role, str], tuple[int, float]]:
    """Weight, in units of 1 / `WHOLE`, and strength of every word on the way to an end that fires, by its role."""
    shares: dict[int, dict[str, int]] = {}
    found: dict[tuple[Role, str], tuple[int, float]] = {}
    for node, depth in _firing_nodes(graph):
        if node.token not in shares:
            words = {word_of(graph, token) for token in graph.members(node.token)}
            shares[node.token] = dict.fromkeys(sorted(words), max(round(WHOLE / max(len(words), 1)), 1))
        role = Role.IMPORTANT if depth else Role.ACTIVATING
        for word, weight in shares[node.token].items():
            old = found.get((role, word), (0, 0.0))
            found[role, word] = max(old[0], weight), max(old[1], node.importance)
    return found


def _firing_nodes(graph: Graph) -> Iterator[tuple[Node, int]]:
    """Nodes of the trie from which an end that fires can be reached, with their depths."""
    walked = list(graph.walk())
    leads: set[int] = set()
    for node, _, parent in reversed(walked):  # children before parents
        if id(node) in leads or (node.end is not None and fires(node.end)):
            leads.update((id(node), id(parent)))
    return ((node, depth) for node, depth, _ in walked if id(node) in leads)


class Neighbours(NamedTuple):
    """The most similar graphs of every graph, best first; rows end with -1 and 0 where there are fewer."""

    graphs: Int32[np.ndarray, "graph k"]
    own: Float64[np.ndarray, "graph k"]
    """Share of the graph's own nodes that the neighbour has, in [0, 1]."""
    other: Float64[np.ndarray, "graph k"]
    """Share of the neighbour's nodes that the graph has."""

    @property
    def similarity(self) -> Float64[np.ndarray, "graph k"]:
        """DeepDecipher's score, the larger of the two."""
        larger: Float64[np.ndarray, "graph k"] = np.maximum(self.own, self.other)
        return larger


def neighbours(index: TokenIndex, k: int = 10) -> Neighbours:
    """The `k` most similar graphs of every graph that share a word in the same role with it.

    Ordered by similarity, then by the other share, both in steps of 1 / `RANKS`, then by place in the index; a graph is
    no neighbour of itself. Memory does not grow with the number of pairs: rows are worked on in blocks. Raises
    `InputError` if `k` is below 1.
    """
    if k < 1:
        raise InputError("k", "at least 1", str(k))
    n = len(index.units)
    k = min(k, max(n - 1, 1))
    out = Neighbours(np.full((n, k), -1, np.int32), np.zeros((n, k)), np.zeros((n, k)))
    table = _Table.of(index)
    for first, last in table.blocks():
        own, other = table.shared(first, last)
        own /= table.size[first:last, None]
        other /= table.size[None, :]
        _best(own, other, first, out)
    return out


def _best(
    own: Float64[np.ndarray, "row graph"], other: Float64[np.ndarray, "row graph"], first: int, out: Neighbours
) -> None:
    """Write the best of a block of rows, which begins with graph `first`, to `out`."""
    rows, n = own.shape
    low, high = np.minimum(own, other), np.maximum(own, other)
    key = (high * RANKS).astype(np.int64)
    key *= 2 * RANKS
    key += (low * RANKS).astype(np.int64)
    key *= n
    key += np.arange(n - 1, -1, -1)
    key[high == 0.0] = -1
    at = np.arange(rows)
    key[at, first + at] = -1
    k = out.graphs.shape[1]
    some = np.argpartition(key, n - k, axis=1)[:, n - k :]
    order = np.argsort(-np.take_along_axis(key, some, axis=1), axis=1)  # keys differ, but for those that are -1
    some = np.take_along_axis(some, order, axis=1)
    there = np.take_along_axis(key, some, axis=1) >= 0
    block = slice(first, first + rows)
    out.graphs[block] = np.where(there, some, -1)
    out.own[block] = np.where(there, np.take_along_axis(own, some, axis=1), 0.0)
    out.other[block] = np.where(there, np.take_along_axis(other, some, axis=1), 0.0)


@dataclass(frozen=True, eq=False)
class _Table:
    """Graphs by (word, role) as a sparse matrix, by rows and by columns, the most common columns dense.

    Sums are of integers below 2^53 and so exact: neither the order nor the number of threads changes a bit.
    """

    size: Float64[np.ndarray, "graph"]
    """Sum of the weights; 1 for a graph without any, which shares nothing."""
    common: Float32[np.ndarray, "graph common"]
    """Weights of the words that are taken densely."""
    has_common: Float32[np.ndarray, "graph common"]
    """1 where there is a weight."""
    row_start: Int64[np.ndarray, "graph_and_end"]
    row_column: Int64[np.ndarray, "entry"]
    row_weight: Float64[np.ndarray, "entry"]
    column_start: Int64[np.ndarray, "column_and_end"]
    column_graph: Int64[np.ndarray, "entry"]
    column_weight: Float64[np.ndarray, "entry"]

    @classmethod
    def of(cls, index: TokenIndex) -> "_Table":
        """The table of an index."""
        n = len(index.units)
        weight = index.weight.astype(np.float64)
        graph = index.graph.astype(np.int64)
        _, column = np.unique(index.word.astype(np.int64) * len(Role) + index.role, return_inverse=True)
        n_columns = int(column.max()) + 1 if len(column) else 0
        uses = np.bincount(column, minlength=n_columns)
        often = np.argsort(-uses, kind="stable")[: min(COMMON, COMMON_CELLS // max(n, 1))]
        often = often[uses[often] > max(COMMON_SHARE * n, 1)]
        dense = np.full(n_columns, -1)
        dense[often] = np.arange(len(often))
        common = np.zeros((n, len(often)), dtype=np.float32)
        is_common = dense[column] >= 0
        common[graph[is_common], dense[column[is_common]]] = weight[is_common]
        size = np.bincount(graph, weight, minlength=n)
        graph, column, weight = graph[~is_common], column[~is_common], weight[~is_common]
        by_row, by_column = np.lexsort((column, graph)), np.lexsort((graph, column))
        return cls(
            size=np.where(size > 0, size, 1.0),
            common=common,
            has_common=(common > 0).astype(np.float32),
            row_start=np.searchsorted(graph[by_row], np.arange(n + 1)),
            row_column=column[by_row],
            row_weight=weight[by_row],
            column_start=np.searchsorted(column[by_column], np.arange(n_columns + 1)),
            column_graph=graph[by_column],
            column_weight=weight[by_column],
        )

    def blocks(self) -> Iterator[tuple[int, int]]:
        """Rows to work on together: at most `BLOCK` cells and, but for single rows, as many pairs."""
        n = len(self.size)
        uses = np.diff(self.column_start)[self.row_column]
        pairs = np.concatenate(([0], np.cumsum(uses)))[self.row_start]  # before each row
        first = 0
        while first < n:
            fitting = int(np.searchsorted(pairs, pairs[first] + BLOCK, side="right")) - 1
            last = min(max(fitting, first + 1), first + max(BLOCK // n, 1), n)
            yield first, last
            first = last

    def shared(self, first: int, last: int) -> tuple[_Shares, _Shares]:
        """Weight of what rows `first` to `last` share with every graph, in the rows and in the graphs."""
        n = len(self.size)
        entries = slice(int(self.row_start[first]), int(self.row_start[last]))
        columns = self.row_column[entries]
        uses = self.column_start[columns + 1] - self.column_start[columns]
        # One pair for every entry of the rows and every graph that has its column.
        begin = np.cumsum(uses) - uses
        there = np.arange(int(uses.sum())) + np.repeat(self.column_start[columns] - begin, uses)
        rows = np.repeat(np.arange(last - first), np.diff(self.row_start[first : last + 1]))
        cells = np.repeat(rows * n, uses) + self.column_graph[there]
        own = np.bincount(cells, np.repeat(self.row_weight[entries], uses), minlength=(last - first) * n)
        other = np.bincount(cells, self.column_weight[there], minlength=(last - first) * n)
        # Without a single pair the counts are of integers.
        own, other = own.astype(np.float64, copy=False), other.astype(np.float64, copy=False)
        own, other = own.reshape(-1, n), other.reshape(-1, n)
        if self.common.shape[1]:
            own += self.common[first:last] @ self.has_common.T
            other += self.has_common[first:last] @ self.common.T
        return own, other
