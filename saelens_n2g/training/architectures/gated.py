"""Gated: one half of the encoder decides whether a feature is active, the other how much (Rajamanoharan et al. 2024a).

    pi = (y - offset) E^T + b_gate;   m = relu(exp(r) * ((y - offset) E^T) + b_mag)
    c = m where pi > 0, else 0
    loss = mean squared error of c  +  alpha * mean over the batch of |relu(pi)|_1
           + mean squared error of relu(pi), decoded by a frozen copy of the decoder

The sparsity term acts on the gate alone, so that magnitudes are not shrunk.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from saelens_n2g.bases.formats import Dictionary
from saelens_n2g.training.architectures.functions import decode, encode
from saelens_n2g.training.architectures.registry import register
from saelens_n2g.training.architectures.resampling import ResamplingOptions
from saelens_n2g.training.architectures.stated import Loss, StatedObjective


@register("gated", "Gated", options=ResamplingOptions)
class GatedObjective(StatedObjective):
    """See the module's text. The parameter `bias` is b_gate."""

    def more_parameters(self) -> dict[str, Tensor]:
        """r and b_mag."""
        return {"r_mag": torch.zeros(self.start.n), "b_mag": torch.zeros(self.start.n)}

    def loss(self, y: Float[Tensor, "b d"]) -> Loss:
        """See `StatedObjective.loss`."""
        own = self.parameters
        before = self.before(y)
        pattern = self.pattern(before > 0)
        gate = encode(y, own["encoder"], own["bias"], own["offset"], before, pattern)
        linear = gate - pattern.spread(own["bias"])
        scaled = pattern.spread(own["r_mag"].exp()) * linear + pattern.spread(own["b_mag"])
        code = pattern.masked(torch.relu(scaled))
        decoder = self.unit_decoder()
        error = decode(code, decoder, pattern) + own["offset"] - y
        gate_error = decode(gate, decoder.detach(), pattern) + own["offset"].detach() - y
        parts = {
            "l1_loss": self.alpha * gate.sum() / len(y),
            "auxiliary_reconstruction_loss": gate_error.square().mean(),
        }
        fired = pattern.by_feature((code.detach() > 0).to(y.dtype))
        return Loss(error.square().mean(), parts, fired, error.detach())

    def dictionary(self, mean: Float[Tensor, "d"], scale: float) -> Dictionary:
        """See `Objective.dictionary`."""
        plain = self.standard(mean, scale)
        r_mag, b_mag = (self.parameters[name].detach().cpu() for name in ("r_mag", "b_mag"))
        return Dictionary.gated(
            plain.W_enc, plain.W_dec, plain.b_dec, b_gate=plain.b_enc, r_mag=r_mag, b_mag=b_mag / scale
        )
