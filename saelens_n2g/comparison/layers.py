"""Layers: how well several methods explain units of one basis, layer by layer (Foote et al. 2023, table 1).

    result = run_layers(LayersConfig(layers=(0, 1, 2), methods=("paper", "refined")), Path("runs/layers"), reporter)

All methods and the tables of counts are fitted to and scored on the same units of a layer, chosen by the comparison's
rule. Each (layer, method) is a folder that is whole or absent, so an interrupted run goes on, and a further method
leaves the others as they are. The subject reads the text once, up to the deepest layer.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from saelens_n2g.bases.base import Basis
from saelens_n2g.bases.foreign import load_dictionary
from saelens_n2g.bases.registry import basis_kind
from saelens_n2g.bases.sae import sae_basis
from saelens_n2g.comparison.config import BASES, RunConfig
from saelens_n2g.comparison.explain import Ended
from saelens_n2g.comparison.fitting import Fitter
from saelens_n2g.comparison.layer_results import VERSION, LayerResult, LayersResult, System
from saelens_n2g.comparison.results import EXPLAINERS
from saelens_n2g.comparison.selection import Unit, build, unit_groups
from saelens_n2g.comparison.units import UnitChoice, rule_as_json
from saelens_n2g.comparison.workspace import Workspace
from saelens_n2g.errors import ArtefactError, InputError, N2GError
from saelens_n2g.graphs.graph import Graph
from saelens_n2g.graphs.methods import find_method
from saelens_n2g.jobs.artefacts import (
    committed,
    fingerprint,
    finished_before,
    publishing,
    require,
    write_json,
    write_text,
)
from saelens_n2g.progress import Reporter
from saelens_n2g.sites import Site

TABLES = "tables"
"""The part of a layer that holds the tables of counts; the others are called after their method."""
REPORT = "report"
Tick = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class LayersConfig:
    """Every choice of a run over layers."""

    run: RunConfig = field(default_factory=RunConfig)
    """Model, text, rule of units, exemplars, seed. Its layer, bases and method are not read. In the folder of a
    dictionary `{layer}` stands for the layer."""
    layers: tuple[int, ...] = (0, 1, 2, 3, 4, 5)
    """Which layers, in the order of the table."""
    basis: str = "neurons"
    """Whose units."""
    methods: tuple[str, ...] = ("paper", "suffix", "refined")
    """Which methods, in the order of the table."""

    def __post_init__(self) -> None:
        if not self.layers or len(set(self.layers)) < len(self.layers):
            raise InputError("option layers", "layers, each once", str(self.layers))
        if not self.methods or len(set(self.methods)) < len(self.methods):
            raise InputError("option methods", "methods, each once", str(self.methods))
        if self.basis not in BASES:
            raise InputError("option basis", f"one of {', '.join(BASES)}", repr(self.basis))
        if self.run.options is not None:
            raise InputError("options of methods", "none: every method has its defaults", str(self.run.options))
        folder = self.run.dictionary
        if self.basis == "sae" and (folder is None or ("{layer}" not in folder and len(self.layers) > 1)):
            raise InputError("option dictionary", "a folder for each layer, such as runs/sae-{layer}", repr(folder))
        for layer in self.layers:
            for method in self.methods:
                self.at(layer, method)

    def at(self, layer: int, method: str | None = None) -> RunConfig:
        """The settings of one layer, and of one method there. Raises `InputError` if there is no such method."""
        folder = self.run.dictionary
        return replace(
            self.run,
            layer=layer,
            bases=(self.basis,),
            method=find_method(self.methods[0] if method is None else method).name,
            dictionary=None if folder is None else folder.replace("{layer}", str(layer)),
        )

    def key(self, layer: int, part: str) -> str:
        """Fingerprint of what decides one part of one layer."""
        if part == TABLES:
            return fingerprint([VERSION, part, self.at(layer).key("units", self.basis)])
        return fingerprint([VERSION, part, self.at(layer, part).key("explain", self.basis)])

    @property
    def parts(self) -> tuple[str, ...]:
        """What is done for each layer."""
        return (TABLES, *self.methods)

    def report_key(self) -> str:
        """Fingerprint of what decides the report."""
        return fingerprint([self.key(layer, part) for layer in self.layers for part in self.parts])


def run_layers(config: LayersConfig, folder: Path, reporter: Reporter) -> LayersResult:
    """Do whatever is not done yet in `folder` and return the figures; `folder/report` holds them.

    `report/` holds `layers.json` (data), `layers.md` (table), `layers.png` and `layers.svg` (figure). Raises
    `InputError` for settings that cannot be, `ArtefactError` for damaged files of an earlier run.
    """
    report = folder / REPORT
    if finished_before(report, config.report_key(), "report", reporter.note):
        return LayersResult.load(report / "layers.json")
    workspace = Workspace(config.at(max(config.layers)), folder, reporter)
    pending = [layer for layer in config.layers if any(not _finished(config, folder, layer, p) for p in config.parts)]
    if pending:
        for layer in config.layers:  # refused now and not after an hour's work
            workspace.subject.check(config.at(layer).site(config.basis))
            if config.basis == "sae":
                sae_basis(Site(layer, config.run.stream), load_dictionary(Path(str(config.at(layer).dictionary))))
        workspace.load("windows")
        workspace.store_for([config.at(layer) for layer in config.layers])
        workspace.load("texts")
    layers = tuple(_layer(workspace, config, layer) for layer in config.layers)
    with reporter.stage("report"):
        result = LayersResult.of(
            basis_kind(config.basis).title,
            config.methods,
            _protocol(config, layers),
            layers,
            _provenance(workspace, config),
            seed=config.run.seed,
        )
        write_report(result, report, config.report_key())
    workspace.discard_activations()
    return result


def write_report(result: LayersResult, folder: Path, key: str) -> None:
    """Publish data, table and figure as one folder."""
    from saelens_n2g.comparison.layer_figure import draw
    from saelens_n2g.comparison.layer_table import markdown

    with publishing(folder, {"key": key}) as work:
        result.save(work / "layers.json")
        write_text(work / "layers.md", markdown(result))
        draw(result, work)


def _place(config: LayersConfig, folder: Path, layer: int, part: str) -> Path:
    return folder / "layers" / f"{layer:02d}-{config.basis}" / part


def _finished(config: LayersConfig, folder: Path, layer: int, part: str) -> bool:
    return committed(_place(config, folder, layer, part)) == {"key": config.key(layer, part)}


def _layer(workspace: Workspace, config: LayersConfig, layer: int) -> LayerResult:
    """One layer with everything that is asked of it: from disk what is finished, the rest now."""
    at, basis = workspace.under(config.at(layer)), None
    found: list[LayerResult] = []
    for part in config.parts:
        place = _place(config, workspace.folder, layer, part)
        if not _finished(config, workspace.folder, layer, part):
            if basis is None:
                at.load("neurons" if config.basis == "neurons" else "stream")
                basis = build(at, config.basis)
            stage = workspace.reporter.stage(f"layer {layer}: {part}", "units")
            with stage as tick, publishing(place, {"key": config.key(layer, part)}) as work:
                method = None if part == TABLES else part
                done = explain_part(at.under(config.at(layer, method)), basis, method, work, tick)
                write_json(work / "layer.json", asdict(done))
        require(place, "explained layer")
        found.append(LayerResult.load(place / "layer.json"))
        if found[-1].units != found[0].units:
            raise ArtefactError(f"folder {place}", f"the units of {found[0].site} as its neighbours have", "others")
    return replace(found[0], systems=tuple(system for one in found for system in one.systems))


def explain_part(workspace: Workspace, basis: Basis, method: str | None, folder: Path, tick: Tick) -> LayerResult:
    """Fit and score one method, or without one the tables of counts, on the units of a layer.

    Graphs are written into `folder`. A unit that has none is scored as one that is predicted never to fire.
    """
    rule, texts = workspace.config.rule, workspace.texts
    choice, ended = UnitChoice(workspace.fit_tokens, rule), Ended(tick, rule.units)
    fitter = None if method is None else Fitter(workspace, basis)
    systems = {name: System(name) for name in (EXPLAINERS[1:] if method is None else (method,))}
    units: list[str] = []
    for group in unit_groups(workspace, basis, choice):
        units += [unit.name for unit in group]
        if fitter is None:
            for unit in group:
                for name, score in texts.tables(unit.observed(rule.threshold)).items():
                    systems[name].add(unit.name, score)
                ended(unit.index)
            continue
        graphs = fitter.fit(group, ended)
        for unit in group:
            _add_graph(systems[fitter.method.name], unit, graphs[unit.index], texts, rule.threshold, folder)
    if fitter is not None:
        systems[fitter.method.name].costs.update(asdict(fitter.costs))
        systems[fitter.method.name].facts.update(augmenter=fitter.augmenter, options=asdict(fitter.options))
    return LayerResult(
        layer=basis.site.layer,
        site=str(basis.site),
        n_features=basis.n_features,
        counts=dict(choice.counts),
        units=tuple(units),
        systems=tuple(systems.values()),
    )


def _add_graph(system: System, unit: Unit, graph: Graph | N2GError, texts: Any, threshold: float, folder: Path) -> None:
    if isinstance(graph, N2GError):
        system.failures[unit.name] = str(graph)
        graph = Graph(unit.name, unit.statistics.max_activation)
    else:
        write_json(folder / "graphs" / f"{unit.name.replace('/', '_')}.json", graph.to_dict())
        system.nodes[unit.name], system.paths[unit.name] = graph.n_nodes, graph.n_paths
    system.add(unit.name, texts.graph(unit.observed(threshold), graph))


def _protocol(config: LayersConfig, layers: tuple[LayerResult, ...]) -> dict[str, Any]:
    run = config.run
    return {
        **rule_as_json(run.rule),
        "firing_threshold": run.rule.threshold,
        "exemplars": run.exemplars,
        "window": run.text.width,
        "methods": {name: layers[0].system(name).facts["options"] for name in config.methods},
        "reads": {name: list(find_method(name).reads) for name in config.methods},
        "without_graph": "scored as a unit that is predicted never to fire",
    }


def _provenance(workspace: Workspace, config: LayersConfig) -> dict[str, Any]:
    known = workspace.provenance()
    asked = {"layers": list(config.layers), "basis": config.basis, "methods": list(config.methods)}
    return {**known, "config": {**config.run.as_json(), **asked}}
