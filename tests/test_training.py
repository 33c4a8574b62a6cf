"""Training: the step against autograd, the loop against an undisturbed run, the result against a planted dictionary."""

import contextlib
import json
import math
import sys
from dataclasses import replace
from types import ModuleType

import numpy as np
import pytest
import torch

from saelens_n2g.bases.formats import Dictionary, SaeMetadata, load_saelens
from saelens_n2g.errors import ArtefactError, InputError
from saelens_n2g.training import TrainingConfig, evaluate, train
from saelens_n2g.training.architectures.tied import TiedObjective, initial_encoder
from saelens_n2g.training.evaluation import BehaviourPreservation
from saelens_n2g.training.logging import MetricsFile, WandbRun, wandb_mode
from saelens_n2g.training.metrics import DENSITY, DENSITY_EDGES, FiringCounter, reconstruction
from saelens_n2g.training.objective import Start
from saelens_n2g.training.rows import ArrayRows, RowStream, ShuffledOrder, as_rows, statistics
from saelens_n2g.training.run import Run

D = 8
METADATA = SaeMetadata("tiny", "blocks.0.hook_resid_post", 16, True)
CONFIG = TrainingConfig(
    expansion=2.0, batch=32, samples=32 * 20, log_every=4, checkpoint_every=5, dead_window=100, wandb="disabled"
)

pytestmark = pytest.mark.usefixtures("one_thread")


def data(rows: int = 300, d: int = D) -> torch.Tensor:
    return torch.randn(rows, d, generator=torch.Generator().manual_seed(5)) * 3 + torch.arange(d)


WAYS = pytest.mark.parametrize("densest", [-1.0, 1.0], ids=["dense", "sparse"])


def tied_loss(encoder, bias, y, alpha):
    """The objective as the paper's code states it, for autograd (Cunningham et al., FunctionalTiedSAE)."""
    w = encoder / encoder.norm(dim=-1, keepdim=True).clamp(min=1e-8)
    code = torch.einsum("nd,bd->bn", w, y).add(bias).clamp(min=0)
    reconstruction = torch.einsum("nd,bn->bd", w, code)
    return (reconstruction - y).pow(2).mean() + alpha * code.abs().sum(-1).mean()


@WAYS
def test_gradients_are_those_of_autograd(densest):
    objective = TiedObjective(Start(d=D, n=20, alpha=0.05, lr=1e-3, seed=1, dtype=torch.float64), densest=densest)
    objective.bias.copy_(torch.linspace(-0.3, 0.3, 20))
    y = data(17).double() / 3
    for size in (17, 9):  # the second needs new buffers
        encoder, bias = objective.encoder.clone().requires_grad_(), objective.bias.clone().requires_grad_()
        tied_loss(encoder, bias, y[:size], 0.05).backward()
        objective.gradients(y[:size])
        torch.testing.assert_close(objective.encoder.grad, encoder.grad, rtol=1e-11, atol=1e-13)
        torch.testing.assert_close(objective.bias.grad, bias.grad, rtol=1e-11, atol=1e-13)


@WAYS
def test_a_row_at_the_floor_has_the_clamped_gradient(densest):
    objective = TiedObjective(Start(d=3, n=4, alpha=0.05, lr=1e-3, dtype=torch.float64), densest=densest)
    objective.encoder[0] = torch.tensor([3e-9, -4e-9, 0.0])
    objective.bias.fill_(0.1)
    y = torch.tensor([[1.0, -2.0, 0.5], [0.2, -0.1, 0.3]], dtype=torch.float64)
    encoder, bias = objective.encoder.clone().requires_grad_(), objective.bias.clone().requires_grad_()
    tied_loss(encoder, bias, y, 0.05).backward()
    objective.gradients(y)
    torch.testing.assert_close(objective.encoder.grad, encoder.grad, rtol=1e-11, atol=1e-13)


