"""Rows: a set of activations that training draws from, in memory or on disk, and the order it is drawn in."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from saelens_n2g.errors import InputError

CHUNK = 16_384
"""Rows read at a time where all are gone through in order."""


@runtime_checkable
class Rows(Protocol):
    """Activations by number. `saelens_n2g.training.as_rows` makes one of a tensor or a numpy array."""

    def __len__(self) -> int: ...
    def gather(self, indices: Int[Tensor, "b"]) -> Float[Tensor, "b d"]:
        """The rows `indices` (on the CPU), in that order, in any floating-point dtype."""
        ...


@dataclass(frozen=True, eq=False)
class ArrayRows:
    """Rows of a tensor, or of a numpy array that may be mapped from a file."""

    data: Tensor | np.ndarray

    def __len__(self) -> int:
        return len(self.data)

    def gather(self, indices: Int[Tensor, "b"]) -> Float[Tensor, "b d"]:
        if isinstance(self.data, Tensor):
            return self.data[indices.to(self.data.device)]
        return torch.from_numpy(self.data[indices.numpy()])


def as_rows(data: Any) -> Rows:
    """`data` itself if it is `Rows`; a (rows, d) tensor or array wrapped. Raises `InputError` for anything else."""
    if isinstance(data, Tensor | np.ndarray):
        if data.ndim != 2 or len(data) == 0:
            raise InputError("activations", "shape (rows, d_in), with rows", f"shape {tuple(data.shape)}")
        return ArrayRows(data)
    if isinstance(data, Rows):
        return data
    raise InputError("activations", "a tensor, an array, or an object with len() and gather()", type(data).__name__)


def chunks(rows: Rows, size: int = CHUNK) -> Iterator[Float[Tensor, "b d"]]:
    """All rows in order, `size` at a time, in float32."""
    for start in range(0, len(rows), size):
        yield rows.gather(torch.arange(start, min(start + size, len(rows)))).float()


@dataclass(frozen=True, eq=False)
class Statistics:
    """Mean and spread of a set of activations, in float64."""

    mean: Float[Tensor, "d"]
    mean_square: float
    """Mean squared distance from `mean`, summed over dimensions."""


def statistics(rows: Rows) -> Statistics:
    """Mean and spread of all rows, in two passes. Raises `InputError` if a row is not finite or all are equal."""
    total = sum(chunk.double().sum(0) for chunk in chunks(rows))
    assert isinstance(total, Tensor)
    mean = total / len(rows)
    if not torch.isfinite(mean).all():
        raise InputError("activations", "finite numbers", "NaN or infinity among them")
    square = sum((chunk.double() - mean).square().sum().item() for chunk in chunks(rows)) / len(rows)
    if square == 0:
        raise InputError("activations", "rows that differ", f"{len(rows)} equal rows")
    return Statistics(mean, square)


@dataclass
class ShuffledOrder:
    """Which rows each step sees: a new seeded permutation for every epoch, cut into whole batches.

    A function of the step alone, so that a run continues anywhere without stored generator state. The rows left over
    at the end of an epoch are not seen in it.
    """

    count: int
    batch: int
    seed: int

    def __post_init__(self) -> None:
        if self.count < self.batch:
            raise InputError("activations", f"at least one batch of {self.batch} rows", f"{self.count} rows")
        self._epoch, self._permutation = -1, torch.empty(0, dtype=torch.int64)

    def indices(self, step: int) -> Int[Tensor, "b"]:
        """Row numbers of step `step`, counted from 0."""
        epoch, position = divmod(step, self.count // self.batch)
        if epoch != self._epoch:
            # Any injective mix will do; numpy's keeps neighbouring seeds and epochs unrelated.
            mixed = int(np.random.SeedSequence([self.seed, epoch]).generate_state(1)[0])
            self._permutation = torch.randperm(self.count, generator=torch.Generator().manual_seed(mixed))
            self._epoch = epoch
        return self._permutation[position * self.batch : (position + 1) * self.batch]
