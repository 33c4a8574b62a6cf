"""Tokens that match a pattern against tokens on which a unit fires (Cunningham et al. 2023, section 5 and appendix).

matched = matching(strings, r"\\((?=[A-Z])")            # tokens of a text that a match touches
against(fires, matched)                                # matches, false alarms, misses
best_unit(basis, rows, matched)                        # the unit whose firing says most about them
"""

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from saelens_n2g.bases.base import Basis
from saelens_n2g.errors import InputError

APOSTROPHE = "^['\u2019]"
"""A token that begins with an apostrophe, straight or typographic."""
CHUNK = 8192
"""Rows that are encoded at a time."""
SHARES = (0.0, 0.5)
"""Shares of its maximum above which a unit counts as firing: the authors' (any activation) and this package's."""


def compiled(pattern: str) -> re.Pattern[str]:
    """Raises `InputError` for what is no regular expression."""
    try:
        return re.compile(pattern)
    except re.error as error:
        raise InputError(f"pattern {pattern!r}", "a regular expression", str(error)) from error


def matching(tokens: Sequence[str], pattern: re.Pattern[str]) -> Bool[np.ndarray, "token"]:
    """Tokens of a text that a match touches. A pattern that begins with `^` is asked of every token by itself, any
    other of the whole text, so that it can look beyond the token."""
    if pattern.pattern.startswith("^"):
        return np.array([pattern.search(token) is not None for token in tokens], dtype=bool)
    ends = np.cumsum([len(token) for token in tokens])
    found = np.zeros(len(tokens), dtype=bool)
    for match in pattern.finditer("".join(tokens)):
        if match.end() > match.start():
            first, last = np.searchsorted(ends, [match.start(), match.end() - 1], side="right")
            found[first : last + 1] = True
    return found


@dataclass(frozen=True)
class Against:
    """How firing and matching go together, over tokens."""

    matches: int
    """Tokens that match."""
    firing: int
    """Tokens on which the unit fires."""
    both: int

    @property
    def false_positives(self) -> int:
        """Firing without a match."""
        return self.firing - self.both

    @property
    def false_negatives(self) -> int:
        """Matches without firing."""
        return self.matches - self.both

    @property
    def f1(self) -> float | None:
        """Of firing as a prediction of matches; None where there is neither."""
        total = self.firing + self.matches
        return 2 * self.both / total if total else None

    def as_json(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self) | {
            "false_positives": self.false_positives,
            "false_negatives": self.false_negatives,
            "f1": self.f1,
        }


def against(fires: Bool[np.ndarray, "token"], matched: Bool[np.ndarray, "token"]) -> Against:
    """Count them."""
    return Against(int(matched.sum()), int(fires.sum()), int((fires & matched).sum()))


class Best(NamedTuple):
    """The unit that predicts a set of tokens best."""

    unit: int
    share: float
    """Of its maximum, above which it fires."""
    f1: float


def best_unit(basis: Basis, rows: Float[Tensor, "token d_in"], matched: Bool[np.ndarray, "token"]) -> Best:
    """The unit, and the one of `SHARES`, with the highest F1 of firing; of equal ones the first.

    Raises `InputError` if no token matches, or no unit fires on one that does.
    """
    if not matched.any():
        raise InputError("tokens that match", "one or more", "none")
    wanted = torch.from_numpy(matched)
    largest = torch.stack([basis.encode(part).amax(0) for part in rows.split(CHUNK)]).amax(0)
    fires, both = (torch.zeros(len(SHARES), basis.n_features, dtype=torch.long) for _ in range(2))
    for part, there in zip(rows.split(CHUNK), wanted.split(CHUNK), strict=True):
        values = basis.encode(part)
        for place, share in enumerate(SHARES):
            on = (values > 0) & (values >= share * largest)
            fires[place] += on.sum(0)
            both[place] += on[there].sum(0)
    f1 = 2 * both.double() / (fires + int(wanted.sum())).double()
    place, index = divmod(int(f1.argmax()), basis.n_features)
    if not f1[place, index] > 0:
        raise InputError(f"units of basis {basis.name!r}", "one that fires on a token that matches", "none")
    return Best(index, SHARES[place], float(f1[place, index]))
