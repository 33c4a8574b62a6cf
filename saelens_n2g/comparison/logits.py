"""Logit effects of explained units, written beside their graphs: which next tokens each raises and lowers directly."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from saelens_n2g.bases.base import Basis
from saelens_n2g.causal.effects import Effect, Pairs, direct_effects
from saelens_n2g.comparison.selection import unit_name
from saelens_n2g.comparison.workspace import Workspace
from saelens_n2g.errors import InputError
from saelens_n2g.jobs.artefacts import write_json

FOLDER = "logits"
FORMAT, VERSION = "saelens-n2g/logits", 1
DIGITS = 6
"""Significant digits of what is written; more are noise of the arithmetic."""


def write_logits(workspace: Workspace, basis: Basis, indices: Sequence[int], folder: Path) -> dict[str, Any]:
    """Write `logits/UNIT.json` (docs/formats.md) of units into `folder`; returns what holds for all of them.

    Where the model does not say what the units add to its stream no file is written, and the reason is returned as
    `missing` and told.
    """
    streams = workspace.final_streams
    about = {"vocabulary": len(workspace.subject.tokenizer), "positions": len(streams), "missing": None}
    try:
        effects = direct_effects(workspace.subject, basis, indices, streams) if indices else []
    except InputError as error:
        workspace.reporter.note(str(error))
        return {**about, "missing": str(error)}
    shared = {"format": FORMAT, "version": VERSION, "provenance": workspace.provenance()}
    for index, effect in zip(indices, effects, strict=True):
        name = unit_name(basis, index)
        value = {"unit": name, **_as_json(workspace, effect), **about, **shared}
        value.pop("missing")
        write_json(folder / FOLDER / f"{name.replace('/', '_')}.json", value)
    return about


def _as_json(workspace: Workspace, effect: Effect) -> dict[str, Any]:
    def tokens(pairs: Pairs) -> list[dict[str, Any]]:
        return [{"id": t, "token": workspace.subject.string(t), "logit": _rounded(value)} for t, value in pairs]

    return {
        "raised": tokens(effect.raised),
        "lowered": tokens(effect.lowered),
        **{name: _rounded(getattr(effect, name)) for name in ("deviation", "skew", "kurtosis")},
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.{DIGITS}g}")
