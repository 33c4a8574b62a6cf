"""Tables, figure and page of a comparison, on a synthetic result with the awkward cases in it."""

import base64
import hashlib
import io
import json
import random
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from saelens_n2g.comparison import figure
from saelens_n2g.comparison.page import visible, write_page
from saelens_n2g.comparison.results import (
    EXPLAINERS,
    GRADED,
    METRICS,
    TEXTS,
    BasisResult,
    ComparisonResult,
    Summary,
    UnitResult,
)
from saelens_n2g.comparison.table import (
    ABSENT,
    READING_TITLES,
    SHAPE_NOTE,
    conventions,
    estimate,
    markdown,
    p_value,
    rate,
    rival_of,
    rival_words,
    shape_row,
    standing,
    summary_of,
    terminal_table,
)
from saelens_n2g.errors import ArtefactError
from saelens_n2g.graphs.methods import READINGS
from saelens_n2g.graphs.structure import Core, Structure
from saelens_n2g.graphs.structure import summarise as summarise_structures
from saelens_n2g.scoring import Confusion, compare_paired

TITLES = ("MLP neurons", "SAE features", "Random directions", "PCA directions", "ICA directions")
NASTY = "</script><script>alert(1)</script> & \"quoted\" 'x' | $a$ [bold]b[/bold] \u202e\u2028 \x00"
WORDS = (  # noqa: SIM905 - a sentence is easier to read than a list
    " the of and in to a was is for on as with by at from his it an were which New York river century army king film"
    " music city state built during first school band war play season album church species north south work"
).split(" ")


