"""How many rows a second training can be served, beside the time that it takes to read them.

    python benchmarks/rows.py                                   # 262,144 x 576 float32, batches of 4096, one thread
    python benchmarks/rows.py --rows 65536 --json figures.json

Every line serves whole batches, in ascending order, into a tensor that is used again. Streams have a buffer of
`--buffer` rows (half as many as there are, unless given) and are timed over their second and third epoch: in the first
the operating system hands out the buffer's memory page by page, which a run sees once.

  in memory     `ShuffledOrder` over a tensor, as for activations that are kept whole: the ceiling
  buffer        a `ShuffledStream` without its reading: batches out of a round that is in place
  stream        a `ShuffledStream` over a tensor in memory: filling, permutations and batches
  cache         the same over a cache on disk, in float32 and in bfloat16 (from the page cache), mapped
  gather        random rows of that cache by `CachedRows`, without a buffer

Seconds are CPU time of the process, the median over `--rounds` rounds that take turns, since wall-clock time means
little where cores are shared; the second column of rates is by wall clock.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from torch import Tensor

from saelens_n2g.activations import ActivationStore, harvest
from saelens_n2g.corpus import Windows
from saelens_n2g.jobs.artefacts import write_json
from saelens_n2g.sites import Site
from saelens_n2g.training.blocks import ArrayBlocks, CachedBlocks
from saelens_n2g.training.rows import CachedRows, ShuffledOrder
from saelens_n2g.training.stream import OneSite, ShuffledStream

SITE = Site(0, "resid_post")
WIDTH = 128


class Table576:
    """A subject whose activations are rows of a table: token ids are row numbers."""

    def __init__(self, rows: Tensor) -> None:
        self.rows = rows

    def activations(self, ids: Tensor, sites: Sequence[Site]) -> dict[Site, Tensor]:
        """Rows of the table, at any site."""
        return dict.fromkeys(sites, self.rows[ids])

    def describe(self) -> dict[str, Any]:
        """Nothing that a result would depend on."""
        return {}


def cache(rows: Tensor, folder: Path, dtype: Any) -> ActivationStore:
    """The rows as a harvested cache."""
    n = len(rows) // WIDTH
    tokens = np.arange(n * WIDTH, dtype=np.int32).reshape(n, WIDTH)
    lengths = np.full(n, WIDTH, dtype=np.int32)
    windows = Windows(tokens, lengths, np.zeros(n, dtype=np.int32), ("all",), None, "benchmark")
    return harvest(Table576(rows), windows, {SITE: None}, folder, dtype=dtype)


def epoch(batch: Callable[[int], Any], steps: range) -> tuple[float, float]:
    """CPU and wall-clock seconds of a range of steps."""
    cpu, wall = time.process_time(), time.perf_counter()
    for step in steps:
        batch(step)
    return time.process_time() - cpu, time.perf_counter() - wall


def measured(rows: Tensor, folder: Path, batch: int, buffer: int) -> dict[str, Callable[[], tuple[int, float, float]]]:
    """Per line of the table a function that serves an epoch and returns rows, CPU seconds, wall-clock seconds."""
    out, half = torch.empty(batch, rows.shape[1]), torch.empty(batch, rows.shape[1], dtype=torch.bfloat16)
    full, short = cache(rows, folder / "f32", "float32"), cache(rows, folder / "bf16", "bfloat16")
    order = ShuffledOrder(len(rows), batch, 0)
    steps = len(rows) // batch
    order.indices(0)

    def counted(serve: Callable[[int], Any], some: range) -> tuple[int, float, float]:
        return len(some) * batch, *epoch(serve, some)

    def in_memory() -> tuple[int, float, float]:
        return counted(lambda s: torch.index_select(rows, 0, order.indices(s), out=out), range(steps))

    def buffered() -> tuple[int, float, float]:
        stream = ShuffledStream(ArrayBlocks(rows), batch=batch, buffer_rows=buffer)
        some = range(3 * (buffer // (4 * batch)))  # the first round, twice: once to bring it into place
        epoch(lambda s: stream.batch(s, out), some)
        return counted(lambda s: stream.batch(s, out), some)

    def streamed(source: Any, into: Tensor) -> tuple[int, float, float]:
        stream = ShuffledStream(source, batch=batch, buffer_rows=buffer)
        epoch(lambda s: stream.batch(s, into), range(steps))
        return counted(lambda s: stream.batch(s, into), range(steps, 3 * steps))

    def gathered(store: ActivationStore) -> tuple[int, float, float]:
        found = CachedRows(store, SITE, check=False)
        return counted(lambda s: found.gather(order.indices(s)), range(steps))

    lines = {"in memory": in_memory, "buffer": buffered, "stream": partial(streamed, ArrayBlocks(rows), out)}
    for name, store, into in (("float32", full, out), ("bfloat16", short, half)):
        lines[f"cache {name}"] = partial(streamed, OneSite(CachedBlocks(store, [SITE], check=False), SITE), into)
        lines[f"gather {name}"] = partial(gathered, store)
    return lines


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=262_144)
    parser.add_argument("--width", type=int, default=576)
    parser.add_argument("--batch", type=int, default=4096)
    parser.add_argument("--buffer", type=int, help="rows of the buffer; half of all unless given")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write the figures there too")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    rows = torch.randn(asked.rows, asked.width, generator=torch.Generator().manual_seed(0))
    figures: dict[str, list[tuple[int, float, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        lines = measured(rows, Path(folder), asked.batch, asked.buffer or asked.rows // 2)
        for _ in range(asked.rounds):
            for name, serve in lines.items():
                figures.setdefault(name, []).append(serve())
    table = Table("served from", "rows/s, CPU", "rows/s, wall", "ms a batch, CPU", box=SIMPLE_HEAD)
    result = {}
    for name, found in figures.items():
        cpu, wall = (statistics.median(f[i] / f[0] for f in found) for i in (1, 2))
        result[name] = {"rows_per_cpu_second": 1 / cpu, "rows_per_second": 1 / wall}
        table.add_row(name, f"{1 / cpu:,.0f}", f"{1 / wall:,.0f}", f"{1000 * cpu * asked.batch:.2f}")
    Console().print(table)
    if asked.json is not None:
        write_json(asked.json, {"settings": {k: v for k, v in vars(asked).items() if k != "json"}, "figures": result})


if __name__ == "__main__":
    main()
