"""Sweep: many dictionaries from one pass over the subject, and what sparsity costs drawn from them.

    sweep/
      NAME/               one folder a dictionary, as `training.loop` writes it
      frontier-SITE.png   FVU against L0, with PCA as reference (svg beside it)
      mmcs-SITE.png       how alike the dictionaries of a site are (svg beside it)
      sweep.json          points and provenance;  sweep.md: the same as tables

Settings that differ are alpha, R, architecture, its options, the seed and the site. All dictionaries of a site see the
same batches, so that what differs between them is what was varied. Test rows are of other documents.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from saelens_n2g.activations import ActivationModel, scored_rows
from saelens_n2g.bases.formats import SaeMetadata
from saelens_n2g.corpus import Windows
from saelens_n2g.errors import InputError
from saelens_n2g.sites import Site
from saelens_n2g.training.architectures.registry import find_architecture
from saelens_n2g.training.blocks import WINDOWS_PER_BLOCK, SubjectBlocks
from saelens_n2g.training.config import TrainingConfig
from saelens_n2g.training.evaluation import JUDGED, SplicedModel, judge_on, spread
from saelens_n2g.training.logging import Report, report_as_warning
from saelens_n2g.training.loop import Job, Progress, train_several
from saelens_n2g.training.parallel import SINGLE, Group
from saelens_n2g.training.references import pca_curve
from saelens_n2g.training.rows import SAMPLE_ROWS, ArrayRows, Statistics, sample_steps
from saelens_n2g.training.stream import BUFFER_ROWS, MultiStream, SiteBlocks
from saelens_n2g.training.sweep_report import Point, Reference, write_comparison

TEST_ROWS = 32_768
"""Activations of other documents that dictionaries and principal components are compared on, at most."""
REFERENCE = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
"""Numbers of principal components in the figure, as far as there are dimensions."""


def vary(base: TrainingConfig, settings: Mapping[str, Sequence[Any]]) -> dict[str, TrainingConfig]:
    """All combinations of settings, by a name that says what was varied.

    settings: name of a field of `TrainingConfig`, or of an option of the architecture, to its values. An option that an
    architecture does not have is left out there. Raises `InputError` for a name that no architecture of the sweep has.
    """
    own = {field.name for field in fields(TrainingConfig)}
    found: dict[str, TrainingConfig] = {}
    used: set[str] = set()
    for values in itertools.product(*settings.values()):
        chosen = dict(zip(settings, values, strict=True))
        config = replace(base, **{name: value for name, value in chosen.items() if name in own})
        kind = find_architecture(config.architecture)
        options = {f.name for f in fields(kind.options)} if kind.options else set()
        given = {name: value for name, value in chosen.items() if name in options}
        if kind.sparsity != "alpha" and "alpha" in chosen:
            config, chosen = replace(config, alpha=base.alpha), {k: v for k, v in chosen.items() if k != "alpha"}
        config = replace(config, options={**config.options, **given})
        kind.make_options(config.options)
        shown = {name: value for name, value in chosen.items() if name in own or name in given}
        used |= shown.keys()
        found["-".join(_word(name, value) for name, value in shown.items()) or config.architecture] = config
    if unknown := sorted(settings.keys() - used):
        raise InputError("settings of a sweep", "fields of TrainingConfig or options", ", ".join(unknown))
    return found


def _word(name: str, value: Any) -> str:
    said = f"{value:g}" if isinstance(value, float) else str(value)
    return said if name == "architecture" else f"{name}{said}"


def sweep(
    subject: ActivationModel,
    fit: Windows,
    test: Windows,
    sites: Sequence[Site],
    configs: Mapping[str, TrainingConfig],
    folder: Path,
    *,
    metadata: Callable[[Site], SaeMetadata],
    source: SiteBlocks | None = None,
    judged: int = JUDGED,
    provenance: Mapping[str, Any] | None = None,
    on_step: Progress | None = None,
    report: Report = report_as_warning,
    group: Group = SINGLE,
) -> list[Point]:
    """Train every configuration at every site on the windows `fit`, evaluate on `test`, write the comparison.

    source: blocks of activations of `fit` at the sites, where they are at hand (a cache); otherwise the subject is run
    over the windows once for every epoch of training. judged: windows of `test` on which reconstructions take the place
    of activations in the subject, if it is a `SplicedModel`. A sweep that was cut short goes on from its checkpoints.
    group: processes that train together; each runs the subject on all of the text. Errors as in `train_several`.
    """
    first = next(iter(configs.values()))
    blocks = source or SubjectBlocks(subject, fit, sites)
    buffer = buffer_rows(fit, first.batch)
    streams = MultiStream(blocks, batch=first.batch, buffer_rows=buffer, seed=first.seed)
    data, samples = _sampled(streams, buffer, first.clip)
    unseen = unseen_rows(subject, test, sites)
    names, jobs = [], []
    for site in sites:
        stream = streams.at(site)
        for name, config in configs.items():
            place = folder / (name if len(sites) == 1 else f"{site}-{name}")
            names.append((name, site, config))
            tell = (streams.rows_per_epoch, "stream", first.seed, str(site))
            about = metadata(site)
            jobs.append(Job(config, place, about, stream, data[site], tell, test_rows=unseen[site]))
    judge = judge_on(subject, spread(test, judged), report) if judged and isinstance(subject, SplicedModel) else None
    results = train_several(jobs, on_step=on_step, report=report, judge=judge, group=group)
    points = [Point(*name, result) for name, result in zip(names, results, strict=True)]
    if group.is_writer:
        pca = {site: _reference(samples[site], unseen[site]) for site in sites}
        write_comparison(points, pca, folder, provenance or {})
    return points


def buffer_rows(windows: Windows, batch: int) -> int:
    """Rows of the shuffling buffer: as many as a text of this length fills, and never less than a stream must have."""
    unit = 4 * batch
    return min(max(BUFFER_ROWS // unit, 1), max(windows.n_tokens // unit, 1)) * unit


def _sampled(streams: MultiStream, buffer: int, clip: float) -> tuple[dict[Site, Statistics], dict[Site, Tensor]]:
    """Statistics of every site, and some rows for the principal components: of what the buffer holds at the start."""
    wanted = max(1, min(SAMPLE_ROWS, 3 * buffer // 4))
    data = streams.statistics(wanted, clip)
    kept: dict[Site, list[Tensor]] = {}
    steps = sample_steps(wanted, streams.batch_rows, streams.rows_per_epoch)
    for step in range(min(steps, max(1, TEST_ROWS // streams.batch_rows))):
        for site, rows in streams.batch(step).items():
            kept.setdefault(site, []).append(rows.float())
    return data, {site: torch.cat(parts) for site, parts in kept.items()}


def unseen_windows(windows: Windows) -> Windows:
    """The windows that dictionaries are compared on: spread over the test documents, about `TEST_ROWS` tokens."""
    per_window = max(1, windows.n_tokens // max(1, len(windows)))
    return windows.subset(np.arange(0, len(windows), max(1, len(windows) * per_window // TEST_ROWS)))


def unseen_rows(subject: ActivationModel, windows: Windows, sites: Sequence[Site]) -> dict[Site, ArrayRows]:
    """Activations of `unseen_windows`."""
    chosen = unseen_windows(windows)
    found: dict[Site, list[Tensor]] = {site: [] for site in sites}
    for start in range(0, len(chosen), WINDOWS_PER_BLOCK):
        part = chosen.subset(np.arange(start, min(start + WINDOWS_PER_BLOCK, len(chosen))))
        for site, rows in scored_rows(subject, part, sites).items():
            found[site].append(rows.float())
    return {site: ArrayRows(torch.cat(rows)) for site, rows in found.items()}


def _reference(rows: Float[Tensor, "rows d"], test: ArrayRows) -> Reference:
    ks = [k for k in REFERENCE if k <= rows.shape[1]]
    return Reference(pca_curve(rows, ks, test), pca_curve(rows, ks, test, typical=True))
