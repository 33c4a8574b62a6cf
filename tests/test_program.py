"""Program: many graphs at once against the graphs themselves one place at a time, and how much work it does."""

import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_graph import PATHS, TEXT, graph_of

from saelens_n2g.errors import InputError
from saelens_n2g.graphs import program_run
from saelens_n2g.graphs.elements import IGNORE, START, gap, of_class
from saelens_n2g.graphs.graph import Graph
from saelens_n2g.graphs.program import POSITIONS, Program
from saelens_n2g.graphs.program_run import Keys

GRAPHS = st.lists(PATHS, max_size=4)
"""The paths of each graph."""
ROWS = st.integers(1, 8).flatmap(
    lambda w: st.lists(
        st.lists(st.tuples(st.integers(-1, 4), st.booleans()), min_size=w, max_size=w), min_size=1, max_size=4
    )
)
"""Rows of (token, counted)."""


def stretches(counted):
    """Ranges of consecutive counted positions, first to last."""
    found, start = [], None
    for position, there in enumerate([*counted, False]):
        if there and start is None:
            start = position
        elif not there and start is not None:
            found.append(range(start, position))
            start = None
    return found


def one_by_one(graphs, rows):
    """(row, position, graph) -> activation of the match that counts, from `Graph.matches`."""
    out = {}
    for number, row in enumerate(rows):
        for k, stretch in enumerate(stretches([counted for _, counted in row])):
            tokens = [row[i][0] for i in stretch]
            for position in stretch:
                for index, graph in enumerate(graphs):
                    found = graph.matches(tokens, position - stretch.start)
                    if k:  # only the first stretch begins the text
                        found = [match for match in found if match.path[-1] != START]
                    if found:
                        out[number, position, index] = np.float32(min(max(found[-1].activation, 0.0), 1.0))
    return out


def as_dict(found):
    keys = list(zip(found.row.tolist(), found.position.tolist(), found.graph.tolist(), strict=True))
    assert keys == sorted(set(keys))
    return dict(zip(keys, found.activation, strict=True))


@given(GRAPHS, ROWS)
def test_it_predicts_what_the_graphs_predict_one_by_one(cases, rows):
    graphs = [graph_of(paths) for paths in cases]
    tokens = np.array([[token for token, _ in row] for row in rows], dtype=np.int64).reshape(len(rows), -1)
    mask = np.array([[counted for _, counted in row] for row in rows], dtype=bool).reshape(len(rows), -1)
    program = Program.compile(graphs)
    program.tables.check()
    assert program.n_graphs == len(graphs)
    expected = one_by_one(graphs, rows)
    found = program.predict_text(tokens, mask)
    assert as_dict(found) == expected
    for index, graph in enumerate(graphs):
        dense = graph.predict_text(tokens, mask)
        assert dense.tolist() == found.dense(index, tokens.shape).tolist()
        assert all(dense[r, p] == expected.get((r, p, index), 0) for r, p in np.ndindex(*tokens.shape))


@given(GRAPHS, TEXT)
def test_every_match_of_every_graph_is_found_with_its_path(cases, tokens):
    graphs = [graph_of(paths) for paths in cases]
    program = Program.compile(graphs)
    expected = [
        (index, position, match)
        for position in range(len(tokens))
        for index, graph in enumerate(graphs)
        for match in graph.matches(tokens, position)
    ]
    found = program.matches(tokens)
    assert found == expected
    for one in found:
        assert program.places(tokens, one) == graphs[one.graph].places(tokens, one.position, one.match)
    some = program.matches(tokens, graphs={0, 2}, positions=[0, 3])
    assert some == [one for one in expected if one[0] in (0, 2) and one[1] in (0, 3)]
    last = {(0, position, index): match.activation for index, position, match in expected}
    assert as_dict(program.predict(tokens)) == {k: np.float32(a) for k, a in last.items()}


@given(GRAPHS, TEXT, st.sampled_from([1, 4, POSITIONS]))
def test_what_counts_has_a_path(cases, tokens, step):
    graphs = [graph_of(paths) for paths in cases]
    program = Program.compile(graphs)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Program, "_positions", lambda _: step)
        counting = program.count(tokens)
    predictions = program.predict(tokens)
    for mine, theirs in (("graph", "graph"), ("position", "position"), ("activation", "activation")):
        assert getattr(counting, mine).tolist() == getattr(predictions, theirs).tolist()
    for row in range(len(counting.graph)):
        found = program.found(counting, row)
        assert (found.graph, found.position) == (counting.graph[row], counting.position[row])
        matches = graphs[found.graph].matches(tokens, found.position)
        assert found.match in matches
        assert found.match.rank == matches[-1].rank
        assert found.match.length == counting.length[row]


