"""Two methods on the same units: the permutation test against all sign patterns and scipy, shares by counting."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from saelens_n2g.errors import InputError
from saelens_n2g.scoring import (
    PairedComparison,
    SignFlip,
    Summary,
    compare_paired,
    means,
    paired_difference,
    pairs,
    sign_flip,
)

SCORES = st.one_of(st.none(), st.integers(0, 10).map(lambda i: i / 10))
BOTH = st.lists(st.tuples(SCORES, SCORES), max_size=9)


def brute_force(differences: list[int]) -> float:
    """In whole numbers, so that equal sums are equal."""
    patterns = list(itertools.product((1, -1), repeat=len(differences)))
    sums = [abs(sum(s * d for s, d in zip(signs, differences, strict=True))) for signs in patterns]
    return sum(s >= abs(sum(differences)) for s in sums) / len(patterns)


# --- sign flips -----------------------------------------------------------------------------------------------


@given(st.lists(st.integers(-5, 5), min_size=1, max_size=9), st.sampled_from([1.0, 0.1, 1e-7, 0.3333]))
def test_exact_p_value_is_the_share_of_all_sign_patterns(differences, unit):
    test = sign_flip([d * unit for d in differences], seed=0)
    assert test == SignFlip(brute_force(differences), True)


def test_exact_p_value_agrees_with_scipy():
    differences = np.random.default_rng(0).normal(0.3, 1, size=11)
    expected = stats.permutation_test((differences,), np.mean, permutation_type="samples", n_resamples=np.inf)
    assert 0.01 < expected.pvalue < 0.9
    assert sign_flip(differences.tolist(), seed=0).p_value == pytest.approx(expected.pvalue, abs=1e-12)


@given(st.lists(st.integers(-50, 50), max_size=40), st.randoms(use_true_random=False))
def test_p_value_needs_neither_order_nor_direction_nor_zeros(differences, random):
    values = [d / 100 for d in differences]
    test = sign_flip(values, seed=3, permutations=50)
    shuffled = [-v for v in values]
    random.shuffle(shuffled)
    assert sign_flip(shuffled, seed=3, permutations=50) == test
    assert test.exact == (np.count_nonzero(values) <= pairs.EXACT_UNITS)
    if values:
        assert sign_flip([*values, 0.0, 0.0], seed=3, permutations=50) == test


def test_sampled_p_value_approaches_the_exact_one(monkeypatch):
    differences = np.random.default_rng(5).normal(0.4, 1, size=16).tolist()
    exact = sign_flip(differences, seed=0)
    monkeypatch.setattr(pairs, "EXACT_UNITS", 15)
    sampled = sign_flip(differences, seed=0, permutations=20_000)
    assert (exact.exact, sampled.exact) == (True, False)
    assert 0.02 < exact.p_value < 0.9
    assert sampled.p_value == pytest.approx(exact.p_value, abs=4 * np.sqrt(exact.p_value / 20_000))
    assert sign_flip(differences, seed=0, permutations=20_000) == sampled
    assert sign_flip(differences, seed=1, permutations=20_000) != sampled


def test_sampled_p_value_is_never_zero_and_blocks_make_up_all_permutations(monkeypatch):
    for block in (100, 1, 1_000_000):
        monkeypatch.setattr(means, "BLOCK", block)
        assert sign_flip([0.1] * 40, seed=0, permutations=99).p_value == 1 / 100
        assert sign_flip([0.1, -0.1] * 20, seed=0, permutations=99).p_value == 1.0


def test_p_values_of_no_difference_are_uniform():
    rng = np.random.default_rng(0)
    found = [sign_flip(rng.normal(size=30).tolist(), seed=i, permutations=199).p_value for i in range(400)]
    assert stats.kstest(found, "uniform").pvalue > 0.001
    assert 0.02 < np.mean(np.array(found) <= 0.05) < 0.09


def test_sign_flips_at_the_edges():
    assert sign_flip([], seed=0) == SignFlip(None, True)
    assert sign_flip([0.3], seed=0) == SignFlip(1.0, True)
    assert sign_flip([0.0] * 50, seed=0) == SignFlip(1.0, True)
    assert sign_flip([0.1, 0.2, 0.7, 0.1, 0.3, 0.2], seed=0) == SignFlip(2 / 2**6, True)
    assert sign_flip([1e-3] * pairs.EXACT_UNITS, seed=0) == SignFlip(2 / 2**pairs.EXACT_UNITS, True)


@pytest.mark.parametrize("bad", [float("nan"), float("-inf")])
def test_sign_flips_refuse_what_is_no_number(bad):
    with pytest.raises(InputError, match=f"differences to test: expected finite numbers, found {bad}"):
        sign_flip([0.1, bad], seed=0)
    with pytest.raises(InputError, match="permutations: expected an integer >= 1, found 0"):
        sign_flip([0.1], seed=0, permutations=0)


# --- comparison -----------------------------------------------------------------------------------------------


@given(BOTH)
def test_comparison_agrees_with_counting_units_that_have_both(scores):
    a, b = [x for x, _ in scores], [y for _, y in scores]
    found = compare_paired(a, b, seed=4, resamples=20)
    tenths = [round(10 * x) - round(10 * y) for x, y in scores if x is not None and y is not None]
    n = len(tenths)
    assert found.difference == paired_difference(a, b, seed=4, resamples=20)
    assert found.difference.n == n
    if n == 0:
        assert found == PairedComparison(Summary(None, None, None, None, 0), None, True, None, None, None, None)
        return
    assert found.difference.mean == pytest.approx(sum(tenths) / 10 / n, abs=1e-12)
    assert found.p_value == brute_force(tenths)
    assert (found.better, found.worse) == (sum(d > 0 for d in tenths) / n, sum(d < 0 for d in tenths) / n)
    assert found.equal == tenths.count(0) / n
    if len(set(tenths)) == 1:
        assert found.effect is None
    else:
        # A paired t statistic is the effect times the root of n.
        expected = stats.ttest_1samp(tenths, 0).statistic / np.sqrt(n)
        assert found.effect == pytest.approx(expected, abs=1e-9)


@given(BOTH)
def test_the_other_way_round_everything_turns_over(scores):
    a, b = [x for x, _ in scores], [y for _, y in scores]
    there, back = compare_paired(a, b, seed=1, resamples=5), compare_paired(b, a, seed=1, resamples=5)
    assert (there.p_value, there.better, there.equal, there.worse) == (
        back.p_value,
        back.worse,
        back.equal,
        back.better,
    )
    assert (there.effect is None) == (back.effect is None)
    if there.effect is not None:
        assert there.effect == pytest.approx(-back.effect, abs=1e-12)


def test_comparison_at_the_edges():
    same = [0.2, 0.9, 0.4]
    equal = compare_paired(same, same, seed=0)
    assert equal == PairedComparison(Summary(0.0, 0.0, 0.0, 0.0, 3), 1.0, True, 0.0, 1.0, 0.0, None)
    one = compare_paired([0.75, None], [0.5, 0.1], seed=0)
    assert one == PairedComparison(Summary(0.25, 0.25, 0.25, 0.25, 1), 1.0, True, 1.0, 0.0, 0.0, None)
    steady = compare_paired([0.6, 0.7, 0.8], [0.1, 0.2, 0.3], seed=0)  # 0.5 each, but for the last digit
    assert (steady.effect, steady.p_value, steady.better) == (None, 0.25, 1.0)
    assert steady.as_dict()["difference"]["n"] == 3


def test_rounding_is_no_difference():
    """0.1 + 0.2 is not 0.3: a test that took this for a difference would call ten units of it significant."""
    assert 0.1 + 0.2 > 0.3
    found = compare_paired([0.1 + 0.2] * 10, [0.3] * 10, seed=0)
    assert (found.p_value, found.better, found.equal, found.worse, found.effect) == (1.0, 0.0, 1.0, 0.0, None)


def test_comparison_of_many_units_is_repeatable_and_sees_a_small_steady_lead():
    rng = np.random.default_rng(2)
    easy = rng.random(200)
    a, b = (easy + rng.normal(0.02, 0.05, 200)).tolist(), easy.tolist()
    found = compare_paired(a, b, seed=7)
    assert not found.exact
    assert found == compare_paired(a, b, seed=7)
    assert found.p_value < 0.001
    assert found.difference.low > 0
    assert found.effect == pytest.approx(0.4, abs=0.15)
    assert found.better + found.equal + found.worse == pytest.approx(1)
    turned = compare_paired(b[::-1], a[::-1], seed=7)
    assert (turned.p_value, turned.effect) == (found.p_value, -found.effect)


def test_comparison_of_many_units_does_not_depend_on_their_order():
    rng = np.random.default_rng(3)
    a, b = rng.random(60), rng.random(60)
    found = compare_paired(a.tolist(), b.tolist(), seed=7, permutations=2000)
    assert 0.05 < found.p_value < 0.95
    for _ in range(5):
        order = rng.permutation(60)
        assert compare_paired(a[order].tolist(), b[order].tolist(), seed=7, permutations=2000) == found


def test_comparison_refuses_unequal_lengths():
    with pytest.raises(InputError, match="2 units on both sides, found 2 and 1"):
        compare_paired([0.1, 0.2], [0.1], seed=0)
