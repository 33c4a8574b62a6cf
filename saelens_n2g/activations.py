"""Activations of a corpus at one or more sites, computed in one pass over the subject and kept on disk in shards.

    store = harvest(subject, windows, {site: None}, folder, dtype="bfloat16", non_finite="exclude")
    store = ActivationStore.open(folder)              # later, or in another process
    store.rows(site)                                  # everything in memory, float32
    store.mapped(site)                                # one tensor a shard, mapped from its file

Only scored positions are kept (no BOS, no padding), in the order of the windows. Unless rows were excluded, row i
belongs to the i-th True of `windows.mask`. All sites keep the same positions, so that row i is the same token at each.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, get_args, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from saelens_n2g.corpus import Windows
from saelens_n2g.errors import ArtefactError, InputError
from saelens_n2g.jobs.artefacts import committed, read_json, require, write_json
from saelens_n2g.jobs.engine import Engine, LocalEngine, Shard, cut
from saelens_n2g.sites import Site
from saelens_n2g.subject import Dtype

SHARD_WINDOWS = 256
FORMAT, VERSION = "saelens-n2g/activations", 1
VALUES, COUNTS, MANIFEST = "activations.safetensors", "counts.json", "manifest.json"
STORED = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
"""safetensors' names of the types that a shard may hold."""

NonFinite = Literal["refuse", "exclude"]


@runtime_checkable
class ActivationModel(Protocol):
    """What harvesting needs of a subject."""

    def activations(self, ids: Int[Tensor, "batch pos"], sites: Sequence[Site]) -> dict[Site, Float[Tensor, "..."]]: ...
    def describe(self) -> dict[str, Any]: ...


def token_batches(windows: Windows, size: int) -> Iterator[tuple[Int[Tensor, "batch pos"], Bool[Tensor, "batch pos"]]]:
    """Token ids of `size` windows at a time, and the positions that are scored; without padding that all have."""
    mask = windows.mask
    for start in range(0, len(windows), size):
        width = int(windows.lengths[start : start + size].max())
        ids = torch.from_numpy(windows.tokens[start : start + size, :width]).long()
        yield ids, torch.from_numpy(mask[start : start + size, :width])


def scored_rows(
    subject: ActivationModel, windows: Windows, sites: Sequence[Site]
) -> dict[Site, Float[Tensor, "token width"]]:
    """Per site the activations of the scored tokens of a few windows, on the CPU: one call of the subject."""
    ((ids, mask),) = token_batches(windows, len(windows))
    found = subject.activations(ids, list(sites))
    return {site: found[site].cpu()[mask] for site in sites}


class Finite(NamedTuple):
    """Which rows are numbers throughout."""

    everywhere: Bool[Tensor, "token"]
    """True where the row is finite at every site."""
    bad: dict[Site, int]
    """Per site the rows that are not."""


def finite(values: Mapping[Site, Float[Tensor, "token _"]], non_finite: NonFinite, dtype: Dtype = "float32") -> Finite:
    """Find the rows with NaN or infinity. Raises `InputError` naming the site if there are any and they are refused."""
    good = {site: torch.isfinite(rows).all(-1) for site, rows in values.items()}
    bad = {site: int((~rows).sum()) for site, rows in good.items()}
    for site, count in bad.items():
        if count and non_finite == "refuse":
            kind = "" if dtype == "float32" else f" in {dtype}"
            found = f"{count} tokens of {len(values[site])} without"
            raise InputError(f"activations at {site}", f"finite numbers{kind}", found)
    return Finite(torch.stack(list(good.values())).all(0), bad)


@dataclass(frozen=True)
class Counts:
    """What became of the positions of some windows."""

    rows: int
    """Kept, at every site."""
    bos: int
    """Left out: a BOS."""
    padding: int
    """Left out: behind the end of a window."""
    non_finite: int
    """Left out: not finite at one of the sites at least."""
    non_finite_at: dict[str, int]
    """Per site the positions that are not finite there, after the cast to the cache's type."""


