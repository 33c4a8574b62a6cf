"""What a run found, as plain values: written to `results.json`, read by table, page and store.

A *way* is one way of explaining: a graph or a table by itself, or an explainer's sentences with a simulator.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from saelens_n2g.autointerp.controls import CONTROLS, INVALID, JUDGED_BY, SHUFFLED, Validity, validity
from saelens_n2g.autointerp.judge import Judged, judged_from
from saelens_n2g.autointerp.predictors import summed
from saelens_n2g.autointerp.records import FAILED, Ended
from saelens_n2g.autointerp.scorers import Asked, asked_from
from saelens_n2g.autointerp.scorers import validity_of as asked_validity
from saelens_n2g.errors import ArtefactError
from saelens_n2g.jobs.artefacts import read_format, write_json
from saelens_n2g.scoring import PairedComparison, Summary, compare_paired, summarise

FORMAT, VERSION = "saelens-n2g/interpretation", 1
MAIN = ("top_and_random", "correlation")
"""Set and metric that tables begin with: Bills et al.'s score."""


@dataclass(frozen=True, order=True)
class Way:
    """One way of explaining."""

    simulator: str
    explainer: str | None = None
    """None for what predicts without a sentence."""

    @property
    def label(self) -> str:
        """For people: `graph`, or `templated > quoted`."""
        return self.simulator if self.explainer is None else f"{self.explainer} > {self.simulator}"


@dataclass(frozen=True, eq=False, kw_only=True)
class Outcome(Ended):
    """One unit under one way: `scored`, `failed` or `silent`."""

    judged: Judged | None = None
    """None unless scored."""
    controls: Mapping[str, Judged | str] = field(default_factory=dict)
    """`neutral` and `other` -> scores, or why they failed; what cannot be, as in a group of one unit, is not there."""
    other: str | None = None
    """The unit whose explanation was the control."""
    costs: Mapping[str, float] = field(default_factory=dict)
    """Of all of it, the controls included."""

    @property
    def group(self) -> tuple[str, str, int]:
        """Run, basis, layer."""
        return self.run, self.basis, self.layer

    @property
    def whole(self) -> bool:
        """Whether nothing of it failed."""
        return self.status != FAILED and not any(isinstance(one, str) for one in self.controls.values())

    def value(self, set_: str, metric: str) -> float | None:
        """A score; None where there is none."""
        return None if self.judged is None else self.judged.sets[set_].values[metric]

    def control(self, name: str, set_: str, metric: str) -> float | None:
        """The same of a control."""
        if name == SHUFFLED:
            return None if self.judged is None else self.judged.shuffled[set_].values[metric]
        found = self.controls.get(name)
        return found.sets[set_].values[metric] if isinstance(found, Judged) else None

    def as_json(self) -> dict[str, Any]:
        """JSON values; read back by `outcome_from`."""
        controls = {k: v.as_json() if isinstance(v, Judged) else v for k, v in self.controls.items()}
        judged = None if self.judged is None else self.judged.as_json()
        return {**vars(self), "judged": judged, "controls": controls, "costs": dict(self.costs)}


def outcome_from(value: Mapping[str, Any]) -> Outcome:
    """Inverse of `Outcome.as_json`. Raises `KeyError` or `TypeError` if a field is amiss."""
    controls = {k: v if isinstance(v, str) else judged_from(v) for k, v in value["controls"].items()}
    judged = None if value["judged"] is None else judged_from(value["judged"])
    return Outcome(**{**value, "judged": judged, "controls": controls})


@dataclass(frozen=True, kw_only=True)
class Sentence(Ended):
    """What an explainer said of one unit: `explained`, `failed` or `silent`."""

    text: str | None
    costs: Mapping[str, float]


