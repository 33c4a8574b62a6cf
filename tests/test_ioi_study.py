"""The IOI analysis of a site: curves of a basis, what is reported of them."""

import json
import re

import pytest
import torch

from saelens_n2g.bases.dictionary import Dictionary
from saelens_n2g.bases.directions import pca_basis
from saelens_n2g.bases.sae import sae_basis
from saelens_n2g.causal.ioi import NAMES, Performance, ioi_task
from saelens_n2g.causal.ioi_report import markdown, render, verdict, write_report
from saelens_n2g.causal.patching import THRESHOLDS, Point, acdc, by_effect, codes_of, ends, patching, signed_pairs
from saelens_n2g.causal.study import (
    SIZES,
    Curves,
    IoiConfig,
    IoiResult,
    Massive,
    massive,
    median_distance,
    rebuilt,
    run_basis,
    unique,
)
from saelens_n2g.errors import ArtefactError, InputError
from saelens_n2g.sites import Site
from saelens_n2g.subject import Subject
from tests.tiny import HIDDEN, write_model

SITE = Site(1, "resid_post")
WORDS = {word: i + 5 for i, word in enumerate(NAMES)}
SMALL = IoiConfig(prompts=4, thresholds=(1e-3, 1e-2, 1.0), max_runs=60)
GOOD, BAD = (Performance(24, preferred, 0.5, 1.0, 0.25) for preferred in (0.9, 0.6))


@pytest.fixture(scope="module")
def subject(tmp_path_factory):
    return Subject.load(str(write_model(tmp_path_factory.mktemp("model"))), device="cpu")


@pytest.fixture(scope="module")
def task(subject):
    def encode(text: str) -> list[int]:
        return [WORDS.get(word.strip(",."), 3) for word in text.split()]

    return ioi_task(encode, bos_id=subject.bos_id, pad_id=subject.pad_id, prompts=4, seed=0)


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
def curves(subject, task, rows, sae):
    pca = pca_basis(SITE, rows, rows.mean(0))
    facts = rebuilt(subject, task, SITE, sae)
    return (
        run_basis(subject, task, SITE, codes_of(sae, "one | two"), SMALL, facts=facts),
        run_basis(subject, task, SITE, signed_pairs(pca, "PCA, signed"), SMALL),
    )


def result_of(curves, known=GOOD) -> IoiResult:
    about = {"subject": {"model": "tiny"}}
    return IoiResult(SITE, known, Massive(1, 40, 0.25, 0.125), tuple(curves), SMALL, about)


def test_the_curves_are_those_of_the_parts(subject, task, sae, curves):
    with patching(subject, task, SITE, codes_of(sae)) as problem:
        nothing, everything = ends(problem)
        ranked = by_effect(problem, SMALL.sizes)
        found = acdc(problem, thresholds=SMALL.thresholds, order="effect", group=64, max_runs=60)
    one = curves[0]
    assert (one.nothing, one.everything) == (nothing, everything)
    assert one.ranked == tuple(ranked)
    assert one.acdc == tuple(found)
    assert one.differ == len(everything.features)
    assert one.n_features == 50
    assert curves[1].share(curves[1].everything) == pytest.approx(1, abs=1e-4), "a rotation leaves nothing out"


def test_shares_of_the_gap_by_hand():
    def point(n: int, kl: float) -> Point:
        return Point(tuple(range(n)), kl, 1.0)

    ranked = (point(1, 3.0), point(8, 2.0), point(16, 2.5), point(100, 0.2))
    found = (point(100, 0.2), point(20, 1.0), point(10, 2.2), point(0, 4.0))
    one = Curves("x", 200, 100, point(0, 4.0), point(100, 0.2), found, ranked, 9)
    assert one.closed(8) == (0.5, None)
    assert one.closed(16) == pytest.approx((0.375, 0.45))
    assert one.closed(32) == pytest.approx((0.375, 0.75))
    assert one.closed(128) == pytest.approx((0.95, 0.95))


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
    distance = median_distance(rows, mean)
    assert massive(subject, task, SITE, mean, distance) == Massive(0, int(task.last.sum()), 0.0, 0.0)
    x, other = (subject.activations(ids, [SITE])[SITE] for ids in (task.ids, task.counterfactual_ids))
    apart = [
        ((x[i, at] - mean).norm().item(), (other[i, at] - x[i, at]).square().sum().item())
        for i, last in enumerate(task.last.tolist())
        for at in range(1, last + 1)
    ]
    limit = sorted(a for a, _ in apart)[-5] / 3 - 1e-6
    found = massive(subject, task, SITE, mean, limit)
    far = [(a, e) for a, e in apart if a > 3 * limit]
    assert found.positions == len(far) == 5
    assert found.variance == pytest.approx(sum(a * a for a, _ in far) / sum(a * a for a, _ in apart), rel=1e-4)
    assert found.edit == pytest.approx(sum(e for _, e in far) / sum(e for _, e in apart), rel=1e-4, abs=1e-9)


def test_settings():
    assert IoiConfig(thresholds=THRESHOLDS, order="random", group=1, prompts=50).differences() == [
        "50 prompts (theirs: 50), with templates and names of our own."
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


def test_the_table_says_what_was_measured(curves):
    text = markdown(result_of(curves))
    line = next(line for line in text.splitlines() if line.startswith("| PCA, signed"))
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[1:4] == [str(HIDDEN), str(curves[1].differ), "1.000"]
    for cell, k in zip(cells[4:], SIZES, strict=False):
        ranked, found = curves[1].closed(k)
        assert cell == f"{'–' if found is None else f'{found:.2f}'} / {ranked:.2f}"
    assert "one \\| two" in text
    for block in text.split("\n\n"):
        if block.startswith("|"):
            assert len({len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}) == 1, block
    facts = curves[0].facts
    cells = f"| – | – | {facts['fvu']:.3f} | {facts['l0']:.1f} | {facts['fvu_edit']:.3f} |"
    assert cells in text.partition("missed of the edit")[2]
    for sentence in SMALL.differences():
        assert sentence in text


def test_files_are_the_same_again(curves, tmp_path):
    for name in ("a", "b"):
        write_report(result_of(curves), tmp_path / name)
    names = {p.name for p in (tmp_path / "a").iterdir()}
    assert names == {"results.json", "ioi.md", "ioi.png", "ioi.svg"}
    assert all((tmp_path / "a" / n).read_bytes() == (tmp_path / "b" / n).read_bytes() for n in names)
    stored = json.loads((tmp_path / "a" / "results.json").read_text())
    assert stored["bases"][0]["ranked"][0].keys() == {"n", "kl", "edit", "closed"}
    assert stored["gap"] == stored["bases"][0]["nothing"]["kl"]
