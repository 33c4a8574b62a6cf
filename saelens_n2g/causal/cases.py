"""Case studies of one unit: on what it fires, what the model would do without it, what it needs.

After Cunningham et al. 2023, section 5.

    histogram(tokens, values)                            # activations by token
    ablation(subject, unit, windows)                     # logits that fall and rise when it is taken out
    direct_effects(subject, basis, [index], streams)     # the logit lens of its direction (`causal.effects`)
    context_ablation(subject, unit, tokens)              # which earlier tokens it needs
    downstream(subject, unit, later, windows)            # which features of a later layer change

Taking a unit out means x' = x - c d at every position where it is above zero: its value c times its direction d, all
else left as it is.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from saelens_n2g.activations import token_batches
from saelens_n2g.bases.base import Basis
from saelens_n2g.causal.effects import Pairs as Pairs
from saelens_n2g.causal.effects import extremes, written
from saelens_n2g.corpus import Windows
from saelens_n2g.errors import InputError
from saelens_n2g.sites import Site
from saelens_n2g.subject import Subject

BATCH = 4
"""Windows a forward pass. Their logits are held twice, and those of firing positions twice more."""
REACH = 24
"""Tokens before the peak that `context_ablation` leaves out, one at a time, at most."""


@dataclass(frozen=True, eq=False)
class CaseUnit:
    """One unit with what it adds to the activation."""

    basis: Basis
    index: int
    direction: Float[Tensor, "d_in"]

    @classmethod
    def of(cls, basis: Basis, index: int, width: int) -> "CaseUnit":
        """Unit `index` of a basis at a site of `width`. Raises `InputError` for a unit or a basis without direction."""
        return cls(basis, index, written(basis, [index], width)[0])

    @property
    def site(self) -> Site:
        return self.basis.site

    def values(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch"]:
        """Its activation, >= 0."""
        return self.basis.to(x.device).encode_features(x, torch.tensor([self.index], device=x.device))[..., 0]

    def without(self, x: Float[Tensor, "batch pos d_in"], scored: Bool[Tensor, "batch pos"]) -> Tensor:
        """Activations with the unit taken out at the scored positions."""
        c = self.values(x) * scored.to(x)
        return x - c[..., None] * self.direction.to(x)


# --- on what it fires -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Histogram:
    """Activations of a unit above zero, split by token."""

    edges: tuple[float, ...]
    """Of bins of equal width, from 0 to the maximum."""
    counts: Mapping[str, tuple[int, ...]]
    """Positions per bin of the most frequent tokens, most frequent first."""
    others: tuple[int, ...]
    """Of all other tokens."""
    firing: int
    """Positions above zero."""
    positions: int

    def as_json(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)


def histogram(
    tokens: Sequence[str], values: Float[np.ndarray, "token"], *, bins: int = 10, named: int = 5
) -> Histogram:
    """Split the activations `values` of `tokens`. Raises `InputError` for a unit that is never above zero."""
    at = np.flatnonzero(values > 0)
    if len(at) == 0:
        raise InputError("activations of the unit", "one above 0", "none")
    edges = np.linspace(0.0, float(values.max()), bins + 1)
    place = np.minimum(np.searchsorted(edges, values[at], side="right") - 1, bins - 1)
    by_token: dict[str, np.ndarray] = {}
    for position, bin_of in zip(at.tolist(), place.tolist(), strict=True):
        by_token.setdefault(tokens[position], np.zeros(bins, dtype=int))[bin_of] += 1
    order = sorted(by_token, key=lambda token: (-by_token[token].sum(), token))
    rest = sum((by_token[token] for token in order[named:]), np.zeros(bins, dtype=int))
    counts = {token: tuple(int(n) for n in by_token[token]) for token in order[:named]}
    return Histogram(tuple(map(float, edges)), counts, tuple(int(n) for n in rest), len(at), len(values))


# --- what the model would do without it -----------------------------------------------------------------------


@dataclass(frozen=True)
class Ablation:
    """What taking a unit out changes where it fires."""

    positions: int
    """Where it is above the floor and a token follows."""
    lowered: Pairs
    """Tokens whose log-probability falls most, with the mean change in nats, most first."""
    raised: Pairs
    """Those whose log-probability rises most."""
    next_token: float
    """Mean change of the log-probability of the token that follows in the text."""
    kl: float
    """Mean KL(model || model without the unit)."""

    def as_json(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)


def ablation(subject: Subject, unit: CaseUnit, windows: Windows, *, floor: float = 0.0, top: int = 10) -> Ablation:
    """Take the unit out wherever it is above zero in `windows`, and look at the predictions at the very positions where
    it is above `floor`.

    Raises `InputError` if it fires nowhere with a token behind it.
    """
    change = torch.zeros(subject.d_vocab, dtype=torch.float64)
    count, following, kl = 0, 0.0, 0.0
    for ids, scored in token_batches(windows, BATCH):
        seen: list[Tensor] = []

        def keep(x: Tensor, into: list[Tensor] = seen) -> Tensor:
            into.append(x)
            return x

        plain = subject.spliced_logits(ids, unit.site, keep)
        fires = (unit.values(seen[0]).cpu() > floor) & scored
        fires[:, :-1] &= scored[:, 1:]
        fires[:, -1] = False
        if not fires.any():
            continue
        edited = subject.spliced_logits(ids, unit.site, partial(unit.without, scored=scored))
        rows, at = torch.nonzero(fires, as_tuple=True)
        where = (rows.to(plain.device), at.to(plain.device))
        before, after = plain[where].log_softmax(-1), edited[where].log_softmax(-1)
        difference = (after - before).cpu()
        change += difference.sum(0, dtype=torch.float64)
        following += float(difference.gather(1, ids[rows, at + 1][:, None]).sum(dtype=torch.float64))
        # Position by position in float32: the terms are shares of a token, so nothing large cancels.
        kl += float(torch.linalg.vecdot(before.exp(), before - after).sum(dtype=torch.float64))
        count += len(rows)
    if count == 0:
        raise InputError(
            f"unit {unit.index} of {unit.basis.name!r}", "a firing position with a token behind it", "none"
        )
    mean = change / count
    (lowered,), (raised,) = extremes(mean[None], top)
    return Ablation(count, lowered, raised, following / count, kl / count)


# --- what it needs --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ContextAblation:
    """A text, and what is left of the unit's activation at its peak when an earlier token is left out."""

    tokens: tuple[int, ...]
    peak: int
    """Position of the key token."""
    activation: float
    """There, in the whole text."""
    first: int
    """Position of the first token that was left out in turn."""
    kept: tuple[float, ...]
    """Per position from `first` to before the peak: activation without that token / activation."""

    def as_json(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)


