"""The recipes in `train/`: their settings are settings, and they run, on models small enough for seconds."""

import inspect
import json
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny import write_gpt2, write_neox

from saelens_n2g.commands import dictionaries
from saelens_n2g.commands.recipes import known_settings, read_settings
from saelens_n2g.commands.settings import config_of
from saelens_n2g.comparison import sweeping
from saelens_n2g.errors import InputError
from saelens_n2g.progress import Reporter
from saelens_n2g.subject import Subject
from saelens_n2g.training.architectures.registry import architectures
from saelens_n2g.training.run import Run
from saelens_n2g.training.sweep import vary

TRAIN = Path(__file__).resolve().parent.parent / "train"
COMMANDS = {
    "tied": dictionaries.train_with,
    "sweep": dictionaries.sweep,
    "cunningham": dictionaries.sweep,
    "gpt2": dictionaries.sweep,
}
SMALL = {"tokens": 4000, "width": 32, "batch": 64, "samples": 1280, "test_share": 0.25, "wandb": "disabled"}
"""What makes seconds of hours, in the settings of any recipe."""

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def pythia(tmp_path_factory) -> Path:
    return write_neox(tmp_path_factory.mktemp("models") / "pythia")


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory) -> Path:
    return write_gpt2(tmp_path_factory.mktemp("models") / "gpt2")


def settings_of(name: str) -> dict:
    return read_settings(TRAIN / f"{name}.json", COMMANDS[name])


def planned(monkeypatch, name: str):
    """What a sweep's recipe asks for: run settings, configurations by name, layers, activations, bytes."""
    seen = {}

    def instead(config, base, varied, layers, samples, *_, memory, **__):
        seen.update(config=config, configs=vary(base, varied), layers=layers, samples=samples, memory=memory)
        return ""

    monkeypatch.setattr(sweeping, "run_sweep", instead)
    dictionaries.sweep(out=Path("nowhere"), reporter=Reporter(quiet=True), **settings_of(name))
    return seen


def call(monkeypatch, name: str, *arguments: object) -> None:
    """Run a recipe's file as a program, in this process."""
    monkeypatch.setattr(sys, "argv", [f"{name}.py", *map(str, arguments)])
    runpy.run_path(str(TRAIN / f"{name}.py"), run_name="__main__")


def write(path: Path, name: str, **changed: object) -> Path:
    """The recipe's settings with some of them changed."""
    path.write_text(json.dumps({**settings_of(name), **SMALL, **changed}))
    return path


# --- settings ---------------------------------------------------------------------------------------------------


def test_every_recipe_has_its_settings_and_nothing_else_lies_there():
    names = {path.name for path in TRAIN.iterdir() if path.suffix in (".py", ".json")}
    assert names == {f"{name}{suffix}" for name in COMMANDS for suffix in (".py", ".json")}


def test_the_settings_of_one_dictionary_are_settings():
    config = config_of(bases="sae", **settings_of("tied"))
    assert (config.training.architecture, config.training.alpha, config.layer) == ("tied", 3e-3, 1)


def test_the_sweep_of_alphas_is_one(monkeypatch):
    found = planned(monkeypatch, "sweep")
    assert len(found["configs"]) == 8
    assert found["layers"] == [1]


def test_cunninghams_settings_are_those_of_the_paper(monkeypatch):
    found = planned(monkeypatch, "cunningham")
    configs, config = list(found["configs"].values()), found["config"]
    assert found["layers"] == [0, 1, 2, 3, 4, 5]
    assert sorted({c.expansion for c in configs}) == [0.5, 1, 2, 4, 8, 16, 32]
    alphas = sorted({c.alpha for c in configs})
    assert alphas == pytest.approx([10 ** (-4 + 2 * i / 15) for i in range(16)], rel=5e-4)
    assert round(alphas[7], 5) == 8.6e-4
    assert len(configs) == 7 * 16
    assert {(c.architecture, c.batch, c.normalise) for c in configs} == {("tied", 1024, False)}
    assert [c.lr for c in configs] == pytest.approx([0.001**0.5 / 0.1 * 1e-3] * 112, rel=0.02), "1e-3 as it acted there"
    assert found["samples"] == 10 * 2**30 // (512 * 2) * 2 == 10 * 2_097_152
    assert (config.subject.model, config.subject.bos) == ("EleutherAI/pythia-70m-deduped", "none")
    text = config.text
    assert text.width == 256
    assert text.tokens <= text.read
    assert found["samples"] <= text.tokens * (1 - text.test_share) * 0.999, "each activation once"


def test_gpt2s_settings(monkeypatch):
    found = planned(monkeypatch, "gpt2")
    assert list(found["configs"]) == [f"tied-alpha{a}" for a in (0.0015, 0.002, 0.003, 0.004)] + [
        "topk-k32",
        "topk-k64",
    ]
    assert found["samples"] <= found["config"].text.tokens * (1 - found["config"].text.test_share) * 0.999


