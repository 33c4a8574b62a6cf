"""The figure of an interpretation: who is named, what is marked, what is not drawn, and that nothing overlaps."""

import re
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from saelens_n2g import figures
from saelens_n2g.autointerp import figure
from saelens_n2g.autointerp.detection import Answers
from saelens_n2g.autointerp.judge import Judged
from saelens_n2g.autointerp.page import write_page
from saelens_n2g.autointerp.results import Interpretation, Outcome, Way
from saelens_n2g.autointerp.scores import METRICS, SETS, SetScores
from saelens_n2g.autointerp.shown import MOST_BASES, MOST_LINES, MOST_ROWS, best_control, described, note, shown
from saelens_n2g.autointerp.table import markdown

WAYS = {Way("graph"): 0.6, Way("table"): 0.4, Way("quoted", "templated"): 0.5}
NONE = Answers(None, None, None, 0, 0)


def judged(worth: float | None, chance: float = 0.0) -> Judged:
    def sets(value: float | None) -> dict[str, SetScores]:
        return {name: SetScores(dict.fromkeys(METRICS, value), {}, 3, 30, 3) for name in SETS}

    return Judged(sets(worth), sets(chance), NONE, NONE, 0, {})


def outcomes(worth: float, groups, units: int, seed: int, control: float) -> list[Outcome]:
    """Units of each basis and layer, spread about `worth`, whose controls are spread about `control`."""
    draw = np.random.default_rng(seed)
    found = []
    for basis, layer in groups:
        for index in range(units):
            true, other = (float(np.clip(mean + draw.normal(0, 0.03), -1, 1)) for mean in (worth, control))
            name = f"{layer}.resid_post/{basis}/{index}"
            controls = {"neutral": judged(other), "other": judged(other - 0.05)}
            known = {"unit": name, "run": "demo", "basis": basis, "layer": layer, "status": "scored", "reason": ""}
            found.append(Outcome(**known, judged=judged(true), controls=controls))
    return found


def made(ways=None, groups=(("sae", 1), ("neurons", 1)), units: int = 8, **controls: float) -> Interpretation:
    """controls: those of a way, by its label with `_` for ` > `; 0.1 of others."""
    told = {
        way: outcomes(worth, groups, units, seed, controls.get(way.label.replace(" > ", "_"), 0.1))
        for seed, (way, worth) in enumerate((ways or WAYS).items())
    }
    return Interpretation(told, {}, {"seed": 0}, {}, {})


def many(n: int) -> dict[Way, float]:
    names = ("templated", "templated-table", "from-graph", "highlights", "token-activation", "revised", "said")
    said = [Way(reader, name) for name in names for reader in ("quoted", "token-by-token", "embedding")]
    return {**{Way(name): 0.6 for name in ("graph", "table", "backoff")}, **dict.fromkeys(said[: n - 3], 0.5)}


def svg(result: Interpretation, **more) -> str:
    return figure.render(shown(result), "svg", **more).decode()


def named(drawn: str) -> list[str]:
    """All texts of an SVG in order; glyphs are paths, so they stand in comments."""
    return [text.replace("&gt;", ">") for text in re.findall(r"<!-- (.*?) -->", drawn)]


@pytest.fixture
def seen(monkeypatch):
    """Figures that are rendered, laid out."""
    kept = []

    def render(draw, size, *_):
        one = Figure(figsize=size)
        canvas = FigureCanvasAgg(one)
        with figures_style():
            draw(one)
            canvas.draw()
        kept.append(one)
        return b""

    monkeypatch.setattr(figures, "render", render)
    return kept


def figures_style():
    import matplotlib as mpl

    return mpl.rc_context({**mpl.rcParamsDefault, **figures.STYLE, **figure.STYLE})


def drawn(seen, result: Interpretation, **more) -> Figure:
    figure.render(shown(result), "svg", **more)
    return seen[-1]


def marks(axes, marker: str | None = None):
    """Lines of one point, which are marks."""
    lines = [line for line in axes.lines if len(line.get_xdata()) == 1]
    return [line for line in lines if marker is None or line.get_marker() == marker]


def texts(one: Figure):
    """Every text that is shown: of figure, axes, ticks and legends."""
    found = [*one.texts, *(text for legend in one.legends for text in legend.get_texts())]
    for axes in one.axes:
        found += [*axes.texts, axes.title, axes._left_title, axes.xaxis.label, *axes.get_xticklabels()]
        found += axes.get_yticklabels()
    return [text for text in found if text.get_text()]


