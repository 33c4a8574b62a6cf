"""Pattern: which features are active on which rows of a batch, and the products that need only those.

A batch of codes (B, n) with a hundred of several thousand features active is 98 % zeros. Kept as compressed rows, the
exact decoder and backward products cost a tenth of the dense ones on a CPU (docs/lab-notes.md). Where most features
are active, as at the start of training, or where there are no sparse kernels, the same calls run on dense matrices.
`values` are a vector of the active entries in a sparse pattern and a (B, n) matrix, zero elsewhere, in a dense one.
"""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from saelens_n2g.training.products import product

DENSEST = 0.15
"""Share of active entries up to which compressed rows are faster, measured on one core (benchmarks/sae_step.py)."""


class Pattern(ABC):
    """Active entries of a batch. `W` is a matrix with a row per feature (n, d), `x` has a row per sample (B, d)."""

    sparse: bool

    @abstractmethod
    def values(self, matrix: Float[Tensor, "b n"]) -> Tensor:
        """The active entries of a matrix."""

    @abstractmethod
    def decode(self, values: Tensor, W: Float[Tensor, "n d"], out: Tensor | None = None) -> Float[Tensor, "b d"]:
        """`C W`, C being the matrix of the values."""

    @abstractmethod
    def at(self, x: Float[Tensor, "b d"], W: Float[Tensor, "n d"]) -> Tensor:
        """The active entries of `x W^T`."""

    @abstractmethod
    def transposed(self, values: Tensor, x: Float[Tensor, "b d"], out: Tensor | None = None) -> Float[Tensor, "n d"]:
        """`C^T x`; added to `out` where it is given."""

    @abstractmethod
    def masked(self, values: Tensor) -> Tensor:
        """The values with what is not active set to zero; for gradients of dense values."""

    @abstractmethod
    def by_feature(self, values: Tensor) -> Float[Tensor, "n"]:
        """Sum of the values of each feature."""

    @abstractmethod
    def part(self, start: int, stop: int) -> "Part":
        """The pattern of the features `start` to `stop` alone."""

    @abstractmethod
    def spread(self, parameter: Float[Tensor, "n"]) -> Tensor:
        """A number per feature, at each of its values; differentiable."""

    @abstractmethod
    def fired(self) -> Float[Tensor, "n"]:
        """On how many rows each feature is active."""


class Part(NamedTuple):
    """A pattern cut down to some features."""

    pattern: Pattern
    values: Callable[[Tensor], Tensor]
    """From the values of the whole pattern to those of the part; differentiable."""


class DensePattern(Pattern):
    """All entries, and which of them are active. `operands`: dtype of the factors of products; None for their own."""

    sparse = False

    def __init__(self, active: Bool[Tensor, "b n"], operands: torch.dtype | None = None) -> None:
        self._active, self._operands = active, operands

    def values(self, matrix: Float[Tensor, "b n"]) -> Tensor:
        return matrix * self._active

    def decode(self, values: Tensor, W: Float[Tensor, "n d"], out: Tensor | None = None) -> Float[Tensor, "b d"]:
        found = product(values, W, self._operands)
        return found if out is None else out.copy_(found)

    def at(self, x: Float[Tensor, "b d"], W: Float[Tensor, "n d"]) -> Tensor:
        return product(x, W.T, self._operands).mul_(self._active)

    def transposed(self, values: Tensor, x: Float[Tensor, "b d"], out: Tensor | None = None) -> Float[Tensor, "n d"]:
        found = product(values.T, x, self._operands)
        return found if out is None else out.add_(found)

    def masked(self, values: Tensor) -> Tensor:
        return values * self._active

    def by_feature(self, values: Tensor) -> Float[Tensor, "n"]:
        return values.sum(0)

    def part(self, start: int, stop: int) -> "Part":
        return Part(DensePattern(self._active[:, start:stop], self._operands), lambda values: values[:, start:stop])

    def spread(self, parameter: Float[Tensor, "n"]) -> Tensor:
        return parameter.expand(self._active.shape) * self._active

    def fired(self) -> Float[Tensor, "n"]:
        return self._active.sum(0).to(torch.get_default_dtype())


