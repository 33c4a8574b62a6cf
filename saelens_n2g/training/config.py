"""TrainingConfig: every choice of one training run, in one place."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

from saelens_n2g.errors import InputError
from saelens_n2g.jobs.artefacts import fingerprint

WandbMode = Literal["auto", "online", "offline", "disabled"]
Precision = Literal["highest", "high", "medium", "bfloat16"]


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How a dictionary is learnt. Raises `InputError` on impossible values.

    The defaults are those of the tied dictionary of Cunningham et al. 2023, section 2.
    """

    architecture: str = "tied"
    """tied, relu, topk, batchtopk, matryoshka, jumprelu or gated (`saelens_n2g.training.architectures`)."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """The architecture's own settings, such as `k`."""
    expansion: float = 4.0
    """R = d_sae / d_in: features per dimension of the activations."""
    alpha: float = 8.6e-4
    """Weight of the L1 term beside a squared error averaged over dimensions, as in the authors' code (their 8.6e-4).
    Where the error is summed over dimensions (SAELens, dictionary_learning, the paper's formula) the same objective
    has the weight `alpha * d_in`: 0.44 at d_in 512, 0.50 at 576. With `normalise`, activations have a root mean
    square of 1 per dimension; without, the weight acts on raw activations and means something else in every model."""
    lr: float = 3e-3
    """Adam's learning rate, constant. The authors' code sets 1e-3, but there Adam's step counter never advances, so
    that its bias correction stays that of the first step and long runs move at about 3.2e-4 of ordinary Adam. They
    see tens of millions of activations; over about one million, 3e-3 reached a lower error at a lower L0 than 1e-3
    and 6e-3 did (residual stream of SmolLM2-135M)."""
    lr_warmup: int = 0
    """Activations over which the learning rate rises from 0 in a straight line."""
    lr_decay: int = 0
    """Last activations of the run over which the learning rate falls to 0 in a straight line."""
    alpha_warmup: int = 0
    """Activations over which alpha rises from 0 in a straight line: fewer features die early."""
    beta1: float = 0.9
    """Adam's decay of the mean gradient."""
    beta2: float = 0.999
    """Adam's decay of the mean squared gradient."""
    batch: int = 1024
    """Activations per step; 1024 in the authors' large runs, 256 in their small ones. Over few samples, small batches
    get further: a feature's first job is to fall silent almost everywhere, and that takes steps."""
    samples: int = 1_000_000
    """Activations seen in all, epoch after epoch, rounded down to whole batches."""
    seed: int = 0
    """For the start and for the order of the rows."""
    normalise: bool = True
    """Whether to train on activations scaled to a mean squared norm of d_in; the saved weights take raw ones."""
    clip: float = 0.0
    """Longest distance from the mean that is learnt from, in median distances; longer activations are shortened to it,
    in training alone. 0 takes all as they are. A few tokens of many models have activations hundreds of times as long
    as the others ("massive activations", Sun et al. 2024), which then decide scale and loss by themselves."""
    device: str = "cpu"
    """Where the dictionary is trained, as PyTorch names it."""
    precision: Precision = "highest"
    """Of matrix products. `highest` is float32 throughout. `high` and `medium` are PyTorch's float32 matmul precisions:
    TF32 or bfloat16 products where the hardware has them, elsewhere only another library. `bfloat16` rounds the factors
    of products on any hardware and computes them all dense; weights, Adam's moments, sums and losses stay float32."""
    compile: bool = False
    """Whether torch.compile translates the gradient of the tied dictionary (others refuse). Meant for GPUs, where it
    should save passes over memory between the products (not measured); on a CPU it gives up the sparse way. The first
    step waits for the compiler. Computes the same, rounded otherwise, as another `device` does: a run may be continued
    with or without."""
    log_every: int = 50
    """Steps between two lines of metrics."""
    checkpoint_every: int = 500
    """Steps between two checkpoints; 0 writes none."""
    dead_window: int = 100_000
    """A feature that has not fired for this many activations is dead. Also the least number of activations over
    which firing rates are taken."""
    wandb: WandbMode = "auto"
    """`auto` goes online where there is an account, else offline; WANDB_MODE in the environment overrides `auto`, and
    `disabled` there overrides everything."""
    wandb_project: str = "saelens-n2g"
    """Project in Weights & Biases."""

    def __post_init__(self) -> None:
        for name in ("expansion", "lr", "batch", "samples", "log_every", "dead_window"):
            if not getattr(self, name) > 0:
                raise InputError(f"training option {name}", "a number above 0", str(getattr(self, name)))
        for name in ("alpha", "checkpoint_every", "seed", "lr_warmup", "lr_decay", "alpha_warmup", "clip"):
            if not getattr(self, name) >= 0:
                raise InputError(f"training option {name}", "a number >= 0", str(getattr(self, name)))
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise InputError(f"training option {name}", "a number in [0, 1)", str(getattr(self, name)))
        if self.samples < self.batch:
            raise InputError("training option samples", f"at least one batch ({self.batch})", str(self.samples))
        for name, allowed in (("wandb", get_args(WandbMode)), ("precision", get_args(Precision))):
            if getattr(self, name) not in allowed:
                raise InputError(f"training option {name}", f"one of {', '.join(allowed)}", repr(getattr(self, name)))

    def lr_at(self, seen: int) -> float:
        """Learning rate after `seen` activations."""
        rising = min(1.0, (seen + self.batch) / self.lr_warmup) if self.lr_warmup else 1.0
        left = self.steps() * self.batch - seen
        return self.lr * rising * (min(1.0, left / self.lr_decay) if self.lr_decay else 1.0)

    def alpha_at(self, seen: int) -> float:
        """Weight of the sparsity term after `seen` activations."""
        return self.alpha * (min(1.0, seen / self.alpha_warmup) if self.alpha_warmup else 1.0)

    def steps(self) -> int:
        """Steps in all."""
        return self.samples // self.batch

    def d_sae(self, d_in: int) -> int:
        """Features for activations of width `d_in`."""
        return max(1, round(self.expansion * d_in))

    def identity(self) -> str:
        """Fingerprint of whatever decides the weights after a given step: runs that agree in it may be continued."""
        apart = ["device", "compile", "log_every", "checkpoint_every", "wandb", "wandb_project"]
        if not self.lr_decay:
            apart.append("samples")  # a run may be made longer, unless its last steps are others than the rest
        kept = {k: v for k, v in self.as_json().items() if k not in apart}
        # 4 and 4.0 are one expansion.
        return fingerprint({k: float(v) if isinstance(v, int | float) else v for k, v in kept.items()})

    def as_json(self) -> dict[str, Any]:
        """All fields, as JSON values."""
        return asdict(self)
