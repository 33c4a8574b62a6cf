"""The training loop: activations in, finished SAELens folders out.

    run/
      metrics.jsonl     one line every `log_every` steps
      training.png      the same drawn, and density.png: how often features fire (svg beside both)
      checkpoints/      while it runs
      wandb/            unless disabled
      sae/              the dictionary: `cfg.json`, weights, firing rates, commit marker

`train` learns one dictionary; `train_several` learns many from the same batches, in one pass over the activations.
A run that is killed goes on from its last checkpoint, one that is sent SIGTERM from the step that it was in.

Under `torchrun` the processes train together (`training/parallel.py`): each has its part of every batch, and the first
of them writes. All must see the same folder. A run may be continued by another number of processes.
"""

import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from jaxtyping import Float
from torch import Tensor

from saelens_n2g.bases.formats import Dictionary, SaeMetadata, save_saelens
from saelens_n2g.errors import InputError
from saelens_n2g.training.checkpoint import load_checkpoint, remove_checkpoints, save_checkpoint
from saelens_n2g.training.config import TrainingConfig
from saelens_n2g.training.evaluation import BehaviourPreservation, log_values
from saelens_n2g.training.logging import METRICS, MetricsFile, Report, WandbRun, report_as_warning, wandb_mode
from saelens_n2g.training.metrics import (
    Evaluation,
    FeatureDensity,
    density_of_rates,
    density_values,
    evaluate,
    feature_density,
)
from saelens_n2g.training.parallel import Group, group_from_environment
from saelens_n2g.training.rows import Rows, RowStream, Statistics, Stream, as_rows, statistics, stream_statistics
from saelens_n2g.training.run import Run, matmul_precision

Progress = Callable[[int, int, Mapping[str, float | int]], None]
"""Called after every step with steps done, steps in all, and the latest line of metrics (empty before the first).
Of several processes only the first one calls it."""
Judge = Callable[[Sequence[Dictionary]], Sequence[BehaviourPreservation | None]]
"""What the finished dictionaries of a training do to the model, in their order; each names its hook in its metadata.
`evaluation.judge_on` makes one."""
STOPPED = 143
"""Exit status after SIGTERM, as shells give it."""


@dataclass(frozen=True, eq=False)
class TrainingResult:
    """A finished run."""

    folder: Path
    """The SAELens folder."""
    dictionary: Dictionary
    fit: Evaluation | None
    """On the rows learnt from; None where they came as a stream."""
    test: Evaluation | None
    """On held-out rows, if any were given."""
    steps: int
    scale: float
    """What the centred activations were multiplied by in training."""
    behaviour: BehaviourPreservation | None = None
    """What it does to the model; None where nobody could tell."""


@dataclass(frozen=True, eq=False)
class Job:
    """One dictionary that is to be learnt."""

    config: TrainingConfig
    folder: Path
    metadata: SaeMetadata
    """What it is trained on."""
    stream: Stream
    """Raw activations; jobs that share the object are trained on the same batches."""
    data: Statistics
    """Mean and spread of the stream."""
    source: tuple[int | str | None, ...] = ()
    """What tells the stream from others with the same statistics."""
    fit_rows: Rows | None = None
    """Rows that it is evaluated on as those learnt from."""
    test_rows: Rows | None = None
    """Rows that it is evaluated on as unseen ones."""


def train(
    config: TrainingConfig,
    rows: Float[Tensor, "rows d"] | Any,
    folder: Path,
    *,
    metadata: SaeMetadata,
    test_rows: Any = None,
    on_step: Progress | None = None,
    report: Report = report_as_warning,
    group: Group | None = None,
    judge: Judge | None = None,
) -> TrainingResult:
    """Train a dictionary on `rows` and publish it as `folder/sae`.

    rows: (rows, d_in) tensor, array (mapped from a file if wanted), `Rows`, or a `Stream` of `config.batch` rows a
    step; raw activations, without those at BOS. test_rows: the same, but no stream. metadata: what they are
    activations of. A checkpoint in `folder` of the same settings and data is continued, to the same weights that an
    undisturbed run ends with. `report` takes one-line remarks. group: the processes that train together; None for those
    that torchrun has started, or else this one alone. All get the result. judge: who tells what the dictionary does to
    the model that it was trained on; that goes into its metadata.
    Raises `InputError` for unusable activations, a diverging loss, a checkpoint of another run, or processes that do
    not agree in settings and data.
    """
    job = job_of(config, rows, folder, metadata=metadata, test_rows=test_rows)
    return train_several([job], on_step=on_step, report=report, group=group, judge=judge)[0]


