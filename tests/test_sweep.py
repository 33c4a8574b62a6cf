"""Sweeps and interruptions: many dictionaries from one pass, the same as one by one; killed, they end the same."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from fakes import Tables, table_windows
from safetensors.torch import load_file

from saelens_n2g.bases.foreign import load_dictionary
from saelens_n2g.bases.formats import SaeMetadata
from saelens_n2g.errors import InputError
from saelens_n2g.sites import Site
from saelens_n2g.training import TrainingConfig, train, train_several
from saelens_n2g.training.blocks import SubjectBlocks
from saelens_n2g.training.evaluation import behaviour, log_values, spread
from saelens_n2g.training.loop import STOPPED, job_of
from saelens_n2g.training.references import mmcs
from saelens_n2g.training.stream import MultiStream
from saelens_n2g.training.sweep import sweep, vary
from saelens_n2g.training.sweep_report import table_of

D, WIDTH, SITES = Tables.d, Tables.width, Tables.sites
BASE = TrainingConfig(expansion=2.0, batch=32, samples=32 * 12, log_every=4, checkpoint_every=5, wandb="disabled")

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def _no_pictures(request, monkeypatch):
    """Of dozens of dictionaries; the tests of what is written see to them."""
    if "writes" not in request.node.name:
        monkeypatch.setattr("saelens_n2g.training.loop._draw", lambda *_: None)


def metadata(site: Site) -> SaeMetadata:
    return SaeMetadata("tables", site.hook, WIDTH, True)


def run(folder: Path, configs, subject=None, sites=SITES, on_step=None):
    fit, test = table_windows(60, 0), table_windows(20, 1)
    return sweep(subject or Tables(), fit, test, sites, configs, folder, metadata=metadata, on_step=on_step)


CONFIGS = vary(BASE, {"architecture": ["tied", "topk"], "alpha": [1e-3, 1e-2], "k": [2]})


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "sae" / "sae_weights.safetensors")


def assert_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


# --- which dictionaries -----------------------------------------------------------------------------------------


def test_all_combinations_are_named_by_what_was_varied():
    assert list(CONFIGS) == ["tied-alpha0.001", "tied-alpha0.01", "topk-k2"]
    assert [c.alpha for c in CONFIGS.values()] == [1e-3, 1e-2, BASE.alpha], "TopK has no alpha"
    assert [dict(c.options) for c in CONFIGS.values()] == [{}, {}, {"k": 2}]
    assert list(vary(BASE, {"seed": [0, 1], "expansion": [2.0]})) == ["seed0-expansion2", "seed1-expansion2"]
    assert list(vary(BASE, {})) == ["tied"]


@pytest.mark.parametrize("settings", [{"alfa": [1]}, {"k": [3]}, {"architecture": ["tied"], "threshold": [1.0]}])
def test_settings_that_nothing_has_are_refused(settings):
    with pytest.raises(InputError, match="fields of TrainingConfig or options"):
        vary(BASE, settings)


# --- one pass ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("clip", [0.0, 1.1])
@pytest.mark.usefixtures("undrawn")
def test_a_sweep_gives_what_single_runs_give_and_runs_the_subject_once(tmp_path, clip):
    subject = Tables()
    points = run(tmp_path / "sweep", {name: replace(config, clip=clip) for name, config in CONFIGS.items()}, subject)
    assert subject.tokens == (60 + 20) * WIDTH, "every window once, for two sites and three dictionaries each"
    assert [(str(p.site), p.name) for p in points] == [(str(s), name) for s in SITES for name in CONFIGS]
    for point in points:
        streams = MultiStream(SubjectBlocks(Tables(), table_windows(60, 0), SITES), batch=32, buffer_rows=384, seed=0)
        place = tmp_path / point.name / str(point.site)
        job = job_of(point.config, streams.at(point.site), place, metadata=metadata(point.site))
        # What the first buffer serves before it is filled up is what a sweep knows of the rows.
        known = streams.statistics(288, clip)[point.site]
        assert (known.limit is None) == (clip == 0)
        train_several([replace(job, data=known)])
        assert_same(weights(tmp_path / "sweep" / f"{point.site}-{point.name}"), weights(place))


def test_a_sweep_writes_its_comparison(tmp_path):
    points = run(tmp_path, CONFIGS, sites=SITES[:1])
    found = json.loads((tmp_path / "sweep.json").read_text())
    assert (found["format"], found["version"]) == ("saelens-n2g/sweep", 1)
    assert [p["test"]["fvu"] for p in found["points"]] == [p.result.test.fvu for p in points]
    assert [k for k, _ in found["pca"]["0.resid_post"]] == [1, 2, 4]
    rows = (tmp_path / "sweep.md").read_text().splitlines()[2:5]
    assert [row.split(" | ")[1] for row in rows] == list(CONFIGS)
    for name in CONFIGS:
        dictionary = load_dictionary(tmp_path / name / "sae")
        assert dictionary.architecture == ("topk" if name.startswith("topk") else "standard")
        assert {"training.png", "training.svg", "metrics.jsonl"} <= {p.name for p in (tmp_path / name).iterdir()}
    assert (tmp_path / "frontier-0.resid_post.png").read_bytes()[:4] == b"\x89PNG"


class Spliced(Tables):
    """The same with a last layer, so that it can be evaluated in; counts its passes."""

    def __init__(self) -> None:
        super().__init__()
        self.out = torch.randn(D, Tables.vocabulary, generator=torch.Generator().manual_seed(5))
        self.passes: list[tuple[Site, int]] = []

    def spliced_logits(self, ids, site, edit):
        new = edit(self.values[site][ids, torch.arange(ids.shape[1]).expand(ids.shape)])
        self.passes.append((site, len(new)))
        return new @ self.out


def test_a_sweep_writes_what_its_dictionaries_do_to_the_model_and_how_alike_they_are(tmp_path, monkeypatch):
    monkeypatch.setattr("saelens_n2g.training.loop._draw", lambda *_: None)  # the pictures of each dictionary
    subject = Spliced()
    points = run(tmp_path, CONFIGS, subject)
    for site in SITES:
        rows = [rows for at, rows in subject.passes if at == site]
        assert rows == [1, 1, 2, *[3 + len(CONFIGS)] * 4], "to try; then one pass a window for all dictionaries"
    found, text = json.loads((tmp_path / "sweep.json").read_text()), (tmp_path / "sweep.md").read_text()
    seen = spread(table_windows(20, 1), 4)
    for point, stored in zip(points, found["points"], strict=True):
        alone = behaviour(Spliced(), point.result.dictionary, point.site, seen)
        assert log_values(point.result.behaviour) == pytest.approx(log_values(alone), rel=1e-5)
        assert stored["behaviour"] == point.result.behaviour.as_json()
        kept = load_dictionary(tmp_path / f"{point.site}-{point.name}" / "sae").metadata["evaluation"]["behaviour"]
        assert kept == stored["behaviour"]
        line = next(row for row in text.splitlines() if row.startswith(f"| {point.site} | {point.name} |"))
        score = "–" if alone.ce_loss_score is None else f"{alone.ce_loss_score:.4f}"
        assert f"| {score} | {alone.kl_div_with_sae:.4f} |" in line
        assert f"CE score {score}  KL {alone.kl_div_with_sae:.4f}" in table_of(found["points"])
    for site in SITES:
        there = [point for point in points if point.site == site]
        names, values = found["mmcs"][str(site)]["names"], found["mmcs"][str(site)]["values"]
        assert names == list(CONFIGS)
        assert (
            values[0][2] == values[2][0] == pytest.approx(mmcs(there[0].result.dictionary, there[2].result.dictionary))
        )
        assert f"| {names[0]} | 1.000 | {values[0][1]:.3f} | {values[0][2]:.3f} |" in text
        assert (tmp_path / f"mmcs-{site}.png").read_bytes()[:4] == b"\x89PNG"
        assert (tmp_path / f"mmcs-{site}.svg").exists()
        assert (tmp_path / f"density-{site}.png").read_bytes()[:4] == b"\x89PNG"


class Cut(Exception):
    pass


@pytest.mark.parametrize("step", [1, 8])
@pytest.mark.usefixtures("undrawn")
def test_a_sweep_cut_short_ends_with_the_same_weights(tmp_path, step):
    def stop(done, _total, _line):
        if done == step:
            raise Cut

    run(tmp_path / "whole", CONFIGS)
    with pytest.raises(Cut):
        run(tmp_path / "cut", CONFIGS, on_step=stop)
    run(tmp_path / "cut", CONFIGS)
    for place in (tmp_path / "whole").glob("*/sae"):
        assert_same(weights(place.parent), weights(tmp_path / "cut" / place.parent.name))


@pytest.mark.usefixtures("undrawn")
def test_jobs_behind_catch_up(tmp_path):
    """One of two has a later checkpoint: the other is brought there, the first is not trained twice."""
    rows = torch.randn(200, D, generator=torch.Generator().manual_seed(0))
    configs = [BASE, replace(BASE, alpha=0.01)]

    def jobs(where):
        return [job_of(c, rows, tmp_path / where / str(i), metadata=metadata(SITES[0])) for i, c in enumerate(configs)]

    def stop_at(step):
        def stop(done, _total, _line):
            if done == step:
                raise Cut

        return stop

    whole = train_several(jobs("whole"))
    for index, step in ((0, 11), (1, 6)):
        with pytest.raises(Cut):
            train_several(jobs("cut")[index : index + 1], on_step=stop_at(step))
    seen = []
    train_several(jobs("cut"), on_step=lambda done, *_: seen.append(done))
    assert seen[0] == 6
    for index in range(2):
        assert_same(weights(whole[index].folder.parent), weights(tmp_path / "cut" / str(index)))


def test_jobs_that_do_not_go_together_are_refused(tmp_path):
    rows = torch.randn(200, D)
    one = job_of(BASE, rows, tmp_path / "a", metadata=metadata(SITES[0]))
    other = job_of(replace(BASE, batch=16), rows, tmp_path / "b", metadata=metadata(SITES[0]))
    with pytest.raises(InputError, match="training option batch"):
        train_several([one, other])
    with pytest.raises(InputError, match="one of them twice"):
        train_several([one, one])
    with pytest.raises(InputError, match="at least one job"):
        train_several([])
    stream = MultiStream(SubjectBlocks(Tables(), table_windows(60, 0), SITES), batch=16, buffer_rows=256).at(SITES[0])
    with pytest.raises(InputError, match="32 rows a step"):
        train(BASE, stream, tmp_path / "c", metadata=metadata(SITES[0]))


# --- killed -----------------------------------------------------------------------------------------------------

SCRIPT = """
import sys, time, torch
from pathlib import Path
from saelens_n2g.bases.formats import SaeMetadata
from saelens_n2g.training import TrainingConfig, train
torch.set_num_threads(1)
rows = torch.randn(300, 6, generator=torch.Generator().manual_seed(0))
config = TrainingConfig(expansion=2.0, batch=32, samples=32 * 60, checkpoint_every=3, wandb="disabled")
def step(done, total, line):
    print(done, flush=True)
    time.sleep(float(sys.argv[2]))
