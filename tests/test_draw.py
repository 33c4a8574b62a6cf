"""The drawing of a graph: the condensed form against the list of paths it came from, SVG and DOT read back in."""

import random
import re
import xml.etree.ElementTree as ElementTree
from collections import defaultdict
from collections.abc import Sequence
from itertools import combinations, pairwise

import networkx as nx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saelens_n2g.errors import InputError
from saelens_n2g.graphs import draw, elements, layout, legend
from saelens_n2g.graphs.condensed import Key, LayeredGraph, LayerNode, condense
from saelens_n2g.graphs.dot import quoted, to_dot, to_networkx
from saelens_n2g.graphs.draw import to_svg
from saelens_n2g.graphs.graph import IGNORE, Graph, Node
from saelens_n2g.graphs.labels import contrast, elide, fill, ink_on, text_width, visible
from saelens_n2g.graphs.layout import spread
from saelens_n2g.graphs.svg import MARGIN

QUICK = settings(max_examples=60, deadline=None, derandomize=True, database=None)
NS = "{http://www.w3.org/2000/svg}"
NASTY = [
    '<div class="a&b">', "</", '"', "'", "\\", "\\\\", "\\n", "{", "}", "{|}", "&amp;", "&#65;", "]]>", "<!--", "",
    " ", "        ", "\n", "\n\n", "\t", "\r\n", "\x00", "\x1b", "\x7f", "\x85", "\ud800", "\ufffd", "\ufffe",
    "\u202e", "\u200b", "\u0301", "日本語", "🤖", " مرحبا", "Ж щюя", "->", ";", "a" * 300, "%", "\\N", "\\G", '\\"',
]  # fmt: skip

Paths = Sequence[tuple[tuple[tuple[int, float], ...], float]]
"""(token, importance) pairs, activating token first, and the activation of each path."""


CLASSES = [(0, 1), (2, 3, 4)]


def graph_of(paths: Paths, unit: str = "3.mlp_post/neurons/1214") -> Graph:
    graph = Graph(unit, 5.0)
    graph.classes = list(CLASSES)
    for path, activation in paths:
        graph.add(path, activation)
    graph.name_tokens(lambda token: f" w{token}")
    return graph


def phrases(*texts: Sequence[str | None], activation: float = 0.9) -> Graph:
    """A graph of phrases in reading order, the last token activating, `None` for a wildcard."""
    graph = Graph("unit", 5.0)
    ids: dict[str, int] = {}
    for text in texts:
        tokens = [IGNORE if t is None else ids.setdefault(t, len(ids)) for t in reversed(text)]
        graph.add([(t, activation if i == 0 else 0.8) for i, t in enumerate(tokens)], activation)
    graph.token_strings.update({i: t for t, i in ids.items()})
    return graph


def random_paths(n: int, seed: int, n_tokens: int = 60) -> Paths:
    rng = random.Random(seed)
    paths: dict[tuple[int, ...], float] = {}
    while len(paths) < n:
        length = rng.randint(1, 5)
        tokens = [rng.randrange(n_tokens) if rng.random() < 0.8 else IGNORE for _ in range(length)]
        if IGNORE not in (tokens[0], tokens[-1]):
            paths[tuple(tokens)] = round(rng.uniform(0.5, 1.0), 4)
    return [(tuple((t, round(rng.random(), 4)) for t in tokens), a) for tokens, a in paths.items()]


@st.composite
def some_paths(draw_: st.DrawFn) -> Paths:
    named = st.integers(0, 5) | st.sampled_from([elements.of_class(0), elements.of_class(1)])
    value = st.sampled_from([0.1, 0.35, 0.5, 0.77, 1.0])
    skipped = st.sampled_from([IGNORE, IGNORE, elements.gap(1), elements.gap(2)])
    middle = st.lists(st.tuples(skipped | named, value), max_size=4)
    last = st.tuples(named | st.just(elements.START), value)
    longer = st.builds(lambda first, m, last: (first, *m, last), st.tuples(named, value), middle, last)
    path = st.one_of(st.builds(lambda first: (first,), st.tuples(named, value)), longer)
    return draw_(st.lists(st.tuples(path, value), max_size=12))


# The condensed form


