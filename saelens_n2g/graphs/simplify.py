"""Simplify: the same answers from fewer nodes."""

from collections.abc import Collection, Iterable, Iterator, Sequence

from saelens_n2g.graphs import elements
from saelens_n2g.graphs.elements import IGNORE, START
from saelens_n2g.graphs.graph import End, Graph, Match, Node

Path = tuple[int, ...]

_ANY = 1 << 40
"""A token that no vocabulary has: what a wildcard must match when a path is read as a text."""


def drop_covered(graph: Graph) -> None:
    """Take out every end that other paths make needless: with a gap, most of the single distances.

    A path of tokens and wildcards is read as a text of its own, with a token that no path names for each wildcard. What
    matches there without it matches wherever the path does. If that fires (or stays quiet) alike, and no path with the
    other answer can come between the two, the path says nothing new. Paths with a gap or a start of text stay. The most
    exact ones go first.
    """
    for root in graph.roots.values():
        ends = list(_ends(root))
        if any(_is_loose(path) for path, _ in ends):
            _drop_covered(graph, ends)
    _drop_dead(graph.roots)


def _ends(root: Node) -> Iterator[tuple[Path, Node]]:
    stack: list[tuple[Path, Node]] = [((root.token,), root)]
    while stack:
        path, node = stack.pop()
        if node.end is not None:
            yield path, node
        stack.extend(((*path, element), child) for element, child in node.children.items())


def _is_loose(path: Path) -> bool:
    return any(element == IGNORE or elements.is_gap(element) for element in path)


def _drop_covered(graph: Graph, ends: list[tuple[Path, Node]]) -> None:
    """The same for the ends below one root."""
    plain = [item for item in ends if all(element >= IGNORE for element in item[0])]
    for path, node in sorted(plain, key=lambda item: (item[0].count(IGNORE), len(item[0]), item[0])):
        end = node.end
        assert end is not None
        text = [_ANY, *(_ANY if element == IGNORE else element for element in reversed(path))]
        node.end = None
        others = [match for match in graph.matches(text, len(text) - 1) if match.path[-1] != START]
        if not others or _fires(others[-1]) != _fires(end) or _between(path, end, others[-1], ends):
            node.end = end


def _fires(end: End | Match) -> bool:
    return end.activation >= 0.5


def _between(path: Path, end: End, instead: Match, ends: list[tuple[Path, Node]]) -> bool:
    """Whether in some text a path with the other answer counts before `instead`, but not before `path`."""
    highest = Match(len(path), end.activation, path).rank
    for other, node in ends:
        if node.end is None or _fires(node.end) == _fires(end) or not _together(path, other):
            continue
        least = sum(not elements.is_gap(element) and element != START for element in other)
        most = least + sum(elements.gap_width(element) for element in other if elements.is_gap(element))
        ranks = (Match(n, node.end.activation, other).rank for n in range(least, most + 1))
        if any(instead.rank < rank < highest for rank in ranks):
            return True
    return False


def _together(one: Path, other: Path) -> bool:
    """Whether both can match at one place; when in doubt they can."""
    for a, b in zip(one, other, strict=False):
        if elements.is_gap(a) or elements.is_gap(b):
            return True
        if a != b and a != IGNORE and b != IGNORE:
            return False
    return True


def _drop_dead(level: dict[int, Node]) -> None:
    """Take out nodes that lead to no end."""
    for element, node in list(level.items()):
        _drop_dead(node.children)
        if node.end is None and not node.children:
            del level[element]


def merge_classes(graph: Graph, roots: Collection[int]) -> None:
    """Make one class of sibling tokens that lead no further and say the same; of activating tokens only of `roots`.

    Not below activating tokens with wildcards or gaps: a class counts after an exact token (`Match.rank`), and among
    paths that overlap, that could change the answer.
    """
    for root in graph.roots.values():
        if not any(_is_loose(path) for path, _ in _ends(root)):
            _merge_below(graph, root)
    chosen = [node for token, node in sorted(graph.roots.items()) if token in roots]
    others = {token: node for token, node in graph.roots.items() if token not in roots}
    graph.roots = dict(sorted({**others, **_merged(graph, chosen)}.items()))


def _merge_below(graph: Graph, root: Node) -> None:
    stack = [root]
    while stack:
        node = stack.pop()
        node.children = _merged(graph, node.children.values())
        stack.extend(node.children.values())


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
