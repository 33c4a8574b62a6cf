"""Direct effects of units on the next token: what they write into the residual stream, read as logits at once.

    streams = final_streams(subject, windows, seed=0)             # about which the last norm is taken as linear
    direct_effects(subject, basis, [3, 17], streams)              # the tokens that each raises and lowers most

The effect of a unit on a token is the derivative of the token's logit with respect to the unit's activation along the
direct path alone: what one more of its activation adds to the residual stream (`written`, `into_stream`), through the
last norm, linear about final streams x and averaged over them, and the unembedding (`Subject.direct_effects`); less its
mean over the vocabulary, which changes no probability. What later layers make of it, which may be more, is left out,
and so is a soft cap behind the unembedding. Tokens are those of the tokenizer; rows that only pad the matrix are none.

`deviation`, `skew` and `kurtosis` over the vocabulary say whether tokens stand out (Gurnee et al. 2024, "Universal
neurons in GPT2 language models", who tell apart neurons that predict, suppress and partition by them).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from saelens_n2g.activations import scored_rows
from saelens_n2g.bases.base import AffineBasis, Basis
from saelens_n2g.bases.neurons import NeuronBasis
from saelens_n2g.bases.sae import SaeBasis
from saelens_n2g.corpus import Windows
from saelens_n2g.errors import InputError
from saelens_n2g.sites import Site
from saelens_n2g.subject import Subject

Pairs = tuple[tuple[int, float], ...]
"""Tokens, each with a value."""
TOP = 10
"""Tokens that are kept at either end."""
VALUES = 2**23
"""Logits that are held at once: 32 MB in float32, four times that on the way."""
STREAMS, WINDOWS = 128, 8
"""Final streams that the last norm is taken about, out of so many windows."""
TOKENS = 16
"""Tokens that a model is tried on."""
_ERROR = 0.01
"""Share of what is added that may be missing before a model is said to add something else."""


@dataclass(frozen=True)
class Effect:
    """What a unit does to the next token directly, in logits per unit of activation."""

    raised: Pairs
    """Tokens with the largest effects, largest first."""
    lowered: Pairs
    """Those with the smallest, smallest first."""
    deviation: float
    """Standard deviation of the effects over the vocabulary."""
    skew: float | None
    """Third moment / deviation^3, > 0 where a few tokens are raised much; None where all effects are equal."""
    kurtosis: float | None
    """Fourth moment / deviation^4: 3 of a normal distribution, more where some tokens stand out."""


def written(basis: Basis, indices: Sequence[int], width: int) -> Float[Tensor, "k d_in"]:
    """What one more of their activation adds at the site of a basis, `width` wide, unit by unit.

    Of a dictionary the rows of its decoder. Of a direction w it is w / |w|^2, the smallest change that adds 1 to what
    the unit reads off: w itself where it has length 1. Of a neuron 1 at its place, of a negative half -1. Raises
    `InputError` for a unit that the basis lacks and for other bases.
    """
    if wrong := [i for i in indices if not 0 <= i < basis.n_features]:
        raise InputError(f"unit of basis {basis.name!r}", f"0 to {basis.n_features - 1}", str(wrong[0]))
    at = torch.tensor(list(indices), dtype=torch.long)
    if isinstance(basis, SaeBasis):
        return basis.decoder.detach()[at.to(basis.decoder.device)].float()
    if isinstance(basis, AffineBasis):
        rows = basis.weight.detach()[at.to(basis.weight.device)].float()
        return rows / rows.square().sum(1, keepdim=True)
    if isinstance(basis, NeuronBasis):
        found = torch.zeros(len(at), width)
        found[torch.arange(len(at)), at % basis.width] = torch.where(at < basis.width, 1.0, -1.0)
        return found
    raise InputError(f"basis {basis.name!r}", "one whose units have a direction", type(basis).__name__)


def into_stream(subject: Subject, site: Site, rows: Float[Tensor, "k d_in"]) -> Float[Tensor, "k d_model"]:
    """What `rows`, added at a site, add to the residual stream right there.

    At the stream itself and at the outputs of attention and MLP they are added as they are; behind `mlp_post` comes the
    MLP's output matrix. Whether the model does so is tried on a few tokens: some normalise or scale what a block puts
    out. Raises `InputError` if it does not, and if an MLP has no such matrix (mixtures of experts).
    """
    if site.kind.startswith("resid"):
        return rows
    stream = [Site(site.layer, kind) for kind in ("resid_pre", "attn_out", "mlp_out", "resid_post")]
    seen = {one.kind: x[0] for one, x in subject.activations(_tokens(subject), [*stream, site]).items()}
    before, after = seen["resid_pre"], seen["resid_post"]
    _same(f"site {site} of {subject.name}", after - before, seen["attn_out"] + seen["mlp_out"], after, subject.dtype)
    if site.kind != "mlp_post":
        return rows
    matrix = _output_matrix(subject, site)
    change = seen["mlp_post"].diff(dim=0) @ matrix  # a bias falls out
    _same(f"MLP of layer {site.layer} of {subject.name}", seen["mlp_out"].diff(dim=0), change, change, subject.dtype)
    return rows.to(matrix.device) @ matrix


def _tokens(subject: Subject) -> Tensor:
    ids = torch.linspace(0, subject.d_vocab - 1, min(TOKENS, subject.n_ctx - 1)).long().tolist()
    return torch.tensor([[*([] if subject.bos_id is None else [subject.bos_id]), *ids]])


def _same(thing: str, found: Tensor, expected: Tensor, terms: Tensor, dtype: torch.dtype) -> None:
    """Raises `InputError` unless most coordinates agree, but for what is rounded away of `terms`."""
    allowed = _ERROR * expected.abs() + torch.finfo(dtype).eps * terms.abs()
    if not (found - expected).abs().sub(allowed).median() <= 0:
        raise InputError(f"direct effects at {thing}", "a block that adds its outputs to the stream as they are", "not")


def _output_matrix(subject: Subject, site: Site) -> Float[Tensor, "d_mlp d_model"]:
    """The last matrix of the MLP, in float32 on the subject's device."""
    found = getattr(subject.bridge.blocks[site.layer].mlp, "W_out", None)
    if not isinstance(found, Tensor) or found.ndim != 2 or found.shape[1] != subject.d_model:
        what = str(tuple(found.shape)) if isinstance(found, Tensor) else type(found).__name__
        raise InputError(f"direct effects at site {site} of {subject.name}", "an MLP with one output matrix", what)
    return found.detach().float()


