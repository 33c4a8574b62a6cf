"""The chapter on dictionaries: what sparsity costs, how many features are dead, whether seeds and sizes agree."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from saelens_n2g.jobs.artefacts import read_format
from saelens_n2g.report.chapters import Chapter, Figure, expecting, read_text
from saelens_n2g.sites import Site
from saelens_n2g.training.sweep_report import FORMAT, SWEEP, VERSION, ce_score, pca_at

KINDS = {
    "frontier": "FVU against L0 at {site}: lower and further left is better. The line: principal components.",
    "mmcs": "Mean max cosine similarity between the dictionaries at {site}: 1 means the same features.",
    "density": "How often the features at {site} fire, dead ones apart.",
}
LIMITS = (
    "Dictionaries are trained for minutes. Their FVU, L0 and dead features are those of such dictionaries, not of the "
    "architecture; a longer run moves all three.",
    "A high similarity between seeds says that features are found again, not that they are meaningful.",
)


def of_sweep(folder: Path, command: str) -> Chapter:
    """The chapter of a finished sweep. Raises `ArtefactError` if there is none."""
    value = read_format(folder / SWEEP, FORMAT, VERSION)
    with expecting(folder / SWEEP, "points, pca and mmcs of a sweep"):
        sites = sorted(value["pca"], key=Site.parse)
        said = tuple(sentence for site in sites for sentence in _said(value, site))
        provenance = value["provenance"]
    there = [
        Figure(folder / f"{kind}-{site}", caption.format(site=site))
        for site in sites
        for kind, caption in KINDS.items()
        if (folder / f"{kind}-{site}.svg").exists()
    ]
    text = read_text(folder / "sweep.md")
    return Chapter(
        name="dictionaries",
        title="Dictionaries",
        question="What does sparsity cost, and do seeds and sizes find the same features?",
        command=command,
        said=said,
        limits=LIMITS,
        tables=(("All dictionaries", text.split("\n\n")[0]),),
        figures=tuple(there),
        text="\n\n".join([text, *(f"![{f.caption}]({f.path.name}.svg)" for f in there)]),
        folder=folder,
        data=folder / SWEEP,
        provenance=provenance,
    )


def _said(value: Mapping[str, Any], site: str) -> Iterator[str]:
    points = [point for point in value["points"] if point["site"] == site]
    known = [p for p in points if p["test"]["fvu_typical"] is not None and p["test"]["l0"] > 0]
    by_l0 = sorted(known, key=lambda p: p["test"]["l0"])
    if by_l0:
        few, many = by_l0[0]["test"], by_l0[-1]["test"]
        curve = [(int(k), float(fvu)) for k, fvu in value["pca_typical"][site]]
        beside = [(p, at) for p in known if (at := pca_at(curve, p["test"]["l0"])) is not None]
        ahead = sum(p["test"]["fvu_typical"] < at for p, at in beside)
        pca = f"; {ahead} of {len(beside)} rebuild them better than as many principal components do" if beside else ""
        yield (
            f"{site}: of the variance of typical activations {len(known)} dictionaries leave "
            f"{many['fvu_typical']:.3f} unexplained with {many['l0']:.0f} active features, {few['fvu_typical']:.3f} "
            f"with {few['l0']:.0f}{pca}."
        )
    dead = [p["test"]["dead"] / (p["test"]["dead"] + p["test"]["alive"]) for p in points]
    scores = [s for p in points if (s := ce_score(p)) is not None]
    model = (
        f"; with them in place {_range(scores, '.3f')} of the loss that zeros would cost is avoided" if scores else ""
    )
    yield f"{site}: {_range([100 * share for share in dead], '.1f')} % of the features are dead{model}."
    yield from _alike(value["mmcs"][site], points, site)


def _range(values: Sequence[float], digits: str) -> str:
    """`0.1 to 0.4`, or one number where they are the same."""
    low, high = f"{min(values):{digits}}", f"{max(values):{digits}}"
    return low if low == high else f"{low} to {high}"


def _alike(known: Mapping[str, Any], points: Sequence[Mapping[str, Any]], site: str) -> Iterator[str]:
    """How alike dictionaries of different seeds are, which begin with nothing in common: all else equal, or the size
    another too."""
    at = {name: place for place, name in enumerate(known["names"])}
    titles = {("seed",): "other seed, same settings", ("expansion", "seed"): "other seed, other size"}
    for fields, title in titles.items():
        values = [
            known["values"][at[a["name"]]][at[b["name"]]]
            for a, b in combinations(points, 2)
            if sorted(k for k in a["training"] if a["training"][k] != b["training"][k]) == list(fields)
        ]
        if values:
            mean, pairs = sum(values) / len(values), f"{len(values)} pair{'s' * (len(values) > 1)}"
            yield (
                f"{site}: {title}: a feature's nearest neighbour in the other dictionary has a cosine of {mean:.2f} on "
                f"average ({_range(values, '.2f')} over {pairs}; chance: {known['chance']:.2f})."
            )