@WAYS
def test_steps_follow_autograd_with_adam(densest):
    objective = TiedObjective(Start(d=D, n=20, alpha=0.01, lr=1e-2, seed=1, dtype=torch.float64), densest=densest)
    encoder, bias = objective.encoder.clone().requires_grad_(), objective.bias.clone().requires_grad_()
    adam = torch.optim.Adam([encoder, bias], lr=1e-2)
    y = data(64).double() / 5
    for _ in range(25):
        loss = tied_loss(encoder, bias, y, 0.01)
        adam.zero_grad()
        loss.backward()
        adam.step()
        metrics = objective.step(y)
        torch.testing.assert_close(metrics.loss, loss.detach(), rtol=1e-9, atol=0)
    torch.testing.assert_close(objective.encoder, encoder.detach(), rtol=1e-8, atol=1e-10)


@WAYS
def test_step_metrics_are_what_they_say(densest):
    objective = TiedObjective(Start(d=D, n=20, alpha=0.01, lr=1e-2), densest=densest)
    y = data(40) / 5
    code = torch.relu(y @ objective.unit_rows().T + objective.bias)
    metrics = objective.gradients(y)
    torch.testing.assert_close(metrics.fired, (code > 0).sum(0).float())
    torch.testing.assert_close(metrics.l0, (code > 0).sum(1).float().mean())
    torch.testing.assert_close(metrics.parts["l1_loss"], 0.01 * code.sum(1).mean())
    torch.testing.assert_close(metrics.variance, y.var(0, correction=0).mean())


def test_the_start_is_seeded_xavier():
    encoder = initial_encoder(200, 100, 3)
    assert torch.equal(encoder, initial_encoder(200, 100, 3))
    assert not torch.equal(encoder, initial_encoder(200, 100, 4))
    assert encoder.abs().max() <= math.sqrt(6 / 300)
    assert encoder.std() == pytest.approx(math.sqrt(2 / 300), rel=0.02)


def test_statistics_and_order():
    rows = data(1000)
    found = statistics(as_rows(rows))
    torch.testing.assert_close(found.mean, rows.double().mean(0))
    assert found.mean_square == pytest.approx((rows.double() - rows.double().mean(0)).square().sum(1).mean().item())
    order = ShuffledOrder(100, 30, seed=0)
    first = torch.cat([order.indices(s) for s in range(3)])
    assert first.unique().numel() == 90
    assert not torch.equal(first, torch.cat([order.indices(s) for s in range(3, 6)]))
    assert torch.equal(order.indices(7), ShuffledOrder(100, 30, seed=0).indices(7))
    assert not torch.equal(order.indices(7), ShuffledOrder(100, 30, seed=1).indices(7))


def test_the_scale_is_folded_into_the_saved_weights():
    rows = data() * 40
    stream = RowStream(as_rows(rows), batch=CONFIG.batch)
    run = Run(replace(CONFIG, alpha=1e-4), statistics(as_rows(rows)))
    for step in range(20):
        run.step(stream.batch(step))
    y = (rows - rows.mean(0)) * run.scale
    assert y.square().sum(1).mean().item() == pytest.approx(D, rel=1e-4)
    w, b = run.objective.unit_rows(), run.objective.bias
    dictionary = run.dictionary()
    code = torch.relu(y @ w.T + b)
    torch.testing.assert_close(dictionary.encode(rows) * run.scale, code, rtol=1e-4, atol=1e-5)
    rebuilt = dictionary.decode(dictionary.encode(rows))
    torch.testing.assert_close(rebuilt, code @ w / run.scale + rows.mean(0), rtol=1e-4, atol=1e-3)
    assert Run(replace(CONFIG, normalise=False), statistics(as_rows(rows))).scale == 1.0


def planted(n: int = 32, d: int = 24, rows: int = 20_000) -> tuple[torch.Tensor, torch.Tensor]:
    """Sparse non-negative combinations of known unit directions, with a mean."""
    generator = torch.Generator().manual_seed(0)
    directions = torch.nn.functional.normalize(torch.randn(n, d, generator=generator), dim=1)
    code = torch.rand(rows, n, generator=generator) * (torch.rand(rows, n, generator=generator) < 0.06)
    return directions, code @ directions + 0.5


