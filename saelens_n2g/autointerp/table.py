"""An interpretation as Markdown: every way of explaining beside its controls, on the same units and excerpts."""

import re
from collections import Counter
from collections.abc import Mapping
from itertools import combinations
from statistics import median

from saelens_n2g.autointerp import asked_table, graph_sentence, token_list
from saelens_n2g.autointerp.controls import CONTROLS
from saelens_n2g.autointerp.results import MAIN, Interpretation, Way
from saelens_n2g.autointerp.scores import SETS
from saelens_n2g.autointerp.wording import EXAMPLES
from saelens_n2g.comparison.table import ABSENT, estimate, number, p_value
from saelens_n2g.markdown import cell, grid
from saelens_n2g.scoring import Summary

SET_TITLES = {"top": "Top", "random": "Random", "top_and_random": "Top and random"}
SCORE_HEAD = (
    "Way", "Units", "Correlation, top", "Random", "Top and random", "AUPRC, random", "AUPRC, top and random", "F1",
    "Cosine", "Controls",
)  # fmt: skip
FIGURE = "figure.svg"
"""Beside the report."""
OTHER_HEAD = (
    "Way", "R2", "R2, uncentred", "Deviation explained", "Detection: balanced accuracy", "AUC",
    "Fuzzing: balanced accuracy", "AUC",
)  # fmt: skip
CONTROL_HEAD = (
    "Way", "Control", "Correlation", "True − control", "p", "AUPRC", "True − control", "p", "Verdict",
)  # fmt: skip
NOTES = (
    "A way is a graph or a table by itself, or `explainer > simulator`: sentences and who reads them. All ways are "
    "scored on the same excerpts of the same units, out of documents that no explanation was written from. Means over "
    f"units with 95 % bootstrap intervals (units resampled); {ABSENT} means that no unit defines the value.",
    "Correlation on top and random excerpts together is the score of Bills et al. 2023. It fails a sanity check of "
    "Oikarinen et al. 2025 (arXiv 2506.05774), as do AUC and balanced accuracy; correlation, AUPRC, F1 and cosine on a "
    "uniform sample (the columns Random) pass. Where F1 and cosine name no set, it is top and random.",
    'Controls: `neutral` says nothing (for a sentence "something", for a graph or table each token\'s mean over the '
    "other units), `other` is another unit's explanation, `shuffled` the own one against activations in random order. "
    "A way is invalid if it does not beat each of them, unit by unit, in correlation and in AUPRC on top and random "
    "excerpts (one-sided paired sign flips, p < 0.05, at least five pairs): its scores then say nothing of the units.",
    "A number in brackets is that of the units that define a value. A prediction that is the same everywhere has no "
    "correlation, so a mean of it leaves units out, and those about which something was said remain; AUPRC has them "
    "all, with what chance gives, wherever a token fires.",
)


def headline(result: Interpretation) -> str:
    """What was explained."""
    units = len(next(iter(result.outcomes.values())))
    ways = ", ".join(map(result.label, result.outcomes))
    return f"{units} units, {len(result.groups())} bases and layers; ways: {ways}"


def markdown(result: Interpretation) -> str:
    """The report."""
    parts = [f"**{cell(headline(result))}**", f"![Scores by way, basis and layer]({FIGURE})"]
    parts += [f"**{cell(title)}**\n\n{body}" for title, body in tables(result)]
    parts += ["\n".join(f"- {note}" for note in NOTES)]
    return "\n\n".join(parts) + "\n"


def tables(result: Interpretation) -> list[tuple[str, str]]:
    """Title and Markdown of every table."""
    pairs = pair_rows(result)
    found = [
        ("Scores", grid(SCORE_HEAD, score_rows(result))),
        ("Sentences", grid(SENTENCE_HEAD, sentence_rows(result)) if result.sentences else ""),
        ("Controls", grid(CONTROL_HEAD, control_rows(result), 2)),
        ("Same units: correlation and AUPRC, a − b", grid(PAIR_HEAD, pairs, 2) if pairs else ""),
        ("By basis and layer: correlation on top and random excerpts", _by_group(result, *MAIN)),
        ("By basis and layer: AUPRC on random excerpts", _by_group(result, "random", "auprc")),
        ("Further scores, top and random", grid(OTHER_HEAD, other_rows(result))),
        ("Does the sentence tell excerpts apart? Asked of a language model or an encoder", _asked(result)),
        ("What became of the units", grid(("Of", "Status", "Reason", "Units"), fate_rows(result), 3)),
    ]
    if result.costs():
        found.append(("Costs, controls included", grid(COST_HEAD, cost_rows(result))))
    return [(title, body) for title, body in found if body]


def _asked(result: Interpretation) -> str:
    return grid(asked_table.HEAD, asked_table.rows(result)) if result.asked else ""


def score_rows(result: Interpretation) -> list[list[str]]:
    """One row for each way."""
    rows = []
    for way, units in result.outcomes.items():
        scored = sum(one.judged is not None for one in units)
        columns = [*((name, "correlation") for name in SETS), ("random", "auprc"), (MAIN[0], "auprc")]
        columns += [(MAIN[0], "f1"), (MAIN[0], "cosine")]
        values = [counted(result.summary(way, *column), scored) for column in columns]
        rows.append([result.label(way), f"{scored} / {len(units)}", *values, result.validity(way).verdict])
    return rows


def counted(summary: Summary, scored: int) -> str:
    """Mean and interval, with the number of units where not all that are scored define it."""
    return estimate(summary) + (f" ({summary.n})" if 0 < summary.n < scored else "")


