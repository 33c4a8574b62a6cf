"""Figures of training: what is drawn is read back out of matplotlib's own objects and out of the files."""

import json
import re
from functools import partial

import numpy as np
import pytest
import torch

from saelens_n2g.errors import ArtefactError, InputError
from saelens_n2g.figures import save
from saelens_n2g.training import figures
from saelens_n2g.training.figures import (
    FrontierPanel,
    FrontierPoint,
    density_figure,
    frontier,
    read_metrics,
    short,
    similarity_figure,
    training_curves,
)
from saelens_n2g.training.metrics import feature_density

LINES = [
    {
        "details/n_training_samples": 1000 * step,
        "losses/overall_loss": 30.0 / step,
        "losses/mse_loss": 20.0 / step,
        "losses/l1_loss": 10.0 / step,
        "losses/of_a_new_kind": 1.0 / step,
        "metrics/explained_variance": 1 - 1.5 / step,
        "metrics/l0": 400.0 / step,
        "sparsity/dead_features": step // 3,
    }
    for step in range(1, 12)
]
DENSITY = feature_density(torch.linspace(-5.05, -0.55, 300))
POINTS = [
    FrontierPoint("tied", 80, 0.1, "1e-3"),
    FrontierPoint("tied", 20, 0.3, "1e-2"),
    FrontierPoint("topk", 32, 0.2),
    FrontierPoint("tied", 40, 0.2, "3e-3"),
]
PCA = [(0, 1.0), (1, 0.8), (100, 0.05), (10, 0.5)]
DRAWN = {
    "training": partial(training_curves, LINES, title="A run"),
    "density": partial(density_figure, {"a": DENSITY, "b": DENSITY._replace(never=12_345)}),
    "frontier": partial(frontier, [FrontierPanel("", POINTS, PCA)], title="Error"),
    "mmcs": partial(similarity_figure, ["a", "b"], [[1.0, 0.3], [0.3, 1.0]], title="Alike"),
}


@pytest.fixture
def drawn(monkeypatch):
    """The matplotlib figure of whatever is drawn next, and the texts in it."""
    caught = []
    render = figures._render

    def catching(draw, size, kind):
        def both(figure):
            draw(figure)
            caught.append(figure)

        return render(both, size, kind)

    monkeypatch.setattr(figures, "_render", catching)
    return caught


def texts(figure) -> str:
    import matplotlib.text

    return "\n".join(t.get_text() for t in figure.findobj(matplotlib.text.Text))


def series(axes) -> dict[str, list[tuple[float, float]]]:
    return {line.get_label(): [tuple(p) for p in line.get_xydata().tolist()] for line in axes.get_lines()}


def named(axes) -> dict[str, list[tuple[float, float]]]:
    """Those of `series` that the legend names."""
    return {label: points for label, points in series(axes).items() if not label.startswith("_")}


@pytest.mark.parametrize("name", DRAWN)
def test_equal_values_give_equal_bytes_that_name_no_time_or_version(name, tmp_path):
    paths = save(tmp_path / "made", name, DRAWN[name])
    assert [p.name for p in paths] == [f"{name}.png", f"{name}.svg"]
    png, svg = (p.read_bytes() for p in paths)
    assert png.startswith(b"\x89PNG")
    assert b"Software" not in png
    assert svg.startswith(b"<?xml")
    assert not re.search(rb"<dc:date>|atplotlib v|Matplotlib", svg)
    assert DRAWN[name]("svg") == svg
    assert DRAWN[name]("png") == png
    assert len(png) < 400_000


def test_pictures_do_not_depend_on_the_users_settings(drawn):
    import matplotlib as mpl

    plain = DRAWN["frontier"]("svg")
    with mpl.rc_context({"font.size": 30, "axes.grid": True, "lines.linewidth": 9}):
        assert DRAWN["frontier"]("svg") == plain
        assert mpl.rcParams["font.size"] == 30
    assert len(drawn) == 2


