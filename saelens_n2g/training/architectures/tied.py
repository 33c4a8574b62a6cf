"""Tied ReLU + L1: the sparse autoencoder of Cunningham et al. 2023 (section 2), the default.

Parameters are an encoder E (n, d) and a bias b (n,). With unit rows W = E / max(|E|, 1e-8) and a batch y (B, d) of
centred activations:

    c = relu(y W^T + b)         features (B, n)
    y^ = c W                    reconstruction, the same matrix again
    loss = mean over batch and dimensions of (y^ - y)^2  +  alpha * mean over the batch of |c|_1

The gradient is written out, because autograd allocates fresh (B, n) tensors in every step, and on a CPU the page
faults of those cost more than the arithmetic in between. With G = 2 (y^ - y) / (B d):

    D = (G W^T + alpha / B) where c > 0, else 0
    db = sum of D over the batch;  dW = c^T G + D^T y;  dE = (dW - (dW . W) W) / |E|, row by row

That is five matrix products, the least a dense tied step needs. Where few features are active, all of them but the
first need only the active entries (`training.sparse`). `tests/test_training.py` checks both against autograd.

W does not know the length of E's rows, but Adam does: its steps have a length of their own, so that a row of E turns by
an angle in inverse proportion to its length. A feature that begins again (`architectures.resampling`) therefore gets
the mean length of the living ones, that it turns as they do; a fifth of it, which makes features of two matrices weak
at first, would here only make it turn five times as fast. Here it is weak by its bias: -0.8 |y| for a direction taken
from the row y, so that it gives 0.2 |y| there and fires on what is nearly that row alone. With a bias of zero it would
fire at full strength on half of all rows, and a dictionary does not stand many of those (docs/lab-notes.md).
"""

import torch
from jaxtyping import Float
from torch import Tensor

