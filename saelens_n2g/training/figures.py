"""Figures of training: what a run's metrics say, how often features fire, what sparsity costs.

    lines = read_metrics(run / "metrics.jsonl")
    save(run, "training", partial(training_curves, lines))            # training.png and training.svg
    save(run, "density", partial(density_figure, {"alpha 3e-3": feature_density(log10_rates)}))
    save(run, "frontier", partial(frontier, [FrontierPanel("", points, pca_curve(rows, ks))]))

Every figure is a function from values to a file's bytes, and equal values give equal bytes. Colours after Okabe and
Ito (2008), told apart by marker as well.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from saelens_n2g.errors import ArtefactError, InputError
from saelens_n2g.figures import COLOURS, INK, MARKERS, MUTED, RULE, Kind, render
from saelens_n2g.training.logging import SAMPLES
from saelens_n2g.training.metrics import FeatureDensity

Line = Mapping[str, Any]
"""One line of `metrics.jsonl`."""

STYLE: dict[str, Any] = {
    "axes.labelcolor": MUTED,
    "axes.labelsize": 8.0,
    "ytick.color": MUTED,
    "ytick.labelsize": 7.5,
    "lines.linewidth": 1.3,
}
"""What these figures have beside `figures.STYLE`."""
LOSSES = {
    "losses/overall_loss": "overall",
    "losses/mse_loss": "squared error",
    "losses/l1_loss": "L1",
    "losses/auxiliary_reconstruction_loss": "auxiliary",
}
"""Parts of the loss in the order they are drawn in, with their labels; further `losses/` go by their own name."""


class FrontierPoint(NamedTuple):
    """One dictionary in the plane of sparsity and error."""

    series: str
    """Points of one series are joined by a line, e.g. one architecture over a grid of alphas."""
    l0: float
    """Mean number of active features, above 0."""
    fvu: float
    """Fraction of variance unexplained."""
    note: str = ""
    """A few characters beside the point, e.g. the alpha."""


class FrontierPanel(NamedTuple):
    """One panel of `frontier`."""

    name: str
    """Of which rows; shown where there are several panels."""
    points: Sequence[FrontierPoint]
    pca: Sequence[tuple[int, float]]
    """`references.pca_curve`; k stands where L0 does, k = 0 is left out (the axis is logarithmic)."""


def read_metrics(path: Path) -> list[Line]:
    """Lines of a `metrics.jsonl`. Raises `ArtefactError` if it is missing or a line is no metrics; a last line cut
    short, of a run that still writes, is left out."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ArtefactError(f"file {path}", "metrics of a training run", "nothing there") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ArtefactError(f"file {path}", "metrics of a training run", str(error)) from error
    lines: list[Line] = []
    for number, line in enumerate(text.split("\n")[:-1], 1):
        try:
            value = json.loads(line)
        except ValueError as error:
            raise ArtefactError(f"line {number} of {path}", "a JSON object", str(error)) from error
        if not isinstance(value, dict) or not isinstance(value.get(SAMPLES), int | float):
            raise ArtefactError(f"line {number} of {path}", f"a JSON object with {SAMPLES}", line[:60])
        lines.append(value)
    return lines


def training_curves(lines: Sequence[Line], kind: Kind, *, title: str = "") -> bytes:
    """Parts of the loss, explained variance, L0 and dead features against samples seen: four panels.

    lines: of a `metrics.jsonl`; a panel none of whose metrics are in them says so. Explained variance is cut off
    below 0, where a run may be for its first steps. Raises `InputError` for no lines at all.
    """
    if not lines:
        raise InputError("training curves", "at least one line of metrics", "none")
    losses = [name for name in LOSSES if any(name in line for line in lines)]
    losses += sorted({name for line in lines for name in line if name.startswith("losses/")} - set(losses))
    panels = (
        ("Loss per activation", {name: LOSSES.get(name, name.removeprefix("losses/")) for name in losses}, "log"),
        ("Explained variance", {"metrics/explained_variance": ""}, "share"),
        ("L0: active features per activation", {"metrics/l0": ""}, "log"),
        ("Dead features", {"sparsity/dead_features": ""}, "count"),
    )

    def draw(figure: Any) -> None:
        grid = figure.subplots(2, 2, sharex=True)
        for axes, (name, series, scale) in zip(grid.flat, panels, strict=True):
            _frame(axes, name)
            _curves(axes, lines, series, scale)
        last = max(line[SAMPLES] for line in lines)
        for axes in grid[1]:
            axes.set_xlim(0, last * 1.02)
            axes.xaxis.set_major_formatter(lambda value, _: short(value))
            axes.set_xlabel("activations seen")
        _heading(figure, title)
        figure.subplots_adjust(left=0.075, right=0.985, bottom=0.11, top=0.90 if title else 0.94, hspace=0.28)

    return _render(draw, (8.4, 4.9), kind)


