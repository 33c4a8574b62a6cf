"""NeuronBasis: the coordinates of a site themselves, one unit per neuron."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from saelens_n2g.bases.registry import BasisInputs, register
from saelens_n2g.sites import Site


@dataclass(frozen=True)
class NeuronBasis:
    """Units `relu(x_i)`; with `split`, twice as many: all `relu(x_i)`, then all `relu(-x_i)`.

    Cunningham et al. 2023 (section 3) call the unsplit form the default basis.
    """

    site: Site
    width: int
    """Neurons at the site, d_in."""
    split: bool = False
    """Whether negative activations become units of their own."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    name: ClassVar[str] = "neurons"

    @property
    def n_features(self) -> int:
        return self.width * (1 + self.split)

    @property
    def signs(self) -> str:
        if self.split:
            return f"split: unit i is neuron i where positive, unit {self.width} + i the same neuron where negative"
        return "rectified: a negative activation counts as 0 (graphs predict firing)"

    def encode(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch n"]:
        """All features of `x`, (..., d_in) -> (..., n), >= 0."""
        return torch.relu(torch.cat([x, -x], dim=-1) if self.split else x)

    def encode_features(self, x: Float[Tensor, "*batch d_in"], features: Int[Tensor, "k"]) -> Float[Tensor, "*batch k"]:
        """Only the columns `features`, in the order asked for: picked, not multiplied."""
        if not self.split:
            return torch.relu(x[..., features])
        sign = torch.where(features < self.width, 1, -1).to(x.dtype)
        return torch.relu(x[..., features % self.width] * sign)

    def to(self, device: str | torch.device) -> "NeuronBasis":  # noqa: ARG002  (the same call as other bases)
        """Itself: nothing here lives on a device."""
        return self


@register("neurons", "MLP neurons")
def build_neurons(inputs: BasisInputs) -> NeuronBasis:
    """Needs `site` and `width` alone."""
    return NeuronBasis(inputs.site, inputs.width)
