"""Checkpoints: the state of a run after some step, whole or absent, so that it can go on from there.

`checkpoints/step-00000500/` holds `state.safetensors` and the commit marker. The new one is in place before the
one before it is removed, so there is a checkpoint at every moment after the first.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from saelens_n2g.errors import ArtefactError, InputError
from saelens_n2g.jobs.artefacts import committed, publishing, remove_folder, require

STATE = "state.safetensors"


class Checkpoint(NamedTuple):
    """Where a run stands."""

    step: int
    """Steps done."""
    state: dict[str, Tensor]


def save_checkpoint(folder: Path, step: int, state: Mapping[str, Tensor], identity: str) -> None:
    """Write the state after `step` steps and remove earlier checkpoints. `identity` says what run it belongs to."""
    from safetensors.torch import save_file

    place = folder / f"step-{step:08d}"
    with publishing(place, {"kind": "saelens_n2g/checkpoint", "step": step, "identity": identity}) as work:
        save_file({k: v.detach().to("cpu").contiguous() for k, v in state.items()}, work / STATE)
    for other in folder.iterdir():
        if other != place:
            remove_folder(other)


def load_checkpoint(folder: Path, identity: str) -> Checkpoint | None:
    """The latest checkpoint in `folder`, or None if there is none.

    Raises `ArtefactError` if it is damaged and `InputError` if it belongs to a run with other settings or data.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    found = [place for place in folder.glob("step-*") if committed(place) is not None]
    if not found:
        return None
    place = max(found)
    meta = require(place, "checkpoint")
    if meta["identity"] != identity:
        raise InputError(
            f"checkpoint {place}",
            f"one of these settings and activations ({identity})",
            f"one of others ({meta['identity']}); take another folder or remove the checkpoint",
        )
    try:
        return Checkpoint(meta["step"], load_file(place / STATE))
    except (SafetensorError, OSError) as error:
        raise ArtefactError(f"file {place / STATE}", "a whole safetensors file", str(error)) from error


def remove_checkpoints(folder: Path) -> None:
    """Remove all, once the finished dictionary is in place."""
    remove_folder(folder)
