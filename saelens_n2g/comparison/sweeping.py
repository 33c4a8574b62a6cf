"""A sweep of dictionaries in a run's workspace: its text and its split, the activations of several layers at once."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from saelens_n2g.bases.formats import SaeMetadata
from saelens_n2g.comparison.config import RunConfig
from saelens_n2g.comparison.workspace import Workspace
from saelens_n2g.errors import InputError
from saelens_n2g.jobs.artefacts import fingerprint, read_json, write_json
from saelens_n2g.progress import Reporter
from saelens_n2g.sites import Site
from saelens_n2g.training.config import TrainingConfig
from saelens_n2g.training.sweep import sweep, vary
from saelens_n2g.training.sweep_report import table_of


def run_sweep(
    config: RunConfig,
    base: TrainingConfig,
    settings: Mapping[str, Sequence[Any]],
    layers: Sequence[int],
    samples: int | None,
    folder: Path,
    reporter: Reporter,
) -> str:
    """Train all combinations of `settings` at all layers on the fit documents; the table as text.

    samples: activations to train on; None takes every token of the fit documents once, less what fills no batch.
    Raises `InputError` for settings that cannot be, and for a folder with a sweep of others.
    """
    if not layers:
        raise InputError("option layers", "at least one layer", "none")
    workspace = Workspace(config, folder, reporter)
    subject, windows = workspace.subject, workspace.windows
    sites = [Site(layer, config.stream) for layer in layers]
    for site in sites:
        subject.check(site)
    fit, test = (windows.subset(rows) for rows in workspace.split)
    base = replace(base, samples=samples or fit.n_tokens // base.batch * base.batch, device=str(subject.device))
    configs = vary(base, settings)
    _claim(
        folder, fingerprint([config.key("text"), {k: v.as_json() for k, v in configs.items()}, list(map(str, sites))])
    )

    def metadata(site: Site) -> SaeMetadata:
        return SaeMetadata(
            model_name=config.subject.model,
            hook_name=site.hook,
            context_size=config.text.width,
            prepend_bos=subject.bos_id is not None,
            dataset_path=config.text.corpus,
            extra={"provenance": workspace.provenance()},
        )

    title = f"{len(configs) * len(sites)} dictionaries on {', '.join(map(str, sites))}"
    with reporter.stage(title, "steps") as tick:
        points = sweep(
            subject,
            fit,
            test,
            sites,
            configs,
            folder,
            metadata=metadata,
            provenance=workspace.provenance(),
            on_step=lambda step, total, _line: tick(step, total),
            report=reporter.note,
        )
    return table_of(points)


def _claim(folder: Path, key: str) -> None:
    """Make `folder` the place of this sweep, or refuse one that holds another."""
    owner = folder / "settings.json"
    if owner.exists() and read_json(owner) != {"key": key}:
        raise InputError(f"folder {folder}", "a sweep of these settings, or nothing", "a sweep of others")
    write_json(owner, {"key": key})
