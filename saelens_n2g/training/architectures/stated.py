"""StatedObjective: an architecture that states its loss and leaves the gradient to autograd.

All of them encode `pre = (y - offset) E^T + b`, choose which features are active, and decode with unit rows:
`y^ = c D + offset`, D being the rows of the parameter `decoder` divided by their norms, so that no feature can get
around a sparsity term by shrinking itself (Rajamanoharan et al. 2024 among others project instead). Batches are
centred with the mean of all activations, so the offset starts at zero. E starts as the transpose of the decoder
(Gao et al. 2024, appendix A.1).

A feature that begins again (`architectures.resampling`) gets a decoder row of norm 1, as at the start, so that it
turns as it did then, and an encoder row of a fifth of the living ones' norm, so that it is weak at first.
"""

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from saelens_n2g.bases.formats import Dictionary
from saelens_n2g.errors import InputError
from saelens_n2g.training.architectures.functions import unit_rows
from saelens_n2g.training.architectures.resampling import (
    WEAK,
    Replacement,
    Resampling,
    begin_again,
    resampling_of,
)
from saelens_n2g.training.objective import (
    Start,
    StepMetrics,
    adam_state,
    generator,
    load_adam_state,
    over_processes,
    variance,
)
from saelens_n2g.training.products import product
from saelens_n2g.training.sparse import DENSEST, Pattern, pattern_of


class Loss(NamedTuple):
    """A loss with what it is made of."""

    mse: Float[Tensor, ""]
    """Of the whole reconstruction, averaged over batch and dimensions."""
    parts: dict[str, Float[Tensor, ""]]
    """What is added, weights included."""
    fired: Float[Tensor, "n"]
    """On how many rows each feature was above zero."""
    error: Float[Tensor, "b d"] | None = None
    """`y^ - y`, where the architecture's dead features may begin again."""


