"""Exemplars as others publish them, made from what the tiny model really does: one function for each format."""

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors.numpy import save_file
from tiny import PlainModel, sentences

LAYER = 1


class Window(NamedTuple):
    """A text, its tokens' ids and strings, and what every neuron of `LAYER` does on them, signed."""

    ids: list[int]
    strings: list[str]
    neurons: np.ndarray


def windows(model: PlainModel, n: int = 60, width: int = 24) -> list[Window]:
    """The beginnings of `n` texts of the tiny model's kind."""
    found = []
    for seed in range(n):
        ids = model.tokenizer(sentences(6, seed=1000 + seed), add_special_tokens=False)["input_ids"][:width]
        found.append(Window(ids, [model.tokenizer.decode([t]) for t in ids], model.run(ids, LAYER)[0]))
    return found


def strongest(found: Sequence[Window], unit: int, n: int = 20) -> list[Window]:
    """The windows on which a neuron is most active, first the strongest."""
    return sorted(found, key=lambda window: -float(window.neurons[:, unit].max()))[:n]


def values(window: Window, unit: int) -> list[float]:
    return [float(v) for v in window.neurons[:, unit]]


def neuroscope(found: Sequence[Window], unit: int, *, envelope: bool = True, layer: int = LAYER) -> dict[str, Any]:
    """As DeepDecipher serves it; the BOS is part of the text, as on Neuroscope."""
    texts = [
        {
            "min_range": -1.0,
            "max_range": float(max(w.neurons[:, unit].max() for w in found)),
            "min_activation": float(w.neurons[:, unit].min()),
            "max_activation": float(w.neurons[:, unit].max()),
            "data_index": at,
            "max_activating_token_index": 1 + int(w.neurons[:, unit].argmax()),
            "tokens": ["<s>", *w.strings],
            "activations": [0.25, *values(w, unit)],
        }
        for at, w in enumerate(found)
    ]
    body = {"neuron_index": {"layer": layer, "neuron": unit}, "texts": texts}
    return {"data": body, "metadata": {"name": "tiny"}} if envelope else body


def neuronpedia_lines(found: Sequence[Window], unit: int, pieces: Any = None) -> list[dict[str, Any]]:
    """Lines of an export's activations. pieces: ids -> strings, where not plain text."""
    return [
        {
            "id": f"{unit}-{at}",
            "modelId": "tiny",
            "layer": f"{LAYER}-mlp",
            "index": str(unit),
            "tokens": w.strings if pieces is None else pieces(w.ids),
            "values": values(w, unit),
            "maxValue": float(w.neurons[:, unit].max()),
            "maxValueTokenIndex": int(w.neurons[:, unit].argmax()),
            "minValue": 0.0,
            "binMin": None,
            "binMax": None,
        }
        for at, w in enumerate(found)
    ]


def neuronpedia_feature(found: Sequence[Window], unit: int) -> dict[str, Any]:
    """As its API gives a feature."""
    activations = [{k: v for k, v in one.items() if k not in ("modelId", "layer", "index")} for one in
                   neuronpedia_lines(found, unit)]  # fmt: skip
    return {
        "modelId": "tiny",
        "layer": f"{LAYER}-mlp",
        "index": str(unit),
        "maxActApprox": 9.5,
        "activations": activations,
        "explanations": [],
    }


def openai_record(found: Sequence[Window], unit: int) -> dict[str, Any]:
    """A neuron record."""

    def records(some: Sequence[Window]) -> list[dict[str, Any]]:
        return [{"tokens": w.strings, "activations": values(w, unit)} for w in some]

    return {
        "dataclass_name": "NeuronRecord",
        "neuron_id": {"dataclass_name": "NeuronId", "layer_index": LAYER, "neuron_index": unit},
        "most_positive_activation_records": records(found[:-4]),
        "random_sample": records(found[-2:]),
        "random_sample_by_quantile": [records(found[-4:-3]), records(found[-3:-2])],
        "mean": None,
    }


def write_delphi(folder: Path, found: Sequence[Window], units: Sequence[int], first: int = 0, last: int = 63) -> Path:
    """A cache of one hook point; windows are rows of equal length behind a BOS."""
    width = 1 + max(len(w.ids) for w in found)
    rows = [w for w in found if len(w.ids) + 1 == width]
    places, acts = [], []
    for row, w in enumerate(rows):
        for unit in units:
            fired = np.flatnonzero(w.neurons[:, unit] > 1e-5)
            places += [(row, 1 + int(at), unit - first) for at in fired]
            acts += [w.neurons[at, unit] for at in fired]
    path = folder / f"model.layers.{LAYER}.mlp" / f"{first}_{last}.safetensors"
    path.parent.mkdir(parents=True)
    arrays = {
        "locations": np.array(places, dtype=np.uint16),
        "activations": np.array(acts, dtype=np.float16),
        "tokens": np.array([[0, *w.ids] for w in rows], dtype=np.int64),
    }
    save_file(arrays, path)
    (path.parent / "config.json").write_text(json.dumps({"model_name": "tiny", "cache_ctx_len": width}))
    return path


def write_json_lines(path: Path, values_: Sequence[Any]) -> Path:
    """One value a line, packed if the name says so."""
    data = "".join(json.dumps(one) + "\n" for one in values_).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path