@QUICK
@given(some_paths())
def test_condensed_graph_says_what_the_paths_say(paths: Paths) -> None:
    importance: dict[Key, float] = {}
    places: dict[Key, list[int]] = defaultdict(list)
    between: dict[tuple[Key, Key], list[int]] = defaultdict(list)
    graph = graph_of(paths)
    ends: dict[bool, dict[Key, list[tuple[float, int, int]]]] = {True: defaultdict(list), False: defaultdict(list)}
    firing = set()
    for path, activation, support, seen in ends_of(graph):
        near = far = fewest = most = 0
        real: list[Key] = []
        for element, value in path:
            if element == IGNORE or elements.is_gap(element):
                wide = elements.gap_width(element) if element != IGNORE else 1
                least = 1 if element == IGNORE else 0
                near, far, fewest, most = near + least, far + wide, fewest + least, most + wide
                continue
            key = (len(real), element)
            importance[key] = max(importance.get(key, 0.0), value)
            places[key] += [near, far]
            if real:
                between[key, real[-1]] += [fewest, most]
            real.append(key)
            near, far, fewest, most = near + 1, far + 1, 0, 0
        ends[activation >= 0.5][real[-1]].append((activation, support, seen))
        firing |= set(real) if activation >= 0.5 else set()
    layered = condense(graph)
    assert {n.key: n.importance for n in layered.nodes} == importance
    assert {n.key: n.activation for n in layered.nodes if n.depth == 0} == {
        key: value for key, value in importance.items() if key[0] == 0
    }
    assert all(n.activation is None for n in layered.nodes if n.depth)
    for side, best in ((True, max), (False, min)):
        said = {n.key: n.fires if side else n.quiet for n in layered.nodes}
        assert {key: tuple(stop) for key, stop in said.items() if stop} == {
            key: (best(e[0] for e in found), sum(e[1] for e in found), sum(e[2] for e in found))
            for key, found in ends[side].items()
        }
    assert {n.key for n in layered.nodes if not n.only_quiet} == firing
    assert {n.key: (n.nearest, n.farthest) for n in layered.nodes} == {k: (min(v), max(v)) for k, v in places.items()}
    assert {(e.source, e.target): (e.fewest, e.most) for e in layered.edges} == {
        pair: (min(v), max(v)) for pair, v in between.items()
    }
    assert {n.key: n.names for n in layered.nodes} == {
        key: tuple(f" w{token}" for token in graph.members(key[1])) for key in importance
    }
    assert layered.total == len(importance)
    undirected = nx.Graph(list(between))
    undirected.add_nodes_from(importance)
    expected = {frozenset(part) for part in nx.connected_components(undirected)}
    assert {frozenset(n.key for n in part) for part in layered.components} == expected


def ends_of(graph: Graph) -> list[tuple[list[tuple[int, float]], float, int, int]]:
    """(path with importances, activation, support, seen) of every end."""
    found, path = [], []
    for node, depth, _ in graph.walk():
        path[depth:] = [(node.token, node.importance)]
        if node.end is not None:
            found.append((list(path), node.end.activation, node.end.support, node.end.seen))
    return found


def test_three_languages_are_three_parts_strongest_first() -> None:
    graph = phrases([" de", " bet", "rok", "ken"], [" fun", None, " over", " the", " top"], activation=0.6)
    for token in [(101, 0.8), (100, 0.95)]:
        graph.add([token, (102 + token[0], 0.7)], token[1])
    parts = condense(graph).components
    assert [part[0].token for part in parts] == [100, 101, graph_token(graph, "ken"), graph_token(graph, " top")]


def graph_token(graph: Graph, text: str) -> int:
    return next(token for token, string in graph.token_strings.items() if string == text)


def test_branch_without_an_end_and_what_hangs_below_a_wildcard_root_are_left_out() -> None:
    graph = graph_of([(((1, 0.9), (2, 0.8), (3, 0.7)), 0.9), (((4, 0.6), (5, 0.5)), 0.6)])
    graph.roots[1].children[2].children[3].end = None
    graph.roots[1].end = None
    graph.roots[IGNORE] = Node(IGNORE, 0.1, {5: graph.roots[4].children.pop(5)})
    graph.roots[4].end = None
    assert condense(graph).nodes == ()
    assert "never fires" in to_svg(graph)


def test_end_on_a_wildcard_makes_the_token_before_it_an_end() -> None:
    graph = graph_of([(((1, 0.9), (IGNORE, 0.1), (2, 0.8)), 0.9)])
    graph.roots[1].children[IGNORE].end = graph.roots[1].children[IGNORE].children[2].end
    assert [(n.key, n.fires is not None) for n in condense(graph).nodes] == [((0, 1), True), ((1, 2), True)]


def condensed_keys(path: Sequence[tuple[int, float]]) -> list[Key]:
    return list(enumerate(e for e, _ in path if e != IGNORE and not elements.is_gap(e)))


@QUICK
@given(some_paths(), st.integers(1, 12))
def test_limited_graph_holds_whole_strongest_paths(paths: Paths, most: int) -> None:
    graph = graph_of(paths)
    whole, limited = condense(graph), condense(graph, max_nodes=most)
    shown = {n.key for n in limited.nodes}
    assert len(shown) <= most
    assert limited.total == len(whole.nodes)
    if whole.total <= most:
        assert limited == whole
        return
    every = [(condensed_keys(path), activation, support) for path, activation, support, _ in ends_of(graph)]
    targets = {e.source for e in limited.edges}
    assert all(depth == 0 or (depth, token) in targets for depth, token in shown)
    by_weight = sorted((-a * n, keys) for keys, a, n in every if a >= 0.5) or sorted(
        ((a - 0.5) * n, keys) for keys, a, n in every
    )
    first = set(by_weight[0][1])
    assert first <= shown or (shown < first and len(first) > most)
    pairs = {pair for keys, *_ in every if set(keys) <= shown for pair in pairwise(keys)}
    if first <= shown:
        assert {(e.target, e.source) for e in limited.edges} <= pairs  # no edge that no path shown has
        assert all((n.fires or n.quiet or n.key in targets_of(limited)) for n in limited.nodes)


