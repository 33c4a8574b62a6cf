"""Streams: batches of shuffled rows from a source that need not fit into memory, each a function of the step alone.

    stream = ShuffledStream(OneSite(source, site), batch=4096, seed=0)
    stream.batch(0), stream.batch(1), ...                     # or from any step on, in a new process
    several = MultiStream(source, batch=4096)                 # the same rows at several sites, read once
    several.batch(0)[site];  several.at(site).batch(0)

How rows are shuffled, and what that promises, is said in `training/shuffling.py`; sources are in `training/blocks.py`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from saelens_n2g.errors import InputError
from saelens_n2g.sites import Site
from saelens_n2g.training.rows import SAMPLE_ROWS, Moments, Statistics, clipped, sample_steps
from saelens_n2g.training.shuffling import Shuffler

BUFFER_ROWS = 262_144


@runtime_checkable
class BlockSource(Protocol):
    """Rows in numbered blocks: the same rows whenever a block is asked for."""

    def __len__(self) -> int:
        """Number of blocks."""
        ...

    def size(self, block: int) -> int | None:
        """Rows of a block; None where only `block` can tell."""
        ...

    def block(self, block: int) -> Float[Tensor, "rows d"]:
        """The rows of a block, on the CPU, finite."""
        ...


@runtime_checkable
class SiteBlocks(Protocol):
    """Blocks of several sites: row i of a block is the same token at each of them."""

    def __len__(self) -> int:
        """Number of blocks."""
        ...

    def size(self, block: int) -> int | None:
        """Rows of a block, at every site; None where only `block` can tell."""
        ...

    def block(self, block: int) -> dict[Site, Float[Tensor, "rows _"]]:
        """The rows of a block at every site, on the CPU, finite."""
        ...


@dataclass(frozen=True)
class OneSite:
    """One site of blocks that have several: a `BlockSource`."""

    source: SiteBlocks
    site: Site

    def __len__(self) -> int:
        return len(self.source)

    def size(self, block: int) -> int | None:
        """Rows of a block."""
        return self.source.size(block)

    def block(self, block: int) -> Float[Tensor, "rows d"]:
        """The rows of a block."""
        return self.source.block(block)[self.site]


class _Shared:
    """What every stream has."""

    batch_rows: int
    """Rows of every batch."""
    _shuffler: Shuffler[Any]

    @property
    def rows_per_epoch(self) -> int | None:
        """Rows of the source; None where that is not known before an epoch has been gone through."""
        return self._shuffler.total

    @property
    def left_over(self) -> int | None:
        """Rows at the end of every epoch that fill no batch and are not served in it."""
        return None if self.rows_per_epoch is None else self.rows_per_epoch % self.batch_rows


def _select(pool: Tensor, places: Tensor, out: Tensor | None) -> Tensor:
    if out is None:
        return torch.index_select(pool, 0, places)
    assert out.shape == (len(places), pool.shape[1]), f"out {tuple(out.shape)} for {len(places)} rows"
    if out.dtype == pool.dtype and out.device == pool.device:
        return torch.index_select(pool, 0, places, out=out)
    return out.copy_(torch.index_select(pool, 0, places))


class _Named:
    """A source of one tensor a block, as the shuffler reads it."""

    def __init__(self, source: BlockSource) -> None:
        self._source, self.size = source, source.size

    def __len__(self) -> int:
        return len(self._source)

    def block(self, block: int) -> dict[str, Tensor]:
        return {"": self._source.block(block)}


class ShuffledStream(_Shared):
    """Batches out of a shuffling buffer over one source.

    batch: rows of a batch. buffer_rows: rows kept in memory, in the type of the source, rounded down to a multiple of
    four batches. Raises `InputError` for a buffer below that, a negative seed or a source of less than a batch.
    """

    def __init__(self, source: BlockSource, *, batch: int, buffer_rows: int = BUFFER_ROWS, seed: int = 0) -> None:
        self._shuffler = Shuffler[str](_Named(source), batch, buffer_rows, seed)
        self.batch_rows = batch

    def batch(self, step: int, out: Float[Tensor, "b d"] | None = None) -> Float[Tensor, "b d"]:
        """The rows of `step`, counted from 0: into `out`, in its type and on its device, or into a new tensor in the
        source's type on the CPU. Cheap in ascending order; any other step costs reading the buffer anew."""
        places = self._shuffler.places(step)
        return _select(self._shuffler.pool[""], places, out)


class MultiStream(_Shared):
    """Batches of the same rows at several sites, every block read once for all of them.

    A `ShuffledStream` of the same settings over one of the sites serves the same rows. Options and errors as there.
    """

    def __init__(self, source: SiteBlocks, *, batch: int, buffer_rows: int = BUFFER_ROWS, seed: int = 0) -> None:
        self._shuffler = Shuffler[Site](source, batch, buffer_rows, seed)
        self.batch_rows = batch

    def batch(self, step: int, out: Mapping[Site, Tensor] | None = None) -> dict[Site, Float[Tensor, "b _"]]:
        """The rows of `step` at every site; `out` as in `ShuffledStream.batch`, for any of the sites."""
        places = self._shuffler.places(step)
        given = {} if out is None else out
        return {site: _select(pool, places, given.get(site)) for site, pool in self._shuffler.pool.items()}

    def at(self, site: Site) -> "SiteStream":
        """The stream of one site, out of the buffer of all: cheap while all sites are at about the same step."""
        return SiteStream(self, site)

    def pick(self, step: int, site: Site, out: Tensor | None = None) -> Float[Tensor, "b d"]:
        """The rows of `step` at one site. Raises `InputError` for a site that the source lacks."""
        places = self._shuffler.places(step)
        if site not in self._shuffler.pool:
            there = ", ".join(sorted(map(str, self._shuffler.pool)))
            raise InputError(f"site {site} of a stream", f"one of {there}", str(site))
        return _select(self._shuffler.pool[site], places, out)

    def statistics(self, rows: int = SAMPLE_ROWS, clip: float = 0.0) -> dict[Site, Statistics]:
        """`rows.stream_statistics` of every site, in one pass; with `clip`, in two more of each site."""
        moments: dict[Site, Moments] = {}
        for step in range(sample_steps(rows, self.batch_rows, self.rows_per_epoch)):
            for site, values in self.batch(step).items():
                moments.setdefault(site, Moments()).add(values)
        found = {site: one.statistics() for site, one in moments.items()}
        steps = range(sample_steps(rows, self.batch_rows, self.rows_per_epoch))

        def again(site: Site) -> Iterator[Tensor]:
            return (self.pick(step, site) for step in steps)

        return {site: clipped(known, partial(again, site), clip) for site, known in found.items()} if clip else found


class SiteStream(_Shared):
    """One site of a `MultiStream`, to be used like a `ShuffledStream`."""

    def __init__(self, streams: MultiStream, site: Site) -> None:
        self._streams, self._site, self._shuffler = streams, site, streams._shuffler
        self.batch_rows = streams.batch_rows

    def batch(self, step: int, out: Float[Tensor, "b d"] | None = None) -> Float[Tensor, "b d"]:
        """As `ShuffledStream.batch`."""
        return self._streams.pick(step, self._site, out)
