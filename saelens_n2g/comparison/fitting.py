"""Fitting: graphs of a group of units with the method of the run, and what that costs."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from saelens_n2g.bases.base import Basis
from saelens_n2g.comparison.selection import Unit, facts_of
from saelens_n2g.comparison.vocabulary import BATCH
from saelens_n2g.comparison.workspace import Workspace
from saelens_n2g.errors import InputError, N2GError
from saelens_n2g.graphs.evidence import Evidence
from saelens_n2g.graphs.graph import Graph
from saelens_n2g.graphs.methods import find_method, without_augmentation
from saelens_n2g.graphs.oracle import Costs, Oracle
from saelens_n2g.graphs.paper import FitContext
from saelens_n2g.graphs.questions import Fit
from saelens_n2g.graphs.vocabulary import tokens_run
from saelens_n2g.subject import Subject


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


class Fitter:
    """Fits graphs to units of one basis with the method of the workspace's settings."""

    def __init__(self, workspace: Workspace, basis: Basis) -> None:
        subject, config, augmenter = workspace.subject, workspace.config, workspace.augmenter
        self.workspace, self.method = workspace, find_method(config.method)
        self.augmenter = None if augmenter is None else augmenter.name
        """Who proposes substitutes; None where nobody does."""
        self.options = config.method_options if augmenter is not None else without_augmentation(config.method_options)
        self.context = FitContext(
            mask_id=mask_id(subject, config.mask),
            ends_sentence=_sentence_ends(subject),
            string=subject.string,
            provenance={
                **workspace.provenance(),
                "basis": {"name": basis.name, "signs": basis.signs, "facts": facts_of(basis)},
                "augmenter": self.augmenter,
            },
            neighbours=workspace.neighbours if "neighbours" in self.method.reads else None,
        )
        self._basis = basis.to(subject.device)
        self._oracle = Oracle(subject, self._basis, augmenter)

    @property
    def costs(self) -> Costs:
        """Of everything fitted so far."""
        return self._oracle.costs

    def fit(self, units: Sequence[Unit], done: Callable[[int], None] = lambda _: None) -> dict[int, Graph | N2GError]:
        """Per index the unit's graph, or the reason why there is none; `done` is told of each index that has ended."""
        heard = self._hear([unit.index for unit in units]) if "alone" in self.method.reads and units else {}
        return self._oracle.run({unit.index: self._start(unit, heard.get(unit.index)) for unit in units}, done)

    def _hear(self, indices: Sequence[int]) -> dict[int, np.ndarray]:
        """What the units do on single tokens. Counted as if no other basis had asked before, so that costs do not
        depend on the order of the bases."""
        subject, site, costs = self.workspace.subject, self._basis.site, self._oracle.costs
        found = self.workspace.vocabulary.hear(self._basis, indices, subject.width(site))
        costs.calls += math.ceil(subject.d_vocab / BATCH)
        costs.tokens += tokens_run(subject, site)
        return dict(zip(indices, found, strict=True))

    def _start(self, unit: Unit, heard: np.ndarray | None) -> Fit[Graph]:
        """A fit that puts its evidence together when it begins, so that waiting fits hold no copy of the text's
        activations."""
        evidence = replace(self.evidence(unit), alone=heard)
        graph = yield from self.method.fit(unit.name, evidence, self.context, self.options)
        return graph

    def evidence(self, unit: Unit) -> Evidence:
        """What is known of a unit from the text: its exemplars, and the fit documents if the method reads them."""
        maximum, exemplars = unit.statistics.max_activation, unit.exemplars.fit
        if "text" not in self.method.reads:
            return Evidence(maximum, exemplars)
        fit_rows = self.workspace.split[0]
        return Evidence(maximum, exemplars, self.workspace.fit_text, unit.activations[fit_rows])


def _sentence_ends(subject: Subject) -> Callable[[int], bool]:
    known: dict[int, bool] = {}

    def ends(token: int) -> bool:
        if token not in known:
            known[token] = any(mark in subject.string(token) for mark in ".!?\n")
        return known[token]

    return ends
