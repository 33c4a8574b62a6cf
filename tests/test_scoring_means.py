"""Macro and micro means of counts: against averaging scores and adding counts up by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from saelens_n2g.errors import InputError
from saelens_n2g.scoring import Averages, Confusion, FiringScores, Summary, summarise, summarise_counts, summarise_ratio

COUNTS = st.lists(st.builds(Confusion, *[st.integers(0, 5)] * 4), max_size=8)


@given(COUNTS)
def test_macro_averages_scores_and_micro_scores_sums(counts):
    found = summarise_counts(counts, seed=2, resamples=20)
    of_sums = FiringScores.from_confusion(Confusion(*np.array(counts, dtype=int).reshape(-1, 4).sum(axis=0).tolist()))
    of_units = [FiringScores.from_confusion(c).as_dict() for c in counts]
    assert list(found) == list(of_sums.as_dict())
    for metric, averages in found.items():
        assert averages.macro == summarise([scores[metric] for scores in of_units], seed=2, resamples=20)
        assert averages.micro.mean == of_sums.as_dict()[metric]
        assert averages.micro.n == averages.macro.n
        assert averages.micro.median is None


@given(COUNTS, st.randoms(use_true_random=False))
def test_the_order_of_units_does_not_matter(counts, random):
    shuffled = list(counts)
    random.shuffle(shuffled)
    assert summarise_counts(shuffled, seed=0, resamples=30) == summarise_counts(counts, seed=0, resamples=30)


def test_a_ratio_of_sums_and_its_interval_by_hand():
    """Resampling written out: every draw takes a part with its own whole."""
    parts, wholes = [0.5, -1.0, 2.0, 0.25], [1.0, 3.0, 2.5, 0.5]
    found = summarise_ratio(parts, wholes, seed=3, resamples=400)
    assert found.mean == sum(parts) / sum(wholes)
    assert (found.median, found.n) == (None, 4)
    rng = np.random.default_rng(11)
    drawn = [rng.integers(0, 4, 4) for _ in range(20_000)]
    ratios = [sum(parts[i] for i in at) / sum(wholes[i] for i in at) for at in drawn]
    assert [found.low, found.high] == pytest.approx(np.percentile(ratios, [2.5, 97.5]), abs=0.1)
    assert summarise_ratio(parts[::-1], wholes[::-1], seed=3, resamples=400) == found
    assert summarise_ratio([x / 2 for x in wholes], wholes, seed=0) == Summary(0.5, 0.5, 0.5, None, 4)
    assert summarise_ratio([], [], seed=0) == Summary(None, None, None, None, 0)
    for bad in ([1.0, np.nan], [1.0, 0.0]):
        with pytest.raises(InputError, match="wholes above 0"):
            summarise_ratio([1.0, 1.0], bad, seed=0)


def test_no_unit_and_units_that_define_nothing():
    nothing = Averages(Summary(None, None, None, None, 0), Summary(None, None, None, None, 0))
    assert set(summarise_counts([], seed=0).values()) == {nothing}
    assert set(summarise_counts([Confusion(0, 0, 0, 0)] * 3, seed=0).values()) == {nothing}
    silent = summarise_counts([Confusion(tp=0, fp=0, fn=2, tn=8)] * 3, seed=0)
    assert silent["precision"] == nothing
    assert silent["f1"] == Averages(Summary(0.0, 0.0, 0.0, 0.0, 3), Summary(0.0, 0.0, 0.0, None, 3))
    assert silent["quiet_recall"].micro == Summary(1.0, 1.0, 1.0, None, 3)


def test_one_unit_is_its_own_interval_and_equal_units_have_none():
    for n in (1, 7):
        found = summarise_counts([Confusion(tp=1, fp=2, fn=6, tn=1)] * n, seed=0)
        assert found["precision"].micro == Summary(1 / 3, 1 / 3, 1 / 3, None, n)
        assert found["recall"].micro == Summary(1 / 7, 1 / 7, 1 / 7, None, n)


def test_units_that_fire_often_rule_the_micro_mean():
    found = summarise_counts([Confusion(900, 100, 0, 0), Confusion(0, 1, 0, 9), Confusion(0, 0, 0, 10)], seed=0)
    assert found["precision"].macro.mean == pytest.approx(0.45)
    assert found["precision"].micro.mean == 900 / 1001
    assert found["precision"].micro.n == 2  # the third predicts nothing
    # Two units: both drawn alike are 900/1000 or 0 with probability 1/4 each, which is more than 2.5 %.
    assert (found["precision"].micro.low, found["precision"].micro.high) == (0.0, 0.9)


def test_the_micro_interval_is_that_of_a_ratio():
    """Against the delta method: the variance of sum(x) / sum(y) is that of the mean of x - r y, over mean(y)^2."""
    rng = np.random.default_rng(0)
    fired = rng.integers(20, 200, size=500)
    hits = rng.binomial(fired, rng.beta(4, 4, size=500))
    counts = [Confusion(int(h), 0, int(f - h), 1000) for h, f in zip(hits, fired, strict=True)]
    recall = summarise_counts(counts, seed=0)["recall"].micro
    ratio = hits.sum() / fired.sum()
    half = 1.96 * (hits - ratio * fired).std() / fired.mean() / np.sqrt(500)
    assert recall.mean == ratio
    assert recall.low == pytest.approx(ratio - half, abs=0.15 * half)
    assert recall.high == pytest.approx(ratio + half, abs=0.15 * half)


def test_equal_seeds_give_equal_intervals_and_others_do_not():
    rng = np.random.default_rng(1)
    counts = [Confusion(*map(int, rng.integers(1, 50, size=4))) for _ in range(30)]
    assert summarise_counts(counts, seed=5) == summarise_counts(counts, seed=5)
    assert summarise_counts(counts, seed=5)["f1"].micro.low != summarise_counts(counts, seed=6)["f1"].micro.low
