"""The comparison as one figure: how well graphs and tables predict each basis, and how the units spread.

Upper row: mean F1 of firing tokens with its 95 % interval, the graph beside the three tables of counts. Lower row:
one dot a unit. Left column: held-out top windows; right column: random test text. Colours after Okabe and Ito
(2008), told apart by shape as well. Equal results give equal bytes.
"""

import textwrap
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from saelens_n2g import figures
from saelens_n2g.comparison.results import EXPLAINERS, TEXTS, BasisResult, ComparisonResult
from saelens_n2g.comparison.table import TEXT_TITLES, median, number, percent, share_of, summary_of
from saelens_n2g.figures import INK, MUTED, RULE, Kind, save

GRAPH = "#0072b2"


class Look(NamedTuple):
    """How an explainer is shown."""

    label: str
    colour: str
    marker: str


LOOKS = {
    "graph": Look("graph", GRAPH, "o"),
    "token_table": Look("token table", "#d08a00", "^"),
    "backoff_table": Look("back-off table", "#009e73", "s"),
    "backoff_table_corpus": Look("back-off, whole fit text", "#b3669a", "D"),
}
STYLE: dict[str, Any] = {"ytick.labelcolor": INK}
"""What figures of comparisons have beside `figures.STYLE`."""


def draw(result: ComparisonResult, folder: Path) -> list[Path]:
    """Write `comparison.png` (200 dots an inch) and `comparison.svg` into `folder`, each whole or not at all.

    Raises `InputError` if the folder cannot be written.
    """
    return save(folder, "comparison", partial(render, result))


def render(result: ComparisonResult, kind: Kind, *, narrow: bool = False) -> bytes:
    """The figure as the bytes of a PNG (on white) or an SVG (transparent).

    `narrow` stacks the four panels for a screen of 400 pixels.
    """
    n = max(len(result.bases), 1)
    heights = [0.62 * n + 0.1, 0.5 * n + 0.1]

    def fill(figure: Any) -> None:
        for axes, text, means in _panels(figure, heights, narrow=narrow):
            _frame(axes, result.bases, labels=narrow or text == TEXTS[0])
            if means:
                _means(axes, result.bases, text, named=narrow or text == TEXTS[0])
            else:
                _units(axes, result.bases, text)

    size = (4.6, 2 * sum(heights) + 3.4) if narrow else (9.6, sum(heights) + 1.9)
    return figures.render(fill, size, kind, STYLE)


def _panels(figure: Any, heights: Sequence[float], *, narrow: bool) -> list[tuple[Any, str, bool]]:
    """Place the four axes with their titles, in inches from the top; (axes, text, is it the panel of means)."""
    width, height = figure.get_size_inches()
    left, right, gap = 1.45, 0.62, 0.85
    column = width - left - right if narrow else (width - left - right - gap) / 2
    found, top = [], 0.62
    for row, means in enumerate((True, False)):
        title = "a   Mean F1 of firing tokens, 95 % interval" if means else "b   F1 of each unit's graph; bar: median"
        figure.text(0.12 / width, 1 - (top - 0.42) / height, title, weight="bold", size=9.5, va="center")
        for position, text in enumerate(TEXTS):
            x = left if narrow else left + position * (column + gap)
            if narrow and position:
                top += heights[row] + 0.75
            box = (x / width, 1 - (top + heights[row]) / height, column / width, heights[row] / height)
            axes = figure.add_axes(box)
            axes.set_title(TEXT_TITLES[text], loc="left", size=8.5, color=MUTED, pad=5)
            found.append((axes, text, means))
        top += heights[row] + 1.05
    return found


def _frame(axes: Any, bases: Sequence[BasisResult], *, labels: bool) -> None:
    """Rows for the bases from the top, F1 from 0 to 1 across, and nothing that carries no data."""
    axes.set_xlim(-0.015, 1.015)
    axes.set_ylim(max(len(bases), 1) - 0.5, -0.5)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "0.25", "0.5", "0.75", "1"])
    axes.set_yticks(range(len(bases)), [_row_label(b) for b in bases] if labels else [""] * len(bases))
    axes.tick_params(length=0, pad=6)
    for side in ("top", "left", "right"):
        axes.spines[side].set_visible(False)
    axes.grid(axis="x", color=RULE, linewidth=0.6)
    axes.set_axisbelow(True)
    for row in range(1, len(bases)):
        axes.axhline(row - 0.5, color=RULE, linewidth=0.6)


