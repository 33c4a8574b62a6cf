"""What training is said to cost: counts and bytes as the run then has them, times by a clock that can be foretold."""

from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import torch
from fakes import Tables, table_windows

from saelens_n2g.activations import harvest
from saelens_n2g.bases.formats import SaeMetadata
from saelens_n2g.errors import InputError
from saelens_n2g.training import TrainingConfig
from saelens_n2g.training.blocks import CachedBlocks
from saelens_n2g.training.cost import (
    Cost,
    cost_of_run,
    cost_of_sweep,
    duration,
    passes_of,
    several_epochs,
    size,
    tokens_read,
)
from saelens_n2g.training.meter import Meter
from saelens_n2g.training.sparse import has_kernels
from saelens_n2g.training.sweep import sweep, vary

D, WIDTH, SITES = Tables.d, Tables.width, Tables.sites
BASE = TrainingConfig(expansion=2.0, batch=32, samples=32 * 9, log_every=4, checkpoint_every=5, wandb="disabled")
CONFIGS = vary(BASE, {"architecture": ["tied", "topk"], "alpha": [1e-3, 1e-2], "k": [1]})
"""Two tied ones and a TopK."""

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def _bare(monkeypatch):
    monkeypatch.setattr("saelens_n2g.training.loop._draw", lambda *_: None)


FIT, TEST = table_windows(120, 0, ragged=True), table_windows(40, 1, ragged=True)


def ticking():
    """A clock that is a second later whenever it is looked at."""
    return map(float, count()).__next__


def cost(configs=CONFIGS, sites=SITES, fit=FIT) -> Cost:
    return cost_of_sweep(Meter(Tables(), fit, sites, clock=ticking()), fit, TEST, sites, configs)


# --- counts -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("buffer", [128, 100_000])
@pytest.mark.parametrize("steps", [1, 5, 16, 17, 40])
def test_a_sweep_runs_the_subject_on_as_many_tokens_as_said(tmp_path, monkeypatch, buffer, steps):
    monkeypatch.setattr("saelens_n2g.training.sweep.BUFFER_ROWS", buffer)
    configs = {k: replace(v, samples=32 * steps) for k, v in list(CONFIGS.items())[1:]}
    said, subject = cost(configs), Tables()
    points = sweep(
        subject, FIT, TEST, SITES, configs, tmp_path, metadata=lambda s: SaeMetadata("tables", s.hook, WIDTH, True)
    )
    assert said.forward_tokens == subject.tokens
    assert (said.dictionaries, said.steps, said.samples) == (len(points), steps, 32 * steps)
    assert {p.result.steps for p in points} == {steps}


def test_a_sweep_out_of_a_cache_runs_the_subject_once(tmp_path):
    configs = {k: replace(v, samples=32 * 40) for k, v in list(CONFIGS.items())[1:]}
    assert several_epochs(FIT, configs[next(iter(configs))])
    assert not several_epochs(FIT, BASE)
    said = cost_of_sweep(Meter(Tables(), FIT, SITES, clock=ticking()), FIT, TEST, SITES, configs, cached=True)
    subject = Tables()
    store = harvest(subject, FIT, dict.fromkeys(SITES), tmp_path / "activations")
    source = CachedBlocks(store, SITES)
    about = partial(SaeMetadata, "tables", context_size=WIDTH, prepend_bos=True)
    sweep(subject, FIT, TEST, SITES, configs, tmp_path, metadata=lambda s: about(hook_name=s.hook), source=source)
    assert said.forward_tokens == subject.tokens
    written = sum(path.stat().st_size for path in (tmp_path / "activations").rglob("*.safetensors"))
    live = cost(configs).temporary_bytes
    assert said.temporary_bytes - live == 4 * D * len(SITES) * FIT.n_tokens <= written


