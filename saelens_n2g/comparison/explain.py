"""Explain and score units of one basis: values, choice, exemplars, graphs, tables of counts, scores.

The same steps for every basis; what differs is only where the values come from.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from saelens_n2g.activations import on_grid
from saelens_n2g.bases.base import Basis
from saelens_n2g.bases.registry import BasisInputs, basis_kind
from saelens_n2g.comparison.results import EXPLAINERS, METRICS, TEXTS, BasisResult, UnitResult
from saelens_n2g.comparison.scores import TextScores, UnitScores
from saelens_n2g.comparison.units import UnitStatistics, choose_units
from saelens_n2g.comparison.workspace import Workspace
from saelens_n2g.errors import InputError, N2GError
from saelens_n2g.exemplars import Exemplar, ExemplarSet, choose_exemplars
from saelens_n2g.graphs.graph import Graph
from saelens_n2g.graphs.oracle import Costs, Oracle
from saelens_n2g.graphs.paper import FitContext, fit_paper
from saelens_n2g.jobs.artefacts import write_json, write_text
from saelens_n2g.scoring import Summary, share_at_least, summarise
from saelens_n2g.subject import Subject

CHUNK = 32_768
SHOWN = 6
"""Held-out exemplars per unit in the report."""


@dataclass(frozen=True, eq=False)
class Unit:
    """One unit to explain, with what it does on the whole text."""

    index: int
    name: str
    statistics: UnitStatistics
    activations: Float[np.ndarray, "window pos"]
    exemplars: ExemplarSet


@dataclass(frozen=True, eq=False)
class Explained:
    """What came of it."""

    unit: Unit
    graph: Graph
    scores: UnitScores


def build(workspace: Workspace, name: str) -> Basis:
    """The basis called `name` over the run's activations."""
    config, site = workspace.config, workspace.config.site(name)
    if name == "neurons":
        return basis_kind(name).build(BasisInputs(site, workspace.subject.width(site)))
    stream = workspace.stream
    rows = stream[torch.from_numpy(workspace.fit_tokens)] if name in ("pca", "ica", "random") else None
    folder = Path(config.dictionary) if config.dictionary else workspace.folder / "dictionary" / "sae"
    inputs = BasisInputs(site, stream.shape[1], activations=rows, seed=config.seed, folder=folder)
    basis = basis_kind(name).build(inputs)
    trained_on = _facts(basis).get("identity", {}).get("model_name")
    if trained_on not in (None, config.subject.model):  # names differ without the models differing, so only a remark
        workspace.reporter.note(f"dictionary {folder}: trained on {trained_on}, used on {config.subject.model}")
    return basis


def values_of(workspace: Workspace, basis: Basis, indices: Sequence[int]) -> Float[np.ndarray, "token k"]:
    """Activations of the units `indices` on every scored token of the text."""
    wanted = torch.tensor(list(indices), dtype=torch.long)
    if basis.name == "neurons":
        kept = {column: i for i, column in enumerate(workspace.neuron_columns(basis.n_features))}
        picked: np.ndarray = workspace.neurons[:, [kept[int(i)] for i in indices]]
        return picked.clip(min=0.0)
    parts = [basis.encode_features(chunk, wanted) for chunk in workspace.stream.split(CHUNK)]
    out: np.ndarray = torch.cat(parts).numpy()
    return out


def unit_of(workspace: Workspace, basis: Basis, index: int, found: UnitStatistics, values: np.ndarray) -> Unit:
    """A unit with its exemplars; `values` are its activations on every scored token."""
    grid = on_grid(values[:, None], workspace.windows)[..., 0]
    fit_rows, test_rows = workspace.split
    config = workspace.config
    chosen = choose_exemplars(
        workspace.windows, grid, fit_rows, test_rows, top=config.exemplars, random=config.exemplars, seed=config.seed
    )
    return Unit(index, f"{basis.site}/{basis.name}/{index}", found, grid, chosen)


