"""One report of a model: every analysis as a command of its own, then what they found on one page.

The analyses are the commands that a user would type, with the same options, so the commands in the report are those
that ran. Each is resumable by itself; one that cannot be done is named in the report and the others go on.
"""

import contextlib
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from saelens_n2g.commands.settings import values_of
from saelens_n2g.errors import InputError, N2GError
from saelens_n2g.jobs.artefacts import ensure_folder, fingerprint, finished_before
from saelens_n2g.progress import Reporter
from saelens_n2g.provenance import versions

VERSION = 1
"""Raised by hand when finished analyses make another report than before."""
PARTS = ("dictionaries", "bases", "ioi", "case")
REPORT = "report"
CLIP = "10"
"""Median distances to which activations are shortened in training: without it massive ones wreck the deeper layers
(docs/training.md)."""

Sizes = Mapping[str, Mapping[str, str]]
FULL: Sizes = {
    "dictionaries": {
        "alphas": "1e-3,3e-3",
        "expansions": "2,4",
        "seeds": "0,1",
        "tokens": "100000",
        "samples": "240000",
    },
    "bases": {},
    "ioi": {"tokens": "60000"},
    "case": {"tokens": "60000"},
}
"""Options of each analysis beside the common ones: an hour at most on two cores with the embedded model."""
SMALL: Sizes = {
    "dictionaries": {"alphas": "3e-3", "expansions": "1,2", "seeds": "0,1", "tokens": "20000", "samples": "20000"},
    "bases": {"small": ""},
    "ioi": {"tokens": "20000", "prompts": "4", "runs": "30"},
    "case": {"tokens": "20000", "windows": "6"},
}
"""To try it out: minutes, and nothing that may be concluded from."""
SHARES = (0.0, 1 / 30, 1 / 15, 0.1, 0.2, 0.4)
"""How deep the layers are that bases are compared at, where none are named. The time of a layer grows with its depth,
and nothing is explained well behind the first third (docs/layers.md)."""
FEW = 3
"""How many of them `--small` takes."""
USUAL = {"device": "auto", "dtype": "float32", "bos": "auto"}
"""What commands do where nothing is said, left out of those that the report shows."""

Run = Callable[[Sequence[str]], None]
"""Does what `saelens-n2g` does with these arguments. Raises as its commands do."""


@dataclass(frozen=True)
class Step:
    """One analysis of a report."""

    part: str
    arguments: tuple[str, ...]

    @property
    def command(self) -> str:
        """What a user would type."""
        return shlex.join(["saelens-n2g", *self.arguments])


def report(
    *,
    out: Path,
    reporter: Reporter,
    run: Run,
    parts: str = ",".join(PARTS),
    layers: str | None = None,
    at: str | None = None,
    pattern: str | None = None,
    small: bool = False,
    **common: Any,
) -> Path:
    """Run or finish all analyses of a model and gather them in `OUT/report`; the path of its page.

    parts: some of `PARTS`. layers: at which bases are compared. at: two layers with dictionaries, the earlier one with
    the unit of `pattern`, the later one with the IOI task; where none are named they follow from the model's depth.
    common: options of every command, such as model, corpus, device, seed. `OUT/PART/` is each analysis' own folder.

    Raises the first error of an analysis that failed, after the report of the others is written; `InputError` for
    settings that cannot be.
    """
    settings: dict[str, Any] = {"layers": layers, "at": at, "pattern": pattern, "small": small}
    settings |= {name: value for name, value in common.items() if value != USUAL.get(name)}
    steps = plan(_chosen(parts), out, **settings)
    given = {"parts": None if parts == ",".join(PARTS) else parts, **settings}
    command = shlex.join(["saelens-n2g", "report", *_flags(given), "--out", str(out)])
    place = out / REPORT
    key = fingerprint([VERSION, versions(), [step.command for step in steps]])
    if finished_before(place, key, "report", reporter.note):
        return place / "index.html"
    failures: dict[str, N2GError] = {}
    for step in steps:
        try:
            _do(step, out, run, reporter)
        except N2GError as error:
            failures[step.part] = error
            reporter.note(f"{step.part} could not be done: {error}")
    if len(failures) == len(steps):
        raise next(iter(failures.values()))
    with reporter.stage("report"):
        _gather(steps, failures, out, key if not failures else fingerprint([key, *failures]), command)
    if failures:
        raise next(iter(failures.values()))
    return place / "index.html"


def _do(step: Step, out: Path, run: Run, reporter: Reporter) -> None:
    """One analysis; what it prints goes to a file, so that the terminal shows progress alone."""
    reporter.note(step.command)
    with (
        reporter.stage(step.part),
        open(ensure_folder(out / step.part) / "output.txt", "w", encoding="utf-8") as log,
        contextlib.redirect_stdout(log),
    ):
        run([*step.arguments, *(["--quiet"] if reporter.quiet else [])])


