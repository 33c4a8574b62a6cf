"""An IOI analysis for readers: `ioi.md`, and `ioi.png` and `ioi.svg` with the two curves of every basis."""

import textwrap
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from saelens_n2g import figures
from saelens_n2g.causal.patching import Point
from saelens_n2g.causal.study import PASSES, SIZES, Curves, IoiResult
from saelens_n2g.figures import COLOURS, INK, MARKERS, MUTED, RULE, Kind, save
from saelens_n2g.jobs.artefacts import write_json, write_text
from saelens_n2g.markdown import grid
from saelens_n2g.training.metrics import TYPICAL

STYLE: dict[str, Any] = {"axes.labelcolor": MUTED, "axes.labelsize": 8.0, "ytick.color": MUTED, "ytick.labelsize": 7.5}
"""What this figure has beside `figures.STYLE`."""


def write_report(result: IoiResult, folder: Path) -> None:
    """Write `results.json`, `ioi.md`, `ioi.png` and `ioi.svg` into `folder`."""
    write_json(folder / "results.json", result.as_json())
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


def markdown(result: IoiResult) -> str:
    """The report."""
    model = result.provenance.get("subject", {}).get("model", "the subject")
    parts = [
        f"**IOI counterfactual patching: {model}, {result.site}**",
        verdict(result),
        f"The gap, KL(plain run || counterfactual run) at the last token, is {result.gap:.3f} nats. Share of it that k "
        "features close when they take their counterfactual values: the best set of at most k that ACDC reached / the "
        "k of the largest first-order effect. 1: the counterfactual run; below 0: farther from it than the plain run.",
        grid(
            ["Basis", "Features", "differ", "all", *(f"k = {k}" for k in SIZES), "passes"],
            [_row(one) for one in result.curves],
        ),
    ]
    dictionaries = [one for one in result.curves if "fvu" in one.facts]
    if dictionaries:
        head = ["Dictionary", "FVU, test text", "typical rows", "FVU, prompts", "L0, prompts", "missed of the edit"]
        parts += ["How well the dictionaries rebuild", grid(head, [_dictionary(one) for one in dictionaries])]
    return "\n\n".join([*parts, "\n".join(f"- {line}" for line in conventions(result))]) + "\n"


def _row(one: Curves) -> list[str]:
    def cell(k: int) -> str:
        ranked, found = one.closed(k)
        return f"{'–' if found is None else f'{found:.2f}'} / {ranked:.2f}"

    whole = f"{one.share(one.everything):.3f}"
    return [one.name, f"{one.n_features:,}", f"{one.differ:,}", whole, *map(cell, SIZES), f"{one.runs}"]


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
        "One set of prompts of one kind at one site, one seed a dictionary: differences have no intervals here. A set "
        "of few features is what suffices on these prompts, not what the model uses on others.",
    ]


# --- figure ---------------------------------------------------------------------------------------------------


def render(result: IoiResult, kind: Kind) -> bytes:
    """The figure as the bytes of a PNG (on white) or an SVG (transparent)."""
    lines = (len(result.curves) + 2) // 3
    return figures.render(partial(_fill, result, lines), (8.4, 4.0 + 0.2 * lines), kind, STYLE)


def _fill(result: IoiResult, lines: int, figure: Any) -> None:
    height = figure.get_figheight()
    model = result.provenance.get("subject", {}).get("model", "")
    panels = figure.subplots(1, 2, sharey=True)
    figure.subplots_adjust(
        left=0.075, right=0.985, wspace=0.06, bottom=(1.0 + 0.2 * lines) / height, top=1 - 0.68 / height
    )
    _frame(panels[0], result.gap, "Features patched and divergence", "features patched (logarithmic)")
    _frame(panels[1], result.gap, "Size of the edit and divergence", "mean length of the edit per position")
    panels[0].set_ylabel("KL to the counterfactual run, nats")
    panels[0].set_xscale("log")
    panels[0].set_xlim(0.85, 1.2 * max(one.differ for one in result.curves))
    panels[0].xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    panels[0].text(0.9, result.gap, "plain run", size=7, color=MUTED, va="bottom")
    handles = [_curves(panels, one, place) for place, one in enumerate(result.curves)]
    panels[1].set_xlim(left=0)
    figure.text(
        0.075, 1 - 0.24 / height, f"IOI counterfactual patching, {model} {result.site}", weight="bold", size=9.5
    )
    figure.legend(
        handles, [one.name for one in result.curves], loc="lower left", bbox_to_anchor=(0.06, 0.42 / height), ncols=3,
        frameon=False, fontsize=7.5, labelcolor=INK, handlelength=2.2, columnspacing=1.6,
    )  # fmt: skip
    note = "Filled, solid: sets that ACDC reached. Hollow, dashed: features of the largest first-order effect."
    if not result.valid:
        note += f" The subject does the task in {100 * result.performance.preferred:.0f} % only: conclusions are void."
    figure.text(0.075, 0.1 / height, textwrap.fill(note, 130), size=7, color=MUTED, va="bottom")


def _frame(axes: Any, gap: float, title: str, below: str) -> None:
    axes.set_title(title, loc="left", size=8.5, color=MUTED, pad=6)
    axes.set_xlabel(below)
    axes.axhline(gap, color=MUTED, lw=0.8, ls=(0, (1, 2)), zorder=1)
    axes.axhline(0, color=RULE, lw=0.8, zorder=1)
    axes.grid(axis="y", color=RULE, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, pad=4)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)


def _curves(panels: Any, one: Curves, place: int) -> Any:
    """Both curves of a basis in both panels; the handle for the legend."""
    colour, marker = COLOURS[place % len(COLOURS)], MARKERS[place % len(MARKERS)]
    solid: Mapping[str, Any] = {"lw": 1.4, "mfc": colour}
    dashed: Mapping[str, Any] = {"lw": 0.8, "ls": (0, (4, 2)), "mfc": "white"}
    handle = None
    for points, look in ((one.acdc, solid), (one.ranked, dashed)):
        some = [p for p in points if p.features]
        for axes, across in ((panels[0], _size), (panels[1], _edit)):
            xs, ys = [across(p) for p in some], [p.kl for p in some]
            (line,) = axes.plot(xs, ys, color=colour, mec=colour, marker=marker, ms=4, mew=0.9, zorder=3, **look)
            handle = handle or line
    return handle


def _size(point: Point) -> float:
    return len(point.features)


def _edit(point: Point) -> float:
    return point.edit
