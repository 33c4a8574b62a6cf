"""Which features to swap: small sets that bring a model near its counterfactual answer.

    acdc(problem, thresholds=THRESHOLDS, seed=0)         # from all features to fewer and fewer
    by_effect(problem)                                   # the k of the largest first-order effect: 1, 2, 4, ...
    held_out(problem, points)                            # the same sets on other prompts

After Cunningham et al. 2023, section 4, and ACDC (Conmy et al. 2023, arXiv 2304.14997).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from saelens_n2g.causal.patching import Measured, Patching
from saelens_n2g.errors import InputError

THRESHOLDS = tuple(10 ** (-5 + 5 * i / 49) for i in range(50))
"""Those of the authors' code: fifty from 1e-5 to 1, evenly in the logarithm."""
Order = Literal["random", "effect"]
GROUP = 16
"""Features that `acdc` tries to take out together, at most."""


@dataclass(frozen=True)
class Point:
    """One set of features."""

    features: tuple[int, ...]
    """Those that are swapped, by their numbers in the basis."""
    found: Measured
    """On the prompts on which the set was chosen."""
    threshold: float | None = None
    """Under which `acdc` accepted it; None for the ends and for rankings."""
    held: Measured | None = None
    """On held-out prompts; None where it was not measured there."""

    @property
    def kl(self) -> float:
        """Mean over the prompts on which it was chosen, in nats."""
        return self.found.kl

    @property
    def edit(self) -> float:
        """Mean length of the edit on those prompts."""
        return self.found.edit

    def as_json(self) -> dict[str, Any]:
        """JSON values."""
        value: dict[str, Any] = {"features": list(self.features), "n": len(self.features), **_told(self.found)}
        if self.threshold is not None:
            value["threshold"] = self.threshold
        if self.held is not None:
            value["held_out"] = _told(self.held)
        return value


def _told(found: Measured) -> dict[str, Any]:
    return {"kl": found.kl, "edit": found.edit, "kls": list(found.kls)}


def point_of(value: Mapping[str, Any]) -> Point:
    """Inverse of `Point.as_json`. Raises `KeyError` or `TypeError` for other values."""
    held = value.get("held_out")
    return Point(tuple(value["features"]), _measured(value), value.get("threshold"), held and _measured(held))


def _measured(value: Mapping[str, Any]) -> Measured:
    return Measured(tuple(value["kls"]), value["edit"])


def chain(points: Sequence[Point]) -> list[dict[str, Any]]:
    """JSON values of sets of which each is part of the one before: the first whole, of the others what was taken out.
    A search one by one has as many sets as features, and would otherwise write the square of that."""
    values = [point.as_json() for point in points]
    for before, after, value in zip(points, points[1:], values[1:], strict=False):
        del value["features"]
        value["removed"] = sorted(set(before.features) - set(after.features))
    return values


def unchain(values: Sequence[Mapping[str, Any]]) -> list[Point]:
    """Inverse of `chain`. Raises `KeyError` or `TypeError` for other values."""
    points: list[Point] = []
    for value in values:
        if points:
            gone = set(value["removed"])
            value = {**value, "features": [i for i in points[-1].features if i not in gone]}
        points.append(point_of(value))
    return points


def ends(problem: Patching) -> tuple[Point, Point]:
    """Nothing swapped, and everything; a run each, once."""
    return Point((), problem.nothing), _everything(problem)


def _everything(problem: Patching) -> Point:
    return Point(tuple(problem.features.tolist()), problem.everything)


# --- ACDC -----------------------------------------------------------------------------------------------------


