"""What a fit may ask, and the shape of a fit: a generator that yields questions and returns its result.

Written as generators, many fits can be answered together: the oracle collects what all of them want to know,
asks the model once, and sends the answers back (the idea is from the N2G variant in openai/sparse_autoencoder).
A fit never sees the BOS: the oracle puts it in front of every row and takes its activation away again.
"""

from collections.abc import Generator, Sequence
from typing import NamedTuple, TypeVar

import numpy as np

Result = TypeVar("Result")
Tokens = tuple[int, ...]
Places = Sequence[int] | None
"""Positions of a row in any order; None for all of them."""


class Masked(NamedTuple):
    """A row and the position of the token to be replaced. The augmenter may widen it to the word around it."""

    tokens: Tokens
    position: int


class Substitute(NamedTuple):
    """One proposal of an augmenter: `replacement` instead of `tokens[start:stop]` of the masked row."""

    start: int
    stop: int
    replacement: Tokens
    probability: float


class Question(NamedTuple):
    """Rows whose activations are wanted, and masked rows whose substitutes are wanted; either may be empty."""

    rows: tuple[Tokens, ...] = ()
    masked: tuple[Masked, ...] = ()
    at: tuple[Places, ...] = ()
    """Per row the positions whose activation is wanted; empty: every position of every row."""

    def places(self) -> tuple[Places, ...]:
        """`at`, one entry per row."""
        return self.at or (None,) * len(self.rows)

    @property
    def tokens(self) -> int:
        """Tokens of all rows."""
        return sum(map(len, self.rows))


class Answer(NamedTuple):
    """In the order asked: float32 arrays of the unit's activation, per row one value for each position that was
    asked for, in that order; substitutes, likeliest first.
    """

    activations: list[np.ndarray]
    substitutes: list[list[Substitute]]


Fit = Generator[Question, Answer, Result]
"""A running fit, or any part of one: `yield from` composes them."""


def ask_activations(rows: Sequence[Tokens], at: Sequence[Places] = ()) -> Fit[list[np.ndarray]]:
    """Activations of the unit on the positions `at` of each row, without `at` on every token; asks nothing if there
    is no row. Ask for what is needed only: what the model does last is done on those positions alone.
    """
    if not rows:
        return []
    return (yield Question(rows=tuple(rows), at=tuple(at))).activations


def ask_substitutes(masked: Sequence[Masked]) -> Fit[list[list[Substitute]]]:
    """Substitutes for each masked row; asks nothing if there is none."""
    if not masked:
        return []
    return (yield Question(masked=tuple(masked))).substitutes


def together(parts: Sequence[Fit[Result]]) -> Fit[list[Result]]:
    """Run several parts of one fit in step, their questions merged into one: fewer and fuller rounds.

    Results come in the order of `parts`. An error in one part ends them all.
    """
    results: dict[int, Result] = {}
    open_questions: dict[int, Question] = {}

    def advance(i: int, answer: Answer | None) -> None:
        try:
            open_questions[i] = parts[i].send(answer)  # type: ignore[arg-type]  # None starts a generator
        except StopIteration as end:
            open_questions.pop(i, None)
            results[i] = end.value

    for i in range(len(parts)):
        advance(i, None)
    while open_questions:
        asked = list(open_questions.items())
        answer = yield Question(
            rows=tuple(row for _, question in asked for row in question.rows),
            masked=tuple(row for _, question in asked for row in question.masked),
            at=tuple(places for _, question in asked for places in question.places()),
        )
        row = mask = 0
        for i, question in asked:
            n, m = len(question.rows), len(question.masked)
            advance(i, Answer(answer.activations[row : row + n], answer.substitutes[mask : mask + m]))
            row, mask = row + n, mask + m
    return [results[i] for i in range(len(parts))]
