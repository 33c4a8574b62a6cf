"""An IOI analysis for readers: `ioi.md`, and `ioi.png` and `ioi.svg` with the two curves of every basis.

What was measured on held-out prompts leads, since that is what a reader would get on prompts of his own; what was found
on the prompts that sets were chosen on stands beside it, to show how much of it is fitting.
"""

import textwrap
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from saelens_n2g import figures
from saelens_n2g.causal.ioi_result import PASSES, IoiResult, Versus
from saelens_n2g.causal.searches import Point
from saelens_n2g.causal.study import SIDES, SIZES, Curves
from saelens_n2g.figures import COLOURS, INK, MARKERS, MUTED, RULE, Kind, save
from saelens_n2g.jobs.artefacts import write_json, write_text
from saelens_n2g.markdown import grid
from saelens_n2g.scoring import Summary
from saelens_n2g.training.metrics import TYPICAL

STYLE: dict[str, Any] = {"axes.labelcolor": MUTED, "axes.labelsize": 8.0, "ytick.color": MUTED, "ytick.labelsize": 7.5}
"""What this figure has beside `figures.STYLE`."""
HEAD = [f"k = {k}" for k in SIZES]
TITLES = {"ranked": "The k features of the largest effect", "acdc": "The best set that ACDC reached"}
NAMED = 4
"""Comparisons that are named in a sentence, at most; more are counted."""


def write_report(result: IoiResult, folder: Path) -> None:
    """Write `results.json`, `ioi.md`, `ioi.png` and `ioi.svg` into `folder`."""
    write_json(folder / "results.json", {**result.as_json(), "findings": findings(result)})
    write_text(folder / "ioi.md", markdown(result))
    save(folder, "ioi", partial(render, result))


# --- text -----------------------------------------------------------------------------------------------------


def verdict(result: IoiResult) -> str:
    """Whether the subject does the task, in one sentence."""
    known = result.performance
    said = (
        f"The subject prefers the indirect object in {100 * known.preferred:.0f} % of {known.texts} texts (chance: 50 "
        f"%), gives it a probability of {known.probability:.2f} and names it first in {100 * known.top:.0f} %"
    )
    if result.valid:
        return f"{said}."
    return f"{said}: **it does not do the task (at least {100 * PASSES:g} % are asked for), so conclusions are void.**"


def findings(result: IoiResult) -> list[str]:
    """What was found, in sentences that follow from the numbers by rule: a difference is stated where its interval
    leaves 0 out. Held-out prompts throughout."""
    said = [verdict(result)]
    if not result.valid:
        return said
    for one in result.dictionaries:
        whole = _number(one.closed(one.everything, "held_out", result.config.seed), sign=False)
        said.append(f"All {one.differ:,} features of {one.name} that differ close {whole} of the gap together.")
    for method, title in TITLES.items():
        found = [(one, one.held_out.sign) for one in result.versus() if one.method == method and one.held_out]
        ahead, behind = ([_place(one) for one, sign in found if sign == side] for side in (1, -1))
        if found:
            said.append(
                f"{title}: of {len(found)} comparisons with principal components by as many features the dictionary is "
                f"ahead in {_listed(ahead)}, behind in {_listed(behind)}; for the others no difference is shown."
            )
    return said


def _place(one: Versus) -> str:
    return f"{one.dictionary} and {one.other} at k = {one.k}"


def _listed(places: Sequence[str]) -> str:
    return f"{len(places)} ({'; '.join(places)})" if 0 < len(places) <= NAMED else str(len(places))


def markdown(result: IoiResult) -> str:
    """The report."""
    model = result.provenance.get("subject", {}).get("model", "the subject")
    gaps = {side: _number(result.gap(side), 3, sign=False) for side in SIDES}
    parts = [
        f"**IOI counterfactual patching: {model}, {result.site}**",
        verdict(result),
        f"The gap, KL(plain run || counterfactual run) at the last token, is {gaps['held_out']} nats on held-out "
        f"prompts ({gaps['fit']} on those that sets were chosen on; {result.config.prompts} each). Below: the share of "
        "it that features close on held-out prompts when they take their counterfactual values, [95 % interval over "
        "prompts], (the same on the prompts that the set was chosen on). 1: the counterfactual run; below 0: farther "
        "from it than the plain run.",
        "The k features of the largest first-order effect:",
        grid(["Basis", "Features", "differ", "all", *HEAD, "passes"], [_row(result, one) for one in result.curves]),
        "The best set of at most k features that ACDC reached:",
        grid(["Basis", *HEAD], [[one.name, *_cells(result, one, "acdc")] for one in result.curves]),
    ]
    if result.dictionaries:
        parts += [
            "What a dictionary closes more than principal components by as many features, on held-out prompts, [95 % "
            "interval, paired by prompt]; * where the interval leaves 0 out:",
            grid(["Dictionary", "against", "by", *HEAD], _versus(result), left=3),
            "How well the dictionaries rebuild",
            grid(
                ["Dictionary", "FVU, test text", "typical rows", "FVU, prompts", "L0, prompts", "missed of the edit"],
                [_dictionary(one) for one in result.dictionaries],
            ),
        ]
    return "\n\n".join([*parts, "\n".join(f"- {line}" for line in conventions(result))]) + "\n"


