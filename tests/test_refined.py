"""The method `refined`: planted patterns come back as they were planted, and weighing is what it says."""

import json
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from fakes import (
    BASIS,
    BOS,
    FILLERS,
    MASK,
    PAD,
    UNIT,
    UNITS,
    VOCABULARY,
    A,
    B,
    C,
    D,
    E,
    FakeSubject,
    G,
    H,
    context,
    exemplar,
    run,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from saelens_n2g.bases.neurons import NeuronBasis
from saelens_n2g.errors import InputError, UnitError
from saelens_n2g.graphs.elements import IGNORE, START, gap
from saelens_n2g.graphs.evidence import EDGE, Evidence, FitText
from saelens_n2g.graphs.graph import Graph
from saelens_n2g.graphs.methods import find_method
from saelens_n2g.graphs.oracle import Oracle
from saelens_n2g.graphs.program_file import load_graphs, save_graphs
from saelens_n2g.graphs.refined import RefinedOptions, fit_refined
from saelens_n2g.graphs.vocabulary import Neighbours, alone
from saelens_n2g.graphs.weighing import Weighing, Weights
from saelens_n2g.scoring import evaluate

LETTERS = (A, B, C, D, E, G, H, *FILLERS[:6])
SPECIAL = (BOS, PAD, MASK)


def near(tokens: Sequence[int], n: int) -> list[list[int]]:
    """Every other token is a neighbour: nothing is kept from being tried."""
    ordinary = [token for token in range(len(VOCABULARY)) if token not in SPECIAL]
    return [[other for other in ordinary if other != token][:n] for token in tokens]


def rows_of(seed: int, n: int = 120, width: int = 14) -> np.ndarray:
    return np.random.default_rng(seed).choice(LETTERS, size=(n, width))


def text_evidence(unit: str, rows: np.ndarray, subject: FakeSubject | None = None) -> Evidence:
    subject = subject or FakeSubject()
    activations = np.stack([subject.direct(unit, row.tolist()) for row in rows])
    text = FitText(rows, np.ones(rows.shape, dtype=np.bool_))
    return Evidence(float(activations.max()), [], text, activations)


def fitted(unit: str, evidence: Evidence, subject: FakeSubject | None = None, neighbours=near, **options) -> Graph:
    known = replace(context(), neighbours=neighbours)
    return run(fit_refined(unit, evidence, known, RefinedOptions(**options)), unit, subject)


def paths(graph: Graph) -> set[tuple[tuple[int, ...], bool]]:
    """Every path, with classes written out as their members, and whether it fires."""
    found, path = set(), list[int]()
    for node, depth, _ in graph.walk():
        path[depth:] = [node.token]
        if node.end is not None:
            spelled = [()]
            for element in path:
                spelled = [(*start, one) for start in spelled for one in (graph.members(element) or (element,))]
            found |= {(p, node.end.activation >= 0.5) for p in spelled}
    return found


PLANTED = {
    "A": {((A,), True)},
    "B after A": {((B, A), True)},
    "A or D": {((A,), True), ((D,), True)},
    "C with D within three": {((C, gap(2), D), True)},
    "A at the start": {((A, START), True)},
    "G, and H after G": {((G,), True), ((H, G), True)},
}


@pytest.mark.parametrize("unit", PLANTED)
@pytest.mark.parametrize("neighbours", [near, None], ids=["neighbours", "none"])
def test_planted_patterns_come_back_exactly(unit, neighbours):
    graph = fitted(unit, text_evidence(unit, rows_of(0)), neighbours=neighbours)
    assert paths(graph) == PLANTED[unit]
    subject, fresh = FakeSubject(), rows_of(1, 60)
    actual = [subject.direct(unit, row.tolist()) / graph.max_activation for row in fresh]
    assert evaluate(graph, fresh.tolist(), actual).f1 == 1.0


@pytest.mark.parametrize("unit", ["A", "B after A", "A or D", "A at the start"])
def test_a_few_exemplars_are_enough_where_the_model_can_be_asked(unit):
    subject = FakeSubject()
    letters = (*LETTERS, *FILLERS[6:])  # so many that texts put in front rarely hold the pattern by chance
    rows = np.random.default_rng(2).choice(letters, size=(60, 30))
    shown = [exemplar(subject, unit, row) for row in rows.tolist()]
    shown = sorted(shown, key=lambda e: -float(e.activations.max()))[:10]
    graph = fitted(unit, Evidence(float(shown[0].activations.max()), shown))
    fresh = rows_of(3, 60)
    actual = [subject.direct(unit, row.tolist()) / graph.max_activation for row in fresh]
    assert evaluate(graph, fresh.tolist(), actual).f1 == 1.0


def test_neighbours_find_what_the_text_does_not_show():
    rows = rows_of(4)
    rows[rows == D] = FILLERS[0]  # the unit fires on A or D; the text has no D
    evidence = text_evidence("A or D", rows)
    assert paths(fitted("A or D", evidence)) == {((A,), True), ((D,), True)}
    assert paths(fitted("A or D", evidence, neighbours=None)) == {((A,), True)}


def test_what_tokens_do_alone_is_believed_only_where_it_predicts_the_text():
    rows = rows_of(5)
    rows[rows == D] = FILLERS[0]
    subject = FakeSubject()
    for unit, expected in (("A or D", {((A,), True), ((D,), True)}), ("B after A", {((B, A), True)})):
        heard = alone(subject, BASIS, [UNIT[unit]])[0]
        assert heard.shape == (len(VOCABULARY),)
        assert [t for t in range(len(VOCABULARY)) if heard[t] >= 0.5] == ([A, D] if unit == "A or D" else [])
        graph = fitted(unit, replace(text_evidence(unit, rows), alone=heard), neighbours=None)
        assert paths(graph) == expected
        assert graph.provenance["alone"] == (unit == "A or D")


def test_fits_do_not_depend_on_company_and_repeat_for_a_seed():
    rows = rows_of(6)
    fits = {
        UNIT[unit]: fit_refined(unit, text_evidence(unit, rows), replace(context(), neighbours=near))
        for unit in ("A", "B after A", "scattered", "never")
        if unit != "never"
    }
    together = Oracle(FakeSubject(), BASIS).run(fits)
    for unit in ("A", "B after A", "scattered"):
        single = fitted(unit, text_evidence(unit, rows))
        assert together[UNIT[unit]].to_dict() == single.to_dict()
        json.dumps(single.to_dict())
    other = fitted("scattered", text_evidence("scattered", rows), seed=1)
    assert other.to_dict()["nodes"] != single.to_dict()["nodes"]


def test_graphs_survive_being_stored(tmp_path):
    graphs = [fitted(unit, text_evidence(unit, rows_of(7))) for unit in ("C with D within three", "scattered")]
    assert [Graph.from_dict(g.to_dict()).to_dict() for g in graphs] == [g.to_dict() for g in graphs]
    save_graphs(tmp_path / "graphs.safetensors", graphs)
    assert [g.to_dict() for g in load_graphs(tmp_path / "graphs.safetensors")] == [g.to_dict() for g in graphs]


def test_simplified_graphs_answer_as_the_shares_say():
    """On the fit text a place fires if the longest matching candidate's share says so, candidates of exact tokens."""
    rows = rows_of(8)
    evidence = text_evidence("scattered", rows)
    assert evidence.text is not None
    assert evidence.activations is not None
    weighing = Weighing(evidence.text, evidence.activations / evidence.max_activation, Weights(order=3))
    weighing.weigh()
    graph = weighing.graph("scattered", 1.0)
    assert graph.n_nodes > 20
    for row in rows_of(9, 40):
        predicted = graph.predict(row.tolist()) >= 0.5
        for position in range(len(row)):
            level, says = weighing.roots, False
            for back in range(position + 2):
                element = int(row[position - back]) if back <= position else START
                candidate = level.get(element)
                if candidate is None:
                    break
                says, level = candidate.share >= 0.4, candidate.children
            assert predicted[position] == says


CANDIDATES = [(A,), (C,), (A, B), (A, START), (C, A)]
CANDIDATES += [(A, IGNORE, B), (A, gap(2), B)]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.lists(st.sampled_from((A, B, C)), min_size=1, max_size=7), min_size=1, max_size=6),
    st.integers(0, 2**32 - 1),
)
def test_weighing_counts_what_graphs_match(rows, seed):
    """n, fired and share of every candidate, against `Graph.matches` and the formula as documented."""
    width = max(map(len, rows))
    tokens, mask = np.zeros((len(rows), width), dtype=np.int64), np.zeros((len(rows), width), dtype=np.bool_)
    values = np.zeros(tokens.shape, dtype=np.float32)
    rng = np.random.default_rng(seed)
    for i, row in enumerate(rows):
        tokens[i, : len(row)], mask[i, : len(row)], values[i, : len(row)] = row, True, rng.random(len(row))
    weights = Weights(order=0)
    weighing = Weighing(FitText(tokens, mask), values, weights)
    answers = {path: rng.random(3).tolist() for path in CANDIDATES}
    for path, heard in answers.items():
        weighing.hear(path, heard)
    weighing.weigh()
    whole = Graph("unit", 1.0)
    for path in CANDIDATES:
        whole.add([(element, 1.0) for element in path], 1.0)
    matched: dict[tuple[int, ...], list[tuple[int, int]]] = {path: [] for path in CANDIDATES}
    for i, row in enumerate(rows):
        for position in range(len(row)):
            for path in {m.path for m in whole.matches(row, position)}:
                matched[path].append((i, position))
    fires = {"yes": {(int(i), int(p)) for i, p in np.argwhere((values >= 0.5) & mask)}, "tokens": int(mask.sum())}
    places = {path: set(where) for path, where in matched.items()}
    explained: set[tuple[int, int]] = set()
    shares = _shares(places, fires, answers, weights, explained)
    explained = {p for path in CANDIDATES if _is_loose(path) and shares[path][2] >= 0.4 for p in places[path]}
    for path, (n, fired, share) in _shares(places, fires, answers, weights, explained).items():
        level = weighing.roots
        for element in path:
            candidate = level[element]
            level = candidate.children
        assert (candidate.n, candidate.fired) == (n, fired), path
        assert candidate.share == pytest.approx(share, abs=1e-9), path


