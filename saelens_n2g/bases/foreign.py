"""Dictionaries in any layout that is read here: SAELens 6, sparsify, dictionary_learning. Only SAELens' is written.

    dictionary = load_dictionary(folder)     # told apart by the file that holds the weights

A reader turns a folder into a `Dictionary` that computes the same features, up to rounding. What a reader cannot
represent it refuses by name. A new layout is a function with `@reader(name, weights, others)`.

sparsify (EleutherAI, 1.x): `cfg.json` and `sae.safetensors`.
dictionary_learning (Marks et al., 0.1): `config.json` and `ae.pt`. That file is a pickle: PyTorch reads it with
`weights_only`, which runs no code and refuses all but tensors in plain containers.
"""

import pickle
import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from saelens_n2g.bases.dictionary import Dictionary
from saelens_n2g.bases.formats import CONFIG, SPARSITY, WEIGHTS, check_tensors, load_saelens, load_tensors
from saelens_n2g.errors import ArtefactError
from saelens_n2g.jobs.artefacts import COMMIT, committed, read_json, sha256_of
from saelens_n2g.sites import Site


class Reader(NamedTuple):
    """One layout."""

    name: str
    weights: str
    """The file that tells this layout from the others."""
    others: tuple[str, ...]
    """Further files that may belong to it."""
    load: Callable[[Path], Dictionary]


READERS: list[Reader] = [Reader("SAELens", WEIGHTS, (CONFIG, SPARSITY, COMMIT), load_saelens)]
"""All layouts; functions below enter themselves."""


def reader(name: str, weights: str, *others: str) -> Callable[[Callable[[Path], Dictionary]], Any]:
    """Decorator that enters a function as the reader of the layout whose weights are in the file `weights`."""

    def enter(load: Callable[[Path], Dictionary]) -> Callable[[Path], Dictionary]:
        READERS.append(Reader(name, weights, others, load))
        return load

    return enter


def dictionary_files() -> frozenset[str]:
    """Names of all files that a dictionary may consist of, in any layout."""
    return frozenset(name for one in READERS for name in (one.weights, *one.others))


def checksums(folder: Path) -> dict[str, str]:
    """SHA-256 of the files of the dictionary in `folder`, by name."""
    return {path.name: sha256_of(path) for path in sorted(folder.iterdir()) if path.name in dictionary_files()}


def reader_of(folder: Path) -> Reader | None:
    """The reader of what lies in `folder`; None if there is no dictionary.

    Raises `ArtefactError` if there are weights in two layouts.
    """
    found = [one for one in READERS if (folder / one.weights).is_file()]
    if len(found) > 1:
        raise ArtefactError(f"folder {folder}", "one dictionary", " and ".join(one.weights for one in found))
    if not found and any((folder / name).is_file() for name in (CONFIG, COMMIT)):
        return READERS[0]  # damaged, in all likelihood: that reader says what is missing
    return found[0] if found else None


def load_dictionary(folder: Path) -> Dictionary:
    """Read a dictionary in any known layout; `metadata["source"]` says which, unless it is SAELens'.

    Raises `ArtefactError` if there is none, or it is damaged or cannot be represented.
    """
    one = reader_of(folder)
    if one is None:
        names = ", ".join(f"{known.weights} ({known.name})" for known in READERS)
        found = "none of them" if folder.is_dir() else "a file" if folder.exists() else "nothing there"
        raise ArtefactError(f"dictionary {folder}", f"a folder with one of {names}", found)
    return one.load(folder)


# --- sparsify -------------------------------------------------------------------------------------------------


@reader("sparsify", "sae.safetensors", CONFIG)
def load_sparsify(folder: Path) -> Dictionary:
    """A sparsify folder, as topk: `relu` of the k largest of `(x - b_dec) encoder.weight^T + encoder.bias`.

    Raises `ArtefactError` for what is missing or damaged, and for transcoders, skip connections and other activations.
    """
    committed(folder, check=True)  # there is a marker where the folder was pulled from the hub
    path, weights = folder / CONFIG, folder / "sae.safetensors"
    config = _object(path)
    for key, plain in (("transcode", False), ("skip_connection", False), ("signed", False), ("activation", "topk")):
        if config.get(key, plain) != plain:
            raise ArtefactError(f"{key} in {path}", str(plain), repr(config[key]))
    d, k = _positive(config, "d_in", path), _positive(config, "k", path)
    n = config.get("num_latents") or d * _positive(config, "expansion_factor", path)
    tensors = load_tensors(weights)
    shapes = {"encoder.weight": (n, d), "encoder.bias": (n,), "W_dec": (n, d), "b_dec": (d,)}
    check_tensors(weights, tensors, shapes, _dtype(tensors))
    if k > n:
        raise ArtefactError(f"k in {path}", f"at most {n} (latents)", str(k))
    return Dictionary(
        tensors["encoder.weight"].T.contiguous(),
        tensors["encoder.bias"],
        tensors["W_dec"],
        tensors["b_dec"],
        metadata={"source": {"format": "sparsify", "config": config}},
        architecture="topk",
        k=k,
    )


