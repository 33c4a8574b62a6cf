"""Logit effects on the page of a unit: which next tokens it raises and lowers, as two short lists with bars."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from markupsafe import Markup

from saelens_n2g.server.pages.charts import bar

MINUS = "\u2212"
SIDES = ("raised", "lowered")
SHOWN = 10
"""Tokens of a list; a stranger's store may have more."""


class Line(NamedTuple):
    """A token of a list."""

    token: str
    logit: str
    """With its sign; as many decimals as show three digits of the largest of both lists."""
    bar: Markup
    """As long as the effect is, the largest of both lists being the whole width."""


class Effects(NamedTuple):
    """What the card shows."""

    raised: tuple[Line, ...]
    lowered: tuple[Line, ...]
    vocabulary: int
    deviation: str
    kurtosis: float | None
    farthest: float | None
    """The largest effect as a multiple of the standard deviation."""


def effects(body: Mapping[str, Any] | None) -> Effects | None:
    """The service `logits` for people. Raises `KeyError`, `TypeError` or `ValueError` if it is not whole."""
    if body is None:
        return None
    sides = {name: [(str(one["token"]), _finite(one["logit"])) for one in body[name][:SHOWN]] for name in SIDES}
    largest = max((abs(value) for side in sides.values() for _, value in side), default=0.0)
    deviation = _finite(body["deviation"])
    raised, lowered = (_lines(sides[name], largest) for name in SIDES)
    return Effects(
        raised=raised,
        lowered=lowered,
        vocabulary=int(body["vocabulary"]),
        deviation=f"{deviation:.2g}",
        kurtosis=None if body["kurtosis"] is None else _finite(body["kurtosis"]),
        farthest=largest / deviation if deviation > 0 else None,
    )


def _lines(side: Sequence[tuple[str, float]], largest: float) -> tuple[Line, ...]:
    return tuple(Line(token, signed(value, largest), bar(abs(value) / (largest or 1.0))) for token, value in side)


def signed(value: float, largest: float) -> str:
    """A number with its sign, a real minus, and decimals that show three digits of `largest`."""
    if 0 < largest < 1e-3:
        return f"{value:+.1e}".replace("-", MINUS)
    decimals = min(max(2 - math.floor(math.log10(largest)), 0), 5) if largest else 0
    return f"{value:+.{decimals}f}".replace("-", MINUS)


def _finite(value: Any) -> float:
    found = float(value)
    if not math.isfinite(found):
        raise ValueError(f"logit effect {found}")
    return found
