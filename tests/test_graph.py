"""Graph: matching against regular expressions, one for each path, and its JSON."""

import json
import math
import re
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from saelens_n2g.errors import ArtefactError, InputError
from saelens_n2g.explanations.base import Explanation
from saelens_n2g.graphs.elements import START, gap, of_class
from saelens_n2g.graphs.elements import string as element_string
from saelens_n2g.graphs.graph import IGNORE, End, Graph, Match
from saelens_n2g.jobs.artefacts import canonical_json

CLASSES = [(0, 1), (2,), (1, 3)]
"""Of every graph here."""
TOKEN = st.integers(0, 3)
NAMED = TOKEN | st.integers(0, len(CLASSES) - 1).map(of_class)
OPEN = st.sampled_from((IGNORE, gap(1), gap(2), gap(4)))
PATH = st.tuples(NAMED) | st.builds(
    lambda root, middle, last: (root, *middle, last), NAMED, st.lists(NAMED | OPEN, max_size=4), NAMED | st.just(START)
)
ACTIVATION = st.floats(0.0, 1.0, allow_subnormal=False)
PATHS = st.lists(st.tuples(PATH, ACTIVATION), max_size=12)
TEXT = st.lists(st.integers(0, 4), min_size=1, max_size=10)
"""Token 4 is in no graph."""


def graph_of(paths, **kwargs) -> Graph:
    graph = Graph("unit", 3.0, classes=[*CLASSES], **kwargs)
    for path, activation in paths:
        graph.add([(token, activation) for token in path], activation)
    return graph


def ends_of(paths) -> dict[tuple[int, ...], float]:
    """Each distinct path with the mean of its activations."""
    seen = defaultdict(list)
    for path, activation in paths:
        seen[path].append(activation)
    return {path: math.fsum(found) / len(found) for path, found in seen.items()}


def pattern(path) -> str:
    """The path as a regular expression over texts in which token t is the letter chr(t + 97)."""

    def one(element):
        if element >= 0:
            return chr(97 + element)
        if element <= of_class(0):
            return "[" + "".join(chr(97 + token) for token in CLASSES[of_class(0) - element]) + "]"
        return {IGNORE: ".", START: ""}.get(element, f".{{0,{-10 - element}}}")

    return "".join(map(one, reversed(path)))


def lengths(path, tokens, position) -> set[int]:
    """The lengths at which a path matches backwards from a position."""
    text = "".join(chr(97 + token) for token in tokens)[: position + 1]
    whole = position + 1
    tried = [whole] if path[-1] == START else range(1, whole + 1)
    return {n for n in tried if re.fullmatch(pattern(path), text[whole - n :])}


def expected(ends, tokens, position) -> list[tuple[int, tuple[int, ...]]]:
    """All matches as (length, path), the one that counts last."""

    def rank(match):
        length, path = match
        opens = sum(-1000 < element < 0 and element != START for element in path)
        return length, path[-1] == START, sum(element >= 0 for element in path), -opens, ends[path], path

    return sorted(((n, path) for path in ends for n in lengths(path, tokens, position)), key=rank)


@given(PATHS, TEXT)
def test_all_matching_paths_are_found_and_the_one_that_reaches_furthest_counts(paths, tokens):
    graph, ends = graph_of(paths), ends_of(paths)
    predicted = graph.predict(tokens)
    assert predicted.shape == (len(tokens),)
    for position in range(len(tokens)):
        true = expected(ends, tokens, position)
        found = graph.matches(tokens, position)
        assert [(match.length, match.path) for match in found] == true
        assert [match.activation for match in found] == [pytest.approx(ends[path]) for _, path in true]
        assert predicted[position] == pytest.approx(ends[true[-1][1]] if true else 0.0, abs=1e-6)


@given(PATHS, TEXT)
def test_a_match_says_where_its_elements_stand(paths, tokens):
    graph = graph_of(paths)
    for position in range(len(tokens)):
        for match in graph.matches(tokens, position):
            places = graph.places(tokens, position, match)
            assert [i for place in places for i in reversed(place)] == list(
                range(position, position - match.length, -1)
            )
            for element, place in zip(match.path, places, strict=True):
                if element == START:
                    assert len(place) == 0
                elif -1000 < element < -10:
                    assert len(place) <= -10 - element
                else:
                    assert len(place) == 1
                    assert element == IGNORE or tokens[place[0]] in graph.members(element)


def test_a_match_that_is_none_stands_nowhere():
    with pytest.raises(ValueError, match="no match"):
        graph_of([]).places([1, 2, 3], 2, Match(3, 1.0, (3, 1)))


