"""The whole study on a tiny model: files, resumption, planted features, tables, figures, page, command, recipe."""

import json
import re
import runpy
import shutil
import sys
from dataclasses import asdict, replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import HIDDEN, WIDTH

from saelens_n2g.activations import Harvest
from saelens_n2g.bases.formats import Dictionary, SaeMetadata, save_saelens
from saelens_n2g.commands.study import FULL, LIGHT, SMALL, config_for
from saelens_n2g.commands.study import study as command
from saelens_n2g.comparison.config import RunConfig, SubjectConfig, TextConfig
from saelens_n2g.comparison.results import EXPLAINERS, TEXTS
from saelens_n2g.comparison.selection import build
from saelens_n2g.comparison.units import REASONS, UnitRule
from saelens_n2g.comparison.workspace import Workspace
from saelens_n2g.errors import ArtefactError, InputError
from saelens_n2g.graphs.graph import Graph
from saelens_n2g.progress import Reporter
from saelens_n2g.sites import Site
from saelens_n2g.study import run as road
from saelens_n2g.study.cell import title_of
from saelens_n2g.study.config import SHUFFLED, TRAINING, StudyConfig, variant
from saelens_n2g.study.dictionaries import FitBlocks
from saelens_n2g.study.figure import drawings
from saelens_n2g.study.fragments import KINDS
from saelens_n2g.study.results import StudyResult
from saelens_n2g.study.run import run_study
from saelens_n2g.study.table import markdown
from saelens_n2g.subject import Subject

QUIET = Reporter(quiet=True)
QUICK = replace(TRAINING, batch=64, samples=1280, log_every=10, checkpoint_every=5, dead_window=500)
FIGURES = ("f1_by_layer", "f1_by_density", "f1_by_size", "f1_by_spread", "differences", "interpretability", "nonzero")
PLANTED = 16


def settings(model: Path, corpus: Path, **options) -> StudyConfig:
    run = RunConfig(
        subject=SubjectConfig(model=str(model), device="cpu"),
        text=TextConfig(corpus=str(corpus), tokens=6_000, width=WIDTH),
        rule=UnitRule(units=4, max_density=0.2, min_fit_firing=4, min_test_firing=2),
        exemplars=5,
        method="suffix",
    )
    trained = {"tied-R2": variant("tied-R2", QUICK), "topk-R2": variant("topk-R2", replace(QUICK, options={"k": 4}))}
    other = {"layers": (0, 2), "bases": ("neurons", "random"), "dictionaries": trained}
    return StudyConfig(**{"run": run, **other, "fragment": 8, "fragments": 6, "uniform": 40, "nonzero": 6, **options})


@pytest.fixture(scope="module")
def done(tiny_model, tiny_corpus, tmp_path_factory, one_thread):  # noqa: ARG001
    """Settings, folder and result of a study that nothing disturbed."""
    config, folder = settings(tiny_model, tiny_corpus), tmp_path_factory.mktemp("study") / "out"
    return config, folder, run_study(config, folder, QUIET)


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.model
def test_a_study_leaves_its_report_and_the_graphs(done):
    config, folder, result = done
    shown = {f"{name}.{kind}" for name in FIGURES for kind in ("png", "svg")}
    assert {"results.json", "study.md", "index.html", "COMMIT.json", *shown} == set(contents(folder / "report"))
    assert not (folder / "activations").exists()
    assert [(cell.layer, cell.basis) for cell in result.cells] == [(n, b) for n in (0, 2) for b in config.names]
    for cell in result.cells:
        assert cell.counts["examined"] == len(cell.units) + sum(cell.counts[reason] for reason in REASONS)
        assert (cell.twins is None) == (cell.basis == "neurons")
        for unit in cell.units:
            assert unit.name == f"{cell.site}/{cell.basis}/{unit.index}"
            assert set(unit.scores) - {SHUFFLED} == set(EXPLAINERS) == set(unit.fragments) - {SHUFFLED}
            assert set(unit.fragments["graph"]) == set(KINDS)
            assert 0 <= unit.massive <= 1
            assert (unit.spread is None) == (cell.basis == "neurons")
            assert (unit.nonzero is None) == (cell.basis not in config.dictionaries)
            place = folder / "layers" / f"{cell.layer:02d}" / cell.basis / "graphs" / unit.name.replace("/", "_")
            graph = Graph.from_dict(json.loads(place.with_name(f"{place.name}.json").read_text()))
            texts = json.loads((place.parent.parent / "exemplars" / f"{place.name}.json").read_text())
            assert (texts["unit"], texts["max_activation"]) == (unit.name, unit.max_activation)
            assert max(max(text["activations"]) for text in texts["fit"]) == pytest.approx(
                unit.max_activation, abs=1e-5
            )
            effects = json.loads((place.parent.parent / "logits" / f"{place.name}.json").read_text())
            assert (effects["unit"], len(effects["raised"]), len(effects["lowered"])) == (unit.name, 10, 10)
            assert cell.facts["logits"]["missing"] is None
            assert (graph.n_nodes, graph.n_paths, unit.failure) == (unit.nodes, unit.paths, None)
    assert result.provenance["config"]["layers"] == [0, 2]
    assert str(folder) not in (folder / "report" / "results.json").read_text(), "what is made here has no path"


