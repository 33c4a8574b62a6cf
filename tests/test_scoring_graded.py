"""AUPRC and correlation: against scikit-learn, numpy and going through the ranking by hand."""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import average_precision_score

from saelens_n2g.errors import InputError
from saelens_n2g.scoring import (
    GradedScores,
    Tokens,
    average_precision,
    correlation,
    evaluate_correlation,
    evaluate_graded,
    firing,
    pooled,
    window_sets,
)

LEVELS = (0.0, 0.1, 0.5, 0.7, 1.0)
SPARSE = st.lists(st.tuples(st.booleans(), st.sampled_from(LEVELS)), min_size=1, max_size=40)
"""Whether a token fires and what is predicted for it, with many ties."""
FINE = arrays(np.float64, 12, elements=st.floats(-10, 10).map(lambda x: round(x, 3)))


def sides(pairs) -> tuple[np.ndarray, np.ndarray]:
    return np.array([fires for fires, _ in pairs], dtype=bool), np.array([level for _, level in pairs])


# --- AUPRC ----------------------------------------------------------------------------------------------------


@given(SPARSE)
def test_average_precision_agrees_with_scikit_learn_and_with_the_definition(pairs):
    fires, predicted = sides(pairs)
    found = average_precision(fires, predicted)
    if not fires.any():
        assert found is None
        return
    assert found == pytest.approx(average_precision_score(fires, predicted), abs=1e-12)
    area, recall = 0.0, 0.0
    for level in sorted(set(predicted.tolist()), reverse=True):
        flagged = predicted >= level
        hits = (fires & flagged).sum()
        area += (hits / fires.sum() - recall) * hits / flagged.sum()
        recall = hits / fires.sum()
    assert found == pytest.approx(area, abs=1e-12)


@given(SPARSE, st.permutations(range(40)), st.integers(1, 5))
def test_average_precision_asks_for_order_alone(pairs, order, power):
    fires, predicted = sides(pairs)
    order = [i for i in order if i < len(fires)]
    assert average_precision(fires[order], 7 * predicted[order] ** power - 3) == average_precision(fires, predicted)


def test_average_precision_of_many_distinct_values_agrees_with_scikit_learn():
    rng = np.random.default_rng(0)
    fires = rng.random(5000) < 0.01
    predicted = (rng.random(5000) + 0.5 * fires).astype(np.float32)
    expected = average_precision_score(fires, predicted)
    assert 0.1 < expected < 0.95
    assert average_precision(fires, predicted) == pytest.approx(expected, abs=1e-12)
    assert average_precision(fires.reshape(50, 100), predicted.reshape(50, 100)) == pytest.approx(expected, abs=1e-12)


def test_ties_are_one_step_whatever_their_order():
    # The one firing token shares its prediction with three quiet ones: 1 of 4, not 1 of 1 (optimistic).
    for place in range(4):
        fires = np.arange(5) == place
        assert average_precision(fires, np.array([0.5, 0.5, 0.5, 0.5, 0.0])) == 0.25


def test_average_precision_at_the_edges():
    fires = np.array([True, False, False, False, True])
    assert average_precision(fires, np.zeros(5)) == 0.4  # nothing predicted: chance
    assert average_precision(fires, np.array([1.0, 0, 0, 0, 0.6])) == 1.0
    assert average_precision(fires, -np.array([1.0, 0, 0, 0, 0.6])) == pytest.approx((1 / 4 + 2 / 5) / 2)
    assert average_precision(np.ones(3, dtype=bool), np.array([0.1, 0.2, 0.0])) == 1.0
    assert average_precision(np.zeros(3, dtype=bool), np.array([0.1, 0.2, 0.0])) is None
    assert average_precision(np.zeros(0, dtype=bool), np.zeros(0)) is None


