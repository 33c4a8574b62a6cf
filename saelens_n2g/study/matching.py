"""Matching: which units of two bases are alike enough in how often they fire, and in what is known of them, to compare.

A basis whose units fire a hundred times as often gives its graphs a hundred times the evidence; a difference of means
is then no difference of bases. Here units are paired one to one within a caliper, as many pairs as there can be, and
of all such pairings the one whose pairs are closest (after Rosenbaum 1989, "Optimal matching for observational
studies"). Units without a partner are left out, so a matched difference speaks of the region where both bases have
units; how many found one is part of the result.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Traits(NamedTuple):
    """What units are matched on."""

    density: float
    """Share of the fit tokens on which the unit fires, above 0."""
    exemplars: int
    """Fit windows with a firing token, of those that the unit's graph is fitted to."""


def match(a: Sequence[Traits], b: Sequence[Traits], *, caliper: float, exemplar_caliper: int) -> list[tuple[int, int]]:
    """Pairs (place in `a`, place in `b`), each unit in one pair at most, by place in `a`.

    Pairs are at most `caliper` decades (log10) of density and at most `exemplar_caliper` exemplars apart. Of all
    pairings with the most pairs the one with the least sum of distances: decades over the caliper, plus exemplars over
    one more than theirs.
    """
    if not a or not b:
        return []
    from scipy.optimize import linear_sum_assignment

    density = np.abs(np.subtract.outer([math.log10(t.density) for t in a], [math.log10(t.density) for t in b]))
    exemplars = np.abs(np.subtract.outer([t.exemplars for t in a], [t.exemplars for t in b]))
    near = (density <= caliper) & (exemplars <= exemplar_caliper)
    distance = density / caliper + exemplars / (exemplar_caliper + 1)
    # A pair that may not be costs more than all pairs that may be together, so that none is given up for closeness.
    forbidden = 4.0 * (min(len(a), len(b)) + 1)
    rows, columns = linear_sum_assignment(np.where(near, distance, forbidden))
    return [(int(i), int(j)) for i, j in zip(rows, columns, strict=True) if near[i, j]]


def cliffs_delta(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Cliff's delta (1993): the chance that a value of `a` is above one of `b`, less the chance that it is below.

    From -1 to 1; None where a side is empty.
    """
    if not a or not b:
        return None
    signs = np.sign(np.subtract.outer(np.array(a, dtype=np.float64), np.array(b, dtype=np.float64)))
    return float(signs.mean())
