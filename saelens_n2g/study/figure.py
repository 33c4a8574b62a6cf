"""The study as figures: F1 by layer, by density, by graph size; differences; interpretability; Gao et al.'s protocol.

A basis has one colour and one shape in all of them (after Okabe and Ito 2008); the control is grey. Titles, units and
intervals stand in the figure. Equal results give equal bytes.
"""

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from saelens_n2g import figures
from saelens_n2g.comparison.results import TEXTS
from saelens_n2g.comparison.table import TEXT_TITLES, rate
from saelens_n2g.figures import COLOURS, INK, MARKERS, MUTED, RULE, Kind, save
from saelens_n2g.scoring import Summary, summarise
from saelens_n2g.study.cell import title_of
from saelens_n2g.study.config import SHUFFLED
from saelens_n2g.study.fragments import KINDS
from saelens_n2g.study.means import LEAST
from saelens_n2g.study.records import UnitRecord
from saelens_n2g.study.results import StudyResult
from saelens_n2g.study.table import KIND_TITLES

ALL_COLOURS, ALL_MARKERS = (*COLOURS, INK, "#8a6d3b"), (*MARKERS, "X", "p")
GREY = "#8a929e"
LEAST_IN_BIN = 5
"""Units in a bin from which on its mean is drawn."""
FIRES = "Share of fit tokens on which the unit fires"
SPREAD = "Variance along what the unit reads; 1: average direction"
BARS = "bars: 95 % bootstrap intervals"


def look(result: StudyResult, name: str) -> tuple[str, str]:
    """Colour and shape of a basis; a ninth looks like the first."""
    place = result.names.index(name) % len(ALL_COLOURS)
    return ALL_COLOURS[place], ALL_MARKERS[place]


SAID: dict[str, Callable[[float], str]] = {"density": rate, "spread": "{:g}".format}
"""How ticks are written, where not as integers."""
Fill = Callable[[StudyResult, Any], None]


