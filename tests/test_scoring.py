"""Scores: against counting by hand, and intervals against what they must be by definition."""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from saelens_n2g.comparison import results
from saelens_n2g.errors import InputError
from saelens_n2g.scoring import (
    Confusion,
    FiringScores,
    Summary,
    confusion,
    count_firing,
    evaluate,
    firing,
    paired_difference,
    share_at_least,
    summarise,
)
from saelens_n2g.scoring import means as means_module


def bools(*values: int) -> np.ndarray:
    return np.array(values, dtype=bool)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), max_size=30))
def test_confusion_and_scores_agree_with_counting_pairs(pairs):
    actual, predicted = np.array([p[0] for p in pairs], dtype=bool), np.array([p[1] for p in pairs], dtype=bool)
    counts = confusion(actual, predicted)
    assert counts == (
        pairs.count((True, True)),
        pairs.count((False, True)),
        pairs.count((True, False)),
        pairs.count((False, False)),
    )
    scores = FiringScores.from_confusion(counts)
    hits = [a for a, p in pairs if p]
    found = [p for a, p in pairs if a]
    assert scores.precision == (sum(hits) / len(hits) if hits else None)
    assert scores.recall == (sum(found) / len(found) if found else None)
    if scores.precision and scores.recall:
        harmonic = 2 / (1 / scores.precision + 1 / scores.recall)
        assert scores.f1 == pytest.approx(harmonic, abs=1e-12)
    else:
        assert scores.f1 == (0 if hits or found else None)
    other = FiringScores.from_confusion(confusion(~actual, ~predicted))
    assert (scores.quiet_precision, scores.quiet_recall, scores.quiet_f1) == (other.precision, other.recall, other.f1)


def test_undefined_scores_are_none_and_a_silent_prediction_has_f1_zero():
    silent = FiringScores.from_confusion(Confusion(tp=0, fp=0, fn=3, tn=7))
    assert silent.as_dict() == {
        "precision": None,
        "recall": 0.0,
        "f1": 0.0,
        "quiet_precision": 0.7,
        "quiet_recall": 1.0,
        "quiet_f1": 14 / 17,
    }
    nothing_fires = FiringScores.from_confusion(Confusion(tp=0, fp=2, fn=0, tn=8))
    assert (nothing_fires.precision, nothing_fires.recall, nothing_fires.f1) == (0.0, None, 0.0)
    nothing_at_all = FiringScores.from_confusion(Confusion(0, 0, 0, 5))
    assert (nothing_at_all.precision, nothing_at_all.recall, nothing_at_all.f1) == (None, None, None)
    assert nothing_at_all.quiet_f1 == 1.0


def test_the_metrics_of_a_report_are_the_fields_of_the_scores():
    assert tuple(FiringScores.from_confusion(Confusion(1, 1, 1, 1)).as_dict()) == results.METRICS
    assert results.Summary is Summary


def test_confusion_takes_any_one_shape():
    actual = np.arange(12).reshape(3, 2, 2) % 2 == 0
    assert confusion(actual, actual) == (6, 0, 0, 6)
    assert confusion(bools(), bools()) == (0, 0, 0, 0)


@pytest.mark.parametrize(
    ("actual", "predicted", "words"),
    [
        (bools(1, 0), bools(1), r"shape \(2,\) as the actual ones, found shape \(1,\)"),
        (bools(1, 0), bools(1, 0)[None], r"found shape \(1, 2\)"),
        (np.array([0.7, 0.1]), bools(1, 0), "boolean arrays, found float64 and bool"),
    ],
)
def test_confusion_refuses_what_does_not_go_together(actual, predicted, words):
    with pytest.raises(InputError, match=words):
        confusion(actual, predicted)


def test_firing_includes_the_threshold():
    values = np.array([[0.0, 0.49999], [0.5, 1.0]], dtype=np.float32)
    assert firing(values).tolist() == [[False, False], [True, True]]
    assert firing(values, 0.9).tolist() == [[False, False], [False, True]]


# --- evaluate -------------------------------------------------------------------------------------------------


@dataclass
class Echo:
    """Predicts a token's id divided by ten."""

    def predict(self, tokens):
        return np.array(tokens, dtype=np.float32) / 10

    def to_text(self):
        return "id / 10"


def test_evaluate_pools_tokens_instead_of_averaging_rows():
    rows = [[9, 1, 1, 1], [9, 9]]
    actual = [np.array([0.8, 0.7, 0.0, 0.0]), np.array([0.0, 0.6])]
    scores = evaluate(Echo(), rows, actual)
    assert (scores.precision, scores.recall) == (2 / 3, 2 / 3)  # of rows: (1 + 1/2) / 2 and (1/2 + 1) / 2
    assert scores.quiet_precision == 2 / 3
    joined = evaluate(Echo(), [rows[0] + rows[1]], [np.concatenate(actual)])
    assert joined == scores
    assert evaluate(Echo(), rows, actual, threshold=0.75).recall == 1.0
    assert count_firing(Echo(), rows, actual) == (2, 1, 1, 2)
    assert FiringScores.from_confusion(count_firing(Echo(), rows, actual)) == scores


