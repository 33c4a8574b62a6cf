"""What the figure of an interpretation shows: ways with their scores, best controls, scores by group; and its words."""

from collections.abc import Mapping
from typing import NamedTuple

from saelens_n2g.autointerp.controls import CONTROLS, FEWEST, INVALID, UNKNOWN
from saelens_n2g.autointerp.results import MAIN, Interpretation, Way
from saelens_n2g.comparison.table import ABSENT, number
from saelens_n2g.scoring import Summary

SCORES = (MAIN, ("random", "auprc"))
"""Sets and metrics of the two panels; rows are sorted by the first, which is also the one by basis and layer."""
TITLES = ("Correlation, top and random excerpts", "AUPRC, random excerpts")
"""Of these scores."""
MOST_LINES = 6
"""Ways that lines over layers can tell apart."""
MOST_ROWS, MOST_BASES = 16, 12
"""Ways and bases beyond which a figure would be a wall; the tables have all."""
Group = tuple[str, int]
"""Basis and layer."""


class Row(NamedTuple):
    """One way of explaining."""

    way: Way
    label: str
    verdict: str
    scores: tuple[Summary, ...]
    """One for each of `SCORES`."""
    controls: tuple[float | None, ...]
    """`best_control` of each of `SCORES`."""
    groups: Mapping[Group, Summary]
    """The first score by basis and layer."""

    @property
    def invalid(self) -> bool:
        """Whether it does not beat its controls."""
        return self.verdict == INVALID

    @property
    def unknown(self) -> bool:
        """Whether there are too few units to say."""
        return self.verdict == UNKNOWN


class Shown(NamedTuple):
    """All of it."""

    rows: tuple[Row, ...]
    """Best first; those that are invalid after all others."""
    hidden: int
    """Ways beyond `MOST_ROWS`."""
    units: int
    sizes: Mapping[Group, int]
    """Units of each basis and layer, in order."""
    hidden_bases: int

    @property
    def bases(self) -> list[str]:
        """In order."""
        return list(dict.fromkeys(basis for basis, _ in self.sizes))

    @property
    def layers(self) -> list[int]:
        """Ascending."""
        return sorted({layer for _, layer in self.sizes})

    @property
    def layered(self) -> bool:
        """Whether some basis is there at several layers."""
        return len(self.sizes) > len(self.bases)


def shown(result: Interpretation) -> Shown:
    """What a figure of `result` shows."""
    groups = result.groups()
    bases = list(dict.fromkeys(basis for basis, _ in groups))
    kept = [group for group in groups if group[0] in bases[:MOST_BASES]]
    rows = sorted((_row(result, way, kept) for way in result.outcomes), key=_rank)
    first = next(iter(result.outcomes.values()))
    return Shown(
        tuple(rows[:MOST_ROWS]),
        max(len(rows) - MOST_ROWS, 0),
        len(first),
        {group: sum(result.group_of(one) == group for one in first) for group in kept},
        max(len(bases) - MOST_BASES, 0),
    )


def best_control(result: Interpretation, way: Way, set_: str, metric: str) -> float | None:
    """The highest mean of the way's controls; None if there is none.

    A control that fewer than `FEWEST` units define counts only if no more define the way's own score: the mean of very
    few is too easily a high one.
    """
    least = min(FEWEST, sum(value is not None for value in result.values(way, set_, metric)))
    found = ([one.control(name, set_, metric) for one in result.outcomes[way]] for name in CONTROLS)
    defined = ([value for value in values if value is not None] for values in found)
    return max((sum(values) / len(values) for values in defined if values and len(values) >= least), default=None)


def _rank(row: Row) -> tuple[bool, float, str]:
    mean = row.scores[0].mean
    return row.invalid, float("inf") if mean is None else -mean, row.label


def _row(result: Interpretation, way: Way, groups: list[Group]) -> Row:
    return Row(
        way,
        result.label(way),
        result.validity(way).verdict,
        tuple(result.summary(way, *score) for score in SCORES),
        tuple(best_control(result, way, *score) for score in SCORES),
        {group: _of_group(result, way, group) for group in groups},
    )


def _of_group(result: Interpretation, way: Way, group: Group) -> Summary:
    return result.summary(way, *SCORES[0], lambda one: result.group_of(one) == group)


# --- words --------------------------------------------------------------------------------------------------------


def rounded(mean: float | None) -> str:
    """A number for people, never a minus before 0.00."""
    return ABSENT if mean is None else number(round(mean, 2) + 0.0).replace("-", "−")


def unit_count(n: int) -> str:
    """`1 unit`, `1,920 units`."""
    return f"{n:,} unit{'' if n == 1 else 's'}"


def described(shown: Shown) -> str:
    """The figure for those who do not see it."""
    ways = "; ".join(f"{row.label} {' and '.join(rounded(one.mean) for one in row.scores)}" for row in shown.rows)
    return f"{TITLES[0]}, and {TITLES[1]}, mean of each way: {ways}. The tables hold the same numbers."


def note(shown: Shown) -> str:
    """What has to be known to read the figure."""
    words = ["Means over units, 95 % bootstrap intervals."]
    if any(one.n < shown.units for row in shown.rows for one in row.scores):
        words.append("n: units that define the value, where not all do.")
    words.append("Best control: the highest of neutral, other and shuffled.")
    if any(row.invalid for row in shown.rows):
        words.append("Invalid: not above each of its controls.")
    unknown = [row.label for row in shown.rows if row.unknown]
    if unknown:
        words.append(f"Too few units to test against controls: {', '.join(unknown)}.")
    if shown.layered and len(shown.rows) > MOST_LINES:
        words.append(f"Lines: the first {MOST_LINES} of the rows above.")
    left = [f"{n} more {what}" for n, what in ((shown.hidden, "ways"), (shown.hidden_bases, "bases")) if n]
    if left:
        words.append(f"Only in the tables: {' and '.join(left)}.")
    return " ".join(words)
