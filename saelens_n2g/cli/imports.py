"""The command that brings in what others have published."""

from pathlib import Path
from typing import Annotated, Any

import typer

from saelens_n2g.cli.app import app
from saelens_n2g.cli.options import RUN, Out, example, shared


@app.command(
    "import",
    epilog=example(
        "import texts/ --model EleutherAI/pythia-70m --out runs/theirs",
        "import batch-0.jsonl.gz --model gpt2 --dictionary hf:OWNER/REPO/PATH --units 50 --out runs/features",
    ),
)
@shared("dictionary", "method", "augmenter", *RUN, corpus=None)
def import_(
    files: Annotated[list[Path], typer.Argument(help="Files of published exemplars, or folders of them.")],
    out: Out,
    site_kind: Annotated[
        str | None,
        typer.Option(help="Where the units are: mlp_post for neurons; for a dictionary what it says, or resid_post."),
    ] = None,
    layer: Annotated[int | None, typer.Option(help="Layer of all units, where not as the files state.")] = None,
    unit: Annotated[list[int] | None, typer.Option(help="Index of a unit to import; may be repeated.")] = None,
    units: Annotated[int | None, typer.Option(help="Units at most, in the order of the files.")] = None,
    test_share: Annotated[float, typer.Option(help="Share of a unit's texts that are held out.")] = 0.5,
    unchecked: Annotated[
        bool, typer.Option("--unchecked", help="Also units that the model does not agree with.")
    ] = False,
    *,
    reporter: Any,
    **options: Any,
) -> None:
    """Fit graphs to exemplars that others have published: Neuroscope (DeepDecipher's JSON), Neuronpedia, delphi,
    OpenAI's neuron records. With --corpus they are scored on that text too. `collect` takes the folder."""
    from saelens_n2g.commands import imports

    own: dict[str, Any] = {"site_kind": site_kind, "layer": layer, "indices": unit or (), "units": units}
    print(
        imports.import_files(files, out, reporter, **own, test_share=test_share, unchecked=unchecked, **options), end=""
    )


import_.__name__ = "import"  # as it is called; the word is Python's own