@pytest.mark.parametrize(
    ("actual", "predicted", "words"),
    [
        (np.array([0.7, 0.1]), np.zeros(2), "firing tokens: expected a boolean array, found float64"),
        (np.zeros(2, dtype=bool), np.zeros(3), r"shape \(2,\) as the actual ones, found shape \(3,\)"),
        (np.zeros(2, dtype=bool), np.array([0.0, np.nan]), "predicted tokens: expected finite numbers, found nan"),
    ],
)
def test_average_precision_refuses_what_it_cannot_rank(actual, predicted, words):
    with pytest.raises(InputError, match=words):
        average_precision(actual, predicted)


# --- correlation ----------------------------------------------------------------------------------------------


@given(FINE, FINE)
def test_correlation_agrees_with_numpy_or_is_undefined(actual, predicted):
    found = correlation(actual, predicted)
    if len(set(actual.tolist())) == 1 or len(set(predicted.tolist())) == 1:
        assert found is None
    else:
        assert found == pytest.approx(np.corrcoef(actual, predicted)[0, 1], abs=1e-9)
        assert -1 <= found <= 1


@given(FINE, FINE, st.floats(0.01, 100), st.floats(-5, 5))
def test_correlation_asks_for_proportion_alone(actual, predicted, scale, shift):
    found = correlation(actual, predicted)
    assert correlation(predicted, actual) == found
    if found is not None:
        assert correlation(actual, scale * predicted + shift) == pytest.approx(found, abs=1e-6)
        assert correlation(actual, -predicted) == pytest.approx(-found, abs=1e-12)
        assert correlation(actual, actual) == pytest.approx(1, abs=1e-12)


def test_correlation_at_the_edges():
    rising = np.linspace(0, 1, 5)
    for constant in (0.0, 0.1, 1.0):  # the mean of equal floats need not be that float
        assert correlation(rising, np.full(5, constant)) is None
        assert correlation(np.full(5, constant, dtype=np.float32), rising) is None
    assert correlation(np.zeros(0), np.zeros(0)) is None
    assert correlation(rising[:1], rising[:1]) is None
    assert correlation(rising[:2], rising[1::-1]) == -1
    assert correlation(rising * 1e-200, rising) == pytest.approx(1)  # squares would be 0
    assert correlation(rising.reshape(5, 1), rising.reshape(5, 1) ** 2) == correlation(rising, rising**2)


def test_correlation_keeps_its_digits_on_single_precision_far_from_zero():
    rng = np.random.default_rng(0)
    a = (1000 + rng.random(2000)).astype(np.float32)
    b = (a + rng.random(2000)).astype(np.float32)
    expected = np.corrcoef(a.astype(np.float64), b.astype(np.float64))[0, 1]
    assert correlation(a, b) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("actual", "predicted", "words"),
    [
        (np.zeros(2), np.zeros(3), r"found shape \(3,\)"),
        (np.array([0.0, np.inf]), np.zeros(2), "actual tokens: expected finite numbers, found inf"),
        (np.zeros(2), np.array([np.nan, 0.0]), "predicted tokens: expected finite numbers, found nan"),
    ],
)
def test_correlation_refuses_what_is_no_number(actual, predicted, words):
    with pytest.raises(InputError, match=words):
        correlation(actual, predicted)


# --- explanations on texts ------------------------------------------------------------------------------------


@dataclass
class Echo:
    """Predicts a token's id divided by ten, the first token of a row as nothing."""

    def predict(self, tokens):
        values = np.array(tokens, dtype=np.float32) / 10
        values[:1] = 0
        return values

    def to_text(self):
        return "id / 10"


ROWS = [[9, 8, 1], [9, 2], [3, 7, 4, 4]]
ACTUAL = [np.array([0.1, 0.9, 0.0]), np.array([0.6, 0.0]), np.array([0.0, 0.4, 0.5, 0.2])]


