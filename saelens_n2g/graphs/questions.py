"""What a fit may ask, and the shape of a fit: a generator that yields questions and returns its graph.

Written as generators, many fits can be answered together: the oracle collects what all of them want to know,
asks the model once, and sends the answers back (the idea is from the N2G variant in openai/sparse_autoencoder).
A fit never sees the BOS: the oracle puts it in front of every row and takes its activation away again.
"""

from collections.abc import Generator
from typing import NamedTuple

import numpy as np

Tokens = tuple[int, ...]


class Activations(NamedTuple):
    """The unit's activation on every token of each row. Answer: one float32 array per row, as long as the row."""

    rows: tuple[Tokens, ...]


class Masked(NamedTuple):
    """A row and the position of the token to be replaced. The augmenter may widen it to the word around it."""

    tokens: Tokens
    position: int


class Substitutes(NamedTuple):
    """Tokens that could stand at each masked position. Answer: one list of `Substitute` per row, likeliest first."""

    rows: tuple[Masked, ...]


class Substitute(NamedTuple):
    """One proposal of an augmenter: `replacement` instead of `tokens[start:stop]` of the masked row."""

    start: int
    stop: int
    replacement: Tokens
    probability: float


Question = Activations | Substitutes
Answer = list[np.ndarray] | list[list[Substitute]]


def ask_activations(rows: list[Tokens]) -> Generator[Question, Answer, list[np.ndarray]]:
    """`yield from` this inside a fit: activations of the unit on `rows`."""
    answer = yield Activations(tuple(rows))
    assert all(isinstance(a, np.ndarray) for a in answer)
    return answer  # type: ignore[return-value]  # an Activations question is answered by arrays


def ask_substitutes(rows: list[Masked]) -> Generator[Question, Answer, list[list[Substitute]]]:
    """`yield from` this inside a fit: substitutes for each masked row."""
    answer = yield Substitutes(tuple(rows))
    assert all(isinstance(a, list) for a in answer)
    return answer  # type: ignore[return-value]  # a Substitutes question is answered by lists
