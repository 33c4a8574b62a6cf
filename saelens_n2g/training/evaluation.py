"""Evaluation: what a language model loses when a dictionary's reconstruction takes the place of its activations.

    found = behaviour(subject, dictionary, Site(1, "resid_post"), windows)
    found.ce_loss_score, found.kl_div_score                 # 1 = the model does not notice, 0 = as bad as zeros
    found.reconstruction.l2_ratio                           # shrinkage
    log_values(found)                                       # flat, under SAELens' names
    behaviours(subject, dictionaries, site, windows)        # several at one site for little more than one

Names and definitions are those of SAELens 6 (its `evals.py`), with one difference, because the activation at a BOS is
not what dictionaries here are trained on and dominates whatever it enters: the BOS keeps its activation in every
variant and counts in no mean. SAELens leaves special tokens out likewise, but its ablation zeroes them too.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from saelens_n2g.activations import token_batches
from saelens_n2g.bases.formats import Dictionary
from saelens_n2g.corpus import Windows
from saelens_n2g.errors import InputError
from saelens_n2g.sites import Site
from saelens_n2g.training.metrics import Reconstruction, ReconstructionSums, check_width, ratio

JUDGED = 4
"""Windows on which dictionaries are evaluated in the model when training ends: each costs a pass for every dictionary
and three more."""
VARIANTS = 12
"""Texts that go through the upper part of the model at once; with their logits they take some 600 MB at a vocabulary of
50,000 and 128 tokens."""
TRIED = 8
"""Tokens on which `widens` tries."""
TOLERANCE = {torch.bfloat16: 0.1, torch.float16: 0.02}
"""Relative difference that counts as rounding, where it is not 1e-3. A wrong broadcast gives differences of order 1."""


@runtime_checkable
class SplicedModel(Protocol):
    """What `behaviour` needs of a subject."""

    def activations(self, ids: Int[Tensor, "batch pos"], sites: Sequence[Site]) -> dict[Site, Float[Tensor, "..."]]: ...
    def spliced_logits(
        self, ids: Int[Tensor, "batch pos"], site: Site, edit: Callable[[Tensor], Tensor]
    ) -> Float[Tensor, "rows pos d_vocab"]: ...


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


def _mean_at(subject: SplicedModel, site: Site, windows: Windows, size: int) -> Float[Tensor, "width"]:
    """Mean activation over scored positions, in float64 on the CPU."""
    total = torch.zeros(())
    for ids, scored in token_batches(windows, size):
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
        self._own: list[Tensor] = []
        self._shares: list[Tensor] = []
        self._targets: list[Tensor] = []

    def begin(
        self, ids: Int[Tensor, "batch pos"], scored: Bool[Tensor, "batch pos"], own: Float[Tensor, "batch pos vocab"]
    ) -> None:
        """A batch and the unaltered model's logits. Scored positions are contiguous, so all but a window's last one
        predict."""
        per_window = scored.sum(1)
        self.tokens += int(per_window.sum())
        self.predictions += int((per_window - 1).clamp(min=0).sum())
        self._own = _log_probs(own, scored)
        self._shares = [values.exp() for values in self._own]
        self._targets = [row[keep].to(own.device) for row, keep in zip(ids, scored, strict=True)]

    def add(self, name: str, logits: Float[Tensor, "batch pos vocab"], scored: Bool[Tensor, "batch pos"]) -> None:
        """The logits of a variant on the batch that was begun."""
        parts = zip(_log_probs(logits, scored), self._own, self._shares, self._targets, strict=True)
        for found, own, shares, ids in parts:
            ce = -found[:-1].gather(1, ids[1:, None]).sum(dtype=torch.float64).item()
            # Position by position in float32: the terms are shares of a token, so nothing large cancels.
            kl = torch.linalg.vecdot(shares, own - found).sum(dtype=torch.float64).item()
            self.ce[name] = self.ce.get(name, 0.0) + ce
            self.kl[name] = self.kl.get(name, 0.0) + kl

    def means(self, site: Site) -> tuple[dict[str, float], dict[str, float]]:
        """Cross-entropy and KL by variant, per token. Raises `InputError` if one is no number."""
        ce = {name: value / self.predictions for name, value in self.ce.items()}
        kl = {name: value / self.tokens for name, value in self.kl.items()}
        for name in ce:
            if not (math.isfinite(ce[name]) and math.isfinite(kl[name])):
                found = f"cross-entropy {ce[name]}, KL {kl[name]}"
                raise InputError(f"model {name.partition(' ')[0]} at {site}", "finite losses", found)
        return ce, kl


def _log_probs(logits: Float[Tensor, "batch pos vocab"], scored: Bool[Tensor, "batch pos"]) -> list[Tensor]:
    """Per window, (scored, vocab): several windows at once would hold too many copies of a large vocabulary."""
    return [row[keep.to(row.device)].log_softmax(-1) for row, keep in zip(logits, scored, strict=True)]


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
    """What `windows` tell of one dictionary; see `behaviours`."""
    found = behaviours(subject, [dictionary], site, windows, mean=mean, batch_windows=batch_windows, report=report)
    return found[0]


@torch.no_grad()
def behaviours(
    subject: SplicedModel,
    dictionaries: Sequence[Dictionary],
    site: Site,
    windows: Windows,
    *,
    mean: Float[Tensor, "d_in"] | None = None,
    batch_windows: int = 4,
    report: Callable[[int, int], None] = lambda *_: None,
) -> list[BehaviourPreservation]:
    """Run `windows` through the subject as it is, and with zeros, the mean and each reconstruction at `site`.

    The model as it is, zeros and the mean are run once for all dictionaries. Where the model lets a batch grow
    (`widens`, tried once), a window passes the layers below the site once and what is put in at the site goes on side
    by side; else every variant is a run of its own, `batch_windows` windows at a time. mean: (d_in,), what mean
    ablation puts in; None takes the mean over the scored positions of `windows`, for which the lower part of the model
    runs once more. `report` is told of windows done and in all.
    Raises `InputError` if a dictionary is of another hook or width, there is none, the subject lacks the site, no
    position predicts a token, or a loss is no number.
    """
    _check(dictionaries, site, windows)
    if mean is None:
        mean = _mean_at(subject, site, windows, batch_windows)
    for dictionary in dictionaries:
        check_width(dictionary, len(mean), f"activations at {site}")
    wide = widens(subject, site, torch.from_numpy(windows.tokens[:1, :TRIED]).long())
    sums, losses, done = [ReconstructionSums(d, mean) for d in dictionaries], _Losses(), 0
    for ids, scored in token_batches(windows, 1 if wide else batch_windows):
        if scored.any():
            _one_batch(subject, site, ids, scored, mean, sums, losses, wide=wide)
        done += len(ids)
        report(done, len(windows))
    ce, kl = losses.means(site)
    return [
        BehaviourPreservation(
            site=str(site),
            windows=len(windows),
            tokens=losses.tokens,
            predictions=losses.predictions,
            ce_loss_with_sae=ce[f"with_sae {i}"],
            kl_div_with_sae=kl[f"with_sae {i}"],
            **{f"ce_loss_{name}": ce[name] for name in ("without_sae", "with_ablation", "with_mean_ablation")},
            **{f"kl_div_{name}": kl[name] for name in ("with_ablation", "with_mean_ablation")},
            reconstruction=found.result(),
        )
        for i, found in enumerate(sums)
    ]


def judge_on(
    subject: SplicedModel, windows: Windows, report: Callable[[str], None]
) -> Callable[[Sequence[Dictionary]], list[BehaviourPreservation | None]]:
    """`behaviours` of dictionaries of any sites, which each names in its metadata: what training asks at its end.

    None where it cannot be had, with the reason as a line of `report`: it is no reason to lose what was learnt.
    """

    def judge(dictionaries: Sequence[Dictionary]) -> list[BehaviourPreservation | None]:
        found: list[BehaviourPreservation | None] = [None] * len(dictionaries)
        hooks = [str(dictionary.metadata["hook_name"]) for dictionary in dictionaries]
        for hook in dict.fromkeys(hooks):
            places = [place for place, other in enumerate(hooks) if other == hook]
            try:
                results = behaviours(subject, [dictionaries[place] for place in places], Site.parse(hook), windows)
            except InputError as error:
                report(f"not evaluated in the model: {error}")
                continue
            for place, result in zip(places, results, strict=True):
                found[place] = result
        return found

    return judge


def spread(windows: Windows, n: int) -> Windows:
    """At most `n` windows, evenly spread over those that have something to predict (all, if none has)."""
    some = np.flatnonzero(windows.mask.sum(1) > 1)
    places = some if len(some) else np.arange(len(windows))
    chosen = np.linspace(0, len(places) - 1, min(n, len(places))).round().astype(np.int64)
    return windows.subset(places[chosen])


def _check(dictionaries: Sequence[Dictionary], site: Site, windows: Windows) -> None:
    if not dictionaries:
        raise InputError("dictionaries to evaluate", "one or more", "none")
    for dictionary in dictionaries:
        hook = dictionary.metadata.get("hook_name")
        if hook is not None and hook != site.hook:
            raise InputError(f"dictionary for site {site}", f"hook {site.hook}", str(hook))
    if not (windows.mask.sum(1) > 1).any():
        raise InputError("windows to evaluate on", "two tokens in a row besides the BOS", "none")


Edit = Callable[[Tensor], Tensor]


def _one_batch(
    subject: SplicedModel,
    site: Site,
    ids: Int[Tensor, "batch pos"],
    scored: Bool[Tensor, "batch pos"],
    mean: Tensor,
    sums: Sequence[ReconstructionSums],
    losses: _Losses,
    *,
    wide: bool,
) -> None:
    """All variants over one batch."""

    def rebuilt(x: Tensor, one: ReconstructionSums) -> Tensor:
        return _replaced(scored, one.add(x[scored.to(x.device)]), x)

    edits: dict[str, Edit] = {
        "without_sae": lambda x: x,
        "with_ablation": lambda x: _replaced(scored, x.new_zeros(x.shape[-1]), x),
        "with_mean_ablation": lambda x: _replaced(scored, mean, x),
    }
    edits |= {f"with_sae {i}": partial(rebuilt, one=one) for i, one in enumerate(sums)}
    for name, logits in zip(edits, _runs(subject, site, ids, list(edits.values()), wide=wide), strict=True):
        if name == "without_sae":
            losses.begin(ids, scored, logits)
        losses.add(name, logits, scored)


def _runs(
    subject: SplicedModel, site: Site, ids: Int[Tensor, "batch pos"], edits: Sequence[Edit], *, wide: bool
) -> Iterator[Float[Tensor, "batch pos vocab"]]:
    """The logits under each edit, in order; every edit is called once."""
    step = VARIANTS if wide else 1
    for start in range(0, len(edits), step):
        group = edits[start : start + step]
        yield from subject.spliced_logits(ids, site, partial(_below_each_other, group)).split(len(ids))


def _below_each_other(edits: Sequence[Edit], x: Tensor) -> Tensor:
    return torch.cat([edit(x) for edit in edits])


def widens(subject: SplicedModel, site: Site, ids: Int[Tensor, "one pos"]) -> bool:
    """Whether one text may become several at `site`, each of which comes out as it would by itself, up to rounding.

    Costs three passes over `ids`. Raises `InputError` as the subject does.
    """
    edits: list[Edit] = [lambda x: x, lambda x: x.flip(1) / 2]
    expected = torch.cat(list(_runs(subject, site, ids, edits, wide=False)))
    try:
        found = torch.cat(list(_runs(subject, site, ids, edits, wide=True)))
    except (TypeError, ValueError, RuntimeError, IndexError, AttributeError):
        return False  # an architecture that holds on to the size of its batch says so in its own way
    if found.shape != expected.shape:
        return False
    error = (found - expected).norm() / expected.norm().clamp(min=torch.finfo(torch.float32).tiny)
    return bool(error <= TOLERANCE.get(getattr(subject, "dtype", torch.float32), 1e-3))
