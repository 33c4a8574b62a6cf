"""Tables of `benchmarks/n2g.py` for a terminal."""

from collections.abc import Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

TEXTS = ("held_out", "corpus")
"""What is scored: all tokens of the held-out windows, and all windows that were not fitted."""


def show(found: dict[str, Any], n: int, console: Console) -> None:
    """Two tables: all neurons, and F1 by layer."""
    table = Table(
        title=f"{n} neurons: means", title_justify="left", box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0)
    )
    columns = ("cpu_seconds", 3), ("model_tokens", 0), ("forward_calls", 2), ("infill_tokens", 0), ("shared_tokens", 0)
    heads = ("CPU s", "tokens", "calls", "infill tokens", "shared tokens", "shared CPU s", "nodes")
    for column in ("", "held out P/R/F1", "corpus P/R/F1", *heads):
        table.add_column(column, justify="left" if not column else "right")
    for system, row in found.items():
        cells = ["/".join(_number(x) for x in row[text]) if text in row else "" for text in TEXTS]
        paid = [_number(row.get(k), d) for k, d in (*columns, ("shared_cpu_seconds", 2), ("nodes", 0))]
        table.add_row(system, *cells, *paid)
    console.print(table)
    layers = list(next(iter(found.values()))["by_layer"])
    table = Table(
        title="F1 by layer: held out/corpus",
        title_justify="left",
        box=SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    for column in ("", *layers):
        table.add_column(column, justify="left" if not column else "right")
    for system, row in found.items():
        by = row["by_layer"]
        table.add_row(system, *("/".join(_number(by[k][t][2]) for t in TEXTS if t in by[k]) for k in layers))
    console.print(table)


def show_growth(rows: Sequence[dict[str, Any]], console: Console) -> None:
    """Cost by layer, neurons and windows."""
    table = Table(title="Cost a neuron", title_justify="left", box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for column in ("method", "layer", "neurons", "windows", "CPU s", "tokens", "calls"):
        table.add_column(column, justify="left" if column == "method" else "right")
    for row in rows:
        where = [str(row[key]) for key in ("method", "layer", "neurons", "windows")]
        paid = [_number(row[k], d) for k, d in (("cpu_seconds", 3), ("model_tokens", 0), ("forward_calls", 2))]
        table.add_row(*where, *paid)
    console.print(table)


def _number(value: float | None, digits: int = 3) -> str:
    return "" if value is None else f"{value:,.{digits}f}"