def summarise(values: list[float | None]) -> Summary:
    """Mean with a normal interval: near enough to a bootstrap for a picture."""
    known = sorted(v for v in values if v is not None)
    if not known:
        return Summary(None, None, None, None, 0)
    n = len(known)
    mean = sum(known) / n
    half = 1.96 * (sum((v - mean) ** 2 for v in known) / max(n - 1, 1) / n) ** 0.5
    return Summary(mean, max(mean - half, 0.0), min(mean + half, 1.0), known[n // 2], n)


def f1(precision: float | None, recall: float) -> float:
    return 0.0 if not precision or not recall else 2 * precision * recall / (precision + recall)


def make_scores(rng: random.Random, skill: float) -> dict[str, Any]:
    scores: dict[str, Any] = {}
    for place, explainer in enumerate(EXPLAINERS):
        scores[explainer] = {}
        for text, loss in zip(TEXTS, (1.0, 0.6), strict=True):
            strength = max(skill * loss - (0.0, 0.12, 0.05, 0.0)[place], 0.03)
            precision: float | None = rng.betavariate(6 * strength, 6 * (1 - strength))
            recall = rng.betavariate(5 * strength, 5 * (1 - strength))
            if rng.random() < 0.06:
                precision, recall = None, 0.0
            values = (precision, recall, f1(precision, recall), 0.99, 0.995, 0.9925)
            graded = (rng.betavariate(2, 5), None if precision is None else rng.uniform(-0.2, 1))
            scores[explainer][text] = dict(zip((*METRICS, *GRADED), (*values, *graded), strict=True))
    return scores


def make_counts(rng: random.Random) -> dict[str, dict[str, Confusion]]:
    return {e: {t: Confusion(*(rng.randint(0, 40) for _ in range(4))) for t in TEXTS} for e in EXPLAINERS}


def make_exemplar(rng: random.Random, key: str, length: int = 60) -> dict[str, Any]:
    tokens = [" " + rng.choice(WORDS) for _ in range(length)]
    activations = [max(0.0, rng.gauss(-0.1, 0.12)) for _ in tokens]
    predicted = [0.0] * length
    tokens[length // 4] = "\n"
    for position in (length // 3, 2 * length // 3):
        tokens[position - 1 : position + 1] = [" New", key]
        activations[position], predicted[position] = rng.uniform(0.4, 1), 0.81 if rng.random() < 0.8 else 0.0
    predicted[length // 2] = 0.62
    return {"tokens": tokens, "activations": activations, "predicted": predicted}


def make_structure(rng: random.Random, name: str, key: str, paths: int) -> Structure:
    n = rng.randint(0, paths) if paths > 1 else 1
    cores = tuple(Core(i, key, 3 - i, 2, i) for i in range(min(n, rng.randint(0, 4))))
    return Structure(name, n, n // 2, max(n - 1, n and 1), 1 / n if n else None, cores, paths * (n > 0), n, 1, 2, 3)


def make_unit(rng: random.Random, basis: str, index: int, skill: float, key: str) -> UnitResult:
    lines = [f" {rng.choice(WORDS)} New[{key}]  {0.95 - i * 0.07:.2f}  (n={9 - i})" for i in range(rng.randint(1, 9))]
    name = f"6.resid_post/{basis}/{index}"
    file = f"graphs/{basis}/{index}"
    density = 10 ** rng.uniform(-5, -2.3)
    exemplars = tuple(make_exemplar(rng, key) for _ in range(6))
    scores = make_scores(rng, skill)
    firing, paths = int(density * 250_000) + 8, len(lines)
    text = "\n".join(lines)
    return UnitResult(
        index, name, rng.uniform(2, 20), firing, firing // 4 + 1, density, density * rng.uniform(3, 40),
        paths * rng.randint(2, 5), paths, paths - 1, make_structure(rng, name, key, paths),
        f"{file}.json", f"{file}.svg", text, scores, make_counts(rng),
        exemplars,
    )  # fmt: skip


def make_basis(rng: random.Random, title: str, skill: float, n: int) -> BasisResult:
    name = title.split()[0].lower()
    keys = [" York", " army", NASTY, "\t", "日本", " 🜁"]
    units = tuple(make_unit(rng, name, 17 * i + 3, skill, keys[i % len(keys)]) for i in range(n))

    def over(explainer: str, text: str, metric: str) -> Summary:
        return summarise([u.scores[explainer][text][metric] for u in units])

    summary = {e: {t: {m: over(e, t, m) for m in (*METRICS, *GRADED)} for t in TEXTS} for e in EXPLAINERS}
    micro = {e: {t: {m: summarise([rng.random()]) for m in METRICS} for t in TEXTS} for e in EXPLAINERS if n}
    share = {
        e: {t: summarise([float(u.scores[e][t]["f1"] >= 0.5) for u in units]) for t in TEXTS}  # type: ignore[operator]
        for e in EXPLAINERS
    }
    failures = {f"6.resid_post/{name}/9{i}": f"unit 9{i}: expected 5 exemplars, found {i}" for i in range(2 * (n > 0))}
    counts = {"explained": n, "dead": 6, "rare": 9, "dense": 2, "silent_in_test": 3, "failed": len(failures)}
    facts = {"converged": title != TITLES[-1], "iterations": 80}
    sizes = [summarise([float(getattr(u, k)) for u in units]) for k in ("nodes", "paths")]
    return BasisResult(
        name, title, "6.resid_post", "the negative half is cut off by the ReLU", 2048,
        {"examined": sum(counts.values()), **counts}, failures, summary, micro, share, *sizes,
        summarise_structures(u.structure for u in units), facts, units,
    )  # fmt: skip


def make_result(per_basis: int = 25, titles: tuple[str, ...] = TITLES, empty: tuple[str, ...] = ()) -> ComparisonResult:
    rng = random.Random(7)
    skills = (0.55, 0.62, 0.3, 0.35, 0.45)
    bases = tuple(
        make_basis(rng, title, skill, 0 if title in empty else per_basis)
        for title, skill in zip(titles, skills, strict=False)
    )
    protocol = {
        "firing_threshold": 0.5,
        "units_per_basis": per_basis,
        "eligibility": "at least 8 firing tokens in the fit text, density at most 2 %",
        "window": 64,
        "fit_tokens": 250_000,
        "test_tokens": 60_000,
        "seed": 0,
    }
    dictionary = {
        "d_in": 576, "d_sae": 2048, "alpha": 8e-4, "fvu": 0.1834, "l0": 41.3, "dead": 12, "samples": 4_000_000,
    }  # fmt: skip
    provenance = {"package": "saelens-n2g 0.1.0", "subject": {"name": "embedded", "dtype": "float32"}, "odd": NASTY}
    return ComparisonResult(bases, protocol, dictionary, provenance)


SVG = (
    '<?xml version="1.0" encoding="utf-8"?>\n<svg xmlns="http://www.w3.org/2000/svg" width="330" height="60" '
    'viewBox="0 0 330 60" role="img"><title>Graph</title><defs><marker id="a" orient="auto" markerWidth="6" '
    'markerHeight="6" refX="5" refY="3"><path d="M0 0L6 3L0 6z"/></marker></defs><rect x="5" y="15" width="90" '
    'height="30" rx="6" fill="#cfe3f5"/><text x="50" y="35" text-anchor="middle" font-size="13">New</text>'
    '<path d="M95 30H190" stroke="#555" marker-end="url(#a)"/><rect x="195" y="15" width="110" height="30" rx="6" '
    'fill="#f3b4a2" stroke="#333" stroke-width="2.5"/><text x="250" y="35" text-anchor="middle" font-size="13">York'
    "</text></svg>\n"
)


def write_graphs(result: ComparisonResult, folder: Path) -> None:
    for basis in result.bases:
        for unit in basis.units:
            path = folder / unit.svg_file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(SVG)


def rows_of(grid: str) -> list[list[str]]:
    """Cells of a Markdown table, split at pipes that are not escaped."""
    return [[c.strip() for c in re.split(r"(?<!\\)\|", line)[1:-1]] for line in grid.splitlines()]


def grids_of(text: str) -> list[list[list[str]]]:
    return [rows_of(block) for block in text.split("\n\n") if block.startswith("| ")]


class TestMarkdown:
    def test_every_basis_stands_in_every_table_once_a_text(self) -> None:
        result = make_result(6, empty=("PCA directions",))
        grids = grids_of(markdown(result))
        for grid, times in zip(grids, (1, 1, 2, 3, 2, 1, 1), strict=True):
            assert {len(row) for row in grid} == {len(grid[0])}
            assert [row[0] for row in grid[2:]] == [title for title in TITLES for _ in range(times)]

    def test_row_says_what_the_summaries_say(self) -> None:
        result = make_result(8)
        basis = result.bases[1]
        row = grids_of(markdown(result))[0][3]
        mean = basis.summary["graph"]["held_out"]["f1"]
        share = sum(f >= 0.5 for f in (u.scores["graph"]["held_out"]["f1"] or 0.0 for u in basis.units)) / 8
        assert row[1:3] == [basis.site, "8 / 30"]
        assert row[5] == f"{mean.mean:.2f} [{mean.low:.2f}, {mean.high:.2f}]"
        assert row[7] == f"{share:.0%}".replace("%", " %")

    def test_basis_without_explained_units_shows_no_number(self) -> None:
        grids = grids_of(markdown(make_result(4, empty=("PCA directions",))))
        for grid in grids[:5]:
            for row in (row for row in grid if row[0] == "PCA directions"):
                assert set(row[3:]) == {ABSENT}
        assert grids[5][5][1:] == ["0 / 0", *[ABSENT] * 6]
        assert grids[6][5][3:10] == ["20", "0", "6", "9", "2", "3", "0"]

    def test_lead_is_the_mean_difference_of_the_units(self) -> None:
        result = make_result(9, TITLES[:1])
        pairs = [
            (u.scores["graph"]["random"]["f1"], u.scores["backoff_table"]["random"]["f1"])
            for u in result.bases[0].units
        ]
        known = [a - b for a, b in pairs if a is not None and b is not None]
        found = grids_of(markdown(result))[2][3]
        assert found[6].split(" [")[0] == f"{sum(known) / len(known):.2f}".replace("-0.00", "0.00")

    def test_the_difference_has_a_p_value(self) -> None:
        basis = make_result(12, TITLES[:1]).bases[0]
        grid = grids_of(markdown(make_result(12, TITLES[:1])))[2]
        for row, text in zip(grid[2:], TEXTS, strict=True):
            ours, theirs = ([u.scores[e][text]["f1"] for u in basis.units] for e in ("graph", "backoff_table"))
            found = compare_paired(ours, theirs, seed=0).p_value
            assert found is not None
            assert row[grid[0].index("p")] == p_value(found)

    @pytest.mark.parametrize(
        ("value", "shown"), [(None, ABSENT), (1e-4, "< 0.001"), (0.0123, "0.012"), (0.5, "0.50"), (1.0, "1.00")]
    )
    def test_p_values(self, value: float | None, shown: str) -> None:
        assert p_value(value) == shown

    def test_means_without_threshold_and_by_token_are_of_random_text(self) -> None:
        result = make_result(8, TITLES[:1])
        basis = result.bases[0]
        auprc, correlation, micro = grids_of(markdown(result))[3][2:]
        for at, explainer in enumerate(EXPLAINERS, start=2):
            assert auprc[at] == estimate(basis.summary[explainer]["random"]["auprc"])
            assert correlation[at] == estimate(basis.summary[explainer]["random"]["correlation"])
            assert micro[at] == estimate(basis.micro[explainer]["random"]["f1"])

    def test_graphs_that_read_the_text_meet_the_table_that_read_it(self) -> None:
        result = make_result(12, TITLES[:1])
        reading = replace(result, protocol={**result.protocol, "reads": ["text"], "method": {"name": "m"}})
        basis = result.bases[0]
        for one, rival in ((result, "backoff_table"), (reading, "backoff_table_corpus")):
            assert rival_of(one) == rival
            row = grids_of(markdown(one))[2][2]
            ahead = standing(basis, rival, "held_out")
            assert row[-1] == " / ".join(map(str, ahead))
            assert rival_words(one) in markdown(one)
        assert "same exemplars" not in markdown(reading)
        assert "method `m`. It reads the whole fit text; and it asks the model" in " ".join(conventions(reading))

    def test_what_the_graphs_were_made_from(self) -> None:
        result = make_result(1, TITLES[:1])
        for reads, words in (([], "the exemplars;"), (["neighbours", "text"], "the whole fit text, which tokens have")):
            protocol = {**result.protocol, "reads": reads, "method": {"name": "m"}, "augmenter": None}
            said = " ".join(conventions(replace(result, protocol=protocol)))
            assert f"It reads {words}" in said
            assert "Substitutes" not in said

    def test_every_reading_of_a_method_has_words(self) -> None:
        assert tuple(READING_TITLES) == READINGS

    def test_behaviours_are_those_of_the_units(self) -> None:
        result = make_result(12, TITLES[:2])
        for basis, row in zip(result.bases, grids_of(markdown(result))[5][2:], strict=True):
            found = [u.structure for u in basis.units if u.structure.n_paths]
            n = len(found)
            assert 0 < n < 12, "the data should hold a graph that never fires"
            assert row[:2] == [basis.title, f"{n} / 12"]
            assert row[2] == f"{sum(s.n_subgraphs for s in found) / n:.1f}"
            assert row[4] == f"{sum(s.n_subgraphs == 1 for s in found) / n:.0%}".replace("%", " %")
            assert row[5] == f"{sum(s.n_word_subgraphs == 1 for s in found) / n:.0%}".replace("%", " %")
            assert row[7] == f"{sum(bool(s.cores) for s in found) / n:.0%}".replace("%", " %")

    def test_missing_explainers_are_absent_not_errors(self) -> None:
        result = make_result(3, TITLES[:1])
        bare = replace(result, bases=(replace(result.bases[0], summary={}, micro={}, share_f1_half={}),))
        assert grids_of(markdown(bare))[0][2][3:] == [ABSENT] * 6

    def test_units_without_precision_are_counted(self) -> None:
        result = make_result(40, TITLES[:2])
        held, other = conventions(result)[3].split("random test text")
        for text, words in zip(TEXTS, (held, other), strict=True):
            for basis in result.bases:
                absent = sum(u.scores["graph"][text]["precision"] is None for u in basis.units)
                assert (f"{basis.title} {absent}" in words) == (absent > 0)
        assert "SAE features" in held

    def test_no_text_can_break_a_table(self) -> None:
        result = make_result(2, TITLES[:1])
        odd = replace(result.bases[0], title="a | b\n| c <img> `d` \\|")
        plain, broken = (grids_of(markdown(replace(result, bases=(b,)))) for b in (result.bases[0], odd))
        assert [[len(row) for row in grid] for grid in plain] == [[len(row) for row in grid] for grid in broken]
        assert "<img" not in markdown(replace(result, bases=(odd,)))

    def test_graph_ahead_level_behind(self) -> None:
        basis = make_basis(random.Random(1), "x", 0.5, 30)
        pairs = [[u.scores[e]["random"]["f1"] or 0.0 for e in ("graph", "backoff_table")] for u in basis.units]
        ahead, behind = sum(a > b for a, b in pairs), sum(a < b for a, b in pairs)
        assert standing(basis, "backoff_table", "random") == (ahead, 30 - ahead - behind, behind)
        assert standing(basis, "graph", "random") == (0, 30, 0)

    @pytest.mark.parametrize(
        ("value", "shown"),
        [(None, ABSENT), (0.0, "0 %"), (1.4e-4, "0.014 %"), (0.003, "0.3 %"), (0.126, "13 %"), (1e-8, "< 0.0001 %")],
    )
    def test_rates(self, value: float | None, shown: str) -> None:
        assert rate(value) == shown


class TestTerminal:
    def test_fits_a_hundred_columns_and_cuts_nothing(self) -> None:
        result = make_result(5, empty=("PCA directions",))
        odd = replace(result.bases[0], title="[bold]very long title of a basis[/bold]", counts={"examined": 12345})
        console = Console(width=100, record=True, file=io.StringIO())
        console.print(terminal_table(replace(result, bases=(odd, *result.bases[1:]))))
        text = console.export_text()
        assert max(map(len, text.splitlines())) <= 100
        assert "…" not in text
        assert "[bold]" in text  # a title is text, not markup
        assert "5/12345" in text
        for basis in result.bases[1:]:
            for word in (*basis.title.split(), estimate(summary_of(basis, "graph", "random", "f1"))):
                assert word in text


class TestFigure:
    def test_equal_results_give_equal_bytes_and_whole_files(self, tmp_path: Path) -> None:
        result = make_result(5, empty=("ICA directions",))
        first, second = (figure.draw(result, tmp_path / name) for name in "ab")
        assert [p.name for p in first] == ["comparison.png", "comparison.svg"]
        assert [p.read_bytes() for p in first] == [p.read_bytes() for p in second]
        assert sorted((tmp_path / "a").iterdir()) == sorted(first)
        assert first[0].read_bytes().startswith(b"\x89PNG")
        svg = first[1].read_text()
        assert "<metadata" not in svg
        assert figure.INK in svg  # the page ties this colour to its own

    @pytest.mark.parametrize("titles", [(), ("only $x_1$ & <b>",)])
    def test_nothing_explained_can_be_drawn(self, titles: tuple[str, ...]) -> None:
        assert figure.render(make_result(3, titles, empty=titles), "png").startswith(b"\x89PNG")

    def test_stacked_dots_keep_their_values_and_do_not_meet(self) -> None:
        rng = random.Random(2)
        values = [0.0] * 7 + [1.0] * 4 + [rng.random() for _ in range(300)]
        points = figure.stack(values)
        assert sorted(x for x, _ in points) == sorted(values)
        assert len({(min(int(x * 40), 39), round(y, 9)) for x, y in points}) == len(values)
        assert max(abs(y) for _, y in points) <= 0.36 + 1e-9


class Page(HTMLParser):
    """What a browser would find in a page: tags with attributes, text by tag, scripts by type."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[tuple[str | None, str]] = []
        self.inside: str | None = None
        self.seen: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.inside = tag
        if tag == "script":
            self.scripts.append((dict(attrs).get("type"), ""))

    def handle_data(self, data: str) -> None:
        if self.inside == "script":
            kind, text = self.scripts[-1]
            self.scripts[-1] = (kind, text + data)
        else:
            self.seen.append(data)

    def handle_endtag(self, tag: str) -> None:  # noqa: ARG002 - the base class' signature
        self.inside = None

    def count(self, tag: str, name: str) -> int:
        return sum(t == tag and name in (a.get("class") or "").split() for t, a in self.tags)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> tuple[ComparisonResult, Path, str]:
    folder = tmp_path_factory.mktemp("report")
    result = make_result(6, empty=("PCA directions",))
    write_graphs(result, folder)
    path = write_page(result, folder)
    return result, path, path.read_text()


class TestPage:
    def test_asks_for_nothing_and_runs_only_its_own_script(self, report: tuple[ComparisonResult, Path, str]) -> None:
        _, path, text = report
        assert path.name == "index.html"
        page = Page(text)
        for tag, attributes in page.tags:
            assert tag not in {"link", "img", "iframe", "object", "base"}
            assert "src" not in attributes
            for name in ("href", "xlink:href"):
                assert (attributes.get(name) or "#").startswith("#")
        assert "@import" not in text
        code = [script for kind, script in page.scripts if kind is None]
        assert len(code) == 1
        digest = base64.b64encode(hashlib.sha256(code[0].encode()).digest()).decode()
        policy = next(a["content"] for t, a in page.tags if t == "meta" and "http-equiv" in a) or ""
        assert f"script-src 'sha256-{digest}'" in policy
        assert "default-src 'none'" in policy

    def test_drawings_side_by_side_share_no_ids(self, report: tuple[ComparisonResult, Path, str]) -> None:
        shown = re.sub(r"<template>.*?</template>", "", report[2], flags=re.DOTALL)
        ids = re.findall(r' id="([^"]+)"', shown)
        assert len(ids) == len(set(ids)) > 50
        assert set(re.findall(r'(?:url\(|href=")#([\w-]+)', shown)) <= set(ids)

    def test_links_inside_the_page_have_their_target(self, report: tuple[ComparisonResult, Path, str]) -> None:
        page = Page(report[2])
        ids = [a["id"] for t, a in page.tags if a.get("id") and t in {"section", "details", "h3"}]
        assert len(ids) == len(set(ids))
        assert {(a["href"] or "")[1:] for t, a in page.tags if t == "a"} <= set(ids)

    def test_every_unit_with_graph_scores_and_sort_values(self, report: tuple[ComparisonResult, Path, str]) -> None:
        result, _, text = report
        page = Page(text)
        units = [unit for basis in result.bases for unit in basis.units]
        assert page.count("details", "unit") == page.count("div", "graph") == page.count("pre", "paths") == len(units)
        assert text.count("<title>Graph</title>") == len(units)
        values = [a["data-values"] or "" for t, a in page.tags if t == "li" and "data-values" in a]
        for unit, line in zip(units, values, strict=True):
            found = [None if part == "" else float(part) for part in line.split(",")]
            held, random_text = (unit.scores["graph"][t] for t in TEXTS)
            wanted = [unit.index, held["f1"], random_text["f1"], held["precision"], held["recall"]]
            assert found == pytest.approx([*wanted, unit.density, unit.nodes])

    def test_behaviours_are_told_by_basis_and_by_unit(self, report: tuple[ComparisonResult, Path, str]) -> None:
        result, _, text = report
        seen = "".join(Page(text).seen)
        assert SHAPE_NOTE in seen
        for basis in result.bases:
            row = (
                text.split('aria-label="Sub-graphs by basis"')[1].split(f">{basis.title}</a></th>")[1].split("</tr>")[0]
            )
            assert re.findall(r"<td>(.*?)</td>", row) == shape_row(basis)
        shown = re.findall(r"paths, (\d+) sub-graphs?( \(core tokens)?", seen)
        units = [unit.structure for basis in result.bases for unit in basis.units]
        assert shown == [(str(s.n_subgraphs), " (core tokens" if s.cores else "") for s in units]

    def test_example_texts_travel_as_data(self, report: tuple[ComparisonResult, Path, str]) -> None:
        result, _, text = report
        data = [json.loads(script) for kind, script in Page(text).scripts if kind == "application/json"]
        units = [unit for basis in result.bases for unit in basis.units]
        for unit, value in zip(units, data, strict=True):
            assert value["threshold"] == 0.5
            for window, shown in zip(unit.exemplars, value["windows"], strict=True):
                assert shown["activations"] == pytest.approx(window["activations"], abs=6e-4)
                assert shown["predicted"] == pytest.approx(window["predicted"], abs=6e-4)
                assert len(shown["tokens"]) == len(window["tokens"])
                assert "\n" not in "".join(shown["tokens"])
        assert any("</script><script>" in token for v in data for w in v["windows"] for token in w["tokens"])

    def test_no_text_of_corpus_or_model_acts_as_markup(self, report: tuple[ComparisonResult, Path, str]) -> None:
        text = report[2]
        assert "<script>alert" not in text
        assert not set("\x00\u202e\u2028") & set(text)
        assert "alert(1)" in "".join(Page(text).seen)

    def test_empty_basis_failures_and_provenance_are_told(self, report: tuple[ComparisonResult, Path, str]) -> None:
        result, _, text = report
        seen = "".join(Page(text).seen)
        assert seen.count("No unit of this basis could be explained.") == 1
        for why in result.bases[0].failures.values():
            assert why in seen
        assert "float32" in seen
        assert all(line in seen for line in conventions(result))

    def test_result_read_back_gives_the_same_page(self, report: tuple[ComparisonResult, Path, str]) -> None:
        result, path, text = report
        result.save(path.parent / "results.json")
        again = write_page(ComparisonResult.load(path.parent / "results.json"), path.parent)
        assert again.read_text() == text

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (None, "nothing there"),
            (SVG[:200], "a whole SVG"),
            ("<html/>", "an <svg> element"),
            (SVG.replace("</svg>", "<script>1</script></svg>"), "without script"),
            (SVG.replace("<rect", "<rect onload='x()'"), "without script"),
            (SVG.replace("<defs>", "<image href='http://a/b.png'/><defs>"), "without outside references"),
        ],
    )
    def test_graph_that_is_not_whole_is_named(self, tmp_path: Path, content: str | None, message: str) -> None:
        result = make_result(2, TITLES[:1])
        write_graphs(result, tmp_path)
        path = tmp_path / result.bases[0].units[1].svg_file
        path.unlink() if content is None else path.write_text(content)
        with pytest.raises(ArtefactError, match=message) as caught:
            write_page(result, tmp_path)
        assert str(path) in str(caught.value)
        assert not (tmp_path / "index.html").exists()

    def test_without_a_dictionary_the_title_asks_another_question(self, tmp_path: Path) -> None:
        page = write_page(replace(make_result(0, TITLES[:1]), dictionary={}), tmp_path).read_text()
        assert "dictionary features" not in page
        assert "The dictionary" not in page

    def test_hidden_characters_are_named(self) -> None:
        assert visible("a\x00\u202e\ud800b\n\t é🜁") == "a⟨00⟩⟨202E⟩⟨D800⟩b\n\t é🜁"


def test_a_fit_that_did_not_converge_is_said() -> None:
    said = [line for line in conventions(make_result(2)) if "converged" in line]
    assert len(said) == 1
    assert "ICA directions" in said[0]
    assert "80 iterations" in said[0]
