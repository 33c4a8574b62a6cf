"""The study as Markdown: what may be concluded, then every table behind it."""

from saelens_n2g.comparison.results import EXPLAINERS, TEXTS
from saelens_n2g.comparison.table import (
    ABSENT,
    COUNT_TITLES,
    EXPLAINER_TITLES,
    TEXT_TITLES,
    estimate,
    median,
    number,
    p_value,
    rate,
)
from saelens_n2g.markdown import cell, grid
from saelens_n2g.scoring import Summary
from saelens_n2g.study.cell import title_of
from saelens_n2g.study.conclusions import conclusions, disagreements, limits, same_size, signed
from saelens_n2g.study.config import SHUFFLED
from saelens_n2g.study.fragments import KINDS
from saelens_n2g.study.means import LEAST
from saelens_n2g.study.records import MOSTLY
from saelens_n2g.study.results import SPREADS, StudyResult, Versus
from saelens_n2g.training.metrics import TYPICAL

KIND_TITLES = {
    "top": "Top",
    "random": "Random, where it is active",
    "top_and_random": "Top and random",
    "uniform": "Plain random",
}
SOURCE_TITLES = {**EXPLAINER_TITLES, SHUFFLED: "Another unit's graph"}
SANITY = (
    "Of the scores here F1, AUPRC and correlation over a plain sample of text (the main table's, and the column Plain "
    "random) passed the sanity checks of Oikarinen et al. 2025 (arXiv 2506.05774); recall alone and correlation over "
    "top and random fragments together did not. Top fragments are chosen by what is to be predicted, and so are the "
    "authors' random ones, of which every one has an activation."
)


def headline(result: StudyResult) -> str:
    """What was compared, of which model."""
    model = result.provenance.get("subject", {}).get("model")
    layers = ", ".join(map(str, result.layers))
    return f"Bases side by side: how well graphs predict where units fire, layers {layers}" + (
        f" of {model}" if model else ""
    )


def markdown(result: StudyResult) -> str:
    """The report."""
    parts = [f"**{cell(headline(result))}**", "**What a reader may conclude**", _bullets(conclusions(result))]
    if differ := disagreements(result):
        parts += ["The two texts say opposite things of:", _bullets(differ)]
    parts += ["**What a reader may not conclude**", _bullets(limits(result))]
    parts += ["![F1 by layer](f1_by_layer.svg)", "**Mean scores of the graphs, all layers**", means(result)]
    parts += ["**F1 by layer**, mean with 95 % interval", by_layer(result)]
    parts += ["**Matched for density and exemplars**: difference of F1, a − b", matched(result)]
    parts += ["**Spread**: F1 on random test text by how much the stream varies along what a unit reads"]
    parts += [spread(result), "![F1 by spread](f1_by_spread.svg)"]
    if any(result.massive(name) for name in result.names):
        parts += ["**Massive activations**: F1 without the units that fire mostly on them", massive(result)]
    parts += ["![Differences](differences.svg)", "**Beside the graphs**: F1 of other explanations", beside(result)]
    parts += [f"**Interpretability score** ({result.protocol['fragment']} tokens a fragment)", scores(result), SANITY]
    if result.dictionaries:
        parts += ["**Graphs from random non-zero activations** (Gao et al. 2024, section 4.3)", nonzero(result)]
        parts += [_bullets([same_size(one) for one in result.equal_sizes]) or "No two dictionaries have one size."]
        parts += ["**Dictionaries**", dictionaries(result)]
    parts += ["**Who was explained**", units(result), _bullets(conventions(result))]
    return "\n\n".join(part for part in parts if part) + "\n"


def _bullets(lines: list[str]) -> str:
    return "\n".join(f"- {cell(line)}" for line in lines)


def means(result: StudyResult) -> str:
    """Per basis and text F1 with its interval, precision, recall, AUPRC, correlation, and the control."""
    rows = []
    for name in result.names:
        for text in TEXTS:
            found = {m: result.mean(name, "graph", text, m) for m in ("f1", "precision", "recall", "auprc")}
            rows.append([
                cell(title_of(name)), TEXT_TITLES[text], str(found["f1"].n), estimate(found["f1"]),
                number(found["precision"].mean), number(found["recall"].mean), number(found["auprc"].mean),
                _with_n(result.mean(name, "graph", text, "correlation")),
                estimate(result.mean(name, SHUFFLED, text, "f1")),
            ])  # fmt: skip
    head = ["Basis", "Text", "Units", "F1", "Precision", "Recall", "AUPRC", "Correlation (n)", "F1, shuffled"]
    return grid(head, rows, left=2)


def _with_n(found: Summary) -> str:
    return f"{number(found.mean)} ({found.n})"