def mask_id(subject: Subject, mask: str) -> int:
    """The token id that stands for a masked token. Raises `InputError` for a text that is no single token.

    `auto` takes " _", the filler of the N2G variant in openai/sparse_autoencoder, where that is one token, else the
    padding token.
    """
    if mask == "pad":
        return subject.pad_id
    ids = subject.encode(" _" if mask == "auto" else mask)
    if len(ids) == 1:
        return ids[0]
    if mask == "auto":
        return subject.pad_id
    raise InputError("option mask", "auto, pad, or a text that is one token", f"{mask!r}, which is {len(ids)} tokens")


def fit_units(
    workspace: Workspace,
    basis: Basis,
    units: Sequence[Unit],
    tick: Callable[[int, int], None],
) -> tuple[dict[int, Graph | N2GError], Costs]:
    """Graphs of the units, or the reason why there is none, and what that cost."""
    subject, config, augmenter = workspace.subject, workspace.config, workspace.augmenter
    context = FitContext(
        mask_id=mask_id(subject, config.mask),
        ends_sentence=_sentence_ends(subject),
        string=subject.string,
        provenance={
            **workspace.provenance(),
            "basis": {"name": basis.name, "signs": basis.signs, "facts": _facts(basis)},
            "augmenter": None if augmenter is None else augmenter.name,
        },
    )
    options = config.paper
    if augmenter is None and options.augment:
        options = type(options)(**{**asdict(options), "augment": False})
    oracle = Oracle(subject, basis.to(subject.device), augmenter)
    fits = {
        unit.index: fit_paper(unit.name, unit.statistics.max_activation, unit.exemplars.fit, context, options)
        for unit in units
    }
    ended: list[int] = []

    def done(index: int) -> None:
        ended.append(index)
        tick(len(ended), len(fits))

    return oracle.run(fits, done), oracle.costs


def explain_basis(workspace: Workspace, name: str, folder: Path, tick: Callable[[int, int], None]) -> BasisResult:
    """Choose, explain and score units of the basis `name`; write graphs, exemplars and `basis.json` into `folder`."""
    config = workspace.config
    basis = build(workspace, name)
    candidates = [int(i) for i in config.rule.candidates(basis.n_features)]
    values = values_of(workspace, basis, candidates)
    choice = choose_units(values, workspace.fit_tokens, config.rule)
    units = [unit_of(workspace, basis, candidates[at], found, values[:, at]) for at, found in choice.chosen]
    graphs, costs = fit_units(workspace, basis, units, tick)
    texts = TextScores(workspace.windows, *workspace.split, workspace.subject.string)
    explained, failures = [], {}
    for unit in units:
        graph = graphs[unit.index]
        if isinstance(graph, N2GError):
            failures[unit.name] = str(graph)
            continue
        explained.append(Explained(unit, graph, score(texts, unit, graph, config.rule.threshold)))
    result = BasisResult(
        name=name,
        title=basis_kind(name).title,
        site=str(basis.site),
        signs=basis.signs,
        n_features=basis.n_features,
        counts={**choice.counts, "failed": len(failures), "explained": len(explained)},
        failures=failures,
        summary=_summaries([e.scores for e in explained], config.seed),
        share_f1_half=_shares([e.scores for e in explained], config.seed),
        graph_nodes=summarise([e.graph.n_nodes for e in explained], seed=config.seed),
        graph_paths=summarise([e.graph.n_paths for e in explained], seed=config.seed),
        facts={**_facts(basis), "augmenter": None if workspace.augmenter is None else workspace.augmenter.name},
        units=tuple(publish(workspace, e, folder) for e in explained),
    )
    write_json(folder / "basis.json", asdict(result))
    write_json(folder / "costs.json", {"units": len(units), **asdict(costs)})
    return result


def score(texts: TextScores, unit: Unit, graph: Graph, threshold: float) -> UnitScores:
    """Scores of a unit's graph and of the tables of counts beside it."""
    return texts.score(unit.activations, unit.statistics.max_activation, unit.exemplars, graph, threshold)


