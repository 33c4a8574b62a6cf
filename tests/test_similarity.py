"""Similarity and search: against the definition written out pair by pair."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saelens_n2g.errors import InputError
from saelens_n2g.graphs import elements, similarity
from saelens_n2g.graphs.graph import IGNORE, Graph
from saelens_n2g.graphs.similarity import RANKS, WHOLE, Posting, Role, TokenIndex, neighbours, words_of

QUICK = settings(max_examples=40, deadline=None, derandomize=True, database=None)
STRINGS = {0: " the", 1: "The", 2: " of", 3: " in", 4: "\n", 5: " ", 6: " York", 7: "\ufffd", 8: "a\ufffd", 9: " ÄRA "}
CLASSES = [(0, 1), (2, 3, 6), (0, 2, 3, 4, 5, 6)]

Paths = Sequence[tuple[tuple[int, ...], float]]


def graph_of(paths: Paths, unit: str = "unit") -> Graph:
    graph = Graph(unit, 1.0, classes=list(CLASSES), token_strings=dict(STRINGS))
    for path, activation in paths:
        graph.add([(e, activation if i == 0 else (1 + e % 7) / 8) for i, e in enumerate(path)], activation)
    return graph


@st.composite
def some_paths(draw: st.DrawFn) -> Paths:
    named = st.integers(0, 9) | st.sampled_from([elements.of_class(i) for i in range(3)])
    middle = st.lists(named | st.sampled_from([IGNORE, elements.gap(2)]), max_size=3)
    last = st.lists(named | st.just(elements.START), min_size=1, max_size=1)
    path = st.builds(lambda first: (first,), named) | st.builds(
        lambda first, m, end: (first, *m, *end), named, middle, last
    )
    return draw(st.lists(st.tuples(path, st.sampled_from([0.0, 0.3, 0.5, 0.75, 1.0])), max_size=5))


SOME_GRAPHS = st.lists(some_paths(), min_size=1, max_size=12)


def nodes_of(graph: Graph) -> dict[tuple[int, str], float]:
    """The largest weight of each word in each role, from the list of the paths that fire."""
    out: dict[tuple[int, str], float] = {}
    path: list[int] = []
    for node, depth, _ in graph.walk():
        path[depth:] = [node.token]
        if node.end is None or node.end.activation < 0.5:
            continue
        for place, element in enumerate(path):
            words = set()
            for token in graph.members(element):
                text = STRINGS[token]
                words.add(f"<{token}>" if "\ufffd" in text else text.strip().lower() if text.strip() else text)
            for word in words:
                key = (int(place > 0), word)
                out[key] = max(out.get(key, 0), round(WHOLE / len(words)))
    return out


def share(one: dict[tuple[int, str], float], other: dict[tuple[int, str], float]) -> float:
    """Share of the nodes of `one` that `other` has."""
    return sum(w for key, w in one.items() if key in other) / sum(one.values()) if one else 0.0


@QUICK
@given(SOME_GRAPHS, st.integers(1, 14), st.sampled_from([1, 7, 10**6]), st.sampled_from([0.0, 0.4, 2.0]))
def test_neighbours_are_those_of_the_definition(lists: list[Paths], k: int, block: int, common: float) -> None:
    graphs = [graph_of(paths, f"u{i}") for i, paths in enumerate(lists)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(similarity, "BLOCK", block)
        patch.setattr(similarity, "COMMON_SHARE", common)
        found = neighbours(TokenIndex.of(graphs), k)
    named = [nodes_of(graph) for graph in graphs]
    assert found.graphs.shape == (len(graphs), min(k, max(len(graphs) - 1, 1)))
    for i, own in enumerate(named):
        pairs = [(share(own, other), share(other, own), j) for j, other in enumerate(named) if j != i]
        pairs = [pair for pair in pairs if max(pair[:2]) > 0]
        pairs.sort(key=lambda p: (-int(max(p[:2]) * RANKS), -int(min(p[:2]) * RANKS), p[2]))
        pairs = pairs[:k]
        rest = found.graphs.shape[1] - len(pairs)
        assert found.graphs[i].tolist() == [j for *_, j in pairs] + [-1] * rest
        assert found.own[i].tolist() == [a for a, *_ in pairs] + [0.0] * rest
        assert found.other[i].tolist() == [b for _, b, _ in pairs] + [0.0] * rest
        assert found.similarity[i].tolist() == [max(p[:2]) for p in pairs] + [0.0] * rest


def test_two_way_maximum_of_token_graphs_by_hand() -> None:
    small = graph_of([((2,), 0.9), ((6, 3), 0.9)])  # activating of, york; important in
    large = graph_of([((2,), 0.9), ((3,), 0.9), ((6, 0), 0.9), ((6, 4), 0.9)])  # of, in, york; the, newline
    found = neighbours(TokenIndex.of([small, large]), 5)
    assert found.graphs.tolist() == [[1], [0]]
    assert found.own.tolist() == [[2 / 3], [2 / 5]]  # "in" is important here and activating there: not shared
    assert found.similarity.tolist() == [[2 / 3], [2 / 3]]


def test_a_class_is_one_node_and_variants_are_one_word() -> None:
    assert words_of(graph_of([((elements.of_class(0),), 0.9)])) == {(Role.ACTIVATING, "the"): (WHOLE, 0.9)}
    third = round(WHOLE / 3)
    prepositions = graph_of([((elements.of_class(1),), 0.9), ((2,), 0.7)])
    assert {word: weight for (_, word), (weight, _) in words_of(prepositions).items()} == {
        "of": WHOLE, "in": third, "york": third,
    }  # fmt: skip
    found = neighbours(TokenIndex.of([graph_of([((elements.of_class(1),), 0.9)]), graph_of([((3,), 0.9)])]))
    assert found.own[:, 0] == pytest.approx([1 / 3, 1.0], abs=1e-4)


def test_staying_quiet_activates_nothing() -> None:
    exception = graph_of([((2,), 0.9), ((2, 6), 0.1), ((3,), 0.4)])
    assert set(words_of(exception)) == {(Role.ACTIVATING, "of")}
    assert words_of(graph_of([((2,), 0.1)])) == {}


def test_of_equal_neighbours_the_closer_one_then_the_first_stands_first() -> None:
    one = [((2,), 0.9)]
    graphs = [graph_of(p) for p in (one, [*one, ((3,), 0.9)], [*one, ((6,), 0.9)], one, [((4,), 0.9)])]
    found = neighbours(TokenIndex.of(graphs), 4)
    assert found.graphs.tolist() == [[3, 1, 2, -1], [0, 3, 2, -1], [0, 3, 1, -1], [0, 1, 2, -1], [-1] * 4]
    assert found.other[0].tolist() == [1.0, 0.5, 0.5, 0.0]


def test_no_graphs_one_graph_and_a_wrong_k() -> None:
    assert neighbours(TokenIndex.of([])).graphs.shape == (0, 1)
    assert TokenIndex.of([]).find("the") == []
    assert neighbours(TokenIndex.of([graph_of([])])).graphs.tolist() == [[-1]]
    with pytest.raises(InputError, match="k: expected at least 1, found 0"):
        neighbours(TokenIndex.of([]), 0)


@QUICK
@given(SOME_GRAPHS)
def test_rows_are_what_the_graphs_name_in_order(lists: list[Paths]) -> None:
    graphs = [graph_of(paths, f"u{i}") for i, paths in enumerate(lists)]
    index = TokenIndex.of(iter(graphs))
    rows = list(index.rows())
    assert {(r.graph, (int(r.role), r.word)) for r in rows} == {
        (i, n) for i, g in enumerate(graphs) for n in nodes_of(g)
    }
    assert len(set(rows)) == len(rows) == len(index.word)
    assert rows == sorted(rows, key=lambda r: (r.word, r.role, -r.strength, r.graph))
    assert index.units == tuple(graph.unit for graph in graphs)
    for word in index.words:
        for role in (None, *Role):
            found = index.find(word, role)
            assert {p.graph for p in found} == {r.graph for r in rows if r.word == word and role in (None, r.role)}
            assert [p.strength for p in found] == sorted((p.strength for p in found), reverse=True)


def test_search_takes_any_form_of_a_word_and_the_stronger_role() -> None:
    index = TokenIndex.of([graph_of([((1,), 0.6)]), graph_of([((0,), 0.7), ((2, 0), 0.9)]), graph_of([((4,), 1.0)])])
    needed = (1 + 0) / 8
    for text in ("the", "The", " the "):
        assert index.find(text) == [Posting("the", Role.ACTIVATING, 1, 0.7), Posting("the", Role.ACTIVATING, 0, 0.6)]
        assert index.find(text, Role.IMPORTANT) == [Posting("the", Role.IMPORTANT, 1, needed)]
    assert index.find("\n") == [Posting("\n", Role.ACTIVATING, 2, 1.0)]
    assert index.find("nothing") == index.find("") == []


def test_the_same_graphs_give_the_same_bytes_whatever_the_blocks() -> None:
    rng = np.random.default_rng(0)
    graphs = [
        graph_of(
            [((int(t),), 0.9) for t in rng.integers(0, 10, 4)] + [((2, elements.of_class(int(rng.integers(3)))), 0.9)]
        )
        for _ in range(150)
    ]
    index = TokenIndex.of(graphs)
    results = []
    for block, common in ((1, 0.0), (10**6, 0.5), (997, 2.0)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(similarity, "BLOCK", block)
            patch.setattr(similarity, "COMMON_SHARE", common)
            results.append([part.tobytes() for part in neighbours(index, 20)])
    assert results[0] == results[1] == results[2]