def final_streams(
    subject: Subject, windows: Windows, *, seed: int = 0, most: int = STREAMS
) -> Float[Tensor, "n d_model"]:
    """Final residual streams at `most` random scored positions of a few random windows, in float32 on the CPU: what
    `direct_effects` is taken about. Raises `InputError` if no position is scored."""
    draw = np.random.default_rng([seed, 11])
    some = windows.subset(np.sort(draw.permutation(np.flatnonzero(windows.mask.any(1)))[:WINDOWS]))
    if len(some) == 0:
        raise InputError("text for direct effects", "a token", "none")
    last = Site(subject.n_layers - 1, "resid_post")
    rows = scored_rows(subject, some, [last])[last]
    return rows[torch.from_numpy(np.sort(draw.permutation(len(rows))[:most]))]


def direct_effects(
    subject: Subject, basis: Basis, indices: Sequence[int], streams: Float[Tensor, "n d_model"], *, top: int = TOP
) -> list[Effect]:
    """The effects of units of a basis, taken about `streams`, in the order of `indices`; in bounded memory.

    Raises `InputError` as `written` and `into_stream` do.
    """
    rows = into_stream(subject, basis.site, written(basis, indices, subject.width(basis.site)))
    out: list[Effect] = []
    for part in rows.split(max(1, VALUES // subject.d_vocab)):
        out += _summarised(centred(subject, subject.direct_effects(streams, part)), top)
    return out


def centred(subject: Subject, logits: Float[Tensor, "k d_vocab"]) -> Float[Tensor, "k vocabulary"]:
    """Logits of the tokenizer's tokens less their mean."""
    own = logits[:, : len(subject.tokenizer)]
    return own - own.mean(1, keepdim=True)


def _summarised(effects: Float[Tensor, "k vocabulary"], top: int) -> list[Effect]:
    lowered, raised = extremes(effects, top)
    exact = effects.double()
    deviation = exact.square().mean(1).sqrt()
    scaled = exact / deviation[:, None]
    moments = torch.stack([scaled.pow(3).mean(1), scaled.pow(4).mean(1)], dim=1).tolist()
    return [
        Effect(up, down, size, *((None, None) if size == 0 else third_and_fourth))
        for up, down, size, third_and_fourth in zip(raised, lowered, deviation.tolist(), moments, strict=True)
    ]


def extremes(change: Float[Tensor, "k vocabulary"], top: int = TOP) -> tuple[list[Pairs], list[Pairs]]:
    """Per row the tokens with the lowest and with the highest values, most extreme first, each with its value."""
    low, high = (_pairs(change.topk(min(top, change.shape[1]), largest=largest)) for largest in (False, True))
    return low, high


def _pairs(found: "torch.return_types.topk") -> list[Pairs]:
    rows = zip(found.indices.tolist(), found.values.tolist(), strict=True)
    return [tuple(zip(tokens, values, strict=True)) for tokens, values in rows]
