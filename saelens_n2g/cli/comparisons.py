"""Commands that compare bases, and methods over layers."""

from pathlib import Path
from typing import Annotated, Any

import typer

from saelens_n2g.cli.app import app
from saelens_n2g.cli.options import RUN, Out, config_from, example, shared

SIDE_BY_SIDE = ("layer", "units", "samples", "method", "augmenter", "wandb")
"""What a comparison of bases does."""


@app.command(epilog=example("demo", "demo --out runs/other --layer 5 --units 40"))
@shared(*SIDE_BY_SIDE, "tokens", "seed")
def demo(
    out: Out = Path("runs/demo"),
    serve: Annotated[bool, typer.Option("--serve", help="Then show it, as the command serve does.")] = False,
    *,
    reporter: Any,
    **options: Any,
) -> None:
    """The main job on the embedded model and text: train a dictionary, explain neurons, features and baselines,
    compare them in one table. Interrupted, it goes on where it stopped."""
    _compare(out, reporter=reporter, **options)
    if serve:
        from saelens_n2g.cli.serve import HOST, PORT, SECONDS
        from saelens_n2g.commands import serve as command

        command.serve(out, reporter, host=HOST, port=PORT, seconds=SECONDS, log=False)


@app.command(
    epilog=example(
        "compare --model EleutherAI/pythia-70m-deduped --corpus hf:NeelNanda/pile-10k --layer 2 --out runs/pythia",
        "compare --model ./my-model --corpus notes.txt --layer 0 --bases neurons,random --out runs/mine",
    )
)
@shared("dictionary", *SIDE_BY_SIDE, *RUN)
def compare(
    out: Out,
    bases: Annotated[
        str, typer.Option(help="Comma-separated: neurons, sae, random, pca, ica.")
    ] = "neurons,sae,random,pca,ica",
    **options: Any,
) -> None:
    """Compare bases of one layer of any model on any text: same protocol for all, one table, one page."""
    _compare(out, bases=bases, **options)


def _compare(out: Path, *, reporter: Any, **options: Any) -> None:
    from saelens_n2g.commands import comparisons

    comparisons.compare(config_from(**options), out, reporter)


@app.command(
    epilog=example(
        "layers --layers 0,5,10,15 --units 20 --methods suffix,refined --out runs/layers",
        "layers --basis sae --dictionary 'runs/sae-{layer}/dictionary/sae' --layers 1,3 --out runs/sae-layers",
    )
)
@shared("augmenter", *RUN, tokens=200_000)
def layers(
    out: Out,
    layers: Annotated[str, typer.Option(help="Layers, with commas between.")] = "0,1,2,3,4,5",
    basis: Annotated[str, typer.Option(help="Whose units: neurons, sae, random, pca, ica.")] = "neurons",
    dictionary: Annotated[
        str | None, typer.Option(help="For basis sae: folder of a dictionary, {layer} being the layer.")
    ] = None,
    units: Annotated[int, typer.Option(help="Units to explain per layer.")] = 32,
    methods: Annotated[
        str, typer.Option("--methods", "--method", help="How graphs are fitted, with commas between.")
    ] = "paper,suffix,refined",
    **options: Any,
) -> None:
    """How well graphs predict units layer by layer: methods and tables of counts side by side on the same units.
    Interrupted, it goes on where it stopped; a further method leaves what is finished as it is."""
    from saelens_n2g.commands import comparisons

    options |= {"basis": basis, "dictionary": dictionary, "units": units, "methods": methods}
    print(comparisons.layers(out=out, layers=layers, **options))
