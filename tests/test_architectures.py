"""Architectures: every one against its loss written down plainly, the sparse way against the dense one."""

import math

import pytest
import torch

from saelens_n2g.errors import InputError
from saelens_n2g.training.architectures.batchtopk import largest
from saelens_n2g.training.architectures.jumprelu import JumpReluOptions
from saelens_n2g.training.architectures.matryoshka import MatryoshkaOptions
from saelens_n2g.training.architectures.registry import MODULES, architectures, find_architecture
from saelens_n2g.training.architectures.topk import TopKOptions
from saelens_n2g.training.objective import Start
from saelens_n2g.training.sparse import DensePattern, SparsePattern, pattern_of

D, N, B, ALPHA = 6, 24, 40, 0.03
OPTIONS = {
    "topk": TopKOptions(k=4, aux_k=3),
    "batchtopk": TopKOptions(k=4, aux_k=3),
    "matryoshka": MatryoshkaOptions(k=4, aux_k=3, prefixes=(0.25, 0.5, 1.0)),
    "jumprelu": JumpReluOptions(threshold=0.3, bandwidth=0.25),
}
STATED = [name for name in architectures() if name != "tied"]

pytestmark = pytest.mark.usefixtures("one_thread")


def batch(seed=0, rows=B):
    return torch.randn(rows, D, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def build(name, *, densest=1.0, alpha=ALPHA):
    """An objective in float64 away from its start, where offsets, biases and norms are not those of the first step."""
    start = Start(
        d=D, n=N, alpha=alpha, lr=1e-2, seed=1, dead_after=100, dtype=torch.float64, options=OPTIONS.get(name)
    )
    objective = find_architecture(name).build(start)
    objective.densest = densest
    draws = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in getattr(objective, "parameters", {}).values():
            parameter += 0.2 * torch.randn(parameter.shape, dtype=torch.float64, generator=draws)
    return objective


# --- the losses, as their papers state them -----------------------------------------------------------------------


def parts_of(own, y):
    """Pre-activations, unit decoder rows."""
    unit = own["decoder"] / own["decoder"].norm(dim=1, keepdim=True)
    return torch.einsum("bd,nd->bn", y - own["offset"], own["encoder"]) + own["bias"], unit


def mse(own, code, unit, y):
    return (torch.einsum("bn,nd->bd", code, unit) + own["offset"] - y).pow(2).mean()


def relu_loss(own, y, _dead):
    before, unit = parts_of(own, y)
    code = before.clamp(min=0)
    return mse(own, code, unit, y) + ALPHA * code.abs().sum(1).mean()


def auxiliary(own, y, before, unit, code, dead):
    """The dead features' loss: what the best of them leave of the error of the others."""
    if not dead.any():
        return 0.0
    error = (y - code @ unit - own["offset"]).detach()
    silent = torch.where(dead, before, -math.inf)
    kept = torch.zeros_like(before)
    for row in range(len(before)):
        for at in silent[row].topk(min(3, int(dead.sum()))).indices:
            kept[row, at] = before[row, at].clamp(min=0)
    return min(1.0, int(dead.sum()) / 3) / 32 * (kept @ unit - error).pow(2).mean()


def topk_code(before, k=4):
    mask = torch.zeros_like(before)
    for row in range(len(before)):
        mask[row, before[row].topk(k).indices] = 1
    return before.clamp(min=0) * mask


def batchtopk_code(before, k=4):
    bound = before.flatten().sort(descending=True).values[k * len(before) - 1]
    return before.clamp(min=0) * (before >= bound)


def topk_loss(own, y, dead):
    before, unit = parts_of(own, y)
    code = topk_code(before)
    return mse(own, code, unit, y) + auxiliary(own, y, before, unit, code, dead)


def batchtopk_loss(own, y, dead):
    before, unit = parts_of(own, y)
    code = batchtopk_code(before)
    return mse(own, code, unit, y) + auxiliary(own, y, before, unit, code, dead)


def matryoshka_loss(own, y, dead):
    before, unit = parts_of(own, y)
    code = batchtopk_code(before)
    errors = [mse(own, code[:, :m], unit[:m], y) for m in (6, 12, 24)]
    return sum(errors) / 3 + auxiliary(own, y, before, unit, code, dead)


def jumprelu_loss(own, y, _dead):
    """The derivatives by the threshold are put in by hand: zero in value, -theta/eps and -1/eps in slope."""
    before, unit = parts_of(own, y)
    theta, positive = own["log_threshold"].exp(), before.clamp(min=0)
    fires = (positive > theta).double()
    window = ((positive - theta).abs() < 0.125).double().detach() / 0.25 * (positive > 0)
    slope = theta - theta.detach()
    code = positive * fires - theta.detach() * window * slope
    active = fires - window * slope
    return mse(own, code, unit, y) + ALPHA * active.sum(1).mean()


def gated_loss(own, y, _dead):
    gate, unit = parts_of(own, y)
    linear = torch.einsum("bd,nd->bn", y - own["offset"], own["encoder"])
    magnitude = (own["r_mag"].exp() * linear + own["b_mag"]).clamp(min=0)
    code, open_gate = (gate > 0) * magnitude, gate.clamp(min=0)
    frozen = (open_gate @ unit.detach() + own["offset"].detach() - y).pow(2).mean()
    return mse(own, code, unit, y) + ALPHA * open_gate.sum(1).mean() + frozen


LOSSES = {name: globals()[f"{name}_loss"] for name in STATED}


@pytest.mark.parametrize("densest", [-1.0, 1.0])
@pytest.mark.parametrize("dead", [0, 2, 5])
@pytest.mark.parametrize("name", STATED)
def test_gradients_are_those_of_the_stated_loss(name, dead, densest):
    objective, y = build(name, densest=densest), batch()
    silent = torch.zeros(N, dtype=torch.bool)
    silent[3 : 3 + dead] = True
    if "since" in objective.more_state():
        objective.more_state()["since"][silent] = 100
    own = {key: value.detach().clone().requires_grad_() for key, value in objective.parameters.items()}
    expected = LOSSES[name](own, y, silent)
    expected.backward()
    found = objective.gradients(y)
    whole = found.mse + sum(found.parts.values())
    torch.testing.assert_close(whole.detach(), expected.detach(), rtol=1e-12, atol=0)
    for key, value in own.items():
        torch.testing.assert_close(objective.parameters[key].grad, value.grad, rtol=1e-9, atol=1e-13, msg=key)
        assert value.grad.abs().max() > 0, key


@pytest.mark.parametrize("name", architectures())
def test_steps_do_not_depend_on_the_way_that_is_taken(name):
    objectives = [build(name, densest=densest) for densest in (-1.0, 1.0)]
    for seed in range(8):
        one, other = (objective.step(batch(seed)) for objective in objectives)
        assert float(one.l0) == float(other.l0) > 0
        torch.testing.assert_close(one.loss, other.loss, rtol=1e-9, atol=0)
        torch.testing.assert_close(one.fired.double(), other.fired.double())
    one, other = (objective.state() for objective in objectives)
    assert one.keys() == other.keys()
    for key in one:
        torch.testing.assert_close(one[key], other[key], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", architectures())
def test_state_is_everything_that_the_next_step_depends_on(name):
    objective = build(name)
    for seed in range(4):
        objective.step(batch(seed))
    kept = {key: value.clone() for key, value in objective.state().items()}
    ahead = [objective.step(batch(seed)).loss for seed in range(4, 8)]
    other = build(name, alpha=ALPHA)
    other.step(batch(99))
    other.load_state(kept)
    assert [other.step(batch(seed)).loss for seed in range(4, 8)] == ahead
    assert all(torch.equal(value, other.state()[key]) for key, value in objective.state().items())


@pytest.mark.parametrize("name", architectures())
def test_training_lowers_the_loss_and_metrics_add_up(name):
    objective, y = build(name, alpha=1e-3), batch(rows=200)
    losses = []
    for _ in range(150):
        metrics = objective.step(y)
        assert float(metrics.loss) == pytest.approx(float(metrics.mse) + sum(map(float, metrics.parts.values())))
        losses.append(float(metrics.loss))
    assert losses[-1] < 0.5 * losses[0]
    assert float(metrics.variance) == pytest.approx(float(y.var(0, correction=0).mean()))
    assert float(metrics.fired.sum()) == pytest.approx(200 * float(metrics.l0))


CODES = {
    "relu": lambda _own, before, _y: before.clamp(min=0),
    "topk": lambda _own, before, _y: topk_code(before),
    "jumprelu": lambda own, before, _y: before * (before > own["log_threshold"].exp()),
    "gated": lambda own, before, y: (
        (before > 0) * (own["r_mag"].exp() * ((y - own["offset"]) @ own["encoder"].T) + own["b_mag"]).clamp(min=0)
    ),
}


@pytest.mark.parametrize("name", CODES)
def test_dictionaries_take_raw_activations_and_give_what_was_trained(name):
    objective, mean, scale = build(name), torch.linspace(-3, 5, D, dtype=torch.float64), 0.25
    for seed in range(5):
        objective.step(batch(seed))
    y = batch(50)
    own = {key: value.detach() for key, value in objective.parameters.items()}
    before, unit = parts_of(own, y)
    code = CODES[name](own, before, y)
    dictionary = objective.dictionary(mean, scale)
    x = y / scale + mean
    torch.testing.assert_close(scale * dictionary.encode(x), code, rtol=1e-9, atol=1e-12)
    rebuilt = scale * (dictionary.decode(dictionary.encode(x)) - mean)
    torch.testing.assert_close(rebuilt, code @ unit + own["offset"], rtol=1e-9, atol=1e-12)
    assert (code > 0).any()


@pytest.mark.parametrize("name", ["batchtopk", "matryoshka"])
def test_the_threshold_stands_in_for_the_batch(name):
    objective = build(name)
    for seed in range(300):
        objective.step(batch(seed, rows=200))
    x = batch(1000, rows=2000) / 0.5 + 1.0
    dictionary = objective.dictionary(torch.ones(D, dtype=torch.float64), 0.5)
    assert dictionary.architecture == "jumprelu"
    assert float((dictionary.encode(x) > 0).sum(1).double().mean()) == pytest.approx(4, rel=0.1)


def test_dead_features_come_back_to_life():
    """One feature is made too weak to be chosen; with the auxiliary loss it grows, without it does not."""
    silent = {}
    for weight in (0.0, 1.0):
        options = TopKOptions(k=2, aux_weight=weight)
        start = Start(d=D, n=N, lr=3e-2, seed=1, dead_after=400, dtype=torch.float64, options=options)
        objective = find_architecture("topk").build(start)
        with torch.no_grad():
            objective.parameters["encoder"][5] *= 0.02  # too weak to be among the k largest, but not silent
        for step in range(150):
            fired = objective.step(batch(step)).fired
        silent[weight] = float(fired[5])
    assert silent[0.0] == 0 < silent[1.0]


# --- patterns ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.0, 0.05, 0.5, 1.0])
def test_sparse_patterns_do_what_dense_ones_do(share):
    draws = torch.Generator().manual_seed(3)
    active = torch.rand(B, N, generator=draws) < share
    matrix, w = (torch.randn(*size, generator=draws, dtype=torch.float64) for size in ((B, N), (N, D)))
    x, per = batch(), torch.randn(N, generator=draws, dtype=torch.float64)
    sparse, dense = pattern_of(active, densest=1.0), pattern_of(active, densest=-1.0)
    assert (type(sparse), type(dense)) == (SparsePattern, DensePattern)

    def whole(values, mask=active):
        if values.ndim == 2:
            return values
        return torch.zeros(mask.shape, dtype=torch.float64).masked_scatter(mask, values)

    values = {p: p.values(matrix) for p in (sparse, dense)}
    torch.testing.assert_close(whole(values[sparse]), values[dense])
    for call in (
        lambda p: p.decode(values[p], w),
        lambda p: whole(p.at(x, w)),
        lambda p: p.transposed(values[p], x),
        lambda p: p.transposed(values[p], x, out=torch.ones(N, D, dtype=torch.float64)),
        lambda p: p.by_feature(values[p]),
        lambda p: whole(p.spread(per)),
        lambda p: p.fired(),
    ):
        torch.testing.assert_close(call(sparse), call(dense), rtol=1e-12, atol=1e-12)
    for start, stop in ((0, 5), (5, 24), (7, 8)):
        parts = [p.part(start, stop) for p in (sparse, dense)]
        one, other = (
            part.pattern.decode(part.values(values[p]), w[start:stop]) for part, p in zip(parts, values, strict=True)
        )
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_dense_is_taken_where_many_are_active():
    active = torch.zeros(10, 10, dtype=torch.bool)
    active[:, 0] = True
    assert pattern_of(active, densest=0.1).sparse
    assert not pattern_of(active, densest=0.09).sparse


def test_the_largest_of_a_batch():
    values = torch.tensor([[3.0, 1.0, 2.0], [2.0, 2.0, 0.0]])
    assert largest(values, 1).nonzero().tolist() == [[0, 0]]
    assert largest(values, 3).nonzero().tolist() == [[0, 0], [0, 2], [1, 0]], "of equal ones the first"
    assert largest(values, 6).all()
    assert largest(values, 99).all()


# --- registry ---------------------------------------------------------------------------------------------------


def test_every_architecture_has_a_file_of_its_own():
    assert tuple(architectures()) == MODULES


@pytest.mark.parametrize(
    ("name", "options", "named"),
    [
        ("topk", {"k": 0}, "k"),
        ("topk", {"aux_weight": -1}, "aux_weight"),
        ("topk", {"kk": 3}, "kk"),
        ("tied", {"k": 3}, "options resample_every, resample_until, found k"),
        ("jumprelu", {"bandwidth": 0}, "bandwidth"),
        ("matryoshka", {"prefixes": [0.5, 0.25, 1]}, "prefixes"),
        ("matryoshka", {"prefixes": [0.5]}, "prefixes"),
    ],
)
def test_impossible_options_are_refused(name, options, named):
    with pytest.raises(InputError, match=named):
        find_architecture(name).make_options(options)


def test_more_active_than_there_are_is_refused():
    with pytest.raises(InputError, match="at most the number of features"):
        find_architecture("topk").build(Start(d=2, n=4, options=TopKOptions(k=5)))
    with pytest.raises(InputError, match="one of tied"):
        find_architecture("vanilla")