def _curves(axes: Any, lines: Sequence[Line], series: Mapping[str, str], scale: str) -> None:
    """One panel: each metric of `series` that was recorded, on its scale."""
    drawn = 0
    for place, (metric, label) in enumerate(series.items()):
        points = [(line[SAMPLES], line[metric]) for line in lines if line.get(metric) is not None]
        if scale == "log":
            points = [(x, y) for x, y in points if y > 0]
        if points:
            drawn += 1
            marker = "o" if len(points) == 1 else ""
            axes.plot(
                *zip(*points, strict=True),
                marker=marker,
                ms=3,
                clip_on=scale == "share",
                color=COLOURS[place % 6],
                label=label,
                zorder=3,
            )
    if not drawn:
        axes.text(0.5, 0.5, "not recorded", transform=axes.transAxes, ha="center", va="center", color=MUTED)
        axes.set_yticks([])
        return
    if scale == "log":
        axes.set_yscale("log")
        _plain_log(axes.yaxis)
    elif scale == "share":
        axes.set_ylim(0, 1.02)
    else:
        axes.set_ylim(bottom=0)
        axes.set_ylim(top=max(axes.get_ylim()[1], 1))
        axes.yaxis.get_major_locator().set_params(integer=True)
    if drawn > 1:
        axes.legend(frameon=False, fontsize=7.5, labelcolor=INK, loc="best", handlelength=1.4)


def density_figure(densities: Mapping[str, FeatureDensity], kind: Kind, *, title: str = "") -> bytes:
    """Histograms of log10 firing rates, one panel a dictionary below the other, on one axis.

    densities: label -> `feature_density`. Features that never fired stand apart on the left. Raises `InputError` for
    none.
    """
    if not densities:
        raise InputError("density figure", "at least one dictionary", "none")
    filled = [edge for d in densities.values() for edge, n in zip(d.edges[:-1], d.counts, strict=True) if n]
    low = math.floor(min(filled, default=-5.0))

    def draw(figure: Any) -> None:
        panels = figure.subplots(len(densities), 1, sharex=True, squeeze=False)[:, 0]
        for place, (axes, (label, density)) in enumerate(zip(panels, densities.items(), strict=True)):
            total = int(density.counts.sum()) + density.never
            _frame(axes, f"{label}   {total:,} features, {density.never:,} never fire".strip())
            axes.set_xlim(1.2 * low, 0.05)
            _density_bars(axes, density, 1.1 * low, COLOURS[place % 6])
        ticks = {float(tick): _power(tick) for tick in range(low, 1)}
        if low >= -2:
            ticks |= {math.log10(share): f"{share:g}" for share in (0.02, 0.05, 0.2, 0.5) if math.log10(share) > low}
        panels[-1].set_xticks([1.1 * low, *ticks], ["never", *ticks.values()])
        panels[-1].set_xlabel("share of activations on which a feature fires")
        _heading(figure, title)
        height = figure.get_figheight()
        figure.subplots_adjust(left=0.1, right=0.98, bottom=0.5 / height, top=1 - (0.6 if title else 0.3) / height)
        figure.subplots_adjust(hspace=0.32)

    return _render(draw, (6.4, 0.9 + 1.45 * len(densities)), kind)


def _density_bars(axes: Any, density: FeatureDensity, never_at: float, colour: str) -> None:
    """One histogram. Where far more features never fire than share any bin, their bar is cut and says how many."""
    axes.stairs(density.counts, density.edges, fill=True, color=colour, lw=0, zorder=3)
    highest = max(1, *density.counts.tolist())
    cut = density.never > 2 * highest
    top = 1.08 * max(highest, 0 if cut else density.never)
    axes.set_ylim(0, top)
    axes.set_ylabel("features")
    axes.yaxis.get_major_locator().set_params(integer=True)
    if density.never:
        width = abs(never_at) / 16
        axes.bar(
            never_at, min(density.never, top), width, color="white", edgecolor=colour, hatch="/////", lw=0.8, zorder=3
        )
    if cut:
        place = {"ha": "left", "va": "top", "size": 7, "color": INK}
        axes.text(never_at + 0.6 * width, top, f"↑ {density.never:,}", **place)


