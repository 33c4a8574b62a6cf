"""Counterfactual patching by features: how many of a basis's features must change for a model to change its answer
(Cunningham et al. 2023, section 4).

    with patching(subject, task, site, codes_of(basis)) as problem:
        problem.kl(problem.all())                                    # every feature swapped
        curve = acdc(problem, thresholds=THRESHOLDS, seed=0)         # fewer and fewer of them
        curve = by_effect(problem)                                   # the k of largest first-order effect: 1, 2, 4, ...

At every position of a prompt, x' = x + sum over f in F of (c'_f - c_f) d_f: the features F take the values c' that they
have in the counterfactual text, d_f being their directions. What the basis does not rebuild stays as it is. The measure
is KL(patched || counterfactual) of the last token's distribution, averaged over prompts. Only features whose value
differs somewhere can do anything, and only those are looked at.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from saelens_n2g.bases.base import AffineBasis
from saelens_n2g.bases.sae import SaeBasis
from saelens_n2g.causal.ioi import IoiTask
from saelens_n2g.errors import InputError
from saelens_n2g.sites import Site
from saelens_n2g.subject import Subject

THRESHOLDS = tuple(10 ** (-5 + 5 * i / 49) for i in range(50))
"""Those of the authors' code: fifty from 1e-5 to 1, evenly in the logarithm."""
Order = Literal["random", "effect"]
GROUP = 16
"""Features that `acdc` tries to take out together, at most."""


class Codes(NamedTuple):
    """What patching needs of a basis."""

    name: str
    encode: Callable[[Float[Tensor, "*batch d"]], Float[Tensor, "*batch n"]]
    """Features of activations; of any sign."""
    directions: Float[Tensor, "n d"]
    """What 1 of each feature adds to the activation."""


def codes_of(basis: AffineBasis, name: str | None = None) -> Codes:
    """Non-negative features as they are: a dictionary, or directions (for principal components "non-negative PCA").

    Raises `InputError` for directions that are not of length 1, such as independent components: there what is read off
    an activation is not what is added to it.
    """
    if isinstance(basis, SaeBasis):
        return Codes(name or basis.name, basis.encode, basis.decoder)
    length = basis.weight.norm(dim=-1)
    if not torch.allclose(length, torch.ones_like(length), atol=1e-4):
        found = f"lengths {float(length.min()):.4g} to {float(length.max()):.4g}"
        raise InputError(f"basis {basis.name!r} to patch with", "directions of length 1", found)
    return Codes(name or basis.name, basis.encode, basis.weight)


def signed_pairs(basis: AffineBasis, name: str | None = None) -> Codes:
    """Pairs of units +v, -v as one signed feature: principal components as the rotation that they are."""
    rows = basis.weight[0::2]
    if not torch.equal(basis.weight[1::2], -rows) or bool(basis.bias.any()):
        raise InputError(f"basis {basis.name!r}", "pairs of opposite directions without bias", "others")
    return Codes(name or basis.name, lambda x: (x - basis.centre) @ rows.T, rows)


class Measured(NamedTuple):
    """What a set of swapped features does."""

    kl: float
    """Mean over prompts, in nats."""
    edit: float
    """Mean over prompts and positions (BOS and padding left out) of the norm of x' - x."""


