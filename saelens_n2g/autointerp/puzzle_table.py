"""The puzzles as tables: tables of counts, simulators as readers, explainers as writers."""

from collections.abc import Callable, Mapping, Sequence

from saelens_n2g.autointerp.asking import Asker
from saelens_n2g.autointerp.controls import CONTROLS
from saelens_n2g.autointerp.explainers import EXPLAINERS, Explainer
from saelens_n2g.autointerp.predictors import Failure
from saelens_n2g.autointerp.puzzles import (
    KINDS,
    Metrics,
    Puzzle,
    Read,
    best,
    by_counts,
    read_by,
    score_reader,
    validity_of,
    written_by,
)
from saelens_n2g.autointerp.registry import Options
from saelens_n2g.autointerp.simulators import SIMULATORS, Simulator
from saelens_n2g.comparison.table import estimate, number, percent
from saelens_n2g.markdown import grid
from saelens_n2g.progress import Tick
from saelens_n2g.scoring import summarise

COUNTS = ("table", "backoff")
NOTES = (
    "Correlation over all tokens of a puzzle's sentences, means over puzzles with 95 % bootstrap intervals; in "
    "brackets the puzzles that define it. Tables of counts predict each sentence from the others. Writers see one half "
    "of the sentences and are scored on the other, and the other way round.",
    "Choice: share of the puzzles in which the true explanation (of a writer, its own) predicts better than each false "
    "one. A quarter is chance for ours. Rank: place of the true explanation among those of all puzzles, on "
    "its sentences.",
)


def markdown(
    puzzles: Sequence[Puzzle],
    simulators: Sequence[str],
    explainers: Sequence[str],
    options: Mapping[str, Options],
    asker: Asker | None = None,
    tick: Tick = lambda _done, _total: None,
) -> str:
    """Every table; `tick` is told how many puzzles were read or written. Raises `InputError` for names that are none,
    or that ask where there is nobody to ask."""
    readers = [SIMULATORS.make(name, options.get(name), asker) for name in simulators]
    writers = [EXPLAINERS.make(name, options.get(name), asker) for name in explainers] if readers else []
    done, total = 0, len(puzzles) * len(readers) * (1 + len(writers))

    def one_more() -> None:
        nonlocal done
        done += 1
        tick(done, total)

    parts = [f"**{len(puzzles)} puzzles**", _counts(puzzles)]
    reads = {one.name: score_reader(one, puzzles, tick=one_more) for one in readers}
    if reads:
        parts += ["**Readers**", _readers(reads)]
        parts += [f"**{name}**, by kind" + "\n\n" + _kinds(found) for name, found in reads.items() if _known(found)]
    if writers:
        rows = [_writer(writer, reader, puzzles, one_more) for writer in writers for reader in readers]
        parts += ["**Writers**", grid(("Writer", "Reader", "Own sentence", "True explanation", "Choice"), rows, 2)]
    parts.append("\n".join(f"- {note}" for note in NOTES))
    return "\n\n".join(parts) + "\n"


def _mean(values: Sequence[float | None]) -> str:
    summary = summarise(values, seed=0)
    return estimate(summary) + (f" ({summary.n})" if summary.n else "")


def _value(found: Metrics | Failure, metric: str = "correlation") -> float | None:
    return None if isinstance(found, Failure) else found[metric]


def _counts(puzzles: Sequence[Puzzle]) -> str:
    rows = []
    for name in COUNTS:
        found = [by_counts(puzzle, name) for puzzle in puzzles]
        rows.append([name, *(_mean([_value(one, metric) for one in found]) for metric in ("correlation", "auprc"))])
    return grid(("Table of counts, each sentence from the others", "Correlation", "AUPRC"), rows)


def _readers(reads: Mapping[str, Sequence[Read]]) -> str:
    head = ("Reader", "True", "False", *CONTROLS, "Choice", "Median rank", "Controls")
    rows = []
    for name, found in reads.items():
        false = [one.value(key, "correlation") for one in found for key in one.scores if key.startswith("false ")]
        values = [_mean([one.value("true", "correlation") for one in found]), number(summarise(false, seed=0).mean)]
        values += [number(summarise([one.value(c, "correlation") for one in found], seed=0).mean) for c in CONTROLS]
        ranks = summarise([None if one.rank is None else float(one.rank) for one in found], seed=0)
        rows.append([name, *values, _share(found), number(ranks.median, 0), validity_of(found).verdict])
    return grid(head, rows)


def _share(found: Sequence[Read]) -> str:
    chosen = [None if one.chosen is None else float(one.chosen) for one in found]
    return percent(summarise(chosen, seed=0).mean)


def _known(found: Sequence[Read]) -> bool:
    return any(one.kind for one in found)


def _kinds(found: Sequence[Read]) -> str:
    rows = []
    for kind in KINDS:
        some = [one for one in found if one.kind == kind]
        if some:
            rows.append([kind, str(len(some)), _mean([one.value("true", "correlation") for one in some]), _share(some)])
    return grid(("Kind", "Puzzles", "Correlation", "Choice"), rows)


def _writer(explainer: Explainer, reader: Simulator, puzzles: Sequence[Puzzle], tick: Callable[[], None]) -> list[str]:
    own = []
    for puzzle in puzzles:
        own.append(written_by(explainer, reader, puzzle))
        tick()
    true = [_value(read_by(reader, puzzle.explanation, puzzle.sentences)) for puzzle in puzzles]
    chosen: list[float | None] = []
    for puzzle, found in zip(puzzles, own, strict=True):
        ahead = best(found, [read_by(reader, text, puzzle.sentences) for text in puzzle.false])
        chosen.append(None if ahead is None else float(ahead))
    return [
        explainer.name,
        reader.name,
        _mean([_value(found) for found in own]),
        _mean(true),
        percent(summarise(chosen, seed=0).mean),
    ]
