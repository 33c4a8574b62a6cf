"""Activations of a corpus at one or more sites, computed in one pass over the subject and kept on disk in shards.

Only scored positions are kept (no BOS, no padding), in the order of the windows: row i of `ActivationStore.rows`
belongs to the i-th True of `windows.mask`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from saelens_n2g.corpus import Windows
from saelens_n2g.errors import ArtefactError, InputError
from saelens_n2g.jobs.artefacts import require
from saelens_n2g.jobs.engine import Engine, LocalEngine, Shard, cut
from saelens_n2g.sites import Site

SHARD_WINDOWS = 256


@runtime_checkable
class ActivationModel(Protocol):
    """What harvesting needs of a subject."""

    def activations(self, ids: Int[Tensor, "batch pos"], sites: Sequence[Site]) -> dict[Site, Float[Tensor, "..."]]: ...
    def describe(self) -> dict[str, Any]: ...


@dataclass(frozen=True)
class Harvest:
    """The job: run the subject over windows and keep what is wanted at each site."""

    subject: ActivationModel
    windows: Windows
    columns: Mapping[Site, tuple[int, ...] | None]
    """Per site the coordinates to keep; None keeps all."""
    folder: Path
    batch_windows: int = 16

    @property
    def meta(self) -> dict[str, Any]:
        """Subject, text and sites: what decides the values."""
        sites = {str(site): None if c is None else list(c) for site, c in sorted(self.columns.items())}
        return {"subject": self.subject.describe(), "windows": self.windows.fingerprint(), "sites": sites}

    def run(self, shard: Shard, work: Path) -> None:
        """Write one safetensors file: per site (scored tokens of the shard, kept coordinates), float32."""
        from safetensors.torch import save_file

        parts: dict[Site, list[Tensor]] = {site: [] for site in self.columns}
        for start in range(shard.start, shard.stop, self.batch_windows):
            rows = np.arange(start, min(start + self.batch_windows, shard.stop))
            batch = self.windows.subset(rows)
            width = int(batch.lengths.max())
            mask = torch.from_numpy(batch.mask[:, :width])
            found = self.subject.activations(torch.from_numpy(batch.tokens[:, :width]).long(), list(self.columns))
            for site, columns in self.columns.items():
                values = found[site].cpu()[mask]
                kept = values if columns is None else values[:, list(columns)]
                if not torch.isfinite(kept).all():
                    bad = int((~torch.isfinite(kept)).any(-1).sum())
                    raise InputError(f"activations at {site}", "finite numbers", f"{bad} tokens of {len(kept)} without")
                parts[site].append(kept)
        save_file({str(site): torch.cat(values) for site, values in parts.items()}, work / "activations.safetensors")


@dataclass(frozen=True)
class ActivationStore:
    """Harvested activations on disk."""

    folder: Path
    shards: tuple[Shard, ...]

    def rows(self, site: Site) -> Float[np.ndarray, "token kept"]:
        """All kept activations at `site` in memory, float32. Raises `ArtefactError` for a missing or damaged shard."""
        from safetensors.numpy import load_file

        parts = []
        for shard in self.shards:
            require(self.folder / shard.name, "activation shard")
            tensors = load_file(self.folder / shard.name / "activations.safetensors")
            if str(site) not in tensors:
                raise ArtefactError(
                    f"activation shard {self.folder / shard.name}", str(site), ", ".join(sorted(tensors))
                )
            parts.append(tensors[str(site)])
        return np.concatenate(parts)


def harvest(
    subject: ActivationModel,
    windows: Windows,
    columns: Mapping[Site, Sequence[int] | None],
    folder: Path,
    *,
    engine: Engine | None = None,
    report: Callable[[int, int], None] = lambda *_: None,
) -> ActivationStore:
    """Run `subject` over all of `windows` once and keep the activations at the sites of `columns` in `folder`.

    Finished shards of the same subject, text and sites are not run again. `report` is told of windows done and in
    all. Raises `InputError` for a site that the subject lacks or values that are not finite.
    """
    kept = {site: None if c is None else tuple(int(i) for i in c) for site, c in columns.items()}
    shards = cut(len(windows), SHARD_WINDOWS)
    job = Harvest(subject, windows, kept, folder)
    (engine or LocalEngine()).run(job, shards, lambda shard: report(shard.stop, len(windows)))
    return ActivationStore(folder, tuple(shards))


def on_grid(values: Float[np.ndarray, "token k"], windows: Windows) -> Float[np.ndarray, "window pos k"]:
    """Values of scored tokens put back at their places in the windows, zero elsewhere."""
    mask = windows.mask
    if mask.sum() != len(values):
        raise InputError("activations of windows", f"{int(mask.sum())} scored tokens", f"{len(values)} rows")
    out = np.zeros((*mask.shape, values.shape[1]), dtype=np.float32)
    out[mask] = values
    return out
