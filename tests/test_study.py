"""The study: settings, matching and means against plain statements, fragments, the protocol of Gao et al., wording."""

import itertools
import math
import random
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from fakes import A, B, C, D

from saelens_n2g.bases.base import AffineBasis
from saelens_n2g.bases.neurons import NeuronBasis
from saelens_n2g.comparison.config import RunConfig, TextConfig
from saelens_n2g.comparison.scores import TextScores
from saelens_n2g.comparison.selection import Unit
from saelens_n2g.comparison.units import UnitRule, UnitStatistics
from saelens_n2g.corpus import Windows
from saelens_n2g.errors import InputError, UnitError
from saelens_n2g.exemplars import ExemplarSet, exemplar
from saelens_n2g.graphs.graph import Graph
from saelens_n2g.scoring import Summary, summarise
from saelens_n2g.sites import Site
from saelens_n2g.study.cell import _explained, cycle
from saelens_n2g.study.conclusions import PAIRS, clear, same_size, sentence, shown
from saelens_n2g.study.config import SHUFFLED, TRAINING, StudyConfig, variant
from saelens_n2g.study.fragments import KINDS, Fragments, correlations
from saelens_n2g.study.matching import Traits, cliffs_delta, match
from saelens_n2g.study.means import gap, stratified
from saelens_n2g.study.nonzero import judge, sampled
from saelens_n2g.study.results import EqualSize, Versus
from saelens_n2g.study.twins import directions, earlier_twin, nearest

# --- settings -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"layers": ()}, "option layers"),
        ({"layers": (1, 1)}, "option layers"),
        ({"layers": (-1,)}, "site layer"),
        ({"bases": ("knots",)}, "option bases"),
        ({"bases": ("pca", "pca")}, "option bases"),
        ({"bases": (), "dictionaries": {}}, "option bases"),
        ({"dictionaries": {"pca": TRAINING}}, "name of a dictionary"),
        ({"dictionaries": {"a/b": TRAINING}}, "name of a dictionary"),
        ({"dictionaries": {"shuffled": TRAINING}}, "name of a dictionary"),
        ({"dictionaries": {"mine": "folder"}}, "dictionary mine"),
        ({"dictionaries": {"a": TRAINING, "b": replace(TRAINING, batch=128)}}, "dictionaries to train"),
        ({"fragment": 129}, "option fragment"),
        ({"fragments": 0}, "option fragments"),
        ({"caliper": 0.0}, "options caliper"),
    ],
)
def test_settings_that_cannot_be(options, named):
    with pytest.raises(InputError, match=named):
        StudyConfig(**options)


def test_names_of_variants():
    found = variant("topk-R2.5")
    assert (found.architecture, found.expansion, found.samples) == ("topk", 2.5, TRAINING.samples)
    for name in ("tied", "tied-4", "knots-R4", "tied-R"):
        with pytest.raises(InputError):
            variant(name)


def test_bases_in_order():
    config = StudyConfig(bases=("random", "neurons"), dictionaries={"tied-R2": TRAINING, "mine": "d/{layer}"})
    assert config.names == ("neurons", "tied-R2", "mine", "random")
    assert list(config.trained) == ["tied-R2"]
    assert config.at(3, "mine").dictionary == "d/3"
    assert (config.at(3, "tied-R2").bases, config.at(3, "tied-R2").dictionary) == (("sae",), None)
    assert config.at(3, "random").bases == ("random",)
    assert StudyConfig(bases=("pca",), dictionaries={}).names == ("pca",)


BASE = StudyConfig(layers=(0, 1), bases=("neurons", "pca"), dictionaries={"tied-R2": variant("tied-R2")})
CELLS = set(itertools.product(BASE.layers, BASE.names))


