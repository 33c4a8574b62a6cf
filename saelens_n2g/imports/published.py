"""What was published: a unit's texts with its activation on every token, whatever format they came in."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from saelens_n2g.errors import ArtefactError

TOKENS = 2**16
"""Tokens of one text at most."""
TEXTS = 2**14
"""Texts of one record at most."""
INDEX = 2**24
"""Indices of units, and numbers of layers, lie below."""
LARGEST = float(np.finfo(np.float32).max)
Wanted = Callable[[int], bool]
"""Whether the unit of an index is asked for, so that readers need not build the others."""


@dataclass(frozen=True, eq=False)
class PublishedText:
    """One text as it was published."""

    where: str
    """Which file, record and text, for errors and provenance."""
    activations: np.ndarray
    """Float32 (token,), as published: finite, negative values not yet rectified."""
    strings: tuple[str, ...] | None
    """The text of every token, or None where only ids are known."""
    ids: tuple[int, ...] | None = None
    """Token ids, where they are given."""
    which: str = "top"
    """The set it belongs to: `top`, `random`, `quantile 3`, `fit`, `test`."""

    @property
    def peak(self) -> float:
        """The largest activation."""
        return float(self.activations.max())


@dataclass(frozen=True, eq=False)
class PublishedUnit:
    """What one record says of one unit; several records may speak of the same."""

    where: str
    layer: int | None
    """None where the format does not say."""
    index: int
    source: str
    """What it is a unit of, as stated: a source of Neuronpedia, a hook point of delphi; empty where nothing is said."""
    texts: tuple[PublishedText, ...]
    maximum: float | None = None
    """Largest activation over the publisher's corpus, if stated."""
    model: str | None = None
    """The model, as stated."""
    marks: bool = False
    """Whether tokens may be spelt with the marks of a vocabulary for spaces and line breaks."""


def text_of(
    where: str,
    tokens: Any,
    activations: Any,
    *,
    which: str = "top",
    ids: Any = None,
) -> PublishedText:
    """A text out of JSON values. Raises `ArtefactError` unless both are lists of one length, of strings and of finite
    numbers."""
    strings = list_of(where, "tokens", tokens)
    values = list_of(where, "activations", activations)
    if not len(strings) == len(values) > 0:
        raise ArtefactError(where, "as many activations as tokens, one at least", f"{len(values)} and {len(strings)}")
    if len(strings) > TOKENS:
        raise ArtefactError(where, f"at most {TOKENS} tokens", str(len(strings)))
    for at, one in enumerate(strings):
        if not isinstance(one, str) or not _whole(one):
            raise ArtefactError(f"{where}, token {at}", "a text of whole characters", repr(one)[:60])
    numbers = [number(f"{where}, activation {at}", one) for at, one in enumerate(values)]
    known = _ids(where, ids, len(strings))
    shared = tuple(sys.intern(one) for one in strings)  # a vocabulary's strings, once
    return PublishedText(where, np.array(numbers, dtype=np.float32), shared, known, which)


def _whole(text: str) -> bool:
    """Whether it can be written as UTF-8: JSON can hold halves of characters."""
    return text.isascii() or not any("\ud800" <= c <= "\udfff" for c in text)


def _ids(where: str, given: Any, n: int) -> tuple[int, ...] | None:
    if given is None:
        return None
    found = list_of(where, "ids", given)
    if len(found) != n:
        raise ArtefactError(where, f"{n} ids, as many as tokens", str(len(found)))
    return tuple(integer(f"{where}, id {at}", one, 2**31) for at, one in enumerate(found))


def list_of(where: str, name: str, value: Any) -> Sequence[Any]:
    """The value if it is a list. Raises `ArtefactError`."""
    if not isinstance(value, list):
        raise ArtefactError(where, f"a list `{name}`", type(value).__name__)
    return value


def number(where: str, value: Any) -> float:
    """A finite number, as float32 can hold it. Raises `ArtefactError`."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= LARGEST:
        raise ArtefactError(where, "a finite number", repr(value)[:60])
    return float(value)


def integer(where: str, value: Any, below: int = INDEX) -> int:
    """A whole number from 0 on, also as decimal text, as Neuronpedia has it. Raises `ArtefactError`."""
    text = isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) < 12
    if isinstance(value, bool) or not (isinstance(value, int) or text) or not 0 <= int(value) < below:
        raise ArtefactError(where, f"a whole number from 0 to {below - 1}", repr(value)[:60])
    return int(value)
