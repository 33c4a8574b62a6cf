"""Sweeps in a run's workspace: its text and its split, the activations of several layers at once; what they cost."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from saelens_n2g.activations import harvest
from saelens_n2g.comparison.config import RunConfig
from saelens_n2g.comparison.workspace import Workspace
from saelens_n2g.corpus import Windows
from saelens_n2g.errors import InputError
from saelens_n2g.jobs.artefacts import claim, fingerprint, read_json
from saelens_n2g.progress import Reporter
from saelens_n2g.sites import Site
from saelens_n2g.training.blocks import CachedBlocks
from saelens_n2g.training.config import TrainingConfig
from saelens_n2g.training.cost import Cost, cost_of_run, cost_of_sweep, passes_of, several_epochs
from saelens_n2g.training.meter import Meter
from saelens_n2g.training.parallel import SINGLE, Group
from saelens_n2g.training.sweep import sweep, vary
from saelens_n2g.training.sweep_report import SWEEP, table_of

CACHE = "activations"
"""Folder of what a sweep of several epochs keeps while it runs."""


def run_sweep(
    config: RunConfig,
    base: TrainingConfig,
    settings: Mapping[str, Sequence[Any]],
    layers: Sequence[int],
    samples: int | None,
    folder: Path,
    reporter: Reporter,
    *,
    memory: float | None = None,
    estimate: bool = False,
    group: Group = SINGLE,
) -> str:
    """Train all combinations of `settings` at all layers on the fit documents; the table as text.

    samples: activations to train on; None takes every token of the fit documents once, less what fills no batch. Where
    they are more than the text has, activations are kept on disk while it runs, so that the subject runs once all the
    same.
    memory: bytes that dictionaries and activations may take; layers are then trained in as few passes over the subject
    as fit, each in a folder `layers-FIRST-LAST` of its own. What it will cost is said first; with `estimate` that is
    all that happens, and the text is empty. group: processes that train together; the first reads the text before them.
    Raises `InputError` for settings that cannot be, for a folder with a sweep of others, and where the dictionaries of
    one layer need more than `memory`.
    """
    if not layers:
        raise InputError("option layers", "at least one layer", "none")
    workspace = Workspace(config, folder, reporter)
    with group.writer_first():
        subject, windows = workspace.subject, workspace.windows
    sites = [Site(layer, config.stream) for layer in layers]
    for site in sites:
        subject.check(site)
    fit, test = (windows.subset(rows) for rows in workspace.split)
    base = replace(base, samples=samples or fit.n_tokens // base.batch * base.batch, device=group.named(subject.device))
    configs = vary(base, settings)
    with reporter.stage("estimate of what it costs"):
        meter = Meter(subject, fit, sites)
        parts = passes_of(meter, fit, test, sites, configs, memory=memory)
        cached = several_epochs(fit, base)
        costs = [cost_of_sweep(meter, fit, test, part, configs, cached=cached) for part in parts]
    reporter.note(sum(costs[1:], costs[0]).text())
    if estimate:
        return ""
    key: list[Any] = [config.key("text"), {k: v.as_json() for k, v in configs.items()}, list(map(str, sites))]
    with group.writer_first():
        claimed = fingerprint([*key, *([len(part) for part in parts] if len(parts) > 1 else [])])
        claim(folder, claimed, refuse="sweep")
    points: list[dict[str, Any]] = []
    for part in parts:
        place = folder if len(parts) == 1 else folder / f"layers-{part[0].layer}-{part[-1].layer}"
        if not (place / SWEEP).exists():
            _pass(workspace, fit, test, part, configs, place, group)
            group.barrier()
        points += read_json(place / SWEEP)["points"]
    return table_of(points)


def _pass(
    workspace: Workspace,
    fit: Windows,
    test: Windows,
    sites: Sequence[Site],
    configs: Mapping[str, TrainingConfig],
    folder: Path,
    group: Group,
) -> None:
    """Train all dictionaries of some sites, and write their comparison."""
    reporter, source = workspace.reporter, None
    if several_epochs(fit, next(iter(configs.values()))):
        with group.writer_first(), reporter.stage(f"activations at {', '.join(map(str, sites))}", "windows") as tick:
            store = harvest(workspace.subject, fit, dict.fromkeys(sites), folder / CACHE, report=tick)
        source = CachedBlocks(store, sites)
    with reporter.stage(f"{len(configs) * len(sites)} dictionaries on {', '.join(map(str, sites))}", "steps") as tick:
        sweep(
            workspace.subject,
            fit,
            test,
            sites,
            configs,
            folder,
            metadata=workspace.metadata,
            source=source,
            provenance=workspace.provenance(),
            on_step=lambda step, total, _line: tick(step, total),
            report=reporter.note,
            group=group,
        )
    if group.is_writer and source is not None:
        shutil.rmtree(folder / CACHE)


def cost_of_training(workspace: Workspace) -> Cost:
    """What `comparison.run.train_dictionary` takes in a run that has nothing yet."""
    config, subject, windows = workspace.config, workspace.subject, workspace.windows
    site = subject.check(Site(config.layer, config.stream))
    fit = int(workspace.fit_tokens.sum())
    training = replace(config.training, device=str(subject.device))
    return cost_of_run(Meter(subject, windows, [site]), windows, fit, site, training)
