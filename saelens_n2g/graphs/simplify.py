"""Simplify: the same answers from fewer nodes."""

from collections.abc import Collection, Iterable, Sequence

from saelens_n2g.graphs import elements
from saelens_n2g.graphs.elements import IGNORE, START
from saelens_n2g.graphs.graph import End, Graph, Node

_ANY = 1 << 40
"""A token that no vocabulary has: what a wildcard must match when a path is read as a text."""


def drop_covered(graph: Graph) -> None:
    """Take out every end where the other paths would give the same answer: a gap makes the single distances needless.

    A path is read as a text of its own, with a token that no other path names in place of each wildcard; if what
    matches there without it fires (or stays quiet) alike, the path says nothing new. Paths with a gap or a start of
    text stay. The most exact ones go first.
    """
    ends: list[tuple[tuple[int, ...], Node]] = []
    path: list[int] = []
    for node, depth, _ in graph.walk():
        path[depth:] = [node.token]
        if node.end is not None and not any(e == START or elements.is_gap(e) or elements.is_class(e) for e in path):
            ends.append((tuple(path), node))
    for elements_of, node in sorted(ends, key=lambda item: (item[0].count(IGNORE), len(item[0]), item[0])):
        assert node.end is not None
        end, fires = node.end, node.end.activation >= 0.5
        # A token in front keeps a path that is tied to the start of a text from matching.
        text = [_ANY, *(_ANY if element == IGNORE else element for element in reversed(elements_of))]
        node.end = None
        others = graph.matches(text, len(text) - 1)
        if bool(others and others[-1].activation >= 0.5) != fires:
            node.end = end
    _drop_dead(graph.roots)


def _drop_dead(level: dict[int, Node]) -> None:
    """Take out nodes that lead to no end."""
    for element, node in list(level.items()):
        _drop_dead(node.children)
        if node.end is None and not node.children:
            del level[element]


def merge_classes(graph: Graph, roots: Collection[int]) -> None:
    """Make one class of sibling tokens that lead no further and say the same; of activating tokens only of `roots`."""
    for node, _, _ in list(graph.walk()):
        node.children = _merged(graph, node.children.values())
    chosen = [node for token, node in sorted(graph.roots.items()) if token in roots]
    others = {token: node for token, node in graph.roots.items() if token not in roots}
    graph.roots = dict(sorted({**others, **_merged(graph, chosen)}.items()))


def _merged(graph: Graph, siblings: Iterable[Node]) -> dict[int, Node]:
    leaves: dict[bool, list[Node]] = {True: [], False: []}
    out: dict[int, Node] = {}
    for node in siblings:
        if node.token >= 0 and not node.children and node.end is not None:
            leaves[node.end.activation >= 0.5].append(node)
        else:
            out[node.token] = node
    for fires, same in leaves.items():
        if same:
            node = same[0] if len(same) == 1 else _class(graph, same, fires)
            out[node.token] = node
    return dict(sorted(out.items()))


def _class(graph: Graph, same: Sequence[Node], fires: bool) -> Node:
    """One node for several: counts added up, activations averaged over the examples behind them."""
    ends = [node.end for node in same if node.end is not None]
    weights = [end.support if fires else end.seen - end.support for end in ends]
    total = sum(weights)
    shares = [weight / total for weight in weights] if total else [1 / len(ends)] * len(ends)
    activation = sum(end.activation * share for end, share in zip(ends, shares, strict=True))
    end = End(activation, sum(end.support for end in ends), sum(end.seen for end in ends))
    return Node(graph.add_class([node.token for node in same]), max(node.importance for node in same), {}, end)
