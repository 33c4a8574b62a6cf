"""Scorers of sentences: whether one tells excerpts apart, answered by a language model or an encoder of sentences, not
through activations.

A scorer is made by name from a registry. Its answers go through the same metrics as those that are computed from
predictions (`detection`), and beside the same controls: the sentence that says nothing, and another unit's.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, runtime_checkable

from saelens_n2g.autointerp.controls import NEUTRAL, OTHER, Validity, beaten, verdict_of
from saelens_n2g.autointerp.detection import Answers
from saelens_n2g.autointerp.excerpts import Evidence
from saelens_n2g.autointerp.judge import Rules
from saelens_n2g.autointerp.predictors import Costs, Failure
from saelens_n2g.autointerp.records import FAILED, Ended
from saelens_n2g.autointerp.registry import Options, Registry


class Scored(NamedTuple):
    """What a scorer found of one sentence."""

    answers: Answers
    costs: Costs


@runtime_checkable
class Scorer(Protocol):
    """Says whether a sentence fits."""

    @property
    def name(self) -> str:
        """As registered."""
        ...

    @property
    def settings(self) -> Options:
        """Everything that decides its scores, as JSON values."""
        ...

    def score(self, explanation: str, evidence: Evidence, rules: Rules) -> Scored | Failure:
        """How well the sentence tells the unit's test excerpts apart; a failure where more than `rules.tolerated` of
        the questions have no answer."""
        ...


SCORERS: Registry[Scorer] = Registry("scorer", "yes_no", "embedding")
"""All of them."""


# --- results ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Asked(Ended):
    """What a scorer found of one unit's sentence: `scored`, `failed` or `silent`."""

    answers: Answers | None = None
    """None unless scored."""
    controls: Mapping[str, Answers | str] = field(default_factory=dict)
    """`neutral` and `other` -> scores, or why they failed."""
    other: str | None = None
    """The unit whose explanation was the control."""
    costs: Costs = field(default_factory=dict)
    """Of all of it, the controls included."""

    @property
    def whole(self) -> bool:
        """Whether nothing of it failed."""
        return self.status != FAILED and not any(isinstance(one, str) for one in self.controls.values())

    def value(self, metric: str, control: str | None = None) -> float | None:
        """A metric of `Answers`, of the sentence or of a control; None where there is none."""
        found = self.answers if control is None else self.controls.get(control)
        value: float | None = getattr(found, metric) if isinstance(found, Answers) else None
        return value

    def as_json(self) -> dict[str, Any]:
        """JSON values; read back by `asked_from`."""
        controls = {k: v._asdict() if isinstance(v, Answers) else v for k, v in self.controls.items()}
        answers = None if self.answers is None else self.answers._asdict()
        return {**vars(self), "answers": answers, "controls": controls, "costs": dict(self.costs)}


def asked_from(value: Mapping[str, Any]) -> Asked:
    """Inverse of `Asked.as_json`. Raises `KeyError` or `TypeError` if a field is amiss."""
    controls = {k: v if isinstance(v, str) else Answers(**v) for k, v in value["controls"].items()}
    answers = None if value["answers"] is None else Answers(**value["answers"])
    return Asked(**{**value, "answers": answers, "controls": controls})


def validity_of(several: Sequence[Asked], *, seed: int) -> Validity:
    """Whether true sentences beat `neutral` and `other` in AUC, unit by unit: chance is one half whatever the items."""
    true = [one.value("auc") for one in several]
    tests = tuple(
        beaten(name, "auc", true, [one.value("auc", name) for one in several], seed=seed) for name in (NEUTRAL, OTHER)
    )
    return Validity(verdict_of(tests), tests)
