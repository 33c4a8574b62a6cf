"""The commands that explain in words: explain, simulate, score, and the puzzles that test who does."""

from pathlib import Path
from typing import Annotated, Any

import typer

from saelens_n2g.cli.app import app
from saelens_n2g.cli.options import Out, example, shared

Option = Annotated[
    list[str] | None,
    typer.Option("--option", help="NAME.KEY=VALUE, an option of an explainer or simulator; may be repeated."),
]


@app.command(
    epilog=example(
        "interpret runs/demo --out runs/words",
        "interpret runs/demo runs/study --simulators graph,table --units 8 --calibration linear --out runs/words",
    )
)
@shared("seed")
def interpret(
    runs: Annotated[list[Path], typer.Argument(help="Folders of finished comparisons, studies or imports.")],
    out: Out = Path("runs/words"),
    explainers: Annotated[str, typer.Option(help="Who writes sentences, comma-separated; may be empty.")] = "templated",
    simulators: Annotated[
        str, typer.Option(help="What predicts: graph, table, backoff; and who reads sentences: quoted, embedding.")
    ] = "graph,table,backoff,quoted",
    units: Annotated[
        int | None, typer.Option(help="Units at most of each basis and layer; all where not given.")
    ] = None,
    excerpts: Annotated[int, typer.Option(help="Strong excerpts to score on, and as many random ones.")] = 10,
    calibration: Annotated[
        str, typer.Option(help="none, linear or percentile, on fit documents that are held back.")
    ] = "none",
    tolerated: Annotated[float, typer.Option(help="Share of a unit's excerpts that a simulator may fail on.")] = 0.0,
    option: Option = None,
    *,
    reporter: Any,
    **options: Any,
) -> None:
    """Sentences beside graphs and tables: explained, simulated and scored on the same excerpts, with controls.
    Interrupted, it goes on where it stopped; what failed is tried again. No model is needed for the defaults."""
    from saelens_n2g.commands import interpret as command

    options |= {"explainers": explainers, "simulators": simulators, "units": units, "excerpts": excerpts}
    options |= {"calibration": calibration, "tolerated": tolerated, "option": option or ()}
    print(command.interpret(runs, out, reporter, **options), end="")


@app.command(epilog=example("puzzles", "puzzles --file puzzles.json --simulators embedding"))
def puzzles(
    file: Annotated[
        Path | None, typer.Option(help="Puzzles of your own, in our format or that of OpenAI's puzzles.json.")
    ] = None,
    simulators: Annotated[str, typer.Option(help="Who is tested as reader of sentences, comma-separated.")] = "quoted",
    explainers: Annotated[str, typer.Option(help="Who is tested as writer of sentences, comma-separated.")] = "",
    option: Option = None,
) -> None:
    """Units that were made up, with the true explanation and false ones: do simulators tell them apart, do explainers
    find them? Tables of counts beside."""
    from saelens_n2g.commands import interpret as command

    print(command.puzzles(file, simulators=simulators, explainers=explainers, option=option or ()), end="")