@pytest.mark.parametrize("narrow", [False, True])
def test_equal_results_give_equal_bytes(narrow):
    assert svg(made(), narrow=narrow) == svg(made(), narrow=narrow)
    assert figure.render(shown(made()), "png") == figure.render(shown(made()), "png")
    assert svg(made()) != svg(made(ways={**WAYS, Way("graph"): 0.7}))


@pytest.mark.parametrize("narrow", [False, True])
def test_rows_are_the_ways_best_first(narrow):
    words = named(svg(made(), narrow=narrow))
    ways = [word for word in words if word in {way.label for way in WAYS}]
    assert ways[:3] == ["graph", "templated > quoted", "table"]
    assert "a   How well each way predicts 16 units" in words
    assert {"sae", "neurons", "b   Correlation by basis, layer 1"} <= set(words)
    assert f"{made().summary(Way('graph'), 'top_and_random', 'correlation').mean:.2f}" in words


def test_what_is_invalid_is_last_hollow_grey_and_says_so(seen):
    result = made(graph=0.9)
    assert [row.label for row in shown(result).rows] == ["templated > quoted", "table", "graph (invalid)"]
    one = drawn(seen, result)
    for axes in one.axes:
        first, *_, last = marks(axes, "o")
        assert (last.get_markerfacecolor(), last.get_markeredgecolor()) == ("none", figure.GREY)
        assert first.get_markerfacecolor() == figure.PURPLE
    assert [tick.get_text() for tick in one.axes[0].get_yticklabels()][-1] == "graph (invalid)"
    assert "Invalid: not above each of its controls." in one.texts[-1].get_text()
    assert "Invalid" not in drawn(seen, made()).texts[-1].get_text()


def test_undefined_scores_are_no_zeros(seen):
    result = made()
    silent = [replace(one, judged=judged(None), controls={}) for one in result.outcomes[Way("table")]]
    half = [replace(one, judged=judged(None)) if i % 2 else one for i, one in enumerate(result.outcomes[Way("graph")])]
    told = {**result.outcomes, Way("table"): silent, Way("graph"): half}
    one = drawn(seen, replace(result, outcomes=told))
    assert [row.label for row in shown(replace(result, outcomes=told)).rows][-1] == "table"
    for axes in one.axes:
        assert len(marks(axes, "o")) == 2
        assert {line.get_ydata()[0] for line in marks(axes, "o")} == {0, 1}
        assert [text.get_text() for text in axes.texts].count("no value") == 1
    counts = [[word for text in axes.texts if "n =" in (word := text.get_text())] for axes in one.axes]
    assert counts == [["n = 8"]] * 2 + [["n = 4"]] * 2
    graph = result.values(Way("graph"), "top_and_random", "correlation")[::2]
    assert marks(one.axes[0], "o")[0].get_xdata()[0] == pytest.approx(np.mean(graph))


def test_the_best_control_is_the_highest_that_enough_units_define(seen):
    result = made(table=0.2)
    way, score = Way("table"), ("random", "auprc")
    neutral = [one.control("neutral", *score) for one in result.outcomes[way]]
    assert best_control(result, way, *score) == pytest.approx(np.mean(neutral))
    (mark,) = [line for line in marks(drawn(seen, result).axes[1], "D") if line.get_ydata()[0] == 2]
    assert mark.get_xdata()[0] == pytest.approx(np.mean(neutral))
    assert mark.get_markerfacecolor() == "none"
    high = [judged(0.9 if place < 4 else None) for place in range(16)]
    few = [
        replace(one, controls={**one.controls, "other": other})
        for one, other in zip(result.outcomes[way], high, strict=True)
    ]
    assert best_control(replace(result, outcomes={way: few}), way, *score) == pytest.approx(np.mean(neutral))
    five = [*few[:4], replace(few[4], controls={"other": judged(0.9)}), *few[5:]]
    assert best_control(replace(result, outcomes={way: five}), way, *score) == pytest.approx(0.9)
    none = [replace(one, judged=None, controls={}) for one in few]
    assert best_control(replace(result, outcomes={way: none}), way, *score) is None