def job_of(config: TrainingConfig, rows: Any, folder: Path, *, metadata: SaeMetadata, test_rows: Any = None) -> Job:
    """A job on rows or a stream; options and errors as in `train`."""
    test = None if test_rows is None else as_rows(test_rows)
    if isinstance(rows, Stream):
        if rows.batch_rows != config.batch:
            raise InputError("stream of activations", f"{config.batch} rows a step", str(rows.batch_rows))
        source = (rows.rows_per_epoch, "stream")
        return Job(config, folder, metadata, rows, stream_statistics(rows, clip=config.clip), source, test_rows=test)
    known = as_rows(rows)
    stream = RowStream(known, batch=config.batch, seed=config.seed)
    return Job(config, folder, metadata, stream, statistics(known, config.clip), (len(known),), known, test)


class _Files(NamedTuple):
    """What a run writes while it goes."""

    log: MetricsFile
    wandb: WandbRun

    def write(self, line: Mapping[str, float | int], density: FeatureDensity | None) -> None:
        """Scalars to both, the histogram to W&B alone."""
        self.log.write(line)
        self.wandb.log(line, density)

    def close(self) -> None:
        """End the files of a run that does not get to its end; harmless for one that has."""
        self.log.close()
        self.wandb.finish({}, exit_code=1)


class _Learner:
    """A run with its files: what `train_several` moves forward step by step. Of several processes one has files."""

    def __init__(self, job: Job, group: Group) -> None:
        self.job, self.run = job, Run(job.config, job.data, group)
        self.identity = self.run.identity(list(job.source))
        self.checkpoints = job.folder / "checkpoints"
        self.line: dict[str, float | int] = {}
        self.files: _Files | None = None
        self.windows = 0
        """Whole windows of firings that have been logged."""

    def agreed(self) -> list[str | int]:
        """What processes that train together must have in common."""
        config = self.job.config
        return [self.identity, config.steps(), config.log_every, config.checkpoint_every]

    def load(self) -> None:
        """Go on from the checkpoint, if there is one."""
        if checkpoint := load_checkpoint(self.checkpoints, self.identity):
            self.run.load_state(checkpoint.state, checkpoint.step)
        steps = self.job.config.steps()
        if self.run.steps_done > steps:
            raise InputError(f"checkpoint in {self.checkpoints}", f"at most {steps} steps", str(self.run.steps_done))

    def open(self, report: Report) -> _Files:
        """Begin to write."""
        job, self.windows = self.job, self.run.counter.windows
        about = {"training": job.config.as_json(), "metadata": job.metadata.as_json(), "identity": self.identity}
        wandb = WandbRun(wandb_mode(job.config.wandb), job.folder, job.config.wandb_project, about, report)
        self.files = _Files(MetricsFile(job.folder / METRICS, self.run.steps_done * job.config.batch), wandb)
        for remark in self.run.remarks():
            report(remark)
        return self.files

    def step(self, rows: Float[Tensor, "b d"]) -> None:
        """Learn from a batch, with what has to happen after it."""
        run, config = self.run, self.run.config
        metrics = run.step(rows)
        if run.steps_done % config.log_every == 0 or run.steps_done == config.steps():
            self.line = run.line(metrics)  # in every process, so that a loss that is no number ends them all
            if self.files is not None:
                self.files.write(self.line, self._density())
        if config.checkpoint_every and run.steps_done % config.checkpoint_every == 0:
            self.save()

    def _density(self) -> FeatureDensity | None:
        """How often features fire, once for every whole window of activations; None in between."""
        before, self.windows = self.windows, self.run.counter.windows
        return density_of_rates(self.run.counter.rates()) if self.windows > before else None

    def dictionary(self) -> Dictionary:
        """What has been learnt, with what it is trained on."""
        return replace(self.run.dictionary(), metadata=self.job.metadata.as_json())

    def save(self) -> None:
        """Write a checkpoint now."""
        if self.files is not None:
            save_checkpoint(self.checkpoints, self.run.steps_done, self.run.state(), self.identity)


def train_several(
    jobs: Sequence[Job],
    *,
    on_step: Progress | None = None,
    report: Report = report_as_warning,
    group: Group | None = None,
    judge: Judge | None = None,
) -> list[TrainingResult]:
    """Train all jobs at once: every batch of a stream is fetched once for the jobs that share it.

    Settings may differ in everything but batch, samples, precision and clip. `on_step` sees the first job's metrics.
    Checkpoints are the jobs' own; if they were cut short at different steps, those behind catch up first. `group` and
    `judge` as in `train`; all dictionaries are judged in one call.
    Raises as `train`, and `InputError` for settings that differ where they must not, or a folder given twice.
    """
    _check(jobs)
    devices = sorted({job.config.device for job in jobs}, reverse=True)  # cuda before cpu: its group serves both
    with ExitStack() as stack:
        together = stack.enter_context(group_from_environment(devices[0]) if group is None else nullcontext(group))
        stack.enter_context(matmul_precision(jobs[0].config.precision))
        learners = _begin(jobs, together)
        if together.is_writer:
            for learner in learners:
                stack.callback(learner.open(report).close)
        _steps(learners, on_step, together)
        finished = [learner.dictionary() for learner in learners]
        judged = judge(finished) if judge is not None else [None] * len(jobs)
        results = [_publish(*each) for each in zip(learners, finished, judged, strict=True)]
        if together.is_writer:
            for learner in learners:
                remove_checkpoints(learner.checkpoints)
        together.barrier()  # what was written is there for all
    return results


