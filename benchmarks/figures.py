"""How benchmarks end: figures by name on the terminal, and as JSON where that is wanted."""

from collections.abc import Mapping
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from saelens_n2g.jobs.artefacts import write_json


def end(found: Mapping[str, float], path: Path | None) -> None:
    """Print what was found, one line each, and write it to `path` if there is one."""
    table = Table(box=SIMPLE_HEAD)
    table.add_column("what")
    table.add_column("value", justify="right")
    for name, value in found.items():
        table.add_row(name, f"{value:,.2f}")
    Console(width=100).print(table)
    if path is not None:
        write_json(path, dict(found))