def test_curves_are_the_metrics(drawn):
    training_curves(LINES, "svg", title="A run")
    losses, explained, l0, dead = drawn[0].axes
    samples = [line["details/n_training_samples"] for line in LINES]
    assert list(series(losses)) == ["overall", "squared error", "L1", "of_a_new_kind"]
    assert series(losses)["L1"] == [(x, line["losses/l1_loss"]) for x, line in zip(samples, LINES, strict=True)]
    for axes, metric in (
        (explained, "metrics/explained_variance"),
        (l0, "metrics/l0"),
        (dead, "sparsity/dead_features"),
    ):
        (points,) = series(axes).values()
        assert points == [(x, line[metric]) for x, line in zip(samples, LINES, strict=True)]
    assert explained.get_ylim()[0] == dead.get_ylim()[0] == 0
    assert [t.get_text() for t in losses.get_legend().get_texts()] == list(series(losses))
    assert "A run" in texts(drawn[0])
    low, high = l0.get_ylim()
    assert sum(low <= tick <= high for tick in l0.get_yticks()) >= 2


def test_a_metric_that_was_not_recorded_is_said_to_be_missing(drawn):
    lines = [{"details/n_training_samples": 500, "metrics/l0": 120.0, "losses/mse_loss": 0.0}]
    training_curves(lines, "png")
    shown = texts(drawn[0])
    assert shown.count("not recorded") == 3  # a loss of zero has no place on a logarithmic axis
    low, high = drawn[0].axes[2].get_ylim()
    assert low < 120 < high
    assert sum(low <= tick <= high for tick in drawn[0].axes[2].get_yticks()) >= 2
    with pytest.raises(InputError, match="at least one line"):
        training_curves([], "png")


def test_read_metrics(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in LINES) + '{"details/n_tr')
    assert read_metrics(path) == LINES
    with pytest.raises(ArtefactError, match="nothing there"):
        read_metrics(tmp_path / "other.jsonl")
    for broken, message in (('{"a"\n', "line 1"), ("[1]\n", "n_training_samples"), ('{"metrics/l0": 1}\n', "found")):
        path.write_text(broken)
        with pytest.raises(ArtefactError, match=message) as caught:
            read_metrics(path)
        assert "\n" not in str(caught.value)


def test_histograms_show_every_feature(drawn):
    density_figure({"a": DENSITY, "b": DENSITY._replace(never=12_345), "c": DENSITY._replace(never=9)}, "png")
    figure = drawn[0]
    shown = texts(figure)
    for words in ("a   300 features, 0 never fire", "b   12,645 features, 12,345 never fire", "↑ 12,345", "never"):
        assert words in shown
    for axes, never in zip(figure.axes, (None, "cut", 9), strict=True):
        (stairs,) = [p for p in axes.patches if hasattr(p, "get_data")]
        assert np.array_equal(stairs.get_data().values, DENSITY.counts)
        low, high = axes.get_xlim()
        filled = np.flatnonzero(DENSITY.counts)
        assert low < DENSITY.edges[filled[0]] < DENSITY.edges[filled[-1] + 1] < high
        bars = [bar for container in axes.containers for bar in container]
        assert len(bars) == (never is not None)
        if bars:
            assert bars[0].get_height() == (axes.get_ylim()[1] if never == "cut" else never)
            assert bars[0].get_x() > low
            assert bars[0].get_x() + bars[0].get_width() < DENSITY.edges[filled[0]]
    with pytest.raises(InputError, match="at least one dictionary"):
        density_figure({}, "png")


def test_a_dictionary_in_which_nothing_fires_has_a_picture():
    assert density_figure({"": feature_density(torch.full((7,), -10.0))}, "png").startswith(b"\x89PNG")


def test_the_frontier_holds_every_point_and_the_reference(drawn):
    frontier([FrontierPanel("", POINTS, PCA)], "png")
    (axes,) = drawn[0].axes
    assert named(axes) == {
        "PCA, k components": [(1, 0.8), (10, 0.5), (100, 0.05)],
        "tied": [(20, 0.3), (40, 0.2), (80, 0.1)],
        "topk": [(32, 0.2)],
    }
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    assert all(left < p.l0 < right and low <= p.fvu < high for p in POINTS)
    for note in ("1e-3", "1e-2", "3e-3"):
        assert note in texts(drawn[0])
    frontier([FrontierPanel("", POINTS, [])], "png")
    assert "PCA, k components" not in series(drawn[1].axes[0])


