"""Metrics: what a run reports while it learns, and what a finished dictionary is worth.

Names and units are SAELens' (`losses/mse_loss` sums over dimensions), so that runs can be laid side by side.
"""

from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from saelens_n2g.bases.formats import Dictionary
from saelens_n2g.errors import InputError
from saelens_n2g.training.objective import StepMetrics
from saelens_n2g.training.rows import Rows, as_rows, chunks, statistics
from saelens_n2g.training.sparse import pattern_of

LOG_FLOOR = 1e-10
"""Added to firing rates before the logarithm, as SAELens does: a feature that never fires has -10."""
DENSITY_EDGES = tuple(place / 10 for place in range(-80, 1))
"""Edges of the bins of `feature_density`, in log10 of the firing rate: the same in every run, so that runs compare."""
DENSITY = "plots/feature_density_line_chart"
"""SAELens' name of the histogram of firing rates."""
TYPICAL = 3.0
"""A row is typical if it lies at most this many times as far from the centre as the median row."""


class FiringCounter:
    """When each feature last fired, and how often it did over the last whole window of activations."""

    def __init__(self, n: int, window: int, device: str | torch.device = "cpu") -> None:
        self.window = window
        self.windows = 0
        """Whole windows so far."""
        self.since = torch.zeros(n, dtype=torch.int64, device=device)
        """Activations since each feature last fired."""
        self._counts = torch.zeros(n, device=device)
        self._rates = torch.zeros(n, device=device)
        self._seen = 0

    def add(self, fired: Float[Tensor, "n"], rows: int) -> None:
        """Take in one batch: in how many of its `rows` each feature fired."""
        self.since.add_(rows).masked_fill_(fired > 0, 0)
        self._counts.add_(fired)
        self._seen += rows
        if self._seen >= self.window:
            torch.div(self._counts, self._seen, out=self._rates)
            self._counts.zero_()
            self._seen, self.windows = 0, self.windows + 1

    def rates(self) -> Float[Tensor, "n"]:
        """Share of activations on which each feature fired, over the last whole window or, before, so far."""
        return self._rates if self.windows else self._counts / max(1, self._seen)

    def dead(self) -> int:
        """Features that have not fired for at least a window."""
        return int((self.since >= self.window).sum())

    def state(self) -> dict[str, Tensor]:
        """Everything counted, as named tensors."""
        progress = torch.tensor([self._seen, self.windows])
        return {"since": self.since, "counts": self._counts, "rates": self._rates, "progress": progress}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Inverse of `state`."""
        self.since.copy_(state["since"])
        self._counts.copy_(state["counts"])
        self._rates.copy_(state["rates"])
        self._seen, self.windows = state["progress"].tolist()


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
        **({} if step.resampled is None else {"sparsity/resampled": step.resampled}),
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


def typical_limit(rows: Rows, centre: Float[Tensor, "d"]) -> float:
    """The largest distance from `centre` at which a row is still typical.

    What lies beyond are massive activations (Sun et al. 2024).
    """
    distances = [torch.linalg.vector_norm(chunk.cpu() - centre, dim=1) for chunk in chunks(rows)]
    return TYPICAL * torch.cat(distances).median().item()


@torch.no_grad()
def evaluate(dictionary: Dictionary, rows: Rows, *, size: int = 1024) -> Evaluation:
    """Reconstruct all `rows`, `size` at a time, on the dictionary's device; by the active features alone where they
    are few (`training.sparse`)."""
    device, centre = dictionary.W_dec.device, dictionary.b_dec.float().cpu()
    directions = dictionary.directions
    limit = typical_limit(rows, centre)
    every, typical = _Unexplained(dictionary.d_in), _Unexplained(dictionary.d_in)
    fired = torch.zeros(dictionary.d_sae, dtype=torch.float64, device=device)
    for chunk in chunks(rows, size):
        x = chunk.to(device)
        features = dictionary.encode(x)
        active = pattern_of(features > 0)
        fired += active.fired()
        rebuilt = active.decode(active.values(features), directions) + dictionary.b_dec
        error = (rebuilt - x).double().square().sum(1).cpu()
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


@dataclass(frozen=True, kw_only=True)
class Reconstruction:
    """A dictionary's reconstructions x^ beside the activations x, in raw units; means over rows, in float64.

    The names without `_centred` are SAELens'. Those with it are taken about `b_dec`: x - b_dec and x^ - b_dec. Where
    activations have a large mean, b_dec rebuilds most of x by itself, and raw norms hide how far features shrink.
    """

    rows: int
    """Activations looked at."""
    l2_norm_in: float
    """Mean |x|."""
    l2_norm_out: float
    """Mean |x^|."""
    l2_ratio: float | None
    """Mean |x^| / |x| over rows that are not zero; below 1 is shrinkage. None where all are zero."""
    relative_reconstruction_bias: float | None
    """gamma = E|x^|^2 / E<x, x^>: the factor by which reconstructions would have to be divided to fit best; below 1 is
    shrinkage (Rajamanoharan et al. 2024, arXiv 2404.16014, equation 10). None where E<x, x^> is not positive."""
    l2_norm_in_centred: float
    """Mean |x - b_dec|."""
    l2_norm_out_centred: float
    """Mean |x^ - b_dec|."""
    l2_ratio_centred: float | None
    """Mean |x^ - b_dec| / |x - b_dec|, as `l2_ratio`."""
    relative_reconstruction_bias_centred: float | None
    """gamma about `b_dec`."""
    explained_variance: float | None
    """1 - sum of squared errors / sum of squared distances from the rows' mean: 1 - FVU. None where rows are equal."""
    explained_variance_legacy: float | None
    """Mean over rows of 1 - squared error / squared distance from the mean: rows near the mean decide it."""
    mse: float
    """Mean squared error, summed over dimensions."""
    cossim: float
    """Mean cosine of x and x^; 0 for a row where either is zero."""
    l0: float
    """Mean number of features that are not zero."""
    l1: float
    """Mean sum of the features' absolute values."""

    def as_json(self) -> dict[str, dict[str, float | int | None]]:
        """SAELens' groups `shrinkage`, `reconstruction_quality`, `sparsity` and `token_stats`; None is null."""
        shrinkage = ("l2_norm_in", "l2_norm_out", "l2_ratio", "relative_reconstruction_bias")
        groups = {
            "shrinkage": (*shrinkage, *(f"{name}_centred" for name in shrinkage)),
            "reconstruction_quality": ("explained_variance", "explained_variance_legacy", "mse", "cossim"),
            "sparsity": ("l0", "l1"),
        }
        found = {group: {name: getattr(self, name) for name in names} for group, names in groups.items()}
        return {**found, "token_stats": {"total_tokens_eval_sparsity_variance": self.rows}}


