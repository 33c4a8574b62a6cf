"""How much, not whether: scores of predicted activations that need no threshold on the prediction.

    tokens = pooled(graph, rows, actual)                      # predict once, score often
    average_precision(firing(tokens.actual), tokens.predicted)
    correlation(*tokens)

Both ask only for order or proportion, so predictions may be in any unit. Correlation is Bills et al.'s 2023 score
of an explanation: Pearson's r over the tokens of all windows together, not the mean of the windows' own. They take
it on random windows and on strong and random windows in equal numbers; `window_sets` chooses these:

    sets = window_sets(top, population, seed=0)               # indices of windows
    r = {name: evaluate_correlation(graph, [rows[i] for i in chosen], [actual[i] for i in chosen])
         for name, chosen in sets._asdict().items()}

Read the figure on random windows first: strong windows are chosen by the activation that is to be predicted, so
telling them from random ones already earns some correlation. (Bills et al. keep negative activations of neurons;
here units are non-negative throughout.)
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float64, Int64, Shaped

from saelens_n2g.errors import InputError
from saelens_n2g.explanations.base import Explanation
from saelens_n2g.scoring.counts import firing, require_same_lengths, require_same_shape


class Tokens(NamedTuple):
    """All tokens of all texts of a unit, one after the other; both arrays of shape (token,)."""

    actual: np.ndarray
    """Normalised activation."""
    predicted: np.ndarray
    """What the explanation says it is."""


def pooled(explanation: Explanation, rows: Sequence[Sequence[int]], actual: Sequence[np.ndarray]) -> Tokens:
    """Predict every row by itself and join all of them.

    `rows` are token ids without BOS and padding, `actual` the normalised activation of each of their tokens. Raises
    `InputError` if the two, or a row and its prediction, do not go together.
    """
    require_same_lengths(rows, actual)
    if not rows:
        return Tokens(np.zeros(0), np.zeros(0))
    predicted = [explanation.predict(row) for row in rows]
    for a, p in zip(actual, predicted, strict=True):
        require_same_shape(a, p)
    return Tokens(np.concatenate(actual), np.concatenate(predicted))


def average_precision(actual: Shaped[np.ndarray, "..."], predicted: Float[np.ndarray, "..."]) -> float | None:
    """Area under the precision-recall curve: how well predictions rank the firing tokens before the quiet ones.

    `actual` says which tokens fire (boolean), `predicted` how much they should; any one shape. The precision at each
    predicted value, weighted by the share of the firing tokens that have this value (Boyd et al. 2013, without
    interpolation): tokens of equal prediction enter together, as one step, so their order does not matter. Hence a
    prediction that is the same everywhere gets the share of tokens that fire. None where no token fires.

    Raises `InputError` if the shapes differ, `actual` is not boolean or a prediction is no finite number.
    """
    if actual.dtype != np.bool_:
        raise InputError("firing tokens", "a boolean array", str(actual.dtype))
    require_same_shape(actual, predicted)
    _require_finite("predicted tokens", predicted)
    values, hits = np.unique(predicted[actual], return_counts=True)  # ascending; the curve steps at no other value
    if len(values) == 0:
        return None
    at_least = predicted.size - np.searchsorted(np.sort(predicted, axis=None), values)
    found = hits[::-1].cumsum()[::-1]
    return float((hits * found / at_least).sum() / found[0])


def correlation(actual: Float[np.ndarray, "..."], predicted: Float[np.ndarray, "..."]) -> float | None:
    """Pearson's r in [-1, 1] over all values; None where a side is the same everywhere.

    Raises `InputError` if the shapes differ or a value is no finite number.
    """
    require_same_shape(actual, predicted)
    _require_finite("actual tokens", actual)
    _require_finite("predicted tokens", predicted)
    if actual.size == 0 or actual.min() == actual.max() or predicted.min() == predicted.max():
        return None
    a, p = _centred(actual), _centred(predicted)
    r = (a * p).sum() / np.sqrt((a * a).sum() * (p * p).sum())
    return float(min(max(r, -1.0), 1.0))


def _centred(values: Float[np.ndarray, "..."]) -> Float64[np.ndarray, "..."]:
    """Deviations from the mean in units of the largest, so that squares of tiny activations do not vanish."""
    deviations = values - values.mean(dtype=np.float64)
    return np.asarray(deviations / np.abs(deviations).max())


def _require_finite(thing: str, values: Float[np.ndarray, "..."]) -> None:
    if not np.isfinite(values).all():
        raise InputError(thing, "finite numbers", str(values[~np.isfinite(values)][0]))


@dataclass(frozen=True)
class GradedScores:
    """One unit's scores without a threshold on the prediction; None where undefined (`saelens_n2g.scoring`)."""

    auprc: float | None
    """`average_precision` of the predictions against firing, in [0, 1]; the share of firing tokens is chance."""
    correlation: float | None
    """`correlation` of predicted and actual activation, in [-1, 1]; None where nothing is predicted."""

    @classmethod
    def from_tokens(cls, tokens: Tokens, *, threshold: float = 0.5) -> "GradedScores":
        """Both scores; a token fires where its activation is at least `threshold`. Raises as the two functions do."""
        return cls(average_precision(firing(tokens.actual, threshold), tokens.predicted), correlation(*tokens))

    def as_dict(self) -> dict[str, float | None]:
        """Metric name -> value, in the order of the fields."""
        return asdict(self)


def evaluate_graded(
    explanation: Explanation,
    rows: Sequence[Sequence[int]],
    actual: Sequence[np.ndarray],
    *,
    threshold: float = 0.5,
) -> GradedScores:
    """AUPRC and correlation of an explanation on texts of one unit; arguments and errors of `pooled`."""
    return GradedScores.from_tokens(pooled(explanation, rows, actual), threshold=threshold)


def evaluate_correlation(
    explanation: Explanation, rows: Sequence[Sequence[int]], actual: Sequence[np.ndarray]
) -> float | None:
    """Bills et al.'s score of an explanation on the windows that are passed; arguments and errors of `pooled`."""
    return correlation(*pooled(explanation, rows, actual))


class WindowSets(NamedTuple):
    """The three choices of windows on which correlation is reported; arrays of window indices."""

    top: np.ndarray
    """The unit's strongest windows, as passed."""
    random: np.ndarray
    """The population, as passed."""
    top_and_random: np.ndarray
    """As many strong windows, strongest first, as others drawn from the population."""


def window_sets(top: Int64[np.ndarray, "t"], population: Int64[np.ndarray, "w"], *, seed: int) -> WindowSets:
    """Windows for the correlation of one unit, after Bills et al. 2023: strong, random, and half and half.

    `top` are the indices of its strongest windows, strongest first, `population` those of a random sample of windows
    that was drawn without looking at activations (all windows of the test documents, for one). The random half of
    the mixture is drawn from the windows that are not strong, so that none counts twice, and does not depend on the
    order of `population`. Where too few are left the strong half is cut to the same number.
    """
    others = np.setdiff1d(population, top)
    n = min(len(top), len(others))
    drawn = np.sort(np.random.default_rng(seed).choice(others, size=n, replace=False)) if n else others[:0]
    return WindowSets(top, population, np.concatenate([top[:n], drawn]))
