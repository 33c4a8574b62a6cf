"""Answers in files of their own: where, and whether what is there is still what was asked for."""

from pathlib import Path
from typing import Any

from saelens_n2g.autointerp.excerpts import Evidence
from saelens_n2g.jobs.artefacts import read_json


def file_of(folder: Path, unit: Evidence) -> Path:
    """The file of a unit."""
    return folder / unit.run / f"{unit.name.replace('/', '_')}.json"


def known(path: Path, key: str) -> Any:
    """What an earlier run stored for this key; None for anything else."""
    if not path.is_file():
        return None
    stored = read_json(path)
    return stored["value"] if isinstance(stored, dict) and stored.get("key") == key else None
