"""A run over layers as Markdown: Foote et al.'s table 1 for every method, with the tables of counts beside it."""

from saelens_n2g.comparison.layer_results import ALL, MICRO, LayerResult, LayersResult
from saelens_n2g.comparison.results import GRADED, METRICS, TEXTS
from saelens_n2g.comparison.table import (
    ABSENT,
    COUNT_TITLES,
    EXPLAINER_TITLES,
    OTHER_TITLES,
    TEXT_TITLES,
    estimate,
    median,
    number,
    p_value,
    percent,
)
from saelens_n2g.markdown import cell, grid


def title_of(name: str) -> str:
    """A system's name for people: methods by their own, tables of counts in words."""
    return EXPLAINER_TITLES.get(name, name)


def headline(result: LayersResult) -> str:
    """What was explained, of which model, in one line."""
    model = result.provenance.get("subject", {}).get("model")
    return f"How well graphs predict where units fire, by layer: {result.title}" + (f" of {model}" if model else "")


def markdown(result: LayersResult) -> str:
    """The report: scores on both texts, paired differences, who was explained at what cost, conventions."""
    parts = [f"**{cell(headline(result))}**"]
    for text in TEXTS:
        parts += [f"**{TEXT_TITLES[text]}**: means over units, F1 with its 95 % interval", _scores(result, text)]
    parts += ["**Without a threshold, and by token**, random test text", _others(result)]
    parts += ["**Unit by unit**: difference of F1, mean with 95 % interval", _versus(result)]
    parts += ["**Who was explained, how large the graphs are, what the fits asked of the model**", _units(result)]
    parts += ["\n".join(f"- {cell(line)}" for line in conventions(result))]
    return "\n\n".join(parts) + "\n"


def conventions(result: LayersResult) -> list[str]:
    """The sentences without which the tables mislead."""
    augmenters = {s.name: s.facts.get("augmenter") for layer in result.layers for s in layer.systems if s.facts}
    reading = ", ".join(name for name, read in result.protocol["reads"].items() if "text" in read)
    named = ", ".join(f"{name}: {who or 'nobody'}" for name, who in augmenters.items())
    return [
        f"Units of a layer: {result.protocol['rule']} All methods and tables are scored on the same units.",
        "A unit whose fit ended without a graph (column Failed) is scored as one that is predicted never to fire: "
        "recall and F1 0, no precision.",
        "Held-out top windows are each unit's strongest windows of the test documents (after Foote et al. 2023); "
        "random test text is all windows of the test documents.",
        "Precision is undefined where nothing is predicted, correlation where all predictions are equal; both are left "
        "out of their means there. Quiet: the scores of non-firing tokens, near 1 for almost any explanation.",
        "Token table and back-off table are fitted on the unit's strongest windows of the fit text, its exemplars; the "
        "back-off table over the whole fit text on all text that the exemplars were chosen from, which of the methods "
        f"read: {reading or 'none'}. All methods ask the model about further texts, which no table does.",
        "Intervals are 95 % bootstrap intervals, units resampled; p-values are of a paired sign-flip test.",
        f"Substitutes were proposed by: {named}.",
    ]


def _rows(result: LayersResult) -> list[tuple[str, str]]:
    """(cut, system) of every row, layers in order, all together last."""
    return [(cut, name) for cut in result.means for name in result.names]


def _layer_word(cut: str) -> str:
    return "all" if cut == ALL else cut


def _members(result: LayersResult, cut: str) -> list[LayerResult]:
    return [layer for layer in result.layers if cut in (ALL, str(layer.layer))]


def _scores(result: LayersResult, text: str) -> str:
    words = [metric.replace("_", " ").capitalize().replace("f1", "F1") for metric in METRICS]
    rows = []
    for cut, name in _rows(result):
        layers, found = _members(result, cut), result.means[cut][name][text]
        failed = sum(len(layer.system(name).failures) for layer in layers)
        values = [
            estimate(found[m]) if m == "f1" else number(found[m].mean, 3 if m.startswith("quiet") else 2)
            for m in METRICS
        ]
        scored = sum(len(layer.units) for layer in layers)
        rows.append([_layer_word(cut), title_of(name), str(scored), str(failed), *values, number(found["f1"].median)])
    return grid(["Layer", "Explained by", "Units", "Failed", *words, "Median F1"], rows, left=2)


def _others(result: LayersResult) -> str:
    keys = (*GRADED, MICRO)
    rows = [
        [_layer_word(cut), title_of(name), *(estimate(result.means[cut][name]["random"][key]) for key in keys)]
        for cut, name in _rows(result)
    ]
    return grid(["Layer", "Explained by", *(OTHER_TITLES[key] for key in keys)], rows, left=2)


def _versus(result: LayersResult) -> str:
    widest = list(result.means)[-1]
    rows = []
    for one in (one for one in result.versus if one.cut == widest):
        shares = [percent(share) for share in (one.found.better, one.found.equal, one.found.worse)]
        text = TEXT_TITLES[one.text].lower()
        pair = f"{title_of(one.a)} − {title_of(one.b).lower()}"
        values = [estimate(one.found.difference), p_value(one.found.p_value), " / ".join(shares)]
        rows.append([pair, text, *values])
    note = "\n\nUnits of all layers together; each layer by itself stands in `layers.json`."
    return grid(["Pair", "Text", "Difference of F1", "p", "Better / equal / worse"], rows, left=2) + note


def _units(result: LayersResult) -> str:
    fates = [key for key in COUNT_TITLES if key in result.layers[0].counts]
    head = ["Layer", "Site", "Units", "Examined", *(COUNT_TITLES[key].capitalize() for key in fates)]
    for method in result.methods:
        head += [f"Nodes, {method}", f"Tokens a unit, {method}", f"Calls a unit, {method}"]
    rows = []
    for layer in result.layers:
        cells = [str(len(layer.units)), *(str(layer.counts[key]) for key in ("examined", *fates))]
        for method in result.methods:
            system, n = layer.system(method), len(layer.units)
            cells.append(number(median(system.nodes.values()), 0))
            cells += [_each(system.costs, "tokens", n, 0), _each(system.costs, "calls", n, 1)]
        rows.append([str(layer.layer), layer.site, *cells])
    note = (
        "\n\nNodes: median over the graphs. Tokens and calls: of the subject up to the layer, with what a method asks "
        "once for all units, without substitutes."
    )
    return grid(head, rows, left=2) + note


def _each(costs: dict[str, int], key: str, n: int, digits: int) -> str:
    return number(costs[key] / n, digits) if n and key in costs else ABSENT