def test_settings_that_no_command_has_are_refused(tmp_path, monkeypatch, capsys):
    path = tmp_path / "mine.json"
    path.write_text(json.dumps({"alfas": "1e-3", "layer": 1}))
    with pytest.raises(SystemExit) as end:
        call(monkeypatch, "sweep", path)
    assert end.value.code == InputError.exit_code
    assert capsys.readouterr().err.splitlines()[-1].endswith("found alfas, layer")
    with pytest.raises(InputError, match="alfas"):
        call(monkeypatch, "sweep", path, "--debug")
    path.write_text("[1]")
    with pytest.raises(InputError, match="a JSON object, found list"):
        read_settings(path, dictionaries.sweep)
    with pytest.raises(InputError, match="fields of TrainingConfig, found layerz, normalize"):
        config_of(normalize=False, layerz=2)
    assert config_of(normalise=False, lr_warmup=5).training.lr_warmup == 5
    assert {"layer", "alpha"} <= known_settings(dictionaries.train_with)
    assert "bases" not in known_settings(dictionaries.train_with) | known_settings(dictionaries.sweep)


# --- runs -------------------------------------------------------------------------------------------------------


@pytest.mark.model
def test_cunninghams_recipe_runs_and_costs_what_it_said(pythia, tiny_corpus, tmp_path, monkeypatch, capsys):
    """Tokens and steps are counted from the moment that training begins."""
    small = {"model": str(pythia), "corpus": str(tiny_corpus), "layers": "0,1", "alphas": "1e-3,1e-2"}
    settings = write(tmp_path / "mine.json", "cunningham", **small, expansions="0.5,2", memory=None)
    said, ran = [], {"tokens": 0, "steps": 0}
    begun, cost = sweeping.sweep, sweeping.cost_of_sweep
    forward, step = Subject.activations, Run.step

    def begin(*arguments, **options):
        ran.update(tokens=0, steps=0)
        return begun(*arguments, **options)

    def run(self, ids, sites):
        ran["tokens"] += ids.numel()
        return forward(self, ids, sites)

    def learn(self, rows):
        ran["steps"] += 1
        return step(self, rows)

    monkeypatch.setattr(sweeping, "cost_of_sweep", lambda *a, **k: said.append(cost(*a, **k)) or said[-1])
    monkeypatch.setattr(sweeping, "sweep", begin)
    monkeypatch.setattr("saelens_n2g.training.sweep.judge_on", lambda *_: None)  # its four windows are not in the cost
    monkeypatch.setattr(Subject, "activations", run)
    monkeypatch.setattr(Run, "step", learn)
    monkeypatch.setattr("saelens_n2g.training.loop._draw", lambda *_: None)
    out = tmp_path / "out"
    call(monkeypatch, "cunningham", settings, "--out", out)
    assert ran == {"tokens": said[0].forward_tokens, "steps": said[0].dictionaries * said[0].steps}
    assert (said[0].dictionaries, said[0].steps) == (8, 20)
    shown = capsys.readouterr()
    assert shown.err.index("estimate: 8 dictionaries, 2 sites") < shown.err.index("8 dictionaries on 0.resid_post")
    names = [f"{layer}.resid_post-alpha{a}-expansion{r}" for layer in (0, 1) for a in (0.001, 0.01) for r in (0.5, 2)]
    assert sorted(p.parent.name for p in out.glob("*/sae")) == sorted(names)
    assert len(shown.out.splitlines()) == 8
    about = json.loads((out / names[0] / "sae" / "cfg.json").read_text())
    assert about["metadata"]["training_scale"] == 1.0, "alpha acts on raw activations"
    assert about["metadata"]["prepend_bos"] is False
    kept = sum(tensor.nbytes for place in out.glob("*/sae") for f in place.glob("*.safetensors") for tensor in
               load_file(f).values())  # fmt: skip
    assert kept == said[0].saved_bytes


@pytest.mark.model
def test_gpt2s_recipe_runs_from_the_command_line(gpt2, tiny_corpus, tmp_path, monkeypatch, capsys):
    small = {"model": str(gpt2), "corpus": str(tiny_corpus), "layers": "1", "alphas": "3e-3", "choices": ["k=2"]}
    settings = write(tmp_path / "mine.json", "gpt2", **small, expansions="2")
    arguments = [settings, "--out", tmp_path / "out"]
    call(monkeypatch, "gpt2", *arguments, "--estimate")
    only = capsys.readouterr()
    assert only.out == ""
    assert "estimate: 2 dictionaries, 1.resid_post, 1,280 activations each (20 steps)" in only.err
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["stages", "text"], "nothing is trained"
    command = [sys.executable, TRAIN / "gpt2.py", *arguments]  # a program as its user starts it
    ended = subprocess.run(command, capture_output=True, text=True, check=False, cwd=TRAIN.parent)
    assert ended.returncode == 0, ended.stderr
    assert [line.split()[:2] for line in ended.stdout.splitlines()] == [
        ["1.resid_post", n] for n in ("tied", "topk-k2")
    ]
    assert (tmp_path / "out" / "frontier-1.resid_post.png").exists()


