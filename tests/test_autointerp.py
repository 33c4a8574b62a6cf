"""Explain, simulate, score: excerpts and their sides, predictors, calibration, scores, detection, controls.

Mathematics is held against scikit-learn and NumPy, and against statements of our own.
"""

import itertools
import json

import numpy as np
import pytest
from atlases import make_comparison, make_study
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LinearRegression
from sklearn.metrics import balanced_accuracy_score, f1_score, r2_score, roc_auc_score

from saelens_n2g.autointerp import calibration
from saelens_n2g.autointerp.controls import INVALID, UNKNOWN, VALID, above, validity
from saelens_n2g.autointerp.detection import answers, detection, fuzzing, highlighted
from saelens_n2g.autointerp.excerpts import Evidence, Excerpt, balanced, digits, distinct, sided, tenths
from saelens_n2g.autointerp.judge import Rules, judge, judged_from
from saelens_n2g.autointerp.predictors import (
    Failure,
    Predicted,
    TokenCounts,
    TokenMeans,
    own_predictor,
    predictors,
    register_predictor,
)
from saelens_n2g.autointerp.reading import FORMATS, Reading, units_of
from saelens_n2g.autointerp.scores import METRICS, SETS, score_tokens, sets_of
from saelens_n2g.errors import ArtefactError, InputError, UnitError
from saelens_n2g.explanations.tables import BackoffTable
from saelens_n2g.graphs.graph import Graph

ACTIVATION = st.floats(0, 1.5, allow_nan=False).map(lambda x: round(x, 2))
PAIRS = st.lists(st.tuples(ACTIVATION, st.floats(-1, 2).map(lambda x: round(x, 2))), min_size=1, max_size=30)


def excerpt(values, window=0, *, document=None, kind="top", side="test", ids=None, strings=None) -> Excerpt:
    ids = tuple(range(len(values))) if ids is None else tuple(ids)
    strings = tuple(f" t{i}" for i in ids) if strings is None else tuple(strings)
    where = f"d{window}" if document is None else document
    return Excerpt(ids, strings, np.array(values, dtype=np.float64), window, where, kind, side)


def unit(excerpts, *, name="1.mlp_post/neurons/3", graph=None) -> Evidence:
    return Evidence(name, "demo", "neurons", 1, 2.0, 0.5, tuple(excerpts), graph, "made by hand")


class Oracle:
    """Knows the answer by window; says `wrong` of some windows."""

    def __init__(self, excerpts, scale=lambda x: x, wrong=()) -> None:
        self.known = {e.window: e.activations for e in excerpts}
        self.scale, self.wrong, self.asked = scale, wrong, []

    def predict(self, excerpts) -> Predicted:
        self.asked += [e.window for e in excerpts]
        said = [Failure("lost") if e.window in self.wrong else self.scale(self.known[e.window]) for e in excerpts]
        return Predicted(said, {"requests": len(excerpts)})


# --- excerpts -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [-0.1, float("nan"), float("inf")])
def test_activations_that_cannot_be_are_refused(wrong):
    with pytest.raises(InputError, match="window 4: expected finite numbers >= 0"):
        excerpt([0.1, wrong], 4)


def test_an_excerpt_has_as_many_strings_as_tokens():
    with pytest.raises(InputError, match="2 ids, 1 strings, 2 activations"):
        excerpt([0.1, 0.2], strings=["a"])
    with pytest.raises(InputError, match="at least one"):
        excerpt([])


def test_a_document_is_on_one_side():
    sides = [excerpt([1.0], 0, document="Rome", side="fit"), excerpt([1.0], 1, document="Rome", side="test")]
    with pytest.raises(InputError, match=r"'Rome' of unit .*: expected a document on one side, found one in fit and t"):
        unit(sides)