def test_a_gap_holds_none_or_some_tokens_and_reaches_the_start():
    graph = graph_of([((1, gap(2), 2), 1.0), ((3, gap(2), START), 0.5)])
    assert graph.predict([2, 1]).tolist() == [0, 1]
    assert graph.predict([2, 0, 0, 1]).tolist() == [0, 0, 0, 1]
    assert graph.predict([2, 0, 0, 0, 1]).tolist() == [0, 0, 0, 0, 0]
    assert graph.predict([3, 3, 3, 3]).tolist() == [0.5, 0.5, 0.5, 0]


def test_a_quiet_path_overrules_a_shorter_one():
    graph = graph_of([((1,), 0.75), ((1, of_class(0)), 0.25)])
    assert graph.predict([3, 1, 0, 1]).tolist() == [0, 0.75, 0, 0.25]


def test_the_start_counts_before_an_exact_token_and_that_before_a_class():
    exact, member, tied = ((1, 3), 0.2), ((1, of_class(2)), 0.4), ((1, of_class(2), START), 0.6)
    assert graph_of([exact, member]).predict([3, 1])[1] == np.float32(0.2)
    assert graph_of([exact, member, tied]).predict([3, 1])[1] == np.float32(0.6)
    assert graph_of([exact, member, tied]).predict([0, 3, 1])[2] == np.float32(0.2)


@pytest.mark.parametrize(
    "path",
    [
        (),
        (IGNORE,),
        (START,),
        (gap(1), 1),
        (1, IGNORE),
        (1, gap(3)),
        (1, START, 2),
        (1, of_class(3)),
        (-3,),
        (1, -10, 2),
    ],
)
def test_a_path_that_says_nothing_is_refused(path):
    graph = graph_of([])
    with pytest.raises(ValueError, match="path"):
        graph.add([(element, 1.0) for element in path], 1.0)
    assert graph.n_nodes == 0


def test_a_gap_has_a_width():
    for width in (0, 990):
        with pytest.raises(ValueError, match="1 to 989"):
            gap(width)
    assert graph_of([((1, gap(989), 2), 1.0)]).predict([2] + [0] * 989 + [1, 1]).tolist()[-2:] == [1, 0]


def test_equal_classes_are_one():
    graph = Graph("unit", 1.0)
    assert graph.add_class([3, 1, 1]) == graph.add_class((1, 3)) == of_class(0)
    assert graph.add_class([5]) == of_class(1)
    assert graph.classes == [(1, 3), (5,)]
    for wrong in ([], [-1, 2]):
        with pytest.raises(ValueError, match="token ids"):
            graph.add_class(wrong)


def test_matches_looks_up_tokens_and_does_not_walk_a_large_level():
    class Counted(dict):
        steps = 0

        def __iter__(self):
            for key in super().__iter__():
                Counted.steps += 1
                yield key

    graph = graph_of([((token,), 1.0) for token in range(10, 3_000)] + [((of_class(0),), 0.5), ((1, gap(7), 2), 0.25)])
    graph.roots = Counted(graph.roots)
    assert [match.path for match in graph.matches([5, 2_999], 1)] == [(2_999,)]
    assert [match.path for match in graph.matches([2, 1], 1)] == [(of_class(0),), (1, gap(7), 2)]
    assert Counted.steps < 20  # the run-time check of types looks at an entry now and then


def test_a_changed_graph_predicts_anew():
    graph = graph_of([((1,), 0.5)])
    assert graph.predict([1, 2]).tolist() == [0.5, 0]
    assert graph.program() is graph.program()
    graph.add([(2, 1.0)], 1.0)
    assert graph.predict([1, 2]).tolist() == [0.5, 1]
    graph.roots[1].end = End(0.25)
    assert graph.predict([1, 2]).tolist() == [0.25, 1]
    del graph.roots[2]
    assert graph.predict([1, 2]).tolist() == [0.25, 0]
    graph.add([(of_class(1), 1.0)], 0.75)
    assert graph.predict([1, 2]).tolist() == [0.25, 0.75]
    graph.classes[1] = (1, 2)
    assert graph.predict([1, 2]).tolist() == [0.25, 0.75]
    graph.classes[1] = (0,)
    assert graph.predict([1, 2, 0]).tolist() == [0.25, 0, 0.75]


def test_rows_are_texts_of_their_own_and_begin_at_the_first_counted_position():
    graph = graph_of([((1, START), 1.0), ((1, 1), 0.5), ((2, IGNORE, 1), 0.75)])
    tokens = np.array([[9, 1, 1, 2], [9, 9, 1, 0], [1, 1, 2, 2]])
    mask = np.array([[0, 1, 1, 1], [0, 0, 1, 1], [1, 0, 1, 0]], dtype=bool)
    assert graph.predict_text(tokens, mask).tolist() == [[0, 1, 0.5, 0.75], [0, 0, 1, 0], [1, 0, 0, 0]]
    with pytest.raises(InputError, match="shape"):
        graph.predict_text(tokens, mask[:, :3])


