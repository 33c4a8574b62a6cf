"""The condensed, layered form of a graph, and how it looks whoever draws it: places, labels, colours.

Foote et al. 2023, section 3 ("Visualisation"): ignore nodes and termination nodes are removed, and nodes of equal
token at equal depth become one. Depth counts tokens, not wildcards, so a child of a wildcard moves up a layer; how
many wildcards an edge skips is kept on the edge. Merging loses which context goes with which activating token: a
picture can suggest paths that the trie does not have. Unconnected parts are kept apart, since they often are
unrelated behaviours of one unit (appendix A.1, figure 4).

    layered = condense(graph)
    for part in layered.components:
        heights = place(part, layered.edges, spacing=1.0)
"""

import unicodedata
from bisect import bisect_right, insort
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby, pairwise

from saelens_n2g.errors import InputError
from saelens_n2g.graphs.graph import IGNORE, Graph

Key = tuple[int, int]
"""(depth, token id) of a condensed node; depth 0 is the activating token."""
SWEEPS = 12
"""Rounds of reordering; more change nothing on the graphs that were looked at."""
PULLS = 61
"""Rounds of straightening; odd, so that the last goes outwards and leaves stand level with what they lead to."""

RED, BLUE = ("#fdeceb", "#cc1820"), ("#eaf1fe", "#1d4ed8")
"""Fills for the weakest and the strongest: activating tokens by activation, context by importance."""
LOW = 0.3
"""Value that gets the weakest fill; fixed, unlike in the original, so that two pictures can be compared."""


@dataclass(frozen=True, slots=True)
class LayerNode:
    """All nodes of the trie with one token at one depth."""

    depth: int
    """How many tokens of the path come after it, wildcards not counted; 0 is the activating token itself."""
    token: int
    text: str
    importance: float
    """Largest importance of the merged nodes, in [0, 1]; at depth 0 the largest normalised activation."""
    activation: float | None
    """Largest normalised activation of an activating token, `None` for context."""
    end: bool
    """Whether a path may stop here, so that nothing further back is needed."""
    nearest: int
    """Fewest places before the activating token at which it may stand, wildcards counted."""
    farthest: int
    """Most places before the activating token at which it may stand."""

    @property
    def key(self) -> Key:
        """(depth, token id), unique in a layered graph."""
        return (self.depth, self.token)


@dataclass(frozen=True, slots=True)
class LayerEdge:
    """A context token (`source`, one layer deeper) and the next token of a path (`target`)."""

    source: Key
    target: Key
    gaps: tuple[int, ...]
    """The numbers of wildcards that stand between the two, ascending; `(0,)` if they are always neighbours."""

    @property
    def label(self) -> str:
        """For two wildcards "…2", for one to three "…1" and "3" with a dash between, for neighbours nothing."""
        low, high = self.gaps[0], self.gaps[-1]
        return "" if high == 0 else f"…{low}" if low == high else f"…{low}–{high}"


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
    end: bool = False
    distances: set[int] = field(default_factory=set)


@dataclass(slots=True)
class _Collected:
    """The trie without wildcards, before it is put in order."""

    nodes: dict[Key, _Merged] = field(default_factory=lambda: defaultdict(_Merged))
    gaps: dict[tuple[Key, Key], set[int]] = field(default_factory=lambda: defaultdict(set))
    paths: list[tuple[float, int, tuple[Key, ...]]] = field(default_factory=list)
    """(minus activation, minus support, nodes from the activating token back), one for each end."""


def condense(graph: Graph, *, max_nodes: int | None = None) -> LayeredGraph:
    """The layered graph of a trie, of at most `max_nodes` nodes (`None`: all of them).

    Where nodes must be left out, whole paths are taken, those with the largest stored activation first (ties: more
    examples first), until the next one no longer fits. Parts that are connected in the whole graph stay one part.
    Branches from which no end can be reached predict nothing and are left out. Raises `InputError` if
    `max_nodes` is below 1.
    """
    if max_nodes is not None and max_nodes < 1:
        raise InputError("max_nodes", "at least 1", str(max_nodes))
    found = _collect(graph)
    parts = _components(found.nodes, found.gaps)
    shown = set(found.nodes) if max_nodes is None else _strongest(found.paths, max_nodes)
    components = []
    for part in parts:
        nodes = [_finish(graph, key, found.nodes[key]) for key in part if key in shown]
        if nodes:
            components.append(tuple(sorted(nodes, key=lambda n: (n.depth, -n.importance, n.token))))
    components.sort(key=lambda part: (-part[0].importance, part[0].token))
    edges = tuple(
        LayerEdge(source, target, tuple(sorted(gaps)))
        for (source, target), gaps in sorted(found.gaps.items())
        if source in shown and target in shown
    )
    return LayeredGraph(graph.unit, tuple(components), edges, len(found.nodes))


