"""A cell of the study: units of one basis of one layer, explained, scored, and held against other units' graphs."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from saelens_n2g.bases.base import Basis
from saelens_n2g.bases.foreign import load_dictionary
from saelens_n2g.bases.registry import BASES, basis_kind
from saelens_n2g.bases.sae import sae_basis
from saelens_n2g.comparison.explain import Ended, exemplars_as_json, write_exemplars
from saelens_n2g.comparison.fitting import Fitter
from saelens_n2g.comparison.logits import write_logits
from saelens_n2g.comparison.scores import Observed, Score
from saelens_n2g.comparison.selection import Unit, build, facts_of, unit_groups
from saelens_n2g.comparison.units import UnitChoice
from saelens_n2g.comparison.workspace import Workspace
from saelens_n2g.errors import N2GError
from saelens_n2g.explanations.base import Explanation
from saelens_n2g.explanations.tables import BackoffTable
from saelens_n2g.graphs.graph import Graph
from saelens_n2g.jobs.artefacts import write_json
from saelens_n2g.scoring.pairs import cycle
from saelens_n2g.study.config import SHUFFLED, StudyConfig
from saelens_n2g.study.fragments import Fragments, correlations
from saelens_n2g.study.nonzero import Nonzero, score_nonzero
from saelens_n2g.study.records import Cell, UnitRecord
from saelens_n2g.study.stream import Stream, reading
from saelens_n2g.study.twins import directions, earlier_twin, nearest

LINES = 12
"""Lines of a graph's text that are kept with its unit."""
Tick = Callable[[int, int], None]


def basis_of(workspace: Workspace, name: str, folder: Path | None) -> Basis:
    """The basis `name` over the layer's activations, a dictionary out of its `folder` and under its own name."""
    if folder is None:
        return build(workspace, name)
    return replace(sae_basis(workspace.config.site("sae"), load_dictionary(folder)), name=name)


def explain_cell(
    workspace: Workspace, config: StudyConfig, name: str, dictionary: Path | None, folder: Path, tick: Tick
) -> Cell:
    """Choose, explain and score units of one basis; graphs, exemplars and logit effects are written
    into `folder`.

    All units of a cell are held in memory: four bytes for each position of the text and each unit. A unit without
    graph is scored as one that is predicted never to fire, and says why.
    """
    rule, layer = workspace.config.rule, workspace.config.layer
    basis = basis_of(workspace, name, dictionary)
    choice = UnitChoice(workspace.fit_tokens, rule)
    units = [unit for group in unit_groups(workspace, basis, choice) for unit in group]
    fitter = Fitter(workspace, basis)
    ended = Ended(tick, rule.units * (1 + (dictionary is not None)))
    graphs = fitter.fit(units, ended)
    nonzero: dict[str, Nonzero] = {}
    if dictionary is not None:
        nonzero = score_nonzero(workspace, basis, units, config.nonzero, ended)
    rows, stream = directions(basis), Stream.of(workspace.stream, workspace.fit_tokens, workspace.windows)
    twins = earlier_twin(
        [unit.activations for unit in units], None if rows is None else rows[[u.index for u in units]], config.twin
    )
    inherited = _inherited(workspace, stream, basis, units)
    explained, records = _explained(workspace, config, units, graphs, twins), []
    for one, twin, (massive, spread) in zip(explained, twins, inherited, strict=True):
        if one.failure is None:
            write_json(folder / "graphs" / f"{one.unit.name.replace('/', '_')}.json", one.graph.to_dict())
        write_exemplars(folder, exemplars_as_json(workspace, one.unit))
        earlier = None if twin is None else units[twin].name
        records.append(_record(one, massive, spread, earlier, nonzero.get(one.unit.name)))
    facts = {**facts_of(basis), "augmenter": fitter.augmenter, "costs": asdict(fitter.costs)}
    facts["logits"] = write_logits(workspace, basis, [unit.index for unit in units], folder)
    return Cell(
        layer=layer,
        basis=name,
        title=title_of(name),
        site=str(basis.site),
        n_features=basis.n_features,
        signs=basis.signs,
        counts=dict(choice.counts),
        twins=None if rows is None else int((nearest(rows) > config.twin).sum()),
        massive_tokens=stream.tokens,
        massive_square=stream.square,
        facts=facts,
        units=tuple(records),
    )


