"""What the vocabulary itself tells, asked once for all units: who is near whom, and who fires without any context."""

from collections.abc import Collection, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Float32, Int
from torch import Tensor

from saelens_n2g.bases.base import Basis
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
    nearest(token, 40)
    """

    def __init__(self, embeddings: Float[np.ndarray, "vocab d"], *, exclude: Collection[int] = ()) -> None:
        centred = embeddings.astype(np.float32) - embeddings.mean(axis=0, dtype=np.float64).astype(np.float32)
        lengths = np.linalg.norm(centred, axis=1, keepdims=True)
        self._vectors = centred / np.maximum(lengths, 1e-12)
        self._never = np.array(sorted(exclude), dtype=np.int64)
        self._known: dict[tuple[int, int], tuple[int, ...]] = {}

    def __call__(self, token: int, n: int) -> tuple[int, ...]:
        """At most `n` tokens, nearest first, equal ones in order of their ids, without `token` itself."""
        if (token, n) not in self._known:
            likeness = self._vectors @ self._vectors[token]
            likeness[self._never] = -np.inf
            likeness[token] = -np.inf
            n_found = min(n, int(np.isfinite(likeness).sum()))
            if n_found == 0:
                return ()
            bound = np.partition(likeness, len(likeness) - n_found)[len(likeness) - n_found]
            found = np.flatnonzero(likeness >= bound)
            ranked = found[np.argsort(-likeness[found], kind="stable")][:n_found]
            self._known[token, n] = tuple(ranked.tolist())
        return self._known[token, n]


def alone(
    subject: VocabularyModel, basis: Basis, units: Sequence[int], *, batch: int = 1024
) -> Float32[np.ndarray, "unit vocab"]:
    """Activation of each unit on every token right behind the BOS (as the whole text, where there is no BOS).

    One pass of two tokens per entry of the vocabulary, however many units are asked for.
    """
    front = [] if subject.bos_id is None else [subject.bos_id]
    columns = torch.tensor(list(units), dtype=torch.long)
    out = np.empty((len(units), subject.d_vocab), dtype=np.float32)
    for start in range(0, subject.d_vocab, batch):
        tokens = torch.arange(start, min(start + batch, subject.d_vocab))
        ids = torch.stack([torch.full_like(tokens, token) for token in front] + [tokens], dim=1)
        x = subject.activations(ids, [basis.site])[basis.site][:, -1]
        found = basis.encode_features(x, columns.to(x.device)).cpu().numpy()
        out[:, start : start + len(tokens)] = found.T
    return out
