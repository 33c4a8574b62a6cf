"""Polysemanticity: the pictures of Foote et al. 2023, appendix A.1, and the definitions written out path by path."""

import time
from collections.abc import Callable, Hashable, Sequence

import networkx as nx
from hypothesis import given, settings
from hypothesis import strategies as st

from saelens_n2g.graphs import elements
from saelens_n2g.graphs.elements import START, gap
from saelens_n2g.graphs.graph import IGNORE, Graph, Node
from saelens_n2g.graphs.structure import Core, Structure, StructureSummary, structure, summarise, word_of

QUICK = settings(max_examples=80, deadline=None, derandomize=True, database=None)
STRINGS = {0: " the", 1: "The", 2: " of", 3: " in", 4: "\n", 5: " York"}
CLASSES = [(0, 1), (2, 3), (3, 5)]

Paths = Sequence[tuple[tuple[int, ...], float]]


def graph_of(paths: Paths) -> Graph:
    graph = Graph("unit", 1.0, classes=list(CLASSES), token_strings=dict(STRINGS))
    for path, activation in paths:
        graph.add([(element, 0.9) for element in path], activation)
    return graph


def phrases(*texts: Sequence[str | None], activation: float = 0.9) -> Graph:
    """A graph of phrases in reading order, the last token activating, `None` for a wildcard."""
    graph, ids = Graph("unit", 5.0), {}
    for text in texts:
        path = [IGNORE if t is None else ids.setdefault(t, len(ids)) for t in reversed(text)]
        graph.add([(token, 0.9) for token in path], activation)
    graph.token_strings = {i: t for t, i in ids.items()}
    return graph


def out(n_before: int = 12) -> Graph:
    """Figure 6: "out" with many possible tokens before it and two activating ones after it."""
    return phrases(*([f" w{i}", *[None] * (i % 3), " out", f" of{i % 2}"] for i in range(n_before)))


def test_figure_4_three_languages_are_three_subgraphs() -> None:
    dutch, swedish = [" de", " bet", "rok", "ken"], ["gers", " ber", "ättig", "ade"]
    shape = structure(phrases(dutch, [" De", *dutch[1:]], [" fun", None, " over", " the", " top"], swedish))
    assert (shape.n_subgraphs, shape.n_lone, shape.n_word_subgraphs) == (3, 0, 3)
    # All paths of the Dutch part go through " bet" and "rok", but only " bet" stands between several tokens.
    assert [core.text for core in shape.cores] == [" bet"]
    assert (shape.n_paths, shape.n_context_paths, shape.n_quiet_paths) == (4, 4, 0)
    assert (shape.n_activating, shape.n_tokens) == (3, 13)


def test_figure_6_out_is_the_core_of_one_subgraph() -> None:
    shape = structure(out())
    core = next(token for token, text in out().token_strings.items() if text == " out")
    assert shape.n_subgraphs == 1
    assert shape.cores == (Core(core, " out", n_paths=12, n_before=12, n_after=2),)


def test_a_core_never_activates_is_on_every_path_and_narrows() -> None:
    alone = out()
    alone.add([(next(t for t, s in alone.token_strings.items() if s == " out"), 0.9)], 0.9)
    assert structure(alone).cores == ()  # it activates somewhere
    around = out()
    around.add([(next(t for t, s in around.token_strings.items() if s == " of0"), 0.9)], 0.9)
    assert structure(around).cores == ()  # one path does without it
    assert structure(phrases(["a", "b", "c"])).cores == ()  # a chain has no narrow place
    elsewhere = phrases(*([f" w{i}", " out", " of"] for i in range(3)), ["x", "y"])
    assert [core.text for core in structure(elsewhere).cores] == [" out"]  # each sub-graph has its own


def test_a_core_may_stand_at_any_depth_and_twice() -> None:
    shape = structure(phrases(["a", " out", "x"], ["b", " out", "c", "x"], [" out", " out", "d", "x"]))
    assert shape.cores == (Core(1, " out", n_paths=3, n_before=3, n_after=4),)


