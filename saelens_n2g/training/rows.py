"""Rows: a set of activations that training draws from, in memory or on disk, and the order it is drawn in.

rows = as_rows(tensor)                        # or a numpy array
rows = CachedRows(folder, site)               # mapped from the shards of a cache
statistics(rows)                              # mean and spread of all; `stream_statistics` of a stream's beginning
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from saelens_n2g.activations import ActivationStore
from saelens_n2g.errors import InputError
from saelens_n2g.sites import Site

CHUNK = 16_384
"""Rows read at a time where all are gone through in order."""
SAMPLE_ROWS = 131_072
"""Rows from which a stream's statistics are estimated: the mean of each dimension is then known to 0.3 % of its
standard deviation, were the rows independent. At most three quarters of the default buffer, which is what a stream
serves before it reads on."""


@runtime_checkable
class Rows(Protocol):
    """Activations by number. `saelens_n2g.training.as_rows` makes one of a tensor or a numpy array."""

    def __len__(self) -> int: ...
    def gather(self, indices: Int[Tensor, "b"]) -> Float[Tensor, "b d"]:
        """The rows `indices` (on the CPU), in that order, in any floating-point dtype."""
        ...


@runtime_checkable
class Stream(Protocol):
    """Batches of rows by step, however many there are; `training/stream.py` has them."""

    @property
    def rows_per_epoch(self) -> int | None:
        """Rows that are gone through before they come again; None where that is not known yet."""
        ...

    @property
    def batch_rows(self) -> int:
        """Rows of every batch."""
        ...

    def batch(self, step: int, out: Tensor | None = None) -> Float[Tensor, "b d"]:
        """The rows of a step, counted from 0: a function of the step alone."""
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


class CachedRows:
    """The rows of one site in a cache of activations, mapped from its shards: memory stays as it is.

    cache: the store that `activations.harvest` returned, or its folder. Raises `ArtefactError` for a missing or damaged
    shard, or a cache without `site`; `check` as in `ActivationStore.mapped`.
    """

    def __init__(self, cache: ActivationStore | Path, site: Site, *, check: bool = True) -> None:
        store = ActivationStore.open(cache) if isinstance(cache, Path) else cache
        self._parts = store.mapped(site, check=check)
        lengths = torch.tensor([len(part) for part in self._parts], dtype=torch.int64)
        self._ends = torch.cumsum(lengths, 0)
        if not lengths.sum():
            raise InputError(f"activations at {site}", "at least one row", f"an empty cache in {store.folder}")

    def __len__(self) -> int:
        return int(self._ends[-1])

    def gather(self, indices: Int[Tensor, "b"]) -> Float[Tensor, "b d"]:
        """The rows `indices`, each in [0, len), in that order and in the cache's type."""
        ascending, order = torch.sort(indices)
        if len(indices) and (int(ascending[0]) < 0 or int(ascending[-1]) >= len(self)):
            raise IndexError(f"rows {int(ascending[0])} to {int(ascending[-1])} of {len(self)}")
        out = torch.empty(len(indices), self._parts[0].shape[1], dtype=self._parts[0].dtype)
        cuts = [0, *torch.searchsorted(ascending, self._ends).tolist()]
        for part, end, start, stop in zip(self._parts, self._ends.tolist(), cuts, cuts[1:], strict=False):
            if start < stop:  # file by file and in the order of the file, so that pages are read once
                found = torch.index_select(part, 0, ascending[start:stop] - (end - len(part)))
                out.index_copy_(0, order[start:stop], found)
        return out


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
    limit: float | None = None
    """Distance from `mean` to which longer activations are shortened; None leaves all as they are."""


def shortened(offset: Float[Tensor, "b d"], limit: float) -> Float[Tensor, "b d"]:
    """Rows of at most that length, in their old directions."""
    length = torch.linalg.vector_norm(offset, dim=1, keepdim=True)
    return offset.mul(limit / length.clamp(min=limit))