def frontier(panels: Sequence[FrontierPanel], kind: Kind, *, title: str = "") -> bytes:
    """FVU against L0, a line for each series of dictionaries, and as reference what as many principal components leave.

    One panel below the other, all with the same series. Points of a series with one note, such as several seeds, are
    joined through their mean. Down and left is better. Raises `InputError` if there is no point, or one with an L0 that
    is not above 0 or an FVU that is no number.
    """
    points = [point for panel in panels for point in panel.points]
    if not points:
        raise InputError("frontier figure", "at least one dictionary", "none")
    for point in points:
        if not (point.l0 > 0 and math.isfinite(point.l0) and math.isfinite(point.fvu)):
            raise InputError(f"point of {point.series!r}", "an L0 above 0 and a finite FVU", f"{point.l0}, {point.fvu}")
    order = list(dict.fromkeys(point.series for point in points))
    height = 0.45 + 3.6 * len(panels)

    def draw(figure: Any) -> None:
        for place, panel in enumerate(panels):
            bottom = (3.6 * (len(panels) - 1 - place) + 0.5) / height
            axes = figure.add_axes((0.125, bottom, 0.84, 2.8 / height))
            _frame(axes, panel.name if len(panels) > 1 else "")
            _fill(axes, panel, order)
            if place == 0:  # above the plot: there is no corner that points keep away from
                look: dict[str, Any] = {"frameon": False, "fontsize": 7.5, "labelcolor": INK, "ncols": 3}
                axes.legend(**look, loc="lower right", bbox_to_anchor=(1.0, 1.0))
        _heading(figure, title)

    return _render(draw, (6.0, height), kind)


def _fill(axes: Any, panel: FrontierPanel, order: Sequence[str]) -> None:
    left, right = min(p.l0 for p in panel.points), max(p.l0 for p in panel.points)
    known = sorted((k, fvu) for k, fvu in panel.pca if k > 0)
    if known:
        look: dict[str, Any] = {"color": MUTED, "ls": (0, (4, 2)), "lw": 1.1, "zorder": 2}
        axes.plot(*zip(*known, strict=True), **look, label="PCA, k components")
    colours = {name: COLOURS[place % 6] for place, name in enumerate(order)}
    for place, name in enumerate(order):
        mine = sorted((point for point in panel.points if point.series == name), key=lambda point: point.l0)
        look = {"color": colours[name], "marker": MARKERS[place % 6], "ms": 5, "mec": "white", "mew": 0.6, "zorder": 3}
        axes.plot([p.l0 for p in mine], [p.fvu for p in mine], ls="", **look, label=name)
        axes.plot(*zip(*sorted(_middles(mine)), strict=True), color=colours[name], lw=1.3, zorder=2.5)
    axes.set_xscale("log")
    axes.set_xlim(left / 1.6, right * 1.8)  # PCA goes on to k = d, where there are no dictionaries
    _plain_log(axes.xaxis)
    axes.set_ylim(0, 1.12 * max(p.fvu for p in panel.points))
    axes.set_xlabel("L0: active features per activation (k for PCA)")
    axes.set_ylabel("fraction of variance unexplained")
    once = {(point.series, point.note): place for place, point in reversed(list(enumerate(panel.points)))}
    kept = set(once.values())
    _notes(axes, [p if i in kept else p._replace(note="") for i, p in enumerate(panel.points)], colours)


def _middles(points: Sequence[FrontierPoint]) -> list[tuple[float, float]]:
    """The mean place of the points with one note; those without a note are each their own."""
    groups: dict[str, list[FrontierPoint]] = {}
    for place, point in enumerate(points):
        groups.setdefault(point.note or str((place,)), []).append(point)
    return [(sum(p.l0 for p in one) / len(one), sum(p.fvu for p in one) / len(one)) for one in groups.values()]


