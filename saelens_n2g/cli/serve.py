"""Showing what was found, in a browser."""

from pathlib import Path
from typing import Annotated, Any

import typer

from saelens_n2g.cli.app import app
from saelens_n2g.cli.options import example, shared

HOST, PORT, SECONDS = "127.0.0.1", 8080, 5.0
"""The server's own, said again because importing it takes time."""


@app.command(epilog=example("serve runs/demo", "serve atlas.db --port 9000 --open"))
@shared()
def serve(
    place: Annotated[Path, typer.Argument(help="A store, or the folder of a run, or one of several runs.")],
    host: Annotated[str, typer.Option(help="0.0.0.0 lets other machines in.")] = HOST,
    port: Annotated[int, typer.Option(help="0 finds a free one.")] = PORT,
    seconds: Annotated[float, typer.Option(help="What a query may take.")] = SECONDS,
    log: Annotated[bool, typer.Option("--log", help="A line for every request.")] = False,
    open_: Annotated[bool, typer.Option("--open", help="Open a browser.")] = False,
    *,
    reporter: Any,
) -> None:
    """Show units, their graphs and texts in a browser, and answer the API. A run is first brought into the store
    `atlas.db` in its folder."""
    from saelens_n2g.commands import serve as command

    command.serve(place, reporter, host=host, port=port, seconds=seconds, log=log, browse=open_)


@app.command(
    epilog=example("export atlas.db --out site", "export runs/demo --unit 1-sae/1106 --unit 1/1418 --out two-units")
)
@shared()
def export(
    place: Annotated[Path, typer.Argument(help="A store, or the folder of a run, or one of several runs.")],
    out: Annotated[Path, typer.Option(help="Folder for the pages; an earlier export there is replaced.")],
    model: Annotated[str | None, typer.Option(help="Of this model only.")] = None,
    layer: Annotated[
        list[str] | None, typer.Option(help="Of this layer only, such as 1 or 1-sae; may be repeated.")
    ] = None,
    unit: Annotated[list[str] | None, typer.Option(help="This unit only, such as 1-sae/42; may be repeated.")] = None,
    *,
    reporter: Any,
) -> None:
    """Write the pages of units into a folder that opens from disk, with no server."""
    from saelens_n2g.commands import serve as command

    print(command.export(place, out, reporter, model=model, layers=layer or (), units=unit or ()))