def test_a_planted_dictionary_is_recovered(tmp_path):
    directions, rows = planted()
    config = TrainingConfig(
        expansion=2.0, alpha=0.04, lr=1e-2, batch=256, samples=256 * 800, checkpoint_every=0, wandb="disabled"
    )
    result = train(config, rows[:18_000], tmp_path, metadata=METADATA, test_rows=rows[18_000:].numpy())
    cosines = (directions @ result.dictionary.W_dec.T).max(1).values
    assert cosines.mean() > 0.9
    assert (cosines > 0.9).float().mean() > 0.8
    assert result.test is not None
    assert result.test.rows == 2000
    assert result.test.fvu < 0.15
    assert result.test.l0 < 10
    assert result.dictionary.tied


def test_a_run_writes_a_folder_that_says_how_good_it_is(tmp_path):
    seen = []
    result = train(CONFIG, data(), tmp_path, metadata=METADATA, test_rows=data(90), on_step=lambda *a: seen.append(a))
    stored = load_saelens(result.folder)
    assert result.folder == tmp_path / "sae"
    assert torch.equal(stored.W_dec, result.dictionary.W_dec)
    assert torch.equal(stored.log10_sparsity, result.fit.log10_sparsity)
    assert stored.metadata["evaluation"]["fit"]["fvu"] == result.fit.fvu
    assert stored.metadata["evaluation"]["test"]["rows"] == 90
    assert stored.metadata["l0"] == result.fit.l0
    assert stored.metadata["training"]["alpha"] == CONFIG.alpha
    assert [s[:2] for s in seen] == [(i, 20) for i in range(1, 21)]
    assert not (tmp_path / "checkpoints").exists()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["details/n_training_samples"] for line in lines] == [32 * s for s in (4, 8, 12, 16, 20)]
    assert lines[-1] == seen[-1][2]
    assert lines[0]["details/l1_coefficient"] == pytest.approx(8.6e-4 * D)
    assert lines[0]["losses/overall_loss"] == pytest.approx(lines[0]["losses/mse_loss"] + lines[0]["losses/l1_loss"])


class Interruption(Exception):
    """Stands for whatever ends a run."""


def stop_at(step: int):
    def on_step(done, _total, _metrics):
        if done == step:
            raise Interruption

    return on_step


@pytest.mark.parametrize("step", [3, 13])
def test_an_interrupted_run_ends_like_an_undisturbed_one(tmp_path, step):
    whole = train(CONFIG, data(), tmp_path / "whole", metadata=METADATA)
    with pytest.raises(Interruption):
        train(CONFIG, data(), tmp_path / "cut", metadata=METADATA, on_step=stop_at(step))
    with open(tmp_path / "cut" / "metrics.jsonl", "a") as handle:
        handle.write('{"half a li')
    first = []
    resumed = train(CONFIG, data(), tmp_path / "cut", metadata=METADATA, on_step=lambda s, *_: first.append(s))
    assert first[0] == step // 5 * 5 + 1
    assert whole.steps == resumed.steps == 20
    for file in ("metrics.jsonl", "sae/sae_weights.safetensors", "sae/cfg.json", "sae/sparsity.safetensors"):
        assert (tmp_path / "whole" / file).read_bytes() == (tmp_path / "cut" / file).read_bytes()


def test_a_checkpoint_of_another_run_or_a_damaged_one_is_refused(tmp_path):
    with pytest.raises(Interruption):
        train(CONFIG, data(), tmp_path, metadata=METADATA, on_step=stop_at(12))
    places = list((tmp_path / "checkpoints").iterdir())
    assert [p.name for p in places] == ["step-00000010"]
    with pytest.raises(InputError, match="these settings and activations"):
        train(replace(CONFIG, alpha=0.1), data(), tmp_path, metadata=METADATA)
    with pytest.raises(InputError, match="these settings and activations"):
        train(CONFIG, data() + 1, tmp_path, metadata=METADATA)
    with pytest.raises(InputError, match="at most 5 steps, found 10"):
        train(replace(CONFIG, samples=160), data(), tmp_path, metadata=METADATA)
    state = places[0] / "state.safetensors"
    state.write_bytes(state.read_bytes()[:-4])
    with pytest.raises(ArtefactError, match=r"state.safetensors"):
        train(CONFIG, data(), tmp_path, metadata=METADATA)


