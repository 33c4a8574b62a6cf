"""Several methods layer by layer: settings, figures that follow from the units, table, picture, and the whole road."""

import json
import random
import re
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import HIDDEN, MLP, VOCABULARY, WIDTH, PlainModel

from saelens_n2g.activations import Harvest
from saelens_n2g.bases.formats import Dictionary, SaeMetadata, save_saelens
from saelens_n2g.commands.comparisons import layers as layers_command
from saelens_n2g.comparison import layer_figure
from saelens_n2g.comparison import layers as road
from saelens_n2g.comparison.config import RunConfig, SubjectConfig, TextConfig
from saelens_n2g.comparison.layer_results import ALL, MICRO, RIVALS, LayerResult, LayersResult, System
from saelens_n2g.comparison.layer_table import headline, markdown
from saelens_n2g.comparison.layers import TABLES, LayersConfig, run_layers
from saelens_n2g.comparison.results import EXPLAINERS, GRADED, METRICS, TEXTS
from saelens_n2g.comparison.run import compare
from saelens_n2g.comparison.scores import Score
from saelens_n2g.comparison.table import estimate
from saelens_n2g.comparison.units import REASONS, UnitRule
from saelens_n2g.errors import ArtefactError, InputError, UnitError
from saelens_n2g.graphs.graph import Graph
from saelens_n2g.graphs.methods import METHODS, READINGS, find_method
from saelens_n2g.graphs.paper import PaperOptions
from saelens_n2g.progress import Reporter
from saelens_n2g.scoring import Confusion, FiringScores, compare_paired, summarise
from saelens_n2g.subject import Subject

QUIET = Reporter(quiet=True)


# --- settings -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"layers": ()}, "option layers"),
        ({"layers": (1, 1)}, "option layers"),
        ({"layers": (-1,)}, "site layer"),
        ({"methods": ()}, "option methods"),
        ({"methods": ("paper", "paper")}, "option methods"),
        ({"methods": ("paper", "guess")}, "method 'guess'"),
        ({"basis": "knots"}, "option basis"),
        ({"run": RunConfig(method="paper", options=PaperOptions())}, "options of methods"),
        ({"basis": "sae"}, "option dictionary"),
        ({"basis": "sae", "run": RunConfig(dictionary="one"), "layers": (1, 2)}, "option dictionary"),
    ],
)
def test_settings_that_cannot_be(options, named):
    with pytest.raises(InputError, match=named):
        LayersConfig(**options)


def test_settings_of_a_layer():
    config = LayersConfig(run=RunConfig(dictionary="d/{layer}/{x}", seed=3), basis="sae", layers=(4, 7))
    at = config.at(7, "suffix")
    assert (at.layer, at.bases, at.method, at.dictionary, at.seed) == (7, ("sae",), "suffix", "d/7/{x}", 3)
    assert LayersConfig(run=RunConfig(dictionary="one"), basis="sae", layers=(1,)).at(1).dictionary == "one"


BASE = LayersConfig(layers=(0, 1), methods=("paper", "suffix"))
EVERY = {(layer, part) for layer in BASE.layers for part in BASE.parts}
FITS = {(layer, part) for layer in BASE.layers for part in BASE.methods}


@pytest.mark.parametrize(
    ("other", "redone"),
    [
        (replace(BASE, run=RunConfig(text=TextConfig(tokens=77))), EVERY),
        (replace(BASE, run=RunConfig(rule=UnitRule(units=3))), EVERY),
        (replace(BASE, run=RunConfig(exemplars=3)), EVERY),
        (replace(BASE, basis="random"), EVERY),
        (replace(BASE, run=RunConfig(augmenter="none")), {at for at in FITS if at[1] == "paper"}),
        (replace(BASE, run=RunConfig(mask="pad")), FITS),
        (replace(BASE, run=RunConfig(layer=9, method="suffix", bases=("ica",))), set()),
        (replace(BASE, layers=(1, 0, 5)), set()),
        (BASE, set()),
    ],
)
def test_a_setting_redoes_what_it_decides_and_no_more(other, redone):
    assert {at for at in EVERY if BASE.key(*at) != other.key(*at)} == redone


