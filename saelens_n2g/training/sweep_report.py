"""What a sweep says: its table, how alike dictionaries are, what sparsity costs; JSON, Markdown and figures."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from saelens_n2g.figures import save
from saelens_n2g.jobs.artefacts import write_json, write_text
from saelens_n2g.markdown import grid
from saelens_n2g.sites import Site
from saelens_n2g.training.architectures.registry import find_architecture
from saelens_n2g.training.config import TrainingConfig
from saelens_n2g.training.figures import (
    FrontierPanel,
    FrontierPoint,
    density_figure,
    frontier,
    short,
    similarity_figure,
)
from saelens_n2g.training.loop import TrainingResult
from saelens_n2g.training.metrics import FeatureDensity, feature_density
from saelens_n2g.training.references import TABLE_FEATURES, chance_mmcs, mmcs_table

FORMAT, VERSION = "saelens-n2g/sweep", 1
SWEEP = "sweep.json"
"""Written last: whoever finds it finds all dictionaries and figures."""
APART = 0.2
"""Share by which the FVU of typical rows differs from that of all rows where both are drawn."""
PANELS = 16
"""Dictionaries of a site whose firing rates are drawn, at most."""
NOTE = (
    "On activations of documents that nothing was trained on. FVU: fraction of variance unexplained. Typical rows: "
    "those at most three times as far from the centre as the median row. PCA: FVU when only the first L0 principal "
    "components are kept, read off between measured numbers; a dictionary may choose other directions for every row. "
    "CE score: share of the loss caused by zeros at the site that the reconstruction avoids (1: the model does not "
    "notice); KL: nats per token between the model and the model with the reconstruction; both on a few windows.\n"
)
MMCS_NOTE = (
    "Mean over the features of the smaller dictionary (of equal ones the one named first) of the largest cosine to a "
    f"feature of the other; at most {TABLE_FEATURES:,} features of it, evenly spaced. Dictionaries of one seed begin "
    "with the same rows, whatever their size and alpha: only those of different seeds tell whether features are found "
    "again. Chance: what a dictionary of as many random directions as the largest has with another.\n"
)


class Reference(NamedTuple):
    """What principal components leave unexplained at a site, by their number."""

    fvu: list[tuple[int, float]]
    fvu_typical: list[tuple[int, float]]
    """On typical rows."""


@dataclass(frozen=True, eq=False)
class Point:
    """One dictionary of a sweep."""

    name: str
    site: Site
    config: TrainingConfig
    result: TrainingResult

    def as_json(self) -> dict[str, Any]:
        """Settings and figures."""
        test = self.result.test
        return {
            "name": self.name,
            "site": str(self.site),
            "training": self.config.as_json(),
            "steps": self.result.steps,
            "test": test and test.as_json(),
            "behaviour": self.result.behaviour and self.result.behaviour.as_json(),
        }


def table_of(points: Sequence[Mapping[str, Any]]) -> str:
    """One line for each dictionary, for a terminal; points as in `sweep.json`."""
    width = max(len(point["name"]) for point in points)
    lines = []
    for point in points:
        test, model = point["test"], point["behaviour"]
        score = ce_score(point)
        kl = model and model["model_behavior_preservation"]["kl_div_with_sae"]
        what = f"{point['site']}  {point['name']:{width}s}"
        lines.append(
            f"{what}  L0 {test['l0']:8.1f}  FVU {_share(test['fvu'])}  CE score {_share(score)}  KL {_share(kl)}  "
            f"dead {test['dead']:,} of {test['dead'] + test['alive']:,}"
        )
    return "\n".join(lines)


def ce_score(point: Mapping[str, Any]) -> float | None:
    """Share of the loss caused by zeros that a dictionary's reconstruction avoids; None where unknown. A point is as in
    `sweep.json`."""
    found = point["behaviour"]
    return None if found is None else found["model_performance_preservation"]["ce_loss_score"]


def write_comparison(
    points: Sequence[Point], pca: Mapping[Site, Reference], folder: Path, provenance: Mapping[str, Any]
) -> None:
    """Write `sweep.json`, `sweep.md` and the figures of every site into `folder`."""
    likeness = {site: _likeness(points, site) for site in pca}
    value = {
        "format": FORMAT,
        "version": VERSION,
        "points": [point.as_json() for point in points],
        "pca": {str(site): known.fvu for site, known in pca.items()},
        "pca_typical": {str(site): known.fvu_typical for site, known in pca.items()},
        "mmcs": {
            str(site): {"names": names, "values": values, "chance": _chance(points, site)}
            for site, (names, values) in likeness.items()
        },
        "provenance": dict(provenance),
    }
    tables = [
        f"Mean max cosine similarity at {site} (chance: {_chance(points, site):.3f})\n\n{_square(*found)}"
        for site, found in likeness.items()
    ]
    write_text(folder / "sweep.md", "\n".join([table(points, pca), *tables, MMCS_NOTE]))
    for site, known in pca.items():
        if panels := _panels([point for point in points if point.site == site], known):
            save(folder, f"frontier-{site}", partial(frontier, panels, title=f"Dictionaries at {site}"))
        names, values = likeness[site]
        if len(names) > 1:
            title = f"Mean max cosine similarity at {site}"
            save(folder, f"mmcs-{site}", partial(similarity_figure, names, values, title=title))
        if densities := _densities(points, site):
            save(
                folder,
                f"density-{site}",
                partial(density_figure, densities, title=f"How often features at {site} fire"),
            )
    write_json(folder / SWEEP, value)


def _densities(points: Sequence[Point], site: Site) -> dict[str, FeatureDensity]:
    """Firing rates of the dictionaries at a site by name; of many as many as a figure holds, evenly spaced."""
    there = [point for point in points if point.site == site and point.result.dictionary.log10_sparsity is not None]
    chosen = there[:: -(-len(there) // PANELS) or 1]
    rates = {point.name: point.result.dictionary.log10_sparsity for point in chosen}
    return {name: feature_density(found) for name, found in rates.items() if found is not None}


def _likeness(points: Sequence[Point], site: Site) -> tuple[list[str], list[list[float]]]:
    """Names of the dictionaries at a site, and how alike any two are."""
    there = [point for point in points if point.site == site]
    return [point.name for point in there], mmcs_table([point.result.dictionary for point in there])


def _chance(points: Sequence[Point], site: Site) -> float:
    """Similarity to be expected of the largest dictionary at a site if its directions were random."""
    largest = max((p.result.dictionary for p in points if p.site == site), key=lambda one: one.d_sae)
    return chance_mmcs(largest.d_sae, largest.d_in)


def _square(names: Sequence[str], values: Sequence[Sequence[float]]) -> str:
    rows = [[name, *(f"{value:.3f}" for value in row)] for name, row in zip(names, values, strict=True)]
    return grid(["", *names], rows) + "\n"


def _panels(points: Sequence[Point], known: Reference) -> list[FrontierPanel]:
    """The figure of a site: all rows, and the typical ones where they tell another story."""
    every = [mark for point in points if (mark := _mark(point, typical=False)) is not None]
    near = [mark for point in points if (mark := _mark(point, typical=True)) is not None]
    if not every:
        return []
    panels = [FrontierPanel("all rows", every, known.fvu), FrontierPanel("typical rows", near, known.fvu_typical)]
    other = any(abs(a.fvu - b.fvu) > APART * a.fvu for a, b in zip(every, near, strict=False))
    return panels if other and len(near) == len(every) else panels[:1]


def _mark(point: Point, *, typical: bool) -> FrontierPoint | None:
    """The point in the figure; None for a dictionary that is silent everywhere or explains nothing at all."""
    test = point.result.test
    fvu = None if test is None else test.fvu_typical if typical else test.fvu
    if test is None or not test.l0 > 0 or fvu is None:
        return None
    kind = find_architecture(point.config.architecture)
    amount = point.config.alpha if kind.sparsity == "alpha" else point.config.options.get(kind.sparsity)
    series = f"{kind.title}, R {point.config.expansion:g}"
    return FrontierPoint(series, test.l0, fvu, "" if amount is None else short(float(amount)))


def table(points: Sequence[Point], pca: Mapping[Site, Reference]) -> str:
    """The sweep in Markdown: a line for each dictionary, and the reference."""
    lines = [
        "| Site | Dictionary | Features | L0 | FVU | FVU, typical rows | Dead | CE score | KL "
        "| PCA with as many components | PCA, typical rows |",
        "| :--- | :--- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for point in points:
        test = point.result.test
        assert test is not None
        beside = [pca_at(curve, test.l0) for curve in pca[point.site]]
        cells = [f"{test.l0:.1f}", _share(test.fvu), _share(test.fvu_typical), f"{test.dead:,}"]
        cells += [_share(value) for value in (*_in_the_model(point), *beside)]
        features = f"{point.result.dictionary.d_sae:,}"
        lines.append(f"| {point.site} | {point.name} | {features} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n" + "\n" + NOTE


def _in_the_model(point: Point) -> tuple[float | None, float | None]:
    """CE score and KL with the reconstruction in place; None where unknown."""
    found = point.result.behaviour
    return (None, None) if found is None else (found.ce_loss_score, found.kl_div_with_sae)


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def pca_at(curve: Sequence[tuple[int, float]], l0: float) -> float | None:
    """The curve at an L0 between its points; None outside."""
    for (low, above), (high, below) in itertools.pairwise(curve):
        if low <= l0 <= high:
            return above + (below - above) * (l0 - low) / (high - low)
    return None
