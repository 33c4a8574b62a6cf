"""Explanation: something that predicts a unit's activation from token ids alone and can say itself in words."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float


@runtime_checkable
class Explanation(Protocol):
    """What every scorer scores (one of the four protocols, docs/decisions.md)."""

    def predict(self, tokens: Sequence[int]) -> Float[np.ndarray, "token"]:
        """The predicted activation of each token in units of the unit's maximum: in [0, 1]."""
        ...

    def to_text(self) -> str:
        """The explanation as text for a reader."""
        ...
