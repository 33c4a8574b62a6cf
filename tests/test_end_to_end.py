"""The demo's code path on a tiny model and text: what it leaves, that it is right, and that nothing can spoil it."""

import json
import shutil
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from tiny import VOCABULARY, WIDTH, PlainModel
from transformers import AutoModelForCausalLM

from saelens_n2g.activations import Harvest
from saelens_n2g.autointerp.config import InterpretConfig
from saelens_n2g.autointerp.reading import Reading, units_of
from saelens_n2g.autointerp.results import Way
from saelens_n2g.autointerp.run import run_interpretation
from saelens_n2g.autointerp.subjects import Subjects
from saelens_n2g.causal.effects import final_streams
from saelens_n2g.comparison import page, run, workspace
from saelens_n2g.comparison.config import METHOD, RunConfig, SubjectConfig, TextConfig
from saelens_n2g.comparison.results import EXPLAINERS, METRICS, TEXTS, ComparisonResult
from saelens_n2g.comparison.run import compare
from saelens_n2g.comparison.units import REASONS, UnitRule
from saelens_n2g.corpus import Windows, split_documents
from saelens_n2g.errors import ArtefactError, UnitError
from saelens_n2g.graphs.graph import Graph
from saelens_n2g.graphs.methods import METHODS, find_method
from saelens_n2g.graphs.structure import structure, summarise
from saelens_n2g.graphs.suffix import SuffixOptions
from saelens_n2g.graphs.vocabulary import alone
from saelens_n2g.progress import Reporter, Silent
from saelens_n2g.sites import Site
from saelens_n2g.subject import Subject
from saelens_n2g.training import run as training_run
from saelens_n2g.training.config import TrainingConfig

pytestmark = [pytest.mark.model, pytest.mark.usefixtures("one_thread")]
LAYER, STEPS, EVERY = 1, 300, 100


def settings(model: Path, corpus: Path) -> RunConfig:
    """Small, but nothing left out: five bases, training with checkpoints, augmentation, more than one shard."""
    return RunConfig(
        subject=SubjectConfig(model=str(model), device="cpu"),
        text=TextConfig(corpus=str(corpus), tokens=100_000, width=WIDTH),
        layer=LAYER,
        training=TrainingConfig(
            samples=STEPS * 64, batch=64, expansion=2.0, alpha=1e-2, checkpoint_every=EVERY, wandb="disabled"
        ),
        rule=UnitRule(units=3, max_density=0.1, min_fit_firing=5, min_test_firing=2),
        exemplars=6,
        method="paper",
        augmenter="subject",
    )


class Done(NamedTuple):
    """A finished run."""

    config: RunConfig
    folder: Path
    result: ComparisonResult

    @property
    def report(self) -> Path:
        return self.folder / "report"


@pytest.fixture(scope="module")
def done(tiny_model, tiny_corpus, tmp_path_factory, one_thread) -> Done:  # noqa: ARG001
    """One run that nothing disturbed. Tests copy its folder before they change anything in it."""
    config, folder = settings(tiny_model, tiny_corpus), tmp_path_factory.mktemp("run") / "out"
    return Done(config, folder, compare(config, folder, Reporter(quiet=True)))


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def without_settings(written: bytes) -> object:
    """What a file of a unit says, but not by which settings; they say which bases there were."""
    if not written.startswith(b"{"):
        return written
    value = json.loads(written)
    assert value.pop("provenance")["config"]["bases"]
    return value


def assert_same(found: Path, expected: Path) -> None:
    a, b = contents(found), contents(expected)
    assert sorted(a) == sorted(b)
    assert [name for name in a if a[name] != b[name]] == []


# --- what a run leaves ----------------------------------------------------------------------------------------


