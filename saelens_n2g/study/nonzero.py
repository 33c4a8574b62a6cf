"""The protocol of Gao et al. 2024, section 4.3 (arXiv 2406.04093): graphs from random non-zero activations.

A graph is fitted with the method `suffix`, which is theirs, to 16 texts that each end at a random non-zero activation
of the feature in the fit documents. Recall: on how many of another 16, from the test documents, does the graph match.
Precision: on what share of the tokens of random text where it matches is the feature non-zero. There is no threshold:
any match is a prediction and any activation is one that should be predicted. They draw both sixteens from one corpus;
here documents of the test side were not fitted to.

What lies below `FLOOR` of the feature's maximum counts as zero: activations so small come out of rounding, and are not
the same when a text is run by itself. A feature that is non-zero on fewer tokens gets as many as there are.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float

from saelens_n2g.bases.base import Basis
from saelens_n2g.comparison.fitting import Fitter
from saelens_n2g.comparison.selection import Unit
from saelens_n2g.comparison.workspace import Workspace
from saelens_n2g.corpus import Windows
from saelens_n2g.errors import N2GError
from saelens_n2g.exemplars import Exemplar, ExemplarSet
from saelens_n2g.graphs.graph import Graph
from saelens_n2g.graphs.suffix import SuffixOptions

FLOOR = 1e-3
"""Share of the unit's maximum from which an activation is not zero."""
ANY = 1e-6
"""Least prediction of a path: a match, however weak, is a prediction."""


@dataclass(frozen=True)
class Nonzero:
    """One unit under this protocol."""

    fitted: int
    """Non-zero activations fitted to."""
    asked: int
    """Other non-zero activations, on which recall is taken."""
    recall: float | None
    """Share of those on which the graph matches; None without any, or without a graph."""
    precision: float | None
    """Share of the matches on test text on which the unit is non-zero; None where nothing matches."""
    matched: float | None
    """Share of the test tokens on which the graph matches; None without a graph."""
    active: float
    """Share of the test tokens on which the unit is non-zero: the precision of a graph that matches at random."""
    nodes: int | None
    failure: str | None = None
    """Why there is no graph."""


def score_nonzero(
    workspace: Workspace, basis: Basis, units: Sequence[Unit], n: int, done: Callable[[int], None]
) -> dict[str, Nonzero]:
    """By name every unit's outcome, graphs fitted to `n` activations at most; `done` is told of each fit that ended."""
    config = replace(workspace.config, method="suffix", options=SuffixOptions(activation_threshold=ANY))
    fitter = Fitter(workspace.under(config), basis)
    fit_rows, test_rows = workspace.split
    seed, windows = workspace.config.seed, workspace.windows
    parts = {u.index: sampled(windows, u.activations, fit_rows, _floor(u), n, [seed, 5, u.index]) for u in units}
    able = [replace(u, exemplars=ExemplarSet(tuple(parts[u.index]), (), (), 0)) for u in units if parts[u.index]]
    graphs = fitter.fit(able, done)
    test, found = windows.subset(test_rows), {}
    for unit in units:
        others = sampled(windows, unit.activations, test_rows, _floor(unit), n, [seed, 6, unit.index])
        live = (unit.activations[test_rows] > _floor(unit)) & test.mask
        found[unit.name] = judge(graphs.get(unit.index), len(parts[unit.index]), others, test, live)
    return found


def _floor(unit: Unit) -> float:
    return FLOOR * unit.statistics.max_activation


def sampled(
    windows: Windows,
    activations: Float[np.ndarray, "window pos"],
    rows: np.ndarray,
    floor: float,
    n: int,
    seed: Sequence[int],
) -> list[Exemplar]:
    """At most `n` positions drawn from all of `rows` with an activation above `floor`: the window up to each, as an
    exemplar that knows of this one activation alone."""
    wanted = np.zeros(len(windows), dtype=np.bool_)
    wanted[rows] = True
    places = np.argwhere((activations > floor) & windows.mask & wanted[:, None])
    drawn = np.random.default_rng(list(seed)).choice(len(places), size=min(n, len(places)), replace=False)
    first = int(windows.bos_id is not None)
    found = []
    for row, position in places[np.sort(drawn)].tolist():
        tokens = tuple(windows.tokens[row, first : position + 1].tolist())
        values = np.zeros(len(tokens), dtype=np.float32)
        values[-1] = activations[row, position]
        found.append(Exemplar(tokens, values, row))
    return found


def judge(
    graph: Graph | N2GError | None,
    fitted: int,
    others: Sequence[Exemplar],
    test: Windows,
    live: Bool[np.ndarray, "window pos"],
) -> Nonzero:
    """Recall on `others`, precision on the windows `test`, on which the unit is non-zero at `live`."""
    total = max(test.n_tokens, 1)
    active = int(live.sum()) / total
    if not isinstance(graph, Graph):
        failure = "no non-zero activation to fit to" if graph is None else str(graph)
        return Nonzero(fitted, len(others), None, None, None, active, None, failure)
    hits = sum(float(graph.predict(other.tokens)[-1]) > 0.0 for other in others)
    matches = (graph.predict_text(test.tokens, test.mask) > 0.0) & test.mask
    count = int(matches.sum())
    return Nonzero(
        fitted=fitted,
        asked=len(others),
        recall=hits / len(others) if others else None,
        precision=int((matches & live).sum()) / count if count else None,
        matched=count / total,
        active=active,
        nodes=graph.n_nodes,
    )
