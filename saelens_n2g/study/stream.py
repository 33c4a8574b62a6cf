"""What a layer's residual stream does by itself, and every unit of it inherits: massive activations, and its spread.

    stream = Stream.of(activations, fit, windows)       # (token, d) of the scored tokens
    stream.share(firing, rows)                          # of a unit's firing positions, how many are massive
    stream.spread(directions)                           # how much the stream varies along what a unit reads

A few positions of deep layers lie many times as far from the mean as all others ("massive activations", Sun et al.
2024); half of all directions point to their side, fire on them alone, and are then explained by what those tokens are.
And a direction along which the stream varies little is a harder thing to predict, whatever basis it is from.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from saelens_n2g.activations import on_grid
from saelens_n2g.bases.base import AffineBasis, Basis
from saelens_n2g.corpus import Windows
from saelens_n2g.training.metrics import typical_limit
from saelens_n2g.training.rows import ArrayRows, chunks


@dataclass(frozen=True, eq=False)
class Stream:
    """The stream of one layer, as far as its units have it in common."""

    massive: Bool[np.ndarray, "window pos"]
    """Scored positions farther from the mean of the fit documents than `training.metrics.TYPICAL` times the median."""
    tokens: float
    """Share of the scored tokens of the fit documents that are massive."""
    square: float
    """Their share of the squared distance from the mean."""
    _typical: Float[Tensor, "row d"]
    """The other activations of the fit documents, from their own mean."""

    @classmethod
    def of(cls, rows: Float[Tensor, "token d"], fit: Bool[np.ndarray, "token"], windows: Windows) -> "Stream":
        """Of the activations on every scored token of `windows`; `fit` marks those of the fit documents."""
        inside = rows[torch.from_numpy(fit)]
        mean = inside.mean(0)
        limit = typical_limit(ArrayRows(inside), mean)
        apart = torch.cat([torch.linalg.vector_norm(chunk - mean, dim=1) for chunk in chunks(ArrayRows(rows))])
        far = (apart > limit).numpy()
        square = apart.double().square().numpy()
        typical = inside[torch.from_numpy(~far[fit])]
        return cls(
            on_grid(far[:, None].astype(np.float32), windows)[..., 0] > 0,
            float(far[fit].mean()),
            float(square[fit & far].sum() / max(square[fit].sum(), 1e-30)),
            typical - typical.mean(0),
        )

    def share(self, firing: Bool[np.ndarray, "window pos"], rows: Int[np.ndarray, "r"]) -> float:
        """Of the positions in the windows `rows` on which a unit fires, the share that is massive; 0 without any."""
        inside = firing[rows]
        return float((inside & self.massive[rows]).sum() / max(int(inside.sum()), 1))

    def spread(self, directions: Float[Tensor, "k d"]) -> list[float]:
        """Variance along each direction over the mean variance of a dimension, without massive activations.

        The mean over random directions is 1, as that over the axes of any rotation is.
        """
        unit = torch.nn.functional.normalize(directions, dim=1)
        along, whole = torch.zeros(len(unit), dtype=torch.float64), 0.0
        for chunk in chunks(ArrayRows(self._typical)):
            along += (chunk @ unit.T).double().square().sum(0)
            whole += chunk.double().square().sum().item()
        return [value * directions.shape[1] / max(whole, 1e-30) for value in along.tolist()]


def reading(basis: Basis, indices: list[int]) -> Float[Tensor, "k d"] | None:
    """The directions that units read; None for coordinates of another place (neurons)."""
    return basis.weight[indices].detach().float().cpu() if isinstance(basis, AffineBasis) else None