def title_of(name: str) -> str:
    """A basis' name for people; dictionaries have none but their own."""
    return basis_kind(name).title if name in BASES else name


@dataclass(frozen=True, eq=False)
class Explained:
    """A unit with all that was found out."""

    unit: Unit
    threshold: float
    graph: Graph
    """An empty one where there is none."""
    failure: str | None
    shuffled_from: str | None
    scores: dict[str, Score]
    fragments: dict[str, dict[str, float | None]]


def _explained(
    workspace: Workspace,
    config: StudyConfig,
    units: Sequence[Unit],
    graphs: dict[int, Graph | N2GError],
    twins: Sequence[int | None],
) -> list[Explained]:
    """Every unit with its graph, the tables of counts beside it and another unit's graph, on text and on fragments.

    Twins of earlier units give and take no graph: a twin's graph is as good as the own one, and would be no control.
    """
    rule, texts, test_rows = workspace.config.rule, workspace.texts, workspace.split[1]
    whole = [u for u, twin in zip(units, twins, strict=True) if twin is None and isinstance(graphs[u.index], Graph)]
    order = cycle(len(whole), [workspace.config.seed, 7, workspace.config.layer])
    given = {unit.index: whole[other] for unit, other in zip(whole, order, strict=False)}
    cut = Fragments.of(workspace.windows.subset(test_rows), config.fragment)
    found = []
    for unit in units:
        graph, observed = graphs[unit.index], unit.observed(rule.threshold)
        failure = str(graph) if isinstance(graph, N2GError) else None
        own = Graph(unit.name, unit.statistics.max_activation) if isinstance(graph, N2GError) else graph
        explanations: dict[str, Graph | BackoffTable] = {"graph": own, **texts.fitted(observed)}
        donor = given.get(unit.index)
        if donor is not None and isinstance(other := graphs[donor.index], Graph):
            explanations[SHUFFLED] = other
        values = unit.activations[test_rows]
        chosen = cut.choose(values, n=config.fragments, uniform=config.uniform, seed=workspace.config.seed)
        scores = {name: texts.score(observed, one) for name, one in explanations.items()}
        known: dict[str, Explanation] = dict(explanations)
        fragments = {name: correlations(cut, chosen, values, one) for name, one in known.items()}
        giver = None if donor is None else donor.name
        found.append(Explained(unit, rule.threshold, own, failure, giver, scores, fragments))
    return found


def _inherited(
    workspace: Workspace, stream: Stream, basis: Basis, units: Sequence[Unit]
) -> list[tuple[float, float | None]]:
    """Per unit the share of its firing fit tokens that is massive, and the spread along what it reads."""
    fit, threshold = workspace.split[0], workspace.config.rule.threshold
    shares = [stream.share(u.activations >= threshold * u.statistics.max_activation, fit) for u in units]
    reads = reading(basis, [unit.index for unit in units])
    spreads = [None] * len(units) if reads is None else stream.spread(reads)
    return list(zip(shares, spreads, strict=True))


def _record(
    one: Explained, massive: float, spread: float | None, twin: str | None, nonzero: Nonzero | None
) -> UnitRecord:
    unit, graph = one.unit, one.graph
    figures, lines = unit.statistics, graph.to_text().splitlines()
    more = [f"... and {len(lines) - LINES} more"] if len(lines) > LINES else []
    return UnitRecord(
        name=unit.name,
        index=unit.index,
        max_activation=figures.max_activation,
        density=figures.density,
        active=figures.active,
        massive=massive,
        spread=spread,
        fit_firing=figures.fit_firing,
        test_firing=figures.test_firing,
        exemplars=firing_exemplars(unit.observed(one.threshold)),
        nodes=graph.n_nodes if one.failure is None else None,
        paths=graph.n_paths if one.failure is None else None,
        failure=one.failure,
        twin=twin,
        shuffled_from=one.shuffled_from,
        text="\n".join([*lines[:LINES], *more]),
        scores={name: score.metrics for name, score in one.scores.items()},
        counts={name: score.counts for name, score in one.scores.items()},
        fragments=one.fragments,
        nonzero=nonzero,
    )


def firing_exemplars(unit: Observed) -> int:
    """Fit windows among the unit's exemplars with a token on which it fires."""
    floor = unit.threshold * unit.max_activation
    return sum(float(e.activations.max(initial=0.0)) >= floor for e in unit.exemplars.fit)
