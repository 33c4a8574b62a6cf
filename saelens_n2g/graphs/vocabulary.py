"""What the vocabulary itself tells, asked once for all units: who is near whom, and who fires without any context."""

from collections.abc import Collection, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Float32, Int
from torch import Tensor

from saelens_n2g.bases.base import Basis
from saelens_n2g.graphs.packing import PackedModel, can_pack
from saelens_n2g.sites import Site


@runtime_checkable
class VocabularyModel(Protocol):
    """What `alone` needs of a subject."""

    bos_id: int | None
    d_vocab: int

    def activations(self, ids: Int[Tensor, "batch pos"], sites: Sequence[Site]) -> dict[Site, Float[Tensor, "..."]]: ...


class Neighbours:
    """The tokens nearest to a token: largest cosine between input embeddings, their common mean taken off.

    nearest = Neighbours(subject.embeddings(), exclude=special_ids)
    nearest([token, other], 40)
    """

    def __init__(self, embeddings: Float[np.ndarray, "vocab d"], *, exclude: Collection[int] = ()) -> None:
        centred = embeddings.astype(np.float32) - embeddings.mean(axis=0, dtype=np.float64).astype(np.float32)
        lengths = np.linalg.norm(centred, axis=1, keepdims=True)
        self._vectors = centred / np.maximum(lengths, 1e-12)
        self._never = np.array(sorted(exclude), dtype=np.int64)
        self._known: dict[tuple[int, int], tuple[int, ...]] = {}

    def __call__(self, tokens: Sequence[int], n: int) -> list[tuple[int, ...]]:
        """For each token at most `n`, nearest first, equal ones in order of their ids, without the token itself.

        Many at once: one product of matrices costs a fifth of as many products with a vector.
        """
        new = sorted({token for token in tokens if (token, n) not in self._known})
        for start in range(0, len(new), BLOCK):
            block = new[start : start + BLOCK]
            likeness = self._vectors[block] @ self._vectors.T
            likeness[:, self._never] = -np.inf
            likeness[np.arange(len(block)), block] = -np.inf
            for token, row in zip(block, likeness, strict=True):
                self._known[token, n] = self._ranked(token, row, n)
        return [self._known[token, n] for token in tokens]

    def _ranked(self, token: int, likeness: Float[np.ndarray, "vocab"], n: int) -> tuple[int, ...]:
        """The best of a row. Ranked by products in double precision, so that they do not depend on the block."""
        n_found = min(n + SPARE, int(np.isfinite(likeness).sum()))
        if n_found == 0 or n == 0:
            return ()
        bound = np.partition(likeness, len(likeness) - n_found)[len(likeness) - n_found]
        found = np.flatnonzero(likeness >= bound)
        exact = np.einsum("nd,d->n", self._vectors[found], self._vectors[token], dtype=np.float64)
        return tuple(found[np.argsort(-exact, kind="stable")][:n].tolist())


BLOCK, SPARE = 64, 8
"""Tokens looked up together, and neighbours looked at beyond those wanted, which rounding could put before them."""


def alone(
    subject: VocabularyModel, basis: Basis, units: Sequence[int], *, batch: int = 1024
) -> Float32[np.ndarray, "unit vocab"]:
    """Activation of each unit on every token right behind the BOS (as the whole text, where there is no BOS).

    One pass over the vocabulary, however many units are asked for; where rows can be packed (`graphs.packing`) the
    BOS is run once for many tokens.
    """
    columns = torch.tensor(list(units), dtype=torch.long)
    packed = subject.bos_id is not None and isinstance(subject, PackedModel) and can_pack(subject, basis.site)
    out = np.empty((len(units), subject.d_vocab), dtype=np.float32)
    for start in range(0, subject.d_vocab, batch):
        tokens = torch.arange(start, min(start + batch, subject.d_vocab))
        x = _fanned(subject, basis.site, tokens) if packed else _plain(subject, basis.site, tokens)
        out[:, start : start + len(tokens)] = basis.encode_features(x, columns.to(x.device)).cpu().numpy().T
    return out


FAN = 64
"""Tokens that share one BOS."""


def tokens_run(subject: VocabularyModel, site: Site) -> int:
    """Tokens that `alone` pushes through the subject."""
    if subject.bos_id is None:
        return subject.d_vocab
    packed = isinstance(subject, PackedModel) and can_pack(subject, site)
    return subject.d_vocab + (-(-subject.d_vocab // FAN) if packed else subject.d_vocab)


def _plain(subject: VocabularyModel, site: Site, tokens: Int[Tensor, "n"]) -> Float[Tensor, "n width"]:
    front = [] if subject.bos_id is None else [subject.bos_id]
    ids = torch.stack([torch.full_like(tokens, token) for token in front] + [tokens], dim=1)
    return subject.activations(ids, [site])[site][:, -1]


def _fanned(subject: Any, site: Site, tokens: Int[Tensor, "n"]) -> Float[Tensor, "n width"]:
    """Rows of one BOS and many tokens, each of which sees the BOS and itself alone."""
    rows = -(-len(tokens) // FAN)
    ids = torch.full((rows, 1 + FAN), subject.bos_id, dtype=torch.long)
    places = (torch.arange(len(tokens)) // FAN) * (1 + FAN) + 1 + torch.arange(len(tokens)) % FAN
    ids.view(-1)[places] = tokens
    positions = torch.ones_like(ids)
    positions[:, 0] = 0
    mask = torch.eye(1 + FAN, dtype=torch.bool)
    mask[:, 0] = True
    out: Tensor = subject.activations_at(ids, site, places, positions=positions, mask=mask.expand(rows, -1, -1))
    return out