def test_layers_go_across_with_a_line_for_each_way(seen):
    groups = [(basis, layer) for basis in ("sae", "neurons") for layer in (1, 5, 9)]
    result = made(groups=groups)
    gone = [replace(o, judged=judged(None)) if o.group[1:] == ("sae", 5) else o for o in result.outcomes[Way("graph")]]
    result = replace(result, outcomes={**result.outcomes, Way("graph"): gone})
    one = drawn(seen, result)
    assert [axes._left_title.get_text() for axes in one.axes[2:]] == ["sae", "neurons"]
    for basis, axes in zip(("sae", "neurons"), one.axes[2:], strict=True):
        assert [tick.get_text() for tick in axes.get_xticklabels()] == ["1", "5", "9"]
        lines = {line.get_color(): line for line in axes.lines if line.get_marker() not in ("None", "")}
        assert len(lines) == 3
        graph = lines[figure.BLUE].get_ydata()
        units = [[o for o in result.outcomes[Way("graph")] if o.group[1:] == (basis, layer)] for layer in (1, 5, 9)]
        means = [[o.value("top_and_random", "correlation") for o in several] for several in units]
        wanted = [np.nan if None in several else np.mean(several) for several in means]
        assert np.allclose(graph, wanted, equal_nan=True)
        assert bool(np.isnan(graph).any()) == (basis == "sae")
    assert [text.get_text() for text in one.legends[1].get_texts()] == [row.label for row in shown(result).rows]


def test_one_unit_is_shown_without_intervals_and_verdicts(seen):
    one = drawn(seen, made(groups=[("sae", 3)], units=1))
    assert len(one.axes) == 2, "one basis at one layer is all there is"
    assert all(len(marks(axes, "o")) == 3 for axes in one.axes)
    assert "Too few units to test against controls" in " ".join(one.texts[-1].get_text().split())


@pytest.mark.parametrize("narrow", [False, True])
@pytest.mark.parametrize(
    "groups",
    [
        [(f"basis{i}", 1) for i in range(8)],
        [("sae", 1), ("neurons", 3)],
        [(basis, layer) for basis in ("sae", "neurons") for layer in range(12)],
    ],
)
def test_fifteen_ways_are_named_and_nothing_overlaps(seen, groups, narrow):
    result = made(many(15), groups, 5, revised_quoted=0.9, **{"templated_token-by-token": 0.9})
    one = drawn(seen, result, narrow=narrow)
    names = [" ".join(tick.get_text().split()) for tick in one.axes[0].get_yticklabels()]
    assert sorted(names) == sorted(map(result.label, result.outcomes))
    assert "templated > token-by-token (invalid)" in names
    width, height = one.canvas.get_width_height()
    boxes = [(text.get_text(), text.get_window_extent()) for text in texts(one)]
    assert len(boxes) > 50
    for said, box in boxes:
        assert min(box.x0, box.y0) >= 0, said
        assert box.x1 <= width, said
        assert box.y1 <= height, said
    for (a, first), (b, second) in combinations(boxes, 2):
        apart = first.x1 <= second.x0 or second.x1 <= first.x0 or first.y1 <= second.y0 or second.y1 <= first.y0
        assert apart, (a, b)


def test_what_is_left_out_is_said():
    bases = [(f"basis{i}", 1) for i in range(MOST_BASES + 2)]
    assert "Only in the tables: 3 more ways." in note(shown(made(many(MOST_ROWS + 3), units=1)))
    assert "Only in the tables: 2 more bases." in note(shown(made(groups=bases, units=1)))
    assert "Only" not in note(shown(made(many(MOST_ROWS), bases[:MOST_BASES], 1)))
    layered = shown(made(many(9), [("sae", 1), ("sae", 2)], 2))
    assert sum(look.colour != figure.INK for look in figure.looks(layered)) == MOST_LINES
    words = " ".join(named(figure.render(layered, "svg").decode()))
    assert f"Lines: the first {MOST_LINES} of the rows above." in words


def test_the_report_shows_it(tmp_path):
    result = made(graph=0.9)
    html = write_page(result, tmp_path).read_text()
    assert (tmp_path / "figure.svg").read_text() == svg(result)
    assert "](figure.svg)" in markdown(result)
    assert html.count("<svg ") == 2
    ids = re.findall(r' id="([^"]+)"', html)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'href="#([^"]+)"', html)) <= set(ids)
    assert not set(re.findall(r"#[0-9a-f]{6}", html.partition("<figure")[2].partition("</figure")[0])) - {figure.GREY}
    assert described(shown(result)).replace(">", "&gt;") in html
    assert "graph (invalid) 0.59 and 0.59." in described(shown(result))