def test_no_two_parts_share_a_key():
    assert len({BASE.key(*at) for at in EVERY}) == len(EVERY)
    assert replace(BASE, layers=(1, 0)).report_key() != BASE.report_key()


# --- figures that follow from the units -----------------------------------------------------------------------


def score(rng: random.Random, skill: float) -> Score:
    counts = {}
    for text in TEXTS:
        tp = rng.randint(0, 8) if rng.random() < skill else 0
        counts[text] = Confusion(tp, rng.randint(0, 4) if tp else 0, rng.randint(1, 6), 400)
    graded = {"auprc": rng.random(), "correlation": None if rng.random() < 0.2 else rng.random()}
    return Score({t: {**FiringScores.from_confusion(counts[t]).as_dict(), **graded} for t in TEXTS}, counts)


def layer(number: int, n: int, methods: tuple[str, ...], seed: int = 0) -> LayerResult:
    rng = random.Random(100 * seed + number)
    units = tuple(f"{number}.mlp_post/neurons/{i}" for i in range(n))
    systems = []
    for place, name in enumerate((*EXPLAINERS[1:], *methods)):
        system = System(name)
        for unit in units:
            system.add(unit, score(rng, 0.4 + 0.1 * place))
        if name in methods:
            system.nodes.update({unit: rng.randint(1, 40) for unit in units})
            system.costs.update(tokens=100 * n, calls=n // 2)
            system.facts.update(augmenter="BERT | <b>" if name == "paper" else None, options={})
        systems.append(system)
    if units and methods:
        systems[-1].failures[units[0]] = "unit: expected one | thing, found <none>"
    counts = {"examined": n + 4, **dict.fromkeys(REASONS, 1)}
    return LayerResult(number, f"{number}.mlp_post", 64, counts, units, tuple(systems))


def report(
    numbers: tuple[int, ...] = (0, 2), n: int = 5, methods: tuple[str, ...] = ("paper", "suffix")
) -> LayersResult:
    found = tuple(layer(number, n, methods) for number in numbers)
    about = {"subject": {"model": "a | model"}}
    return LayersResult.of(
        "MLP neurons", methods, {"rule": "A rule.", "reads": {"paper": [], "suffix": ["text"]}}, found, about, seed=1
    )


def test_means_are_over_the_units_of_a_layer_and_of_all():
    result = report((0, 2, 1), 6)
    assert list(result.means) == ["0", "2", "1", ALL]
    for cut, some in {"2": result.layers[1:2], ALL: result.layers}.items():
        for name in result.names:
            for text in TEXTS:
                scores = [one.system(name).scores[unit][text] for one in some for unit in one.units]
                for metric in (*METRICS, *GRADED):
                    assert result.means[cut][name][text][metric] == summarise([s[metric] for s in scores], seed=1)
                sums = np.sum([one.system(name).counts[u][text] for one in some for u in one.units], axis=0)
                pooled = FiringScores.from_confusion(Confusion(*sums.tolist())).f1
                assert result.means[cut][name][text][MICRO].mean == pytest.approx(pooled)


def test_methods_are_compared_unit_by_unit():
    result = report()
    assert [(v.a, v.b) for v in result.versus if (v.text, v.cut) == ("random", "2")] == [
        *(("paper", rival) for rival in RIVALS),
        *(("suffix", rival) for rival in RIVALS),
        ("suffix", "paper"),
    ]
    one = next(v for v in result.versus if (v.a, v.b, v.text, v.cut) == ("suffix", "paper", "held_out", ALL))
    f1 = {
        name: [l.system(name).scores[u]["held_out"]["f1"] for l in result.layers for u in l.units]  # noqa: E741
        for name in ("suffix", "paper")
    }
    assert one.found == compare_paired(f1["suffix"], f1["paper"], seed=1)


def test_one_layer_stands_for_all():
    result = report((3,))
    assert list(result.means) == ["3"]
    assert "suffix − paper" in markdown(result)


def test_the_report_is_read_back(tmp_path):
    result = report()
    result.save(tmp_path / "layers.json")
    assert LayersResult.load(tmp_path / "layers.json") == result


@pytest.mark.parametrize(
    "damage",
    [
        lambda value: {**value, "version": 99},
        lambda value: {**value, "format": "else"},
        lambda value: [value],
        lambda value: {k: v for k, v in value.items() if k != "layers"},
        lambda value: {**value, "layers": [{"layer": 0}]},
        lambda value: {**value, "means": 3},
    ],
)
def test_what_is_no_report_is_refused(tmp_path, damage):
    path = tmp_path / "layers.json"
    report().save(path)
    path.write_text(json.dumps(damage(json.loads(path.read_text()))))
    with pytest.raises(ArtefactError, match=re.escape(str(path))):
        LayersResult.load(path)


# --- table and figure -----------------------------------------------------------------------------------------


def grids_of(text: str) -> list[list[list[str]]]:
    blocks = [block for block in text.split("\n\n") if block.startswith("| ")]
    return [[[c.strip() for c in re.split(r"(?<!\\)\|", line)[1:-1]] for line in b.splitlines()] for b in blocks]


def test_every_layer_and_system_has_its_row():
    result = report((0, 2), 5)
    grids = grids_of(markdown(result))
    assert len(grids) == 5
    for grid in grids:
        assert {len(row) for row in grid} == {len(grid[0])}
    for grid, text in zip(grids[:2], TEXTS, strict=True):
        rows = {(row[0], row[1]): row for row in grid[2:]}
        assert len(rows) == 3 * len(result.names) == len(grid) - 2
        assert rows["2", "suffix"][2:4] == ["5", "1"], "failures are counted"
        assert rows["all", "suffix"][2:4] == ["10", "2"]
        assert rows["2", "paper"][6] == estimate(result.means["2"]["paper"][text]["f1"])
        assert rows["2", "Token table"][6] == estimate(result.means["2"]["token_table"][text]["f1"])
    assert [row[0] for row in grids[4][2:]] == ["0", "2"]
    assert "which of the methods read: suffix." in markdown(result)


def test_layers_without_units_are_shown(tmp_path):
    result = report((0, 1), 0)
    assert grids_of(markdown(result))
    assert layer_figure.render(result, "png").startswith(b"\x89PNG")
    result.save(tmp_path / "layers.json")
    assert LayersResult.load(tmp_path / "layers.json") == result


def test_equal_results_give_equal_pictures(tmp_path):
    methods = ("paper", "suffix")
    first, second = (layer_figure.draw(report(methods=methods), tmp_path / name) for name in "ab")
    assert [p.name for p in first] == ["layers.png", "layers.svg"]
    assert [p.read_bytes() for p in first] == [p.read_bytes() for p in second]
    other = layer_figure.draw(report(n=7), tmp_path / "c")
    assert other[0].read_bytes() != first[0].read_bytes()


def test_systems_are_told_apart_by_colour_and_by_shape():
    result = report(methods=("paper", "suffix"))
    looks = [layer_figure.look_of(result, name) for name in result.names]
    assert len({look.colour for look in looks}) == len({look.marker for look in looks}) == len(looks)
    assert "a | model" in headline(result)


# --- with the tiny model --------------------------------------------------------------------------------------


def settings(model: Path, corpus: Path, **options) -> LayersConfig:
    run = RunConfig(
        subject=SubjectConfig(model=str(model), device="cpu"),
        text=TextConfig(corpus=str(corpus), tokens=6_000, width=WIDTH),
        rule=UnitRule(units=3, max_density=0.1, min_fit_firing=4, min_test_firing=2),
        exemplars=5,
        augmenter="subject",
    )
    return LayersConfig(**{"run": run, "layers": (0, 2), "methods": ("paper", "suffix"), **options})


@pytest.fixture(scope="module")
def done(tiny_model, tiny_corpus, tmp_path_factory, one_thread):  # noqa: ARG001
    """Settings, folder and result of a run that nothing disturbed."""
    config, folder = settings(tiny_model, tiny_corpus), tmp_path_factory.mktemp("layers") / "out"
    return config, folder, run_layers(config, folder, QUIET)


@pytest.fixture
def calls(monkeypatch) -> Counter:
    """Parts that are done and shards that are read."""
    counter: Counter = Counter()
    part, shard = road.explain_part, Harvest.run

    def counted(workspace, basis, method, *rest):
        counter[basis.site.layer, method or TABLES] += 1
        return part(workspace, basis, method, *rest)

    def read(*arguments):
        counter["shards"] += 1
        return shard(*arguments)

    monkeypatch.setattr(road, "explain_part", counted)
    monkeypatch.setattr(Harvest, "run", read)
    return counter


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.model
def test_a_run_leaves_its_report_and_the_graphs(done):
    config, folder, result = done
    assert {"layers.json", "layers.md", "layers.png", "layers.svg", "COMMIT.json"} == set(contents(folder / "report"))
    assert LayersResult.load(folder / "report" / "layers.json") == result
    assert not (folder / "activations").exists()
    for one in result.layers:
        assert one.counts["examined"] == len(one.units) + sum(one.counts[reason] for reason in REASONS)
        for method in config.methods:
            system = one.system(method)
            graphs = folder / "layers" / f"{one.layer:02d}-neurons" / method / "graphs"
            assert set(system.scores) == set(one.units)
            for unit in set(one.units) - set(system.failures):
                graph = Graph.from_dict(json.loads((graphs / f"{unit.replace('/', '_')}.json").read_text()))
                assert graph.provenance["method"] == method
                assert (graph.n_nodes, graph.n_paths) == (system.nodes[unit], system.paths[unit])
            assert system.facts["options"] == result.protocol["methods"][method]
            assert system.costs["tokens"] > 0
    assert result.provenance["config"]["methods"] == ["paper", "suffix"]


@pytest.mark.model
@pytest.mark.usefixtures("undrawn")
def test_a_layer_scores_as_in_a_comparison_of_that_layer(done, tmp_path):
    config, _, result = done
    for method in config.methods:
        basis = compare(config.at(2, method), tmp_path / method, QUIET).bases[0]
        one = result.layers[1]
        assert tuple(unit.name for unit in basis.units) == one.units
        for unit in basis.units:
            for explainer in EXPLAINERS:
                system = one.system(method if explainer == "graph" else explainer)
                assert unit.scores[explainer] == system.scores[unit.name]
                assert unit.counts[explainer] == system.counts[unit.name]


@pytest.mark.model
def test_a_finished_run_loads_no_model(done, tmp_path, calls, monkeypatch):
    config, folder, result = done
    shutil.copytree(folder, tmp_path / "out")
    monkeypatch.setattr(Subject, "load", lambda *_a, **_k: pytest.fail("the model was loaded"))
    assert run_layers(config, tmp_path / "out", QUIET) == result
    assert not calls
    assert contents(tmp_path / "out") == contents(folder)


@pytest.mark.model
def test_interrupted_it_goes_on_and_ends_with_the_same_bytes(done, tmp_path, calls, monkeypatch):
    config, folder, result = done
    publish = road.write_json

    def interrupt(path, value):
        if path.name == "layer.json" and "02-neurons" in str(path) and "paper" in str(path):
            raise KeyboardInterrupt
        publish(path, value)

    with monkeypatch.context() as patch:
        patch.setattr(road, "write_json", interrupt)
        with pytest.raises(KeyboardInterrupt):
            run_layers(config, tmp_path / "out", QUIET)
    assert {k: n for k, n in calls.items() if k != "shards"} == {
        (0, TABLES): 1, (0, "paper"): 1, (0, "suffix"): 1, (2, TABLES): 1, (2, "paper"): 1,
    }  # fmt: skip
    assert not (tmp_path / "out" / "report").exists()
    assert not (tmp_path / "out" / "layers" / "02-neurons" / "paper").exists()
    calls.clear()
    assert run_layers(config, tmp_path / "out", QUIET) == result
    assert calls == {(2, "paper"): 1, (2, "suffix"): 1}, "activations are still there, and so is what was finished"
    assert contents(tmp_path / "out") == contents(folder)


@pytest.mark.model
def test_a_further_method_and_layer_leave_the_others_as_they_are(done, tmp_path, calls):
    config, folder, result = done
    fewer = replace(config, layers=(2,), methods=("suffix",))
    run_layers(fewer, tmp_path / "out", QUIET)
    assert (calls[2, TABLES], calls[2, "suffix"], calls["shards"]) == (1, 1, 1)
    calls.clear()
    more = run_layers(config, tmp_path / "out", QUIET)
    assert calls == {(0, TABLES): 1, (0, "paper"): 1, (0, "suffix"): 1, (2, "paper"): 1, "shards": 1}
    assert more == result
    assert contents(tmp_path / "out" / "report") == contents(folder / "report")


@pytest.mark.model
@pytest.mark.parametrize("name", ["layers/02-neurons/paper/layer.json", "layers/00-neurons/tables/layer.json"])
@pytest.mark.parametrize("how", ["cut", "altered", "removed"])
def test_damage_is_named_never_shown(done, tmp_path, name, how):
    config, folder, _ = done
    shutil.copytree(folder, tmp_path / "out")
    shutil.rmtree(tmp_path / "out" / "report")
    path = tmp_path / "out" / name
    data = path.read_bytes()
    path.unlink()
    if how != "removed":
        path.write_bytes(data[: len(data) // 2] if how == "cut" else data[:-9] + bytes([data[-9] ^ 1]) + data[-8:])
    with pytest.raises(ArtefactError, match=re.escape(str(path))):
        run_layers(config, tmp_path / "out", QUIET)


@pytest.mark.model
@pytest.mark.usefixtures("undrawn")
def test_a_unit_without_graph_counts_as_one_that_never_fires(done, tmp_path, monkeypatch):
    config, _, result = done
    real = find_method("suffix")

    def refused(unit, *_rest):
        yield from ()
        raise UnitError(f"unit {unit}", "a graph", "none")

    monkeypatch.setitem(METHODS, "suffix", replace(real, start=refused))
    found = run_layers(replace(config, layers=(0,), methods=("suffix",)), tmp_path / "out", QUIET)
    system, units = found.layers[0].system("suffix"), result.layers[0].units
    assert set(system.failures) == set(units) == set(system.scores)
    assert system.failures[units[0]] == f"unit {units[0]}: expected a graph, found none"
    for unit in units:
        for text in TEXTS:
            assert system.counts[unit][text][:2] == (0, 0)
            assert (system.scores[unit][text]["f1"], system.scores[unit][text]["precision"]) == (0.0, None)
    assert grids_of(markdown(found))[0][2][2:4] == [str(len(units))] * 2


@pytest.mark.model
@pytest.mark.parametrize("basis", ["random", "pca"])
@pytest.mark.usefixtures("undrawn")
def test_any_basis_will_do(tiny_model, tiny_corpus, tmp_path, basis):
    config = settings(tiny_model, tiny_corpus, basis=basis, layers=(1,), methods=("suffix",))
    found = run_layers(config, tmp_path, QUIET).layers[0]
    assert found.site == "1.resid_post"
    assert len(found.units) == 3
    assert found.units[0].startswith(f"1.resid_post/{basis}/")


@pytest.mark.model
@pytest.mark.usefixtures("undrawn")
def test_dictionaries_lie_in_a_folder_for_each_layer(tiny_model, tiny_corpus, tmp_path):
    weight = torch.nn.functional.normalize(torch.randn(48, HIDDEN, generator=torch.Generator().manual_seed(0)), dim=1)
    for number in (0, 1):
        about = SaeMetadata("tiny", f"blocks.{number}.hook_resid_post", WIDTH, True)
        save_saelens(tmp_path / f"d{number}", Dictionary.from_tied(weight, torch.zeros(48), torch.zeros(HIDDEN)), about)
    config = settings(tiny_model, tiny_corpus, layers=(0, 1), methods=("suffix",))
    config = replace(config, basis="sae", run=replace(config.run, dictionary=str(tmp_path / "d{layer}")))
    found = run_layers(config, tmp_path / "out", QUIET)
    assert [one.site for one in found.layers] == ["0.resid_post", "1.resid_post"]
    assert all(one.units for one in found.layers)
    swapped = replace(config, layers=(1, 2), run=replace(config.run, dictionary=str(tmp_path / "d0{layer}")))
    with pytest.raises(ArtefactError, match="d01"):
        run_layers(swapped, tmp_path / "other", QUIET)


@pytest.mark.model
@pytest.mark.usefixtures("undrawn")
def test_a_method_that_reads_gets_text_and_activations(tiny_model, tiny_corpus, tmp_path, monkeypatch):
    model, seen = PlainModel(tiny_model), dict[str, object]()

    def reading(unit, evidence, context, _options):
        seen[unit] = evidence
        assert [len(near) for near in context.neighbours([7, 9], 5)] == [5, 5]
        yield from ()
        return Graph(unit, evidence.max_activation)

    monkeypatch.setitem(METHODS, "suffix", replace(find_method("suffix"), start=reading, reads=READINGS))
    config = settings(tiny_model, tiny_corpus, layers=(1,), methods=("suffix",))
    found = run_layers(config, tmp_path, QUIET).layers[0]
    assert set(seen) == set(found.units)
    for unit, evidence in seen.items():
        text, values = evidence.text, evidence.activations
        assert not text.mask[:, 0].any(), "the BOS does not count"
        index = int(unit.rsplit("/", 1)[1])
        assert index < MLP
        assert values[text.mask].max() == evidence.max_activation
        assert evidence.alone.shape == (VOCABULARY,)
        for token in (5, VOCABULARY - 1):
            expected = max(float(model.run([token], 1)[0][0, index]), 0.0)
            assert evidence.alone[token] == pytest.approx(expected, rel=1e-4, abs=2e-5)
        for row in (0, len(text.tokens) // 2):
            real = text.mask[row]
            mlp, _ = model.run(text.tokens[row, real].tolist(), 1)
            np.testing.assert_allclose(values[row, real], np.maximum(mlp[:, index], 0), rtol=1e-4, atol=2e-5)
    texts = {id(evidence.text) for evidence in seen.values()}
    assert len(texts) == 1, "one text for all units"


@pytest.mark.model
@pytest.mark.usefixtures("undrawn")
def test_groups_of_units_change_nothing(done, tmp_path, monkeypatch):
    config, _, result = done
    monkeypatch.setattr("saelens_n2g.comparison.selection.GROUP_VALUES", 1)
    monkeypatch.setattr("saelens_n2g.comparison.selection.CANDIDATES", 1)
    found = run_layers(replace(config, layers=(0,)), tmp_path, QUIET).layers[0]
    for name in ("paper", "suffix", *EXPLAINERS[1:]):
        assert found.system(name).scores == result.layers[0].system(name).scores


@pytest.mark.model
def test_a_layer_that_there_is_not_is_refused_before_any_work(tiny_model, tiny_corpus, tmp_path, calls):
    with pytest.raises(InputError, match="layer of site"):
        run_layers(settings(tiny_model, tiny_corpus, layers=(0, 7)), tmp_path, QUIET)
    assert not calls


@pytest.mark.model
@pytest.mark.usefixtures("undrawn")
def test_the_command(tiny_model, tiny_corpus, tmp_path, capsys):
    options = {"model": str(tiny_model), "corpus": str(tiny_corpus), "tokens": 6_000, "width": WIDTH, "units": 2}
    path = layers_command(
        out=tmp_path, reporter=QUIET, layers="0, 1", methods="suffix", augmenter="none", device="cpu", **options
    )
    assert path.read_text().startswith("**How well graphs predict")
    with pytest.raises(InputError, match="option layers"):
        layers_command(out=tmp_path, reporter=QUIET, layers="0-3", **options)
    capsys.readouterr()
