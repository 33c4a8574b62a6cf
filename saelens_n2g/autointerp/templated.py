"""Templated sentences: a graph or a table of counts said in words, with no model. The default explainer.

Patterns are those of the graph, strongest first (activation times examples), where tokens with the same context are
said together: "fires on `·York` or `·Orleans` after `·New` (12 %)". The share is that of the examples behind all
patterns that fire. Exceptions, ends of a graph that stay quiet, come last. A sentence is bounded: what does not fit is
counted, so it can say less than its graph does, and `quoted`, which reads it back, measures how much less.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from saelens_n2g.autointerp.excerpts import Evidence
from saelens_n2g.autointerp.explainers import EXPLAINERS, Explained
from saelens_n2g.autointerp.phrases import BEFORE, TARGETS, Clause, Item, item, sentence
from saelens_n2g.autointerp.predictors import TokenMeans
from saelens_n2g.autointerp.records import SILENT
from saelens_n2g.autointerp.registry import Options, only, whole
from saelens_n2g.errors import InputError
from saelens_n2g.graphs import elements
from saelens_n2g.graphs.graph import End, Graph
from saelens_n2g.graphs.structure import fires

LIMIT = 800
"""Characters of a sentence, about."""
QUIET = 3
"""Exceptions that are said at most."""


def from_graph(graph: Graph, limit: int = LIMIT) -> str:
    """A graph in words. Empty where it never fires."""
    groups: dict[tuple[tuple[int, ...], bool], list[tuple[int, End]]] = {}
    path: list[int] = []
    for node, depth, _ in graph.walk():
        path[depth:] = [node.token]
        if node.end is not None:
            groups.setdefault((tuple(reversed(path[1:])), fires(node.end)), []).append((path[0], node.end))
    total = sum(end.support for (_, fired), ends in groups.items() if fired for _, end in ends)
    if not total:
        return ""
    ranked = sorted(groups.items(), key=lambda group: (-_weight(group[1]), group[0]))
    clauses = [_clause(graph, *key, ends, total) for key, ends in ranked]
    firing, quiet = ([c for c in clauses if c.fires == fired] for fired in (True, False))
    return sentence([*firing, *quiet[:QUIET]], 0, limit)


def _weight(ends: Sequence[tuple[int, End]]) -> float:
    """Evidence behind several ends: of those that fire what they explain, of others how often they were looked at."""
    return sum(end.activation * end.support if fires(end) else float(end.seen) for _, end in ends)


def _clause(graph: Graph, before: tuple[int, ...], fired: bool, ends: list[tuple[int, End]], total: int) -> Clause:
    ranked = sorted(ends, key=lambda one: (-_weight([one]), one[0]))
    tokens = dict.fromkeys(token for element, _ in ranked for token in graph.members(element))
    share = sum(end.support for _, end in ends) / total if fired else None
    return Clause(
        item([graph.string(t) for t in tokens], TARGETS), tuple(_place(graph, e) for e in before), fired, share
    )


def _place(graph: Graph, element: int) -> Item:
    """What an element of a context is in words."""
    if elements.is_gap(element):
        return Item(gap=elements.gap_width(element))
    if element == elements.START:
        return Item(start=True)
    return item([graph.string(token) for token in graph.members(element)], BEFORE)  # none of a wildcard: any token


def from_means(means: TokenMeans, strings: dict[int, str], least: float, limit: int = LIMIT) -> str:
    """A table of tokens in words: those with a mean of at least `least`, highest first. Empty where there is none."""
    strong = sorted((t for t, mean in means.means.items() if mean >= least), key=lambda t: (-means.means[t], t))
    if not strong:
        return ""
    return sentence([Clause(item([strings[t] for t in strong], TARGETS), (), True, None)], 0, limit)


@dataclass(frozen=True)
class Templated:
    """Says what a graph says, or with `source` table what a token table says."""

    source: str = "graph"
    limit: int = LIMIT
    name: str = "templated"
    settings: Options = field(init=False)

    def __post_init__(self) -> None:
        if self.source not in ("graph", "table") or self.limit < 1:
            raise InputError("templated", "source graph or table, a limit >= 1", f"{self.source}, {self.limit}")
        object.__setattr__(self, "settings", {"source": self.source, "limit": self.limit, "version": 1})

    def explain(self, evidence: Evidence) -> Explained:
        """See `Explainer.explain`."""
        if self.source == "graph":
            text, missing = "" if evidence.graph is None else from_graph(evidence.graph, self.limit), "graph that fires"
        else:
            seen = evidence.of("fit")
            strings = {t: s for e in seen for t, s in zip(e.ids, e.strings, strict=True)}
            text, missing = from_means(TokenMeans.of(seen), strings, evidence.threshold / 2, self.limit), "strong token"
        return Explained(text) if text else Explained(None, SILENT, f"no {missing}")


def _graph(options: Options) -> Templated:
    only("explainer templated", options, ["limit"])
    return Templated("graph", whole(options, "limit", LIMIT))


def _table(options: Options) -> Templated:
    only("explainer templated-table", options, ["limit"])
    return Templated("table", whole(options, "limit", LIMIT), name="templated-table")


EXPLAINERS.register("templated", _graph)
EXPLAINERS.register("templated-table", _table)
