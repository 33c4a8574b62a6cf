"""The interpretability score of Cunningham et al. 2023, section 3, after Bills et al. 2023: explanation -> simulated
activations -> correlation with the true ones, over the tokens of all fragments together.

    cut = Fragments.of(test_windows, 64)
    chosen = cut.choose(activations_of_the_unit, n=20, uniform=200, seed=0)
    scores = correlations(cut, chosen, activations_of_the_unit, explanation)      # kind -> Pearson's r or None

Any `Explanation` will do. The subject and the explanation read a fragment in its window, so what stands before it is
known to both; the authors' fragments stand alone, and there a language model simulates. Kinds of fragments:

    top              the unit's strongest
    random           drawn from those on which the unit is above zero anywhere, the strongest left out: the authors'
                     "random" fragments, which are drawn by looking at activations too
    top_and_random   both, in equal numbers
    uniform          drawn without looking at activations

Of these only `uniform` is a plain sample of text. Correlation over top and random fragments together failed published
sanity checks of evaluation metrics (Oikarinen et al. 2025, arXiv 2506.05774, where Pearson's r over a plain sample,
AUPRC and F1 passed); it is here to be compared with what others report.
"""

from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Float32, Int, Int64

from saelens_n2g.corpus import Windows
from saelens_n2g.explanations.base import Explanation
from saelens_n2g.scoring import correlation

KINDS = ("top", "random", "top_and_random", "uniform")


@runtime_checkable
class TextExplanation(Protocol):
    """An explanation that predicts many rows at once, as graphs and tables do."""

    def predict_text(
        self, tokens: Int[np.ndarray, "n w"], mask: np.ndarray | None = None
    ) -> Float[np.ndarray, "n w"]: ...


class Chosen(NamedTuple):
    """Fragments of each kind, as numbers into `Fragments`."""

    top: Int64[np.ndarray, "t"]
    random: Int64[np.ndarray, "r"]
    top_and_random: Int64[np.ndarray, "b"]
    uniform: Int64[np.ndarray, "u"]


@dataclass(frozen=True, eq=False)
class Fragments:
    """Windows cut into fragments of `length` scored tokens, one behind the other; what is left over is left out."""

    windows: Windows
    length: int
    row: Int64[np.ndarray, "f"]
    """The window of each."""
    start: Int64[np.ndarray, "f"]
    """Its first position there."""

    @classmethod
    def of(cls, windows: Windows, length: int) -> "Fragments":
        """Cut all windows."""
        first = int(windows.bos_id is not None)
        places = [
            (row, start)
            for row, end in enumerate(windows.lengths.tolist())
            for start in range(first, end - length + 1, length)
        ]
        table = np.array(places, dtype=np.int64).reshape(-1, 2)
        return cls(windows, length, table[:, 0], table[:, 1])

    def __len__(self) -> int:
        return len(self.row)

    def values(self, grid: Float[np.ndarray, "window pos"], which: Int64[np.ndarray, "k"]) -> Float[np.ndarray, "k l"]:
        """The part of a value per position that belongs to each of the fragments `which`."""
        positions = self.start[which, None] + np.arange(self.length)
        return np.asarray(grid[self.row[which, None], positions])

    def choose(self, grid: Float[np.ndarray, "window pos"], *, n: int, uniform: int, seed: int) -> Chosen:
        """Fragments of one unit, whose activations on all windows are `grid`.

        At most `n` of the first two kinds, fewer where the unit is above zero on fewer; equal maxima by number. The
        uniform ones depend on the seed alone.
        """
        every = np.arange(len(self))
        peaks = self.values(grid, every).max(axis=1, initial=0.0)
        order = np.lexsort((every, -peaks))
        alive = order[peaks[order] > 0.0]
        top, rest = alive[:n], np.sort(alive[n:])
        rng = np.random.default_rng([seed, 3])
        random = np.sort(rng.choice(rest, size=min(n, len(rest)), replace=False))
        k = min(len(top), len(random))
        plain = np.random.default_rng([seed, 4]).choice(every, size=min(uniform, len(every)), replace=False)
        return Chosen(top, random, np.concatenate([top[:k], random[:k]]), np.sort(plain))


def correlations(
    cut: Fragments, chosen: Chosen, grid: Float[np.ndarray, "window pos"], explanation: Explanation
) -> dict[str, float | None]:
    """Kind -> Pearson's r of true and simulated activation over the tokens of its fragments together.

    None where a side is the same on all tokens: the unit is silent there, or the explanation says one thing of all.
    Only windows with a chosen fragment are predicted.
    """
    rows = np.unique(cut.row[np.concatenate(chosen)])
    predicted = np.zeros(cut.windows.tokens.shape, dtype=np.float32)
    predicted[rows] = _predict(explanation, cut.windows.subset(rows))
    return {
        kind: correlation(cut.values(grid, which), cut.values(predicted, which))
        for kind, which in zip(KINDS, chosen, strict=True)
    }


def _predict(explanation: Explanation, windows: Windows) -> Float32[np.ndarray, "window pos"]:
    """Predictions at all positions of some windows, zero where nothing is scored."""
    if isinstance(explanation, TextExplanation):
        return np.asarray(explanation.predict_text(windows.tokens, windows.mask), dtype=np.float32)
    out = np.zeros(windows.tokens.shape, dtype=np.float32)
    for row, real in enumerate(windows.mask):
        out[row, real] = explanation.predict(windows.tokens[row, real].tolist())
    return out