@given(st.lists(st.floats(-3, 30), min_size=1), st.floats(0.01, 20))
def test_scales_are_those_of_the_paper(values, maximum):
    values = np.array(values)
    expected = [min(10, int(10 * max(v, 0.0) / maximum)) for v in values]
    assert tenths(values, maximum).tolist() == expected
    assert digits(values, maximum).tolist() == [min(9, v) for v in expected]


def test_of_a_unit_that_never_fires_all_is_0_on_the_scale():
    assert tenths(np.array([0.0, -1.0]), 0.0).tolist() == [0, 0]
    assert tenths(np.array([0.5, 1.0, 1.7])).tolist() == [5, 10, 10]


@given(st.integers(1, 12), st.integers(0, 11), st.integers(1, 15))
def test_a_piece_holds_the_peak_and_is_as_wide_as_asked(n, peak, width):
    values = np.full(n, 0.1)
    values[min(peak, n - 1)] = 0.9
    piece = excerpt(values).around(width)
    assert len(piece.ids) == min(n, width)
    assert piece.activations.max() == 0.9
    assert [f" t{i}" for i in piece.ids] == list(piece.strings)
    assert list(piece.ids) == list(range(piece.ids[0], piece.ids[0] + len(piece.ids)))


@given(st.lists(st.integers(0, 6), min_size=1, max_size=20), st.floats(0, 0.9))
def test_whole_documents_are_held_back(documents, share):
    found = sided([excerpt([1.0], i, document=str(d), side="fit") for i, d in enumerate(documents)], share)
    sides = {}
    for one in found:
        sides.setdefault(one.document, set()).add(one.side)
    assert all(len(s) == 1 for s in sides.values())
    held = sum(s == {"calibration"} for s in sides.values())
    assert held == int(np.floor(len(sides) * share))
    assert [one.window for one in found] == list(range(len(documents)))


def test_nothing_is_held_back_of_one_document_and_shares_are_shares():
    assert {e.side for e in sided([excerpt([1.0], i, document="a") for i in range(9)], 0.9)} == {"fit"}
    with pytest.raises(InputError, match=r"a share in \[0, 1\)"):
        sided([], 1.0)


def test_as_many_random_excerpts_as_strong_ones_none_twice():
    top = [excerpt([0.9], i) for i in range(4)]
    random = [excerpt([0.1], i, kind="random") for i in (2, 7, 8, 9)]
    assert [e.window for e in balanced(top, random)] == [0, 1, 2, 7, 8, 9]
    sets = sets_of([*top, *random])
    assert {name: len(some) for name, some in sets.items()} == {"top": 4, "random": 4, "top_and_random": 6}
    assert [e.window for e in distinct([*top, *random])] == [0, 1, 2, 3, 7, 8, 9]
    assert distinct([*top, *random])[2] is top[2]


# --- reading runs -----------------------------------------------------------------------------------------------


def test_units_of_a_comparison_are_read_as_shares_of_the_maximum(tmp_path):
    found = units_of(make_comparison(tmp_path / "demo"))
    assert len(found) == 10
    one = next(u for u in found if u.name == "1.mlp_post/neurons/2")
    evidence = one.load(Reading(excerpts=2))
    stored = json.loads((tmp_path / "demo/report/exemplars/1.mlp_post_neurons_2.json").read_text())
    assert evidence.group == ("demo", "neurons", 1)
    assert [len(evidence.of(s)) for s in ("fit", "calibration", "test")] == [3, 0, 4]
    assert [e.kind for e in evidence.of("test")] == ["top", "top", "random", "random"]
    kept = [one["window"] for which in ("test", "random") for one in stored[which][:2]]
    assert [e.window for e in evidence.of("test")] == kept, "the strongest, and the first that were drawn"
    first = evidence.of("fit")[0]
    assert (first.activations * stored["max_activation"]).tolist() == pytest.approx(stored["fit"][0]["activations"])
    assert isinstance(evidence.graph, Graph)
    assert one.load(Reading(excerpts=2)).checksum == evidence.checksum
    held = one.load(Reading(hold_back=0.5))
    assert [len(held.of(s)) for s in ("fit", "calibration", "test")] == [2, 1, 6]


