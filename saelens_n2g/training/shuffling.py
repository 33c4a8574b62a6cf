"""The shuffling buffer behind the streams of `training/stream.py`: which rows it holds, and in what order they go.

Every epoch goes through all blocks of a source in a new order. Their rows, laid end to end, are cut into chunks of half
a buffer, and the buffer holds two chunks at a time:

    round 0       serves chunk 0 and half of chunk 1, shuffled together
    round r > 0   serves the other half of chunk r and half of chunk r + 1, shuffled together
    last round    serves all that is left, once the blocks of the epoch have run out

When a round is over the older chunk is used up and the next one is read into its place. Which half of a chunk is
served first, and the order within a round, are permutations drawn from (seed, epoch, chunk or round). Hence:

- every row of an epoch is served once, but for `rows % batch` that are left over at its end;
- nothing but the step decides a batch, and to begin anywhere is to read the buffer's two chunks, not more;
- a row waits for two rounds at most. A buffer that draws from all it holds keeps some rows for very long, and to
  rebuild it one would have to read back to the oldest of them.
"""

from collections.abc import Hashable, Iterator
from typing import Generic, Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from saelens_n2g.errors import InputError

ORDER, HALVES, ROUND = range(3)
"""What a permutation is for, so that no two are drawn from one seed."""

K = TypeVar("K", bound=Hashable)


@runtime_checkable
class Blocks(Protocol[K]):
    """Rows in numbered blocks: the same rows whenever a block is asked for, and as many under every key."""

    def __len__(self) -> int: ...
    def size(self, block: int) -> int | None: ...
    def block(self, block: int) -> dict[K, Tensor]: ...


def permutation(n: int, *key: int) -> Int[Tensor, "n"]:
    """A permutation of n numbers that `key` decides; numpy's mix keeps neighbouring keys unrelated."""
    mixed = int(np.random.SeedSequence(key).generate_state(1)[0])
    return torch.randperm(n, generator=torch.Generator().manual_seed(mixed))


def _length(values: dict[K, Tensor]) -> int:
    return len(next(iter(values.values())))


class Reader(Generic[K]):
    """The rows of one epoch, block after block, from any row on. `sizes` is what is known of blocks, and grows."""

    def __init__(self, source: Blocks[K], order: list[int], sizes: dict[int, int]) -> None:
        self._source, self._order, self._sizes = source, order, sizes
        self._next, self._used, self._left = 0, 0, 0
        self._open: dict[K, Tensor] = {}
        self.row = 0
        """Where the next `read` begins, counted from the start of the epoch."""

    def seek(self, row: int) -> None:
        """Go to `row`, or to the end if the epoch is shorter. Only blocks of unknown size are read on the way."""
        self._next, self._left, self.row = 0, 0, 0
        while self._next < len(self._order) and self.row < row:
            size = self._size(self._order[self._next])
            if self.row + size > row:
                self._open_next()
                self._used, self._left, self.row = row - self.row, self.row + size - row, row
                return
            self.row += size
            self._next += 1

    def _size(self, block: int) -> int:
        if block not in self._sizes:
            known = self._source.size(block)
            self._sizes[block] = _length(self._source.block(block)) if known is None else known
        return self._sizes[block]

    def _open_next(self) -> None:
        """Read the next block. Raises `InputError` if it has not as many rows as it had, or as its source says."""
        block = self._order[self._next]
        self._open = self._source.block(block)
        self._used, self._left = 0, _length(self._open)
        known = self._sizes.setdefault(block, self._left)
        if known != self._left:
            raise InputError(f"block {block} of the activations", f"{known} rows", str(self._left))
        self._next += 1

    def read(self, rows: int) -> Iterator[dict[K, Tensor]]:
        """The next `rows` rows in pieces; fewer where the epoch ends."""
        while rows > 0:
            if self._left == 0:
                self._open = {}  # before the next block is there, so that two are never held
                if self._next == len(self._order):
                    return
                self._open_next()
                continue
            taken = min(self._left, rows)
            yield {key: values[self._used : self._used + taken] for key, values in self._open.items()}
            self._used, self._left, self.row = self._used + taken, self._left - taken, self.row + taken
            rows -= taken