def test_the_report_is_complete(done):
    files = set(contents(done.report))
    assert {"index.html", "results.json", "comparison.md", "COMMIT.json"} <= files
    assert any(f.endswith(".svg") and "/" not in f for f in files), "no figure"
    explained = [u for basis in done.result.bases for u in basis.units]
    assert [basis.name for basis in done.result.bases] == list(done.config.bases)
    assert all(len(basis.units) >= 2 for basis in done.result.bases)
    for unit in explained:
        stem = unit.name.replace("/", "_")
        names = {f"graphs/{stem}.{ending}" for ending in ("json", "svg", "dot")} | {
            f"{part}/{stem}.json" for part in ("exemplars", "logits")
        }
        assert names <= files
        assert {unit.graph_file, unit.svg_file} <= names
        assert unit.name in (done.report / "index.html").read_text()
    extra = {f for f in files if f.startswith(("graphs/", "exemplars/", "logits/"))}
    assert len(extra) == 5 * len(explained)
    assert not (done.folder / "activations").exists(), "activations are the largest thing by far"
    assert not list(done.folder.rglob("*.tmp"))
    assert not (done.folder / "dictionary" / "checkpoints").exists()


def test_counts_add_up_and_scores_are_in_range(done):
    for basis in done.result.bases:
        counts = basis.counts
        assert set(counts) == {"examined", "explained", "failed", *REASONS}
        assert counts["examined"] == sum(counts[k] for k in ("explained", "failed", *REASONS))
        assert counts["explained"] == len(basis.units)
        assert counts["failed"] == len(basis.failures)
        for unit in basis.units:
            values = [unit.scores[e][t][m] for e in EXPLAINERS for t in TEXTS for m in METRICS]
            assert all(v is None or 0.0 <= v <= 1.0 for v in values)
            assert unit.fit_firing >= done.config.rule.min_fit_firing
    assert done.result.dictionary["samples"] == STEPS * 64
    assert 0.0 < done.result.dictionary["fvu"] < 1.0


def test_the_result_on_disk_is_the_result(done):
    assert ComparisonResult.load(done.report / "results.json") == done.result


def test_behaviours_are_those_of_the_stored_graphs(done):
    for basis in done.result.bases:
        found = [structure(Graph.from_dict(json.loads((done.report / u.graph_file).read_text()))) for u in basis.units]
        assert [unit.structure for unit in basis.units] == found
        assert basis.structure == summarise(found)


# --- that it is right -----------------------------------------------------------------------------------------


class Text(NamedTuple):
    """The corpus as the test sees it: rows of ids without BOS, and what plain transformers says of them."""

    documents: list[str]
    rows: list[list[int]]
    mlp: list[np.ndarray]
    stream: list[np.ndarray]


@pytest.fixture(scope="module")
def plain(tiny_model, tiny_corpus) -> Text:
    model = PlainModel(tiny_model)
    text = Text([], [], [], [])
    for line in tiny_corpus.read_text().splitlines():
        document = json.loads(line)
        ids = model.tokenizer(document["text"], add_special_tokens=False)["input_ids"]
        for start in range(0, len(ids), WIDTH - 1):
            row = ids[start : start + WIDTH - 1]
            if len(row) >= 16:
                mlp, stream = model.run(row, LAYER)
                for column, value in zip(text, (document["id"], row, mlp, stream), strict=True):
                    column.append(value)
    return text


def activations_of(unit: str, done: Done, plain: Text) -> list[np.ndarray]:
    """A neuron from the down projection's input; a feature from the numbers in the dictionary's file."""
    _, basis, index = unit.split("/")
    if basis == "neurons":
        return [np.maximum(row[:, int(index)], 0.0) for row in plain.mlp]
    sae = load_file(done.folder / "dictionary" / "sae" / "sae_weights.safetensors")
    direction, bias = sae["W_enc"][:, int(index)], sae["b_enc"][int(index)]
    return [np.maximum((row - sae["b_dec"]) @ direction + bias, 0.0) for row in plain.stream]


def paths_of(graph: dict) -> list[tuple[list[int], float]]:
    """Every way from an end of the stored trie back to its root, activating token first, with the end's value."""
    nodes, paths = graph["nodes"], []
    for at, (_, _, _, end) in enumerate(nodes):
        if end is not None:
            path, here = [], at
            while here is not None:
                path.append(nodes[here][0])
                here = nodes[here][1]
            paths.append((path[::-1], end[0]))
    return paths