def test_formats_that_are_read_are_those_that_are_written():
    from saelens_n2g.comparison import results as comparison
    from saelens_n2g.imports import config as imports
    from saelens_n2g.study import results as study

    assert {one.FORMAT: one.VERSION for one in (comparison, study, imports)} == FORMATS


def test_units_of_a_study_without_graph_are_there_too(tmp_path):
    found = units_of(make_study(tmp_path / "study"))
    assert [(u.layer, u.basis, u.graph is None) for u in found if u.name.endswith("/21")] == [
        (0, "neurons", True),
        (0, "tied-R2", True),
        (2, "neurons", True),
        (2, "tied-R2", True),
    ]
    assert found[2].load(Reading()).graph is None


def test_what_is_no_run_or_damaged_is_named(tmp_path):
    with pytest.raises(InputError, match="a finished comparison, study or import"):
        units_of(tmp_path)
    folder = make_comparison(tmp_path / "demo")
    one = units_of(folder)[0]
    stored = json.loads(one.exemplars.read_text())
    one.exemplars.write_text(json.dumps({**stored, "unit": "another"}))
    with pytest.raises(ArtefactError, match="expected exemplars and a graph of"):
        one.load(Reading())
    negative = {**stored["test"][0], "activations": [-1.0] * 6}
    one.exemplars.write_text(json.dumps({**stored, "test": [negative]}))
    with pytest.raises(ArtefactError, match="expected finite numbers >= 0, found -"):
        one.load(Reading())
    shared = {**stored["test"][0], "document": stored["fit"][0]["document"]}
    one.exemplars.write_text(json.dumps({**stored, "test": [shared]}))
    with pytest.raises(ArtefactError, match="a document on one side"):
        one.load(Reading())
    with pytest.raises(ArtefactError, match="bytes"):
        units_of(folder)  # the marker knows another size


# --- predictors -------------------------------------------------------------------------------------------------


def test_a_token_predicts_its_mean_and_one_never_seen_0():
    seen = [excerpt([1.0, 0.5, 0.0], ids=[5, 6, 5]), excerpt([0.25], 1, ids=[6])]
    asked = excerpt([0.0] * 3, 2, ids=[6, 7, 5])
    (found,) = TokenMeans.of(seen).predict([asked]).predictions
    assert found.tolist() == [0.375, 0.0, 0.5]


@given(st.lists(st.lists(st.tuples(st.integers(0, 4), ACTIVATION), min_size=1, max_size=6), min_size=2, max_size=5))
def test_counts_without_a_part_are_those_of_the_others(rows):
    each = [TokenCounts.of([excerpt([a for _, a in row], ids=[t for t, _ in row])]) for row in rows]
    left, others = TokenCounts.joined(each).without(each[0]), TokenCounts.joined(each[1:])
    assert left.means().means.keys() == others.means().means.keys()
    for token, mean in others.means().means.items():
        assert left.means().means[token] == pytest.approx(mean, abs=1e-9)


def test_own_predictors_read_the_fit_side_alone():
    seen = [excerpt([1.0, 0.0], ids=[5, 6], side="fit"), excerpt([1.0, 0.0], 1, ids=[8, 6])]
    graph = Graph("1.mlp_post/neurons/3", 2.0)
    graph.add([(5, 1.0)], 0.8)
    evidence, asked = unit(seen, graph=graph), [excerpt([0.0, 0.0], 2, ids=[5, 8])]
    assert set(predictors()) >= {"graph", "table", "backoff"}
    said = {name: own_predictor(name, evidence).predict(asked).predictions[0] for name in ("graph", "table", "backoff")}
    assert said["graph"].tolist() == pytest.approx([0.8, 0.0])
    assert said["table"].tolist() == [1.0, 0.0]
    expected = BackoffTable.fit([(5, 6)], [np.array([True, False])]).predict([5, 8])
    assert said["backoff"].tolist() == expected.tolist()
    with pytest.raises(UnitError, match="expected a graph"):
        own_predictor("graph", unit(seen))
    with pytest.raises(UnitError, match="excerpts to learn from"):
        own_predictor("table", unit(seen[1:]))
    with pytest.raises(InputError, match="a name that is free"):
        register_predictor("graph", lambda _: TokenMeans({}))


