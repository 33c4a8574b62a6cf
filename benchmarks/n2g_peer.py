"""The paper's method on sixty neurons of SmolLM2-135M beside other implementations of N2G, with the cost of each.

    python benchmarks/n2g_peer.py --data DIR                                  # no augmentation
    python benchmarks/n2g_peer.py --data DIR --augmenter spellings            # the words themselves, spelt otherwise
    python benchmarks/n2g_peer.py --data DIR --augmenter subject --top 3 --candidates 5
    python benchmarks/n2g_peer.py --data DIR --mask pad --json figures.json

The folder holds `contexts.npz` (windows of Wikipedia as token ids, BOS first), `neurons.json` (per neuron its maximum,
ten windows to fit and ten held out, every firing token, and the peers' figures) and a README. Without it there is
nothing to run: the package never needs it.

Protocol (the README's): a token fires from half the neuron's maximum on, and so does a prediction; `held out` are all
tokens of the ten held-out windows, `corpus` all windows but the fitted ones, BOS excluded. Per neuron precision, recall
and F1, then the unweighted mean over neurons; F1 is 0 where nothing is predicted, precision is left out there. (The
file's held-out precision of the original is 1 there.) Neurons that cannot be fitted count with F1 0.

CPU seconds and tokens are those of the fits alone, on `--threads` threads: activations of the fit windows are given, as
they would be from stored exemplars; the neurons of a layer are fitted together. The original's figures include its
passes over whole windows, about 2,560 tokens.
"""

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from saelens_n2g.bases.neurons import NeuronBasis
from saelens_n2g.comparison.explain import mask_id
from saelens_n2g.errors import InputError, N2GError
from saelens_n2g.exemplars import Exemplar
from saelens_n2g.graphs.augmenters import Augmenter, Several, Spellings, SubjectInfill
from saelens_n2g.graphs.graph import Graph
from saelens_n2g.graphs.masked_lm import augmenter_for
from saelens_n2g.graphs.oracle import Oracle
from saelens_n2g.graphs.paper import FitContext, PaperOptions, fit_paper
from saelens_n2g.jobs.artefacts import read_json, write_json
from saelens_n2g.scoring import Confusion, FiringScores
from saelens_n2g.sites import Site
from saelens_n2g.subject import Subject

Neuron = dict[str, Any]
TEXTS = ("held_out", "corpus")


@dataclass
class Cost:
    """What the fits of all neurons took together."""

    cpu_seconds: float = 0.0
    calls: int = 0
    tokens: int = 0
    """Through the subject up to the neuron's layer."""
    infill_tokens: int = 0
    """Through the whole subject, for substitutes."""


class Counted:
    """A subject that counts the tokens it predicts from."""

    def __init__(self, subject: Subject) -> None:
        self.subject, self.tokens = subject, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.subject, name)

    def logits(self, ids: torch.Tensor) -> torch.Tensor:
        self.tokens += ids.numel()
        return self.subject.logits(ids)


def load(folder: Path) -> tuple[list[Neuron], np.ndarray]:
    """Neurons and windows (row, position). Raises `InputError` where the folder is not there."""
    if not (folder / "contexts.npz").is_file():
        raise InputError(f"folder {folder}", "contexts.npz and neurons.json", "no contexts.npz")
    with np.load(folder / "contexts.npz") as found:
        windows: np.ndarray = found["tokens"]
    neurons: list[Neuron] = read_json(folder / "neurons.json")["neurons"]
    return neurons, windows


def exemplars(
    subject: Subject, site: Site, neurons: Sequence[Neuron], windows: np.ndarray
) -> dict[int, list[Exemplar]]:
    """Per neuron of one layer its fit windows with their activations, BOS taken off."""
    rows = sorted({row for neuron in neurons for row in neuron["fit"]})
    values = subject.activations(torch.from_numpy(windows[rows]).long(), [site])[site].relu().cpu().numpy()
    at = {row: i for i, row in enumerate(rows)}
    return {
        neuron["neuron"]: [
            Exemplar(tuple(windows[row, 1:].tolist()), values[at[row], 1:, neuron["neuron"]].copy(), row)
            for row in neuron["fit"]
        ]
        for neuron in neurons
    }


