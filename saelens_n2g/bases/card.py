"""The model card of a dictionary: what a reader of its page on the hub wants to know, out of `cfg.json` alone."""

import json
import re
from collections.abc import Mapping
from typing import Any

from saelens_n2g.bases.dictionary import Dictionary

_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
TAGS = ("saelens", "saelens-n2g", "sparse-autoencoder", "mechanistic-interpretability")


def model_card(dictionary: Dictionary, repo_id: str, *, path_in_repo: str = "", revision: str | None = None) -> str:
    """README.md for `dictionary` in the repository `repo_id`: a YAML header, a table of facts, how to load it.

    Only what the metadata say is told: unknown facts have no line. Equal dictionaries give equal text.
    """
    rows = "\n".join(f"| {name} | {_cell(value)} |" for name, value in _facts(dictionary).items())
    spec = f"hf:{repo_id}{f'@{revision}' if revision else ''}{f'/{path_in_repo}' if path_in_repo else ''}"
    arguments = f'"{repo_id}"' + (f', revision="{revision}"' if revision else "")
    below = f' + "/{path_in_repo}"' if path_in_repo else ""
    return f"""---
{_header(dictionary)}
---

# {repo_id.rpartition("/")[2]}{f": {path_in_repo}" if path_in_repo else ""}

A sparse autoencoder of {dictionary.d_sae} features on activations of width {dictionary.d_in}. It takes raw activations:
centring and scaling are folded into the weights.

| | |
|---|---|
{rows}

## Loading

With saelens-n2g, which also fits token graphs to the features:

```python
from saelens_n2g.bases.foreign import load_dictionary
from saelens_n2g.bases.hub import locate_dictionary

dictionary = load_dictionary(locate_dictionary("{spec}"))
features = dictionary.encode(activations)
```

With SAELens 6:

```python
from huggingface_hub import snapshot_download
from sae_lens import SAE

sae = SAE.load_from_disk(snapshot_download({arguments}){below})
features = sae.encode(activations)
```
"""


def _header(dictionary: Dictionary) -> str:
    """The YAML that the hub reads. A JSON string is a YAML string, whatever it holds."""
    lines = ["library_name: saelens", "tags:"]
    lines += [f"- {tag}" for tag in (*TAGS, dictionary.architecture)]
    # The hub links these, so names that cannot be of the hub (paths, "embedded") stay out.
    for key, name in (("base_model", "model_name"), ("datasets", "dataset_path")):
        if _HUB_NAME.fullmatch(value := str(dictionary.metadata.get(name))):
            lines += [f"{key}:", f"- {json.dumps(value)}"]
    return "\n".join(lines)


def _facts(dictionary: Dictionary) -> dict[str, Any]:
    """Name -> value, for the table, without what is not known."""
    known = dictionary.metadata
    evaluation = _mapping(_mapping(known.get("evaluation")).get("test"))
    training = _mapping(known.get("training"))
    facts = {
        "model": known.get("model_name"),
        "hook": known.get("hook_name"),
        "architecture": dictionary.architecture + (", tied" if dictionary.tied else ""),
        "d_in": dictionary.d_in,
        "d_sae": dictionary.d_sae,
        "k": dictionary.k,
        "dtype": str(dictionary.W_dec.dtype).removeprefix("torch."),
        "trained on": known.get("dataset_path"),
        "activations seen": known.get("training_samples"),
        "context": known.get("context_size"),
        "BOS in front": _yes_or_no(known.get("prepend_bos")),
        "L0": _rounded(known.get("l0")),
        "L0 on test documents": _rounded(evaluation.get("l0")),
        "FVU on test documents": _rounded(evaluation.get("fvu")),
        "FVU on fit documents": _rounded(_mapping(_mapping(known.get("evaluation")).get("fit")).get("fvu")),
        "dead features": known.get("num_dead_features"),
        "L1 weight (alpha)": training.get("alpha"),
        "learning rate": training.get("lr"),
        "seed": training.get("seed"),
        "format it came from": _mapping(known.get("source")).get("format"),
    }
    return {name: value for name, value in facts.items() if value is not None}


def _mapping(value: Any) -> Mapping[str, Any]:
    """`value` if it is a mapping: metadata come from anywhere."""
    return value if isinstance(value, Mapping) else {}


def _yes_or_no(value: Any) -> str | None:
    return ("yes" if value else "no") if isinstance(value, bool) else None


def _rounded(value: Any) -> str | None:
    return f"{value:.4g}" if isinstance(value, int | float) else None


def _cell(value: Any) -> str:
    """Text that cannot break the table."""
    return " ".join(str(value).split()).replace("|", "\\|").replace("<", "&lt;")