# --- calibration ------------------------------------------------------------------------------------------------


@given(st.lists(st.floats(0, 1).map(lambda x: round(x, 3)), min_size=2, max_size=20, unique=True))
def test_calibrations_find_planted_maps(simulated):
    simulated = np.array(simulated)
    line = calibration.fit("linear", simulated, 0.5 * simulated + 0.25)
    assert line(simulated) == pytest.approx(0.5 * simulated + 0.25, abs=1e-9)
    cubed = calibration.fit("percentile", simulated, simulated**3)
    assert cubed(simulated) == pytest.approx(simulated**3, abs=1e-12)
    assert calibration.fit("none", simulated, simulated)(simulated).tolist() == simulated.tolist()


@given(st.lists(st.tuples(ACTIVATION, ACTIVATION), min_size=2, max_size=20))
def test_the_line_is_that_of_scikit_learn_and_quantiles_never_fall(pairs):
    simulated, true = np.array(pairs).T
    line = calibration.fit("linear", simulated, true)
    model = LinearRegression().fit(simulated[:, None], true)
    assert line(simulated) == pytest.approx(model.predict(simulated[:, None]), abs=1e-6)
    quantiles = calibration.fit("percentile", simulated, true)
    assert (np.diff(quantiles(np.sort(simulated))) >= -1e-12).all()
    assert quantiles(simulated).mean() == pytest.approx(true.mean())


def test_without_ties_quantiles_are_those_of_the_papers_code():
    rng = np.random.default_rng(0)
    simulated, true, new = rng.random(50), rng.random(50), rng.random(20) * 2 - 0.5
    found = calibration.fit("percentile", simulated, true)(new)
    assert found == pytest.approx(np.interp(new, np.sort(simulated), np.sort(true)))


def test_nothing_to_calibrate_on_is_an_error():
    with pytest.raises(InputError, match="at least one, found 0 and 0"):
        calibration.fit("linear", np.zeros(0), np.zeros(0))


def test_what_a_line_leaves_and_what_it_changes():
    rng = np.random.default_rng(1)
    actual = rng.random(200)
    predicted = 0.3 * actual + 0.2 * rng.random(200)
    before, after = (score_tokens(actual, p, 0.5).values for p in (predicted, 2.5 * predicted - 0.2))
    assert before["correlation"] == pytest.approx(after["correlation"])
    assert before["auprc"] == after["auprc"]
    for name in ("f1", "cosine", "r2", "deviation"):
        assert abs(before[name] - after[name]) > 0.001


# --- scores -----------------------------------------------------------------------------------------------------


@given(PAIRS)
def test_scores_agree_with_plain_statements(pairs):
    actual, predicted = np.array(pairs).T
    found = score_tokens(actual, predicted, 0.5)
    values = found.values
    assert set(values) == set(METRICS)
    assert set(found.undefined) == {name for name, value in values.items() if value is None}
    if values["r2"] is not None:
        assert values["r2"] == pytest.approx(r2_score(actual, predicted), abs=1e-6)
        assert values["correlation"] is None or values["r2"] <= values["correlation"] ** 2 + 1e-9
    if values["correlation"] is not None:
        assert values["correlation"] == pytest.approx(np.corrcoef(actual, predicted)[0, 1], abs=1e-6)
    if values["r2_uncentred"] is not None:
        assert values["r2_uncentred"] == pytest.approx(1 - ((actual - predicted) ** 2).sum() / (actual**2).sum())
        assert values["r2"] is None or values["r2_uncentred"] >= values["r2"] - 1e-9
        assert values["deviation"] == pytest.approx(1 - np.abs(actual - predicted).sum() / actual.sum())
    if values["cosine"] is not None:
        expected = actual @ predicted / np.linalg.norm(actual) / np.linalg.norm(predicted)
        assert values["cosine"] == pytest.approx(expected, abs=1e-9)
    if values["f1"] is not None:
        assert values["f1"] == pytest.approx(f1_score(actual >= 0.5, predicted >= 0.5, zero_division=0))


