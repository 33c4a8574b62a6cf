"""The road of a study, in stages that are whole or absent; interrupted, it goes on where it stopped.

    out/text/            token windows               out/layers/NN/BASIS/   a cell: cell.json, graphs/
    out/activations/     removed at the end          out/report/            results.json, study.md, index.html, figures
    out/dictionaries/    what was trained            out/stages/            what is finished, for which settings

The subject reads the text once, up to the deepest layer; dictionaries are trained on that.
"""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from saelens_n2g.bases.foreign import load_dictionary
from saelens_n2g.bases.sae import sae_basis
from saelens_n2g.comparison.units import rule_as_json
from saelens_n2g.comparison.workspace import Workspace
from saelens_n2g.errors import ArtefactError
from saelens_n2g.graphs.methods import find_method
from saelens_n2g.jobs.artefacts import committed, finished_before, publishing, require, write_json, write_text
from saelens_n2g.progress import Reporter
from saelens_n2g.study.cell import explain_cell
from saelens_n2g.study.config import StudyConfig
from saelens_n2g.study.dictionaries import described, place_of, train_all, trained
from saelens_n2g.study.records import Cell
from saelens_n2g.study.results import StudyResult

REPORT = "report"


def run_study(config: StudyConfig, folder: Path, reporter: Reporter) -> StudyResult:
    """Do whatever is not done yet in `folder` and return the results; `folder/report` shows them.

    Raises `InputError` for settings that cannot be, `ArtefactError` for damaged files of an earlier run.
    """
    report = folder / REPORT
    if finished_before(report, config.report_key(), "report", reporter.note):
        return StudyResult.load(report / "results.json")
    workspace = Workspace(config.at(max(config.layers), config.names[0]), folder, reporter)
    cells = [(layer, name) for layer in config.layers for name in config.names]
    if any(not _finished(config, folder, *at) for at in cells) or not trained(config, folder):
        _prepare(workspace, config)
    found = tuple(cell for layer in config.layers for cell in _layer(workspace, config, layer))
    with reporter.stage("report"):
        result = StudyResult(
            cells=found,
            protocol=_protocol(config),
            dictionaries=_described(config, folder),
            provenance=_provenance(workspace, config),
        )
        write_report(result, report, config.report_key())
    workspace.discard_activations()
    return result


def write_report(result: StudyResult, folder: Path, key: str) -> None:
    """Publish data, tables, figures and page as one folder."""
    from saelens_n2g.study.figure import draw
    from saelens_n2g.study.page import write_page
    from saelens_n2g.study.table import markdown

    with publishing(folder, {"key": key}) as work:
        result.save(work / "results.json")
        write_text(work / "study.md", markdown(result))
        names = draw(result, work)
        write_page(result, work, names)


def _prepare(workspace: Workspace, config: StudyConfig) -> None:
    """Refuse what cannot be, let the subject read the text, train the dictionaries."""
    subject = workspace.subject
    plain = [name for name in config.names if name not in config.dictionaries]
    for layer in config.layers:
        for name in config.names:
            site = subject.check(config.at(layer, name).site("neurons" if name == "neurons" else "sae"))
            if isinstance(config.dictionaries.get(name), str):
                sae_basis(site, load_dictionary(Path(str(place_of(config, workspace.folder, layer, name)))))
    workspace.load("windows")
    stream = next((name for name in config.names if name != "neurons"), "random")  # also where nobody is a unit of it
    kinds = [*plain[: "neurons" in plain], stream]
    workspace.store_for([config.at(layer, name) for layer in config.layers for name in kinds])
    workspace.load("texts")
    if not trained(config, workspace.folder):
        train_all(workspace, config)


def _place(folder: Path, layer: int, name: str) -> Path:
    return folder / "layers" / f"{layer:02d}" / name


def _finished(config: StudyConfig, folder: Path, layer: int, name: str) -> bool:
    return committed(_place(folder, layer, name)) == {"key": config.key(layer, name)}


def _layer(workspace: Workspace, config: StudyConfig, layer: int) -> list[Cell]:
    """The cells of one layer: from disk what is finished, the rest now."""
    at, found = workspace.under(config.at(layer, config.names[0])), []
    for name in config.names:
        place = _place(workspace.folder, layer, name)
        if not _finished(config, workspace.folder, layer, name):
            at.load("stream", "vocabulary", "final_streams", *(["neurons"] if name == "neurons" else []))
            own = at.under(config.at(layer, name))
            dictionary = place_of(config, workspace.folder, layer, name)
            stage = workspace.reporter.stage(f"layer {layer}: {name}", "fits")
            with stage as tick, publishing(place, {"key": config.key(layer, name)}) as work:
                write_json(work / "cell.json", asdict(explain_cell(own, config, name, dictionary, work, tick)))
        require(place, "cell of a study")
        found.append(Cell.load(place / "cell.json"))
        if (found[-1].layer, found[-1].basis) != (layer, name):
            other = f"layer {found[-1].layer}, {found[-1].basis}"
            raise ArtefactError(f"folder {place}", f"layer {layer}, {name}", other)
    return found


def _described(config: StudyConfig, folder: Path) -> dict[str, dict[str, Any]]:
    """Per dictionary and layer what it says of itself."""
    out: dict[str, dict[str, Any]] = {}
    for name in config.dictionaries:
        places = {layer: place_of(config, folder, layer, name) for layer in config.layers}
        out[name] = {str(layer): described(place) for layer, place in places.items() if place is not None}
    return out


def _protocol(config: StudyConfig) -> dict[str, Any]:
    run, own = config.run, config.as_json()
    return {
        **rule_as_json(run.rule),
        **{k: own[k] for k in ("layers", "caliper", "exemplar_caliper", "twin", "fragment", "fragments", "uniform")},
        "nonzero": config.nonzero,
        "names": list(config.names),
        "exemplars": run.exemplars,
        "window": run.text.width,
        "method": {"name": run.method, **own["run"]["options"]},
        "reads": list(find_method(run.method).reads),
        "bootstrap_seed": run.seed,
    }


def _provenance(workspace: Workspace, config: StudyConfig) -> dict[str, Any]:
    return {**workspace.provenance(), "config": config.as_json()}