def test_the_matmul_precision_is_set_and_set_back(tmp_path):
    before, inside = torch.get_float32_matmul_precision(), set()
    train(
        replace(CONFIG, precision="medium"),
        data(),
        tmp_path,
        metadata=METADATA,
        on_step=lambda *_: inside.add(torch.get_float32_matmul_precision()),
    )
    assert inside == {"medium"}
    assert torch.get_float32_matmul_precision() == before == "highest"


def test_evaluation_agrees_with_its_definition():
    rows = data(500)
    rows[:5] *= 100
    weight = torch.nn.functional.normalize(torch.randn(12, D, generator=torch.Generator().manual_seed(1)), dim=1)
    dictionary = Dictionary.from_tied(weight, torch.full((12,), -3.0), rows[5:].mean(0))
    found = evaluate(dictionary, ArrayRows(rows), size=128)

    code = dictionary.encode(rows)
    error = (dictionary.decode(code) - rows).square().sum(1)
    near = (rows - dictionary.b_dec).norm(dim=1) <= 3 * (rows - dictionary.b_dec).norm(dim=1).median()
    for part, fvu in ((torch.ones(500, dtype=torch.bool), found.fvu), (near, found.fvu_typical)):
        centred = rows[part] - rows[part].mean(0)
        assert fvu == pytest.approx((error[part].sum() / centred.square().sum()).item(), rel=1e-4)
    assert found.typical_rows == near.sum() == 495
    assert found.mse == pytest.approx(error.mean().item() / D, rel=1e-4)
    assert found.l0 == pytest.approx((code > 0).sum(1).float().mean().item())
    assert found.alive == (code > 0).any(0).sum()
    assert found.alive + found.dead == 12
    torch.testing.assert_close(found.log10_sparsity, torch.log10((code > 0).float().mean(0) + 1e-10))
    assert json.dumps(found.as_json(), allow_nan=False)


def test_firing_counter_counts_as_a_slow_one_would():
    generator = torch.Generator().manual_seed(0)
    counter, other, history = FiringCounter(4, 30), FiringCounter(4, 30), []
    for _ in range(10):
        fired = torch.randint(0, 3, (4,), generator=generator) * torch.tensor([1, 1, 0, 1])
        counter.add(fired.float(), 8)
        history.append(fired)
    # Windows close once 30 rows have been seen: after every fourth batch of 8.
    torch.testing.assert_close(counter.rates(), torch.stack(history[4:8]).sum(0) / 32)
    assert counter.since[2] == 80
    assert counter.dead() == (counter.since >= 30).sum() >= 1
    other.load_state(counter.state())
    counter.add(torch.ones(4), 8)
    other.add(torch.ones(4), 8)
    assert all(torch.equal(a, b) for a, b in zip(counter.state().values(), other.state().values(), strict=True))


def test_unusable_input_is_named(tmp_path):
    cases = [
        (torch.zeros(0, D), "with rows"),
        (torch.zeros(D), "shape"),
        ([[1.0]], "found list"),
        (torch.ones(50, D), "50 equal rows"),
        (data().index_fill(0, torch.tensor([3]), math.nan), "NaN"),
        (data(10), "at least one batch of 32 rows"),
    ]
    for rows, message in cases:
        with pytest.raises(InputError, match=message):
            train(CONFIG, rows, tmp_path, metadata=METADATA)
    with pytest.raises(InputError, match="finite loss"):
        train(replace(CONFIG, lr=1e38), data(), tmp_path, metadata=METADATA)
    for bad in ({"lr": 0.0}, {"alpha": -1.0}, {"beta2": 1.0}, {"samples": 5}):
        with pytest.raises(InputError, match=f"training option {next(iter(bad))}"):
            replace(CONFIG, **bad)
    for bad in ({"wandb": "yes"}, {"precision": "low"}):
        # TypeError where annotations are checked at run time, before the configuration itself gets to look.
        with pytest.raises((InputError, TypeError), match=next(iter(bad))):
            replace(CONFIG, **bad)


