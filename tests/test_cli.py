"""The command line as a user meets it: one line per error, exit codes, results on stdout and nothing else there."""

import ast
import inspect
import io
import json
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from tiny import HIDDEN, MLP, PlainModel
from typer.main import get_command

from saelens_n2g import cli
from saelens_n2g.bases.formats import Dictionary, SaeMetadata, load_saelens, save_saelens
from saelens_n2g.cli.options import METHOD, RUN, shared
from saelens_n2g.commands import comparisons, dictionaries
from saelens_n2g.commands import ioi as ioi_command
from saelens_n2g.commands import report as report_command
from saelens_n2g.commands import text as text_commands
from saelens_n2g.errors import InputError
from saelens_n2g.graphs.graph import Graph
from saelens_n2g.graphs.methods import DEFAULT
from saelens_n2g.progress import Reporter

COMMANDS = (
    "demo",
    "compare",
    "train",
    "sweep",
    "evaluate",
    "push",
    "pull",
    "exemplars",
    "fit",
    "import",
    "predict",
    "ioi",
    "case",
    "report",
    "study",
    "layers",
    "collect",
    "search",
    "match",
    "verify",
    "serve",
    "export",
    "interpret",
    "puzzles",
)
ANALYSIS = Path(__file__).resolve().parent.parent / "analysis"
TEXT = "The old cat sat on the mat in New York."


class Ran(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


@pytest.fixture
def run(monkeypatch, capsys):
    """Call the entry point with arguments, as the shell would."""
    monkeypatch.delenv("FORCE_COLOR", raising=False)

    def call(*arguments: object) -> Ran:
        monkeypatch.setattr(sys, "argv", ["saelens-n2g", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            cli.main()
        return Ran(int(end.value.code or 0), *capsys.readouterr())

    return call


def assert_one_error(ran: Ran, code: int, *named: str) -> None:
    """That code; on stderr one line of error, the last, with all of `named`; no traceback; nothing on stdout."""
    assert (ran.code, ran.out) == (code, ""), ran.err
    lines = ran.err.splitlines()
    assert [line for line in lines if line.startswith("error:")] == lines[-1:], ran.err
    for text in (*named, "expected", "found"):
        assert text in lines[-1], ran.err
    assert "Traceback" not in ran.err


def assert_plain(text: str) -> None:
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f]", text), "control characters in piped output"


# --- without a model ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example_that_the_command_understands(run, command):
    ran = run(command, "--help")
    assert ran.code == 0
    assert f"saelens-n2g {command}" in ran.out.partition("Examples")[2]
    options = set(re.findall(r"--[a-z]+", ran.out.partition("Examples")[2]))
    assert options <= set(re.findall(r"--[a-z]+", ran.out.partition("Examples")[0]))


def test_help_names_every_command(run):
    ran = run("--help")
    assert ran.code == 0
    assert all(re.search(rf"\b{command}\b", ran.out) for command in COMMANDS)
    assert len(cli.app.registered_commands) == len(COMMANDS)


def test_version(run):
    assert run("--version") == Ran(0, f"{version('saelens-n2g')}\n", "")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["demo", "--layer", "x"], "--layer"),
        (["fit", "--out", "x"], "--unit"),
        (["nonsense"], "nonsense"),
        (["demo", "--nonsense"], "--nonsense"),
    ],
)
def test_usage_errors(run, arguments, named):
    ran = run(*arguments)
    assert (ran.code, ran.out) == (2, "")
    assert named in ran.err.splitlines()[-1]
    assert "Traceback" not in ran.err


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--units", 0], "option units"),
        (["--tokens", -1], "option tokens"),
        (["--samples", 3], "option samples"),
        (["--layer", -1], "layer"),
    ],
)
def test_options_that_cannot_be(run, tmp_path, options, named):
    assert_one_error(run("demo", "--out", tmp_path / "out", *options), 2, named)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["demo", "--wandb", "loud"], ["option wandb", "offline", "'loud'"]),
        (["fit", "--unit", "1.nothing/neurons/3"], ["site kind", "mlp_post", "'nothing'"]),
    ],
)
def test_words_that_are_none_of_a_few(tmp_path, arguments, named):
    """In a process of its own: here the tests' type checker would speak first."""
    call = [sys.executable, "-c", "from saelens_n2g.cli import main; main()", *arguments, "--out", str(tmp_path)]
    ended = subprocess.run(call, capture_output=True, text=True, check=False)
    assert_one_error(Ran(ended.returncode, ended.stdout, ended.stderr), 2, *named)


def test_bases_that_there_are_not(run, tmp_path):
    assert_one_error(run("compare", "--out", tmp_path, "--bases", "neurons,knots"), 2, "knots", "neurons, sae, random")


def test_the_command_line_and_the_registry_have_one_default():
    assert METHOD == DEFAULT


@pytest.mark.parametrize("command", [["compare"], ["demo"], ["fit", "--unit", "1.mlp_post/neurons/3"]])
def test_methods_that_there_are_not(run, tmp_path, command):
    ran = run(*command, "--out", tmp_path / "out", "--method", "guess")
    assert_one_error(ran, 2, "method 'guess'", "paper", "suffix")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("unit", ["17", "1.mlp_post/neurons", "1.mlp_post/knots/3", "1.mlp_post/neurons/-3", "a/sae/1"])
