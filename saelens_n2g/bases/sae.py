"""SaeBasis: the features of a trained dictionary, with the way back to activations."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import linear

from saelens_n2g.bases.base import AffineBasis
from saelens_n2g.bases.dictionary import Dictionary
from saelens_n2g.bases.foreign import load_dictionary
from saelens_n2g.bases.registry import BasisInputs, register
from saelens_n2g.bases.rules import Relu
from saelens_n2g.errors import ArtefactError, InputError
from saelens_n2g.sites import Site


@dataclass(frozen=True, eq=False, kw_only=True)
class SaeBasis(AffineBasis):
    """An `AffineBasis` that can also decode: `x^ = c decoder + offset`. In a tied dictionary `decoder` is `weight`.

    Architecture "standard"; the others are `RuleBasis`.
    """

    decoder: Float[Tensor, "n d_in"]
    offset: Float[Tensor, "d_in"]

    def decode(self, features: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch d_in"]:
        """Activations rebuilt from features, (..., n) -> (..., d_in)."""
        return features @ self.decoder + self.offset


@dataclass(frozen=True, eq=False, kw_only=True)
class RuleBasis(SaeBasis):
    """Features of a dictionary whose rule is more than a ReLU; `bias` is the rule's own."""

    rule: Relu

    def encode(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch n"]:
        """All features of `x`, (..., d_in) -> (..., n), >= 0."""
        return self.rule(linear(x - self.centre, self.weight))

    def encode_features(self, x: Float[Tensor, "*batch d_in"], features: Int[Tensor, "k"]) -> Float[Tensor, "*batch k"]:
        """Only the columns `features`, in the order asked for: k/n of the work of `encode`, but for topk all of it."""
        if not self.rule.separable:
            return self.encode(x)[..., features]
        return self.rule.pick(features)(linear(x - self.centre, self.weight[features]))

    def to(self, device: str | torch.device) -> "RuleBasis":
        """The same basis on another device."""
        moved = super().to(device)
        assert isinstance(moved, RuleBasis), "`to` keeps the class"
        return replace(moved, rule=self.rule.each(lambda tensor: tensor.to(device)))


def sae_basis(site: Site, dictionary: Dictionary) -> SaeBasis:
    """The features of `dictionary` at `site`, in float32.

    Raises `InputError` if the dictionary says that it was trained on another hook.
    """
    hook = dictionary.metadata.get("hook_name")
    if hook is not None and hook != site.hook:
        raise InputError(f"dictionary for site {site}", f"hook {site.hook}", str(hook))
    # float32 first: lengths of decoder rows, where the rule has them, would lose digits in bfloat16.
    wide: dict[str, Any] = {k: v.float() for k, v in vars(dictionary).items() if isinstance(v, Tensor)}
    d = replace(dictionary, **wide)
    rule = d.rule
    parts: dict[str, Any] = {
        "name": "sae",
        "site": site,
        "signs": "none needed: features come out of a ReLU",
        "weight": d.W_dec if d.tied else d.W_enc.T.contiguous(),
        "bias": rule.bias,
        "centre": d.b_dec if d.subtracts_b_dec else torch.zeros_like(d.b_dec),
        "facts": {"architecture": d.architecture, "tied": d.tied, "metadata": dict(d.metadata)},
        "decoder": d.directions,
        "offset": d.b_dec,
    }
    return SaeBasis(**parts) if type(rule) is Relu else RuleBasis(rule=rule, **parts)


@register("sae", "SAE features")
def build_sae(inputs: BasisInputs) -> SaeBasis:
    """Needs `folder`: a dictionary in any layout that `load_dictionary` reads."""
    if inputs.folder is None:
        raise InputError("basis 'sae'", "the folder of a trained dictionary", "none given")
    dictionary = load_dictionary(inputs.folder)
    if dictionary.d_in != inputs.width:
        raise ArtefactError(f"dictionary {inputs.folder}", f"d_in {inputs.width}", f"d_in {dictionary.d_in}")
    return sae_basis(inputs.site, dictionary)
