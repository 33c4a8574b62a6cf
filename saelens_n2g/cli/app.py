"""The command itself, which the files beside this one add their commands to."""

from typing import Annotated

import typer

INTERRUPTED = 130
"""Exit code after Ctrl-C, 128 and the number of the signal; what `app` returns then where it does not exit itself."""

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="Explain units of language models as token graphs that predict where they fire, and score the prediction.",
)


@app.callback(invoke_without_command=True)
def _top(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,  # noqa: ARG001  # read in main
) -> None:
    if version:
        from saelens_n2g import __version__

        typer.echo(__version__)
        raise typer.Exit
