"""The comparison as tables: Markdown for a README or a paper's appendix, and one that fits a terminal.

Every basis is one row of every table, also one in which no unit could be explained: an absent row would read as a
basis that was never tried. No value is marked as the best; the intervals are there to be compared.
"""

from collections.abc import Collection, Iterable

from rich import box
from rich.table import Table
from rich.text import Text

from saelens_n2g.comparison.results import EXPLAINERS, METRICS, TEXTS, BasisResult, ComparisonResult, Summary
from saelens_n2g.markdown import cell, grid
from saelens_n2g.scoring import PairedComparison, compare_paired

TEXT_TITLES = {"held_out": "Held-out top windows", "random": "Random test text"}
EXPLAINER_TITLES = {
    "graph": "Graph",
    "token_table": "Token table",
    "backoff_table": "Back-off table",
    "backoff_table_corpus": "Back-off table, whole fit text",
}
COUNT_TITLES = {
    "explained": "explained",
    "dead": "dead",
    "rare": "too rare",
    "dense": "too dense",
    "silent_in_test": "silent in test",
    "failed": "failed",
}
"""Where an examined unit can end, in the order in which tables name it."""
OTHER_TITLES = {"auprc": "AUPRC", "correlation": "Correlation", "micro_f1": "Micro F1"}
"""Further means on random test text: the two `GRADED` metrics, and F1 of all units' counts added up."""
READING_TITLES = {
    "text": "the whole fit text",
    "alone": "what the unit does on every token of the vocabulary without context",
    "neighbours": "which tokens have similar input embeddings",
}
"""What a method may make use of beside the exemplars (`graphs.methods.READINGS`)."""
SHAPE_HEAD = (
    "Graphs that fire",
    "Sub-graphs, mean",
    "Median",
    "Exactly one",
    "One, case and space aside",
    "Largest one's share of examples",
    "With a core token",
)
SHAPE_NOTE = (
    "Sub-graphs are the disconnected parts of a unit's graph (Foote et al. 2023, appendix A.1: polysemanticity \"often "
    'shows up clearly in the neuron graphs as distinct, disconnected subgraphs"); the paper counts none, how they are '
    "counted here is written in docs/protocol.md. Core token: one that never activates and that all paths of a "
    "sub-graph pass. More examples and finer paths make more sub-graphs, so only units fitted alike, with one method "
    "and as many examples, compare; and a unit that fires on many tokens has many without being a riddle."
)
ABSENT = "–"
"""Stands where a value is undefined; never a zero."""
_NOTHING = Summary(None, None, None, None, 0)


def summary_of(basis: BasisResult, explainer: str, text: str, metric: str) -> Summary:
    """One summary of a basis; one with `n = 0` where the basis has none, as when no unit was explained."""
    return basis.summary.get(explainer, {}).get(text, {}).get(metric, _NOTHING)


def share_of(basis: BasisResult, explainer: str, text: str) -> Summary:
    """Share of the basis' units with F1 >= 0.5; `n = 0` where there is none."""
    return basis.share_f1_half.get(explainer, {}).get(text, _NOTHING)


def other_of(basis: BasisResult, explainer: str, which: str) -> Summary:
    """One of `OTHER_TITLES` on random test text; `n = 0` where there is none."""
    if which == "micro_f1":
        return basis.micro.get(explainer, {}).get("random", {}).get("f1", _NOTHING)
    return summary_of(basis, explainer, "random", which)


def number(value: float | None, digits: int = 2) -> str:
    """A value with fixed digits, `ABSENT` for None."""
    return ABSENT if value is None else f"{value:.{digits}f}"


def percent(value: float | None, digits: int = 0) -> str:
    """A share as per cent, `ABSENT` for None."""
    return ABSENT if value is None else f"{100 * value:.{digits}f} %"


def rate(value: float | None) -> str:
    """A small share as per cent with two significant digits (`0.014 %`), `ABSENT` for None."""
    if value is None:
        return ABSENT
    shown = 100 * value
    return f"{shown:.2g} %" if 1e-4 <= shown < 9.5 or shown == 0 else f"{shown:.0f} %" if shown >= 1 else "< 0.0001 %"


def interval(summary: Summary) -> str:
    """The 95 % interval, `[0.55, 0.67]`; empty where there is none."""
    if summary.low is None or summary.high is None:
        return ""
    return f"[{summary.low:.2f}, {summary.high:.2f}]"


