"""An interpretation as one figure: which way of explaining predicts best, and of which bases and layers.

a: a row for each way, its mean score with the 95 % interval, and its best control as a hollow mark, so that the gap
between the two is what is seen. b: the same rows for each basis or, with several layers, a line for each way. Graphs,
tables and sentences have a colour each (after Okabe and Ito 2008); what is invalid is grey and hollow. Equal results
give equal bytes.
"""

import textwrap
from collections.abc import Sequence
from functools import partial
from math import ceil, floor, nan
from typing import Any, NamedTuple

from saelens_n2g import figures
from saelens_n2g.autointerp.results import Way
from saelens_n2g.autointerp.shown import MOST_LINES, TITLES, Row, Shown, note, rounded, unit_count
from saelens_n2g.figures import COLOURS, INK, MUTED, RULE, Kind
from saelens_n2g.scoring import Summary

GREY = "#8a929e"
BLUE, AMBER, GREEN, PURPLE, RED, SKY = COLOURS
PREDICTORS = {"graph": (BLUE, "o"), "table": (AMBER, "^"), "backoff": (GREEN, "s")}
"""Colour and shape of what predicts without a sentence, as in the figure of a comparison."""
SENTENCES = ((PURPLE, "D"), (RED, "v"), (SKY, "P"))
"""Of sentences: all have the first, but where lines tell them apart."""
STYLE: dict[str, Any] = {"ytick.labelcolor": INK}
LABEL, SMALL = 7.5, 6.2
"""Sizes of names and of small print, in points."""
DOT, HOLLOW, CONTROL = 5.5, 5.2, 3.6
"""Sizes of marks, in points."""
NUMBER, COUNT = 0.42, 0.43
"""Room right of a panel for its numbers, and for how many units define them, in inches."""
EDGE = 0.12
"""Left and right of everything, in inches."""


class Look(NamedTuple):
    """How a way is shown."""

    colour: str
    marker: str
    hollow: bool


class Sheet(NamedTuple):
    """Measures of a figure, in inches."""

    width: float
    columns: int
    """Panels of part a side by side."""
    names: Sequence[str]
    """Of the rows, on several lines if they are long."""
    left: float
    """Room for the names."""
    row: float
    """Height of a row."""
    lines: Sequence[Sequence[str]]
    """Bases of part b, line by line."""

    @property
    def a(self) -> float:
        """Height of a panel with a row for each way."""
        return len(self.names) * self.row


def render(shown: Shown, kind: Kind, *, narrow: bool = False) -> bytes:
    """The figure as the bytes of a PNG (on white) or an SVG (transparent); `narrow` is for a screen of 400 pixels."""
    sheet = _sheet(shown, narrow=narrow)
    below = textwrap.fill(note(shown), int(sheet.width * 20.5))
    fill = partial(_fill, shown, sheet, below)
    return figures.render(fill, (sheet.width, _height(shown, sheet, below)), kind, STYLE)


def looks(shown: Shown) -> list[Look]:
    """Of each row. Only lines need a look of their own; rows have names."""
    found, sentences = [], 0
    for place, row in enumerate(shown.rows):
        colour, marker = _plain(row.way)
        if shown.layered and row.way.explainer is not None and not row.invalid:
            colour, marker = SENTENCES[sentences] if place < MOST_LINES and sentences < len(SENTENCES) else (INK, "o")
            sentences += 1
        found.append(Look(GREY if row.invalid else colour, marker if shown.layered else "o", row.invalid))
    return found


def _plain(way: Way) -> tuple[str, str]:
    if way.explainer is not None:
        return SENTENCES[0]
    return PREDICTORS.get(way.simulator, (INK, "o"))


# --- measures -----------------------------------------------------------------------------------------------------

HEAD, TITLE, AXIS, GAP = 0.54, 0.26, 0.3, 0.28
"""Above part a with its key; of a panel's title; of its axis; between parts."""
LINE_HEIGHT, KEY = 1.75, 0.19
"""Of a panel with layers, and of a line of its key."""


def _sheet(shown: Shown, *, narrow: bool) -> Sheet:
    width = 4.0 if narrow else 9.6
    names = [_wrapped(row.label, 18 if narrow else 44) for row in shown.rows]
    tallest = max(name.count("\n") for name in names)
    left = EDGE + max(_wide(line, LABEL) for name in names for line in name.split("\n")) + 0.1
    if shown.layered:
        most = 1 if narrow else 3
    else:
        most = min(max(int((width - left - EDGE) / (0.6 + NUMBER + 0.33)), 1), 2 if narrow else 5)
    bases = shown.bases if len(shown.sizes) > 1 else []
    across = ceil(len(bases) / ceil(len(bases) / most)) if bases else 1
    lines = [bases[start : start + across] for start in range(0, len(bases), across)]
    return Sheet(width, 1 if narrow else 2, names, left, 0.24 + 0.11 * tallest, lines)