@pytest.mark.parametrize("command", ["fit", "exemplars", "case"])
def test_units_that_are_none(run, tmp_path, command, unit):
    assert_one_error(run(command, "--unit", unit, "--out", tmp_path), 2, unit.split("/")[0])


def test_a_place_that_cannot_be_written(run, tmp_path):
    (tmp_path / "file").write_text("")
    out = tmp_path / "file" / "below"
    assert_one_error(run("demo", "--out", out), 2, str(out), "can be written", "Not a directory")


def test_unexpected_errors_are_one_line_and_code_1(run, tmp_path, monkeypatch):
    def fail(*_args):
        raise RuntimeError("first line\n  and [bold]second")

    monkeypatch.setattr(comparisons, "compare", fail)
    ran = run("demo", "--out", tmp_path)
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.splitlines() == [
        "unexpected RuntimeError: first line and [bold]second (add --debug for the traceback)"
    ]


def test_ctrl_c_is_130_and_says_how_to_go_on(run, tmp_path, monkeypatch):
    def stop(*_args):
        raise KeyboardInterrupt

    monkeypatch.setattr(comparisons, "compare", stop)
    ran = run("demo", "--out", tmp_path)
    assert (ran.code, ran.out, ran.err.count("\n")) == (130, "", 1)
    assert "run the same command again" in ran.err


def test_ctrl_c_within_a_report_ends_the_report(run, tmp_path, monkeypatch):
    def interrupted(**_):
        raise KeyboardInterrupt

    monkeypatch.setattr(dictionaries, "sweep", interrupted)
    ran = run("report", "--layers", "0", "--at", "0,1", "--out", tmp_path)
    assert ran.code == 130
    assert ran.err.splitlines()[-1] == "interrupted: run the same command again to go on"
    assert not (tmp_path / "bases").exists(), "the next analysis is not begun"
    assert not (tmp_path / "report").exists()


@pytest.mark.parametrize("error", [InputError("thing", "one", "two\nlines"), RuntimeError("odd")])
def test_debug_lets_the_traceback_through(monkeypatch, error):
    def fail(*_args, **_options):
        raise error

    monkeypatch.setattr(text_commands, "predict", fail)
    monkeypatch.setattr(sys, "argv", ["saelens-n2g", "predict", "x.json", "--debug"])
    with pytest.raises(type(error)):
        cli.main()


def test_an_error_of_several_lines_is_one_line(run, monkeypatch):
    def fail(*_args, **_options):
        raise InputError("thing", "one", "two\nlines")

    monkeypatch.setattr(text_commands, "predict", fail)
    assert run("predict", "x.json").err == "error: thing: expected one, found two lines\n"


# --- predict --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def graph(tiny_model, tmp_path_factory) -> Path:
    """Fires on " York" after " New" only."""
    tokenizer = PlainModel(tiny_model).tokenizer
    new, york = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in (" New", " York"))
    assert len(new) == len(york) == 1
    one = Graph("1.mlp_post/neurons/3", 2.0, provenance={"subject": {"model": str(tiny_model), "revision": None}})
    one.add([(york[0], 0.9), (new[0], 1.0)], 0.9)
    path = tmp_path_factory.mktemp("graph") / "graph.json"
    path.write_text(json.dumps(one.to_dict()))
    return path


def check_json(ran: Ran) -> None:
    assert (ran.code, ran.err) == (0, "")
    value = json.loads(ran.out)
    assert value["unit"] == "1.mlp_post/neurons/3"
    assert "".join(value["tokens"]) == TEXT
    assert len(value["ids"]) == len(value["tokens"]) == len(value["predicted"])
    assert [t for t, p in zip(value["tokens"], value["predicted"], strict=True) if p] == [" York"]
    assert max(value["predicted"]) == 0.9


def test_predict_takes_text_file_and_standard_input(run, graph, tmp_path, monkeypatch):
    check_json(run("predict", graph, "--text", TEXT, "--json"))
    (tmp_path / "text.txt").write_text(TEXT)
    check_json(run("predict", graph, "--file", tmp_path / "text.txt", "--json"))
    monkeypatch.setattr(sys, "stdin", io.StringIO(TEXT))
    check_json(run("predict", graph, "--file", "-", "--json"))


def test_predict_for_people(run, graph):
    text = " ".join([TEXT] * 6)
    ran = run("predict", graph, "--text", text)
    assert (ran.code, ran.err) == (0, "")
    lines = ran.out.splitlines()
    assert lines[0] == text, "as it was given, not wrapped"
    assert re.fullmatch(r"1\.mlp_post/neurons/3 fires on 6 of \d+ tokens", lines[1])
    assert lines[2:] == ["0.90\t' York'"] * 6
    assert_plain(ran.out)


