"""What the package leaves in folders, read for a store: comparisons, studies and imports.

    for part in parts(Path("runs/demo")):     # a basis of a comparison, a cell of a study
        part.load(3)                          # its fourth unit, with everything that is kept of it

A part is checked against its commit marker before a unit is read, so a damaged file is named at once.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from saelens_n2g.errors import ArtefactError, InputError, N2GError
from saelens_n2g.graphs.graph import Graph
from saelens_n2g.jobs.artefacts import COMMIT, fingerprint, read_json, require, sha256_of
from saelens_n2g.sites import Site
from saelens_n2g.store import services
from saelens_n2g.store.records import BasisFacts, LayerFacts, ModelFacts, UnitFacts

COMPARISON, STUDY, IMPORT = "saelens-n2g/comparison", "saelens-n2g/study", "saelens-n2g/import"
VERSIONS = {COMPARISON: 3, STUDY: 2, IMPORT: 1}
"""Formats that are read. Their rooms are not asked: reading them loads PyTorch, which nothing here needs."""
_HARDWARE = ("device", "dtype", "model", "n_layers")
"""What a subject says of itself beside what decides what its units are. Precision decides only rounding."""
_HOW = ("augmenter", "costs", "logits")
"""Facts of a basis that say how it was explained, not what it is."""
_DAMAGE = (KeyError, TypeError, ValueError, AttributeError, IndexError)
_Load = Callable[[int, int], UnitFacts]


@dataclass(frozen=True, eq=False)
class Part:
    """The units of one basis at one layer, out of one folder."""

    name: str
    """Of what was given, for people."""
    kind: str
    """`comparison`, `study` or `import`."""
    checksum: str
    model: ModelFacts
    basis: BasisFacts
    layer: LayerFacts
    provenance: Mapping[str, Any]
    total: int
    load: _Load
    """Unit by place and number of its source. Raises `ArtefactError` that names the file."""


def parts(folder: Path) -> list[Part]:
    """Everything in a run's folder. Raises `InputError` if it is none, `ArtefactError` if it is unfinished or
    damaged."""
    report = folder / "report"
    if not (folder / "layers").is_dir() and not (report / "results.json").is_file():
        raise InputError(
            f"run {folder}", "the folder of a finished comparison or study, or of an import", "none of them"
        )
    require(report, "report")
    path = report / "results.json"
    result = read_json(path)
    format_ = result.get("format") if isinstance(result, dict) else None
    if format_ not in VERSIONS or result.get("version") != VERSIONS[format_]:
        known = ", ".join(f"{name!r} version {version}" for name, version in VERSIONS.items())
        found = f"{format_!r} version {result.get('version')}" if isinstance(result, dict) else type(result).__name__
        raise ArtefactError(f"file {path}", known, found)
    try:
        return _study(folder, result) if format_ == STUDY else _comparison(folder, result, format_.partition("/")[2])
    except _DAMAGE as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> ArtefactError:
    return ArtefactError(f"file {path}", "whole results", f"{type(error).__name__}: {error}")


# --- comparisons and imports ---------------------------------------------------------------------------------------


def _comparison(folder: Path, result: Mapping[str, Any], kind: str) -> list[Part]:
    """The bases of a comparison; of an import, which has the same fields, one for each layer."""
    report = folder / "report"
    checksum, shared = sha256_of(report / COMMIT), result["provenance"]
    learnt = {name: shared["config"].get(name) for name in ("training", "dictionary", "seed")}
    imported = kind == "import"
    found = []
    for basis in result["bases"]:
        identity = [None if imported else learnt, result["dictionary"]]
        decided = {**shared, "corpus": None} if imported else shared  # nothing was learnt from published texts
        units = sorted(basis["units"], key=lambda unit: int(unit["index"]))
        more = {name: basis[name] for name in ("summary", "micro", "share_f1_half", "structure", "failures")}
        found.append(
            Part(
                name=folder.name,
                kind=kind,
                checksum=fingerprint([checksum, basis["name"], *([basis["site"]] if imported else [])]),
                model=_model(shared),
                basis=_basis(basis, basis["name"]),
                layer=_layer(basis, basis["name"], decided, identity, more),
                provenance={**shared, "protocol": result["protocol"], "dictionary": result["dictionary"]},
                total=len(units),
                load=_of_comparison(report, units, shared, basis),
            )
        )
    return found


def _of_comparison(
    report: Path, units: list[dict[str, Any]], shared: Mapping[str, Any], basis: Mapping[str, Any]
) -> _Load:
    layer = Site.parse(basis["site"]).layer

    def load(place: int, source: int) -> UnitFacts:
        unit, path = units[place], report / "results.json"
        try:
            path = report / unit["graph_file"]
            graph = _graph(path, unit["name"])
            bodies = _bodies(unit, graph, source, shared, path.with_suffix(".dot"), report / unit["svg_file"])
            path = report / "exemplars" / path.name
            bodies["neuroscope"] = _neuroscope(path, unit["name"], layer, graph)
            path = report / "logits" / path.name
            bodies |= _logits(path, unit["name"])
        except _DAMAGE as error:
            raise _damaged(path, error) from error
        return _facts(unit, graph, bodies)

    return load


# --- studies ------------------------------------------------------------------------------------------------------


def _study(folder: Path, result: Mapping[str, Any]) -> list[Part]:
    protocol, found = result["protocol"], []
    for layer in protocol["layers"]:
        for name in protocol["names"]:
            place = folder / "layers" / f"{layer:02d}" / name
            require(place, "cell of a study")
            try:
                found.append(_cell(folder.name, place, read_json(place / "cell.json"), result))
            except _DAMAGE as error:
                raise _damaged(place / "cell.json", error) from error
            if (found[-1].layer.layer, found[-1].basis.name) != (layer, name):
                raise ArtefactError(f"folder {place}", f"layer {layer}, {name}", "a cell of another place")
    return found


def _cell(run: str, place: Path, cell: Mapping[str, Any], result: Mapping[str, Any]) -> Part:
    shared, name, layer = result["provenance"], cell["basis"], int(cell["layer"])
    dictionary = result["dictionaries"].get(name, {}).get(str(layer))
    trained = shared["config"]["dictionaries"].get(name)
    units = sorted(cell["units"], key=lambda unit: int(unit["index"]))
    more = {key: cell[key] for key in ("twins", "massive_tokens", "massive_square")}

    def load(at: int, source: int) -> UnitFacts:
        unit, path = units[at], place / "cell.json"
        try:
            graph = None
            if unit["failure"] is None:
                path = place / "graphs" / f"{unit['name'].replace('/', '_')}.json"
                graph = _graph(path, unit["name"])
            bodies = _bodies(unit, graph, source, shared)
            path = place / "exemplars" / f"{unit['name'].replace('/', '_')}.json"
            if path.is_file():  # older studies kept none
                bodies["neuroscope"] = _neuroscope(path, unit["name"], layer, graph)
            path = place / "logits" / path.name
            bodies |= _logits(path, unit["name"])
        except _DAMAGE as error:
            raise _damaged(path, error) from error
        return _facts(unit, graph, bodies)

    return Part(
        name=run,
        kind="study",
        checksum=fingerprint([sha256_of(place / COMMIT), shared]),
        model=_model(shared),
        basis=_basis(cell, name),
        layer=_layer(cell, name, shared, [dictionary, trained, shared["config"]["run"]["seed"]], more),
        provenance={**shared, "protocol": result["protocol"], "dictionary": dictionary},
        total=len(units),
        load=load,
    )


# --- what both have -----------------------------------------------------------------------------------------------


def _model(shared: Mapping[str, Any]) -> ModelFacts:
    subject = shared["subject"]
    config = {name: value for name, value in subject.items() if name not in _HARDWARE}
    return ModelFacts(name=subject["model"], n_layers=int(subject["n_layers"]), config=config)


def _basis(value: Mapping[str, Any], name: str) -> BasisFacts:
    kind = Site.parse(value["site"]).kind
    return BasisFacts(name=name, kind=kind, title=value["title"], facts={"signs": value["signs"]})


def _layer(
    value: Mapping[str, Any], name: str, shared: Mapping[str, Any], learnt: Any, more: Mapping[str, Any]
) -> LayerFacts:
    """A layer. What its units are: of neurons the model decides it, of all else what they were learnt from, too."""
    facts = {key: fact for key, fact in value["facts"].items() if key not in _HOW}
    what = [value["site"], value["n_features"], *([] if name == "neurons" else [facts, shared["corpus"], learnt])]
    return LayerFacts(
        layer=Site.parse(value["site"]).layer,
        width=int(value["n_features"]),
        identity=fingerprint(what),
        provenance={"facts": facts},
        bodies={"statistics": {"title": value["title"], "counts": value["counts"], "facts": value["facts"], **more}},
    )


def _graph(path: Path, name: str) -> Graph:
    try:
        graph = Graph.from_dict(read_json(path))
    except N2GError as error:
        if isinstance(error, ArtefactError) and str(path) in error.thing:
            raise
        raise ArtefactError(f"file {path}", error.expected, error.found) from error
    if graph.unit != name:
        raise ArtefactError(f"file {path}", f"the graph of {name}", f"that of {graph.unit}")
    return graph


def _neuroscope(path: Path, unit: str, layer: int, graph: Graph | None) -> dict[str, Any]:
    """The texts of a unit, out of the file of its exemplars."""
    exemplars = read_json(path)
    if exemplars["unit"] != unit:
        raise ValueError(f"exemplars of {exemplars['unit']}, not of {unit}")
    return services.neuroscope(layer, exemplars, graph)


def _logits(path: Path, unit: str) -> dict[str, Any]:
    """The logit effects of a unit as a body, out of their file; none where there is none: older runs kept none, and of
    some models they are not known."""
    if not path.is_file():
        return {}
    value = read_json(path)
    if value["unit"] != unit:
        raise ValueError(f"logit effects of {value['unit']}, not of {unit}")
    return {"logits": services.logits(value)}


def _bodies(
    unit: Mapping[str, Any],
    graph: Graph | None,
    source: int,
    shared: Mapping[str, Any],
    dot: Path | None = None,
    svg: Path | None = None,
) -> dict[str, Any]:
    """What is kept of a unit beside its exemplars. Files that are given are read, else made."""
    skipped = ("exemplars", "text", "graph_file", "svg_file") if svg else ("text",)
    bodies: dict[str, Any] = {
        "statistics": services.statistics(unit, skipped),
        "provenance": services.provenance(graph, source, shared),
        "explanation": services.explanation(unit),
    }
    if graph is not None:
        bodies["neuron2graph"] = services.neuron2graph(graph, dot.read_text() if dot and dot.is_file() else None)
        bodies["drawing"] = services.drawing(svg.read_text() if svg and svg.is_file() else graph.to_svg())
    return bodies


def _facts(unit: Mapping[str, Any], graph: Graph | None, bodies: Mapping[str, Any]) -> UnitFacts:
    return UnitFacts(
        index=int(unit["index"]),
        figures=bodies["statistics"]["figures"],
        bodies=bodies,
        tokens={} if graph is None else services.tokens_of(graph),
        failure=unit.get("failure"),
    )