@dataclass(eq=False)
class Patching:
    """One task at one site in one basis. Made by `patching`, within whose block it can run the model."""

    name: str
    features: Int[Tensor, "m"]
    """Features whose value differs between the texts of a prompt somewhere; sets of them are masks over these."""
    n_features: int
    """Of the whole basis."""
    runs: int = 0
    """Forward passes so far."""
    _x: Tensor = field(default_factory=lambda: torch.empty(0), repr=False)
    _delta: Tensor = field(default_factory=lambda: torch.empty(0), repr=False)
    _directions: Tensor = field(default_factory=lambda: torch.empty(0), repr=False)
    _target: Tensor = field(default_factory=lambda: torch.empty(0), repr=False)
    _scored: Tensor = field(default_factory=lambda: torch.empty(0), repr=False)
    _run: Callable[[Tensor], Tensor] = field(default=lambda x: x, repr=False)

    def all(self) -> Bool[Tensor, "m"]:
        """Every feature."""
        return torch.ones(len(self.features), dtype=torch.bool)

    def none(self) -> Bool[Tensor, "m"]:
        """No feature: the plain run."""
        return ~self.all()

    def measure(self, which: Bool[Tensor, "m"]) -> Measured:
        """Swap these features."""
        at = which.to(self._delta.device)
        edit = self._delta[..., at] @ self._directions[at]
        with torch.inference_mode():
            found = float(self._kl(self._run(self._x + edit)).mean())
        self.runs += 1
        return Measured(found, float(edit.norm(dim=-1)[self._scored].mean()))

    def kl(self, which: Bool[Tensor, "m"]) -> float:
        """`measure` without the size of the edit."""
        return self.measure(which).kl

    def effects(self) -> Float[Tensor, "m"]:
        """First-order change of the KL when each feature is swapped, negative where that lowers it. The gradient is
        taken where half of the whole edit is made: at either end it says little about the other. One forward and one
        backward pass."""
        with torch.enable_grad():
            x = (self._x + 0.5 * (self._delta @ self._directions)).clone().requires_grad_()
            loss = self._kl(self._run(x)).mean()
            (gradient,) = torch.autograd.grad(loss, x)
        self.runs += 1
        return (self._delta * (gradient @ self._directions.T)).sum((0, 1)).cpu()

    def _kl(self, logits: Float[Tensor, "prompts vocab"]) -> Float[Tensor, "prompts"]:
        found = logits.log_softmax(-1)
        return (found.exp() * (found - self._target)).sum(-1)


@contextmanager
def patching(subject: Subject, task: IoiTask, site: Site, codes: Codes) -> Iterator[Patching]:
    """The problem of a task at a residual site. Raises `InputError` as `Subject.behind` does, if the basis has another
    width, or if no feature differs between the texts."""
    x, other = (subject.activations(ids, [site])[site].clone() for ids in (task.ids, task.counterfactual_ids))
    directions = codes.directions.to(x.device, torch.float32)
    if directions.shape[1] != x.shape[-1]:
        raise InputError(f"basis {codes.name!r} at {site}", f"width {x.shape[-1]}", f"width {directions.shape[1]}")
    scored = task.mask()
    if subject.bos_id is not None:
        scored[:, 0] = False
    delta = (codes.encode(other) - codes.encode(x)) * scored[..., None].to(x.device)
    features = torch.nonzero(delta.abs().amax((0, 1)) > 0).squeeze(1)
    if len(features) == 0:
        raise InputError(f"basis {codes.name!r} at {site}", "a feature that differs between the texts", "none")
    with subject.behind(task.ids, site, task.last) as run:
        with torch.inference_mode():
            target = run(other).log_softmax(-1).clone()
        yield Patching(
            codes.name,
            features.cpu(),
            len(directions),
            _x=x,
            _delta=delta[..., features].clone(),
            _directions=directions[features],
            _target=target,
            _scored=scored.to(x.device),
            _run=run,
        )


# --- curves ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Point:
    """One set of features."""

    features: tuple[int, ...]
    """Those that are swapped, by their numbers in the basis."""
    kl: float
    edit: float
    threshold: float | None = None
    """That led to it; None for the ends and for rankings."""

    def as_json(self) -> dict[str, Any]:
        """JSON values."""
        return {"features": list(self.features), "n": len(self.features), "kl": self.kl, "edit": self.edit} | (
            {} if self.threshold is None else {"threshold": self.threshold}
        )


def point_of(value: Mapping[str, Any]) -> Point:
    """Inverse of `Point.as_json`. Raises `KeyError` or `TypeError` for other values."""
    return Point(tuple(value["features"]), value["kl"], value["edit"], value.get("threshold"))


def _as_point(problem: Patching, which: Bool[Tensor, "m"], found: Measured, threshold: float | None = None) -> Point:
    return Point(tuple(problem.features[which].tolist()), found.kl, found.edit, threshold)


def _point(problem: Patching, which: Bool[Tensor, "m"]) -> Point:
    return _as_point(problem, which, problem.measure(which))