def test_predict_wants_one_text(run, graph, tmp_path):
    assert_one_error(run("predict", graph), 2, "either --text or --file", "neither")
    assert_one_error(run("predict", graph, "--text", "a", "--file", graph), 2, "either --text or --file", "both")
    assert_one_error(run("predict", graph, "--text", ""), 2, "text", "at least one token")
    assert_one_error(run("predict", graph, "--file", tmp_path / "none.txt"), 2, str(tmp_path / "none.txt"))
    (tmp_path / "bytes.txt").write_bytes(b"\xff\xfe\x00")
    assert_one_error(run("predict", graph, "--file", tmp_path / "bytes.txt"), 2, "bytes.txt", "UTF-8")


@pytest.mark.parametrize("content", ["half", "{}", '{"format": "saelens-n2g/graph", "version": 1}', None])
def test_predict_with_a_graph_that_is_none(run, graph, tmp_path, content):
    path = tmp_path / "graph.json"
    if content is not None:
        whole = graph.read_text()
        path.write_text(whole[: len(whole) // 2] if content == "half" else content)
    assert_one_error(run("predict", path, "--text", "a"), 3, str(path))


def test_predict_without_the_tokenizer(run, graph, tmp_path):
    ran = run("predict", graph, "--text", "a", "--model", tmp_path / "nowhere")
    assert_one_error(ran, 2, "nowhere", "a folder in Hugging Face format")


# --- with the tiny model --------------------------------------------------------------------------------------


@pytest.fixture
def basics(tiny_model, tiny_corpus, one_thread) -> list[object]:  # noqa: ARG001
    """Options that every command on the tiny model shares."""
    return ["--model", tiny_model, "--corpus", tiny_corpus, "--tokens", 4000, "--width", 32, "--device", "cpu"]


@pytest.mark.model
@pytest.mark.parametrize(
    ("changes", "unit", "named"),
    [
        (["--model", "no/such-model"], "1.mlp_post/neurons/3", ["no/such-model"]),
        (["--corpus", "none.jsonl"], "1.mlp_post/neurons/3", ["none.jsonl"]),
        (["--corpus", "EMPTY"], "1.mlp_post/neurons/3", ["EMPTY", "at least one document"]),
        (["--width", 1], "1.mlp_post/neurons/3", ["width"]),
        (["--bos", "many"], "1.mlp_post/neurons/3", ["BOS"]),
        (["--device", "abacus"], "1.mlp_post/neurons/3", ["device", "abacus"]),
        ([], "3.mlp_post/neurons/3", ["layer", "0 to 2"]),
        ([], f"1.mlp_post/neurons/{MLP}", ["index", f"0 to {MLP - 1}", str(MLP)]),
        ([], f"1.resid_post/pca/{2 * HIDDEN}", ["index", f"0 to {2 * HIDDEN - 1}"]),
        ([], "1.resid_post/sae/3", ["--dictionary"]),
        (["--dictionary", "nowhere"], "1.resid_post/sae/3", ["nowhere"]),
        (["--dictionary", "FOLDER"], "1.resid_post/sae/3", ["FOLDER", "dictionary"]),
    ],
)
def test_input_that_cannot_be(run, basics, tmp_path, changes, unit, named):
    (tmp_path / "EMPTY.txt").write_text("\n \n")
    (tmp_path / "FOLDER").mkdir()
    changes = [{"EMPTY": tmp_path / "EMPTY.txt", "FOLDER": tmp_path / "FOLDER"}.get(c, c) for c in changes]
    ran = run("fit", *basics, *changes, "--unit", unit, "--out", tmp_path / "out")
    assert_one_error(ran, 3 if "FOLDER" in named else 2, *named)
    assert not list((tmp_path / "out").rglob("*.tmp"))


@pytest.mark.model
def test_a_unit_without_firing_is_code_4(run, basics, tmp_path):
    silent = Dictionary.from_tied(torch.eye(HIDDEN), torch.full((HIDDEN,), -1e6), torch.zeros(HIDDEN))
    save_saelens(tmp_path / "sae", silent, SaeMetadata("tiny", "blocks.1.hook_resid_post", 32, True))
    for command in ("fit", "exemplars"):
        options = [*basics, "--dictionary", tmp_path / "sae", "--unit", "1.resid_post/sae/5", "--out", tmp_path / "out"]
        assert_one_error(run(command, *options), 4, "1.resid_post/sae/5", "above 0", "none (dead there)")


@pytest.mark.model
def test_fit_writes_a_graph_that_predict_reads(run, basics, tmp_path):
    out = tmp_path / "out"
    ran = run("fit", *basics, "--augmenter", "none", "--unit", "1.mlp_post/neurons/3", "--out", out)
    assert ran.code == 0, ran.err
    path = out / "graphs" / "1.mlp_post_neurons_3.json"
    graph = Graph.from_dict(json.loads(path.read_text()))
    assert ran.out.startswith(graph.to_text() + "\n")
    assert re.search(r"^graph +held_out F1 [01]\.\d{3}, random F1 [01]\.\d{3}$", ran.out, re.MULTILINE)
    assert [path.with_suffix(s).exists() for s in (".svg", ".dot")] == [True, True]
    assert "activations at 1.mlp_post" in ran.err, "progress goes to stderr"
    assert not (out / "activations").exists()
    assert_plain(ran.out + ran.err)
    again = run("predict", path, "--text", TEXT, "--json")
    assert json.loads(again.out)["unit"] == "1.mlp_post/neurons/3"
    quiet = run("fit", *basics, "--augmenter", "none", "--unit", "1.mlp_post/neurons/3", "--out", out, "--quiet")
    assert (quiet.out, quiet.err) == (ran.out, "")


@pytest.mark.model
def test_fit_with_another_method(run, basics, tmp_path):
    ran = run("fit", *basics, "--method", "suffix", "--unit", "1.mlp_post/neurons/3", "--out", tmp_path)
    assert ran.code == 0, ran.err
    stored = json.loads((tmp_path / "graphs" / "1.mlp_post_neurons_3.json").read_text())
    assert stored["provenance"]["method"] == "suffix"
    assert ran.out.startswith(Graph.from_dict(stored).to_text() + "\n")


@pytest.mark.model
def test_exemplars_are_printed_and_written(run, basics, tmp_path):
    options = [*basics, "--unit", "1.mlp_post/neurons/3", "--out", tmp_path, "--top", 2]
    ran = run("exemplars", *options)
    assert ran.code == 0, ran.err
    path = tmp_path / "exemplars" / "1.mlp_post_neurons_3.json"
    stored = json.loads(path.read_text())
    assert ran.out.splitlines()[-1] == f"written: {path}"
    shown = re.findall(r"^(fit|test)  [01]\.\d\d  doc\d+$", ran.out, re.MULTILINE)
    assert shown == ["fit", "fit", "test", "test"]
    assert "".join(stored["fit"][0]["tokens"]) in ran.out
    assert len(stored["fit"]) == 20
    assert_plain(ran.out + ran.err)


@pytest.mark.model
@pytest.mark.usefixtures("undrawn")
def test_train_compare_and_a_feature_of_the_dictionary(run, basics, tmp_path):
    out, training = tmp_path / "out", ["--samples", 6400, "--wandb", "disabled"]
    ran = run("train", *basics, *training, "--alpha", 0.01, "--expansion", 2, "--out", out)
    assert ran.code == 0, ran.err
    folder = out / "dictionary" / "sae"
    assert load_saelens(folder).d_sae == 2 * HIDDEN
    first, second, third = ran.out.splitlines()
    assert first == f"{folder}: d_in {HIDDEN}, d_sae {2 * HIDDEN}"
    assert re.fullmatch(rf"on test documents: fvu 0\.\d{{4}}, l0 \d+\.\d, dead \d+ of {2 * HIDDEN}", second)
    assert re.fullmatch(
        r"in the model, \d+ tokens: cross-entropy score (–|-?\d\.\d{4}) \(1: unnoticed, 0: as zeros\), KL \d\.\d{4}",
        third,
    )
    assert load_saelens(folder).metadata["evaluation"]["behaviour"]["token_stats"][
        "total_tokens_eval_reconstruction"
    ] == int(third.split()[3])
    before = {p: p.stat().st_mtime_ns for p in folder.iterdir()}
    assert run("train", *basics, *training, "--alpha", 0.01, "--expansion", 2, "--out", out).out == ran.out
    assert {p: p.stat().st_mtime_ns for p in folder.iterdir()} == before, "finished, so not trained again"

    options = [*basics, "--dictionary", folder, "--bases", "sae,random", "--units", 2, "--method", "suffix"]
    compared = run("compare", *options, *training, "--out", tmp_path / "compared")
    assert compared.code == 0, compared.err
    report = tmp_path / "compared" / "report" / "index.html"
    assert compared.out.splitlines()[-1] == f"report: {report}"
    assert report.exists()
    assert not (tmp_path / "compared" / "dictionary").exists(), "the one that was given is used"
    assert_plain(compared.out + compared.err)

    unit = ["--unit", "1.resid_post/sae/7", "--dictionary", folder, "--augmenter", "none"]
    fitted = run("fit", *basics, *unit, "--out", tmp_path / "feature")
    assert fitted.code == 0, fitted.err
    assert (tmp_path / "feature" / "graphs" / "1.resid_post_sae_7.json").exists()


@pytest.mark.model
@pytest.mark.usefixtures("undrawn")
def test_a_sweep_and_a_dictionary_that_is_not_relu(run, basics, tmp_path):
    out, common = tmp_path / "sweep", ["--wandb", "disabled", "--batch", 64]
    kinds = ["--architecture", "tied,topk", "--option", "k=2,4", "--alphas", "0.01", "--expansions", 2]
    ran = run("sweep", *basics, *common, *kinds, "--layers", "0,1", "--out", out)
    assert ran.code == 0, ran.err
    assert [line.split()[:2] for line in ran.out.splitlines()] == [
        [f"{layer}.resid_post", name] for layer in (0, 1) for name in ("tied", "topk-k2", "topk-k4")
    ]
    assert {"sweep.json", "sweep.md", "frontier-1.resid_post.png"} <= {p.name for p in out.iterdir()}
    assert run("sweep", *basics, *common, *kinds, "--layers", "1", "--out", out).code == 2, "a sweep of others"
    assert_plain(ran.out + ran.err)

    folder = out / "1.resid_post-topk-k4" / "sae"
    options = ["--dictionary", folder, "--bases", "sae", "--units", 2, "--method", "suffix"]
    compared = run("compare", *basics, *options, "--samples", 640, *common[:2], "--out", tmp_path / "compared")
    assert compared.code == 0, compared.err
    found = json.loads((tmp_path / "compared" / "report" / "results.json").read_text())
    assert found["dictionary"]["architecture"] == "topk"
    assert_one_error(run("train", *basics, "--option", "k", "--out", tmp_path / "x"), 2, "NAME=VALUE")
    assert_one_error(run("train", *basics, *common, "--option", "k=3", "--out", tmp_path / "x"), 2, "architecture tied")


# --- what units do to the model -------------------------------------------------------------------------------

PEOPLE = ("Ann", "Bob", "Mary", "John", "Paris", "London", "Oslo", "Berlin")
"""Names that are one token for the tiny model; few of the task's own are."""


@pytest.fixture
def few_names(monkeypatch):
    monkeypatch.setattr(ioi_command, "ioi_task", partial(ioi_command.ioi_task, names=PEOPLE))


@pytest.mark.model
@pytest.mark.usefixtures("few_names", "undrawn")
def test_ioi_of_a_sweep_goes_on_where_it_stopped(run, basics, tmp_path):
    sweep = ["--wandb", "disabled", "--batch", 64, "--alphas", "0.003,0.03", "--expansions", 2, "--samples", 640]
    assert run("sweep", *basics, *sweep, "--layers", "0,1", "--out", tmp_path / "sweep").code == 0
    out = tmp_path / "ioi"
    options = [*basics, "--dictionary", tmp_path / "sweep", "--prompts", 3, "--runs", 20, "--out", out]
    ran = run("ioi", *options)
    assert ran.code == 0, ran.err
    report = out / "report"
    found = json.loads((report / "results.json").read_text())
    assert found["site"] == "1.resid_post", "the middle of three layers"
    assert [one["name"] for one in found["bases"]] == ["alpha0.003", "alpha0.03", "PCA, signed", "PCA, non-negative"]
    assert found["performance"]["texts"] == 12, "both texts of three prompts to choose on and three to measure on"
    assert found["valid"] is (found["performance"]["preferred"] >= 0.75)
    whole = [one["everything"]["closed"][side]["mean"] for one in found["bases"][2:] for side in ("fit", "held_out")]
    assert whole == pytest.approx([1, 1, 1, 1], abs=1e-3)
    for known in found["provenance"]["dictionaries"].values():
        assert {"cfg.json", "sae_weights.safetensors"} <= known["sha256"].keys()
    assert ran.out.startswith("The subject prefers the indirect object in ")
    assert ran.out.splitlines()[-1] == f"report: {report / 'ioi.md'}"
    assert {"ioi.md", "ioi.png", "ioi.svg"} <= {p.name for p in report.iterdir()}
    assert not (out / "activations").exists()
    assert_plain(ran.out + ran.err)

    before = {p: p.stat().st_mtime_ns for p in (out / "bases").rglob("*.json")}
    shutil.rmtree(out / "bases" / "alpha0.03")
    again = run("ioi", *options)
    assert (again.code, again.out) == (0, ran.out)
    after = {p: p.stat().st_mtime_ns for p in (out / "bases").rglob("*.json")}
    assert {p for p, t in after.items() if before[p] != t} == {
        out / "bases" / "alpha0.03" / name for name in ("curves.json", "COMMIT.json")
    }
    assert_one_error(
        run("ioi", *options, "--layer", 2), 2, "dictionaries at 2.resid_post", "0.resid_post, 1.resid_post"
    )
    other = tmp_path / "sweep" / "0.resid_post-alpha0.003" / "sae"
    assert_one_error(run("ioi", *basics, "--dictionary", other, "--out", out), 2, "hook blocks.1.hook_resid_post")
    assert_one_error(run("ioi", *options[:-1], tmp_path / "o", "--runs", 0), 2, "runs", "integers >= 1")


@pytest.mark.model
def test_ioi_without_names(run, basics, tmp_path):
    assert_one_error(run("ioi", *basics, "--out", tmp_path), 2, "names for the IOI task", "three or more")


@pytest.mark.model
@pytest.mark.usefixtures("undrawn")
def test_a_case_of_a_feature_and_of_a_neuron(run, basics, tmp_path):
    generator = torch.Generator().manual_seed(0)
    weight = torch.nn.functional.normalize(torch.randn(2 * HIDDEN, HIDDEN, generator=generator), dim=1)
    for layer in (0, 1):
        one = Dictionary.from_tied(weight, torch.zeros(2 * HIDDEN), torch.zeros(HIDDEN))
        save_saelens(tmp_path / f"{layer}", one, SaeMetadata("tiny", f"blocks.{layer}.hook_resid_post", 32, True))
    options = [*basics, "--windows", 4, "--out", tmp_path / "out"]
    feature = ["--unit", "0.resid_post/sae/5", "--dictionary", tmp_path / "0", "--later", tmp_path / "1"]
    ran = run("case", *options, *feature, "--pattern", "^ York$")
    assert ran.code == 0, ran.err
    found = json.loads((tmp_path / "out" / "case" / "case.json").read_text())
    assert (found["unit"], found["later"], found["pattern"]) == ("0.resid_post/sae/5", "1.resid_post", "^ York$")
    assert found["histogram"]["firing"] == found["against"]["above 0"]["firing"] > 100
    assert found["against"]["above 0"]["matches"] > 5
    assert len(found["downstream"]["units"]) == len(found["lens"]["raised"]) == len(found["ablation"]["lowered"]) == 10
    assert len(found["contexts"]) == 3
    assert ran.out.startswith("**0.resid_post/sae/5**\n\nAbove zero on ")
    assert {"case.md", "case.png", "case.svg"} <= {p.name for p in (tmp_path / "out" / "case").iterdir()}
    assert_plain(ran.out + ran.err)
    before = (tmp_path / "out" / "case" / "case.json").read_bytes()
    assert run("case", *options, *feature, "--pattern", "^ York$").code == 0
    assert (tmp_path / "out" / "case" / "case.json").read_bytes() == before

    ran = run("case", *options, "--unit", "1.mlp_post/neurons/3")
    assert ran.code == 0, ran.err
    assert "**Logit lens**" in ran.out, "what it writes through the MLP's last matrix"
    for more, named in (
        (["--pattern", "("], ["pattern", "a regular expression"]),
        (["--windows", 0], ["option windows", ">= 1"]),
        (["--later", tmp_path / "0"], ["a layer behind 0.resid_post"]),
    ):
        assert_one_error(run("case", *options, *feature, *more), 2, *named)


@pytest.mark.model
@pytest.mark.usefixtures("undrawn")
def test_the_feature_of_a_pattern_is_chosen(run, basics, tmp_path, tiny_model):
    """A dictionary with one feature that reads off the embedding of a token, among random ones."""
    plain = PlainModel(tiny_model)
    (york,) = plain.tokenizer(" York", add_special_tokens=False)["input_ids"]
    direction = plain.model.get_input_embeddings().weight[york].detach()
    weight = torch.randn(20, HIDDEN, generator=torch.Generator().manual_seed(0))
    weight[13] = direction
    weight = torch.nn.functional.normalize(weight, dim=1)
    one = Dictionary.from_tied(weight, torch.full((20,), -0.1), torch.zeros(HIDDEN))
    save_saelens(tmp_path / "sae", one, SaeMetadata("tiny", "blocks.0.hook_resid_pre", 32, True))
    options = [*basics, "--dictionary", tmp_path / "sae", "--windows", 2, "--out", tmp_path / "out"]
    ran = run("case", *options, "--pattern", "^ York$", "--quiet")
    assert ran.code == 0, ran.err
    found = json.loads((tmp_path / "out" / "case" / "case.json").read_text())
    assert found["unit"] == "0.resid_pre/sae/13"
    assert found["provenance"]["chosen"]["found"] is True
    assert found["provenance"]["chosen"]["f1_test"] > 0.9
    assert "the feature of 0.resid_pre/sae/13" in ran.err


@pytest.mark.parametrize(
    ("options", "named"),
    [([], ["case", "--unit", "neither"]), (["--pattern", "a"], ["case of a pattern", "--dictionary", "none"])],
)
def test_a_case_is_of_a_unit_or_of_a_pattern(run, tmp_path, options, named):
    assert_one_error(run("case", "--out", tmp_path / "out", *options), 2, *named)
    assert not (tmp_path / "out").exists()


@pytest.mark.model
@pytest.mark.usefixtures("undrawn")
def test_layers_take_methods_with_commas_between(run, basics, tmp_path):
    options = [*basics, "--layers", "0, 1", "--units", 2, "--out", tmp_path]
    ran = run("layers", *options, "--method", "suffix, suffix")
    assert_one_error(ran, 2, "methods, each once", "('suffix', 'suffix')")
    ran = run("layers", *options, "--methods", "suffix")
    assert (ran.code, ran.out) == (0, f"{tmp_path / 'report' / 'layers.md'}\n"), ran.err
    found = json.loads((tmp_path / "report" / "layers.json").read_text())
    assert [layer["layer"] for layer in found["layers"]] == [0, 1]
    assert run("layers", *options, "--method", "suffix", "--quiet").err.startswith("nothing to do")
    assert_one_error(run("layers", *options[:-2], "--out", tmp_path, "--layers", "0-2"), 2, "option layers", "'0-2'")


# --- shared options, analyses ---------------------------------------------------------------------------------


def test_shared_options_come_behind_a_commands_own():
    """What it declares itself is its own; the rest reaches it by name or in `options`; defaults can be others."""
    seen = {}

    @shared("model", "seed", "tokens", tokens=None)
    def command(out: str, model: str = "mine", *, seed: int, reporter: Reporter, **options: object) -> None:
        """Said."""
        seen.update(out=out, model=model, seed=seed, quiet=reporter.quiet, options=options)

    given = inspect.signature(command).parameters
    assert [(name, one.default) for name, one in given.items()] == [
        ("out", inspect.Parameter.empty), ("model", "mine"), ("seed", 0), ("tokens", None), ("quiet", False),
    ]  # fmt: skip
    assert (command.__name__, command.__doc__) == ("command", "Said.")
    command(out="there", model="theirs", seed=3, tokens=5, quiet=True)
    assert seen == {"out": "there", "model": "theirs", "seed": 3, "quiet": True, "options": {"tokens": 5}}
    with pytest.raises(AssertionError, match="width"):
        shared("model", width=3)


def test_every_run_has_every_option_that_decides_model_and_text():
    known = get_command(cli.app).commands
    of_finished = {"collect", "search", "match", "verify", "serve", "export", "interpret", "puzzles"}
    for name in set(COMMANDS) - {"demo", "push", "pull", "predict", *of_finished}:
        wanted = set(RUN) - ({"tokens", "width"} if name == "report" else set())  # its analyses have their own
        assert {*wanted, "quiet"} <= {parameter.name for parameter in known[name].params}, name
        assert [p.name for p in known[name].params if p.name != "help"][-1] == "quiet"


DEFAULTS = {
    "bases": "runs/bases",
    "cases": "runs/apostrophe",
    "curves": "1e-3,3e-3,8e-3",
    "interpret": "runs/words",
    "ioi": "runs/ioi",
    "layers": "runs/layers",
    "report": "runs/report",
    "study": "runs/study",
}


def start(monkeypatch, capsys, name: str, *arguments: object) -> Ran:
    """Run a file of `analysis/` as a program, in this process."""
    monkeypatch.setattr(sys, "argv", [f"{name}.py", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(ANALYSIS / f"{name}.py"), run_name="__main__")
    return Ran(int(end.value.code or 0), *capsys.readouterr())


@pytest.mark.parametrize("name", DEFAULTS)
def test_help_of_an_analysis_is_what_its_file_says_and_the_options(monkeypatch, capsys, name):
    assert set(DEFAULTS) == {path.stem for path in ANALYSIS.glob("*.py")}
    ran = start(monkeypatch, capsys, name, "--help")
    doc = ast.get_docstring(ast.parse((ANALYSIS / f"{name}.py").read_text()), clean=False)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith(f"{doc}\n")
    usage = ran.out.removeprefix(doc)
    assert f"default: {DEFAULTS[name]}]" in usage
    command = re.search(r"Usage: saelens-n2g (\w+)", usage)[1]
    lines = re.findall(rf"^ +python analysis/{name}\.py(.*)$", doc.replace("\\\n", " "), re.MULTILINE)
    assert len(lines) >= 2
    for line in lines:
        given = [*shlex.split(line, comments=True), "--out", "x"]
        assert get_command(cli.app).commands[command].make_context(command, given).params["out"] == Path("x")


def test_an_analysis_has_defaults_that_its_user_overrides(monkeypatch, capsys, tmp_path):
    seen = []
    monkeypatch.setattr(dictionaries, "sweep", lambda **options: seen.append(options))
    assert start(monkeypatch, capsys, "curves", "--seeds", "5", "--out", tmp_path) == Ran(0, "", "")
    (found,) = seen
    assert (found["seeds"], found["expansions"], found["alphas"]) == ("5", "2,4", "1e-3,3e-3,8e-3")
    assert (found["out"], found["wandb"], found["layers"]) == (tmp_path, "disabled", "1")
    assert start(monkeypatch, capsys, "curves").code == 0
    assert (seen[1]["seeds"], seen[1]["out"]) == ("0,1", Path("runs/curves"))


def test_errors_of_an_analysis_are_one_line(monkeypatch, capsys, tmp_path):
    ran = start(monkeypatch, capsys, "cases", "--out", tmp_path / "out")
    assert_one_error(ran, 2, "case of a pattern", "--dictionary")
    ran = start(monkeypatch, capsys, "layers", "--layers", "x", "--out", tmp_path / "out")
    assert_one_error(ran, 2, "option layers")
    assert start(monkeypatch, capsys, "ioi", "--nonsense").code == 2
    assert not (tmp_path / "out").exists()


@pytest.fixture
def kept(tmp_path, tiny_model) -> Path:
    """A dictionary that rebuilds everything, and says where it belongs."""
    both = torch.cat([torch.eye(HIDDEN), -torch.eye(HIDDEN)])
    one = Dictionary(both.T.contiguous(), torch.zeros(2 * HIDDEN), both, torch.zeros(HIDDEN))
    save_saelens(tmp_path / "sae", one, SaeMetadata(str(tiny_model), "blocks.1.hook_resid_post", 32, True))
    return tmp_path / "sae"


@pytest.mark.model
def test_evaluate_says_what_a_dictionary_is_worth(run, basics, kept, tmp_path):
    out, options = tmp_path / "evaluation", [*basics[2:], "--dictionary", kept, "--windows", 3]
    ran = run("evaluate", *options, "--out", out)
    assert ran.code == 0, ran.err
    found = json.loads((out / "evaluation.json").read_text())
    assert (found["format"], found["site"], found["windows"]) == ("saelens-n2g/evaluation", "1.resid_post", 3)
    losses = found["model_performance_preservation"]
    assert losses["ce_loss_with_sae"] == pytest.approx(losses["ce_loss_without_sae"], rel=1e-5)
    assert found["model_behavior_preservation"]["kl_div_with_sae"] < 1e-5
    assert found["activations"]["fvu"] < 1e-10
    assert found["activations"]["l0"] == pytest.approx(HIDDEN)
    assert set(found["provenance"]["dictionary"]["sha256"]) == {"cfg.json", "sae_weights.safetensors", "COMMIT.json"}
    for said in (f"{losses['ce_loss_with_ablation']:.4f}", "FVU 0.0000", f"L0 {HIDDEN}.0", "0 of 64 dead"):
        assert said in ran.out
    assert (out / "density.png").read_bytes()[:4] == b"\x89PNG"
    assert_plain(ran.out + ran.err)


@pytest.mark.model
@pytest.mark.parametrize(
    ("changes", "named"),
    [
        (["--layer", 2], ["site of the dictionary", "1.resid_post", "2.resid_post"]),
        (["--stream", "mlp_out"], ["site of the dictionary", "1.mlp_out"]),
        (["--model", "no/such-model"], ["no/such-model"]),
        (["--windows", 0], ["option windows"]),
        (["--dictionary", "NARROW"], ["NARROW", f"d_in {HIDDEN}", "d_in 7"]),
        (["--dictionary", "NOWHERE"], ["model of dictionary", "--model"]),
        (["--dictionary", "nothing"], ["nothing"]),
    ],
)
def test_evaluate_refuses_in_one_line(run, basics, kept, tiny_model, tmp_path, monkeypatch, changes, named):
    monkeypatch.chdir(tmp_path)
    narrow = Dictionary(torch.eye(7), torch.zeros(7), torch.eye(7), torch.zeros(7))
    save_saelens(tmp_path / "NARROW", narrow, SaeMetadata(str(tiny_model), "blocks.1.hook_resid_post", 32, True))
    save_saelens(tmp_path / "NOWHERE", narrow, SaeMetadata("", "blocks.1.hook_resid_post", 32, True))
    ran = run("evaluate", *basics[2:], "--dictionary", kept, *changes, "--out", tmp_path / "out")
    assert_one_error(ran, 2, *named)


@pytest.mark.model
@pytest.mark.usefixtures("few_names", "one_thread", "undrawn")
def test_a_report_of_everything_goes_on_where_it_stopped(run, tiny_model, tiny_corpus, tmp_path, monkeypatch):
    text = {"tokens": "4000", "width": "32"}
    training = {"alphas": "3e-3", "expansions": "2", "seeds": "0,1", "batch": "64", "samples": "640"}
    few = {"units": "2", "fragment": "8", "dictionaries": "tied-R1", "samples": "640", "method": "suffix"}
    sizes = {
        "dictionaries": {**text, **training},
        "bases": {**text, **few},
        "ioi": {**text, "prompts": "3", "runs": "20"},
        "case": {**text, "windows": "4"},
    }
    monkeypatch.setattr(report_command, "FULL", sizes)
    out = tmp_path / "report of all"
    options = [
        "--model",
        tiny_model,
        "--corpus",
        tiny_corpus,
        "--layers",
        "0,1",
        "--pattern",
        "York",
        "--device",
        "cpu",
    ]
    assert run("report", *options, "--parts", "dictionaries,bases", "--out", out).code == 0
    trained = {p: p.stat().st_mtime_ns for p in (out / "dictionaries").rglob("*.safetensors")}
    ran = run("report", *options, "--out", out)
    assert ran.code == 0, ran.err
    assert ran.out.strip() == str(out / "report" / "index.html")
    assert {p: p.stat().st_mtime_ns for p in trained} == trained, "what is finished is not done again"
    names = {p.name for p in (out / "report").iterdir()}
    assert names == {
        "COMMIT.json", "index.html", "report.md", "units-bases.html", "figures", "data",
        *(f"{part}.html" for part in ("dictionaries", "bases", "ioi", "case")),
    }  # fmt: skip
    text = (out / "report" / "report.md").read_text()
    for sentence in ("other seed, same settings", "prefers the indirect object", "Tokens that match York"):
        assert sentence in text
    commands = [line for line in text.splitlines() if line.startswith("saelens-n2g ")]
    assert [line.split()[1] for line in commands] == ["report", "sweep", "study", "ioi", "case"]
    before = (out / "case" / "case" / "case.json").read_bytes()
    shutil.rmtree(out / "case")
    assert run(*shlex.split(commands[-1])[1:]).code == 0, "a command in the report makes its part again"
    assert (out / "case" / "case" / "case.json").read_bytes() == before
    again = run("report", *options, "--out", out)
    assert "nothing to do" in again.err
    assert_plain(ran.out + ran.err)
