"""What units inherit from the stream: massive positions, spread; what a study counts, leaves out and says of them."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from saelens_n2g.bases.base import AffineBasis
from saelens_n2g.bases.neurons import NeuronBasis
from saelens_n2g.corpus import Windows
from saelens_n2g.scoring import Confusion
from saelens_n2g.sites import Site
from saelens_n2g.study.conclusions import conclusions, second_control, without_massive
from saelens_n2g.study.config import SHUFFLED
from saelens_n2g.study.figure import _binned
from saelens_n2g.study.records import MOSTLY, Cell, UnitRecord
from saelens_n2g.study.results import SPREADS, StudyResult
from saelens_n2g.study.stream import Stream, reading
from saelens_n2g.study.table import massive, spread
from saelens_n2g.training.metrics import TYPICAL

WINDOWS, LENGTH, WIDTH = 60, 9, 5
FAR = (3, 44, 201)
"""Scored tokens that are massive, the last one in the test documents."""


def text() -> Windows:
    tokens = np.ones((WINDOWS, LENGTH), dtype=np.int32)
    lengths = np.full(WINDOWS, LENGTH, dtype=np.int32)
    lengths[1] = 4
    return Windows(tokens, lengths, np.arange(WINDOWS, dtype=np.int32), tuple(map(str, range(WINDOWS))), 0, "fake", 0)


@pytest.fixture
def planted():
    """Rows, whose dimensions differ in variance, three of them massive; fit flags; windows."""
    windows = text()
    n = windows.n_tokens
    rows = torch.randn(n, WIDTH, generator=torch.Generator().manual_seed(0)) * torch.tensor([3.0, 1, 1, 0.3, 0.1]) + 5
    rows[list(FAR)] += torch.tensor([0.0, 0, 0, 0, 400.0])
    return rows, np.arange(n) < 190, windows


def test_massive_positions_stand_where_they_are(planted):
    rows, fit, windows = planted
    found = Stream.of(rows, fit, windows)
    place = [(r, p) for r in range(WINDOWS) for p in range(LENGTH) if windows.mask[r, p]]
    assert {tuple(at) for at in np.argwhere(found.massive)} == {place[token] for token in FAR}
    x = rows.double().numpy()
    apart = np.linalg.norm(x - x[fit].mean(0), axis=1)
    far = apart > TYPICAL * np.median(apart[fit])
    assert set(np.flatnonzero(far)) == set(FAR)
    assert found.tokens == pytest.approx(2 / 190)
    assert found.square == pytest.approx((apart[fit & far] ** 2).sum() / (apart[fit] ** 2).sum(), rel=1e-5)


def test_the_share_is_of_firing_positions_in_the_windows_asked_for(planted):
    rows, fit, windows = planted
    found = Stream.of(rows, fit, windows)
    firing = np.zeros_like(found.massive)
    assert found.share(firing, np.arange(WINDOWS)) == 0.0
    firing |= found.massive
    assert found.share(firing, np.arange(WINDOWS)) == 1.0
    row, position = np.argwhere(found.massive)[0]
    firing[row, position % (LENGTH - 1) + 1] = True
    assert found.share(firing, np.array([row])) == 0.5
    assert found.share(firing, np.delete(np.arange(WINDOWS), row)) == 1.0


def test_spread_is_the_variance_along_a_direction(planted):
    rows, fit, windows = planted
    found = Stream.of(rows, fit, windows)
    typical = np.delete(rows.double().numpy(), FAR, axis=0)[: 190 - 2]
    covariance = np.cov(typical.T, bias=True)
    directions = torch.randn(7, WIDTH, generator=torch.Generator().manual_seed(1))
    unit = directions.double().numpy() / np.linalg.norm(directions.double().numpy(), axis=1, keepdims=True)
    plain = np.einsum("ki,ij,kj->k", unit, covariance, unit) / (np.trace(covariance) / WIDTH)
    np.testing.assert_allclose(found.spread(directions), plain, rtol=1e-5)
    np.testing.assert_allclose(found.spread(directions * 7), plain, rtol=1e-5)
    rotation = torch.linalg.qr(torch.randn(WIDTH, WIDTH, generator=torch.Generator().manual_seed(2)))[0]
    assert np.mean(found.spread(rotation)) == pytest.approx(1.0, rel=1e-5)


def test_units_of_another_place_read_no_direction():
    weight = torch.arange(12.0).reshape(4, 3)
    basis = AffineBasis("x", Site(0, "resid_post"), "", weight, torch.zeros(4), torch.zeros(3))
    assert torch.equal(reading(basis, [2, 0]), weight[[2, 0]])
    assert reading(NeuronBasis(Site(0, "mlp_post"), 4), [2, 0]) is None


# --- what a study makes of it ---------------------------------------------------------------------------------


def unit(basis: str, index: int, f1: float, *, spread: float | None = 1.0, massive: float = 0.0) -> UnitRecord:
    metrics = dict.fromkeys(("f1", "precision", "recall", "auprc", "correlation"), f1)
    scores = {name: {t: dict(metrics) for t in ("held_out", "random")} for name in ("graph", SHUFFLED)}
    for text_ in scores[SHUFFLED].values():
        text_["f1"] = 0.9 * f1 if massive >= MOSTLY else 0.0
    return UnitRecord(
        name=f"3.x/{basis}/{index}", index=index, max_activation=1.0, density=0.01, active=0.5, massive=massive,
        spread=spread, fit_firing=50, test_firing=20, exemplars=20, nodes=5, paths=3, failure=None, twin=None,
        shuffled_from=None, text="", scores=scores, counts={"graph": {"random": Confusion(1, 1, 1, 1)}}, fragments={},
        nonzero=None,
    )  # fmt: skip


def study(**bases: list[UnitRecord]) -> StudyResult:
    cells = tuple(
        Cell(3, name, name, "3.x", 99, "", {"examined": len(units), "dead": 0}, 0, 0.03, 0.7, {}, tuple(units))
        for name, units in bases.items()
    )
    known = {"names": list(bases), "layers": [3], "bootstrap_seed": 0, "caliper": 0.25, "exemplar_caliper": 4}
    return StudyResult(cells, known, {})


def by_spread(value: float) -> float:
    """F1 that is a matter of spread alone."""
    return float(np.clip(0.45 + 0.3 * np.log10(value), 0, 1))


def spectrum() -> StudyResult:
    """PCA with a falling spectrum, random directions about 1, F1 by spread alone."""
    rng = np.random.default_rng(0)
    pca = [10.0 ** (1.0 - 0.04 * i) for i in range(70)]
    even = [10.0 ** rng.normal(0, 0.05) for _ in range(40)]
    return study(
        pca=[unit("pca", i, by_spread(s) + 0.01 * (i % 2), spread=s) for i, s in enumerate(pca)],
        random=[unit("random", i, by_spread(s) + 0.01 * (i % 2), spread=s) for i, s in enumerate(even)],
    )


def test_what_goes_with_spread_alone_is_gone_at_equal_spread():
    result = spectrum()
    assert result.mean("pca", "graph", "random", "f1").mean < result.mean("random", "graph", "random", "f1").mean - 0.1
    for one in result.equal_spread:
        spreads = [u.spread for u in result.of("pca")[0].units]
        assert 10 <= one.pairs <= sum(0.4 < s < 2.5 for s in spreads)
        assert abs(one.matched.mean) < 0.03
    assert result.of_spread("pca", "random", 0.0, 0.1).n == sum(s < 0.1 for s in spreads)
    assert sum(result.of_spread("pca", "random", *bounds).n for bounds in SPREADS) == 70
    said = " ".join(second_control(result))
    assert "not below PCA at layers 3" in said
    assert "At equal spread, without units of massive activations." in said
    assert "So spread goes with it" in said
    assert "Massive activations" not in said, "there are none"
    assert "| pca |" in spread(result) or "| PCA directions |" in spread(result)


def test_where_random_is_below_pca_no_reason_is_looked_for():
    result = study(
        pca=[unit("pca", i, 0.8 + 0.01 * (i % 3)) for i in range(20)],
        random=[unit("random", i, 0.3 + 0.01 * (i % 3)) for i in range(20)],
    )
    (said,) = second_control(result)
    assert "PCA directions are easier to explain than Random directions" in said
    assert second_control(study(pca=[unit("pca", 0, 0.5)])) == []


def test_what_spread_does_not_explain_is_not_put_down_to_it():
    result = spectrum()
    (pca, even) = result.cells
    better = [replace(unit("random", u.index, 0.8 + 0.01 * (u.index % 3)), spread=u.spread) for u in even.units]
    said = " ".join(second_control(replace(result, cells=(pca, replace(even, units=tuple(better))))))
    assert "So spread is not all of the reason" in said
    few = " ".join(second_control(study(pca=list(pca.units[:6]), random=better[:6])))
    assert "too few to say anything" in few
    assert "So " not in few


def test_units_of_massive_activations_are_counted_and_left_out():
    calm = [unit("random", i, 0.2 + 0.01 * (i % 3)) for i in range(20)]
    loud = [unit("random", 20 + i, 0.9, massive=0.5 + 0.05 * i) for i in range(10)]
    below = [unit("random", 30, 0.2, massive=MOSTLY - 0.01)]
    pca = [unit("pca", i, 0.45 + 0.01 * (i % 3)) for i in range(31)]
    result = study(pca=pca, random=[*loud, *calm, *below])
    assert (result.massive("random"), result.massive("random", 3), result.massive("pca")) == (10, 10, 0)
    assert result.typical.mean("random", "graph", "random", "f1").n == 21
    plain = np.mean([u.scores["graph"]["random"]["f1"] for u in (*calm, *below)])
    assert result.typical.mean("random", "graph", "random", "f1").mean == pytest.approx(plain)
    assert result.mean("random", SHUFFLED, "random", "f1").high > 0.1
    assert result.typical.mean("random", SHUFFLED, "random", "f1").high == 0.0
    said = " ".join(conclusions(result))
    assert "Without its 10 units of massive activations: 0.00 [0.00, 0.00]." in said
    assert "Random directions 10 of 31 units (layers 3), F1" in said
    assert "PCA directions 0 of 31 units, F1" in said
    (changed,) = without_massive(result)
    assert changed.startswith("Without units of massive activations. PCA directions are easier to explain than Random")
    table = massive(result)
    assert "| Random directions | Random test text | 10 of 31 |" in table
    assert "PCA" not in table
    assert "layer 3 3" in table
    followed = result.followed()
    assert followed["without_massive"]["means"]["random"]["graph"]["random"]["n"] == 21
    assert len(followed["equal_spread"]) == 2


def test_nothing_of_directions_is_said_of_neurons():
    result = study(neurons=[unit("neurons", i, 0.5, spread=None) for i in range(5)])
    assert spread(result) == "No unit reads a direction of the stream."
    assert result.equal_spread == ()
    mixed = study(pca=[unit("pca", 0, 0.5, spread=0.0)], random=[unit("random", 0, 0.5)])
    assert mixed.equal_spread[0].pairs == 0, "no spread, no partner"
    assert replace(result.cells[0].units[0], massive=MOSTLY).of_massive


def test_random_directions_are_one_group_in_the_figure_of_spread():
    """Half decades of spread have no edge at 1; a mark stands in the middle of the units that it is the mean of."""
    spreads = [0.6, 0.9, 1.0, 1.1, 1.7]
    ((middle, values),) = _binned([(s, s / 2) for s in spreads])
    assert middle == pytest.approx(float(np.exp(np.log(spreads).mean())))
    assert values == [s / 2 for s in spreads]
    apart = _binned([(s * scale, 0.5) for scale in (1.0, 10.0) for s in spreads])
    assert [round(at / middle, 6) for at, _ in apart] == [1.0, 10.0]
    assert _binned([(1.0, 0.5)] * 4) == []