def _is_loose(path: tuple[int, ...]) -> bool:
    return IGNORE in path or gap(2) in path


def _shares(places, fires, answers, weights, explained) -> dict[tuple[int, ...], tuple[int, int, float]]:
    """n, fired and share of every candidate by the formula; exact contexts without the explained places."""
    rate, out = len(fires["yes"]) / fires["tokens"], {}
    for path in sorted(CANDIDATES, key=len):
        at = places[path] - (explained if len(path) > 1 and not _is_loose(path) else set())
        n, fired = len(at), len(at & fires["yes"])
        shorter = out[path[:1]][2] if len(path) > 1 else rate
        if _is_loose(path):  # the wildcard or gap before the last token is a pattern in between, never asked
            between = {p for p in places[path[:1]] if path[1] != IGNORE or p[1] > 0}
            hits = len(between & fires["yes"])
            shorter = (hits + weights.shorter * shorter) / (len(between) + weights.shorter)
        weight = weights.shorter if len(path) > 1 else weights.rate
        q = sum(value >= 0.5 for value in answers[path]) / 3
        out[path] = (n, fired, (fired + weight * shorter + weights.asked * q) / (n + weight + weights.asked))
    return out


# --- edges ------------------------------------------------------------------------------------------------------


def test_a_unit_that_never_fires_is_said_to_have_no_graph():
    evidence = text_evidence("never", rows_of(10))
    with pytest.raises(UnitError, match="maximum activation > 0"):
        fitted("never", evidence)
    with pytest.raises(UnitError, match="a token with activation"):
        fitted("never", replace(evidence, max_activation=1.0))
    with pytest.raises(UnitError, match="a fit text or exemplars"):
        fitted("A", Evidence(1.0, []))


