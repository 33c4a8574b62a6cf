"""The command that gathers every analysis of a model."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from saelens_n2g.cli.app import INTERRUPTED, app
from saelens_n2g.cli.options import Out, example, shared


@app.command(
    epilog=example(
        "report --small --out runs/small",
        "report --out runs/report",
        "report --model gpt2 --corpus hf:NeelNanda/pile-10k --out runs/gpt2",
    )
)
@shared("model", "corpus", "device", "dtype", "bos", "revision", "seed")
def report(
    out: Out = Path("runs/report"),
    small: Annotated[
        bool, typer.Option("--small", help="Minutes: little text, few units, nothing to conclude.")
    ] = False,
    parts: Annotated[
        str, typer.Option(help="Which analyses: dictionaries (for ioi and case too), bases, ioi, case.")
    ] = "dictionaries,bases,ioi,case",
    layers: Annotated[
        str | None, typer.Option(help="Where bases are compared, comma-separated; default: six, by depth.")
    ] = None,
    at: Annotated[
        str | None, typer.Option(help="Two layers with dictionaries, IOI at the later one; default: 1 and the middle.")
    ] = None,
    pattern: Annotated[
        str | None, typer.Option(help="Whose feature the case study is of, a regular expression; default: apostrophes.")
    ] = None,
    **options: Any,
) -> None:
    """Everything about one model on one page: dictionaries, bases side by side, IOI patching, a case study. An hour on
    two cores for the embedded model; interrupted, it goes on where it stopped."""
    from saelens_n2g.commands import report as command

    options |= {"small": small, "parts": parts, "layers": layers, "at": at, "pattern": pattern}
    print(command.report(out=out, run=_run, **options))


def _run(arguments: Sequence[str]) -> None:
    """A command of this program, within this process."""
    if app(list(arguments), prog_name="saelens-n2g", standalone_mode=False) == INTERRUPTED:
        raise KeyboardInterrupt
