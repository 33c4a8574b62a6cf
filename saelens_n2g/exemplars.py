"""Exemplars: token windows with one unit's activation on every token."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Exemplar:
    """One window of text as the unit saw it, BOS and padding taken off."""

    tokens: tuple[int, ...]
    activations: np.ndarray
    """Float32 (token,), in the subject's own units, never negative."""
    window: int = -1
    """Row in the corpus windows."""

    @property
    def peak(self) -> int:
        """Position of the largest activation (the first, if several are equal): the key token."""
        return int(self.activations.argmax())
