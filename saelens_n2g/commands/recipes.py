"""Recipes: what the runnable files in `train/` have in common. A recipe is a command with a file of settings beside it.

python train/NAME.py [SETTINGS.json] [--out FOLDER] [--estimate]
"""

import argparse
import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from saelens_n2g.commands.settings import config_of
from saelens_n2g.errors import InputError, N2GError
from saelens_n2g.jobs.artefacts import read_json
from saelens_n2g.progress import Reporter
from saelens_n2g.training.config import TrainingConfig

SINGLE = ("layer", "alpha", "expansion", "bases")
"""What a sweep has several of, or takes from elsewhere."""


def recipe(doc: str | None, script: str, command: Callable[..., None]) -> None:
    """Read the command line of a recipe and its settings, and call `command`.

    doc, script: `__doc__` and `__file__` of the recipe. Settings are in the JSON file of the same name unless another
    is named. The command is called with `out`, `estimate`, `reporter` and the settings. What a user can mend ends the
    process with one line and the error's exit code.
    """
    place = Path(script)
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("settings", nargs="?", type=Path, default=place.with_suffix(".json"))
    parser.add_argument("--out", type=Path, default=Path("runs") / place.stem)
    parser.add_argument("--estimate", action="store_true", help="say what it will cost, and stop")
    given = parser.parse_args()
    try:
        settings = read_settings(given.settings, command)
        command(out=given.out, estimate=given.estimate, reporter=Reporter(), **settings)
    except N2GError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None


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
