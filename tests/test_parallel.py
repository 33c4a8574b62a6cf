"""Several processes: two that torchrun starts end where one does, whatever they do on the way.

This file is also the script that torchrun runs: once for all tests, because starting takes seconds.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import conftest  # noqa: F401  (so that shapes are checked in the processes that torchrun starts, too)
import pytest
import torch
from safetensors.torch import load_file, save_file

from saelens_n2g.bases.formats import SaeMetadata, load_saelens
from saelens_n2g.cli import main
from saelens_n2g.errors import InputError
from saelens_n2g.training import TrainingConfig, job_of, train, train_several
from saelens_n2g.training.architectures.matryoshka import MatryoshkaOptions
from saelens_n2g.training.architectures.registry import MODULES, find_architecture
from saelens_n2g.training.architectures.resampling import ResamplingOptions
from saelens_n2g.training.architectures.topk import TopKOptions
from saelens_n2g.training.objective import Start
from saelens_n2g.training.parallel import SINGLE, Group, Single, group_from_environment
from saelens_n2g.training.rows import RowStream, Statistics, as_rows
from saelens_n2g.training.run import Run

D, N, B, STEPS = 6, 48, 40, 10
OPTIONS = {
    "topk": TopKOptions(k=2, aux_k=3),
    "batchtopk": TopKOptions(k=2, aux_k=3),
    "matryoshka": MatryoshkaOptions(k=2, aux_k=3, prefixes=(0.25, 0.5, 1.0)),
}
AGAIN = {"tied-again": "tied", "relu-again": "relu", "gated-again": "gated"}
"""The same with features that are dead and begin again."""
CASES = (*MODULES, *AGAIN)
OVER_A_BATCH = ("batchtopk", "matryoshka")
DTYPES = {"float32": torch.float32, "float64": torch.float64}
METADATA = SaeMetadata("tiny", "blocks.0.hook_resid_post", 16, True)
CONFIG = TrainingConfig(
    expansion=2.0, batch=32, samples=32 * 20, log_every=4, checkpoint_every=5, dead_window=100, wandb="disabled"
)
RELU = replace(CONFIG, architecture="relu", lr=1e-3)
VARIABLES = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}


def data():
    return torch.randn(300, D, generator=torch.Generator().manual_seed(5)) * 3 + torch.arange(D)


# --- what the processes do ----------------------------------------------------------------------------------------


def learnt(name, dtype, group=SINGLE):
    """State after ten steps, and the metrics of the last one."""
    start = Start(
        d=D,
        n=N,
        alpha=0.03,
        lr=1e-2,
        seed=1,
        dead_after=60,
        dtype=DTYPES[dtype],
        options=ResamplingOptions(resample_every=120) if name in AGAIN else OPTIONS.get(name),
        group=group,
    )
    objective = find_architecture(AGAIN.get(name, name)).build(start)
    if name in AGAIN:
        with torch.no_grad():
            objective.state()["bias"][40:] = -1e3
    for step in range(STEPS):
        # No two halves of a batch are alike, and none has a mean of zero.
        whole = torch.randn(B, D, dtype=torch.float64, generator=torch.Generator().manual_seed(step))
        whole = (whole * torch.linspace(0.3, 3, B)[:, None].double() + step % 3).to(
            DTYPES[dtype]
        )  # no two halves alike
        metrics = objective.step(group.part(whole))
    last = {f"metrics.{k}": v for k, v in metrics._asdict().items() if k != "parts"}
    last |= {f"metrics.{k}": v for k, v in metrics.parts.items()}
    del last["metrics.resampled"]  # no tensor, and in the state
    return {k: v.detach().clone() for k, v in (objective.state() | last).items()}


class Terminating(RowStream):
    """Sends its process SIGTERM when it is asked for the eighth batch."""

    def batch(self, step, out=None):
        if step == 7:
            os.kill(os.getpid(), signal.SIGTERM)
        return super().batch(step, out)


def stopped(config, folder, stream, **options):
    """The exit status of a run on batches of that kind of stream."""
    rows = as_rows(data())
    job = replace(job_of(config, rows, folder, metadata=METADATA), stream=stream(rows, batch=32))
    with pytest.raises(SystemExit) as stop:
        train_several([job], **options)
    return stop.value.code


def refusal(config, folder):
    """What `train` says to settings that it refuses."""
    try:
        train(config, data(), folder, metadata=METADATA)
    except InputError as error:
        return str(error)
    return ""


def both(folder):
    """Two jobs on the same batches."""
    jobs = [
        job_of(config, data(), folder / config.architecture, metadata=METADATA, test_rows=data()[:90])
        for config in (CONFIG, RELU)
    ]
    return [replace(job, stream=jobs[0].stream) for job in jobs]


def threads():
    """Threads of the process group that this process has; they are named where the kernel tells names."""
    names = [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]
    return sum("gloo" in name for name in names)


def process(folder):
    """All that one of the two processes does; what it found goes to files of its own."""
    torch.set_num_threads(1)
    with group_from_environment() as group:
        for name in CASES:
            for dtype in DTYPES:
                save_file(learnt(name, dtype, group), folder / f"{name}-{dtype}-{group.rank}.safetensors")
        rank, found = group.rank, {"size": group.size}
        with group_from_environment() as again:  # one that is there is used, and outlives the block
            found["again"] = again.size
        found["any"] = [group.any(False), group.any(rank == 1)]
        found["threads"] = [threads()]
    found["threads"].append(threads())
    reports, steps = [], []
    train_several(both(folder / "several"), on_step=lambda step, *_: steps.append(step))
    found["written"] = (folder / "several" / "relu" / "sae" / "cfg.json").exists()
    found["stopped"] = stopped(CONFIG, folder / "stopped", Terminating if rank == 1 else RowStream)
    continued = train(
        CONFIG, data(), folder / "continued", metadata=METADATA, on_step=lambda step, *_: steps.append(step)
    )
    found["fvu"] = continued.fit.fvu
    threshold = replace(CONFIG, architecture="batchtopk", options={"k": 3})
    stopped(threshold, folder / "threshold", Terminating, report=reports.append)
    found["apart"] = refusal(replace(CONFIG, alpha=0.1 * (rank + 1)), folder / "apart")
    found["lines"] = refusal(replace(CONFIG, log_every=2 * (rank + 1)), folder / "apart")
    found["odd"] = refusal(replace(CONFIG, batch=33), folder / "apart")
    found["device"] = refusal(replace(CONFIG, device="meta"), folder / "apart")
    (folder / f"{rank}.json").write_text(json.dumps({**found, "reports": reports, "steps": steps}))


# --- the tests ----------------------------------------------------------------------------------------------------


pytestmark = pytest.mark.usefixtures("one_thread")


class Interruption(Exception):
    """Stands for whatever ends a run."""


def at_13(step, *_):
    if step == 13:
        raise Interruption


def torchrun(*program):
    """What two processes of that program say."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parent.parent), "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(
        [*launch, *program], env=environment, capture_output=True, text=True, check=False, timeout=300
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """The folder in which two processes have done what `process` says."""
    folder = tmp_path_factory.mktemp("parallel")
    with pytest.raises(Interruption):
        train(CONFIG, data(), folder / "continued", metadata=METADATA, on_step=at_13)
    torchrun(__file__, str(folder))
    return folder


@pytest.fixture(scope="module")
def found(place):
    return [json.loads((place / f"{rank}.json").read_text()) for rank in (0, 1)]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The folder of the same two jobs in one process."""
    folder = tmp_path_factory.mktemp("alone")
    train_several(both(folder))
    return folder


def assert_near(one, other, relative):
    assert (one.double() - other.double()).norm() <= relative * other.double().norm()


def assert_dictionaries_near(one, other):
    one, other = load_saelens(one), load_saelens(other)
    for name in ("W_enc", "b_enc", "W_dec", "b_dec"):
        assert_near(getattr(one, name), getattr(other, name), 2e-6)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", [name for name in CASES if name not in OVER_A_BATCH])
def test_two_processes_step_as_one_does(place, name, dtype):
    state, expected = load_file(place / f"{name}-{dtype}-0.safetensors"), learnt(name, dtype)
    assert state.keys() == expected.keys()
    for key, tensor in expected.items():
        assert state[key].dtype == tensor.dtype
        if not tensor.is_floating_point() or key == "metrics.fired":
            assert torch.equal(state[key], tensor), key
        else:
            assert_near(state[key], tensor, {"float32": 1e-6, "float64": 1e-10}[dtype])


def test_dead_features_take_part_in_that():
    """Else the auxiliary loss and the counter that it looks at would be compared in name only."""
    state = learnt("topk", "float64")
    assert (state["since"] >= 60).any()
    assert state["metrics.auxiliary_reconstruction_loss"] > 0


@pytest.mark.parametrize("name", AGAIN)
def test_features_begin_again_in_that_from_rows_of_both(name):
    """At most five at a step. The second process has the longer rows, so most of the draws."""
    state = learnt(name, "float64")
    seen, resampled = state["resampling.progress"].tolist()
    assert seen == 400
    assert resampled >= 8  # some of the tied ones die a second time
    assert (state["bias"][40:] > -100).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", CASES)
def test_processes_stay_the_same_bit_for_bit(place, name, dtype):
    one, other = (load_file(place / f"{name}-{dtype}-{rank}.safetensors") for rank in (0, 1))
    assert one.keys() == other.keys()
    assert [key for key in one if not torch.equal(one[key], other[key])] == []


@pytest.mark.parametrize("name", OVER_A_BATCH)
def test_a_choice_over_the_batch_is_one_over_each_part(place, name):
    state, expected = load_file(place / f"{name}-float64-0.safetensors"), learnt(name, "float64")
    assert state["metrics.l0"] == expected["metrics.l0"] == 2
    assert not torch.equal(state["encoder"], expected["encoder"])
    assert state["threshold"] > 0


def test_two_processes_write_the_dictionaries_of_one(place, alone, found):
    for name in ("tied", "relu"):
        assert_dictionaries_near(place / "several" / name / "sae", alone / name / "sae")
        lines, expected = (
            [json.loads(line) for line in (folder / name / "metrics.jsonl").read_text().splitlines()]
            for folder in (place / "several", alone)
        )
        assert len(lines) == 5
        for line, other in zip(lines, expected, strict=True):
            assert line == pytest.approx(other, rel=2e-5)
        assert not (place / "several" / name / "checkpoints").exists()
        assert sorted(p.name for p in (place / "several" / name).iterdir()) == sorted(
            p.name for p in (alone / name).iterdir()
        )
    assert [part["written"] for part in found] == [True, True]
    assert [part["size"] for part in found] == [part["again"] for part in found] == [2, 2]


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="threads are counted where the kernel shows them")
def test_a_group_that_has_ended_leaves_no_threads(found):
    """One that is left when the interpreter ends may abort a finished run."""
    for during, after in (each["threads"] for each in found):
        assert during > 0
        assert after == 0


def test_one_of_them_is_told_of_steps_and_remarks(found):
    assert found[0]["steps"] == [*range(1, 21), *range(11, 21)]
    assert found[1]["steps"] == found[1]["reports"] == []
    (remark,) = found[0]["reports"]
    assert "batchtopk" in remark
    assert "16 rows that each of the 2 processes has of 32" in remark


def test_a_run_of_one_is_continued_by_two(place, alone, found):
    assert found[0]["fvu"] == found[1]["fvu"]
    assert_dictionaries_near(place / "continued" / "sae", alone / "tied" / "sae")


def test_a_stop_of_one_stops_both_and_a_run_of_two_is_continued_by_one(place, alone, found):
    assert [part["stopped"] for part in found] == [143, 143]
    assert [part["any"] for part in found] == [[False, True]] * 2
    assert [p.name for p in (place / "stopped" / "checkpoints").iterdir()] == ["step-00000008"]
    first = []
    train(CONFIG, data(), place / "stopped", metadata=METADATA, on_step=lambda step, *_: first.append(step))
    assert first[0] == 9
    assert_dictionaries_near(place / "stopped" / "sae", alone / "tied" / "sae")


def test_processes_that_differ_are_told_so(place, found):
    for part in found:
        for refused in ("apart", "lines"):
            assert part[refused] == (
                "settings and activations of 2 processes: expected the same in all, found others in 1 than in 0"
            )
        assert part["odd"] == "training option batch: expected a multiple of 2 (processes), found 33"
        assert part["device"] == "training option device of 2 processes: expected cpu or cuda, found 'meta'"
    assert not (place / "apart").exists()


def test_the_identity_does_not_hang_on_the_last_bits():
    """Sums of float64 differ there with the number of threads."""
    mean, square = data().double().mean(0), 7.3
    mean[0], other = 1e-18, mean * (1 + 1e-14)
    other[0] = -1e-18
    identities = [
        Run(CONFIG, Statistics(m, s)).identity([300])
        for m, s in ((mean, square), (other, square * (1 + 1e-14)), (mean, square * 1.0001), (mean + 1e-3, square))
    ]
    assert identities[0] == identities[1]
    assert len(set(identities)) == 3


class Second(Single):
    """The second of two processes, the first of which has nothing to say."""

    rank, size = 1, 2

    def gather(self, value):
        return [0, value]


def test_a_process_has_its_own_part_of_a_batch():
    batch = data()[:10]
    assert Single().part(batch) is not None
    assert torch.equal(SINGLE.part(batch), batch)
    assert torch.equal(Second().part(batch), batch[5:])
    with pytest.raises(AssertionError, match="9 rows for 2"):
        Second().part(batch[:9])
    assert not Second().is_writer
    assert Second().any(True)


def test_one_process_is_a_group_by_itself(monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    with group_from_environment() as group:
        assert group is SINGLE
    for name, value in {**VARIABLES, "WORLD_SIZE": "1", "RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    with group_from_environment("cuda") as group:
        assert group is SINGLE
        assert isinstance(group, Group)
    tensor = torch.ones(3)
    group.mean_([tensor])
    group.agree("nothing", {"a": 1})
    group.barrier()
    assert tensor.tolist() == [1, 1, 1]
    assert group.device("cuda:3") == "cuda:3"
    assert group.is_writer


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"MASTER_PORT": None}, "all of RANK, .* found no MASTER_PORT"),
        ({"RANK": "two"}, "variable RANK: expected a whole number, found 'two'"),
        ({"RANK": "2"}, "variable RANK: expected a number below WORLD_SIZE, 2, found 2"),
    ],
)
def test_an_environment_of_another_kind_is_refused(monkeypatch, change, message):
    for name, value in {**VARIABLES, **change}.items():
        monkeypatch.delenv(name, raising=False) if value is None else monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=message), group_from_environment():
        pass


def test_processes_without_a_gpu_or_a_place_to_meet_are_told_so(monkeypatch):
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with (
        pytest.raises(InputError, match="one for each GPU of a machine, found more than 1"),
        group_from_environment("cuda"),
    ):
        pass
    with contextlib.closing(socket.create_server(("localhost", 0))) as taken:
        port = str(taken.getsockname()[1])
        monkeypatch.setenv("RANK", "0")
        monkeypatch.setenv("MASTER_PORT", port)
        with pytest.raises(InputError, match=f"to meet at localhost:{port} by gloo"), group_from_environment():
            pass


# --- the commands ---------------------------------------------------------------------------------------------


COMMANDS = {"train": ["--layer", "1", "--alpha", "3e-3"], "sweep": ["--layers", "1", "--alphas", "3e-3"]}
PROGRAM = """
import json, os, sys
from saelens_n2g.cli import main
for arguments in json.loads(sys.argv[1]):
    try:
        main(arguments)
    except SystemExit as end:
        if end.code:
            raise
    if os.environ["RANK"] == "0":
        print("--")
"""
"""Several commands of `saelens-n2g`, one behind the other: loading the libraries takes longer than either."""


@pytest.mark.model
def test_commands_of_two_processes_make_what_one_makes(tmp_path, capsys):
    from tiny import write_corpus, write_model  # not for the processes that run this file

    model, corpus = write_model(tmp_path / "model"), write_corpus(tmp_path / "text.jsonl")
    shared = ["--model", model, "--corpus", corpus, "--width", 32, "--tokens", 4000, "--samples", 6400]

    def arguments(name, place):
        return [*map(str, [name, *COMMANDS[name], *shared, "--wandb", "disabled", "--out", tmp_path / place / name])]

    (tmp_path / "program.py").write_text(PROGRAM)
    commands = json.dumps([arguments(name, "two") for name in COMMANDS])
    *said, rest = torchrun(tmp_path / "program.py", commands).split("--\n")
    assert rest == ""
    capsys.readouterr()
    for name, spoken in zip(COMMANDS, said, strict=True):
        with pytest.raises(SystemExit) as end:
            main(arguments(name, "one"))
        assert not end.value.code
        assert capsys.readouterr().out.count("\n") == spoken.count("\n") > 0, "one of them speaks"
        made = {}
        for place in ("one", "two"):
            made[place] = load_file(next((tmp_path / place / name).rglob("sae_weights.safetensors")))
            assert not (tmp_path / place / name / "activations").exists()
        for key, tensor in made["one"].items():
            torch.testing.assert_close(made["two"][key], tensor, rtol=1e-4, atol=1e-4)


if __name__ == "__main__":
    process(Path(sys.argv[1]))
