"""The road from a model's name to a report, in stages that are done once.

A stage that has ended for the same settings is passed over, so a run that was interrupted goes on where it stopped,
inside the two long stages too: activations from the last finished shard, training from the last checkpoint.
"""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from saelens_n2g.bases.foreign import load_dictionary
from saelens_n2g.bases.sae import sae_basis
from saelens_n2g.comparison.config import RunConfig
from saelens_n2g.comparison.explain import explain_basis
from saelens_n2g.comparison.results import BasisResult, ComparisonResult, basis_from_json
from saelens_n2g.comparison.units import rule_as_json
from saelens_n2g.comparison.workspace import Workspace
from saelens_n2g.errors import ArtefactError
from saelens_n2g.graphs.methods import find_method
from saelens_n2g.jobs.artefacts import claim, publishing, read_json, require, write_text
from saelens_n2g.progress import Reporter
from saelens_n2g.sites import Site
from saelens_n2g.training.parallel import SINGLE, Group

REPORT = "report"


def compare(config: RunConfig, folder: Path, reporter: Reporter) -> ComparisonResult:
    """Do whatever is not done yet in `folder` and return the comparison; the report lies in `folder/report`.

    Raises `InputError` for settings that cannot be, `ArtefactError` for damaged files of an earlier run.
    """
    workspace = Workspace(config, folder, reporter)
    report = folder / REPORT
    if workspace.finished("report") and report.exists():
        require(report, "report")
        reporter.note(f"nothing to do: {report} is finished for these settings")
        return ComparisonResult.load(report / "results.json")
    if "sae" in config.bases:
        if config.dictionary is None:
            train_dictionary(workspace)
        else:  # refused now and not after an hour's work
            sae_basis(config.site("sae"), load_dictionary(Path(config.dictionary)))
    results = [explained(workspace, name) for name in config.bases]
    result = ComparisonResult(
        bases=tuple(results),
        protocol={**_protocol(workspace), "augmenter": _augmenter(results)},
        dictionary=_dictionary(workspace) if "sae" in config.bases else {},
        provenance=workspace.provenance(),
    )
    with reporter.stage("report"):
        write_report(result, workspace, report)
    workspace.finish("report")
    workspace.discard_activations()
    return result


def train_dictionary(workspace: Workspace, group: Group = SINGLE) -> Path:
    """The run's dictionary in SAELens format, trained now if it is not there yet; returns its folder.

    group: processes that train it together. The first reads the text and runs the model before the others, which find
    both on disk.
    """
    from saelens_n2g.training import train
    from saelens_n2g.training.evaluation import JUDGED, judge_on, spread

    config, folder = workspace.config, workspace.folder / "dictionary"
    with group.writer_first():
        if workspace.finished("dictionary"):
            require(folder / "sae", "dictionary")
            return folder / "sae"
        if group.is_writer:
            claim(folder, config.key("dictionary"))
        fit = torch.from_numpy(workspace.fit_tokens)
        stream = workspace.stream
    site, device = Site(config.layer, config.stream), group.named(workspace.subject.device)
    seen = spread(workspace.windows.subset(workspace.split[1]), JUDGED)
    with workspace.reporter.stage(f"dictionary on {site}", "steps") as tick:
        result = train(
            replace(config.training, device=device),
            stream[fit],
            folder,
            metadata=workspace.metadata(site),
            test_rows=stream[~fit],
            on_step=lambda step, total, _line: tick(step, total),
            report=workspace.reporter.note,
            judge=judge_on(workspace.subject, seen, workspace.reporter.note),
            group=group,
        )
    if group.is_writer:
        workspace.finish("dictionary")
    return result.folder


def explained(workspace: Workspace, name: str) -> BasisResult:
    """Units of one basis, explained and scored; from disk if that was done before."""
    folder = workspace.folder / "bases" / name
    if workspace.finished("explain", name):
        require(folder, "explained basis")
        return _stored(folder / "basis.json")
    workspace.load("store")  # under a bar of its own, before this one opens
    stage = workspace.reporter.stage(f"explain {name}", "units")
    with stage as tick, publishing(folder, {"key": workspace.config.key("explain", name)}) as work:
        result = explain_basis(workspace, name, work, tick)
    workspace.finish("explain", name)
    return result


def _stored(path: Path) -> BasisResult:
    try:
        return basis_from_json(read_json(path))
    except (KeyError, TypeError) as error:
        raise ArtefactError(f"file {path}", "a whole basis result of this version", str(error)) from error


def write_report(result: ComparisonResult, workspace: Workspace, folder: Path) -> None:
    """Publish results, table, figure, page and what there is of each unit as one folder."""
    from saelens_n2g.comparison.figure import draw
    from saelens_n2g.comparison.page import write_page
    from saelens_n2g.comparison.table import markdown

    with publishing(folder, {"key": workspace.config.key("report")}) as work:
        for basis in result.bases:
            for part in ("graphs", "exemplars", "logits"):
                source = workspace.folder / "bases" / basis.name / part
                if source.is_dir():
                    shutil.copytree(source, work / part, dirs_exist_ok=True)
        result.save(work / "results.json")
        write_text(work / "comparison.md", markdown(result))
        draw(result, work)
        write_page(result, work)


def _augmenter(results: list[BasisResult]) -> str | None:
    """Who augmented, read from the bases as they were explained; per basis where that was not the same for all."""
    names = {basis.name: basis.facts["augmenter"] for basis in results}
    if len(set(names.values())) == 1:
        return None if results[0].facts["augmenter"] is None else str(results[0].facts["augmenter"])
    return "; ".join(f"{basis}: {name}" for basis, name in names.items())


def _protocol(workspace: Workspace) -> dict[str, Any]:
    config = workspace.config
    return {
        **rule_as_json(config.rule),
        "firing_threshold": config.rule.threshold,
        "exemplars": config.exemplars,
        "window": config.text.width,
        "reads": list(find_method(config.method).reads),
        "method": {"name": config.method, **config.as_json()["options"]},
        "held_out": "top windows of the test documents, near-duplicates left out (after Foote et al. 2023, section 4)",
        "random": "all windows of the test documents",
    }


def _dictionary(workspace: Workspace) -> dict[str, Any]:
    """What is said of the dictionary in the report. A foreign one may know less of itself."""
    config = workspace.config
    folder = Path(config.dictionary) if config.dictionary else workspace.folder / "dictionary" / "sae"
    dictionary = load_dictionary(folder)
    out: dict[str, Any] = {"d_in": dictionary.d_in, "d_sae": dictionary.d_sae, "tied": dictionary.tied}
    if dictionary.architecture != "standard":
        out["architecture"] = dictionary.architecture
    test = dictionary.told("evaluation", "test")
    out |= {k: test[k] for k in ("fvu", "fvu_typical", "l0", "dead") if k in test}
    if training := dictionary.told("training"):
        out |= {"samples": dictionary.metadata.get("training_samples"), "alpha": training.get("alpha")}
    return out
