"""Running: how the rows that an oracle wants go through the subject, packed where that holds, else padded.

Two ways with the same result up to rounding. *Packed*: shared prefixes once, no padding, the last MLP on the wanted
positions alone (`packing`). *Plain*: rows of similar length padded to the longest, everything computed; the reference,
and what is left for architectures that cannot be packed and for very long rows.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from saelens_n2g.graphs.packing import LINE, LONGEST, PackedModel, can_pack, lines, pack
from saelens_n2g.graphs.questions import Tokens
from saelens_n2g.sites import Site

Item = TypeVar("Item")
SLACK = 64
"""Padding tokens that are cheaper than one more call of the model."""


@runtime_checkable
class ActivationModel(Protocol):
    """What the oracle needs of a subject. One that is a `packing.PackedModel` as well is asked in packs."""

    bos_id: int | None

    @property
    def pad_id(self) -> int: ...
    def activations(self, ids: Int[Tensor, "batch pos"], sites: Sequence[Site]) -> dict[Site, Float[Tensor, "..."]]: ...


class Row(NamedTuple):
    """A row without BOS and the positions of it that are wanted."""

    tokens: Tokens
    at: Sequence[int]


@dataclass
class Costs:
    """What answering took."""

    calls: int = 0
    """Forward passes of the subject up to the layer."""
    tokens: int = 0
    """Tokens pushed through it, padding and BOS included."""
    rows_asked: int = 0
    rows_run: int = 0
    """Rows left after duplicates were dropped."""
    proposals: int = 0
    """Masked positions that the augmenter filled."""


@dataclass
class Runner:
    """Runs rows through one subject up to one site, in batches of at most `batch_tokens` tokens."""

    subject: ActivationModel
    site: Site
    batch_tokens: int
    """Tokens of one forward pass at most; a single longer row still runs, alone."""
    costs: Costs
    packs: bool | None = field(default=None, init=False)
    """Whether the subject can be packed; found out when first needed."""

    def run(self, rows: Sequence[Row]) -> Iterator[tuple[Sequence[Row], Float[Tensor, "n width"]]]:
        """Batches of rows with their activations: the wanted places of the first row, of the second, and so on.

        Rows must differ. Comes lazily, so that no more than one batch is alive.
        """
        front = () if self.subject.bos_id is None else (self.subject.bos_id,)
        short = [row for row in rows if len(front) + len(row.tokens) <= LONGEST]
        if not short or not self._can_pack():
            yield from self._plain(rows, front)
            return
        yield from self._packed(short, front)
        yield from self._plain([row for row in rows if len(front) + len(row.tokens) > LONGEST], front)

    def _can_pack(self) -> bool:
        if self.packs is None:
            self.packs = isinstance(self.subject, PackedModel) and can_pack(self.subject, self.site, self._count)
        return self.packs

    def _plain(self, rows: Sequence[Row], front: Tokens) -> Iterator[tuple[Sequence[Row], Float[Tensor, "n width"]]]:
        ordered = sorted(rows, key=lambda row: (len(row.tokens), row.tokens))
        for batch in batches(ordered, lambda row: len(front) + len(row.tokens), self.batch_tokens):
            width = len(front) + len(batch[-1].tokens)
            ids = torch.full((len(batch), width), self.subject.pad_id, dtype=torch.long)
            for i, row in enumerate(batch):
                ids[i, : len(front) + len(row.tokens)] = torch.tensor((*front, *row.tokens))
            self._count(ids)
            x = self.subject.activations(ids, [self.site])[self.site]
            at = [i * width + len(front) + place for i, row in enumerate(batch) for place in row.at]
            yield batch, x.flatten(0, 1)[torch.tensor(at, dtype=torch.long, device=x.device)]

    def _packed(self, rows: Sequence[Row], front: Tokens) -> Iterator[tuple[Sequence[Row], Float[Tensor, "n width"]]]:
        subject = self.subject
        assert isinstance(subject, PackedModel)
        packed = pack([(*front, *row.tokens) for row in rows], min(LINE, subject.n_ctx, self.batch_tokens))
        members: list[list[int]] = [[] for _ in packed.packs]
        for i, number in enumerate(packed.pack):
            members[number].append(i)
        sizes = [len(p.ids) for p in packed.packs]
        ordered = sorted(range(len(sizes)), key=lambda number: (sizes[number], number))
        for batch in batches(ordered, sizes.__getitem__, self.batch_tokens):
            ids, positions, mask = lines([packed.packs[number] for number in batch], subject.pad_id)
            self._count(ids)
            chosen = [(line, i) for line, number in enumerate(batch) for i in members[number]]
            nodes = [line * ids.shape[1] + packed.nodes[i][len(front) + p] for line, i in chosen for p in rows[i].at]
            at = torch.tensor(nodes, dtype=torch.long)
            x = subject.activations_at(ids, self.site, at, positions=positions, mask=mask)
            yield [rows[i] for _, i in chosen], x

    def _count(self, ids: Int[Tensor, "batch pos"]) -> None:
        self.costs.calls += 1
        self.costs.tokens += ids.numel()


def batches(items: Sequence[Item], size: Callable[[Item], int], limit: int) -> Iterator[list[Item]]:
    """Items of ascending size in batches of at most `limit` tokens, padding counted, with little padding.

    A single item larger than `limit` is a batch of its own.
    """
    batch: list[Item] = []
    filled = 0
    for item in items:
        filled += size(item)
        padded = (len(batch) + 1) * size(item)
        if batch and (padded > limit or padded - filled > max(SLACK, filled // 8)):
            yield batch
            batch, filled = [], size(item)
        batch.append(item)
    if batch:
        yield batch
