"""Words: what sentences say of a unit, and how well they, its graph and its tables predict it.

Bills et al. 2023: an explanation is scored by what can be predicted from it (`saelens_n2g.autointerp`).
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from saelens_n2g.errors import ArtefactError

SETS = {"top_and_random": "Strong and random windows", "random": "Random windows"}
METRICS = {"correlation": "Corr.", "auprc": "AUPRC", "f1": "F1"}
ANSWERS = {"balanced_accuracy": "Balanced accuracy", "f1": "F1", "auc": "AUC"}
CONTROLS = ("neutral", "other", "shuffled")


class Way(NamedTuple):
    """A way of explaining the unit, simulated."""

    title: str
    text: str
    """The sentence; empty for what predicts by itself, and for later simulators of the same sentence."""
    problem: str
    """Why there is no score; empty if there is."""
    scores: Mapping[str, tuple[float | None, ...]]
    """Set -> values of `METRICS`."""
    control: float | None
    """The best correlation of a control on strong and random windows."""
    verdict: str
    """`valid`, `invalid` or `not shown`."""


class Told(NamedTuple):
    """What a scorer found of a sentence: does it tell excerpts that fire from others?"""

    title: str
    problem: str
    """Why there is no score; empty if there is."""
    values: tuple[float | None, ...]
    """Those of `ANSWERS`."""
    control: float | None
    """The best AUC of a control."""
    verdict: str


def told(body: Mapping[str, Any] | None) -> list[Told]:
    """Those in a body of `explanation`, each once. Raises `ArtefactError`."""
    found: dict[str, Told] = {}
    try:
        for entry in [] if body is None else body["explanations"]:
            for scorer, one in entry.get("told", {}).items():
                found.setdefault(f"{entry['explainer']}, {scorer}", _told(f"{entry['explainer']}, {scorer}", one))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ArtefactError("explanations", "sentences with what scorers found", repr(error)) from error
    return list(found.values())


def _told(title: str, one: Mapping[str, Any]) -> Told:
    answers, verdict = one["answers"], str(one["validity"])
    if answers is None:
        return Told(title, str(one["reason"] or one["status"]), (), None, verdict)
    beside = [_number(control["auc"]) for control in one["controls"].values()]
    best = max((value for value in beside if value is not None), default=None)
    return Told(title, "", tuple(_number(answers[name]) for name in ANSWERS), best, verdict)


def ways(body: Mapping[str, Any] | None) -> list[Way]:
    """Those in a body of `explanation`; none where no interpretation was collected. Raises `ArtefactError`."""
    try:
        return _ways([] if body is None else body["explanations"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ArtefactError("explanations", "sentences with scores", repr(error)) from error


def _ways(entries: list[Any]) -> list[Way]:
    found, told = [], set[str]()
    for entry in entries:
        simulated = entry.get("simulated")
        if simulated is None and "simulator" not in entry:
            continue
        reader, text = entry.get("simulator"), str(entry.get("text") or "")
        own = reader is None
        title = str(entry["explainer"]) if own else f"{entry['explainer']}, read by {reader}"
        shown = "" if own or text in told else text
        told.add(text)
        if simulated is None:
            problem = str(entry.get("reason") or entry.get("status") or "not scored")
            found.append(Way(title, shown, problem, {}, None, ""))
            continue
        sets, controls = simulated["sets"], simulated["controls"]
        beside = [_number(controls[name]["top_and_random"]["correlation"]) for name in CONTROLS if name in controls]
        found.append(
            Way(
                title=title,
                text=shown,
                problem="",
                scores={name: tuple(_number(sets[name][metric]) for metric in METRICS) for name in SETS},
                control=max((one for one in beside if one is not None), default=None),
                verdict=str(simulated["validity"]),
            )
        )
    return found


def _number(value: Any) -> float | None:
    return None if value is None else float(value)
