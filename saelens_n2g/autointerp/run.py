"""A run: units of finished runs explained, simulated and scored. Whatever is finished is not done again.

    interpretation = run_interpretation([Path("runs/demo")], InterpretConfig(), Path("runs/words"), Reporter())

Every answer is a file of its own, `explanations/EXPLAINER/RUN/UNIT.json` and `scores/WAY/RUN/UNIT.json`, known by all
that decides it. A run that is killed goes on behind the last one; another explainer or simulator adds its files to
those that are there. What failed is a status in the results and is tried again by the next run.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from saelens_n2g.autointerp.asking import PROMPTS, Asker
from saelens_n2g.autointerp.config import InterpretConfig
from saelens_n2g.autointerp.reading import Found, units_of
from saelens_n2g.autointerp.results import Interpretation
from saelens_n2g.autointerp.subjects import Subjects
from saelens_n2g.autointerp.work import Work
from saelens_n2g.clients.base import Client
from saelens_n2g.clients.cache import Cached
from saelens_n2g.clients.registry import client_of
from saelens_n2g.errors import InputError
from saelens_n2g.jobs.artefacts import COMMIT, fingerprint, publishing, read_json, sha256_of, write_text
from saelens_n2g.progress import Reporter
from saelens_n2g.provenance import versions

REPORT, ANSWERS = "report", "answers"
"""Folders of the report, and of a language model's answers where no other is named."""


def run_interpretation(
    runs: Sequence[Path], config: InterpretConfig, folder: Path, reporter: Reporter, client: Client | None = None
) -> Interpretation:
    """Do what is not done yet in `folder` and return the results; `folder/report` shows them.

    client: who is asked, in place of the one that `config` names; answers are then kept only as it keeps them itself.
    Raises `InputError` for settings that cannot be, or folders that are no runs, `ArtefactError` for damaged files.
    """
    groups = groups_of(runs, config)
    asker = asker_of(config, folder, client)
    work = Work(config, folder, asker, Subjects(runs))
    total, ended = work.steps(sum(len(group) for group in groups)), 0
    with reporter.stage("interpret", "sentences and scores") as tick:

        def one_more() -> None:
            nonlocal ended
            ended += 1
            tick(ended, total)

        for group in groups:
            work.group([found.load(config.reading) for found in group], one_more)
    result = work.result({"runs": {run.name: _about(run) for run in runs}, "versions": versions()})
    publish(result, folder / REPORT)
    if asker is not None and isinstance(asker.client, Cached):
        spent = asker.client.spent
        asked = f"{spent.answers:,} answers and {spent.failures:,} failures"
        reporter.note(f"asked now: {asked}, {spent.tokens_in:,} tokens in, {spent.tokens_out:,} out")
    if result.failures:
        reporter.note(f"{result.failures} answers failed; the same command tries them again")
    return result


def asker_of(config: InterpretConfig, folder: Path, client: Client | None = None) -> Asker | None:
    """Who is asked; None where nobody is. Raises `InputError` for a client that cannot be."""
    if client is not None:
        return Asker(client)
    if config.client is None:
        return None
    settings = replace(config.client, cache=config.client.cache or str(folder / ANSWERS))
    return Asker(client_of(settings, builders=PROMPTS))


def publish(result: Interpretation, report: Path) -> None:
    """Write data, tables, and page with figure as one folder."""
    from saelens_n2g.autointerp.page import write_page
    from saelens_n2g.autointerp.table import markdown

    with publishing(report, {"key": fingerprint(result.as_json())}) as place:
        result.save(place / "results.json")
        write_text(place / "interpret.md", markdown(result))
        write_page(result, place)


def _about(run: Path) -> dict[str, object]:
    """What a run was: its checksum and its own provenance."""
    value = read_json(run / REPORT / "results.json")
    shared = value["provenance"]
    return {
        "checksum": sha256_of(run / REPORT / COMMIT),
        "format": value["format"],
        "subject": shared.get("subject"),
        "corpus": shared.get("corpus"),
    }


def groups_of(runs: Sequence[Path], config: InterpretConfig) -> list[list[Found]]:
    """Units by run, basis and layer, of each so many as are asked for: drawn at random, more adding to fewer.

    Raises `InputError` for folders that are no runs or have one name, `ArtefactError` for damaged files.
    """
    if not runs or len({run.name for run in runs}) < len(runs):
        raise InputError("runs", "at least one, folders of different names", ", ".join(map(str, runs)) or "none")
    return [group for run in runs for group in _groups(units_of(run), config)]


def _groups(units: Sequence[Found], config: InterpretConfig) -> list[list[Found]]:
    by: dict[tuple[str, int], list[Found]] = {}
    for unit in units:
        by.setdefault((unit.basis, unit.layer), []).append(unit)
    return [_drawn(several, config) for several in by.values()]


def _drawn(several: list[Found], config: InterpretConfig) -> list[Found]:
    order = np.random.default_rng([config.seed, len(several)]).permutation(len(several))[: config.units]
    return [several[place] for place in sorted(order.tolist())]
