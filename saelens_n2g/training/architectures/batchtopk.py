"""BatchTopK: the k B largest pre-activations of a whole batch of B rows (Bussmann et al. 2024).

Rows may then use as many features as they need. A single row has no batch to choose from: a threshold, the running mean
of the smallest value chosen, takes its place, and the dictionary is saved as JumpReLU with it. Where several processes
share a batch (`training.parallel`) each chooses among its own rows, and the threshold is the mean of theirs.
"""

from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from saelens_n2g.bases.formats import Dictionary
from saelens_n2g.training.architectures.functions import decode
from saelens_n2g.training.architectures.registry import register
from saelens_n2g.training.architectures.stated import Loss
from saelens_n2g.training.architectures.topk import AuxiliaryObjective, TopKOptions
from saelens_n2g.training.objective import Start

KEEP = 0.99
"""Share of the threshold that a step keeps."""


class ThresholdObjective(AuxiliaryObjective):
    """What BatchTopK and Matryoshka BatchTopK share: the choice over the batch, and the threshold."""

    def __init__(self, start: Start) -> None:
        super().__init__(start)
        self._threshold = torch.full((), -1.0, device=start.device, dtype=start.dtype)
        self._smallest = torch.zeros_like(self._threshold)

    def chosen(self, before: Float[Tensor, "b n"]) -> Bool[Tensor, "b n"]:
        """The k B largest that are positive."""
        active = largest(before, self.options.k * len(before))
        active &= before > 0
        self._smallest = before[active].min() if active.any() else self._smallest
        return active

    def after_step(self, loss: Loss, rows: int) -> None:
        """Move the threshold towards the smallest value chosen."""
        super().after_step(loss, rows)
        known = self._threshold >= 0
        moved = KEEP * self._threshold + (1 - KEEP) * self._smallest
        self._threshold.copy_(torch.where(known, moved, self._smallest))

    def more_state(self) -> dict[str, Tensor]:
        """See `StatedObjective.more_state`."""
        return {**super().more_state(), "threshold": self._threshold}

    def dictionary(self, mean: Float[Tensor, "d"], scale: float) -> Dictionary:
        """See `Objective.dictionary`; JumpReLU with the threshold for every feature."""
        threshold = (self._threshold.clamp(min=0) / scale).cpu().expand(self.start.n).contiguous()
        return replace(self.standard(mean, scale), architecture="jumprelu", threshold=threshold)


def largest(values: Float[Tensor, "b n"], k: int) -> Bool[Tensor, "b n"]:
    """Mask of the k largest entries of a matrix; of equal ones the first, read row by row."""
    flat = values.reshape(-1)
    k = min(k, flat.numel())
    if flat.device.type == "cpu":
        array = flat.numpy()
        bound = np.partition(array, len(array) - k)[len(array) - k].item()  # ten times as fast as torch.topk
    else:
        bound = torch.topk(flat, k, sorted=True).values[-1].item()
    mask = flat > bound
    ties = torch.nonzero(flat == bound).squeeze(1)
    mask[ties[: k - int(mask.sum())]] = True
    out: Tensor = mask.view(values.shape)
    return out


@register("batchtopk", "BatchTopK", options=TopKOptions, sparsity="k")
class BatchTopKObjective(ThresholdObjective):
    """See the module's text."""

    def loss(self, y: Float[Tensor, "b d"]) -> Loss:
        """See `StatedObjective.loss`."""
        before = self.before(y)
        pattern = self.pattern(self.chosen(before))
        error = decode(self.coded(y, before, pattern), self.unit_decoder(), pattern) + self.parameters["offset"] - y
        return Loss(error.square().mean(), self.auxiliary(y, error), pattern.fired())
