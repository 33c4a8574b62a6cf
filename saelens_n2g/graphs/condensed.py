"""The condensed, layered form of a graph, for whoever draws it.

Foote et al. 2023, section 3 ("Visualisation"): ignore nodes and termination nodes are removed, and nodes of equal
token at equal depth become one. Depth counts what must be there, so wildcards and gaps take no layer, and the edge
over them keeps how many tokens it skips; the start of the text is a node. Paths that end in the unit staying quiet
(`graph.End`) are there too, told apart. Merging loses which context goes with which activating token: a picture can
suggest paths that the trie does not have. Unconnected parts are kept apart, since they often are unrelated behaviours
of one unit (appendix A.1, figure 4).
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass, field
from typing import NamedTuple

from saelens_n2g.errors import InputError
from saelens_n2g.graphs import elements
from saelens_n2g.graphs.graph import IGNORE, End, Graph, Node
from saelens_n2g.graphs.structure import FIRES, fires

Key = tuple[int, int]
"""(depth, element) of a condensed node; depth 0 is what activates, the element a token, a class or the start."""
QUIET_ROOM = 4
"""Where nodes must be left out, one in so many is kept for exceptions, the paths that end in the unit staying quiet."""


class Stop(NamedTuple):
    """The ends of merged nodes, those that fire or those that stay quiet."""

    activation: float
    """Normalised activation of the clearest of them: the largest where the unit fires, the smallest where not."""
    support: int
    """Examples that end here."""
    seen: int
    """Places of the fit text where these paths counted; 0 where none was counted."""


@dataclass(frozen=True, slots=True)
class LayerNode:
    """All nodes of the trie with one element at one depth."""

    depth: int
    """How many elements that must be there come after it; 0 is the activating token itself."""
    token: int
    """The element: a token id, `elements.START`, or a class."""
    text: str
    """What `Graph.string` says of it."""
    names: tuple[str, ...]
    """Texts of the tokens that it names: its own, those of its class, none for the start of the text."""
    importance: float
    """Largest importance of the merged nodes, in [0, 1]; at depth 0 the largest normalised activation."""
    activation: float | None
    """Largest normalised activation of an activating token, `None` for context."""
    fires: Stop | None
    """Whether the unit fires if a path stops here, so that nothing further back is needed."""
    quiet: Stop | None
    """Whether the unit stays quiet if a path stops here, although a shorter one may say that it fires."""
    only_quiet: bool
    """Whether the unit stays quiet on all paths that lead through here."""
    nearest: int
    """Fewest places before the activating token at which it may stand, wildcards and gaps counted."""
    farthest: int
    """Most places before the activating token at which it may stand."""

    @property
    def key(self) -> Key:
        """(depth, element), unique in a layered graph."""
        return (self.depth, self.token)


@dataclass(frozen=True, slots=True)
class LayerEdge:
    """What stands further back (`source`, one layer deeper) and the next element of a path (`target`)."""

    source: Key
    target: Key
    fewest: int
    """Tokens of any kind that stand between the two, at least."""
    most: int
    """Tokens of any kind that stand between the two, at most; 0 if they are always neighbours."""

    @property
    def label(self) -> str:
        """For two wildcards "…2", for one to three "…1" and "3" with a dash between, for neighbours nothing."""
        if self.most == 0:
            return ""
        return f"…{self.fewest}" if self.fewest == self.most else f"…{self.fewest}–{self.most}"


@dataclass(frozen=True, slots=True)
class LayeredGraph:
    """A condensed graph, in an order that depends on nothing but the trie."""

    unit: str
    components: tuple[tuple[LayerNode, ...], ...]
    """Parts that share no edge, strongest activating token first; in each, by depth, then strongest first."""
    edges: tuple[LayerEdge, ...]
    """Sorted by source, then target."""
    total: int
    """Condensed nodes of the whole graph, shown or not."""

    @property
    def nodes(self) -> tuple[LayerNode, ...]:
        """All nodes, part by part."""
        return tuple(node for part in self.components for node in part)


@dataclass(slots=True)
class _Merged:
    """What is collected about a condensed node while the trie is walked."""

    importance: float = 0.0
    fires: Stop | None = None
    quiet: Stop | None = None
    only_quiet: bool = True
    nearest: int | None = None
    farthest: int = 0


class _Reached(NamedTuple):
    """How far a path of the trie has come: its condensed nodes, and the tokens skipped since the last of them."""

    path: tuple[Key, ...] = ()
    fewest: int = 0
    most: int = 0
    near: int = 0
    """Fewest tokens that the path has used up, and so the nearest place of what comes next."""
    far: int = 0


class _Path(NamedTuple):
    """A path for the choice of what is shown; sorts by weight."""

    weight: float
    """Minus the activation that its examples add up to, or, where the unit stays quiet, what they lack to fire."""
    nodes: tuple[Key, ...]
    """From the activating token back."""
    at: int
    """Place of its last node in `Graph.walk`."""


_Walked = tuple[Node, int, Node | None]
"""A node of the trie, its depth and its parent, as `Graph.walk` gives them."""


@dataclass(slots=True)
class _Collected:
    """The trie without wildcards, before it is put in order."""

    nodes: dict[Key, _Merged] = field(default_factory=lambda: defaultdict(_Merged))
    between: dict[tuple[Key, Key], tuple[int, int]] = field(default_factory=dict)
    """Fewest and most tokens skipped, by source and target."""
    firing: list[_Path] = field(default_factory=list)
    quiet: list[_Path] = field(default_factory=list)

    def cut(self, layers: int) -> None:
        """Drop what is not in the first layers: of a single path too long to be shown, what fits."""
        self.nodes = {key: merged for key, merged in self.nodes.items() if key[0] < layers}
        self.between = {pair: skipped for pair, skipped in self.between.items() if pair[0][0] < layers}


def condense(graph: Graph, *, max_nodes: int | None = None) -> LayeredGraph:
    """The layered graph of a trie, of at most `max_nodes` nodes (`None`: all of them).

    Where nodes must be left out, whole paths are taken: first those that account for most firing (activation times
    examples; ties: smaller tokens first), until the next one no longer fits. A quarter of the room is kept for paths
    that end in the unit staying quiet and belong to an activating token that is shown. What is said about the nodes
    that are left is true of the paths that are left. Parts that are connected in the whole graph stay one part.
    Branches from which no end can be reached predict nothing and are left out. Raises `InputError` if `max_nodes` is
    below 1.
    """
    if max_nodes is not None and max_nodes < 1:
        raise InputError("max_nodes", "at least 1", str(max_nodes))
    walked = list(graph.walk())
    found = whole = _collect(graph, walked)
    if max_nodes is not None and len(whole.nodes) > max_nodes:
        found = _collect(graph, walked, _strongest(whole, max_nodes))
        found.cut(max_nodes)
    components = []
    for part in connected(whole.nodes, whole.between):
        nodes = [_finish(graph, key, found.nodes[key]) for key in part if key in found.nodes]
        if nodes:
            components.append(tuple(sorted(nodes, key=lambda n: (n.depth, -n.importance, n.token))))
    components.sort(key=lambda part: (-part[0].importance, part[0].token))
    edges = (LayerEdge(*pair, *skipped) for pair, skipped in sorted(found.between.items()))
    return LayeredGraph(graph.unit, tuple(components), tuple(edges), len(whole.nodes))


def _collect(graph: Graph, walked: Sequence[_Walked], chosen: Set[int] | None = None) -> _Collected:
    """Merge the trie, or its paths to the nodes at the places `chosen`, by (depth without what is skipped, element)."""
    found = _Collected()
    wanted: set[int] = set()
    leads: dict[int, bool] = {}  # nodes from which an end can be reached, and whether one that fires
    for at in range(len(walked) - 1, -1, -1):  # children before parents
        node, _, parent = walked[at]
        if chosen is None or at in chosen or id(node) in wanted:
            wanted.update((id(node), id(parent)))
            if node.end is not None:
                leads[id(node)] = leads.get(id(node), False) or fires(node.end)
        if id(node) in leads and parent is not None:
            leads[id(parent)] = leads.get(id(parent), False) or leads[id(node)]
    reached: dict[int, _Reached] = {}
    for at, (node, _, parent) in enumerate(walked):
        before = _Reached() if parent is None else reached.get(id(parent))
        if id(node) not in leads or before is None or (parent is None and not graph.members(node.token)):
            continue  # leads nowhere, or begins with what matches anything
        after = _step(found, before, node, fire=leads[id(node)])
        reached[id(node)] = after
        if node.end is not None:
            _stop(found, after.path, node.end, at)
    return found


def _step(found: _Collected, before: _Reached, node: Node, *, fire: bool) -> _Reached:
    """Take a node of the trie into what was found; where its path has come to. `fire`: an end below fires."""
    path, fewest, most, near, far = before
    if node.token == IGNORE:
        return _Reached(path, fewest + 1, most + 1, near + 1, far + 1)
    if elements.is_gap(node.token):
        width = elements.gap_width(node.token)
        return _Reached(path, fewest, most + width, near, far + width)
    key = (len(path), node.token)
    if path:
        low, high = found.between.get((key, path[-1]), (fewest, most))
        found.between[key, path[-1]] = min(low, fewest), max(high, most)
    merged = found.nodes[key]
    merged.importance = max(merged.importance, node.importance)
    merged.only_quiet &= not fire
    merged.nearest = near if merged.nearest is None else min(merged.nearest, near)
    merged.farthest = max(merged.farthest, far)
    return _Reached((*path, key), 0, 0, near + 1, far + 1)


def _stop(found: _Collected, path: tuple[Key, ...], end: End, at: int) -> None:
    """Take the end of a path into what was found."""
    merged = found.nodes[path[-1]]
    if fires(end):
        old = merged.fires or Stop(0.0, 0, 0)
        merged.fires = Stop(max(old.activation, end.activation), old.support + end.support, old.seen + end.seen)
        found.firing.append(_Path(-end.activation * end.support, path, at))
    else:
        old = merged.quiet or Stop(1.0, 0, 0)
        merged.quiet = Stop(min(old.activation, end.activation), old.support + end.support, old.seen + end.seen)
        found.quiet.append(_Path((end.activation - FIRES) * end.support, path, at))


def _finish(graph: Graph, key: Key, merged: _Merged) -> LayerNode:
    depth, element = key
    assert merged.nearest is not None
    return LayerNode(
        depth=depth,
        token=element,
        text=graph.string(element),
        names=tuple(graph.string(token) for token in graph.members(element)),
        importance=merged.importance,
        activation=merged.importance if depth == 0 else None,
        fires=merged.fires,
        quiet=merged.quiet,
        only_quiet=merged.only_quiet,
        nearest=merged.nearest,
        farthest=merged.farthest,
    )


def _strongest(found: _Collected, max_nodes: int) -> set[int]:
    """Places in `Graph.walk` where the strongest paths end that have at most so many nodes; at least of one path."""
    firing, quiet = sorted(found.firing), sorted(found.quiet)
    shown: set[Key] = set()
    chosen = _take(firing, shown, max_nodes - max_nodes // QUIET_ROOM if quiet else max_nodes)
    chosen |= _take([path for path in quiet if not firing or path.nodes[0] in shown], shown, max_nodes)
    chosen |= _take(firing, shown, max_nodes)
    return chosen or {(firing or quiet)[0].at}


def _take(paths: Iterable[_Path], shown: set[Key], most: int) -> set[int]:
    """Add whole paths to `shown` in order until the next one would make it more than `most` nodes; their places."""
    taken = set()
    for path in paths:
        if len(shown) + len(set(path.nodes) - shown) > most:
            break
        shown.update(path.nodes)
        taken.add(path.at)
    return taken


def connected(keys: Iterable[Key], edges: Iterable[tuple[Key, Key]]) -> list[list[Key]]:
    """Connected components, by union-find with the smallest key as representative."""
    leader = {key: key for key in keys}

    def find(key: Key) -> Key:
        while leader[key] != key:
            leader[key] = leader[leader[key]]
            key = leader[key]
        return key

    for a, b in edges:
        low, high = sorted((find(a), find(b)))
        leader[high] = low
    parts: dict[Key, list[Key]] = defaultdict(list)
    for key in sorted(leader):
        parts[find(key)].append(key)
    return list(parts.values())