def by_layer(result: StudyResult) -> str:
    """F1 of the graphs on both texts, a column per layer."""
    rows = [
        [cell(title_of(name)), TEXT_TITLES[text]]
        + [estimate(result.mean(name, "graph", text, "f1", layer)) for layer in result.layers]
        for name in result.names
        for text in TEXTS
    ]
    return grid(["Basis", "Text", *(f"Layer {layer}" for layer in result.layers)], rows, left=2)


def matched(result: StudyResult) -> str:
    """Every two bases on both texts."""
    head = ["a", "b", "Text", "Pairs of (a, b)", "Matched", "p", "d of pairs", "All units", "Cliff's delta"]
    return grid(head, [_versus(one) for one in result.versus], left=3)


def _versus(one: Versus) -> list[str]:
    return [
        cell(title_of(one.a)), cell(title_of(one.b)), TEXT_TITLES[one.text], f"{one.pairs} of ({one.of_a}, {one.of_b})",
        _signed(one.matched), p_value(one.p_value), number(one.effect), _signed(one.unmatched), number(one.delta),
    ]  # fmt: skip


def _signed(found: Summary) -> str:
    if found.mean is None:
        return ABSENT
    return signed(found) if found.n >= LEAST else f"{found.mean:+.2f}"


def spread(result: StudyResult) -> str:
    """F1 on random test text in classes of spread, number of units in brackets; then the control at equal spread."""
    rows = []
    for name in result.names:
        if all(u.spread is None for found in result.of(name) for u in found.units):
            continue
        cuts = [result.of_spread(name, "random", low, high) for low, high in SPREADS]
        middle = median(u.spread for c in result.typical.of(name) for u in c.counted if u.spread is not None)
        rows.append([cell(title_of(name)), number(middle), *(f"{estimate(one)} ({one.n})" for one in cuts)])
    if not rows:
        return "No unit reads a direction of the stream."
    head = ["Basis", "Median spread", *(_class(low, high) for low, high in SPREADS)]
    parts = [grid(head, rows), "Without units of massive activations; number of units in brackets."]
    if result.equal_spread:
        known = [[*_versus(one)[:6], number(one.effect)] for one in result.equal_spread]
        parts.append(
            "The second control with units paired by spread (at most "
            f"{result.protocol['caliper']:g} decades apart) instead of density and exemplars:"
        )
        parts.append(grid(["a", "b", "Text", "Pairs of (a, b)", "F1, a − b", "p", "d of pairs"], known, left=3))
    return "\n\n".join(parts)


def _class(low: float, high: float) -> str:
    return f"below {high:g}" if low == 0 else f"from {low:g}" if high == float("inf") else f"{low:g} to {high:g}"


def massive(result: StudyResult) -> str:
    """Per basis and text F1 of graphs and control with and without units of massive activations."""
    rows = []
    for name in result.names:
        for text in TEXTS if result.massive(name) else ():
            found = [one.mean(name, s, text, "f1") for s in ("graph", SHUFFLED) for one in (result, result.typical)]
            several = f"{result.massive(name)} of {sum(len(c.counted) for c in result.of(name))}"
            rows.append([cell(title_of(name)), TEXT_TITLES[text], several, *map(estimate, found)])
    head = ["Basis", "Text", "Units", "F1", "F1 without them", "Shuffled", "Shuffled without them"]
    layers = "; ".join(
        f"layer {layer} {rate(one.massive_tokens)} of tokens with {rate(one.massive_square)} of the squared distance"
        for layer in result.layers
        for one in result.of(result.names[0], layer)
        if one.massive_tokens
    )
    return grid(head, rows, left=2) + f"\n\nMassive in the fit text: {layers}. Bases that are not listed have none."


def beside(result: StudyResult) -> str:
    """F1 of every explanation on both texts."""
    sources = (*EXPLAINERS, SHUFFLED)
    rows = [
        [cell(title_of(name)), TEXT_TITLES[text], *(estimate(result.mean(name, s, text, "f1")) for s in sources)]
        for name in result.names
        for text in TEXTS
    ]
    return grid(["Basis", "Text", *(SOURCE_TITLES[s] for s in sources)], rows, left=2)


def scores(result: StudyResult) -> str:
    """Mean correlation over each kind of fragments, per basis and explanation; units with a value in brackets."""
    rows = []
    for name in result.names:
        for source in (*EXPLAINERS, SHUFFLED):
            found = [result.fragments(name, source, kind) for kind in KINDS]
            silent = result.fragments(name, source, "uniform", silent=True)
            values = [f"{estimate(f)} ({f.n})" for f in found]
            rows.append([cell(title_of(name)), SOURCE_TITLES[source], *values, estimate(silent)])
    head = ["Basis", "Explanation", *(KIND_TITLES[kind] for kind in KINDS), "Plain random, undefined as 0"]
    return grid(head, rows, left=2)