def similarity_figure(names: Sequence[str], table: Sequence[Sequence[float]], kind: Kind, *, title: str = "") -> bytes:
    """A square of `mmcs_table`, the number in every cell, dark for alike (cividis, which is made for colour blindness).

    Raises `InputError` for a table that is not (names, names).
    """
    n = len(names)
    if not n or [len(row) for row in table] != [n] * n:
        raise InputError("similarity figure", f"a table of {n} by {n} for as many names, at least one", "another shape")
    low = min(min(row) for row in table)

    def draw(figure: Any) -> None:
        width, height = figure.get_size_inches()
        axes = figure.add_axes((margin / width, margin / height, side / width, side / height))
        axes.imshow(table, cmap="cividis_r", vmin=min(low, 0.999), vmax=1.0)
        axes.set_xticks(range(n), names, rotation=90)
        axes.set_yticks(range(n), names)
        axes.tick_params(length=0, pad=4)
        for edge in axes.spines.values():
            edge.set_visible(False)
        for i, row in enumerate(table):
            for j, value in enumerate(row):
                dark = value - low > 0.5 * (1 - low)
                axes.text(j, i, f"{value:.2f}", ha="center", va="center", size=6.5, color="white" if dark else INK)
        _heading(figure, title)

    side = 0.42 * n
    margin = 0.25 + 0.065 * max(map(len, names))
    return _render(draw, (max(margin + side + 0.2, 0.3 + 0.085 * len(title)), margin + side + 0.45), kind)


def _notes(axes: Any, points: Sequence[FrontierPoint], colours: Mapping[str, str]) -> None:
    """Each point's note at the first of six places beside it that is still free; with none free, at the first."""
    scale = 72 / axes.figure.dpi
    spots = [tuple(scale * float(v) for v in axes.transData.transform((p.l0, p.fvu))) for p in points]
    taken = [(x - 4, y - 4, x + 4, y + 4) for x, y in spots]
    for point, (x, y) in zip(points, spots, strict=True):
        width, height = 4.2 * len(point.note), 7.0
        right, left, middle = 5.0, -5.0 - width, -width / 2
        offsets = ((right, 3), (middle, 6), (middle, -13), (right, -10), (left, -10), (left, 3))
        boxes = [(x + dx, y + dy, x + dx + width, y + dy + height) for dx, dy in offsets]
        free = [k for k, box in enumerate(boxes) if not any(_overlap(box, other) for other in taken)]
        place = free[0] if free else 0
        taken.append(boxes[place])
        if point.note:
            look = {"size": 6.5, "color": colours[point.series], "zorder": 4}
            axes.annotate(point.note, (point.l0, point.fvu), offsets[place], textcoords="offset points", **look)


def _overlap(one: Sequence[float], other: Sequence[float]) -> bool:
    """Whether two boxes (left, bottom, right, top) share any area."""
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def short(value: float) -> str:
    """A number in few characters: 0, 0.02, 1.5, 40, 2k, 1.25M."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.4g}{letter}"
    return f"{value:.4g}"


def _power(exponent: int) -> str:
    """10 to the `exponent`, in superscript figures: mathematical text is switched off for the sake of labels."""
    if exponent == 0:
        return "1"
    return "10" + str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def _plain_log(axis: Any) -> None:
    """Ticks of a logarithmic axis as plain numbers, at 1, 2 and 5 where there is room, and at least two of them."""
    from matplotlib.ticker import LogLocator, NullLocator

    low, high = sorted(axis.get_view_interval())
    subs = (1.0, 2.0, 5.0) if high / low < 300 else (1.0,)
    ticks = sorted(
        sub * 10.0**e for e in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1) for sub in subs
    )
    if sum(low <= tick <= high for tick in ticks) < 2:
        low = max((tick for tick in ticks if tick <= low), default=low)
        high = min((tick for tick in ticks if tick >= high), default=high)
        axis.set_view_interval(low / 1.02, high * 1.02, ignore=True)
    axis.set_major_locator(LogLocator(10, subs=subs))
    axis.set_major_formatter(lambda value, _: short(value))
    axis.set_minor_locator(NullLocator())


def _frame(axes: Any, title: str) -> None:
    """A title, light lines across, and nothing that carries no data."""
    axes.set_title(title, loc="left", size=8.5, color=INK, pad=5)
    axes.tick_params(length=0, pad=4)
    for side in ("top", "left", "right"):
        axes.spines[side].set_visible(False)
    axes.grid(axis="y", color=RULE, linewidth=0.6)
    axes.set_axisbelow(True)


def _heading(figure: Any, title: str) -> None:
    if title:
        figure.text(0.012, 1 - 0.16 / figure.get_figheight(), title, weight="bold", size=9.5, va="center")


def _render(draw: Callable[[Any], None], size: tuple[float, float], kind: Kind) -> bytes:
    """A figure of `size` inches in the style of this module."""
    return render(draw, size, kind, STYLE)