def fit_layer(
    subject: Subject,
    layer: int,
    neurons: Sequence[Neuron],
    windows: np.ndarray,
    context: FitContext,
    augmenter: Augmenter | None,
    cost: Cost,
) -> dict[int, Graph | N2GError]:
    """Graphs of one layer's neurons, fitted together; adds to `cost`."""
    site = Site(layer, "mlp_post")
    basis = NeuronBasis(site, subject.width(site))
    shown = exemplars(subject, site, neurons, windows)
    options = PaperOptions(augment=augmenter is not None)
    oracle, start = Oracle(subject, basis, augmenter), time.process_time()
    found = oracle.run(
        {
            n["neuron"]: fit_paper(
                f"{site}/neurons/{n['neuron']}", n["max_activation"], shown[n["neuron"]], context, options
            )
            for n in neurons
        }
    )
    cost.cpu_seconds += time.process_time() - start
    cost.calls += oracle.costs.calls
    cost.tokens += oracle.costs.tokens
    return found


def score(neuron: Neuron, graph: Graph | N2GError, windows: np.ndarray) -> dict[str, list[float | None]]:
    """[precision, recall, F1] on the held-out windows and on the corpus."""
    if isinstance(graph, N2GError):
        return {text: [None, 0.0, 0.0] for text in TEXTS}
    rows = {"held_out": set(neuron["held_out"]), "corpus": set(range(len(windows))) - set(neuron["fit"])}
    fires = {(row, position) for row, position, _ in neuron["firing"]}
    out: dict[str, list[float | None]] = {}
    for text, chosen in rows.items():
        actual = {place for place in fires if place[0] in chosen}
        predicted = {
            (row, int(position) + 1)  # behind the BOS
            for row in chosen
            for position in np.flatnonzero(graph.predict(windows[row, 1:].tolist()) >= 0.5)
        }
        hits, tokens = len(actual & predicted), len(chosen) * (windows.shape[1] - 1)
        counts = Confusion(hits, len(predicted) - hits, len(actual) - hits, tokens - len(actual | predicted))
        found = FiringScores.from_confusion(counts)
        out[text] = [found.precision, found.recall, found.f1 or 0.0]
    return out


def mean(values: Sequence[float | None]) -> float | None:
    """Of the values that are defined (the file writes NaN for an undefined one)."""
    there = [value for value in values if value is not None and not math.isnan(value)]
    return sum(there) / len(there) if there else None


def summary(scores: Sequence[dict[str, Any]]) -> dict[str, list[float | None]]:
    """Mean precision, recall and F1 per text, for the texts that were scored."""
    return {
        text: [mean([score[text][i] for score in scores]) for i in range(3)]
        for text in TEXTS
        if all(text in score for score in scores)
    }


def per_neuron(cost: Cost, n: int) -> dict[str, float]:
    """Cost in the fields of the peers' figures."""
    return {
        "cpu_seconds": cost.cpu_seconds / n,
        "model_tokens": cost.tokens / n,
        "forward_calls": cost.calls / n,
        "infill_tokens": cost.infill_tokens / n,
    }


def figures(neurons: Sequence[Neuron], ours: str, results: Sequence[dict[str, Any]], cost: Cost) -> dict[str, Any]:
    """Means of ours and of every peer, over all neurons and by layer."""
    layers = sorted({neuron["layer"] for neuron in neurons})
    systems = {ours: list(results), **{p: [n["peers"][p] for n in neurons] for p in neurons[0]["peers"]}}
    out: dict[str, Any] = {}
    for system, scores in systems.items():
        costs = ("cpu_seconds", "model_tokens", "forward_calls")
        paid = {c: mean([s[c] for s in scores]) for c in costs if c in scores[0]}
        out[system] = {
            **summary(scores),
            **(per_neuron(cost, len(neurons)) if system == ours else paid),
            "by_layer": {
                str(layer): summary([s for s, n in zip(scores, neurons, strict=True) if n["layer"] == layer])
                for layer in layers
            },
        }
    return out