def predicted(paths: list[tuple[list[int], float]], row: list[int]) -> set[int]:
    """Positions where the longest matching path (then the one with fewer wildcards) ends at half or more."""
    fires = set()
    for i in range(len(row)):
        found = [
            (len(path), -path.count(-1), value)
            for path, value in paths
            if len(path) <= i + 1 and all(want in (-1, row[i - back]) for back, want in enumerate(path))
        ]
        if found and max(found)[2] >= 0.5:
            fires.add(i)
    return fires


@pytest.mark.parametrize("basis", ["neurons", "sae"])
def test_scores_follow_from_the_stored_graph_and_the_model_itself(done, plain, basis):
    windows = Windows.load(done.folder / "text")
    assert [windows.document_ids[d] for d in windows.document] == plain.documents
    mask = windows.mask
    assert [windows.tokens[i, mask[i]].tolist() for i in range(len(windows))] == plain.rows
    fit, test = split_documents(windows, test_share=done.config.text.test_share, seed=done.config.seed)
    assert not {plain.documents[i] for i in fit} & {plain.documents[i] for i in test}

    compared = 0
    for unit in next(b for b in done.result.bases if b.name == basis).units:
        activations = activations_of(unit.name, done, plain)
        largest = max(activations[i].max() for i in fit)
        assert unit.max_activation == pytest.approx(largest, rel=1e-4)
        share = {int(i): activations[i] / largest for i in test}
        if min(np.abs(values - 0.5).min() for values in share.values()) < 1e-5:
            continue  # a token so near the threshold that rounding decides
        truth = {(i, int(j)) for i, values in share.items() for j in np.flatnonzero(values >= 0.5)}
        paths = paths_of(json.loads((done.report / unit.graph_file).read_text()))
        guess = {(int(i), j) for i in test for j in predicted(paths, plain.rows[i])}
        found = unit.scores["graph"]["random"]
        assert unit.test_firing == len(truth)
        assert found["recall"] == pytest.approx(len(truth & guess) / len(truth))
        assert found["precision"] == (pytest.approx(len(truth & guess) / len(guess)) if guess else None)
        assert found["f1"] == pytest.approx(2 * len(truth & guess) / (len(truth) + len(guess)))

        rows = {e["window"] for e in json.loads((done.report / f"exemplars/{stem(unit)}").read_text())["test"]}
        truth, guess = ({at for at in side if at[0] in rows} for side in (truth, guess))
        held_out = unit.scores["graph"]["held_out"]["f1"]
        expected = 2 * len(truth & guess) / (len(truth) + len(guess)) if truth or guess else None
        assert held_out == (None if expected is None else pytest.approx(expected))
        compared += 1
    assert compared >= 1


def stem(unit) -> str:
    return unit.name.replace("/", "_") + ".json"


def test_logit_effects_are_derivatives_of_the_plain_models_logits(done, tiny_model):
    """Along what each unit writes, read from the files that say so, about the streams that are said."""
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32).eval()
    subject, windows = Subject.load(str(tiny_model), device="cpu"), Windows.load(done.folder / "text")
    fit, _ = split_documents(windows, test_share=done.config.text.test_share, seed=done.config.seed)
    streams = final_streams(subject, windows.subset(fit), seed=done.config.seed)
    head = torch.nn.Sequential(model.model.norm, model.get_output_embeddings())
    slopes = torch.stack([torch.autograd.functional.jacobian(head, x) for x in streams]).mean(0)
    decoder = load_file(done.folder / "dictionary" / "sae" / "sae_weights.safetensors")["W_dec"]
    writes = {"neurons": model.model.layers[LAYER].mlp.down_proj.weight.detach().T, "sae": torch.from_numpy(decoder)}
    for basis in done.result.bases:
        assert basis.facts["logits"] == {"vocabulary": VOCABULARY, "positions": len(streams), "missing": None}
        for unit in basis.units:
            stored = json.loads((done.report / "logits" / stem(unit)).read_text())
            assert stored["unit"] == unit.name
            assert [len(stored[side]) for side in ("raised", "lowered")] == [10, 10]
            if basis.name not in writes:
                continue
            change = slopes @ writes[basis.name][unit.index]
            change = (change - change.mean()).double()
            for side in ("raised", "lowered"):
                for one in stored[side]:
                    assert one["token"] == subject.string(one["id"])
                    assert one["logit"] == pytest.approx(float(change[one["id"]]), rel=1e-2, abs=1e-4)
            assert stored["raised"][0]["logit"] == pytest.approx(float(change.max()), rel=1e-2)
            assert stored["deviation"] == pytest.approx(float(change.std(correction=0)), rel=1e-2)


