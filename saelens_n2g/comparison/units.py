"""Which units of a basis are explained: one stated rule for every basis, and a count of everyone else.

Candidates come in a seeded random order. Each is examined in turn until enough are eligible; where the others went
(dead, rare, dense, silent in the test text) is counted over exactly those that were examined.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from saelens_n2g.errors import InputError

REASONS = ("dead", "rare", "dense", "silent_in_test")


@dataclass(frozen=True)
class UnitRule:
    """Who is eligible, in what order."""

    units: int = 32
    """Units to explain per basis."""
    threshold: float = 0.5
    """A token fires when its activation is at least this share of the unit's maximum over the fit text."""
    min_fit_firing: int = 10
    """Fewer firing tokens in the fit text: `rare`."""
    min_test_firing: int = 3
    """Fewer firing tokens in the test text: `silent_in_test`, nothing to score recall on."""
    max_density: float = 0.05
    """Fires on a larger share of the fit tokens: `dense`, close to a constant."""
    pool: int = 8
    """Candidates examined at most, as a multiple of `units`."""
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("units", "min_fit_firing", "min_test_firing", "pool"):
            if getattr(self, name) < 1:
                raise InputError(f"option {name}", "an integer >= 1", str(getattr(self, name)))
        for name in ("threshold", "max_density"):
            if not 0.0 < getattr(self, name) <= 1.0:
                raise InputError(f"option {name}", "a share in (0, 1]", str(getattr(self, name)))

    def in_words(self) -> str:
        """The rule as a sentence for the report."""
        return (
            f"Units are drawn in a random order (seed {self.seed}) until {self.units} are eligible, at most "
            f"{self.pool * self.units} examined. Eligible: above zero somewhere in the fit text (else dead), firing on "
            f"at least {self.min_fit_firing} of its tokens (else rare), at most {100 * self.max_density:g} % of them "
            f"(else dense), and on at least {self.min_test_firing} test tokens (else silent in test). "
            f"Firing: activation at least {100 * self.threshold:g} % of the unit's maximum over the fit text."
        )

    def candidates(self, n_features: int) -> np.ndarray:
        """Feature indices in the order in which they are examined."""
        order = np.random.default_rng([self.seed, n_features]).permutation(n_features)
        return order[: self.pool * self.units]


@dataclass(frozen=True)
class UnitStatistics:
    """What the rule looks at."""

    max_activation: float
    fit_firing: int
    test_firing: int
    density: float
    active: float

    def verdict(self, rule: UnitRule) -> str | None:
        """One of `REASONS`, or None for an eligible unit."""
        if not self.max_activation > 0.0:
            return "dead"
        if self.fit_firing < rule.min_fit_firing:
            return "rare"
        if self.density > rule.max_density:
            return "dense"
        return "silent_in_test" if self.test_firing < rule.min_test_firing else None


def statistics(values: Float[np.ndarray, "token"], fit: Bool[np.ndarray, "token"], threshold: float) -> UnitStatistics:
    """Statistics of one unit from its activation on every scored token; `fit` marks those of the fit documents."""
    inside, outside = values[fit], values[~fit]
    largest = float(inside.max(initial=0.0))
    floor = threshold * largest if largest > 0.0 else np.inf
    firing = int((inside >= floor).sum())
    return UnitStatistics(
        max_activation=largest,
        fit_firing=firing,
        test_firing=int((outside >= floor).sum()),
        density=firing / max(len(inside), 1),
        active=float((inside > 0.0).mean()) if len(inside) else 0.0,
    )


class Chosen(NamedTuple):
    """One eligible unit."""

    position: int
    """Among the candidates."""
    statistics: UnitStatistics
    values: np.ndarray
    """(token,) its activation on every scored token, as passed."""


class UnitChoice:
    """Examines candidates in order until `rule.units` are eligible, and counts where the examined ones went."""

    def __init__(self, fit: Bool[np.ndarray, "token"], rule: UnitRule) -> None:
        """`fit` marks the scored tokens of the fit documents."""
        self.fit, self.rule = fit, rule
        self.counts: Counter[str] = Counter(dict.fromkeys(("examined", *REASONS), 0))
        """`examined` and every reason; whole when `eligible` has ended."""

    def eligible(self, columns: Iterable[np.ndarray]) -> Iterator[Chosen]:
        """The eligible ones of `columns`, each the activations (token,) of one candidate; call it once.

        No more columns are taken than are needed, and none is kept.
        """
        found = 0
        for position, values in enumerate(columns):
            figures = statistics(values, self.fit, self.rule.threshold)
            reason = figures.verdict(self.rule)
            self.counts["examined"] += 1
            if reason is not None:
                self.counts[reason] += 1
                continue
            found += 1
            yield Chosen(position, figures, values)
            if found == self.rule.units:
                return


def rule_as_json(rule: UnitRule) -> dict[str, Any]:
    """The rule as JSON values, with its sentence."""
    return {**vars(rule), "rule": rule.in_words()}
