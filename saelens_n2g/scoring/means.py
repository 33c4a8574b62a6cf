"""Means over the units of a basis, with bootstrap intervals: of scores (macro) and of pooled counts (micro).

A macro mean weighs every unit alike, a micro mean every token: units that fire often rule it. They part where
frequent units are easier or harder than rare ones, which is worth seeing, so reports show both.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

import numpy as np
from jaxtyping import Shaped

from saelens_n2g.errors import InputError
from saelens_n2g.scoring.counts import Confusion, FiringScores, fractions

BLOCK = 1_000_000
"""Values drawn at once by a resampling, to bound its memory."""


@dataclass(frozen=True)
class Summary:
    """One metric over the units of a basis."""

    mean: float | None
    """Unweighted mean over the `n` units for which the metric is defined; None if there is none. In a micro mean:
    the metric of these units' counts added up."""
    low: float | None
    """Lower end of the 95 % bootstrap interval of the mean (units resampled)."""
    high: float | None
    median: float | None
    """Of the units' values; None in a micro mean, which has none."""
    n: int
    """Units that count in the mean."""

    @property
    def sign(self) -> int:
        """1 or -1 where the interval lies on that side of 0; 0 where it does not, or where there is none."""
        if self.low is None or self.high is None:
            return 0
        return int(self.low > 0) - int(self.high < 0)


def summarise(values: Sequence[float | None], *, seed: int, resamples: int = 2000) -> Summary:
    """Mean and median over the units whose value is defined, with the percentile bootstrap interval of the mean.

    `resamples` times as many units are drawn with replacement as there are, and the interval runs from the 2.5th to
    the 97.5th percentile of their means (Efron and Tibshirani 1993, chapter 13). The draws depend on `seed` alone,
    so that equal values give equal intervals, in whatever order the units come and whatever was summarised before.
    Without any defined value all is None; one value is its own interval. Raises `InputError` for NaN or infinity.
    """
    known = np.sort(np.array([value for value in values if value is not None], dtype=np.float64))
    if not np.isfinite(known).all():
        raise InputError(
            "values to summarise", "finite numbers, None where undefined", str(known[~np.isfinite(known)][0])
        )
    n = len(known)
    if n == 0:
        return Summary(None, None, None, None, 0)
    means = _resampled_sums(known, resamples, np.random.default_rng(seed)) / n
    low, high = np.percentile(means, [2.5, 97.5])
    return Summary(float(known.mean()), float(low), float(high), float(np.median(known)), n)


def blocks(draws: int, width: int) -> Iterator[int]:
    """Numbers of draws that add up to `draws`, each of at most `BLOCK` values where one draw is `width` of them."""
    step = max(1, BLOCK // max(1, width))
    return (min(step, draws - done) for done in range(0, draws, step))


def _resampled_sums(
    values: Shaped[np.ndarray, "*rest unit"], resamples: int, rng: np.random.Generator
) -> Shaped[np.ndarray, "*rest resamples"]:
    """Sums of `resamples` draws of as many units as there are, with replacement, at most `BLOCK` units at a time."""
    n = values.shape[-1]
    drawn = [values[..., rng.integers(0, n, size=(size, n))].sum(axis=-1) for size in blocks(resamples, n)]
    return np.concatenate(drawn, axis=-1)


def share_at_least(values: Sequence[float | None], bound: float, seed: int, *, resamples: int = 2000) -> Summary:
    """Share of the units whose value reaches `bound`, with its bootstrap interval.

    A None is undefined, not below: it is left out, and `n` says how many units counted.
    """
    return summarise([None if v is None else float(v >= bound) for v in values], seed=seed, resamples=resamples)


# --- of counts ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Averages:
    """One metric's two means over the same `n` units: those for which it is defined."""

    macro: Summary
    """Every unit weighs alike: the mean of the units' own scores, what `summarise` gives."""
    micro: Summary
    """Every token weighs alike: the score of the counts of all units added up."""


def summarise_counts(counts: Sequence[Confusion], *, seed: int, resamples: int = 2000) -> dict[str, Averages]:
    """Macro and micro mean of every metric of `FiringScores`, by name, from the counts of each unit.

    Both intervals resample units, the micro one then pools the counts of those drawn. A unit that does not define a
    metric (predicts nothing, for precision) adds nothing to its numerator and denominator and is not drawn, so that
    every resample has a value. The order of the units does not matter.
    """
    table = fractions(np.array(counts, dtype=np.int64).reshape(-1, 4))
    found = {}
    for position, metric in enumerate(fields(FiringScores)):
        known = table[table[:, position, 1] > 0, position]
        macro = summarise((known[:, 0] / known[:, 1]).tolist(), seed=seed, resamples=resamples)
        found[metric.name] = Averages(macro, _summarise_pooled(known, seed, resamples))
    return found


def summarise_ratio(parts: Sequence[float], wholes: Sequence[float], *, seed: int, resamples: int = 2000) -> Summary:
    """The sum of `parts` over that of `wholes`, with its percentile bootstrap interval: units, each with its part and
    its whole, are resampled together. The order of the units does not matter; without any all is None.

    Raises `InputError` for NaN, infinity, or a whole that is not above 0.
    """
    known = np.array([*zip(parts, wholes, strict=True)], dtype=np.float64).reshape(-1, 2)
    if not np.isfinite(known).all() or not (known[:, 1] > 0).all():
        raise InputError("parts and wholes", "finite numbers, wholes above 0", str(known.min(axis=0).tolist()))
    return _summarise_pooled(known, seed, resamples)


def _summarise_pooled(known: Shaped[np.ndarray, "unit 2"], seed: int, resamples: int) -> Summary:
    """The ratio of the sums of numerators and denominators, the latter above 0, with its interval."""
    n = len(known)
    if n == 0:
        return Summary(None, None, None, None, 0)
    sides = known[np.lexsort(known.T)].T  # draws are by place: the order of the units must not matter
    parts, wholes = _resampled_sums(sides, resamples, np.random.default_rng(seed))
    low, high = np.percentile(parts / wholes, [2.5, 97.5])
    part, whole = sides.sum(axis=1).tolist()
    return Summary(part / whole, float(low), float(high), None, n)
