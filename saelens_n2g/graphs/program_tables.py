"""Tables: many graphs as plain arrays. Their tries are merged into one, in which a node of several graphs stands once.

What runs (`program_run`) and what is stored (`program_file`) are both made from these arrays, and nothing else of a
graph is needed to run it. The nodes of the merged trie are numbered level by level, those of a level by parent, those
of a parent by element; so parents come before children, and the children of a node have consecutive numbers.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np
from jaxtyping import Float64, Int, Int64

from saelens_n2g.graphs import elements
from saelens_n2g.graphs.graph import Graph, Node

Ids = Int64[np.ndarray, "_"]
"""Whole numbers; where the name ends in `first`, of item i stand the places from first[i] to first[i + 1]."""


@dataclass(frozen=True, eq=False)
class Tables:
    """Arrays of any number of graphs; a *held* node is one node of one graph."""

    element: Ids
    """Per merged node what it stands for, as in `elements`, but classes are numbered over all graphs."""
    parent: Ids
    """Per merged node the number of the one above it; -1 at depth 0."""
    class_first: Ids
    class_token: Int[np.ndarray, "_"]
    """Members of each class, ascending. Graphs share equal classes."""
    graph_class_first: Ids
    graph_class: Ids
    """Per graph its classes, in its own order. None is there twice."""
    held_first: Ids
    held_node: Ids
    """Per graph the merged nodes that it has, ascending."""
    held_importance: Float64[np.ndarray, "_"]
    end_held: Ids
    """Per end the place of its node in `held_node`, ascending."""
    end_activation: Float64[np.ndarray, "_"]
    end_support: Ids
    end_seen: Ids

    @property
    def n_graphs(self) -> int:
        """Number of graphs."""
        return len(self.held_first) - 1

    @property
    def n_nodes(self) -> int:
        """Number of merged nodes."""
        return len(self.element)

    def graph_of_end(self) -> Ids:
        """Per end the graph that it is of."""
        return np.asarray(np.searchsorted(self.held_first, self.end_held, side="right") - 1)

    def members(self, number: int) -> tuple[int, ...]:
        """Token ids of a class."""
        return tuple(self.class_token[self.class_first[number] : self.class_first[number + 1]].tolist())

    def named(self, nodes: Ids) -> set[int]:
        """Every token that some merged nodes name, those of their classes included."""
        found = np.unique(self.element[nodes])
        classes = elements.CLASS - found[found <= elements.CLASS]
        return {*found[found >= 0].tolist(), *(token for number in classes.tolist() for token in self.members(number))}

    def classes_of(self, graph: int) -> list[int]:
        """The classes of a graph, in its own order."""
        found: list[int] = self.graph_class[self.graph_class_first[graph] : self.graph_class_first[graph + 1]].tolist()
        return found

    def check(self) -> None:
        """Raise `ValueError` where the arrays do not go together, so that whatever passes can be run."""
        one = {len(self.element), len(self.parent)}, {len(self.held_node), len(self.held_importance)}
        ends = {len(getattr(self, field.name)) for field in fields(self) if field.name.startswith("end_")}
        if any(len(lengths) != 1 for lengths in (*one, ends)):
            raise ValueError("columns of one table differ in length")
        for first, of in (
            ("class_first", "class_token"),
            ("graph_class_first", "graph_class"),
            ("held_first", "held_node"),
        ):
            check_first(first, getattr(self, first), len(getattr(self, of)))
        if len(self.graph_class_first) != len(self.held_first):
            raise ValueError("graphs differ in number")
        number = np.arange(self.n_nodes)
        n_classes = len(self.class_first) - 1
        if (np.diff(self.class_first) == 0).any():
            raise ValueError("a class is empty")
        ascends = self.class_token[1:] > self.class_token[:-1]
        ascends[self.class_first[1:-1] - 1] = True  # where the next class begins
        if not ascends.all():
            raise ValueError("a class is out of order")
        check_range("parent", self.parent, -1, number)
        check_range("element", self.element, elements.of_class(n_classes) + 1, np.iinfo(np.int32).max)
        check_range("class_token", self.class_token, 0, np.iinfo(np.int32).max)
        check_range("graph_class", self.graph_class, 0, n_classes)
        check_range("held_node", self.held_node, 0, self.n_nodes)
        check_range("end_held", self.end_held, 0, len(self.held_node))
        if not (np.isfinite(self.held_importance).all() and np.isfinite(self.end_activation).all()):
            raise ValueError("a number is not finite")
        self._check_links()

    def _check_links(self) -> None:
        """That rows are in order and that graphs have what their nodes refer to."""
        graph = np.repeat(np.arange(self.n_graphs), np.diff(self.held_first))
        order = [self.parent * (1 << 32) + self.element, graph * (1 << 32) + self.held_node, self.end_held]
        if any((np.diff(column) <= 0).any() for column in order):
            raise ValueError("rows are out of order")
        above = self.parent[self.held_node]
        if not _all_in((graph * (1 << 32) + above)[above >= 0], order[1]):
            raise ValueError("a graph lacks the parent of a node")
        number = elements.CLASS - self.element[self.held_node]
        owner = np.repeat(np.arange(self.n_graphs), np.diff(self.graph_class_first))
        if not _all_in((graph * (1 << 32) + number)[number >= 0], np.sort(owner * (1 << 32) + self.graph_class)):
            raise ValueError("a graph lacks the class of a node")


def check_first(name: str, first: Ids, length: int) -> None:
    """Raise `ValueError` unless `first` divides so many places among items."""
    if len(first) < 1 or first[0] != 0 or first[-1] != length or (np.diff(first) < 0).any():
        raise ValueError(f"{name} does not divide {length} places")


def check_range(name: str, values: Int[np.ndarray, "_"], least: int, below: int | Ids) -> None:
    """Raise `ValueError` unless all values are in [least, below)."""
    if (values < least).any() or (values >= below).any():
        raise ValueError(f"{name} has a value out of range")


def _all_in(wanted: Ids, known: Ids) -> bool:
    """Whether all of `wanted` are among the ascending `known`."""
    place = np.searchsorted(known, wanted)
    return bool((place < len(known)).all() and (known[place] == wanted).all())


def narrow(values: np.ndarray) -> np.ndarray:
    """Whole numbers in the narrowest type that holds them; other numbers as they are."""
    if values.dtype == np.float64 or not values.size:
        return values
    return values.astype(np.result_type(np.min_scalar_type(values.min()), np.min_scalar_type(values.max())))


def widen(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Columns as they are run: inverse of `narrow` for each. Raises `ValueError` for those of several dimensions."""
    if any(array.ndim != 1 for array in arrays.values()):
        raise ValueError("an array of more than one dimension")
    short = {"class_token": np.int32}  # much the longest
    return {n: a if a.dtype == np.float64 else a.astype(short.get(n, np.int64)) for n, a in arrays.items()}