@pytest.mark.parametrize("width", [1, 2])
def test_rows_shorter_than_a_front(width):
    rows = rows_of(11, 200, width)
    assert paths(fitted("A", text_evidence("A", rows))) == {((A,), True)}


def test_a_subject_without_bos():
    subject = FakeSubject(bos_id=None)
    graph = fitted("B after A", text_evidence("B after A", rows_of(12), subject), subject)
    assert paths(graph) == {((B, A), True)}


def test_a_text_of_one_very_long_row_asks_only_short_questions():
    subject = FakeSubject(n_ctx=64)
    rows = rows_of(13, 1, 4000)
    activations = np.array([[float(token == A) for token in rows[0]]], dtype=np.float32)
    text = FitText(rows, np.ones(rows.shape, dtype=np.bool_))
    assert paths(fitted("A", Evidence(1.0, [], text, activations), subject)) == {((A,), True)}


@pytest.mark.parametrize(
    "options",
    [{"fires": 0.0}, {"share": 1.5}, {"examples": 0}, {"lengths": ()}, {"lengths": (2, 1)}, {"rounds": -1}],
    ids=str,
)
def test_options_out_of_range_are_refused(options):
    with pytest.raises(InputError, match=f"option {next(iter(options))}"):
        RefinedOptions(**options)


