"""Graph: the trie of tokens that N2G fits to a unit, and what it predicts on text.

Foote et al. 2023, section 3 ("Graph Building", "Text Processing"). Depth 0 of the trie holds activating tokens;
below each stand the tokens before it, nearest first. A node is a token or a wildcard (an "ignore node", which
matches any one token). A path that may stop at a node ends there: its `End` holds the normalised activation.

    {" York": {" New": END .91}}      fires on " York" after " New"
    {" all": {*: {" not": END .7}}}   fires on " all" when " not" stands two before it
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Float

from saelens_n2g.errors import ArtefactError

if TYPE_CHECKING:
    import networkx

IGNORE = -1
"""Token id of a wildcard node."""
FORMAT, VERSION = "saelens-n2g/graph", 1


@dataclass(slots=True)
class End:
    """A valid stopping point: the mean normalised activation over the examples that end here, and their number."""

    activation: float
    support: int = 1

    def add(self, activation: float) -> None:
        """Fold one more example into the mean."""
        self.activation += (activation - self.activation) / (self.support + 1)
        self.support += 1


@dataclass(slots=True)
class Node:
    """One token (or wildcard) of a path.

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
    """Tokens of the path, activating token first; `IGNORE` where any token was allowed."""


@dataclass
class Graph:
    """A fitted graph: the trie, the unit it belongs to, and where it came from."""

    unit: str
    """Name of the unit, e.g. `3.mlp_post/neurons/1214`."""
    max_activation: float
    """The unit's maximum over the fit corpus, in the subject's own units; predictions are fractions of it."""
    roots: dict[int, Node] = field(default_factory=dict)
    token_strings: dict[int, str] = field(default_factory=dict)
    """Text of every token in the trie, so that a graph can be read and drawn without a tokenizer."""
    provenance: Mapping[str, Any] = field(default_factory=dict)
    """Method, its options, subject, corpus, seed: whatever is needed to make it again."""

    def add(self, path: Sequence[tuple[int, float]], activation: float) -> None:
        """Add one path: (token, importance) pairs, activating token first, ending where it may stop.

        Trailing wildcards must have been cut off; a node met again keeps its largest importance.
        """
        assert path, "a path has at least its activating token"
        assert IGNORE not in (path[0][0], path[-1][0]), path
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

    def matches(self, tokens: Sequence[int], position: int) -> list[Match]:
        """All paths that match backwards from `position`, wildcards tried beside exact tokens, shortest first."""
        root = self.roots.get(tokens[position])
        if root is None:
            return []
        found: list[Match] = []
        stack: list[tuple[Node, int, tuple[int, ...]]] = [(root, position, (root.token,))]
        while stack:
            node, at, path = stack.pop()
            if node.end is not None:
                found.append(Match(position - at + 1, node.end.activation, path))
            if at > 0 and node.children:
                for key in (tokens[at - 1], IGNORE):
                    child = node.children.get(key)
                    if child is not None:
                        stack.append((child, at - 1, (*path, key)))
        return sorted(found, key=lambda m: (m.length, -m.path.count(IGNORE), m.activation))

    def predict(self, tokens: Sequence[int]) -> Float[np.ndarray, "token"]:
        """Predicted normalised activation per token, in [0, 1]: of the longest matching path, 0 where none matches.

        Of equally long paths the one with fewer wildcards counts, then the larger activation. Pass ids as the
        subject saw them; a BOS at the front can match a wildcard like any token.
        """
        out = np.zeros(len(tokens), dtype=np.float32)
        for position, token in enumerate(tokens):
            if token in self.roots and (found := self.matches(tokens, position)):
                out[position] = min(max(found[-1].activation, 0.0), 1.0)
        return out

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

    def string(self, token: int) -> str:
        """Text of a token of the trie, `*` for a wildcard."""
        return "*" if token == IGNORE else self.token_strings.get(token, f"<{token}>")

    def to_text(self) -> str:
        """One line per path, read left to right as text: context, then the activating token in brackets."""
        lines: list[tuple[float, str]] = []
        path: list[int] = []
        for node, depth, _ in self.walk():
            path[depth:] = [node.token]
            if node.end is not None:
                before = "".join(self.string(t) for t in reversed(path[1:]))
                line = f"{before}[{self.string(path[0])}]  {node.end.activation:.2f}  (n={node.end.support})"
                lines.append((-node.end.activation, line.replace("\n", "\\n")))
        return "\n".join(line for _, line in sorted(lines)) or "(never fires)"

    def to_dict(self) -> dict[str, Any]:
        """The graph as JSON values (format `saelens-n2g/graph`, version 1; docs/formats.md)."""
        index: dict[int, int] = {}
        nodes: list[list[Any]] = []
        for node, _, parent in self.walk():
            index[id(node)] = len(nodes)
            end = None if node.end is None else [node.end.activation, node.end.support]
            nodes.append([node.token, None if parent is None else index[id(parent)], node.importance, end])
        return {
            "format": FORMAT,
            "version": VERSION,
            "unit": self.unit,
            "max_activation": self.max_activation,
            "nodes": nodes,
            "token_strings": {str(k): v for k, v in sorted(self.token_strings.items())},
            "provenance": dict(self.provenance),
        }

    @classmethod
    def from_dict(cls, value: Any) -> "Graph":
        """Inverse of `to_dict`. Raises `ArtefactError` for another format, a newer version or damaged nodes."""
        if not isinstance(value, dict) or value.get("format") != FORMAT:
            found = value.get("format", "no format field") if isinstance(value, dict) else type(value).__name__
            raise ArtefactError("graph", f"an object of format {FORMAT!r}", repr(found))
        if value.get("version") != VERSION:
            raise ArtefactError("graph", f"version {VERSION}", f"version {value.get('version')!r}")
        try:
            strings = {int(k): str(v) for k, v in value["token_strings"].items()}
            graph = cls(value["unit"], float(value["max_activation"]), {}, strings, value["provenance"])
            nodes: list[Node] = []
            for token, parent, importance, end in value["nodes"]:
                node = Node(int(token), float(importance), {}, None if end is None else End(float(end[0]), int(end[1])))
                if parent is not None and not 0 <= parent < len(nodes):
                    raise IndexError(f"node {len(nodes)} has parent {parent}")
                level = graph.roots if parent is None else nodes[parent].children
                if node.token in level:
                    raise ValueError(f"node {len(nodes)} is there twice")
                level[node.token] = node
                nodes.append(node)
        except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError) as error:
            raise ArtefactError("graph", "whole nodes, strings and provenance", repr(error)) from error
        return graph

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