@pytest.mark.parametrize(
    ("other", "redone", "retrained"),
    [
        (replace(BASE, run=replace(BASE.run, text=TextConfig(tokens=77, width=129))), CELLS, True),
        (replace(BASE, run=replace(BASE.run, rule=UnitRule(units=3))), CELLS, False),
        (replace(BASE, run=replace(BASE.run, method="suffix")), CELLS, False),
        (replace(BASE, fragments=7), CELLS, False),
        (replace(BASE, dictionaries={"tied-R2": variant("tied-R4")}), {c for c in CELLS if c[1] == "tied-R2"}, True),
        (replace(BASE, bases=("pca", "random", "neurons")), set(), False),
        (replace(BASE, caliper=0.5), set(), False),
        (replace(BASE, layers=(1, 0)), set(), True),
        (replace(BASE, run=replace(BASE.run, layer=9, bases=("ica",))), set(), False),
    ],
)
def test_a_setting_redoes_what_it_decides_and_no_more(other, redone, retrained):
    assert {at for at in CELLS if BASE.key(*at) != other.key(*at)} == redone
    assert (BASE.training_key() != other.training_key()) == retrained


def test_the_report_depends_on_how_units_are_matched():
    assert replace(BASE, caliper=0.5).report_key() != BASE.report_key()
    assert len({BASE.key(*at) for at in CELLS}) == len(CELLS)


# --- matching -------------------------------------------------------------------------------------------------


def every_pairing(a, b, caliper, exemplar_caliper):
    """All one-to-one pairings of units that may be paired, each with its sum of distances."""

    def go(i, used):
        if i == len(a):
            yield (), 0.0
            return
        for rest, cost in go(i + 1, used):
            yield rest, cost
        for j in range(len(b)):
            apart = abs(math.log10(a[i].density / b[j].density))
            exemplars = abs(a[i].exemplars - b[j].exemplars)
            if j not in used and apart <= caliper and exemplars <= exemplar_caliper:
                for rest, cost in go(i + 1, used | {j}):
                    yield ((i, j), *rest), cost + apart / caliper + exemplars / (exemplar_caliper + 1)

    return go(0, frozenset())


@pytest.mark.parametrize("seed", range(12))
def test_matching_is_the_largest_and_then_the_closest(seed):
    draw = random.Random(seed)
    a, b = (
        [Traits(10 ** draw.uniform(-4, -2.5), draw.randint(10, 20)) for _ in range(draw.randint(0, 5))]
        for _ in range(2)
    )
    found = match(a, b, caliper=0.4, exemplar_caliper=5)
    pairings = [(pairs, cost) for pairs, cost in every_pairing(a, b, 0.4, 5)]
    most = max(len(pairs) for pairs, _ in pairings)
    assert len(found) == most
    costs = {tuple(sorted(pairs)): cost for pairs, cost in pairings if len(pairs) == most}
    assert tuple(found) in costs
    assert costs[tuple(found)] == pytest.approx(min(costs.values()))


def test_beyond_the_calipers_nobody_is_matched():
    near = {"caliper": 0.25, "exemplar_caliper": 2}
    assert match([Traits(0.001, 20)], [Traits(0.00101, 20)], **near) == [(0, 0)]
    assert match([Traits(0.001, 20)], [Traits(0.002, 20)], **near) == []
    assert match([Traits(0.001, 20)], [Traits(0.001, 17)], **near) == []
    # Two pairs that hold are better than one that is perfect.
    assert match([Traits(0.001, 20), Traits(0.0015, 20)], [Traits(0.001, 20), Traits(0.0006, 20)], **near) == [
        (0, 1), (1, 0),
    ]  # fmt: skip


def test_cliffs_delta_is_what_it_says():
    a, b = [0.1, 0.5, 0.9, 0.5], [0.5, 0.2, 0.0]
    pairs = [(x, y) for x in a for y in b]
    assert cliffs_delta(a, b) == (sum(x > y for x, y in pairs) - sum(x < y for x, y in pairs)) / len(pairs)
    assert cliffs_delta([1.0], [0.0]) == 1.0
    assert cliffs_delta([], [0.0]) is None


# --- means ----------------------------------------------------------------------------------------------------