def nonzero(result: StudyResult) -> str:
    """Recall and precision per dictionary, and what a graph that matches at random would have."""
    rows = []
    for name in result.dictionaries:
        sizes = sorted({found.n_features for found in result.of(name)})
        records = [u.nonzero for found in result.of(name) for u in found.counted if u.nonzero is not None]
        rows.append([
            cell(name), ", ".join(map(str, sizes)), str(len(records)), str(sum(r.failure is not None for r in records)),
            estimate(result.nonzero(name, "recall")), estimate(result.nonzero(name, "precision")),
            rate(result.nonzero(name, "active").mean), rate(result.nonzero(name, "matched").mean),
            number(median(r.nodes for r in records if r.nodes is not None), 0),
        ])  # fmt: skip
    head = ["Dictionary", "Features", "Units", "No graph", "Recall", "Precision", "Active", "Matched", "Nodes"]
    note = (
        f"\n\nGraphs by `suffix` from up to {result.protocol['nonzero']} random non-zero activations of the fit "
        "documents; recall on as many of the test documents; precision on all test text. Any match counts, and any "
        "activation. Active: share of tokens on which the unit is non-zero, the precision of matching at random."
    )
    return grid(head, rows) + note


def dictionaries(result: StudyResult) -> str:
    """What each says of itself, per layer."""
    rows = []
    for name, layers in result.dictionaries.items():
        for layer, said in layers.items():
            (found,) = result.of(name, int(layer))
            rows.append([
                cell(name), layer, str(said["d_sae"]), number(said.get("fvu"), 3), number(said.get("l0"), 1),
                _count(said.get("dead")), _count(found.twins),
            ])  # fmt: skip
    return grid(["Dictionary", "Layer", "Features", "FVU", "L0", "Dead in test", "With a twin direction"], rows)


def _count(value: int | None) -> str:
    return ABSENT if value is None else str(value)


def units(result: StudyResult) -> str:
    """Where examined units went, per basis and layer; median density, exemplars and size of graphs."""
    fates = [key for key in COUNT_TITLES if key not in ("explained", "failed")]
    rows = []
    for name in result.names:
        for one in result.of(name):
            lost = [str(one.counts.get(key, 0)) for key in fates]
            failed, twins = sum(u.failure is not None for u in one.units), len(one.units) - len(one.counted)
            rows.append([
                cell(one.title), str(one.layer), str(one.counts["examined"]), *lost, str(len(one.units)), str(failed),
                str(twins), str(result.massive(name, one.layer)), rate(median(u.density for u in one.counted)),
                number(median(u.exemplars for u in one.counted), 0),
                number(median(u.nodes for u in one.counted if u.nodes is not None), 0),
            ])  # fmt: skip
    head = ["Basis", "Layer", "Examined", *(COUNT_TITLES[key].capitalize() for key in fates), "Explained"]
    return grid([*head, "No graph", "Twins", "Massive", "Density", "Exemplars", "Nodes"], rows)


def conventions(result: StudyResult) -> list[str]:
    """The sentences without which the tables mislead."""
    p = result.protocol
    return [
        f"{p['rule']} The order is another one in every layer.",
        f"Graphs are fitted with the method {p['method']['name']} to at most {p['exemplars']} top windows of the fit "
        f"documents{' and the fit text' if 'text' in p['reads'] else ''}. A unit without graph is scored as one that "
        "is predicted never to fire.",
        "Shuffled: every unit is given the graph of another unit of its basis and layer, along a random circle; "
        "nothing is fitted, and twins stay out of it.",
        f"Massive: positions whose activation lies more than {TYPICAL:g} times as far from the mean of the fit "
        "documents as the median one. A unit counts as one of massive activations if at least "
        f"{100 * MOSTLY:g} % of the fit tokens on which it fires are such; it is in all means but those said to be "
        "without.",
        "Spread: variance of the residual stream along what a unit reads, over the mean variance of a dimension, on "
        "fit tokens that are not massive; 1 on average over random directions. Neurons read another place and have "
        "none.",
        f"Matched: one to one, at most {p['caliper']:g} decades of density and {p['exemplar_caliper']} exemplars "
        "apart; of all pairings with the most pairs the closest. Exemplars: fit windows with a firing token, of those "
        f"the graph is fitted to. Below {LEAST} pairs no interval is given.",
        f"Twins: units whose direction or activations have a cosine above {p['twin']:g} with those of an earlier unit "
        "of the cell; they are listed and enter no mean and no comparison.",
        "Intervals are 95 % bootstrap intervals, units resampled within their layer. d: mean over standard deviation "
        "of the paired differences. Cliff's delta: chance that a unit of a is above one of b, less the reverse.",
        "Held-out top windows: each unit's strongest windows of the test documents. Random test text: all windows of "
        "the test documents.",
        "Interpretability score: correlation of predicted and true activation over the tokens of up to "
        f"{p['fragments']} fragments of each kind together ({p['uniform']} of the plain random ones). Undefined where "
        "the unit or the explanation is the same on all tokens; the number of units that define it stands in brackets.",
    ]