def test_seeds_are_points_and_their_mean_carries_the_line(drawn):
    seeds = [FrontierPoint("tied", l0, fvu, note) for l0, fvu, note in ((10, 0.4, "a"), (14, 0.2, "a"), (40, 0.1, "b"))]
    frontier([FrontierPanel("all", seeds, []), FrontierPanel("near", seeds[:1], [])], "png")
    first, second = drawn[0].axes
    assert named(first) == {"tied": [(10, 0.4), (14, 0.2), (40, 0.1)]}
    (line,) = [one for one in first.lines if one.get_linestyle() == "-"]
    assert line.get_xydata().tolist() == [[12, pytest.approx(0.3)], [40, 0.1]]
    assert [text.get_text() for text in first.texts].count("a") == 1, "a note stands once"
    assert (first.get_title(loc="left"), second.get_title(loc="left")) == ("all", "near")
    assert (first.get_legend() is None, second.get_legend() is None) == (False, True)


def test_notes_of_near_points_stand_apart(drawn):
    frontier([FrontierPanel("", [FrontierPoint("s", 50 + i / 2, 0.2, f"{i}e-{i}") for i in range(4)], PCA)], "png")
    figure = drawn[0]
    renderer = figure.canvas.get_renderer()
    boxes = [t.get_window_extent(renderer) for t in figure.axes[0].texts]
    assert len(boxes) == 4
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


@pytest.mark.parametrize(
    "point", [FrontierPoint("a", 0, 0.1), FrontierPoint("a", float("inf"), 0.1), FrontierPoint("a", 3, float("nan"))]
)
def test_points_that_have_no_place_are_refused(point):
    with pytest.raises(InputError, match="an L0 above 0 and a finite FVU"):
        frontier([FrontierPanel("", [*POINTS, point], PCA)], "png")
    with pytest.raises(InputError, match="at least one dictionary"):
        frontier([FrontierPanel("", [], PCA)], "png")


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0, "0"), (0.02, "0.02"), (1.5, "1.5"), (40, "40"), (2000, "2k"), (1_250_000, "1.25M"), (3e9, "3G")],
)
def test_short_numbers(value, expected):
    assert short(value) == expected


def test_every_cell_of_the_square_says_its_number(drawn):
    table = [[1.0, 0.31, 0.9], [0.31, 1.0, 0.52], [0.9, 0.52, 1.0]]
    similarity_figure(["alpha0.001", "alpha0.01", "topk-k4"], table, "svg", title="Alike")
    (axes,) = drawn[0].axes
    assert np.array_equal(axes.images[0].get_array(), table)
    shown = {tuple(map(round, t.get_position())): t.get_text() for t in axes.texts}
    assert shown == {(j, i): f"{table[i][j]:.2f}" for i in range(3) for j in range(3)}
    assert [t.get_text() for t in axes.get_xticklabels()] == ["alpha0.001", "alpha0.01", "topk-k4"]
    assert similarity_figure(["alone"], [[1.0]], "png").startswith(b"\x89PNG")
    for names, values in (([], []), (["a"], [[1.0, 0.2]]), (["a", "b"], [[1.0, 0.2]])):
        with pytest.raises(InputError, match="similarity figure"):
            similarity_figure(names, values, "png")


def test_the_ink_can_be_read_on_every_cell(drawn):
    def luminance(colour):
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour[:3]]
        return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))

    from matplotlib.colors import to_rgb

    table = [[max(0.0, 1 - abs(i - j) / 12) for j in range(12)] for i in range(12)]
    similarity_figure([str(i) for i in range(12)], table, "svg")
    (axes,) = drawn[0].axes
    image = axes.images[0]
    for text in axes.texts:
        x, y = map(round, text.get_position())
        one, other = luminance(image.cmap(image.norm(table[y][x]))), luminance(to_rgb(text.get_color()))
        contrast = (max(one, other) + 0.05) / (min(one, other) + 0.05)
        assert contrast >= 4.0, (table[y][x], contrast)


def test_matplotlib_is_loaded_only_to_draw():
    import subprocess
    import sys

    code = (
        "import sys, saelens_n2g.training.figures, saelens_n2g.training.evaluation;"
        "print([m for m in ('matplotlib', 'scipy', 'sklearn', 'wandb', 'transformers') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
