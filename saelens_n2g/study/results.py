"""What a study found: its cells, and what follows from them. Written to `results.json`, read by tables and figures.

Whatever follows (means, matched differences) is computed from the cells and the seed, so that a file that is read back
says the same as the one that was written. A *cut* is a layer, or `None` for all layers together.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from saelens_n2g.comparison.results import EXPLAINERS, GRADED, TEXTS
from saelens_n2g.errors import ArtefactError
from saelens_n2g.jobs.artefacts import read_format, write_json
from saelens_n2g.scoring import Summary, compare_paired
from saelens_n2g.study.config import SHUFFLED
from saelens_n2g.study.fragments import KINDS
from saelens_n2g.study.matching import Traits, cliffs_delta, match
from saelens_n2g.study.means import LEAST, gap, stratified
from saelens_n2g.study.records import Cell, UnitRecord

FORMAT, VERSION = "saelens-n2g/study", 2
SHOWN = ("f1", "precision", "recall", *GRADED)
"""Metrics of which means are written."""
SOURCES = (*EXPLAINERS, SHUFFLED)
"""Explainers, the control last."""

CONTROL = ("pca", "random")
"""The second control: what has a reason behind it against what has none."""
SPREADS = ((0.0, 0.1), (0.1, 0.5), (0.5, 2.0), (2.0, float("inf")))
"""Classes of spread, from low to below high; random directions are nearly all in the third."""


@dataclass(frozen=True)
class Versus:
    """F1 of the graphs of one basis against another's, on one text, over all layers."""

    a: str
    b: str
    text: str
    pairs: int
    of_a: int
    """Units of `a` that could have found a partner."""
    of_b: int
    matched: Summary
    """Of a - b over the pairs, layers as strata."""
    p_value: float | None
    """Two-sided, by sign flips over the pairs."""
    effect: float | None
    """Cohen's d of the pairs: mean difference over its standard deviation; None where it is undefined."""
    unmatched: Summary
    """Mean over layers of the difference of means, all units."""
    delta: float | None
    """Cliff's delta of all units, mean over layers."""
    by_layer: Mapping[str, tuple[int, float | None]]
    """Layer -> pairs, and their mean difference."""


@dataclass(frozen=True)
class EqualSize:
    """Two dictionaries of one size under the protocol of Gao et al.: `a` and `b`, over all layers."""

    a: str
    b: str
    metric: str
    """`recall` or `precision`."""
    difference: Summary
    """Mean over layers of the difference of means."""
    ratio: float | None
    """Mean of a over mean of b; None where that is 0 or undefined."""