def targets_of(layered: LayeredGraph) -> set[Key]:
    return {edge.target for edge in layered.edges}


def test_exceptions_have_a_quarter_of_the_room_if_their_token_is_shown() -> None:
    firing = [(((i, 0.9),), 0.9 - i / 1000) for i in range(100)]
    quiet = [(((i, 0.9), (200 + i, 0.8)), 0.1) for i in range(90, 100)] + [(((0, 0.9), (300, 0.8)), 0.4)]
    layered = condense(graph_of([*firing, *quiet]), max_nodes=20)
    assert {n.token for n in layered.nodes} == {*range(19), 300}  # 15 that fire, the exception to one of them, 4 more
    assert len(condense(graph_of(quiet), max_nodes=3).nodes) == 2


def test_support_comes_before_activation_in_what_is_shown() -> None:
    graph = graph_of([(((1, 1.0),), 1.0), *[(((2, 0.8),), 0.6)] * 9])
    assert [n.token for n in condense(graph, max_nodes=1).nodes] == [2]


def test_drawing_says_how_much_is_shown_and_refuses_none() -> None:
    graph = graph_of(random_paths(300, seed=1))
    total = condense(graph).total
    assert total > 200
    shown = len(condense(graph, max_nodes=40).nodes)
    assert 30 < shown <= 40
    assert f">{shown} of {total} nodes shown, paths behind most firing first<" in to_svg(graph)
    assert "nodes shown" not in to_svg(graph, max_nodes=None)
    with pytest.raises(InputError, match="max_nodes: expected at least 1, found 0"):
        to_svg(graph, max_nodes=0)


# Places


@QUICK
@given(st.lists(st.tuples(st.floats(-50, 50), st.integers(1, 6)), min_size=1, max_size=12), st.floats(0, 5))
def test_spread_is_weighted_isotonic_regression(wanted: list[tuple[float, int]], spacing: float) -> None:
    free = [(height - i * spacing, weight) for i, (height, weight) in enumerate(wanted)]

    def mean(low: int, high: int) -> float:
        return sum(y * w for y, w in free[low : high + 1]) / sum(w for _, w in free[low : high + 1])

    n = len(free)  # the min-max formula of isotonic regression
    exact = [max(min(mean(low, high) for high in range(i, n)) for low in range(i + 1)) for i in range(n)]
    found = spread([height for height, _ in wanted], [weight for _, weight in wanted], spacing)
    assert found == pytest.approx([y + i * spacing for i, y in enumerate(exact)], abs=1e-9)


def joined_of(edges: Sequence[tuple[Key, Key]]) -> dict[Key, list[Key]]:
    joined: dict[Key, list[Key]] = defaultdict(list)
    for a, b in edges:
        joined[a].append(b)
        joined[b].append(a)
    return joined


@QUICK
@given(st.sets(st.tuples(st.integers(0, 5), st.integers(0, 5))), st.permutations(range(6)))
def test_crossings_are_pairs_of_edges_in_opposite_order(pairs: set[tuple[int, int]], far: list[int]) -> None:
    layers = [[(0, t) for t in range(6)], [(1, t) for t in far]]
    slow = sum((a - c) * (far.index(b) - far.index(d)) < 0 for (a, b), (c, d) in combinations(sorted(pairs), 2))
    joined = joined_of([((1, b), (0, a)) for a, b in sorted(pairs)])
    assert layout.crossings(layers, joined) == slow


def order_of(part: Sequence[LayerNode], heights: dict[Key, float]) -> list[list[Key]]:
    deepest = max(n.depth for n in part)
    return [sorted((n.key for n in part if n.depth == d), key=heights.__getitem__) for d in range(deepest + 1)]


@QUICK
@given(some_paths())
def test_neighbours_keep_their_distance_and_sweeps_never_add_crossings(paths: Paths) -> None:
    layered = condense(graph_of(paths))
    joined = joined_of([(e.source, e.target) for e in layered.edges])
    for part in layered.components:
        heights = layout.place(part, layered.edges, spacing=38.0)
        assert min(heights.values()) == pytest.approx(0.0, abs=1e-9)
        layers = order_of(part, heights)
        for layer in layers:
            assert all(heights[b] - heights[a] > 38.0 - 1e-6 for a, b in pairwise(layer))
        first = [[n.key for n in part if n.depth == d] for d in range(len(layers))]
        assert layout.crossings(layers, joined) <= layout.crossings(first, joined)


