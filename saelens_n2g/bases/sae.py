"""SaeBasis: the features of a trained dictionary, with the way back to activations."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from saelens_n2g.bases.base import AffineBasis
from saelens_n2g.bases.formats import Dictionary, load_saelens
from saelens_n2g.bases.registry import BasisInputs, register
from saelens_n2g.errors import ArtefactError, InputError
from saelens_n2g.sites import Site


@dataclass(frozen=True, eq=False, kw_only=True)
class SaeBasis(AffineBasis):
    """An `AffineBasis` that can also decode: `x^ = c decoder + offset`. In a tied dictionary `decoder` is `weight`."""

    decoder: Float[Tensor, "n d_in"]
    offset: Float[Tensor, "d_in"]

    def decode(self, features: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch d_in"]:
        """Activations rebuilt from features, (..., n) -> (..., d_in)."""
        return features @ self.decoder + self.offset


def sae_basis(site: Site, dictionary: Dictionary) -> SaeBasis:
    """The features of `dictionary` at `site`, in float32.

    Raises `InputError` if the dictionary says that it was trained on another hook.
    """
    hook = dictionary.metadata.get("hook_name")
    if hook is not None and hook != site.hook:
        raise InputError(f"dictionary for site {site}", f"hook {site.hook}", str(hook))
    decoder, offset = dictionary.W_dec.float(), dictionary.b_dec.float()
    return SaeBasis(
        name="sae",
        site=site,
        signs="none needed: features come out of a ReLU",
        weight=decoder if dictionary.tied else dictionary.W_enc.float().T.contiguous(),
        bias=dictionary.b_enc.float(),
        centre=offset if dictionary.subtracts_b_dec else offset.new_zeros(offset.shape),
        facts={"tied": dictionary.tied, "metadata": dict(dictionary.metadata)},
        decoder=decoder,
        offset=offset,
    )


@register("sae", "SAE features")
def build_sae(inputs: BasisInputs) -> SaeBasis:
    """Needs `folder`."""
    if inputs.folder is None:
        raise InputError("basis 'sae'", "the folder of a trained dictionary", "none given")
    dictionary = load_saelens(inputs.folder)
    if dictionary.d_in != inputs.width:
        raise ArtefactError(f"dictionary {inputs.folder}", f"d_in {inputs.width}", f"d_in {dictionary.d_in}")
    return sae_basis(inputs.site, dictionary)