def test_exemplars_show_what_the_model_does(done, plain):
    seen = 0
    for basis in ("neurons", "sae"):
        for unit in next(b for b in done.result.bases if b.name == basis).units:
            activations = activations_of(unit.name, done, plain)
            stored = json.loads((done.report / "exemplars" / stem(unit)).read_text())
            for which in ("fit", "test", "random"):
                assert 0 < len(stored[which]) <= done.config.exemplars
                for one in stored[which]:
                    at = one["window"]
                    assert (one["ids"], one["document"]) == (plain.rows[at], plain.documents[at])
                    np.testing.assert_allclose(one["activations"], activations[at], rtol=1e-4, atol=2e-5)
                    seen += 1
            strongest = [max(one["activations"]) for one in stored["fit"]]
            assert strongest == sorted(strongest, reverse=True)
            assert strongest[0] == pytest.approx(unit.max_activation, rel=1e-4, abs=2e-5)
            assert not {e["document"] for e in stored["fit"]} & {e["document"] for e in stored["test"]}
    assert seen > 50


# --- the same again -------------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_bytes(done, tmp_path):
    compare(done.config, tmp_path / "again", Reporter(quiet=True))
    assert_same(tmp_path / "again", done.folder)


class Stopping(Reporter):
    """Presses Ctrl-C when a stage has come so far."""

    def __init__(self, title: str, after: int) -> None:
        super().__init__(quiet=True)
        self.title, self.after, self.stages = title, after, list[str]()

    def stage(self, title, unit=""):
        self.stages.append(title)
        inner = super().stage(title, unit)
        if not title.startswith(self.title):
            return inner
        return _Watched(inner, self.after)


class _Watched:
    def __init__(self, inner, after: int) -> None:
        self.inner, self.after = inner, after

    def __enter__(self):
        tick = self.inner.__enter__()

        def watched(done: int, total: int) -> None:
            tick(done, total)
            if done >= self.after:
                raise KeyboardInterrupt

        return watched

    def __exit__(self, *error):
        return self.inner.__exit__(*error)


@pytest.fixture
def calls(monkeypatch) -> Counter:
    """How often each costly thing is done."""
    counter: Counter[str] = Counter()

    def count(owner, name: str, label) -> None:
        real = getattr(owner, name)

        def counted(*args, **kwargs):
            counter[label(*args) if callable(label) else label] += 1
            return real(*args, **kwargs)

        monkeypatch.setattr(owner, name, counted)

    count(workspace, "tokenise", "text")
    count(Harvest, "run", lambda _job, shard, _work: shard.name)
    count(training_run.Run, "step", "step")
    count(run, "explain_basis", lambda _workspace, name, *_: name)
    count(page, "write_page", "page")
    return counter