@dataclass
class Walk:
    """How far `acdc` has come: all that is needed to go on."""

    points: list[Point]
    """Every set that was accepted, all features first."""
    place: int
    """Of the threshold."""
    start: int
    """Features that this threshold has visited."""
    many: int
    """Features to be tried together next."""
    began: int
    """Forward passes before the search."""
    runs: int
    """Forward passes so far, those before the search included."""

    def as_json(self) -> dict[str, Any]:
        """JSON values."""
        return {**vars(self), "points": chain(self.points)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Walk":
        """Inverse of `as_json`. Raises `KeyError` or `TypeError` for other values."""
        return cls(**{**value, "points": unchain(value["points"])})


def acdc(
    problem: Patching,
    *,
    thresholds: Sequence[float] = THRESHOLDS,
    order: Order = "random",
    group: int = GROUP,
    seed: int = 0,
    max_runs: int | None = None,
    walk: Walk | None = None,
    on_run: Callable[[Walk], None] = lambda _: None,
) -> list[Point]:
    """Take features out again as long as the KL rises by less than a threshold each, for ever larger thresholds.

    Begins with all features swapped. For every threshold the features that are still swapped are visited; one is taken
    out for good if that raises the KL by less than the threshold. Up to `group` of them are tried at once, half as many
    after a failure and twice as many after a success: fewer runs, and never a looser criterion. order: `random` is the
    authors', drawn for every threshold from `seed` and its place; `effect` visits features in the order of how little
    their swap helps, to first order, those that do harm first: far fewer runs. A group of 1 in random order is the
    authors' procedure.

    Points are all sets that were accepted, in order of falling size, all features first; the last one of a threshold is
    the authors' set for it. `max_runs` is shared out evenly: after its part of the runs a threshold ends, what it has
    not visited stays swapped, and runs that it leaves over go to the next. on_run is told after every run how far the
    search is; given back as `walk`, with the same problem and settings, the search goes on there and ends as it would
    have. Raises `InputError` for thresholds that do not rise, or a group or runs below 1.
    """
    if list(thresholds) != sorted(set(thresholds)) or not thresholds or thresholds[0] <= 0:
        raise InputError("thresholds of acdc", "rising numbers above 0", str(list(thresholds))[:80])
    if group < 1 or (max_runs is not None and max_runs < 1):
        raise InputError("group and runs of acdc", "1 or more", f"{group} and {max_runs}")
    use = -problem.effects if order == "effect" else None
    if walk is None:
        whole = _everything(problem)
        walk = Walk([whole], 0, 0, group, problem.runs, problem.runs)
    problem.runs = walk.runs
    while walk.place < len(thresholds) and walk.points[-1].features:
        threshold = thresholds[walk.place]
        at_first = [p for p in walk.points if p.threshold is None or p.threshold < threshold][-1]
        there = torch.nonzero(problem.of(at_first.features)).squeeze(1)
        at = _shuffled(len(there), seed, walk.place) if use is None else torch.argsort(use[there], stable=True)
        end = None if max_runs is None else walk.began + max_runs * (walk.place + 1) // len(thresholds)
        _visit(problem, walk, there[at], threshold, group, end, on_run)
        walk.place, walk.start, walk.many = walk.place + 1, 0, group
    return walk.points


def _visit(
    problem: Patching,
    walk: Walk,
    visited: Int[Tensor, "k"],
    threshold: float,
    group: int,
    end: int | None,
    on_run: Callable[[Walk], None],
) -> None:
    """One threshold of `acdc`, until `problem.runs` is `end`."""
    which = problem.of(walk.points[-1].features)
    while walk.start < len(visited) and (end is None or problem.runs < end):
        part = visited[walk.start : walk.start + walk.many]
        fewer = which.clone()
        fewer[part] = False
        found = problem.measure(fewer)
        if found.kl - walk.points[-1].kl < threshold:
            which = fewer
            walk.points.append(_point(problem, which, found, threshold))
            walk.start, walk.many = walk.start + len(part), min(2 * walk.many, group)
        elif len(part) > 1:
            walk.many = len(part) // 2
        else:
            walk.start += 1
        walk.runs = problem.runs
        on_run(walk)


def _point(problem: Patching, which: Bool[Tensor, "m"], found: Measured, threshold: float | None = None) -> Point:
    return Point(tuple(problem.features[which].tolist()), found, threshold)


def _shuffled(n: int, seed: int, place: int) -> Int[Tensor, "n"]:
    """A function of seed and place alone, so that a search can go on at any threshold."""
    return torch.from_numpy(np.random.default_rng([seed, place]).permutation(n))


# --- ranking --------------------------------------------------------------------------------------------------


def by_effect(problem: Patching, sizes: Sequence[int] | None = None) -> list[Point]:
    """The k features whose swap lowers the KL most to first order, for each k: as many runs as sizes, and two more.

    `sizes` None takes powers of two. Points are in order of rising size, and end with all features."""
    order = torch.argsort(problem.effects, stable=True)
    m = len(order)
    points = []
    for k in [2**i for i in range(m.bit_length())] if sizes is None else sizes:
        if k < m:
            which = problem.none()
            which[order[:k]] = True
            points.append(_point(problem, which, problem.measure(which)))
    return [*points, _everything(problem)]


# --- held-out prompts -----------------------------------------------------------------------------------------


def best(points: Sequence[Point], k: int) -> Point | None:
    """The set of 1 to k features with the lowest KL on the prompts it was chosen on; None if there is none."""
    return min((p for p in points if 0 < len(p.features) <= k), key=lambda p: p.kl, default=None)


def held_out(problem: Patching, points: Sequence[Point]) -> list[Point]:
    """The same sets with what they do on the prompts of `problem`, a run each."""
    return [replace(point, held=problem.measure(problem.of(point.features))) for point in points]
