"""How fast graphs compiled to a program predict, and how fast they load.

    python benchmarks/program.py --data DIR                     # text of the sixty neurons' folder (contexts.npz)
    python benchmarks/program.py                                # text of the embedded corpus
    python benchmarks/program.py --data DIR --classes 200 --members types --gaps 0.2 --json figures.json

The graphs are made up, since fitting thousands takes hours, but of real text: each takes a few activating tokens, drawn
as often as they occur, and places of the text where they stand; what stands before becomes a path of one to eight
elements, of which a share are wildcards, classes of tokens drawn from the text, gaps, or the start. They have
`--nodes` nodes on average, more than those that the paper's method fitted to neurons (median 24) and to dictionary
features (4); and since frequent tokens begin many of them, they match far more often than a unit fires. Two measures:

  text    `--graphs` graphs over `--tokens` tokens, in rows of the file's width without BOS, and once as one long text
  pasted  `--many` graphs, loaded from their file, over a pasted text of 200 tokens; the median of nine runs

Wall-clock seconds on one thread. Every figure is of this process: loading is from the page cache. A few hundred places
are compared with `Graph.matches` before anything is timed. Peak memory is what numpy allocated during the runs.
"""

import argparse
import json
import random
import statistics
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from saelens_n2g.errors import InputError, N2GError
from saelens_n2g.graphs.elements import IGNORE, START, gap
from saelens_n2g.graphs.graph import Graph
from saelens_n2g.graphs.program import Program
from saelens_n2g.graphs.program_file import load_graphs, save_graphs
from saelens_n2g.jobs.artefacts import canonical_json, write_json

PASTED = 200
WIDTH = 128


