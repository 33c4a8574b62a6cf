"""Scores of one unit: the graph and the tables of counts, on the same texts."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float, Int

from saelens_n2g.corpus import Windows
from saelens_n2g.exemplars import ExemplarSet
from saelens_n2g.explanations.base import Explanation
from saelens_n2g.explanations.tables import BackoffTable, CountedText, TokenTable
from saelens_n2g.graphs.graph import Graph
from saelens_n2g.scoring import FiringScores, confusion, evaluate, firing

Metrics = dict[str, dict[str, float | None]]
"""text -> metric -> value."""
UnitScores = dict[str, Metrics]
"""explainer -> text -> metric -> value."""


class TextScores:
    """The fit text counted once, and the test text, for all units of a basis."""

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

    def score(
        self,
        activations: Float[np.ndarray, "window pos"],
        max_activation: float,
        exemplars: ExemplarSet,
        graph: Graph,
        threshold: float,
    ) -> UnitScores:
        """Score all explainers of a unit on its held-out exemplars and on the whole test text.

        `activations` are the unit's on all windows, `max_activation` its maximum over the fit text, of which
        everything is a share. The first two tables know the exemplars that the graph was fitted to, the third the
        whole fit text.
        """
        normal = activations / max_activation
        fires = firing(normal, threshold)
        rows = [e.tokens for e in exemplars.fit]
        fired = [firing(e.activations / max_activation, threshold) for e in exemplars.fit]
        tables: dict[str, TokenTable | BackoffTable] = {
            "token_table": TokenTable.fit(rows, fired, string=self.string),
            "backoff_table": BackoffTable.fit(rows, fired, string=self.string),
            "backoff_table_corpus": BackoffTable.from_counted(
                self.counted, fires[self.fit_rows] & self.fit_mask, string=self.string
            ),
        }
        truth = fires[self.test_rows] & self.test_mask
        held_out = [e.tokens for e in exemplars.test]
        held_out_truth = [e.activations / max_activation for e in exemplars.test]

        def both(explanation: Explanation, everywhere: Bool[np.ndarray, "window pos"]) -> Metrics:
            held = evaluate(explanation, held_out, held_out_truth, threshold=threshold)
            counts = confusion(truth[self.test_mask], everywhere[self.test_mask])
            return {"held_out": held.as_dict(), "random": FiringScores.from_confusion(counts).as_dict()}

        scores: UnitScores = {"graph": both(graph, self._graph_fires(graph, threshold))}
        for name, table in tables.items():
            predicted = table.predict_text(self.test_tokens, self.test_mask)
            scores[name] = both(table, firing(predicted, threshold))
        return scores

    def _graph_fires(self, graph: Graph, threshold: float) -> Bool[np.ndarray, "window pos"]:
        """Where the graph predicts firing in the test text; only windows that hold an activating token are walked."""
        out = np.zeros(self.test_tokens.shape, dtype=bool)
        hit = np.isin(self.test_tokens, list(graph.roots)) & self.test_mask
        for row in np.flatnonzero(hit.any(axis=1)):
            real = self.test_mask[row]
            out[row, real] = firing(graph.predict(self.test_tokens[row, real].tolist()), threshold)
        return out