def _begin(jobs: Sequence[Job], group: Group) -> list[_Learner]:
    """All jobs where their checkpoints stand. Nothing is written before every process has read them."""
    learners = [_Learner(job, group) for job in jobs]
    group.agree("settings and activations", [learner.agreed() for learner in learners])
    for learner in learners:
        learner.load()
    group.agree("checkpoints", [learner.run.steps_done for learner in learners])
    return learners


def _check(jobs: Sequence[Job]) -> None:
    if not jobs:
        raise InputError("training", "at least one job", "none")
    for name in ("batch", "samples", "precision", "clip"):
        if len(found := {getattr(job.config, name) for job in jobs}) > 1:
            raise InputError(f"training option {name} of several jobs", "the same", ", ".join(map(str, sorted(found))))
    if len({job.folder for job in jobs}) < len(jobs):
        raise InputError("folders of several jobs", "one for each", "one of them twice")


def _steps(learners: Sequence[_Learner], on_step: Progress | None, group: Group) -> None:
    """All remaining steps; a request to stop that reaches one process stops all of them, at the same step."""
    total = learners[0].job.config.steps()
    with _stop_requests() as asked_to_stop:
        for step in range(min(learner.run.steps_done for learner in learners), total):
            batches: dict[int, Tensor] = {}
            for learner in learners:
                if learner.run.steps_done != step:
                    continue  # further on already, from a checkpoint of its own
                stream = learner.job.stream
                if id(stream) not in batches:
                    batches[id(stream)] = stream.batch(step)
                learner.step(batches[id(stream)])
            if on_step is not None and group.is_writer:
                on_step(step + 1, total, learners[0].line)
            if group.any(asked_to_stop()) and step + 1 < total:
                for learner in learners:
                    learner.save()
                raise SystemExit(STOPPED)


@contextmanager
def _stop_requests() -> Iterator[Callable[[], bool]]:
    """Yield a function that tells whether SIGTERM has come; outside the main thread there is no telling."""
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    asked: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _frame: asked.append(number))
    try:
        yield lambda: bool(asked)
    finally:
        signal.signal(signal.SIGTERM, before)


def _publish(learner: _Learner, dictionary: Dictionary, behaviour: BehaviourPreservation | None) -> TrainingResult:
    """Evaluate the dictionary, in every process, and write it in one, with all that is known about it."""
    job, run, files = learner.job, learner.run, learner.files
    if files is not None:
        files.log.close()
    fit, test = (None if rows is None else evaluate(dictionary, rows) for rows in (job.fit_rows, job.test_rows))
    best = fit or test
    known = {
        "training": run.config.as_json(),
        "training_samples": run.steps_done * run.config.batch,
        "training_scale": run.scale,
        "l0": best and best.l0,
        "num_dead_features": best and best.dead,
        "evaluation": {
            "fit": fit and fit.as_json(),
            "test": test and test.as_json(),
            "behaviour": behaviour and behaviour.as_json(),
        },
    }
    metadata = replace(job.metadata, extra={**job.metadata.extra, **known})
    rates = best.log10_sparsity if best else None
    dictionary = replace(dictionary, log10_sparsity=rates, metadata=metadata.as_json())
    result = TrainingResult(job.folder / "sae", dictionary, fit, test, run.steps_done, run.scale, behaviour)
    if files is not None:
        _draw(job, rates)
        save_saelens(result.folder, dictionary, metadata)
        files.wandb.finish(_summary(result))
    return result


def _draw(job: Job, rates: Float[Tensor, "n"] | None) -> None:
    """`training.png` and `density.png`, so that nobody needs an account to see how a run went."""
    from saelens_n2g.figures import save
    from saelens_n2g.training.figures import density_figure, read_metrics, training_curves

    title = f"{job.config.architecture}, {job.metadata.hook_name} of {job.metadata.model_name}"
    save(job.folder, "training", partial(training_curves, read_metrics(job.folder / METRICS), title=title))
    if rates is not None:
        save(job.folder, "density", partial(density_figure, {title: feature_density(rates)}))


def _summary(result: TrainingResult) -> dict[str, Any]:
    """The final evaluation, for W&B: `fit/fvu`, `test/l0`, ..., SAELens' groups and the histogram of firing rates."""
    parts = {"fit": result.fit, "test": result.test}
    flat = {f"{k}/{name}": v for k, part in parts.items() if part is not None for name, v in part.as_json().items()}
    flat |= {} if result.behaviour is None else log_values(result.behaviour)
    rates = result.dictionary.log10_sparsity
    return flat if rates is None else {**flat, **density_values(feature_density(rates))}
