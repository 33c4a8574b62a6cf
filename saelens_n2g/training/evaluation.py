"""Evaluation: what a language model loses when a dictionary's reconstruction takes the place of its activations.

    found = behaviour(subject, dictionary, Site(1, "resid_post"), windows)
    found.ce_loss_score, found.kl_div_score                 # 1 = the model does not notice, 0 = as bad as zeros
    found.reconstruction.l2_ratio                           # shrinkage
    log_values(found)                                       # flat, under SAELens' names
    pca_curve(rows, [1, 8, 64], test_rows)                  # what as many principal components leave unexplained
    mmcs(one, other), matched_share(one, other)             # do two dictionaries hold the same directions?

Names and definitions are those of SAELens 6 (its `evals.py`), with one difference, because the activation at a BOS is
not what dictionaries here are trained on and dominates whatever it enters: the BOS keeps its activation in every
variant and counts in no mean. SAELens leaves special tokens out likewise, but its ablation zeroes them too.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from saelens_n2g.bases.formats import Dictionary
from saelens_n2g.corpus import Windows
from saelens_n2g.errors import InputError
from saelens_n2g.sites import Site
from saelens_n2g.training.metrics import Reconstruction, ReconstructionSums, check_width, ratio
from saelens_n2g.training.rows import as_rows, chunks, statistics

BLOCK = 4096
"""Rows of a dictionary that are compared at a time: two blocks' cosines take 64 MiB."""


@runtime_checkable
class SplicedModel(Protocol):
    """What `behaviour` needs of a subject."""

    def activations(self, ids: Int[Tensor, "batch pos"], sites: Sequence[Site]) -> dict[Site, Float[Tensor, "..."]]: ...
    def spliced_logits(
        self, ids: Int[Tensor, "batch pos"], site: Site, edit: Callable[[Tensor], Tensor]
    ) -> Float[Tensor, "batch pos d_vocab"]: ...


# --- the reconstruction spliced into the model ----------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class BehaviourPreservation:
    """How well a model does with the reconstruction, with zeros, and with the mean in place of its activations.

    Losses in nats per token, means over tokens of all windows. Only scored positions (no BOS, no padding) are
    replaced, and only they count: in the divergence all of them, in the cross-entropy those that are followed by a
    token. KL is that of the model's own distribution from the altered one, KL(model || altered).
    """

    site: str
    """Where it was spliced in, as `LAYER.KIND`."""
    windows: int
    tokens: int
    """Positions replaced, over which divergences are means."""
    predictions: int
    """Positions with a next token, over which cross-entropies are means."""
    ce_loss_without_sae: float
    """The model as it is."""
    ce_loss_with_sae: float
    """With the reconstruction."""
    ce_loss_with_ablation: float
    """With zeros."""
    ce_loss_with_mean_ablation: float
    """With the mean activation: ours, the fairer floor where activations have a large mean."""
    kl_div_with_sae: float
    """Of the model with the reconstruction."""
    kl_div_with_ablation: float
    """Of the model with zeros."""
    kl_div_with_mean_ablation: float
    """Of the model with the mean activation."""
    reconstruction: Reconstruction
    """Of the same activations."""

    @property
    def ce_loss_score(self) -> float | None:
        """Share of the loss caused by zeros that the reconstruction avoids; None where zeros do no harm."""
        return self._recovered(self.ce_loss_with_ablation)

    @property
    def ce_loss_score_mean_ablation(self) -> float | None:
        """The same against the mean activation."""
        return self._recovered(self.ce_loss_with_mean_ablation)

    @property
    def kl_div_score(self) -> float | None:
        """1 - divergence with the reconstruction / divergence with zeros; None where zeros change nothing."""
        return _kept(self.kl_div_with_sae, self.kl_div_with_ablation)

    @property
    def kl_div_score_mean_ablation(self) -> float | None:
        """The same against the mean activation."""
        return _kept(self.kl_div_with_sae, self.kl_div_with_mean_ablation)

    def _recovered(self, ablation: float) -> float | None:
        return ratio(ablation - self.ce_loss_with_sae, ablation - self.ce_loss_without_sae)

    def as_json(self) -> dict[str, Any]:
        """SAELens' nested groups, those of the reconstruction among them; None is null."""
        losses = ("without_sae", "with_sae", "with_ablation", "with_mean_ablation")
        scores = ("score", "score_mean_ablation")
        groups = self.reconstruction.as_json()
        groups["token_stats"]["total_tokens_eval_reconstruction"] = self.tokens
        return {
            **groups,
            "model_performance_preservation": {
                f"ce_loss_{name}": getattr(self, f"ce_loss_{name}") for name in (*losses, *scores)
            },
            "model_behavior_preservation": {
                f"kl_div_{name}": getattr(self, f"kl_div_{name}") for name in (*losses[1:], *scores)
            },
        }