def test_evaluate_of_no_text_defines_nothing():
    assert count_firing(Echo(), [], []) == (0, 0, 0, 0)
    assert set(evaluate(Echo(), [], []).as_dict().values()) == {None}


@pytest.mark.parametrize("actual", [[np.zeros(2)], [np.zeros(2), np.zeros(2)], [np.zeros(2), np.zeros(3), np.zeros(1)]])
def test_evaluate_refuses_rows_that_do_not_match(actual):
    with pytest.raises(InputError, match=r"rows of \[2, 3\] tokens, found rows of"):
        evaluate(Echo(), [[1, 2], [3, 4, 5]], actual)


# --- over units -----------------------------------------------------------------------------------------------


def test_summary_of_none_and_of_one():
    assert summarise([], seed=0) == Summary(None, None, None, None, 0)
    assert summarise([None, None], seed=0) == Summary(None, None, None, None, 0)
    assert summarise([None, 0.3], seed=0) == Summary(0.3, 0.3, 0.3, 0.3, 1)


def test_summary_leaves_undefined_out_and_needs_no_order():
    values = [0.1, None, 0.9, 0.4, 0.4, None, 0.8]
    summary = summarise(values, seed=5)
    known = [v for v in values if v is not None]
    assert summary.n == 5
    assert summary.mean == pytest.approx(sum(known) / 5)
    assert summary.median == 0.4
    assert summarise(known[::-1], seed=5) == summary


def test_equal_seeds_give_equal_intervals_and_others_do_not():
    values = np.random.default_rng(0).random(30).tolist()
    assert summarise(values, seed=5) == summarise(values, seed=5)
    assert summarise(values, seed=5).low != summarise(values, seed=6).low


def test_interval_is_the_quantiles_of_resampled_means():
    # With two units the resampled mean is 0, 1/2 or 1 with probability 1/4, 1/2, 1/4: both tails exceed 2.5 %.
    two = summarise([0.0, 1.0], seed=0)
    assert (two.low, two.high) == (0.0, 1.0)
    # With many units it is the normal interval of the mean.
    values = np.random.default_rng(3).normal(2.0, 1.0, size=400)
    many = summarise(values.tolist(), seed=0)
    half = 1.96 * values.std() / np.sqrt(400)
    assert many.low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert many.high == pytest.approx(values.mean() + half, abs=0.1 * half)


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    rng = np.random.default_rng(0)
    inside = 0
    for trial in range(200):
        summary = summarise(rng.random(40).tolist(), seed=trial, resamples=400)
        inside += summary.low <= 0.5 <= summary.high
    assert 180 <= inside <= 199


def test_blocks_of_the_bootstrap_make_up_all_resamples(monkeypatch):
    values = np.arange(30, dtype=np.float64)
    for block in (100, 1, 1_000_000):  # 3, 1 and all resamples at a time
        monkeypatch.setattr(means_module, "BLOCK", block)
        sums = means_module._resampled_sums(values, 50, np.random.default_rng(0))
        assert sums.shape == (50,)
        assert len(set(sums.tolist())) > 25
        assert sums.mean() / 30 == pytest.approx(values.mean(), abs=1)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_summary_refuses_what_is_no_number(bad):
    with pytest.raises(InputError, match=r"finite numbers, None where undefined, found (nan|inf)"):
        summarise([0.5, bad], seed=0)


def test_share_at_least_counts_the_bound_and_leaves_undefined_out():
    summary = share_at_least([0.5, 0.49, None, 1.0, 0.0], 0.5, seed=1)
    assert (summary.mean, summary.n) == (0.5, 4)
    assert 0 <= summary.low < 0.5 < summary.high <= 1


def test_paired_difference_is_over_units_that_have_both():
    a = [0.9, 0.5, None, 0.2, 0.7]
    b = [0.8, None, 0.1, 0.1, 0.4]
    assert paired_difference(a, b, seed=2) == summarise([0.9 - 0.8, 0.2 - 0.1, 0.7 - 0.4], seed=2)
    with pytest.raises(InputError, match="5 units on both sides, found 5 and 4"):
        paired_difference(a, b[:4], seed=2)


def test_pairing_takes_out_what_both_sides_share():
    easy = np.random.default_rng(1).random(100)
    paired = paired_difference((easy + 0.05).tolist(), easy.tolist(), seed=0)
    alone = summarise(easy.tolist(), seed=0)
    assert paired.mean == pytest.approx(0.05)
    assert paired.high - paired.low < 1e-9 < alone.high - alone.low