def estimate(summary: Summary) -> str:
    """Mean and interval, `0.61 [0.55, 0.67]`; `ABSENT` where no unit defines the metric."""
    return f"{number(summary.mean)} {interval(summary)}".rstrip()


def median(values: Iterable[float]) -> float | None:
    """The median (mean of the middle two), None of nothing."""
    ordered = sorted(values)
    if not ordered:
        return None
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2


def fates(basis: BasisResult) -> list[tuple[str, str, int]]:
    """(key, words, number of units) for each place an examined unit went, unknown keys of `counts` last."""
    known = [(key, words, basis.counts.get(key, 0)) for key, words in COUNT_TITLES.items()]
    others = sorted(basis.counts.keys() - COUNT_TITLES.keys() - {"examined"})
    return known + [(key, key.replace("_", " "), basis.counts[key]) for key in others]


def rival_of(result: ComparisonResult) -> str:
    """The table of counts that knows what the graphs know: the exemplars, or all fit text where the method reads it."""
    return "backoff_table_corpus" if "text" in result.protocol.get("reads", ()) else "backoff_table"


def rival_words(result: ComparisonResult) -> str:
    """What `rival_of` was fitted on, and why it is that one."""
    if rival_of(result) == "backoff_table_corpus":
        return "the one from the whole fit text, which the graphs read too"
    return "the one from the unit's exemplars, which is all text that the graphs read"


def standing(basis: BasisResult, rival: str, text: str) -> tuple[int, int, int]:
    """Units in which the graph's F1 is above, equal to and below that of `rival`; units lacking either are left out."""
    ahead = tied = behind = 0
    for unit in basis.units:
        ours = unit.scores.get("graph", {}).get(text, {}).get("f1")
        theirs = unit.scores.get(rival, {}).get(text, {}).get("f1")
        if ours is None or theirs is None:
            continue
        if abs(ours - theirs) < 1e-9:
            tied += 1
        elif ours > theirs:
            ahead += 1
        else:
            behind += 1
    return ahead, tied, behind


def lead(basis: BasisResult, text: str, rival: str) -> PairedComparison:
    """The graph's F1 against that of `rival`, unit by unit."""
    scores = [unit.scores for unit in basis.units]
    return compare_paired([s["graph"][text]["f1"] for s in scores], [s[rival][text]["f1"] for s in scores], seed=0)


def p_value(value: float | None) -> str:
    """A p-value with two digits that say something, `ABSENT` for None."""
    if value is None:
        return ABSENT
    return "< 0.001" if value < 0.001 else f"{value:.3f}" if value < 0.1 else f"{value:.2f}"


def places_of(basis: BasisResult, rival: str, text: str) -> str:
    """`standing` in words, `14 / 0 / 11`; `ABSENT` where no unit was explained."""
    places = standing(basis, rival, text)
    return " / ".join(map(str, places)) if any(places) else ABSENT


def conventions(result: ComparisonResult) -> list[str]:
    """The sentences without which the tables mislead, one convention each."""
    lines = [
        "A unit fires on a token where its activation is at least half of its maximum in the fit corpus; an "
        "explanation predicts firing where it predicts at least half.",
        "Held-out top windows are each unit's strongest windows of the test documents (after Foote et al. "
        "2023); random test text is all windows of the test documents, where false alarms have room.",
        "Means weigh every explained unit alike. [Intervals] are 95 % bootstrap intervals of the mean, units "
        "resampled: they say how much depends on the choice of units, not on corpus, seed or dictionary.",
        _silent_predictions(result),
        "Quiet F1 is the F1 of non-firing tokens. Nearly all tokens are quiet, so it is near 1 for almost any "
        "explanation.",
        "The token table holds one value a token; the back-off table the longest context seen, with smoothed "
        "shares. Both are fitted on the unit's strongest windows of the fit text, its exemplars; the one over the "
        "whole fit text on all text that the exemplars were chosen from.",
        "AUPRC: area under the precision-recall curve of the predicted activations; chance is the share of tokens "
        "that fire. Correlation: Pearson's r of predicted and actual activation, undefined where nothing is "
        "predicted. Micro F1: F1 of all units' counts added up, in which units that fire often weigh more.",
        "Units that were examined but not explained enter no mean; another table says where they went. "
        f"{ABSENT} means that no unit defines the value.",
    ]
    if method := result.protocol.get("method"):
        lines.append(_knowledge(method["name"], result.protocol.get("reads", ())))
    if augmenter := result.protocol.get("augmenter"):
        lines.append(f"Substitutes for important tokens were proposed by: {augmenter}.")
    for basis in result.bases:
        if basis.facts.get("converged") is False:
            found = f"its fit had not converged after {basis.facts.get('iterations')} iterations"
            lines.append(f"{basis.title}: {found}; take them as what that many iterations give.")
    signs = "; ".join(f"{basis.title}: {basis.signs.rstrip('.')}" for basis in result.bases)
    return [*lines, f"Negative values: {signs}."] if signs else lines


