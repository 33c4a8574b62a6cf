"""Commands about what units do to the model."""

from typing import Annotated

import typer

from saelens_n2g.cli.app import app
from saelens_n2g.cli.options import (
    Bos,
    Corpus,
    Device,
    Dtype,
    Model,
    Out,
    Quiet,
    Revision,
    Seed,
    Tokens,
    Unit,
    Width,
    example,
    reporter_of,
)


@app.command(
    epilog=example(
        "ioi --layer 15 --dictionary runs/sweep --out runs/ioi",
        "ioi --model EleutherAI/pythia-410m-deduped --corpus hf:NeelNanda/pile-10k --dictionary runs/a --out runs/p",
    )
)
def ioi(
    out: Out,
    model: Model = "embedded",
    corpus: Corpus = "embedded",
    layer: Annotated[int | None, typer.Option(help="Block whose output is patched; default: the middle one.")] = None,
    dictionary: Annotated[
        list[str] | None,
        typer.Option(help="A dictionary, hf:OWNER/REPO/PATH, or the folder of a sweep; may be repeated."),
    ] = None,
    prompts: Annotated[int, typer.Option(help="Prompts, each with its counterfactual.")] = 12,
    runs: Annotated[int, typer.Option(help="Forward passes for the ACDC curve of each basis, at most.")] = 210,
    exact: Annotated[
        bool, typer.Option("--exact", help="ACDC as the authors have it: one by one, 50 thresholds; hours on a CPU.")
    ] = False,
    tokens: Tokens = 60_000,
    width: Width = 128,
    device: Device = "auto",
    dtype: Dtype = "float32",
    bos: Bos = "auto",
    revision: Revision = None,
    seed: Seed = 0,
    quiet: Quiet = False,
) -> None:
    """Indirect object identification: how few features of each basis must change for the model to change its answer.
    PCA stands beside the dictionaries."""
    options = {k: v for k, v in locals().items() if k not in ("quiet", "dictionary")}
    from saelens_n2g.commands.ioi import ioi

    ioi(reporter=reporter_of(quiet), dictionary=dictionary or (), **options)


@app.command(
    epilog=example(
        "case --unit 1.resid_post/sae/17 --dictionary runs/sae/dictionary/sae --out runs/case",
        "case --unit 3.mlp_post/neurons/1214 --pattern '^ ?(19|20)[0-9]' --out runs/neuron",
    )
)
def case(
    unit: Unit,
    out: Out,
    model: Model = "embedded",
    corpus: Corpus = "embedded",
    dictionary: Annotated[str | None, typer.Option(help="Folder of the dictionary that the unit is of.")] = None,
    later: Annotated[
        str | None, typer.Option(help="Dictionary of a later layer, to see which features change.")
    ] = None,
    pattern: Annotated[
        str | None, typer.Option(help="Regular expression; its matches are compared with where the unit fires.")
    ] = None,
    windows: Annotated[int, typer.Option(help="Windows on which the model is run without the unit.")] = 24,
    tokens: Tokens = 60_000,
    width: Width = 128,
    device: Device = "auto",
    bos: Bos = "auto",
    revision: Revision = None,
    seed: Seed = 0,
    quiet: Quiet = False,
) -> None:
    """Case study of one unit: its activations by token, what the model would predict without it, the context that it
    needs, what changes in a later layer."""
    options = {k: v for k, v in locals().items() if k != "quiet"}
    from saelens_n2g.commands.cases import case

    case(reporter=reporter_of(quiet), **options)
