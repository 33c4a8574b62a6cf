"""Two methods, or two bases, on the same units: which is better, by how much, and could it be chance.

Values are scores of which more is better, in the same order of units on both sides; units that lack either value
are left out. The interval and the p-value speak of the choice of units alone: corpus, seed and dictionary are given.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float64

from saelens_n2g.errors import InputError
from saelens_n2g.scoring.means import Summary, blocks, summarise

EXACT_UNITS = 20
"""Up to so many units that differ all 2**n sign patterns are gone through (a million, 8 MB)."""
TIE = 1e-9
"""Scores no further apart than this are equal: the same number reached by two ways of adding up."""


class SignFlip(NamedTuple):
    """The outcome of a sign-flip test."""

    p_value: float | None
    """Two-sided, in (0, 1]; None without any unit."""
    exact: bool
    """Whether all sign patterns were gone through, or a sample of them."""


@dataclass(frozen=True)
class PairedComparison:
    """`a` against `b` on the units that define both, `difference.n` of them."""

    difference: Summary
    """Of a - b: mean, 95 % bootstrap interval and median."""
    p_value: float | None
    """Of the mean difference, two-sided, by `sign_flip`."""
    exact: bool
    """Whether the p-value is exact or sampled."""
    better: float | None
    """Share of units on which a - b is above `TIE`; the three shares add up to 1, or are None without any unit."""
    equal: float | None
    """Share of units on which they are no more than `TIE` apart."""
    worse: float | None
    """Share of units on which b - a is above `TIE`."""
    effect: float | None
    """Cohen's d of paired values (d_z in Lakens 2013): mean of a - b over its standard deviation (n - 1 below). It
    says how steady the difference is, not how large; None for less than two units or where a - b is the same for
    all."""

    def as_dict(self) -> dict[str, Any]:
        """Field -> value, the summary as a dictionary too."""
        return asdict(self)


def paired_difference(
    a: Sequence[float | None], b: Sequence[float | None], *, seed: int, resamples: int = 2000
) -> Summary:
    """Mean of `a - b` over the units for which both are defined, with its bootstrap interval (units resampled).

    The two are of the same units in the same order; unlike two separate intervals this one does not grow with what
    makes units easy or hard for both. Raises `InputError` if the lengths differ.
    """
    return summarise(_differences(a, b), seed=seed, resamples=resamples)


def _differences(a: Sequence[float | None], b: Sequence[float | None]) -> list[float]:
    """a - b of the units that define both."""
    if len(a) != len(b):
        raise InputError("paired values", f"{len(a)} units on both sides", f"{len(a)} and {len(b)}")
    return [x - y for x, y in zip(a, b, strict=True) if x is not None and y is not None]


def compare_paired(
    a: Sequence[float | None],
    b: Sequence[float | None],
    *,
    seed: int,
    resamples: int = 2000,
    permutations: int = 10_000,
) -> PairedComparison:
    """Everything about `a - b` on the units for which both are defined.

    `resamples` are those of `paired_difference`, `permutations` those of `sign_flip`. Differences up to `TIE` count
    as none, except in `difference` itself. Raises `InputError` if the lengths differ or a value is no finite number.
    """
    difference = paired_difference(a, b, seed=seed, resamples=resamples)
    found = np.array(_differences(a, b), dtype=np.float64)
    found[np.abs(found) <= TIE] = 0
    test = sign_flip(found.tolist(), seed=seed, permutations=permutations)
    shares = _share(found > 0), _share(found == 0), _share(found < 0)
    return PairedComparison(difference, test.p_value, test.exact, *shares, _effect(found))


def _share(which: Bool[np.ndarray, "unit"]) -> float | None:
    return int(which.sum()) / len(which) if len(which) else None


def _effect(differences: Float64[np.ndarray, "unit"]) -> float | None:
    """Mean over standard deviation; a spread within `TIE` is rounding, by which nothing should be divided."""
    if len(differences) < 2 or differences.max() - differences.min() <= TIE:
        return None
    ordered = np.sort(differences)  # sums then do not depend on the order of the units
    return float(ordered.mean() / ordered.std(ddof=1))


def sign_flip(differences: Sequence[float], *, seed: int, permutations: int = 10_000) -> SignFlip:
    """Paired permutation test of a mean difference of zero, two-sided (Fisher 1935, chapter III).

    If it does not matter which of the two methods is called a, every difference is as likely with the other sign.
    The p-value is the share of sign patterns under which the sum is at least as far from 0 as it was found to be.
    Up to `EXACT_UNITS` differences other than 0 all patterns are counted; beyond, `permutations` random ones and the
    found one, so that the p-value is never below 1 / (permutations + 1) (Phipson and Smyth 2010). It depends on
    neither the order of the units nor the sign of all differences together, and on `seed` only where patterns are
    drawn. Raises `InputError` for NaN, infinity or less than one permutation.
    """
    if permutations < 1:
        raise InputError("permutations", "an integer >= 1", str(permutations))
    found = np.array(differences, dtype=np.float64)
    if not np.isfinite(found).all():
        raise InputError("differences to test", "finite numbers", str(found[~np.isfinite(found)][0]))
    if len(found) == 0:
        return SignFlip(None, True)
    sizes = np.sort(np.abs(found[found != 0]))  # a 0 stays what it is under either sign
    # Sums that are equal on paper differ in the last digits with the order of adding; those count as equal.
    bound = abs(math.fsum(differences)) - 1e-9 * float(sizes.sum())
    if len(sizes) <= EXACT_UNITS:
        return SignFlip(_share_as_far(sizes, bound), True)
    rng, as_far = np.random.default_rng(seed), 0
    for size in blocks(permutations, len(sizes)):
        plus = rng.integers(0, 2, size=(size, len(sizes)), dtype=np.bool_)
        as_far += int(np.count_nonzero(np.abs(np.where(plus, sizes, -sizes).sum(axis=1)) >= bound))
    return SignFlip((as_far + 1) / (permutations + 1), False)


def _share_as_far(sizes: Float64[np.ndarray, "unit"], bound: float) -> float:
    """Share of all sign patterns of `sizes` whose sum is at least `bound` from 0."""
    sums = np.zeros(1)
    for size in sizes:
        sums = np.concatenate([sums + size, sums - size])
    return int(np.count_nonzero(np.abs(sums) >= bound)) / len(sums)


def cycle(n: int, seed: Sequence[int]) -> list[int]:
    """A random arrangement of `n` things in one circle: per place another one (Sattolo 1986). Empty for less than two.

    A derangement, so that as a control nobody is given what is its own.
    """
    if n < 2:
        return []
    rng, order = np.random.default_rng(list(seed)), list(range(n))
    for i in range(n - 1, 0, -1):
        j = int(rng.integers(0, i))
        order[i], order[j] = order[j], order[i]
    return order
