"""A run over layers as a figure: mean F1 of firing tokens by layer, methods and tables of counts side by side.

Left: held-out top windows; right: random test text. Methods are filled and bold, tables of counts hollow and thin, each
with a colour (after Okabe and Ito 2008) and a shape of its own. Equal results give equal bytes.
"""

import textwrap
from functools import partial
from pathlib import Path
from typing import Any

from saelens_n2g import figures
from saelens_n2g.comparison.figure import LOOKS, STYLE, Look
from saelens_n2g.comparison.layer_results import LayersResult
from saelens_n2g.comparison.layer_table import headline, title_of
from saelens_n2g.comparison.results import TEXTS
from saelens_n2g.comparison.table import TEXT_TITLES
from saelens_n2g.figures import INK, MUTED, RULE, Kind, save

METHODS = (("#0072b2", "o"), ("#d55e00", "v"), ("#56b4e9", "P"), ("#1c2430", "X"))
"""Colour and shape of the methods in order; a fifth looks like the first."""
SPREAD = 0.5
"""Share of the distance between two layers over which the systems are spread."""


def draw(result: LayersResult, folder: Path) -> list[Path]:
    """Write `layers.png` (200 dots an inch) and `layers.svg` into `folder`, each whole or not at all.

    Raises `InputError` if the folder cannot be written.
    """
    return save(folder, "layers", partial(render, result))


def render(result: LayersResult, kind: Kind) -> bytes:
    """The figure as the bytes of a PNG (on white) or an SVG (transparent)."""
    size = (max(7.2, 2.4 + 1.1 * len(result.layers)), 4.1)
    return figures.render(partial(_fill, result), size, kind, STYLE)


def _fill(result: LayersResult, figure: Any) -> None:
    """Two panels, the headline, one legend for both, and the note."""
    width, height = figure.get_size_inches()
    left, gap, bottom, top = 0.55 / width, 0.3 / width, 1.28 / height, 1 - 0.78 / height
    column = (1 - left - gap - 0.15 / width) / 2
    handles: list[Any] = []
    for position, text in enumerate(TEXTS):
        axes = figure.add_axes((left + position * (column + gap), bottom, column, top - bottom))
        axes.set_title(TEXT_TITLES[text], loc="left", size=8.5, color=MUTED, pad=5)
        _frame(axes, result, labels=position == 0)
        handles = _lines(axes, result, text)
    figure.text(0.12 / width, 1 - 0.26 / height, headline(result), weight="bold", size=9.5, va="center")
    names = [title_of(name) for name in result.names]
    figure.legend(
        handles, names, loc="lower left", bbox_to_anchor=(0.1 / width, 0.36 / height), ncols=min(len(names), 3),
        frameon=False, fontsize=7.5, labelcolor=INK, handlelength=2.2, columnspacing=1.6,
    )  # fmt: skip
    figure.text(0.12 / width, 0.07 / height, _note(result, width), size=6.8, color=MUTED, va="bottom")


def look_of(result: LayersResult, name: str) -> Look:
    """How a system is shown."""
    if name in result.methods:
        colour, marker = METHODS[result.methods.index(name) % len(METHODS)]
        return Look(name, colour, marker)
    return LOOKS[name]


def _note(result: LayersResult, width: float) -> str:
    units = sorted({len(layer.units) for layer in result.layers})
    many = str(units[0]) if len(units) == 1 else f"{units[0]} to {units[-1]}"
    words = (
        f"Mean F1 of firing tokens over {many} units a layer, the same for all; bars: 95 % bootstrap intervals. A unit "
        "without a graph counts 0. Filled: graphs. Hollow: tables of counts."
    )
    return textwrap.fill(words, int(width * 21))


def _frame(axes: Any, result: LayersResult, *, labels: bool) -> None:
    """F1 from 0 to 1 upwards, layers across, and nothing that carries no data."""
    n = len(result.layers)
    axes.set_xlim(-0.5, n - 0.5)
    axes.set_ylim(-0.015, 1.015)
    axes.set_xticks(range(n), [str(layer.layer) for layer in result.layers])
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", "0.25", "0.5", "0.75", "1"] if labels else [""] * 5)
    axes.set_xlabel("Layer", size=8, color=MUTED)
    if labels:
        axes.set_ylabel("Mean F1", size=8, color=MUTED)
    axes.tick_params(length=0, pad=5)
    for side in ("top", "left", "right"):
        axes.spines[side].set_visible(False)
    axes.grid(axis="y", color=RULE, linewidth=0.6)
    axes.set_axisbelow(True)


def _lines(axes: Any, result: LayersResult, text: str) -> list[Any]:
    """One line a system, a little beside each other so that intervals do not meet; the handles for the legend."""
    handles = []
    for place, name in enumerate(result.names):
        look, graph = look_of(result, name), name in result.methods
        shift = SPREAD * ((place + 0.5) / len(result.names) - 0.5)
        points = []
        for x, layer in enumerate(result.layers):
            f1 = result.means[str(layer.layer)][name][text]["f1"]
            if f1.mean is None:
                continue
            points.append((x + shift, f1.mean))
            if f1.low is not None and f1.high is not None:
                line = {"color": look.colour, "linewidth": 1.6 if graph else 0.9, "alpha": 1 if graph else 0.6}
                axes.plot([x + shift] * 2, [f1.low, f1.high], solid_capstyle="butt", **line)
        (handle,) = axes.plot(
            [x for x, _ in points], [y for _, y in points], marker=look.marker, color=look.colour,
            linewidth=1.4 if graph else 0.7, linestyle="-" if graph else (0, (4, 2)), ms=5.5 if graph else 4.5,
            mfc=look.colour if graph else "white", mec=look.colour, mew=1, clip_on=False,
        )  # fmt: skip
        handles.append(handle)
    return handles
