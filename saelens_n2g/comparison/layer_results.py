"""What a run over layers found, as plain values: written to `layers.json`, read by table and figure.

A *system* is a method of fitting graphs or a table of counts; all systems of a layer are scored on the same units.
Texts and metrics are those of `comparison.results`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from saelens_n2g.comparison.results import GRADED, METRICS, TEXTS
from saelens_n2g.comparison.scores import Score
from saelens_n2g.errors import ArtefactError
from saelens_n2g.jobs.artefacts import read_format, read_json, write_json
from saelens_n2g.scoring import Confusion, PairedComparison, Summary, compare_paired, summarise, summarise_counts

FORMAT, VERSION = "saelens-n2g/layers", 1
ALL, MICRO = "all", "micro_f1"
RIVALS = ("backoff_table", "backoff_table_corpus")
"""What every method is compared with unit by unit: the first knows the exemplars alone, the second all fit text."""


@dataclass(frozen=True)
class System:
    """One system on the units of one layer; every mapping is by unit name."""

    name: str
    scores: dict[str, dict[str, dict[str, float | None]]] = field(default_factory=dict)
    """unit -> text -> metric -> value."""
    counts: dict[str, dict[str, Confusion]] = field(default_factory=dict)
    """unit -> text -> the token counts behind the metrics."""
    failures: dict[str, str] = field(default_factory=dict)
    """Units without a graph and why; their scores are those of a graph that never fires."""
    nodes: dict[str, int] = field(default_factory=dict)
    """Nodes of each graph; empty for tables, as the four below."""
    paths: dict[str, int] = field(default_factory=dict)
    costs: dict[str, int] = field(default_factory=dict)
    """What fitting all units took (`graphs.running.Costs`)."""
    facts: dict[str, Any] = field(default_factory=dict)
    """Options, and who augmented."""

    def add(self, unit: str, score: Score) -> None:
        """Enter a unit's scores."""
        self.scores[unit], self.counts[unit] = score.metrics, score.counts


@dataclass(frozen=True)
class LayerResult:
    """One layer."""

    layer: int
    site: str
    n_features: int
    counts: Mapping[str, int]
    """`examined` and why units were passed over; the rest are `units`."""
    units: tuple[str, ...]
    systems: tuple[System, ...]

    def system(self, name: str) -> System:
        """The system called `name`."""
        return next(system for system in self.systems if system.name == name)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "LayerResult":
        """Inverse of `dataclasses.asdict`. Raises `KeyError`, `TypeError` or `AttributeError` if a field is amiss."""
        systems = [
            System(**{**s, "counts": {u: {t: Confusion(*n) for t, n in c.items()} for u, c in s["counts"].items()}})
            for s in value["systems"]
        ]
        return cls(**{**value, "units": tuple(value["units"]), "systems": tuple(systems)})

    @classmethod
    def load(cls, path: Path) -> "LayerResult":
        """Read what `asdict` gave. Raises `ArtefactError` if the file is missing, damaged or something else."""
        try:
            return cls.from_json(read_json(path))
        except (KeyError, TypeError, AttributeError) as error:
            raise ArtefactError(f"file {path}", "a whole layer of this version", repr(error)) from error


@dataclass(frozen=True)
class Versus:
    """F1 of one system against another's, unit by unit."""

    a: str
    b: str
    text: str
    cut: str
    """A layer, or `ALL`."""
    found: PairedComparison


@dataclass(frozen=True)
class LayersResult:
    """The whole report. A *cut* is a layer as a string, or `ALL` for the units of all layers together."""

    title: str
    """Of the basis, for people."""
    methods: tuple[str, ...]
    protocol: Mapping[str, Any]
    layers: tuple[LayerResult, ...]
    means: Mapping[str, Mapping[str, Mapping[str, Mapping[str, Summary]]]]
    """cut -> system -> text -> metric -> mean over units; `MICRO` is F1 of their counts added up."""
    versus: tuple[Versus, ...]
    """Each method against `RIVALS` and against the methods before it."""
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        title: str,
        methods: tuple[str, ...],
        protocol: Mapping[str, Any],
        layers: tuple[LayerResult, ...],
        provenance: Mapping[str, Any],
        *,
        seed: int,
    ) -> "LayersResult":
        """The report with the means and paired differences that follow from the layers; `seed` for the bootstrap."""
        names = [system.name for system in layers[0].systems]
        cuts = _cuts(layers)
        means = {cut: {n: {t: _means(some, n, t, seed) for t in TEXTS} for n in names} for cut, some in cuts.items()}
        pairs = [(a, b) for i, a in enumerate(methods) for b in (*RIVALS, *methods[:i])]
        versus = [
            Versus(
                a, b, text, cut, compare_paired(_values(some, a, text, "f1"), _values(some, b, text, "f1"), seed=seed)
            )
            for cut, some in cuts.items()
            for text in TEXTS
            for a, b in pairs
        ]
        return cls(title, methods, protocol, layers, means, tuple(versus), provenance)

    @property
    def names(self) -> tuple[str, ...]:
        """Systems in the order of the tables: methods, then tables of counts."""
        return (*self.methods, *(s.name for s in self.layers[0].systems if s.name not in self.methods))

    def save(self, path: Path) -> None:
        """Write as JSON (docs/formats.md)."""
        write_json(path, {"format": FORMAT, "version": VERSION, **asdict(self)})

    @classmethod
    def load(cls, path: Path) -> "LayersResult":
        """Inverse of `save`. Raises `ArtefactError` if the file is missing, damaged or of another format."""
        value = read_format(path, FORMAT, VERSION)
        try:
            return cls(
                value["title"],
                tuple(value["methods"]),
                value["protocol"],
                tuple(LayerResult.from_json(layer) for layer in value["layers"]),
                {cut: _summaries(systems) for cut, systems in value["means"].items()},
                tuple(_versus_from_json(one) for one in value["versus"]),
                value["provenance"],
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ArtefactError(f"file {path}", "a whole report on layers", repr(error)) from error


def _cuts(layers: tuple[LayerResult, ...]) -> dict[str, tuple[LayerResult, ...]]:
    """Each layer by itself, then, if there are several, all together."""
    single = {str(layer.layer): (layer,) for layer in layers}
    return {**single, ALL: layers} if len(layers) > 1 else dict(single)


def _values(layers: Sequence[LayerResult], name: str, text: str, metric: str) -> list[float | None]:
    """The metric of every unit of `layers`, in the same order for every system."""
    return [layer.system(name).scores[unit][text][metric] for layer in layers for unit in layer.units]


def _means(layers: Sequence[LayerResult], name: str, text: str, seed: int) -> dict[str, Summary]:
    counts = [layer.system(name).counts[unit][text] for layer in layers for unit in layer.units]
    averages = summarise_counts(counts, seed=seed)
    graded = {metric: summarise(_values(layers, name, text, metric), seed=seed) for metric in GRADED}
    return {**{metric: averages[metric].macro for metric in METRICS}, **graded, MICRO: averages["f1"].micro}


def _summaries(systems: dict[str, Any]) -> dict[str, dict[str, dict[str, Summary]]]:
    return {
        name: {text: {metric: Summary(**found) for metric, found in metrics.items()} for text, metrics in texts.items()}
        for name, texts in systems.items()
    }


def _versus_from_json(value: dict[str, Any]) -> Versus:
    found = {**value["found"], "difference": Summary(**value["found"]["difference"])}
    return Versus(**{**value, "found": PairedComparison(**found)})