def test_crossed_ladder_is_untangled_and_a_core_token_stands_in_the_middle() -> None:
    # Importance falls down the activating column and rises down the context, so the first order crosses everywhere.
    ladder = graph_of([(((i, 1 - i / 100), (9, 0.9), (10 + i, i / 100)), 0.9) for i in range(6)])
    rungs = [(((i, 1 - i / 100), (10 + i, i / 100)), 0.9) for i in range(6)]
    rungs += [(((i, 1 - i / 100), (11 + i, i / 100)), 0.9) for i in range(5)]
    layered = condense(graph_of(rungs))
    (part,) = layered.components
    joined = joined_of([(e.source, e.target) for e in layered.edges])
    first = [[n.key for n in part if n.depth == d] for d in (0, 1)]
    assert layout.crossings(first, joined) > 20
    assert layout.crossings(order_of(part, layout.place(part, layered.edges, spacing=1.0)), joined) == 0
    core = condense(ladder)
    heights = layout.place(core.nodes, core.edges, spacing=1.0)
    assert heights[1, 9] == pytest.approx(2.5)


def test_chains_are_level() -> None:
    graph = phrases([" all", " not", " all"], [" all", " other", " than"], [" any", " other", " than"], ["x", "y", "z"])
    for part in (layered := condense(graph)).components:
        heights = layout.place(part, layered.edges, spacing=38.0)
        for edge in layered.edges:
            if edge.target in heights and edge.target[0] == 0:
                assert heights[edge.source] == pytest.approx(heights[edge.target], abs=0.01)


# Labels and colours


@pytest.mark.parametrize(
    ("text", "label"),
    [
        (" York", "·York"), ("\n", "⏎"), ("\n\n", "⏎⏎"), (" " * 8, "·×8"), ("\tif", "⇥if"), ("", "(empty)"),
        ("\r\n", "\\r⏎"), ("\x00", "\\x00"), ("\u200b", "\\u200b"), ("\U000e0001", "\\U000e0001"), ("=====", "====="),
        ("\u0301", "◌\u0301"), ("\xa0", "\\xa0"), ("\ud800", "\\ud800"), ("日本", "日本"), ("&amp;", "&amp;"),
    ],
)  # fmt: skip
def test_label_shows_what_cannot_be_seen(text: str, label: str) -> None:
    assert visible(text) == label


@QUICK
@given(st.text(max_size=40), st.floats(20, 300))
def test_elided_label_fits_and_is_a_beginning(label: str, most: float) -> None:
    short = elide(label, 14.0, most)
    assert text_width(short, 14.0) <= most + 1e-6
    assert short == label or (short.endswith("…") and label.startswith(short[:-1]))


def dejavu_width(text: str, size: float) -> float:
    """Width of a text as the typeface DejaVu Sans sets it, without kerning."""
    from pathlib import Path

    import matplotlib
    from matplotlib.ft2font import FT2Font, LoadFlags

    font = FT2Font(str(Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf"))
    font.set_size(100.0, 72)
    return sum(font.load_char(ord(c), flags=LoadFlags.NO_HINTING).linearHoriAdvance / 65536 for c in text) * size / 100


def test_labels_are_never_wider_than_thought() -> None:
    letters = [chr(c) for c in (*range(33, 127), *range(0xC0, 0x180), *range(0x391, 0x3CA), *range(0x410, 0x450))]
    marks = [*"·⏎⇥×…–◌�", "fires on, in any context", "…0–1"]
    for text in [*letters, *marks]:
        if text.isprintable() and text != "\u03a2":
            assert text_width(text, 14.0) >= dejavu_width(text, 14.0) - 1e-6, text
    sample = "The quick brown fox jumps over the lazy dog"
    assert text_width(sample, 14.0) < 1.25 * dejavu_width(sample, 14.0)


def test_contrast_of_known_pairs() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21.0)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.005)  # the textbook near miss
    assert contrast("#ff0000", "#ffffff") == contrast("#ffffff", "#ff0000") == pytest.approx(3.998, abs=0.001)


@pytest.mark.parametrize("depth", [0, 1, 7])
@pytest.mark.parametrize("quiet", [False, True])
def test_every_fill_bears_text_and_gets_stronger(depth: int, quiet: bool) -> None:
    fills = [fill(depth, i / 400, quiet=quiet) for i in range(401)]
    assert min(contrast(ink_on(f), f) for f in fills) >= 4.5
    on_white = [contrast(f, "#ffffff") for f in fills]
    assert on_white == sorted(on_white)
    assert len(set(fills)) > 120
    strongest = bytes.fromhex(fills[-1][1:])
    assert strongest.index(max(strongest)) == (0 if depth == 0 and not quiet else 2)
    assert (max(strongest) - min(strongest) < 30) == quiet  # grey
    assert fill(depth, -1.0, quiet=quiet) == fills[0]
    assert fill(depth, 2.0, quiet=quiet) == fills[-1]


def test_outlines_stand_out_on_white_and_on_each_other() -> None:
    assert contrast(legend.STILL, "#ffffff") >= 3.0
    assert contrast(legend.STILL, legend.INK) >= 3.0