# --- dictionary_learning --------------------------------------------------------------------------------------


@reader("dictionary_learning", "ae.pt", "config.json")
def load_dictionary_learning(folder: Path) -> Dictionary:
    """A dictionary_learning folder, of any class in `CLASSES`.

    Weights are taken as they are stored. (Its own loader brings the decoder of `AutoEncoder` to unit columns, and early
    versions of two classes measured features in lengths of these; both scale a feature, neither moves where it fires.)
    Raises `ArtefactError` for what is missing or damaged, for other classes and for a pickle of more than tensors.
    """
    committed(folder, check=True)
    path, weights = folder / "config.json", folder / "ae.pt"
    config = _object(path)
    trainer = config.get("trainer")
    kind = trainer.get("dict_class") if isinstance(trainer, dict) else None
    if not isinstance(trainer, dict) or not isinstance(kind, str) or kind not in CLASSES:
        raise ArtefactError(f"trainer.dict_class in {path}", f"one of {', '.join(CLASSES)}", repr(kind))
    state = _state(weights, CLASSES[kind])
    if "k" in state and trainer.get("k", state["k"].item()) != state["k"].item():
        raise ArtefactError(f"trainer.k in {path}", f"{state['k'].item()}, as in {weights.name}", repr(trainer["k"]))
    dictionary = CLASSES[kind].build(state, weights)
    return _with_metadata(dictionary, trainer, config.get("buffer"))


class _Class(NamedTuple):
    """What one class of dictionary_learning stores, and what it means."""

    shapes: Mapping[str, tuple[str, ...]]
    """Tensor -> its axes, of n (features) and d (activations)."""
    counts: frozenset[str]
    """Further tensors: whole numbers and the single threshold of a batch."""
    build: Callable[[dict[str, Tensor], Path], Dictionary]


def _state(path: Path, kind: _Class) -> dict[str, Tensor]:
    """The state dict in `path`, checked against what its class stores."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # on the protocol of a pickle that is then refused or read
            state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ArtefactError(f"file {path}", "a state dict of tensors alone", "a pickle of other things") from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise ArtefactError(f"file {path}", "a whole state dict", " ".join(str(error).split())[:120]) from error
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise ArtefactError(f"file {path}", "a state dict of tensors alone", f"a pickled {type(state).__name__}")
    if state.keys() != kind.shapes.keys() | kind.counts:
        wanted, found = (", ".join(sorted(names)) for names in (kind.shapes.keys() | kind.counts, map(str, state)))
        raise ArtefactError(f"file {path}", f"tensors {wanted}", found or "none")
    first, axes = next(iter(kind.shapes.items()))
    if state[first].ndim != len(axes):
        raise ArtefactError(f"tensor {first} in {path}", f"{len(axes)} axes", f"shape {tuple(state[first].shape)}")
    sizes = dict(zip(axes, state[first].shape, strict=True))
    shapes = {name: tuple(sizes[axis] for axis in axes) for name, axes in kind.shapes.items()}
    check_tensors(path, {name: state[name].detach() for name in shapes}, shapes, state[first].dtype)
    if "k" in kind.counts and not (state["k"].numel() == 1 and 1 <= state["k"].item() <= sizes["n"]):
        raise ArtefactError(f"tensor k in {path}", f"one integer from 1 to {sizes['n']}", str(state["k"].tolist()))
    return {name: tensor.detach().contiguous() for name, tensor in state.items()}


def _standard(s: dict[str, Tensor], _: Path) -> Dictionary:
    return Dictionary(_turned(s["encoder.weight"]), s["encoder.bias"], _turned(s["decoder.weight"]), s["bias"])


def _april(s: dict[str, Tensor], _: Path) -> Dictionary:
    """The class of the "April update": the bias of the decoder is not taken off the input."""
    w_enc, w_dec = _turned(s["encoder.weight"]), _turned(s["decoder.weight"])
    return Dictionary(w_enc, s["encoder.bias"], w_dec, s["decoder.bias"], subtracts_b_dec=False)


def _topk(s: dict[str, Tensor], _: Path) -> Dictionary:
    """Its `threshold` is for another way to encode, which is not that class's default."""
    w_enc, w_dec = _turned(s["encoder.weight"]), _turned(s["decoder.weight"])
    return Dictionary(w_enc, s["encoder.bias"], w_dec, s["b_dec"], architecture="topk", k=int(s["k"].item()))


def _batch_topk(s: dict[str, Tensor], path: Path) -> Dictionary:
    """Outside of training, one learnt threshold stands for the batch: jumprelu."""
    parts = _turned(s["encoder.weight"]), s["encoder.bias"], _turned(s["decoder.weight"]), s["b_dec"]
    return Dictionary(*parts, architecture="jumprelu", threshold=_everywhere(s, parts[1], path))