@dataclass(frozen=True, eq=False)
class Interpretation:
    """The whole of it."""

    outcomes: Mapping[Way, Sequence[Outcome]]
    """Way -> its units, the same ones in the same order for all ways."""
    sentences: Mapping[str, Sequence[Sentence]]
    """Explainer -> what it said, of the same units in the same order."""
    config: Mapping[str, Any]
    settings: Mapping[str, Mapping[str, Any]]
    """Name of an explainer or simulator -> everything that decides what it says."""
    provenance: Mapping[str, Any]
    asked: Mapping[Way, Sequence[Asked]] = field(default_factory=dict)
    """Explainer and scorer -> its units, in the same order."""
    _verdicts: dict[Way, Validity] = field(default_factory=dict, init=False, repr=False)
    _asked_verdicts: dict[Way, Validity] = field(default_factory=dict, init=False, repr=False)

    @property
    def seed(self) -> int:
        """For resampling."""
        return int(self.config["seed"])

    @property
    def failures(self) -> int:
        """Answers that failed: sentences, and scores with their controls."""
        said = sum(one.status == FAILED for several in self.sentences.values() for one in several)
        asked = sum(not one.whole for several in self.asked.values() for one in several)
        return said + asked + sum(not one.whole for several in self.outcomes.values() for one in several)

    def values(self, way: Way, set_: str, metric: str) -> list[float | None]:
        """A score of every unit."""
        return [one.value(set_, metric) for one in self.outcomes[way]]

    def summary(self, way: Way, set_: str, metric: str, among: Callable[[Outcome], bool] | None = None) -> Summary:
        """Mean over units with its interval, of those that are `among` some."""
        chosen = [one for one in self.outcomes[way] if among is None or among(one)]
        return summarise([one.value(set_, metric) for one in chosen], seed=self.seed)

    def answered(self, way: Way, task: str, metric: str) -> Summary:
        """The same of `detection` or `fuzzing`."""
        judged = [one.judged for one in self.outcomes[way]]
        return summarise([None if j is None else getattr(getattr(j, task), metric) for j in judged], seed=self.seed)

    def control(self, way: Way, name: str, set_: str, metric: str) -> Summary:
        """The same of a control."""
        return summarise([one.control(name, set_, metric) for one in self.outcomes[way]], seed=self.seed)

    def versus(self, a: Way, b: Way, set_: str, metric: str) -> PairedComparison:
        """Two ways on the same units."""
        return compare_paired(self.values(a, set_, metric), self.values(b, set_, metric), seed=self.seed)

    def validity(self, way: Way) -> Validity:
        """Whether the way beats its controls, on strong and random excerpts."""
        if way not in self._verdicts:
            self._verdicts[way] = self._validity(way)
        return self._verdicts[way]

    def asked_validity(self, way: Way) -> Validity:
        """Whether what a scorer finds of true sentences is above what it finds of their controls."""
        if way not in self._asked_verdicts:
            self._asked_verdicts[way] = asked_validity(self.asked[way], seed=self.seed)
        return self._asked_verdicts[way]

    def label(self, way: Way) -> str:
        """The way for people; one that is invalid says so wherever it is named."""
        return f"{way.label} (invalid)" if self.validity(way).verdict == INVALID else way.label

    def _validity(self, way: Way) -> Validity:
        set_ = MAIN[0]
        true = {metric: self.values(way, set_, metric) for metric in JUDGED_BY}
        given = {
            name: {metric: [one.control(name, set_, metric) for one in self.outcomes[way]] for metric in JUDGED_BY}
            for name in CONTROLS
        }
        return validity(true, given, seed=self.seed)

    def groups(self) -> list[tuple[str, int]]:
        """Basis and layer of the units, in order; of several runs each its own."""
        return list(dict.fromkeys(self.group_of(one) for one in next(iter(self.outcomes.values()))))

    def group_of(self, one: Outcome) -> tuple[str, int]:
        """Basis and layer of a unit; `RUN: BASIS` where there are several runs, which may be of different models."""
        runs = self.provenance.get("runs", {})
        return (f"{one.run}: {one.basis}" if len(runs) > 1 else one.basis), one.layer

    def costs(self) -> dict[str, float]:
        """What all of it took."""
        return summed(self.costs_by().values())

    def costs_by(self) -> dict[str, dict[str, float]]:
        """What each explainer, way and scorer took, controls included; those that took nothing are not there."""
        found = {f"{name}, sentences": summed(one.costs for one in some) for name, some in self.sentences.items()}
        found |= {self.label(way): summed(one.costs for one in some) for way, some in self.outcomes.items()}
        for way, asked in self.asked.items():  # an encoder may be simulator and scorer by one name
            found[f"{way.label}, asked"] = summed(one.costs for one in asked)
        return {name: costs for name, costs in found.items() if costs}

    def as_json(self) -> dict[str, Any]:
        """What `results.json` holds."""
        ways = [
            {
                "explainer": way.explainer,
                "simulator": way.simulator,
                "validity": self.validity(way).as_json(),
                "units": [one.as_json() for one in several],
            }
            for way, several in self.outcomes.items()
        ]
        asked = [
            {
                "explainer": way.explainer,
                "scorer": way.simulator,
                "validity": self.asked_validity(way).as_json(),
                "units": [one.as_json() for one in several],
            }
            for way, several in self.asked.items()
        ]
        return {
            "format": FORMAT,
            "version": VERSION,
            "ways": ways,
            "asked": asked,
            "sentences": {name: [dict(vars(one)) for one in several] for name, several in self.sentences.items()},
            "config": self.config,
            "settings": self.settings,
            "provenance": self.provenance,
        }

    def save(self, path: Path) -> None:
        """Write as JSON (docs/formats.md)."""
        write_json(path, self.as_json())

    @classmethod
    def load(cls, path: Path) -> "Interpretation":
        """Inverse of `save`. Raises `ArtefactError` if the file is missing, damaged or of another format."""
        value = read_format(path, FORMAT, VERSION)
        try:
            outcomes = {
                Way(way["simulator"], way["explainer"]): tuple(outcome_from(one) for one in way["units"])
                for way in value["ways"]
            }
            said = {name: tuple(Sentence(**one) for one in several) for name, several in value["sentences"].items()}
            asked = {
                Way(one["scorer"], one["explainer"]): tuple(asked_from(unit) for unit in one["units"])
                for one in value.get("asked", ())
            }
            config, settings, provenance = (value[name] for name in ("config", "settings", "provenance"))
            return cls(outcomes, said, config, settings, provenance, asked)
        except (KeyError, TypeError, AttributeError) as error:
            raise ArtefactError(f"file {path}", "a whole interpretation", repr(error)) from error