def test_any_ground_at_all_bears_text() -> None:
    greys = [f"#{v:02x}{v:02x}{v:02x}" for v in range(256)]
    assert min(contrast(ink_on(g), g) for g in greys) >= 4.58


# SVG


def nodes_in(svg: str) -> list[tuple[str, dict[str, str], dict[str, str], str]]:
    """(tooltip, rectangle, text attributes, label) of every node of a drawing, in order."""
    found = []
    for group in ElementTree.fromstring(svg).iter(f"{NS}g"):
        title = group.find(f"{NS}title")
        if title is not None:
            rect, text = group.find(f"{NS}rect"), group.find(f"{NS}text")
            assert rect is not None
            assert text is not None
            found.append((title.text or "", rect.attrib, text.attrib, text.text or ""))
    return found


def every_element() -> Graph:
    """A graph with every kind of element and of end, merged where they can be."""
    graph = Graph("unit", 5.0)
    named = [" of", " in", " for", " by", " the", " York", " New", " out", " not", '<b "q">', "&", "\n", " |", ""]
    ids = {name: i for i, name in enumerate(named)}
    some = graph.add_class([0, 1, 2, 3, 9, 11, 12, 13])
    few = graph.add_class([0, 4])
    graph.token_strings = {i: name for name, i in ids.items()}
    york, new, out = ids[" York"], ids[" New"], ids[" out"]
    for path, activation in [
        ([some], 0.8), ([some, out], 0.1), ([some, out, ids[" not"]], 0.9), ([few, out], 0.7), ([ids["&"], out], 0.2),
        ([york, new], 0.95), ([york, elements.gap(3), new, elements.START], 0.6), ([york, IGNORE, few], 0.7),
        ([ids["\n"], elements.START], 0.9), ([ids[" |"]], 0.3), ([ids['<b "q">']], 0.9),
    ]:  # fmt: skip
        graph.add([(element, activation if i == 0 else 0.8) for i, element in enumerate(path)], activation)
    end = graph.roots[some].children[out].end
    assert end is not None
    end.support, end.seen = 33, 35
    return graph


def many_roots(n: int) -> Graph:
    """A graph as a refined one may be: hundreds of roots, most without context."""
    rng = random.Random(5)
    graph = Graph("unit", 5.0)
    classes = [graph.add_class(rng.sample(range(900), rng.randint(2, 60))) for _ in range(12)]
    for _ in range(n):
        path = [rng.choice(classes) if rng.random() < 0.1 else rng.randrange(900)]
        path += [rng.randrange(900) for _ in range(rng.choice((0, 0, 0, 1, 2)))]
        graph.add([(element, round(rng.uniform(0.3, 1.0), 3)) for element in path], round(rng.uniform(0.3, 1.0), 3))
    graph.name_tokens(lambda token: f" word{token}" * (1 + token % 2))
    return graph


GRAPHS = {
    "one": phrases([" except"]),
    "york": phrases([" New", " York"]),
    "alternatives": phrases([" all", None, " not", " all"], [" nobody", " else", " but"], [" all", " but"], [" but"]),
    "languages": phrases([" de", " bet", "rok", "ken"], [" fun", None, " over", " top"], ["ers", " ber", "ätt"]),
    "core": phrases(*([f" w{i}", *[None] * (i % 3), " out", f" of{i % 2}"] for i in range(12))),
    "nasty": phrases(*([a, b] for a, b in pairwise(NASTY))),
    "alone": phrases(*([t] for t in NASTY)),
    "random": graph_of(random_paths(300, seed=2)),
    "elements": every_element(),
    "classes": many_roots(90),
}


@pytest.mark.parametrize("name", GRAPHS)
def test_drawing_shows_every_node_once_apart_and_inside(name: str) -> None:
    graph = GRAPHS[name]
    svg = to_svg(graph, max_nodes=None)
    layered = condense(graph)
    drawn = nodes_in(svg)
    labels = [legend.node_label(n, draw.NODE_TEXT, draw.LABEL_MOST) for n in layered.nodes]
    assert sorted(label for *_, label in drawn) == sorted(labels)
    assert sum(rect["stroke-width"] == "3" for _, rect, *_ in drawn if "stroke-width" in rect) == sum(
        n.fires is not None or n.quiet is not None for n in layered.nodes
    )
    for _, rect, text, label in drawn:
        assert contrast(text["fill"], rect["fill"]) >= 4.5
        assert text_width(label, float(text["font-size"])) <= float(rect["width"])
    root = ElementTree.fromstring(svg)
    total = float(root.attrib["width"])
    for group in root.findall(f"{NS}g"):
        boxes = [box_of(rect) for title, rect, *_ in nodes_in(ElementTree.tostring(group, encoding="unicode"))]
        assert all(x >= 0 and x + w <= total - 2 * MARGIN + 0.02 for x, _, w, _ in boxes)
        for (x1, y1, w1, h1), (x2, y2, w2, h2) in combinations(boxes, 2):
            assert x1 + w1 <= x2 + 0.02 or x2 + w2 <= x1 + 0.02 or y1 + h1 <= y2 + 0.02 or y2 + h2 <= y1 + 0.02


