"""The subject on every token by itself, run once for all bases of a site."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float32, Int
from torch import Tensor

from saelens_n2g.bases.base import Basis
from saelens_n2g.graphs.vocabulary import VocabularyModel, alone
from saelens_n2g.sites import Site

BATCH = 1024
"""Tokens of the vocabulary to one forward pass."""
KEPT = 2**29
"""Bytes of activations that may be kept for the next basis of the same site; beyond, each basis asks anew."""


class Vocabulary:
    """Answers `hear` for one basis after another; holds the last site's activations where they are small enough."""

    def __init__(self, subject: VocabularyModel) -> None:
        self._subject = subject
        self._site: Site | None = None
        self._rows: Float32[np.ndarray, "width vocab"] | None = None

    def hear(self, basis: Basis, units: Sequence[int], width: int) -> Float32[np.ndarray, "unit vocab"]:
        """Activation of each unit of `basis` on every token right behind the BOS; `width` is that of the basis' site.

        As `graphs.vocabulary.alone`, up to the rounding of products taken over other batches.
        """
        if 4 * width * self._subject.d_vocab > KEPT:
            return alone(self._subject, basis, units, batch=BATCH)
        if self._rows is None or self._site != basis.site:
            self._rows = None  # the old one goes before the new one comes
            self._rows = alone(self._subject, _Coordinates(basis.site, width), range(width), batch=BATCH)
            self._site = basis.site
        columns = torch.tensor(list(units), dtype=torch.long)
        out = np.empty((len(units), self._subject.d_vocab), dtype=np.float32)
        device = getattr(self._subject, "device", "cpu")
        for start in range(0, out.shape[1], BATCH):
            x = torch.from_numpy(self._rows[:, start : start + BATCH].T).to(device)
            out[:, start : start + BATCH] = basis.encode_features(x, columns.to(x.device)).cpu().numpy().T
        return out


@dataclass(frozen=True)
class _Coordinates:
    """The site's own coordinates with their signs: a basis only in that it can be asked like one."""

    site: Site
    n_features: int
    name: str = "coordinates"
    signs: str = "kept"

    def encode(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        return x

    def encode_features(self, x: Float[Tensor, "*batch d"], features: Int[Tensor, "k"]) -> Float[Tensor, "*batch k"]:
        return x[..., features]

    def to(self, device: str | torch.device) -> "_Coordinates":  # noqa: ARG002  (the same call as other bases)
        return self
