"""Dictionaries on disk: folders in the layout of SAELens 6. Other layouts are read in `bases/foreign.py`.

    cfg.json                  architecture, sizes, dtype, metadata (model, hook, context, BOS); of topk also k and
                              rescale_acts_by_decoder_norm
    sae_weights.safetensors   W_enc (d_in, d_sae), W_dec (d_sae, d_in), b_dec (d_in,), and what the architecture has
                              beside them, each (d_sae,): `ARCHITECTURES`
    sparsity.safetensors      optional: `sparsity` (d_sae,), log10 of the share of tokens on which a feature fires
    COMMIT.json               ours alone, written last: sizes and checksums

Folders written elsewhere have no commit marker and load all the same. Nothing but JSON and safetensors is read.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from saelens_n2g.bases.dictionary import ARCHITECTURES
from saelens_n2g.bases.dictionary import Dictionary as Dictionary
from saelens_n2g.errors import ArtefactError
from saelens_n2g.jobs.artefacts import committed, publishing, read_json, write_json

CONFIG, WEIGHTS, SPARSITY = "cfg.json", "sae_weights.safetensors", "sparsity.safetensors"
SAELENS_VERSION = "6.0.0"
"""Layout written. SAELens reads a folder without a version of at least 6 as the older, flat layout."""
KIND = {"kind": "saelens_n2g/dictionary"}
"""What the commit marker of a dictionary says."""
TOPK_SETTINGS = ("k", "rescale_acts_by_decoder_norm")
"""Keys that only a topk dictionary has in `cfg.json`."""
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


def save_saelens(folder: Path, dictionary: Dictionary, metadata: SaeMetadata) -> None:
    """Write `dictionary` as a SAELens 6 folder, whole or not at all; an earlier one is replaced.

    `metadata` takes the place of the dictionary's own. Raises `InputError` if `folder` cannot be written.
    """
    from safetensors.torch import save_file

    names = ("W_enc", "W_dec", "b_dec", *ARCHITECTURES[dictionary.architecture].tensors)
    tensors = {name: getattr(dictionary, name).detach().to("cpu").contiguous() for name in names}
    config: dict[str, Any] = {
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
    if dictionary.architecture == "topk":
        config |= {name: getattr(dictionary, name) for name in TOPK_SETTINGS}
    with publishing(folder, KIND) as work:
        write_json(work / CONFIG, config)
        save_file(tensors, work / WEIGHTS)
        if dictionary.log10_sparsity is not None:
            save_file({"sparsity": dictionary.log10_sparsity.to("cpu").contiguous()}, work / SPARSITY)


def load_saelens(folder: Path) -> Dictionary:
    """Read a SAELens 6 folder, ours or another's, of any architecture in `ARCHITECTURES`.

    Raises `ArtefactError` for whatever is missing, damaged, of another shape, dtype or architecture. If there is a
    commit marker, checksums are compared too.
    """
    committed(folder, check=True)
    config = _config(folder / CONFIG)
    d_in, d_sae, architecture = config["d_in"], config["d_sae"], config["architecture"]
    shapes = {"W_enc": (d_in, d_sae), "W_dec": (d_sae, d_in), "b_dec": (d_in,)}
    shapes |= dict.fromkeys(ARCHITECTURES[architecture].tensors, (d_sae,))
    tensors = read_tensors(folder / WEIGHTS, shapes, DTYPES[config["dtype"]])
    sparsity = None
    if (folder / SPARSITY).exists():
        sparsity = read_tensors(folder / SPARSITY, {"sparsity": (d_sae,)}, None)["sparsity"]
    tensors.setdefault("b_enc", tensors["W_enc"].new_zeros(d_sae))
    parts: dict[str, Any] = {**tensors, **{name: config[name] for name in TOPK_SETTINGS if architecture == "topk"}}
    return Dictionary(
        **parts,
        log10_sparsity=sparsity,
        subtracts_b_dec=config["apply_b_dec_to_input"],
        metadata=config["metadata"],
        architecture=architecture,
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
    config.setdefault("rescale_acts_by_decoder_norm", False)
    for key, allowed in (
        ("architecture", tuple(ARCHITECTURES)),
        ("dtype", tuple(DTYPES)),
        ("normalize_activations", ("none", None)),
        ("reshape_activations", ("none", None)),
        ("apply_b_dec_to_input", (True, False)),
        ("rescale_acts_by_decoder_norm", (True, False)),
    ):
        if config.get(key) not in allowed:
            names = " or ".join(str(a) for a in allowed if a is not None)
            raise ArtefactError(f"{key} in {path}", names, repr(config.get(key)))
    if config["architecture"] == "topk" and not (type(config.get("k")) is int and 1 <= config["k"] <= config["d_sae"]):
        raise ArtefactError(f"k in {path}", f"an integer from 1 to {config['d_sae']} (d_sae)", repr(config.get("k")))
    return config


def read_tensors(path: Path, shapes: Mapping[str, tuple[int, ...]], dtype: torch.dtype | None) -> dict[str, Tensor]:
    """The tensors of a safetensors file: exactly the names of `shapes`, finite, of `dtype` (None: any float).

    Raises `ArtefactError` for a missing or damaged file and as `check_tensors` does.
    """
    tensors = load_tensors(path)
    check_tensors(path, tensors, shapes, dtype)
    return tensors


def load_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file. Raises `ArtefactError` if it is missing or damaged."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        raise ArtefactError(f"file {path}", "a safetensors file", "nothing there")
    try:
        tensors: dict[str, Tensor] = load_file(path)
    except (SafetensorError, OSError) as error:
        raise ArtefactError(f"file {path}", "a whole safetensors file", str(error)) from error
    return tensors


def check_tensors(
    path: Path, tensors: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]], dtype: torch.dtype | None
) -> None:
    """Raise `ArtefactError` unless `tensors` (out of `path`) are exactly those of `shapes`, finite, of `dtype`.

    `dtype` None allows any floating-point dtype.
    """
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