def show(found: dict[str, Any], n: int, console: Console) -> None:
    """Two tables: all neurons, and F1 by layer."""
    table = Table(
        title=f"{n} neurons: means", title_justify="left", box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0)
    )
    for column in ("", "held out P/R/F1", "corpus P/R/F1", "CPU s", "tokens", "calls"):
        table.add_column(column, justify="left" if not column else "right")
    for system, row in found.items():
        cells = ["/".join(_number(x) for x in row[text]) if text in row else "" for text in TEXTS]
        paid = [_number(row.get(k), d) for k, d in (("cpu_seconds", 2), ("model_tokens", 0), ("forward_calls", 1))]
        table.add_row(system, *cells, *paid)
    console.print(table)
    layers = list(next(iter(found.values()))["by_layer"])
    table = Table(
        title="F1 by layer: held out/corpus",
        title_justify="left",
        box=SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    for column in ("", *layers):
        table.add_column(column, justify="left" if not column else "right")
    for system, row in found.items():
        by = row["by_layer"]
        table.add_row(system, *("/".join(_number(by[k][t][2]) for t in TEXTS if t in by[k]) for k in layers))
    console.print(table)


def _number(value: float | None, digits: int = 3) -> str:
    return "" if value is None else f"{value:,.{digits}f}"


def sentence_ends(subject: Subject) -> Callable[[int], bool]:
    """Whether a token ends a sentence: a full stop, exclamation or question mark or newline in its text."""
    return lambda token: any(mark in subject.string(token) for mark in ".!?\n")


def measure(arguments: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Fit and score all neurons; the figures as JSON values."""
    neurons, windows = load(arguments.data)
    torch.set_num_threads(arguments.threads)
    subject = Subject.load(arguments.model, device=arguments.device, bos=arguments.bos)
    counted = Counted(subject)
    augmenter: Augmenter | None
    infill = SubjectInfill(counted, top=arguments.top, candidates=arguments.candidates)
    if arguments.augmenter == "subject":
        augmenter = infill
    elif arguments.augmenter == "spellings+subject":
        augmenter = Several([Spellings(subject), infill])
    else:
        augmenter = augmenter_for(arguments.augmenter, counted, report=console.print)
    name = "none" if augmenter is None else augmenter.name
    mask = mask_id(subject, arguments.mask)
    context = FitContext(mask, sentence_ends(subject), subject.string, {})
    cost, graphs = Cost(), dict[tuple[int, int], Graph | N2GError]()
    for layer in sorted({n["layer"] for n in neurons}):
        console.print(f"layer {layer}", style="dim")
        own = [n for n in neurons if n["layer"] == layer]
        found = fit_layer(subject, layer, own, windows, context, augmenter, cost)
        graphs |= {(layer, index): graph for index, graph in found.items()}
    cost.infill_tokens = counted.tokens
    fitted = [graphs[n["layer"], n["neuron"]] for n in neurons]
    results = [score(neuron, graph, windows) for neuron, graph in zip(neurons, fitted, strict=True)]
    failed = {
        f"{n['layer']}/{n['neuron']}": str(g) for n, g in zip(neurons, fitted, strict=True) if isinstance(g, N2GError)
    }
    return {
        "augmenter": name,
        "mask": {"id": mask, "text": subject.string(mask)},
        "subject": subject.describe(),
        "threads": arguments.threads,
        "neurons": len(neurons),
        "failed": failed,
        "nodes": mean([float(g.n_nodes) for g in fitted if isinstance(g, Graph)]),
        "means": figures(neurons, "saelens-n2g", results, cost),
        "per_neuron": [
            {"layer": n["layer"], "neuron": n["neuron"], **r} for n, r in zip(neurons, results, strict=True)
        ],
    }


def main() -> int:
    """Measure, print the tables, write the JSON if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the sixty neurons")
    parser.add_argument("--model", default="embedded", help="the model that the neurons are of")
    parser.add_argument("--bos", default="0", help="id that stands before every text; the windows have 0")
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--augmenter", default="none", help="none, spellings, subject, spellings+subject, auto, or a fill-mask model"
    )
    parser.add_argument("--top", type=int, default=5, help="substitutes per token, with --augmenter subject")
    parser.add_argument("--candidates", type=int, default=10, help="proposals looked at, with --augmenter subject")
    parser.add_argument("--mask", default="auto", help="auto, pad, or a text that is one token")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write all figures there")
    arguments, console = parser.parse_args(), Console()
    try:
        found = measure(arguments, console)
        if arguments.json is not None:
            write_json(arguments.json, found)
    except N2GError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    show(found["means"], found["neurons"], console)
    facts = {key: found[key] for key in ("augmenter", "mask", "threads", "nodes", "failed")}
    console.print_json(json.dumps({**facts, "infill_tokens": found["means"]["saelens-n2g"]["infill_tokens"]}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
