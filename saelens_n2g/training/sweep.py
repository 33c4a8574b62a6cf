"""Sweep: many dictionaries from one pass over the subject, and what sparsity costs drawn from them.

    sweep/
      NAME/               one folder a dictionary, as `training.loop` writes it
      frontier-SITE.png   FVU against L0, with PCA as reference (svg beside it)
      sweep.json          points and provenance;  sweep.md: the same as a table

Settings that differ are alpha, R, architecture, its options, the seed and the site. All dictionaries of a site see the
same batches, so that what differs between them is what was varied. Test rows are of other documents.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from saelens_n2g.activations import ActivationModel, scored_rows
from saelens_n2g.bases.formats import SaeMetadata
from saelens_n2g.corpus import Windows
from saelens_n2g.errors import InputError
from saelens_n2g.jobs.artefacts import write_json, write_text
from saelens_n2g.sites import Site
from saelens_n2g.training.architectures.registry import find_architecture
from saelens_n2g.training.blocks import SubjectBlocks
from saelens_n2g.training.config import TrainingConfig
from saelens_n2g.training.evaluation import pca_curve
from saelens_n2g.training.figures import FrontierPoint, frontier, save, short
from saelens_n2g.training.logging import Report, report_as_warning
from saelens_n2g.training.loop import Job, Progress, TrainingResult, train_several
from saelens_n2g.training.rows import SAMPLE_ROWS, ArrayRows, Moments, Statistics, sample_steps
from saelens_n2g.training.stream import BUFFER_ROWS, MultiStream, SiteBlocks

FORMAT, VERSION = "saelens-n2g/sweep", 1
TEST_ROWS = 32_768
"""Activations of other documents that dictionaries and principal components are compared on, at most."""
NOTE = (
    "On activations of documents that nothing was trained on. FVU: fraction of variance unexplained. Typical rows: "
    "those at most three times as far from the centre as the median row. PCA: FVU when only the first L0 principal "
    "components are kept, read off between measured numbers; a dictionary may choose other directions for every row.\n"
)
REFERENCE = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
"""Numbers of principal components in the figure, as far as there are dimensions."""


@dataclass(frozen=True, eq=False)
class Point:
    """One dictionary of a sweep."""

    name: str
    site: Site
    config: TrainingConfig
    result: TrainingResult

    def as_json(self) -> dict[str, Any]:
        """Settings and figures."""
        test = self.result.test
        return {
            "name": self.name,
            "site": str(self.site),
            "training": self.config.as_json(),
            "steps": self.result.steps,
            "test": test and test.as_json(),
        }


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
    provenance: Mapping[str, Any] | None = None,
    on_step: Progress | None = None,
    report: Report = report_as_warning,
) -> list[Point]:
    """Train every configuration at every site on the windows `fit`, evaluate on `test`, write the comparison.

    source: blocks of activations of `fit` at the sites, where they are at hand (a cache); otherwise the subject is run
    over the windows once for every epoch of training. A sweep that was cut short goes on from its checkpoints. Errors
    as in `train_several`.
    """
    first = next(iter(configs.values()))
    blocks = source or SubjectBlocks(subject, fit, sites)
    # Room for the largest buffer that a text of this length fills, and never less than a stream must have.
    rows = max(fit.n_tokens // (4 * first.batch), 1) * 4 * first.batch
    buffer = min(BUFFER_ROWS // (4 * first.batch) * 4 * first.batch or 4 * first.batch, rows)
    streams = MultiStream(blocks, batch=first.batch, buffer_rows=buffer, seed=first.seed)
    data, samples = _sampled(streams, buffer)
    unseen = _test_rows(subject, test, sites)
    names, jobs = [], []
    for site in sites:
        stream = streams.at(site)
        for name, config in configs.items():
            place = folder / (name if len(sites) == 1 else f"{site}-{name}")
            names.append((name, site, config))
            tell = (streams.rows_per_epoch, "stream", first.seed, str(site))
            about = metadata(site)
            jobs.append(Job(config, place, about, stream, data[site], tell, test_rows=unseen[site]))
    results = train_several(jobs, on_step=on_step, report=report)
    points = [Point(*name, result) for name, result in zip(names, results, strict=True)]
    _write(points, {site: _reference(samples[site], unseen[site]) for site in sites}, folder, provenance or {})
    return points


def table_of(points: Sequence[Point]) -> str:
    """One line for each dictionary, for a terminal."""
    width = max(len(point.name) for point in points)
    lines = []
    for point in points:
        test = point.result.test
        assert test is not None
        what = f"{point.site}  {point.name:{width}s}"
        lines.append(
            f"{what}  L0 {test.l0:8.1f}  FVU {_share(test.fvu)}  dead {test.dead:,} of {test.dead + test.alive:,}"
        )
    return "\n".join(lines)


def _sampled(streams: MultiStream, buffer: int) -> tuple[dict[Site, Statistics], dict[Site, Tensor]]:
    """Statistics of every site, and some rows for the principal components: of what the buffer holds at the start."""
    moments: dict[Site, Moments] = {}
    kept: dict[Site, list[Tensor]] = {}
    wanted = max(1, min(SAMPLE_ROWS, 3 * buffer // 4))
    for step in range(sample_steps(wanted, streams.batch_rows, streams.rows_per_epoch)):
        for site, rows in streams.batch(step).items():
            moments.setdefault(site, Moments()).add(rows)
            if (step + 1) * len(rows) <= TEST_ROWS:
                kept.setdefault(site, []).append(rows.float())
    return {s: m.statistics() for s, m in moments.items()}, {s: torch.cat(r) for s, r in kept.items()}


def _test_rows(subject: ActivationModel, windows: Windows, sites: Sequence[Site]) -> dict[Site, ArrayRows]:
    """Activations of windows spread over the test documents, at most `TEST_ROWS`."""
    per_window = max(1, windows.n_tokens // max(1, len(windows)))
    step = max(1, len(windows) * per_window // TEST_ROWS)
    chosen = list(range(0, len(windows), step))
    found: dict[Site, list[Tensor]] = {site: [] for site in sites}
    for start in range(0, len(chosen), 16):
        part = windows.subset(torch.tensor(chosen[start : start + 16]).numpy())
        for site, rows in scored_rows(subject, part, sites).items():
            found[site].append(rows.float())
    return {site: ArrayRows(torch.cat(rows)) for site, rows in found.items()}


def _reference(rows: Float[Tensor, "rows d"], test: ArrayRows) -> list[tuple[int, float]]:
    return pca_curve(rows, [k for k in REFERENCE if k <= rows.shape[1]], test)


def _write(
    points: Sequence[Point], pca: Mapping[Site, list[tuple[int, float]]], folder: Path, provenance: Mapping[str, Any]
) -> None:
    value = {
        "format": FORMAT,
        "version": VERSION,
        "points": [point.as_json() for point in points],
        "pca": {str(site): curve for site, curve in pca.items()},
        "provenance": dict(provenance),
    }
    write_json(folder / "sweep.json", value)
    write_text(folder / "sweep.md", table(points, pca))
    for site, curve in pca.items():
        drawn = [mark for point in points if point.site == site and (mark := _mark(point)) is not None]
        if drawn:
            save(folder, f"frontier-{site}", partial(frontier, drawn, curve, title=f"Dictionaries at {site}"))


def _mark(point: Point) -> FrontierPoint | None:
    """The point in the figure; None for a dictionary that is silent everywhere or explains nothing at all."""
    test = point.result.test
    if test is None or not test.l0 > 0 or test.fvu is None:
        return None
    kind = find_architecture(point.config.architecture)
    amount = point.config.alpha if kind.sparsity == "alpha" else point.config.options.get(kind.sparsity)
    series = f"{kind.title}, R {point.config.expansion:g}"
    return FrontierPoint(series, test.l0, test.fvu, "" if amount is None else short(float(amount)))


def table(points: Sequence[Point], pca: Mapping[Site, list[tuple[int, float]]]) -> str:
    """The sweep in Markdown: a line for each dictionary, and the reference."""
    lines = [
        "| Site | Dictionary | Features | L0 | FVU | FVU, typical rows | Dead | PCA with as many components |",
        "| :--- | :--- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for point in points:
        test = point.result.test
        assert test is not None
        reference = _at(pca[point.site], test.l0)
        cells = [f"{test.l0:.1f}", _share(test.fvu), _share(test.fvu_typical), f"{test.dead:,}", _share(reference)]
        features = f"{point.result.dictionary.d_sae:,}"
        lines.append(f"| {point.site} | {point.name} | {features} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n" + "\n" + NOTE


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def _at(curve: Sequence[tuple[int, float]], l0: float) -> float | None:
    """The curve at an L0 between its points; None outside."""
    for (low, above), (high, below) in itertools.pairwise(curve):
        if low <= l0 <= high:
            return above + (below - above) * (l0 - low) / (high - low)
    return None
