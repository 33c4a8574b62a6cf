"""Explainers: what writes a sentence about a unit from its evidence. Made by name, with options, from a registry:

    register_explainer("mine", lambda options: Mine())
    explained = make_explainer("mine").explain(evidence)

An explainer reads the excerpts of the side `fit`, and the graph; `Evidence.of("test")` is for scores alone.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from saelens_n2g.autointerp.asking import Asker, Askers
from saelens_n2g.autointerp.excerpts import Evidence
from saelens_n2g.autointerp.predictors import Costs
from saelens_n2g.autointerp.simulators import Options
from saelens_n2g.errors import InputError

EXPLAINED, FAILED, SILENT = "explained", "failed", "silent"
"""Statuses: there is a text; something went wrong and is worth another try; there is nothing to say of this unit."""


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


Factory = Callable[[Options], Explainer]
"""Makes an explainer from its options. Raises `InputError`."""
_FACTORIES: dict[str, Factory] = {}
ASKING: Askers[Explainer] = Askers("explainer")
"""Explainers that ask a language model."""


def register_explainer(name: str, factory: Factory) -> None:
    """Make an explainer known by name. Raises `InputError` if the name is taken."""
    if name in _FACTORIES or name in ASKING.makers:
        raise InputError(f"explainer {name!r}", "a name that is free", "one that is taken")
    _FACTORIES[name] = factory


def explainers() -> tuple[str, ...]:
    """Names of all explainers."""
    _known()
    return (*_FACTORIES, *ASKING.makers)


def make_explainer(name: str, options: Options | None = None, asker: Asker | None = None) -> Explainer:
    """The explainer of that name. Raises `InputError` if there is none, if it asks a language model and `asker` is not
    given or cannot serve it, or as its factory does."""
    if name not in explainers():
        raise InputError(f"explainer {name!r}", f"one of {', '.join(explainers())}", repr(name))
    return ASKING.make(name, options or {}, asker) if name in ASKING.makers else _FACTORIES[name](options or {})


def _known() -> None:
    """The files that bring explainers with the package."""
    from saelens_n2g.autointerp import (  # noqa: F401  (they register themselves)
        graph_sentence,
        highlights,
        revision,
        templated,
        token_activation,
    )
