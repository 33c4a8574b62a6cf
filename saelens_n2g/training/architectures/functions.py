"""What the stated losses are built of, with gradients that use the pattern of a batch instead of whole matrices."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from saelens_n2g.training.sparse import Pattern

NORM_FLOOR = 1e-8
"""Smallest row norm that is divided by, as in Cunningham et al.'s code."""


class _UnitRows(torch.autograd.Function):
    """Rows divided by their norm; a row at the floor is divided by a constant."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        norms = torch.linalg.vector_norm(rows, dim=1, keepdim=True).clamp_(min=NORM_FLOOR)
        out: Tensor = rows / norms
        ctx.save_for_backward(out, norms)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        out, norms = ctx.saved_tensors
        return radial_removed(grads[0].clone(), out, norms)


def radial_removed(
    grad: Float[Tensor, "n d"], unit: Float[Tensor, "n d"], norms: Float[Tensor, "n 1"]
) -> Float[Tensor, "n d"]:
    """From the gradient of unit rows to that of the rows they were made of; in place."""
    radial = torch.einsum("nd,nd->n", grad, unit).unsqueeze(1)
    radial.masked_fill_(norms <= NORM_FLOOR, 0)
    return grad.addcmul_(radial, unit, value=-1).div_(norms)


class _Encode(torch.autograd.Function):
    """Pre-activations `(y - offset) E^T + b` at the active entries, `before` being all of them."""

    @staticmethod
    def forward(
        ctx: Any,
        y: Tensor,
        encoder: Tensor,
        bias: Tensor,  # noqa: ARG004  (in `before` already; named so that it gets a gradient)
        offset: Tensor,
        before: Tensor,
        pattern: Pattern,
    ) -> Tensor:
        ctx.save_for_backward(y, encoder, offset)
        ctx.pattern = pattern
        return pattern.values(before)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        y, encoder, offset = ctx.saved_tensors
        pattern: Pattern = ctx.pattern
        grad = pattern.masked(grads[0])
        by_feature = pattern.by_feature(grad)
        # The offset is the same in every row: summed over the batch first, its gradient is no product of matrices.
        return None, pattern.transposed(grad, y - offset), by_feature, -(by_feature @ encoder), None, None


class _Decode(torch.autograd.Function):
    """Values times the rows of their features."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, decoder: Tensor, pattern: Pattern) -> Tensor:
        ctx.save_for_backward(values, decoder)
        ctx.pattern = pattern
        return pattern.decode(values, decoder)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        values, decoder = ctx.saved_tensors
        grad, pattern = grads[0].contiguous(), ctx.pattern
        wanted = pattern.transposed(values, grad) if ctx.needs_input_grad[1] else None
        return pattern.at(grad, decoder), wanted, None


def unit_rows(rows: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
    """Rows of norm 1; the gradient goes through the norm."""
    out: Tensor = _UnitRows.apply(rows)
    return out


def encode(
    y: Float[Tensor, "b d"],
    encoder: Float[Tensor, "n d"],
    bias: Float[Tensor, "n"],
    offset: Float[Tensor, "d"],
    before: Float[Tensor, "b n"],
    pattern: Pattern,
) -> Tensor:
    """Values of `before` = (y - offset) E^T + bias at the active entries; differentiable in E, bias and offset."""
    out: Tensor = _Encode.apply(y, encoder, bias, offset, before, pattern)
    return out


def decode(values: Tensor, decoder: Float[Tensor, "n d"], pattern: Pattern) -> Float[Tensor, "b d"]:
    """`C D`, C being the matrix of the values; differentiable in both."""
    out: Tensor = _Decode.apply(values, decoder, pattern)
    return out