def box_of(rect: dict[str, str]) -> tuple[float, float, float, float]:
    x, y, w, h = (float(rect[k]) for k in ("x", "y", "width", "height"))
    return x, y, w, h


@pytest.mark.parametrize("name", GRAPHS)
def test_columns_read_towards_the_activating_tokens(name: str) -> None:
    """Deeper tokens stand further left, arrows point right, one curve an edge."""
    graph = GRAPHS[name]
    svg = to_svg(graph)
    shown = condense(graph, max_nodes=draw.MAX_NODES)
    curves = re.findall(r'<path d="M([\d.]+) [\d.]+H[\d.]+C[^H]*H([\d.]+)"', svg)
    assert len(curves) == len(shown.edges)
    assert all(float(start) < float(stop) for start, stop in curves)
    left: dict[int, set[float]] = {}
    depth_of = {legend.tooltip(n): n.depth for part in shown.components if len(part) > 1 for n in part}
    for tooltip, rect, *_ in nodes_in(svg):
        if tooltip in depth_of:
            left.setdefault(depth_of[tooltip], set()).add(float(rect["x"]))
    assert all(len(xs) == 1 for xs in left.values())
    columns = [xs.pop() for _, xs in sorted(left.items())]
    assert columns == sorted(columns, reverse=True)


def test_drawing_is_standalone_accessible_and_free_of_ids() -> None:
    svg = to_svg(GRAPHS["alternatives"], title="A <b>title</b> & more")
    root = ElementTree.fromstring(svg)
    assert root.attrib["role"] == "img"
    assert [child.tag for child in root][:3] == [f"{NS}title", f"{NS}desc", f"{NS}rect"]
    assert root[0].text == "Token graph of A <b>title</b> & more"
    assert root[1].text is not None
    assert root[1].text.startswith("2 activating and 5 context tokens, in 2 separate parts.")
    assert " nobody else[ but]" in root[1].text
    assert not any("id" in element.attrib for element in root.iter())
    assert "<style" not in svg
    assert float(root.attrib["width"]) == float(root.attrib["viewBox"].split()[2])


def test_headings_and_labels_are_true_about_distances() -> None:
    svg = to_svg(phrases([" all", None, None, " not", " all"], [" never", " than"]))
    texts = re.findall(r"<text[^>]*>([^<]*)</text>", svg)
    assert {"fires on", "1 before", "2+ before", "…2"} <= set(texts)
    assert "stroke-dasharray" in svg
    assert any(text.startswith("…2: two tokens") for text in texts)
    plain = to_svg(phrases([" New", " York"]))
    assert "any kind" not in plain
    assert "stroke-dasharray" not in plain
    mixed = phrases([" a", " b", " c"], [" a", None, " b", " c"])
    assert "…0–1" in re.findall(r"<text[^>]*>([^<]*)</text>", to_svg(mixed))


def test_gap_label_stands_once_where_it_is_true_of_all_edges() -> None:
    fan = phrases([" all", None, " x"], [" all", None, " y"])
    assert len(re.findall(">…1</text>", to_svg(fan))) == 1
    differing = phrases([" all", None, " x"], [" all", " y"], [" some", " x"])
    assert len(re.findall(">…1</text>", to_svg(differing))) == 1


def test_tooltip_holds_the_whole_token_and_its_numbers() -> None:
    tips = [tip for tip, *_ in nodes_in(to_svg(phrases([" all", None, " York\n\u202e"], ["a" * 300, " x"])))]
    assert '" York\\n\\u202e": token 0, fires, up to 0.90 of the maximum' in tips
    assert '" all": token 1, 2 before, importance 0.80; nothing earlier needed (n=1)' in tips
    assert any("a" * 300 in tip for tip in tips)


def test_what_the_papers_graphs_do_not_have_is_drawn_and_explained() -> None:
    svg = to_svg(every_element())
    drawn = {label: (tip, rect) for tip, rect, _, label in nodes_in(svg)}
    texts = set(re.findall(r"<text[^>]*>([^<]*)</text>", svg))
    tip, rect = drawn["·of | ·in | ·for | ·by +4"]
    assert tip.startswith(
        '" of", " in", " for", " by", "<b \\"q\\">", "\\n", " |", "": any of 8 tokens, fires, up to 0.9'
    )
    assert "in any context (n=1)" in tip
    tip, rect = drawn["start of text"]
    assert float(rect["rx"]) == float(rect["height"]) / 2
    assert "the text begins here" in tip
    tip, rect = drawn["·out"]  # quiet after one token, firing after another: both outlines
    assert tip.endswith("; nothing earlier needed (n=1); stays quiet here, 0.10 (n=34 of 35)")
    assert svg.count(f'stroke="{legend.INK}" stroke-width="3"/><rect') == 1
    tip, rect = drawn["·|"]
    assert rect["stroke-dasharray"] == legend.DASHES
    assert tip == '" |": token 12; stays quiet here, 0.30 (n=1)'
    assert rect["fill"] == fill(0, 0.3, quiet=True)
    tip, rect = drawn["&"]
    assert tip.endswith("; leads only to where the unit stays quiet")
    assert "stroke-dasharray" not in rect
    assert {"…0–3", "…1", "a | b +3: any one of five tokens", "…0–3: up to three"} <= texts
    assert "stays quiet here, whatever shorter paths say" in texts
    assert "importance for staying quiet 0.3 to 1" in texts
    plain = to_svg(phrases([" New", " York"]))
    assert "quiet" not in plain
    assert "any one of" not in plain


