"""Explain and score units of one basis: choice, exemplars, graphs, tables of counts, scores.

The same steps for every basis; what differs is only where the values come from.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from saelens_n2g.bases.registry import basis_kind
from saelens_n2g.comparison.fitting import Fitter
from saelens_n2g.comparison.fitting import mask_id as mask_id
from saelens_n2g.comparison.logits import write_logits
from saelens_n2g.comparison.results import EXPLAINERS, GRADED, METRICS, TEXTS, BasisResult, UnitResult
from saelens_n2g.comparison.scores import Score, UnitScores
from saelens_n2g.comparison.selection import Unit, build, facts_of, unit_groups
from saelens_n2g.comparison.units import UnitChoice
from saelens_n2g.comparison.workspace import Workspace
from saelens_n2g.errors import N2GError
from saelens_n2g.exemplars import Exemplar
from saelens_n2g.graphs.graph import Graph
from saelens_n2g.graphs.structure import structure
from saelens_n2g.graphs.structure import summarise as summarise_structures
from saelens_n2g.jobs.artefacts import write_json, write_text
from saelens_n2g.scoring import Summary, share_at_least, summarise, summarise_counts
from saelens_n2g.subject import Subject

SHOWN = 6
"""Held-out exemplars per unit in the report."""


@dataclass(frozen=True, eq=False)
class Explained:
    """A unit, and what came of it."""

    unit: Unit
    graph: Graph
    scores: UnitScores


def explain_basis(workspace: Workspace, name: str, folder: Path, tick: Callable[[int, int], None]) -> BasisResult:
    """Choose, explain and score units of the basis `name`; write graphs, exemplars, logit effects and
    `basis.json` into `folder`."""
    rule, seed = workspace.config.rule, workspace.config.seed
    basis = build(workspace, name)
    fitter, choice = Fitter(workspace, basis), UnitChoice(workspace.fit_tokens, rule)
    units: list[UnitResult] = []
    scores: list[UnitScores] = []
    failures: dict[str, str] = {}
    ended = Ended(tick, rule.units)
    for group in unit_groups(workspace, basis, choice):
        graphs = fitter.fit(group, ended)
        for unit in group:
            graph = graphs[unit.index]
            if isinstance(graph, N2GError):
                failures[unit.name] = str(graph)
                continue
            explained = Explained(unit, graph, score(workspace, unit, graph))
            scores.append(explained.scores)
            units.append(publish(workspace, explained, folder))
    logits = write_logits(workspace, basis, [unit.index for unit in units], folder)
    result = BasisResult(
        name=name,
        title=basis_kind(name).title,
        site=str(basis.site),
        signs=basis.signs,
        n_features=basis.n_features,
        counts={**choice.counts, "failed": len(failures), "explained": len(units)},
        failures=failures,
        **means(scores, seed),
        graph_nodes=summarise([unit.nodes for unit in units], seed=seed),
        graph_paths=summarise([unit.paths for unit in units], seed=seed),
        structure=summarise_structures(unit.structure for unit in units),
        facts={**facts_of(basis), "augmenter": fitter.augmenter, "logits": logits},
        units=tuple(units),
    )
    write_json(folder / "basis.json", asdict(result))
    write_json(folder / "costs.json", {"units": len(units) + len(failures), **asdict(fitter.costs)})
    return result


class Ended:
    """Tells `tick` how many units have ended, over several groups."""

    def __init__(self, tick: Callable[[int, int], None], total: int) -> None:
        self.tick, self.total, self.done = tick, total, 0

    def __call__(self, _index: int) -> None:
        """One more has ended."""
        self.done += 1
        self.tick(self.done, self.total)


def score(workspace: Workspace, unit: Unit, graph: Graph) -> dict[str, Score]:
    """Scores of a unit's graph and of the tables of counts beside it."""
    observed, texts = unit.observed(workspace.config.rule.threshold), workspace.texts
    return {"graph": texts.graph(observed, graph), **texts.tables(observed)}


def publish(workspace: Workspace, explained: Explained, folder: Path) -> UnitResult:
    """Write a unit's graph (JSON, SVG, DOT) and exemplars into `folder`, and say what it is in numbers."""
    unit, graph = explained.unit, explained.graph
    stem = write_unit(folder, graph, exemplars_as_json(workspace, unit))
    figures = unit.statistics
    return UnitResult(
        index=unit.index,
        name=unit.name,
        max_activation=figures.max_activation,
        fit_firing=figures.fit_firing,
        test_firing=figures.test_firing,
        density=figures.density,
        active=figures.active,
        nodes=graph.n_nodes,
        paths=graph.n_paths,
        context_paths=graph.n_context_paths,
        structure=structure(graph),
        graph_file=f"graphs/{stem}.json",
        svg_file=f"graphs/{stem}.svg",
        text=graph.to_text(),
        scores={name: found.metrics for name, found in explained.scores.items()},
        counts={name: found.counts for name, found in explained.scores.items()},
        exemplars=tuple(_shown(workspace.subject, unit, graph, e) for e in unit.exemplars.test[:SHOWN]),
    )


def write_unit(folder: Path, graph: Graph, exemplars: Mapping[str, Any]) -> str:
    """Write a graph (JSON, SVG, DOT) and the JSON of its unit's exemplars; returns the files' name without suffix."""
    stem = graph.unit.replace("/", "_")
    write_json(folder / "graphs" / f"{stem}.json", graph.to_dict())
    write_text(folder / "graphs" / f"{stem}.svg", graph.to_svg())
    write_text(folder / "graphs" / f"{stem}.dot", graph.to_dot())
    write_exemplars(folder, exemplars)
    return stem


def write_exemplars(folder: Path, exemplars: Mapping[str, Any]) -> None:
    """Write the JSON of a unit's exemplars."""
    write_text(folder / "exemplars" / f"{exemplars['unit'].replace('/', '_')}.json", _compact(exemplars))


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


def means(
    scores: Sequence[UnitScores],
    seed: int,
    explainers: Sequence[str] = EXPLAINERS,
    texts: Sequence[str] = TEXTS,
) -> dict[str, Any]:
    """`summary`, `micro` and `share_f1_half` of a `BasisResult`, of these explainers on these texts."""

    def values(explainer: str, text: str, metric: str) -> list[float | None]:
        return [found[explainer].metrics[text][metric] for found in scores]

    def one(explainer: str, text: str) -> dict[str, Summary]:
        return {m: summarise(values(explainer, text, m), seed=seed) for m in (*METRICS, *GRADED)}

    def pooled(explainer: str, text: str) -> dict[str, Summary]:
        averages = summarise_counts([found[explainer].counts[text] for found in scores], seed=seed)
        return {metric: found.micro for metric, found in averages.items()}

    def share(explainer: str, text: str) -> Summary:
        return share_at_least(values(explainer, text, "f1"), 0.5, seed)

    makers: dict[str, Callable[[str, str], Any]] = {"summary": one, "micro": pooled, "share_f1_half": share}
    return {name: {e: {t: make(e, t) for t in texts} for e in explainers} for name, make in makers.items()}


def _compact(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":")) + "\n"
