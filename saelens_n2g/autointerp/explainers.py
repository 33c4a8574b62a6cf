"""Explainers: what writes a sentence about a unit from its evidence. Made by name, with options, from a registry:

    EXPLAINERS.register("mine", lambda options: Mine())
    explained = EXPLAINERS.make("mine").explain(evidence)

An explainer reads the excerpts of the side `fit`, and the graph; `Evidence.of("test")` is for scores alone.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from saelens_n2g.autointerp.excerpts import Evidence
from saelens_n2g.autointerp.predictors import Costs
from saelens_n2g.autointerp.records import EXPLAINED, FAILED, SILENT
from saelens_n2g.autointerp.registry import Options, Registry
from saelens_n2g.errors import InputError


@dataclass(frozen=True)
class Explained:
    """What came of explaining one unit. Raises `InputError` unless a text is there exactly where it was explained."""

    text: str | None
    status: str = EXPLAINED
    reason: str = ""
    """Why there is no text, in one line."""
    costs: Costs = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.status not in (EXPLAINED, FAILED, SILENT):
            raise InputError("status of an explanation", f"{EXPLAINED}, {FAILED} or {SILENT}", repr(self.status))
        if (self.status == EXPLAINED) != bool(self.text):
            raise InputError("explanation", "a text exactly where it was explained", f"{self.status}, {self.text!r}")
        object.__setattr__(self, "costs", dict(self.costs))  # one that can be written as JSON


@runtime_checkable
class Explainer(Protocol):
    """Writes sentences."""

    @property
    def name(self) -> str:
        """As registered."""
        ...

    @property
    def settings(self) -> Options:
        """Everything that decides what it writes, as JSON values."""
        ...

    def explain(self, evidence: Evidence) -> Explained:
        """A text about the unit, or a status that says why there is none."""
        ...


Got = Callable[[int, Explained], None]
"""Told of each unit that is explained, as soon as it is: its place, what was said."""


@runtime_checkable
class Together(Protocol):
    """An explainer that takes many units at once, as those do that wait for answers."""

    def explain_all(self, several: Sequence[Evidence], got: Got) -> list[Explained]:
        """`Explainer.explain` of each, in their order; `got` is told of each as it is there."""
        ...


def explain_all(explainer: Explainer, several: Sequence[Evidence], got: Got) -> list[Explained]:
    """What an explainer says of several units: at once where it can."""
    if isinstance(explainer, Together):
        return explainer.explain_all(several, got)
    found = []
    for place, one in enumerate(several):
        found.append(explainer.explain(one))
        got(place, found[-1])
    return found


def nobody(_place: int, _explained: Explained) -> None:
    """A `Got` that is told for nothing."""


EXPLAINERS: Registry[Explainer] = Registry(
    "explainer", "templated", "token_activation", "highlights", "token_list", "graph_sentence", "revision"
)
"""All of them."""