@pytest.mark.model
def test_results_are_read_back_as_they_were_written(done, tmp_path):
    _, folder, result = done
    again = StudyResult.load(folder / "report" / "results.json")
    assert [asdict(cell) for cell in again.cells] == [asdict(cell) for cell in result.cells]
    again.save(tmp_path / "results.json")
    assert (tmp_path / "results.json").read_bytes() == (folder / "report" / "results.json").read_bytes()
    assert markdown(again) == (folder / "report" / "study.md").read_text()
    (tmp_path / "results.json").write_text("{}")
    with pytest.raises(ArtefactError, match="saelens-n2g/study"):
        StudyResult.load(tmp_path / "results.json")


@pytest.mark.model
def test_a_finished_study_loads_no_model(done, tmp_path, monkeypatch):
    config, folder, _ = done
    shutil.copytree(folder, tmp_path / "out")
    monkeypatch.setattr(Subject, "load", lambda *_a, **_k: pytest.fail("the model was loaded"))
    run_study(config, tmp_path / "out", QUIET)
    assert contents(tmp_path / "out") == contents(folder)


@pytest.mark.model
@pytest.mark.usefixtures("undrawn")
def test_interrupted_it_goes_on_and_ends_with_the_same_bytes(done, tmp_path, monkeypatch):
    config, folder, _ = done
    cells, shards, explain, shard = [], [], road.explain_cell, Harvest.run

    def explained(workspace, study, name, *rest):
        cells.append((workspace.config.layer, name))
        if cells == [(0, "neurons"), (0, "tied-R2"), (0, "topk-R2")]:
            raise KeyboardInterrupt
        return explain(workspace, study, name, *rest)

    def read(*arguments):
        shards.append(1)
        return shard(*arguments)

    monkeypatch.setattr(Harvest, "run", read)
    monkeypatch.setattr(road, "explain_cell", explained)
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(road, "train_all", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run_study(config, out, QUIET)
    assert not cells
    first = len(shards)
    with pytest.raises(KeyboardInterrupt):
        run_study(config, out, QUIET)
    assert not (out / "report").exists()
    assert not (out / "layers" / "00" / "topk-R2").exists()
    before = {p: p.stat().st_mtime_ns for p in (out / "dictionaries").rglob("*")}
    run_study(config, out, QUIET)
    assert len(shards) == first, "the subject reads the text once"
    assert {p: p.stat().st_mtime_ns for p in (out / "dictionaries").rglob("*")} == before, "and trains once"
    assert cells.count((0, "neurons")) == cells.count((0, "tied-R2")) == 1
    for name in ("results.json", "study.md"):
        assert (out / "report" / name).read_bytes() == (folder / "report" / name).read_bytes()
    assert contents(out / "layers") == contents(folder / "layers")


@pytest.mark.model
@pytest.mark.usefixtures("undrawn")
def test_a_further_basis_leaves_the_others_as_they_are(done, tmp_path, monkeypatch):
    config, folder, result = done
    shutil.copytree(folder, tmp_path / "out")
    cells, explain = [], road.explain_cell
    monkeypatch.setattr(
        road, "explain_cell", lambda w, c, n, *r: cells.append((w.config.layer, n)) or explain(w, c, n, *r)
    )
    more = run_study(replace(config, bases=("neurons", "random", "pca")), tmp_path / "out", QUIET)
    assert cells == [(0, "pca"), (2, "pca")]
    assert more.names == ("neurons", "tied-R2", "topk-R2", "pca", "random")
    assert [asdict(c) for c in more.cells if c.basis != "pca"] == [asdict(c) for c in result.cells]


@pytest.mark.model
@pytest.mark.parametrize("how", ["cut", "altered"])
def test_damage_is_named_never_shown(done, tmp_path, how):
    config, folder, _ = done
    shutil.copytree(folder, tmp_path / "out")
    shutil.rmtree(tmp_path / "out" / "report")
    path = tmp_path / "out" / "layers" / "02" / "topk-R2" / "cell.json"
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2] if how == "cut" else data[:-9] + bytes([data[-9] ^ 1]) + data[-8:])
    with pytest.raises(ArtefactError, match=re.escape(str(path))):
        run_study(config, tmp_path / "out", QUIET)