def _row_label(basis: BasisResult) -> str:
    words = textwrap.shorten(" ".join(basis.title.split()), 48, placeholder="…")
    return f"{textwrap.fill(words, 19)}\n{len(basis.units)} unit{'' if len(basis.units) == 1 else 's'}"


def _means(axes: Any, bases: Sequence[BasisResult], text: str, *, named: bool) -> None:
    """One line an explainer within each basis' row; the first basis that has values carries the names."""
    unnamed = named
    for row, basis in enumerate(bases):
        shown = [summary_of(basis, explainer, text, "f1") for explainer in EXPLAINERS]
        if shown[0].mean is None:
            axes.text(0.515, row, "none explained", ha="left", va="center", color=MUTED, size=7.5)
            continue
        for place, (explainer, summary) in enumerate(zip(EXPLAINERS, shown, strict=True)):
            if summary.mean is None:
                continue
            look, y, first = LOOKS[explainer], row - 0.3 + 0.2 * place, explainer == "graph"
            low = summary.mean if summary.low is None else summary.low
            high = summary.mean if summary.high is None else summary.high
            line = {"color": look.colour, "alpha": 1 if first else 0.55, "solid_capstyle": "butt"}
            axes.plot([low, high], [y, y], linewidth=2.2 if first else 1.1, **line)
            face = look.colour if first else "none"
            axes.plot(
                [summary.mean], [y], look.marker, ms=6 if first else 4, mfc=face, mec=look.colour, mew=1, clip_on=False
            )
            words = [look.label] * unnamed + [number(summary.mean)] * first
            if words:
                right = high < 0.6
                at, side = (high + 0.025, "left") if right else (low - 0.025, "right")
                weight = "bold" if first else "normal"
                axes.text(at, y, " ".join(words), ha=side, va="center", color=look.colour, size=7, weight=weight)
        unnamed = False


def _units(axes: Any, bases: Sequence[BasisResult], text: str) -> None:
    """A dot a unit, dots of like F1 stacked about the row's middle; median and share with F1 >= 0.5 in words."""
    axes.axvline(0.5, color=MUTED, linewidth=0.8, linestyle=(0, (3, 3)))
    margin = {"transform": axes.get_yaxis_transform(), "ha": "left"}
    axes.text(1.03, -0.5, "F1 ≥ 0.5", va="bottom", size=7, color=MUTED, **margin)
    for row, basis in enumerate(bases):
        values = [unit.scores.get("graph", {}).get(text, {}).get("f1") for unit in basis.units]
        known = [value for value in values if value is not None]
        axes.text(1.03, row, percent(share_of(basis, "graph", text).mean), va="center", size=7.5, color=INK, **margin)
        middle = median(known)
        if middle is None:
            axes.text(0.515, row, "none explained", ha="left", va="center", color=MUTED, size=7.5)
            continue
        points = stack(known)
        size = 13 if len(known) <= 60 else 6
        across, down = [x for x, _ in points], [row + y for _, y in points]
        axes.scatter(across, down, s=size, c=GRAPH, alpha=0.6, lw=0, clip_on=False)
        axes.plot([middle, middle], [row - 0.42, row + 0.42], color=INK, linewidth=1.4, solid_capstyle="butt")


def stack(values: Sequence[float], bins: int = 40, reach: float = 0.36) -> list[tuple[float, float]]:
    """Places (value, offset) for dots of like value to stand above each other, offsets within +-`reach`.

    No chance is involved: values are taken in order, and a bin's dots are laid from the middle outwards, one above,
    one below.
    """
    groups: dict[int, list[float]] = {}
    for value in sorted(values):
        groups.setdefault(min(int(value * bins), bins - 1), []).append(value)
    tallest = max((len(group) for group in groups.values()), default=1)
    step = min(0.13, 2 * reach / max(tallest, 1))
    points = []
    for _, group in sorted(groups.items()):
        # An even number of dots has none in the middle.
        shift = 0.0 if len(group) % 2 else -0.5
        for place, value in enumerate(group):
            side = (place + 1) // 2 * (1 if place % 2 else -1)
            points.append((value, step * (side + shift)))
    return points
