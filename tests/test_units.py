"""Who is explained: verdicts, counts that add up, and statistics against a statement in plain Python."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from saelens_n2g.comparison.units import REASONS, UnitChoice, UnitRule, UnitStatistics, rule_as_json, statistics
from saelens_n2g.errors import InputError

RULE = UnitRule(units=2, min_fit_firing=3, min_test_firing=2, max_density=0.25, pool=3)
QUARTERS = st.sampled_from([0.0, 0.25, 0.5, 1.0, 2.0])
COLUMNS = st.tuples(st.integers(1, 40), st.integers(1, 8)).flatmap(
    lambda shape: st.tuples(arrays(np.float32, shape, elements=QUARTERS), arrays(np.bool_, shape[0]))
)


def naive(values: list[float], fit: list[bool], threshold: float) -> UnitStatistics:
    inside = [v for v, f in zip(values, fit, strict=True) if f]
    outside = [v for v, f in zip(values, fit, strict=True) if not f]
    largest = max([0.0, *inside])
    fires = [v for v in inside if largest > 0 and v >= threshold * largest]
    return UnitStatistics(
        max_activation=largest,
        fit_firing=len(fires),
        test_firing=sum(largest > 0 and v >= threshold * largest for v in outside),
        density=len(fires) / len(inside) if inside else 0.0,
        active=sum(v > 0 for v in inside) / len(inside) if inside else 0.0,
    )


@given(COLUMNS, st.sampled_from([0.25, 0.5, 1.0]))
def test_statistics_are_what_their_names_say(columns, threshold):
    values, fit = columns
    assert statistics(values[:, 0], fit, threshold) == naive(values[:, 0].tolist(), fit.tolist(), threshold)


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ([0] * 16 + [9] * 4, "dead"),  # above zero in the test text only
        ([2, 1] + [0] * 14 + [2] * 4, "rare"),
        ([2, 1, 1] + [0] * 13 + [2, 1, 0, 0], None),
        ([2, 1, 1] + [0.9] * 13 + [2, 1, 0, 0], None),  # active everywhere, firing seldom
        ([2] * 4 + [0] * 12 + [1] * 4, None),  # just a quarter
        ([2] * 5 + [0] * 11 + [1] * 4, "dense"),
        ([2] * 3 + [0] * 13 + [1, 0.9, 0.9, 0], "silent_in_test"),
    ],
)
def test_verdicts(values, verdict):
    fit = np.arange(20) < 16
    assert statistics(np.array(values, dtype=np.float32), fit, 0.5).verdict(RULE) == verdict


def test_the_first_reason_that_holds_is_given():
    assert UnitStatistics(0.0, 0, 0, 0.0, 0.0).verdict(RULE) == "dead"
    assert UnitStatistics(1.0, 1, 0, 0.9, 1.0).verdict(RULE) == "rare"
    assert UnitStatistics(1.0, 9, 0, 0.9, 1.0).verdict(RULE) == "dense"


@given(COLUMNS, st.integers(1, 3), st.integers(1, 3))
def test_counts_add_up_over_exactly_the_examined(columns, units, least):
    values, fit = columns
    rule = UnitRule(units=units, min_fit_firing=least, min_test_firing=1, max_density=0.5)
    taken = list[int]()

    def columns():
        for at, column in enumerate(values.T):
            taken.append(at)
            yield np.ascontiguousarray(column)

    choice = UnitChoice(fit, rule)
    chosen = list(choice.eligible(columns()))
    verdicts = [naive(column.tolist(), fit.tolist(), 0.5).verdict(rule) for column in values.T]
    eligible = [i for i, verdict in enumerate(verdicts) if verdict is None]
    assert [one.position for one in chosen] == eligible[:units], "the first eligible ones, in order"
    for one in chosen:
        assert one.values.tolist() == values[:, one.position].tolist()
        assert one.statistics == naive(one.values.tolist(), fit.tolist(), 0.5)
    examined = eligible[units - 1] + 1 if len(eligible) >= units else values.shape[1]
    assert choice.counts["examined"] == examined == len(taken), "no activations are computed in vain"
    assert {k: choice.counts[k] for k in REASONS} == {k: verdicts[:examined].count(k) for k in REASONS}
    assert examined == len(chosen) + sum(choice.counts[k] for k in REASONS)


@given(st.integers(1, 200), st.integers(0, 5))
def test_candidates_are_a_seeded_draw_without_repeats(n, seed):
    rule = UnitRule(units=3, pool=4, seed=seed)
    drawn = rule.candidates(n).tolist()
    assert drawn == UnitRule(units=3, pool=4, seed=seed).candidates(n).tolist()
    assert len(set(drawn)) == len(drawn) == min(12, n)
    assert set(drawn) <= set(range(n))
    assert UnitRule(units=6, pool=4, seed=seed).candidates(n).tolist()[: len(drawn)] == drawn, "more units go on"


def test_another_seed_gives_another_order():
    orders = {tuple(UnitRule(units=8, seed=seed).candidates(100).tolist()) for seed in range(5)}
    assert len(orders) == 5


@pytest.mark.parametrize(
    "wrong",
    [
        {"units": 0},
        {"min_fit_firing": 0},
        {"min_test_firing": -1},
        {"pool": 0},
        {"threshold": 0.0},
        {"threshold": 1.5},
        {"max_density": 0.0},
        {"max_density": float("nan")},
    ],
)
def test_rules_that_cannot_be(wrong):
    with pytest.raises(InputError, match=f"option {next(iter(wrong))}"):
        UnitRule(**wrong)


def test_the_sentence_says_every_number_of_the_rule():
    rule = UnitRule(units=7, threshold=0.4, min_fit_firing=11, min_test_firing=5, max_density=0.03, pool=9, seed=13)
    value = rule_as_json(rule)
    assert value["rule"] == rule.in_words()
    for number in ("seed 13", "until 7", "at most 63 examined", "at least 11", "at most 3 %", "at least 5", "40 %"):
        assert number in value["rule"]
    assert {k: v for k, v in value.items() if k != "rule"} == vars(rule)