def test_what_is_undefined_is_none_with_the_reason():
    quiet, flat = np.zeros(3), score_tokens(np.array([0.9, 0.1, 0.2]), np.zeros(3), 0.5)
    assert flat.values["correlation"] is None
    assert flat.undefined == {"correlation": "predicted the same everywhere", "cosine": "predicted 0 everywhere"}
    assert flat.values["auprc"] == pytest.approx(1 / 3)
    silent = score_tokens(quiet, np.array([0.0, 0.1, 0.2]), 0.5)
    assert all(value is None for value in silent.values.values())
    assert silent.undefined["auprc"] == "no token fires"
    assert silent.undefined["r2"] == "the activation is the same everywhere"
    nothing = score_tokens(np.zeros(0), np.zeros(0), 0.5)
    assert set(nothing.undefined.values()) == {"no excerpt"}
    with pytest.raises(InputError, match="3 finite numbers"):
        score_tokens(quiet, np.array([0.0, np.nan, 0.0]), 0.5)


# --- detection and fuzzing --------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 1).map(lambda x: round(x, 1))), min_size=1, max_size=30))
def test_answers_agree_with_scikit_learn(items):
    true, values = np.array([t for t, _ in items]), np.array([v for _, v in items])
    found = answers(true, values, 0.5)
    assert (found.true, found.false) == (true.sum(), (~true).sum())
    if 0 < true.sum() < true.size:
        assert found.auc == pytest.approx(roc_auc_score(true, values))
        assert found.balanced_accuracy == pytest.approx(balanced_accuracy_score(true, values >= 0.5))
    else:
        assert found.auc is None
        assert found.balanced_accuracy is None


def some(n=12, seed=0):
    """Excerpts of which two thirds fire."""
    rng = np.random.default_rng(seed)
    values = rng.random((n, 20)) * 0.4
    for i in range(0, n, 3):
        values[i : i + 2, rng.integers(0, 20, 2)] = 0.9
    return [excerpt(v, i, kind="random" if i % 3 == 2 else "top") for i, v in enumerate(values)]


def test_a_perfect_predictor_detects_and_finds_all_highlights():
    excerpts = some()
    exact = [e.activations for e in excerpts]
    assert detection(excerpts, exact, 0.5)[:3] == (1.0, 1.0, 1.0)
    marked = fuzzing(excerpts, exact, 0.5, 0)
    assert marked[:3] == (1.0, 1.0, 1.0)
    assert marked.true == marked.false == 8


def test_moved_highlights_are_as_many_on_quiet_tokens_and_depend_on_seed_and_window():
    excerpts = some()
    items = highlighted(excerpts, 0.5, 3)
    for right, wrong in zip(items[::2], items[1::2], strict=True):
        assert right.excerpt is wrong.excerpt
        assert right.marks.sum() == wrong.marks.sum()
        assert not (right.marks & wrong.marks).any()
    again = highlighted(excerpts[::-1], 0.5, 3)[::-1]
    assert {(i.excerpt.window, i.true, i.marks.tobytes()) for i in items} == {
        (i.excerpt.window, i.true, i.marks.tobytes()) for i in again
    }
    others = [i.marks.tolist() for i in highlighted(excerpts, 0.5, 4)]
    assert others != [i.marks.tolist() for i in items]
    assert highlighted([excerpt([0.9, 0.9, 0.1])], 0.5, 0) == []  # too few quiet tokens to move to


