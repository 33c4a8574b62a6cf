"""Rules: what each architecture makes of the product `p = (x - centre) W_enc`, feature by feature or row by row.

    standard   relu(p + b)
    jumprelu   relu(p + b) where p + b > threshold, else 0      (Rajamanoharan et al. 2024, arXiv 2407.14435)
    gated      relu(exp(r_mag) p + b_mag) where p + b_gate > 0  (Rajamanoharan et al. 2024, arXiv 2404.16014)
    topk       relu of the k largest of (p + b) scale, else 0   (Gao et al. 2024, arXiv 2406.04093)

The one statement of them that both dictionaries and bases use. All are as SAELens 6 has them.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Relu:
    """`relu(p + bias)`, the architecture "standard"; the base of the others."""

    bias: Float[Tensor, "n"]
    separable: ClassVar[bool] = True
    """Whether a feature depends on its own column of the product alone."""

    def __call__(self, product: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch n"]:
        """Features >= 0 out of the product with the encoder, (..., n) -> (..., n)."""
        return torch.relu(product + self.bias)

    def each(self, change: Callable[[Tensor], Tensor]) -> "Relu":
        """The same rule with `change` applied to each of its tensors: picks features, moves, casts."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        changed: dict[str, Any] = {k: change(v) for k, v in values.items() if isinstance(v, Tensor)}
        return replace(self, **changed)

    def pick(self, features: Int[Tensor, "k"]) -> "Relu":
        """The rule of these features alone, in this order. Only where the rule is `separable`."""
        assert self.separable, f"{type(self).__name__} needs every column"
        return self.each(lambda tensor: tensor[features])


@dataclass(frozen=True, eq=False)
class JumpRelu(Relu):
    """A feature counts only above its own threshold; at the threshold it is 0."""

    threshold: Float[Tensor, "n"]

    def __call__(self, product: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch n"]:
        """`relu(p + bias)` where `p + bias > threshold`, else 0."""
        before = product + self.bias
        return torch.relu(before) * (before > self.threshold)


@dataclass(frozen=True, eq=False)
class Gated(Relu):
    """One product, read twice: `bias` is that of the gate, which says whether; the magnitude says how much."""

    log_scale: Float[Tensor, "n"]
    """`r_mag`."""
    magnitude_bias: Float[Tensor, "n"]
    """`b_mag`."""

    def __call__(self, product: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch n"]:
        """`relu(exp(r_mag) p + b_mag)` where `p + bias > 0`, else 0."""
        magnitude = torch.relu(product * self.log_scale.exp() + self.magnitude_bias)
        return magnitude * (product + self.bias > 0)


@dataclass(frozen=True, eq=False)
class TopK(Relu):
    """The `k` largest of a row are kept, those of them above 0. Every column is needed to know which they are."""

    k: int
    scale: Float[Tensor, "n"] | None = None
    """What pre-activations are multiplied with before they are compared, and stay multiplied with; None: nothing."""
    separable: ClassVar[bool] = False

    def __call__(self, product: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch n"]:
        """`relu((p + bias) scale)` of the `k` largest, else 0."""
        before = product + self.bias
        if self.scale is not None:
            before = before * self.scale
        largest = before.topk(self.k, dim=-1, sorted=False)
        return torch.zeros_like(before).scatter(-1, largest.indices, torch.relu(largest.values))
