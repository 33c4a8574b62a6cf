"""Plain words: what people type into a search, as a query of `store.grammar`.

    read("york").run == 'any:"york"'
    read("new york, not layer=0").run == 'any:"new" any:"york", not layer=0'

What the grammar reads is left as it is. Else words and quoted texts without a field get `any:`.
"""

import re
from typing import NamedTuple

from saelens_n2g.errors import InputError
from saelens_n2g.store.grammar import parse, quoted

_PIECE = re.compile(r'\s+|"(?:[^"\\]|\\.)*"|[(),"]|[^\s,()"]+', re.DOTALL)
_FIELD = re.compile(r"[a-z]+[:=]", re.IGNORECASE)
_OPEN = re.compile(r"(activating|important|any):|(layer|basis)=", re.IGNORECASE)
_PLACE = re.compile(r" at position (\d+)$")
_KEYWORDS = ("and", "or", "not")


class Reading(NamedTuple):
    """A query, and where its parts were in what was typed."""

    run: str
    starts: tuple[tuple[int, int], ...]
    """Start of each part in `run`, and in what was typed; ascending."""


class Fault(NamedTuple):
    """What was typed, cut where it cannot be read on."""

    before: str
    at: str
    after: str


def read(said: str) -> Reading:
    """What is run for what was typed; maybe something that cannot be read either."""
    try:
        parse(said)
    except InputError:
        return _read(said)
    return Reading(said, ((0, 0),))


def _read(said: str) -> Reading:
    lump = said.strip()
    if lump and not re.search(r'[\s"]', lump) and (lump.lower() in _KEYWORDS or not any(map(str.isalnum, lump))):
        return Reading("any:" + quoted(lump), ((0, said.index(lump)),))
    made, starts, size, opened = [], [], 0, False
    for piece in _PIECE.finditer(said):
        text = piece[0]
        starts.append((size, piece.start()))
        if not text.isspace():
            word = text[:1] not in '(),"'
            bare = (word or len(text) > 1) and not opened
            opened = word and not opened and _OPEN.fullmatch(text) is not None
            if bare and not (word and (text.lower() in _KEYWORDS or _FIELD.match(text))):
                text = "any:" + (quoted(text) if word else text)
        made.append(text)
        size += len(text)
    return Reading("".join(made), tuple(starts) or ((0, 0),))


def fault(said: str, reading: Reading, error: InputError) -> Fault | None:
    """Where in what was typed an error of the grammar is; None for one that is nowhere in particular."""
    place = _PLACE.search(error.found)
    if place is None:
        return None
    there = int(place[1]) - 1
    start, own = max(pair for pair in reading.starts if pair[0] <= there)
    at = min(own + there - start, len(said))
    end = re.compile(r'[^\s,()"]+|.|$', re.DOTALL).match(said, at)
    stop = end.end() if end else at
    return Fault(said[:at], said[at:stop], said[stop:])
