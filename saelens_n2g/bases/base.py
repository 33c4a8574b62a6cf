"""Basis: activations at a site -> non-negative features. What a "unit" is, everywhere else in the package."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from saelens_n2g.errors import InputError
from saelens_n2g.sites import Site


@runtime_checkable
class Basis(Protocol):
    """A set of units at one site (one of the four protocols, docs/decisions.md).

    `signs` says in one sentence how negative values were dealt with; features are never negative.
    """

    @property
    def name(self) -> str: ...
    @property
    def site(self) -> Site: ...
    @property
    def n_features(self) -> int: ...
    @property
    def signs(self) -> str: ...
    def encode(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch n_features"]: ...
    def encode_features(
        self, x: Float[Tensor, "*batch d_in"], features: Int[Tensor, "k"]
    ) -> Float[Tensor, "*batch k"]: ...
    def to(self, device: str | torch.device) -> "Basis":
        """The same basis where `x` is; `features` must be there too."""
        ...


@dataclass(frozen=True, eq=False)
class AffineBasis:
    """Units `relu(W (x - centre) + b)`: dictionaries and directions alike. Rows of `W` are the units' directions."""

    name: str
    site: Site
    signs: str
    weight: Float[Tensor, "n d_in"]
    bias: Float[Tensor, "n"]
    centre: Float[Tensor, "d_in"]
    facts: Mapping[str, Any] = field(default_factory=dict)
    """How the basis was made, as JSON values: for provenance."""

    def __post_init__(self) -> None:
        n, d = self.weight.shape
        if self.bias.shape != (n,) or self.centre.shape != (d,):
            raise InputError(
                f"basis {self.name!r} with weight ({n}, {d})",
                f"bias ({n},) and centre ({d},)",
                f"bias {tuple(self.bias.shape)} and centre {tuple(self.centre.shape)}",
            )

    @property
    def n_features(self) -> int:
        return self.weight.shape[0]

    def encode(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch n"]:
        """All features of `x`, (..., d_in) -> (..., n), >= 0."""
        return torch.relu(torch.nn.functional.linear(x - self.centre, self.weight, self.bias))

    def encode_features(self, x: Float[Tensor, "*batch d_in"], features: Int[Tensor, "k"]) -> Float[Tensor, "*batch k"]:
        """Only the columns `features`, in the order asked for: k/n of the work of `encode`."""
        rows, bias = self.weight[features], self.bias[features]
        return torch.relu(torch.nn.functional.linear(x - self.centre, rows, bias))

    def to(self, device: str | torch.device) -> "AffineBasis":
        """The same basis on another device."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        moved: dict[str, Any] = {k: v.to(device) for k, v in values.items() if isinstance(v, Tensor)}
        return replace(self, **moved)
