"""The training loop: rows of activations in, a finished SAELens folder out.

    run/
      metrics.jsonl     one line every `log_every` steps
      checkpoints/      while it runs
      wandb/            unless disabled
      sae/              the dictionary: `cfg.json`, weights, firing rates, commit marker

Activations x are centred with their mean and scaled: y = s (x - mean). Because decoder rows have norm 1 and
relu(s z) = s relu(z), what was learnt on y holds for raw x with biases and thresholds divided by s, for the tied one:

    c = relu(W (x - mean) + b / s),  x^ = c W + mean

so the scale goes no further than `Objective.dictionary`, and saved weights always take raw activations.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from saelens_n2g.bases.formats import Dictionary, SaeMetadata, save_saelens
from saelens_n2g.errors import InputError
from saelens_n2g.jobs.artefacts import fingerprint
from saelens_n2g.training.architectures.registry import find_architecture
from saelens_n2g.training.checkpoint import load_checkpoint, remove_checkpoints, save_checkpoint
from saelens_n2g.training.config import TrainingConfig
from saelens_n2g.training.logging import METRICS, MetricsFile, Report, WandbRun, report_as_warning, wandb_mode
from saelens_n2g.training.metrics import Evaluation, FiringCounter, evaluate, log_line
from saelens_n2g.training.objective import Objective, Start, StepMetrics
from saelens_n2g.training.rows import Rows, ShuffledOrder, Statistics, as_rows, statistics

Progress = Callable[[int, int, Mapping[str, float | int]], None]
"""Called after every step with steps done, steps in all, and the latest line of metrics (empty before the first)."""


@dataclass(frozen=True, eq=False)
class TrainingResult:
    """A finished run."""

    folder: Path
    """The SAELens folder."""
    dictionary: Dictionary
    fit: Evaluation
    """On the rows learnt from."""
    test: Evaluation | None
    """On held-out rows, if any were given."""
    steps: int
    scale: float
    """What the centred activations were multiplied by in training."""


@contextmanager
def matmul_precision(name: str) -> Iterator[None]:
    """Set PyTorch's process-wide float32 matmul precision, and set it back."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(name)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


class Training:
    """One run in memory: what is learnt, what is counted, and the order of the rows. `train` drives it."""

    def __init__(self, config: TrainingConfig, rows: Rows) -> None:
        self.config, self.rows, self.steps_done = config, rows, 0
        self.order = ShuffledOrder(len(rows), config.batch, config.seed)
        self.data: Statistics = statistics(rows)
        self.d = len(self.data.mean)
        self.scale = (self.d / self.data.mean_square) ** 0.5 if config.normalise else 1.0
        self._mean = self.data.mean.to(config.device, torch.float32)
        n, architecture = config.d_sae(self.d), find_architecture(config.architecture)
        start = Start(
            d=self.d,
            n=n,
            alpha=config.alpha,
            lr=config.lr,
            betas=(config.beta1, config.beta2),
            seed=config.seed,
            dead_after=config.dead_window,
            device=config.device,
            options=architecture.make_options(config.options),
        )
        self.objective: Objective = architecture.build(start)
        self.counter = FiringCounter(n, config.dead_window, config.device)

    def identity(self) -> str:
        """Fingerprint of settings and data: equal for runs of which one may continue the other."""
        data = [len(self.rows), self.data.mean_square, *self.data.mean.tolist()]
        return fingerprint([self.config.identity(), data])

    def step(self) -> StepMetrics:
        """Learn from the next batch."""
        x = self.rows.gather(self.order.indices(self.steps_done)).to(self.config.device, torch.float32)
        seen = self.steps_done * self.config.batch
        self.objective.lr, self.objective.alpha = self.config.lr_at(seen), self.config.alpha_at(seen)
        metrics = self.objective.step((x - self._mean).mul_(self.scale))
        self.counter.add(metrics.fired, self.config.batch)
        self.steps_done += 1
        return metrics

    def line(self, metrics: StepMetrics) -> dict[str, float | int]:
        """The last step as a line of metrics. Raises `InputError` if the loss is no number any more."""
        if not torch.isfinite(metrics.loss):
            raise InputError(
                f"training at step {self.steps_done}", "a finite loss", f"{metrics.loss.item()} (try a lower lr)"
            )
        samples, objective = self.steps_done * self.config.batch, self.objective
        return log_line(metrics, self.counter, d_in=self.d, alpha=objective.alpha, lr=objective.lr, samples=samples)

    def state(self) -> dict[str, Tensor]:
        """All tensors that the next step depends on."""
        parts = {"objective": self.objective.state(), "counter": self.counter.state()}
        return {f"{part}.{name}": tensor for part, state in parts.items() for name, tensor in state.items()}

    def load_state(self, state: dict[str, Tensor], steps_done: int) -> None:
        """Inverse of `state`. The order of the rows follows from the step alone."""
        self.objective.load_state({k.removeprefix("objective."): v for k, v in state.items() if k[0] == "o"})
        self.counter.load_state({k.removeprefix("counter."): v for k, v in state.items() if k[0] == "c"})
        self.steps_done = steps_done

    def dictionary(self) -> Dictionary:
        """What has been learnt so far, for raw activations, on the CPU."""
        return self.objective.dictionary(self._mean, self.scale)