def test_tokens_of_all_rows_are_one_sequence_and_every_row_is_predicted_by_itself():
    tokens = pooled(Echo(), ROWS, ACTUAL)
    assert tokens.actual.tolist() == [0.1, 0.9, 0.0, 0.6, 0.0, 0.0, 0.4, 0.5, 0.2]
    assert tokens.predicted == pytest.approx(np.array([0, 0.8, 0.1, 0, 0.2, 0, 0.7, 0.4, 0.4]))
    graded = evaluate_graded(Echo(), ROWS, ACTUAL)
    assert graded.correlation == pytest.approx(np.corrcoef(*tokens)[0, 1])
    assert graded.correlation == evaluate_correlation(Echo(), ROWS, ACTUAL)
    rows = [evaluate_correlation(Echo(), [r], [a]) for r, a in zip(ROWS, ACTUAL, strict=True)]
    assert graded.correlation != pytest.approx(np.mean(rows), abs=0.05)
    # 0.9 first; 0.5 with its double (0.4 twice) behind 0.7, so 2 of 4; 0.6 among the zeros, so 3 of 9.
    assert graded.auprc == pytest.approx((1 + 2 / 4 + 3 / 9) / 3)
    assert graded.as_dict() == {"auprc": graded.auprc, "correlation": graded.correlation}


def test_the_threshold_says_what_fires():
    scores = evaluate_graded(Echo(), ROWS, ACTUAL, threshold=0.6)
    assert scores.auprc == pytest.approx((1 + 2 / 9) / 2)
    assert scores.correlation == evaluate_graded(Echo(), ROWS, ACTUAL).correlation
    tokens = pooled(Echo(), ROWS, ACTUAL)
    assert scores == GradedScores.from_tokens(tokens, threshold=0.6)
    assert scores.auprc == average_precision(firing(tokens.actual, 0.6), tokens.predicted)


def test_no_text_and_silent_predictions():
    assert evaluate_graded(Echo(), [], []) == GradedScores(None, None)
    silent = Tokens(np.array([0.0, 1.0, 0.2, 0.0]), np.zeros(4))
    assert GradedScores.from_tokens(silent) == GradedScores(0.25, None)
    quiet = Tokens(np.array([0.0, 0.3, 0.2, 0.0]), np.array([0.0, 1.0, 0.0, 0.0]))
    assert quiet.actual.max() < 0.5
    assert GradedScores.from_tokens(quiet).auprc is None
    assert GradedScores.from_tokens(quiet).correlation == pytest.approx(np.corrcoef(*quiet)[0, 1])


def test_rows_that_do_not_go_together_are_refused():
    with pytest.raises(InputError, match=r"rows of \[3, 2, 4\] tokens, found rows of \[3, 2\]"):
        evaluate_graded(Echo(), ROWS, ACTUAL[:2])

    class Short(Echo):
        def predict(self, tokens):
            return np.zeros(len(tokens) - 1, dtype=np.float32)

    with pytest.raises(InputError, match=r"shape \(3,\) as the actual ones, found shape \(2,\)"):
        evaluate_correlation(Short(), ROWS, ACTUAL)


# --- windows --------------------------------------------------------------------------------------------------


@given(
    st.lists(st.integers(0, 60), unique=True, max_size=20),
    st.lists(st.integers(0, 60), unique=True, max_size=60),
    st.integers(0, 5),
)
def test_the_mixture_is_half_strong_half_other(top, population, seed):
    strong, everything = np.array(top, dtype=np.int64), np.array(population, dtype=np.int64)
    sets = window_sets(strong, everything, seed=seed)
    assert sets.top is strong
    assert sets.random is everything
    mixed = sets.top_and_random.tolist()
    half = len(mixed) // 2
    assert half == min(len(top), len(set(population) - set(top)))
    assert mixed[:half] == top[:half]
    assert set(mixed[half:]) <= set(population) - set(top)
    assert len(set(mixed)) == len(mixed) == 2 * half
    again = window_sets(strong, everything[::-1], seed=seed)
    assert again.top_and_random.tolist() == mixed


def test_every_other_window_is_drawn_about_as_often():
    top, population = np.array([3, 1]), np.arange(8)
    drawn = np.concatenate([window_sets(top, population, seed=s).top_and_random[2:] for s in range(600)])
    counts = np.bincount(drawn, minlength=8)
    assert counts[[1, 3]].tolist() == [0, 0]
    assert (np.abs(counts[[0, 2, 4, 5, 6, 7]] - 200) < 60).all()  # 5 standard deviations