class StatedObjective(ABC):
    """See the module's text. Parameters: `encoder` (n, d), `bias` (n,), `decoder` (n, d), `offset` (d,), and what an
    architecture adds in `more_parameters`."""

    densest = DENSEST
    """Share of active features up to which the sparse way is taken, where there are kernels for it."""

    def __init__(self, start: Start) -> None:
        if start.compile:
            name = type(self).__name__.removesuffix("Objective").lower()
            raise InputError("training option compile", "an architecture written by hand (tied)", name)
        self.start, self.alpha = start, start.alpha
        rows = torch.nn.functional.normalize(torch.randn(start.n, start.d, generator=generator(start.seed)), dim=1)
        zeros = torch.zeros
        first = {"encoder": rows, "bias": zeros(start.n), "decoder": rows.clone(), "offset": zeros(start.d)}
        first |= self.more_parameters()
        self.parameters = {name: value.to(start.device, start.dtype).requires_grad_() for name, value in first.items()}
        self._adam = torch.optim.Adam(list(self.parameters.values()), lr=start.lr, betas=start.betas, fused=True)
        self._before = torch.empty(0, start.n, device=start.device, dtype=start.dtype)
        self._resampling = resampling_of(start)

    def more_parameters(self) -> dict[str, Tensor]:
        """Parameters beside the four, with their first values."""
        return {}

    @abstractmethod
    def loss(self, y: Float[Tensor, "b d"]) -> Loss:
        """The loss of a batch, differentiable in the parameters."""

    def after_step(self, loss: Loss, rows: int) -> None:  # noqa: B027  (nothing to do is the rule)
        """What else changes with a step. `loss.fired` and `rows` are those of the whole batch, also where several
        processes have a part of it each; all else is of this one's part."""

    def more_state(self) -> dict[str, Tensor]:
        """What the next step depends on beside the parameters and the optimiser; loaded in place. Where several
        processes train, floating-point numbers become their means after every step."""
        return {}

    @property
    def lr(self) -> float:
        """The optimiser's learning rate."""
        return float(self._adam.param_groups[0]["lr"])

    @lr.setter
    def lr(self, value: float) -> None:
        for group in self._adam.param_groups:
            group["lr"] = value

    @torch.no_grad()
    def before(self, y: Float[Tensor, "b d"], bias: str = "bias") -> Float[Tensor, "b n"]:
        """All pre-activations, in a buffer that the next step reuses."""
        if len(self._before) != len(y):
            self._before = torch.empty(len(y), self.start.n, device=y.device, dtype=y.dtype)
        encoder, offset = self.parameters["encoder"], self.parameters["offset"]
        if self.start.operands is not None:
            found = product(y - offset, encoder.T, self.start.operands)
            return torch.add(found, self.parameters[bias], out=self._before)
        return torch.addmm(self.parameters[bias], y - offset, encoder.T, out=self._before)

    def pattern(self, active: Bool[Tensor, "b n"]) -> Pattern:
        """The pattern of a mask."""
        return pattern_of(active, densest=self.densest, operands=self.start.operands)

    def unit_decoder(self) -> Float[Tensor, "n d"]:
        """D: rows of norm 1; differentiable."""
        return unit_rows(self.parameters["decoder"])

    def step(self, batch: Float[Tensor, "b d"]) -> StepMetrics:
        """One Adam step on one batch."""
        found = self.gradients(batch)
        metrics = over_processes(self.start.group, self._metrics(found, batch), self._grads(), batch)
        new = None if self._resampling is None else self._look(self._resampling, metrics.fired, found, batch)
        self._adam.step()
        with torch.no_grad():
            self.after_step(found._replace(fired=metrics.fired), len(batch) * self.start.group.size)
            self.start.group.mean_([tensor for tensor in self.more_state().values() if tensor.is_floating_point()])
            if new is not None:
                self._begin_again(new)
        return metrics if self._resampling is None else metrics._replace(resampled=self._resampling.total)

    @torch.no_grad()
    def _look(
        self, resampling: Resampling, fired: Float[Tensor, "n"], found: Loss, batch: Float[Tensor, "b d"]
    ) -> Replacement | None:
        """Which dead features are due, and where they go."""
        assert found.error is not None
        error = found.error

        def losses() -> Float[Tensor, "b"]:
            # The L1 term acts on what is positive before a gate, if there is one: that is in the buffer of this step.
            return error.square().mean(1) + self.alpha * torch.relu(self._before).sum(1)

        return resampling.look(fired, batch - self.parameters["offset"], losses)

    def _begin_again(self, new: Replacement) -> None:
        """Dead features take new directions; what an architecture adds of its own is as at the start."""
        own = self.parameters
        length = WEAK * own["encoder"][new.living].norm(dim=1).mean()
        first: dict[str, Tensor | float] = {"encoder": length * new.directions, "decoder": new.directions, "bias": 0.0}
        first |= {name: value.to(new.directions)[new.features] for name, value in self.more_parameters().items()}
        for name, value in first.items():
            begin_again(self._adam, own[name], new.features, value)

    def _metrics(self, found: Loss, batch: Float[Tensor, "b d"]) -> StepMetrics:
        parts = {name: part.detach() for name, part in found.parts.items()}
        return StepMetrics(found.mse.detach(), parts, found.fired.sum() / len(batch), variance(batch), found.fired)

    def _grads(self) -> list[Tensor]:
        """Which parameters have a gradient follows from what all processes share."""
        return [parameter.grad for parameter in self.parameters.values() if parameter.grad is not None]

    def gradients(self, batch: Float[Tensor, "b d"]) -> Loss:
        """Leave the loss's gradients in the parameters' `.grad`, without an update."""
        self._adam.zero_grad(set_to_none=True)
        found = self.loss(batch)
        torch.autograd.backward(found.mse + sum(found.parts.values()))
        return found

    def state(self) -> dict[str, Tensor]:
        """Parameters, Adam's moments and step counters, `more_state`, and what resampling counts."""
        own = adam_state(self._adam, self.parameters) | self.more_state()
        return own if self._resampling is None else own | self._resampling.state()

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Inverse of `state`."""
        load_adam_state(self._adam, self.parameters, state)
        for name, tensor in self.more_state().items():
            tensor.copy_(state[name])
        if self._resampling is not None:
            self._resampling.load_state(state)

    def standard(self, mean: Float[Tensor, "d"], scale: float) -> Dictionary:
        """The weights for raw activations, on the CPU, as a ReLU dictionary: relu(s z) = s relu(z) for s > 0."""
        own = {name: value.detach().cpu() for name, value in self.parameters.items()}
        return Dictionary(
            W_enc=own["encoder"].T.contiguous(),
            b_enc=own["bias"] / scale,
            W_dec=self.unit_decoder().detach().cpu().clone(),
            b_dec=mean.cpu() + own["offset"] / scale,
        )

    @abstractmethod
    def dictionary(self, mean: Float[Tensor, "d"], scale: float) -> Dictionary:
        """See `Objective.dictionary`."""
