"""Matryoshka BatchTopK: one dictionary whose first features are dictionaries of their own (Bussmann et al. 2025).

Features are chosen as in BatchTopK. Every prefix of the features must rebuild the activations by itself; the loss is
the mean of the prefixes' squared errors. Early features stay general, since later ones cannot share their work.
"""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from saelens_n2g.errors import InputError
from saelens_n2g.training.architectures.batchtopk import ThresholdObjective
from saelens_n2g.training.architectures.functions import decode
from saelens_n2g.training.architectures.registry import register
from saelens_n2g.training.architectures.stated import Loss
from saelens_n2g.training.architectures.topk import TopKOptions
from saelens_n2g.training.objective import Start


@dataclass(frozen=True)
class MatryoshkaOptions(TopKOptions):
    """Settings. Raises `InputError` on impossible values."""

    prefixes: tuple[float, ...] = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)
    """Sizes of the prefixes as shares of the features, ascending, the last one 1."""

    def __post_init__(self) -> None:
        super().__post_init__()
        shares = tuple(self.prefixes)
        if not shares or shares[-1] != 1 or list(shares) != sorted(set(shares)) or shares[0] <= 0:
            raise InputError("option prefixes", "ascending shares in (0, 1] that end with 1", repr(self.prefixes))
        object.__setattr__(self, "prefixes", shares)


@register("matryoshka", "Matryoshka BatchTopK", options=MatryoshkaOptions, sparsity="k")
class MatryoshkaObjective(ThresholdObjective):
    """See the module's text."""

    def __init__(self, start: Start) -> None:
        super().__init__(start)
        assert isinstance(self.options, MatryoshkaOptions)
        sizes = [max(1, round(share * start.n)) for share in self.options.prefixes]
        if len(set(sizes)) != len(sizes):
            raise InputError("option prefixes", f"different numbers of {start.n} features", str(sizes))
        self.bounds = list(zip([0, *sizes[:-1]], sizes, strict=True))

    @staticmethod
    def default_options() -> TopKOptions:
        """Settings where none are given."""
        return MatryoshkaOptions()

    def loss(self, y: Float[Tensor, "b d"]) -> Loss:
        """See `StatedObjective.loss`."""
        before = self.before(y)
        pattern = self.pattern(self.chosen(before))
        code, decoder = self.coded(y, before, pattern), self.unit_decoder()
        error: Tensor = self.parameters["offset"] - y
        errors = []
        for start, stop in self.bounds:
            part = pattern.part(start, stop)
            error = error + decode(part.values(code), decoder[start:stop], part.pattern)
            errors.append(error.square().mean())
        # Learnt from is the mean of all prefixes: what it differs by from the error of the whole is a part of its own.
        nested = {"matryoshka_loss": sum(errors[1:], errors[0]) / len(errors) - errors[-1]}
        return Loss(errors[-1], self.auxiliary(y, error) | nested, pattern.fired())
