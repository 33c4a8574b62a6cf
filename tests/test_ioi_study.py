"""The IOI analysis of a site: curves of a basis, what is reported of them."""

import json
import re

import numpy as np
import pytest
import torch
from tiny import HIDDEN, write_model

from saelens_n2g.bases.dictionary import Dictionary
from saelens_n2g.bases.directions import pca_basis
from saelens_n2g.bases.sae import sae_basis
from saelens_n2g.causal.ioi import NAMES, Performance, ioi_task
from saelens_n2g.causal.ioi_report import in_short, markdown, render, staircase, verdict, write_report
from saelens_n2g.causal.ioi_result import IoiResult
from saelens_n2g.causal.patching import Measured, codes_of, patching, signed_pairs
from saelens_n2g.causal.searches import THRESHOLDS, Point, acdc, by_effect, ends
from saelens_n2g.causal.shares import apart, closed
from saelens_n2g.causal.study import (
    SIDES,
    SIZES,
    Curves,
    IoiConfig,
    Massive,
    Prompts,
    massive,
    rebuilt,
    run_basis,
    unique,
)
from saelens_n2g.errors import ArtefactError, InputError
from saelens_n2g.sites import Site
from saelens_n2g.subject import Subject
from saelens_n2g.training.metrics import typical_limit
from saelens_n2g.training.rows import ArrayRows

SITE = Site(1, "resid_post")
WORDS = {word: i + 5 for i, word in enumerate(NAMES)}
SMALL = IoiConfig(prompts=4, thresholds=(1e-3, 1e-2, 1.0), max_runs=60)
GOOD, BAD = (Performance(24, preferred, 0.5, 1.0, 0.25) for preferred in (0.9, 0.6))


@pytest.fixture(scope="module")
def subject(tmp_path_factory):
    return Subject.load(str(write_model(tmp_path_factory.mktemp("model"))), device="cpu")


def draw(subject, seed: int):
    def encode(text: str) -> list[int]:
        return [WORDS.get(word.strip(",."), 3) for word in text.split()]

    return ioi_task(encode, bos_id=subject.bos_id, pad_id=subject.pad_id, prompts=4, seed=seed)


@pytest.fixture(scope="module")
def prompts(subject):
    return Prompts(draw(subject, 0), draw(subject, 1))


@pytest.fixture(scope="module")
def task(prompts):
    return prompts.fit


@pytest.fixture(scope="module")
def rows(subject):
    ids = torch.randint(2, subject.d_vocab, (20, 20), generator=torch.Generator().manual_seed(0))
    return subject.activations(ids, [SITE])[SITE].flatten(0, 1).clone()


@pytest.fixture(scope="module")
def sae(rows):
    generator = torch.Generator().manual_seed(1)
    weight = torch.nn.functional.normalize(torch.randn(50, HIDDEN, generator=generator), dim=1)
    return sae_basis(SITE, Dictionary.from_tied(weight, torch.full((50,), -0.1), rows.mean(0)))


@pytest.fixture(scope="module")
def curves(subject, prompts, rows, sae):
    pca = pca_basis(SITE, rows, rows.mean(0))
    facts = rebuilt(subject, prompts.fit, SITE, sae)
    return (
        run_basis(subject, prompts, SITE, codes_of(sae, "one | two"), SMALL, facts=facts),
        run_basis(subject, prompts, SITE, signed_pairs(pca, "PCA, signed"), SMALL),
    )


def result_of(curves, known=GOOD) -> IoiResult:
    about = {"subject": {"model": "tiny"}}
    return IoiResult(SITE, known, Massive(1, 40, 0.25, 0.125), tuple(curves), SMALL, about)


def bare(points) -> list[tuple]:
    return [(p.features, p.found, p.threshold) for p in points]


