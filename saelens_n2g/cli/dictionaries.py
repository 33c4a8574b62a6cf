"""Commands that train dictionaries and hand them on."""

from pathlib import Path
from typing import Annotated, Any

import typer

from saelens_n2g.cli.app import app
from saelens_n2g.cli.options import RUN, TRAINING, Out, Revision, config_from, example, shared


@app.command(
    epilog=example("train --out runs/sae", "train --model gpt2 --corpus hf:NeelNanda/pile-10k --layer 6 --out runs/g")
)
@shared("layer", "alpha", *TRAINING, *RUN, "estimate")
def train(
    out: Out,
    expansion: Annotated[float, typer.Option(help="Features per dimension of the activations (R).")] = 4.0,
    samples: Annotated[int, typer.Option(help="Activations to train on, epoch after epoch.")] = 1_200_000,
    *,
    option: list[str] | None,
    estimate: bool,
    reporter: Any,
    **options: Any,
) -> None:
    """Train a sparse autoencoder on one site and save it as a SAELens folder, `OUT/dictionary/sae`."""
    from saelens_n2g.commands import dictionaries, settings

    options |= {"expansion": expansion, "samples": samples, "options": settings.choices(option or [])}
    dictionaries.train(config_from(bases="sae", **options), out, reporter, estimate=estimate)


@app.command(
    epilog=example(
        "sweep --layers 4 --alphas 3e-4,1e-3,3e-3 --expansions 4,8 --out runs/sweep",
        "sweep --layers 1,3 --architecture topk,batchtopk --option k=16,32,64 --out runs/topk",
        "sweep --layers 1,3 --memory 8 --estimate --out runs/sweep",
    )
)
@shared(*TRAINING, *RUN, "estimate")
def sweep(
    out: Out,
    layers: Annotated[str, typer.Option(help="Layers, with commas between.")] = "1",
    alphas: Annotated[str, typer.Option(help="Sparsity weights, with commas between.")] = "1e-3,3e-3,6e-3",
    expansions: Annotated[str, typer.Option(help="Features per dimension (R), with commas between.")] = "4",
    seeds: Annotated[str, typer.Option(help="Seeds of the first weights, with commas between.")] = "0",
    samples: Annotated[int | None, typer.Option(help="Activations to train on; default: all, once.")] = None,
    memory: Annotated[
        float | None, typer.Option(help="Gigabytes; layers that do not fit in together are trained one after another.")
    ] = None,
    *,
    option: list[str] | None,
    **options: Any,
) -> None:
    """Train many dictionaries in one pass over the model, and draw what sparsity costs."""
    from saelens_n2g.commands import dictionaries

    options |= {"alphas": alphas, "expansions": expansions, "seeds": seeds, "samples": samples, "memory": memory}
    dictionaries.sweep(out=out, layers=layers, choices=option or [], **options)


@app.command(
    epilog=example(
        "evaluate --dictionary runs/sae/dictionary/sae --out runs/evaluation",
        "evaluate --dictionary hf:OWNER/REPO/PATH --model gpt2 --layer 6 --corpus hf:NeelNanda/pile-10k --out runs/e",
    )
)
@shared(*RUN)
def evaluate(
    dictionary: Annotated[
        str, typer.Option(help="A folder (SAELens, sparsify, dictionary_learning) or hf:OWNER/REPO/PATH.")
    ],
    out: Out,
    model: Annotated[str | None, typer.Option(help="As elsewhere; default: the dictionary's own.")] = None,
    layer: Annotated[int | None, typer.Option(help="Block; default: the dictionary's own.")] = None,
    stream: Annotated[str | None, typer.Option(help="Site kind; default: the dictionary's own.")] = None,
    windows: Annotated[int, typer.Option(help="Windows of test text on which the model is run with it.")] = 16,
    **options: Any,
) -> None:
    """Say what a dictionary does to its model: loss and KL with the reconstruction in place, FVU, L0, density."""
    from saelens_n2g.commands.evaluation import evaluate_dictionary

    options |= {"model": model, "layer": layer, "stream": stream, "windows": windows}
    evaluate_dictionary(dictionary=dictionary, out=out, **options)


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