def test_an_excerpt_is_told_by_its_highest_token_and_highlights_by_their_mean():
    one = excerpt([0.9, 0.8, 0.0, 0.0, 0.1])
    loud = np.array([0.6, 0.2, 0.0, 0.0, 0.0])  # mean .4 on what fires, a highest of .6
    assert detection([one], [loud], 0.5).f1 == 1.0
    assert fuzzing([one], [loud], 0.5, 0)[:3] == (0.5, 0.0, 1.0), "no highlights are told, but ranked"


def test_a_constant_predictor_is_chance():
    excerpts = some(30)
    flat = [np.full(20, 0.7) for _ in excerpts]
    assert detection(excerpts, flat, 0.5)[:1] == (0.5,)
    assert detection(excerpts, flat, 0.5).auc == fuzzing(excerpts, flat, 0.5, 0).auc == 0.5


# --- judging ----------------------------------------------------------------------------------------------------


def test_a_perfect_predictor_has_every_score_and_shuffled_is_chance():
    excerpts = some(30)
    oracle = Oracle(excerpts)
    found = judge(oracle, unit(excerpts), Rules())
    assert sorted(oracle.asked) == list(range(30)), "each window once"
    assert set(found.sets) == set(SETS)
    for name in SETS:
        values = {k: v for k, v in found.sets[name].values.items() if v is not None}
        assert values == pytest.approx(dict.fromkeys(values, 1.0))
        assert set(values) >= {"correlation", "cosine", "r2", "r2_uncentred", "deviation"}
    assert abs(found.shuffled["top"].values["correlation"]) < 0.2
    assert (found.missing, found.costs) == (0, {"requests": 30})
    assert judged_from(json.loads(json.dumps(found.as_json()))) == found


def test_a_failure_is_no_score():
    excerpts = some(10)
    found = judge(Oracle(excerpts, wrong=[3]), unit(excerpts), Rules())
    assert found == Failure("1 of 10 excerpts not predicted: lost")
    left = judge(Oracle(excerpts, wrong=[3]), unit(excerpts), Rules(tolerated=0.1))
    assert left.missing == 1
    assert left.sets["top"].excerpts == sum(e.kind == "top" for e in excerpts) - 1
    assert left.sets["top"].values["r2"] == pytest.approx(1.0), "what is left out is not predicted 0"
    assert judge(Oracle([]), unit([]), Rules()) == Failure("no excerpt to score on", again=False)


@pytest.mark.parametrize("method", ["linear", "percentile"])
def test_calibration_is_fitted_on_what_is_held_back_and_undoes_a_scale(method):
    held = [excerpt(e.activations, 100 + e.window, side="calibration") for e in some(10, seed=5)]
    excerpts = [*some(10), *held]
    oracle = Oracle(excerpts, scale=lambda x: 0.2 * x + 0.1)
    raw, scaled = (judge(oracle, unit(excerpts), Rules(calibration=m)) for m in ("none", method))
    assert raw.sets["top"].values["r2"] < 0.5
    assert scaled.sets["top"].values["r2"] > 0.99
    assert raw.sets["top"].values["correlation"] == pytest.approx(scaled.sets["top"].values["correlation"], abs=0.01)
    assert judge(oracle, unit(some(4)), Rules(calibration=method)) == Failure(
        "no excerpt is held back for calibration: too few documents", again=False
    )