def context_ablation(subject: Subject, unit: CaseUnit, tokens: Sequence[int], *, reach: int = REACH) -> ContextAblation:
    """Leave out one of the `reach` tokens before the peak at a time, and run what is left, cut after the peak.

    `tokens` are without BOS; the BOS is never left out. Raises `InputError` if the unit does not fire in the text.
    """
    start = [] if subject.bos_id is None else [subject.bos_id]
    whole = torch.tensor([[*start, *tokens]])
    values = unit.values(subject.activations(whole, [unit.site])[unit.site])[0, len(start) :].cpu()
    peak = int(values.argmax())
    if not values[peak] > 0:
        raise InputError(f"unit {unit.index} of {unit.basis.name!r}", "a text on which it fires", "silence")
    cut, first = list(tokens[: peak + 1]), max(0, peak - reach)
    if first == peak:
        return ContextAblation(tuple(tokens), peak, float(values[peak]), first, ())
    shorter = torch.tensor([[*start, *cut[:i], *cut[i + 1 :]] for i in range(first, peak)])
    left = unit.values(subject.activations(shorter, [unit.site])[unit.site])[:, -1].cpu()
    return ContextAblation(tuple(tokens), peak, float(values[peak]), first, tuple((left / values[peak]).tolist()))


# --- what follows from it -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Downstream:
    """How units of a later basis change where the unit is taken out."""

    positions: int
    """Where the unit is above the floor."""
    units: tuple[tuple[int, float, float], ...]
    """Index, mean activation with the unit, and mean change without it; largest changes first."""

    def as_json(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)


def downstream(
    subject: Subject, unit: CaseUnit, later: Basis, windows: Windows, *, floor: float = 0.0, top: int = 10
) -> Downstream:
    """Means over the positions where the unit is above `floor`; it is taken out wherever it is above zero.

    Raises `InputError` if it fires nowhere, or if `later` is not of a later layer.
    """
    if later.site.layer <= unit.site.layer:
        raise InputError(f"basis {later.name!r} at {later.site}", f"a layer behind {unit.site}", str(later.site))
    base = torch.zeros(later.n_features, dtype=torch.float64)
    change, count = torch.zeros_like(base), 0
    for ids, scored in token_batches(windows, BATCH):
        found = subject.activations(ids, [unit.site, later.site])
        fires = (unit.values(found[unit.site]).cpu() > floor) & scored
        if not fires.any():
            continue
        edited = subject.edited_activations(ids, unit.site, partial(unit.without, scored=scored), [later.site])
        at = fires.to(subject.device)
        before, after = (later.to(subject.device).encode(x[later.site][at]).double() for x in (found, edited))
        base += before.sum(0).cpu()
        change += (after - before).sum(0).cpu()
        count += int(fires.sum())
    if count == 0:
        raise InputError(f"unit {unit.index} of {unit.basis.name!r}", "a text on which it fires", "silence")
    order = torch.argsort(change.abs(), descending=True, stable=True)[:top].tolist()
    return Downstream(count, tuple((i, float(base[i] / count), float(change[i] / count)) for i in order))


def last_streams(
    subject: Subject, unit: CaseUnit, windows: Windows, *, floor: float = 0.0, most: int = 256
) -> Float[Tensor, "n d_model"]:
    """Final residual streams at positions where the unit is above `floor`, `most` at most: what
    `effects.direct_effects` is taken about. Raises `InputError` if there are none."""
    last = Site(subject.n_layers - 1, "resid_post")
    found: list[Tensor] = []
    for ids, scored in token_batches(windows, BATCH):
        seen = subject.activations(ids, sorted({unit.site, last}))
        fires: Int[Tensor, "n 2"] = torch.nonzero((unit.values(seen[unit.site]).cpu() > floor) & scored)
        found.append(seen[last].cpu()[fires[:, 0], fires[:, 1]])
        if sum(map(len, found)) >= most:
            break
    streams = torch.cat(found)[:most]
    if len(streams) == 0:
        raise InputError(f"unit {unit.index} of {unit.basis.name!r}", "a text on which it fires", "silence")
    return streams
