"""Dictionaries on disk: folders in the layout of SAELens 6, architecture "standard".

    cfg.json                  architecture, sizes, dtype, metadata (model, hook, context, BOS)
    sae_weights.safetensors   W_enc (d_in, d_sae), b_enc (d_sae,), W_dec (d_sae, d_in), b_dec (d_in,)
    sparsity.safetensors      optional: `sparsity` (d_sae,), log10 of the share of tokens on which a feature fires
    COMMIT.json               ours alone, written last: sizes and checksums

    c = relu((x - b_dec) W_enc + b_enc);  x^ = c W_dec + b_dec

Folders written elsewhere have no commit marker and load all the same. Nothing but JSON and safetensors is read.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from saelens_n2g.errors import ArtefactError
from saelens_n2g.jobs.artefacts import committed, publishing, read_json, write_json

CONFIG, WEIGHTS, SPARSITY = "cfg.json", "sae_weights.safetensors", "sparsity.safetensors"
SAELENS_VERSION = "6.0.0"
"""Layout written. SAELens reads a folder without a version of at least 6 as the older, flat layout."""
DTYPES = {
    "float32": torch.float32,
    "float64": torch.float64,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}


@dataclass(frozen=True)
class SaeMetadata:
    """What a dictionary was trained on. Field names are SAELens'."""

    model_name: str
    hook_name: str
    """TransformerLens name, e.g. `blocks.3.hook_resid_post`."""
    context_size: int
    """Tokens per window, BOS included."""
    prepend_bos: bool
    """Whether windows begin with BOS."""
    dataset_path: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Further JSON values: training settings, evaluations, provenance. SAELens keeps and ignores them."""

    def as_json(self) -> dict[str, Any]:
        """The `metadata` object of `cfg.json`."""
        own = {k: v for k, v in vars(self).items() if k != "extra"}
        return {**self.extra, **own, "sae_lens_version": SAELENS_VERSION}


@dataclass(frozen=True, eq=False)
class Dictionary:
    """A "standard" (ReLU) sparse autoencoder as SAELens stores it; takes raw activations."""

    W_enc: Float[Tensor, "d_in d_sae"]
    b_enc: Float[Tensor, "d_sae"]
    W_dec: Float[Tensor, "d_sae d_in"]
    b_dec: Float[Tensor, "d_in"]
    log10_sparsity: Float[Tensor, "d_sae"] | None = None
    """log10 of each feature's share of firing tokens; None where unknown."""
    subtracts_b_dec: bool = True
    """Whether `b_dec` is taken off the input (`apply_b_dec_to_input`)."""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """The `metadata` object of `cfg.json`."""
    architecture: str = "standard"

    @classmethod
    def from_tied(
        cls, weight: Float[Tensor, "d_sae d_in"], bias: Float[Tensor, "d_sae"], mean: Float[Tensor, "d_in"]
    ) -> "Dictionary":
        """The dictionary of `c = relu(M (x - mean) + b)`, `x^ = M^T c + mean`: W_enc is the transpose, bit for bit."""
        return cls(weight.T.contiguous(), bias, weight.contiguous(), mean)

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

    def encode(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_sae"]:
        """Features of raw activations, >= 0."""
        return torch.relu((x - self.b_dec if self.subtracts_b_dec else x) @ self.W_enc + self.b_enc)

    def decode(self, features: Float[Tensor, "*batch d_sae"]) -> Float[Tensor, "*batch d_in"]:
        """Raw activations rebuilt from features."""
        return features @ self.W_dec + self.b_dec


def save_saelens(folder: Path, dictionary: Dictionary, metadata: SaeMetadata) -> None:
    """Write `dictionary` as a SAELens 6 folder, whole or not at all; an earlier one is replaced.

    `metadata` takes the place of the dictionary's own. Raises `InputError` if `folder` cannot be written.
    """
    from safetensors.torch import save_file

    tensors = {n: getattr(dictionary, n).detach().to("cpu").contiguous() for n in ("W_enc", "b_enc", "W_dec", "b_dec")}
    config = {
        "architecture": dictionary.architecture,
        "d_in": dictionary.d_in,
        "d_sae": dictionary.d_sae,
        "dtype": str(dictionary.W_dec.dtype).removeprefix("torch."),
        "device": "cpu",
        "apply_b_dec_to_input": dictionary.subtracts_b_dec,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": metadata.as_json(),
    }
    with publishing(folder, {"kind": "saelens_n2g/dictionary"}) as work:
        write_json(work / CONFIG, config)
        save_file(tensors, work / WEIGHTS)
        if dictionary.log10_sparsity is not None:
            save_file({"sparsity": dictionary.log10_sparsity.to("cpu").contiguous()}, work / SPARSITY)


def load_saelens(folder: Path) -> Dictionary:
    """Read a SAELens 6 folder of architecture "standard", ours or another's.

    Raises `ArtefactError` for whatever is missing, damaged, of another shape, dtype or architecture. If there is a
    commit marker, checksums are compared too.
    """
    committed(folder, check=True)
    config = _config(folder / CONFIG)
    d_in, d_sae, dtype = config["d_in"], config["d_sae"], DTYPES[config["dtype"]]
    shapes = {"W_enc": (d_in, d_sae), "b_enc": (d_sae,), "W_dec": (d_sae, d_in), "b_dec": (d_in,)}
    tensors = _tensors(folder / WEIGHTS, shapes, dtype)
    sparsity = None
    if (folder / SPARSITY).exists():
        sparsity = _tensors(folder / SPARSITY, {"sparsity": (d_sae,)}, None)["sparsity"]
    return Dictionary(
        tensors["W_enc"],
        tensors["b_enc"],
        tensors["W_dec"],
        tensors["b_dec"],
        log10_sparsity=sparsity,
        subtracts_b_dec=config["apply_b_dec_to_input"],
        metadata=config["metadata"],
    )


def _config(path: Path) -> dict[str, Any]:
    """`cfg.json`, checked: this is the one place that knows which of SAELens' variants can be represented."""
    config = read_json(path)
    if not isinstance(config, dict):
        raise ArtefactError(f"file {path}", "a JSON object", type(config).__name__)
    metadata = config.get("metadata")
    version = metadata.get("sae_lens_version") if isinstance(metadata, dict) else None
    if not isinstance(version, str) or not version.split(".")[0].isdigit() or int(version.split(".")[0]) < 6:
        raise ArtefactError(f"file {path}", "metadata.sae_lens_version of at least 6", repr(version))
    for key in ("d_in", "d_sae"):
        if type(config.get(key)) is not int or config[key] < 1:
            raise ArtefactError(f"{key} in {path}", "a positive integer", repr(config.get(key)))
    config["dtype"] = str(config.get("dtype")).removeprefix("torch.")
    config.setdefault("apply_b_dec_to_input", True)
    for key, allowed in (
        ("architecture", ("standard",)),
        ("dtype", tuple(DTYPES)),
        ("normalize_activations", ("none", None)),
        ("reshape_activations", ("none", None)),
        ("apply_b_dec_to_input", (True, False)),
    ):
        if config.get(key) not in allowed:
            names = " or ".join(str(a) for a in allowed if a is not None)
            raise ArtefactError(f"{key} in {path}", names, repr(config.get(key)))
    return config


def _tensors(path: Path, shapes: Mapping[str, tuple[int, ...]], dtype: torch.dtype | None) -> dict[str, Tensor]:
    """The tensors of a safetensors file: exactly the names of `shapes`, finite, of `dtype` (None: any float)."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        raise ArtefactError(f"file {path}", "a safetensors file", "nothing there")
    try:
        tensors: dict[str, Tensor] = load_file(path)
    except (SafetensorError, OSError) as error:
        raise ArtefactError(f"file {path}", "a whole safetensors file", str(error)) from error
    if tensors.keys() != shapes.keys():
        wanted, found = (", ".join(sorted(names)) for names in (shapes, tensors))
        raise ArtefactError(f"file {path}", f"tensors {wanted}", found or "none")
    for name, tensor in tensors.items():
        where = f"tensor {name} in {path}"
        if tuple(tensor.shape) != shapes[name]:
            raise ArtefactError(where, f"shape {shapes[name]}", f"shape {tuple(tensor.shape)}")
        if not tensor.dtype.is_floating_point or (dtype is not None and tensor.dtype != dtype):
            raise ArtefactError(where, str(dtype or "a floating-point dtype"), str(tensor.dtype))
        if not torch.isfinite(tensor).all():
            raise ArtefactError(where, "finite numbers", "NaN or infinity")
    return tensors
