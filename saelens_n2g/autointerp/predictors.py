"""Predictors: whatever says how much a unit fires on each token of an excerpt.

A graph and a table of counts predict by themselves; a sentence does with a simulator (`simulators.SentencePredictor`).
What cannot predict an excerpt says so with a `Failure`, which is stored and never becomes a number.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from saelens_n2g.autointerp.excerpts import Evidence, Excerpt
from saelens_n2g.errors import InputError, UnitError
from saelens_n2g.explanations.base import Explanation
from saelens_n2g.explanations.tables import BackoffTable
from saelens_n2g.scoring import firing


@dataclass(frozen=True)
class Failure:
    """Why there is no prediction, in one line."""

    reason: str
    again: bool = True
    """Whether another try may go better."""


Prediction = Float[np.ndarray, "_"] | Failure
"""Expected share of the unit's maximum on each token of an excerpt, finite, or why there is none."""
Costs = Mapping[str, float]
"""What it took, by name: `requests`, `tokens_in`, `tokens_out`; what was answered from a cache counts as if it was
not, so that runs say the same however often they were interrupted."""


def summed(several: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Costs added up by name."""
    found: dict[str, float] = {}
    for costs in several:
        for name, amount in costs.items():
            found[name] = found.get(name, 0) + amount
    return dict(sorted(found.items()))


class Predicted(NamedTuple):
    """What a predictor says of several excerpts."""

    predictions: Sequence[Prediction]
    """One for each excerpt, in their order."""
    costs: Costs = MappingProxyType({})


@runtime_checkable
class Predictor(Protocol):
    """What every score here is of."""

    def predict(self, excerpts: Sequence[Excerpt]) -> Predicted:
        """One prediction for each excerpt. It may look at ids and strings, never at activations."""
        ...


@dataclass(frozen=True, eq=False)
class ById:
    """An explanation that reads token ids: a graph, a table of counts."""

    explanation: Explanation

    def predict(self, excerpts: Sequence[Excerpt]) -> Predicted:
        """See `Predictor.predict`."""
        return Predicted([np.asarray(self.explanation.predict(e.ids), dtype=np.float64) for e in excerpts])


@dataclass(frozen=True, eq=False)
class TokenMeans:
    """Each token predicts its mean activation in the excerpts that this was made from; one not seen there predicts 0.

    The token lookup table that Bills et al. 2023 hold sentences against, without the smoothing of
    `explanations.TokenTable`, which predicts firing instead.
    """

    means: Mapping[int, float]
    """Token id -> mean."""

    @classmethod
    def of(cls, excerpts: Iterable[Excerpt]) -> "TokenMeans":
        """The means over all tokens of some excerpts."""
        return TokenCounts.of(excerpts).means()

    def predict(self, excerpts: Sequence[Excerpt]) -> Predicted:
        """See `Predictor.predict`."""
        return Predicted([np.array([self.means.get(t, 0.0) for t in e.ids]) for e in excerpts])


@dataclass(frozen=True, eq=False)
class TokenCounts:
    """Sums and numbers of activations by token id, from which means come."""

    sums: Mapping[int, tuple[float, int]]
    """Token id -> sum of activations, occurrences."""

    @classmethod
    def of(cls, excerpts: Iterable[Excerpt]) -> "TokenCounts":
        """Count the tokens of some excerpts."""
        found: dict[int, tuple[float, int]] = {}
        for one in excerpts:
            for token, activation in zip(one.ids, one.activations.tolist(), strict=True):
                total, n = found.get(token, (0.0, 0))
                found[token] = total + activation, n + 1
        return cls(found)

    @classmethod
    def joined(cls, several: Iterable["TokenCounts"]) -> "TokenCounts":
        """The counts of several together."""
        found: dict[int, tuple[float, int]] = {}
        for one in several:
            for token, (total, n) in one.sums.items():
                known, m = found.get(token, (0.0, 0))
                found[token] = known + total, m + n
        return cls(found)

    def without(self, part: "TokenCounts") -> "TokenCounts":
        """What is left of these counts when those of a part of them are taken away."""
        left = {}
        for token, (total, n) in self.sums.items():
            gone, m = part.sums.get(token, (0.0, 0))
            if n > m:
                left[token] = max(total - gone, 0.0), n - m
        return TokenCounts(left)

    def means(self) -> TokenMeans:
        """Mean by token."""
        return TokenMeans({token: total / n for token, (total, n) in self.sums.items()})


Maker = Callable[[Evidence], Predictor]
"""Makes a unit's own predictor from its evidence, reading the side `fit` alone. Raises `UnitError` where it cannot."""
_MAKERS: dict[str, Maker] = {}


def register_predictor(name: str, maker: Maker) -> None:
    """Make a predictor that needs no sentence known by name. Raises `InputError` if the name is taken."""
    if name in _MAKERS:
        raise InputError(f"predictor {name!r}", "a name that is free", "one that is taken")
    _MAKERS[name] = maker


def predictors() -> tuple[str, ...]:
    """Names of what predicts without a sentence."""
    return tuple(_MAKERS)


def own_predictor(name: str, evidence: Evidence) -> Predictor:
    """The unit's predictor of that kind. Raises `UnitError` where its evidence does not give one."""
    return _MAKERS[name](evidence)


def _graph(evidence: Evidence) -> Predictor:
    if evidence.graph is None:
        raise UnitError(f"unit {evidence.name}", "a graph", "none was fitted")
    return ById(evidence.graph)


def _seen(evidence: Evidence) -> tuple[Excerpt, ...]:
    seen = evidence.of("fit")
    if not seen:
        raise UnitError(f"unit {evidence.name}", "excerpts to learn from", "none")
    return seen


def _backoff(evidence: Evidence) -> Predictor:
    seen = _seen(evidence)
    fires = [firing(e.activations, evidence.threshold) for e in seen]
    return ById(BackoffTable.fit([e.ids for e in seen], fires))


register_predictor("graph", _graph)
register_predictor("table", lambda evidence: TokenMeans.of(_seen(evidence)))
register_predictor("backoff", _backoff)
