"""Controls: what a prediction has to beat before it says anything of a unit, and whether it does.

    neutral    an explanation that says nothing: for sentences "something", for graphs and tables the mean activation
               of each token over the other units of the same basis and layer
    other      the explanation of another unit of the same basis and layer, one to one round a circle
    shuffled   the own prediction against the activations in random order

A way of explaining whose true explanations do not beat each of them is *invalid*: its scores may be read as how the
text is made, not as what the unit does. Small language models fail here as simulators: their predictions hardly depend
on the sentence (docs/autointerp.md).
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from saelens_n2g.scoring import Summary, paired_difference, sign_flip
from saelens_n2g.scoring.pairs import TIE

NEUTRAL, OTHER, SHUFFLED = "neutral", "other", "shuffled"
CONTROLS = (NEUTRAL, OTHER, SHUFFLED)
JUDGED_BY = ("correlation", "auprc")
"""What has to be higher, on strong and random excerpts. A prediction that is the same everywhere has no correlation,
and for AUPRC what chance gives."""
ALPHA = 0.05
FEWEST = 5
"""Pairs below which no difference can be shown: 1 / 2**4 is above `ALPHA`."""
VALID, INVALID, UNKNOWN = "valid", "invalid", "not shown"

Values = Sequence[float | None]


class Beaten(NamedTuple):
    """A way of explaining against one control in one metric, unit by unit."""

    control: str
    metric: str
    difference: Summary
    """Of true - control over the `n` units that define both, with its 95 % bootstrap interval."""
    p_value: float | None
    """One-sided, of a paired sign-flip test: the chance of so much more if it made no difference."""
    beaten: bool | None
    """None where there are too few pairs to say."""


class Validity(NamedTuple):
    """Whether a way of explaining says something of the units."""

    verdict: str
    """`valid`: every control is beaten in every metric that enough units define, and each in one at least. `invalid`:
    one is not beaten. `not shown`: none is known to be unbeaten, but there are too few units to test each of them."""
    tests: tuple[Beaten, ...]

    def as_json(self) -> dict[str, Any]:
        """JSON values."""
        tests = [{**test._asdict(), "difference": vars(test.difference)} for test in self.tests]
        return {"verdict": self.verdict, "tests": tests}


def validity(true: Mapping[str, Values], controls: Mapping[str, Mapping[str, Values]], *, seed: int) -> Validity:
    """The verdict on scores by metric of `JUDGED_BY`, and the same for each control, units in one order.

    A metric that too few units define is passed over, so `Validity.tests` says what was tested.
    """
    tests = tuple(
        beaten(control, metric, true[metric], controls[control][metric], seed=seed)
        for control in CONTROLS
        if control in controls
        for metric in JUDGED_BY
    )
    return Validity(verdict_of(tests), tests)


def verdict_of(tests: Sequence[Beaten]) -> str:
    """`Validity.verdict`. A control of which nothing is known, as one that always failed, is not beaten: then nothing
    is valid."""
    if any(test.beaten is False for test in tests):
        return INVALID
    known = {test.control for test in tests if test.beaten}
    return VALID if tests and known == {test.control for test in tests} else UNKNOWN


def beaten(control: str, metric: str, true: Values, other: Values, *, seed: int) -> Beaten:
    """Whether `true` is above `other`, unit by unit: mean difference above 0, and p below `ALPHA` one-sided.

    Not known of too few pairs, and where most of few pairs are for it and the rest ties, which no test can tell from
    chance. Where most are ties it is not above.
    """
    difference = paired_difference(true, other, seed=seed)
    pairs = [a - b for a, b in zip(true, other, strict=True) if a is not None and b is not None]
    p = above(pairs, seed=seed)
    apart = [d for d in pairs if abs(d) > TIE]
    few = len(apart) < FEWEST and 2 * len(apart) > len(pairs) and min(apart) > 0
    if p is None or len(pairs) < FEWEST or few:
        return Beaten(control, metric, difference, p, None)
    return Beaten(control, metric, difference, p, bool((difference.mean or 0.0) > 0 and p < ALPHA))


def above(differences: Sequence[float], *, seed: int) -> float | None:
    """One-sided p-value of a mean above 0 by sign flips; None without any difference.

    Signs are flipped with equal chance, so the sum is as likely above as below 0: half of the two-sided value where the
    mean is above 0, and what is left of 1 where it is below.
    """
    exact = [0.0 if abs(d) <= TIE else d for d in differences]
    p = sign_flip(exact, seed=seed).p_value
    if p is None or not any(exact):
        return p
    return p / 2 if sum(exact) > 0 else 1 - p / 2
