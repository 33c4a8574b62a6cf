"""Resampling: features that have died begin again where the loss is largest (Bricken et al. 2023, appendix).

Every `resample_every` activations all features that have not fired for the dead window are marked. At this step and
the following ones some of them at a time take their directions from rows of the batch, drawn without replacement with
probability proportional to the square of the row's loss. Without replacement, because two features that start equal
stay equal for ever; some at a time, because a draw of all rows of a batch prefers none; and from several batches also
because rows that are explained by then weigh less. Bricken et al. compute the loss on a large sample instead.

What is drawn is a function of the seed and the step, and of several processes each draws the same.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from saelens_n2g.errors import InputError
from saelens_n2g.training.objective import Start
from saelens_n2g.training.parallel import Group

SHARE_OF_BATCH = 1 / 8
"""Features that begin again at one step, at most, as a share of the rows of the batch."""
WEAK = 0.2
"""How strong a new feature is at first. Where the encoder is a matrix of its own, the norm of its row as a share of the
living ones' mean (Bricken et al.); where it is the decoder, the share of its own row's length that it gives there."""


@dataclass(frozen=True)
class ResamplingOptions:
    """Settings. Raises `InputError` on impossible values."""

    resample_every: int = 0
    """Activations between two looks for dead features; 0 leaves them dead."""
    resample_until: int = 0
    """Activations after which no more looks are taken; 0 for no end. What is resampled last needs time to settle."""

    def __post_init__(self) -> None:
        for name in ("resample_every", "resample_until"):
            if not getattr(self, name) >= 0:
                raise InputError(f"option {name}", "a number of activations >= 0", repr(getattr(self, name)))


class Replacement(NamedTuple):
    """Features that begin again."""

    features: Int[Tensor, "k"]
    """Which, ascending."""
    directions: Float[Tensor, "k d"]
    """Of norm 1."""
    lengths: Float[Tensor, "k"]
    """Norms of the rows that they were taken from."""
    living: Int[Tensor, "m"]
    """Those that are not dead; all of them where there are none."""


class Resampling:
    """What is counted and remembered from step to step."""

    def __init__(self, start: Start, options: ResamplingOptions) -> None:
        self._start, self._every, self._until = start, options.resample_every, options.resample_until
        self._since = torch.zeros(start.n, dtype=torch.int64, device=start.device)
        self._waiting = torch.zeros(start.n, dtype=torch.bool)  # on the CPU: looked at in every step
        self._seen = 0
        self.total = 0
        """Features that have begun again so far."""

    @torch.no_grad()
    def look(
        self,
        fired: Float[Tensor, "n"],
        rows: Float[Tensor, "b d"],
        loss: Callable[[], Float[Tensor, "b"]],
    ) -> Replacement | None:
        """Count a step, and say what begins again once it is done.

        fired: of the whole batch. rows: what features read, of this process's part; `loss` gives the loss of each, and
        is called only where it is needed.
        """
        group, count = self._start.group, len(rows) * self._start.group.size
        self._since.add_(count).masked_fill_(fired > 0, 0)
        before, self._seen = self._seen, self._seen + count
        dead = self._since >= self._start.dead_after
        if self._seen // self._every > before // self._every and (not self._until or self._seen <= self._until):
            self._waiting.copy_(dead)
        if not self._waiting.any():
            return None
        self._waiting &= dead.cpu()  # some come back by themselves
        weights = whole_of(group, loss().double() ** 2 * (rows.square().sum(1) > 0))
        wanted = min(int(self._waiting.sum()), max(1, int(SHARE_OF_BATCH * count)))
        drawn = draw(weights.cpu().numpy(), wanted, (self._start.seed, self._seen))
        features = torch.nonzero(self._waiting).squeeze(1)[: len(drawn)]
        if not len(features):
            return None
        living = torch.nonzero(~dead).squeeze(1)
        self._waiting[features] = False
        self._since[features.to(self._since.device)] = 0
        self.total += len(features)
        taken = rows_of(group, rows, drawn)
        lengths = taken.norm(dim=1)
        everything = torch.arange(self._start.n, device=living.device)
        return Replacement(
            features.to(rows.device), taken / lengths[:, None], lengths, living if len(living) else everything
        )

    def state(self) -> dict[str, Tensor]:
        """Everything that the next step depends on, as named tensors."""
        progress = torch.tensor([self._seen, self.total])
        own = {"since": self._since, "waiting": self._waiting, "progress": progress}
        return {f"resampling.{name}": tensor for name, tensor in own.items()}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Inverse of `state`; other tensors in it are passed over."""
        self._since.copy_(state["resampling.since"])
        self._waiting.copy_(state["resampling.waiting"])
        self._seen, self.total = state["resampling.progress"].tolist()


def resampling_of(start: Start) -> Resampling | None:
    """What the settings ask for; None where dead features stay dead."""
    wanted = isinstance(start.options, ResamplingOptions) and start.options.resample_every > 0
    return Resampling(start, start.options) if wanted else None


def draw(weights: np.ndarray, k: int, seed: tuple[int, int]) -> list[int]:
    """At most k different places, one after the other with probability proportional to their weights among those left.

    Places without a weight, or with one that is no finite number, are never drawn. (The first of exponential times with
    the weights as rates: Efraimidis and Spirakis 2006.)
    """
    rates = np.where(np.isfinite(weights), weights, 0.0)
    times = np.random.default_rng(seed).exponential(size=len(rates))
    times = np.divide(times, rates, out=np.full(len(rates), np.inf), where=rates > 0)
    order = np.argsort(times, kind="stable")[: min(k, int((rates > 0).sum()))]
    return [int(place) for place in order]


def whole_of(group: Group, part: Float[Tensor, "part"]) -> Float[Tensor, "b"]:
    """A number per row of the whole batch, of which every process has its part."""
    whole = part.new_zeros(len(part) * group.size)
    group.part(whole[:, None]).copy_(part[:, None])
    group.sum_([whole])
    return whole


def rows_of(group: Group, rows: Float[Tensor, "part d"], places: list[int]) -> Float[Tensor, "k d"]:
    """Rows of the whole batch, of which every process has its part: zeros from all but one, added up."""
    own = torch.tensor(places, dtype=torch.int64, device=rows.device) - group.rank * len(rows)
    here = (own >= 0) & (own < len(rows))
    found = torch.where(here[:, None], rows[own.clamp(0, len(rows) - 1)], 0.0)
    group.sum_([found])
    return found


@torch.no_grad()
def begin_again(
    optimiser: torch.optim.Optimizer, parameter: Tensor, features: Int[Tensor, "k"], value: Tensor | float
) -> None:
    """Set a parameter's entries of some features, and Adam's moments of them to zero.

    Adam's step counter is one for all features and stays: moments that start from zero are corrected no more, so that
    a feature's first steps are up to 6.6 times as long as the learning rate says (with the usual decays, after a dozen
    steps of equal gradients).
    """
    parameter[features] = value
    for moment in optimiser.state[parameter].values():
        if moment.shape == parameter.shape:
            moment[features] = 0
