"""What a study keeps: a record for every unit, a cell for every basis of every layer. Plain values, all of them JSON.

An *explainer* is `graph`, one of the tables of counts, or `shuffled`, the control; texts and metrics are those of
`comparison.results`; kinds of fragments those of `fragments.KINDS`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from saelens_n2g.errors import ArtefactError
from saelens_n2g.jobs.artefacts import read_json
from saelens_n2g.scoring import Confusion
from saelens_n2g.study.matching import Traits
from saelens_n2g.study.nonzero import Nonzero

MOSTLY = 0.5
"""A unit is one of massive activations if at least this share of the fit tokens on which it fires is massive."""


@dataclass(frozen=True)
class UnitRecord:
    """One explained unit."""

    name: str
    index: int
    max_activation: float
    density: float
    """Share of the fit tokens on which it fires (at least half its maximum, or what the rule says)."""
    active: float
    """Share of the fit tokens on which it is above zero."""
    massive: float
    """Of the fit tokens on which it fires, the share on which the residual stream is massive (`stream`)."""
    spread: float | None
    """Variance of the stream along what it reads, over that along the average direction; None for coordinates."""
    fit_firing: int
    test_firing: int
    exemplars: int
    """Fit windows with a firing token, of those that the graph is fitted to."""
    nodes: int | None
    """Of the graph; None without one."""
    paths: int | None
    failure: str | None
    """Why there is no graph. Such a unit is scored as one that is predicted never to fire."""
    twin: str | None
    """An earlier unit of the cell that is its twin (`twins`); such a unit enters no mean and no comparison."""
    shuffled_from: str | None
    """Whose graph the control scores on this unit."""
    text: str
    """The graph in words, its first lines."""
    scores: Mapping[str, Mapping[str, Mapping[str, float | None]]]
    """explainer -> text -> metric -> value."""
    counts: Mapping[str, Mapping[str, Confusion]]
    """explainer -> text -> the token counts behind the metrics."""
    fragments: Mapping[str, Mapping[str, float | None]]
    """explainer -> kind of fragments -> correlation: the interpretability score."""
    nonzero: Nonzero | None
    """The protocol of Gao et al.; None for units of what is no dictionary."""

    @property
    def of_massive(self) -> bool:
        """Whether it fires mostly where the stream is massive."""
        return self.massive >= MOSTLY

    @property
    def traits(self) -> Traits:
        """What it is matched on."""
        return Traits(self.density, self.exemplars)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "UnitRecord":
        """Inverse of `dataclasses.asdict`. Raises `KeyError`, `TypeError` or `AttributeError` if a field is amiss."""
        counts = {e: {t: Confusion(*n) for t, n in texts.items()} for e, texts in value["counts"].items()}
        nonzero = None if value["nonzero"] is None else Nonzero(**value["nonzero"])
        return cls(**{**value, "counts": counts, "nonzero": nonzero})


@dataclass(frozen=True)
class Cell:
    """One basis of one layer."""

    layer: int
    basis: str
    title: str
    """For people."""
    site: str
    n_features: int
    signs: str
    """How negative values were dealt with."""
    counts: Mapping[str, int]
    """`examined` and why units were passed over (dead, rare, dense, silent in test); the rest are `units`."""
    twins: int | None
    """Features of the whole basis whose direction has a twin; None for coordinates."""
    massive_tokens: float
    """Share of the fit tokens on which the layer's residual stream is massive."""
    massive_square: float
    """Their share of its squared distance from the mean."""
    facts: Mapping[str, Any]
    """How the basis was made."""
    units: tuple[UnitRecord, ...]

    @property
    def counted(self) -> tuple[UnitRecord, ...]:
        """The units that enter means and comparisons: no twins of earlier ones."""
        return tuple(unit for unit in self.units if unit.twin is None)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Cell":
        """Inverse of `dataclasses.asdict`; raises as `UnitRecord.from_json`."""
        return cls(**{**value, "units": tuple(UnitRecord.from_json(unit) for unit in value["units"])})

    @classmethod
    def load(cls, path: Path) -> "Cell":
        """Read what `asdict` gave. Raises `ArtefactError` if the file is missing, damaged or something else."""
        try:
            return cls.from_json(read_json(path))
        except (KeyError, TypeError, AttributeError) as error:
            raise ArtefactError(f"file {path}", "a whole cell of a study of this version", repr(error)) from error
