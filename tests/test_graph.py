"""Graph: matching against brute force over the list of its paths, and its JSON."""

import json
import math
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from saelens_n2g.errors import ArtefactError
from saelens_n2g.explanations.base import Explanation
from saelens_n2g.graphs.graph import IGNORE, End, Graph
from saelens_n2g.jobs.artefacts import canonical_json

TOKEN = st.integers(0, 3)
PATH = st.builds(
    lambda root, middle, last: (root, *middle, *last),
    TOKEN,
    st.lists(st.sampled_from((IGNORE, 0, 1, 2, 3)), max_size=3),
    st.lists(TOKEN, min_size=1, max_size=1),
) | st.tuples(TOKEN)
ACTIVATION = st.floats(0.0, 1.0, allow_subnormal=False)
PATHS = st.lists(st.tuples(PATH, ACTIVATION), max_size=12)
TEXT = st.lists(TOKEN, min_size=1, max_size=10)


def graph_of(paths, **kwargs) -> Graph:
    graph = Graph("unit", 3.0, **kwargs)
    for path, activation in paths:
        graph.add([(token, activation) for token in path], activation)
    return graph


def ends_of(paths) -> dict[tuple[int, ...], float]:
    """Each distinct path with the mean of its activations."""
    seen = defaultdict(list)
    for path, activation in paths:
        seen[path].append(activation)
    return {path: math.fsum(found) / len(found) for path, found in seen.items()}


def matches(path, tokens, position) -> bool:
    """A path matches if it does not reach over the start and each of its tokens is there or is a wildcard."""
    return len(path) <= position + 1 and all(t in (IGNORE, tokens[position - k]) for k, t in enumerate(path))


@given(PATHS, TEXT)
def test_all_matching_paths_are_found_and_the_longest_wins(paths, tokens):
    graph, ends = graph_of(paths), ends_of(paths)
    predicted = graph.predict(tokens)
    assert predicted.shape == (len(tokens),)
    for position in range(len(tokens)):
        true = {path for path in ends if matches(path, tokens, position)}
        found = graph.matches(tokens, position)
        assert {match.path for match in found} == true
        assert len(found) == len(true)
        assert all(match.length == len(match.path) for match in found)
        best = max(((len(p), -p.count(IGNORE), ends[p]) for p in true), default=(0, 0, 0.0))
        assert predicted[position] == pytest.approx(best[-1], abs=1e-6)


def test_a_wildcard_is_tried_beside_the_exact_token():
    graph = graph_of([((1, 2, 3), 0.25), ((1, IGNORE, 4), 0.75)])
    assert graph.predict([4, 2, 1]).tolist() == [0.0, 0.0, 0.75]  # the exact 2 is a dead end here
    assert graph.predict([3, 2, 1]).tolist() == [0.0, 0.0, 0.25]


def test_of_equal_length_the_path_with_fewer_wildcards_counts():
    graph = graph_of([((1, IGNORE, 3), 0.9), ((1, 2, 3), 0.4)])
    assert graph.predict([3, 2, 1])[-1] == np.float32(0.4)


def test_a_shorter_path_counts_where_the_longer_one_does_not_match():
    graph = graph_of([((1,), 0.5), ((1, 2), 1.0)])
    assert graph.predict([1, 1, 2, 1]).tolist() == [0.5, 0.5, 0.0, 1.0]


def test_a_graph_is_an_explanation_and_predicts_fractions():
    graph = graph_of([((1,), 0.5)])
    assert isinstance(graph, Explanation)
    graph.roots[1].end = End(1.5)
    assert graph.predict([1]).tolist() == [1.0]


@given(PATHS)
def test_nodes_and_paths_are_counted_as_a_set_of_prefixes(paths):
    graph = graph_of(paths)
    assert graph.n_paths == len({path for path, _ in paths})
    assert graph.n_nodes == len({path[: k + 1] for path, _ in paths for k in range(len(path))})
    for node, depth, parent in graph.walk():
        assert (parent is None) == (depth == 0)
        assert parent is None or parent.children[node.token] is node


@given(PATHS)
def test_json_round_trip_is_exact_to_the_byte(paths):
    graph = graph_of(paths, token_strings={0: " a", 1: "\n", 2: '"', 3: "\ufffd"}, provenance={"seed": 1, "x": [0.1]})
    text = canonical_json(graph.to_dict())
    again = Graph.from_dict(json.loads(text))
    assert again == graph
    assert canonical_json(again.to_dict()) == text


def whole() -> dict:
    return graph_of([((1, 2), 0.5), ((1, IGNORE, 3), 0.75)], token_strings={1: "a"}).to_dict()


@pytest.mark.parametrize(
    "damage",
    [
        lambda v: v.update(format="other"),
        lambda v: v.update(version=2),
        lambda v: v.pop("format"),
        lambda v: v.pop("nodes"),
        lambda v: v.pop("unit"),
        lambda v: v.pop("provenance"),
        lambda v: v.update(max_activation="much"),
        lambda v: v.update(token_strings=["a"]),
        lambda v: v.update(token_strings={"one": "a"}),
        lambda v: v.update(nodes=7),
        lambda v: v["nodes"].append([1, 0]),
        lambda v: v["nodes"].append([1, 99, 0.5, None]),
        lambda v: v["nodes"].append([1, -1, 0.5, None]),
        lambda v: v["nodes"].append([5, None, "x", None]),
        lambda v: v["nodes"].append([5, None, 0.5, [0.5]]),
        lambda v: v["nodes"].append([float("inf"), None, 0.5, None]),
        lambda v: v["nodes"].append([1, None, 0.5, None]),
    ],
)
def test_damaged_json_is_refused_in_one_line(damage):
    value = whole()
    Graph.from_dict(value)
    damage(value)
    with pytest.raises(ArtefactError, match=r"expected .* found") as caught:
        Graph.from_dict(value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [None, 3, [], "graph"])
def test_json_that_is_no_graph_is_refused(value):
    with pytest.raises(ArtefactError, match="saelens-n2g/graph"):
        Graph.from_dict(value)


def test_text_reads_forwards_strongest_first():
    graph = graph_of(
        [((1, 2), 0.5), ((1, IGNORE, 3), 0.75), ((4,), 1.0)], token_strings={1: " all", 2: "\n", 3: " not"}
    )
    assert graph.to_text().splitlines() == [
        "[<4>]  1.00  (n=1)",
        " not*[ all]  0.75  (n=1)",
        "\\n[ all]  0.50  (n=1)",
    ]
    assert Graph("unit", 1.0).to_text() == "(never fires)"


def test_a_path_as_long_as_a_window_is_no_problem():
    tokens = list(range(3000))
    graph = Graph("long", 1.0)
    graph.add([(token, 1.0) for token in reversed(tokens)], 1.0)
    assert graph.predict(tokens)[-1] == 1.0
    assert graph.to_text().endswith("<2998>[<2999>]  1.00  (n=1)")
    assert Graph.from_dict(graph.to_dict()).n_nodes == 3000


def test_a_node_met_again_keeps_its_largest_importance():
    graph = Graph("unit", 1.0)
    graph.add([(1, 0.5), (2, 0.9)], 0.5)
    graph.add([(1, 0.8), (2, 0.1)], 0.7)
    node = graph.roots[1]
    assert (node.importance, node.children[2].importance) == (0.8, 0.9)
    end = node.children[2].end
    assert (end.activation, end.support) == (pytest.approx(0.6), 2)
    assert node.end is None