def _collect(graph: Graph) -> _Collected:
    """Merge the trie by (depth without wildcards, token)."""
    found = _Collected()
    walked = list(graph.walk())
    live: set[int] = set()
    for node, _, parent in reversed(walked):  # children before parents
        if node.end is not None or id(node) in live:
            live.add(id(node))
            if parent is not None:
                live.add(id(parent))
    # For each node of the trie: the condensed nodes of its path and the wildcards since the last of them.
    reached: dict[int, tuple[tuple[Key, ...], int]] = {}
    for node, distance, parent in walked:
        before, gap = ((), 0) if parent is None else reached.get(id(parent), ((), -1))
        if id(node) not in live or gap < 0 or (not before and node.token == IGNORE):
            continue  # leads nowhere, or hangs below a wildcard that stands for the activating token
        if node.token == IGNORE:
            path, gap = before, gap + 1
        else:
            key = (len(before), node.token)
            path = (*before, key)
            if before:
                found.gaps[key, before[-1]].add(gap)
            merged = found.nodes[key]
            merged.importance = max(merged.importance, node.importance)
            merged.distances.add(distance)
            gap = 0
        reached[id(node)] = (path, gap)
        if node.end is not None:
            found.nodes[path[-1]].end = True
            found.paths.append((-node.end.activation, -node.end.support, path))
    return found


def _finish(graph: Graph, key: Key, merged: _Merged) -> LayerNode:
    depth, token = key
    return LayerNode(
        depth=depth,
        token=token,
        text=graph.string(token),
        importance=merged.importance,
        activation=merged.importance if depth == 0 else None,
        end=merged.end,
        nearest=min(merged.distances),
        farthest=max(merged.distances),
    )


def _strongest(paths: Iterable[tuple[float, int, tuple[Key, ...]]], max_nodes: int) -> set[Key]:
    """Nodes of the strongest whole paths; of the very first path as much as fits, so that something is shown."""
    shown: set[Key] = set()
    for _, _, path in sorted(paths):
        if len(shown.union(path)) > max_nodes:
            return shown or set(path[:max_nodes])
        shown.update(path)
    return shown


def _components(keys: Iterable[Key], edges: Iterable[tuple[Key, Key]]) -> list[list[Key]]:
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


def place(part: Sequence[LayerNode], edges: Iterable[LayerEdge], *, spacing: float) -> dict[Key, float]:
    """Heights of one component's nodes: neighbours of a layer at least `spacing` apart, the topmost at 0.

    Layers are reordered by barycentre sweeps (Sugiyama et al. 1981), the order with the fewest crossings kept;
    then each node moves as near to the mean of its neighbours as order and spacing allow. What hangs together only
    by nodes that are not shown is stacked.
    """
    rank = {node.key: i for i, node in enumerate(part)}  # strongest first in each layer
    pairs = [(edge.source, edge.target) for edge in edges if edge.source in rank and edge.target in rank]
    joined: dict[Key, list[Key]] = defaultdict(list)
    for source, target in pairs:
        joined[source].append(target)
        joined[target].append(source)
    at: dict[Key, float] = {}
    top = 0.0
    pieces = [sorted(piece, key=rank.__getitem__) for piece in _components(rank, pairs)]
    for piece in sorted(pieces, key=lambda piece: rank[piece[0]]):
        layers = [list(layer) for _, layer in groupby(piece, key=lambda key: key[0])]
        heights = _straighten(_untangle(layers, joined), joined, spacing)
        at.update({key: top + height for key, height in heights.items()})
        top += max(heights.values()) + spacing
    return at


def crossings(layers: Sequence[Sequence[Key]], joined: dict[Key, list[Key]]) -> int:
    """Number of pairs of edges that cross when layers stand in these orders."""
    count = 0
    for near, far in pairwise(layers):
        index = {key: i for i, key in enumerate(near)}
        seen: list[int] = []  # ends on the near side of the edges above, sorted
        for key in far:
            ends = sorted(index[k] for k in joined[key] if k in index)
            count += sum(len(seen) - bisect_right(seen, end) for end in ends)
            for end in ends:
                insort(seen, end)
    return count


def _untangle(layers: list[list[Key]], joined: dict[Key, list[Key]]) -> list[list[Key]]:
    """Barycentre sweeps away from the activating layer and back; the best order met."""
    best, fewest = [list(layer) for layer in layers], crossings(layers, joined)
    for sweep in range(SWEEPS):
        if fewest == 0:
            break
        outwards = sweep % 2 == 0
        order = range(1, len(layers)) if outwards else range(len(layers) - 2, -1, -1)
        for depth in order:
            fixed = layers[depth - 1 if outwards else depth + 1]
            place_of = {key: (i + 0.5) / len(fixed) for i, key in enumerate(fixed)}
            own = {key: (i + 0.5) / len(layers[depth]) for i, key in enumerate(layers[depth])}
            wanted = {key: _mean([place_of[k] for k in joined[key] if k in place_of], own[key]) for key in own}
            layers[depth] = sorted(own, key=lambda key: (wanted[key], own[key]))
        if (count := crossings(layers, joined)) < fewest:
            best, fewest = [list(layer) for layer in layers], count
    return best


