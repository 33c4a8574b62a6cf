"""Precision and compilation: what is rounded, what is not, and that the default rounds nothing."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from saelens_n2g.bases.formats import SaeMetadata
from saelens_n2g.errors import InputError
from saelens_n2g.training import TrainingConfig, train
from saelens_n2g.training.architectures import tied
from saelens_n2g.training.architectures.registry import architectures, find_architecture
from saelens_n2g.training.architectures.topk import TopKOptions
from saelens_n2g.training.objective import Start
from saelens_n2g.training.products import Products, RoundedProducts, product
from saelens_n2g.training.rows import Statistics
from saelens_n2g.training.run import Run
from saelens_n2g.training.sparse import SparsePattern, pattern_of

D, N, B = 32, 96, 64
HALF = torch.bfloat16
METADATA = SaeMetadata("tiny", "blocks.0.hook_resid_post", 16, True)

pytestmark = pytest.mark.usefixtures("one_thread")


def batch(seed=0, rows=B, dtype=torch.float32):
    return torch.randn(rows, D, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def build(name, **options):
    start = {"d": D, "n": N, "alpha": 1e-2, "lr": 3e-3, "seed": 1, "dead_after": 100}
    return find_architecture(name).build(Start(**{**start, **options}))


def gradients(objective, y):
    objective.gradients(y)
    own = getattr(objective, "parameters", None) or {"encoder": objective.encoder, "bias": objective.bias}
    return {name: parameter.grad.clone() for name, parameter in own.items()}


def apart(one, other):
    return ((one.double() - other.double()).norm() / other.double().norm()).item()


# --- products -----------------------------------------------------------------------------------------------------


def test_rounded_products_are_those_of_rounded_factors():
    a, b, bias = batch(0), batch(1).T.contiguous()[:, :20], torch.linspace(-3, 3, 20)
    exact = a.to(HALF).double() @ b.to(HALF).double()
    products, out = RoundedProducts(HALF), torch.empty(B, 20)
    factors = products.operand("a", a), products.operand("b", b)
    # The result of a product is rounded once, to 8 bits.
    near = {"rtol": 2**-8, "atol": 1e-6}
    torch.testing.assert_close(products.into(out, *factors).double(), exact, **near)
    assert out.dtype == torch.float32
    assert torch.equal(out, product(a, b, HALF))
    assert torch.equal(products.with_bias(torch.empty(B, 20), bias, *factors), out + bias)
    assert torch.equal(products.added(torch.ones(B, 20), *factors), out + 1)
    assert factors[0].dtype == factors[1].dtype == HALF
    assert products.operand("a", batch(2)).data_ptr() == factors[0].data_ptr()
    assert Products().operand("a", a) is a


# --- gradients ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", architectures())
def test_bfloat16_gradients_are_near_and_exact_ones_nearer(name):
    """A few per cent; most where a choice hangs on the values, as which features are largest."""
    y = batch(3, dtype=torch.float64)
    truth = gradients(build(name, dtype=torch.float64), y)
    exact, half = gradients(build(name), y.float()), gradients(build(name, operands=HALF), y.float())
    for key, grad in truth.items():
        assert exact[key].dtype == half[key].dtype == torch.float32
        assert apart(exact[key], grad) < 2e-5, key
        assert 1e-4 < apart(half[key], grad) < 0.05, key


@pytest.mark.parametrize("name", architectures())
def test_all_that_is_kept_is_float32(name):
    one, other = build(name), build(name, operands=HALF)
    for seed in range(4):
        one.step(batch(seed))
        metrics = other.step(batch(seed))
    assert {k: v.dtype for k, v in one.state().items()} == {k: v.dtype for k, v in other.state().items()}
    assert HALF not in {v.dtype for v in other.state().values()}
    assert {metrics.mse.dtype, metrics.loss.dtype, metrics.variance.dtype} == {torch.float32}
    dictionary = other.dictionary(torch.zeros(D), 1.0)
    assert {dictionary.W_enc.dtype, dictionary.b_enc.dtype, dictionary.W_dec.dtype} == {torch.float32}
    # Masters: updates far below the resolution of bfloat16 are not lost.
    encoder = one.state()["encoder"]
    assert (other.state()["encoder"].to(HALF).float() != other.state()["encoder"]).float().mean() > 0.9
    assert encoder.shape == other.state()["encoder"].shape


@pytest.mark.parametrize("name", ["tied", "relu", "topk"])
def test_bfloat16_never_takes_the_sparse_way(monkeypatch, name):
    """There are no sparse kernels for it."""
    objectives = [
        build(name, operands=operands, options=TopKOptions(k=4) if name == "topk" else None)
        for operands in (None, HALF)
    ]
    for objective in objectives:
        objective.densest = 1.0
    monkeypatch.setattr(SparsePattern, "__init__", lambda *_: pytest.fail("sparse"))
    objectives[1].step(batch())
    with pytest.raises(pytest.fail.Exception):
        objectives[0].step(batch())
    assert not pattern_of(torch.zeros(3, 4, dtype=torch.bool), operands=HALF).sparse


# --- runs ---------------------------------------------------------------------------------------------------------


def planted(rows=8000, d=24, n=32):
    draws = torch.Generator().manual_seed(0)
    directions = torch.nn.functional.normalize(torch.randn(n, d, generator=draws), dim=1)
    code = torch.rand(rows, n, generator=draws) * (torch.rand(rows, n, generator=draws) < 0.06)
    return code @ directions + 0.5


CONFIG = TrainingConfig(
    expansion=2.0, alpha=0.02, lr=1e-2, batch=256, samples=256 * 300, checkpoint_every=0, wandb="disabled"
)


@pytest.mark.parametrize("name", ["tied", "relu"])
def test_a_bfloat16_run_ends_near_a_float32_one(tmp_path, name):
    rows, found = planted(), {}
    for precision in ("highest", "bfloat16"):
        config = replace(CONFIG, precision=precision, architecture=name)
        found[precision] = train(config, rows, tmp_path / precision, metadata=METADATA)
    one, other = (found[precision].fit for precision in ("highest", "bfloat16"))
    assert one.fvu < 0.3
    assert abs(one.fvu - other.fvu) < 0.01
    assert one.fvu != other.fvu
    assert abs(one.l0 - other.l0) < 0.05 * one.l0


@pytest.mark.parametrize(
    ("precision", "inside"), [("highest", "highest"), ("bfloat16", "highest"), ("high", "high"), ("medium", "medium")]
)
def test_the_precision_that_is_asked_for_holds_within_the_run_alone(tmp_path, precision, inside):
    """Whatever was set outside: TF32 or bfloat16 must not get in where float32 was asked for."""
    found, before = set(), torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium" if inside == "highest" else "highest")
    outside = torch.get_float32_matmul_precision()
    try:
        train(
            replace(CONFIG, precision=precision, samples=256 * 4),
            planted(600),
            tmp_path,
            metadata=METADATA,
            on_step=lambda *_: found.add(torch.get_float32_matmul_precision()),
        )
        assert found == {inside}
        assert torch.get_float32_matmul_precision() == outside
    finally:
        torch.set_float32_matmul_precision(before)


def test_highest_computes_float32_and_bfloat16_does_not():
    """By what the gradients are, not by what the settings say."""
    data = Statistics(torch.zeros(D, dtype=torch.float64), float(D))
    truth = gradients(build("tied", n=2 * D, seed=0, dtype=torch.float64), batch(5, dtype=torch.float64))
    found = {}
    for precision in ("highest", "bfloat16"):
        run = Run(replace(CONFIG, precision=precision, alpha=1e-2, normalise=False, batch=B), data)
        found[precision] = apart(gradients(run.objective, batch(5))["encoder"], truth["encoder"])
    assert found["highest"] < 1e-6
    assert found["bfloat16"] > 1e-3


def test_precision_is_of_a_run_compilation_is_not():
    assert replace(CONFIG, precision="bfloat16").identity() != CONFIG.identity()
    assert replace(CONFIG, compile=True).identity() == CONFIG.identity()
    assert replace(CONFIG, compile=True).as_json()["compile"] is True


# --- compilation --------------------------------------------------------------------------------------------------


def compiled(backend):
    """What a compiled objective does beside one written by hand, printed as JSON. Run in a process of its own, because
    the compiler cannot read through the checks of shapes that tests put around every function."""
    torch.set_num_threads(1)
    tied.COMPILER = backend
    found = {"encoder": [], "bias": [], "loss": [], "fired": []}
    by_hand, other = build("tied"), build("tied", compile=True)
    for objective in (by_hand, other):
        objective.bias.fill_(-0.1)
    for alpha in (1e-2, 3e-2):  # as where alpha is warmed up
        by_hand.alpha = other.alpha = alpha
        expected, metrics = by_hand.gradients(batch()), other.gradients(batch())
        found["encoder"].append(apart(other.encoder.grad, by_hand.encoder.grad))
        found["bias"].append(apart(other.bias.grad, by_hand.bias.grad))
        found["loss"].append(apart(metrics.loss, expected.loss))
        found["fired"].append(torch.equal(metrics.fired, expected.fired) and metrics.l0.item() == expected.l0.item())
    for objective in (by_hand, other):
        objective.step(batch(1))
    found["steps"] = apart(other.encoder, by_hand.encoder)
    half = [gradients(build("tied", operands=HALF, compile=flag), batch())["encoder"] for flag in (False, True)]
    plain = gradients(build("tied"), batch())["encoder"]
    found["half"] = [apart(*half), apart(half[1], plain)]
    print(json.dumps(found))


def test_compiled_gradients_are_those_written_by_hand():
    backend = "aot_eager" if shutil.which("g++") is None else "inductor"  # the latter writes C++
    root = Path(__file__).resolve().parent.parent
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(
        [sys.executable, __file__, backend], env=environment, capture_output=True, text=True, check=False, timeout=300
    )
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout)
    assert max(found["encoder"] + found["bias"] + found["loss"]) < 1e-5
    assert found["fired"] == [True, True]
    assert found["steps"] < 1e-4
    same, rounded = found["half"]
    assert same < 5e-3 < rounded < 0.05


def test_what_cannot_be_compiled_says_so():
    for name in architectures():
        if name != "tied":
            with pytest.raises(
                InputError, match=f"compile: expected an architecture written by hand .tied., found {name}"
            ):
                build(name, compile=True)


if __name__ == "__main__":
    compiled(sys.argv[1])