def _kept(divergence: float, ablation: float) -> float | None:
    lost = ratio(divergence, ablation)
    return None if lost is None else 1 - lost


def log_values(found: BehaviourPreservation | Reconstruction) -> dict[str, float | int]:
    """`as_json` flat, `GROUP/NAME` -> value, for `metrics.jsonl` and W&B. What is None stays out."""
    groups = found.as_json()
    return {f"{group}/{k}": v for group, values in groups.items() for k, v in values.items() if v is not None}


def _batches(windows: Windows, size: int) -> Iterator[tuple[Int[Tensor, "batch pos"], Bool[Tensor, "batch pos"]]]:
    """Token ids and the positions that are scored, padding cut off as far as all rows have it."""
    mask = windows.mask
    for start in range(0, len(windows), size):
        width = int(windows.lengths[start : start + size].max())
        ids = torch.from_numpy(windows.tokens[start : start + size, :width]).long()
        yield ids, torch.from_numpy(mask[start : start + size, :width])


def _mean_at(subject: SplicedModel, site: Site, windows: Windows, size: int) -> Float[Tensor, "width"]:
    """Mean activation over scored positions, in float64 on the CPU."""
    total = torch.zeros(())
    for ids, scored in _batches(windows, size):
        total = total + subject.activations(ids, [site])[site].cpu()[scored].sum(0, dtype=torch.float64)
    return total / windows.n_tokens


def _replaced(
    scored: Bool[Tensor, "batch pos"], values: Tensor, x: Float[Tensor, "batch pos width"]
) -> Float[Tensor, "batch pos width"]:
    """`x` with `values` (scored positions, width) or (width,) at the scored positions."""
    out = x.clone()
    out[scored.to(x.device)] = values.to(x)
    return out


class _Losses:
    """Sums over tokens, by variant, in float64."""

    def __init__(self) -> None:
        self.tokens = self.predictions = 0
        self.ce: dict[str, float] = {}
        self.kl: dict[str, float] = {}

    def add(self, name: str, log_probs: list[Tensor], model: list[Tensor], targets: list[Tensor]) -> None:
        """Per window: log-probabilities (scored, vocab), the unaltered model's, and the scored tokens themselves."""
        for found, own, ids in zip(log_probs, model, targets, strict=True):
            ce = -found[:-1].gather(1, ids[1:, None].to(found.device)).sum(dtype=torch.float64).item()
            kl = (own.exp() * (own - found)).sum(dtype=torch.float64).item()
            self.ce[name] = self.ce.get(name, 0.0) + ce
            self.kl[name] = self.kl.get(name, 0.0) + kl

    def count(self, scored: Bool[Tensor, "batch pos"]) -> None:
        """Take note of a batch's positions; they are contiguous, so all but the last one of a window predict."""
        per_window = scored.sum(1)
        self.tokens += int(per_window.sum())
        self.predictions += int((per_window - 1).clamp(min=0).sum())


