"""Dictionary: a sparse autoencoder with the names and the meaning that SAELens 6 gives to its parts.

    dictionary = Dictionary.from_tied(weight, bias, mean)
    features = dictionary.encode(x)        # raw activations in, features >= 0 out
    rebuilt = dictionary.decode(features)

What makes the architectures differ is one rule each (`bases/rules.py`); a new one is a rule and a line in
`ARCHITECTURES`. BatchTopK and Matryoshka dictionaries are "jumprelu" once they are trained.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from saelens_n2g.bases.rules import Gated, JumpRelu, Relu, TopK
from saelens_n2g.errors import InputError


@dataclass(frozen=True, eq=False)
class Dictionary:
    """A sparse autoencoder as SAELens stores it; takes raw activations.

    Raises `InputError` for an unknown architecture, and for parts that it lacks or has no use for.
    """

    W_enc: Float[Tensor, "d_in d_sae"]
    b_enc: Float[Tensor, "d_sae"]
    """The encoder's bias. "gated" has none: it is 0 there and not stored (`Dictionary.gated` sees to it)."""
    W_dec: Float[Tensor, "d_sae d_in"]
    b_dec: Float[Tensor, "d_in"]
    log10_sparsity: Float[Tensor, "d_sae"] | None = None
    """log10 of each feature's share of firing tokens; None where unknown."""
    subtracts_b_dec: bool = True
    """Whether `b_dec` is taken off the input (`apply_b_dec_to_input`)."""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """The `metadata` object of `cfg.json`."""
    architecture: str = "standard"
    """A key of `ARCHITECTURES`."""
    k: int | None = None
    """topk: features kept per row."""
    rescale_acts_by_decoder_norm: bool = False
    """topk: whether a feature is measured in lengths of its decoder row, when the largest are chosen and when it comes
    out of `encode`; `decode` takes it back."""
    threshold: Float[Tensor, "d_sae"] | None = None
    """jumprelu: pre-activation above which a feature counts."""
    b_gate: Float[Tensor, "d_sae"] | None = None
    """gated: bias of the gate."""
    r_mag: Float[Tensor, "d_sae"] | None = None
    """gated: logarithm of the factor on the product with the encoder."""
    b_mag: Float[Tensor, "d_sae"] | None = None
    """gated: bias of the magnitude."""

    def __post_init__(self) -> None:
        where = f"dictionary of architecture {self.architecture!r}"
        if self.architecture not in ARCHITECTURES:
            raise InputError(where, f"one of {', '.join(ARCHITECTURES)}", repr(self.architecture))
        optional = {"k", "threshold", "b_gate", "r_mag", "b_mag"}
        wanted = optional & {*ARCHITECTURES[self.architecture].tensors, *(["k"] if self.architecture == "topk" else [])}
        given = {name for name in optional if getattr(self, name) is not None}
        if given != wanted:
            parts = [", ".join(sorted(names)) or "nothing" for names in (wanted, given)]
            raise InputError(where, f"{parts[0]} beside what all have", parts[1])
        if self.k is not None and not 1 <= self.k <= self.d_sae:
            raise InputError(f"k of a {where}", f"1 to {self.d_sae} (d_sae)", str(self.k))
        if self.rescale_acts_by_decoder_norm and self.architecture != "topk":
            raise InputError(where, "no rescale_acts_by_decoder_norm (topk alone has it)", "True")
        if self.architecture == "gated" and bool(self.b_enc.any()):
            raise InputError(where, "b_enc of 0 (the gate has a bias of its own)", "other values")

    @classmethod
    def from_tied(
        cls, weight: Float[Tensor, "d_sae d_in"], bias: Float[Tensor, "d_sae"], mean: Float[Tensor, "d_in"]
    ) -> "Dictionary":
        """The dictionary of `c = relu(M (x - mean) + b)`, `x^ = M^T c + mean`: W_enc is the transpose, bit for bit."""
        return cls(weight.T.contiguous(), bias, weight.contiguous(), mean)

    @classmethod
    def gated(cls, W_enc: Tensor, W_dec: Tensor, b_dec: Tensor, *, b_gate: Tensor, **others: Any) -> "Dictionary":
        """A gated dictionary, which has no `b_enc`; `others` are further fields, among them `r_mag` and `b_mag`."""
        none = torch.zeros_like(b_gate)
        return cls(W_enc, none, W_dec, b_dec, architecture="gated", b_gate=b_gate, **others)

    @property
    def d_in(self) -> int:
        return self.W_dec.shape[1]

    @property
    def d_sae(self) -> int:
        return self.W_dec.shape[0]

    @property
    def tied(self) -> bool:
        """Whether encoder and decoder are one matrix, bit for bit."""
        return torch.equal(self.W_enc.T, self.W_dec)

    def told(self, *keys: str) -> Mapping[str, Any]:
        """The object that the metadata have under nested keys, such as "evaluation", "test"; empty where there is none,
        as dictionaries from elsewhere know less of themselves."""
        found: Any = self.metadata
        for key in keys:
            found = found.get(key) if isinstance(found, Mapping) else None
        return found if isinstance(found, Mapping) else {}

    @property
    def rule(self) -> Relu:
        """From the product with the encoder to features."""
        return ARCHITECTURES[self.architecture].rule(self)

    @property
    def directions(self) -> Float[Tensor, "d_sae d_in"]:
        """What 1 of each feature adds to the rebuilt activation: the rows of `W_dec`, at length 1 if rescaled."""
        if not self.rescale_acts_by_decoder_norm:
            return self.W_dec
        length = self.W_dec.norm(dim=-1, keepdim=True)
        # A feature without direction is always 0; dividing by its length would make that NaN.
        return self.W_dec / torch.where(length > 0, length, 1)

    def encode(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_sae"]:
        """Features of raw activations, >= 0."""
        return self.rule((x - self.b_dec if self.subtracts_b_dec else x) @ self.W_enc)

    def decode(self, features: Float[Tensor, "*batch d_sae"]) -> Float[Tensor, "*batch d_in"]:
        """Raw activations rebuilt from features."""
        return features @ self.directions + self.b_dec


class Architecture(NamedTuple):
    """One entry of `ARCHITECTURES`."""

    tensors: tuple[str, ...]
    """What is stored beside W_enc, W_dec and b_dec, each of shape (d_sae,)."""
    rule: Callable[[Dictionary], Relu]


def _standard(d: Dictionary) -> Relu:
    return Relu(d.b_enc)


def _topk(d: Dictionary) -> TopK:
    assert d.k is not None, "checked when the dictionary was made"
    return TopK(d.b_enc, d.k, d.W_dec.norm(dim=-1) if d.rescale_acts_by_decoder_norm else None)


def _jumprelu(d: Dictionary) -> JumpRelu:
    assert d.threshold is not None, "checked when the dictionary was made"
    return JumpRelu(d.b_enc, d.threshold)


def _gated(d: Dictionary) -> Gated:
    gate, log_scale, magnitude = d.b_gate, d.r_mag, d.b_mag
    if gate is None or log_scale is None or magnitude is None:
        raise AssertionError("checked when the dictionary was made")
    return Gated(gate, log_scale, magnitude)


ARCHITECTURES = {
    "standard": Architecture(("b_enc",), _standard),
    "topk": Architecture(("b_enc",), _topk),
    "jumprelu": Architecture(("b_enc", "threshold"), _jumprelu),
    "gated": Architecture(("b_gate", "r_mag", "b_mag"), _gated),
}
"""SAELens' name of an architecture -> what it consists of and how it turns activations into features."""
