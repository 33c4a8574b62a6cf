"""What a comparison of bases found, as plain values: written to `results.json`, read by tables, figure and page.

Names used throughout: an *explainer* is `graph`, `token_table`, `backoff_table`, `backoff_table_corpus`; a *text* is
`held_out` (the unit's top windows of the test documents, the protocol of Foote et al.) or `random` (all windows of
the test documents, the population); a *metric* is one of `METRICS` or `GRADED`.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from saelens_n2g.errors import ArtefactError
from saelens_n2g.graphs.structure import Core, Structure, StructureSummary
from saelens_n2g.jobs.artefacts import read_json, write_json
from saelens_n2g.scoring import Confusion
from saelens_n2g.scoring import Summary as Summary

FORMAT, VERSION = "saelens-n2g/comparison", 3
EXPLAINERS = ("graph", "token_table", "backoff_table", "backoff_table_corpus")
TEXTS = ("held_out", "random")
METRICS = ("precision", "recall", "f1", "quiet_precision", "quiet_recall", "quiet_f1")
"""Of firing tokens; the `quiet_` three are of non-firing tokens."""
GRADED = ("auprc", "correlation")
"""Metrics that need no threshold on the prediction: `saelens_n2g.scoring.GradedScores`."""


@dataclass(frozen=True)
class UnitResult:
    """One explained unit."""

    index: int
    """Column of the basis."""
    name: str
    max_activation: float
    fit_firing: int
    """Firing tokens in the fit text."""
    test_firing: int
    density: float
    """Share of the fit tokens on which the unit fires (activation >= half its maximum)."""
    active: float
    """Share of the fit tokens on which the feature is above zero."""
    nodes: int
    paths: int
    context_paths: int
    """Paths that need a token before the activating one."""
    structure: Structure
    """Sub-graphs and core tokens of the graph: how many behaviours it shows."""
    graph_file: str
    """Path of the graph's JSON, relative to the report folder."""
    svg_file: str
    text: str
    """`Graph.to_text()`: one line per path."""
    scores: Mapping[str, Mapping[str, Mapping[str, float | None]]]
    """explainer -> text -> metric -> value; None where the metric is undefined (precision with no prediction)."""
    counts: Mapping[str, Mapping[str, Confusion]]
    """explainer -> text -> the token counts behind the metrics, for means over tokens."""
    exemplars: tuple[Mapping[str, Any], ...]
    """Held-out windows to look at: `tokens` (strings), `activations` (fractions of the maximum), `predicted`."""


@dataclass(frozen=True)
class BasisResult:
    """All of one basis: who was examined, who was explained, how well."""

    name: str
    title: str
    """For people, e.g. `MLP neurons`."""
    site: str
    signs: str
    """How negative values were dealt with."""
    n_features: int
    counts: Mapping[str, int]
    """`examined` and where they went: `explained`, `dead`, `rare`, `dense`, `silent_in_test`,
    `failed`; the parts add up."""
    failures: Mapping[str, str]
    """Unit name -> one-line reason, for the `failed`."""
    summary: Mapping[str, Mapping[str, Mapping[str, Summary]]]
    """explainer -> text -> metric -> Summary: the mean over units."""
    micro: Mapping[str, Mapping[str, Mapping[str, Summary]]]
    """explainer -> text -> metric of `METRICS` -> Summary: the metric of all units' counts added up."""
    share_f1_half: Mapping[str, Mapping[str, Summary]]
    """explainer -> text -> share of units with F1 >= 0.5."""
    graph_nodes: Summary
    graph_paths: Summary
    structure: StructureSummary
    """The units' `structure` in numbers."""
    facts: Mapping[str, Any]
    """How the basis was made, e.g. rows, iterations and convergence of ICA."""
    units: tuple[UnitResult, ...]


@dataclass(frozen=True)
class ComparisonResult:
    """The whole report."""

    bases: tuple[BasisResult, ...]
    protocol: Mapping[str, Any]
    """Thresholds, windows, units per basis, eligibility rule in words, seed."""
    dictionary: Mapping[str, Any]
    """The trained SAE: d_in, d_sae, alpha, fvu, l0, dead features, samples; empty if none was compared."""
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        """Write as JSON (docs/formats.md)."""
        write_json(path, {"format": FORMAT, "version": VERSION, **asdict(self)})

    @classmethod
    def load(cls, path: Path) -> "ComparisonResult":
        """Inverse of `save`. Raises `ArtefactError` if the file is missing, damaged or of another format."""
        value = read_json(path)
        if not isinstance(value, dict) or value.get("format") != FORMAT or value.get("version") != VERSION:
            found = (
                {k: value.get(k) for k in ("format", "version")} if isinstance(value, dict) else type(value).__name__
            )
            raise ArtefactError(f"file {path}", f"format {FORMAT!r}, version {VERSION}", str(found))
        try:
            return cls(
                tuple(basis_from_json(b) for b in value["bases"]),
                value["protocol"],
                value["dictionary"],
                value["provenance"],
            )
        except (KeyError, TypeError) as error:
            raise ArtefactError(f"file {path}", "a whole comparison", repr(error)) from error


def basis_from_json(value: dict[str, Any]) -> BasisResult:
    """Inverse of `dataclasses.asdict` on a `BasisResult`. Raises `KeyError` or `TypeError` if a field is amiss."""
    units = tuple(
        UnitResult(
            **{
                **u,
                "structure": _structure(u["structure"]),
                "exemplars": tuple(u["exemplars"]),
                "counts": {e: {t: Confusion(*n) for t, n in texts.items()} for e, texts in u["counts"].items()},
            }
        )
        for u in value["units"]
    )
    share = {e: {t: Summary(**s) for t, s in texts.items()} for e, texts in value["share_f1_half"].items()}
    sizes = {k: Summary(**value[k]) for k in ("graph_nodes", "graph_paths")}
    means = {name: _means(value[name]) for name in ("summary", "micro")}
    shape = {"structure": _structure_summary(value["structure"])}
    return BasisResult(**{**value, "units": units, "share_f1_half": share, **sizes, **shape, **means})


def _structure(value: dict[str, Any]) -> Structure:
    return Structure(**{**value, "cores": tuple(Core(*core) for core in value["cores"])})


def _structure_summary(value: dict[str, Any]) -> StructureSummary:
    pairs = {name: tuple((int(n), int(units)) for n, units in value[name]) for name in ("subgraphs", "words")}
    return StructureSummary(**{**value, **pairs})


def _means(value: dict[str, Any]) -> dict[str, dict[str, dict[str, Summary]]]:
    return {
        e: {t: {m: Summary(**s) for m, s in metrics.items()} for t, metrics in texts.items()}
        for e, texts in value.items()
    }