def _matryoshka(s: dict[str, Tensor], path: Path) -> Dictionary:
    """As `_batch_topk`, with the groups together."""
    threshold = _everywhere(s, s["b_enc"], path)
    return Dictionary(s["W_enc"], s["b_enc"], s["W_dec"], s["b_dec"], architecture="jumprelu", threshold=threshold)


def _jumprelu(s: dict[str, Tensor], _: Path) -> Dictionary:
    """The bias is not taken off the input."""
    parts = s["W_enc"], s["b_enc"], s["W_dec"], s["b_dec"]
    return Dictionary(*parts, subtracts_b_dec=False, architecture="jumprelu", threshold=s["threshold"])


def _gated(s: dict[str, Tensor], _: Path) -> Dictionary:
    biases = {"b_gate": s["gate_bias"], "r_mag": s["r_mag"], "b_mag": s["mag_bias"]}
    return Dictionary.gated(_turned(s["encoder.weight"]), _turned(s["decoder.weight"]), s["decoder_bias"], **biases)


_LINEAR = {"encoder.weight": ("n", "d"), "encoder.bias": ("n",), "decoder.weight": ("d", "n")}
_PLAIN = {"W_enc": ("d", "n"), "b_enc": ("n",), "W_dec": ("n", "d"), "b_dec": ("d",)}
_GATED = dict.fromkeys(("r_mag", "gate_bias", "mag_bias"), ("n",))
CLASSES = {
    "AutoEncoder": _Class(_LINEAR | {"bias": ("d",)}, frozenset(), _standard),
    "AutoEncoderNew": _Class(_LINEAR | {"decoder.bias": ("d",)}, frozenset(), _april),
    "AutoEncoderTopK": _Class(_LINEAR | {"b_dec": ("d",)}, frozenset({"k", "threshold"}), _topk),
    "BatchTopKSAE": _Class(_LINEAR | {"b_dec": ("d",)}, frozenset({"k", "threshold"}), _batch_topk),
    "MatryoshkaBatchTopKSAE": _Class(_PLAIN, frozenset({"k", "threshold", "group_sizes"}), _matryoshka),
    "JumpReluAutoEncoder": _Class(_PLAIN | {"threshold": ("n",)}, frozenset(), _jumprelu),
    "GatedAutoEncoder": _Class(
        {"encoder.weight": ("n", "d"), "decoder.weight": ("d", "n"), "decoder_bias": ("d",), **_GATED},
        frozenset(),
        _gated,
    ),
}
"""dictionary_learning's name of a class -> what `ae.pt` holds of it and what that means."""


def _with_metadata(dictionary: Dictionary, trainer: dict[str, Any], buffer: Any) -> Dictionary:
    """`dictionary` with what its training configuration says, under SAELens' names where it says it outright."""
    known: dict[str, Any] = {"source": {"format": "dictionary_learning", "config": trainer}}
    if isinstance(trainer.get("lm_name"), str):
        known["model_name"] = trainer["lm_name"]
    # The residual stream after a block has this name there; what others mean depends on the script that set them.
    if place := re.fullmatch(r"resid_post_layer_(\d+)", str(trainer.get("submodule_name"))):
        known["hook_name"] = Site(int(place[1]), "resid_post").hook
    if isinstance(buffer, dict) and isinstance(buffer.get("ctx_len"), int):
        known["context_size"] = buffer["ctx_len"]
    return replace(dictionary, metadata=known)


# --- shared ---------------------------------------------------------------------------------------------------


def _object(path: Path) -> dict[str, Any]:
    """The JSON object in `path`."""
    value = read_json(path)
    if not isinstance(value, dict):
        raise ArtefactError(f"file {path}", "a JSON object", type(value).__name__)
    return value


def _positive(config: dict[str, Any], key: str, path: Path) -> int:
    value = config.get(key)
    if type(value) is not int or value < 1:
        raise ArtefactError(f"{key} in {path}", "a positive integer", repr(value))
    return value


def _dtype(tensors: Mapping[str, Tensor]) -> torch.dtype | None:
    """One dtype that all tensors must have; None where there are none."""
    return next((tensor.dtype for tensor in tensors.values()), None)


def _turned(matrix: Tensor) -> Tensor:
    return matrix.T.contiguous()


def _everywhere(state: dict[str, Tensor], like: Tensor, path: Path) -> Tensor:
    """The one threshold of a batch, for every feature. Raises `ArtefactError` if training never set it (it is -1)."""
    threshold = state["threshold"]
    if threshold.numel() != 1 or not threshold.item() >= 0:
        raise ArtefactError(f"tensor threshold in {path}", "one number >= 0", str(threshold.tolist()))
    return torch.full_like(like, threshold.item())