class Shuffler(Generic[K]):
    """Where in the buffer the rows of a step lie (see the module's text); `pool` is the buffer, by key.

    batch: rows a step. buffer_rows: rows held, rounded down to a multiple of four batches. Raises `InputError` for a
    buffer of less than four batches, a negative seed, or a source with fewer rows than a batch.
    """

    def __init__(self, source: Blocks[K], batch: int, buffer_rows: int, seed: int) -> None:
        quarter = buffer_rows // (4 * batch) * batch if batch > 0 else 0
        if quarter == 0:
            raise InputError(
                "shuffling buffer", "batches of a row or more, four or more of them", f"{buffer_rows} rows"
            )
        if seed < 0:
            raise InputError("seed of the shuffling buffer", "an integer >= 0", str(seed))
        self.source, self.batch, self.seed = source, batch, seed
        self.quarter, self.half = quarter, 2 * quarter
        self.pool: dict[K, Tensor] = {}
        self.total: int | None = None
        """Rows of an epoch; None until they are known."""
        self.sizes: dict[int, int] = {}
        for block in range(len(source)):
            if (size := source.size(block)) is not None:
                self.sizes[block] = size
        if len(self.sizes) == len(source):
            self._ends_at(sum(self.sizes.values()))
        self._epoch, self._round = -1, -1
        self._held: dict[int, tuple[int, int]] = {}  # half of the buffer -> chunk in it, rows of that chunk
        self._reader: Reader[K] = Reader(source, [], self.sizes)
        self._places = torch.empty(0, dtype=torch.int64)

    def _ends_at(self, total: int) -> None:
        if total < self.batch:
            raise InputError("activations", f"at least one batch of {self.batch} rows", f"{total} rows")
        self.total = total

    def places(self, step: int) -> Int[Tensor, "b"]:
        """Rows of `pool` that are the batch of `step`, counted from 0; the pool holds them when this returns."""
        if step < 0:
            raise InputError("step of a stream", "an integer >= 0", str(step))
        known = self.total
        epoch, row = self._locate(step)
        self._load(epoch, self._round_of(row))
        if self.total != known:  # this has met the end of the first epoch, which may lie before the step
            epoch, row = self._locate(step)
            self._load(epoch, self._round_of(row))
        begin = row - (self._round * self.half + self.quarter if self._round else 0)
        return self._places[begin : begin + self.batch]

    def _locate(self, step: int) -> tuple[int, int]:
        """Epoch of a step, and how many rows that epoch has served before it."""
        epoch, step = (0, step) if self.total is None else divmod(step, self.total // self.batch)
        return epoch, step * self.batch

    def _round_of(self, row: int) -> int:
        """Round that serves an epoch's row-th row; the last one is the first whose newer chunk is not whole."""
        number = max(0, (row - self.quarter) // self.half)
        return number if self.total is None else min(number, max(0, self.total // self.half - 1))

    def _load(self, epoch: int, number: int) -> None:
        """Bring the two chunks of a round into the buffer, and draw the order in which it serves them."""
        if (epoch, number) == (self._epoch, self._round):
            return
        if epoch != self._epoch:
            order = permutation(len(self.source), self.seed, ORDER, epoch).tolist()
            self._reader, self._held = Reader(self.source, order, self.sizes), {}
        self._epoch, self._round = epoch, -1  # should reading fail, nothing is served
        older, newer = self._chunk(number), self._chunk(number + 1)
        if newer < self.half and self.total is None:
            self._ends_at(self._reader.row)
        self._places, self._round = self._order(number, older, newer), number

    def _chunk(self, chunk: int) -> int:
        """Have a chunk in its half of the buffer. Returns its rows: less than `half` at the end of the epoch."""
        side = chunk % 2
        held, rows = self._held.get(side, (-1, 0))
        if held == chunk:
            return rows
        self._held.pop(side, None)
        if self._reader.row != chunk * self.half:
            self._reader.seek(chunk * self.half)
        begin = at = side * self.half
        for piece in self._reader.read(self.half):
            end = at + _length(piece)
            for key, values in piece.items():
                self._room(key, values)[at:end].copy_(values)
            at = end
        self._held[side] = chunk, at - begin
        return at - begin

    def _room(self, key: K, like: Tensor) -> Tensor:
        if key not in self.pool:
            rows = 2 * self.half if self.total is None else min(2 * self.half, self.total)
            self.pool[key] = torch.empty(rows, like.shape[1], dtype=like.dtype)
        return self.pool[key]

    def _order(self, number: int, older: int, newer: int) -> Tensor:
        """Places in the buffer of all rows that a round serves, shuffled."""
        first = torch.arange(older) if number == 0 else self._halves(number)[self.quarter :]
        second = torch.arange(newer) if newer < self.half else self._halves(number + 1)[: self.quarter]
        places = torch.cat([first + number % 2 * self.half, second + (number + 1) % 2 * self.half])
        return places[permutation(len(places), self.seed, ROUND, self._epoch, number)]

    def _halves(self, chunk: int) -> Tensor:
        return permutation(self.half, self.seed, HALVES, self._epoch, chunk)
