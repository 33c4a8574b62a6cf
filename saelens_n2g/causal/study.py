"""The IOI analysis of one site: how few features of each basis carry the answer (Cunningham et al. 2023, section 4).

    curves = run_basis(subject, task, site, codes_of(basis), IoiConfig())
    curves.closed(64)                                       # share of the gap that 64 features close
    result = IoiResult.of(site, performance(subject, task), [curves, ...], config, provenance)

Every basis is asked for the same two curves over the same prompts: sets that `acdc` reaches, and the k features of the
largest first-order effect. The gap is KL(plain run || counterfactual run), the same for all bases.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from saelens_n2g.bases.sae import SaeBasis
from saelens_n2g.causal.ioi import IoiTask, Performance
from saelens_n2g.causal.patching import THRESHOLDS, Codes, Order, Point, acdc, by_effect, ends, patching, point_of
from saelens_n2g.errors import ArtefactError, InputError
from saelens_n2g.progress import Tick
from saelens_n2g.sites import Site
from saelens_n2g.subject import Subject
from saelens_n2g.training.metrics import TYPICAL

FORMAT, VERSION = "saelens-n2g/ioi", 1
SIZES = (8, 16, 32, 64, 128)
"""Numbers of features whose share of the gap is reported."""
PASSES = 0.75
"""Share of texts on which a subject must prefer the right name for conclusions to be drawn."""


@dataclass(frozen=True, kw_only=True)
class IoiConfig:
    """Every choice of an IOI analysis beside model, text, site and dictionaries."""

    prompts: int = 12
    """Prompts, each with its counterfactual. The authors take 50."""
    thresholds: tuple[float, ...] = (1e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3)
    """Of `acdc`, in nats. The authors take fifty from 1e-5 to 1."""
    order: Order = "effect"
    """In which `acdc` visits features. The authors': `random`."""
    group: int = 64
    """Features `acdc` tries to take out together, at most. The authors': 1."""
    max_runs: int = 210
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
        found = [f"{self.prompts} prompts (theirs: 50), with templates and names of our own."]
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
    """Features whose value differs between the texts of a prompt somewhere."""
    nothing: Point
    """The plain run: its KL is the gap."""
    everything: Point
    acdc: tuple[Point, ...]
    """Falling sizes."""
    ranked: tuple[Point, ...]
    """The k features of the largest first-order effect, rising k."""
    runs: int
    """Forward passes."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Of the basis: checksums, settings, how much it explains."""

    def share(self, point: Point) -> float:
        """Share of the gap that a set closes: 1 = the counterfactual run, below 0 = farther from it than nothing."""
        return 1 - point.kl / self.nothing.kl

    def closed(self, k: int) -> tuple[float, float | None]:
        """Share of the gap that k features close: those of the largest effect, and the best set of at most k that
        `acdc` reached; None where it reached none that small."""
        first = max((p for p in self.ranked if len(p.features) <= k), key=lambda p: len(p.features))
        small = [self.share(p) for p in self.acdc if 0 < len(p.features) <= k]
        return self.share(first), max(small, default=None)

    def as_json(self, *, features: bool = True) -> dict[str, Any]:
        """JSON values; without `features` only how many there are in each set."""

        def one(point: Point) -> dict[str, Any]:
            value = point.as_json() | {"closed": self.share(point)}
            return value if features else {k: v for k, v in value.items() if k != "features"}

        return {
            "name": self.name,
            "n_features": self.n_features,
            "differ": self.differ,
            "nothing": one(self.nothing),
            "everything": one(self.everything),
            "acdc": [one(p) for p in self.acdc],
            "ranked": [one(p) for p in self.ranked],
            "closed": {str(k): dict(zip(("ranked", "acdc"), self.closed(k), strict=True)) for k in SIZES},
            "runs": self.runs,
            "facts": dict(self.facts),
        }

    @classmethod
    def from_json(cls, value: Any, where: str) -> "Curves":
        """Inverse of `as_json` with features. Raises `ArtefactError` naming `where`."""
        try:
            return cls(
                value["name"],
                value["n_features"],
                value["differ"],
                point_of(value["nothing"]),
                point_of(value["everything"]),
                tuple(map(point_of, value["acdc"])),
                tuple(map(point_of, value["ranked"])),
                value["runs"],
                value["facts"],
            )
        except (KeyError, TypeError) as error:
            raise ArtefactError(where, "curves of a basis", f"{type(error).__name__}: {error}") from error


