"""Scores of predicted activations, token by token: the ones of Bills et al. 2023, and those that pass sanity checks.

    set             excerpts
    ==============  ===================================================================================================
    top             strong ones: how well the strength of a firing unit is told
    random          a uniform sample of the text: the population, with few firing tokens
    top_and_random  as many of the one as of the other: Bills et al.'s score

All tokens of all excerpts of a set are joined before anything is computed; it is not the mean of excerpts' own scores.
What is undefined is None, with the reason, never 0.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from saelens_n2g.autointerp.excerpts import Excerpt, balanced
from saelens_n2g.errors import InputError
from saelens_n2g.scoring import average_precision, confusion, correlation, firing

SETS = ("top", "random", "top_and_random")
METRICS = ("correlation", "auprc", "f1", "cosine", "r2", "r2_uncentred", "deviation")
"""`correlation` is Bills et al.'s score; `r2_uncentred` and `deviation` (absolute deviation explained) are as their
code has them, `r2` is the usual one."""

Values = Float[np.ndarray, "value"]


class SetScores(NamedTuple):
    """How well the activations of one set of excerpts are predicted."""

    values: Mapping[str, float | None]
    """Metric of `METRICS` -> value; None where it is undefined."""
    undefined: Mapping[str, str]
    """Metric -> why, for those."""
    excerpts: int
    tokens: int
    firing: int
    """Tokens that fire."""

    def as_dict(self) -> dict[str, Any]:
        """Field -> value."""
        return {**self._asdict(), "values": dict(self.values), "undefined": dict(self.undefined)}


def sets_of(excerpts: Sequence[Excerpt]) -> dict[str, list[Excerpt]]:
    """Set -> its excerpts, out of test excerpts of both kinds."""
    top, random = ([e for e in excerpts if e.kind == kind] for kind in ("top", "random"))
    return dict(zip(SETS, (top, random, balanced(top, random)), strict=True))


def score_tokens(actual: Values, predicted: Values, threshold: float, excerpts: int = 1) -> SetScores:
    """All scores of the joined tokens of some excerpts, of which a token fires from `threshold` on.

    Raises `InputError` if the lengths differ or a value is no finite number.
    """
    if actual.shape != predicted.shape or not (np.isfinite(actual).all() and np.isfinite(predicted).all()):
        raise InputError("predicted tokens", f"{actual.size} finite numbers", f"{predicted.size}, or not finite")
    fires = firing(actual, threshold)
    found = {
        "correlation": correlation(actual, predicted),
        "auprc": average_precision(fires, predicted),
        "f1": _f1(fires, firing(predicted, threshold)),
        "cosine": cosine(actual, predicted),
        "r2": r2(actual, predicted),
        "r2_uncentred": r2_uncentred(actual, predicted),
        "deviation": deviation_explained(actual, predicted),
    }
    why = {name: _why(name, actual) for name, value in found.items() if value is None}
    return SetScores(found, why, excerpts, int(actual.size), int(fires.sum()))


def _f1(actual: np.ndarray, predicted: np.ndarray) -> float | None:
    """None where neither fires nor is predicted anything."""
    counts = confusion(actual, predicted)
    whole = 2 * counts.tp + counts.fp + counts.fn
    return 2 * counts.tp / whole if whole else None


def _why(metric: str, actual: Values) -> str:
    """Why a metric is undefined."""
    if actual.size == 0:
        return "no excerpt"
    if metric == "auprc":
        return "no token fires"
    if metric == "f1":
        return "no token fires, and none is predicted to"
    if metric == "correlation" and actual.min() != actual.max():
        return "predicted the same everywhere"
    if metric == "cosine" and actual.any():
        return "predicted 0 everywhere"
    return "the activation is the same everywhere"


def cosine(actual: Values, predicted: Values) -> float | None:
    """Cosine of the two as vectors; None where one is 0 everywhere."""
    if not (actual.any() and predicted.any()):
        return None
    a, p = actual / np.abs(actual).max(), predicted / np.abs(predicted).max()  # so that no square vanishes
    return float((a * p).sum() / np.sqrt((a * a).sum() * (p * p).sum()))


def r2(actual: Values, predicted: Values) -> float | None:
    """1 - mean squared error / variance: at most 1, and 0 for the mean everywhere. None where all are the same."""
    if actual.size == 0 or actual.min() == actual.max():
        return None
    return float(1 - ((actual - predicted) ** 2).mean() / actual.var())


def r2_uncentred(actual: Values, predicted: Values) -> float | None:
    """1 - mean squared error / mean square, as Bills et al.'s code computes it: 0 for predicting 0 everywhere, and
    above the centred one. None where nothing is above 0."""
    if not actual.any():
        return None
    return float(1 - ((actual - predicted) ** 2).mean() / (actual**2).mean())


def deviation_explained(actual: Values, predicted: Values) -> float | None:
    """1 - mean |error| / mean |activation|: 0 for predicting 0 everywhere. None where nothing is above 0."""
    if not actual.any():
        return None
    return float(1 - np.abs(actual - predicted).mean() / np.abs(actual).mean())