@dataclass(frozen=True)
class Harvest:
    """The job: run the subject over windows and keep what is wanted at each site."""

    subject: ActivationModel
    windows: Windows
    columns: Mapping[Site, tuple[int, ...] | None]
    """Per site the coordinates to keep; None keeps all."""
    folder: Path
    batch_windows: int = 16
    dtype: Dtype = "float32"
    """What is written; the subject always answers in float32."""
    non_finite: NonFinite = "refuse"
    """Whether a row with NaN or infinity ends the harvest, or is left out at every site and counted."""

    @property
    def meta(self) -> dict[str, Any]:
        """Subject, text, sites, type and rule: what decides the values."""
        sites = {str(site): None if c is None else list(c) for site, c in sorted(self.columns.items())}
        text = {"subject": self.subject.describe(), "windows": self.windows.fingerprint(), "sites": sites}
        return text | {"dtype": self.dtype, "non_finite": self.non_finite}

    def run(self, shard: Shard, work: Path) -> None:
        """Write per site (kept tokens of the shard, kept coordinates) into one safetensors file, and the counts."""
        from safetensors.torch import save_file

        parts: dict[Site, list[Tensor]] = {site: [] for site in self.columns}
        lost, lost_at = 0, dict.fromkeys(map(str, self.columns), 0)
        for start in range(shard.start, shard.stop, self.batch_windows):
            values = self._batch(start, min(start + self.batch_windows, shard.stop))
            keep, bad = finite(values, self.non_finite, self.dtype)
            lost += int((~keep).sum())
            for site, rows in values.items():
                parts[site].append(rows[keep])
                lost_at[str(site)] += bad[site]
        tensors = {str(site): torch.cat(values) for site, values in parts.items()}
        save_file(tensors, work / VALUES)
        windows = self.windows.subset(np.arange(shard.start, shard.stop))
        bos = len(windows) * int(windows.bos_id is not None)
        padding = windows.tokens.size - int(windows.lengths.sum())
        write_json(work / COUNTS, asdict(Counts(windows.n_tokens - lost, bos, padding, lost, lost_at)))

    def _batch(self, start: int, stop: int) -> dict[Site, Tensor]:
        """The scored rows of some windows at every site, cut to their columns and cast."""
        found = scored_rows(self.subject, self.windows.subset(np.arange(start, stop)), list(self.columns))
        wanted = {site: found[site] if c is None else found[site][:, list(c)] for site, c in self.columns.items()}
        return {site: values.to(getattr(torch, self.dtype)) for site, values in wanted.items()}


@dataclass(frozen=True)
class ActivationStore:
    """Harvested activations on disk."""

    folder: Path
    shards: tuple[Shard, ...]

    @classmethod
    def open(cls, folder: Path) -> "ActivationStore":
        """The cache that `harvest` finished in `folder`.

        Sizes of files are compared, checksums are not: `mapped` and `rows` do that. Raises `ArtefactError` if there
        is no manifest, a shard is missing or cut short, or the shards are of another harvest than the manifest.
        """
        manifest, wanted = read_json(folder / MANIFEST), f"{FORMAT}, version {VERSION}"
        try:
            if (manifest["format"], manifest["version"]) != (FORMAT, VERSION):
                found = f"{manifest['format']}, version {manifest['version']}"
                raise ArtefactError(f"manifest {folder / MANIFEST}", wanted, found)
            shards = tuple(Shard(s["name"], s["start"], s["stop"]) for s in manifest["shards"])
            job = manifest["job"]
        except (KeyError, TypeError) as error:
            raise ArtefactError(f"manifest {folder / MANIFEST}", wanted, f"one without {error}") from error
        for shard in shards:
            if committed(folder / shard.name) != {"job": job, "shard": list(shard)}:
                expected = "a finished shard of the harvest that the manifest describes"
                raise ArtefactError(f"activation shard {folder / shard.name}", expected, "none or another")
        return cls(folder, shards)

    def counts(self) -> list[Counts]:
        """What was kept and left out, shard by shard. Raises `ArtefactError` for a missing or damaged file."""
        found = []
        for path in (self.folder / shard.name / COUNTS for shard in self.shards):
            try:
                found.append(Counts(**read_json(path)))
            except TypeError as error:
                expected = ", ".join(field.name for field in fields(Counts))
                raise ArtefactError(f"file {path}", expected, str(error)) from error
        return found

    def rows(self, site: Site) -> Float[np.ndarray, "token kept"]:
        """All kept activations at `site` in memory, float32. Raises `ArtefactError` for a missing or damaged shard."""
        return torch.cat([part.float() for part in self.mapped(site)]).numpy()

    def mapped(self, site: Site, *, check: bool = True) -> list[Float[Tensor, "token kept"]]:
        """The activations at `site`, a tensor a shard, in the type of the cache. They lie in the page cache alone: the
        files are mapped, and what is written to the tensors never reaches them.

        `check` reads every file once for its checksum; without, only sizes are compared. Raises `ArtefactError` for a
        missing or damaged shard, or one without `site`.
        """
        found = []
        for shard in self.shards:
            folder = self.folder / shard.name
            if check or committed(folder) is None:
                require(folder, "activation shard")
            found.append(_mapped(folder / VALUES, str(site)))
        return found

    def write_manifest(self, job: Harvest) -> None:
        """Publish `manifest.json`: what the cache holds, shard by shard and in all (docs/formats.md)."""
        counts = self.counts()
        shards = [shard._asdict() | asdict(c) for shard, c in zip(self.shards, counts, strict=True)]
        total = {name: sum(getattr(c, name) for c in counts) for name in ("rows", "bos", "padding", "non_finite")}
        bad = {str(site): sum(c.non_finite_at[str(site)] for c in counts) for site in job.columns}
        width = {str(site): self.mapped(site, check=False)[0].shape[1] for site in job.columns} if counts else {}
        about = {"format": FORMAT, "version": VERSION, "job": job.meta, "dtype": job.dtype, "width": width}
        write_json(self.folder / MANIFEST, about | total | {"non_finite_at": bad, "shards": shards})


