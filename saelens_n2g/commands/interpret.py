"""Sentences beside graphs and tables, from the command line; the puzzles."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from saelens_n2g.errors import InputError
from saelens_n2g.progress import Reporter


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
) -> str:
    """Explain, simulate and score units of finished runs into the folder `out`; the report as Markdown.

    explainers, simulators: names with commas between. option: `NAME.KEY=VALUE`, an option of one of them. Raises
    `InputError` and `ArtefactError` as `saelens_n2g.autointerp.run.run_interpretation` does.
    """
    from saelens_n2g.autointerp.calibration import METHODS
    from saelens_n2g.autointerp.config import InterpretConfig
    from saelens_n2g.autointerp.run import REPORT, run_interpretation

    method = next((known for known in METHODS if known == calibration), None)
    if method is None:
        raise InputError("calibration", f"one of {', '.join(METHODS)}", repr(calibration))
    config = InterpretConfig(
        explainers=tuple(names_of(explainers)),
        simulators=tuple(names_of(simulators)),
        units=units,
        excerpts=excerpts,
        calibration=method,
        tolerated=tolerated,
        seed=seed,
        options=options_of(option),
    )
    run_interpretation(runs, config, out, reporter)
    return (out / REPORT / "interpret.md").read_text() + f"\nwritten: {out / REPORT}\n"


def puzzles(file: Path | None, *, simulators: str, explainers: str, option: Sequence[str] = ()) -> str:
    """The tables of the puzzles, ours or those of `file`, as Markdown. Raises `InputError` and `ArtefactError`."""
    from saelens_n2g.autointerp.puzzle_table import markdown
    from saelens_n2g.autointerp.puzzles import load_puzzles

    given = options_of(option)
    return markdown(load_puzzles(file), names_of(simulators), names_of(explainers), given)


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