def _straighten(layers: list[list[Key]], joined: dict[Key, list[Key]], spacing: float) -> dict[Key, float]:
    """Heights that make edges level, orders and distances kept: layer by layer, least squares over the edges.

    Weighted by its edges, every step lowers one sum of squares; unweighted, whole parts would drift for ever.
    """
    tallest = max(len(layer) for layer in layers)
    at = {key: (i + (tallest - len(layer)) / 2) * spacing for layer in layers for i, key in enumerate(layer)}
    for sweep in range(PULLS):
        for layer in layers if sweep % 2 == 0 else reversed(layers):
            wanted = [_mean([at[k] for k in joined[key]], at[key]) for key in layer]
            weights = [max(len(joined[key]), 1) for key in layer]
            at.update(zip(layer, spread(wanted, weights, spacing), strict=True))
    top = min(at.values())
    return {key: height - top for key, height in at.items()}


def spread(wanted: Sequence[float], weights: Sequence[int], spacing: float) -> list[float]:
    """Positions nearest to those wanted (weighted least squares) that keep the order and stay `spacing` apart.

    With `spacing * i` taken off the i-th, this is isotonic regression: pool adjacent violators.
    """
    blocks: list[tuple[float, int, int]] = []
    for i, (height, weight) in enumerate(zip(wanted, weights, strict=True)):
        mean, size = height - i * spacing, 1
        while blocks and blocks[-1][0] >= mean:
            other, more, n = blocks.pop()
            mean, weight, size = (mean * weight + other * more) / (weight + more), weight + more, size + n
        blocks.append((mean, weight, size))
    pooled = [mean for mean, _, size in blocks for _ in range(size)]
    return [height + i * spacing for i, height in enumerate(pooled)]


def _mean(values: Sequence[float], otherwise: float) -> float:
    return sum(values) / len(values) if values else otherwise


def visible(text: str) -> str:
    """A token as a label: spaces as `·`, newlines as `⏎`, tabs as `⇥`, other characters without a shape as escapes.

    More than three equal white-space marks in a row are counted, as "·", a multiplication sign and their number.
    The empty string reads `(empty)`.
    """
    if not text:
        return "(empty)"
    shown = []
    for char, run in groupby(text):
        n, mark = sum(1 for _ in run), _mark(char)
        shown.append(f"{mark}×{n}" if n > 3 and char.isspace() else mark * n)
    first = "◌" if unicodedata.combining(text[0]) else ""  # a combining character needs something to sit on
    return first + "".join(shown)


def _mark(char: str) -> str:
    if char in (named := {" ": "·", "\n": "⏎", "\t": "⇥", "\r": "\\r"}):
        return named[char]
    if unicodedata.category(char)[0] in "CZ":  # controls, directions, surrogates, private and unknown; other spaces
        code = ord(char)
        return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" if code < 65536 else f"\\U{code:08x}"
    return char


def text_width(text: str, size: float) -> float:
    """A safe guess of a text's width in px at font size `size`: not less than in DejaVu Sans, a wide typeface."""
    return size * sum(_em(char) for char in text)


def _em(char: str) -> float:
    """Width of a character in units of the font size, by class, rounded up."""
    if unicodedata.category(char) in ("Mn", "Me"):
        return 0.0
    if unicodedata.east_asian_width(char) in "WF":
        return 1.4 if unicodedata.category(char) == "So" else 1.05  # emoji are wider than ideographs
    base = unicodedata.normalize("NFD", char)[0]
    if base in "iljI.,:;|'· ":
        return 0.38
    if base in 'frt()[]/\\-!"`':
        return 0.5
    if base in "mwMW@%—…":
        return 1.0
    if base.isascii():
        return 0.85 if base.isupper() or base in "&<>=+~#^" else 0.65
    return 1.1


def elide(label: str, size: float, most: float) -> str:
    """The label itself if it is at most `most` px wide at font size `size`, else as much as fits and an ellipsis."""
    if text_width(label, size) <= most:
        return label
    room, kept = most - text_width("…", size), ""
    for char in label:
        room -= text_width(char, size)
        if room < 0:
            break
        kept += char
    return kept + "…"


def fill(depth: int, strength: float) -> str:
    """Colour of a node as `#rrggbb`: red at depth 0, else blue, by a strength in [0, 1]."""
    weak, strong = RED if depth == 0 else BLUE
    share = min(max((strength - LOW) / (1 - LOW), 0.0), 1.0)
    mixed = (a + (b - a) * share for a, b in zip(_channels(weak), _channels(strong), strict=True))
    return "#" + "".join(f"{round(255 * value):02x}" for value in mixed)


def ink_on(ground: str) -> str:
    """Black or white, whichever stands out more; on any ground that is at least 4.58 : 1."""
    return max("#000000", "#ffffff", key=lambda ink: contrast(ink, ground))


def contrast(one: str, other: str) -> float:
    """Contrast ratio of two colours `#rrggbb`, 1 to 21 (WCAG 2.2, relative luminance)."""

    def luminance(colour: str) -> float:
        r, g, b = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in _channels(colour))
        return 0.2126 * r + 0.7152 * g + 0.0722 * b

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def _channels(colour: str) -> tuple[float, float, float]:
    r, g, b = bytes.fromhex(colour[1:])
    return r / 255, g / 255, b / 255
