"""One predictor on one unit: predicted, calibrated, scored."""

import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from saelens_n2g.autointerp.calibration import Method, fit
from saelens_n2g.autointerp.detection import Answers, detection, fuzzing
from saelens_n2g.autointerp.excerpts import Evidence, Excerpt, distinct
from saelens_n2g.autointerp.predictors import Costs, Failure, Predictor
from saelens_n2g.autointerp.scores import SetScores, score_tokens, sets_of


@dataclass(frozen=True)
class Rules:
    """How predictions are judged, the same for all."""

    calibration: Method = "none"
    """Map from simulated to expected activations, fitted per unit on excerpts that are held back."""
    tolerated: float = 0.0
    """Share of a unit's excerpts that may fail to be predicted and are left out; above it the unit has no score."""
    seed: int = 0


class Judged(NamedTuple):
    """What a predictor is worth on one unit."""

    sets: Mapping[str, SetScores]
    """Set of `scores.SETS` -> its scores."""
    shuffled: Mapping[str, SetScores]
    """The same predictions against activations in random order: what chance gives. Not kept of controls."""
    detection: Answers
    fuzzing: Answers
    missing: int
    """Excerpts that could not be predicted and were left out."""
    costs: Costs

    def as_json(self) -> dict[str, Any]:
        """JSON values; read back by `judged_from`."""
        return {
            "sets": {name: one.as_dict() for name, one in self.sets.items()},
            "shuffled": {name: one.as_dict() for name, one in self.shuffled.items()},
            "detection": self.detection._asdict(),
            "fuzzing": self.fuzzing._asdict(),
            "missing": self.missing,
            "costs": dict(self.costs),
        }


def judged_from(value: Mapping[str, Any]) -> Judged:
    """Inverse of `Judged.as_json`. Raises `KeyError` or `TypeError` if a field is amiss."""
    return Judged(
        sets={name: SetScores(**one) for name, one in value["sets"].items()},
        shuffled={name: SetScores(**one) for name, one in value["shuffled"].items()},
        detection=Answers(**value["detection"]),
        fuzzing=Answers(**value["fuzzing"]),
        missing=int(value["missing"]),
        costs=dict(value["costs"]),
    )


def judge(predictor: Predictor, evidence: Evidence, rules: Rules) -> Judged | Failure:
    """Predict the unit's test excerpts, each window once, and score that. Raises as the predictor does."""
    test, held = distinct(evidence.of("test")), evidence.of("calibration") if rules.calibration != "none" else ()
    if not test:
        return Failure("no excerpt to score on", again=False)
    if rules.calibration != "none" and not held:
        return Failure("no excerpt is held back for calibration: too few documents", again=False)
    answers = predictor.predict([*test, *held])
    sound = _Sound.of([*test, *held], answers.predictions)
    if sound.missing > rules.tolerated * (len(test) + len(held)):
        return Failure(f"{sound.missing} of {len(test) + len(held)} excerpts not predicted: {sound.reason}")
    scaled = _calibrated(sound, held, rules.calibration)
    if isinstance(scaled, Failure):
        return scaled
    return _scored(evidence, scaled, sound.missing, answers.costs, rules)


@dataclass
class _Sound:
    """Predictions by window, without those that failed."""

    by_window: dict[int, np.ndarray] = field(default_factory=dict)
    reasons: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, excerpts: Sequence[Excerpt], predictions: Sequence[np.ndarray | Failure]) -> "_Sound":
        out = cls()
        for excerpt, found in zip(excerpts, predictions, strict=True):
            if isinstance(found, Failure):
                out.reasons.append(found.reason)
            else:
                out.by_window[excerpt.window] = found
        return out

    @property
    def missing(self) -> int:
        return len(self.reasons)

    @property
    def reason(self) -> str:
        """The most frequent one."""
        return Counter(self.reasons).most_common(1)[0][0] if self.reasons else ""

    def joined(self, excerpts: Sequence[Excerpt]) -> tuple[np.ndarray, np.ndarray, int]:
        """All tokens of those excerpts that were predicted: true, predicted, and how many excerpts these are."""
        known = [e for e in excerpts if e.window in self.by_window]
        sides: tuple[Callable[[Excerpt], np.ndarray], ...] = (
            lambda e: e.activations,
            lambda e: self.by_window[e.window],
        )
        actual, predicted = (np.concatenate([np.zeros(0), *(side(e) for e in known)]) for side in sides)
        return actual, predicted, len(known)


def _calibrated(sound: _Sound, held: Sequence[Excerpt], method: Method) -> _Sound | Failure:
    if method == "none":
        return sound
    true, simulated, n = sound.joined(held)
    if not n:
        return Failure("no held back excerpt was predicted")
    scale = fit(method, simulated, true)
    return _Sound({window: scale(values) for window, values in sound.by_window.items()}, sound.reasons)


def _scored(evidence: Evidence, sound: _Sound, missing: int, costs: Costs, rules: Rules) -> Judged:
    sets, shuffled, threshold = {}, {}, evidence.threshold
    for place, (name, excerpts) in enumerate(sets_of(evidence.of("test")).items()):
        actual, predicted, n = sound.joined(excerpts)
        sets[name] = score_tokens(actual, predicted, threshold, n)
        seeds = [rules.seed, place, zlib.crc32(evidence.name.encode())]  # no two units are shuffled alike
        mixed = np.random.default_rng(seeds).permutation(actual)
        shuffled[name] = score_tokens(mixed, predicted, threshold, n)
    known = [e for e in distinct(evidence.of("test")) if e.window in sound.by_window]
    predictions = [sound.by_window[e.window] for e in known]
    found = detection(known, predictions, threshold)
    marked = fuzzing(known, predictions, threshold, rules.seed)
    return Judged(sets, shuffled, found, marked, missing, dict(costs))
