"""How many behaviours a graph shows, and which tokens they hang on.

Foote et al. 2023, appendix A.1: polysemanticity "often shows up clearly in the neuron graphs as distinct, disconnected
subgraphs" (figure 4), and a core token is one "on which the neuron does not activate", "essential for neuron
activation", that "appears as a bottleneck in the graph" between various tokens before it and possibly several
activating ones (figure 6). The paper shows both in pictures and counts neither; how they are counted here:

- Nodes are those of the condensed graph (section 3, "Visualisation"): one for each token at each depth, wildcards not
  counted as a depth. A gap counts like a wildcard. The start of the text is a node like a token.
- A class stands for all its tokens at once, so a class and a token, or two classes, that share a token at a depth are
  connected there. Tokens that a method has folded into a class are one behaviour, the same tokens side by side are one
  each: compare bases fitted by one method only.
- Only paths that fire count. Negative evidence says where a behaviour ends and is no behaviour of its own; its paths
  are counted apart.
- A sub-graph can be a single token that fires in any context. A graph of many such tokens has many sub-graphs without
  being a riddle, so they are counted apart too; and `n_word_subgraphs` takes tokens that differ only in case or
  surrounding space for one, as the keys of the original implementation do.
- Examples add sub-graphs (or join them), so their number grows with the examples of a fit: compare units that were
  fitted alike. `largest_share` weighs sub-graphs by their examples and depends on that less.
- A core is an element (a token, a class or the start) without an activating token in it that every path of its
  sub-graph goes through, with at least two different neighbours in the condensed graph on one side: in a chain
  nothing is a bottleneck, as everything is.

Time and memory grow linearly with the nodes of the trie and the members of its classes.
"""

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Set
from dataclasses import dataclass, field
from math import fsum
from typing import NamedTuple

from saelens_n2g.graphs import elements
from saelens_n2g.graphs.graph import IGNORE, End, Graph, Node

FIRES = 0.5
"""Predicted activation from which on an end means firing; below it is negative evidence (`graph.End`)."""


def fires(end: End) -> bool:
    """Whether the unit fires where a path ends here, rather than stays quiet."""
    return end.activation >= FIRES


_Key = tuple[int, int]
"""(depth without wildcards and gaps, element) of a condensed node."""
_Vertex = tuple[int, Hashable]
"""(depth, what a token is known by), or the key of what is no token."""


class Core(NamedTuple):
    """A bottleneck of a sub-graph."""

    element: int
    """A token id, a class or the start of the text (`graphs.elements`)."""
    text: str
    """What `Graph.string` says of it."""
    n_paths: int
    """Paths of the sub-graph, all of which go through it."""
    n_before: int
    """Different elements that stand before it in the condensed graph."""
    n_after: int
    """Different elements that stand after it, towards and including activating ones."""


@dataclass(frozen=True, slots=True)
class Structure:
    """The shape of one graph; all counts are 0 for a graph that never fires."""

    unit: str
    n_subgraphs: int
    """Disconnected sub-graphs of the condensed graph, by token id."""
    n_lone: int
    """Those among them without any context: one activating token, or classes that overlap."""
    n_word_subgraphs: int
    """Disconnected sub-graphs where tokens that differ only in case or surrounding space are one."""
    largest_share: float | None
    """Share of the examples that fire (`End.support`) that belong to the sub-graph with most; `None` without any. Near
    1 the other sub-graphs are rare exceptions, however many they are."""
    cores: tuple[Core, ...]
    """Core tokens, those of most paths first; equal ones by element."""
    n_paths: int
    """Paths that fire."""
    n_context_paths: int
    """Paths that fire and need something before the activating token."""
    n_quiet_paths: int
    """Paths that end in the unit staying quiet."""
    n_activating: int
    """Different token ids on which it fires, members of classes included."""
    n_tokens: int
    """Different token ids that the paths that fire name, members of classes included."""