def test_less_than_an_epoch_is_not_counted_as_one(monkeypatch):
    monkeypatch.setattr("saelens_n2g.training.sweep.BUFFER_ROWS", 128)
    whole = FIT.n_tokens // 32
    reads = [tokens_read(FIT, replace(BASE, samples=32 * steps)) for steps in (4, whole, 2 * whole, 2 * whole + 4)]
    assert reads[0] < reads[1]
    assert reads[2] == 2 * reads[1]
    assert reads[2] < reads[3] < 3 * reads[1]


def test_a_run_out_of_a_cache_runs_the_subject_on_as_many_tokens_as_said(tmp_path):
    subject, text = Tables(), table_windows(300, 2, ragged=True)
    harvest(subject, text, {SITES[0]: None}, tmp_path)
    said = cost_of_run(Meter(Tables(), text, SITES[:1], clock=ticking()), text, 700, SITES[0], BASE)
    assert said.forward_tokens == subject.tokens
    assert (said.steps, said.samples, said.dictionaries) == (9, 288, 1)
    kind = Meter(Tables(), text, SITES[:1]).kind(SITES[0], BASE)
    assert said.memory_bytes == 2 * 4 * D * text.n_tokens + 8 * 700 + kind.held_bytes
    assert said.temporary_bytes == 4 * D * text.n_tokens + 2 * kind.checkpoint_bytes
    assert said.step_seconds == 9 / 2
    assert said.evaluation_seconds == pytest.approx(text.n_tokens / text.subset(np.arange(16)).n_tokens)


def test_a_text_of_less_than_a_batch_is_refused():
    with pytest.raises(InputError, match="at least one batch of 32"):
        cost(fit=table_windows(2, 0, ragged=True))


# --- bytes ------------------------------------------------------------------------------------------------------


def test_bytes_of_a_tied_dictionary():
    n, batch = 2 * D, 32
    kind = Meter(Tables(), FIT, SITES).kind(SITES[0], BASE)
    weights, counter = n * D + n, 8 * n + 2 * 4 * n + 2 * 8
    assert kind.checkpoint_bytes == 4 * (3 * weights + 2) + counter, "Adam counts steps for each of two tensors"
    unit_rows, of_a_batch = n * D + n, 3 * batch * n + batch * D + batch
    assert kind.held_bytes == kind.checkpoint_bytes + 4 * (weights + unit_rows + of_a_batch)
    assert kind.saved_bytes == 4 * (2 * n * D + 2 * n + D), "encoder, decoder, bias, firing rates, centre"


def test_bytes_of_a_sweep():
    meter, said = Meter(Tables(), FIT, SITES), cost()
    kinds = [meter.kind(SITES[0], config) for config in CONFIGS.values()]
    rows = FIT.n_tokens // 128 * 128 + FIT.n_tokens + TEST.n_tokens
    assert said.memory_bytes == 2 * (4 * D * rows + sum(kind.held_bytes for kind in kinds))
    written = [kind.checkpoint_bytes for kind in kinds]
    assert said.temporary_bytes == 2 * sum(written) + max(written)
    assert said.saved_bytes == 2 * sum(kind.saved_bytes for kind in kinds)
    without = cost({k: replace(v, checkpoint_every=0) for k, v in CONFIGS.items()})
    assert without.temporary_bytes == 0


# --- passes -----------------------------------------------------------------------------------------------------


def test_layers_share_passes_as_far_as_memory_goes():
    meter = Meter(Tables(), FIT, SITES)
    one, two = (cost_of_sweep(meter, FIT, TEST, sites, CONFIGS).memory_bytes for sites in (SITES[:1], SITES))

    def groups(memory):
        return passes_of(meter, FIT, TEST, SITES, CONFIGS, memory=memory)

    assert groups(None) == groups(two) == [list(SITES)]
    assert groups(two - 1) == groups(one) == [[SITES[0]], [SITES[1]]]
    with pytest.raises(InputError, match=r"option memory: expected at least .* for 3 dictionaries at 0.resid_post"):
        groups(one - 1)


