"""Explain: graphs and scores of imported units, part by part, each published when it is done."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from saelens_n2g.bases.registry import basis_kind
from saelens_n2g.comparison.explain import write_unit
from saelens_n2g.comparison.logits import write_logits
from saelens_n2g.comparison.scores import Score, scored
from saelens_n2g.comparison.selection import Unit, facts_of
from saelens_n2g.comparison.units import UnitStatistics
from saelens_n2g.errors import ArtefactError, N2GError
from saelens_n2g.exemplars import Exemplar
from saelens_n2g.explanations.tables import BackoffTable, TokenTable
from saelens_n2g.graphs.graph import Graph
from saelens_n2g.graphs.structure import structure
from saelens_n2g.imports.choice import Chosen
from saelens_n2g.imports.prepare import Prepared, Ready
from saelens_n2g.imports.results import EXPLAINERS, ImportedBasis, ImportedUnit, basis_of
from saelens_n2g.imports.space import OnText, PublishedFitter, Space
from saelens_n2g.jobs.artefacts import committed, publishing, read_json, require, write_json
from saelens_n2g.scoring import Tokens, firing, pooled

PARTS = "parts"
"""Folder of the parts that are finished; a report takes their place."""
PART = 32
"""Units that are fitted together and published together."""


def explained(space: Space, found: Prepared, key: str) -> ImportedBasis:
    """Graphs and scores of a layer, part by part; from disk where that was done before."""
    basis, indices = found.basis, list(found.units)
    parts = [indices[at : at + PART] for at in range(0, len(indices), PART)]
    places = [space.folder / PARTS / f"{basis.site.layer:02d}-{at:05d}" for at in range(len(parts))]
    open_ = [n for n, place in enumerate(places) if committed(place) != {"key": key}]
    on_text = space.on_text(basis, indices) if space.imported.scored and open_ else None
    fitter = PublishedFitter(space, basis)
    if open_:
        space.take_streams(one.chosen.exemplars.fit for one in found.units.values())
    with space.reporter.stage(f"fit {basis.site}", "units") as tick:
        for n in open_:
            with publishing(places[n], {"key": key}) as work:
                _part(space, found, fitter, parts[n], on_text, work)
            tick(sum(map(len, parts[: n + 1])), len(indices))
    units: list[ImportedUnit] = []
    failures, logits = dict(found.failures), None
    for place in places:
        require(place, "part of an import")
        value = read_json(place / "part.json")
        try:
            units += [ImportedUnit.from_json(one) for one in value["units"]]
            failures |= value["failures"]
            logits = value.get("logits") or logits
        except (KeyError, TypeError) as error:
            raise ArtefactError(f"file {place / 'part.json'}", "whole units of this version", repr(error)) from error
    counts = {"examined": len(units) + len(failures), "explained": len(units), "failed": len(failures)}
    return basis_of(
        units,
        ("held_out", "random") if space.imported.scored else ("held_out",),
        space.config.seed,
        name=basis.name,
        title=basis_kind(basis.name).title,
        site=str(basis.site),
        source=found.source,
        signs=basis.signs,
        n_features=basis.n_features,
        counts={**counts, **found.counts},
        failures=failures,
        facts={**facts_of(basis), "augmenter": fitter.augmenter, "logits": logits},
    )


def _part(
    space: Space,
    found: Prepared,
    fitter: PublishedFitter,
    indices: Sequence[int],
    on_text: OnText | None,
    folder: Path,
) -> None:
    """Fit and score some units and write them into `folder`."""
    units = [_unit(found, index, space.config.rule.threshold) for index in indices]
    graphs = fitter.fit(units)
    every = None if on_text is None else on_text.of(indices)
    done, failures = [], {}
    for unit in units:
        graph = graphs[unit.index]
        if isinstance(graph, N2GError):
            failures[unit.name] = str(graph)
            continue
        ready = found.units[unit.index]
        values = None if every is None else every[unit.index]
        scores = _scores(space, unit, graph, values)
        stem = write_unit(folder, graph, exemplars_as_json(space, unit, ready.chosen))
        done.append(_imported(space, unit, graph, ready, scores, values, stem))
    logits = write_logits(space, found.basis, [one.index for one in done], folder) if done else None
    write_json(folder / "part.json", {"units": [asdict(one) for one in done], "failures": failures, "logits": logits})


def _unit(found: Prepared, index: int, threshold: float) -> Unit:
    """The unit as a fitter takes it. Its share of a corpus is not known, and no method asks for it."""
    chosen = found.units[index].chosen
    fit, test = (_firing(side, chosen.maximum, threshold) for side in (chosen.exemplars.fit, chosen.exemplars.test))
    figures = UnitStatistics(chosen.maximum, fit, test, density=math.nan, active=math.nan)
    return Unit(index, found.name(index), figures, np.zeros((0, 0), dtype=np.float32), chosen.exemplars)


def _firing(exemplars: Sequence[Exemplar], maximum: float, threshold: float) -> int:
    return sum(int(firing(one.activations / maximum, threshold).sum()) for one in exemplars)


def _scores(space: Space, unit: Unit, graph: Graph, values: Float[np.ndarray, "window pos"] | None) -> dict[str, Score]:
    """Of the graph and of two tables of counts that know the same texts."""
    maximum, threshold, string = unit.statistics.max_activation, space.config.rule.threshold, space.subject.string
    rows = [one.tokens for one in unit.exemplars.fit]
    fired = [firing(one.activations / maximum, threshold) for one in unit.exemplars.fit]
    explanations: dict[str, Graph | BackoffTable] = {
        "graph": graph,
        "token_table": TokenTable.fit(rows, fired, string=string),
        "backoff_table": BackoffTable.fit(rows, fired, string=string),
    }
    held = unit.exemplars.test
    scores = {}
    for name in EXPLAINERS:
        one = explanations[name]
        texts = {"held_out": pooled(one, [e.tokens for e in held], [e.activations / maximum for e in held])}
        if values is not None:
            mask = space.windows.mask
            predicted = one.predict_text(space.windows.tokens, mask)
            texts["random"] = Tokens(values[mask] / maximum, predicted[mask])
        scores[name] = scored(texts, threshold)
    return scores


def _imported(
    space: Space,
    unit: Unit,
    graph: Graph,
    ready: Ready,
    scores: Mapping[str, Score],
    values: Float[np.ndarray, "window pos"] | None,
    stem: str,
) -> ImportedUnit:
    figures = unit.statistics
    on_text = None if values is None else values[space.windows.mask] / figures.max_activation
    return ImportedUnit(
        index=unit.index,
        name=unit.name,
        max_activation=figures.max_activation,
        published_max=ready.published.maximum,
        fit_firing=figures.fit_firing,
        test_firing=figures.test_firing,
        density=None if on_text is None else float(firing(on_text, space.config.rule.threshold).mean()),
        active=None if on_text is None else float((on_text > 0.0).mean()),
        nodes=graph.n_nodes,
        paths=graph.n_paths,
        context_paths=graph.n_context_paths,
        structure=structure(graph),
        graph_file=f"graphs/{stem}.json",
        svg_file=f"graphs/{stem}.svg",
        text=graph.to_text(),
        scores={name: one.metrics for name, one in scores.items()},
        counts={name: one.counts for name, one in scores.items()},
        agreement=ready.agreement._asdict(),
        texts=ready.chosen.counts,
    )


def exemplars_as_json(space: Space, unit: Unit, chosen: Chosen) -> dict[str, Any]:
    """The unit's texts in the format of exemplars, `document` being where each was published."""

    def one(exemplar: Exemplar) -> dict[str, Any]:
        return {
            "window": exemplar.window,
            "document": chosen.documents[exemplar.window],
            "ids": list(exemplar.tokens),
            "tokens": [space.subject.string(t) for t in exemplar.tokens],
            "activations": [round(float(a), 5) for a in exemplar.activations],
        }

    return {
        "format": "saelens-n2g/exemplars",
        "version": 1,
        "unit": unit.name,
        "max_activation": unit.statistics.max_activation,
        "duplicates_left_out": unit.exemplars.duplicates,
        "fit": [one(e) for e in unit.exemplars.fit],
        "test": [one(e) for e in unit.exemplars.test],
        "random": [],
        "provenance": space.provenance(),
    }
