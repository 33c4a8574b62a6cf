"""The methods of fitting on sixty neurons of SmolLM2-135M beside other implementations of N2G, with the cost of each.

    python benchmarks/n2g.py --data DIR                                       # paper, suffix, refined; ten windows each
    python benchmarks/n2g.py --data DIR --methods refined --evidence rows     # or extract: as much text as there is
    python benchmarks/n2g.py --data DIR --methods paper --augmenter subject --top 3 --candidates 5
    python benchmarks/n2g.py --data DIR --growth --json figures.json

The folder holds `contexts.npz` (windows of Wikipedia as token ids, BOS first), `neurons.json` (per neuron its maximum,
ten windows to fit and ten held out, every firing token, and the peers' figures) and a README. Without it there is
nothing to run: the package never needs it.

Protocol (the README's): a token fires from half the neuron's maximum on, and so does a prediction; `held out` are all
tokens of the ten held-out windows, `corpus` all windows but the fitted ones, BOS excluded. Per neuron precision, recall
and F1, then the unweighted mean over neurons; F1 is 0 where nothing is predicted, precision is left out there. (The
file's held-out precision of the original is 1 there.) Neurons that cannot be fitted count with F1 0.

Evidence: `contexts`, the ten windows; `rows`, 1,024 of the windows, scored on the others; `extract`, these and all
other windows of the Wikipedia extract (`pip install smart_open`, which gensim's cleaner needs). Activations on them are
given, as from a store; the pass that yields them serves all neurons and is not counted. CPU seconds and tokens are
those of the fits alone, on `--threads` threads; the neurons of a layer are fitted together. What `refined` asks once of
the whole vocabulary serves all neurons of a layer and is shown apart (`shared`). The original's figures include its
passes over whole windows, about 2,560 tokens.
"""

import argparse
import json
import math
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from n2g_show import TEXTS, show, show_growth
from n2g_text import fit_text, harvest, protocol_rows, rest_of_extract
from rich.console import Console

from saelens_n2g.bases.neurons import NeuronBasis
from saelens_n2g.comparison.explain import mask_id
from saelens_n2g.errors import InputError, N2GError
from saelens_n2g.exemplars import Exemplar
from saelens_n2g.explanations.tables import BackoffTable, CountedText, TokenTable
from saelens_n2g.graphs.augmenters import Augmenter, Several, Spellings, SubjectInfill
from saelens_n2g.graphs.evidence import Evidence, FitText
from saelens_n2g.graphs.graph import Graph
from saelens_n2g.graphs.masked_lm import augmenter_for
from saelens_n2g.graphs.methods import Method, augments, find_method, without_augmentation
from saelens_n2g.graphs.oracle import Oracle
from saelens_n2g.graphs.paper import FitContext
from saelens_n2g.graphs.vocabulary import Neighbours, alone, tokens_run
from saelens_n2g.jobs.artefacts import read_json, write_json
from saelens_n2g.scoring import FiringScores, confusion
from saelens_n2g.sites import Site
from saelens_n2g.subject import Subject

Neuron = dict[str, Any]
METHODS = ("paper", "suffix", "refined")


@dataclass
class Cost:
    """What the fits of all neurons took together."""

    cpu_seconds: float = 0.0
    calls: int = 0
    tokens: int = 0
    """Through the subject up to the neuron's layer."""
    infill_tokens: int = 0
    """Through the whole subject, for substitutes."""
    shared_seconds: float = 0.0
    shared_tokens: int = 0
    """Of the passes over the vocabulary, one per layer."""


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


@dataclass
class Task:
    """What is fitted, and from what."""

    subject: Subject
    neurons: Sequence[Neuron]
    windows: np.ndarray
    context: FitContext
    augmenter: Augmenter | None
    text: FitText | None = None
    activations: dict[int, np.ndarray] = field(default_factory=dict)
    """Layer -> (neuron, row, pos), in the order of the layer's neurons."""
    fit_rows: frozenset[int] = frozenset()
    """Windows that are part of the text."""
    exemplars: int = 10
    """Windows of each neuron that are shown, without a text."""


