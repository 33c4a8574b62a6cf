"""The IOI analysis of one site: how few features of each basis carry the answer (Cunningham et al. 2023, section 4).

    curves = run_basis(subject, Prompts(task, held), site, codes_of(basis), IoiConfig())
    curves.closed(curves.chosen(64)["ranked"], "held_out", seed=0)   # share of the gap that 64 features close

Every basis is asked for the same two curves over the same prompts: sets that `acdc` reaches, and the k features of the
largest first-order effect. The gap is KL(plain run || counterfactual run), the same for all bases. Sets are chosen on
one half of the prompts and measured on both; the other half, drawn alike, tells what is not fitted to the first.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, get_args

from jaxtyping import Float
from torch import Tensor

from saelens_n2g.bases.sae import SaeBasis
from saelens_n2g.causal.ioi import IoiTask
from saelens_n2g.causal.patching import Codes, Measured, Patching, patching
from saelens_n2g.causal.searches import (
    THRESHOLDS,
    Order,
    Point,
    Walk,
    acdc,
    best,
    by_effect,
    chain,
    ends,
    held_out,
    point_of,
    unchain,
)
from saelens_n2g.causal.shares import closed
from saelens_n2g.errors import ArtefactError, InputError
from saelens_n2g.progress import Tick
from saelens_n2g.scoring import Summary
from saelens_n2g.sites import Site
from saelens_n2g.subject import Subject

SIZES = (8, 16, 32, 64, 128)
"""Numbers of features whose share of the gap is reported."""
METHODS = ("ranked", "acdc")
"""How sets are chosen: `by_effect` and `acdc`."""
SIDES = ("held_out", "fit")
"""Prompts: those that no set was chosen on, and those that sets were chosen on."""


@dataclass(frozen=True, kw_only=True)
class IoiConfig:
    """Every choice of an IOI analysis beside model, text, site and dictionaries."""

    prompts: int = 12
    """Prompts on which sets are chosen, each with its counterfactual, and as many again on which they are only
    measured. The authors take 50, and no others."""
    thresholds: tuple[float, ...] = (1e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3)
    """Of `acdc`, in nats. The authors take fifty from 1e-5 to 1."""
    order: Order = "effect"
    """In which `acdc` visits features. The authors': `random`."""
    group: int = 64
    """Features `acdc` tries to take out together, at most. The authors': 1."""
    max_runs: int = 120
    """Forward passes for the curve of `acdc` in each basis, shared out over the thresholds. The authors: no limit."""
    sizes: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
    """Numbers of features in the ranking by effect."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.prompts < 1 or self.max_runs < 1 or self.group < 1:
            found = f"{self.prompts}, {self.max_runs}, {self.group}"
            raise InputError("options prompts, runs and group", "integers >= 1", found)
        if self.order not in get_args(Order):
            raise InputError("option order", f"one of {', '.join(get_args(Order))}", repr(self.order))
        if list(self.sizes) != sorted(set(self.sizes)) or not set(SIZES) <= set(self.sizes):
            raise InputError(
                "option sizes", f"rising numbers, {', '.join(map(str, SIZES))} among them", str(self.sizes)
            )

    def differences(self) -> list[str]:
        """What is done otherwise than in the authors' code, a sentence each."""
        found = [
            f"{self.prompts} prompts to choose sets on (theirs: 50) and {self.prompts} others to measure them on "
            "(theirs: none), with templates and names of our own."
        ]
        if self.order != "random":
            found.append("ACDC visits features that help least, to first order, first (theirs: in random order).")
        if self.group != 1:
            found.append(
                f"ACDC takes out up to {self.group} features at once where that raises the KL by less than the "
                "threshold for one (theirs: one at a time)."
            )
        if self.thresholds != THRESHOLDS:
            found.append(
                f"{len(self.thresholds)} thresholds from {self.thresholds[0]:g} to {self.thresholds[-1]:g} (theirs: 50 "
                f"from 1e-5 to 1), and at most {self.max_runs} forward passes a basis (theirs: no limit): a set that "
                "was reached may not be the smallest for its threshold."
            )
        return found


