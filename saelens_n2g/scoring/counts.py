"""Firing or not: the four cases counted, and precision, recall and F1 of the counts, after Foote et al. 2023 (4).

Where a score is None stands in the table on top of `saelens_n2g.scoring`.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int64, Shaped

from saelens_n2g.errors import InputError
from saelens_n2g.explanations.base import Explanation


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
    require_same_shape(actual, predicted)
    tp = int(np.count_nonzero(actual & predicted))
    fp, fn = int(np.count_nonzero(predicted)) - tp, int(np.count_nonzero(actual)) - tp
    return Confusion(tp, fp, fn, actual.size - tp - fp - fn)


def require_same_shape(actual: Shaped[np.ndarray, "..."], predicted: Shaped[np.ndarray, "..."]) -> None:
    """Raise `InputError` unless there is one prediction for each actual value."""
    if actual.shape != predicted.shape:
        raise InputError("predicted tokens", f"shape {actual.shape} as the actual ones", f"shape {predicted.shape}")


@dataclass(frozen=True)
class FiringScores:
    """One unit's scores, each in [0, 1] or None where it is undefined (the table of `saelens_n2g.scoring`)."""

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
        ratios = fractions(np.array([counts], dtype=np.int64))[0].tolist()
        return cls(*(part / whole if whole else None for part, whole in ratios))

    def as_dict(self) -> dict[str, float | None]:
        """Metric name -> value, in the order of the fields."""
        return asdict(self)


def fractions(counts: Int64[np.ndarray, "unit 4"]) -> Int64[np.ndarray, "unit metric 2"]:
    """Numerator and denominator of every score, in the order of the fields of `FiringScores`.

    `counts` are rows of `Confusion`. Counts of units may be added up before or the fractions of one score after:
    both give the pooled score.
    """
    tp, fp, fn, tn = counts.T
    sides = []
    for hits, false, missed in ((tp, fp, fn), (tn, fn, fp)):
        sides += [hits, hits + false, hits, hits + missed, 2 * hits, 2 * hits + false + missed]
    return np.stack(sides, axis=-1).reshape(len(counts), len(sides) // 2, 2)


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
    return FiringScores.from_confusion(count_firing(explanation, rows, actual, threshold=threshold))


def count_firing(
    explanation: Explanation,
    rows: Sequence[Sequence[int]],
    actual: Sequence[np.ndarray],
    *,
    threshold: float = 0.5,
) -> Confusion:
    """The counts behind `evaluate`, for those who pool them over units (`summarise_counts`)."""
    require_same_lengths(rows, actual)
    counts = [
        confusion(firing(a, threshold), firing(explanation.predict(r), threshold))
        for r, a in zip(rows, actual, strict=True)
    ]
    return Confusion(*map(sum, zip(*counts, strict=True))) if counts else Confusion(0, 0, 0, 0)


def require_same_lengths(rows: Sequence[Sequence[int]], actual: Sequence[np.ndarray]) -> None:
    """Raise `InputError` unless every row of tokens has a row of as many activations."""
    lengths, found = [len(row) for row in rows], [len(values) for values in actual]
    if lengths != found:
        raise InputError("activations to score", f"rows of {_listed(lengths)} tokens", f"rows of {_listed(found)}")


def _listed(lengths: list[int]) -> str:
    shown = ", ".join(map(str, lengths[:8]))
    return f"[{shown}, ... {len(lengths)} in all]" if len(lengths) > 8 else f"[{shown}]"
