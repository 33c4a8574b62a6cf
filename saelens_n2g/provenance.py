"""Provenance: what has to be known to make an artefact again, as JSON values without times or paths."""

from importlib.metadata import PackageNotFoundError, version
from typing import Any

PACKAGES = ("saelens-n2g", "torch", "transformers", "transformer-lens", "numpy", "scikit-learn", "safetensors")


def versions() -> dict[str, str]:
    """Versions of what decides results."""
    found: dict[str, str] = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def provenance(*, subject: dict[str, Any], corpus: dict[str, Any], config: dict[str, Any]) -> dict[str, Any]:
    """The record that goes into every artefact."""
    import torch

    return {
        "subject": subject,
        "corpus": corpus,
        "config": config,
        "versions": versions(),
        "threads": torch.get_num_threads(),
    }
