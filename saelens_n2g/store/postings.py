"""Posting lists: which units name a token, packed.

One row for every token, role and block of 65,536 units of a layer. `units` are the low 16 bits of their indices,
ascending, `strengths` beside them from 0 to 65,535, both little-endian. 1.6 million postings of 100,000 units take
7 MB so and 13 MB by unit, which changing them needs, against 28 and 18 MB with a row for each; and two tokens that most
units name are found together in 6 ms, against 54 (docs/lab-notes.md).

Every unit is posted under the token `EVERY` too, so that "not" knows of what.
"""

import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int64

BLOCK_BITS = 16
"""Units of a block."""
_TOKEN_SHIFT, _ROLE_SHIFT = 33, 32
SCALE = 65_535
"""Strength of 1."""
EVERY = 0
"""Number of no token, under which every unit stands."""
ACTIVATING, IMPORTANT = 0, 1
_LOW = (1 << BLOCK_BITS) - 1
_U16 = np.dtype("<u2")
_U32 = np.dtype("<u4")

Strengths = Mapping[tuple[int, int], float]
"""(token, role) -> strength in [0, 1]: what one unit names."""


class Block(NamedTuple):
    """One row, unpacked."""

    block: int
    """Number of its first unit, shifted right by `BLOCK_BITS`."""
    places: Int64[np.ndarray, "n"]
    """In the block, ascending."""
    strengths: Float64[np.ndarray, "n"]


def posting_key(token: int, role: int, block: int) -> int:
    """Number of a row."""
    return (token << _TOKEN_SHIFT) + (role << _ROLE_SHIFT) + block


def parts_of(key: int) -> tuple[int, int, int]:
    """Token, role and block of a row's number."""
    return key >> _TOKEN_SHIFT, (key >> _ROLE_SHIFT) & 1, key & ((1 << _ROLE_SHIFT) - 1)


def read(connection: sqlite3.Connection, token: int, role: int) -> list[Block]:
    """All blocks of a token in a role. Raises `ValueError` for rows that are not whole."""
    first = posting_key(token, role, 0)
    rows = connection.execute(
        "SELECT id, units, strengths FROM postings WHERE id BETWEEN ? AND ?", (first, first + (1 << _ROLE_SHIFT) - 1)
    )
    return [unpack(*row) for row in rows]


def unpack(key: int, units: bytes, strengths: bytes) -> Block:
    """A row as arrays. Raises `ValueError` if it is not whole."""
    places, power = np.frombuffer(units, _U16).astype(np.int64), np.frombuffer(strengths, _U16)
    if len(places) != len(power) or np.any(np.diff(places) <= 0):
        raise ValueError(f"postings {key}: places out of order, or without strength")
    return Block(parts_of(key)[2], places, power / SCALE)


def pack_tokens(named: Strengths) -> bytes:
    """What a unit names, for `unit_tokens`: pairs of token * 2 + role and strength, ascending."""
    rows = sorted((token * 2 + role, _quantised(strength)) for (token, role), strength in named.items())
    return np.array(rows, dtype=_U32).tobytes()


def unpack_tokens(data: bytes) -> dict[tuple[int, int], float]:
    """Inverse of `pack_tokens`, but for the rounding of strengths. Raises `ValueError` if it is not whole."""
    rows = np.frombuffer(data, _U32).reshape(-1, 2).tolist()
    return {(token >> 1, token & 1): strength / SCALE for token, strength in rows}


def _quantised(strength: float) -> int:
    return round(min(max(strength, 0.0), 1.0) * SCALE)


def change(
    connection: sqlite3.Connection, removed: Iterable[tuple[int, Strengths]], added: Iterable[tuple[int, Strengths]]
) -> None:
    """Take units out of the rows of what they named and put them into those of what they name, for many units."""
    gone: dict[int, set[int]] = defaultdict(set)
    new: dict[int, dict[int, int]] = defaultdict(dict)
    for unit, named in removed:
        for token, role in named:
            gone[posting_key(token, role, unit >> BLOCK_BITS)].add(unit & _LOW)
    for unit, named in added:
        for (token, role), strength in named.items():
            new[posting_key(token, role, unit >> BLOCK_BITS)][unit & _LOW] = _quantised(strength)
    for key in sorted(gone.keys() | new.keys()):  # ascending: neighbours on disk are written together
        _merge(connection, key, gone[key], new[key])


def _merge(connection: sqlite3.Connection, key: int, gone: set[int], new: dict[int, int]) -> None:
    row = connection.execute("SELECT units, strengths FROM postings WHERE id = ?", (key,)).fetchone()
    places, strengths = (b"", b"") if row is None else row
    added = sorted(new)
    last = int.from_bytes(places[-2:], "little") if places else -1
    if not gone and added and added[0] > last:  # the usual case: behind all that are there
        units = places + np.array(added, _U16).tobytes()
        power = strengths + np.array([new[place] for place in added], _U16).tobytes()
    else:
        old = zip(np.frombuffer(places, _U16).tolist(), np.frombuffer(strengths, _U16).tolist(), strict=True)
        merged = {**{place: strength for place, strength in old if place not in gone}, **new}
        ordered = sorted(merged)
        units = np.array(ordered, _U16).tobytes()
        power = np.array([merged[place] for place in ordered], _U16).tobytes()
    if not units:
        connection.execute("DELETE FROM postings WHERE id = ?", (key,))
    else:
        connection.execute("INSERT OR REPLACE INTO postings VALUES (?, ?, ?)", (key, units, power))
