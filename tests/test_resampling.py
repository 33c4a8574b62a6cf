"""Resampling: which features begin again, where, with which moments, and what that is worth."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from saelens_n2g.bases.formats import SaeMetadata, load_saelens
from saelens_n2g.errors import InputError
from saelens_n2g.training import TrainingConfig, train
from saelens_n2g.training.architectures.registry import find_architecture
from saelens_n2g.training.architectures.resampling import ResamplingOptions, draw
from saelens_n2g.training.objective import Start

D, N, B, ALPHA, SEED = 6, 24, 40, 0.03, 3
DEAD = [3, 7, 9]
NAMES = ("tied", "relu", "gated")
METADATA = SaeMetadata("tiny", "blocks.0.hook_resid_post", 16, True)

pytestmark = pytest.mark.usefixtures("one_thread")


def batch(step, rows=B):
    draws = torch.Generator().manual_seed(step)
    return torch.randn(rows, D, dtype=torch.float64, generator=draws) * torch.linspace(0.3, 2, rows)[:, None].double()


def parameters_of(objective):
    return getattr(objective, "parameters", None) or {"encoder": objective.encoder, "bias": objective.bias}


def build(name, options, dead=DEAD):
    """Features that are silent whatever comes, and an objective that will find them so."""
    start = Start(d=D, n=N, alpha=ALPHA, lr=1e-2, seed=SEED, dead_after=2 * B, dtype=torch.float64, options=options)
    objective = find_architecture(name).build(start)
    with torch.no_grad():
        parameters_of(objective)["bias"][dead] = -1e3
    return objective


def copied(objective):
    return {key: value.detach().clone() for key, value in objective.state().items()}


# --- the draw -----------------------------------------------------------------------------------------------------


def test_places_are_drawn_by_their_weights_and_once_each():
    weights = np.array([1.0, 2.0, 0.0, 5.0, np.nan, np.inf])
    draws = [draw(weights, 2, (seed, 7)) for seed in range(4000)]
    first = np.bincount([places[0] for places in draws], minlength=6) / 4000
    np.testing.assert_allclose(first, [1 / 8, 2 / 8, 0, 5 / 8, 0, 0], atol=0.03)
    third = [places[1] for places in draws if places[0] == 3]
    np.testing.assert_allclose(np.bincount(third, minlength=6) / len(third), [1 / 3, 2 / 3, 0, 0, 0, 0], atol=0.04)
    assert all(len(set(draw(weights, 9, (seed, 0)))) == 3 for seed in range(20))
    assert draw(weights, 3, (1, 2)) == draw(weights, 3, (1, 2))
    assert len({tuple(draw(np.ones(50), 5, (seed, step))) for seed in range(5) for step in range(5)}) == 25
    assert draw(np.zeros(4), 2, (0, 0)) == []


# --- one replacement, exactly -------------------------------------------------------------------------------------


def losses_of(name, own, y):
    """The loss of each row, written down plainly; and what the features read."""
    if name == "tied":
        w = own["encoder"] / own["encoder"].norm(dim=1, keepdim=True)
        code = (y @ w.T + own["bias"]).clamp(min=0)
        return (code @ w - y).pow(2).mean(1) + ALPHA * code.sum(1), y
    unit = own["decoder"] / own["decoder"].norm(dim=1, keepdim=True)
    read = y - own["offset"]
    gate = (read @ own["encoder"].T + own["bias"]).clamp(min=0)
    code = gate
    if name == "gated":
        code = (gate > 0) * (own["r_mag"].exp() * (read @ own["encoder"].T) + own["b_mag"]).clamp(min=0)
    return (code @ unit + own["offset"] - y).pow(2).mean(1) + ALPHA * gate.sum(1), read


@pytest.mark.parametrize("name", NAMES)
def test_the_dead_and_only_they_begin_again(name):
    objective, plain = build(name, ResamplingOptions(resample_every=3 * B)), build(name, None)
    for step in range(2):
        assert objective.step(batch(step)).resampled == 0
        assert plain.step(batch(step)).resampled is None
    before, y = copied(plain), batch(2)
    assert {key: value for key, value in copied(objective).items() if not key.startswith("resampling.")}.keys() == (
        before.keys()
    )
    assert objective.step(y).resampled == 3
    plain.step(y)
    losses, read = losses_of(name, before, y)
    rows = draw((losses**2).numpy(), 3, (SEED, 3 * B))
    directions = read[rows] / read[rows].norm(dim=1, keepdim=True)
    found, other = copied(objective), copied(plain)
    living = [feature for feature in range(N) if feature not in DEAD]
    length = other["encoder"][living].norm(dim=1).mean()
    expected = {"tied": {"encoder": length * directions, "bias": -0.8 * read[rows].norm(dim=1)}}.get(
        name, {"encoder": 0.2 * length * directions, "decoder": directions, "bias": torch.zeros(3)}
    )
    if name == "gated":
        expected |= {"r_mag": torch.zeros(3), "b_mag": torch.zeros(3)}
    for key, value in expected.items():
        torch.testing.assert_close(found[key][DEAD], value.double(), rtol=1e-12, atol=1e-14)
        for moment in (f"{key}.exp_avg", f"{key}.exp_avg_sq"):
            assert not found[moment][DEAD].any()
            assert found[moment][living].abs().sum() > 0
    for key, value in other.items():
        per_feature = value.ndim > 0 and len(value) == N
        assert torch.equal(found[key][living] if per_feature else found[key], value[living] if per_feature else value)
    assert found["encoder.step"] == 3


def test_features_wait_for_later_batches_when_many_are_dead():
    """An eighth of 40 rows is 5 at a time; none is looked for after the end."""
    dead = list(range(12))
    objective = build("tied", ResamplingOptions(resample_every=3 * B, resample_until=5 * B), dead)
    totals = []
    for step in range(5):
        totals.append(objective.step(batch(step)).resampled)
        alive = torch.nonzero(objective.bias > -100).squeeze(1).tolist()
        assert alive == [feature for feature in range(N) if feature < totals[-1] or feature >= 12]
    assert totals == [0, 0, 5, 10, 12]
    with torch.no_grad():
        objective.bias[dead] = -1e3
    assert [objective.step(batch(step)).resampled for step in range(5, 14)] == [12] * 9


def test_what_comes_back_by_itself_while_it_waits_is_left_alone():
    objective = build("tied", ResamplingOptions(resample_every=3 * B), list(range(12)))
    for step in range(3):
        objective.step(batch(step))
    with torch.no_grad():
        objective.bias[11] = 1.0
    kept = objective.encoder[11].clone()
    totals = [objective.step(batch(step)).resampled for step in (3, 4)]
    assert totals == [10, 11]
    torch.testing.assert_close(objective.encoder[11], kept, rtol=0, atol=0.1)


def test_all_may_be_dead_and_rows_of_zeros_are_no_directions():
    objective = build("tied", ResamplingOptions(resample_every=3 * B), list(range(N)))
    lengths = objective.encoder.norm(dim=1)
    for step in range(2):
        objective.step(batch(step))
    y = torch.zeros(B, D, dtype=torch.float64)
    assert objective.step(y).resampled == 0
    y[4, 1] = 2.0
    assert objective.step(y).resampled == 1
    torch.testing.assert_close(objective.encoder[0], lengths.mean() * y[4] / 2)


# --- what it is worth ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_the_dead_learn_what_nothing_else_explains(name):
    """Twelve planted directions, a feature on eight of them, eight features dead: without those, four are left."""
    draws, d = torch.Generator().manual_seed(0), 16
    planted = torch.linalg.qr(torch.randn(d, d, generator=draws)).Q[:12]
    found = []
    for options in (None, ResamplingOptions(resample_every=2048, resample_until=8192)):
        start = Start(d=d, n=16, alpha=1e-2, lr=5e-3, seed=1, dead_after=1024, options=options)
        objective = find_architecture(name).build(start)
        own, stream = parameters_of(objective), torch.Generator().manual_seed(1)
        with torch.no_grad():
            for key in {"encoder", "decoder"} & own.keys():
                own[key][:12] = planted
                own[key][8:] = -planted[:1]
            own["bias"][8:] = -1e3
        for _ in range(300):
            code = torch.rand(256, 12, generator=stream) * (torch.rand(256, 12, generator=stream) < 0.04)
            metrics = objective.step(4 * code @ planted)
        unit = torch.nn.functional.normalize(own["decoder" if "decoder" in own else "encoder"].detach(), dim=1)
        cosines = (planted @ unit[metrics.fired > 0].T).max(1).values
        found.append((cosines[8:].min().item(), (metrics.mse / metrics.variance).item()))
    (without, unexplained), (resampled, left) = found
    assert without < 0.3
    assert resampled > 0.75
    assert unexplained > 0.3
    assert left < 0.1


# --- whole runs ---------------------------------------------------------------------------------------------------

CONFIG = TrainingConfig(
    expansion=12.0,
    alpha=3.0,
    lr=0.3,
    batch=32,
    samples=32 * 30,
    log_every=4,
    checkpoint_every=6,
    dead_window=64,
    wandb="disabled",
    options={"resample_every": 160},
)


def data(rows=300):
    return torch.randn(rows, D, generator=torch.Generator().manual_seed(5)) * 3 + torch.arange(D)


class Interruption(Exception):
    """Stands for whatever ends a run."""


def at_13(step, *_):
    if step == 13:
        raise Interruption


@pytest.mark.parametrize("name", ["tied", "relu"])
def test_a_run_cut_short_between_a_look_and_its_replacements_ends_like_an_undisturbed_one(tmp_path, name):
    config = replace(CONFIG, architecture=name)
    result = train(config, data(), tmp_path / "whole", metadata=METADATA)
    with pytest.raises(Interruption):
        train(config, data(), tmp_path / "cut", metadata=METADATA, on_step=at_13)
    state = load_file(tmp_path / "cut" / "checkpoints" / "step-00000012" / "state.safetensors")
    assert state["objective.resampling.waiting"].any()
    train(config, data(), tmp_path / "cut", metadata=METADATA)
    for file in ("metrics.jsonl", "sae/sae_weights.safetensors", "sae/cfg.json"):
        assert (tmp_path / "whole" / file).read_bytes() == (tmp_path / "cut" / file).read_bytes()
    lines = [json.loads(line) for line in (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()]
    resampled = [line["sparsity/resampled"] for line in lines]
    assert resampled[0] == 0
    assert 0 < state["objective.resampling.progress"][1] < resampled[3] < resampled[-1]
    stored = load_saelens(result.folder)
    assert stored.metadata["training"]["options"] == {"resample_every": 160}


def test_runs_without_it_say_nothing_of_it(tmp_path):
    train(replace(CONFIG, options={}), data(), tmp_path, metadata=METADATA)
    assert "resampled" not in (tmp_path / "metrics.jsonl").read_text()
    assert replace(CONFIG, options={}).identity() != CONFIG.identity()


@pytest.mark.parametrize("name", ["resample_every", "resample_until"])
def test_impossible_settings_are_refused(name):
    with pytest.raises(InputError, match=f"option {name}: expected a number of activations >= 0, found -1"):
        ResamplingOptions(**{name: -1})