def _gather(steps: Sequence[Step], failures: Mapping[str, N2GError], out: Path, key: str, command: str) -> None:
    from saelens_n2g.report.curves import of_sweep
    from saelens_n2g.report.others import of_case, of_ioi, of_study
    from saelens_n2g.report.write import write_report

    readers = dict(zip(PARTS, (of_sweep, of_study, of_ioi, of_case), strict=True))
    done = [step for step in steps if step.part not in failures]
    chapters = [readers[step.part](out / step.part, step.command) for step in done]
    missing = {step.part: str(failures[step.part]) for step in steps if step.part in failures}
    write_report(chapters, out / REPORT, key, command, missing)


# --- plan -----------------------------------------------------------------------------------------------------


def plan(
    parts: Sequence[str],
    out: Path,
    *,
    layers: str | None = None,
    at: str | None = None,
    pattern: str | None = None,
    small: bool = False,
    model: str = "embedded",
    revision: str | None = None,
    **common: Any,
) -> list[Step]:
    """The analyses that make a report. Raises `InputError` for settings that cannot be."""
    from saelens_n2g.causal.patterns import APOSTROPHE, compiled

    if "dictionaries" not in parts and {"ioi", "case"} & set(parts):
        raise InputError("option parts", "dictionaries beside ioi and case, which use them", ", ".join(parts))
    if pattern is not None:
        compiled(pattern)
    sizes = SMALL if small else FULL
    spread, (early, late) = _layers(layers, at, model, revision, SHARES[:FEW] if small else SHARES)
    shared = _flags({"model": model, "revision": revision, **common})
    sites = [f"{layer}.resid_post" for layer in (early, late)]
    trained = _names(sizes["dictionaries"])

    def place(site: str, name: str) -> str:
        return str(out / "dictionaries" / f"{site}-{name}" / "sae")

    first, second = (place(site, trained[-1]) for site in sites)
    own: dict[str, tuple[str, Mapping[str, Any]]] = {
        "dictionaries": ("sweep", {"layers": f"{early},{late}", "clip": CLIP, "wandb": "disabled"}),
        "bases": ("study", {"layers": spread}),
        "ioi": ("ioi", {"layer": late, "dictionary": [place(sites[1], name) for name in trained]}),
        "case": ("case", {"dictionary": first, "later": second, "pattern": pattern or APOSTROPHE}),
    }
    return [
        Step(part, (verb, *_flags({**sizes[part], **options}), *shared, "--out", str(out / part)))
        for part, (verb, options) in own.items()
        if part in parts
    ]


def _names(sizes: Mapping[str, str]) -> list[str]:
    """Names that a sweep gives to its dictionaries of the largest size and the first seed, by alpha."""
    from saelens_n2g.training.config import TrainingConfig
    from saelens_n2g.training.sweep import vary

    values = {
        "alpha": values_of(sizes["alphas"], float),
        "expansion": values_of(sizes["expansions"], float),
        "seed": values_of(sizes["seeds"], int),
    }
    varied = {name: found for name, found in values.items() if len(found) > 1}
    base = TrainingConfig(wandb="disabled", **{name: found[0] for name, found in values.items() if len(found) == 1})
    known = vary(base, varied)
    size, seed = max(values["expansion"]), values["seed"][0]
    return [name for name, config in known.items() if (config.expansion, config.seed) == (size, seed)]


def _layers(
    layers: str | None, at: str | None, model: str, revision: str | None, shares: Sequence[float]
) -> tuple[str, tuple[int, int]]:
    """Layers to compare bases at, by default at these shares of the depth, and the two with dictionaries."""
    if layers is None or at is None:
        from saelens_n2g.booting import depth_of

        depth = depth_of(model, revision)
        if depth < 2:
            raise InputError(f"model {model}", "at least two layers", str(depth))
        layers = layers or ",".join(map(str, _spread(depth, shares)))
        at = at or f"{min(1, depth // 2 - 1)},{depth // 2}"
    pair = values_of(at, int)
    if len(pair) != 2 or not pair[0] < pair[1]:
        raise InputError("option at", "two layers, the earlier one first, such as 1,15", repr(at))
    return layers, (pair[0], pair[1])


def _spread(depth: int, shares: Sequence[float]) -> list[int]:
    """As many layers as shares, or all there are: those nearest to the shares, then the first of the others."""
    chosen = {min(round(share * depth), depth - 1) for share in shares}
    others = [layer for layer in range(depth) if layer not in chosen]
    return sorted([*chosen, *others[: len(shares) - len(chosen)]])


def _chosen(parts: str) -> list[str]:
    chosen = [part.strip() for part in parts.split(",") if part.strip()]
    if not chosen or not set(chosen) <= set(PARTS) or len(set(chosen)) < len(chosen):
        raise InputError("option parts", f"some of {', '.join(PARTS)}, each once", parts or "none")
    return chosen


def _flags(options: Mapping[str, Any]) -> list[str]:
    """Options as they are typed; None is left out, True and "" are flags, a list is an option several times."""
    found: list[str] = []
    for name, value in options.items():
        values = value if isinstance(value, list) else [value]
        for one in values:
            if one is None or one is False:
                continue
            found += [f"--{name}"] if one is True or one == "" else [f"--{name}", str(one)]
    return found
