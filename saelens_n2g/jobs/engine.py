"""Engine: where shards of work run. A shard has a deterministic id and publishes a folder that is whole or absent.

What makes work resumable is the shard, not the engine: a shard whose folder is finished is passed over, one that
was interrupted leaves nothing, and running one twice gives the same bytes. An engine only decides where it runs.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

from saelens_n2g.jobs.artefacts import committed, publishing


class Shard(NamedTuple):
    """One piece of a job: rows `start` to `stop` of whatever the job goes through."""

    name: str
    """Folder name; the same for the same work."""
    start: int
    stop: int


@runtime_checkable
class Job(Protocol):
    """Work cut into shards."""

    @property
    def folder(self) -> Path:
        """Where the shards' folders are published."""
        ...

    @property
    def meta(self) -> dict[str, Any]:
        """JSON values that decide a shard's result; a finished shard with other values is done again."""
        ...

    def run(self, shard: Shard, work: Path) -> None:
        """Write the shard's files into `work`, an empty folder. A pure function of `meta` and the shard."""
        ...


@runtime_checkable
class Engine(Protocol):
    """Where shards run (one of the four protocols, docs/decisions.md)."""

    def run(self, job: Job, shards: Iterable[Shard], done: Callable[[Shard], None] = lambda _: None) -> None:
        """Finish every shard; `done` is told of each, also of those that were finished before."""
        ...


class LocalEngine:
    """Shards one after another in this process."""

    def run(self, job: Job, shards: Iterable[Shard], done: Callable[[Shard], None] = lambda _: None) -> None:
        """See `Engine.run`."""
        for shard in shards:
            folder = job.folder / shard.name
            meta = {"job": job.meta, "shard": list(shard)}
            if committed(folder) != meta:
                with publishing(folder, meta) as work:
                    job.run(shard, work)
            done(shard)


def cut(total: int, size: int) -> list[Shard]:
    """Shards of at most `size` rows that cover 0 to `total`."""
    starts = range(0, total, size)
    return [Shard(f"shard_{i:05d}", start, min(start + size, total)) for i, start in enumerate(starts)]
