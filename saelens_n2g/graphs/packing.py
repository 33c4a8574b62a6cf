"""Packing: many rows of tokens as a few trees, so that a prefix that rows share goes through the model once.

A row is a path from a root of a tree to a node, a node is a token after all tokens above it. Causal attention sees
of a row only what stands before a token, so it may as well see the node's ancestors in the tree: the mask says which
these are, the position ids say how deep each node stands. All trees of one `Pack` lie in one line of tokens; nothing
is padded, and the BOS that all rows begin with is there once. (The same trick as in speculative decoding with token
trees: Miao et al. 2023, "SpecInfer", arXiv 2305.09781.)

Not every architecture can do that: attention with a recurrent state, or with a window, or with a mask of its own
cannot. Nothing here knows architectures; `can_pack` tries it once and compares.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from saelens_n2g.graphs.questions import Tokens
from saelens_n2g.sites import Site

LONGEST = 128
"""Tokens of a row that may be packed; `can_pack` tries rows of this length, so a shorter window would be noticed."""
LINE = 256
"""Nodes of one pack at most. Attention costs the square of it; far fewer would cut too many shared prefixes."""
TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.1, torch.float16: 0.02}
"""Relative difference that counts as rounding. A wrong mask or position gives differences of order 1."""


@runtime_checkable
class PackedModel(Protocol):
    """What packing needs of a subject."""

    n_ctx: int
    d_vocab: int
    dtype: torch.dtype

    @property
    def pad_id(self) -> int: ...
    def activations(self, ids: Int[Tensor, "batch pos"], sites: Sequence[Site]) -> dict[Site, Float[Tensor, "..."]]: ...
    def activations_at(
        self,
        ids: Int[Tensor, "batch pos"],
        site: Site,
        at: Int[Tensor, "n"],
        *,
        positions: Int[Tensor, "batch pos"],
        mask: Bool[Tensor, "batch pos pos"],
    ) -> Float[Tensor, "n width"]: ...


class Pack(NamedTuple):
    """Trees in one line: per node its token, its depth (0 = first token of a row) and its parent (-1 = none)."""

    ids: list[int]
    depth: list[int]
    parent: list[int]


class Packed(NamedTuple):
    """Rows as packs; row i is `nodes[i]`, one node per token, in pack `pack[i]`."""

    packs: list[Pack]
    pack: list[int]
    nodes: list[list[int]]


def pack(rows: Sequence[Tokens], line: int = LINE) -> Packed:
    """Trees of the rows, at most `line` nodes in each pack (a longer single row still gets one).

    Rows are gone through in lexicographic order, so a row shares with the one before it whatever it shares with any.
    """
    packs: list[Pack] = []
    where, nodes = [0] * len(rows), [list[int]() for _ in rows]
    path: list[int] = []
    last: Tokens = ()
    for i in sorted(range(len(rows)), key=rows.__getitem__):
        row = rows[i]
        shared = _shared(last, row)
        if not packs or len(packs[-1].ids) + len(row) - shared > line:
            packs.append(Pack([], [], []))
            shared = 0
        current = packs[-1]
        path = path[:shared]
        for depth in range(shared, len(row)):
            current.parent.append(path[-1] if path else -1)
            path.append(len(current.ids))
            current.ids.append(row[depth])
            current.depth.append(depth)
        where[i], nodes[i], last = len(packs) - 1, list(path), row
    return Packed(packs, where, nodes)


def _shared(a: Tokens, b: Tokens) -> int:
    """Length of the common prefix."""
    n = 0
    for x, y in zip(a, b, strict=False):
        if x != y:
            break
        n += 1
    return n


def lines(
    packs: Sequence[Pack], pad_id: int
) -> tuple[Int[Tensor, "batch pos"], Int[Tensor, "batch pos"], Bool[Tensor, "batch pos pos"]]:
    """Ids, position ids and mask (True where position q may look at k) of the packs; padding looks at itself."""
    width = max(len(p.ids) for p in packs)
    ids = np.full((len(packs), width), pad_id, dtype=np.int64)
    positions = np.zeros((len(packs), width), dtype=np.int64)
    mask = np.zeros((len(packs), width, width), dtype=bool)
    for b, p in enumerate(packs):
        ids[b, : len(p.ids)], positions[b, : len(p.ids)] = p.ids, p.depth
        own = mask[b]
        for node, parent in enumerate(p.parent):
            if parent >= 0:  # a parent comes before its children
                own[node] = own[parent]
            own[node, node] = True
        rest = np.arange(len(p.ids), width)
        own[rest, rest] = True
    return torch.from_numpy(ids), torch.from_numpy(positions), torch.from_numpy(mask)


def can_pack(subject: PackedModel, site: Site, count: Callable[[Tensor], None] = lambda _: None) -> bool:
    """Whether this subject gives at `site` the same activations packed as row by row, up to rounding.

    Costs two plain passes and a packed one, some 300 tokens in all; `count` is told the ids of each.
    """
    longest = min(LONGEST, subject.n_ctx)
    draw = torch.Generator().manual_seed(0)
    long = tuple(torch.randint(subject.d_vocab, (longest,), generator=draw).tolist())
    short = [row[:longest] for row in ((*long[:4], *long[-3:]), (*long[:2], *long[-5:]), (long[-1], *long[:6]))]
    packed = pack([long, *short], min(LINE, subject.n_ctx))
    ids, positions, mask = lines(packed.packs, 0)
    at = [
        place * ids.shape[1] + node
        for place, nodes in zip(packed.pack, packed.nodes, strict=True)
        for node in nodes[1:]
    ]
    plain = [torch.tensor([long]), torch.tensor(short)]
    expected = torch.cat([subject.activations(rows, [site])[site][:, 1:].flatten(0, 1) for rows in plain])
    for passed in (*plain, ids):
        count(passed)
    try:
        found = subject.activations_at(ids, site, torch.tensor(at), positions=positions, mask=mask)
    except (TypeError, ValueError, RuntimeError, IndexError, AttributeError):
        return False  # an architecture that takes no mask or positions of ours says so in its own way
    if found.shape != expected.shape:
        return False
    error = (found - expected).norm(dim=-1) / expected.norm(dim=-1).clamp(min=torch.finfo(torch.float32).tiny)
    return bool((error <= TOLERANCE.get(subject.dtype, 0.0)).all())
