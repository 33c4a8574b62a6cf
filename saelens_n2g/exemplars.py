"""Exemplars: token windows with one unit's activation on every token, and how they are chosen from a corpus.

Per unit the windows with the largest activations (Neuroscope's 20), from the fit documents and from the test
documents apart, and windows drawn at random. Windows that say the same twice are kept once.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from saelens_n2g.corpus import Windows

SHINGLE = 5
"""Tokens that make one shingle when windows are compared."""
SAME = 0.5
"""Windows that share at least this part of their shingles (Jaccard) are near-duplicates."""
CONTEXT = 12
"""Two windows are near-duplicates too if the key token and so many tokens before it are the same."""


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


@dataclass(frozen=True, eq=False)
class ExemplarSet:
    """What is shown of a unit and fitted to."""

    fit: tuple[Exemplar, ...]
    """Top windows of the fit documents, strongest first."""
    test: tuple[Exemplar, ...]
    """Top windows of the test documents; none repeats one of `fit`."""
    random: tuple[Exemplar, ...]
    """Windows of the test documents drawn at random, the same for every unit."""
    duplicates: int
    """Windows passed over because they repeat one that was taken."""


def exemplar(windows: Windows, activations: Float[np.ndarray, "window pos"], row: int) -> Exemplar:
    """Window `row` with its activations; only scored positions."""
    start, stop = int(windows.bos_id is not None), int(windows.lengths[row])
    tokens = tuple(int(t) for t in windows.tokens[row, start:stop])
    return Exemplar(tokens, np.asarray(activations[row, start:stop], dtype=np.float32), row)


def choose_exemplars(
    windows: Windows,
    activations: Float[np.ndarray, "window pos"],
    fit_rows: Int[np.ndarray, "f"],
    test_rows: Int[np.ndarray, "t"],
    *,
    top: int = 20,
    random: int = 20,
    seed: int = 0,
) -> ExemplarSet:
    """Exemplars of one unit, whose `activations` on all windows are given (zero where nothing is scored).

    Windows on which the unit is never above zero are no exemplars. Equal maxima are ordered by row.
    """
    peaks = activations.max(axis=1)
    taken: list[Exemplar] = []
    skipped = 0

    def strongest(rows: Int[np.ndarray, "r"]) -> tuple[Exemplar, ...]:
        nonlocal skipped
        found: list[Exemplar] = []
        for row in rows[np.lexsort((rows, -peaks[rows]))]:
            if len(found) == top or peaks[row] <= 0.0:
                break
            new = exemplar(windows, activations, int(row))
            if is_duplicate(new, taken):
                skipped += 1
                continue
            found.append(new)
            taken.append(new)
        return tuple(found)

    fit, test = strongest(np.asarray(fit_rows)), strongest(np.asarray(test_rows))
    drawn = np.random.default_rng(seed).permutation(np.asarray(test_rows))[:random]
    return ExemplarSet(fit, test, tuple(exemplar(windows, activations, int(row)) for row in drawn), skipped)


def is_duplicate(new: Exemplar, taken: Iterable[Exemplar]) -> bool:
    """Whether `new` says what one of `taken` says: much the same tokens, or the same passage up to the key token."""
    shingles, passage = _shingles(new.tokens), _passage(new)
    for other in taken:
        if len(passage) > CONTEXT and passage == _passage(other):
            return True
        theirs = _shingles(other.tokens)
        if shingles and theirs and len(shingles & theirs) >= SAME * len(shingles | theirs):
            return True
    return False


def _shingles(tokens: Sequence[int]) -> set[tuple[int, ...]]:
    return {tuple(tokens[i : i + SHINGLE]) for i in range(len(tokens) - SHINGLE + 1)}


def _passage(one: Exemplar) -> tuple[int, ...]:
    return one.tokens[max(0, one.peak - CONTEXT) : one.peak + 1]
