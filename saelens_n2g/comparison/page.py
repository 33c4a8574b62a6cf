"""The comparison as one HTML file that opens from disk: no server, no network, nothing beside it.

Style, script, figure and every unit's graph are inside. What belongs to a unit waits in a `<template>`, and its
example texts as JSON, until a reader opens the unit, so hundreds of units cost little. A content security policy
allows no request at all and no script but the page's own. All text of models and corpora is escaped; control and
direction characters in it are shown by name.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from saelens_n2g.comparison import figure
from saelens_n2g.comparison.drawings import read_svg, whole_svg
from saelens_n2g.comparison.results import EXPLAINERS, TEXTS, BasisResult, ComparisonResult, Summary, UnitResult
from saelens_n2g.comparison.table import (
    ABSENT,
    EXPLAINER_TITLES,
    OTHER_TITLES,
    SHAPE_HEAD,
    SHAPE_NOTE,
    TEXT_TITLES,
    conventions,
    fates,
    median,
    number,
    other_of,
    percent,
    places_of,
    rate,
    rival_of,
    rival_words,
    shape_row,
    share_of,
    summary_of,
)
from saelens_n2g.figures import INK, MUTED, RULE
from saelens_n2g.jobs.artefacts import canonical_json, write_text
from saelens_n2g.pages import escaped, page, visible

_DICTIONARY = {
    "d_sae": "features",
    "d_in": "input width",
    "fvu": "variance unexplained (FVU)",
    "l0": "active features a token (L0)",
    "dead": "dead features",
    "alpha": "sparsity weight α",
    "samples": "training samples",
}
_COLUMNS = ("unit", "F1 held-out", "F1 random", "precision", "recall", "density", "nodes")
"""What units can be sorted by; precision and recall are on held-out windows, density is of firing tokens."""


def write_page(result: ComparisonResult, folder: Path) -> Path:
    """Write `index.html` into `folder`, whole or not at all, and return its path.

    Reads `folder / unit.svg_file` for every unit. Raises `ArtefactError` naming the file if one is missing, is not
    a whole SVG or holds a script or a reference to another file, `InputError` if `folder` cannot be written.
    """
    sections = [_basis(result, place, folder) for place in range(len(result.bases))]
    values = {
        "lead": _lead(result),
        "nav": "".join(f'<a href="#basis-{i}">{escaped(basis.title)}</a>' for i, basis in enumerate(result.bases)),
        "absent": ABSENT,
        "headline": _headline(result),
        "figure_wide": _figure(result, narrow=False),
        "figure_narrow": _figure(result, narrow=True),
        "rivals": _rivals(result),
        "rival": rival_words(result),
        "conventions": "".join(f"<li>{escaped(line)}</li>" for line in conventions(result)),
        "fates": _fates(result),
        "shapes": _shapes(result),
        "setting": _setting(result),
        "bases": "".join(sections),
        "provenance": escaped(canonical_json(dict(result.provenance))),
    }
    path = folder / "index.html"
    write_text(path, page("comparison", _title(result), values))
    return path


def _title(result: ComparisonResult) -> str:
    if result.dictionary:
        return "Are dictionary features easier to explain than neurons?"
    return "How well do token graphs explain the units of each basis?"


def _lead(result: ComparisonResult) -> str:
    units = sum(len(basis.units) for basis in result.bases)
    return (
        f"{units} units in {len(result.bases)} bases, one protocol. Each unit is explained by a graph of tokens, "
        "fitted to where it fires in one part of a corpus; the graph then predicts where the unit fires in documents "
        "it was not fitted on."
    )


def _table(head: str, rows: Sequence[str], label: str) -> str:
    """A table in a frame that scrolls by itself, reachable by keyboard, so that the page never scrolls sideways."""
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{label}">'
        f"<table><thead>{head}</thead><tbody>{body}</tbody></table></div>"
    )


def _heads(words: Sequence[str], ruled: Sequence[int] = ()) -> str:
    cells = (f'<th scope="col"{_from(i in ruled)}>{word}</th>' for i, word in enumerate(words))
    return f"<tr>{''.join(cells)}</tr>"


def _from(ruled: bool) -> str:
    return ' class="from"' if ruled else ""


def _cells(values: Sequence[str], ruled: Sequence[int] = ()) -> str:
    return "".join(f"<td{_from(i in ruled)}>{value}</td>" for i, value in enumerate(values))


def _estimate(summary: Summary) -> str:
    """Mean with its interval below."""
    if summary.mean is None or summary.low is None or summary.high is None:
        return number(summary.mean)
    return f"<b>{summary.mean:.2f}</b><small>{summary.low:.2f}–{summary.high:.2f}</small>"


def _row_head(basis: BasisResult, place: int) -> str:
    return f'<th scope="row"><a href="#basis-{place}">{escaped(basis.title)}</a></th>'


def _headline(result: ComparisonResult) -> str:
    """One row a basis: units, scores on both texts, quiet F1, graph size."""
    scores = ("Precision", "Recall", "F1", "Median<br>F1", "F1 ≥ 0.5")
    texts = "".join(f'<th colspan="5" class="from">{TEXT_TITLES[text]}</th>' for text in TEXTS)
    groups = (
        f'<tr><th></th><th></th>{texts}<th colspan="2" class="from">Quiet F1</th>'
        '<th colspan="2" class="from">Median graph</th></tr>'
    )
    words = ["Basis", "Explained /<br>examined", *scores, *scores, "Held-out", "Random", "Nodes", "Paths"]
    rows = []
    for place, basis in enumerate(result.bases):
        cells = [f"{len(basis.units)} / {basis.counts.get('examined', 0)}"]
        for text in TEXTS:
            f1 = summary_of(basis, "graph", text, "f1")
            means = [number(summary_of(basis, "graph", text, metric).mean) for metric in ("precision", "recall")]
            cells += [*means, _estimate(f1), number(f1.median), percent(share_of(basis, "graph", text).mean)]
        cells += [number(summary_of(basis, "graph", text, "quiet_f1").mean, 3) for text in TEXTS]
        cells += [number(basis.graph_nodes.median, 0), number(basis.graph_paths.median, 0)]
        rows.append(_row_head(basis, place) + _cells(cells, (1, 6, 11, 13)))
    return _table(groups + _heads(words, (2, 7, 12, 14)), rows, "Scores of the graphs by basis")


def _rivals(result: ComparisonResult) -> str:
    width = len(EXPLAINERS) + 1
    texts = "".join(f'<th colspan="{width}" class="from">{TEXT_TITLES[text]}</th>' for text in TEXTS)
    short = [EXPLAINER_TITLES[e].replace(", ", ",<br>") for e in EXPLAINERS]
    words = ["Basis", *(2 * [*short, "Ahead / level /<br>behind"])]
    rows = []
    for place, basis in enumerate(result.bases):
        cells = []
        for text in TEXTS:
            cells += [_estimate(summary_of(basis, explainer, text, "f1")) for explainer in EXPLAINERS]
            cells.append(places_of(basis, rival_of(result), text))
        rows.append(_row_head(basis, place) + _cells(cells, (0, width)))
    head = f"<tr><th></th>{texts}</tr>" + _heads(words, (1, width + 1))
    return _table(head, rows, "F1 of graphs and tables of counts by basis") + _others(result)


def _others(result: ComparisonResult) -> str:
    """AUPRC, correlation and micro F1 on random text, of the graph and its rivals."""
    width = len(EXPLAINERS)
    groups = "".join(f'<th colspan="{width}" class="from">{title}</th>' for title in OTHER_TITLES.values())
    short = [EXPLAINER_TITLES[e].replace(", ", ",<br>") for e in EXPLAINERS]
    ruled = [1 + i * width for i in range(len(OTHER_TITLES))]
    rows = []
    for place, basis in enumerate(result.bases):
        cells = [_estimate(other_of(basis, explainer, which)) for which in OTHER_TITLES for explainer in EXPLAINERS]
        rows.append(_row_head(basis, place) + _cells(cells, [at - 1 for at in ruled]))
    head = f"<tr><th></th>{groups}</tr>" + _heads(["Basis", *(len(OTHER_TITLES) * short)], ruled)
    note = (
        '<p class="note">Random test text, without a threshold on the prediction (AUPRC, correlation) and by token.</p>'
    )
    return note + _table(head, rows, "AUPRC, correlation and micro F1 on random test text by basis")


def _fates(result: ComparisonResult) -> str:
    """Counts of examined units as a bar and as numbers, and what one unit typically looks like."""
    keys = list(dict.fromkeys((key, words) for basis in result.bases for key, words, _ in fates(basis)))
    rows = []
    for place, basis in enumerate(result.bases):
        found = {key: n for key, _, n in fates(basis)}
        parts = [(min(i, 6), found.get(key, 0)) for i, (key, _) in enumerate(keys)]
        bar = "".join(f'<i class="f{i}" style="flex:{n}"></i>' for i, n in parts if n)
        counts = [str(basis.counts.get("examined", 0)), *(str(n) for _, n in parts)]
        density = rate(median(unit.density for unit in basis.units))
        cells = _cells([f"{basis.n_features:,}", *counts, density])
        bar = f'<td><div class="fate" aria-hidden="true">{bar}</div></td>'
        rows.append(f"{_row_head(basis, place)}<td class='text'>{escaped(basis.site)}</td>{bar}{cells}")
    words = [escaped(words.capitalize()) for _, words in keys]
    head = _heads(["Basis", "Site", "", "Units", "Examined", *words, "Median<br>density"])
    head = head.replace('<th scope="col">Site', '<th scope="col" class="text">Site')
    key = "".join(f'<li><i class="f{min(i, 6)}"></i>{escaped(words)}</li>' for i, (_, words) in enumerate(keys))
    note = '<p class="note">Density: share of the fit text on which an explained unit fires.</p>'
    return _table(head, rows, "Where the examined units went") + f'<ul class="key">{key}</ul>{note}'


def _shapes(result: ComparisonResult) -> str:
    """How many behaviours the graphs show."""
    rows = [_row_head(basis, place) + _cells(shape_row(basis)) for place, basis in enumerate(result.bases)]
    table = _table(_heads(["Basis", *SHAPE_HEAD]), rows, "Sub-graphs by basis")
    return f'{table}<p class="note">{escaped(SHAPE_NOTE)}</p>'


def _plain(value: Any) -> str:
    """A setting's value for people: thousands apart, four digits, words as they are."""
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: ABSENT}[value]
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.4g}"
    return escaped(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True))