SENTENCE_HEAD = (
    "Explainer",
    "Sentences",
    "Distinct",
    "Said of the most units",
    "Examples of the prompt",
    "Words, median",
)


def sentence_rows(result: Interpretation) -> list[list[str]]:
    """One row for each explainer: whether it says something of each unit, or the same of many, or what stood in its
    prompt, as small models do."""
    examples = {_bare(one.description) for one in EXAMPLES}
    examples |= {_bare(said) for _, said in (*graph_sentence.TURNS, *token_list.TURNS)}
    rows = []
    for name, several in result.sentences.items():
        texts = [one.text for one in several if one.text is not None]
        counts = Counter(map(_bare, texts))
        copies = sum(n for text, n in counts.items() if text in examples)
        words = f"{median(len(text.split()) for text in texts):.0f}" if texts else ABSENT
        most = str(max(counts.values())) if counts else ABSENT
        rows.append([name, f"{len(texts)} / {len(several)}", str(len(counts)), most, str(copies), words])
    return rows


def _bare(text: str) -> str:
    """A sentence without case, quotes and punctuation."""
    return " ".join(re.findall(r"\w+", text.lower()))


def other_rows(result: Interpretation) -> list[list[str]]:
    """R2, deviation, detection and fuzzing of each way."""
    rows = []
    for way in result.outcomes:
        values = [result.summary(way, MAIN[0], metric) for metric in ("r2", "r2_uncentred", "deviation")]
        values += [result.answered(way, t, m) for t in ("detection", "fuzzing") for m in ("balanced_accuracy", "auc")]
        rows.append([result.label(way), *(estimate(value) for value in values)])
    return rows


def control_rows(result: Interpretation) -> list[list[str]]:
    """Each way against each of its controls."""
    rows = []
    for way in result.outcomes:
        verdict = result.validity(way)
        tests = {(test.control, test.metric): test for test in verdict.tests}
        for name in CONTROLS:
            row = [result.label(way), name]
            for metric in ("correlation", "auprc"):
                test = tests[name, metric]
                mean = number(result.control(way, name, MAIN[0], metric).mean)
                row += [mean, f"{estimate(test.difference)} ({test.difference.n})", p_value(test.p_value)]
            rows.append([*row, verdict.verdict])
    return rows


PAIR_HEAD = ("a", "b", "Set", "Correlation", "p", "Units", "AUPRC", "p", "Units")


def pair_rows(result: Interpretation) -> list[list[str]]:
    """Every two ways on the units that both define."""
    rows = []
    for a, b in combinations(result.outcomes, 2):
        for name in ("random", MAIN[0]):
            row = [result.label(a), result.label(b), SET_TITLES[name]]
            for metric in ("correlation", "auprc"):
                found = result.versus(a, b, name, metric)
                row += [estimate(found.difference), p_value(found.p_value), str(found.difference.n)]
            rows.append(row)
    return rows


def _by_group(result: Interpretation, set_: str, metric: str) -> str:
    """One row for each basis and layer, one column for each way."""
    head = ["Basis", "Layer", *map(result.label, result.outcomes)]
    rows = [
        [basis, str(layer), *(_of_group(result, way, basis, layer, set_, metric) for way in result.outcomes)]
        for basis, layer in result.groups()
    ]
    return grid(head, rows, 2)


def _of_group(result: Interpretation, way: Way, basis: str, layer: int, set_: str, metric: str) -> str:
    return estimate(result.summary(way, set_, metric, lambda one: result.group_of(one) == (basis, layer)))


COST_HEAD = ("Who", "Requests", "Tokens in", "Per unit", "Spent / planned", "Tokens out", "Per unit", "Spent / planned")


def cost_rows(result: Interpretation) -> list[list[str]]:
    """One row for each explainer, way and scorer that asked, and all of them. Planned is what a dry run counts, with
    the sentences that were then written."""
    units = len(next(iter(result.outcomes.values())))
    rows = []
    for name, costs in {**result.costs_by(), "all": result.costs()}.items():
        row = [name, f"{costs.get('requests', 0):,.0f}"]
        for side in ("in", "out"):
            spent, planned = costs.get(f"tokens_{side}", 0), costs.get(f"planned_{side}", 0)
            ratio = f"{spent / planned:.2f}" if planned and not costs.get("unmetered") else ABSENT
            row += [f"{spent:,.0f}", f"{spent / units:,.0f}", ratio]
        rows.append(row)
    return rows


def fate_rows(result: Interpretation) -> list[list[str]]:
    """How many units ended how: of sentences, and of ways. Failures that controls alone had are among them."""
    counts: Counter[tuple[str, str, str]] = Counter()
    for way, asked in result.asked.items():
        counts.update((f"{way.label}, asked", one.status, one.reason) for one in asked)
        counts.update((f"{way.label}, asked", "control failed", why) for one in asked for why in _failed(one.controls))
    for name, several in result.sentences.items():
        counts.update((f"{name}, sentence", one.status, one.reason) for one in several)
    for way, units in result.outcomes.items():
        counts.update((result.label(way), one.status, one.reason) for one in units)
        counts.update((result.label(way), "control failed", why) for one in units for why in _failed(one.controls))
    return [[*key, str(n)] for key, n in counts.items()]


def _failed(controls: Mapping[str, object]) -> list[str]:
    """Why some of a unit's controls failed."""
    return [f"control {name}: {why}" for name, why in controls.items() if isinstance(why, str)]