def _log_probs(logits: Float[Tensor, "batch pos vocab"], scored: Bool[Tensor, "batch pos"]) -> list[Tensor]:
    """Per window, (scored, vocab): several windows at once would hold too many copies of a large vocabulary."""
    return [row[keep.to(row.device)].log_softmax(-1) for row, keep in zip(logits, scored, strict=True)]


@torch.no_grad()
def behaviour(
    subject: SplicedModel,
    dictionary: Dictionary,
    site: Site,
    windows: Windows,
    *,
    mean: Float[Tensor, "d_in"] | None = None,
    batch_windows: int = 4,
    report: Callable[[int, int], None] = lambda *_: None,
) -> BehaviourPreservation:
    """Run `windows` through the subject four times: as it is, and with reconstruction, zeros and mean at `site`.

    mean: (d_in,), what mean ablation puts in; None takes the mean over the scored positions of `windows`, for which
    the lower part of the model runs once more. batch_windows: windows at a time; memory grows with it by some three
    (window, vocabulary) float32 tensors. `report` is told of windows done and in all.
    Raises `InputError` if the dictionary is of another hook or width, the subject lacks the site, no position
    predicts a token, or a loss is no number.
    """
    hook = dictionary.metadata.get("hook_name")
    if hook is not None and hook != site.hook:
        raise InputError(f"dictionary for site {site}", f"hook {site.hook}", str(hook))
    if not (windows.mask.sum(1) > 1).any():
        raise InputError("windows to evaluate on", "two tokens in a row besides the BOS", "none")
    if mean is None:
        mean = _mean_at(subject, site, windows, batch_windows)
    check_width(dictionary, len(mean), f"activations at {site}")
    sums, losses, done = ReconstructionSums(dictionary, mean), _Losses(), 0
    for ids, scored in _batches(windows, batch_windows):
        _one_batch(subject, site, ids, scored, mean, sums, losses)
        losses.count(scored)
        done += len(ids)
        report(done, len(windows))
    ce = {name: value / losses.predictions for name, value in losses.ce.items()}
    kl = {name: value / losses.tokens for name, value in losses.kl.items()}
    for name in ce:
        if not (math.isfinite(ce[name]) and math.isfinite(kl[name])):
            raise InputError(f"model {name} at {site}", "finite losses", f"cross-entropy {ce[name]}, KL {kl[name]}")
    return BehaviourPreservation(
        site=str(site),
        windows=len(windows),
        tokens=losses.tokens,
        predictions=losses.predictions,
        **{f"ce_loss_{name}": value for name, value in ce.items()},
        **{f"kl_div_{name}": value for name, value in kl.items() if name != "without_sae"},
        reconstruction=sums.result(),
    )


def _one_batch(
    subject: SplicedModel,
    site: Site,
    ids: Int[Tensor, "batch pos"],
    scored: Bool[Tensor, "batch pos"],
    mean: Tensor,
    sums: ReconstructionSums,
    losses: _Losses,
) -> None:
    """The four runs over one batch."""
    seen: list[Tensor] = []

    def read(x: Tensor) -> Tensor:
        seen.append(x)
        return x

    targets = [row[keep] for row, keep in zip(ids, scored, strict=True)]
    model = _log_probs(subject.spliced_logits(ids, site, read), scored)
    x = seen[0][scored.to(seen[0].device)]
    variants = {
        "with_sae": sums.add(x),
        "with_ablation": x.new_zeros(x.shape[1:]),
        "with_mean_ablation": mean,
    }
    losses.add("without_sae", model, model, targets)
    for name, values in variants.items():
        logits = subject.spliced_logits(ids, site, partial(_replaced, scored, values))
        losses.add(name, _log_probs(logits, scored), model, targets)


# --- references -----------------------------------------------------------------------------------------------