def test_mapped_half_precision_rows_train_like_their_float_copy(tmp_path):
    rows = data().half().numpy()
    np.save(tmp_path / "rows.npy", rows)
    mapped = train(CONFIG, np.load(tmp_path / "rows.npy", mmap_mode="r+"), tmp_path / "a", metadata=METADATA)
    copied = train(CONFIG, torch.from_numpy(rows).float(), tmp_path / "b", metadata=METADATA)
    assert torch.equal(mapped.dictionary.W_dec, copied.dictionary.W_dec)


@pytest.mark.parametrize(
    ("asked", "environment", "key", "expected"),
    [
        ("auto", "", "", "offline"),
        ("auto", "", "k" * 40, "online"),
        ("auto", "offline", "k" * 40, "offline"),
        ("auto", "disabled", "k" * 40, "disabled"),
        ("online", "disabled", "", "disabled"),
        ("online", "offline", "", "online"),
        ("offline", "online", "", "offline"),
        ("disabled", "online", "", "disabled"),
    ],
)
def test_wandb_mode(monkeypatch, tmp_path, asked, environment, key, expected):
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    for name, value in (("WANDB_MODE", environment), ("WANDB_API_KEY", key)):
        monkeypatch.setenv(name, value)
    assert wandb_mode(asked) == expected


def test_an_account_in_netrc_means_online(monkeypatch, tmp_path):
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_API_KEY", "")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    (tmp_path / "netrc").write_text("machine api.wandb.ai login user password secret\n")
    assert wandb_mode("auto") == "online"
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org")
    assert wandb_mode("auto") == "offline"
    monkeypatch.setenv("WANDB_MODE", "sometimes")
    with pytest.raises(InputError, match=r"WANDB_MODE.*found 'sometimes'"):
        wandb_mode("auto")


class FakeRun:
    """Records what a W&B run is told; fails at the step it was told to."""

    def __init__(self, fail_at=None):
        self.lines, self.summary, self.exit_code, self.fail_at = [], {}, None, fail_at

    def log(self, line, step):
        if step == self.fail_at:
            raise OSError("disk full\nand more")
        self.lines.append((step, line))

    def finish(self, exit_code):
        self.exit_code = exit_code


def fake_wandb(monkeypatch, run):
    """Put a module in wandb's place; returns the arguments that `init` will have got."""
    module, calls = ModuleType("wandb"), []
    module.Settings = type("Settings", (dict,), {"model_fields": {"silent": None}})

    def init(**arguments):
        calls.append(arguments)
        if isinstance(run, Exception):
            raise run
        return run

    module.init = init
    module.Histogram = lambda np_histogram: np_histogram
    monkeypatch.setitem(sys.modules, "wandb", module)
    return calls


def test_wandb_gets_lines_configuration_and_the_final_evaluation(monkeypatch, tmp_path):
    monkeypatch.delenv("WANDB_MODE", raising=False)
    run = FakeRun()
    calls = fake_wandb(monkeypatch, run)
    result = train(replace(CONFIG, wandb="offline"), data(), tmp_path, metadata=METADATA)
    assert calls[0]["mode"] == "offline"
    assert calls[0]["dir"] == str(tmp_path)
    assert calls[0]["settings"] == {"silent": True}
    assert calls[0]["config"]["training"]["alpha"] == CONFIG.alpha
    assert calls[0]["config"]["metadata"]["model_name"] == "tiny"
    assert [step for step, _ in run.lines] == [128, 256, 384, 512, 640]
    assert run.summary["fit/fvu"] == result.fit.fvu
    assert run.exit_code == 0
    # A window of firings is 100 activations: one has ended before every line. The file has no histogram.
    for _, line in run.lines:
        counts, edges = line[DENSITY]
        assert counts.sum() + line[f"{DENSITY}/never"] == result.dictionary.d_sae
        assert edges.tolist() == list(DENSITY_EDGES)
    stored = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert all(isinstance(value, int | float) for line in stored for value in line.values())


def test_a_histogram_is_logged_once_for_every_window_of_firings(monkeypatch, tmp_path):
    monkeypatch.delenv("WANDB_MODE", raising=False)
    run = FakeRun()
    fake_wandb(monkeypatch, run)
    config = replace(CONFIG, wandb="offline", dead_window=250, log_every=2)
    train(config, data(), tmp_path, metadata=METADATA)
    # Windows of 8 batches of 32: whole ones end at 256 and 512 of 640 activations.
    assert [step for step, line in run.lines if DENSITY in line] == [256, 512]