@pytest.mark.model
def test_what_units_inherit_is_what_the_stream_does(done, tmp_path):
    config, _, result = done
    workspace = Workspace(config.at(2, "random"), tmp_path, QUIET)
    rows = workspace.stream[torch.from_numpy(workspace.fit_tokens)].double()
    apart = (rows - rows.mean(0)).norm(dim=1)
    far = apart > 3 * apart.median()
    typical = rows[~far]
    (cell,) = result.of("random", 2)
    assert cell.massive_tokens == pytest.approx(far.double().mean().item())
    basis = build(workspace, "random")
    for unit in cell.units:
        line = torch.nn.functional.normalize(basis.weight[unit.index].double(), dim=0)
        along = (typical @ line).var(correction=0) / typical.var(0, correction=0).mean()
        assert unit.spread == pytest.approx(along.item(), rel=1e-4)
        values = basis.encode(rows.float())[:, unit.index]
        fires = values >= 0.5 * values.max()
        assert unit.massive == pytest.approx((fires & far).sum().item() / fires.sum().item())


@pytest.mark.model
def test_training_reads_the_fit_documents_and_nothing_else(done, tmp_path):
    config, _, _ = done
    workspace = Workspace(config.at(2, "random"), tmp_path, QUIET)
    site = Site(2, "resid_post")
    blocks = FitBlocks(workspace.store, [site], workspace.fit_tokens, rows=100)
    assert max(blocks.size(i) for i in range(len(blocks))) == 100
    found = torch.cat([blocks.block(i)[site] for i in range(len(blocks))])
    assert torch.equal(found, workspace.stream[torch.from_numpy(workspace.fit_tokens)])
    with pytest.raises(InputError, match="rows of the fit documents"):
        FitBlocks(workspace.store, [site], workspace.fit_tokens[:-1])


# --- planted features -----------------------------------------------------------------------------------------


def plant(config: StudyConfig, workspace: Workspace, folder: Path) -> None:
    """A dictionary whose features each tell one common token from all others, by linear discriminants on layer 0: half
    the largest activation lies between the two. The last feature is the first one again."""
    x = workspace.stream.double()
    tokens = torch.from_numpy(workspace.windows.tokens[workspace.windows.mask].astype(np.int64))
    mean = x.mean(0)
    spread = torch.linalg.inv(torch.cov((x - mean).T) + 1e-4 * torch.eye(HIDDEN))
    rows, biases = [], []
    for token in tokens.bincount().argsort(descending=True)[2 : 2 + PLANTED].tolist():
        own = tokens == token
        row = torch.nn.functional.normalize(spread @ (x[own].mean(0) - mean), dim=0)
        values = (x - mean) @ row
        rows.append(row)
        biases.append(values.max() - values[own].quantile(0.1) - values[~own].quantile(0.999))  # half-way is half
    rows, biases = [*rows, rows[0]], [*biases, biases[0]]
    about = SaeMetadata("tiny", Site(0, config.run.stream).hook, WIDTH, True)
    dictionary = Dictionary.from_tied(torch.stack(rows).float(), torch.stack(biases).float(), mean.float())
    save_saelens(folder, dictionary, about)