def evidence(task: Task, layer: int, own: Sequence[Neuron]) -> dict[int, Evidence]:
    """Per neuron of a layer what it is fitted from."""
    if task.text is not None:
        values = task.activations[layer]
        return {n["neuron"]: Evidence(n["max_activation"], [], task.text, v) for n, v in zip(own, values, strict=True)}
    shown = exemplars(task.subject, Site(layer, "mlp_post"), own, task.windows)
    return {n["neuron"]: Evidence(n["max_activation"], shown[n["neuron"]][: task.exemplars]) for n in own}


def fit_layer(task: Task, method: Method, layer: int, cost: Cost) -> dict[int, Graph | N2GError]:
    """Graphs of one layer's neurons, fitted together; adds to `cost`."""
    site, own = Site(layer, "mlp_post"), [n for n in task.neurons if n["layer"] == layer]
    basis = NeuronBasis(site, task.subject.width(site))
    known = evidence(task, layer, own)
    if "alone" in method.reads:
        start = time.process_time()
        heard = alone(task.subject, basis, list(known))
        cost.shared_seconds += time.process_time() - start
        cost.shared_tokens += tokens_run(task.subject, site)
        known = {index: replace(e, alone=h) for (index, e), h in zip(known.items(), heard, strict=True)}
    options = method.options()
    if augments(options) and task.augmenter is None:
        options = without_augmentation(options)
    oracle, start = Oracle(task.subject, basis, task.augmenter if augments(options) else None), time.process_time()
    found = oracle.run(
        {index: method.fit(f"{site}/neurons/{index}", e, task.context, options) for index, e in known.items()}
    )
    cost.cpu_seconds += time.process_time() - start
    cost.calls += oracle.costs.calls
    cost.tokens += oracle.costs.tokens
    return found


def score(task: Task, neuron: Neuron, explanation: Any) -> dict[str, list[float | None]]:
    """[precision, recall, F1] of a graph or table per text; nothing is predicted where there is an error instead."""
    everything = set(range(len(task.windows)))
    rows = {"held_out": set(neuron["held_out"]), "corpus": everything - set(neuron["fit"])}
    if task.text is not None:
        rows = {"corpus": everything - task.fit_rows}
    if isinstance(explanation, N2GError):
        return {text: [None, 0.0, 0.0] for text in rows}
    mask = np.ones(task.windows.shape, dtype=np.bool_)
    mask[:, 0] = False
    predicted = explanation.predict_text(task.windows, mask) >= 0.5
    actual = np.zeros(task.windows.shape, dtype=np.bool_)
    for row, position, _ in neuron["firing"]:
        actual[row, position] = True
    out: dict[str, list[float | None]] = {}
    for text, chosen in rows.items():
        at = sorted(chosen)
        found = FiringScores.from_confusion(confusion(actual[at, 1:], predicted[at, 1:]))
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


