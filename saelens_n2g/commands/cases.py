"""Case studies: one unit, or the feature of a dictionary that goes with a pattern."""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Bool, Float

from saelens_n2g.bases.foreign import checksums, load_dictionary
from saelens_n2g.bases.hub import locate_dictionary
from saelens_n2g.bases.sae import SaeBasis, sae_basis
from saelens_n2g.causal.case_report import VERSION, Case, Lens, write_case
from saelens_n2g.causal.cases import CaseUnit, ablation, context_ablation, downstream, histogram, last_streams
from saelens_n2g.causal.effects import direct_effects
from saelens_n2g.causal.patterns import APOSTROPHE, SHARES, against, best_unit, compiled, matching
from saelens_n2g.commands.settings import config_of
from saelens_n2g.commands.text import number
from saelens_n2g.commands.units import one_unit
from saelens_n2g.comparison.config import RunConfig
from saelens_n2g.comparison.workspace import Workspace
from saelens_n2g.corpus import Windows
from saelens_n2g.errors import InputError
from saelens_n2g.jobs.artefacts import committed, fingerprint, publishing, read_json
from saelens_n2g.progress import Reporter, Tick
from saelens_n2g.sites import Site
from saelens_n2g.subject import Subject

if TYPE_CHECKING:
    from saelens_n2g.comparison.selection import Unit

WINDOWS, TEXTS = 24, 3
"""Windows on which the unit is taken out, strongest texts whose context is taken apart."""
STRONG = 0.5
"""Share of its maximum above which a unit's effects are looked at; where it is weaker it is only taken out."""
CASE = "case"
STUDY = 2
"""Raised by hand when the same settings give another case than before; finished ones are then done again."""
FOUND = 0.5
"""F1 from which a feature is said to be the one of a pattern."""


def case(
    *,
    unit: str,
    out: Path,
    reporter: Reporter,
    dictionary: str | None = None,
    later: str | None = None,
    pattern: str | None = None,
    windows: int = WINDOWS,
    chosen: Mapping[str, Any] | None = None,
    within: Workspace | None = None,
    asked: str | None = None,
    **options: Any,
) -> Path:
    """Study one unit and write `OUT/case/`; the path of its text, which is printed. What is there for the same
    settings and dictionaries is printed, and nothing is done again.

    later: a dictionary of a later layer. pattern: see `patterns.matching`. windows: on which the unit is taken out,
    drawn from those where it is above half of its maximum. chosen: how the unit was found, for the provenance. within:
    as in `one_unit`. asked: identifies the settings by which the unit was chosen; None for one that was named.
    `options` are those of `config_of`. Raises `InputError`, `UnitError` for a unit that never fires in the fit text.
    """
    expression = None if pattern is None else compiled(pattern)
    if windows < 1:
        raise InputError("option windows", "an integer >= 1", str(windows))
    behind = None if later is None else _later(later)
    config = config_of(unit=unit, dictionary=dictionary, **options)
    folder, key = out / CASE, asked or _key(config, unit, pattern, later, windows)
    if _finished(folder, key):
        return _told(folder)
    workspace, basis, found = one_unit(config, unit, out, reporter, within)
    subject = workspace.subject
    one = CaseUnit.of(basis, found.index, subject.width(basis.site))
    with reporter.stage(f"study {unit}", "parts") as tick:
        value = _studied(workspace, one, found, behind, expression, windows, tick)
    about = {"dictionary": _checksums(config.dictionary), "later": _checksums(later), "chosen": chosen}
    value = replace(value, provenance={**workspace.provenance(), **about})
    with publishing(folder, {"key": key}) as work:
        write_case(value, work)
    workspace.discard_activations()
    return _told(folder)


def _key(config: RunConfig, unit: str | None, pattern: str | None, later: str | None, windows: int) -> str:
    """What decides a case; unit None where it is yet to be chosen."""
    units = [config.key("units", name) for name in config.bases]
    return fingerprint([VERSION, STUDY, units, unit, pattern, _checksums(later), windows])


def _finished(folder: Path, key: str) -> bool:
    """Whether the case of these settings is there. Raises `ArtefactError` for a damaged one."""
    meta = committed(folder, check=True)
    return meta is not None and meta.get("key") == key


def _told(folder: Path) -> Path:
    """Print the text of a case."""
    print((folder / "case.md").read_text())
    print(f"written: {folder / 'case.md'} (and .json, .png, .svg)")
    return folder / "case.md"