def test_passes_add_up():
    first, second = cost(sites=SITES[:1]), cost(sites=SITES[1:])
    both, together = first + second, cost()
    assert both.passes == 2
    assert both.sites == together.sites
    assert both.dictionaries == together.dictionaries == 6
    assert both.saved_bytes == together.saved_bytes
    assert both.memory_bytes == first.memory_bytes < together.memory_bytes
    assert both.forward_tokens == 2 * together.forward_tokens
    assert both.seconds == pytest.approx(first.seconds + second.seconds)


# --- times ------------------------------------------------------------------------------------------------------


def test_times_are_what_the_clock_says():
    """A second for a forward pass of a block, for two steps, and for an evaluation of a block's rows."""
    said = cost()
    block, rows = FIT.subset(np.arange(16, 32)), FIT.subset(np.arange(16)).n_tokens
    assert said.forward_seconds == pytest.approx(said.forward_tokens / (16 * block.lengths.max()))
    assert said.step_seconds == pytest.approx(6 * 9 / 2)
    assert said.evaluation_seconds == pytest.approx(6 * TEST.n_tokens / rows)
    assert said.seconds == said.forward_seconds + said.step_seconds + said.evaluation_seconds
    assert said.as_json() == {**vars(said), "sites": ["0.resid_post", "1.resid_post"], "seconds": said.seconds}


def test_every_kind_is_measured_once():
    looks = []
    meter = Meter(Tables(), FIT, SITES, clock=lambda: float(len(looks.append(0) or looks)))
    cost_of_sweep(meter, FIT, TEST, SITES, CONFIGS)
    assert len(looks) == 2 * (1 + 2 * 2), "a forward pass; steps and an evaluation of tied and of TopK"


@pytest.mark.skipif(not has_kernels(torch.device("cpu")), reason="no compressed rows without MKL")
def test_only_steps_that_may_become_sparse_are_bounds():
    tied, topk = ({k: v} for k, v in list(CONFIGS.items())[1:])
    assert cost(tied).at_most
    assert not cost(topk).at_most
    assert cost(CONFIGS).at_most


def test_measuring_changes_nothing_around_it():
    torch.manual_seed(3)
    before, precision = torch.get_rng_state(), torch.get_float32_matmul_precision()
    cost({k: replace(v, precision="medium") for k, v in CONFIGS.items()})
    assert torch.equal(before, torch.get_rng_state())
    assert torch.get_float32_matmul_precision() == precision


# --- words ------------------------------------------------------------------------------------------------------

SAID = Cost(
    dictionaries=24,
    sites=("0.resid_post", "1.resid_post"),
    passes=2,
    samples=48_000_000,
    steps=46_875,
    forward_tokens=50_000_000,
    forward_seconds=4_800,
    step_seconds=32_400,
    evaluation_seconds=42,
    at_most=True,
    memory_bytes=2_100_000_000,
    temporary_bytes=960_000,
    saved_bytes=3_440_000,
)


def test_the_text():
    assert SAID.text().splitlines() == [
        "estimate: 24 dictionaries, 2 sites in 2 passes, 48,000,000 activations each (46,875 steps)",
        "  time: forward passes about 1 h 20 min (50,000,000 tokens), steps at most 9 h 0 min, evaluation about 42 s; "
        "in all at most 10 h 21 min",
        "  steps were timed with most features active; they get several times cheaper once few are",
        "  memory: about 2.1 GB beside the model; disk: 3.44 MB, and 960 kB more while it runs",
    ]
    one = replace(SAID, dictionaries=1, sites=("0.resid_post",), passes=1, at_most=False).text().splitlines()
    assert one[0] == "estimate: 1 dictionary, 0.resid_post, 48,000,000 activations each (46,875 steps)"
    assert len(one) == 3
    assert "at most" not in one[1]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.6, "1 min"),
        (3_599, "1 h 0 min"),
        (172_740, "47 h 59 min"),
        (172_800, "2 days 0 h"),
        (3_384_000, "39 days 4 h"),
    ],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(("count", "text"), [(0, "0 B"), (999, "999 B"), (999_600, "1 MB"), (2.345e12, "2.35 TB")])
def test_sizes(count, text):
    assert size(count) == text


def test_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cost()
    assert list(Path.cwd().iterdir()) == []