def by_layer(neurons: Sequence[Neuron], scores: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Means over all neurons, and of each layer."""
    layers = sorted({neuron["layer"] for neuron in neurons})
    of = {k: [s for s, n in zip(scores, neurons, strict=True) if n["layer"] == k] for k in layers}
    return {**summary(scores), "by_layer": {str(layer): summary(own) for layer, own in of.items()}}


def run_method(task: Task, name: str, counted: Counted) -> dict[str, Any]:
    """Fit and score all neurons with one method."""
    method, cost, graphs = find_method(name), Cost(), dict[tuple[int, int], Graph | N2GError]()
    counted.tokens = 0
    for layer in sorted({n["layer"] for n in task.neurons}):
        graphs |= {(layer, index): graph for index, graph in fit_layer(task, method, layer, cost).items()}
    fitted = [graphs[n["layer"], n["neuron"]] for n in task.neurons]
    scores, n = [score(task, neuron, g) for neuron, g in zip(task.neurons, fitted, strict=True)], len(fitted)
    return {
        **by_layer(task.neurons, scores),
        "cpu_seconds": cost.cpu_seconds / n,
        "model_tokens": cost.tokens / n,
        "forward_calls": cost.calls / n,
        "infill_tokens": counted.tokens / n,
        "shared_cpu_seconds": cost.shared_seconds / n,
        "shared_tokens": cost.shared_tokens / n,
        "nodes": mean([float(g.n_nodes) for g in fitted if isinstance(g, Graph)]),
        "failed": {
            f"{u['layer']}/{u['neuron']}": str(g)
            for u, g in zip(task.neurons, fitted, strict=True)
            if isinstance(g, N2GError)
        },
        "per_neuron": [
            {"layer": u["layer"], "neuron": u["neuron"], **r} for u, r in zip(task.neurons, scores, strict=True)
        ],
    }


def rivals(task: Task) -> dict[str, Any]:
    """The peers, or with a text the tables of counts of the same text."""
    neurons = task.neurons
    if task.text is None:
        out: dict[str, Any] = {}
        for peer in neurons[0]["peers"]:
            scores = [n["peers"][peer] for n in neurons]
            costs = ("cpu_seconds", "model_tokens", "forward_calls")
            paid = {c: mean([s[c] for s in scores]) for c in costs if c in scores[0]}
            out[peer] = {**by_layer(neurons, scores), **paid}
        return out
    counted, seen = CountedText.of(task.text.tokens, task.text.mask), Counter[int]()
    by_table: dict[str, list[dict[str, Any]]] = {"token table": [], "back-off table": []}
    for neuron in neurons:
        layer = neuron["layer"]
        fires = task.activations[layer][seen[layer]] >= 0.5 * neuron["max_activation"]
        seen[layer] += 1
        for name, table in (("token table", TokenTable), ("back-off table", BackoffTable)):
            by_table[name].append(score(task, neuron, table.from_counted(counted, fires)))
    return {name: by_layer(neurons, found) for name, found in by_table.items()}


def sentence_ends(subject: Subject) -> Callable[[int], bool]:
    """Whether a token ends a sentence: a full stop, exclamation or question mark or newline in its text."""
    return lambda token: any(mark in subject.string(token) for mark in ".!?\n")


def prepare(arguments: argparse.Namespace, console: Console) -> tuple[Task, Counted]:
    """The subject, the neurons, and the text to fit to."""
    neurons, windows = load(arguments.data)
    torch.set_num_threads(arguments.threads)
    subject = Subject.load(arguments.model, device=arguments.device, bos=arguments.bos)
    counted = Counted(subject)
    infill = SubjectInfill(counted, top=arguments.top, candidates=arguments.candidates)
    augmenter: Augmenter | None
    if arguments.augmenter == "subject":
        augmenter = infill
    elif arguments.augmenter == "spellings+subject":
        augmenter = Several([Spellings(subject), infill])
    else:
        augmenter = augmenter_for(arguments.augmenter, counted, report=console.print)
    near = Neighbours(subject.embeddings().numpy(), exclude=subject.tokenizer.all_special_ids)
    mask = mask_id(subject, arguments.mask)
    context = FitContext(mask, sentence_ends(subject), subject.string, {}, near)
    neurons = sorted(neurons, key=lambda n: n["layer"])
    task = Task(subject, neurons, windows, context, augmenter)
    if arguments.evidence != "contexts":
        chosen = protocol_rows(windows)
        rows = windows[chosen].astype(np.int64)
        if arguments.evidence == "extract":
            rows = np.concatenate([rows, rest_of_extract(subject, windows)])
        task.text, task.fit_rows = fit_text(rows), frozenset(chosen.tolist())
        columns: dict[int, list[int]] = {}
        for neuron in neurons:
            columns.setdefault(neuron["layer"], []).append(neuron["neuron"])
        console.print(f"activations on {int(task.text.mask.sum()):,} tokens, once for all neurons", style="dim")
        task.activations = harvest(subject, rows, columns, lambda _: None)
    return task, counted


def growth(task: Task, methods: Sequence[str], counted: Counted) -> list[dict[str, Any]]:
    """CPU seconds and tokens a neuron, by neurons fitted together in each layer, windows of each, and layer."""
    out = []
    layers = sorted({n["layer"] for n in task.neurons})
    for layer in layers:
        own = [n for n in task.neurons if n["layer"] == layer]
        for units, windows in [(1, 10), (5, 10), (len(own), 2), (len(own), 5), (len(own), 10)]:
            part = replace(task, neurons=own[:units], exemplars=windows)
            for name in methods:
                found = run_method(part, name, counted)
                row = {"method": name, "layer": layer, "neurons": units, "windows": windows}
                out.append({**row, **{k: found[k] for k in ("cpu_seconds", "model_tokens", "forward_calls")}})
    return out


def measure(arguments: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Fit and score all neurons with every method; the figures as JSON values."""
    contexts = arguments.evidence == "contexts"
    if arguments.growth and not contexts:
        raise InputError("option --growth", "--evidence contexts", arguments.evidence)
    usable = [name for name in METHODS if contexts or "text" in find_method(name).reads]
    methods = arguments.methods or usable
    if blind := [name for name in methods if name not in usable]:
        raise InputError("option --methods", f"of those that read a text ({', '.join(usable)})", ", ".join(blind))
    task, counted = prepare(arguments, console)
    systems = {}
    for name in methods:
        console.print(f"method {name}", style="dim")
        systems[name] = run_method(task, name, counted)
    return {
        "augmenter": "none" if task.augmenter is None else task.augmenter.name,
        "mask": {"id": task.context.mask_id, "text": task.subject.string(task.context.mask_id)},
        "evidence": arguments.evidence,
        "fit_tokens": 0 if task.text is None else int(task.text.mask.sum()),
        "subject": task.subject.describe(),
        "threads": arguments.threads,
        "neurons": len(task.neurons),
        "means": {**systems, **rivals(task)},
        "growth": growth(task, methods, counted) if arguments.growth else [],
    }


def main() -> int:
    """Measure, print the tables, write the JSON if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the sixty neurons")
    parser.add_argument("--model", default="embedded", help="the model that the neurons are of")
    parser.add_argument("--bos", default="0", help="id that stands before every text; the windows have 0")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--methods", nargs="+", help="default: those that can use the evidence")
    parser.add_argument("--evidence", default="contexts", choices=["contexts", "rows", "extract"])
    parser.add_argument("--growth", action="store_true", help="also cost by neurons, windows and layer")
    parser.add_argument(
        "--augmenter",
        default="spellings",
        help="of the method paper: none, spellings, subject, spellings+subject, auto, or a fill-mask model",
    )
    parser.add_argument("--top", type=int, default=5, help="substitutes per token, with --augmenter subject")
    parser.add_argument("--candidates", type=int, default=10, help="proposals looked at, with --augmenter subject")
    parser.add_argument("--mask", default="auto", help="auto, pad, or a text that is one token")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write all figures there")
    arguments, console = parser.parse_args(), Console(width=None if sys.stdout.isatty() else 140)
    try:
        found = measure(arguments, console)
        if arguments.json is not None:
            write_json(arguments.json, found)
    except N2GError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    show(found["means"], found["neurons"], console)
    if found["growth"]:
        show_growth(found["growth"], console)
    facts = {key: found[key] for key in ("augmenter", "mask", "evidence", "fit_tokens", "threads")}
    failed = {name: row["failed"] for name, row in found["means"].items() if row.get("failed")}
    console.print_json(json.dumps({**facts, "failed": failed}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