def _mapped(path: Path, name: str) -> Tensor:
    """One tensor of a safetensors file without reading it: eight bytes of length, a JSON header, the values."""
    try:
        with open(path, "rb") as handle:
            size = int.from_bytes(handle.read(8), "little")
            header = json.loads(handle.read(min(size, path.stat().st_size)))
        names = sorted(key for key in header if key != "__metadata__")
        if name not in names:
            raise ArtefactError(f"activation shard {path.parent}", name, ", ".join(names))
        begin, end = header[name]["data_offsets"]
        dtype, shape = STORED[header[name]["dtype"]], header[name]["shape"]
        if begin == end:  # an empty file part cannot be mapped
            return torch.empty(shape, dtype=dtype)
        values = np.memmap(path, np.uint8, mode="c", offset=8 + size + begin, shape=(end - begin,))
        return torch.from_numpy(values).view(dtype).view(shape)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ArtefactError(f"file {path}", "a whole safetensors file of activations", reason) from error


def harvest(
    subject: ActivationModel,
    windows: Windows,
    columns: Mapping[Site, Sequence[int] | None],
    folder: Path,
    *,
    dtype: Dtype = "float32",
    non_finite: NonFinite = "refuse",
    engine: Engine | None = None,
    report: Callable[[int, int], None] = lambda *_: None,
) -> ActivationStore:
    """Run `subject` over all of `windows` once and keep the activations at the sites of `columns` in `folder`.

    Finished shards of the same subject, text, sites and settings are not run again. `dtype` is what is written.
    `non_finite`: `refuse` raises where a row is not finite (after the cast: float16 ends at 65,504), `exclude` leaves
    such a position out at every site and counts it; row i then is not the i-th scored token any more. `report` is told
    of windows done and in all. Raises `InputError` for a site that the subject lacks, an unknown setting, or values
    that are not finite.
    """
    for name, value, kinds in (("dtype", dtype, Dtype), ("non_finite", non_finite, NonFinite)):
        if value not in get_args(kinds):
            raise InputError(f"{name} of activations", f"one of {', '.join(get_args(kinds))}", repr(value))
    if not columns:
        raise InputError("sites to harvest", "one or more", "none")
    kept = {site: None if c is None else tuple(int(i) for i in c) for site, c in columns.items()}
    shards = cut(len(windows), SHARD_WINDOWS)
    job = Harvest(subject, windows, kept, folder, dtype=dtype, non_finite=non_finite)
    (engine or LocalEngine()).run(job, shards, lambda shard: report(shard.stop, len(windows)))
    store = ActivationStore(folder, tuple(shards))
    store.write_manifest(job)
    return store


def on_grid(values: Float[np.ndarray, "token k"], windows: Windows) -> Float[np.ndarray, "window pos k"]:
    """Values of scored tokens put back at their places in the windows, zero elsewhere."""
    mask = windows.mask
    if mask.sum() != len(values):
        raise InputError("activations of windows", f"{int(mask.sum())} scored tokens", f"{len(values)} rows")
    out = np.zeros((*mask.shape, values.shape[1]), dtype=np.float32)
    out[mask] = values
    return out