def _wrapped(label: str, width: int) -> str:
    """On several lines if it is long, the reader of sentences on a line of its own."""
    if len(label) <= width:
        return label
    parts = label.replace(" > ", "\n> ").split("\n")
    return "\n".join(textwrap.fill(part, max(width, 26), break_on_hyphens=False) for part in parts)


def _wide(text: str, size: float) -> float:
    """How many inches a text takes."""
    from matplotlib.textpath import TextPath

    return float(TextPath((0, 0), text, size=size).get_extents().width) / 72 if text.strip() else 0.0


def _height(shown: Shown, sheet: Sheet, below: str) -> float:
    panel = TITLE + AXIS
    height = HEAD + (len(TITLES) // sheet.columns) * (sheet.a + panel)
    if sheet.lines:
        one = LINE_HEIGHT + 0.12 if shown.layered else sheet.a
        height += (
            GAP + (0.2 if shown.layered else 0.08) + len(sheet.lines) * (one + panel) + (_key_lines(shown, sheet) * KEY)
        )
    return height + 0.2 + 0.125 * (below.count("\n") + 1)


def _key_lines(shown: Shown, sheet: Sheet) -> int:
    return ceil(min(len(shown.rows), MOST_LINES) / _key_columns(sheet)) if shown.layered else 0


def _key_columns(sheet: Sheet) -> int:
    return max(int(sheet.width / (max(len(name.replace("\n", " ")) for name in sheet.names) * 0.065 + 0.5)), 1)


def _limits(values: Sequence[Summary], others: Sequence[float | None] = ()) -> tuple[float, float]:
    """From 0 or a little below to the quarter above all that is there, at least to one half."""
    ends = [end for one in values for end in (one.low, one.mean, one.high) if end is not None]
    ends += [one for one in others if one is not None]
    low, high = min([0.0, *ends]), max([0.5, *ends])
    return floor(low * 20 + 0.1) / 20, ceil(high * 4 - 0.04) / 4


# --- parts --------------------------------------------------------------------------------------------------------


def _fill(shown: Shown, sheet: Sheet, below: str, figure: Any) -> None:
    """Parts from the top, the note at the bottom."""
    height = figure.get_size_inches()[1]
    place = partial(_axes, figure, sheet.width, height)
    _heading(figure, 0.2, f"a   How well each way predicts {unit_count(shown.units)}")
    _key(figure, 0.42)
    top = HEAD
    room = NUMBER + COUNT
    column = (sheet.width - sheet.left - EDGE - (sheet.columns - 1) * 0.2) / sheet.columns
    everything = [s for row in shown.rows for s in row.scores]
    limits = _limits(everything, [c for row in shown.rows for c in row.controls])
    for which, title in enumerate(TITLES):
        across = which % sheet.columns
        if which and not across:
            top += TITLE + sheet.a + AXIS
        x = sheet.left + across * (column + 0.2)
        axes = place(x, top + TITLE, column - room, sheet.a)
        _rows(axes, sheet, limits, title, column - room, named=across == 0)
        for y, (row, look) in enumerate(zip(shown.rows, looks(shown), strict=True)):
            _mark(axes, y, row.scores[which], look, limits, column - room, shown.units, row.controls[which])
    top += TITLE + sheet.a + AXIS + GAP
    if sheet.lines:
        layers = f", layer {shown.layers[0]}" if len(shown.layers) == 1 else ""
        what = "layer" if shown.layered else "basis"
        _heading(figure, top, f"b   Correlation by {what}{layers}")
        (_by_layer if shown.layered else _by_basis)(figure, place, shown, sheet, top + (0.2 if shown.layered else 0.08))
    figure.text(EDGE / sheet.width, 0.08 / height, below, size=6.8, color=MUTED, va="bottom", linespacing=1.3)


def _by_basis(figure: Any, place: Any, shown: Shown, sheet: Sheet, top: float) -> None:  # noqa: ARG001  (called as `_by_layer` is)
    """The rows again, a panel for each basis."""
    several = len(shown.layers) > 1
    limits = _limits([found for row in shown.rows for found in row.groups.values()])
    across, gap = len(sheet.lines[0]), 0.14
    layer_of = dict(shown.sizes.keys())
    column = (sheet.width - sheet.left - EDGE - (across - 1) * gap) / across
    smaller = any(one.n < shown.sizes[group] for row in shown.rows for group, one in row.groups.items())
    width = column - (NUMBER + (0.33 if smaller else 0))
    for line, bases in enumerate(sheet.lines):
        y = top + line * (TITLE + sheet.a + AXIS) + TITLE
        for at, basis in enumerate(bases):
            axes = place(sheet.left + at * (column + gap), y, width, sheet.a)
            title = f"{basis}, layer {layer_of[basis]}" if several else basis
            _rows(axes, sheet, limits, title, width, named=at == 0)
            group = basis, layer_of[basis]
            for row, (one, look) in enumerate(zip(shown.rows, looks(shown), strict=True)):
                _mark(axes, row, one.groups[group], look, limits, width, shown.sizes[group])


def _by_layer(figure: Any, place: Any, shown: Shown, sheet: Sheet, top: float) -> None:
    """A line for each of the best ways, a panel for each basis."""
    drawn = list(zip(shown.rows, looks(shown), strict=True))[:MOST_LINES]
    limits = _limits([found for row, _ in drawn for found in row.groups.values()])
    across, gap, left = len(sheet.lines[0]), 0.2, 0.42
    column = min((sheet.width - left - EDGE - (across - 1) * gap) / across, 6.0)
    height = figure.get_size_inches()[1]
    handles = [_handle(look) for _, look in drawn]
    figure.legend(
        handles, [row.label for row, _ in drawn], loc="upper left", frameon=False, fontsize=LABEL, labelcolor=INK,
        bbox_to_anchor=(EDGE / sheet.width, 1 - (top - 0.1) / height), ncols=_key_columns(sheet),
        borderaxespad=0, borderpad=0.2, handlelength=2.0, columnspacing=1.6, labelspacing=0.45,
    )  # fmt: skip
    top += _key_lines(shown, sheet) * KEY
    for line, bases in enumerate(sheet.lines):
        y = top + line * (TITLE + LINE_HEIGHT + AXIS + 0.12) + TITLE
        for at, basis in enumerate(bases):
            axes = place(left + at * (column + gap), y, column, LINE_HEIGHT)
            _upright(axes, shown.layers, limits, basis, column, named=at == 0)
            _lines(axes, shown, drawn, basis)


def _lines(axes: Any, shown: Shown, drawn: Sequence[tuple[Row, Look]], basis: str) -> None:
    """Ways a little beside each other, so that intervals do not meet; a value that is not there breaks its line."""
    layers = [layer for name, layer in shown.sizes if name == basis]
    for place, (row, look) in reversed(list(enumerate(drawn))):
        shift = 0.5 * ((place + 0.5) / len(drawn) - 0.5)
        points = []
        for layer in sorted(layers):
            found = row.groups[basis, layer]
            x = shown.layers.index(layer) + shift
            points.append((x, nan if found.mean is None else found.mean))
            if found.low is not None and found.high is not None:
                axes.plot([x, x], [found.low, found.high], color=look.colour, lw=0.9, alpha=0.55, solid_capstyle="butt")
        axes.plot([x for x, _ in points], [y for _, y in points], **_line(look))


def _line(look: Look) -> dict[str, Any]:
    return {
        "color": look.colour, "marker": look.marker, "ms": 4.2, "lw": 0.8 if look.hollow else 1.2, "clip_on": False,
        "mfc": "none" if look.hollow else look.colour, "mew": 0.9, "ls": (0, (3, 2)) if look.hollow else "-",
    }  # fmt: skip


def _handle(look: Look) -> Any:
    from matplotlib.lines import Line2D

    return Line2D([], [], **_line(look))


# --- panels -------------------------------------------------------------------------------------------------------


def _axes(figure: Any, width: float, height: float, x: float, top: float, wide: float, tall: float) -> Any:
    """Axes whose upper left corner is `x` inches from the left and `top` from the top."""
    return figure.add_axes((x / width, 1 - (top + tall) / height, wide / width, tall / height))


def _heading(figure: Any, top: float, words: str) -> None:
    width, height = figure.get_size_inches()
    figure.text(EDGE / width, 1 - top / height, words, weight="bold", size=9.5, va="center")


def _key(figure: Any, top: float) -> None:
    """What the two marks of a row are."""
    from matplotlib.lines import Line2D

    width, height = figure.get_size_inches()
    dot = Line2D([], [], color=MUTED, marker="o", ms=DOT, lw=1.5, mew=0)
    control = Line2D([], [], color=MUTED, marker="D", ms=CONTROL, mfc="none", mew=0.9, ls="")
    figure.legend(
        [dot, control], ["mean and 95 % interval", "best control"], loc="center left", ncols=2, frameon=False,
        bbox_to_anchor=(EDGE / width, 1 - top / height), fontsize=LABEL, labelcolor=MUTED, handlelength=1.8,
        columnspacing=1.6, borderaxespad=0, borderpad=0.2,
    )  # fmt: skip


def _bare(axes: Any, title: str, across: str) -> None:
    axes.set_title(title, loc="left", size=8.2, color=MUTED, pad=5)
    axes.tick_params(length=0, pad=5)
    for side in ("top", "left", "right"):
        axes.spines[side].set_visible(False)
    axes.grid(axis=across, color=RULE, linewidth=0.6)
    axes.set_axisbelow(True)


def _ticks(limits: tuple[float, float], room: float) -> tuple[list[float], list[str]]:
    """At quarters or halves, as `room` inches allow."""
    step = 0.25 if room / (limits[1] - limits[0]) >= 1.2 else 0.5
    ticks = [step * k for k in range(ceil(limits[0] / step), floor(limits[1] / step) + 1)]
    return ticks, [f"{tick:g}".replace("-", "−") for tick in ticks]


def _rows(axes: Any, sheet: Sheet, limits: tuple[float, float], title: str, wide: float, *, named: bool) -> None:
    """A row for each way, and nothing that carries no data."""
    n = len(sheet.names)
    _bare(axes, title, "x")
    pad = 0.015 * (limits[1] - limits[0])
    axes.set_xlim(limits[0] - pad, limits[1] + pad)
    axes.set_ylim(n - 0.5, -0.5)
    axes.set_xticks(*_ticks(limits, wide))
    axes.set_yticks(range(n), sheet.names if named else [""] * n, size=LABEL)
    for tick, name in zip(axes.get_yticklabels(), sheet.names, strict=True):
        tick.set_linespacing(1.05)
        if name.endswith("(invalid)"):
            tick.set_color(MUTED)
    between = [row - 0.5 for row in range(1, n)]
    places = [0.0, 1.0, nan] * len(between), [y for row in between for y in (row, row, nan)]
    axes.plot(*places, color=RULE, linewidth=0.5, transform=axes.get_yaxis_transform(), scalex=False, scaley=False)
    if limits[0] < 0:
        axes.axvline(0, color=MUTED, linewidth=0.8)


def _upright(
    axes: Any, layers: Sequence[int], limits: tuple[float, float], title: str, wide: float, *, named: bool
) -> None:
    """Layers across, the score upwards."""
    _bare(axes, title, "y")
    every = ceil(len(layers) / max(int(wide / 0.24), 1))
    axes.set_xticks(range(0, len(layers), every), [str(layer) for layer in layers[::every]])
    axes.set_xlim(-0.5, len(layers) - 0.5)
    axes.set_xlabel("Layer", size=LABEL, color=MUTED, labelpad=1)
    axes.set_ylim(*limits)
    ticks, words = _ticks(limits, LINE_HEIGHT)
    axes.set_yticks(ticks, words if named else [""] * len(ticks), color=MUTED)
    if limits[0] < 0:
        axes.axhline(0, color=MUTED, linewidth=0.8)


def _mark(
    axes: Any, y: int, found: Summary, look: Look, limits: tuple[float, float], wide: float, units: int,
    control: float | None = None,
) -> None:  # fmt: skip
    """One way in one panel: its mean with its interval, its control, and the number at the right."""
    inch = (limits[1] - limits[0]) * 1.03 / wide
    margin = {"va": "center", "transform": axes.get_yaxis_transform()}
    if control is not None:
        axes.plot([control], [y], "D", ms=CONTROL, mfc="none", mec=MUTED, mew=0.9, clip_on=False, zorder=4)
    if found.mean is None:
        axes.text(1 + 0.06 / wide, y, "no value", size=SMALL, color=MUTED, **margin)
        return
    gap = HOLLOW / 144 * inch if look.hollow else 0.0
    low, high = (found.mean if end is None else end for end in (found.low, found.high))
    if control is not None:
        _link(axes, y, control, found.mean, CONTROL * 0.75 / 72 * inch, gap)
    for start, end in ((low, found.mean - gap), (found.mean + gap, high)):
        if start < end:
            axes.plot([start, end], [y, y], color=look.colour, lw=1.5, solid_capstyle="butt", clip_on=False)
    face = {"ms": HOLLOW, "mfc": "none", "mew": 1.1} if look.hollow else {"ms": DOT, "mfc": look.colour, "mew": 0}
    axes.plot([found.mean], [y], look.marker, mec=look.colour, clip_on=False, zorder=3, **face)
    colour = MUTED if look.hollow else INK
    number = rounded(found.mean)
    axes.text(1 + NUMBER / wide, y, number, size=LABEL, weight="bold", color=colour, ha="right", **margin)
    if found.n < units:
        axes.text(1 + (NUMBER + 0.05) / wide, y, f"n = {found.n:,}", size=SMALL, color=MUTED, **margin)


def _link(axes: Any, y: int, control: float, mean: float, start: float, end: float) -> None:
    """A thin line from the control's mark to the mean's, not into either."""
    way = 1 if mean > control else -1
    a, b = control + way * start, mean - way * end
    if (b - a) * way > 0:
        axes.plot([a, b], [y, y], color=MUTED, lw=0.7, ls=(0, (1, 1.5)), clip_on=False)