def publish(workspace: Workspace, explained: Explained, folder: Path) -> UnitResult:
    """Write a unit's graph (JSON, SVG, DOT) and exemplars into `folder`, and say what it is in numbers."""
    unit, graph = explained.unit, explained.graph
    stem = unit.name.replace("/", "_")
    write_json(folder / "graphs" / f"{stem}.json", graph.to_dict())
    write_text(folder / "graphs" / f"{stem}.svg", graph.to_svg())
    write_text(folder / "graphs" / f"{stem}.dot", graph.to_dot())
    write_text(folder / "exemplars" / f"{stem}.json", _compact(exemplars_as_json(workspace, unit)))
    found = unit.statistics
    return UnitResult(
        index=unit.index,
        name=unit.name,
        max_activation=found.max_activation,
        fit_firing=found.fit_firing,
        test_firing=found.test_firing,
        density=found.density,
        active=found.active,
        nodes=graph.n_nodes,
        paths=graph.n_paths,
        context_paths=graph.n_context_paths,
        graph_file=f"graphs/{stem}.json",
        svg_file=f"graphs/{stem}.svg",
        text=graph.to_text(),
        scores=explained.scores,
        exemplars=tuple(_shown(workspace.subject, unit, graph, e) for e in unit.exemplars.test[:SHOWN]),
    )


def exemplars_as_json(workspace: Workspace, unit: Unit) -> dict[str, Any]:
    """All exemplars of a unit: tokens, ids, document, activation of every token in the subject's own units."""
    windows, subject = workspace.windows, workspace.subject

    def one(e: Exemplar) -> dict[str, Any]:
        return {
            "window": e.window,
            "document": windows.document_ids[int(windows.document[e.window])],
            "ids": list(e.tokens),
            "tokens": [subject.string(t) for t in e.tokens],
            "activations": [round(float(a), 5) for a in e.activations],
        }

    sets = {"fit": unit.exemplars.fit, "test": unit.exemplars.test, "random": unit.exemplars.random}
    return {
        "format": "saelens-n2g/exemplars",
        "version": 1,
        "unit": unit.name,
        "max_activation": unit.statistics.max_activation,
        "duplicates_left_out": unit.exemplars.duplicates,
        **{which: [one(e) for e in several] for which, several in sets.items()},
        "provenance": workspace.provenance(),
    }


def _shown(subject: Subject, unit: Unit, graph: Graph, e: Exemplar) -> dict[str, Any]:
    scale = unit.statistics.max_activation
    return {
        "tokens": [subject.string(t) for t in e.tokens],
        "activations": [round(float(a) / scale, 4) for a in e.activations],
        "predicted": [round(float(p), 4) for p in graph.predict(e.tokens)],
    }


def _facts(basis: Basis) -> dict[str, Any]:
    facts = dict(getattr(basis, "facts", {}))
    metadata = facts.pop("metadata", None)
    if metadata is not None:  # a dictionary's own record is long and lies beside it
        facts["identity"] = {k: metadata.get(k) for k in ("l0", "training_samples", "hook_name", "model_name")}
    return facts


def _sentence_ends(subject: Subject) -> Callable[[int], bool]:
    known: dict[int, bool] = {}

    def ends(token: int) -> bool:
        if token not in known:
            known[token] = any(mark in subject.string(token) for mark in ".!?\n")
        return known[token]

    return ends


def _summaries(scores: Sequence[UnitScores], seed: int) -> dict[str, dict[str, dict[str, Summary]]]:
    return {
        e: {t: {m: summarise([s[e][t][m] for s in scores], seed=seed) for m in METRICS} for t in TEXTS}
        for e in EXPLAINERS
    }


def _shares(scores: Sequence[UnitScores], seed: int) -> dict[str, dict[str, Summary]]:
    return {e: {t: share_at_least([s[e][t]["f1"] for s in scores], 0.5, seed) for t in TEXTS} for e in EXPLAINERS}


def _compact(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":")) + "\n"