def _knowledge(method: str, reads: Collection[str]) -> str:
    """What the graphs were made from, and what no table of counts has."""
    known = [READING_TITLES[reading] for reading in READING_TITLES if reading in reads] or ["the exemplars"]
    return (
        f"Graphs were fitted with the method `{method}`. It reads {', '.join(known)}; and it asks the model for the "
        "unit's activation on texts of its own making, which no table of counts does."
    )


def _silent_predictions(result: ComparisonResult) -> str:
    """How many units lack a precision because their graph predicted no firing."""
    parts = []
    for text in TEXTS:
        absent = [
            (basis.title, len(basis.units) - summary_of(basis, "graph", text, "precision").n) for basis in result.bases
        ]
        named = ", ".join(f"{title} {n}" for title, n in absent if n > 0)
        parts.append(f"{TEXT_TITLES[text].lower()}: {named or 'none'}")
    return (
        "Where a graph predicts no firing at all, its precision is undefined and left out of the mean, and its F1 is "
        f"0 (units without precision, {'; '.join(parts)})."
    )


def markdown(result: ComparisonResult) -> str:
    """The report as Markdown: scores on both texts, graph against tables, where the units went, conventions."""
    parts = []
    for text in TEXTS:
        head = [
            "Basis",
            "Site",
            "Explained / examined",
            "Precision",
            "Recall",
            "F1",
            "Median F1",
            "F1 ≥ 0.5",
            "Quiet F1",
        ]
        parts += [f"**{TEXT_TITLES[text]}**", grid(head, [_score_row(basis, text) for basis in result.bases], left=2)]
    parts += ["**Does the graph beat a table of counts?** Mean F1.", _rival_grid(result)]
    parts += ["**Without a threshold, and by token**, random test text", _other_grid(result)]
    parts += ["**Every metric of the graphs**, mean with 95 % interval", _full_grid(result)]
    parts += ["**How many behaviours a graph shows** (polysemanticity)", _shape_grid(result)]
    parts += ["**Where the examined units went, and how large the graphs are**", _fate_grid(result)]
    parts += ["\n".join(f"- {cell(line)}" for line in conventions(result))]
    return "\n\n".join(parts) + "\n"


def _score_row(basis: BasisResult, text: str) -> list[str]:
    f1 = summary_of(basis, "graph", text, "f1")
    return [
        basis.title,
        basis.site,
        f"{len(basis.units)} / {basis.counts.get('examined', 0)}",
        number(summary_of(basis, "graph", text, "precision").mean),
        number(summary_of(basis, "graph", text, "recall").mean),
        estimate(f1),
        number(f1.median),
        percent(share_of(basis, "graph", text).mean),
        number(summary_of(basis, "graph", text, "quiet_f1").mean, 3),
    ]


def _rival_grid(result: ComparisonResult) -> str:
    rival, titles = rival_of(result), [EXPLAINER_TITLES[e] for e in EXPLAINERS]
    head = ["Basis", "Text", *titles, "Graph − rival, unit by unit", "p", "Graph ahead / tied / behind"]
    rows = []
    for basis in result.bases:
        for text in TEXTS:
            means = [estimate(summary_of(basis, explainer, text, "f1")) for explainer in EXPLAINERS]
            versus = lead(basis, text, rival)
            compared = [estimate(versus.difference), p_value(versus.p_value), places_of(basis, rival, text)]
            rows.append([basis.title, TEXT_TITLES[text].lower(), *means, *compared])
    note = (
        f"\n\nThe last three columns compare with the back-off table that knows as much, {rival_words(result)}: mean "
        "difference of F1 with its 95 % bootstrap interval over units, p-value of a paired sign-flip test, and number "
        "of units."
    )
    return grid(head, rows, left=2) + note


