"""JumpReLU: a learnt threshold for every feature (Rajamanoharan et al. 2024b).

    c = pre where pre > theta, else 0;  loss = mean squared error + alpha * mean number of active features

Neither c nor the number of active features has a useful derivative by theta; both get that of the paper's section 4, a
window of width `bandwidth` around the threshold. alpha is on the scale of an error averaged over dimensions: where
the error is summed (SAELens' l0_coefficient) the same objective has alpha * d_in.
"""

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from saelens_n2g.bases.formats import Dictionary
from saelens_n2g.errors import InputError
from saelens_n2g.training.architectures.functions import decode, encode
from saelens_n2g.training.architectures.registry import register
from saelens_n2g.training.architectures.stated import Loss, StatedObjective
from saelens_n2g.training.objective import Start


@dataclass(frozen=True)
class JumpReluOptions:
    """Settings. Raises `InputError` on impossible values."""

    threshold: float = 0.1
    """First threshold of every feature, where activations have a root mean square of 1 per dimension."""
    bandwidth: float = 0.2
    """Width of the window in which thresholds feel a gradient, on the same scale."""

    def __post_init__(self) -> None:
        if not (self.threshold > 0 and self.bandwidth > 0):
            raise InputError("options threshold and bandwidth", "numbers > 0", f"{self.threshold}, {self.bandwidth}")


class _Jump(torch.autograd.Function):
    """v where v > theta, else 0."""

    @staticmethod
    def forward(ctx: Any, v: Tensor, theta: Tensor, bandwidth: float) -> Tensor:
        ctx.save_for_backward(v, theta)
        ctx.bandwidth = bandwidth
        return v * (v > theta)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        v, theta = ctx.saved_tensors
        return grads[0] * (v > theta), -theta * _window(v - theta, ctx.bandwidth) * grads[0], None


class _Active(torch.autograd.Function):
    """1 where v > theta, else 0."""

    @staticmethod
    def forward(ctx: Any, v: Tensor, theta: Tensor, bandwidth: float) -> Tensor:
        ctx.save_for_backward(v, theta)
        ctx.bandwidth = bandwidth
        return (v > theta).to(v.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, Tensor, None]:
        v, theta = ctx.saved_tensors
        return None, -_window(v - theta, ctx.bandwidth) * grads[0], None


def _window(z: Tensor, bandwidth: float) -> Tensor:
    """The rectangle of area 1 around 0."""
    return (z.abs() < bandwidth / 2).to(z.dtype) / bandwidth


@register("jumprelu", "JumpReLU", options=JumpReluOptions)
class JumpReluObjective(StatedObjective):
    """See the module's text. Learns the logarithm of the thresholds, so that they stay positive."""

    def __init__(self, start: Start) -> None:
        self.options: JumpReluOptions = start.options or JumpReluOptions()
        super().__init__(start)

    def more_parameters(self) -> dict[str, Tensor]:
        """The logarithms of the thresholds."""
        return {"log_threshold": torch.full((self.start.n,), math.log(self.options.threshold))}

    def loss(self, y: Float[Tensor, "b d"]) -> Loss:
        """See `StatedObjective.loss`."""
        own, width = self.parameters, self.options.bandwidth
        before, threshold = self.before(y), own["log_threshold"].exp()
        # What is positive and above the threshold's window from below: nothing else has a value or a gradient.
        pattern = self.pattern(before > (threshold.detach() - width / 2).clamp(min=0))
        near = encode(y, own["encoder"], own["bias"], own["offset"], before, pattern)
        at = pattern.spread(threshold)
        code = _Jump.apply(near, at, width)
        active = pattern.masked(_Active.apply(near, at, width))
        error = decode(code, self.unit_decoder(), pattern) + own["offset"] - y
        fired = pattern.by_feature(active.detach())
        return Loss(error.square().mean(), {"l0_loss": self.alpha * active.sum() / len(y)}, fired)

    def dictionary(self, mean: Float[Tensor, "d"], scale: float) -> Dictionary:
        """See `Objective.dictionary`."""
        threshold = (self.parameters["log_threshold"].detach().exp() / scale).cpu()
        return replace(self.standard(mean, scale), architecture="jumprelu", threshold=threshold)