def test_what_a_judge_says_is_stored_and_logged(monkeypatch, tmp_path):
    monkeypatch.delenv("WANDB_MODE", raising=False)
    run, asked = FakeRun(), []
    fake_wandb(monkeypatch, run)
    said = behaviour_of(0.5)

    def judge(dictionaries):
        asked.extend(dictionaries)
        return [said]

    result = train(replace(CONFIG, wandb="offline"), data(), tmp_path, metadata=METADATA, judge=judge)
    assert [d.metadata["hook_name"] for d in asked] == [METADATA.hook_name]
    assert torch.equal(asked[0].W_dec, result.dictionary.W_dec)
    assert result.behaviour is said
    assert load_saelens(result.folder).metadata["evaluation"]["behaviour"] == said.as_json()
    assert run.summary["model_performance_preservation/ce_loss_score"] == 0.5
    silent = train(CONFIG, data(), tmp_path / "other", metadata=METADATA, judge=lambda _: [None])
    assert load_saelens(silent.folder).metadata["evaluation"]["behaviour"] is None


def behaviour_of(score: float) -> BehaviourPreservation:
    """A finding with that CE score."""
    x = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
    both = torch.cat([torch.eye(3), -torch.eye(3)])
    found = reconstruction(Dictionary(both.T.contiguous(), torch.zeros(6), both, torch.zeros(3)), x)
    ce = {"without_sae": 1.0, "with_sae": 3 - 2 * score, "with_ablation": 3.0, "with_mean_ablation": 2.0}
    return BehaviourPreservation(
        site="0.resid_post",
        windows=1,
        tokens=9,
        predictions=8,
        **{f"ce_loss_{name}": value for name, value in ce.items()},
        **{f"kl_div_{name}": value for name, value in list(ce.items())[1:]},
        reconstruction=found,
    )


def test_an_interrupted_run_is_ended_in_wandb_too(monkeypatch, tmp_path):
    monkeypatch.delenv("WANDB_MODE", raising=False)
    run = FakeRun()
    fake_wandb(monkeypatch, run)
    with pytest.raises(Interruption):
        train(replace(CONFIG, wandb="offline"), data(), tmp_path, metadata=METADATA, on_step=stop_at(5))
    assert run.exit_code == 1


@pytest.mark.parametrize("failure", [RuntimeError("no network"), FakeRun(fail_at=256)])
def test_a_failing_wandb_costs_one_line(monkeypatch, tmp_path, failure):
    monkeypatch.delenv("WANDB_MODE", raising=False)
    fake_wandb(monkeypatch, failure)
    reports = []
    result = train(replace(CONFIG, wandb="online"), data(), tmp_path, metadata=METADATA, report=reports.append)
    assert result.steps == 20
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 5
    assert len(reports) == 1
    assert "\n" not in reports[0]
    assert "no network" in reports[0] or "disk full" in reports[0]


def test_disabled_wandb_is_not_even_imported(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "wandb", None)  # an import would raise
    reports = []
    train(CONFIG, data(), tmp_path, metadata=METADATA, report=reports.append)
    assert reports == []


def test_real_offline_wandb_keeps_to_the_folder_and_stays_quiet(monkeypatch, tmp_path, capfd):
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    run = WandbRun("offline", tmp_path / "run", "test", {"a": 1}, pytest.fail)
    run.log({"details/n_training_samples": 5, "x": 1.0})
    run.finish({"fvu": 0.1})
    assert list((tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb"))
    assert list(home.rglob("*")) == []
    assert capfd.readouterr() == ("", "")


def test_metrics_file_drops_lines_after_the_checkpoint(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(f'{{"details/n_training_samples": {n}}}\n' for n in (10, 20, 30)))
    with contextlib.closing(MetricsFile(path, samples=20)) as log:
        log.write({"details/n_training_samples": 25, "x": 0.5})
    assert path.read_text().splitlines()[1:] == [
        '{"details/n_training_samples": 20}',
        '{"details/n_training_samples": 25, "x": 0.5}',
    ]
