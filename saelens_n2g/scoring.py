"""Scores: how well an explanation predicts where a unit fires, and how sure a mean over units is.

    scores = evaluate(graph, rows, actual)                  # one unit: precision, recall, F1, firing and quiet tokens
    summary = summarise([s.f1 for s in per_unit], seed=0)   # many units: mean with its 95 % interval

The protocol is that of Foote et al. 2023 (section 4): both sides are normalised by the unit's maximum, a token
fires at half of it or more, and the tokens of all texts of a unit are pooled before anything is divided.

What cannot be said is None, never 0 or 1:

    =========  ==========================  ===========================================
    score      value                       None where
    =========  ==========================  ===========================================
    precision  tp / (tp + fp)              nothing is predicted
    recall     tp / (tp + fn)              nothing fires
    F1         2 tp / (2 tp + fp + fn)     neither fires nor is predicted anything
    =========  ==========================  ===========================================

so F1 is 0 where something fires and nothing is predicted. The `quiet_` scores are the same with the non-firing
tokens as the class that is looked for.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Shaped

from saelens_n2g.errors import InputError
from saelens_n2g.explanations.base import Explanation

BLOCK = 1_000_000
"""Values drawn at once by the bootstrap, to bound its memory."""


class Confusion(NamedTuple):
    """Numbers of tokens by what was so and what was predicted."""

    tp: int
    """Fires and predicted to fire."""
    fp: int
    """Quiet but predicted to fire."""
    fn: int
    """Fires but predicted quiet."""
    tn: int
    """Quiet and predicted quiet."""


def confusion(actual: Shaped[np.ndarray, "..."], predicted: Shaped[np.ndarray, "..."]) -> Confusion:
    """Count the four cases over boolean arrays of any one shape.

    Raises `InputError` if the shapes differ or a side is not boolean: activations go through `firing` first.
    """
    if actual.dtype != np.bool_ or predicted.dtype != np.bool_:
        raise InputError("tokens to score", "boolean arrays", f"{actual.dtype} and {predicted.dtype}")
    if actual.shape != predicted.shape:
        raise InputError("predicted tokens", f"shape {actual.shape} as the actual ones", f"shape {predicted.shape}")
    tp = int(np.count_nonzero(actual & predicted))
    fp, fn = int(np.count_nonzero(predicted)) - tp, int(np.count_nonzero(actual)) - tp
    return Confusion(tp, fp, fn, actual.size - tp - fp - fn)


@dataclass(frozen=True)
class FiringScores:
    """One unit's scores, each in [0, 1] or None where it is undefined (see the top of this file)."""

    precision: float | None
    """Share of the tokens predicted to fire that do."""
    recall: float | None
    """Share of the firing tokens that were predicted."""
    f1: float | None
    """Harmonic mean of the two, 0 where something fires and nothing is predicted."""
    quiet_precision: float | None
    """Share of the tokens predicted quiet that are."""
    quiet_recall: float | None
    """Share of the quiet tokens that were predicted quiet."""
    quiet_f1: float | None
    """Harmonic mean of these two; near 1 for almost any explanation, as nearly all tokens are quiet."""

    @classmethod
    def from_confusion(cls, counts: Confusion) -> "FiringScores":
        """The scores of pooled counts; add the counts of several texts up before, not the scores after."""
        tp, fp, fn, tn = counts
        return cls(*_one_class(tp, fp, fn), *_one_class(tn, fn, fp))

    def as_dict(self) -> dict[str, float | None]:
        """Metric name -> value, in the order of the fields."""
        return asdict(self)


def _one_class(hits: int, false: int, missed: int) -> tuple[float | None, float | None, float | None]:
    """Precision, recall and F1 of one class."""
    return _ratio(hits, hits + false), _ratio(hits, hits + missed), _ratio(2 * hits, 2 * hits + false + missed)


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def firing(values: Shaped[np.ndarray, "*shape"], threshold: float = 0.5) -> Bool[np.ndarray, "*shape"]:
    """Where normalised activations, actual or predicted, are at least `threshold` (a share of the unit's maximum)."""
    return np.asarray(values >= threshold)


def evaluate(
    explanation: Explanation,
    rows: Sequence[Sequence[int]],
    actual: Sequence[np.ndarray],
    *,
    threshold: float = 0.5,
) -> FiringScores:
    """Score an explanation on texts of one unit, the tokens of all rows pooled.

    `rows` are token ids without BOS and padding, `actual` the normalised activation of each of their tokens.
    Every row is predicted by itself. Raises `InputError` if the two do not go together.
    """
    lengths, found = [len(row) for row in rows], [len(values) for values in actual]
    if lengths != found:
        raise InputError("activations to score", f"rows of {_listed(lengths)} tokens", f"rows of {_listed(found)}")
    counts = [
        confusion(firing(a, threshold), firing(explanation.predict(r), threshold))
        for r, a in zip(rows, actual, strict=True)
    ]
    return FiringScores.from_confusion(
        Confusion(*map(sum, zip(*counts, strict=True))) if counts else Confusion(0, 0, 0, 0)
    )


def _listed(lengths: list[int]) -> str:
    shown = ", ".join(map(str, lengths[:8]))
    return f"[{shown}, ... {len(lengths)} in all]" if len(lengths) > 8 else f"[{shown}]"


# --- over units -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Summary:
    """One metric over the units of a basis."""

    mean: float | None
    """Unweighted mean over the `n` units for which the metric is defined; None if there is none."""
    low: float | None
    """Lower end of the 95 % bootstrap interval of the mean (units resampled)."""
    high: float | None
    median: float | None
    n: int
    """Units that count in the mean."""


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
    low, high = np.percentile(_resampled_means(known, resamples, np.random.default_rng(seed)), [2.5, 97.5])
    return Summary(float(known.mean()), float(low), float(high), float(np.median(known)), n)


def _resampled_means(
    values: Float64[np.ndarray, "unit"], resamples: int, rng: np.random.Generator
) -> Float64[np.ndarray, "resamples"]:
    """Means of `resamples` draws of as many units as there are, with replacement, at most `BLOCK` values at a time."""
    n, step = len(values), max(1, BLOCK // len(values))
    sizes = [min(step, resamples - done) for done in range(0, resamples, step)]
    return np.concatenate([values[rng.integers(0, n, size=(size, n))].mean(axis=1) for size in sizes])


def share_at_least(values: Sequence[float | None], bound: float, seed: int, *, resamples: int = 2000) -> Summary:
    """Share of the units whose value reaches `bound`, with its bootstrap interval.

    A None is undefined, not below: it is left out, and `n` says how many units counted.
    """
    return summarise([None if v is None else float(v >= bound) for v in values], seed=seed, resamples=resamples)


def paired_difference(
    a: Sequence[float | None], b: Sequence[float | None], *, seed: int, resamples: int = 2000
) -> Summary:
    """Mean of `a - b` over the units for which both are defined, with its bootstrap interval (units resampled).

    The two are of the same units in the same order; unlike two separate intervals this one does not grow with what
    makes units easy or hard for both. Raises `InputError` if the lengths differ.
    """
    if len(a) != len(b):
        raise InputError("paired values", f"{len(a)} units on both sides", f"{len(a)} and {len(b)}")
    differences = [None if x is None or y is None else x - y for x, y in zip(a, b, strict=True)]
    return summarise(differences, seed=seed, resamples=resamples)
