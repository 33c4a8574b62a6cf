"""Strips: a text with some of its tokens shaded, and tables of how much fires at each token.

Spaces are themselves in running text; what has no shape is made visible.
"""

from collections.abc import Collection, Mapping, Sequence
from math import sqrt
from typing import NamedTuple

from markupsafe import Markup, escape

from saelens_n2g.graphs.labels import visible
from saelens_n2g.server.pages.render import shade
from saelens_n2g.store.match import FIRES
from saelens_n2g.store.matches import Covered, Firing, Match

WHOLE = 90
"""Tokens of a text that is shown in whole."""
PLACES, AROUND = 6, 12
"""Of a longer one, how many of the most strongly shaded tokens are shown, and how many beside each."""
EXPLAINED = 8
"""Paths of a unit that are written out."""
WIDE = 240
"""Tokens that a table has columns for."""


class Cell(NamedTuple):
    """A token that a graph says something about."""

    activation: float
    said: str = ""
    """What is read when it is pointed at."""
    path: tuple[int, ...] = ()
    """Tokens that the path which counts looks at."""


class Reason(NamedTuple):
    """A path by which a unit fires."""

    elements: tuple[str, ...]
    times: int
    """Tokens at which it does so by this path."""
    activation: float
    """At the strongest of them."""
    text: Markup
    """Around that one, the tokens that the path looks at marked."""


class Bar(NamedTuple):
    """A row of a table over tokens."""

    name: str
    address: str
    cells: tuple[tuple[str, str], ...]
    """Class and what is read when it is pointed at, of each token."""
    total: str


def reading(token: str) -> str:
    """A token in running text, on one line."""
    return " ".join(visible(word) if word else "" for word in token.split(" "))


def strip(tokens: Sequence[str], cells: Mapping[int, Cell], *, whole: bool = False) -> Markup:
    """The text, tokens shaded by their activations; of a long one what is around the strongest, unless the `whole` is
    wanted.

    Only tokens that are shaded, or looked at by a path, are elements: `data-at` is their place, `data-path` the places
    of a path.
    """
    looked = {place for cell in cells.values() for place in cell.path}
    shown = list(range(len(tokens))) if whole else _shown(cells, len(tokens))
    parts, last = [], -1
    for i in shown:
        if i != last + 1:
            parts.append(Markup('<span class="gap">…</span>'))
        parts.append(_token(tokens[i], i, cells.get(i), i in looked))
        last = i
    if shown and last + 1 < len(tokens):
        parts.append(Markup('<span class="gap">…</span>'))
    return Markup("").join(parts)


def _token(token: str, place: int, cell: Cell | None, looked: bool) -> Markup:
    words = escape(reading(token))
    if cell is None:
        return Markup('<span data-at="{}">{}</span>').format(place, words) if looked else words
    kinds = " ".join(filter(None, (shade(cell.activation), "fires" if cell.activation >= FIRES else "")))
    path = ",".join(map(str, cell.path))
    return Markup('<span class="{}" data-at="{}" data-path="{}" title="{}">{}</span>').format(
        kinds, place, path, cell.said, words
    )


def beyond(cells: Mapping[int, Cell], n: int) -> int:
    """Tokens at which the unit fires and which `strip` leaves out of a text of `n` tokens."""
    shown = set(_shown(cells, n))
    return sum(place not in shown and cell.activation >= FIRES for place, cell in cells.items())


def _shown(cells: Mapping[int, Cell], n: int) -> list[int]:
    """Tokens of a text that are shown."""
    if n <= WHOLE:
        return list(range(n))
    strongest = sorted(cells, key=lambda place: (-cells[place].activation, place))[:PLACES]
    near = {i for place in strongest for i in range(max(place - AROUND, 0), min(place + AROUND + 1, n))}
    return sorted(near) or list(range(WHOLE))


def cells_of(matches: Sequence[Match]) -> dict[int, Cell]:
    """What a unit's matches say of the tokens."""
    found = {}
    for one in matches:
        path = tuple(i for element in one.path or () for i in range(element.start, element.stop))
        by = f" by {' → '.join(visible(element.text) for element in one.path)}" if one.path else ""
        found[one.position] = Cell(one.activation, f"{one.activation:.2f}{by}", path)
    return found


def reasons(firing: Firing, tokens: Sequence[str]) -> list[Reason]:
    """The paths by which a unit fires, strongest first, at most `EXPLAINED`."""
    found: dict[tuple[str, ...], list[Match]] = {}
    for one in firing.matches:
        if one.path and one.activation >= FIRES:
            found.setdefault(tuple(element.text for element in one.path), []).append(one)
    first = sorted(found.values(), key=lambda matches: -max(one.activation for one in matches))[:EXPLAINED]
    return [_reason(matches, tokens) for matches in first]


def _reason(matches: Sequence[Match], tokens: Sequence[str]) -> Reason:
    best = max(matches, key=lambda one: one.activation)
    path = best.path or ()
    looked = {i for element in path for i in range(element.start, element.stop)}
    start, stop = max(min([*looked, best.position]) - 2, 0), min(best.position + 2, len(tokens))
    parts = [
        Markup("<mark>{}</mark>").format(reading(tokens[i])) if i in looked else escape(reading(tokens[i]))
        for i in range(start, stop)
    ]
    text = Markup("…" if start else "") + Markup("").join(parts) + ("…" if stop < len(tokens) else "")
    return Reason(tuple(visible(element.text) for element in path), len(matches), best.activation, text)


def bar(name: str, address: str, counts: Sequence[int], most: int, tokens: Sequence[str], total: str) -> Bar:
    """A row of numbers of units, shaded up to `most`."""
    cells = tuple(
        (amount(n, most), f"{name}: {n} at {visible(token)}" if n else "")
        for n, token in zip(counts, tokens, strict=True)
    )
    return Bar(name, address, cells, total)


def amount(n: int, most: int) -> str:
    """Class of a number of units: by its root, so that one unit can be seen beside many."""
    return shade(sqrt(n / most)) if n else ""


def values(name: str, address: str, activations: Sequence[float], tokens: Sequence[str]) -> Bar:
    """A row of activations, as shares of the maximum."""
    cells = tuple(
        (shade(a) + (" fires" if a >= FIRES else ""), f"{a:.2f} at {visible(token)}" if a else "")
        for a, token in zip(activations, tokens, strict=True)
    )
    return Bar(name, address, cells, str(sum(a >= FIRES for a in activations)))


def at_each(covered: Collection[Covered], n: int) -> list[int]:
    """How many units fire at each of `n` tokens, over layers and bases."""
    return [sum(column) for column in zip(*(one.at for one in covered), strict=True)] or [0] * n