def test_a_class_names_as_many_members_as_fit_and_lists_forty() -> None:
    graph = Graph("unit", 5.0)
    graph.add([(graph.add_class(range(500)), 0.9)], 0.9)
    graph.name_tokens(lambda token: f" w{token}")
    (node,) = condense(graph).nodes
    for most in (60.0, 100.0, 170.0, 400.0):
        label = legend.node_label(node, 14.0, most)
        assert text_width(label, 14.0) <= most
        n = label.count("|") + 1
        assert label.endswith(f" +{500 - n}")
        longer = " | ".join(f"·w{i}" for i in range(n + 1)) + f" +{499 - n}"
        assert text_width(longer, 14.0) > most
    assert legend.node_label(node, 14.0, 85.0).startswith("·w0")
    assert legend.tooltip(node).startswith('" w0", " w1", ')
    assert '" w39" and 460 more: any of 500 tokens, fires' in legend.tooltip(node)
    graph.token_strings = dict.fromkeys(range(500), "x" * 100)
    long = legend.node_label(condense(graph).nodes[0], 14.0, 170.0)
    assert long.endswith("x… +499")
    assert text_width(long, 14.0) <= 170.0


def test_a_graph_that_only_stays_quiet_never_fires() -> None:
    svg = to_svg(graph_of([(((1, 0.9), (2, 0.8)), 0.2)]))
    assert "<desc>According to its graph this unit never fires.</desc>" in svg
    assert "activation 0.3 to 1" not in svg
    assert "stays quiet here" in svg


def test_hundreds_of_roots_stay_a_picture() -> None:
    graph = many_roots(400)
    root = ElementTree.fromstring(to_svg(graph))
    assert float(root.attrib["width"]) < 1500
    assert float(root.attrib["height"]) < 1000
    lone = graph_of([(((i, 0.9),), 0.9) for i in range(400)])
    whole = ElementTree.fromstring(to_svg(lone, max_nodes=None))
    assert 0.5 < float(whole.attrib["width"]) / float(whole.attrib["height"]) < 2.5


def test_empty_graph_never_fires() -> None:
    root = ElementTree.fromstring(to_svg(Graph("0.mlp_post/neurons/7", 1.0)))
    assert [t.text for t in root.iter(f"{NS}text")] == ["0.mlp_post/neurons/7", "never fires"]
    assert float(root.attrib["height"]) < 120
    assert "never fires" in (root[1].text or "")
    assert [t.text for t in ElementTree.fromstring(to_svg(Graph("u", 1.0), title="")).iter(f"{NS}text")] == [
        "never fires"
    ]


@QUICK
@given(st.text(max_size=12), st.text(st.characters(codec=None, exclude_categories=()), max_size=6))
def test_any_token_and_title_give_a_document_that_reads_back(title: str, token: str) -> None:
    svg = to_svg(phrases([token, token + "x"]), title=title)
    svg.encode()
    ElementTree.fromstring(svg)
    assert elide(visible(token), draw.NODE_TEXT, draw.LABEL_MOST) in [label for *_, label in nodes_in(svg)]


def test_same_paths_in_any_order_give_the_same_bytes() -> None:
    paths = random_paths(120, seed=3)
    shuffled = random.Random(4).sample(paths, len(paths))
    one, other = graph_of(paths), graph_of(shuffled)
    assert list(one.roots) != list(other.roots)
    assert to_svg(one) == to_svg(other)
    assert to_dot(one) == to_dot(other)
    drawing = to_svg(one, max_nodes=None, title="")
    drawn = re.sub(r"<(title|desc)>.*?</\1>|<text[^>]*>[^<]*</text>", "", drawing, flags=re.DOTALL)
    assert not re.findall(r"\d\.\d{3,}|-0(?![.\d])|\de-?\d", re.sub(r"#[0-9a-f]{6}", "", drawn))


def test_graph_draws_itself() -> None:
    graph = GRAPHS["york"]
    assert graph._repr_svg_() == graph.to_svg() == to_svg(graph)
    assert graph.to_svg(title="x", max_nodes=1) == to_svg(graph, title="x", max_nodes=1)
    assert graph.to_dot() == to_dot(graph)
    assert nx.utils.graphs_equal(graph.to_networkx(), to_networkx(graph))


# networkx and DOT


