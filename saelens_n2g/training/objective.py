"""Objective: what the training loop drives, whatever the architecture."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from saelens_n2g.bases.formats import Dictionary
from saelens_n2g.training.parallel import SINGLE, Group


class StepMetrics(NamedTuple):
    """What one step saw, before its update. All tensors but `fired` are 0-d, so that reading them is the caller's
    choice: on an accelerator it waits for the device."""

    mse: Float[Tensor, ""]
    """Mean over batch and dimensions of the squared error, on the scale trained at."""
    parts: Mapping[str, Float[Tensor, ""]]
    """What is added to it in the loss, weights included, under SAELens' names: `l1_loss`, `l0_loss`,
    `auxiliary_reconstruction_loss`."""
    l0: Float[Tensor, ""]
    """Mean number of features above zero."""
    variance: Float[Tensor, ""]
    """Mean over dimensions of the batch's variance about its own mean: `1 - mse / variance` is explained."""
    fired: Float[Tensor, "n"]
    """In how many rows of the batch each feature was above zero."""
    resampled: int | None = None
    """Dead features that have been given a new start so far; None where none ever is."""

    @property
    def loss(self) -> Float[Tensor, ""]:
        """The whole loss."""
        return self.mse + sum(self.parts.values())


class Objective(Protocol):
    """What the loop trains: anything with a step and a state that can be stored."""

    alpha: float
    """Weight of the sparsity term; the loop may change it between steps. Ignored where there is no such term."""

    @property
    def lr(self) -> float:
        """The optimiser's learning rate; the loop may change it between steps."""
        ...

    @lr.setter
    def lr(self, value: float) -> None: ...

    def step(self, batch: Float[Tensor, "b d"]) -> StepMetrics:
        """Learn from one batch of centred and scaled activations: of several processes each gives its part, and all
        get the metrics of the whole batch and learn the same."""
        ...

    def state(self) -> dict[str, Tensor]:
        """Everything that the next step depends on, as named tensors (no copies)."""
        ...

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Inverse of `state`: the next step is then the one that would have followed it."""
        ...

    def dictionary(self, mean: Float[Tensor, "d"], scale: float) -> Dictionary:
        """What has been learnt, on the CPU, for raw activations x, where the batches were `scale * (x - mean)`."""
        ...


@dataclass(frozen=True, kw_only=True)
class Start:
    """What every architecture begins with."""

    d: int
    """Width of the activations."""
    n: int
    """Features."""
    alpha: float = 0.0
    """Weight of the sparsity term beside a squared error that is averaged over dimensions."""
    lr: float = 1e-3
    """Adam's learning rate."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Adam's decays."""
    seed: int = 0
    """Of the first weights."""
    dead_after: int = 100_000
    """Activations without firing after which a feature is dead, where dead features get a loss of their own."""
    device: str | torch.device = "cpu"
    """Where it is trained."""
    dtype: torch.dtype = torch.float32
    """Of the weights."""
    operands: torch.dtype | None = None
    """Of the factors of matrix products (`training.products`); None for that of the weights."""
    compile: bool = False
    """Whether the gradient is compiled; only where it is written by hand."""
    options: Any = field(default=None)
    """The architecture's own settings; None for its defaults."""
    group: Group = SINGLE
    """The processes that train it together."""


def generator(seed: int) -> torch.Generator:
    """For first weights: always drawn on the CPU, so that they are equal on every device."""
    return torch.Generator().manual_seed(seed)


def variance(batch: Float[Tensor, "b d"]) -> Float[Tensor, ""]:
    """Mean over dimensions of the batch's variance about its own mean."""
    return batch.square().mean() - batch.mean(0).square().mean()


@torch.no_grad()
def over_processes(
    group: Group, metrics: StepMetrics, gradients: Sequence[Tensor], batch: Float[Tensor, "b d"]
) -> StepMetrics:
    """The metrics of the whole batch, of which `batch` is this process's part. Gradients become those of the whole
    batch in place: both are means over rows, so means over processes with equally many. One buffer is sent."""
    if group.size == 1:
        return metrics
    # Of the variance about the mean of all rows, both moments are means over rows.
    scalars = torch.stack([metrics.mse, batch.square().mean(), *metrics.parts.values()])
    mean, fired = batch.mean(0), metrics.fired.to(batch.dtype, copy=True)
    group.sum_([*gradients, scalars, mean, fired])
    for tensor in (*gradients, scalars, mean):
        tensor.div_(group.size)
    mse, square, *parts = scalars.unbind()
    fired = fired.to(metrics.fired.dtype)
    return StepMetrics(
        mse=mse,
        parts=dict(zip(metrics.parts, parts, strict=True)),
        l0=fired.sum() / (len(batch) * group.size),
        variance=square - mean.square().mean(),
        fired=fired,
    )


def adam_state(optimiser: torch.optim.Optimizer, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Parameters, and what the optimiser keeps of each, as named tensors."""
    tensors = {name: parameter.detach() for name, parameter in parameters.items()}
    for name, parameter in parameters.items():
        tensors |= {f"{name}.{key}": value for key, value in optimiser.state[parameter].items()}
    return tensors


@torch.no_grad()
def load_adam_state(
    optimiser: torch.optim.Optimizer, parameters: Mapping[str, Tensor], state: Mapping[str, Tensor]
) -> None:
    """Inverse of `adam_state`."""
    for name, parameter in parameters.items():
        parameter.copy_(state[name])
        moments = {k.removeprefix(f"{name}."): v for k, v in state.items() if k.startswith(f"{name}.")}
        # The step counter of the fused optimiser lives where its parameter does.
        optimiser.state[parameter] = {k: v.to(parameter.device, copy=True) for k, v in moments.items()}
