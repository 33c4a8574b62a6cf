"""What an import found, as plain values: `results.json`, which a store reads, and a page of Markdown.

Fields that a comparison has too are named as there (`comparison/results.py`). Texts are `held_out`, the unit's texts
that its graph does not know, and `random`, all of a text of the user's choice, where one was given.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from saelens_n2g.comparison.explain import means
from saelens_n2g.comparison.scores import Score
from saelens_n2g.graphs.structure import Core, Structure, StructureSummary
from saelens_n2g.graphs.structure import summarise as summarise_structures
from saelens_n2g.imports.config import FORMAT, VERSION
from saelens_n2g.markdown import grid
from saelens_n2g.scoring import Confusion, Summary, summarise

EXPLAINERS = ("graph", "token_table", "backoff_table")


@dataclass(frozen=True)
class ImportedUnit:
    """One explained unit."""

    index: int
    name: str
    max_activation: float
    """Over the texts the graph was fitted to."""
    published_max: float | None
    """Over the publisher's corpus, where stated."""
    fit_firing: int
    """Firing tokens in the texts the graph was fitted to."""
    test_firing: int
    """Firing tokens in the held-out texts."""
    density: float | None
    """Share of the tokens of the `random` text on which the unit fires; None without one."""
    active: float | None
    """Share of them on which it is above zero."""
    nodes: int
    paths: int
    context_paths: int
    structure: Structure
    graph_file: str
    svg_file: str
    text: str
    """One line per path."""
    scores: Mapping[str, Mapping[str, Mapping[str, float | None]]]
    """explainer -> text -> metric -> value."""
    counts: Mapping[str, Mapping[str, Confusion]]
    agreement: Mapping[str, float | None]
    """Published activations beside the model's (`agreement.Agreement`)."""
    texts: Mapping[str, int]
    """What became of the published texts (`choice.COUNTS`)."""

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "ImportedUnit":
        """Inverse of `dataclasses.asdict`. Raises `KeyError` or `TypeError` if a field is amiss."""
        shape = value["structure"]
        cores = tuple(Core(*core) for core in shape["cores"])
        counts = {e: {t: Confusion(*n) for t, n in texts.items()} for e, texts in value["counts"].items()}
        return cls(**{**value, "structure": Structure(**{**shape, "cores": cores}), "counts": counts})


@dataclass(frozen=True)
class ImportedBasis:
    """The units of one layer."""

    name: str
    title: str
    site: str
    source: str
    """What they are units of, in the publisher's words; empty where nothing is said."""
    signs: str
    n_features: int
    counts: Mapping[str, int]
    """`examined`, `explained`, `failed`; and of their texts the sums of `ImportedUnit.texts`."""
    failures: Mapping[str, str]
    """Unit name -> one-line reason."""
    summary: Mapping[str, Mapping[str, Mapping[str, Summary]]]
    micro: Mapping[str, Mapping[str, Mapping[str, Summary]]]
    share_f1_half: Mapping[str, Mapping[str, Summary]]
    graph_nodes: Summary
    graph_paths: Summary
    structure: StructureSummary
    facts: Mapping[str, Any]
    units: tuple[ImportedUnit, ...]


@dataclass(frozen=True)
class ImportResult:
    """The whole import."""

    bases: tuple[ImportedBasis, ...]
    """One for each layer."""
    protocol: Mapping[str, Any]
    files: tuple[Mapping[str, Any], ...]
    """`gather.FileFacts` of every file."""
    dictionary: Mapping[str, Any]
    """SHA-256 of the dictionary's files; empty for neurons."""
    provenance: Mapping[str, Any]

    def as_json(self) -> dict[str, Any]:
        """What `results.json` holds."""
        return {"format": FORMAT, "version": VERSION, **asdict(self)}


def basis_of(units: Sequence[ImportedUnit], texts: Sequence[str], seed: int, **fields: Any) -> ImportedBasis:
    """The units of a layer with what follows from them. texts: on which they are scored."""
    scores = [{e: Score(dict(unit.scores[e]), dict(unit.counts[e])) for e in EXPLAINERS} for unit in units]  # type: ignore[arg-type]  # read-only views of the same
    return ImportedBasis(
        **fields,
        **means(scores, seed, EXPLAINERS, texts),
        graph_nodes=summarise([unit.nodes for unit in units], seed=seed),
        graph_paths=summarise([unit.paths for unit in units], seed=seed),
        structure=summarise_structures(unit.structure for unit in units),
        units=tuple(units),
    )


def markdown(result: ImportResult) -> str:
    """The import in words and tables."""
    lines = [f"# Imported units of {result.provenance['subject']['model']}", ""]
    read = [one for one in result.files if one["format"] is not None]
    lines += [
        grid(
            ("File", "Format", "Records", "Texts", "SHA-256"),
            [[f["name"], f["format"], str(f["records"]), str(f["texts"]), f["sha256"][:12]] for f in read],
            2,
        ),
        "",
        f"{len(result.files) - len(read)} other files were passed over.",
        "",
    ]
    for basis in result.bases:
        lines += _layer(basis)
    return "\n".join(lines).rstrip() + "\n"


def _layer(basis: ImportedBasis) -> list[str]:
    n = basis.counts
    lines = [
        f"## {basis.title}, {basis.site}" + (f" ({basis.source})" if basis.source else ""),
        "",
        f"{n['explained']} of {n['examined']} units have a graph. Of {n['texts']} texts {n['exact']} were aligned "
        f"exactly, {n['characters']} by characters, {n['misaligned']} not at all; {n['too_long']} were too long, "
        f"{n['silent']} silent, {n['duplicates']} near-duplicates, {n['beyond']} more than was wanted; {n['fit']} were "
        f"fitted to, {n['test']} held out.",
        "",
    ]
    texts = list(basis.summary["graph"])
    head = ("Unit", "Correlation with the model", *(f"{e}, F1 {t}" for t in texts for e in EXPLAINERS))
    means_ = [_number(basis.summary[e][t]["f1"].mean) for t in texts for e in EXPLAINERS]
    rows = [
        [
            u.name,
            _number(u.agreement["correlation"]),
            *(_number(u.scores[e][t]["f1"]) for t in texts for e in EXPLAINERS),
        ]
        for u in basis.units
    ]
    lines += [grid(head, [["mean", "", *means_], *rows]), ""]
    if basis.failures:
        lines += [grid(("Unit without graph", "Reason"), [[k, v] for k, v in sorted(basis.failures.items())], 2), ""]
    return lines


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