def test_what_counts_as_connected() -> None:
    few, some, other = (elements.of_class(i) for i in range(3))
    assert structure(graph_of([((2,), 0.9), ((3,), 0.9)])).n_subgraphs == 2
    assert structure(graph_of([((some,), 0.9)])).n_subgraphs == 1
    assert structure(graph_of([((some,), 0.9), ((3,), 0.9)])).n_subgraphs == 1  # the class holds the token
    assert structure(graph_of([((some,), 0.9), ((other,), 0.9)])).n_subgraphs == 1  # they share one
    assert structure(graph_of([((some,), 0.9), ((few,), 0.9)])).n_subgraphs == 2
    assert structure(graph_of([((0, 2), 0.9), ((1, some), 0.9)])).n_subgraphs == 1
    assert structure(graph_of([((0, 2), 0.9), ((1, 4, 2), 0.9)])).n_subgraphs == 2  # at another depth
    assert structure(graph_of([((0, IGNORE, 2), 0.9), ((1, gap(3), 2), 0.9)])).n_subgraphs == 1  # depth of tokens
    assert structure(graph_of([((0, START), 0.9), ((5, START), 0.9)])).n_subgraphs == 1
    assert structure(graph_of([((0, 2), 0.9), ((5, 2), 0.1)])).n_subgraphs == 1  # where it stays quiet connects nothing
    assert structure(graph_of([((0, 2), 0.9), ((5,), 0.9), ((5, 2), 0.1)])).n_subgraphs == 2


def test_the_largest_share_is_of_examples_not_of_paths() -> None:
    often = [((0, 2), 0.9)] * 5 + [((1, 2), 0.7)] * 2
    shape = structure(graph_of([*often, ((5,), 0.9), ((4, START), 0.9), ((5, 3), 0.1), ((5, 3), 0.2)]))
    assert (shape.n_subgraphs, shape.n_paths, shape.largest_share) == (3, 4, 7 / 9)


def test_variants_of_a_word_are_one_behaviour_by_word() -> None:
    shape = structure(graph_of([((0,), 0.9), ((1,), 0.9), ((5, 4), 0.9)]))
    assert (shape.n_subgraphs, shape.n_word_subgraphs, shape.n_lone) == (3, 2, 2)
    graph = graph_of([])
    graph.token_strings |= {7: "\ufffd", 8: "\ufffd"}
    assert [word_of(graph, token) for token in (0, 1, 4, 7, 9)] == ["the", "the", "\n", "<7>", "<9>"]


def test_the_start_of_the_text_and_a_class_can_be_cores() -> None:
    start = structure(graph_of([((token, START), 0.9) for token in (0, 2, 5)]))
    assert start.cores == (Core(START, "^", n_paths=3, n_before=0, n_after=3),)
    either = structure(graph_of([((token, elements.of_class(1)), 0.9) for token in (0, 5)]))
    assert [core.text for core in either.cores] == ["{ of| in}"]
    active = structure(graph_of([((token, elements.of_class(1)), 0.9) for token in (0, 3)]))
    assert active.cores == ()  # a token of the class activates


@st.composite
def some_paths(draw: st.DrawFn) -> Paths:
    named = st.integers(0, 5) | st.sampled_from([elements.of_class(i) for i in range(3)])
    middle = st.lists(named | st.sampled_from([IGNORE, gap(1), gap(2)]), max_size=3)
    last = named | st.just(START)
    path = st.builds(lambda first: (first,), named) | st.builds(lambda f, m, e: (f, *m, e), named, middle, last)
    return draw(st.lists(st.tuples(path, st.sampled_from([0.1, 0.49, 0.5, 1.0])), max_size=7))


def paths_of(graph: Graph) -> list[tuple[list[int], bool]]:
    """Every path, wildcards and gaps left out, once for each different one of the trie, and whether it fires."""
    found, path = [], []
    for node, depth, _ in graph.walk():
        path[depth:] = [node.token]
        if node.end is not None:
            kept = [element for element in path if element != IGNORE and not elements.is_gap(element)]
            found.append((kept, node.end.activation >= 0.5))
    return found


def parts_of(graph: Graph, name: Callable[[int], Hashable]) -> list[list[list[int]]]:
    """Firing paths by sub-graph: connected where they have a token of equal name, or the start, at equal depth."""
    joined = nx.Graph()
    firing = [path for path, fired in paths_of(graph) if fired]
    for i, path in enumerate(firing):
        joined.add_node(i)
        for depth, element in enumerate(path):
            for thing in [name(token) for token in graph.members(element)] or ["start"]:
                joined.add_edge(i, (depth, thing))
    parts = ([firing[i] for i in part if isinstance(i, int)] for part in nx.connected_components(joined))
    return [part for part in parts if part]