class _Merger:
    """Collects graphs; nodes and classes are numbered as they are met, and put in order by `tables`."""

    def __init__(self) -> None:
        self.nodes: dict[tuple[int, int], int] = {}  # (parent, element) -> number
        self.depth: list[int] = []
        self.classes: dict[tuple[tuple[int, ...], int], int] = {}
        self.graph_classes: list[list[int]] = []
        self.held: list[list[int]] = []
        self.importance: list[float] = []
        self.ends: list[tuple[int, float, int, int]] = []

    def add(self, graph: Graph) -> None:
        """One more graph."""
        classes = self._classes(graph)
        held: list[int] = []
        offset = len(self.importance)
        stack: list[tuple[int, dict[int, Node]]] = [(-1, graph.roots)]
        while stack:
            parent, level = stack.pop()
            for element, node in level.items():
                if elements.is_class(element):
                    element = elements.of_class(classes[elements.class_index(element)])
                number = self.nodes.setdefault((parent, element), len(self.nodes))
                if number == len(self.depth):
                    self.depth.append(self.depth[parent] + 1 if parent >= 0 else 0)
                end = node.end
                if end is not None:
                    self.ends.append((offset + len(held), end.activation, end.support, end.seen))
                held.append(number)
                self.importance.append(node.importance)
                if node.children:
                    stack.append((number, node.children))
        self.held.append(held)
        self.graph_classes.append(classes)

    def _classes(self, graph: Graph) -> list[int]:
        """Numbers of the graph's classes over all graphs. One that it has twice gets two, as it has two elements."""
        found: list[int] = []
        times: dict[tuple[int, ...], int] = {}
        for members in graph.classes:
            time = times[members] = times.get(members, 0) + 1
            found.append(self.classes.setdefault((members, time), len(self.classes)))
        return found

    def tables(self) -> Tables:
        """Everything collected, as arrays in order."""
        keys = np.array(list(self.nodes), dtype=np.int64).reshape(-1, 2)
        old, number = _in_order(keys[:, 0], keys[:, 1], np.array(self.depth, dtype=np.int64))
        parent = keys[old, 0]
        held_first = _firsts(self.held)
        held = number[_flat(self.held)]
        by_node = np.lexsort((held, np.repeat(np.arange(len(self.held)), np.diff(held_first))))
        place = np.argsort(by_node)
        ends = np.array([end[0] for end in self.ends], dtype=np.int64)
        in_order = np.argsort(place[ends])
        members = [members for members, _ in self.classes]
        return Tables(
            element=keys[old, 1],
            parent=np.where(parent >= 0, number[parent], -1) if len(parent) else parent,
            class_first=_firsts(members),
            class_token=_flat(members),
            graph_class_first=_firsts(self.graph_classes),
            graph_class=_flat(self.graph_classes),
            held_first=held_first,
            held_node=held[by_node],
            held_importance=np.array(self.importance, dtype=np.float64)[by_node],
            end_held=place[ends][in_order],
            end_activation=np.array([end[1] for end in self.ends], dtype=np.float64)[in_order],
            end_support=np.array([end[2] for end in self.ends], dtype=np.int64)[in_order],
            end_seen=np.array([end[3] for end in self.ends], dtype=np.int64)[in_order],
        )


def _in_order(parent: Ids, element: Ids, depth: Ids) -> tuple[Ids, Ids]:
    """Nodes by depth, number of the parent in this order, and element; and per node its number in this order."""
    by_depth = np.argsort(depth, kind="stable")
    bounds = np.searchsorted(depth[by_depth], np.arange(depth.max(initial=-1) + 2))
    number = np.zeros(len(depth), dtype=np.int64)
    for start, stop in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
        level = by_depth[start:stop]
        above = number[parent[level]] if start else parent[level]
        level = level[np.lexsort((element[level], above))]
        by_depth[start:stop] = level
        number[level] = np.arange(start, stop)
    return by_depth, number


def _firsts(lists: Sequence[Sequence[int]]) -> Ids:
    return np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum([len(one) for one in lists], dtype=np.int64)])


def _flat(lists: Sequence[Sequence[int]]) -> Ids:
    return np.array([value for one in lists for value in one], dtype=np.int64)


def merge(graphs: Iterable[Graph]) -> Tables:
    """The arrays of `graphs`. Equal graphs give equal arrays, in whatever order their paths were added.

    They are gone through once, so that they need not be in memory together.
    """
    merger = _Merger()
    for graph in graphs:
        merger.add(graph)
    return merger.tables()