def ends(problem: Patching) -> tuple[Point, Point]:
    """Nothing swapped, and everything."""
    return _point(problem, problem.none()), _point(problem, problem.all())


def acdc(
    problem: Patching,
    *,
    thresholds: Sequence[float] = THRESHOLDS,
    order: Order = "random",
    group: int = GROUP,
    seed: int = 0,
    max_runs: int | None = None,
    on_run: Callable[[int], None] = lambda _: None,
) -> list[Point]:
    """Take features out again as long as the KL rises by less than a threshold each, for ever larger thresholds.

    Begins with all features swapped. For every threshold the features that are still swapped are visited; one is taken
    out for good if that raises the KL by less than the threshold (after ACDC, Conmy et al. 2023). Up to `group` of them
    are tried at once, half as many after a failure and twice as many after a success: fewer runs, and never a looser
    criterion. order: `random` is the authors', drawn anew for every threshold; `effect` visits features in the order of
    how little their swap helps, to first order, those that do harm first: far fewer runs. A group of 1 in random order
    is the authors' procedure.

    Points are in order of falling size, duplicates left out, all features first. `max_runs` is shared out evenly: after
    its part of the runs a threshold ends, what it has not visited stays swapped, and runs that it leaves over go to the
    next. on_run is told of the runs so far. Raises `InputError` for thresholds that do not rise, or a group or runs
    below 1.
    """
    if list(thresholds) != sorted(set(thresholds)) or not thresholds or thresholds[0] <= 0:
        raise InputError("thresholds of acdc", "rising numbers above 0", str(list(thresholds))[:80])
    if group < 1 or (max_runs is not None and max_runs < 1):
        raise InputError("group and runs of acdc", "1 or more", f"{group} and {max_runs}")
    generator = torch.Generator().manual_seed(seed)
    use = -problem.effects() if order == "effect" else None
    which = problem.all()
    now = problem.measure(which)
    points, began = [_as_point(problem, which, now)], problem.runs
    for place, threshold in enumerate(thresholds, 1):
        there = torch.nonzero(which).squeeze(1)
        if len(there) == 0:
            break
        at = torch.argsort(use[there], stable=True) if use is not None else _shuffled(len(there), generator)
        end = None if max_runs is None else began + max_runs * place // len(thresholds)
        which, now = _without(problem, which, now, there[at], threshold, group, end, on_run)
        if int(which.sum()) < len(points[-1].features):
            points.append(_as_point(problem, which, now, threshold))
    return points


def _without(
    problem: Patching,
    which: Bool[Tensor, "m"],
    now: Measured,
    visited: Int[Tensor, "k"],
    threshold: float,
    group: int,
    end: int | None,
    on_run: Callable[[int], None],
) -> tuple[Bool[Tensor, "m"], Measured]:
    """One threshold of `acdc`, until `problem.runs` is `end`: the set that is left, and what it does."""
    start, many = 0, group
    while start < len(visited) and (end is None or problem.runs < end):
        part = visited[start : start + many]
        fewer = which.clone()
        fewer[part] = False
        found = problem.measure(fewer)
        on_run(problem.runs)
        if found.kl - now.kl < threshold:
            which, now, start, many = fewer, found, start + len(part), min(2 * many, group)
        elif len(part) > 1:
            many = len(part) // 2
        else:
            start += 1
    return which, now


def _shuffled(n: int, generator: torch.Generator) -> Int[Tensor, "n"]:
    return torch.randperm(n, generator=generator)


def by_effect(problem: Patching, sizes: Sequence[int] | None = None) -> list[Point]:
    """The k features whose swap lowers the KL most to first order, for each k: as many runs as sizes, and two more.

    `sizes` None takes powers of two. Points are in order of rising size, and end with all features."""
    order = torch.argsort(problem.effects(), stable=True)
    m = len(order)
    wanted = [2**i for i in range(m.bit_length())] if sizes is None else list(sizes)
    points = []
    for k in [k for k in wanted if k < m] + [m]:
        which = problem.none()
        which[order[:k]] = True
        points.append(_point(problem, which))
    return points