def _other_grid(result: ComparisonResult) -> str:
    head = ["Basis", "Mean", *(EXPLAINER_TITLES[e] for e in EXPLAINERS)]
    rows = [
        [basis.title, title, *(estimate(other_of(basis, explainer, which)) for explainer in EXPLAINERS)]
        for basis in result.bases
        for which, title in OTHER_TITLES.items()
    ]
    return grid(head, rows, left=2)


def _full_grid(result: ComparisonResult) -> str:
    names = [metric.replace("_", " ").capitalize().replace("f1", "F1") for metric in METRICS]
    rows = [
        [
            basis.title,
            TEXT_TITLES[text].lower(),
            *(estimate(summary_of(basis, "graph", text, metric)) for metric in METRICS),
            estimate(share_of(basis, "graph", text)),
        ]
        for basis in result.bases
        for text in TEXTS
    ]
    return grid(["Basis", "Text", *names, "Share F1 ≥ 0.5"], rows, left=2)


def shape_row(basis: BasisResult) -> list[str]:
    """The values under `SHAPE_HEAD`."""
    found = basis.structure
    shares = (found.share_monosemantic, found.share_monosemantic_words, found.mean_largest_share, found.share_with_core)
    firing = f"{found.n_units - found.n_silent} / {found.n_units}"
    return [firing, number(found.mean_subgraphs, 1), number(found.median_subgraphs, 1), *map(percent, shares)]


def _shape_grid(result: ComparisonResult) -> str:
    rows = [[basis.title, *shape_row(basis)] for basis in result.bases]
    return f"{grid(['Basis', *SHAPE_HEAD], rows)}\n\n{SHAPE_NOTE}"


def _fate_grid(result: ComparisonResult) -> str:
    keys = list(dict.fromkeys((key, words) for basis in result.bases for key, words, _ in fates(basis)))
    head = ["Basis", "Site", "Units", "Examined", *(w.capitalize() for _, w in keys), "Firing tokens", "Nodes", "Paths"]
    head.append("With context")
    rows = []
    for basis in result.bases:
        found = {key: n for key, _, n in fates(basis)}
        sizes = [number(basis.graph_nodes.median, 0), number(basis.graph_paths.median, 0)]
        paths = sum(unit.paths for unit in basis.units)
        sizes.append(percent(sum(unit.context_paths for unit in basis.units) / paths if paths else None))
        density = rate(median(unit.density for unit in basis.units))
        counts = [str(basis.counts.get("examined", 0)), *(str(found.get(key, 0)) for key, _ in keys)]
        rows.append([basis.title, basis.site, str(basis.n_features), *counts, density, *sizes])
    note = "\n\nFiring tokens (share of the fit text), nodes and paths are medians over the explained units. "
    note += "With context: share of all paths of the basis that need a token before the activating one."
    return grid(head, rows, left=2) + note


def terminal_table(result: ComparisonResult, width: int = 100) -> Table:
    """The headline for a terminal: graph scores on both texts beside the back-off table's F1.

    Terminals of less than 96 columns get no precision and recall.
    """
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), collapse_padding=True, pad_edge=False, caption_justify="left")
    table.add_column("Basis", min_width=12, max_width=18, overflow="fold", vertical="bottom")
    detail = ["Prec.", "Rec."] if width >= 96 else []
    for head in ["Units", "Held-out F1", *detail, "Back-\noff", "Random-text F1", "Back-\noff", "Nodes"]:
        table.add_column(head, justify="right", no_wrap=True)
    for basis in result.bases:
        held, random = (summary_of(basis, "graph", text, "f1") for text in TEXTS)
        rivals = [number(summary_of(basis, rival_of(result), text, "f1").mean) for text in TEXTS]
        means = [number(summary_of(basis, "graph", "held_out", metric).mean) for metric in ("precision", "recall")]
        units = f"{len(basis.units)}/{basis.counts.get('examined', 0)}"
        size = number(basis.graph_nodes.median, 0)
        cells = [units, estimate(held), *means[: len(detail)], rivals[0], estimate(random), rivals[1], size]
        # Text, not str: a title is never read as console markup.
        table.add_row(Text(basis.title), *map(Text, cells))
    knows = "all fit text, as the graphs" if rival_of(result).endswith("corpus") else "the same exemplars"
    table.caption = (
        "Units: explained/examined. Mean F1 of firing tokens with 95 % bootstrap interval. Back-off: mean F1 of a "
        f"table of counts from {knows}. Nodes: median graph size."
    )
    return table