def test_one_layer_is_an_ordinary_bootstrap():
    values = [random.Random(1).random() for _ in range(40)]
    found, plain = stratified([values], seed=0), summarise(values, seed=0)
    assert (found.n, found.mean, found.median) == (40, pytest.approx(plain.mean), pytest.approx(plain.median))
    assert found.low == pytest.approx(plain.low, abs=0.02)
    assert found.high == pytest.approx(plain.high, abs=0.02)


def test_layers_are_not_resampled():
    """What differs between layers alone leaves no doubt; in one pot it would."""
    found = stratified([[0.0] * 5, [1.0] * 15, [None]], seed=0)
    assert (found.mean, found.low, found.high, found.n) == (0.75, 0.75, 0.75, 20)


def test_layers_of_one_unit_do_not_feign_certainty():
    found = stratified([[0.1], [0.5], [0.3]], seed=0)
    assert found.low is not None
    assert found.high is not None
    assert found.high - found.low > 0.1
    assert stratified([[None], []], seed=0) == Summary(None, None, None, None, 0)


def test_a_gap_weighs_layers_alike():
    a, b = [[1.0] * 3, [0.5] * 30, [9.0]], [[0.0] * 5, [0.5] * 4, [0.0] * 9]
    found = gap(a, b, seed=0)
    assert (found.mean, found.low, found.high, found.n) == (0.5, 0.5, 0.5, 9)
    assert gap([[1.0]], [[2.0]], seed=0).mean is None


def test_the_interval_of_a_gap_has_the_width_that_theory_gives():
    rng = np.random.default_rng(0)
    a, b = ([rng.normal(size=200).tolist() for _ in range(3)] for _ in range(2))
    found = gap(a, b, seed=0)
    error = math.sqrt(sum(np.var(x) / 200 + np.var(y) / 200 for x, y in zip(a, b, strict=True))) / 3
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.1)


# --- twins, and who is given whose graph ----------------------------------------------------------------------


@pytest.mark.parametrize("n", [2, 3, 8, 17])
def test_nobody_is_given_what_is_its_own(n):
    order = cycle(n, [0, 1])
    assert sorted(order) == list(range(n))
    assert all(i != j for i, j in enumerate(order))
    assert cycle(n, [0, 1]) == order
    assert len({tuple(cycle(n, [seed])) for seed in range(40)}) == (1 if n == 2 else 2) or n > 3


def test_alone_there_is_nobody_to_shuffle_with():
    assert cycle(1, [0]) == cycle(0, [0]) == []


def test_twins_in_direction_and_in_activation(monkeypatch):
    monkeypatch.setattr("saelens_n2g.study.twins.BLOCK", 2)
    rows = torch.tensor([[1.0, 0, 0], [0, 1, 0], [2, 0.1, 0], [-1, 0, 0], [0, 0, 0]])
    plain = torch.nn.functional.cosine_similarity(rows[:, None], rows[None], dim=-1).fill_diagonal_(-1)
    np.testing.assert_allclose(nearest(rows), plain.amax(1).numpy(), atol=1e-6)
    values = [np.eye(5, dtype=np.float32)[[i]] for i in range(5)]
    values[4] = values[1] * 3 + values[0] * 0.1
    assert earlier_twin(values, rows, 0.95) == [None, None, 0, None, 1]
    assert earlier_twin(values, None, 0.95) == [None, None, None, None, 1]
    basis = AffineBasis("x", Site(0, "resid_post"), "", rows, torch.zeros(5), torch.zeros(3))
    assert torch.equal(directions(basis), rows)
    assert directions(NeuronBasis(Site(0, "mlp_post"), 4)) is None


# --- fragments ------------------------------------------------------------------------------------------------