class SparsePattern(Pattern):
    """Compressed rows on the CPU, and their transpose when it is first needed."""

    sparse = True

    def __init__(self, flat: Int[Tensor, "k"], shape: tuple[int, int]) -> None:
        """`flat`: ascending positions of the active entries in the matrix read row by row."""
        self._flat, self._shape = flat, shape
        rows, n = shape
        self._columns = (flat % n).to(torch.int32)
        bounds = torch.arange(rows + 1) * n
        self._starts = torch.searchsorted(flat, bounds, out_int32=True)
        self._turned: tuple[Tensor, Tensor, Tensor] | None = None

    def _matrix(self, values: Tensor) -> Tensor:
        return _compressed(self._starts, self._columns, values, self._shape)

    def _transpose(self) -> tuple[Tensor, Tensor, Tensor]:
        """Starts and rows of the transpose, and the order that the values have in it."""
        if self._turned is None:
            from scipy.sparse import csr_array

            order = np.arange(len(self._flat), dtype=np.int32)
            turned = csr_array((order, self._columns.numpy(), self._starts.numpy()), shape=self._shape).tocsc()
            self._turned = (
                torch.from_numpy(turned.indptr),
                torch.from_numpy(turned.indices),
                torch.from_numpy(turned.data),
            )
        return self._turned

    def values(self, matrix: Float[Tensor, "b n"]) -> Tensor:
        return matrix.reshape(-1)[self._flat]

    def decode(self, values: Tensor, W: Float[Tensor, "n d"], out: Tensor | None = None) -> Float[Tensor, "b d"]:
        return torch.mm(self._matrix(values), W, out=out)

    def at(self, x: Float[Tensor, "b d"], W: Float[Tensor, "n d"]) -> Tensor:
        """See `Pattern.at`."""
        ones = self._matrix(torch.ones(len(self._flat), dtype=x.dtype))
        out: Tensor = torch.sparse.sampled_addmm(ones, x, W.T, beta=0.0).values()
        return out

    def transposed(self, values: Tensor, x: Float[Tensor, "b d"], out: Tensor | None = None) -> Float[Tensor, "n d"]:
        """See `Pattern.transposed`."""
        starts, rows, order = self._transpose()
        matrix = _compressed(starts, rows, values[order], self._shape[::-1])
        return torch.mm(matrix, x) if out is None else torch.addmm(out, matrix, x, out=out)

    def masked(self, values: Tensor) -> Tensor:
        return values

    def part(self, start: int, stop: int) -> "Part":
        """See `Pattern.part`."""
        inside = torch.nonzero((self._columns >= start) & (self._columns < stop)).squeeze(1)
        rows, n = self._shape
        flat = (self._flat[inside] // n) * (stop - start) + self._flat[inside] % n - start
        return Part(SparsePattern(flat, (rows, stop - start)), lambda values: values[inside])

    def by_feature(self, values: Tensor) -> Float[Tensor, "n"]:
        return values.new_zeros(self._shape[1]).index_add_(0, self._columns, values)

    def spread(self, parameter: Float[Tensor, "n"]) -> Tensor:
        return parameter[self._columns]

    def fired(self) -> Float[Tensor, "n"]:
        return torch.bincount(self._columns, minlength=self._shape[1]).to(torch.get_default_dtype())


def pattern_of(
    active: Bool[Tensor, "b n"], *, densest: float = DENSEST, operands: torch.dtype | None = None
) -> Pattern:
    """The pattern of a mask: compressed if at most `densest` of it is active and there are kernels for that; there are
    none for `operands`, the dtype that factors of products are rounded to."""
    compressed = operands is None and has_kernels(active.device)
    if not compressed or active.count_nonzero().item() > densest * active.numel():
        return DensePattern(active, operands)
    return SparsePattern(torch.from_numpy(np.flatnonzero(active.numpy())), (active.shape[0], active.shape[1]))


def has_kernels(device: torch.device) -> bool:
    """Whether sparse products on the device are there and worth having: on CPUs with MKL. On a GPU dense is faster."""
    return device.type == "cpu" and torch.backends.mkl.is_available() and _quiet()


@cache
def _quiet() -> bool:
    """PyTorch warns once that compressed tensors are in beta; what is used of them here is tested."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        zero = torch.zeros(1, dtype=torch.int32)
        _compressed(torch.zeros(2, dtype=torch.int32), zero[:0], torch.zeros(0), (1, 1))
    return True


def _compressed(starts: Tensor, columns: Tensor, values: Tensor, shape: tuple[int, ...]) -> Tensor:
    return torch.sparse_csr_tensor(starts, columns, values, shape, check_invariants=False)