def test_a_token_that_no_model_has_matches_wildcards_only():
    graph = graph_of([((1, IGNORE, 2), 1.0), ((1, 2), 0.5), ((1, of_class(0)), 0.25)])
    assert graph.predict([2, -1, 1]).tolist() == [0, 0, 1]
    assert graph.predict([-1, 1, -1000, 1]).tolist() == [0, 0, 0, 0]
    assert [match.path for match in graph.matches([2, -1, 1], 2)] == [(1, IGNORE, 2)]
    assert graph.matches([-1, 1, -1000, 1], 3) == []


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
        lambda v: v.update(version=3),
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
        lambda v: v["nodes"].append([5, None, float("nan"), [0.5, 1, 0]]),
        lambda v: v["nodes"].append([5, None, 0.5, [float("nan"), 1, 0]]),
        lambda v: v["nodes"].append([5, None, 0.5, [0.5, 1]]),
        lambda v: v["nodes"].append([5, None, 0.5, [0.5, 1, -1]]),
        lambda v: v["nodes"].append([-1, None, 0.5, None]),
        lambda v: v["nodes"].append([-2, None, 0.5, [0.5, 1, 0]]),
        lambda v: v["nodes"].append([-5, 0, 0.5, [0.5, 1, 0]]),
        lambda v: v["nodes"].append([-1003, 0, 0.5, [0.5, 1, 0]]),
        lambda v: v["nodes"].append([-12, 0, 0.5, [0.5, 1, 0]]),
        lambda v: v["nodes"].extend([[-2, 0, 0.5, [0.5, 1, 0]], [3, 4, 0.5, [0.5, 1, 0]]]),
        lambda v: v["classes"].append([]),
        lambda v: v["classes"].append([2, 2]),
        lambda v: v["classes"].append([-1, 2]),
        lambda v: v.update(unit=7),
        lambda v: v.update(max_activation=float("inf")),
        lambda v: v.update(provenance="mine"),
    ],
)
def test_damaged_json_is_refused_in_one_line(damage):
    value = whole()
    assert len(value["nodes"]) == 4
    Graph.from_dict(value)
    damage(value)
    with pytest.raises(ArtefactError, match=r"expected .* found") as caught:
        Graph.from_dict(value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [None, 3, [], "graph"])
def test_json_that_is_no_graph_is_refused(value):
    with pytest.raises(ArtefactError, match="saelens-n2g/graph"):
        Graph.from_dict(value)


def test_version_1_is_read():
    value = whole()
    del value["classes"]
    value["version"] = 1
    for node in value["nodes"]:
        if node[3] is not None:
            del node[3][2]
    old = Graph.from_dict(value)
    assert old.roots == graph_of([((1, 2), 0.5), ((1, IGNORE, 3), 0.75)]).roots
    value["nodes"][-1][3] = [0.5, 1, 0]
    with pytest.raises(ArtefactError, match="an end"):
        Graph.from_dict(value)


def test_every_element_has_a_text():
    strings = {0: "a", 1: "\n"}
    shown = [element_string(e, [(0, 1), (0, 1, 2, 3, 4, 5)], strings) for e in (0, 7, IGNORE, START, gap(3))]
    assert shown == ["a", "<7>", "*", "^", "(..3)"]
    assert element_string(of_class(0), [(0, 1)], strings) == "{a|\n}"
    assert element_string(of_class(1), [(0,), (0, 1, 2, 3, 4, 5)], strings) == "{a|\n|<2>|<3>|+2}"
    graph = graph_of([((1, of_class(0), START), 0.5)], token_strings=strings)
    graph.roots[1].children[of_class(0)].children[START].end = End(0.5, 3, 4)
    assert graph.to_text() == "^{a|\\n}[\\n]  0.50  (n=3 of 4)"


def test_tokens_of_classes_are_named_if_the_trie_has_the_class():
    graph = graph_of([((1, of_class(0), IGNORE, START), 0.5)])
    assert graph.named_tokens() == {0, 1}
    graph.name_tokens(str)
    assert graph.token_strings == {0: "0", 1: "1"}


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


def test_a_text_has_no_characters_that_a_terminal_obeys():
    strings = {1: "\x1b[2Ja", 2: "\u202eb\r\t", 3: "\xa0 \u2028é�"}
    graph = graph_of([((1, 2, 3), 0.5)], token_strings=strings)
    assert graph.to_text() == "\\xa0 \\u2028é�\\u202eb\\r\\t[\\x1b[2Ja]  0.50  (n=1)"


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
