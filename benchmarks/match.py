"""What it takes to run the graphs of a store over a pasted text.

    python benchmarks/match.py                                   # 10,000 graphs, a minute or two
    python benchmarks/match.py --graphs 100000 --json figures.json

The graphs are those of `benchmarks/program.py`: made up, of real text (the embedded corpus), 26 nodes on average, each
with patterns drawn as often as they occur, so that they match far more often than units fire. They lie in a store as
`collect` leaves them, spread over four layers of two bases, with the tokenizer of the embedded model. Texts are
stretches of 200 tokens of the corpus, each given as text. Times are by wall clock on one thread, the file in the page
cache. Cold is the first request of a new process; warm are `--rounds` others, each with another text, 50 units shown.
A few units are compared with `Graph.predict` before anything is timed.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from figures import end
from program import WIDTH, Maker

from saelens_n2g.corpus import load_documents, tokenise
from saelens_n2g.store.match import Matcher
from saelens_n2g.store.programs import compile_graphs
from saelens_n2g.store.reader import Store
from saelens_n2g.store.records import BasisFacts, LayerFacts, ModelFacts, SourceFacts, UnitFacts
from saelens_n2g.store.services import graph_of
from saelens_n2g.store.tokenizer import keep_tokenizer
from saelens_n2g.store.writer import Writer
from saelens_n2g.subject import Tokenizer

BASES, LAYERS, BATCH, TOKENS, MODEL = ("neurons", "sae"), 4, 256, 200, "embedded"
IMPORT = "import time, sys; a = time.perf_counter(); import {}; print(time.perf_counter() - a, 'torch' in sys.modules)"


COLD = """
import re, sys, time
from pathlib import Path
from saelens_n2g.store.match import Matcher
from saelens_n2g.store.reader import Store

def peak():
    return int(re.search("VmHWM: *(.*) kB", Path("/proc/self/status").read_text().replace("\\t", " "))[1]) * 1024 / 1e6

store, before = Store.open(Path(sys.argv[1])), peak()
start = time.perf_counter()
Matcher(store).match("embedded", sys.argv[2])
print(time.perf_counter() - start, before, peak())
"""


def graphs_of(rows: np.ndarray, seed: int) -> Maker:
    """A maker of graphs with the defaults of `benchmarks/program.py`."""
    options = argparse.Namespace(
        nodes=26.0, wildcards=0.3, gaps=0.1, class_share=0.1, classes=20.0, members="text", seed=seed
    )
    return Maker(rows, options)


def fill(path: Path, maker: Maker, tokenizer: Tokenizer, graphs: int) -> dict[str, float]:
    """Make the store; what compiling costs."""
    each = graphs // (len(BASES) * LAYERS)
    with Writer(path) as writer:
        with writer.batch():
            source = writer.source(SourceFacts(checksum="made up", name="", kind="comparison", total=graphs))
            model = writer.model(ModelFacts(name=MODEL, n_layers=LAYERS, config={}))
            layers = [
                writer.layer(
                    writer.basis(model, BasisFacts(name=name, kind="resid_post", title=name)),
                    LayerFacts(layer=layer, width=1 << 20, identity=""),
                )
                for name in BASES
                for layer in range(LAYERS)
            ]
        for start in range(0, each * len(layers), BATCH):
            with writer.batch():
                for place in range(start, min(start + BATCH, each * len(layers))):
                    graph = maker.graph(place)
                    graph.name_tokens(tokenizer.string)
                    trie = {name: value for name, value in graph.to_dict().items() if name != "provenance"}
                    unit = UnitFacts(index=place % each, figures={}, bodies={"neuron2graph": {"trie": trie}})
                    writer.unit(layers[place // each], source, unit)
        before = time.perf_counter()
        compile_graphs(writer, MODEL)
        spent = time.perf_counter() - before
        keep_tokenizer(writer, MODEL, MODEL)
    return {"compile, s": spent}


def cold(path: Path, text: str) -> dict[str, float]:
    """The first request of a process that has done nothing else."""
    said = subprocess.run([sys.executable, "-c", COLD, str(path), text], capture_output=True, text=True, check=True)
    seconds, before, after = map(float, said.stdout.split())
    return {"cold, ms": 1e3 * seconds, "the process has, MB (peak)": after, "of it before the request, MB": before}


def agree(matcher: Matcher, store: Store, ids: list[int]) -> None:
    """A few units against the definition."""
    found = matcher.match(MODEL, ids=ids, limit=20)
    for firing in found.firings:
        body = store.body(firing.unit.id, "neuron2graph")
        assert body is not None
        values = graph_of(body.json()).predict(ids)
        assert {m.position: np.float32(m.activation) for m in firing.matches if m.activation} == {
            int(p): values[p] for p in np.flatnonzero(values)
        }


def measure(path: Path, texts: list[str], ids: list[int]) -> dict[str, float]:
    """All figures of reading."""
    found: dict[str, float] = {"file, MB": path.stat().st_size / 1e6}
    with Store.open(path) as store:
        ((blocks, size),) = store.rows("SELECT count(*), sum(length(program)) FROM programs")
        found |= {"blocks": blocks, "programs, MB": size / 1e6}
        found |= cold(path, texts[0])
        matcher = Matcher(store)
        matcher.match(MODEL, texts[0])
        found["programs and tokenizer in memory, MB"] = matcher.cache.used / 1e6
        agree(matcher, store, ids)
        for name, options in (
            ("warm", {}),
            ("warm, paths of none", {"with_paths": False}),
            ("warm, one layer of one basis", {"bases": ["sae"], "layers": [1]}),
        ):
            spent, fired = [], []
            for text in texts[1:]:
                start = time.perf_counter()
                result: Any = matcher.match(MODEL, text, **options)
                spent.append(1e3 * (time.perf_counter() - start))
                fired.append(result.total)
            found[f"{name}, ms"] = statistics.median(spent)
            found[f"{name}, ms (p95)"] = float(np.quantile(spent, 0.95))
            found[f"{name}: units that fire"] = statistics.median(fired)
        unit = store.listing(MODEL, limit=8).units
        start = time.perf_counter()
        matcher.predict(MODEL, [one.id for one in unit], texts[0])
        found["predict with 8 units, ms"] = 1e3 * (time.perf_counter() - start)
    for module in ("tokenizers", "saelens_n2g.store.match"):
        said = subprocess.run([sys.executable, "-c", IMPORT.format(module)], capture_output=True, text=True, check=True)
        seconds, torch = said.stdout.split()
        assert torch == "False", f"{module} loads PyTorch"
        found[f"import {module}, ms"] = 1e3 * float(seconds)
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--graphs", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    tokenizer = Tokenizer.load(MODEL)
    rows = tokenise(
        load_documents(MODEL), tokenizer.encode, width=WIDTH, bos_id=None, pad_id=0, min_tokens=WIDTH,
        max_tokens=1 << 18, source=MODEL,
    ).tokens.astype(np.int64)  # fmt: skip
    flat = rows.ravel().tolist()
    stretches = [flat[k * TOKENS : (k + 1) * TOKENS] for k in range(options.rounds + 1)]
    texts = ["".join(map(tokenizer.string, ids)) for ids in stretches]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "atlas.db"
        found = {"graphs": float(options.graphs)}
        found |= fill(path, graphs_of(rows, options.seed), tokenizer, options.graphs)
        found |= measure(path, texts, stretches[0])
    end(found, options.json)


if __name__ == "__main__":
    main()