@pytest.mark.model
@pytest.mark.usefixtures("undrawn")
def test_planted_features_are_explained_and_the_control_is_not(tiny_model, tiny_corpus, tmp_path):
    rule = UnitRule(units=PLANTED + 1, max_density=0.2, min_fit_firing=4, min_test_firing=2)
    config = settings(tiny_model, tiny_corpus, layers=(0,), dictionaries={}, bases=("random",))
    config = replace(config, run=replace(config.run, rule=rule, exemplars=20))
    plant(config, Workspace(config.at(0, "random"), tmp_path / "text", QUIET), tmp_path / "planted")
    config = replace(config, dictionaries={"planted": str(tmp_path / "planted")})
    result = run_study(config, tmp_path / "out", QUIET)
    (cell,) = result.of("planted")
    assert cell.twins == 2
    assert sum(unit.twin is not None for unit in cell.units) == 1
    assert len(cell.counted) == len(cell.units) - 1 >= 10
    for text in TEXTS:
        assert result.mean("planted", "graph", text, "f1").mean > 0.7
        assert result.mean("planted", SHUFFLED, text, "f1").mean < 0.05
        assert result.mean("random", "graph", text, "f1").mean < result.mean("planted", "graph", text, "f1").low
    assert result.fragments("planted", "graph", "uniform").mean > 0.5
    assert abs(result.fragments("planted", SHUFFLED, "uniform").mean) < 0.1
    assert result.nonzero("planted", "precision").mean > result.nonzero("planted", "active").mean
    report = (tmp_path / "out" / "report" / "study.md").read_text()
    assert "Few layers looked at: 1." in report
    assert "does not vanish" not in report


@pytest.mark.model
@pytest.mark.usefixtures("undrawn")
def test_a_basis_without_eligible_units_is_shown_and_says_nothing(tiny_model, tiny_corpus, tmp_path):
    config = settings(tiny_model, tiny_corpus, layers=(0,), dictionaries={}, bases=("random", "pca"))
    config = replace(config, run=replace(config.run, rule=replace(config.run.rule, min_fit_firing=10**6)))
    result = run_study(config, tmp_path, QUIET)
    assert [(cell.units, cell.counts["rare"]) for cell in result.cells] == [((), 32)] * 2
    report = (tmp_path / "report" / "study.md").read_text()
    assert "| PCA directions | Random test text | 0 | – |" in report
    assert "easier" not in report
    assert drawings(result)["f1_by_density"]
    from matplotlib.figure import Figure

    for name in ("f1_by_density", "f1_by_spread"):
        figure = Figure(figsize=(9, 4))
        drawings(result)[name].args[1](result, figure)
        assert not figure.legends, "there is nobody to name"


# --- what is shown --------------------------------------------------------------------------------------------


@pytest.mark.model
def test_tables_say_what_the_units_say(done):
    _, folder, result = done
    report = (folder / "report" / "study.md").read_text()
    for name in result.names:
        units = [u for cell in result.of(name) for u in cell.counted]
        f1 = np.mean([u.scores["graph"]["random"]["f1"] for u in units])
        title = result.of(name)[0].title
        assert re.search(rf"\| {re.escape(title)} \| Random test text \| {len(units)} \| {f1:.2f} \[", report), title
    assert "Oikarinen" in report
    for one in result.versus:
        assert one.pairs <= min(one.of_a, one.of_b)
        assert sum(n for n, _ in one.by_layer.values()) == one.pairs == one.matched.n
    assert {(v.a, v.b) for v in result.equal_sizes} == {("topk-R2", "tied-R2")}