@dataclass(frozen=True)
class StudyResult:
    """The whole study."""

    cells: tuple[Cell, ...]
    protocol: Mapping[str, Any]
    dictionaries: Mapping[str, Mapping[str, Mapping[str, Any]]]
    """Dictionary -> layer -> what it says of itself."""
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """Bases in the order of the tables."""
        return tuple(self.protocol["names"])

    @property
    def layers(self) -> tuple[int, ...]:
        """Layers in the order of the tables."""
        return tuple(self.protocol["layers"])

    @property
    def seed(self) -> int:
        """Of the bootstrap."""
        return int(self.protocol["bootstrap_seed"])

    def of(self, name: str, layer: int | None = None) -> list[Cell]:
        """The cells of a basis, layers in order."""
        return [cell for cell in self.cells if cell.basis == name and layer in (None, cell.layer)]

    def restricted(self, keep: Callable[[UnitRecord], bool]) -> "StudyResult":
        """The same study of fewer units."""
        cells = (replace(cell, units=tuple(u for u in cell.units if keep(u))) for cell in self.cells)
        return replace(self, cells=tuple(cells))

    @cached_property
    def typical(self) -> "StudyResult":
        """Without units of massive activations."""
        return self.restricted(lambda unit: not unit.of_massive)

    def massive(self, name: str, layer: int | None = None) -> int:
        """Units of a basis that are counted and are of massive activations."""
        return sum(unit.of_massive for cell in self.of(name, layer) for unit in cell.counted)

    def mean(self, name: str, source: str, text: str, metric: str, layer: int | None = None) -> Summary:
        """Mean of a metric over the units of a basis, the layers as strata."""

        def value(unit: UnitRecord) -> float | None:
            return unit.scores[source][text][metric] if source in unit.scores else None

        return stratified([[value(u) for u in cell.counted] for cell in self.of(name, layer)], seed=self.seed)

    def fragments(self, name: str, source: str, kind: str, *, silent: bool = False) -> Summary:
        """Mean interpretability score over the units of a basis. `silent`: where the explanation says one thing of
        all tokens, which leaves the correlation undefined, it counts as 0."""

        def value(unit: UnitRecord) -> float | None:
            found = unit.fragments.get(source, {}).get(kind)
            return 0.0 if found is None and silent and source in unit.fragments else found

        return stratified([[value(u) for u in cell.counted] for cell in self.of(name)], seed=self.seed)

    def nonzero(self, name: str, metric: str, layer: int | None = None) -> Summary:
        """Mean of a field of `Nonzero` over the units of a dictionary."""
        return stratified(self._nonzero(name, metric, layer), seed=self.seed)

    def _nonzero(self, name: str, metric: str, layer: int | None = None) -> list[list[float | None]]:
        return [
            [None if u.nonzero is None else getattr(u.nonzero, metric) for u in cell.counted]
            for cell in self.of(name, layer)
        ]

    @cached_property
    def versus(self) -> tuple[Versus, ...]:
        """Every two bases on both texts."""
        return tuple(self._versus(a, b, text) for a, b in combinations(self.names, 2) for text in TEXTS)

    def of_spread(self, name: str, text: str, low: float, high: float, layer: int | None = None) -> Summary:
        """Mean F1 of the graphs of units whose spread is from `low` to below `high`; without units of massive
        activations."""
        within = self.typical.restricted(lambda unit: unit.spread is not None and low <= unit.spread < high)
        return within.mean(name, "graph", text, "f1", layer)

    @cached_property
    def equal_spread(self) -> tuple[Versus, ...]:
        """The control `CONTROL` on both texts, units paired by their spread instead of density and exemplars.

        Units of massive activations are left out; empty if a side was not looked at.
        """
        if not set(CONTROL) <= set(self.names):
            return ()
        known = self.typical.restricted(lambda unit: bool(unit.spread))
        return tuple(known._versus(*CONTROL, text, lambda unit: Traits(unit.spread or 1.0, 0)) for text in TEXTS)

    def _versus(
        self, a: str, b: str, text: str, traits: Callable[[UnitRecord], Traits] = lambda unit: unit.traits
    ) -> Versus:
        protocol = self.protocol
        differences: list[list[float]] = []
        sides: tuple[list[list[float]], list[list[float]]] = ([], [])
        available = [0, 0]
        by_layer: dict[str, tuple[int, float | None]] = {}
        for left, right in zip(self.of(a), self.of(b), strict=True):
            units = [[u for u in cell.counted if _f1(u, text) is not None] for cell in (left, right)]
            pairs = match(
                [traits(u) for u in units[0]],
                [traits(u) for u in units[1]],
                caliper=protocol["caliper"],
                exemplar_caliper=protocol["exemplar_caliper"],
            )
            values = [[_f1(u, text) or 0.0 for u in side] for side in units]
            found = [values[0][i] - values[1][j] for i, j in pairs]
            differences.append(found)
            by_layer[str(left.layer)] = (len(found), float(np.mean(found)) if found else None)
            for k in range(2):
                sides[k].append(values[k])
                available[k] += len(values[k])
        flat = [d for layer in differences for d in layer]
        paired = compare_paired(flat, [0.0] * len(flat), seed=self.seed)
        deltas = [cliffs_delta(x, y) for x, y in zip(*sides, strict=True) if min(len(x), len(y)) >= LEAST]
        known = [d for d in deltas if d is not None]
        return Versus(
            a=a,
            b=b,
            text=text,
            pairs=len(flat),
            of_a=available[0],
            of_b=available[1],
            matched=stratified(differences, seed=self.seed),
            p_value=paired.p_value,
            effect=paired.effect,
            unmatched=gap(*sides, seed=self.seed),
            delta=float(np.mean(known)) if known else None,
            by_layer=by_layer,
        )

    @cached_property
    def equal_sizes(self) -> tuple[EqualSize, ...]:
        """Every two dictionaries that have as many features at every layer, under the protocol of Gao et al."""
        sizes = {name: [cell.n_features for cell in self.of(name)] for name in self.dictionaries}
        pairs = [(a, b) for a, b in combinations(reversed(list(sizes)), 2) if sizes[a] == sizes[b]]
        return tuple(self._equal_size(a, b, metric) for a, b in pairs for metric in ("recall", "precision"))

    def _equal_size(self, a: str, b: str, metric: str) -> EqualSize:
        difference = gap(self._nonzero(a, metric), self._nonzero(b, metric), seed=self.seed)
        x, y = self.nonzero(a, metric).mean, self.nonzero(b, metric).mean
        return EqualSize(a, b, metric, difference, x / y if x is not None and y else None)

    def followed(self) -> dict[str, Any]:
        """Means and differences as JSON values."""
        cuts: Sequence[int | None] = (*self.layers, None)
        means = {
            n: {s: {t: {m: {_word(c): asdict(self.mean(n, s, t, m, c)) for c in cuts} for m in SHOWN} for t in TEXTS}
                for s in SOURCES}
            for n in self.names
        }  # fmt: skip
        fragments = {n: {s: {k: asdict(self.fragments(n, s, k)) for k in KINDS} for s in SOURCES} for n in self.names}
        return {
            "means": means,
            "fragments": fragments,
            "versus": [asdict(one) for one in self.versus],
            "without_massive": {
                "means": {n: {s: {t: asdict(self.typical.mean(n, s, t, "f1")) for t in TEXTS}
                              for s in ("graph", SHUFFLED)}
                          for n in self.names},
                "versus": [asdict(one) for one in self.typical.versus],
            },
            "spread": {n: {t: {f"{low:g}-{high:g}": asdict(self.of_spread(n, t, low, high)) for low, high in SPREADS}
                           for t in TEXTS}
                       for n in self.names},
            "equal_spread": [asdict(one) for one in self.equal_spread],
            "equal_sizes": [asdict(one) for one in self.equal_sizes],
        }  # fmt: skip

    def save(self, path: Path) -> None:
        """Write as JSON, with what follows beside the units."""
        raw = {f: getattr(self, f) for f in ("protocol", "dictionaries", "provenance")}
        cells = [asdict(cell) for cell in self.cells]
        write_json(path, {"format": FORMAT, "version": VERSION, **raw, "cells": cells, "followed": self.followed()})

    @classmethod
    def load(cls, path: Path) -> "StudyResult":
        """Inverse of `save`. Raises `ArtefactError` if the file is missing, damaged or of another format."""
        value = read_format(path, FORMAT, VERSION)
        try:
            cells = tuple(Cell.from_json(cell) for cell in value["cells"])
            return cls(cells, value["protocol"], value["dictionaries"], value["provenance"])
        except (KeyError, TypeError, AttributeError) as error:
            raise ArtefactError(f"file {path}", "a whole study", repr(error)) from error


def _f1(unit: UnitRecord, text: str) -> float | None:
    return unit.scores["graph"][text]["f1"]


def _word(cut: int | None) -> str:
    return "all" if cut is None else str(cut)
