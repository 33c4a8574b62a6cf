"""Commands about what units do to the model."""

from typing import Annotated, Any

import typer

from saelens_n2g.cli.app import app
from saelens_n2g.cli.options import RUN, Out, example, shared
from saelens_n2g.errors import InputError


@app.command(
    epilog=example(
        "ioi --layer 15 --dictionary runs/sweep --out runs/ioi",
        "ioi --model EleutherAI/pythia-410m-deduped --corpus hf:NeelNanda/pile-10k --dictionary runs/a --out runs/p",
    )
)
@shared(*RUN, tokens=60_000)
def ioi(
    out: Out,
    layer: Annotated[int | None, typer.Option(help="Block whose output is patched; default: the middle one.")] = None,
    dictionary: Annotated[
        list[str] | None,
        typer.Option(help="A dictionary, hf:OWNER/REPO/PATH, or the folder of a sweep; may be repeated."),
    ] = None,
    prompts: Annotated[int, typer.Option(help="Prompts, each with its counterfactual.")] = 12,
    runs: Annotated[int, typer.Option(help="Forward passes for the ACDC curve of each basis, at most.")] = 120,
    exact: Annotated[
        bool, typer.Option("--exact", help="ACDC as the authors have it: one by one, 50 thresholds; hours on a CPU.")
    ] = False,
    **options: Any,
) -> None:
    """Indirect object identification: how few features of each basis must change for the model to change its answer.
    PCA stands beside the dictionaries."""
    from saelens_n2g.commands.ioi import ioi

    ioi(out=out, layer=layer, dictionary=dictionary or (), prompts=prompts, runs=runs, exact=exact, **options)


@app.command(
    epilog=example(
        "case --unit 1.resid_post/sae/17 --dictionary runs/sae/dictionary/sae --out runs/case",
        "case --unit 3.mlp_post/neurons/1214 --pattern '^ ?(19|20)[0-9]' --out runs/neuron",
        "case --pattern '^ ?(19|20)[0-9]' --dictionary runs/sae/dictionary/sae --out runs/years",
    )
)
@shared(*RUN, tokens=60_000)
def case(
    out: Out,
    unit: Annotated[
        str | None,
        typer.Option(
            help="LAYER.KIND/BASIS/INDEX, e.g. 3.mlp_post/neurons/1214; default: the feature of the dictionary that "
            "goes with the pattern."
        ),
    ] = None,
    dictionary: Annotated[str | None, typer.Option(help="Folder of the dictionary that the unit is of.")] = None,
    later: Annotated[
        str | None, typer.Option(help="Dictionary of a later layer, to see which features change.")
    ] = None,
    pattern: Annotated[
        str | None, typer.Option(help="Regular expression; its matches are compared with where the unit fires.")
    ] = None,
    windows: Annotated[int, typer.Option(help="Windows on which the model is run without the unit.")] = 24,
    **options: Any,
) -> None:
    """Case study of one unit: its activations by token, what the model would predict without it, the context that it
    needs, what changes in a later layer. With a pattern and no unit it is that of the feature that fires where the
    pattern matches."""
    if unit is None and pattern is None:
        raise InputError("case", "--unit, or --pattern with --dictionary", "neither")
    if unit is None and dictionary is None:
        raise InputError("case of a pattern", "--dictionary, whose feature is chosen", "none")
    from saelens_n2g.commands import cases

    options |= {"out": out, "dictionary": dictionary, "later": later, "pattern": pattern, "windows": windows}
    if unit is None:
        cases.best_case(**options)
    else:
        cases.case(unit=unit, **options)