@dataclass(frozen=True, slots=True)
class StructureSummary:
    """How the graphs of many units are shaped."""

    n_units: int
    n_silent: int
    """Units whose graph never fires; in none of the shares and means below."""
    subgraphs: tuple[tuple[int, int], ...]
    """(number of sub-graphs, units that have so many), ascending, without the silent ones."""
    words: tuple[tuple[int, int], ...]
    """The same for `n_word_subgraphs`."""
    share_monosemantic: float | None
    """Share of units with exactly one sub-graph; `None` if all are silent, as below."""
    share_monosemantic_words: float | None
    """Share of units with exactly one sub-graph where case and space make no difference."""
    share_with_core: float | None
    mean_largest_share: float | None
    mean_subgraphs: float | None
    median_subgraphs: float | None


def summarise(structures: Iterable[Structure]) -> StructureSummary:
    """Distribution of the number of sub-graphs over units, and the share with one."""
    everyone = list(structures)
    firing = [one for one in everyone if one.n_paths]
    n = len(firing)
    ordered = sorted(one.n_subgraphs for one in firing)
    return StructureSummary(
        n_units=len(everyone),
        n_silent=len(everyone) - n,
        subgraphs=tuple(sorted(Counter(ordered).items())),
        words=tuple(sorted(Counter(one.n_word_subgraphs for one in firing).items())),
        share_monosemantic=ordered.count(1) / n if n else None,
        share_monosemantic_words=sum(one.n_word_subgraphs == 1 for one in firing) / n if n else None,
        share_with_core=sum(bool(one.cores) for one in firing) / n if n else None,
        mean_largest_share=fsum(one.largest_share or 0.0 for one in firing) / n if n else None,
        mean_subgraphs=sum(ordered) / n if n else None,
        median_subgraphs=(ordered[(n - 1) // 2] + ordered[n // 2]) / 2 if n else None,
    )


def structure(graph: Graph) -> Structure:
    """The shape of a graph. Time and memory are linear in its nodes and the members of its classes."""
    found = _collect(graph)
    leaders = _leaders(graph, found, lambda token: token)
    parts = {leaders[key] for key in found.nodes}
    with_context = {leaders[key] for key in found.nodes if key[0]}
    words = _leaders(graph, found, lambda token: word_of(graph, token))
    active = {token for depth, element in found.nodes if depth == 0 for token in graph.members(element)}
    return Structure(
        unit=graph.unit,
        n_subgraphs=len(parts),
        n_lone=len(parts) - len(with_context),
        n_word_subgraphs=len({words[key] for key in found.nodes}),
        largest_share=_largest_share(found, leaders),
        cores=_cores(graph, found, leaders, active),
        n_paths=found.roots.total(),
        n_context_paths=found.n_context_paths,
        n_quiet_paths=found.n_quiet_paths,
        n_activating=len(active),
        n_tokens=len({token for _, element in found.nodes for token in graph.members(element)}),
    )


def word_of(graph: Graph, token: int) -> str:
    """Text of a token without surrounding space and case, as search and comparison between graphs use it.

    What is all space stays as it is, and a token that is no whole character is known by its id.
    """
    text = graph.token_strings.get(token)
    if text is None or "\ufffd" in text:
        return f"<{token}>"
    return normal_form(text)


def normal_form(text: str) -> str:
    """A text without surrounding space, in lower case; unchanged if it is all space."""
    return text.strip().lower() or text


@dataclass(slots=True)
class _Found:
    """The firing part of a trie, condensed."""

    nodes: set[_Key] = field(default_factory=set)
    edges: set[tuple[_Key, _Key]] = field(default_factory=set)
    """(node, the node before it in the text)."""
    roots: Counter[_Key] = field(default_factory=Counter)
    """Firing paths of each activating node."""
    examples: Counter[_Key] = field(default_factory=Counter)
    """Examples of those paths."""
    through: Counter[tuple[_Key, int]] = field(default_factory=Counter)
    """Firing paths by their activating node and an element of their context, however often that is in them."""
    n_context_paths: int = 0
    n_quiet_paths: int = 0


def _collect(graph: Graph) -> _Found:
    """Walk the trie once up for the paths below each node, once down for the condensed graph."""
    found = _Found()
    walked = list(graph.walk())
    below: Counter[int] = Counter()  # firing paths that end at or below a node of the trie
    for node, _, parent in reversed(walked):  # children before parents
        if node.end is not None:
            fired = fires(node.end)
            below[id(node)] += fired
            found.n_quiet_paths += not fired
        if parent is not None:
            below[id(parent)] += below[id(node)]
    for root in graph.roots.values():
        if below[id(root)] and graph.members(root.token):
            found.n_context_paths += below[id(root)] - (root.end is not None and fires(root.end))
            _descend(found, root, below)
    return found


def _descend(found: _Found, root: Node, below: Counter[int]) -> None:
    """Add what stands below one activating node."""
    first = (0, root.token)
    found.nodes.add(first)
    found.roots[first] = below[id(root)]
    found.examples[first] += _examples(root)
    there: Counter[int] = Counter()  # context elements on the way to where the walk is
    stack: list[tuple[Node, _Key] | int] = [(child, first) for child in root.children.values()]
    while stack:
        item = stack.pop()
        if isinstance(item, int):  # all below a node with this element has been seen
            there[item] -= 1
            continue
        node, key = item
        if not below[id(node)]:
            continue
        found.examples[first] += _examples(node)
        if node.token != IGNORE and not elements.is_gap(node.token):
            before = (key[0] + 1, node.token)
            found.nodes.add(before)
            found.edges.add((key, before))
            if not there[node.token]:
                found.through[first, node.token] += below[id(node)]
            there[node.token] += 1
            stack.append(node.token)
            key = before
        stack.extend((child, key) for child in node.children.values())


def _examples(node: Node) -> int:
    """Examples of a path that ends here and fires."""
    return node.end.support if node.end is not None and fires(node.end) else 0


def _largest_share(found: _Found, leaders: Mapping[_Key, _Vertex]) -> float | None:
    """Share of the examples in the sub-graph that has most."""
    parts: Counter[_Vertex] = Counter()
    for root, n in found.examples.items():
        parts[leaders[root]] += n
    return max(parts.values()) / parts.total() if parts.total() else None


def _leaders(graph: Graph, found: _Found, name: Callable[[int], Hashable]) -> dict[_Key, _Vertex]:
    """For every condensed node a representative of its sub-graph; `name` says which tokens of a depth are one."""
    above: dict[_Vertex, _Vertex] = {}

    def find(vertex: _Vertex) -> _Vertex:
        above.setdefault(vertex, vertex)
        while above[vertex] != vertex:
            above[vertex] = above[above[vertex]]
            vertex = above[vertex]
        return vertex

    def vertices(key: _Key) -> list[_Vertex]:
        return [(key[0], name(token)) for token in graph.members(key[1])] or [key]

    for key in found.nodes:
        first, *others = vertices(key)
        for other in others:
            above[find(other)] = find(first)
    for one, other in found.edges:
        above[find(vertices(other)[0])] = find(vertices(one)[0])
    return {key: find(vertices(key)[0]) for key in found.nodes}


def _cores(graph: Graph, found: _Found, leaders: Mapping[_Key, _Vertex], active: Set[int]) -> tuple[Core, ...]:
    """Elements that all paths of a sub-graph go through, that never activate and that stand between several others."""
    total: Counter[_Vertex] = Counter()
    for root, n in found.roots.items():
        total[leaders[root]] += n
    through: Counter[tuple[_Vertex, int]] = Counter()
    for (root, element), n in found.through.items():
        through[leaders[root], element] += n
    needed = {pair for pair, n in through.items() if n == total[pair[0]] and active.isdisjoint(graph.members(pair[1]))}
    before: dict[tuple[_Vertex, int], set[int]] = {pair: set() for pair in needed}
    after: dict[tuple[_Vertex, int], set[int]] = {pair: set() for pair in needed}
    for (depth, element), (_, earlier) in found.edges:
        part = leaders[depth, element]
        if depth and (part, element) in needed:
            before[part, element].add(earlier)
        if (part, earlier) in needed:
            after[part, earlier].add(element)
    cores = [
        Core(pair[1], graph.string(pair[1]), through[pair], len(before[pair]), len(after[pair]))
        for pair in needed
        if max(len(before[pair]), len(after[pair])) > 1
    ]
    return tuple(sorted(cores, key=lambda core: (-core.n_paths, core.element)))