def test_networkx_graph_carries_the_condensed_graph() -> None:
    graph = phrases([" all", None, " not", " all"], [" but"])
    out = to_networkx(graph)
    all_, not_ = graph_token(graph, " all"), graph_token(graph, " not")
    assert out.nodes[0, all_] == {
        "text": " all", "depth": 0, "importance": 0.9, "activation": 0.9, "nearest": 0, "farthest": 0, "end": False,
        "support": 0, "seen": 0, "quiet_end": False, "quiet_support": 0, "quiet_seen": 0, "only_quiet": False,
    }  # fmt: skip
    assert out.nodes[2, all_]["farthest"] == 3
    assert out.nodes[2, all_]["end"]
    assert "activation" not in out.nodes[2, all_]
    assert dict(out.edges) == {
        ((1, not_), (0, all_)): {"fewest_between": 0, "most_between": 0},
        ((2, all_), (1, not_)): {"fewest_between": 1, "most_between": 1},
    }
    assert out.graph == {"unit": "unit", "max_activation": 5.0}
    assert "".join(nx.generate_graphml(out))  # no attribute that GraphML cannot hold


TOKEN = re.compile(
    r'\s*(?:(?P<string>"(?:[^"\\]|\\.)*")|(?P<word>[A-Za-z_][\w]*|-?[\d.]+)|(?P<sign>->|[{}\[\];,=]))', re.S
)


def dot_tokens(text: str) -> list[tuple[str, str]]:
    """Tokens of DOT by Graphviz's lexical grammar: in a string only `\\"` is undone, other backslashes stay."""
    at, found = 0, []
    text = text.rstrip()
    while at < len(text):
        match = TOKEN.match(text, at)
        assert match is not None, text[at : at + 60]
        kind = match.lastgroup or ""
        value = match[kind]
        found.append((kind, value[1:-1].replace('\\"', '"') if kind == "string" else value))
        at = match.end()
    return found


def dot_shown(value: str) -> str:
    """What Graphviz writes for a label: backslash escapes (none of its own substitutions), then entities."""
    plain = re.sub(r"\\(.)", lambda m: m[1] if m[1] == "\\" else pytest.fail(f"escape {m[0]}"), value, flags=re.S)
    return re.sub(r"&(#?\w+);", lambda m: {"amp": "&"}[m[1]], plain)


def dot_read(text: str) -> tuple[dict[str, dict[str, str]], set[tuple[str, str]]]:
    """Attributes by node name, and the edges."""
    tokens = dot_tokens(text)
    nodes: dict[str, dict[str, str]] = {}
    edges = set()
    for i, (kind, value) in enumerate(tokens):
        after = tokens[i + 1][1] if i + 1 < len(tokens) else ""
        before = tokens[i - 1][1] if i else ""
        if kind == "string" and after == "->":
            edges.add((value, tokens[i + 2][1]))
        elif kind == "string" and after == "[" and before != "->":
            attributes, at = {}, i + 2
            while tokens[at][1] != "]" or tokens[at][0] == "string":
                if tokens[at + 1] == ("sign", "="):
                    attributes[tokens[at][1]] = tokens[at + 2][1]
                    at += 3
                else:
                    assert tokens[at] == ("sign", ",")
                    at += 1
            nodes[value] = attributes
    return nodes, edges


@pytest.mark.parametrize("name", GRAPHS)
def test_dot_reads_back_as_the_condensed_graph(name: str) -> None:
    graph = GRAPHS[name]
    layered = condense(graph)
    text = to_dot(graph)
    text.encode()
    nodes, edges = dot_read(text)
    assert {k: dot_shown(v["label"]) for k, v in nodes.items()} == {
        f"{n.depth}:{n.token}": legend.short_label(n, elements.SHOWN) for n in layered.nodes
    }
    assert edges == {(f"{e.source[0]}:{e.source[1]}", f"{e.target[0]}:{e.target[1]}") for e in layered.edges}
    for node in layered.nodes:
        attributes = nodes[f"{node.depth}:{node.token}"]
        assert attributes["fillcolor"] == fill(node.depth, node.importance, quiet=node.only_quiet)
        assert attributes["penwidth"] == ("3" if node.fires or node.quiet else "1")
        assert ("dashed" in attributes.get("style", "")) == (node.quiet is not None and node.fires is None)
        assert attributes["tooltip"] == legend.facts(node)
    assert text.count("rank=same") == len({n.depth for n in layered.nodes})


@QUICK
@given(st.text(st.characters(codec=None, exclude_categories=()), max_size=8))
def test_quoted_string_is_one_token_and_shows_the_text(text: str) -> None:
    ((kind, value),) = dot_tokens(quoted(text))
    assert kind == "string"
    shown = dot_shown(value)
    assert shown.isprintable()
    if text.isprintable():
        assert shown == text


def test_dot_of_an_empty_graph_is_a_graph() -> None:
    nodes, edges = dot_read(to_dot(Graph('a "unit"', 1.0)))
    assert (nodes, edges) == ({}, set())
