"""Registry: the name of a basis -> how to build it.

    basis = build_basis("pca", BasisInputs(site, width=576, activations=rows, mean=mean, seed=0))

Every builder takes the same `BasisInputs` and reads from it what it needs. A new basis is one new file whose builder
carries `@register(name, title)`, and one import in `bases/__init__.py`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from saelens_n2g.bases.base import Basis
from saelens_n2g.errors import InputError
from saelens_n2g.sites import Site


@dataclass(frozen=True, eq=False)
class BasisInputs:
    """What a basis may be built from; which fields are needed depends on the basis."""

    site: Site
    """Where the activations are read."""
    width: int
    """Width of the activations, d_in."""
    activations: Float[Tensor, "rows d_in"] | None = None
    """Rows to fit to (pca, ica), from the fit documents and without BOS positions."""
    mean: Float[Tensor, "d_in"] | None = None
    """Mean of the whole data set, on which directions are centred; None takes the mean of `activations`."""
    seed: int = 0
    """For whatever is drawn at random."""
    folder: Path | None = None
    """A trained dictionary in SAELens format (sae)."""

    def __post_init__(self) -> None:
        for name in ("activations", "mean"):
            value: Tensor | None = getattr(self, name)
            if value is not None and value.shape[-1] != self.width:
                raise InputError(f"{name} at site {self.site}", f"width {self.width}", f"shape {tuple(value.shape)}")

    def rows(self, basis: str) -> Float[Tensor, "rows d_in"]:
        """`activations`, or `InputError` that `basis` cannot do without."""
        if self.activations is None:
            raise InputError(f"basis {basis!r}", "activations to fit to", "none given")
        return self.activations

    def centre(self, basis: str) -> Float[Tensor, "d_in"]:
        """`mean` or, failing that, the mean of `activations` (summed in float64)."""
        if self.mean is not None:
            return self.mean
        rows = self.rows(basis)
        return rows.mean(0, dtype=torch.float64).to(rows.dtype)


Builder = Callable[[BasisInputs], Basis]


@dataclass(frozen=True)
class BasisKind:
    """One entry of the registry."""

    name: str
    title: str
    """For people, e.g. `MLP neurons`."""
    build: Builder


BASES: dict[str, BasisKind] = {}


def register(name: str, title: str) -> Callable[[Builder], Builder]:
    """Decorator that enters a builder under `name`."""

    def enter(build: Builder) -> Builder:
        assert name not in BASES, f"basis {name!r} is registered twice"
        BASES[name] = BasisKind(name, title, build)
        return build

    return enter


def basis_kind(name: str) -> BasisKind:
    """The entry called `name`. Raises `InputError` if there is none."""
    if name not in BASES:
        raise InputError(f"basis {name!r}", f"one of {', '.join(sorted(BASES))}", repr(name))
    return BASES[name]


def build_basis(name: str, inputs: BasisInputs) -> Basis:
    """Build the basis called `name`. Raises `InputError` for an unknown name or a missing input."""
    return basis_kind(name).build(inputs)