def drawings(result: StudyResult) -> dict[str, Callable[[Kind], bytes]]:
    """Name of each figure -> what gives its bytes, a PNG on white or a transparent SVG."""
    panels: dict[str, tuple[Fill, tuple[float, float]]] = {
        "f1_by_layer": (_by_layer, (9.6, 4.6)),
        "f1_by_density": (partial(_against, of=_density, label=FIRES, what="density"), (9.6, 4.6)),
        "f1_by_size": (partial(_against, of=_size, label="Nodes of the graph", what="graph size"), (9.6, 4.6)),
        "f1_by_spread": (partial(_against, of=_spread, label=SPREAD, what="spread"), (9.6, 4.6)),
        "differences": (_differences, (9.6, 1.9 + 0.24 * max(len(result.versus) // 2, 1))),
        "interpretability": (_interpretability, (9.6, 4.2)),
    }
    if result.dictionaries:
        panels["nonzero"] = (_nonzero, (9.6, 4.4))
    return {name: partial(_render, result, fill, size) for name, (fill, size) in panels.items()}


def draw(result: StudyResult, folder: Path) -> list[str]:
    """Write every figure as PNG and SVG into `folder` and return their names. Raises `InputError` if that fails."""
    found = drawings(result)
    for name, drawing in found.items():
        save(folder, name, drawing)
    return list(found)


def _render(result: StudyResult, fill: Fill, size: tuple[float, float], kind: Kind) -> bytes:
    return figures.render(partial(fill, result), size, kind, {"ytick.labelcolor": INK})


def _page(figure: Any, title: str, note: str, handles: list[Any], names: list[str], columns: int = 2) -> list[Any]:
    """`columns` axes side by side under a title, a legend and a note below."""
    width, height = figure.get_size_inches()
    figure.text(0.12 / width, 1 - 0.24 / height, title, weight="bold", size=9.5, va="center")
    figure.text(0.12 / width, 0.08 / height, note, size=6.8, color=MUTED, va="bottom")
    if handles:
        figure.legend(
            handles, names, loc="lower left", bbox_to_anchor=(0.1 / width, 0.22 / height), ncols=min(len(names), 8),
            frameon=False, fontsize=7.2, labelcolor=INK, handlelength=1.6, columnspacing=1.3,
        )  # fmt: skip
    left, gap, bottom, top = 0.6 / width, 0.45 / width, 1.1 / height, 1 - 0.75 / height
    column = (1 - left - (columns - 1) * gap - 0.15 / width) / columns
    return [figure.add_axes((left + i * (column + gap), bottom, column, top - bottom)) for i in range(columns)]


def _frame(axes: Any, title: str, across: str, up: str, *, unit: bool = True) -> None:
    """Titles of a panel and its axes, F1 from 0 to 1 upwards with `unit`, and nothing that carries no data."""
    axes.set_title(title, loc="left", size=8.5, color=MUTED, pad=5)
    axes.set_xlabel(across, size=8, color=MUTED)
    axes.set_ylabel(up, size=8, color=MUTED)
    if unit:
        axes.set_ylim(-0.015, 1.015)
        axes.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", "0.25", "0.5", "0.75", "1"])
    axes.tick_params(length=0, pad=4)
    for side in ("top", "left", "right"):
        axes.spines[side].set_visible(False)
    axes.grid(axis="y", color=RULE, linewidth=0.6)
    axes.set_axisbelow(True)


def _logarithmic(axes: Any, values: list[float], say: Callable[[float], str]) -> None:
    """A logarithmic axis across with ticks at 1 and 3 of every decade, `say` in words."""
    axes.set_xscale("log")
    low, high = (min(values), max(values)) if values else (1.0, 10.0)
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [x for k in decades for x in (10.0**k, 3 * 10.0**k) if low / 2 <= x <= high * 2]
    axes.set_xlim(low / 1.5, high * 1.5)
    axes.set_xticks(ticks, [say(x) for x in ticks])
    axes.set_xticks([], minor=True)


def _handles(result: StudyResult, names: tuple[str, ...]) -> list[Any]:
    from matplotlib.lines import Line2D

    return [Line2D([], [], color=c, marker=m, ms=5, lw=1.3) for c, m in (look(result, n) for n in names)]


def _titles(names: tuple[str, ...]) -> list[str]:
    return [title_of(name) for name in names]


def _bar(axes: Any, x: float, found: Summary, colour: str, *, alpha: float = 1.0) -> None:
    if found.low is not None and found.high is not None:
        axes.plot([x, x], [found.low, found.high], color=colour, lw=1.3, alpha=alpha, solid_capstyle="butt")


def _by_layer(result: StudyResult, figure: Any) -> None:
    from matplotlib.lines import Line2D

    handles = [*_handles(result, result.names), Line2D([], [], color=GREY, lw=1, ls=(0, (2, 2)))]
    note = f"Mean F1 of firing tokens over a layer's units; {BARS}. Dotted: the same units, each with another's graph."
    panels = _page(
        figure, "How well graphs predict firing, by layer", note, handles, [*_titles(result.names), "shuffled control"]
    )
    for axes, text in zip(panels, TEXTS, strict=True):
        _frame(axes, TEXT_TITLES[text], "Layer", "Mean F1" if text == TEXTS[0] else "")
        axes.set_xticks(range(len(result.layers)), [str(layer) for layer in result.layers])
        axes.set_xlim(-0.5, len(result.layers) - 0.5)
        for place, name in enumerate(result.names):
            colour, marker = look(result, name)
            shift = 0.5 * ((place + 0.5) / len(result.names) - 0.5)
            for source in ("graph", SHUFFLED):
                points = []
                for i, layer in enumerate(result.layers):
                    found = result.mean(name, source, text, "f1", layer)
                    if found.mean is not None:
                        points.append((i + shift, found.mean))
                        if source == "graph":
                            _bar(axes, i + shift, found, colour)
                style = {"color": colour, "marker": marker, "ms": 4.5, "lw": 1.2}
                grey = {"color": GREY, "lw": 0.8, "ls": (0, (2, 2))}
                axes.plot(*_columns(points), clip_on=False, **(style if source == "graph" else grey))


def _columns(points: list[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [x for x, _ in points], [y for _, y in points]


def _density(unit: UnitRecord) -> float | None:
    return unit.density


def _spread(unit: UnitRecord) -> float | None:
    return unit.spread or None  # none of nothing, which has no logarithm


def _size(unit: UnitRecord) -> float | None:
    return None if unit.nodes is None else float(max(unit.nodes, 1))


def _against(
    result: StudyResult, figure: Any, *, of: Callable[[UnitRecord], float | None], label: str, what: str
) -> None:
    """F1 of every unit against one of its properties, on a logarithmic axis, with means over half decades."""
    note = f"One mark a unit, all layers. Lines: mean F1 over half a decade with at least {LEAST_IN_BIN} units; {BARS}."
    names = tuple(n for n in result.names if any(of(u) is not None for c in result.of(n) for u in c.counted))
    panels = _page(figure, f"F1 of graphs against {what}", note, _handles(result, names), _titles(names))
    every = [x for name in result.names for cell in result.of(name) for u in cell.counted if (x := of(u)) is not None]
    for axes, text in zip(panels, TEXTS, strict=True):
        _frame(axes, TEXT_TITLES[text], label, "F1" if text == TEXTS[0] else "")
        _logarithmic(axes, every, SAID.get(what, "{:.0f}".format))
        for name in names:
            colour, marker = look(result, name)
            found = [(of(u), u.scores["graph"][text]["f1"]) for cell in result.of(name) for u in cell.counted]
            points = [(x, y) for x, y in found if x is not None and y is not None]
            axes.plot(*_columns(points), ls="", marker=marker, ms=3, color=colour, alpha=0.3, mew=0, clip_on=False)
            line = []
            for middle, values in _binned(points):
                mean = summarise(values, seed=result.seed)
                assert mean.mean is not None
                line.append((middle, mean.mean))
                _bar(axes, middle, mean, colour)
            axes.plot(*_columns(line), color=colour, marker=marker, ms=5, lw=1.2)


def _binned(points: list[tuple[float, float]]) -> list[tuple[float, list[float]]]:
    """Half decades about 1, 3.2, 10, ... with enough values: (their geometric middle, values), ascending.

    No edge at 1: there lie all random directions, of which it would make two groups.
    """
    bins: dict[int, list[tuple[float, float]]] = {}
    for x, y in points:
        bins.setdefault(math.floor(2 * math.log10(x) + 0.5), []).append((math.log10(x), y))
    kept = [found for _, found in sorted(bins.items()) if len(found) >= LEAST_IN_BIN]
    return [(float(10 ** (sum(x for x, _ in found) / len(found))), [y for _, y in found]) for found in kept]


def _differences(result: StudyResult, figure: Any) -> None:
    """Matched and unmatched differences of F1, a row per pair of bases."""
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=INK, marker="o", ms=5, lw=1.3),
        Line2D([], [], color=GREY, marker="s", ms=4, mfc="white", lw=1.3),
    ]
    note = (
        f"Mean difference of F1, first basis less second; {BARS}; at the right the number of matched pairs, of which "
        f"{LEAST} at least are shown. Left of 0 the second is ahead."
    )
    names = ["matched for density and exemplars", "all units"]
    panels = _page(figure, "Differences between bases", note, handles, names)
    for k, (axes, text) in enumerate(zip(panels, TEXTS, strict=True)):
        rows = [v for v in result.versus if v.text == text]
        _frame(axes, TEXT_TITLES[text], "Difference of mean F1", "", unit=False)
        axes.set_ylim(max(len(rows), 1) - 0.5, -0.5)
        labels = [f"{title_of(v.a)} − {title_of(v.b)}" for v in rows]
        axes.set_yticks(range(len(rows)), labels if k == 0 else [""] * len(rows))
        axes.set_xlim(-1.02, 1.02)
        axes.set_xticks([-1, -0.5, 0, 0.5, 1], ["−1", "−0.5", "0", "0.5", ""])
        axes.axvline(0, color=MUTED, lw=0.8)
        for row, one in enumerate(rows):
            for found, up, colour, style in (
                (one.matched, -0.14, INK, {"marker": "o", "ms": 4.5}),
                (one.unmatched, 0.14, GREY, {"marker": "s", "ms": 4, "mfc": "white"}),
            ):
                if found.mean is None or found.low is None or found.high is None or found.n < LEAST:
                    continue
                axes.plot([found.low, found.high], [row + up] * 2, color=colour, lw=1.3, solid_capstyle="butt")
                axes.plot([found.mean], [row + up], color=colour, ls="", **style)
            ground = {"boxstyle": "square,pad=0.25", "fc": "white", "lw": 0}  # the line across ends before the number
            axes.text(1.0, row, str(one.pairs), size=6.8, color=MUTED, ha="right", va="center", bbox=ground)
    _move_for_labels(figure, panels)


def _move_for_labels(figure: Any, panels: list[Any]) -> None:
    """Room for long labels on the left of the first of two panels."""
    width, _ = figure.get_size_inches()
    left, gap = 2.5 / width, 0.2 / width
    column = (1 - left - gap - 0.15 / width) / 2
    for i, axes in enumerate(panels):
        box = axes.get_position()
        axes.set_position((left + i * (column + gap), box.y0, column, box.height))


def _interpretability(result: StudyResult, figure: Any) -> None:
    """Mean correlation of the graphs on each kind of fragments."""
    note = (
        f"Correlation of predicted and true activation over all tokens of the fragments, mean over units; {BARS}. "
        "Grey: another unit's graph."
    )
    (axes,) = _page(
        figure, "Interpretability score of graphs (explanation, simulation, correlation)", note,
        _handles(result, result.names), _titles(result.names), columns=1,
    )  # fmt: skip
    _frame(axes, f"Fragments of {result.protocol['fragment']} tokens", "Fragments", "Mean correlation", unit=False)
    axes.set_xticks(range(len(KINDS)), [KIND_TITLES[kind] for kind in KINDS])
    axes.set_xlim(-0.5, len(KINDS) - 0.5)
    axes.axhline(0, color=MUTED, lw=0.8)
    for place, name in enumerate(result.names):
        colour, marker = look(result, name)
        shift = 0.7 * ((place + 0.5) / len(result.names) - 0.5)
        for i, kind in enumerate(KINDS):
            for source, shade in (("graph", colour), (SHUFFLED, GREY)):
                found = result.fragments(name, source, kind)
                if found.mean is not None:
                    _bar(axes, i + shift, found, shade, alpha=1 if source == "graph" else 0.6)
                    axes.plot([i + shift], [found.mean], color=shade, marker=marker, ms=5, ls="")


def _nonzero(result: StudyResult, figure: Any) -> None:
    """Recall and precision of graphs from random non-zero activations, by layer."""
    names = tuple(result.dictionaries)
    note = f"Mean over the units of a layer; {BARS}. Dotted: precision of a graph that matches at random."
    panels = _page(
        figure, "Graphs from random non-zero activations (Gao et al. 2024)", note, _handles(result, names), list(names)
    )
    for axes, metric in zip(panels, ("recall", "precision"), strict=True):
        _frame(axes, f"Mean {metric} of any match", "Layer", "")
        axes.set_xticks(range(len(result.layers)), [str(layer) for layer in result.layers])
        axes.set_xlim(-0.5, len(result.layers) - 0.5)
        for place, name in enumerate(names):
            colour, marker = look(result, name)
            shift = 0.3 * ((place + 0.5) / len(names) - 0.5)
            for kind in (metric, "active") if metric == "precision" else (metric,):
                points = []
                for i, layer in enumerate(result.layers):
                    found = result.nonzero(name, kind, layer)
                    if found.mean is not None:
                        points.append((i + shift, found.mean))
                        if kind == metric:
                            _bar(axes, i + shift, found, colour)
                style: dict[str, Any] = {"marker": marker, "ms": 4.5, "lw": 1.2}
                axes.plot(*_columns(points), color=colour, **(style if kind == metric else {"lw": 0.8, "ls": ":"}))
