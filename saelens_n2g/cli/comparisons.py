"""Commands that compare bases."""

from pathlib import Path
from typing import Annotated, Any

import typer

from saelens_n2g.cli.app import app
from saelens_n2g.cli.options import (
    METHOD,
    AugmenterName,
    Bos,
    Corpus,
    Device,
    Dictionary,
    Dtype,
    Layer,
    MethodName,
    Model,
    Out,
    Quiet,
    Revision,
    Seed,
    Tokens,
    Wandb,
    Width,
    config_from,
    example,
    reporter_of,
)


@app.command(epilog=example("demo", "demo --out runs/other --layer 5 --units 40"))
def demo(
    out: Out = Path("runs/demo"),
    layer: Layer = 1,
    units: Annotated[int, typer.Option(help="Units to explain per basis.")] = 32,
    tokens: Tokens = 400_000,
    samples: Annotated[int, typer.Option(help="Activations the dictionary is trained on.")] = 1_200_000,
    method: MethodName = METHOD,
    augmenter: AugmenterName = "auto",
    wandb: Wandb = "auto",
    seed: Seed = 0,
    quiet: Quiet = False,
) -> None:
    """The main job on the embedded model and text: train a dictionary, explain neurons, features and baselines,
    compare them in one table. Interrupted, it goes on where it stopped."""
    _compare(
        out,
        quiet,
        layer=layer,
        units=units,
        tokens=tokens,
        samples=samples,
        method=method,
        augmenter=augmenter,
        wandb=wandb,
        seed=seed,
    )


@app.command(
    epilog=example(
        "compare --model EleutherAI/pythia-70m-deduped --corpus hf:NeelNanda/pile-10k --layer 2 --out runs/pythia",
        "compare --model ./my-model --corpus notes.txt --layer 0 --bases neurons,random --out runs/mine",
    )
)
def compare(
    out: Out,
    model: Model = "embedded",
    corpus: Corpus = "embedded",
    layer: Layer = 1,
    bases: Annotated[
        str, typer.Option(help="Comma-separated: neurons, sae, random, pca, ica.")
    ] = "neurons,sae,random,pca,ica",
    dictionary: Dictionary = None,
    units: Annotated[int, typer.Option(help="Units to explain per basis.")] = 32,
    tokens: Tokens = 400_000,
    width: Width = 128,
    samples: Annotated[int, typer.Option(help="Activations the dictionary is trained on.")] = 1_200_000,
    method: MethodName = METHOD,
    augmenter: AugmenterName = "auto",
    wandb: Wandb = "auto",
    device: Device = "auto",
    dtype: Dtype = "float32",
    bos: Bos = "auto",
    revision: Revision = None,
    seed: Seed = 0,
    quiet: Quiet = False,
) -> None:
    """Compare bases of one layer of any model on any text: same protocol for all, one table, one page."""
    options = {k: v for k, v in locals().items() if k not in ("out", "quiet")}
    _compare(out, quiet, **options)


def _compare(out: Path, quiet: bool, **options: Any) -> None:
    from saelens_n2g.commands import comparisons

    comparisons.compare(config_from(**options), out, reporter_of(quiet))