def _studied(
    workspace: Workspace,
    one: CaseUnit,
    found: "Unit",
    behind: SaeBasis | None,
    expression: re.Pattern[str] | None,
    windows: int,
    tick: Tick,
) -> Case:
    subject, text = workspace.subject, workspace.windows
    values, ids = found.activations[text.mask], text.tokens[text.mask].tolist()
    largest = found.statistics.max_activation
    floor = STRONG * largest
    firing = np.flatnonzero(((found.activations > floor) & text.mask).any(1))
    rng = np.random.default_rng([workspace.config.seed, 7])
    some = text.subset(np.sort(rng.permutation(firing)[:windows]))
    tick(0, 4)
    effect = ablation(subject, one, some, floor=floor)
    tick(1, 4)
    contexts = tuple(context_ablation(subject, one, e.tokens) for e in found.exemplars.fit[:TEXTS])
    tick(2, 4)
    lens = _lens(workspace, one, some, floor)
    tick(3, 4)
    matched = None if expression is None else _matched(text, subject, expression)
    return Case(
        unit=found.name,
        maximum=largest,
        histogram=histogram([subject.string(t) for t in ids], values),
        ablation=effect,
        lens=lens,
        contexts=contexts,
        downstream=None if behind is None else downstream(subject, one, behind, some, floor=floor),
        later=None if behind is None else str(behind.site),
        pattern=None if expression is None else expression.pattern,
        against={} if matched is None else {_above(s): against(_fires(values, s, largest), matched) for s in SHARES},
        provenance={},
        string=subject.string,
    )


def _lens(workspace: Workspace, one: CaseUnit, windows: Windows, floor: float) -> Lens | None:
    """None where the model does not say what the unit adds to the stream; the reason is told."""
    streams = last_streams(workspace.subject, one, windows, floor=floor)
    try:
        (effect,) = direct_effects(workspace.subject, one.basis, [one.index], streams)
    except InputError as error:
        workspace.reporter.note(str(error))
        return None
    return Lens(effect.lowered, effect.raised)


def _fires(values: Float[np.ndarray, "token"], share: float, largest: float) -> Bool[np.ndarray, "token"]:
    return np.asarray((values > 0) & (values >= share * largest))


def _above(share: float) -> str:
    return "above 0" if share == 0 else f"from {100 * share:g} % of the maximum"


def _matched(text: Windows, subject: Subject, expression: re.Pattern[str]) -> Bool[np.ndarray, "token"]:
    """Of the scored tokens of all windows, those that match."""
    strings: dict[int, str] = {}
    found = []
    for row, mask in zip(text.tokens, text.mask, strict=True):
        tokens = [strings.setdefault(t, subject.string(t)) for t in row[mask].tolist()]
        found.append(matching(tokens, expression))
    return np.concatenate(found)


def _later(spec: str) -> SaeBasis:
    """The dictionary of a later layer, at the site that it names. Raises `InputError` if it names none."""
    one = load_dictionary(locate_dictionary(spec))
    hook = one.metadata.get("hook_name")
    if hook is None:
        raise InputError(f"dictionary {spec}", "metadata with a hook_name", "none")
    return sae_basis(Site.parse(str(hook)), one)


def _checksums(spec: str | None) -> dict[str, str] | None:
    if spec is None:
        return None
    return checksums(locate_dictionary(spec))


def best_case(
    *,
    dictionary: str,
    out: Path,
    reporter: Reporter,
    pattern: str = APOSTROPHE,
    later: str | None = None,
    windows: int = WINDOWS,
    **options: Any,
) -> Path:
    """Study the feature of a dictionary that predicts tokens of a pattern best, and say how well it does so.

    The feature, and whether all of its activations count or only strong ones, are chosen on the fit documents; the F1
    that is printed is also that of the test documents. The other arguments are those of `case`, which also says when
    nothing is done again. Raises `InputError`.
    """
    expression = compiled(pattern)
    basis = _later(dictionary)
    site = basis.site
    config = config_of(bases="sae", layer=site.layer, stream=site.kind, dictionary=dictionary, **options)
    key = _key(config, None, pattern, later, windows)
    if _finished(out / CASE, key):
        reporter.note(read_json(out / CASE / "case.json")["provenance"]["chosen"]["said"])
        return _told(out / CASE)
    workspace = Workspace(config, out, reporter)
    matched, fit = _matched(workspace.windows, workspace.subject, expression), workspace.fit_tokens
    best = best_unit(basis, workspace.stream[torch.from_numpy(fit)], matched[fit])
    values = basis.encode_features(workspace.stream, torch.tensor([best.unit]))[:, 0].numpy()
    test = against(_fires(values[~fit], best.share, float(values[fit].max())), matched[~fit])
    kind = "the feature of" if best.f1 >= FOUND else "no feature is of these tokens; the nearest is"
    said = (
        f"tokens that match {pattern}: {kind} {site}/sae/{best.unit}, firing {_above(best.share)}: F1 {best.f1:.3f} on "
        f"{int(matched[fit].sum())} tokens of the fit text, {number(test.f1)} on {test.matches} of the test text"
    )
    reporter.note(said)
    chosen = {"said": said, "f1_fit": best.f1, "f1_test": test.f1, "share": best.share, "found": best.f1 >= FOUND}
    unit = f"{site}/sae/{best.unit}"
    return case(
        unit=unit,
        out=out,
        reporter=reporter,
        dictionary=dictionary,
        later=later,
        pattern=pattern,
        windows=windows,
        chosen=chosen,
        within=workspace,
        asked=key,
        **options,
    )