def test_interrupted_at_every_stage_it_ends_with_the_same_bytes(done, tmp_path, calls, monkeypatch):
    folder = tmp_path / "out"

    def interrupted(title: str, after: int) -> Counter:
        calls.clear()
        with pytest.raises(KeyboardInterrupt):
            compare(done.config, folder, Stopping(title, after))
        assert not (folder / "report").exists()
        return Counter(calls)

    assert interrupted("activations", 1) == {"text": 1, "shard_00000": 1}
    assert interrupted("dictionary", 150) == {"shard_00001": 1, "step": 150}
    assert interrupted("explain random", 1) == {"step": STEPS - EVERY, "neurons": 1, "sae": 1, "random": 1}
    assert not (folder / "bases" / "random").exists()
    with monkeypatch.context() as patch:
        patch.setattr(page, "write_page", _interrupt)
        calls.clear()
        with pytest.raises(KeyboardInterrupt):
            compare(done.config, folder, Reporter(quiet=True))
        assert calls == {"random": 1, "pca": 1, "ica": 1}
        assert not (folder / "report").exists()
    calls.clear()
    result = compare(done.config, folder, Reporter(quiet=True))
    assert calls == {"page": 1}
    assert result == done.result
    assert_same(folder, done.folder)


def _interrupt(*_args):
    raise KeyboardInterrupt


def test_a_finished_run_loads_no_model(done, tmp_path, calls, monkeypatch):
    shutil.copytree(done.folder, tmp_path / "out")
    monkeypatch.setattr(Subject, "load", lambda *_a, **_k: pytest.fail("the model was loaded"))
    assert compare(done.config, tmp_path / "out", Reporter(quiet=True)) == done.result
    assert not calls
    assert_same(tmp_path / "out", done.folder)


# --- other settings in the same folder ------------------------------------------------------------------------


@pytest.mark.usefixtures("undrawn")
def test_other_exemplars_redo_the_graphs_and_give_what_a_fresh_run_gives(done, tmp_path, calls):
    """The activations are gone by then, so this also says that they are harvested anew."""
    changed = replace(done.config, exemplars=4, bases=("neurons", "pca"))
    shutil.copytree(done.folder, tmp_path / "old")
    compare(changed, tmp_path / "old", Reporter(quiet=True))
    assert calls == {"shard_00000": 1, "shard_00001": 1, "neurons": 1, "pca": 1, "page": 1}
    compare(changed, tmp_path / "fresh", Reporter(quiet=True))
    assert_same(tmp_path / "old" / "report", tmp_path / "fresh" / "report")


@pytest.mark.usefixtures("undrawn")
def test_another_method_redoes_the_graphs_and_gives_what_a_fresh_run_gives(done, tmp_path, calls):
    changed = replace(done.config, method="suffix", bases=("neurons", "random"))
    shutil.copytree(done.folder, tmp_path / "old")
    result = compare(changed, tmp_path / "old", Reporter(quiet=True))
    assert calls == {"shard_00000": 1, "shard_00001": 1, "neurons": 1, "random": 1, "page": 1}
    assert result.protocol["method"] == {"name": "suffix", **asdict(SuffixOptions())}
    assert result.protocol["augmenter"] is None
    assert "Substitutes for important" not in (tmp_path / "old" / "report" / "comparison.md").read_text()
    assert "method `suffix`" in (tmp_path / "old" / "report" / "index.html").read_text()
    for basis, before in zip(result.bases, (b for b in done.result.bases if b.name in changed.bases), strict=True):
        assert [unit.name for unit in basis.units] == [unit.name for unit in before.units], "the same units"
        for unit, old in zip(basis.units, before.units, strict=True):
            graph = json.loads((tmp_path / "old" / "report" / unit.graph_file).read_text())
            assert graph["provenance"]["method"] == graph["provenance"]["config"]["method"] == "suffix"
            assert {e: unit.scores[e] for e in EXPLAINERS[1:]} == {e: old.scores[e] for e in EXPLAINERS[1:]}
    compare(changed, tmp_path / "fresh", Reporter(quiet=True))
    assert_same(tmp_path / "old" / "report", tmp_path / "fresh" / "report")