@pytest.mark.model
def test_layer_by_layer_gives_the_same_dictionaries(pythia, tiny_corpus, tmp_path, monkeypatch):
    """With little memory there are two passes, each in its folder, and the weights are those of one."""
    monkeypatch.setattr("saelens_n2g.training.loop._draw", lambda *_: None)
    plain = {**SMALL, "model": str(pythia), "corpus": str(tiny_corpus), "layers": "0,1", "expansions": "2"}
    options = {**plain, "alphas": "1e-3,1e-2", "reporter": Reporter(quiet=True)}
    dictionaries.sweep(out=tmp_path / "one", **options)
    said = []
    monkeypatch.setattr(sweeping.Cost, "text", lambda self: said.append(self) or "")
    dictionaries.sweep(out=tmp_path / "one", estimate=True, **options)
    memory = 0.75 * said[0].memory_bytes / 1e9
    dictionaries.sweep(out=tmp_path / "two", memory=memory, **options)
    assert (said[1].passes, said[1].dictionaries) == (2, 4)
    for layer in (0, 1):
        for name in ("alpha0.001", "alpha0.01"):
            one = load_file(tmp_path / "one" / f"{layer}.resid_post-{name}" / "sae" / "sae_weights.safetensors")
            two = load_file(tmp_path / "two" / f"layers-{layer}-{layer}" / name / "sae" / "sae_weights.safetensors")
            assert all(torch.equal(one[key], two[key]) for key in one)
    with pytest.raises(InputError, match="a sweep of these settings"):
        dictionaries.sweep(out=tmp_path / "two", **options)


@pytest.mark.model
def test_one_dictionary_says_its_cost_first_and_only_then_trains(pythia, tiny_corpus, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("saelens_n2g.training.loop._draw", lambda *_: None)
    settings = write(tmp_path / "mine.json", "tied", model=str(pythia), corpus=str(tiny_corpus), layer=0)
    out = tmp_path / "out"
    call(monkeypatch, "tied", settings, "--out", out, "--estimate")
    first = capsys.readouterr()
    assert first.out == ""
    assert "estimate: 1 dictionary, 0.resid_post, 1,280 activations each (20 steps)" in first.err
    assert sorted(p.name for p in out.iterdir()) == ["stages", "text"]
    call(monkeypatch, "tied", settings, "--out", out)
    second = capsys.readouterr()
    assert second.err.count("estimate: ") == 1
    assert "fvu" in second.out
    call(monkeypatch, "tied", settings, "--out", out)
    third = capsys.readouterr()
    assert third.out == second.out
    assert "estimate" not in third.err, "there is nothing left to be done"


@pytest.mark.usefixtures("undrawn")
def test_a_finished_sweep_is_not_done_again(pythia, tiny_corpus, tmp_path, capsys):
    asked = {**SMALL, "model": str(pythia), "corpus": str(tiny_corpus), "alphas": "1e-3,3e-3", "expansions": "1"}
    said, written = [], []
    for _ in range(2):
        dictionaries.sweep(out=tmp_path, reporter=Reporter(quiet=True), **asked)
        said.append(capsys.readouterr().out)
        written.append({path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")})
    assert said[0] == said[1]
    assert said[0].count("L0") == 2
    assert written[0] == written[1]
    assert not (tmp_path / "activations").exists()


def test_the_command_line_knows_what_recipes_know():
    """`--estimate` and `--memory` are options of the commands too."""
    from saelens_n2g.cli import dictionaries as commands

    assert "estimate" in inspect.signature(commands.train).parameters
    assert {"estimate", "memory"} <= set(inspect.signature(commands.sweep).parameters)


# --- what is said about them ------------------------------------------------------------------------------------

PAGE = (TRAIN.parent / "docs" / "training.md").read_text()


def test_the_page_names_every_recipe_and_architecture():
    assert [name for name in COMMANDS if f"`python train/{name}.py`" not in PAGE] == []
    assert [name for name in architectures() if f"| `{name}`" not in PAGE] == []


def test_the_commands_of_the_page_are_commands():
    from typer.main import get_command

    from saelens_n2g.cli import app

    known = get_command(app).commands
    lines = re.findall(r"^ {4}saelens-n2g (\w+)(.*)$", PAGE, re.MULTILINE)
    assert len(lines) >= 7
    for name, rest in lines:
        context = known[name].make_context(name, rest.partition("#")[0].split())
        assert context.params["out"], name


@pytest.mark.model
def test_the_examples_of_the_page_run(tmp_path, monkeypatch):
    """The cache and a dictionary from it, then the same by two processes."""
    first, second = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(first, {"__name__": "__main__"})
    (tmp_path / "train_mine.py").write_text(second)
    environment = {**os.environ, "PYTHONPATH": str(TRAIN.parent), "OMP_NUM_THREADS": "1"}
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "train_mine.py"]
    ended = subprocess.run(torchrun, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    one, two = (
        load_file(tmp_path / "runs" / name / "sae" / "sae_weights.safetensors") for name in ("cached", "together")
    )
    assert (one["W_dec"] * two["W_dec"]).sum(1).min() > 0.999, "other roundings, and fifty steps of Adam on them"
    assert torch.equal(one["b_dec"], two["b_dec"])