from saelens_n2g.bases.formats import Dictionary
from saelens_n2g.training.architectures.functions import NORM_FLOOR, radial_removed
from saelens_n2g.training.architectures.registry import register
from saelens_n2g.training.architectures.resampling import (
    WEAK,
    Replacement,
    ResamplingOptions,
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
from saelens_n2g.training.products import product, products_with
from saelens_n2g.training.sparse import DENSEST, SparsePattern, has_kernels


def initial_encoder(n: int, d: int, seed: int) -> Float[Tensor, "n d"]:
    """Xavier-uniform start, as in the reference; drawn on the CPU, so equal on every device."""
    return torch.nn.init.xavier_uniform_(torch.empty(n, d), generator=generator(seed))


COMPILER = "inductor"
"""What torch.compile translates with."""


@register("tied", "Tied ReLU + L1", options=ResamplingOptions)
class TiedObjective:
    """The tied ReLU + L1 autoencoder with its Adam optimiser and its reused buffers (see the module's text).

    Batches may have any size; buffers are made anew when it changes. `densest`: share of active features up to which
    the sparse way is taken, where there are kernels for it and factors of products are not rounded.
    """

    def __init__(self, start: Start, *, densest: float = DENSEST) -> None:
        self.alpha, self.densest, self.group = start.alpha, densest, start.group
        self._products, self._operands = products_with(start.operands), start.operands
        self._compiled = torch.compile(fresh_gradients, backend=COMPILER, dynamic=False) if start.compile else None
        self._resampling = resampling_of(start)
        self.encoder = initial_encoder(start.n, start.d, start.seed).to(start.device, start.dtype)
        self.bias = torch.zeros(start.n, device=start.device, dtype=start.dtype)
        self.encoder.grad, self.bias.grad = torch.zeros_like(self.encoder), torch.zeros_like(self.bias)
        self._adam = torch.optim.Adam([self.encoder, self.bias], lr=start.lr, betas=start.betas, fused=True)
        self._rows = torch.empty_like(self.encoder)
        self._norms = self.encoder.new_empty(start.n, 1)
        self._code, self._error = self.encoder.new_empty(0, start.n), self.encoder.new_empty(0, start.d)
        self._delta, self._active, self._ones = self._code, self._code, self.encoder.new_empty(0)

    @property
    def lr(self) -> float:
        """The optimiser's learning rate."""
        return float(self._adam.param_groups[0]["lr"])

    @lr.setter
    def lr(self, value: float) -> None:
        self._adam.param_groups[0]["lr"] = value

    def unit_rows(self) -> Float[Tensor, "n d"]:
        """The dictionary W: rows of E divided by their norm. Written into a buffer that the next step reuses."""
        torch.linalg.vector_norm(self.encoder, dim=1, keepdim=True, out=self._norms).clamp_(min=NORM_FLOOR)
        return torch.div(self.encoder, self._norms, out=self._rows)

    @torch.no_grad()
    def gradients(self, y: Float[Tensor, "b d"]) -> StepMetrics:
        """Leave the loss's exact gradients in `encoder.grad` and `bias.grad`, without an update."""
        if self._compiled is not None:
            return self._fresh(y)
        if len(self._code) != len(y):
            self._code, self._error = self.encoder.new_empty(len(y), len(self.bias)), torch.empty_like(y)
            self._products.forget()
        w, code = self.unit_rows(), self._code
        factors = self._products.operand("y", y), self._products.operand("w", w)
        self._products.with_bias(code, self.bias, factors[0], factors[1].T).relu_()
        limit = self.densest * code.numel() if has_kernels(code.device) and self._products.exact else -1
        if limit >= 0 and (active := torch.count_nonzero(code).item()) <= limit:
            return self._sparse(y, w, int(active))
        return self._dense(y, w, *factors)

    def _dense(self, y: Float[Tensor, "b d"], w: Float[Tensor, "n d"], y_: Tensor, w_: Tensor) -> StepMetrics:
        """Gradients by products of whole matrices; a name with a `_` is a factor, rounded where factors are."""
        b, code, error, products = len(y), self._code, self._error, self._products
        if len(self._delta) != b:
            self._delta, self._active = torch.empty_like(code), torch.empty_like(code)
            self._ones = code.new_ones(b)
        # 0 or 1 in the dtype of the code: its column sums are then a matrix-vector product, which is exact up to 2^24
        # rows and ten times as fast as summing booleans.
        active = torch.gt(code, 0, out=self._active)
        code_ = products.operand("code", code)
        products.into(error, code_, w_).sub_(y)
        metrics = self._metrics(y, code.sum(), torch.mv(active.T, self._ones))
        error_ = products.operand("error", error.mul_(2 / error.numel()))
        delta = products.into(self._delta, error_, w_.T).add_(self.alpha / b).mul_(active)
        grad, bias_grad = self._grads()
        torch.sum(delta, 0, out=bias_grad)
        products.added(products.into(grad, code_.T, error_), products.operand("delta", delta).T, y_)
        radial_removed(grad, w, self._norms)
        return metrics

    def _fresh(self, y: Float[Tensor, "b d"]) -> StepMetrics:
        """By the compiled function. Alpha goes in as a tensor: for every other number it would be compiled anew."""
        assert self._compiled is not None
        alpha = torch.tensor(self.alpha, dtype=y.dtype, device=y.device)
        mse, l1, fired, grad, bias_grad = self._compiled(self.encoder, self.bias, y, alpha, self._operands)
        for own, found in zip(self._grads(), (grad, bias_grad), strict=True):
            own.copy_(found)
        return StepMetrics(mse, {"l1_loss": l1}, fired.sum() / len(y), variance(y), fired)

    def _sparse(self, y: Float[Tensor, "b d"], w: Float[Tensor, "n d"], active: int) -> StepMetrics:
        """The same by the active entries alone."""
        flat = torch.nonzero_static(self._code.view(-1), size=active).squeeze(1)
        pattern, error = SparsePattern(flat, (len(y), len(self.bias))), self._error
        values = pattern.values(self._code)
        pattern.decode(values, w, out=error).sub_(y)
        metrics = self._metrics(y, values.sum(), pattern.fired().to(y.dtype))
        error.mul_(2 / error.numel())
        delta = pattern.at(error, w).add_(self.alpha / len(y))
        grad, bias_grad = self._grads()
        bias_grad.copy_(pattern.by_feature(delta))
        pattern.transposed(delta, y, out=pattern.transposed(values, error, out=grad.zero_()))
        radial_removed(grad, w, self._norms)
        return metrics

    def _grads(self) -> tuple[Tensor, Tensor]:
        assert self.encoder.grad is not None
        assert self.bias.grad is not None
        return self.encoder.grad, self.bias.grad

    def _metrics(self, y: Float[Tensor, "b d"], total: Tensor, fired: Float[Tensor, "n"]) -> StepMetrics:
        """`self._error` is the error before it is scaled."""
        parts = {"l1_loss": self.alpha * total / len(y)}
        return StepMetrics(self._error.square().mean(), parts, fired.sum() / len(y), variance(y), fired)

    def step(self, batch: Float[Tensor, "b d"]) -> StepMetrics:
        """One Adam step on one batch."""
        metrics = over_processes(self.group, self.gradients(batch), self._grads(), batch)
        if self._resampling is None:
            self._adam.step()
            return metrics
        new = self._resampling.look(metrics.fired, batch, lambda: self._losses(batch))
        self._adam.step()
        if new is not None:
            self._begin_again(new)
        return metrics._replace(resampled=self._resampling.total)

    @torch.no_grad()
    def _begin_again(self, new: Replacement) -> None:
        """Dead features take new directions."""
        length = self.encoder[new.living].norm(dim=1).mean()
        begin_again(self._adam, self.encoder, new.features, length * new.directions)
        begin_again(self._adam, self.bias, new.features, (WEAK - 1) * new.lengths)

    @torch.no_grad()
    def _losses(self, y: Float[Tensor, "b d"]) -> Float[Tensor, "b"]:
        """The loss of each row."""
        w = self.unit_rows()
        code = torch.addmm(self.bias, y, w.T).relu_()
        return (code @ w - y).square().mean(1) + self.alpha * code.sum(1)

    def state(self) -> dict[str, Tensor]:
        """Parameters, Adam's moments and step counters, and what resampling counts."""
        own = adam_state(self._adam, {"encoder": self.encoder, "bias": self.bias})
        return own if self._resampling is None else own | self._resampling.state()

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Inverse of `state`."""
        load_adam_state(self._adam, {"encoder": self.encoder, "bias": self.bias}, state)
        if self._resampling is not None:
            self._resampling.load_state(state)

    def dictionary(self, mean: Float[Tensor, "d"], scale: float) -> Dictionary:
        """See `Objective.dictionary`; the scale goes into the bias, since relu(s z) = s relu(z)."""
        weight = self.unit_rows().cpu().clone()
        return Dictionary.from_tied(weight, (self.bias / scale).cpu(), mean.cpu())


def fresh_gradients(
    encoder: Float[Tensor, "n d"],
    bias: Float[Tensor, "n"],
    y: Float[Tensor, "b d"],
    alpha: Float[Tensor, ""],
    operands: torch.dtype | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The module's text without buffers, for a compiler to put together: squared error, L1 term, on how many rows
    features fired, dE and db."""
    norms = torch.linalg.vector_norm(encoder, dim=1, keepdim=True).clamp(min=NORM_FLOOR)
    w = encoder / norms
    code = torch.relu(product(y, w.T, operands) + bias)
    active = (code > 0).to(code.dtype)
    error = product(code, w, operands) - y
    scaled = error * (2 / error.numel())
    delta = (product(scaled, w.T, operands) + alpha / len(y)) * active
    grad = product(code.T, scaled, operands) + product(delta.T, y, operands)
    l1 = alpha * code.sum() / len(y)
    return error.square().mean(), l1, active.sum(0), radial_removed(grad, w, norms), delta.sum(0)