def in_short(text: str) -> str:
    """Of a report its verdict, and what features close."""
    parts = text.split("\n\n")
    return "\n\n".join([parts[1], *parts[3:7]])


def _row(result: IoiResult, one: Curves) -> list[str]:
    whole = _both(result, one, one.everything)
    return [one.name, f"{one.n_features:,}", f"{one.differ:,}", whole, *_cells(result, one, "ranked"), f"{one.runs}"]


def _cells(result: IoiResult, one: Curves, method: str) -> list[str]:
    points = [one.chosen(k)[method] for k in SIZES]
    return ["–" if point is None else _both(result, one, point) for point in points]


def _both(result: IoiResult, one: Curves, point: Point) -> str:
    held, fit = (one.closed(point, side, result.config.seed) for side in SIDES)
    return f"{_number(held, sign=False)} ({fit.mean:.2f})"


def _versus(result: IoiResult) -> list[list[str]]:
    rows: dict[tuple[str, str, str], list[str]] = {}
    for one in result.versus():
        cell = "–" if one.held_out is None else _number(one.held_out) + "*" * abs(one.held_out.sign)
        rows.setdefault((one.dictionary, one.other, one.method), []).append(cell)
    names = {"ranked": "effect", "acdc": "ACDC"}
    return [[a, b, names[method], *cells] for (a, b, method), cells in rows.items()]


def _number(found: Summary, digits: int = 2, *, sign: bool = True) -> str:
    """Mean and interval; a minus that is one, so that a range cannot be misread."""
    values = (f"{value:{'+' if sign else ''}.{digits}f}" for value in (found.mean, found.low, found.high))
    mean, low, high = (value.replace("-", "\u2212") for value in values)
    return f"{mean} [{low}, {high}]"


def _dictionary(one: Curves) -> list[str]:
    facts = one.facts
    test = ["–" if facts.get(name) is None else f"{facts[name]:.3f}" for name in ("fvu_test", "fvu_typical_test")]
    return [one.name, *test, f"{facts['fvu']:.3f}", f"{facts['l0']:.1f}", f"{facts['fvu_edit']:.3f}"]


def conventions(result: IoiResult) -> list[str]:
    """The sentences without which the table misleads."""
    far = result.massive
    return [
        "features: of the basis; differ: whose value differs between the texts of a prompt somewhere; all: the share "
        "that all of them together close. What a basis does not rebuild stays as it is, so `all` is 1 for a whole "
        "rotation and less for a dictionary. Passes: forward passes of the model behind the site.",
        "Non-negative PCA has two features for each component, one for each side of the mean; a component that changes "
        "sides needs both.",
        f"Positions more than {TYPICAL:g} times as far from the corpus mean as the median one (massive activations): "
        f"{far.positions} of {far.scored} in the prompts, {100 * far.variance:.1f} % of the squared distance, "
        f"{100 * far.edit:.1f} % of the squared edit. The BOS is never edited.",
        "Missed of the edit: squared length of (counterfactual - plain) - (decoded counterfactual - decoded plain), as "
        "a share of that of counterfactual - plain.",
        "Unlike the authors: " + " ".join(result.config.differences()),
        "Held-out prompts: drawn like the others (templates, names, places, things), none of them the same. What a set "
        "closes less there than on the prompts it was chosen on is fitting. Intervals: percentile bootstrap over "
        "prompts of this kind, somewhat too narrow for so few; no correction for the number of comparisons. They do "
        "not cover other seeds or data of the dictionaries, other layers, or other texts than IOI.",
        "ACDC: of its sets of at most k features that with the lowest KL on the prompts it was chosen on. A set of few "
        "features is what suffices, not what the model uses.",
    ]


# --- figure ---------------------------------------------------------------------------------------------------


def render(result: IoiResult, kind: Kind) -> bytes:
    """The figure as the bytes of a PNG (on white) or an SVG (transparent)."""
    lines = (len(result.curves) + 3) // 4
    return figures.render(partial(_fill, result, lines), (10.4, 4.5 + 0.2 * lines), kind, STYLE)