def clipped(known: Statistics, batches: Callable[[], Iterable[Tensor]], clip: float) -> Statistics:
    """Statistics of rows that are shortened to `clip` median distances from the mean `known`.

    batches: goes through the rows from the start whenever it is called. Raises `InputError` for a median distance of 0.
    """
    centre = known.mean
    distances = [torch.linalg.vector_norm(batch.double() - centre, dim=1) for batch in batches()]
    limit = clip * torch.cat(distances).median().item()
    if not limit > 0:
        raise InputError("activations to clip", "rows of which more than half differ from the mean", "equal ones")
    moments = Moments()
    for batch in batches():
        moments.add(centre + shortened(batch.double() - centre, limit))
    return replace(moments.statistics(), limit=limit)


def statistics(rows: Rows, clip: float = 0.0) -> Statistics:
    """Mean and spread of all rows, in two passes; with `clip`, of rows shortened to that many median distances, in two
    more. Raises `InputError` if a row is not finite or all are equal."""
    total = sum(chunk.double().sum(0) for chunk in chunks(rows))
    assert isinstance(total, Tensor)
    mean = total / len(rows)
    if not torch.isfinite(mean).all():
        raise InputError("activations", "finite numbers", "NaN or infinity among them")
    square = sum((chunk.double() - mean).square().sum().item() for chunk in chunks(rows)) / len(rows)
    if square == 0:
        raise InputError("activations", "rows that differ", f"{len(rows)} equal rows")
    known = Statistics(mean, square)
    return clipped(known, lambda: chunks(rows), clip) if clip else known


class Moments:
    """Mean and spread of rows that come batch by batch, in float64: pairwise, as in Chan, Golub and LeVeque 1979."""

    def __init__(self) -> None:
        self._rows, self._square = 0, 0.0
        self._mean: Tensor = torch.zeros(0)

    def add(self, batch: Float[Tensor, "b d"]) -> None:
        """Take in one batch, of any floating-point type."""
        values, before = batch.double(), self._rows
        mean, self._rows = values.mean(0), before + len(values)
        shift = mean - self._mean if before else torch.zeros_like(mean)
        self._mean = self._mean + shift * (len(values) / self._rows) if before else mean
        self._square += (values - mean).square().sum().item()
        self._square += shift.square().sum().item() * before * len(values) / self._rows

    def statistics(self) -> Statistics:
        """Of all rows so far. Raises `InputError` if one is not finite or all are equal."""
        if not torch.isfinite(self._mean).all():
            raise InputError("activations", "finite numbers", "NaN or infinity among them")
        if self._square == 0:
            raise InputError("activations", "rows that differ", f"{self._rows} equal rows")
        return Statistics(self._mean, self._square / self._rows)


def sample_steps(rows: int, batch: int, rows_per_epoch: int | None) -> int:
    """Steps that a sample of `rows` rows takes: at least one, and no more than an epoch where its end is known."""
    steps = -(-rows // batch)
    return max(1, steps if rows_per_epoch is None else min(steps, rows_per_epoch // batch))


def stream_statistics(stream: Stream, rows: int = SAMPLE_ROWS, clip: float = 0.0) -> Statistics:
    """Mean and spread of a stream, estimated from its first `rows` rows: whole batches from step 0 on, at most one
    epoch. The mean's standard error is about 1 / sqrt(rows) of the standard deviation; rows of one document are alike,
    which makes it somewhat larger. clip and errors as in `statistics`."""
    moments = Moments()
    for step in range(sample_steps(rows, stream.batch_rows, stream.rows_per_epoch)):
        moments.add(stream.batch(step))
    # How long an epoch is may have become known on the way.
    steps = range(sample_steps(rows, stream.batch_rows, stream.rows_per_epoch))
    known = moments.statistics()
    return clipped(known, lambda: (stream.batch(step) for step in steps), clip) if clip else known


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


class RowStream:
    """Rows that can be had by number, as a `Stream`: every epoch in another order, any row anywhere in it."""

    def __init__(self, rows: Rows, *, batch: int, seed: int = 0) -> None:
        self.rows, self.order = rows, ShuffledOrder(len(rows), batch, seed)

    @property
    def rows_per_epoch(self) -> int:
        """All rows."""
        return len(self.rows)

    @property
    def batch_rows(self) -> int:
        """Rows of every batch."""
        return self.order.batch

    def batch(self, step: int, out: Tensor | None = None) -> Float[Tensor, "b d"]:
        """The rows of a step, counted from 0: a function of the step alone."""
        found = self.rows.gather(self.order.indices(step))
        return found if out is None else out.copy_(found)
