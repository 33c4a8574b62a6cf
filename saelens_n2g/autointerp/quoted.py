"""The simulator `quoted`: reads the tokens that a sentence quotes, and nothing else of it. It needs no model.

Of a templated sentence it reads contexts, gaps and exceptions too (`phrases`), so that what a graph loses by being put
into a bounded sentence is measured. A token for which the sentence says that the unit fires is predicted 1, any other
0: it knows no strengths. Where several patterns match, the one that reaches further back counts, as in a graph.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from saelens_n2g.autointerp.excerpts import Excerpt
from saelens_n2g.autointerp.phrases import Clause, Item, quoted, read
from saelens_n2g.autointerp.predictors import Predicted
from saelens_n2g.autointerp.registry import Options, only
from saelens_n2g.autointerp.simulators import SIMULATORS


@dataclass(frozen=True)
class Quoted:
    """See the top of this file. A sentence that quotes nothing predicts 0 everywhere."""

    name: str = "quoted"
    settings: Options = field(default_factory=lambda: {"version": 1})

    def simulate(self, explanation: str, excerpts: Sequence[Excerpt]) -> Predicted:
        """See `Simulator.simulate`."""
        clauses = read(explanation)
        return Predicted([_predict(clauses, [quoted(s) for s in e.strings]) for e in excerpts])


def _predict(clauses: Sequence[Clause], tokens: Sequence[str]) -> np.ndarray:
    """1 where the furthest reaching clause that matches fires, else 0."""
    out = np.zeros(len(tokens))
    for at, token in enumerate(tokens):
        found = [
            (reach, clause.fires)
            for clause in clauses
            if token in clause.targets.tokens
            for reach in _reach(clause.before, tokens, at)
        ]
        out[at] = float(max(found)[1]) if found else 0.0
    return out


def _reach(before: Sequence[Item], tokens: Sequence[str], at: int) -> list[int]:
    """How far back the context reaches that ends right before position `at`; empty where it does not match.

    The start of the text counts half a token, so that a pattern tied to it counts before one that is not.
    """
    places, start = {at - 1}, 0
    for one in reversed(before):
        if one.start:
            places, start = {p for p in places if p < 0}, 1
        elif one.gap is not None:
            places = {p - d for p in places for d in range(one.gap + 1) if p - d >= -1}
        else:
            places = {p - 1 for p in places if p >= 0 and (_any(one) or tokens[p] in one.tokens)}
    return [2 * (at - 1 - p) + start for p in places]


def _any(one: Item) -> bool:
    """Whether it stands for any token, not for some that are not named."""
    return not one.tokens and not one.more


def _make(options: Options) -> Quoted:
    only("simulator quoted", options, [])
    return Quoted()


SIMULATORS.register("quoted", _make)
