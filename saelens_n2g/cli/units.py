"""Commands about one unit."""

from pathlib import Path
from typing import Annotated, Any

import typer

from saelens_n2g.cli.app import app
from saelens_n2g.cli.options import RUN, Out, Unit, config_from, example, shared


@app.command(epilog=example("exemplars --unit 3.mlp_post/neurons/1214 --out runs/unit"))
@shared("dictionary", *RUN)
def exemplars(
    unit: Unit,
    out: Out,
    top: Annotated[int, typer.Option(help="Windows to print.")] = 10,
    *,
    reporter: Any,
    **options: Any,
) -> None:
    """The windows of the corpus on which one unit is most active, coloured by activation."""
    from saelens_n2g.commands import units

    units.exemplars(config_from(unit=unit, **options), unit, out, top, reporter)


@app.command(
    epilog=example(
        "fit --unit 3.mlp_post/neurons/1214 --out runs/unit",
        "fit --unit 3.resid_post/sae/17 --dictionary runs/demo/dictionary/sae --out runs/feature",
    )
)
@shared("dictionary", "method", "augmenter", *RUN)
def fit(unit: Unit, out: Out, *, reporter: Any, **options: Any) -> None:
    """Fit the N2G graph of one unit, print it and its scores, write it as JSON, SVG and DOT."""
    from saelens_n2g.commands import units

    units.fit(config_from(unit=unit, **options), unit, out, reporter)


@app.command(
    epilog=example(
        'predict runs/unit/graphs/3.mlp_post_neurons_1214.json --text "They moved to New York in May."',
        "predict graph.json --file notes.txt --json",
    )
)
def predict(
    graph: Annotated[Path, typer.Argument(help="A graph's JSON file.")],
    text: Annotated[str | None, typer.Option(help="The text.")] = None,
    file: Annotated[Path | None, typer.Option(help="A text file, `-` for standard input.")] = None,
    model: Annotated[str | None, typer.Option(help="Whose tokenizer; the graph's own model if left out.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Tokens and predictions as JSON.")] = False,
) -> None:
    """Where a graph predicts its unit to fire on a text; tokens coloured in the terminal. Runs no model."""
    from saelens_n2g.commands import text as commands

    commands.predict(graph, text, file, model, as_json=json)
