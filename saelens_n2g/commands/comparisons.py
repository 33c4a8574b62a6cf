"""Comparisons of bases, and of methods over layers."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from saelens_n2g.commands.settings import config_of
from saelens_n2g.comparison.config import RunConfig
from saelens_n2g.errors import InputError
from saelens_n2g.progress import Reporter


def compare(config: RunConfig, out: Path, reporter: Reporter) -> None:
    """Run or finish a comparison and print its table."""
    from saelens_n2g.comparison.run import REPORT
    from saelens_n2g.comparison.run import compare as run
    from saelens_n2g.comparison.table import terminal_table

    result = run(config, out, reporter)
    console = Console()
    if not console.is_terminal:
        console = Console(width=100)
    console.print(terminal_table(result, console.width))
    if result.dictionary:
        known = {
            k: v for k, v in sorted(result.dictionary.items()) if isinstance(v, int | float) and not isinstance(v, bool)
        }
        console.print("dictionary: " + ", ".join(f"{k} {v:.4g}" for k, v in known.items()), highlight=False)
    console.print(f"report: {out / REPORT / 'index.html'}", highlight=False, soft_wrap=True)


def layers(
    *,
    out: Path,
    reporter: Reporter,
    layers: str,
    basis: str = "neurons",
    methods: str = "paper,suffix,refined",
    dictionary: str | None = None,
    **options: Any,
) -> Path:
    """Explain units of several layers, or finish doing so; the path of the table. `options` are those of `config_of`.

    `layers` and `methods` are numbers and names with commas between. Raises `InputError`.
    """
    from saelens_n2g.comparison.layers import REPORT, LayersConfig, run_layers

    numbers = _parts(layers)
    if not all(part.isdecimal() for part in numbers):
        raise InputError("option layers", "numbers with commas between, such as 0,1,2", repr(layers))
    run = replace(config_of(**options), options=None, dictionary=dictionary)
    chosen = tuple(int(part) for part in numbers)
    run_layers(LayersConfig(run=run, layers=chosen, basis=basis, methods=_parts(methods)), out, reporter)
    return out / REPORT / "layers.md"


def _parts(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(","))
