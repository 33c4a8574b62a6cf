"""Run: one dictionary being learnt, in memory.

Activations x are centred with their mean and scaled: y = s (x - mean). Because decoder rows have norm 1 and
relu(s z) = s relu(z), what was learnt on y holds for raw x with biases and thresholds divided by s, for the tied one:

    c = relu(W (x - mean) + b / s),  x^ = c W + mean

so the scale goes no further than `Objective.dictionary`, and saved weights always take raw activations.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor

from saelens_n2g.bases.formats import Dictionary
from saelens_n2g.errors import InputError
from saelens_n2g.jobs.artefacts import fingerprint
from saelens_n2g.training.architectures.batchtopk import ThresholdObjective
from saelens_n2g.training.architectures.registry import find_architecture
from saelens_n2g.training.config import TrainingConfig
from saelens_n2g.training.metrics import FiringCounter, log_line
from saelens_n2g.training.objective import Objective, Start, StepMetrics
from saelens_n2g.training.parallel import SINGLE, Group
from saelens_n2g.training.rows import Statistics, shortened


@contextmanager
def matmul_precision(name: str) -> Iterator[None]:
    """Set PyTorch's process-wide float32 matmul precision, and set it back. With `bfloat16` what is left in float32 is
    computed as with `highest`: the factors that are rounded, the objective rounds by itself."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest" if name == "bfloat16" else name)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


class Run:
    """What is learnt, and what is counted. `data`: mean and spread of the activations. `loop.train` drives it.

    group: the processes that train together, each by a `Run` of its own. Raises `InputError` if the batch cannot be
    divided among them.
    """

    def __init__(self, config: TrainingConfig, data: Statistics, group: Group = SINGLE) -> None:
        if config.batch % group.size:
            raise InputError("training option batch", f"a multiple of {group.size} (processes)", str(config.batch))
        self.config, self.data, self.group, self.steps_done = config, data, group, 0
        self.device = group.device(config.device)
        self.d = len(data.mean)
        self.scale = (self.d / data.mean_square) ** 0.5 if config.normalise else 1.0
        self._mean = data.mean.to(self.device, torch.float32)
        n, architecture = config.d_sae(self.d), find_architecture(config.architecture)
        start = Start(
            d=self.d,
            n=n,
            alpha=config.alpha,
            lr=config.lr,
            betas=(config.beta1, config.beta2),
            seed=config.seed,
            dead_after=config.dead_window,
            device=self.device,
            operands=torch.bfloat16 if config.precision == "bfloat16" else None,
            compile=config.compile,
            options=architecture.make_options(config.options),
            group=group,
        )
        self.objective: Objective = architecture.build(start)
        self.counter = FiringCounter(n, config.dead_window, self.device)

    def identity(self, source: list[int | str | None]) -> str:
        """Fingerprint of settings and data: equal for runs of which one may continue the other, on as many processes
        as it likes.

        `source`: what else tells the stream of activations from others.
        """
        # Sums differ in their last bits with the number of threads, and torchrun gives its processes one each.
        mean = (self.data.mean / self.data.mean_square**0.5).tolist()
        rounded = [float(f"{self.data.mean_square:.8e}"), *(round(value, 6) + 0.0 for value in mean)]  # no -0.0
        return fingerprint([self.config.identity(), [*source, *rounded]])

    def step(self, rows: Float[Tensor, "b d"]) -> StepMetrics:
        """Learn from a whole batch of raw activations, of any floating-point type; each process takes its part."""
        x, seen = self.group.part(rows).to(self.device, torch.float32), self.steps_done * self.config.batch
        self.objective.lr, self.objective.alpha = self.config.lr_at(seen), self.config.alpha_at(seen)
        y = (x - self._mean).mul_(self.scale)
        if self.data.limit is not None:
            y = shortened(y, self.data.limit * self.scale)
        metrics = self.objective.step(y)
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

    def remarks(self) -> list[str]:
        """What a user should know about how this differs from what the settings say."""
        if self.group.size == 1 or not isinstance(self.objective, ThresholdObjective):
            return []
        part = self.config.batch // self.group.size
        return [
            f"{self.config.architecture} chooses features over a batch: here over the {part} rows that each of the "
            f"{self.group.size} processes has of {self.config.batch}"
        ]

    def state(self) -> dict[str, Tensor]:
        """All tensors that the next step depends on."""
        parts = {"objective": self.objective.state(), "counter": self.counter.state()}
        return {f"{part}.{name}": tensor for part, state in parts.items() for name, tensor in state.items()}

    def load_state(self, state: dict[str, Tensor], steps_done: int) -> None:
        """Inverse of `state`. Which rows come next follows from the step alone."""
        self.objective.load_state({k.removeprefix("objective."): v for k, v in state.items() if k[0] == "o"})
        self.counter.load_state({k.removeprefix("counter."): v for k, v in state.items() if k[0] == "c"})
        self.steps_done = steps_done

    def dictionary(self) -> Dictionary:
        """What has been learnt so far, for raw activations, on the CPU."""
        return self.objective.dictionary(self._mean, self.scale)
