"""Objective: one training step of the tied-weight sparse autoencoder of Cunningham et al. 2023 (section 2).

Parameters are an encoder E (n, d) and a bias b (n,). With unit rows W = E / max(|E|, 1e-8) and a batch y (B, d) of
centred activations:

    c = relu(y W^T + b)         features (B, n)
    y^ = c W                    reconstruction, the same matrix again
    loss = mean over batch and dimensions of (y^ - y)^2  +  alpha * mean over the batch of |c|_1

The gradient is written out, because autograd allocates fresh (B, n) tensors in every step, and on a CPU the page
faults of those cost more than the arithmetic in between. With G = 2 (y^ - y) / (B d):

    D = (G W^T + alpha / B) where c > 0, else 0
    db = sum of D over the batch;  dW = c^T G + D^T y;  dE = (dW - (dW . W) W) / |E|, row by row

That is five matrix products, the least a dense tied step needs. `tests/test_training.py` checks it against autograd.
"""

from typing import NamedTuple, Protocol

import torch
from jaxtyping import Float
from torch import Tensor

NORM_FLOOR = 1e-8
"""Smallest row norm that is divided by, as in the reference implementation."""


class StepMetrics(NamedTuple):
    """What one step saw, before its update. All but `fired` are 0-d tensors, so that reading them is the caller's
    choice: on an accelerator it waits for the device."""

    mse: Float[Tensor, ""]
    """Mean over batch and dimensions of the squared error, on the scale trained at."""
    l1: Float[Tensor, ""]
    """Mean over the batch of the sum of the features, on the scale trained at; not multiplied by alpha."""
    l0: Float[Tensor, ""]
    """Mean number of features above zero."""
    variance: Float[Tensor, ""]
    """Mean over dimensions of the batch's variance about its own mean: `1 - mse / variance` is explained."""
    fired: Float[Tensor, "n"]
    """In how many rows of the batch each feature was above zero."""


class Objective(Protocol):
    """What the loop trains: anything with a step and a state that can be stored."""

    def step(self, batch: Float[Tensor, "b d"]) -> StepMetrics:
        """Learn from one batch of centred and scaled activations."""
        ...

    def state(self) -> dict[str, Tensor]:
        """Everything that the next step depends on, as named tensors (no copies)."""
        ...

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Inverse of `state`: the next step is then the one that would have followed it."""
        ...


def initial_encoder(n: int, d: int, seed: int) -> Float[Tensor, "n d"]:
    """Xavier-uniform start, as in the reference; drawn on the CPU, so equal on every device."""
    encoder = torch.empty(n, d)
    return torch.nn.init.xavier_uniform_(encoder, generator=torch.Generator().manual_seed(seed))


class TiedObjective:
    """The tied ReLU + L1 autoencoder with its Adam optimiser and its reused buffers (see the module's text).

    d: width of the activations. n: number of features. alpha: weight of the L1 term beside a squared error that is
    averaged over dimensions. Batches may have any size; buffers are made anew when it changes.
    """

    def __init__(
        self,
        d: int,
        n: int,
        *,
        alpha: float,
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        seed: int = 0,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.alpha = alpha
        self.encoder = initial_encoder(n, d, seed).to(device, dtype)
        self.bias = torch.zeros(n, device=device, dtype=dtype)
        self.encoder.grad, self.bias.grad = torch.zeros_like(self.encoder), torch.zeros_like(self.bias)
        self._adam = torch.optim.Adam([self.encoder, self.bias], lr=lr, betas=betas, fused=True)
        self._rows = torch.empty_like(self.encoder)
        self._norms = self.encoder.new_empty(n, 1)
        self._make_buffers(0)

    def _make_buffers(self, b: int) -> None:
        n, d = self.encoder.shape
        self._code, self._delta = self.encoder.new_empty(b, n), self.encoder.new_empty(b, n)
        # 0 or 1 in the dtype of the code: its column sums are then a matrix-vector product, which is exact up to 2^24
        # rows and ten times as fast as summing booleans.
        self._active, self._ones = self.encoder.new_empty(b, n), self.encoder.new_ones(b)
        self._error = self.encoder.new_empty(b, d)

    def unit_rows(self) -> Float[Tensor, "n d"]:
        """The dictionary W: rows of E divided by their norm. Written into a buffer that the next step reuses."""
        torch.linalg.vector_norm(self.encoder, dim=1, keepdim=True, out=self._norms).clamp_(min=NORM_FLOOR)
        return torch.div(self.encoder, self._norms, out=self._rows)

    @torch.no_grad()
    def gradients(self, y: Float[Tensor, "b d"]) -> StepMetrics:
        """Leave the loss's exact gradients in `encoder.grad` and `bias.grad`, without an update."""
        b, d = y.shape
        if self._code.shape[0] != b:
            self._make_buffers(b)
        w, code, delta, error = self.unit_rows(), self._code, self._delta, self._error

        torch.addmm(self.bias, y, w.T, out=code).relu_()
        torch.gt(code, 0, out=self._active)
        torch.mm(code, w, out=error).sub_(y)
        fired = torch.mv(self._active.T, self._ones)
        metrics = StepMetrics(
            mse=error.square().mean(),
            l1=code.sum() / b,
            l0=fired.sum() / b,
            variance=y.square().mean() - y.mean(0).square().mean(),
            fired=fired,
        )
        error.mul_(2 / (b * d))
        torch.mm(error, w.T, out=delta).add_(self.alpha / b).mul_(self._active)
        self._backward(y, code, delta, error, w)
        return metrics

    def _backward(self, y: Tensor, code: Tensor, delta: Tensor, error: Tensor, w: Tensor) -> None:
        """From D and G to the gradients of b and E; the second line of dE is the derivative of the row's norm."""
        grad, bias_grad = self.encoder.grad, self.bias.grad
        assert grad is not None
        assert bias_grad is not None
        torch.sum(delta, 0, out=bias_grad)
        torch.mm(code.T, error, out=grad).addmm_(delta.T, y)
        radial = torch.einsum("nd,nd->n", grad, w).unsqueeze(1)
        # A row at the norm's floor is divided by a constant, whose derivative is zero.
        radial.masked_fill_(self._norms <= NORM_FLOOR, 0)
        grad.addcmul_(radial, w, value=-1).div_(self._norms)

    def step(self, batch: Float[Tensor, "b d"]) -> StepMetrics:
        """One Adam step on one batch."""
        metrics = self.gradients(batch)
        self._adam.step()
        return metrics

    def state(self) -> dict[str, Tensor]:
        """Parameters and Adam's moments and step counters."""
        tensors = {"encoder": self.encoder, "bias": self.bias}
        for name, parameter in tuple(tensors.items()):
            for key, value in self._adam.state[parameter].items():
                tensors[f"{name}.{key}"] = value
        return tensors

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Inverse of `state`."""
        for name, parameter in {"encoder": self.encoder, "bias": self.bias}.items():
            parameter.copy_(state[name])
            moments = {k.removeprefix(f"{name}."): v for k, v in state.items() if k.startswith(f"{name}.")}
            self._adam.state[parameter] = {k: v.to(parameter.device, copy=True) for k, v in moments.items()}
