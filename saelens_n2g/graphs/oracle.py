"""Oracle: the one place that answers "what is unit u's activation on these tokens?" for many fits together.

Every round it collects the open questions of all running fits, drops duplicates, sorts the rows by length, runs
them through the subject in batches (up to the site's layer, no gradients) and encodes only the columns that are
wanted. What a row answers for one unit it answers for every unit that asked for it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from saelens_n2g.bases.base import Basis
from saelens_n2g.errors import N2GError
from saelens_n2g.graphs.questions import Answer, Fit, Masked, Question, Substitute, Tokens
from saelens_n2g.sites import Site

Result = TypeVar("Result")


@runtime_checkable
class ActivationModel(Protocol):
    """What the oracle needs of a subject."""

    bos_id: int | None

    @property
    def pad_id(self) -> int: ...
    def activations(self, ids: Int[Tensor, "batch pos"], sites: Sequence[Site]) -> dict[Site, Float[Tensor, "..."]]: ...


@runtime_checkable
class Augmenter(Protocol):
    """Proposes tokens for masked positions (one of the four protocols, docs/decisions.md), many rows in one call."""

    @property
    def name(self) -> str:
        """What goes into the provenance of a graph."""
        ...

    def substitutes(self, rows: Sequence[Masked]) -> list[list[Substitute]]:
        """Per row, substitutes for the masked token, likeliest first, never the original."""
        ...


@dataclass
class Costs:
    """What answering took."""

    calls: int = 0
    """Forward passes of the subject up to the layer."""
    tokens: int = 0
    """Tokens pushed through it, padding and BOS included."""
    rows_asked: int = 0
    rows_run: int = 0
    """Rows left after duplicates were dropped."""
    proposals: int = 0
    """Masked positions that the augmenter filled."""


@dataclass
class Oracle:
    """Answers the questions of fits about units of one basis."""

    subject: ActivationModel
    basis: Basis
    augmenter: Augmenter | None = None
    batch_tokens: int = 4096
    """Tokens of one forward pass at most (a longer single row still runs alone)."""
    concurrent: int = 256
    """Fits that run at the same time; bounds memory, changes no result."""
    costs: Costs = field(default_factory=Costs)

    def run(
        self, fits: Mapping[int, Fit[Result]], done: Callable[[int], None] = lambda _: None
    ) -> dict[int, Result | N2GError]:
        """Drive the fits (feature index -> generator) to their ends; `done` is told of each that has ended.

        A fit that raises an `N2GError` yields that error as its result, so that one bad unit stops no other.
        """
        results: dict[int, Result | N2GError] = {}
        waiting = list(fits.items())[::-1]
        open_questions: dict[int, Question] = {}
        running: dict[int, Fit[Result]] = {}

        def advance(unit: int, answer: Answer | None) -> None:
            try:
                open_questions[unit] = running[unit].send(answer)  # type: ignore[arg-type]  # None starts a generator
                return
            except StopIteration as end:
                results[unit] = end.value
            except N2GError as error:
                results[unit] = error
            open_questions.pop(unit, None)
            del running[unit]
            done(unit)

        while waiting or running:
            while waiting and len(running) < self.concurrent:
                unit, fit = waiting.pop()
                running[unit] = fit
                advance(unit, None)
            for unit, answer in self._answer(open_questions).items():
                advance(unit, answer)
        return {unit: results[unit] for unit in fits}

    def _answer(self, questions: Mapping[int, Question]) -> dict[int, Answer]:
        proposals = self._substitutes(list(dict.fromkeys(row for q in questions.values() for row in q.masked)))
        known = self._activations({unit: q.rows for unit, q in questions.items()})
        return {
            unit: Answer([known[row][unit] for row in q.rows], [proposals[row] for row in q.masked])
            for unit, q in questions.items()
        }

    def _substitutes(self, masked: list[Masked]) -> dict[Masked, list[Substitute]]:
        if not masked:
            return {}
        if self.augmenter is None:
            raise RuntimeError("a fit asked for substitutes, but the oracle has no augmenter")
        self.costs.proposals += len(masked)
        return dict(zip(masked, self.augmenter.substitutes(masked), strict=True))

    def _activations(self, wanted: Mapping[int, Sequence[Tokens]]) -> dict[Tokens, dict[int, np.ndarray]]:
        units_of: dict[Tokens, list[int]] = {}
        for unit, rows in wanted.items():
            self.costs.rows_asked += len(rows)
            for row in dict.fromkeys(rows):
                units_of.setdefault(row, []).append(unit)
        self.costs.rows_run += len(units_of)
        known: dict[Tokens, dict[int, np.ndarray]] = {}
        for batch in self._batches(sorted(units_of, key=lambda row: (len(row), row))):
            units = sorted({unit for row in batch for unit in units_of[row]})
            column = {unit: i for i, unit in enumerate(units)}
            values = self._run(batch, units)
            for i, row in enumerate(batch):
                known[row] = {unit: values[i, : len(row), column[unit]] for unit in units_of[row]}
        return known

    def _batches(self, rows: Sequence[Tokens]) -> Iterator[list[Tokens]]:
        batch: list[Tokens] = []
        for row in rows:  # ascending length, so the newest row is the longest
            if batch and (len(batch) + 1) * (len(row) + 1) > self.batch_tokens:
                yield batch
                batch = []
            batch.append(row)
        if batch:
            yield batch

    def _run(self, batch: Sequence[Tokens], units: Sequence[int]) -> np.ndarray:
        """(row, position, unit) activations, BOS taken off."""
        bos = [] if self.subject.bos_id is None else [self.subject.bos_id]
        width = max(len(row) for row in batch)
        ids = torch.full((len(batch), len(bos) + width), self.subject.pad_id, dtype=torch.long)
        for i, row in enumerate(batch):
            ids[i, : len(bos) + len(row)] = torch.tensor(bos + list(row))
        self.costs.calls += 1
        self.costs.tokens += ids.numel()
        site = self.basis.site
        x = self.subject.activations(ids, [site])[site]
        features = self.basis.encode_features(x, torch.tensor(units, device=x.device))
        values: np.ndarray = features[:, len(bos) :].cpu().numpy()
        return values