@pytest.mark.model
def test_figures_follow_from_the_results(done):
    """Equal results give equal bytes; every title, unit and basis stands in the figure."""
    _, folder, result = done
    again = StudyResult.load(folder / "report" / "results.json")
    assert drawings(again)["nonzero"]("svg") == (folder / "report" / "nonzero.svg").read_bytes()
    from matplotlib.figure import Figure

    seen = {}
    for name, drawing in drawings(result).items():
        figure = Figure(figsize=(9, 4))
        drawing.args[1](result, figure)
        words = [t.get_text() for t in figure.texts]
        legend = [t.get_text() for one in figure.legends for t in one.get_texts()]
        labels = [axes.get_xlabel() for axes in figure.axes]
        assert all(labels), name
        assert any("95 % bootstrap" in text for text in words), name
        seen[name] = legend
        for axes in figure.axes:
            ticks = [t.get_text() for t in axes.get_xticklabels()]
            assert not any("$" in tick for tick in ticks), "no formulas: they are not parsed"
    for name in ("f1_by_layer", "f1_by_density", "f1_by_size", "interpretability"):
        assert set(seen[name]) >= {title_of(basis) for basis in result.names}
    assert seen["nonzero"] == list(result.dictionaries)


class Reader(HTMLParser):
    """Rows of the table of units, and everything that would be fetched."""

    def __init__(self) -> None:
        super().__init__()
        self.rows, self.heads, self.sources = 0, 0, []

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.rows += tag == "tr" and "data-b" in found
        self.heads += tag == "th"
        self.sources += [v for k, v in found.items() if k in ("src", "href")]


@pytest.mark.model
def test_the_page_has_every_unit_and_asks_for_nothing(done):
    _, folder, result = done
    page = (folder / "report" / "index.html").read_text()
    reader = Reader()
    reader.feed(page)
    assert reader.rows == sum(len(cell.units) for cell in result.cells)
    assert reader.heads == 18
    assert len(reader.sources) == len(FIGURES)
    assert all(source.startswith("data:image/svg+xml;base64,") for source in reader.sources)
    assert "$" not in re.sub(r"<(script|details|pre).*?</\1>", "", page, flags=re.DOTALL)


# --- the command ----------------------------------------------------------------------------------------------


def test_what_is_typed_becomes_settings():
    config = config_for(dictionaries="tied-R2, topk-R4,mine=d/{layer}", k=8, samples=512, units=3)
    assert list(config.dictionaries) == ["tied-R2", "topk-R4", "mine"]
    assert config.dictionaries["mine"] == "d/{layer}"
    assert (config.trained["topk-R4"].options, config.trained["tied-R2"].options) == ({"k": 8}, {})
    assert {t.samples for t in config.trained.values()} == {512}
    assert (config.run.rule.units, len(config.layers)) == (3, len(FULL["layers"].split(",")))
    small = config_for(small=True, units=5)
    assert (small.run.rule.units, small.run.text.tokens) == (5, SMALL["tokens"])
    assert len(config_for().layers) >= 6
    assert (config.run.method, config.run.options) == ("refined", LIGHT)
    assert config_for(thorough=True).run.options is None
    assert config_for(method="suffix").run.options is None
    assert config_for(dictionaries="").dictionaries == {}
    with pytest.raises(InputError, match="dictionary 'mine'"):
        config_for(dictionaries="mine=")
    with pytest.raises(InputError, match="values"):
        config_for(layers="0-3")


@pytest.mark.model
@pytest.mark.usefixtures("undrawn")
def test_the_command_and_the_recipe(tiny_model, tiny_corpus, tmp_path, monkeypatch, capsys):
    options = {
        "model": str(tiny_model), "corpus": str(tiny_corpus), "tokens": 6_000, "width": WIDTH, "units": 2,
        "layers": "1", "bases": "random", "dictionaries": "tied-R1", "samples": 1024, "fragment": 8, "method": "suffix",
        "device": "cpu",
    }  # fmt: skip
    path = command(out=tmp_path / "a", reporter=QUIET, **options)
    assert path.read_text().startswith("<!doctype html>")
    typed = [f"--{name}={value}" for name, value in options.items()]
    monkeypatch.setattr(sys, "argv", ["study.py", *typed, f"--out={tmp_path / 'b'}"])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(Path(__file__).parent.parent / "analysis" / "study.py"), run_name="__main__")
    assert end.value.code == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "b" / "report" / "index.html")
    assert contents(tmp_path / "a" / "report") == contents(tmp_path / "b" / "report")
