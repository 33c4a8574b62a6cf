"""The command that holds bases side by side over layers."""

from pathlib import Path
from typing import Annotated

import typer

from saelens_n2g.cli.app import app
from saelens_n2g.cli.options import (
    METHOD,
    Corpus,
    Device,
    MethodName,
    Model,
    Out,
    Quiet,
    Seed,
    example,
    reporter_of,
)


@app.command(
    epilog=example(
        "study --small --out runs/small",
        "study --layers 1,4 --dictionaries tied-R2,topk-R2,mine=runs/sae-{layer}/dictionary/sae --out runs/study",
    )
)
def study(
    out: Out = Path("runs/study"),
    small: Annotated[
        bool, typer.Option("--small", help="A few minutes: three layers, few units, little text.")
    ] = False,
    model: Model = "embedded",
    corpus: Corpus = "embedded",
    layers: Annotated[str | None, typer.Option(help="Comma-separated; 0,1,3,6,12,20 where none are given.")] = None,
    dictionaries: Annotated[
        str | None,
        typer.Option(help="Comma-separated ARCHITECTURE-R and expansion, or NAME=FOLDER, {layer} being the layer."),
    ] = None,
    bases: Annotated[str, typer.Option(help="Which others: neurons, pca, ica, random.")] = "neurons,pca,ica,random",
    units: Annotated[int | None, typer.Option(help="Units to explain per basis and layer.")] = None,
    tokens: Annotated[int | None, typer.Option(help="Tokens to use, windows drawn from the whole corpus.")] = None,
    width: Annotated[int, typer.Option(help="Tokens per window, BOS included.")] = 129,
    fragment: Annotated[int, typer.Option(help="Tokens of a fragment for the interpretability score.")] = 64,
    samples: Annotated[int | None, typer.Option(help="Activations each dictionary is trained on.")] = None,
    method: MethodName = METHOD,
    thorough: Annotated[bool, typer.Option("--thorough", help="Method refined with its defaults: slower.")] = False,
    device: Device = "auto",
    seed: Seed = 0,
    quiet: Quiet = False,
) -> None:
    """Are features easier to explain than neurons? Bases side by side over layers, matched for how often their units
    fire, with a shuffled control: tables, figures, every unit. Interrupted, it goes on where it stopped."""
    options = {k: v for k, v in locals().items() if k not in ("out", "quiet")}
    from saelens_n2g.commands import study as command

    print(command.study(out=out, reporter=reporter_of(quiet), **options))