class Massive(NamedTuple):
    """What positions far from all others have to do with it."""

    positions: int
    """Scored positions of the prompts that are farther from the corpus mean than `TYPICAL` times the median."""
    scored: int
    """All scored positions of the prompts."""
    variance: float
    """Their share of the squared distance to the mean."""
    edit: float
    """Their share of the squared length of the whole edit, counterfactual - plain."""


@dataclass(frozen=True)
class Curves:
    """One basis on the task."""

    name: str
    n_features: int
    differ: int
    """Features whose value differs between the texts of a prompt somewhere, of the prompts that sets are chosen on."""
    nothing: Point
    """The plain run: its KL is the gap."""
    everything: Point
    """On held-out prompts: all features that differ there."""
    acdc: tuple[Point, ...]
    """All sets that were accepted, falling sizes; `held` where one is the best of a size in `IoiConfig.sizes`."""
    ranked: tuple[Point, ...]
    """The k features of the largest first-order effect, rising k."""
    runs: int
    """Forward passes."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Of the basis: checksums, settings, how much it explains."""

    def chosen(self, k: int) -> dict[str, Point | None]:
        """The set of k features that each of `METHODS` gives: of the largest effect (all that differ, where those are
        fewer), and the best on its prompts of at most k that ACDC reached; None where it reached none that small."""
        first = max((p for p in self.ranked if len(p.features) <= k), key=lambda p: len(p.features), default=None)
        return dict(zip(METHODS, (first, best(self.acdc, k)), strict=True))

    def closed(self, point: Point, side: str, seed: int) -> Summary:
        """Share of the gap that a set closes on one of `SIDES`, with its interval over prompts."""
        return closed(side_of(self.nothing, side), side_of(point, side), seed=seed)

    def as_json(self) -> dict[str, Any]:
        """JSON values, each set with its features."""
        return {
            "name": self.name,
            "n_features": self.n_features,
            "differ": self.differ,
            "nothing": self.nothing.as_json(),
            "everything": self.everything.as_json(),
            "acdc": chain(self.acdc),
            "ranked": [p.as_json() for p in self.ranked],
            "runs": self.runs,
            "facts": dict(self.facts),
        }

    def told(self, seed: int) -> dict[str, Any]:
        """What the report's data say of it: intervals in place of features."""

        def both(point: Point | None) -> dict[str, Any] | None:
            if point is None:
                return None
            return {"n": len(point.features)} | {s: interval(self.closed(point, s, seed)) for s in SIDES}

        def one(point: Point) -> dict[str, Any]:
            value = {k: v for k, v in point.as_json().items() if k not in ("features", "kls")}
            if point.held is not None:
                value["held_out"] = {"kl": point.held.kl, "edit": point.held.edit}
            return value

        return {
            "name": self.name,
            "n_features": self.n_features,
            "differ": self.differ,
            "nothing": one(self.nothing),
            "everything": one(self.everything) | {"closed": both(self.everything)},
            "acdc": [one(p) for p in self.acdc],
            "ranked": [one(p) for p in self.ranked],
            "closed": {str(k): {name: both(point) for name, point in self.chosen(k).items()} for k in SIZES},
            "runs": self.runs,
            "facts": dict(self.facts),
        }

    @classmethod
    def from_json(cls, value: Any, where: str) -> "Curves":
        """Inverse of `as_json`. Raises `ArtefactError` naming `where`."""
        try:
            return cls(
                value["name"],
                value["n_features"],
                value["differ"],
                point_of(value["nothing"]),
                point_of(value["everything"]),
                tuple(unchain(value["acdc"])),
                tuple(map(point_of, value["ranked"])),
                value["runs"],
                value["facts"],
            )
        except (KeyError, TypeError) as error:
            raise ArtefactError(where, "curves of a basis", f"{type(error).__name__}: {error}") from error


def side_of(point: Point, side: str) -> Measured:
    """What a set does on one of `SIDES`; it must have been measured there."""
    found = point.found if side == "fit" else point.held
    assert found is not None, "a set that was not measured on held-out prompts"
    return found


def interval(found: Summary) -> dict[str, float | None]:
    """Mean and 95 % interval as JSON values."""
    return {"mean": found.mean, "low": found.low, "high": found.high}


class Prompts(NamedTuple):
    """Those on which sets are chosen, and as many others."""

    fit: IoiTask
    held: IoiTask