def train(
    config: TrainingConfig,
    rows: Float[Tensor, "rows d"] | Any,
    folder: Path,
    *,
    metadata: SaeMetadata,
    test_rows: Any = None,
    on_step: Progress | None = None,
    report: Report = report_as_warning,
) -> TrainingResult:
    """Train a tied dictionary on `rows` and publish it as `folder/sae`.

    rows, test_rows: (rows, d_in) tensor, array (mapped from a file if wanted) or `Rows`; raw activations, without
    those at BOS. metadata: what they are activations of. A checkpoint in `folder` of the same settings and data is
    continued, to the same weights that an undisturbed run ends with. `report` takes one-line remarks.
    Raises `InputError` for unusable activations, a diverging loss, or a checkpoint of another run.
    """
    rows, checkpoints = as_rows(rows), folder / "checkpoints"
    test_rows = None if test_rows is None else as_rows(test_rows)
    with matmul_precision(config.precision):
        run = Training(config, rows)
        identity = run.identity()
        if checkpoint := load_checkpoint(checkpoints, identity):
            run.load_state(checkpoint.state, checkpoint.step)
        if run.steps_done > config.steps():
            raise InputError(f"checkpoint in {checkpoints}", f"at most {config.steps()} steps", str(run.steps_done))
        about = {"training": config.as_json(), "metadata": metadata.as_json(), "identity": identity}
        wandb = WandbRun(wandb_mode(config.wandb), folder, config.wandb_project, about, report)
        try:
            log = MetricsFile(folder / METRICS, run.steps_done * config.batch)
            _steps(run, checkpoints, identity, log, wandb, on_step)
            result = _publish(run, folder, metadata, rows, test_rows)
        except BaseException:
            wandb.finish({}, exit_code=1)
            raise
    wandb.finish(_summary(result))
    remove_checkpoints(checkpoints)
    return result


def _steps(
    run: Training, checkpoints: Path, identity: str, log: MetricsFile, wandb: WandbRun, on_step: Progress | None
) -> None:
    """All remaining steps, with what has to happen between them."""
    config, total, line = run.config, run.config.steps(), dict[str, float | int]()
    try:
        while run.steps_done < total:
            metrics = run.step()
            if run.steps_done % config.log_every == 0 or run.steps_done == total:
                line = run.line(metrics)
                log.write(line)
                wandb.log(line)
            if config.checkpoint_every and run.steps_done % config.checkpoint_every == 0:
                save_checkpoint(checkpoints, run.steps_done, run.state(), identity)
            if on_step is not None:
                on_step(run.steps_done, total, line)
    finally:
        log.close()


def _publish(run: Training, folder: Path, metadata: SaeMetadata, rows: Rows, test_rows: Rows | None) -> TrainingResult:
    """Evaluate the dictionary and write it, with all that is known about it."""
    dictionary = run.dictionary()
    fit = evaluate(dictionary, rows)
    test = None if test_rows is None else evaluate(dictionary, test_rows)
    known = {
        "training": run.config.as_json(),
        "training_samples": run.steps_done * run.config.batch,
        "training_scale": run.scale,
        "l0": fit.l0,
        "num_dead_features": fit.dead,
        "evaluation": {"fit": fit.as_json(), "test": test and test.as_json()},
    }
    metadata = replace(metadata, extra={**metadata.extra, **known})
    dictionary = replace(dictionary, log10_sparsity=fit.log10_sparsity, metadata=metadata.as_json())
    save_saelens(folder / "sae", dictionary, metadata)
    return TrainingResult(folder / "sae", dictionary, fit, test, run.steps_done, run.scale)


def _summary(result: TrainingResult) -> dict[str, Any]:
    """The final evaluation, for W&B: `fit/fvu`, `test/l0`, ..."""
    parts = {"fit": result.fit, "test": result.test}
    return {f"{k}/{name}": v for k, part in parts.items() if part is not None for name, v in part.as_json().items()}
