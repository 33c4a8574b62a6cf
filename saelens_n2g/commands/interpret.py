"""Sentences beside graphs and tables, from the command line; the puzzles."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from saelens_n2g.errors import InputError
from saelens_n2g.progress import Reporter

if TYPE_CHECKING:
    from saelens_n2g.clients.config import ClientConfig


def interpret(
    runs: Sequence[Path],
    out: Path,
    reporter: Reporter,
    *,
    explainers: str = "templated",
    simulators: str = "graph,table,backoff,quoted",
    units: int | None = None,
    excerpts: int = 10,
    calibration: str = "none",
    tolerated: float = 0.0,
    seed: int = 0,
    option: Sequence[str] = (),
    scorers: str = "",
    client: Mapping[str, str] | None = None,
    dry_run: bool = False,
    price: tuple[float, float] | None = None,
) -> str:
    """Explain, simulate and score units of finished runs into the folder `out`; what was found in short, as text.

    explainers, simulators, scorers: names with commas between. option: `NAME.KEY=VALUE`, an option of one of them.
    client: fields of `ClientConfig` as texts. dry_run: say what would be asked, and ask nothing. price: of a million
    tokens in, and out. Raises `InputError` and `ArtefactError` as
    `saelens_n2g.autointerp.run.run_interpretation` does.
    """
    from saelens_n2g.autointerp.calibration import METHODS
    from saelens_n2g.autointerp.config import InterpretConfig
    from saelens_n2g.autointerp.run import REPORT, run_interpretation
    from saelens_n2g.clients.estimating import Price

    method = next((known for known in METHODS if known == calibration), None)
    if method is None:
        raise InputError("calibration", f"one of {', '.join(METHODS)}", repr(calibration))
    config = InterpretConfig(
        explainers=tuple(names_of(explainers)),
        simulators=tuple(names_of(simulators)),
        scorers=tuple(names_of(scorers)),
        client=client_config(client),
        units=units,
        excerpts=excerpts,
        calibration=method,
        tolerated=tolerated,
        seed=seed,
        options=options_of(option),
    )
    priced = None if price is None else Price(*price)
    if dry_run:
        from saelens_n2g.autointerp.plan import plan_interpretation

        return plan_interpretation(runs, config, out, priced).to_text()
    from rich.console import Console

    from saelens_n2g.autointerp.terminal import short

    result, console = run_interpretation(runs, config, out, reporter), Console()
    text = short(result, console.width if console.is_terminal else 100, priced)
    return f"{text}report: {out / REPORT / 'index.html'}\n"


def puzzles(
    file: Path | None,
    reporter: Reporter,
    *,
    simulators: str,
    explainers: str,
    option: Sequence[str] = (),
    client: Mapping[str, str] | None = None,
    kinds: str = "",
) -> str:
    """The tables of the puzzles, ours or those of `file`, as Markdown; of some `kinds` alone where they are named.

    Raises `InputError` and `ArtefactError`.
    """
    from saelens_n2g.autointerp.asking import PROMPTS, Asker
    from saelens_n2g.autointerp.puzzle_table import markdown
    from saelens_n2g.autointerp.puzzles import load_puzzles
    from saelens_n2g.clients.registry import client_of

    config = client_config(client)
    asker = None if config is None else Asker(client_of(config, builders=PROMPTS))
    wanted, every = names_of(kinds), load_puzzles(file)
    there = list(dict.fromkeys(one.kind for one in every if one.kind))
    if unknown := [kind for kind in wanted if kind not in there]:
        raise InputError("kinds of puzzles", f"some of {', '.join(there) or 'none'}", ", ".join(unknown))
    some = [one for one in every if not wanted or one.kind in wanted]
    given = options_of(option)
    if stray := sorted(set(given) - {*names_of(simulators), *names_of(explainers)}):
        raise InputError("options", "of explainers and simulators that are used", ", ".join(stray))
    with reporter.stage("puzzles", "puzzles") as tick:
        return markdown(some, names_of(simulators), names_of(explainers), given, asker, tick)


def client_config(given: Mapping[str, str] | None) -> "ClientConfig | None":
    """Settings of a client out of texts; None without any. Raises `InputError` for fields that there are not, and
    values that they do not take."""
    if not given:
        return None
    from saelens_n2g.clients.config import ClientConfig

    known = {one.name: one.default for one in fields(ClientConfig) if one.name != "extra"}
    found: dict[str, Any] = {}
    for name, text in given.items():
        if name not in known:
            raise InputError("setting of the client", f"one of {', '.join(known)}", repr(name))
        found[name] = _value(name, text, known[name])
    return ClientConfig(**found)


def _value(name: str, text: str, default: Any) -> Any:
    """The text as a value of the field's type."""
    from saelens_n2g.clients.config import CHOICES

    if (one_of := get_args(CHOICES.get(name))) and text not in one_of:
        raise InputError(f"setting {name} of the client", f"one of {', '.join(one_of)}", repr(text))
    if isinstance(default, bool):
        if text not in ("yes", "no"):
            raise InputError(f"setting {name} of the client", "yes or no", repr(text))
        return text == "yes"
    kind = {int: int, float: float, type(None): str if name == "revision" else float}.get(type(default), str)
    try:
        return kind(text)
    except ValueError:
        raise InputError(f"setting {name} of the client", "a number", repr(text)) from None


def names_of(text: str) -> list[str]:
    """Names with commas between; an empty text is none."""
    return [name.strip() for name in text.split(",") if name.strip()]


def options_of(given: Sequence[str]) -> Mapping[str, Mapping[str, Any]]:
    """Explainer or simulator -> its options, out of `NAME.KEY=VALUE`. Raises `InputError` for anything else."""
    found: dict[str, dict[str, Any]] = {}
    for text in given:
        place, equals, value = text.partition("=")
        name, dot, key = place.rpartition(".")
        if not (equals and dot and name and key):
            raise InputError(f"option {text!r}", "NAME.KEY=VALUE", repr(text))
        found.setdefault(name, {})[key] = value
    return found
