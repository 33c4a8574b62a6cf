"""The commands that explain in words: explain, simulate, score, and the puzzles that test who does."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from saelens_n2g.cli.app import app
from saelens_n2g.cli.options import ASKED, Out, example, shared
from saelens_n2g.errors import InputError

Option = Annotated[
    list[str] | None,
    typer.Option("--option", help="NAME.KEY=VALUE, an option of an explainer or simulator; may be repeated."),
]


@app.command(
    epilog=example(
        "interpret runs/demo --out runs/words",
        "interpret runs/demo --explainers token-activation --simulators all-at-once --client huggingface --units 4",
        "interpret runs/demo runs/study --simulators graph,table --units 8 --calibration linear --out runs/words",
    )
)
@shared("seed", *ASKED)
def interpret(
    runs: Annotated[list[Path], typer.Argument(help="Folders of finished comparisons, studies or imports.")],
    out: Out = Path("runs/words"),
    explainers: Annotated[
        str,
        typer.Option(
            help="Who writes sentences, comma-separated, may be empty: templated, templated-table, with a client "
            "token-activation, highlights, token-list, from-graph, revised."
        ),
    ] = "templated",
    simulators: Annotated[
        str,
        typer.Option(
            help="What predicts: graph, table, backoff; and who reads sentences: quoted, embedding, with a client "
            "all-at-once, token-by-token, structured."
        ),
    ] = "graph,table,backoff,quoted",
    units: Annotated[
        int | None, typer.Option(help="Units at most of each basis and layer; all where not given.")
    ] = None,
    excerpts: Annotated[int, typer.Option(help="Strong excerpts to score on, and as many random ones.")] = 10,
    calibration: Annotated[
        str, typer.Option(help="none, linear or percentile, on fit documents that are held back.")
    ] = "none",
    tolerated: Annotated[float, typer.Option(help="Share of a unit's excerpts that a simulator may fail on.")] = 0.0,
    option: Option = None,
    scorers: Annotated[
        str, typer.Option(help="Who tells excerpts apart by sentences: embedding, with a client detection, fuzzing.")
    ] = "",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be asked, tokens and cost; ask nothing.")
    ] = False,
    price_in: Annotated[float | None, typer.Option(help="Of a million tokens in: what it costs is said.")] = None,
    price_out: Annotated[float | None, typer.Option(help="Of a million tokens out.")] = None,
    *,
    reporter: Any,
    **options: Any,
) -> None:
    """Sentences beside graphs and tables: explained, simulated and scored on the same excerpts, with controls.
    Interrupted, it goes on where it stopped; what failed is tried again. No model is needed for the defaults."""
    from saelens_n2g.commands import interpret as command

    options |= {"explainers": explainers, "simulators": simulators, "units": units, "excerpts": excerpts}
    options |= {"calibration": calibration, "tolerated": tolerated, "option": option or ()}
    options |= {"scorers": scorers, "dry_run": dry_run, "price": _price(price_in, price_out)}
    options["client"] = _client({name: options.pop(name) for name in ASKED})
    print(command.interpret(runs, out, reporter, **options), end="")


@app.command(epilog=example("puzzles", "puzzles --file puzzles.json --simulators embedding"))
@shared(*ASKED)
def puzzles(
    file: Annotated[
        Path | None, typer.Option(help="Puzzles of your own, in our format or that of OpenAI's puzzles.json.")
    ] = None,
    simulators: Annotated[str, typer.Option(help="Who is tested as reader of sentences, comma-separated.")] = "quoted",
    explainers: Annotated[str, typer.Option(help="Who is tested as writer of sentences, comma-separated.")] = "",
    option: Option = None,
    kinds: Annotated[str, typer.Option(help="Kinds of puzzles, comma-separated; all where not given.")] = "",
    *,
    reporter: Any,
    **asked: Any,
) -> None:
    """Units that were made up, with the true explanation and false ones: do simulators tell them apart, do explainers
    find them? Tables of counts beside."""
    from saelens_n2g.commands import interpret as command

    options: dict[str, Any] = {"simulators": simulators, "explainers": explainers, "option": option or ()}
    print(command.puzzles(file, reporter, **options, client=_client(asked), kinds=kinds), end="")


def _price(of_in: float | None, of_out: float | None) -> tuple[float, float] | None:
    """Both prices, or none. Raises `InputError` for one of them alone, and for what is no price."""
    if of_in is None and of_out is None:
        return None
    if of_in is None or of_out is None:
        raise InputError("price", "--price-in and --price-out", "one of them")
    if not (0 <= of_in < float("inf") and 0 <= of_out < float("inf")):
        raise InputError("price", "numbers >= 0", f"{of_in} and {of_out}")
    return of_in, of_out


def _client(asked: Mapping[str, Any]) -> dict[str, str] | None:
    """Settings of the client as texts, out of the options `ASKED`; None where none is named. Raises `InputError` for
    settings without a client."""
    kind, *named = (asked[name] for name in ASKED if name != "client_option")
    names = ("model", "base_url", "key_env", "cache")
    given = {name: value for name, value in zip(names, named, strict=True) if value is not None}
    for text in asked["client_option"] or ():
        name, equals, value = text.partition("=")
        if not (equals and name):
            raise InputError(f"client option {text!r}", "KEY=VALUE", repr(text))
        given[name] = value
    if kind is None and given:
        raise InputError("client", "--client http, huggingface, llamacpp or replay", f"only {', '.join(given)}")
    return None if kind is None else {"kind": kind, **given}