def run_basis(
    subject: Subject,
    prompts: Prompts,
    site: Site,
    codes: Codes,
    config: IoiConfig,
    *,
    facts: Mapping[str, Any] | None = None,
    tick: Tick = lambda *_: None,
    walk: Walk | None = None,
    on_walk: Callable[[Walk], None] = lambda _: None,
) -> Curves:
    """Both curves of a basis. tick: told of forward passes and of how many there are at most. walk, on_walk: as in
    `acdc`, to go on where a search stopped. Errors as `patching`."""
    with patching(subject, prompts.fit, site, codes) as problem:
        most = min(config.max_runs, len(problem.features) * len(config.thresholds)) + 3 * len(config.sizes) + 6

        def on_run(now: Walk) -> None:
            on_walk(now)
            tick(min(now.runs, most), most)

        nothing, everything = ends(problem)
        ranked = by_effect(problem, config.sizes)
        found = acdc(
            problem,
            thresholds=config.thresholds,
            order=config.order,
            group=config.group,
            seed=config.seed,
            max_runs=config.max_runs,
            walk=walk,
            on_run=on_run,
        )
        n_features, runs = problem.n_features, problem.runs
    with patching(subject, prompts.held, site, codes) as problem:
        nothing, everything = (
            replace(a, held=b.found) for a, b in zip((nothing, everything), ends(problem), strict=True)
        )
        ranked = [*held_out(problem, ranked[:-1]), everything]
        found = _held_best(problem, found, config.sizes, everything)
        runs += problem.runs
    differ = len(everything.features)
    return Curves(codes.name, n_features, differ, nothing, everything, tuple(found), tuple(ranked), runs, facts or {})


def _held_best(problem: Patching, points: Sequence[Point], sizes: Sequence[int], everything: Point) -> list[Point]:
    """Of the sets that ACDC reached, the best of at most k for each k of `sizes` measured on the held-out prompts. A
    run for every set would cost as much as the search."""
    wanted = {p.features for p in (best(points, k) for k in sizes) if p is not None}
    measured = [held_out(problem, [p])[0] if p.features in wanted else p for p in points[1:]]
    return [everything, *measured]


def _both(subject: Subject, task: IoiTask, site: Site) -> tuple[Float[Tensor, "n d"], Float[Tensor, "n d"]]:
    """Activations at the scored positions of the prompts, plain and counterfactual."""
    scored = task.mask()
    if subject.bos_id is not None:
        scored[:, 0] = False
    x, other = (subject.activations(ids, [site])[site].cpu()[scored] for ids in (task.ids, task.counterfactual_ids))
    return x, other


def massive(subject: Subject, task: IoiTask, site: Site, mean: Float[Tensor, "d"], limit: float) -> Massive:
    """See `Massive`. mean, limit: of the corpus at `site`, its mean and its `training.metrics.typical_limit`."""
    x, other = _both(subject, task, site)
    apart, edit = (x - mean).norm(dim=-1), (other - x).square().sum(-1)
    far = apart > limit
    return Massive(
        int(far.sum()),
        len(x),
        float(apart[far].square().sum() / apart.square().sum()),
        float(edit[far].sum() / edit.sum()),
    )


def rebuilt(subject: Subject, task: IoiTask, site: Site, basis: SaeBasis) -> dict[str, float]:
    """How well a dictionary rebuilds the prompts: `fvu`, the fraction of variance unexplained, and `fvu_edit`, the
    fraction of counterfactual - plain that its decoded features miss; mean active features, `l0`."""
    x, other = _both(subject, task, site)
    codes, counter = basis.encode(x), basis.encode(other)
    missed = (basis.decode(codes) - x).square().sum() / (x - x.mean(0)).square().sum()
    edit = basis.decode(counter) - basis.decode(codes) - (other - x)
    return {
        "fvu": float(missed),
        "fvu_edit": float(edit.square().sum() / (other - x).square().sum()),
        "l0": float((codes > 0).sum(-1).float().mean()),
    }


def unique(names: Sequence[str]) -> list[str]:
    """The names, numbered from the second on where they are equal."""
    found: list[str] = []
    for name in names:
        taken = found.count(name) + sum(other.startswith(f"{name} (") for other in found)
        found.append(name if not taken else f"{name} ({taken + 1})")
    return found