@given(GRAPHS, TEXT)
def test_small_steps_change_nothing(cases, tokens):
    program, text = Program.compile([graph_of(paths) for paths in cases]), np.array([tokens] * 3)
    whole = program.predict_text(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(program_run, "STATES", 2)
        patch.setattr(Program, "_positions", lambda _: 4)
        parts = list(program.predict_parts(text))
        again = program.predict_text(text)
    assert len(parts) >= len(tokens) * 3 / max(4, len(tokens))
    assert as_dict(again) == as_dict(whole)


def test_nothing_gives_nothing():
    none = np.zeros((0, 5), dtype=np.int64)
    for graphs in ([], [Graph("empty", 1.0)], [graph_of([((1,), 1.0)])]):
        program = Program.compile(graphs)
        for found in (program.predict([]), program.predict([0, 3]), program.predict_text(none)):
            assert as_dict(found) == {}
        assert program.matches([]) == program.matches([3]) == []
    assert Graph("empty", 1.0).predict([1, 2]).tolist() == [0, 0]
    assert Graph("empty", 1.0).predict([]).shape == (0,)


def test_nothing_counted_gives_nothing():
    program = Program.compile([graph_of([((1,), 1.0), ((1, START), 1.0)])])
    assert as_dict(program.predict_text(np.ones((2, 3), dtype=np.int64), np.zeros((2, 3), dtype=bool))) == {}


def test_a_mask_of_another_shape_is_refused():
    program = Program.compile([graph_of([((1,), 1.0)])])
    with pytest.raises(InputError, match=r"mask of a text: expected shape \(2, 3\)"):
        program.predict_text(np.ones((2, 3), dtype=np.int64), np.ones((3, 2), dtype=bool))


def test_activations_are_fractions():
    graphs = [graph_of([((1,), 1.5)]), graph_of([((1,), -0.5)])]
    assert Program.compile(graphs).predict([1]).activation.tolist() == [1.0, 0.0]
    assert [one.match.activation for one in Program.compile(graphs).matches([1])] == [1.5, -0.5]


def test_a_class_that_a_graph_has_twice_stays_two():
    graph = Graph("twice", 1.0, classes=[(1, 2), (1, 2)])
    graph.add([(of_class(1), 1.0)], 0.5)
    graph.add([(of_class(0), 1.0)], 0.25)
    found = Program.compile([graph]).matches([2])
    assert [one.match.path for one in found] == [(of_class(0),), (of_class(1),)]
    assert graph.predict([2]).tolist() == [0.5]


def test_graphs_share_nodes_and_classes():
    graphs = [Graph(str(i), 1.0, classes=[(7, 8 + i % 2)]) for i in range(50)]
    for graph in graphs:
        graph.add([(1, 1.0), (2, 1.0), (of_class(0), 1.0)], 0.5)
    tables = Program.compile(graphs).tables
    assert (tables.n_nodes, len(tables.class_first) - 1, len(tables.held_node)) == (4, 2, 150)


@given(st.lists(st.integers(0, 2**50), unique=True, min_size=1), st.lists(st.integers(0, 2**50)))
def test_numbers_are_looked_up(values, wanted):
    values = sorted(values)
    wanted = wanted + values[::2]
    hit, place = Keys.of(np.array(values)).find(np.array(wanted))
    assert hit.tolist() == [i for i, number in enumerate(wanted) if number in values]
    assert [values[i] for i in place.tolist()] == [wanted[i] for i in hit.tolist()]


# --- bounds -----------------------------------------------------------------------------------------------------


def test_gaps_behind_gaps_do_not_multiply():
    """Ten gaps of 20 tokens have 21 ** 10 ways over one text; merged there are at most 201 states each."""
    path = [1, *[gap(20), IGNORE] * 10, 2]
    graph = graph_of([(tuple(path), 1.0)])
    tokens = [2, *[0] * 230, 1, 0, 1]
    expected = [0.0] * len(tokens)
    for position in (231, 233):
        expected[position] = float(11 <= position <= 211)
    start = time.process_time()
    assert graph.predict(tokens).tolist() == expected
    assert graph.predict([2, *[0] * 150, 1])[-1] == 1.0
    assert len(graph.matches([2, *[0] * 150, 1], 151)) == 1
    assert time.process_time() - start < 2.0


def test_a_position_whose_token_starts_no_path_costs_nothing():
    program = Program.compile([graph_of([((1, IGNORE, 2), 1.0)])])
    text = program.trie.text(np.array([[0, 2, 0, 1, 0, 3]]), None)
    states = program.trie._roots(text, 0, 6)
    assert states.position.tolist() == [3]


def test_a_long_text_needs_no_more_memory_than_its_parts():
    rng = np.random.default_rng(0)
    paths = [((1,), 1.0), ((2, IGNORE, 3), 0.5), ((of_class(0), gap(4), of_class(2)), 0.75), ((0, gap(2), START), 0.5)]
    graphs = [graph_of(paths)] * 40
    program = Program.compile(graphs)
    peaks = []
    for times in (4, 32):
        text = rng.integers(0, 5, size=(1, times * POSITIONS // 4))
        program.predict([1])
        tracemalloc.start()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Program, "_positions", lambda _: POSITIONS // 4)
            matched = sum(len(part.graph) for part in program.predict_parts(text))
        peaks.append(tracemalloc.get_traced_memory()[1] - 5 * text.nbytes)  # the text as it is run is whole
        tracemalloc.stop()
        assert matched > 40 * text.size / 4
    assert peaks[1] < 1.2 * peaks[0]


def test_a_path_over_4000_tokens_and_a_class_of_50000():
    long = Graph("long", 1.0)
    long.add([(token, 1.0) for token in reversed(range(4000))], 1.0)
    wide = Graph("wide", 1.0)
    wide.add([(wide.add_class(range(50_000)), 1.0)], 0.5)
    found = Program.compile([long, wide]).predict([*range(4000)])
    assert found.graph.tolist().count(1) == 4000
    assert [(g, p) for g, p in zip(found.graph.tolist(), found.position.tolist(), strict=True) if g == 0] == [(0, 3999)]