@QUICK
@given(some_paths())
def test_structure_is_what_the_list_of_paths_says(paths: Paths) -> None:
    graph = graph_of(paths)
    shape = structure(graph)
    firing = [path for path, fired in paths_of(graph) if fired]
    parts = parts_of(graph, lambda token: token)
    words = parts_of(graph, lambda token: STRINGS[token].strip().lower() or STRINGS[token])
    assert shape.n_subgraphs == len(parts)
    assert shape.n_word_subgraphs == len(words) <= len(parts)
    assert shape.n_lone == sum(all(len(path) == 1 for path in part) for part in parts)
    assert shape.n_paths == len(firing)
    assert shape.n_quiet_paths == len(paths_of(graph)) - len(firing)
    active = {token for path in firing for token in graph.members(path[0])}
    assert shape.n_activating == len(active)
    assert shape.n_tokens == len({token for path in firing for element in path for token in graph.members(element)})
    cores = []
    for part in parts:
        for element in set.intersection(*(set(path[1:]) for path in part)):
            pairs = [(path[i - 1], e, path[i + 1 :][:1]) for path in part for i, e in enumerate(path) if i]
            after = {before for before, e, _ in pairs if e == element}
            before = {further[0] for _, e, further in pairs if e == element and further}
            if max(len(after), len(before)) > 1 and not active & set(graph.members(element)):
                cores.append((-len(part), element, len(before), len(after)))
    assert [(-c.n_paths, c.element, c.n_before, c.n_after) for c in shape.cores] == sorted(cores)


def test_context_paths_need_something_before() -> None:
    shape = structure(graph_of([((0,), 0.9), ((0, START), 0.9), ((0, IGNORE, 2), 0.9), ((0, 3), 0.2)]))
    assert (shape.n_paths, shape.n_context_paths, shape.n_quiet_paths) == (3, 2, 1)


def test_branches_without_an_end_and_foreign_roots_count_for_nothing() -> None:
    graph = graph_of([((0, 2), 0.9)])
    graph.roots[0].children[2].children[5] = Node(5, 0.9)
    graph.roots[IGNORE] = Node(IGNORE, 0.9, {3: graph_of([((3,), 0.9)]).roots[3]})
    shape = structure(graph)
    assert (shape.n_subgraphs, shape.n_paths, shape.n_tokens) == (1, 1, 2)


def test_summary_of_many_units() -> None:
    graphs = [
        graph_of([]),
        out(),
        graph_of([((0,), 0.9), ((1,), 0.9)]),
        graph_of([((2,), 0.9)]),
        graph_of([((2,), 0.1)]),
    ]
    assert summarise(structure(graph) for graph in graphs) == StructureSummary(
        n_units=5,
        n_silent=2,
        subgraphs=((1, 2), (2, 1)),
        words=((1, 3),),
        share_monosemantic=2 / 3,
        share_monosemantic_words=1.0,
        share_with_core=1 / 3,
        mean_largest_share=2.5 / 3,
        mean_subgraphs=4 / 3,
        median_subgraphs=1.0,
    )
    nothing = summarise([])
    assert (nothing.n_units, nothing.subgraphs, nothing.share_monosemantic, nothing.median_subgraphs) == (
        0,
        (),
        None,
        None,
    )
    assert structure(graph_of([])) == Structure("unit", 0, 0, 0, None, (), 0, 0, 0, 0, 0)


def test_time_grows_with_the_graph() -> None:
    """A path of 6,000 nodes and 1,500 roots with a context of one: what grows with the square would take minutes."""
    graph = Graph("unit", 1.0)
    graph.add([(i % 1000, 0.9) for i in range(6000)], 0.9)
    for i in range(1500):
        graph.add([(1000 + i, 0.9), (7, 0.9)], 0.9)
    before = time.process_time()
    shape = structure(graph)
    assert time.process_time() - before < 5.0
    assert (shape.n_subgraphs, shape.n_paths) == (2, 1501)
