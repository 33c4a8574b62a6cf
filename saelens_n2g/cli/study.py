"""The command that holds bases side by side over layers."""

from pathlib import Path
from typing import Annotated, Any

import typer

from saelens_n2g.cli.app import app
from saelens_n2g.cli.options import RUN, Out, example, shared


@app.command(
    epilog=example(
        "study --small --out runs/small",
        "study --layers 1,4 --dictionaries tied-R2,topk-R2,mine=runs/sae-{layer}/dictionary/sae --out runs/study",
    )
)
@shared("method", "augmenter", "alpha", "batch", *RUN, tokens=None, width=129)
def study(
    out: Out = Path("runs/study"),
    small: Annotated[
        bool, typer.Option("--small", help="A few minutes: three layers, few units, little text.")
    ] = False,
    layers: Annotated[str | None, typer.Option(help="Comma-separated; 0,1,2,3,6,12 where none are given.")] = None,
    dictionaries: Annotated[
        str | None,
        typer.Option(help="Comma-separated ARCHITECTURE-R and expansion, or NAME=FOLDER, {layer} being the layer."),
    ] = None,
    bases: Annotated[str, typer.Option(help="Which others: neurons, pca, ica, random.")] = "neurons,pca,ica,random",
    units: Annotated[int | None, typer.Option(help="Units to explain per basis and layer.")] = None,
    fragment: Annotated[int, typer.Option(help="Tokens of a fragment for the interpretability score.")] = 64,
    samples: Annotated[int | None, typer.Option(help="Activations each dictionary is trained on.")] = None,
    thorough: Annotated[bool, typer.Option("--thorough", help="Method refined with its defaults: slower.")] = False,
    k: Annotated[int, typer.Option(help="Active features of dictionaries whose architecture has a k.")] = 32,
    **options: Any,
) -> None:
    """Are features easier to explain than neurons? Bases side by side over layers, matched for how often their units
    fire, with a shuffled control: tables, figures, every unit. Interrupted, it goes on where it stopped."""
    from saelens_n2g.commands import study as command

    options |= {"small": small, "layers": layers, "dictionaries": dictionaries, "bases": bases, "units": units}
    options |= {"fragment": fragment, "samples": samples, "thorough": thorough, "k": k}
    print(command.study(out=out, **options))