def _setting(result: ComparisonResult) -> str:
    """The dictionary's facts and the protocol."""
    parts = []
    if result.dictionary:
        known = [k for k in _DICTIONARY if k in result.dictionary]
        keys = known + sorted(k for k in result.dictionary if k not in _DICTIONARY)
        named = ((_DICTIONARY.get(key, key.replace("_", " ")), _plain(result.dictionary[key])) for key in keys)
        facts = "".join(f"<div><dt>{escaped(name)}</dt><dd>{value}</dd></div>" for name, value in named)
        parts.append(f'<h3 id="dictionary">The dictionary</h3><dl class="facts">{facts}</dl>')
    rules = "".join(
        f"<dt>{escaped(k.replace('_', ' '))}</dt><dd>{_plain(v)}</dd>" for k, v in sorted(result.protocol.items())
    )
    return "".join(parts) + f'<h3>Protocol</h3><dl class="rules">{rules}</dl>'


def _basis(result: ComparisonResult, place: int, folder: Path) -> str:
    """The section of one basis: its rules, its units, and those that could not be explained."""
    basis = result.bases[place]
    where = ", ".join(f"{n} {escaped(words)}" for _, words, n in fates(basis) if n)
    intro = (
        f'<p class="prose">{escaped(basis.site)}, {basis.n_features:,} units. Negative values: {escaped(basis.signs)}. '
        f"Of {basis.counts.get('examined', 0)} examined: {where or 'none'}.</p>"
    )
    failures = "".join(
        f"<li><b>{escaped(name)}</b>: {escaped(why)}</li>" for name, why in sorted(basis.failures.items())
    )
    if failures:
        failures = (
            f'<details class="plain"><summary>{len(basis.failures)} failed</summary><ul>{failures}</ul></details>'
        )
    threshold = float(result.protocol.get("firing_threshold", 0.5))
    units = "".join(_unit(unit, place, threshold, folder) for unit in basis.units)
    body = _browser(basis, units) if units else '<p class="note">No unit of this basis could be explained.</p>'
    return f'<section id="basis-{place}"><h2>{escaped(basis.title)}</h2>{intro}{body}{failures}</section>\n'


