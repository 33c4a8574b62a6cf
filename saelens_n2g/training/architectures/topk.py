"""TopK: the k largest pre-activations of every row (Gao et al. 2024, section 2.3), with the auxiliary loss of
appendix A.2 that makes dead features model what is left over.

    c = relu(pre) where pre is among the k largest of its row, else 0;  loss = mean squared error + auxiliary
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from saelens_n2g.bases.formats import Dictionary
from saelens_n2g.errors import InputError
from saelens_n2g.training.architectures.functions import decode, encode
from saelens_n2g.training.architectures.registry import register
from saelens_n2g.training.architectures.stated import Loss, StatedObjective
from saelens_n2g.training.objective import Start
from saelens_n2g.training.sparse import Pattern


@dataclass(frozen=True)
class TopKOptions:
    """Settings of TopK and its relatives. Raises `InputError` on impossible values."""

    k: int = 32
    """Features active on a row (BatchTopK: on average)."""
    aux_weight: float = 1 / 32
    """Weight of the auxiliary loss; 0 leaves it out."""
    aux_k: int | None = None
    """Dead features that model the error of a row; None for half the width of the activations."""

    def __post_init__(self) -> None:
        if self.k < 1 or (self.aux_k is not None and self.aux_k < 1):
            raise InputError("options k and aux_k", "integers >= 1", f"{self.k}, {self.aux_k}")
        if not self.aux_weight >= 0:
            raise InputError("option aux_weight", "a number >= 0", repr(self.aux_weight))


class AuxiliaryObjective(StatedObjective):
    """What TopK and its relatives share: options, and the auxiliary loss of dead features."""

    def __init__(self, start: Start) -> None:
        self.options: TopKOptions = start.options or self.default_options()
        if self.options.k > start.n:
            raise InputError("option k", f"at most the number of features, {start.n}", str(self.options.k))
        super().__init__(start)
        self._since = torch.zeros(start.n, dtype=torch.int64, device=start.device)

    @staticmethod
    def default_options() -> TopKOptions:
        """Settings where none are given."""
        return TopKOptions()

    def dead(self) -> Bool[Tensor, "n"]:
        """Features that have not fired for `dead_after` activations."""
        return self._since >= self.start.dead_after

    def auxiliary(self, y: Float[Tensor, "b d"], error: Float[Tensor, "b d"]) -> dict[str, Float[Tensor, ""]]:
        """The loss of the dead: what the `aux_k` of them with the largest pre-activations leave of the error.

        Weighted down where fewer than `aux_k` are dead, as in EleutherAI's sparsify.
        """
        dead = torch.nonzero(self.dead()).squeeze(1)
        if self.options.aux_weight == 0 or len(dead) == 0:
            return {}
        own = self.parameters
        wanted = self.options.aux_k or max(1, self.start.d // 2)
        k = min(wanted, len(dead))
        dead_before = torch.nn.functional.linear(y - own["offset"], own["encoder"][dead], own["bias"][dead])
        top = torch.topk(dead_before, k, dim=1, sorted=False)
        code = torch.zeros_like(dead_before).scatter(1, top.indices, torch.relu(top.values))
        # The error y^ - y of the living is taken as given: the dead learn to cancel it.
        left = code @ self.unit_decoder()[dead] + error.detach()
        weight = self.options.aux_weight * min(1.0, len(dead) / wanted)
        return {"auxiliary_reconstruction_loss": weight * left.square().mean()}

    def after_step(self, loss: Loss, rows: int) -> None:
        """Count for how long each feature has been silent."""
        self._since.add_(rows).masked_fill_(loss.fired > 0, 0)

    def more_state(self) -> dict[str, Tensor]:
        """See `StatedObjective.more_state`."""
        return {"since": self._since}

    def coded(self, y: Float[Tensor, "b d"], before: Float[Tensor, "b n"], pattern: Pattern) -> Tensor:
        """Values of the chosen features; the pattern holds positive ones alone."""
        own = self.parameters
        return encode(y, own["encoder"], own["bias"], own["offset"], before, pattern)


@register("topk", "TopK", options=TopKOptions, sparsity="k")
class TopKObjective(AuxiliaryObjective):
    """See the module's text."""

    def loss(self, y: Float[Tensor, "b d"]) -> Loss:
        """See `StatedObjective.loss`."""
        before = self.before(y)
        top = torch.topk(before, self.options.k, dim=1, sorted=False)
        active = torch.zeros_like(before, dtype=torch.bool).scatter_(1, top.indices, top.values > 0)
        pattern = self.pattern(active)
        error = decode(self.coded(y, before, pattern), self.unit_decoder(), pattern) + self.parameters["offset"] - y
        return Loss(error.square().mean(), self.auxiliary(y, error), pattern.fired())

    def dictionary(self, mean: Float[Tensor, "d"], scale: float) -> Dictionary:
        """See `Objective.dictionary`."""
        return replace(self.standard(mean, scale), architecture="topk", k=self.options.k)