def windows(n: int = 12, width: int = 13, seed: int = 0) -> Windows:
    draw = random.Random(seed)
    tokens = np.zeros((n, width), dtype=np.int32)
    lengths = np.array([width - draw.choice((0, 0, 5)) for _ in range(n)], dtype=np.int32)
    for row, length in enumerate(lengths):
        tokens[row, 1:length] = [draw.choice((A, B, C, D)) for _ in range(length - 1)]
    return Windows(tokens, lengths, np.arange(n, dtype=np.int32), tuple(f"d{i}" for i in range(n)), 0, "fake", 0)


class RowByRow:
    """An explanation that knows one text at a time: 1 on one token, but not behind another."""

    def predict(self, tokens):
        return np.array([float(t == B and i > 0 and tokens[i - 1] != D) for i, t in enumerate(tokens)], np.float32)

    def to_text(self):
        return "B, but not after D"


def activations_of(text: Windows) -> np.ndarray:
    noise = np.random.default_rng(1).random(text.tokens.shape).astype(np.float32) * 0.3
    grid = np.where(text.mask & (text.tokens == B), 0.5 + noise, 0).astype(np.float32)
    grid[text.mask & (text.tokens == A)] = 0.1
    grid[: len(grid) // 2, :] *= text.tokens[: len(grid) // 2] == C  # half of the windows are silent
    return grid


def test_windows_are_cut_into_whole_fragments():
    text = windows()
    cut = Fragments.of(text, 4)
    plain = [text.tokens[r, s : s + 4].tolist() for r, n in enumerate(text.lengths) for s in range(1, n - 3, 4)]
    assert cut.values(text.tokens.astype(float), np.arange(len(cut))).astype(int).tolist() == plain
    assert all(0 not in fragment for fragment in plain)


def test_fragments_are_chosen_as_they_say():
    text = windows()
    cut, grid = Fragments.of(text, 4), activations_of(text)
    peaks = cut.values(grid, np.arange(len(cut))).max(axis=1)
    chosen = cut.choose(grid, n=5, uniform=9, seed=0)
    assert (np.diff(peaks[chosen.top]) <= 0).all()
    assert peaks[chosen.top].min() >= np.sort(peaks)[-5]
    assert len(chosen.random) == 5
    assert (peaks[chosen.random] > 0).all(), "of those where it is active"
    assert not set(chosen.random) & set(chosen.top)
    assert set(chosen.top_and_random) == set(chosen.top) | set(chosen.random)
    assert len(set(chosen.uniform)) == 9
    other = cut.choose(grid[:, ::-1].copy(), n=5, uniform=9, seed=0)
    assert other.uniform.tolist() == chosen.uniform.tolist(), "drawn without looking"
    few = cut.choose(np.where(peaks.max() == grid, grid, 0), n=5, uniform=999, seed=0)
    assert (len(few.top), len(few.random), len(few.top_and_random), len(few.uniform)) == (1, 0, 0, len(cut))


def test_correlation_is_over_the_tokens_of_all_fragments_together():
    text = windows(n=120)
    cut, grid = Fragments.of(text, 4), activations_of(text)
    chosen = cut.choose(grid, n=15, uniform=90, seed=0)
    found = correlations(cut, chosen, grid, RowByRow())
    assert set(found) == set(KINDS)
    for kind, which in chosen._asdict().items():
        actual, said = [], []
        for f in which:
            row, start = cut.row[f], cut.start[f]
            whole = RowByRow().predict(text.tokens[row, 1 : text.lengths[row]].tolist())
            actual += grid[row, start : start + 4].tolist()
            said += whole[start - 1 : start + 3].tolist()
        assert found[kind] == pytest.approx(np.corrcoef(actual, said)[0, 1], abs=1e-6), kind
    graph = Graph("u", 1.0)
    for before in (A, B, C):
        graph.add([(B, 1.0), (before, 1.0)], 1.0)
    assert correlations(cut, chosen, grid, graph) == pytest.approx(found), "any explanation by the same protocol"
    assert correlations(cut, chosen, grid, Graph("u", 1.0)) == dict.fromkeys(KINDS)


# --- the protocol of Gao et al. -------------------------------------------------------------------------------


def test_random_non_zero_activations():
    text = windows(n=30)
    grid, rows = activations_of(text), np.arange(10, 30)
    found = sampled(text, grid, rows, 0.2, 7, [1])
    assert len(found) == 7
    for one in found:
        place = 1 + one.peak
        assert one.window in rows
        assert len(one.tokens) == place, "the text ends where the activation is"
        assert one.tokens == tuple(text.tokens[one.window, 1 : place + 1])
        assert one.activations[-1] == grid[one.window, place] > 0.2
        assert not one.activations[:-1].any()
    live = int((grid[10:] > 0.2).sum())
    assert len(sampled(text, grid, rows, 0.2, 999, [1])) == live
    assert sampled(text, np.zeros_like(grid), rows, 0.2, 7, [1]) == []


def test_any_match_is_a_prediction():
    text = windows(n=30)
    grid = activations_of(text)
    graph = Graph("u", 1.0)
    graph.add([(B, 1.0)], 1e-6)
    live = (grid > 0.2) & text.mask
    others = sampled(text, grid + (text.tokens == D), np.arange(30), 0.2, 40, [2])
    found = judge(graph, 16, others, text, live)
    assert found.recall == sum(one.tokens[-1] == B for one in others) / len(others)
    assert 0 < found.recall < 1
    matches = (text.tokens == B) & text.mask
    assert found.precision == (matches & live).sum() / matches.sum()
    assert found.matched == pytest.approx(matches.sum() / text.n_tokens)
    assert found.active == pytest.approx(live.sum() / text.n_tokens)
    silent = judge(Graph("u", 1.0), 16, others, text, live)
    assert (silent.recall, silent.precision) == (0.0, None)
    failed = judge(UnitError("unit u", "a graph", "none"), 16, others, text, live)
    assert (failed.recall, failed.precision, failed.failure) == (None, None, "unit u: expected a graph, found none")


# --- planted units --------------------------------------------------------------------------------------------


def test_the_control_is_zero_where_graphs_are_right():
    """Units that fire on one token each: their own graphs say all, those of others nothing."""
    text = windows(n=40)
    rows = (np.arange(30), np.arange(30, 40))
    units, graphs = [], {}
    for index, token in enumerate((A, B, C, D)):
        grid = np.where(text.mask & (text.tokens == token), 1.0, 0.0).astype(np.float32)
        fit = tuple(exemplar(text, grid, row) for row in range(5))
        test = tuple(exemplar(text, grid, row) for row in range(30, 35))
        figures = UnitStatistics(1.0, 50, 20, 0.25, 0.25)
        units.append(Unit(index, f"0.x/planted/{index}", figures, grid, ExemplarSet(fit, test, (), 0)))
        graphs[index] = Graph(units[-1].name, 1.0)
        graphs[index].add([(token, 1.0)], 1.0)
    graphs[3] = UnitError("unit 3", "a graph", "none")
    config = StudyConfig(layers=(0,), run=RunConfig(text=TextConfig(width=13)), fragment=4)
    workspace = SimpleNamespace(config=config.run, split=rows, windows=text, texts=TextScores(text, *rows, string=str))
    found = _explained.__wrapped__(workspace, config, units, graphs, [None] * 4)
    assert [one.failure for one in found] == [None, None, None, "unit 3: expected a graph, found none"]
    assert {one.shuffled_from for one in found[:3]} == {unit.name for unit in units[:3]}
    for one in found[:3]:
        assert one.shuffled_from != one.unit.name
        for kind in ("held_out", "random"):
            assert one.scores["graph"].metrics[kind]["f1"] == 1.0
            assert one.scores[SHUFFLED].metrics[kind]["f1"] == 0.0
        assert one.fragments["graph"]["uniform"] == pytest.approx(1.0)
        assert one.fragments[SHUFFLED]["uniform"] < 0
    assert found[3].scores["graph"].metrics["random"]["f1"] == 0.0
    assert SHUFFLED not in found[3].scores, "there was nobody's graph to give"
    apart = _explained.__wrapped__(workspace, config, units, graphs, [None, None, 0, None])
    assert [one.shuffled_from for one in apart] == [units[1].name, units[0].name, None, None]
    assert SHUFFLED not in apart[2].scores, "a twin's graph is no control"


# --- wording --------------------------------------------------------------------------------------------------


def versus(mean, low, high, *, p=0.001, pairs=40, all_units=(0.0, -0.1, 0.1), a="tied-R2", b="neurons") -> Versus:
    matched = Summary(mean, low, high, mean, pairs)
    unmatched = Summary(*all_units, None, 90)
    return Versus(a, b, "random", pairs, 96, 90, matched, p, 0.3, unmatched, 0.1, {"1": (pairs, mean)})


def test_a_difference_is_stated_with_its_direction():
    assert sentence(versus(0.1, 0.05, 0.15, all_units=(0.2, 0.1, 0.3))) == (
        "tied-R2 is ahead of MLP neurons: F1 of tied-R2 less that of MLP neurons is +0.10 [+0.05, +0.15] on 40 matched "
        "pairs."
    )
    behind = sentence(versus(-0.1, -0.15, -0.05, all_units=(-0.2, -0.3, -0.1)))
    assert behind.startswith("MLP neurons are easier to explain than tied-R2: F1 of tied-R2 less")
    assert "the other way round" in sentence(versus(0.1, 0.05, 0.15, all_units=(-0.2, -0.3, -0.1)))
    assert "no difference is shown" in sentence(versus(0.1, 0.05, 0.15))


def test_interval_and_test_have_to_agree():
    text = sentence(versus(0.1, 0.05, 0.15, p=0.09))
    assert "no difference is shown" in text
    assert "the sign-flip test does not agree with the interval (p 0.090)" in text
    assert "sign-flip" not in sentence(versus(0.1, -0.05, 0.15, p=0.09))


def test_what_density_explains_is_said_to_be_density():
    text = sentence(versus(0.01, -0.05, 0.07, all_units=(0.2, 0.1, 0.3)))
    assert text.startswith("tied-R2 and MLP neurons: no difference is shown on 40 matched pairs (+0.01 [-0.05, +0.07])")
    assert "all units, +0.20 [+0.10, +0.30], goes along with how often units fire" in text


@pytest.mark.parametrize("seed", range(200))
def test_nothing_is_claimed_that_the_numbers_do_not_carry(seed):
    draw = random.Random(seed)
    mean = draw.uniform(-0.3, 0.3)
    low, high = mean - draw.uniform(0, 0.3), mean + draw.uniform(0, 0.3)
    one = versus(mean, low, high, p=draw.choice((0.001, 0.04, 0.06, None)), pairs=draw.choice((0, 5, 9, 10, 60)))
    text = sentence(one)
    claims = "is ahead of" in text or "are easier to explain" in text
    carried = (low > 0 or high < 0) and one.p_value is not None and one.p_value < 0.05 and one.pairs >= 10
    assert claims == carried == shown(one)
    if one.pairs < PAIRS:
        assert "too few to say anything" in text


def test_an_interval_that_touches_zero_shows_nothing():
    assert not clear(Summary(0.1, 0.0, 0.2, 0.1, 20))
    assert not clear(Summary(None, None, None, None, 0))
    assert "no difference is shown" in sentence(versus(0.1, 0.0, 0.2))


def test_two_dictionaries_of_one_size():
    sure = EqualSize("topk-R4", "tied-R4", "recall", Summary(0.2, 0.1, 0.3, None, 90), 1.6)
    assert same_size(sure) == "Recall of topk-R4 less that of tied-R4: +0.20 [+0.10, +0.30], a ratio of 1.60."
    unsure = replace(sure, difference=Summary(0.2, -0.1, 0.5, None, 90))
    assert "ratio" not in same_size(unsure)
    assert "no difference is shown" in same_size(unsure)
    assert "too few" in same_size(replace(sure, difference=Summary(None, None, None, None, 0)))
