"""Twins: features that say the same, counted, so that one behaviour does not count several times.

Two features of one basis are twins if their directions, or their activations over the text, have a cosine above a
bound. Opposite directions are none: features are one-sided.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor

from saelens_n2g.bases.base import AffineBasis, Basis

BLOCK = 1024
"""Features compared at once with all others."""


def directions(basis: Basis) -> Float[Tensor, "n d"] | None:
    """What each feature of a dictionary writes, or other directions read; None for coordinates, none of which is like
    another."""
    if not isinstance(basis, AffineBasis):
        return None
    found: Tensor = getattr(basis, "decoder", basis.weight)
    return found.detach().float().cpu()


def nearest(rows: Float[Tensor, "n d"]) -> Float32[np.ndarray, "n"]:
    """Per row the largest cosine to another row; -1 where there is no other."""
    unit = torch.nn.functional.normalize(rows, dim=1)
    found = torch.full((len(rows),), -1.0)
    for start in range(0, len(rows), BLOCK):
        cosines = unit[start : start + BLOCK] @ unit.T
        at = torch.arange(len(cosines))
        cosines[at, at + start] = -1.0
        found[start : start + BLOCK] = cosines.amax(dim=1)
    return found.numpy()


def earlier_twin(
    activations: Sequence[Float[np.ndarray, "window pos"]], rows: Float[Tensor, "k d"] | None, bound: float
) -> list[int | None]:
    """Per unit the first one before it that is its twin, in activations or in direction (`rows`); None without one."""
    values = [a.ravel() / max(float(np.linalg.norm(a)), 1e-30) for a in activations]
    lines = None if rows is None else torch.nn.functional.normalize(rows, dim=1).numpy()

    def alike(i: int, j: int) -> bool:
        return bool(values[i] @ values[j] > bound or (lines is not None and lines[i] @ lines[j] > bound))

    return [next((j for j in range(i) if alike(i, j)), None) for i in range(len(values))]
