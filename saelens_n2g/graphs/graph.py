"""Graph: the trie of tokens that N2G fits to a unit, and what it predicts on text.

Foote et al. 2023, section 3 ("Graph Building", "Text Processing"). Depth 0 of the trie holds activating tokens;
below each stands what comes before it, nearest first. A path that may stop at a node ends there: its `End` holds the
activation it predicts. `graphs.elements` lists what a node may be: a token, a wildcard, and, beyond the paper, a
class of tokens, a gap, or the start of the text.

    {" York": {" New": END .91}}                     fires on " York" after " New"
    {" all": {*: {" not": END .7}}}                  fires on " all" when " not" stands two before it
    {" of": END .8, children {" out": END .1}}       fires on " of", but not after " out": the longer path counts
"""

import heapq
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, Int

from saelens_n2g.errors import ArtefactError
from saelens_n2g.graphs import elements
from saelens_n2g.graphs.elements import IGNORE as IGNORE
from saelens_n2g.graphs.elements import START
from saelens_n2g.graphs.labels import one_line

if TYPE_CHECKING:
    import networkx

    from saelens_n2g.graphs.program import Program

FORMAT, VERSION = "saelens-n2g/graph", 2
LINES = 60
"""Paths that `to_text` shows."""


@dataclass(slots=True)
class End:
    """A valid stopping point: what the unit does where the path matches."""

    activation: float
    """Predicted normalised activation: the mean over the examples that end here. Below 0.5 it is negative evidence:
    here the unit stays quiet although a shorter path says that it fires."""
    support: int = 1
    """Examples that end here."""
    seen: int = 0
    """Places of the fit text where this was the path that counted; 0 where no text was counted. A path with
    `support` of `seen` well below 1 is wrong about as often as that."""

    def add(self, activation: float) -> None:
        """Fold one more example into the mean."""
        self.activation += (activation - self.activation) / (self.support + 1)
        self.support += 1


@dataclass(slots=True)
class Node:
    """One element of a path: a token id, or one of the negative numbers of `graphs.elements`.

    `importance` is, at depth 0, the largest normalised activation seen on the token, and below, the largest
    importance that the token had for the activating token, both in [0, 1].
    """

    token: int
    importance: float
    children: dict[int, "Node"] = field(default_factory=dict)
    end: End | None = None


class Match(NamedTuple):
    """One matching path: how many tokens back it reaches (1 = the activating token alone) and what it predicts."""

    length: int
    activation: float
    path: tuple[int, ...]
    """Elements of the path, activating token first; `IGNORE` where any token was allowed."""

    @property
    def rank(self) -> tuple[int, int, int, int, float]:
        """What makes a match count before others: it reaches further, is tied to the start of the text, has more
        exact tokens, has fewer elements that match anything, says more."""
        exact = sum(element >= 0 for element in self.path)
        open_ones = sum(element == IGNORE or elements.is_gap(element) for element in self.path)
        return self.length, int(self.path[-1] == START), exact, -open_ones, self.activation


def _end(value: Any, counts: int) -> End:
    """An end from its JSON value: the activation and `counts` counts."""
    activation, numbers = float(value[0]), [int(count) for count in value[1:]]
    if not math.isfinite(activation) or len(numbers) != counts or min(numbers) < 0:
        raise ValueError(f"an end {value}")
    return End(activation, *numbers)


