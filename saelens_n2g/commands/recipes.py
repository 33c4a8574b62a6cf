"""Settings of the recipes in `train/`: JSON files beside them, with the options of a command."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from saelens_n2g.commands.settings import config_of
from saelens_n2g.errors import InputError
from saelens_n2g.jobs.artefacts import read_json
from saelens_n2g.training.config import TrainingConfig

SINGLE = ("layer", "alpha", "expansion", "bases")
"""What a sweep has several of, or takes from elsewhere."""


def read_settings(path: Path, command: Callable[..., None]) -> dict[str, Any]:
    """The settings in a JSON file. Raises `ArtefactError` for a file that is none, `InputError` for unknown ones."""
    settings = read_json(path)
    if not isinstance(settings, Mapping):
        raise InputError(f"settings in {path}", "a JSON object", type(settings).__name__)
    if unknown := sorted(set(settings) - known_settings(command)):
        known = ", ".join(sorted(known_settings(command)))
        raise InputError(f"settings in {path}", f"some of {known}", ", ".join(unknown))
    return dict(settings)


def known_settings(command: Callable[..., None]) -> set[str]:
    """Names of settings that a command takes: its own, those of `config_of` that it passes on, and what `config_of`
    takes for the training."""
    names = _keywords(command) - {"out", "estimate", "reporter"}
    passed = (_keywords(config_of) | {field.name for field in fields(TrainingConfig)}) - {"bases"}
    return names | (passed - set(SINGLE) if "layers" in names else passed)


def _keywords(function: Callable[..., Any]) -> set[str]:
    return {name for name, one in inspect.signature(function).parameters.items() if one.kind is one.KEYWORD_ONLY}