@pytest.mark.parametrize("method", ["linear", "percentile"])
def test_calibration_knows_nothing_of_the_test_excerpts(method):
    """What is held back follows another map than what is scored on: the map is that of what is held back."""
    tested = some(10)
    held = [excerpt(np.sqrt(e.activations), 100 + e.window, side="calibration") for e in some(10, seed=5)]
    simulated = {e.window: e.activations for e in tested}
    simulated |= {100 + e.window: e.activations for e in some(10, seed=5)}

    class Simulated:
        def predict(self, excerpts):
            return Predicted([simulated[e.window] for e in excerpts])

    found = judge(Simulated(), unit([*tested, *held]), Rules(calibration=method))
    fitted = calibration.fit(
        method, np.concatenate([simulated[e.window] for e in held]), np.concatenate([e.activations for e in held])
    )
    for name, excerpts in sets_of(tested).items():
        actual, said = (
            np.concatenate(a) for a in zip(*((e.activations, simulated[e.window]) for e in excerpts), strict=True)
        )
        assert found.sets[name].values == pytest.approx(score_tokens(actual, fitted(said), 0.5).values)
        assert found.sets[name].values["r2"] < 0.9


# --- controls ---------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(-5, 5).filter(bool), min_size=1, max_size=10))
def test_one_sided_p_values_count_sign_patterns(differences):
    sums = [
        sum(s * abs(d) for s, d in zip(signs, differences, strict=True))
        for signs in itertools.product((1, -1), repeat=len(differences))
    ]
    total = sum(differences)
    if total:
        expected = sum(s >= total for s in sums) / len(sums)
        if total < 0:  # half of the two-sided one's complement: patterns strictly above count, and half of none
            expected = 1 - sum(s <= total for s in sums) / len(sums)
        assert above([float(d) for d in differences], seed=0) == pytest.approx(expected)


def columns(rng, mean, n=12):
    return {name: (mean + 0.1 * rng.standard_normal(n)).tolist() for name in ("correlation", "auprc")}


def test_a_way_that_beats_its_controls_is_valid_and_one_that_does_not_is_not():
    rng = np.random.default_rng(0)
    low, high = columns(rng, 0.0), columns(rng, 0.5)
    assert validity(high, {"neutral": low, "other": low, "shuffled": low}, seed=0).verdict == VALID
    beaten = validity(high, {"neutral": low, "other": columns(rng, 0.5), "shuffled": low}, seed=0)
    assert beaten.verdict == INVALID
    assert {t.control for t in beaten.tests if not t.beaten} == {"other"}
    assert validity(low, {"neutral": high}, seed=0).verdict == INVALID
    same = validity(high, {"neutral": high}, seed=0)
    assert same.verdict == INVALID, "no difference is no validity"


def test_a_difference_that_may_be_chance_is_none():
    """Of five pairs all have to be ahead: 1 of 32 patterns. With one a little behind it is 2: more than 1 in 20."""
    none = {name: [0.0] * 5 for name in ("correlation", "auprc")}
    for last, verdict in ((0.1, VALID), (-0.1, INVALID)):
        own = {name: [1.0, 1.0, 1.0, 1.0, last] for name in none}
        assert validity(own, {"neutral": none}, seed=0).verdict == verdict


def test_ties_show_nothing_of_few_pairs_and_enough_of_many():
    """Four ahead and one tie cannot be told from chance, whatever the rest; three of 25 ahead is not ahead."""
    for own, verdict in (([1.0] * 4 + [0.0], UNKNOWN), ([1.0] * 3 + [0.0] * 22, INVALID), ([0.0] * 25, INVALID)):
        none = {name: [0.0] * len(own) for name in ("correlation", "auprc")}
        assert validity(dict.fromkeys(none, own), {"neutral": none}, seed=0).verdict == verdict


def test_too_few_pairs_show_nothing():
    few, none = {"correlation": [0.9] * 4, "auprc": [0.9] * 4}, {"correlation": [None] * 4, "auprc": [0.0] * 4}
    found = validity(few, {"neutral": none}, seed=0)
    assert found.verdict == UNKNOWN
    assert [t.difference.n for t in found.tests] == [0, 4]
    enough = validity({k: v * 2 for k, v in few.items()}, {"neutral": {k: v * 2 for k, v in none.items()}}, seed=0)
    assert (enough.verdict, [t.beaten for t in enough.tests]) == (VALID, [None, True])
    json.dumps(enough.as_json())