train(config, rows, Path(sys.argv[1]), metadata=SaeMetadata("t", "blocks.0.hook_resid_post", 8, True), on_step=step)
"""


def start(folder: Path) -> subprocess.Popen[str]:
    """The script in a process of its own, with a pause after each step."""
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(folder), "0.02"], stdout=subprocess.PIPE, text=True, env={**os.environ}
    )


def run_here(monkeypatch, capsys, folder: Path) -> list[int]:
    """The script to its end in this process, which has all that is slow to import; the steps that it did."""
    monkeypatch.setattr(sys, "argv", ["-c", str(folder), "0"])
    exec(SCRIPT, {})
    return [int(line) for line in capsys.readouterr().out.split()]


def reach(process: subprocess.Popen[str], step: int) -> int:
    """Wait until a step is done; the last one seen."""
    assert process.stdout is not None
    for line in process.stdout:
        if int(line) >= step:
            return int(line)
    raise AssertionError(f"the process ended with {process.wait()} before step {step}")


def test_killed_and_stopped_a_run_ends_with_the_same_weights(tmp_path, monkeypatch, capsys):
    assert run_here(monkeypatch, capsys, tmp_path / "whole") == [*range(1, 61)]
    for step, number in ((8, signal.SIGKILL), (20, signal.SIGTERM), (31, signal.SIGKILL)):
        process = start(tmp_path / "cut")
        reached = reach(process, step)
        time.sleep(0.01)
        process.send_signal(number)
        rest, _ = process.communicate(timeout=60)
        last = max([reached, *map(int, rest.split())])
        assert process.returncode == (-signal.SIGKILL if number == signal.SIGKILL else STOPPED)
        kept = [int(p.name.removeprefix("step-")) for p in (tmp_path / "cut" / "checkpoints").glob("step-*")]
        assert max(kept) == last if number == signal.SIGTERM else max(kept) >= last - 3, "no more is lost than that"
    first, *_, last = run_here(monkeypatch, capsys, tmp_path / "cut")
    assert 25 < first < last == 60, "it went on where it was"
    assert_same(weights(tmp_path / "whole"), weights(tmp_path / "cut"))
    assert (tmp_path / "whole" / "metrics.jsonl").read_bytes() == (tmp_path / "cut" / "metrics.jsonl").read_bytes()
