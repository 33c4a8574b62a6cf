"""The road from files of published exemplars to a run's folder that a store collects.

Units are explained in parts, so that a run that was interrupted goes on with the next part. The report comes last.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path

from saelens_n2g.graphs.methods import find_method
from saelens_n2g.imports.config import ImportConfig
from saelens_n2g.imports.explain import PARTS, explained
from saelens_n2g.imports.gather import Gathered, gather, listed
from saelens_n2g.imports.prepare import prepare
from saelens_n2g.imports.results import ImportedBasis, ImportResult, markdown
from saelens_n2g.imports.space import Space
from saelens_n2g.jobs.artefacts import claim, finished_before, publishing, remove_folder, write_json, write_text
from saelens_n2g.progress import Reporter


def import_units(paths: Sequence[Path], config: ImportConfig, folder: Path, reporter: Reporter) -> Path:
    """Read, align, check, fit, score; returns the report's folder, where `results.json` and `import.md` lie.

    Raises `InputError` for files of no known format, units that the model does not have, and exemplars that the model
    does not agree with; `ArtefactError` for damaged files, those of an earlier run included.
    """
    with reporter.stage("look at files"):
        files = listed(paths)
    key, report = config.key([facts for _, facts in files]), folder / "report"
    if finished_before(report, key, "report", reporter.note):
        return report
    with reporter.stage("read exemplars", "files") as tick:
        found = gather(files, layer=config.layer, indices=frozenset(config.indices), units=config.units, report=tick)
    _tell(found, reporter)
    space = Space(config, folder, reporter, found.files)
    layers = prepare(space, found)
    claim(folder / PARTS, key)
    bases = [explained(space, one, key) for one in layers]
    with reporter.stage("report"):
        _write(space, bases, found, report, key)
    remove_folder(folder / PARTS)
    space.discard_activations()
    return report


def _tell(found: Gathered, reporter: Reporter) -> None:
    if others := [one.name for one in found.files if one.format is None]:
        reporter.note(f"{len(others)} files hold no exemplars and are passed over: {', '.join(others[:3])}")
    if found.passed:
        reporter.note(f"units of {found.passed} further indices are passed over, as many as asked for are there")
    if models := {unit.model for unit in found.units.values() if unit.model is not None}:
        reporter.note(f"published for model {', '.join(sorted(models))}")


def _write(space: Space, bases: Sequence[ImportedBasis], found: Gathered, folder: Path, key: str) -> None:
    config = space.imported
    result = ImportResult(
        bases=tuple(bases),
        protocol={
            "firing_threshold": config.run.rule.threshold,
            "exemplars": config.run.exemplars,
            "test_share": config.test_share,
            "checked": not config.unchecked,
            "reads": [name for name in find_method(config.run.method).reads if name != "text"],
            "method": {"name": config.run.method, **config.run.as_json()["options"]},
            "held_out": "published texts that the graph does not know, near-duplicates left out",
            "random": "all windows of the text given" if config.scored else None,
        },
        files=tuple(one._asdict() for one in found.files),
        dictionary=space.dictionary_files(),
        provenance=space.provenance(),
    )
    with publishing(folder, {"key": key}) as work:
        for part in sorted((space.folder / PARTS).glob("*")):
            for name in ("graphs", "exemplars", "logits"):
                if (part / name).is_dir():
                    shutil.copytree(part / name, work / name, dirs_exist_ok=True)
        write_json(work / "results.json", result.as_json())
        write_text(work / "import.md", markdown(result))
