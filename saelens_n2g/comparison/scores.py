"""Scores of one unit: its graph and the tables of counts, on the same texts."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from saelens_n2g.corpus import Windows
from saelens_n2g.exemplars import ExemplarSet
from saelens_n2g.explanations.base import Explanation
from saelens_n2g.explanations.tables import BackoffTable, CountedText, TokenTable
from saelens_n2g.graphs.graph import Graph
from saelens_n2g.scoring import Confusion, FiringScores, GradedScores, Tokens, confusion, firing, pooled

Metrics = dict[str, dict[str, float | None]]
"""text -> metric -> value."""


class Score(NamedTuple):
    """How well one explanation of one unit predicts."""

    metrics: Metrics
    """text -> metric (`results.METRICS` and `results.GRADED`) -> value."""
    counts: dict[str, Confusion]
    """text -> the counts behind the metrics, for means over tokens."""


UnitScores = Mapping[str, Score]
"""explainer -> its score."""


@dataclass(frozen=True, eq=False)
class Observed:
    """What a unit does: what explanations are held against."""

    activations: Float[np.ndarray, "window pos"]
    """On all windows, in the subject's units; zero where nothing is scored."""
    max_activation: float
    """Over the fit text; of which everything is a share."""
    exemplars: ExemplarSet
    threshold: float
    """Normalised activation from which a token fires."""


class TextScores:
    """The fit text counted once, and the test text, for all units of all bases."""

    def __init__(
        self,
        windows: Windows,
        fit_rows: Int[np.ndarray, "f"],
        test_rows: Int[np.ndarray, "t"],
        string: Callable[[int], str],
    ) -> None:
        self.string, self.fit_rows, self.test_rows = string, fit_rows, test_rows
        fit, test = windows.subset(fit_rows), windows.subset(test_rows)
        self.fit_mask, self.test_tokens, self.test_mask = fit.mask, test.tokens, test.mask
        self.counted = CountedText.of(fit.tokens, self.fit_mask)

    def graph(self, unit: Observed, graph: Graph) -> Score:
        """Score a graph on the unit's held-out exemplars and on the whole test text."""
        return self.score(unit, graph)

    def tables(self, unit: Observed) -> dict[str, Score]:
        """Score the tables of counts (`fitted`) likewise."""
        return {name: self.score(unit, table) for name, table in self.fitted(unit).items()}

    def fitted(self, unit: Observed) -> dict[str, TokenTable | BackoffTable]:
        """The tables of counts of a unit. The first two know the exemplars that graphs are fitted to, the third the
        whole fit text."""
        rows = [e.tokens for e in unit.exemplars.fit]
        fired = [firing(e.activations / unit.max_activation, unit.threshold) for e in unit.exemplars.fit]
        everywhere = firing(unit.activations[self.fit_rows] / unit.max_activation, unit.threshold) & self.fit_mask
        return {
            "token_table": TokenTable.fit(rows, fired, string=self.string),
            "backoff_table": BackoffTable.fit(rows, fired, string=self.string),
            "backoff_table_corpus": BackoffTable.from_counted(self.counted, everywhere, string=self.string),
        }

    def score(self, unit: Observed, explanation: Graph | BackoffTable) -> Score:
        """Score a graph or a table that is at hand on both texts."""
        return self._score(unit, explanation, explanation.predict_text(self.test_tokens, self.test_mask))

    def _score(self, unit: Observed, explanation: Explanation, predicted: Float[np.ndarray, "window pos"]) -> Score:
        """`predicted` is what the explanation says of the whole test text."""
        held_out = unit.exemplars.test
        texts = {
            "held_out": pooled(
                explanation, [e.tokens for e in held_out], [e.activations / unit.max_activation for e in held_out]
            ),
            "random": Tokens(
                unit.activations[self.test_rows][self.test_mask] / unit.max_activation, predicted[self.test_mask]
            ),
        }
        return scored(texts, unit.threshold)


def scored(texts: Mapping[str, Tokens], threshold: float) -> Score:
    """The score of what was predicted on some texts: text -> both sides, as shares of the unit's maximum."""
    metrics, counts = {}, {}
    for text, tokens in texts.items():
        counts[text] = confusion(*(firing(side, threshold) for side in tokens))
        graded = GradedScores.from_tokens(tokens, threshold=threshold)
        metrics[text] = {**FiringScores.from_confusion(counts[text]).as_dict(), **graded.as_dict()}
    return Score(metrics, counts)