def ratio(above: float, below: float) -> float | None:
    """`above / below`; None instead of a division by what is not positive."""
    return above / below if below > 0 else None


class _Norms:
    """Sums about one centre from which the norms and shrinkage follow, in float64."""

    def __init__(self) -> None:
        self.into = self.out = self.ratio = self.out_square = self.product = 0.0
        self.nonzero = 0

    def add(self, x: Float[Tensor, "b d"], rebuilt: Float[Tensor, "b d"]) -> None:
        into, out = x.norm(dim=1), rebuilt.norm(dim=1)
        some = into > 0
        self.into += into.sum().item()
        self.out += out.sum().item()
        self.ratio += (out[some] / into[some]).sum().item()
        self.nonzero += int(some.sum())
        self.out_square += out.square().sum().item()
        self.product += (x * rebuilt).sum().item()

    def values(self, rows: int, suffix: str) -> dict[str, float | None]:
        return {
            f"l2_norm_in{suffix}": self.into / rows,
            f"l2_norm_out{suffix}": self.out / rows,
            f"l2_ratio{suffix}": ratio(self.ratio, self.nonzero),
            f"relative_reconstruction_bias{suffix}": ratio(self.out_square, self.product),
        }


class ReconstructionSums:
    """Adds up what `Reconstruction` says, rows at a time, in float64.

    mean: (d,), what `explained_variance_legacy` measures distances from. `explained_variance` is about the rows' own
    mean whatever `mean` is: the difference is taken out at the end.
    """

    def __init__(self, dictionary: Dictionary, mean: Float[Tensor, "d"]) -> None:
        self.dictionary, self.mean = dictionary, mean.double().cpu()
        self.centre = dictionary.b_dec.double().cpu()
        self.raw, self.centred = _Norms(), _Norms()
        self.rows = self.apart = 0
        self.error = self.square = self.legacy = self.cosine = self.l0 = self.l1 = 0.0
        self.total = torch.zeros_like(self.mean)

    def add(self, x: Float[Tensor, "b d"]) -> Float[Tensor, "b d"]:
        """Take in rows, and return their reconstructions on the device and in the dtype of `x`."""
        features = self.dictionary.encode(x.to(self.dictionary.W_dec))
        rebuilt = self.dictionary.decode(features).to(x)
        self.rows += len(x)
        self.l0 += (features != 0).sum().item()
        self.l1 += features.abs().sum(dtype=torch.float64).item()
        y, z = x.double().cpu(), rebuilt.double().cpu()
        self.raw.add(y, z)
        self.centred.add(y - self.centre, z - self.centre)
        self.cosine += torch.nn.functional.cosine_similarity(y, z, dim=1).sum().item()
        error, offset = (z - y).square().sum(1), y - self.mean
        distance = offset.square().sum(1)
        some = distance > 0
        self.error += error.sum().item()
        self.square += distance.sum().item()
        self.total += offset.sum(0)
        self.legacy += (1 - error[some] / distance[some]).sum().item()
        self.apart += int(some.sum())
        return rebuilt

    def result(self) -> Reconstruction:
        """The means over all rows taken in, of which there must be some."""
        n, norms = self.rows, {}
        for part, suffix in ((self.raw, ""), (self.centred, "_centred")):
            norms.update(part.values(n, suffix))
        unexplained = ratio(self.error, self.square - self.total.square().sum().item() / n)
        sums: dict[str, Any] = {**norms, "mse": self.error / n, "cossim": self.cosine / n}
        return Reconstruction(
            rows=n,
            explained_variance=None if unexplained is None else 1 - unexplained,
            explained_variance_legacy=self.legacy / self.apart if self.apart else None,
            l0=self.l0 / n,
            l1=self.l1 / n,
            **sums,
        )