@dataclass
class Graph:
    """A fitted graph: the trie, the unit it belongs to, and where it came from."""

    unit: str
    """Name of the unit, e.g. `3.mlp_post/neurons/1214`."""
    max_activation: float
    """The unit's maximum over the fit corpus, in the subject's own units; predictions are fractions of it."""
    roots: dict[int, Node] = field(default_factory=dict)
    classes: list[tuple[int, ...]] = field(default_factory=list)
    """Token ids of each class, ascending; element `elements.of_class(i)` stands for any token of `classes[i]`."""
    token_strings: dict[int, str] = field(default_factory=dict)
    """Text of every token in the trie, so that a graph can be read and drawn without a tokenizer."""
    provenance: Mapping[str, Any] = field(default_factory=dict)
    """Method, its options, subject, corpus, seed: whatever is needed to make it again."""
    _compiled: tuple[Any, "Program"] | None = field(default=None, init=False, repr=False, compare=False)

    def add(self, path: Sequence[tuple[int, float]], activation: float) -> None:
        """Add one path: (element, importance) pairs, activating token first, ending where it may stop.

        A node met again keeps its largest importance, an end met again takes the example into its mean. Raises
        `ValueError` for a path that says nothing: elements that match anything at either end, an unknown class, or
        a start of text that is not last.
        """
        elements.check([element for element, _ in path], len(self.classes))
        level, node = self.roots, None
        for token, importance in path:
            node = level.get(token)
            if node is None:
                node = level[token] = Node(token, importance)
            else:
                node.importance = max(node.importance, importance)
            level = node.children
        assert node is not None
        if node.end is None:
            node.end = End(activation)
        else:
            node.end.add(activation)

    def add_class(self, tokens: Sequence[int]) -> int:
        """The element for "any of these tokens"; equal classes get the same. Raises `ValueError` if empty."""
        members = tuple(sorted(set(tokens)))
        if not members or members[0] < 0:
            raise ValueError(f"a class needs token ids, found {members[:3]}")
        if members not in self.classes:
            self.classes.append(members)
        return elements.of_class(self.classes.index(members))

    def members(self, element: int) -> tuple[int, ...]:
        """Token ids that an element names: itself, those of its class, none for what matches anything."""
        if element >= 0:
            return (element,)
        return self.classes[elements.class_index(element)] if elements.is_class(element) else ()

    def matches(self, tokens: Sequence[int], position: int) -> list[Match]:
        """All paths that match backwards from `position`, by rank: the last one counts.

        The text is the whole text: a path with a start matches only if `tokens` begins where the text begins. A path
        with a gap may match at several lengths and is then there once for each. Made to be read: `program.Program`
        does the same for many graphs and positions, much faster.
        """
        found: list[Match] = []
        stack = [(self.roots, {position}, ())]  # type: list[tuple[dict[int, Node], set[int], tuple[int, ...]]]
        while stack:
            level, places, path = stack.pop()
            near = {int(tokens[at]) for at in places if at >= 0 and tokens[at] >= 0} & level.keys()
            for element in (*near, *elements.open_ones(level, len(self.classes))):
                node, members = level[element], self.members(element)
                reached = {after for at in places for after in elements.reach(element, members, tokens, at)}
                if node.end is not None:
                    found.extend(Match(position - at, node.end.activation, (*path, element)) for at in reached)
                if node.children and reached:
                    stack.append((node.children, reached, (*path, element)))
        return sorted(found, key=lambda match: (match.rank, match.path))

    def places(self, tokens: Sequence[int], position: int, match: Match) -> list[range]:
        """Where each element of a match at `position` stands in `tokens`: what to highlight; see `elements.places`."""
        members = [self.members(element) for element in match.path]
        return elements.places(match.path, members, tokens, position, match.length)

    def predict(self, tokens: Sequence[int]) -> Float[np.ndarray, "token"]:
        """Predicted normalised activation per token, in [0, 1]: of the match that counts, 0 where none matches.

        The path that reaches furthest back counts (`Match.rank` for equal ones). Pass ids as the subject saw them,
        without BOS: the first one begins the text.
        """
        row: np.ndarray = self.predict_text(np.asarray(tokens, dtype=np.int64)[None])[0]
        return row

    def predict_text(
        self, tokens: Int[np.ndarray, "n w"], mask: Bool[np.ndarray, "..."] | None = None
    ) -> Float32[np.ndarray, "n w"]:
        """The same for many rows at once, each a text of its own; 0 where `mask` is False, which is outside the text.

        The first counted position of a row begins its text. Raises `InputError` if the shapes differ.
        """
        return self.program().predict_text(tokens, mask).dense(0, tokens.shape)

    def program(self) -> "Program":
        """The graph compiled to arrays: kept from call to call, and compiled again when the graph has changed."""
        from saelens_n2g.graphs.program import Program

        state = self._state()
        if self._compiled is None or self._compiled[0] != state:
            self._compiled = state, Program.compile([self])
        return self._compiled[1]

    def _state(self) -> tuple[list[Any], ...]:
        """What predictions depend on. Nodes are open to everybody, so a change is found by looking."""
        shape: list[Any] = []
        levels = [self.roots]
        for level in levels:
            shape.append(len(level))
            for element, node in level.items():
                end = node.end
                shape += (element, None if end is None else end.activation, bool(node.children))
                if node.children:
                    levels.append(node.children)
        return shape, list(self.classes)

    def walk(self) -> Iterator[tuple[Node, int, Node | None]]:
        """Every node with its depth and parent, depth first, children in order of token id (wildcards first)."""
        stack: list[tuple[Node, int, Node | None]] = [(n, 0, None) for _, n in sorted(self.roots.items(), reverse=True)]
        while stack:
            node, depth, parent = stack.pop()
            yield node, depth, parent
            stack.extend((c, depth + 1, node) for _, c in sorted(node.children.items(), reverse=True))

    @property
    def n_nodes(self) -> int:
        """Number of nodes of the trie, wildcards included."""
        return sum(1 for _ in self.walk())

    @property
    def n_paths(self) -> int:
        """Number of end nodes, that is of distinct patterns."""
        return sum(node.end is not None for node, _, _ in self.walk())

    @property
    def n_context_paths(self) -> int:
        """Number of distinct patterns that need a token before the activating one."""
        return sum(node.end is not None and depth > 0 for node, depth, _ in self.walk())

    def string(self, element: int) -> str:
        """Text of an element: a token's own, `*` for a wildcard, `{a|b|c}` for a class, `^` for the start."""
        return elements.string(element, self.classes, self.token_strings)

    def named_tokens(self) -> set[int]:
        """Every token that the trie names, those of its classes included."""
        return {token for element in {node.token for node, _, _ in self.walk()} for token in self.members(element)}

    def name_tokens(self, string: Callable[[int], str]) -> None:
        """Fill `token_strings` for every token that the trie names."""
        self.token_strings = {token: string(token) for token in sorted(self.named_tokens())}

    def to_text(self) -> str:
        """One line per path, read left to right as text: context, then the activating token in brackets.

        Those behind most firing first (activation times support), at most `LINES`; a last line says how many are left.
        """
        ends: list[tuple[tuple[float, float], tuple[int, ...], End]] = []
        path: list[int] = []
        for node, depth, _ in self.walk():
            path[depth:] = [node.token]
            if node.end is not None:
                weight = node.end.activation * node.end.support
                ends.append(((-weight, -node.end.activation), tuple(path), node.end))
        # Text decides between equal ones, and is made only of those that may be among the first.
        last = heapq.nsmallest(LINES, [order for order, _, _ in ends])[-1:]
        lines = sorted((order, self._line(path, end)) for order, path, end in ends if order <= last[0])
        shown = [line for _, line in lines[:LINES]]
        if len(ends) > LINES:
            shown.append(f"... and {len(ends) - LINES} more paths")
        return "\n".join(shown) or "(never fires)"

    def _line(self, path: Sequence[int], end: End) -> str:
        before = "".join(self.string(element) for element in reversed(path[1:]))
        counts = f"n={end.support}" + (f" of {end.seen}" if end.seen else "")
        return one_line(f"{before}[{self.string(path[0])}]  {end.activation:.2f}  ({counts})")

    def to_dict(self) -> dict[str, Any]:
        """The graph as JSON values (format `saelens-n2g/graph`, version 2; docs/formats.md)."""
        index: dict[int, int] = {}
        nodes: list[list[Any]] = []
        for node, _, parent in self.walk():
            index[id(node)] = len(nodes)
            end = None if node.end is None else [node.end.activation, node.end.support, node.end.seen]
            nodes.append([node.token, None if parent is None else index[id(parent)], node.importance, end])
        return {
            "format": FORMAT,
            "version": VERSION,
            "unit": self.unit,
            "max_activation": self.max_activation,
            "nodes": nodes,
            "classes": [list(members) for members in self.classes],
            "token_strings": {str(k): v for k, v in sorted(self.token_strings.items())},
            "provenance": dict(self.provenance),
        }

    @classmethod
    def from_dict(cls, value: Any) -> "Graph":
        """Inverse of `to_dict`; reads version 1 too. Raises `ArtefactError` for other formats or damaged nodes."""
        if not isinstance(value, dict) or value.get("format") != FORMAT:
            found = value.get("format", "no format field") if isinstance(value, dict) else type(value).__name__
            raise ArtefactError("graph", f"an object of format {FORMAT!r}", repr(found))
        if value.get("version") not in (1, VERSION):
            raise ArtefactError("graph", f"version 1 to {VERSION}", f"version {value.get('version')!r}")
        try:
            strings = {int(k): str(v) for k, v in value["token_strings"].items()}
            classes = [tuple(int(token) for token in members) for members in value.get("classes", [])]
            if any(not c or c[0] < 0 or any(a >= b for a, b in itertools.pairwise(c)) for c in classes):
                raise ValueError("a class without ascending token ids")
            unit, maximum = value["unit"], float(value["max_activation"])
            if not isinstance(unit, str) or not math.isfinite(maximum):
                raise ValueError(f"unit {unit!r} with maximum {maximum}")
            graph = cls(unit, maximum, {}, classes, strings, dict(value["provenance"]))
            graph._add_nodes(value["nodes"], counts=1 if value["version"] == 1 else 2)
        except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError) as error:
            raise ArtefactError("graph", "whole nodes, strings and provenance", repr(error)) from error
        return graph

    def _add_nodes(self, rows: Any, counts: int) -> None:
        """Nodes from their JSON values, parents first; an end is its activation and so many `counts`."""
        nodes: list[Node] = []
        for element, parent, importance, end in rows:
            node = Node(int(element), float(importance), {}, None if end is None else _end(end, counts))
            if parent is not None and not 0 <= parent < len(nodes):
                raise IndexError(f"node {len(nodes)} has parent {parent}")
            level = self.roots if parent is None else nodes[parent].children
            if node.token in level:
                raise ValueError(f"node {len(nodes)} is there twice")
            elements.check_node(
                node.token, None if parent is None else nodes[parent].token, node.end is not None, len(self.classes)
            )
            if not math.isfinite(node.importance):
                raise ValueError(f"node {len(nodes)} has importance {importance}")
            level[node.token] = node
            nodes.append(node)

    def to_svg(self, *, title: str | None = None, max_nodes: int | None = 40) -> str:
        """The graph as a standalone SVG document; `graphs.draw.to_svg` says how it is drawn and what it raises."""
        from saelens_n2g.graphs.draw import to_svg

        return to_svg(self, title=title, max_nodes=max_nodes)

    def to_dot(self) -> str:
        """The condensed graph as Graphviz DOT text; see `graphs.dot.to_dot`."""
        from saelens_n2g.graphs.dot import to_dot

        return to_dot(self)

    def to_networkx(self) -> "networkx.DiGraph":
        """The condensed graph for networkx; `graphs.dot.to_networkx` lists the attributes."""
        from saelens_n2g.graphs.dot import to_networkx

        return to_networkx(self)

    def _repr_svg_(self) -> str:
        return self.to_svg()