def _browser(basis: BasisResult, units: str) -> str:
    """The list of units with its search box and sortable head."""
    buttons = [
        f'<button type="button" data-column="{i}" data-name="{name}">{name}</button>' for i, name in enumerate(_COLUMNS)
    ]
    return (
        '<div class="browser"><div class="tools" hidden><label>Find <input type="search" '
        f'placeholder="token or unit" aria-label="Find units of {escaped(basis.title)}"></label>'
        f"<output>{len(basis.units)} units in order of sampling; open one for its graph</output></div>"
        f'<div class="head" role="group" aria-label="Sort by">{buttons[0]}<span>strongest path</span>'
        f'{"".join(buttons[1:])}</div><ol class="units">{units}</ol></div>'
    )


def _unit(unit: UnitResult, place: int, threshold: float, folder: Path) -> str:
    graph = unit.scores.get("graph", {})
    held, random = (graph.get(text, {}) for text in TEXTS)
    values = (unit.index, held.get("f1"), random.get("f1"), held.get("precision"), held.get("recall"), unit.density)
    keys = ",".join("" if value is None else f"{value:.8g}" for value in (*values, unit.nodes))
    shown = [*map(number, values[1:5]), rate(unit.density), str(unit.nodes)]
    bars = [_bar(values[1], ""), _bar(values[2], " random"), *[""] * 4]
    cells = "".join(
        f"<span{bar}><span class='k'>{name} </span>{text}</span>"
        for name, text, bar in zip(_COLUMNS[1:], shown, bars, strict=True)
    )
    path = escaped(unit.text.split("\n", 1)[0])
    return (
        f'<li data-values="{keys}"><details class="unit" id="unit-{place}-{unit.index}"><summary class="row">'
        f'<b>{unit.index}</b><code title="{path}">{path}</code>{cells}</summary>'
        f'<template><div class="body">{_inside(unit, place, threshold, folder)}</div></template></details></li>\n'
    )


