"""Means over several layers, with bootstrap intervals that resample units within their layer.

Layers are chosen by the one who asks, not drawn, so they stay as they are in every resample (stratified bootstrap,
Davison and Hinkley 1997, section 3.2). A layer with less than `LEAST` units would hardly vary by itself, and the
interval would promise what it cannot hold; such layers are drawn from together.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64

from saelens_n2g.scoring import Summary

LEAST = 3
"""Units of a layer from which on it is resampled by itself."""
RESAMPLES = 2000
NOTHING = Summary(None, None, None, None, 0)


def stratified(layers: Sequence[Sequence[float | None]], *, seed: int) -> Summary:
    """Mean over all defined values, every one weighing alike, and its 95 % interval with units resampled per layer."""
    known = [[v for v in values if v is not None] for values in layers]
    small = [v for values in known if len(values) < LEAST for v in values]
    strata = [np.sort(np.array(s)) for s in (*(v for v in known if len(v) >= LEAST), small) if s]
    n = sum(map(len, strata))
    if n == 0:
        return NOTHING
    rng = np.random.default_rng(seed)
    sums = sum((_resampled(stratum, rng) * len(stratum) for stratum in strata), start=np.zeros(RESAMPLES))
    low, high = np.percentile(sums / n, [2.5, 97.5])
    every = np.concatenate(strata)
    return Summary(float(every.mean()), float(low), float(high), float(np.median(every)), n)


def gap(a: Sequence[Sequence[float | None]], b: Sequence[Sequence[float | None]], *, seed: int) -> Summary:
    """Mean over layers of (mean of `a` - mean of `b`), with its 95 % interval; both resampled by themselves per layer.

    Layers in which a side has less than `LEAST` defined values are left out; `n` is the smaller number of units of
    the two in those that are not.
    """
    sides = [([v for v in x if v is not None], [v for v in y if v is not None]) for x, y in zip(a, b, strict=True)]
    kept = [(np.sort(np.array(x)), np.sort(np.array(y))) for x, y in sides if min(len(x), len(y)) >= LEAST]
    if not kept:
        return NOTHING
    rng = np.random.default_rng(seed)
    draws = [_resampled(x, rng) - _resampled(y, rng) for x, y in kept]
    low, high = np.percentile(np.mean(draws, axis=0), [2.5, 97.5])
    mean = float(np.mean([x.mean() - y.mean() for x, y in kept]))
    return Summary(mean, float(low), float(high), None, min(sum(len(x) for x, _ in kept), sum(len(y) for _, y in kept)))


def _resampled(values: Float64[np.ndarray, "unit"], rng: np.random.Generator) -> Float64[np.ndarray, "resample"]:
    """Means of `RESAMPLES` draws of as many values as there are."""
    return np.asarray(values[rng.integers(0, len(values), size=(RESAMPLES, len(values)))].mean(axis=1))
