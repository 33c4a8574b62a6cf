"""Oracle: the one place that answers "what is unit u's activation on these tokens?" for many fits together.

Every round it collects the open questions of all running fits, drops duplicates, runs the rows through the subject
(`running`: shared prefixes once, up to the site, no gradients, the last MLP on the wanted positions alone) and encodes
only the columns that are wanted. What a row answers for one unit it answers for every unit that asked for it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Float

from saelens_n2g.bases.base import Basis
from saelens_n2g.errors import N2GError
from saelens_n2g.graphs.augmenters import Augmenter
from saelens_n2g.graphs.questions import Answer, Fit, Masked, Question, Substitute, Tokens
from saelens_n2g.graphs.running import ActivationModel, Costs, Row, Runner

__all__ = ["ActivationModel", "Augmenter", "Costs", "Oracle"]

Result = TypeVar("Result")


@dataclass
class Oracle:
    """Answers the questions of fits about units of one basis."""

    subject: ActivationModel
    basis: Basis
    augmenter: Augmenter | None = None
    batch_tokens: int = 1024
    """Tokens of one forward pass at most (a longer single row still runs alone). On a CPU more gains nothing."""
    concurrent: int = 256
    """Fits that run at the same time at most; bounds memory, changes no result."""
    open_tokens: int = 2**20
    """No further fit is begun while the running ones want to know this many tokens in one round; bounds memory."""
    costs: Costs = field(default_factory=Costs)

    def __post_init__(self) -> None:
        self._runner = Runner(self.subject, self.basis.site, self.batch_tokens, self.costs)

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
            volume = sum(question.tokens for question in open_questions.values())
            while waiting and len(running) < self.concurrent and (volume < self.open_tokens or not running):
                unit, fit = waiting.pop()
                running[unit] = fit
                advance(unit, None)
                volume += open_questions[unit].tokens if unit in open_questions else 0
            for unit, answer in self._answer(open_questions).items():
                advance(unit, answer)
        return {unit: results[unit] for unit in fits}

    def _answer(self, questions: Mapping[int, Question]) -> dict[int, Answer]:
        proposals = self._substitutes(list(dict.fromkeys(row for q in questions.values() for row in q.masked)))
        known = self._activations(questions)
        return {
            unit: Answer(known[unit], [proposals[row] for row in question.masked])
            for unit, question in questions.items()
        }

    def _substitutes(self, masked: list[Masked]) -> dict[Masked, list[Substitute]]:
        if not masked:
            return {}
        if self.augmenter is None:
            raise RuntimeError("a fit asked for substitutes, but the oracle has no augmenter")
        self.costs.proposals += len(masked)
        return dict(zip(masked, self.augmenter.substitutes(masked), strict=True))

    def _activations(self, questions: Mapping[int, Question]) -> dict[int, list[np.ndarray]]:
        """Per unit the answers to its rows, in the order asked."""
        places: dict[Tokens, set[int]] = {}
        units: dict[Tokens, set[int]] = {}
        for unit, question in questions.items():
            self.costs.rows_asked += len(question.rows)
            for row, at in zip(question.rows, question.places(), strict=True):
                places.setdefault(row, set()).update(range(len(row)) if at is None else at)
                units.setdefault(row, set()).add(unit)
        self.costs.rows_run += len(places)
        known = self._values([Row(row, sorted(at)) for row, at in places.items()], units)
        index = {row: {place: i for i, place in enumerate(sorted(at))} for row, at in places.items()}
        return {
            unit: [
                known[row][unit] if at is None else known[row][unit][[index[row][place] for place in at]]
                for row, at in zip(question.rows, question.places(), strict=True)
            ]
            for unit, question in questions.items()
        }

    def _values(
        self, rows: Sequence[Row], units: Mapping[Tokens, set[int]]
    ) -> dict[Tokens, dict[int, Float[np.ndarray, "n"]]]:
        """Per row and unit its activation on each of the row's places."""
        known: dict[Tokens, dict[int, np.ndarray]] = {}
        for batch, x in self._runner.run(rows):
            asking = sorted({unit for row in batch for unit in units[row.tokens]})
            column = {unit: i for i, unit in enumerate(asking)}
            values = self.basis.encode_features(x, torch.tensor(asking, device=x.device)).cpu().numpy()
            start = 0
            for row in batch:
                own = values[start : start + len(row.at)]
                # Copies: a view would keep the whole batch alive for as long as a fit remembers one row of it.
                known[row.tokens] = {unit: own[:, column[unit]].copy() for unit in units[row.tokens]}
                start += len(row.at)
        return known
