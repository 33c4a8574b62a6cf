"""Products of matrices: in the precision of the weights, or with operands of fewer bits.

With `operands=torch.bfloat16` both factors are rounded to bfloat16 (8 bits of mantissa); sums inside a product are kept
in float32 by the libraries that compute it, and the result is rounded once before it becomes float32 again. Weights,
losses, gradients, sums over the batch and the optimiser stay float32: rounding is that of the factors alone.
"""

import torch
from torch import Tensor


def product(a: Tensor, b: Tensor, operands: torch.dtype | None = None) -> Tensor:
    """`a b` in the dtype of `a`; factors are rounded to `operands` where it is given."""
    return torch.mm(a, b) if operands is None else torch.mm(a.to(operands), b.to(operands)).to(a.dtype)


class Products:
    """Products into tensors that are there already, in their own precision.

    Factors go through `operand` once and may then take part in several products.
    """

    exact = True
    """Whether factors are what they were."""

    def operand(self, name: str, matrix: Tensor) -> Tensor:  # noqa: ARG002  (a name for a buffer, where there is one)
        """The matrix as a factor. One name stands for one matrix at a time."""
        return matrix

    def into(self, out: Tensor, a: Tensor, b: Tensor) -> Tensor:
        """out = a b."""
        return torch.mm(a, b, out=out)

    def with_bias(self, out: Tensor, bias: Tensor, a: Tensor, b: Tensor) -> Tensor:
        """out = a b + bias, the bias being a row."""
        return torch.addmm(bias, a, b, out=out)

    def added(self, out: Tensor, a: Tensor, b: Tensor) -> Tensor:
        """out += a b."""
        return out.addmm_(a, b)

    def forget(self) -> None:
        """Let go of buffers; for when sizes change."""


class RoundedProducts(Products):
    """The same with factors of another dtype, in buffers that are reused."""

    exact = False

    def __init__(self, operands: torch.dtype) -> None:
        self._operands = operands
        self._buffers: dict[tuple[str, torch.Size], Tensor] = {}

    def _buffer(self, name: str, like: Tensor) -> Tensor:
        key = (name, like.shape)
        if key not in self._buffers:
            self._buffers[key] = torch.empty(like.shape, dtype=self._operands, device=like.device)
        return self._buffers[key]

    def operand(self, name: str, matrix: Tensor) -> Tensor:
        """See `Products.operand`."""
        return self._buffer(name, matrix).copy_(matrix)

    def _product(self, out: Tensor, a: Tensor, b: Tensor) -> Tensor:
        return torch.mm(a, b, out=self._buffer("", out))

    def into(self, out: Tensor, a: Tensor, b: Tensor) -> Tensor:
        """See `Products.into`."""
        return out.copy_(self._product(out, a, b))

    def with_bias(self, out: Tensor, bias: Tensor, a: Tensor, b: Tensor) -> Tensor:
        """See `Products.with_bias`; the bias is added in its own precision."""
        return torch.add(self._product(out, a, b), bias, out=out)

    def added(self, out: Tensor, a: Tensor, b: Tensor) -> Tensor:
        """See `Products.added`; summed in the precision of `out`."""
        return out.add_(self._product(out, a, b))

    def forget(self) -> None:
        """See `Products.forget`."""
        self._buffers.clear()


def products_with(operands: torch.dtype | None) -> Products:
    """Products whose factors have that dtype; None for their own."""
    return Products() if operands is None else RoundedProducts(operands)