def test_evidence_that_does_not_go_together_is_refused():
    text = FitText(np.zeros((2, 3), dtype=np.int64), np.ones((2, 3), dtype=np.bool_))
    with pytest.raises(InputError, match="one without the other"):
        Evidence(1.0, [], text)
    with pytest.raises(InputError, match="as the text"):
        Evidence(1.0, [], text, np.zeros((2, 2), dtype=np.float32))
    with pytest.raises(InputError, match="mask of a text"):
        FitText(np.zeros((2, 3), dtype=np.int64), np.ones((2, 2), dtype=np.bool_))
    with pytest.raises(InputError, match="decision share"):
        Weights(decision=1.0)
    with pytest.raises(InputError, match="weights of evidence"):
        Weights(rate=-1.0)


# --- what fits read ---------------------------------------------------------------------------------------------


def test_a_text_is_laid_out_with_edges_and_finds_its_tokens():
    text = FitText(np.array([[0, 5, 6], [5, 5, 9]]), np.array([[False, True, True], [True, True, False]]))
    assert text.flat.tolist() == [EDGE, EDGE, 5, 6, EDGE, 5, 5, EDGE]
    assert text.places(5).tolist() == [2, 5, 6]
    assert text.places(9).size == 0


def test_neighbours_are_the_nearest_by_cosine():
    vectors = np.random.default_rng(0).normal(size=(50, 7)) + 3.0
    vectors[20] = vectors[21]
    found = Neighbours(vectors, exclude=(4, 5))
    centred = vectors - vectors.mean(axis=0)
    centred /= np.linalg.norm(centred, axis=1, keepdims=True)
    for token in (0, 4, 20, 33):
        order = sorted((t for t in range(50) if t not in (4, 5, token)), key=lambda t: -(centred @ centred[token])[t])
        assert sorted(found([token], 10)[0]) == sorted(order[:10])
        assert found([token], 1)[0] == (order[0],)
        assert len(found([token], 100)[0]) == (48 if token == 4 else 47)
    assert found([20], 0) == [()]


def test_neighbours_do_not_depend_on_who_is_looked_up_with_them():
    vectors = np.random.default_rng(1).normal(size=(300, 24)).astype(np.float32)
    vectors[100:200] = vectors[:100]  # many exactly equal
    every = Neighbours(vectors)(range(300), 12)
    assert [Neighbours(vectors)([token], 12)[0] for token in range(300)] == every
    assert every[3][0] == 103


def test_a_text_knows_how_often_its_tokens_stand_there_and_their_largest_value():
    text = FitText(np.array([[5, 7, 5], [7, 9, 0]]), np.array([[True] * 3, [True, True, False]]))
    values = text.spread(np.array([[0.1, 0.2, 0.4], [0.3, 0.0, 0.9]]), 0.0)
    values[text.flat == EDGE] = 0.0
    tokens, counts, largest = text.summarised(values)
    found = {t: (c, v) for t, c, v in zip(tokens.tolist(), counts.tolist(), largest.tolist(), strict=True)}
    assert found == {EDGE: (3, 0.0), 5: (2, 0.4), 7: (2, 0.3), 9: (1, 0.0)}


def test_alone_is_the_activation_right_behind_the_bos():
    subject = FakeSubject()
    columns = [UNIT["A"], UNIT["graded E"]]
    found = alone(subject, NeuronBasis(BASIS.site, len(UNITS)), columns, batch=7)
    expected = [[subject.direct(unit, [t])[0] for t in range(len(VOCABULARY))] for unit in ("A", "graded E")]
    np.testing.assert_array_equal(found, np.array(expected, dtype=np.float32))


def test_refined_is_registered_with_what_it_reads():
    method = find_method("refined")
    assert method.options is RefinedOptions
    assert set(method.reads) == {"text", "alone", "neighbours"}
    assert not method.needs_text
