"""The dictionaries of a study: all variants at all layers, trained together over the activations that are at hand.

The subject has read the text once, for the units; training reads its fit documents from that cache. In `dictionaries/`
lies what `training.sweep` writes: a folder per site and variant with the dictionary in `sae/`, frontiers, `sweep.md`.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from saelens_n2g.activations import ActivationStore
from saelens_n2g.bases.foreign import load_dictionary
from saelens_n2g.comparison.workspace import Workspace
from saelens_n2g.errors import InputError
from saelens_n2g.jobs.artefacts import claim, read_json, write_json
from saelens_n2g.sites import Site
from saelens_n2g.study.config import StudyConfig
from saelens_n2g.training.blocks import BLOCK_ROWS
from saelens_n2g.training.sweep import sweep

FOLDER, DONE = "dictionaries", "dictionaries.json"


class FitBlocks:
    """The rows of the fit documents out of a cache of the whole text, in blocks: `SiteBlocks`.

    `fit` says of every row of the cache whether it is one of them.
    """

    def __init__(
        self, store: ActivationStore, sites: Sequence[Site], fit: Bool[np.ndarray, "token"], rows: int = BLOCK_ROWS
    ) -> None:
        self._parts = {site: store.mapped(site, check=i == 0) for i, site in enumerate(sites)}
        self._cuts: list[tuple[int, Tensor]] = []
        at = 0
        for shard, part in enumerate(next(iter(self._parts.values()))):
            kept = np.flatnonzero(fit[at : at + len(part)])
            at += len(part)
            self._cuts += [(shard, torch.from_numpy(kept[i : i + rows])) for i in range(0, len(kept), rows)]
        if at != len(fit):
            raise InputError("rows of the fit documents", f"{at} flags as the cache has rows", str(len(fit)))

    def __len__(self) -> int:
        return len(self._cuts)

    def size(self, block: int) -> int:
        """Rows of a block."""
        return len(self._cuts[block][1])

    def block(self, block: int) -> dict[Site, Float[Tensor, "rows _"]]:
        """The rows of a block at every site."""
        shard, kept = self._cuts[block]
        return {site: parts[shard][kept] for site, parts in self._parts.items()}


def trained_place(folder: Path, layers: int, site: Site, name: str) -> Path:
    """Folder of a dictionary that a study of so many layers in `folder` trains."""
    return folder / FOLDER / (name if layers == 1 else f"{site}-{name}") / "sae"


def place_of(config: StudyConfig, folder: Path, layer: int, name: str) -> Path | None:
    """Folder of the dictionary `name` at a layer; None for what is no dictionary."""
    given = config.dictionaries.get(name)
    if given is None:
        return None
    if isinstance(given, str):
        return Path(given.replace("{layer}", str(layer)))
    return trained_place(folder, len(config.layers), Site(layer, config.run.stream), name)


def trained(config: StudyConfig, folder: Path) -> bool:
    """Whether all dictionaries that the study trains are there."""
    marker = folder / "stages" / DONE
    return not config.trained or (marker.exists() and read_json(marker) == {"key": config.training_key()})


def train_all(workspace: Workspace, config: StudyConfig) -> None:
    """Train what `config` says in one pass, or go on with it; `workspace` has the activations of all layers."""
    folder, key = workspace.folder / FOLDER, {"key": config.training_key()}
    claim(folder, config.training_key())
    sites = [Site(layer, config.run.stream) for layer in config.layers]
    fit, test = (workspace.windows.subset(rows) for rows in workspace.split)
    device = str(workspace.subject.device)
    configs = {name: replace(given, device=device) for name, given in config.trained.items()}
    title = f"{len(configs) * len(sites)} dictionaries, trained together"
    with workspace.reporter.stage(title, "steps") as tick:
        sweep(
            workspace.subject,
            fit,
            test,
            sites,
            configs,
            folder,
            metadata=workspace.metadata,
            source=FitBlocks(workspace.store, sites, workspace.fit_tokens),
            judged=0,
            provenance=workspace.provenance(),
            on_step=lambda step, total, _line: tick(step, total),
            report=workspace.reporter.note,
        )
    write_json(workspace.folder / "stages" / DONE, key)


def described(folder: Path) -> dict[str, Any]:
    """What a dictionary says of itself: size, kind, error and sparsity on test activations. Others may know less."""
    dictionary = load_dictionary(folder)
    out: dict[str, Any] = {
        "d_sae": dictionary.d_sae, "architecture": dictionary.architecture, "tied": dictionary.tied,
    }  # fmt: skip
    test = dictionary.told("evaluation", "test")
    out |= {k: test[k] for k in ("fvu", "l0", "dead", "alive") if k in test}
    if training := dictionary.told("training"):
        out |= {"samples": dictionary.metadata.get("training_samples"), "trained_as": training.get("architecture")}
    return out
