"""Calibration: from what a simulator says to the activations it stands for, fitted on excerpts that are held back.

    none        as predicted
    linear      least squares of true on simulated (Bills et al. 2023; their LinearCalibratedNeuronSimulator)
    percentile  the simulated value at a quantile becomes the true value at that quantile (their percentile matching)

What changes by it, and what does not:

    ==================  ==============================================  =====================================
    score               linear, slope above 0                           percentile
    ==================  ==============================================  =====================================
    correlation         stays                                           changes
    AUPRC, AUC          stay                                            stay where no two values become one
    cosine              changes, unless the intercept is 0              changes
    F1, R2, deviation,  change                                          change
    detection's F1
    ==================  ==============================================  =====================================

With a slope below 0 correlation changes its sign, with a slope of 0 nothing is left of the prediction.
"""

from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float

from saelens_n2g.errors import InputError

Values = Float[np.ndarray, "value"]
Method = Literal["none", "linear", "percentile"]
METHODS: tuple[Method, ...] = ("none", "linear", "percentile")


class Line(NamedTuple):
    """slope * x + intercept, of arrays of any shape."""

    slope: float
    intercept: float

    def __call__(self, simulated: np.ndarray) -> np.ndarray:
        return np.asarray(self.slope * simulated + self.intercept)


class Quantiles(NamedTuple):
    """Piecewise linear through pairs of quantiles; flat beyond them."""

    simulated: np.ndarray
    """Distinct values, ascending."""
    true: np.ndarray

    def __call__(self, simulated: np.ndarray) -> np.ndarray:
        return np.asarray(np.interp(simulated, self.simulated, self.true))


Map = Line | Quantiles
"""From simulated to expected true values, arrays of any shape."""


def fit(method: Method, simulated: Values, true: Values) -> Map:
    """The map of that method. Raises `InputError` where there is nothing to fit it on, or the lengths differ."""
    if method == "none":
        return Line(1.0, 0.0)
    if simulated.shape != true.shape or simulated.size == 0:
        found = f"{simulated.size} and {true.size}"
        raise InputError("calibration", "as many simulated as true activations, at least one", found)
    return _line(simulated, true) if method == "linear" else _quantiles(simulated, true)


def _line(simulated: Values, true: Values) -> Line:
    """Least squares; a prediction that is the same everywhere gives the mean."""
    if simulated.min() == simulated.max():
        return Line(0.0, float(true.mean()))
    x, y = simulated - simulated.mean(), true - true.mean()
    slope = float((x * y).sum() / (x * x).sum())
    return Line(slope, float(true.mean() - slope * simulated.mean()))


def _quantiles(simulated: Values, true: Values) -> Quantiles:
    """Both sides sorted; where many simulated values are equal, the mean of the true ones at their quantiles, since a
    map gives one value for each."""
    values, inverse, counts = np.unique(simulated, return_inverse=True, return_counts=True)
    order = np.sort(inverse)  # the distinct value at each place of the sorted simulated ones
    return Quantiles(values, np.bincount(order, weights=np.sort(true)) / counts)
