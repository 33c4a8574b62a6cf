"""An interpretation in short, for a terminal: every way beside its best control, what sentences are like, what it cost.

The whole of it is in the report.
"""

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from saelens_n2g.autointerp.controls import NEUTRAL, OTHER
from saelens_n2g.autointerp.results import Interpretation
from saelens_n2g.autointerp.shown import SCORES, best_control
from saelens_n2g.autointerp.table import sentence_rows
from saelens_n2g.clients.estimating import Price
from saelens_n2g.comparison.table import estimate, number
from saelens_n2g.scoring import summarise

HEAD = ("Way", "Correlation", "n", "Control", "AUPRC", "n", "Control", "Verdict")
ASKED = ("Asked of whole excerpts", "AUC", "n", "Neutral", "Other", "Verdict")
NOTE = (
    "Correlation on top and random excerpts, AUPRC on random ones: means over the n units that define them, with 95 % "
    "bootstrap intervals. Control: the best of neutral, other and shuffled. A way that does not beat each of them, "
    "unit by unit, is invalid: its scores say nothing of the units."
)


def short(result: Interpretation, width: int = 100, price: Price | None = None) -> str:
    """Tables of at most `width` columns, as text without colours; with a price what all of it costs, if nothing of it
    had been kept."""
    console = Console(width=max(width, 80), force_terminal=False, color_system=None, highlight=False)
    with console.capture() as captured:
        units = len(next(iter(result.outcomes.values())))
        console.print(f"{units} units, {len(result.groups())} bases and layers")
        console.print(_ways(result))
        if result.asked:
            console.print(_asked(result))
        for name, said, distinct, most, copies, _ in sentence_rows(result):
            again = f", one of them {most} times" if most.isdigit() and int(most) > 1 else ""
            copied = f", {copies} out of the prompt's examples" if copies != "0" else ""
            console.print(f"{name}: {said} sentences, {distinct} distinct{again}{copied}")
        if costs := result.costs():
            into, out = (costs.get(f"tokens_{side}", 0.0) / units for side in ("in", "out"))
            asked = f"{costs.get('requests', 0) / units:,.0f} requests"
            money = "" if price is None else f", cost {price.of(into, out):.4g}"
            console.print(f"per unit: {asked}, tokens {into:,.0f} in, {out:,.0f} out{money}")
    return captured.get()


def _table(head: tuple[str, ...]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), collapse_padding=True, pad_edge=False, caption_justify="left")
    table.add_column(head[0], overflow="fold")
    for title in head[1:]:
        table.add_column(title, justify="right", no_wrap=True)
    return table


def _ways(result: Interpretation) -> Table:
    table = _table(HEAD)
    for way in result.outcomes:
        cells = [way.label]
        for column in SCORES:
            mean = result.summary(way, *column)
            cells += [estimate(mean), str(mean.n), number(best_control(result, way, *column))]
        table.add_row(*map(Text, [*cells, result.validity(way).verdict]))  # Text: never read as console markup
    table.caption = NOTE
    return table


def _asked(result: Interpretation) -> Table:
    table = _table(ASKED)
    for way, several in result.asked.items():
        columns = ([one.value("auc", control) for one in several] for control in (None, NEUTRAL, OTHER))
        own, *beside = (summarise(values, seed=result.seed) for values in columns)
        cells = [way.label, estimate(own), str(own.n), *(number(one.mean) for one in beside)]
        table.add_row(*map(Text, [*cells, result.asked_validity(way).verdict]))
    return table