@torch.no_grad()
def pca_curve(rows: Any, ks: Sequence[int], test_rows: Any = None) -> list[tuple[int, float]]:
    """(k, FVU) for each of `ks`: what is left of `test_rows` when only k principal components of `rows` are kept.

    rows, test_rows: raw activations, (rows, d) or `Rows`; None tests on `rows`. The components and the mean are those
    of `rows`, the variance that errors are divided by is that of `test_rows` about their own mean. With k numbers a
    row this is the best that any linear code of `rows` does (Eckart and Young 1936); a dictionary with L0 = k may
    choose other k directions for every row. Exact, by eigen-decomposition in float64.
    Raises `InputError` for a k outside [0, d], and for unusable rows as training does.
    """
    fit = as_rows(rows)
    test = fit if test_rows is None else as_rows(test_rows)
    mean = statistics(fit).mean
    known = statistics(test)
    d = len(mean)
    if len(known.mean) != d:
        raise InputError("test rows", f"width {d} as the fit rows", f"width {len(known.mean)}")
    for k in ks:
        if not 0 <= k <= d:
            raise InputError("number of principal components", f"0 to {d}", str(k))
    scatter = torch.zeros(d, d, dtype=torch.float64)
    for chunk in chunks(fit):
        centred = chunk.cpu().double() - mean.cpu()
        scatter.addmm_(centred.T, centred)
    axes = torch.linalg.eigh(scatter).eigenvectors.flip(1)
    along = torch.zeros(d, dtype=torch.float64)
    for chunk in chunks(test):
        along += ((chunk.cpu().double() - mean.cpu()) @ axes).square().sum(0)
    # Tail sums from the smallest up: a difference from the total would lose what little is left at large k.
    left = torch.cat([along.flip(0).cumsum(0).flip(0), along.new_zeros(1)])
    return [(k, left[k].item() / (known.mean_square * len(test))) for k in ks]


def _directions(dictionary: Dictionary) -> Float[Tensor, "n d"]:
    """Decoder rows at unit length in float32; a row of zeros stays one, with cosine 0 to everything."""
    return torch.nn.functional.normalize(dictionary.W_dec.detach().float(), dim=1)


def _smaller_first(one: Dictionary, other: Dictionary) -> tuple[Float[Tensor, "n d"], Float[Tensor, "m d"]]:
    if one.d_in != other.d_in:
        raise InputError("dictionaries to compare", f"equal d_in ({one.d_in})", str(other.d_in))
    if one.d_sae > other.d_sae:
        one, other = other, one
    a = _directions(one)
    return a, _directions(other).to(a.device)


@torch.no_grad()
def mmcs(one: Dictionary, other: Dictionary) -> float:
    """Mean over the smaller dictionary's features of the largest cosine to a feature of the other, in [-1, 1].

    Mean max cosine similarity: Sharkey et al. 2022 ("Taking features out of superposition with sparse
    autoencoders"), Cunningham et al. 2023. Two features may be closest to the same one (`matched_share` forbids it).
    Among dictionaries of equal size the features of `one` are gone through: swapping them may change the value.
    Never holds more than `BLOCK` x `BLOCK` cosines. Raises `InputError` if the widths differ.
    """
    small, large = _smaller_first(one, other)
    total = 0.0
    for rows in small.split(BLOCK):
        best = torch.stack([(rows @ block.T).amax(1) for block in large.split(BLOCK)]).amax(0)
        total += best.clamp(-1, 1).sum(dtype=torch.float64).item()
    return total / len(small)


@torch.no_grad()
def matched_share(one: Dictionary, other: Dictionary, at: float = 0.9) -> float:
    """Share of the smaller dictionary's features whose partner in the best matching has a cosine above `at`.

    Each feature has one partner of its own, such that the sum of cosines is largest (Hungarian matching, as in the
    code of Cunningham et al. 2023). Holds all n x m cosines, and time grows about as n^2 m: seconds at 4,096 features.
    Raises `InputError` if the widths differ.
    """
    from scipy.optimize import linear_sum_assignment

    small, large = _smaller_first(one, other)
    cosines = (small @ large.T).cpu().numpy()
    rows, columns = linear_sum_assignment(cosines, maximize=True)
    return float((cosines[rows, columns] > at).mean())
