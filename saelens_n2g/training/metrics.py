"""Metrics: what a run reports while it learns, and what a finished dictionary is worth.

Names and units are SAELens' (`losses/mse_loss` sums over dimensions), so that runs can be laid side by side.
"""

from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from saelens_n2g.bases.formats import Dictionary
from saelens_n2g.training.objective import StepMetrics
from saelens_n2g.training.rows import Rows, chunks

LOG_FLOOR = 1e-10
"""Added to firing rates before the logarithm, as SAELens does: a feature that never fires has -10."""
TYPICAL = 3.0
"""A row is typical if it lies at most this many times as far from the centre as the median row."""


class FiringCounter:
    """When each feature last fired, and how often it did over the last whole window of activations."""

    def __init__(self, n: int, window: int, device: str | torch.device = "cpu") -> None:
        self.window = window
        self.since = torch.zeros(n, dtype=torch.int64, device=device)
        """Activations since each feature last fired."""
        self._counts = torch.zeros(n, device=device)
        self._rates = torch.zeros(n, device=device)
        self._seen, self._windows = 0, 0

    def add(self, fired: Float[Tensor, "n"], rows: int) -> None:
        """Take in one batch: in how many of its `rows` each feature fired."""
        self.since.add_(rows).masked_fill_(fired > 0, 0)
        self._counts.add_(fired)
        self._seen += rows
        if self._seen >= self.window:
            torch.div(self._counts, self._seen, out=self._rates)
            self._counts.zero_()
            self._seen, self._windows = 0, self._windows + 1

    def rates(self) -> Float[Tensor, "n"]:
        """Share of activations on which each feature fired, over the last whole window or, before, so far."""
        return self._rates if self._windows else self._counts / max(1, self._seen)

    def dead(self) -> int:
        """Features that have not fired for at least a window."""
        return int((self.since >= self.window).sum())

    def state(self) -> dict[str, Tensor]:
        """Everything counted, as named tensors."""
        progress = torch.tensor([self._seen, self._windows])
        return {"since": self.since, "counts": self._counts, "rates": self._rates, "progress": progress}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Inverse of `state`."""
        self.since.copy_(state["since"])
        self._counts.copy_(state["counts"])
        self._rates.copy_(state["rates"])
        self._seen, self._windows = state["progress"].tolist()


def log_line(
    step: StepMetrics, counter: FiringCounter, *, d_in: int, alpha: float, lr: float, samples: int
) -> dict[str, float | int]:
    """One line of metrics. Losses are those of the objective times `d_in`: the error summed over dimensions."""
    mse, parts = d_in * step.mse.item(), {name: d_in * part.item() for name, part in step.parts.items()}
    log_rates = torch.log10(counter.rates() + LOG_FLOOR)
    return {
        "losses/overall_loss": mse + sum(parts.values()),
        "losses/mse_loss": mse,
        **{f"losses/{name}": part for name, part in parts.items()},
        "metrics/explained_variance": 1 - step.mse.item() / step.variance.item(),
        "metrics/l0": step.l0.item(),
        "metrics/mean_log10_feature_sparsity": log_rates.mean().item(),
        "sparsity/dead_features": counter.dead(),
        "sparsity/below_1e-5": int((counter.rates() < 1e-5).sum()),
        "sparsity/below_1e-6": int((counter.rates() < 1e-6).sum()),
        "details/current_learning_rate": lr,
        "details/l1_coefficient": d_in * alpha,
        "details/n_training_samples": samples,
    }


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What a dictionary does to a set of rows it does not learn from."""

    rows: int
    fvu: float | None
    """Fraction of variance unexplained: squared error over squared distance from the rows' mean, both summed over all
    rows before dividing (1 - SAELens' `explained_variance`). None where the rows do not vary. A few rows of enormous
    norm can decide it."""
    fvu_typical: float | None
    """The same over the typical rows alone (`TYPICAL`), about their own mean."""
    typical_rows: int
    mse: float
    """Mean squared error per dimension, in raw units."""
    l0: float
    """Mean number of features above zero."""
    alive: int
    """Features above zero on at least one row."""
    dead: int
    """Features above zero on no row."""
    log10_sparsity: Float[Tensor, "d_sae"]
    """log10 of the share of rows on which each feature is above zero; -10 for none."""

    def as_json(self) -> dict[str, Any]:
        """All but the rate of each feature, as JSON values."""
        return {k: v for k, v in asdict(self).items() if k != "log10_sparsity"}


class _Unexplained:
    """Sums from which the fraction of variance unexplained follows, in float64."""

    def __init__(self, d: int) -> None:
        self.rows, self.error, self.square, self.total = 0, 0.0, 0.0, torch.zeros(d, dtype=torch.float64)

    def add(self, centred: Float[Tensor, "b d"], error: Float[Tensor, "b"]) -> None:
        self.rows += len(centred)
        self.error += error.sum().item()
        self.square += centred.square().sum().item()
        self.total += centred.sum(0)

    def fvu(self) -> float | None:
        """None where the rows do not vary."""
        variance = self.square - self.total.square().sum().item() / max(1, self.rows)
        return self.error / variance if variance > 0 else None


def _limit(rows: Rows, centre: Float[Tensor, "d"]) -> float:
    """The largest distance from `centre` at which a row is still typical."""
    distances = [torch.linalg.vector_norm(chunk.cpu() - centre, dim=1) for chunk in chunks(rows)]
    return TYPICAL * torch.cat(distances).median().item()


@torch.no_grad()
def evaluate(dictionary: Dictionary, rows: Rows, *, size: int = 4096) -> Evaluation:
    """Reconstruct all `rows`, `size` at a time, on the dictionary's device."""
    device, centre = dictionary.W_dec.device, dictionary.b_dec.float().cpu()
    limit = _limit(rows, centre)
    every, typical = _Unexplained(dictionary.d_in), _Unexplained(dictionary.d_in)
    fired = torch.zeros(dictionary.d_sae, dtype=torch.float64, device=device)
    for chunk in chunks(rows, size):
        x = chunk.to(device)
        features = dictionary.encode(x)
        fired += (features > 0).to(x.dtype).sum(0)
        error = (dictionary.decode(features) - x).double().square().sum(1).cpu()
        centred = chunk.cpu() - centre
        near = torch.linalg.vector_norm(centred, dim=1) <= limit
        every.add(centred.double(), error)
        typical.add(centred[near].double(), error[near])
    alive = int((fired > 0).sum())
    return Evaluation(
        rows=len(rows),
        fvu=every.fvu(),
        fvu_typical=typical.fvu(),
        typical_rows=typical.rows,
        mse=every.error / (len(rows) * dictionary.d_in),
        l0=fired.sum().item() / len(rows),
        alive=alive,
        dead=dictionary.d_sae - alive,
        log10_sparsity=torch.log10(fired / len(rows) + LOG_FLOOR).float().cpu(),
    )