def test_the_curves_are_those_of_the_parts(subject, prompts, sae, curves):
    with patching(subject, prompts.fit, SITE, codes_of(sae)) as problem:
        chosen = ends(problem)
        ranked = by_effect(problem, SMALL.sizes)
        found = acdc(problem, thresholds=SMALL.thresholds, order="effect", group=64, max_runs=60)
        runs = problem.runs
    one = curves[0]
    assert bare([one.nothing, one.everything]) == bare(chosen)
    assert bare(one.ranked) == bare(ranked)
    assert bare(one.acdc) == bare(found)
    assert one.differ == len(one.everything.features)
    assert one.n_features == 50
    assert runs < one.runs <= runs + 2 + 2 * len(SMALL.sizes)
    whole = [curves[1].closed(curves[1].everything, side, 0) for side in SIDES]
    assert [w.mean for w in whole] == pytest.approx([1, 1], abs=1e-4), "a rotation leaves nothing out"


def test_sets_are_measured_on_held_out_prompts_by_their_features(subject, prompts, sae, curves):
    one = curves[0]
    with patching(subject, prompts.held, SITE, codes_of(sae)) as problem:
        assert one.nothing.held == problem.nothing
        assert one.everything.held == problem.everything
        for point in one.ranked[:-1]:
            assert point.held == problem.measure(problem.of(point.features))
        measured = [p for p in one.acdc if p.held is not None]
        for point in measured[1:]:
            assert point.held == problem.measure(problem.of(point.features))
    for k in SMALL.sizes:
        chosen = one.chosen(k)
        assert chosen["ranked"].held is not None
        small = [p.kl for p in one.acdc if 0 < len(p.features) <= k]
        assert (chosen["acdc"] is None) == (not small)
        if small:
            assert chosen["acdc"].kl == min(small)
            assert chosen["acdc"] in measured
    assert len(measured) < len(one.acdc), "a run for every set is what is saved"


def test_shares_of_the_gap_by_hand():
    def point(n: int, *kls: float, held: float = 1.0) -> Point:
        return Point(tuple(range(n)), Measured(kls, 1.0), held=Measured((held, held), 1.0))

    ranked = (point(1, 3.0, 3.0), point(8, 3.0, 1.0), point(16, 3.0, 2.0), point(100, 0.3, 0.1))
    found = (point(100, 0.3, 0.1), point(20, 1.0, 1.0), point(10, 2.2, 2.2), point(0, 5.0, 3.0))
    one = Curves("x", 200, 100, point(0, 5.0, 3.0, held=2.0), ranked[-1], found, ranked, 9)

    def means(k: int, side: str) -> list[float | None]:
        return [None if p is None else one.closed(p, side, 0).mean for p in one.chosen(k).values()]

    assert means(8, "fit") == [0.5, None]
    assert means(16, "fit") == pytest.approx([0.375, 0.45])
    assert means(32, "fit") == pytest.approx([0.375, 0.75])
    assert means(128, "fit") == pytest.approx([0.95, 0.95])
    assert means(8, "held_out") == [0.5, None]


def test_intervals_are_of_prompts_drawn_together():
    """Against resampling written out, and paired intervals against what pairing is for."""
    rng = np.random.default_rng(0)
    gap = rng.uniform(1, 4, 12)
    a, b = gap * rng.uniform(0.2, 0.8, 12), gap * rng.uniform(0.3, 0.9, 12)
    nothing, first, second = (Measured(tuple(x), 1.0) for x in (gap, a, b))
    draws = rng.integers(0, 12, (20_000, 12))
    for found, values in (
        (closed(nothing, first, seed=1), 1 - a[draws].sum(1) / gap[draws].sum(1)),
        (apart(nothing, first, second, seed=1), (b - a)[draws].sum(1) / gap[draws].sum(1)),
    ):
        assert [found.low, found.high] == pytest.approx(np.percentile(values, [2.5, 97.5]), abs=0.01)
        assert found.n == 12
    assert closed(nothing, first, seed=1).mean == pytest.approx(1 - a.mean() / gap.mean())
    ones = [closed(nothing, one, seed=1) for one in (first, second)]
    assert apart(nothing, first, second, seed=1).mean == pytest.approx(ones[0].mean - ones[1].mean)
    same = Measured(tuple(a + 0.1 * gap), 1.0)
    steady = apart(nothing, first, same, seed=1)
    assert (steady.low, steady.high) == pytest.approx((0.1, 0.1)), "what both share is no uncertainty"
    assert closed(nothing, nothing, seed=1).mean == 0