def _fill(result: IoiResult, lines: int, figure: Any) -> None:
    height = figure.get_figheight()
    model = result.provenance.get("subject", {}).get("model", "")
    panels = figure.subplots(1, 3, sharey=True)
    figure.subplots_adjust(
        left=0.058, right=0.988, wspace=0.05, bottom=(1.28 + 0.2 * lines) / height, top=1 - 0.68 / height
    )
    _frame(panels[0], "Features of the largest effect", "features patched (logarithmic)")
    _frame(panels[1], "Sets that ACDC reached", "features patched, at most (logarithmic)")
    _frame(panels[2], "Size of the edit", "mean length of the edit per position")
    panels[0].set_ylabel("KL that is left, share of the gap")
    handles = [_curves(panels, result, one, place) for place, one in enumerate(result.curves)]
    for axes in panels[:2]:
        axes.set_xscale("log")
        axes.set_xlim(0.8, 1.3 * max(one.differ for one in result.curves))
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    panels[2].set_xlim(left=0)
    for level, name in ((1, "plain run"), (0, "counterfactual run")):  # the corners where no mark can be
        aside = {"x": 0.99, "ha": "right"} if level else {"x": 0.01, "ha": "left"}
        where = panels[2].get_yaxis_transform()
        panels[2].text(y=level, s=name, size=7, color=MUTED, va="bottom", transform=where, **aside)
    gap = _number(result.gap("held_out"), sign=False)
    title = f"IOI counterfactual patching, {model} {result.site}: gap {gap} nats on held-out prompts"
    figure.text(0.058, 1 - 0.24 / height, title, weight="bold", size=9.5)
    figure.legend(
        handles, [one.name for one in result.curves], loc="lower left", bbox_to_anchor=(0.045, 0.68 / height), ncols=4,
        frameon=False, fontsize=7.5, labelcolor=INK, handlelength=1.6, columnspacing=1.8,
    )  # fmt: skip
    figure.text(0.058, 0.1 / height, textwrap.fill(_note(result), 190), size=7, color=MUTED, va="bottom")


def _note(result: IoiResult) -> str:
    note = (
        f"Marks: {result.config.prompts} held-out prompts, with 95 % intervals over prompts; marks of one number of "
        "features stand side by side. Small strokes (left) and steps (middle): the prompts that sets were chosen on; a "
        "step is the best of all sets of at most so many features that ACDC accepted, so between marks nothing is "
        "interpolated. Right: the same sets on held-out prompts, filled: ACDC, hollow: largest effect."
    )
    if not result.valid:
        note += f" The subject does the task in {100 * result.performance.preferred:.0f} % only: conclusions are void."
    return note


def _frame(axes: Any, title: str, below: str) -> None:
    axes.set_title(title, loc="left", size=8.5, color=MUTED, pad=6)
    axes.set_xlabel(below)
    axes.axhline(1, color=MUTED, lw=0.8, ls=(0, (1, 2)), zorder=1)
    axes.axhline(0, color=RULE, lw=0.8, zorder=1)
    axes.grid(axis="y", color=RULE, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, pad=4)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)


def _curves(panels: Any, result: IoiResult, one: Curves, place: int) -> Any:
    """A basis in all panels; the handle for the legend."""
    colour, marker = COLOURS[place % len(COLOURS)], MARKERS[place % len(MARKERS)]
    look: Mapping[str, Any] = {"color": colour, "mec": colour, "marker": marker, "ms": 4, "mew": 0.9, "ls": ""}
    aside = 1.07 ** (place - (len(result.curves) - 1) / 2)
    handle = None
    for axes, points, fill in ((panels[0], one.ranked, "white"), (panels[1], one.acdc, colour)):
        some = [p for p in points if p.features and p.held is not None]
        closed = [one.closed(p, "held_out", result.config.seed) for p in some]
        xs, ys = [aside * len(p.features) for p in some], [1 - _known(c.mean) for c in closed]
        spans = [[_known(c.high) - _known(c.mean) for c in closed], [_known(c.mean) - _known(c.low) for c in closed]]
        drawn = axes.errorbar(xs, ys, yerr=spans, elinewidth=0.9, capsize=0, mfc=fill, zorder=3, **look)
        handle = drawn if axes is panels[1] else handle
        edits = [p.held.edit for p in some if p.held is not None]
        panels[2].plot(edits, ys, mfc=fill, zorder=3, **look)
        if axes is panels[0]:
            fitted = [p.kl / one.nothing.kl for p in some]
            axes.plot(xs, fitted, color=colour, marker="_", ms=5, mew=1.1, ls="", zorder=2)
    sizes, lows = staircase(one.acdc)
    panels[1].step(sizes, [low / one.nothing.kl for low in lows], where="post", color=colour, lw=1.0, zorder=2)
    return handle


def staircase(points: Sequence[Point]) -> tuple[list[int], list[float]]:
    """Sizes, rising, and the lowest KL of all sets of at most that size; only where it falls, and the largest size."""
    sizes: list[int] = []
    lows: list[float] = []
    some = sorted((p for p in points if p.features), key=lambda p: (len(p.features), p.kl))
    for point in some:
        if not lows or point.kl < lows[-1]:
            sizes.append(len(point.features))
            lows.append(point.kl)
    return [*sizes, len(some[-1].features)], [*lows, lows[-1]]


def _known(value: float | None) -> float:
    assert value is not None
    return value
