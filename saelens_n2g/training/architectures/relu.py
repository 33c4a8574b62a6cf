"""ReLU + L1 with an encoder of its own: the sparse autoencoder of Bricken et al. 2023 and of SAELens' "standard".

c = relu(pre);  loss = mean squared error + alpha * mean over the batch of |c|_1
"""

from jaxtyping import Float
from torch import Tensor

from saelens_n2g.bases.formats import Dictionary
from saelens_n2g.training.architectures.functions import decode, encode
from saelens_n2g.training.architectures.registry import register
from saelens_n2g.training.architectures.resampling import ResamplingOptions
from saelens_n2g.training.architectures.stated import Loss, StatedObjective


@register("relu", "ReLU + L1", options=ResamplingOptions)
class ReluObjective(StatedObjective):
    """See the module's text."""

    def loss(self, y: Float[Tensor, "b d"]) -> Loss:
        """See `StatedObjective.loss`."""
        own = self.parameters
        before = self.before(y)
        pattern = self.pattern(before > 0)
        code = encode(y, own["encoder"], own["bias"], own["offset"], before, pattern)
        error = decode(code, self.unit_decoder(), pattern) + own["offset"] - y
        parts = {"l1_loss": self.alpha * code.sum() / len(y)}
        return Loss(error.square().mean(), parts, pattern.fired(), error.detach())

    def dictionary(self, mean: Float[Tensor, "d"], scale: float) -> Dictionary:
        """See `Objective.dictionary`."""
        return self.standard(mean, scale)