def run_basis(
    subject: Subject,
    task: IoiTask,
    site: Site,
    codes: Codes,
    config: IoiConfig,
    *,
    facts: Mapping[str, Any] | None = None,
    tick: Tick = lambda *_: None,
) -> Curves:
    """Both curves of a basis. tick: told of forward passes and of how many there are at most. Errors as `patching`."""
    with patching(subject, task, site, codes) as problem:
        most = config.max_runs + len(config.sizes) + 6
        nothing, everything = ends(problem)
        ranked = by_effect(problem, config.sizes)
        found = acdc(
            problem,
            thresholds=config.thresholds,
            order=config.order,
            group=config.group,
            seed=config.seed,
            max_runs=config.max_runs,
            on_run=lambda runs: tick(min(runs, most), most),
        )
        return Curves(
            codes.name,
            problem.n_features,
            len(problem.features),
            nothing,
            everything,
            tuple(found),
            tuple(ranked),
            problem.runs,
            facts or {},
        )


def _both(subject: Subject, task: IoiTask, site: Site) -> tuple[Float[Tensor, "n d"], Float[Tensor, "n d"]]:
    """Activations at the scored positions of the prompts, plain and counterfactual."""
    scored = task.mask()
    if subject.bos_id is not None:
        scored[:, 0] = False
    x, other = (subject.activations(ids, [site])[site].cpu()[scored] for ids in (task.ids, task.counterfactual_ids))
    return x, other


def massive(subject: Subject, task: IoiTask, site: Site, mean: Float[Tensor, "d"], distance: float) -> Massive:
    """See `Massive`. mean: of the corpus at `site`; distance: the median one of its activations from there."""
    x, other = _both(subject, task, site)
    apart, edit = (x - mean).norm(dim=-1), (other - x).square().sum(-1)
    far = apart > TYPICAL * distance
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


@dataclass(frozen=True)
class IoiResult:
    """The whole analysis of one site."""

    site: Site
    performance: Performance
    massive: Massive
    curves: tuple[Curves, ...]
    config: IoiConfig
    provenance: Mapping[str, Any]

    @property
    def valid(self) -> bool:
        """Whether the subject does the task; if not, nothing may be concluded."""
        return self.performance.preferred >= PASSES

    @property
    def gap(self) -> float:
        """KL(plain run || counterfactual run) in nats."""
        return self.curves[0].nothing.kl

    def as_json(self) -> dict[str, Any]:
        """JSON values (docs/formats.md)."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "site": str(self.site),
            "performance": self.performance.as_json(),
            "valid": self.valid,
            "gap": self.gap,
            "massive": self.massive._asdict(),
            "bases": [one.as_json(features=False) for one in self.curves],
            "config": asdict(self.config),
            "differences": self.config.differences(),
            "provenance": dict(self.provenance),
        }


def median_distance(rows: Float[Tensor, "n d"], mean: Float[Tensor, "d"]) -> float:
    """Of rows from their mean."""
    return float(torch.linalg.vector_norm(rows - mean, dim=-1).median())


def unique(names: Sequence[str]) -> list[str]:
    """The names, numbered from the second on where they are equal."""
    found: list[str] = []
    for name in names:
        taken = found.count(name) + sum(other.startswith(f"{name} (") for other in found)
        found.append(name if not taken else f"{name} ({taken + 1})")
    return found
