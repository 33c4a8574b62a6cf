"""What is recorded of each unit, whatever was done with it: which it is, how that ended, and why."""

from dataclasses import dataclass
from typing import Any

from saelens_n2g.autointerp.excerpts import Evidence

EXPLAINED, SCORED, FAILED, SILENT = "explained", "scored", "failed", "silent"
"""Statuses: there is a text; there are scores; something went wrong and is worth another try, which the next run makes;
there is nothing to say or to score, as without a graph."""


@dataclass(frozen=True, kw_only=True)
class Ended:
    """A unit and how its explanation or scoring ended."""

    unit: str
    run: str
    basis: str
    layer: int
    status: str
    """One of the statuses above."""
    reason: str = ""
    """Why there is no text or score, in one line."""


def about(unit: Evidence) -> dict[str, Any]:
    """Which unit it is, as fields of `Ended`."""
    return {"unit": unit.name, "run": unit.run, "basis": unit.basis, "layer": unit.layer}