def text(data: Path | None, tokens: int) -> np.ndarray:
    """Rows of tokens without BOS, (row, position), `tokens` of them or a few more."""
    if data is None:
        from saelens_n2g.corpus import load_documents, tokenise
        from saelens_n2g.subject import Subject

        subject = Subject.load("embedded")
        found = tokenise(
            load_documents("embedded"), subject.encode, width=WIDTH, bos_id=None, pad_id=0, min_tokens=WIDTH,
            max_tokens=tokens, source="embedded",
        ).tokens  # fmt: skip
    elif (data / "contexts.npz").is_file():
        with np.load(data / "contexts.npz") as file:
            found = file["tokens"][:, 1:]
    else:
        raise InputError(f"folder {data}", "contexts.npz", "no such file")
    rows = np.resize(found, (-(-tokens // found.shape[1]), found.shape[1]))  # from the front again where it is short
    return np.ascontiguousarray(rows, dtype=np.int64)


class Maker:
    """Makes graphs of the patterns of a text."""

    def __init__(self, rows: np.ndarray, options: argparse.Namespace) -> None:
        self.rows, self.options = rows, options
        self.random = random.Random(options.seed)
        flat = rows.ravel()
        self.order = np.argsort(flat, kind="stable")
        self.types = np.unique(flat).tolist()
        self.first = np.searchsorted(flat[self.order], np.arange(flat.max() + 2))

    def graph(self, number: int) -> Graph:
        """Graph `number`, of about `--nodes` nodes."""
        chance, options = self.random, self.options
        graph = Graph(f"1.mlp_post/neurons/{number}", chance.uniform(1, 9), provenance=self._provenance(number))
        size = max(1, round(chance.expovariate(1 / options.nodes)))
        roots = [self._token() for _ in range(chance.choice((1, 2, 3, 5)))]
        nodes: set[tuple[int, ...]] = set()
        while len(nodes) < size:
            token = chance.choice(roots) if chance.random() < 0.8 else self._token()
            place = int(self.order[chance.randrange(self.first[token], self.first[token + 1])])
            path = self._path(graph, place)
            nodes |= {path[:k] for k in range(1, len(path) + 1)}
            quiet = chance.random() < 0.1
            graph.add([(e, chance.random()) for e in path], chance.uniform(0, 0.4) if quiet else chance.uniform(0.5, 1))
        graph.name_tokens(lambda token: f" token{token}")
        return graph

    def _token(self) -> int:
        return int(self.rows.flat[self.random.randrange(self.rows.size)])

    def _path(self, graph: Graph, place: int) -> tuple[int, ...]:
        chance, options = self.random, self.options
        row, position = divmod(place, self.rows.shape[1])
        length = min(chance.choice((1, 2, 2, 2, 3, 3, 4, 5, 6, 8)), position + 1)
        tokens = self.rows[row, position - length + 1 : position + 1][::-1].tolist()
        path = [self._named(graph, tokens[0])]
        for token in tokens[1:-1]:
            draw = chance.random()
            if draw < options.wildcards:
                path.append(IGNORE)
            elif draw < options.wildcards + options.gaps:
                path.append(gap(chance.choice((1, 2, 3, 5, 8))))
            else:
                path.append(self._named(graph, token))
        if length > 1:
            path.append(self._named(graph, tokens[-1]))
        if length == position + 1 and chance.random() < 0.5:
            path.append(START)
        return tuple(path)

    def _named(self, graph: Graph, token: int) -> int:
        """The token, or a class with it."""
        if self.random.random() >= self.options.class_share:
            return token
        size = max(1, round(self.random.expovariate(1 / self.options.classes)))
        if self.options.members == "text":
            return graph.add_class([token, *(self._token() for _ in range(size))])
        return graph.add_class([token, *self.random.choices(self.types, k=size)])

    def _provenance(self, number: int) -> dict[str, Any]:
        return {
            "method": "made up",
            "options": vars(self.options) | {"data": None, "json": None},
            "number": number % 50,
        }


def agree(program: Program, graphs: Sequence[Graph], row: list[int]) -> int:
    """Places compared with the definition. Raises `AssertionError` where they differ."""
    found = program.predict(row)
    for number, graph in enumerate(graphs):
        whole = found.dense(number, (1, len(row)))[0]
        for position in range(len(row)):
            matches = graph.matches(row, position)
            assert whole[position] == np.float32(matches[-1].activation if matches else 0.0), (number, position)
    return len(graphs) * len(row)


def timed(action: Callable[[], Any], times: int = 1) -> tuple[float, Any]:
    """Median seconds and what the last run gave."""
    seconds, result = [], None
    for _ in range(times):
        start = time.perf_counter()
        result = action()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds), result


def peak(action: Callable[[], Any]) -> float:
    """MiB that were allocated at once at most."""
    tracemalloc.start()
    action()
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return most / 2**20


def over_text(graphs: Sequence[Graph], rows: np.ndarray, found: dict[str, Any]) -> None:
    """Compile, check and run over much text; the figures go into `found`."""
    found["compile_s"], program = timed(lambda: Program.compile(graphs))
    found["compared"] = agree(program, graphs[:20], rows[0].tolist())
    found["rows_s"], predictions = timed(lambda: program.predict_text(rows))
    found["matched"] = len(predictions.graph)
    long = rows.reshape(1, -1)
    found["long_s"], _ = timed(lambda: [None for _ in program.predict_parts(long)])
    half = long[:, : long.shape[1] // 2]
    found["peak_mib"] = peak(lambda: [None for _ in program.predict_parts(long)])
    found["peak_half_mib"] = peak(lambda: [None for _ in program.predict_parts(half)])
    one = max(graphs[:100], key=lambda graph: graph.n_nodes)
    found["one_nodes"] = one.n_nodes
    one.predict(rows[0].tolist())
    found["one_row_ms"] = 1e3 * timed(lambda: [one.predict(row) for row in rows[:200]])[0] / min(len(rows), 200)
    found["one_all_s"], _ = timed(lambda: one.predict_text(rows))


def stored(graphs: Sequence[Graph], rows: np.ndarray, found: dict[str, Any]) -> None:
    """Save, load and run over a pasted text; the figures go into `found`."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "graphs.safetensors"
        found["save_s"], _ = timed(lambda: save_graphs(path, graphs))
        found["file_mib"] = path.stat().st_size / 2**20
        found["json_mib"] = (
            sum(len(canonical_json(g.to_dict()).encode()) for g in graphs[:200]) / 200 * len(graphs) / 2**20
        )
        found["load_s"], again = timed(lambda: load_graphs(path), 3)
        found["ready_s"], program = timed(lambda: again.program)
        found["graphs_s"], restored = timed(lambda: list(again))
    assert restored == list(graphs)
    pasted = [rows.ravel()[k * PASTED : (k + 1) * PASTED].tolist() for k in range(9)]
    seconds = [timed(partial(program.predict, one))[0] for one in pasted]
    found["pasted_ms"], found["pasted_worst_ms"] = 1e3 * statistics.median(seconds), 1e3 * max(seconds)
    found["matches_ms"] = 1e3 * timed(lambda: program.matches(pasted[0], graphs={1}), 3)[0]


def measure(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """All figures, as JSON values."""
    rows = text(options.data, options.tokens)
    maker = Maker(rows, options)
    console.print(f"{rows.size:,} tokens; making graphs", style="dim")
    graphs = [maker.graph(number) for number in range(max(options.graphs, options.many))]
    found: dict[str, Any] = {
        "tokens": rows.size,
        "nodes": statistics.mean(g.n_nodes for g in graphs),
        "paths": statistics.mean(g.n_paths for g in graphs),
        "class_tokens": statistics.mean(sum(map(len, g.classes)) for g in graphs),
    }
    over_text(graphs[: options.graphs], rows, found)
    stored(graphs[: options.many], rows, found)
    return found


LINES = (
    ("graphs: nodes, paths, tokens in classes, mean", "{nodes:.1f}, {paths:.1f}, {class_tokens:.0f}"),
    ("compile {graphs:,}", "{compile_s:.2f} s"),
    ("{graphs:,} graphs over {tokens:,} tokens in rows", "{rows_s:.2f} s"),
    ("the same as one long text", "{long_s:.2f} s"),
    ("places where a graph matches", "{matched:,}"),
    ("peak memory, long text / half of it", "{peak_mib:.0f} / {peak_half_mib:.0f} MiB"),
    ("Graph.predict on one row, {one_nodes} nodes", "{one_row_ms:.3f} ms"),
    ("Graph.predict_text on all rows", "{one_all_s:.3f} s"),
    ("{many:,} graphs over 200 pasted tokens, median / worst", "{pasted_ms:.1f} / {pasted_worst_ms:.1f} ms"),
    ("all matches of one of them, with paths", "{matches_ms:.1f} ms"),
    ("save {many:,}", "{save_s:.2f} s"),
    ("size of the file, of the graphs as JSON", "{file_mib:.1f}, {json_mib:.1f} MiB"),
    ("load, make ready to run, rebuild every Graph", "{load_s:.2f} s, {ready_s:.2f} s, {graphs_s:.2f} s"),
)


def main() -> int:
    """Measure, print the table, write the JSON if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with contexts.npz, windows of token ids, BOS first")
    parser.add_argument("--graphs", type=int, default=1_000, help="graphs to run over the text")
    parser.add_argument("--tokens", type=int, default=262_144)
    parser.add_argument("--many", type=int, default=10_000, help="graphs to store and to run over a pasted text")
    parser.add_argument("--nodes", type=float, default=26.0, help="nodes at which a graph is finished, on average")
    parser.add_argument("--wildcards", type=float, default=0.3, help="share of inner elements")
    parser.add_argument("--gaps", type=float, default=0.1, help="share of inner elements")
    parser.add_argument("--class-share", type=float, default=0.1, help="share of tokens that become a class")
    parser.add_argument("--classes", type=float, default=20.0, help="tokens of a class, on average")
    parser.add_argument(
        "--members",
        choices=("text", "types"),
        default="text",
        help="draw members as often as they occur, so that classes are met everywhere, or each distinct token alike",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write all figures there")
    options, console = parser.parse_args(), Console()
    try:
        found = measure(options, console)
        if options.json is not None:
            write_json(options.json, found)
    except N2GError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    table = Table(show_header=False, box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("")
    table.add_column("", justify="right")
    for name, cell in LINES:
        table.add_row(name.format(**vars(options) | found), cell.format(**found))
    console.print(table)
    console.print_json(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