def test_dictionaries_against_components(curves):
    result = result_of(curves)
    found = result.versus()
    assert [(v.dictionary, v.other, v.method, v.k) for v in found] == [
        ("one | two", "PCA, signed", method, k) for method in ("ranked", "acdc") for k in SIZES
    ]
    some = [v for v in found if v.held_out is not None]
    assert len(some) >= len(SIZES)
    for one in some:
        points = [c.chosen(one.k)[one.method] for c in curves]
        for side in SIDES:
            values = [c.closed(p, side, 0).mean for c, p in zip(curves, points, strict=True)]
            assert getattr(one, side).mean == pytest.approx(values[0] - values[1])


def test_staircases_hold_what_was_reached():
    def point(n: int, kl: float) -> Point:
        return Point(tuple(range(n)), Measured((kl,), 1.0))

    points = [point(9, 0.1), point(7, 0.5), point(5, 0.3), point(2, 0.9), point(0, 1.0)]
    sizes, lows = staircase(points)
    assert (sizes, lows) == ([2, 5, 9, 9], [0.9, 0.3, 0.1, 0.1])


def test_curves_come_back_as_they_were(curves):
    for one in curves:
        value = json.loads(json.dumps(one.as_json()))
        assert Curves.from_json(value, "file x") == one
    with pytest.raises(ArtefactError, match=r"file x: expected curves of a basis, found KeyError: 'name'"):
        Curves.from_json({}, "file x")


def test_what_a_dictionary_misses(subject, task, sae):
    """One that rebuilds everything misses nothing; otherwise by hand, position by position."""
    both = torch.cat([torch.eye(HIDDEN), -torch.eye(HIDDEN)])
    whole = Dictionary(both.T.contiguous(), torch.zeros(2 * HIDDEN), both, torch.zeros(HIDDEN))
    found = rebuilt(subject, task, SITE, sae_basis(SITE, whole))
    assert found["fvu"] < 1e-10
    assert found["fvu_edit"] < 1e-10
    assert found["l0"] == pytest.approx(HIDDEN)
    x, other = (subject.activations(ids, [SITE])[SITE] for ids in (task.ids, task.counterfactual_ids))
    pairs = [(x[i, at], other[i, at]) for i, last in enumerate(task.last.tolist()) for at in range(1, last + 1)]
    mean = torch.stack([a for a, _ in pairs]).mean(0)
    missed = sum((sae.decode(sae.encode(a)) - a).square().sum() for a, _ in pairs)
    edit = sum(((sae.decode(sae.encode(b)) - sae.decode(sae.encode(a))) - (b - a)).square().sum() for a, b in pairs)
    found = rebuilt(subject, task, SITE, sae)
    assert found["fvu"] == pytest.approx((missed / sum((a - mean).square().sum() for a, _ in pairs)).item(), rel=1e-3)
    assert found["fvu_edit"] == pytest.approx((edit / sum((b - a).square().sum() for a, b in pairs)).item(), rel=1e-3)


def test_massive_positions_by_hand(subject, task, rows):
    mean = rows.mean(0)
    limit = 3 * float((rows - mean).norm(dim=1).median())
    assert typical_limit(ArrayRows(rows), mean) == pytest.approx(limit)
    assert massive(subject, task, SITE, mean, limit) == Massive(0, int(task.last.sum()), 0.0, 0.0)
    x, other = (subject.activations(ids, [SITE])[SITE] for ids in (task.ids, task.counterfactual_ids))
    apart = [
        ((x[i, at] - mean).norm().item(), (other[i, at] - x[i, at]).square().sum().item())
        for i, last in enumerate(task.last.tolist())
        for at in range(1, last + 1)
    ]
    limit = sorted(a for a, _ in apart)[-5] - 3e-6
    found = massive(subject, task, SITE, mean, limit)
    far = [(a, e) for a, e in apart if a > limit]
    assert found.positions == len(far) == 5
    assert found.variance == pytest.approx(sum(a * a for a, _ in far) / sum(a * a for a, _ in apart), rel=1e-4)
    assert found.edit == pytest.approx(sum(e for _, e in far) / sum(e for _, e in apart), rel=1e-4, abs=1e-9)