@pytest.mark.usefixtures("undrawn")
def test_refined_needs_no_augmenter_and_hears_the_vocabulary_once_a_site(done, tmp_path, monkeypatch):
    monkeypatch.setattr(workspace, "augmenter_for", lambda *_a, **_k: pytest.fail("an augmenter was loaded"))
    passes: Counter[Site] = Counter()

    def counted(subject, basis, units, **options):
        passes[basis.site] += 1
        return alone(subject, basis, units, **options)

    monkeypatch.setattr("saelens_n2g.comparison.vocabulary.alone", counted)
    few = replace(done.config.rule, units=1)
    config = replace(done.config, method="refined", augmenter="auto", bases=("neurons", "random", "pca"), rule=few)
    result = compare(config, tmp_path / "out", Reporter(quiet=True))
    assert passes == {config.site("neurons"): 1, config.site("random"): 1}
    assert result.protocol["augmenter"] is None
    assert (
        "back-off table that knows as much: the one from the whole fit text"
        in (tmp_path / "out" / "report" / "index.html").read_text()
    )
    for name in config.bases:
        costs = json.loads((tmp_path / "out" / "bases" / name / "costs.json").read_text())
        assert costs["tokens"] > VOCABULARY
        assert costs["calls"] > -(-VOCABULARY // 1024)
    one = replace(config, bases=("pca",))
    assert compare(one, tmp_path / "alone", Reporter(quiet=True)).bases[0] == result.bases[2]
    costs = [tmp_path / run / "bases" / "pca" / "costs.json" for run in ("alone", "out")]
    assert costs[0].read_bytes() == costs[1].read_bytes(), "not the place in the order"


@pytest.mark.usefixtures("undrawn")
def test_a_folder_of_an_older_version_is_done_again(done, tmp_path, calls, monkeypatch):
    few = replace(done.config, bases=("neurons",), method="suffix")
    with monkeypatch.context() as patch:
        patch.setattr("saelens_n2g.comparison.config.METHOD", METHOD - 1)
        compare(few, tmp_path / "out", Reporter(quiet=True))
    calls.clear()
    compare(few, tmp_path / "out", Reporter(quiet=True))
    assert calls == {"text": 1, "shard_00000": 1, "shard_00001": 1, "neurons": 1, "page": 1}


@pytest.mark.usefixtures("undrawn")
def test_other_training_redoes_the_dictionary_but_not_the_text(done, tmp_path, calls):
    changed = replace(done.config, training=replace(done.config.training, alpha=2e-2), bases=("sae",))
    shutil.copytree(done.folder, tmp_path / "out")
    result = compare(changed, tmp_path / "out", Reporter(quiet=True))
    assert (calls["text"], calls["step"], calls["sae"]) == (0, STEPS, 1)
    assert result.dictionary["alpha"] == 2e-2


def test_other_bases_redo_the_report_alone(done, tmp_path, calls):
    """What one basis gives does not depend on which others stand beside it, nor on how training is logged."""
    quieter = replace(done.config.training, log_every=7, checkpoint_every=0)
    changed = replace(done.config, bases=("ica", "neurons"), training=quieter)
    shutil.copytree(done.folder, tmp_path / "out")
    result = compare(changed, tmp_path / "out", Reporter(quiet=True))
    assert calls == {"page": 1}
    known = {basis.name: basis for basis in done.result.bases}
    assert result.bases == (known["ica"], known["neurons"])
    assert not list((tmp_path / "out" / "report" / "graphs").glob("*sae*"))


@pytest.mark.usefixtures("undrawn")
def test_training_of_other_settings_is_not_continued(done, tmp_path, calls):
    """A checkpoint that an interrupted run left is of its settings alone."""
    other = replace(done.config, bases=("sae",), training=replace(done.config.training, alpha=5e-2))
    with pytest.raises(KeyboardInterrupt):
        compare(other, tmp_path / "out", Stopping("dictionary", 150))
    assert list((tmp_path / "out" / "dictionary" / "checkpoints").iterdir())
    calls.clear()
    compare(replace(done.config, bases=("sae",)), tmp_path / "out", Reporter(quiet=True))
    assert calls["step"] == STEPS
    sae = "dictionary/sae/sae_weights.safetensors"
    assert (tmp_path / "out" / sae).read_bytes() == (done.folder / sae).read_bytes()


@pytest.mark.parametrize("stage", ["text", "dictionary", "neurons"])
def test_settings_changed_and_changed_back_never_mix(done, tmp_path, monkeypatch, stage):
    """A run without report meets other settings, which are interrupted after their artefact is in place, before the
    stage is recorded; then the first settings come back. What lies there by now is not theirs."""
    folder = tmp_path / "out"
    shutil.copytree(done.folder, folder)
    shutil.rmtree(folder / "report")
    (folder / "stages" / "report.json").unlink()
    other = {
        "text": replace(done.config, text=replace(done.config.text, tokens=5_000)),
        "dictionary": replace(done.config, training=replace(done.config.training, alpha=5e-2)),
        "neurons": replace(done.config, exemplars=3),
    }[stage]
    real = workspace.Workspace.finish

    def finish(self, name, basis=None):
        if stage in (name, basis):
            raise KeyboardInterrupt
        real(self, name, basis)

    with monkeypatch.context() as patch:
        patch.setattr(workspace.Workspace, "finish", finish)
        with pytest.raises(KeyboardInterrupt):
            compare(other, folder, Reporter(quiet=True))
    assert compare(done.config, folder, Reporter(quiet=True)) == done.result
    assert_same(folder / "report", done.report)


# --- damage ---------------------------------------------------------------------------------------------------


ARTEFACTS = (
    "dictionary/sae/sae_weights.safetensors",
    "dictionary/sae/cfg.json",
    "text/windows.safetensors",
    "bases/random/basis.json",
    "bases/pca/graphs/*.svg",
    "report/index.html",
    "report/results.json",
    "report/graphs/*.json",
)
MARKERS = ("text/COMMIT.json", "stages/explain-ica.json", "stages/report.json")
DAMAGE = {
    "cut": lambda data: data[: len(data) // 2],
    "altered": lambda data: data[:-9] + bytes([data[-9] ^ 1]) + data[-8:],
    "removed": None,
}
CASES = [*((name, how) for name in ARTEFACTS for how in DAMAGE), *((name, "cut") for name in MARKERS)]


@pytest.mark.parametrize(("name", "how"), CASES)
def test_damage_is_named_never_shown(done, tmp_path, name, how):
    folder = tmp_path / "out"
    shutil.copytree(done.folder, folder)
    if not name.startswith(("report/", "stages/report")):  # a finished report is all that is read then
        shutil.rmtree(folder / "report")
        (folder / "stages" / "report.json").unlink()
    path = min(folder.glob(name))
    if DAMAGE[how] is None:
        path.unlink()
    else:
        path.write_bytes(DAMAGE[how](path.read_bytes()))
    with pytest.raises(ArtefactError) as error:
        compare(done.config, folder, Reporter(quiet=True))
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.usefixtures("undrawn")
def test_half_written_leftovers_are_not_taken_for_finished(done, tmp_path):
    """What a killed process leaves: temporary folders, a folder without marker, a marker's stage unrecorded."""
    folder = tmp_path / "out"
    for place, inside in (
        (".report.x1.tmp", done.report),
        (".text.x1.tmp", done.folder / "text"),
        ("bases/.neurons.x1.tmp", done.folder / "bases" / "sae"),
        ("dictionary/.sae.x1.tmp", done.folder / "dictionary" / "sae"),
        ("activations/.shard_00000.x1.tmp", done.folder / "text"),
    ):
        shutil.copytree(inside, folder / place)
    for bare in ("report", "text", "bases/neurons", "dictionary/sae", "activations/shard_00000"):
        (folder / bare).mkdir(parents=True)
        (folder / bare / "basis.json").write_text("{}")
    result = compare(replace(done.config, bases=("neurons", "sae")), folder, Reporter(quiet=True))
    assert result.bases == tuple(basis for basis in done.result.bases if basis.name in ("neurons", "sae"))
    found, expected = contents(folder / "report"), contents(done.report)
    of_units = [name for name in found if name.startswith(("graphs/", "exemplars/", "logits/"))]
    assert len(of_units) == 5 * sum(len(basis.units) for basis in result.bases)
    assert [name for name in of_units if without_settings(found[name]) != without_settings(expected[name])] == []


@pytest.mark.usefixtures("undrawn")
def test_failed_and_skipped_units_are_counted_and_shown(done, tmp_path, monkeypatch):
    """A rule that hardly anybody meets, and a unit whose fit ends without a graph: none of them is lost."""
    real, failed = find_method("paper"), list[str]()

    def fit(unit, *rest):
        if not failed:
            failed.append(unit)
            return refused(unit)
        return real.start(unit, *rest)

    def refused(unit):
        yield from ()
        raise UnitError(f"unit {unit}", "something to say", "nothing")

    monkeypatch.setitem(METHODS, "paper", replace(real, start=fit))
    rule = replace(done.config.rule, units=20, max_density=0.002, pool=2)
    config = replace(done.config, bases=("neurons",), rule=rule)
    basis = compare(config, tmp_path / "out", Reporter(quiet=True)).bases[0]
    assert basis.counts["examined"] == 40
    assert basis.counts["dense"] + basis.counts["rare"] > 0
    assert basis.counts["examined"] == sum(v for k, v in basis.counts.items() if k != "examined")
    assert basis.counts["failed"] == 1
    assert basis.failures == {failed[0]: f"unit {failed[0]}: expected something to say, found nothing"}
    assert failed[0] not in {unit.name for unit in basis.units}
    report = tmp_path / "out" / "report"
    assert "dense" in (report / "comparison.md").read_text()
    assert "something to say" in (report / "index.html").read_text()


def test_units_of_a_real_run_are_explained_in_words_and_scored_as_by_hand(done, tmp_path):
    settings = InterpretConfig(excerpts=4, calibration="linear", hold_back=0.5)
    found = run_interpretation([done.folder], settings, tmp_path / "words", Reporter(quiet=True))
    plain = run_interpretation([done.folder], replace(settings, calibration="none"), tmp_path / "words", Silent())
    names = [unit.name for basis in done.result.bases for unit in basis.units]
    assert sorted(one.unit for one in plain.outcomes[Way("graph")]) == sorted(names)
    scored = 0
    for one, scaled in zip(plain.outcomes[Way("graph")], found.outcomes[Way("graph")], strict=True):
        stem = f"{one.unit.replace('/', '_')}.json"
        stored = json.loads((done.report / "exemplars" / stem).read_text())
        graph = Graph.from_dict(json.loads((done.report / "graphs" / stem).read_text()))
        rows = stored["test"][:4]
        actual = np.concatenate([row["activations"] for row in rows]) / stored["max_activation"]
        predicted = np.concatenate([graph.predict(row["ids"]) for row in rows])
        r = one.judged.sets["top"].values["correlation"]
        if actual.std() and predicted.std():
            scored += 1
            assert r == pytest.approx(np.corrcoef(actual, predicted)[0, 1], abs=1e-6)
            if scaled.judged is not None and scaled.judged.sets["top"].values["correlation"] is not None:
                assert abs(scaled.judged.sets["top"].values["correlation"]) == pytest.approx(abs(r), abs=1e-9)
        else:
            assert r is None
    assert scored >= 10
    assert {one.status for one in plain.sentences["templated"]} <= {"explained", "silent"}
    assert sum(one.text is not None for one in plain.sentences["templated"]) >= 10


def test_new_texts_are_run_through_the_units_of_a_real_run(done):
    subjects, seen = Subjects([done.folder]), 0
    for found in units_of(done.folder):
        unit = found.load(Reading())
        if found.basis in ("random", "pca", "ica"):
            assert f"keeps no directions of basis {found.basis}" in subjects.missing(unit)
            continue
        assert subjects.missing(unit) == ""
        for one in unit.of("fit")[:2]:
            (shot,) = subjects.run(unit, ["".join(one.strings)])
            if len(shot.strings) == len(one.strings):  # spelled apart again as it was
                np.testing.assert_allclose(shot.activations, one.activations, rtol=1e-4, atol=2e-5)
                seen += 1
    assert seen >= 6
