"""What a store costs: import of 100,000 units, size on disk, reading a body, searching tokens.

    python benchmarks/store.py                          # 100,000 units, some minutes
    python benchmarks/store.py --units 20000 --json figures.json

Units are made up: four layers of two bases, some 20 tokens each, drawn so that the most common one is in nearly all of
them and half of them are in a few only, as words are in text. Every tenth unit has a graph of 18 kB and exemplars of
90 kB, the others a graph of 4 kB and no exemplars; all have statistics, an explanation and a provenance. Import is
through `Writer`, batches of 256: what is timed is serialising, compressing and storing, not the making of graphs.

Seconds are CPU time of the process; times of reading and searching are medians by wall clock over `--rounds` rounds,
the file in the page cache.
"""

import argparse
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from figures import end

from saelens_n2g.store.reader import Store
from saelens_n2g.store.records import BasisFacts, LayerFacts, ModelFacts, SourceFacts, UnitFacts
from saelens_n2g.store.schema import FIGURES
from saelens_n2g.store.writer import Writer

BASES, LAYERS, BATCH, WORDS = ("neurons", "sae"), 4, 256, 30_000


def unit_facts(index: int, place: int, rng: np.random.Generator, draw: random.Random) -> UnitFacts:
    """A unit: `place` counts all of them."""
    words = [f"w{number}" for number in set((rng.zipf(1.2, 20) % WORDS).tolist())]
    tokens = {(draw.randrange(2), word): draw.random() for word in words}
    large = place % 10 == 0
    nodes = [
        {"token": draw.choice(words), "importance": draw.random(), "depth": i % 4, "required": [i // 2]}
        for i in range(190 if large else 42)
    ]
    figures = {"f1": draw.random(), "density": draw.random() / 100, "maximum": 10 * draw.random(), "nodes": len(nodes)}
    scores = {name: {metric: draw.random() for metric in "abcdefgh"} for name in ("graph", "table", "backoff")}
    bodies: dict[str, Any] = {
        "graph": {"graph": {"graph": nodes, "subgraph_indices": [0]}},
        "statistics": {"figures": {name: figures.get(name) for name in FIGURES}, "scores": scores},
        "explanation": {"explanation": " ".join(draw.choices(words, k=40)), "score": figures["f1"]},
        "provenance": {"source": 1, "graph": {"examples": draw.randrange(99)}},
    }
    if large:
        texts = [
            {"tokens": draw.choices(words, k=128), "activations": [round(draw.random(), 5) for _ in range(128)]}
            for _ in range(40)
        ]
        bodies["neuroscope"] = {"texts": texts}
    return UnitFacts(index=index, figures=figures, bodies=bodies, tokens=tokens)


def fill(path: Path, units: int) -> dict[str, float]:
    """Import; seconds without the making of the units."""
    rng, draw = np.random.default_rng(0), random.Random(0)
    spent, each = 0.0, units // (len(BASES) * LAYERS)
    with Writer(path) as writer:
        with writer.batch():
            source = writer.source(SourceFacts(checksum="made up", name="", kind="comparison", total=units))
            model = writer.model(ModelFacts(name="m", n_layers=LAYERS, config={}))
            layers = [
                writer.layer(
                    writer.basis(model, BasisFacts(name=name, kind="resid_post", title=name)),
                    LayerFacts(layer=layer, width=1 << 20, identity=""),
                )
                for name in BASES
                for layer in range(LAYERS)
            ]
        for start in range(0, each * len(layers), BATCH):
            places = range(start, min(start + BATCH, each * len(layers)))
            made = [(layers[p // each], unit_facts(p % each * 2, p, rng, draw)) for p in places]
            before = time.process_time()
            with writer.batch():
                for layer, facts in made:
                    writer.unit(layer, source, facts)
            spent += time.process_time() - before
        before = time.process_time()
    return {"import, s": spent + time.process_time() - before}


def median(rounds: int, calls: int, call: Callable[[], Any]) -> float:
    """Seconds of a call."""
    found = []
    for _ in range(rounds):
        before = time.perf_counter()
        for _ in range(calls):
            call()
        found.append((time.perf_counter() - before) / calls)
    return statistics.median(found)


def sizes(store: Store) -> dict[str, float]:
    """Of the file and of what is in it, in MB."""
    ((packed, raw),) = store.rows("SELECT sum(length(body)), sum(size) FROM unit_bodies")
    ((posted,),) = store.rows("SELECT sum(length(units) + length(strengths)) FROM postings")
    ((named,),) = store.rows("SELECT sum(length(tokens)) FROM unit_tokens")
    on_disk = store.path.stat().st_size
    found = {
        "bodies": raw,
        "bodies, gzipped": packed,
        "posting lists": posted,
        "tokens by unit": named,
        "file": on_disk,
    }
    return {**{f"{name}, MB": size / 1e6 for name, size in found.items()}, "file / gzipped": on_disk / packed}


def queries(store: Store) -> dict[str, str]:
    """Searches by how many units they concern."""
    counts = sorted(
        ((store.search(f"any:w{n}", limit=0).total, n) for n in (1, 2, 3, 5, 10, 50, 200, 1000)), reverse=True
    )
    one, two, *_, rare = [f"any:w{number}" for _, number in counts]
    return {
        "two most common, and": f"{one}, {two}",
        "two most common, or": f"{one} or {two}",
        "not the most common": f"not {one}",
        "activating, in one basis": f"activating:{one[4:]} and basis=sae and layer=1..2",
        "common and rare": f"{two} and {rare}",
        "rare": rare,
        "eight terms": " or ".join(f"any:w{number}" for _, number in counts),
    }


def one_body(store: Store, draw: random.Random, units: Sequence[int], service: str) -> None:
    """Read a body of a random unit."""
    store.body(draw.choice(units), service)


def measure(path: Path, rounds: int) -> Iterator[tuple[str, float]]:
    """Reading and searching."""
    with Store.open(path) as store:
        yield from sizes(store).items()
        ids = [number for (number,) in store.rows("SELECT id FROM units")]
        large, draw = ids[::10], random.Random(1)
        for service, some in (("statistics", ids), ("graph", large), ("neuroscope", large)):
            yield f"body {service}, us", median(rounds, 2000, partial(one_body, store, draw, some, service)) * 1e6
        yield "unit by address, us", median(rounds, 500, lambda: store.unit("m", "sae", 2, 10)) * 1e6
        yield "list by f1, ms", median(rounds, 3, lambda: store.listing("m", basis="sae", sort="f1", limit=50)) * 1e3
        for name, query in queries(store).items():
            for sort in ("place", "strength"):
                seconds = median(rounds, 3, partial(store.search, query, sort=sort, limit=50))
                yield f"search {name} ({store.search(query, limit=0).total}), by {sort}, ms", seconds * 1e3
        before = time.process_time()
        damage = store.verify()
        yield "verify, s", time.process_time() - before
        assert not damage, damage[:3]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--units", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "atlas.db"
        found = {"units": float(options.units), **fill(path, options.units), **dict(measure(path, options.rounds))}
    end(found, options.json)


if __name__ == "__main__":
    main()
