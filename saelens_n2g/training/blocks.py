"""Blocks: where a stream's rows come from. A live subject, a cache on disk, or an array.

SubjectBlocks(subject, windows, sites)       # a forward pass for every block, nothing on disk
CachedBlocks(store, sites)                   # what `activations.harvest` wrote
ArrayBlocks(tensor)                          # a tensor, or an array that may be mapped from a file
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from saelens_n2g.activations import ActivationModel, ActivationStore, NonFinite, finite, scored_rows
from saelens_n2g.corpus import Windows
from saelens_n2g.errors import InputError
from saelens_n2g.sites import Site

WINDOWS_PER_BLOCK = 16
"""Windows that go through the subject at once."""
BLOCK_ROWS = 4096
"""Rows of a block that is cut from something larger: long reads, and many blocks to put in another order."""


class SubjectBlocks:
    """Activations of token windows, computed when asked for: `SiteBlocks` of `windows_per_block` windows each.

    BOS and padding are never rows. `non_finite`: `refuse` raises `InputError` where a row is not finite, `exclude`
    leaves it out at every site and counts it; then sizes of blocks are known only once these have been run.
    `excluded` of an earlier object over the same windows may be given, so that they are known from the start.
    """

    def __init__(
        self,
        subject: ActivationModel,
        windows: Windows,
        sites: Sequence[Site],
        *,
        windows_per_block: int = WINDOWS_PER_BLOCK,
        non_finite: NonFinite = "refuse",
        excluded: Mapping[int, int] | None = None,
    ) -> None:
        if windows_per_block < 1 or not sites:
            found = f"{len(sites)} sites, {windows_per_block} windows"
            raise InputError("blocks of activations", "a site or more, and a window or more in each", found)
        if non_finite not in get_args(NonFinite):
            raise InputError("non_finite of activations", f"one of {', '.join(get_args(NonFinite))}", repr(non_finite))
        self._subject, self._windows, self._sites = subject, windows, tuple(sites)
        self._step, self._non_finite = windows_per_block, non_finite
        self.excluded: dict[int, int] = dict(excluded or {})
        """Rows left out of each block that has been run, for not being finite at one of the sites."""
        scored = windows.lengths.astype(np.int64) - int(windows.bos_id is not None)
        self._scored = [int(scored[at : at + windows_per_block].sum()) for at in range(0, len(windows), self._step)]

    def __len__(self) -> int:
        return len(self._scored)

    def size(self, block: int) -> int | None:
        """Rows of a block; None while it is not known how many are excluded."""
        if self._non_finite == "refuse":
            return self._scored[block]
        return self._scored[block] - self.excluded[block] if block in self.excluded else None

    def block(self, block: int) -> dict[Site, Float[Tensor, "rows _"]]:
        """Run the subject over the block's windows. Raises `InputError` as the subject does, and for bad rows."""
        start = block * self._step
        windows = self._windows.subset(np.arange(start, min(start + self._step, len(self._windows))))
        values = scored_rows(self._subject, windows, self._sites)
        keep, _ = finite(values, self._non_finite)
        self.excluded[block] = int((~keep).sum())
        return {site: rows[keep] for site, rows in values.items()} if self.excluded[block] else values


class CachedBlocks:
    """Rows of a cache, mapped from its files and cut into blocks of at most `rows`: `SiteBlocks`.

    Raises `ArtefactError` for a missing or damaged shard or a site that is not in it; `check` as in
    `ActivationStore.mapped`.
    """

    def __init__(
        self, store: ActivationStore, sites: Sequence[Site], *, rows: int = BLOCK_ROWS, check: bool = True
    ) -> None:
        if rows < 1 or not sites:
            raise InputError("blocks of activations", "a site or more and a row or more", f"{len(sites)}, {rows}")
        self._parts = {site: store.mapped(site, check=check and i == 0) for i, site in enumerate(sites)}
        first = next(iter(self._parts.values()))
        self._cuts = [
            (shard, start, min(start + rows, len(part)))
            for shard, part in enumerate(first)
            for start in range(0, len(part), rows)
        ]

    def __len__(self) -> int:
        return len(self._cuts)

    def size(self, block: int) -> int:
        """Rows of a block."""
        _, start, stop = self._cuts[block]
        return stop - start

    def block(self, block: int) -> dict[Site, Float[Tensor, "rows _"]]:
        """The rows of a block, in the cache's type; read from disk when they are used."""
        shard, start, stop = self._cuts[block]
        return {site: parts[shard][start:stop] for site, parts in self._parts.items()}


@dataclass(frozen=True, eq=False)
class ArrayBlocks:
    """A (rows, d) tensor on the CPU, or an array that may be mapped from a file, in blocks of `rows`."""

    data: Tensor | np.ndarray
    rows: int = BLOCK_ROWS

    def __len__(self) -> int:
        return (len(self.data) + self.rows - 1) // self.rows

    def size(self, block: int) -> int:
        """Rows of a block."""
        return min(self.rows, len(self.data) - block * self.rows)

    def block(self, block: int) -> Float[Tensor, "rows d"]:
        """The rows of a block."""
        found = self.data[block * self.rows : (block + 1) * self.rows]
        return found if isinstance(found, Tensor) else torch.from_numpy(np.array(found))