def _bar(value: float | None, kind: str) -> str:
    return "" if value is None else f' class="bar{kind}" style="--v:{min(max(value, 0.0), 1.0):.3f}"'


def _inside(unit: UnitResult, place: int, threshold: float, folder: Path) -> str:
    """What a unit shows when opened: graph, paths and scores, example texts, the file to take along."""
    rows = []
    for explainer in EXPLAINERS:
        scores = [unit.scores.get(explainer, {}).get(text, {}) for text in TEXTS]
        cells = [number(score.get(metric)) for score in scores for metric in ("precision", "recall", "f1")]
        rows.append(f'<th scope="row">{EXPLAINER_TITLES[explainer]}</th>{_cells(cells, (0, 3))}')
    groups = "".join(f'<th colspan="3" class="from">{TEXT_TITLES[text]}</th>' for text in TEXTS)
    head = f"<tr><th></th>{groups}</tr>" + _heads(["", *(2 * ["Precision", "Recall", "F1"])], (1, 4))
    facts = (
        f"{escaped(unit.name)}: maximum activation {unit.max_activation:.4g}; fires on {unit.fit_firing:,} fit and "
        f"{unit.test_firing:,} test tokens; above zero on {rate(unit.active)} of the fit text; {unit.nodes} nodes, "
        f"{unit.paths} paths, {_behaviours(unit)}. "
        f'Graph file: {escaped(unit.graph_file)}. <a href="#unit-{place}-{unit.index}">Link here</a>'
    )
    return (
        f'<div class="graph" role="region" tabindex="0" aria-label="Graph of unit {unit.index}">'
        f"{read_svg(folder / unit.svg_file)}</div>"
        f'<div class="pair"><div><h4>Paths: predicted share of the maximum, examples</h4>'
        f'<pre class="paths" tabindex="0">{escaped(unit.text)}</pre></div>'
        f"<div><h4>Scores</h4>{_table(head, rows, f'Scores of unit {unit.index}')}</div></div>"
        f"<div><h4>Held-out top windows</h4>{_exemplars(unit, threshold)}</div>"
        f'<p class="unit-facts">{facts}</p>'
    )


def _behaviours(unit: UnitResult) -> str:
    """Sub-graphs and the first core tokens in words, for the line of facts."""
    found = unit.structure
    named = ", ".join(repr(core.text) for core in found.cores[:3])
    cores = f" (core tokens {named}{' and others' if len(found.cores) > 3 else ''})" if named else ""
    return escaped(f"{found.n_subgraphs} sub-graph{'' if found.n_subgraphs == 1 else 's'}{cores}")


def _exemplars(unit: UnitResult, threshold: float) -> str:
    """The unit's windows as JSON that a script element cannot be ended by, drawn when the unit is opened."""
    windows = [
        {
            "tokens": [visible(token).replace("\n", "↵").replace("\t", "⇥") for token in window["tokens"]],
            "activations": [round(float(a), 3) for a in window["activations"]],
            "predicted": [round(float(p), 3) for p in window["predicted"]],
        }
        for window in unit.exemplars
    ]
    data = json.dumps({"threshold": threshold, "windows": windows}, ensure_ascii=False, separators=(",", ":"))
    for mark in "<>&":
        data = data.replace(mark, f"\\u{ord(mark):04x}")
    return f'<script type="application/json">{data}</script>'


def _figure(result: ComparisonResult, *, narrow: bool) -> str:
    """The figure's SVG with its inks tied to the page's, so that it follows light and dark, and ids of its own."""
    drawn = whole_svg(figure.render(result, "svg", narrow=narrow).decode(), "comparison.svg")
    inks = {INK: "--ink", MUTED: "--muted", RULE: "--rule", figure.GRAPH: "--graph"}
    for colour, name in inks.items():
        drawn = drawn.replace(colour, f"var({name})")
    drawn = re.sub(r'( id="|href="#|url\(#)', rf"\g<1>{'narrow' if narrow else 'wide'}-", drawn)
    return drawn.replace("<svg", '<svg role="img" aria-label="F1 by basis; the tables hold the same numbers"', 1)
