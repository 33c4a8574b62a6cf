"""Evidence: what a method of fitting may know of a unit, beside what it asks the oracle.

A fit text is pushed through the subject once for all units, and indexed once for all of them too.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Int, Int64

from saelens_n2g.errors import InputError
from saelens_n2g.exemplars import Exemplar

EDGE = -2
"""Stands in the flat text where there is no token: before a row, at a BOS, in the padding (`elements.START`)."""


@dataclass(frozen=True, eq=False)
class FitText:
    """Rows of text as the subject saw them: each began behind a BOS."""

    tokens: Int[np.ndarray, "row pos"]
    mask: Bool[np.ndarray, "..."]
    """Shaped as `tokens`, which is checked. Positions that count: no BOS, no padding."""

    def __post_init__(self) -> None:
        if self.tokens.shape != self.mask.shape:
            raise InputError("mask of a text", f"shape {self.tokens.shape} as the tokens", f"shape {self.mask.shape}")

    @cached_property
    def flat(self) -> Int64[np.ndarray, "place"]:
        """All rows behind one another, an `EDGE` before each and instead of what does not count."""
        return self.spread(np.where(self.mask, self.tokens, EDGE).astype(np.int64), EDGE)

    def spread(self, values: np.ndarray, edge: float) -> np.ndarray:
        """Values shaped as the rows, laid out as `flat`, with `edge` before each row."""
        return np.asarray(np.pad(values, ((0, 0), (1, 0)), constant_values=edge).ravel())

    @cached_property
    def _order(self) -> Int64[np.ndarray, "place"]:
        return np.argsort(self.flat, kind="stable")

    @cached_property
    def _sorted(self) -> Int64[np.ndarray, "place"]:
        return np.asarray(self.flat[self._order])

    def places(self, token: int) -> Int64[np.ndarray, "n"]:
        """Where a token stands in `flat`, ascending."""
        low, high = np.searchsorted(self._sorted, (token, token + 1))
        return np.asarray(self._order[low:high])

    def summarised(
        self, values: Float[np.ndarray, "place"]
    ) -> tuple[Int64[np.ndarray, "token"], Int64[np.ndarray, "token"], Float[np.ndarray, "token"]]:
        """Each token of the text (`EDGE` included), how often it stands there, and its largest value."""
        starts = self._starts
        tokens, counts = self._sorted[starts], np.diff(starts, append=len(self._sorted))
        return tokens, counts, np.maximum.reduceat(values[self._order], starts)

    @cached_property
    def _starts(self) -> Int64[np.ndarray, "token"]:
        return np.flatnonzero(np.diff(self._sorted, prepend=self._sorted[0] - 1))

    @classmethod
    def of_exemplars(cls, exemplars: Sequence[Exemplar]) -> "tuple[FitText, Float[np.ndarray, 'row pos']]":
        """The exemplars' windows as a text, and the unit's activations on it."""
        width = max(len(exemplar.tokens) for exemplar in exemplars)
        tokens = np.zeros((len(exemplars), width), dtype=np.int64)
        mask, activations = np.zeros(tokens.shape, dtype=np.bool_), np.zeros(tokens.shape, dtype=np.float32)
        for row, exemplar in enumerate(exemplars):
            n = len(exemplar.tokens)
            tokens[row, :n], mask[row, :n], activations[row, :n] = exemplar.tokens, True, exemplar.activations
        return cls(tokens, mask), activations


@dataclass(frozen=True, eq=False)
class Evidence:
    """What is known of one unit."""

    max_activation: float
    """Largest activation over the fit corpus, in the subject's units."""
    exemplars: Sequence[Exemplar]
    """Windows with the unit's activation on every token, strongest first."""
    text: FitText | None = None
    """Text of the fit documents, the same for all units, if it is at hand."""
    activations: Float[np.ndarray, "row pos"] | None = None
    """The unit's activation on every token of `text`, shaped as it, in the subject's units."""
    alone: Float[np.ndarray, "vocab"] | None = None
    """The unit's activation on every token of the vocabulary right behind the BOS (`vocabulary.alone`), if known."""

    def __post_init__(self) -> None:
        if (self.text is None) != (self.activations is None):
            raise InputError("evidence of a unit", "text and activations, or neither", "one without the other")
        if self.text is not None and self.activations is not None and self.text.tokens.shape != self.activations.shape:
            expected = f"shape {self.text.tokens.shape} as the text"
            raise InputError("activations of a unit", expected, f"shape {self.activations.shape}")
