"""Commands about the store that every unit ends in."""

from pathlib import Path
from typing import Annotated, Any

import typer

from saelens_n2g.cli.app import app
from saelens_n2g.cli.options import example, shared

Atlas = Annotated[Path, typer.Option(help="The store, one file.")]
PLACE = Path("atlas.db")


@app.command(epilog=example("collect runs/report/bases --store atlas.db", "collect runs/other --rename sae=sae-R4"))
@shared()
def collect(
    runs: Annotated[
        list[Path], typer.Argument(help="Folders of finished comparisons, studies, imports, interpretations.")
    ],
    store: Atlas = PLACE,
    model: Annotated[str | None, typer.Option(help="The model's name in the store, where not its own.")] = None,
    rename: Annotated[
        list[str] | None, typer.Option(help="NAME=OTHER: another name for a basis; may be repeated.")
    ] = None,
    again: Annotated[bool, typer.Option("--again", help="Also what was collected before.")] = False,
    similar: Annotated[bool, typer.Option(help="Find similar units, over all of the model.")] = True,
    tokenizer: Annotated[
        str | None,
        typer.Option(help="For `match`: a tokenizer.json, a folder or a hub name, or none; else the model's own."),
    ] = None,
    *,
    reporter: Any,
) -> None:
    """Bring the units of finished runs together in one store: graphs, exemplars, scores, which tokens they name.
    What is there already stays; interrupted, it goes on where it stopped."""
    from saelens_n2g.commands import store as command

    options: dict[str, Any] = {"model": model, "again": again, "similar": similar, "tokenizer": tokenizer}
    print("\n".join(command.collect(runs, store, reporter, rename=rename or (), **options)))


@app.command(
    epilog=example(
        "search 'activating:york, important:new' --store atlas.db",
        "search 'any:the and not (layer=0 or basis=pca)' --limit 5 --json",
    )
)
def search(
    query: Annotated[
        str, typer.Argument(help="activating:, important:, any:TOKEN; layer=1..5, basis=NAME; and, or, not, ( ).")
    ],
    store: Atlas = PLACE,
    model: Annotated[str | None, typer.Option(help="Units of this model only.")] = None,
    sort: Annotated[str, typer.Option(help="strength or place.")] = "strength",
    limit: Annotated[int, typer.Option(help="Units to show.")] = 20,
    offset: Annotated[int, typer.Option(help="Units to pass over.")] = 0,
    json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Units whose graphs name tokens. Tokens with spaces or marks in them are put in double quotes."""
    from saelens_n2g.commands import store as command

    print("\n".join(command.search(query, store, model=model, sort=sort, limit=limit, offset=offset, as_json=json)))


@app.command(
    epilog=example(
        "match 'The mayor of New York' --store atlas.db",
        "match 'def f(x):' --basis sae --basis neurons --layer 1 --limit 5 --json",
    )
)
def match(
    text: Annotated[str, typer.Argument(help="Any text, of up to 1,000 tokens.")],
    store: Atlas = PLACE,
    model: Annotated[str | None, typer.Option(help="The model, where the store has several.")] = None,
    basis: Annotated[list[str] | None, typer.Option(help="Units of this basis only; may be repeated.")] = None,
    layer: Annotated[list[int] | None, typer.Option(help="Units of this layer only; may be repeated.")] = None,
    sort: Annotated[str, typer.Option(help="activation, positions or place.")] = "activation",
    limit: Annotated[int, typer.Option(help="Units to show.")] = 20,
    offset: Annotated[int, typer.Option(help="Units to pass over.")] = 0,
    json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Units whose graphs say that they fire in a text, with the path that says so. No model is run."""
    from saelens_n2g.commands import store as command

    options: dict[str, Any] = {"model": model, "bases": basis or (), "layers": layer or ()}
    print("\n".join(command.match(text, store, sort=sort, limit=limit, offset=offset, as_json=json, **options)))


@app.command(epilog=example("verify --store atlas.db"))
def verify(store: Atlas = PLACE) -> None:
    """Look for damage in a store: everything is read and held against its checksums."""
    from saelens_n2g.commands import store as command

    print(command.verify(store))
