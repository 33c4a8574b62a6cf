"""Places for the nodes of a condensed graph: columns by depth, few crossings, level edges.

layered = condense(graph)
for part in layered.components:
    heights = place(part, layered.edges, spacing=1.0)
"""

from bisect import bisect_right, insort
from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import groupby, pairwise

from saelens_n2g.graphs.condensed import Key, LayerEdge, LayerNode, connected

SWEEPS = 12
"""Rounds of reordering; more change nothing on the graphs that were looked at."""
PULLS = 61
"""Rounds of straightening; odd, so that the last goes outwards and leaves stand level with what they lead to."""


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
    pieces = [sorted(piece, key=rank.__getitem__) for piece in connected(rank, pairs)]
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
