"""Commands that train dictionaries and hand them on."""

from pathlib import Path
from typing import Annotated

import typer

from saelens_n2g.cli.app import app
from saelens_n2g.cli.options import (
    Architecture,
    Batch,
    Bos,
    Choice,
    Clip,
    Corpus,
    Device,
    Dtype,
    Estimate,
    Layer,
    Model,
    Out,
    Precision,
    Quiet,
    Revision,
    Seed,
    Stream,
    Tokens,
    Wandb,
    Width,
    config_from,
    example,
    reporter_of,
)


@app.command(
    epilog=example("train --out runs/sae", "train --model gpt2 --corpus hf:NeelNanda/pile-10k --layer 6 --out runs/g")
)
def train(
    out: Out,
    model: Model = "embedded",
    corpus: Corpus = "embedded",
    layer: Layer = 1,
    stream: Stream = "resid_post",
    architecture: Architecture = "tied",
    option: Choice = None,
    expansion: Annotated[float, typer.Option(help="Features per dimension of the activations (R).")] = 4.0,
    alpha: Annotated[float, typer.Option(help="L1 weight beside a squared error averaged over dimensions.")] = 3e-3,
    lr: Annotated[float, typer.Option(help="Adam's learning rate.")] = 3e-3,
    batch: Batch = 256,
    samples: Annotated[int, typer.Option(help="Activations to train on, epoch after epoch.")] = 1_200_000,
    tokens: Tokens = 400_000,
    width: Width = 128,
    clip: Clip = 0.0,
    precision: Precision = "highest",
    wandb: Wandb = "auto",
    device: Device = "auto",
    dtype: Dtype = "float32",
    bos: Bos = "auto",
    revision: Revision = None,
    seed: Seed = 0,
    estimate: Estimate = False,
    quiet: Quiet = False,
) -> None:
    """Train a sparse autoencoder on one site and save it as a SAELens folder, `OUT/dictionary/sae`."""
    options = {k: v for k, v in locals().items() if k not in ("out", "quiet", "option", "estimate")}
    from saelens_n2g.commands import dictionaries, settings

    config = config_from(bases="sae", options=settings.choices(option or []), **options)
    dictionaries.train(config, out, reporter_of(quiet), estimate=estimate)


@app.command(
    epilog=example(
        "sweep --layers 4 --alphas 3e-4,1e-3,3e-3 --expansions 4,8 --out runs/sweep",
        "sweep --layers 1,3 --architecture topk,batchtopk --option k=16,32,64 --out runs/topk",
        "sweep --layers 1,3 --memory 8 --estimate --out runs/sweep",
    )
)
def sweep(
    out: Out,
    model: Model = "embedded",
    corpus: Corpus = "embedded",
    layers: Annotated[str, typer.Option(help="Layers, with commas between.")] = "1",
    stream: Stream = "resid_post",
    architecture: Architecture = "tied",
    option: Choice = None,
    alphas: Annotated[str, typer.Option(help="Sparsity weights, with commas between.")] = "1e-3,3e-3,6e-3",
    expansions: Annotated[str, typer.Option(help="Features per dimension (R), with commas between.")] = "4",
    seeds: Annotated[str, typer.Option(help="Seeds of the first weights, with commas between.")] = "0",
    lr: Annotated[float, typer.Option(help="Adam's learning rate.")] = 3e-3,
    batch: Batch = 256,
    samples: Annotated[int | None, typer.Option(help="Activations to train on; default: all, once.")] = None,
    memory: Annotated[
        float | None, typer.Option(help="Gigabytes; layers that do not fit in together are trained one after another.")
    ] = None,
    tokens: Tokens = 400_000,
    width: Width = 128,
    clip: Clip = 0.0,
    precision: Precision = "highest",
    wandb: Wandb = "auto",
    device: Device = "auto",
    dtype: Dtype = "float32",
    bos: Bos = "auto",
    revision: Revision = None,
    seed: Seed = 0,
    estimate: Estimate = False,
    quiet: Quiet = False,
) -> None:
    """Train many dictionaries in one pass over the model, and draw what sparsity costs."""
    options = {k: v for k, v in locals().items() if k not in ("out", "quiet", "option")}
    from saelens_n2g.commands import dictionaries

    dictionaries.sweep(out=out, reporter=reporter_of(quiet), choices=option or [], **options)


@app.command(
    epilog=example(
        "evaluate --dictionary runs/sae/dictionary/sae --out runs/evaluation",
        "evaluate --dictionary hf:OWNER/REPO/PATH --model gpt2 --layer 6 --corpus hf:NeelNanda/pile-10k --out runs/e",
    )
)
def evaluate(
    dictionary: Annotated[
        str, typer.Option(help="A folder (SAELens, sparsify, dictionary_learning) or hf:OWNER/REPO/PATH.")
    ],
    out: Out,
    model: Annotated[str | None, typer.Option(help="As elsewhere; default: the dictionary's own.")] = None,
    corpus: Corpus = "embedded",
    layer: Annotated[int | None, typer.Option(help="Block; default: the dictionary's own.")] = None,
    stream: Annotated[str | None, typer.Option(help="Site kind; default: the dictionary's own.")] = None,
    windows: Annotated[int, typer.Option(help="Windows of test text on which the model is run with it.")] = 16,
    tokens: Tokens = 400_000,
    width: Width = 128,
    device: Device = "auto",
    dtype: Dtype = "float32",
    bos: Bos = "auto",
    revision: Revision = None,
    seed: Seed = 0,
    quiet: Quiet = False,
) -> None:
    """Say what a dictionary does to its model: loss and KL with the reconstruction in place, FVU, L0, density."""
    options = {k: v for k, v in locals().items() if k not in ("quiet",)}
    from saelens_n2g.commands.evaluation import evaluate_dictionary

    evaluate_dictionary(reporter=reporter_of(quiet), **options)


@app.command(epilog=example("push runs/sae/dictionary/sae OWNER/NAME"))
def push(
    folder: Annotated[Path, typer.Argument(help="Folder of a dictionary (SAELens format).")],
    repo: Annotated[str, typer.Argument(help="OWNER/NAME on the Hugging Face hub.")],
    path: Annotated[str, typer.Option(help="Folder in the repository.")] = "",
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
) -> None:
    """Put a dictionary on the Hugging Face hub, with a model card."""
    from saelens_n2g.bases.hub import push_to_hub

    typer.echo(push_to_hub(folder, repo, private=private, path_in_repo=path))


@app.command(epilog=example("pull OWNER/NAME --out sae", "pull OWNER/NAME --path layer-4 --revision v2 --out sae"))
def pull(
    repo: Annotated[str, typer.Argument(help="OWNER/NAME on the Hugging Face hub.")],
    out: Annotated[Path, typer.Option(help="Folder for the dictionary.")],
    path: Annotated[str, typer.Option(help="Folder in the repository.")] = "",
    revision: Revision = None,
) -> None:
    """Fetch a dictionary from the Hugging Face hub; other layouts than SAELens' stay as they are, and are read."""
    from saelens_n2g.bases.foreign import load_dictionary
    from saelens_n2g.bases.hub import pull_from_hub

    folder = pull_from_hub(repo, out, revision, path)
    dictionary = load_dictionary(folder)
    typer.echo(f"{folder}: {dictionary.architecture}, d_in {dictionary.d_in}, d_sae {dictionary.d_sae}")
