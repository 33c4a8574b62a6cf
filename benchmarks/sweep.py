"""What a sweep costs beside one run, and where the time of both goes.

    python benchmarks/sweep.py                        # embedded model, layer 4, R 8, eight alphas, one thread
    python benchmarks/sweep.py --tokens 300000 --batch 256 --json figures.json
    python benchmarks/sweep.py --batch 4096 --sparse  # as most of a long run is: about 100 active features

One run is a sweep of one dictionary, so both go the same road: from token windows to saved folders and the comparison.
Loading the model and cutting the text are not counted, everything behind them is. The two are run one after the other
in this process, the single one first and last (the mean counts), so that a machine whose other users come and go
favours neither.

The tokens should be several 100,000: below that no dictionary becomes sparse, and the passes of the evaluation, which
are as many for any length, weigh more than they do in a real run. Steps are dear while most features are active and
cheap later, so they are given by quarter of the run, too. A part's seconds are its own: what the parts called from
within it take is counted there. `subject` is every forward pass for activations, `step` the optimiser's steps with
their metrics, `spliced` the passes of the evaluation that replaces activations by reconstructions. The share of subject
and step is that of the single run, printed without and with those passes.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from saelens_n2g.bases.formats import SaeMetadata
from saelens_n2g.comparison.workspace import draw_windows
from saelens_n2g.corpus import Windows, load_documents, split_documents, tokenise
from saelens_n2g.jobs.artefacts import write_json
from saelens_n2g.sites import Site
from saelens_n2g.subject import Subject
from saelens_n2g.training import TrainingConfig
from saelens_n2g.training.architectures.tied import TiedObjective
from saelens_n2g.training.sweep import sweep, vary

PARTS = {
    "subject": "saelens_n2g.subject.Subject.activations",
    "spliced": "saelens_n2g.subject.Subject.spliced_logits",
    "step": "saelens_n2g.training.run.Run.step",
    "lines of metrics": "saelens_n2g.training.run.Run.line",
    "batches": "saelens_n2g.training.stream.MultiStream.pick",
    "statistics": "saelens_n2g.training.sweep._sampled",
    "principal components": "saelens_n2g.training.sweep._reference",
    "checkpoints": "saelens_n2g.training.loop.save_checkpoint",
    "evaluation": "saelens_n2g.training.loop.evaluate",
    "behaviour": "saelens_n2g.training.evaluation.behaviours",
    "figures": "saelens_n2g.training.figures.render",
    "similarity": "saelens_n2g.training.sweep_report.mmcs_table",
    "files": "saelens_n2g.training.loop.save_saelens",
}
"""Part -> the function whose time it is."""


class Clock:
    """CPU and wall-clock seconds by part, each part's own."""

    def __init__(self) -> None:
        self.cpu: dict[str, float] = {}
        self.wall: dict[str, float] = {}
        self.calls: dict[str, int] = {}
        self._inside = ["all else"]
        self._since = (time.process_time(), time.perf_counter())

    def _turn(self) -> None:
        """What passed since the last turn belongs to the part that is innermost now."""
        now, part = (time.process_time(), time.perf_counter()), self._inside[-1]
        self.cpu[part] = self.cpu.get(part, 0.0) + now[0] - self._since[0]
        self.wall[part] = self.wall.get(part, 0.0) + now[1] - self._since[1]
        self._since = now

    def timed(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, its time taken."""

        def call(*args: Any, **options: Any) -> Any:
            self._turn()
            self._inside.append(part)
            self.calls[part] = self.calls.get(part, 0) + 1
            try:
                return function(*args, **options)
            finally:
                self._turn()
                self._inside.pop()

        return call


@contextmanager
def sparse_from_the_start(active: int = 100) -> Iterator[None]:
    """Dictionaries whose biases are set by their first batch, so that `active` features fire on a row: the state that
    most steps of a long run are in, which costs as much as a trained dictionary's. What is learnt means nothing."""
    begun: set[int] = set()
    step = TiedObjective.step

    def begin(self: TiedObjective, batch: torch.Tensor) -> Any:
        if id(self) not in begun:
            begun.add(id(self))
            before = batch @ self.unit_rows().T
            self.bias.copy_(-before.quantile(1 - active / before.shape[1], dim=0))
        return step(self, batch)

    with patch.object(TiedObjective, "step", begin):
        yield


@contextmanager
def measured() -> Iterator[Clock]:
    """A clock of all parts while the block runs."""
    from importlib import import_module

    clock = Clock()
    with ExitStack() as stack:
        for part, target in PARTS.items():
            place, _, name = target.rpartition(".")
            owner: Any = None
            try:
                owner = import_module(place)
            except ModuleNotFoundError:
                module, _, kind = place.rpartition(".")
                owner = getattr(import_module(module), kind)
            stack.enter_context(patch.object(owner, name, clock.timed(part, getattr(owner, name))))
        yield clock
        clock._turn()


def once(
    subject: Subject, fit: Windows, test: Windows, site: Site, configs: Mapping[str, TrainingConfig]
) -> dict[str, Any]:
    """One sweep in a new folder: its seconds by part, the subject's calls, and what came out."""

    def metadata(at: Site) -> SaeMetadata:
        return SaeMetadata("embedded", at.hook, fit.tokens.shape[1], subject.bos_id is not None)

    quarters: list[float] = []

    def note(step: int, total: int, _line: Mapping[str, float | int]) -> None:
        if 4 * step // total > 4 * (step - 1) // total:
            quarters.append(clock.cpu["step"] - sum(quarters))

    with tempfile.TemporaryDirectory() as folder, measured() as clock:
        points = sweep(subject, fit, test, [site], configs, Path(folder), metadata=metadata, on_step=note)
    results = {point.name: point.result.test for point in points}
    return {
        "cpu": clock.cpu,
        "wall": clock.wall,
        "calls": clock.calls,
        "step_quarters": quarters,
        "dictionaries": {name: {"l0": t.l0, "fvu": t.fvu, "dead": t.dead} for name, t in results.items() if t},
    }


def texts(asked: argparse.Namespace, subject: Subject) -> tuple[Windows, Windows]:
    """Fit and test windows, as a run has them."""
    windows = tokenise(
        load_documents("embedded"),
        subject.encode,
        width=128,
        bos_id=subject.bos_id,
        pad_id=subject.pad_id,
        max_tokens=20_000_000,
        source="embedded",
    )
    windows = draw_windows(windows, asked.tokens, 0)
    fit, test = (windows.subset(rows) for rows in split_documents(windows, test_share=0.25, seed=0))
    return fit, test


def mean(runs: list[dict[str, Any]], clock: str) -> dict[str, float]:
    """Seconds by part, the mean over runs."""
    names = list(dict.fromkeys(name for run in runs for name in run[clock]))
    return {name: sum(run[clock].get(name, 0.0) for run in runs) / len(runs) for name in names}


def show(one: list[dict[str, Any]], many: list[dict[str, Any]], n: int, console: Console) -> dict[str, float]:
    """The parts side by side, the ratio, and the share of subject and step."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for column in ("part", "one: CPU s", "wall s", "calls", f"{n}: CPU s", "wall s", "calls", "ratio, CPU"):
        table.add_column(column, justify="left" if column == "part" else "right")
    cpu, wall = [mean(runs, "cpu") for runs in (one, many)], [mean(runs, "wall") for runs in (one, many)]
    for part in sorted(cpu[1], key=lambda part: -cpu[1][part]):
        cells = []
        for place, runs in enumerate((one, many)):
            seconds = (cpu[place].get(part, 0.0), wall[place].get(part, 0.0))
            cells += [*(f"{value:.2f}" for value in seconds), str(runs[0]["calls"].get(part, ""))]
        alone = cpu[0].get(part, 0.0)
        table.add_row(part, *cells, f"{cpu[1][part] / alone:.2f}" if alone > 0.005 else "")
    totals = {"cpu": [sum(c.values()) for c in cpu], "wall": [sum(w.values()) for w in wall]}
    ratio = {clock: many_ / one_ for clock, (one_, many_) in totals.items()}
    cells = [f"{totals[clock][place]:.2f}" for place in (0, 1) for clock in ("cpu", "wall")]
    table.add_row("all", cells[0], cells[1], "", cells[2], cells[3], "", f"{ratio['cpu']:.2f}")
    console.print(table)

    def share_of(*names: str) -> dict[str, float]:
        parts = {"cpu": cpu[0], "wall": wall[0]}
        return {clock: sum(found.get(p, 0.0) for p in names) / totals[clock][0] for clock, found in parts.items()}

    share, more = share_of("subject", "step"), share_of("subject", "step", "spliced")
    console.print(f"{n} dictionaries for the price of {ratio['cpu']:.2f} (CPU), {ratio['wall']:.2f} (wall)")
    console.print(f"subject and step in one run: {100 * share['cpu']:.1f} % (CPU), {100 * share['wall']:.1f} % (wall)")
    console.print(f"with the evaluation's passes: {100 * more['cpu']:.1f} % (CPU), {100 * more['wall']:.1f} % (wall)")
    return {f"ratio_{k}": v for k, v in ratio.items()} | {f"share_{k}": v for k, v in share.items()}


def steady(one: list[dict[str, Any]], many: list[dict[str, Any]], console: Console) -> dict[str, float]:
    """Steps by quarter of the run, and the ratio of subject and step if all of them cost what those of the last do."""
    quarters = [
        [sum(q) / len(runs) for q in zip(*(r["step_quarters"] for r in runs), strict=True)] for runs in (one, many)
    ]
    subject = [sum(run["cpu"]["subject"] for run in runs) / len(runs) for runs in (one, many)]
    ratio = (subject[1] + 4 * quarters[1][-1]) / (subject[0] + 4 * quarters[0][-1])
    said = ["; ".join(f"{seconds:.1f}" for seconds in each) for each in quarters]
    console.print(f"steps by quarter of the run, CPU s: one {said[0]}, several {said[1]}")
    console.print(f"subject and steps, were all steps like those of the last quarter: {ratio:.2f} (CPU, computed)")
    return {"ratio_last_quarter": ratio}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layer", type=int, default=4)
    parser.add_argument("--expansion", type=float, default=8)
    parser.add_argument("--tokens", type=int, default=400_000, help="of text, a quarter of it to test on")
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--alphas", default="3e-4,1e-2,8", help="lowest, highest, how many (spaced by logarithm)")
    parser.add_argument("--one", type=float, default=3e-3, help="alpha of the single run")
    parser.add_argument("--rounds", type=int, default=1, help="single runs before the sweep, and as many after it")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--sparse", action="store_true", help="about 100 active features from the first step on")
    parser.add_argument("--json", type=Path, help="write the figures there too")
    asked, console = parser.parse_args(), Console(width=120)
    torch.set_num_threads(asked.threads)
    if asked.sparse:
        asked.lr = 1e-6  # so that they stay as many
    low, high, n = asked.alphas.split(",")
    alphas = [float(f"{a:.3g}") for a in np.geomspace(float(low), float(high), int(n))]
    subject = Subject.load("embedded", device="cpu")
    fit, test = texts(asked, subject)
    base = TrainingConfig(
        expansion=asked.expansion,
        lr=asked.lr,
        batch=asked.batch,
        samples=fit.n_tokens // asked.batch * asked.batch,
        wandb="disabled",
    )
    site = Site(asked.layer, "resid_post")
    single, several = vary(base, {"alpha": [asked.one]}), vary(base, {"alpha": alphas})
    with sparse_from_the_start() if asked.sparse else nullcontext():
        one = [once(subject, fit, test, site, single) for _ in range(asked.rounds)]
        many = [once(subject, fit, test, site, several)]
        one += [once(subject, fit, test, site, single) for _ in range(asked.rounds)]
    console.print(f"layer {asked.layer}, R {asked.expansion:g}, batch {asked.batch}, {base.samples:,} activations")
    figures = show(one, many, len(alphas), console) | steady(one, many, console)
    for name, found in (one[0]["dictionaries"] | many[0]["dictionaries"]).items():
        console.print(f"{name}: L0 {found['l0']:.1f}, FVU {found['fvu']:.4f}, dead {found['dead']}")
    if asked.json is not None:
        settings = {k: v for k, v in vars(asked).items() if k != "json"}
        write_json(asked.json, {"settings": settings, "figures": figures, "one": one, "several": many})


if __name__ == "__main__":
    main()