def test_settings():
    assert IoiConfig(thresholds=THRESHOLDS, order="random", group=1, prompts=50).differences() == [
        "50 prompts to choose sets on (theirs: 50) and 50 others to measure them on (theirs: none), with templates and "
        "names of our own."
    ]
    assert len(IoiConfig().differences()) == 4
    for options, message in (
        ({"prompts": 0}, "integers >= 1"),
        ({"sizes": (8, 16)}, "rising numbers"),
    ):
        with pytest.raises(InputError, match=message):
            IoiConfig(**options)
    assert unique(["a", "b", "a", "a"]) == ["a", "b", "a (2)", "a (3)"]


def test_a_subject_that_fails_makes_everything_void(curves):
    assert result_of(curves).valid
    failed = result_of(curves, BAD)
    assert not failed.valid
    assert failed.as_json()["valid"] is False
    assert "conclusions are void" in verdict(failed)
    assert "conclusions are void" in markdown(failed)
    assert "conclusions are void" not in markdown(result_of(curves))
    assert "are void" in re.sub(r"\s+", " ", verdict(failed))
    assert render(failed, "svg") != render(result_of(curves), "svg")


def test_the_tables_say_what_was_measured(curves):
    result = result_of(curves)
    text = markdown(result)
    tables = [block for block in text.split("\n\n") if block.startswith("|")]
    assert len(tables) == 4
    for table in tables:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1, table

    def cells(table: str, start: str) -> list[str]:
        line = next(line for line in table.splitlines() if line.startswith(start))
        return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]

    def said(summary, fit=None) -> str:
        sign = "" if fit else "+"
        mean, low, high = (f"{x:{sign}.2f}".replace("-", "\u2212") for x in (summary.mean, summary.low, summary.high))
        return f"{mean} [{low}, {high}]" + (f" ({fit.mean:.2f})" if fit else "")

    pca = curves[1]
    first, second = cells(tables[0], "| PCA, signed"), cells(tables[1], "| PCA, signed")
    assert first[1:3] == [str(HIDDEN), str(pca.differ)]
    assert first[3].startswith("1.00 [1.00, 1.00]")
    assert first[-1] == str(pca.runs)
    for place, k in enumerate(SIZES):
        for method, row, start in (("ranked", first, 4), ("acdc", second, 1)):
            point = pca.chosen(k)[method]
            expected = "–" if point is None else said(*(pca.closed(point, side, 0) for side in SIDES))
            assert row[start + place] == expected
    known = [v for v in result.versus() if v.method == "ranked"]
    for cell, one in zip(cells(tables[2], "| one \\| two | PCA, signed | effect")[3:], known, strict=True):
        assert cell.rstrip("*") == said(one.held_out)
        assert cell.endswith("*") == (one.held_out.low > 0 or one.held_out.high < 0)
    facts = curves[0].facts
    assert f"| – | – | {facts['fvu']:.3f} | {facts['l0']:.1f} | {facts['fvu_edit']:.3f} |" in tables[3]
    for sentence in SMALL.differences():
        assert sentence in text
    short = in_short(text)
    assert short.startswith(verdict(result))
    assert short.endswith(tables[1])
    assert "against" not in markdown(result_of(curves[1:]))


def test_files_are_the_same_again(curves, tmp_path):
    for name in ("a", "b"):
        write_report(result_of(curves), tmp_path / name)
    names = {p.name for p in (tmp_path / "a").iterdir()}
    assert names == {"results.json", "ioi.md", "ioi.png", "ioi.svg"}
    assert all((tmp_path / "a" / n).read_bytes() == (tmp_path / "b" / n).read_bytes() for n in names)
    stored = json.loads((tmp_path / "a" / "results.json").read_text())
    assert stored["bases"][0]["ranked"][0].keys() == {"n", "kl", "edit", "held_out"}
    for side, kl in (("fit", stored["bases"][0]["nothing"]["kl"]), ("held_out", curves[0].nothing.held.kl)):
        assert stored["gap"][side]["mean"] == pytest.approx(kl)
        assert stored["gap"][side]["low"] < kl < stored["gap"][side]["high"]
    assert stored["bases"][0]["closed"]["8"]["ranked"].keys() == {"n", "held_out", "fit"}
    assert len(stored["versus"]) == 2 * len(SIZES)