@torch.no_grad()
def reconstruction(dictionary: Dictionary, rows: Any, *, size: int = 4096) -> Reconstruction:
    """Rebuild raw activations `rows`, (rows, d_in) or `Rows`, `size` at a time, on the dictionary's device.

    Raises `InputError` for rows of another width, not finite, or all equal.
    """
    rows = as_rows(rows)
    mean = statistics(rows).mean
    check_width(dictionary, len(mean), "activations")
    sums = ReconstructionSums(dictionary, mean)
    for chunk in chunks(rows, size):
        sums.add(chunk.to(dictionary.W_dec.device))
    return sums.result()


def check_width(dictionary: Dictionary, width: int, what: str) -> None:
    """Raises `InputError` unless `width` is the dictionary's d_in."""
    if width != dictionary.d_in:
        raise InputError(what, f"width {dictionary.d_in} (the dictionary's d_in)", f"width {width}")


class FeatureDensity(NamedTuple):
    """How many features fire how often."""

    counts: Int[np.ndarray, "bins"]
    """Features per bin."""
    edges: Float[np.ndarray, "edges"]
    """`DENSITY_EDGES`: log10 of the share of activations on which a feature fires; one more than there are bins."""
    never: int
    """Features without a single firing, in no bin."""


def feature_density(log10_rates: Float[Tensor, "n"]) -> FeatureDensity:
    """Histogram of firing rates as `Evaluation.log10_sparsity` gives them: log10, -10 for a feature that never fires.

    Rates below the first edge count in the first bin. A bin holds its left edge; the last one both.
    """
    values = log10_rates.detach().cpu().double().numpy()
    silent = values <= np.log10(LOG_FLOOR) + 1e-3  # the floor went through float32
    edges = np.array(DENSITY_EDGES)
    counts, _ = np.histogram(np.clip(values[~silent], edges[0], edges[-1]), edges)
    return FeatureDensity(counts, edges, int(silent.sum()))


def density_of_rates(rates: Float[Tensor, "n"]) -> FeatureDensity:
    """Histogram of shares of activations on which features fire, such as `FiringCounter.rates`."""
    return feature_density(torch.log10(rates + LOG_FLOOR))


def density_values(density: FeatureDensity) -> dict[str, Any]:
    """The histogram under SAELens' name as plain lists, for JSON and for `wandb.Histogram(np_histogram=...)`."""
    return {
        f"{DENSITY}/counts": density.counts.tolist(),
        f"{DENSITY}/edges": density.edges.tolist(),
        f"{DENSITY}/never": density.never,
    }


def evaluation_values(evaluation: Evaluation, d_in: int) -> dict[str, float | int]:
    """An `Evaluation` flat under SAELens' names, whose `mse` sums over the `d_in` dimensions. None stays out."""
    log_rates, n = evaluation.log10_sparsity.double(), len(evaluation.log10_sparsity)
    values = {
        "reconstruction_quality/explained_variance": None if evaluation.fvu is None else 1 - evaluation.fvu,
        "reconstruction_quality/mse": evaluation.mse * d_in,
        "sparsity/l0": evaluation.l0,
        "sparsity/dead_features": evaluation.dead,
        "sparsity/below_1e-5": int((log_rates < -5).sum()),
        "sparsity/below_1e-6": int((log_rates < -6).sum()),
        "metrics/mean_log10_feature_sparsity": log_rates.sum().item() / n,
        "token_stats/total_tokens_eval_sparsity_variance": evaluation.rows,
    }
    return {name: value for name, value in values.items() if value is not None}
