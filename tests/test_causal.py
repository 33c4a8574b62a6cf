"""The IOI task and counterfactual patching: on a tiny model, against plain statements of what is measured."""

import itertools
import json
from functools import partial

import numpy as np
import pytest
import torch
from tiny import HIDDEN, LAYERS, write_model

from saelens_n2g.bases.base import AffineBasis
from saelens_n2g.bases.dictionary import Dictionary
from saelens_n2g.bases.directions import pca_basis
from saelens_n2g.bases.foreign import load_dictionary
from saelens_n2g.bases.formats import SaeMetadata, save_saelens
from saelens_n2g.bases.sae import sae_basis
from saelens_n2g.causal.ioi import ACTIONS, NAMES, OPENINGS, ORDERS, ioi_task, performance, single_tokens
from saelens_n2g.causal.patching import Patching, codes_of, patching, signed_pairs
from saelens_n2g.causal.searches import (
    THRESHOLDS,
    Walk,
    acdc,
    best,
    by_effect,
    chain,
    ends,
    held_out,
    point_of,
    unchain,
)
from saelens_n2g.commands import ioi as ioi_command
from saelens_n2g.errors import ArtefactError, InputError
from saelens_n2g.progress import Reporter
from saelens_n2g.sites import Site
from saelens_n2g.subject import Subject

SITE = Site(1, "resid_post")
WORDS = {word: i + 5 for i, word in enumerate(NAMES)}


def encode(text: str) -> list[int]:
    """A word a token, 3 for whatever is no name."""
    return [WORDS.get(word.strip(",."), 3) for word in text.split()]


# --- the task -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def words():
    return ioi_task(encode, bos_id=0, pad_id=1, prompts=40, seed=3)


def test_prompts_are_what_the_task_says(words):
    for prompt, row, other, last in zip(
        words.prompts, words.ids, words.counterfactual_ids, words.last.tolist(), strict=True
    ):
        names = [i for i in encode(prompt.text) if i != 3]
        io, subject = prompt.indirect_object, prompt.subject
        assert names == ([io, subject, subject] if prompt.order == "ABBA" else [subject, io, subject])
        assert prompt.other not in names
        apart = torch.nonzero(row != other).flatten().tolist()
        assert [int(row[i]) for i in apart] == [io]
        assert [int(other[i]) for i in apart] == [prompt.other]
        assert row[: last + 1].tolist() == [0, *encode(prompt.text)]
        assert (row[last + 1 :] == 1).all()
        assert prompt.text.endswith(" to")
    assert [p.order for p in words.prompts] == list(itertools.islice(itertools.cycle(ORDERS), 40))
    assert len({p.text for p in words.prompts}) == 40


def test_templates_are_complete():
    assert len(OPENINGS) == 15
    assert all(t.count("{0}") == t.count("{1}") == t.count("{place}") == 1 for t in OPENINGS)
    assert all(t.startswith("{2}") and t.count("{thing}") == 1 for t in ACTIONS)


def test_a_seed_draws_the_same_prompts_again(words):
    again, other = (ioi_task(encode, bos_id=0, pad_id=1, prompts=40, seed=seed) for seed in (3, 4))
    assert again.prompts == words.prompts
    assert other.prompts != words.prompts


def test_prompts_can_be_others_than_given_ones(words):
    """The very seed that drew them must draw on."""

    def texts(prompts):
        return {text for one in prompts for text in (one.text, one.counterfactual)}

    given = words.prompts[:10:2]
    apart = ioi_task(encode, bos_id=0, pad_id=1, prompts=40, seed=3, apart_from=given)
    assert not texts(apart.prompts) & texts(given)
    assert [p.order for p in apart.prompts] == [p.order for p in words.prompts]
    swapped = [p._replace(text=p.counterfactual, counterfactual=p.text) for p in given]
    assert ioi_task(encode, bos_id=0, pad_id=1, prompts=40, seed=3, apart_from=swapped).prompts == apart.prompts


def test_names_of_several_tokens_are_left_out():
    assert single_tokens(lambda text: [7] * len(text.strip()), ["A", "Bob", "C"]) == {"A": 7, "C": 7}
    with pytest.raises(InputError, match="three or more that are one token, found 1 of 30"):
        ioi_task(lambda text: [5] if text == " Mary" else [5, 6], bos_id=None, pad_id=0)


def test_a_tokenizer_that_joins_words_is_refused():
    """Where a name changes what is around it, the texts would differ in more than what is meant."""

    def joining(text: str) -> list[int]:
        ids = encode(text)
        return ids if len(ids) < 2 else [ids[0], *(a * 100 + b for a, b in itertools.pairwise(ids))]

    with pytest.raises(InputError, match="one token other than in its counterfactual, found 2"):
        ioi_task(joining, bos_id=None, pad_id=0, prompts=2)


def test_performance_by_hand(words):
    """A model that always likes the subject best, and one that knows."""

    class Knowing:
        def __init__(self, share: float) -> None:
            self.share = share

        def logits(self, ids):
            out = torch.zeros(*ids.shape, 64)
            other = (ids == words.counterfactual_ids).all()
            for i, prompt in enumerate(words.prompts):
                asked = prompt.other if other else prompt.indirect_object
                wins = i < self.share * len(words.prompts)
                out[i, words.last[i], asked if wins else prompt.subject] = 5.0
            return out

    half = performance(Knowing(0.5), words)
    assert (half.texts, half.preferred, half.top, half.logit_difference) == (80, 0.5, 0.5, 0.0)
    assert performance(Knowing(1.0), words).logit_difference == pytest.approx(5.0)
    e = torch.tensor(5.0).exp().item()
    assert performance(Knowing(1.0), words).probability == pytest.approx(e / (e + 63))
    twice = performance(Knowing(0.5), words, words)
    assert (twice.texts, twice.preferred) == (160, 0.5)


# --- patching -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def subject(tmp_path_factory):
    return Subject.load(str(write_model(tmp_path_factory.mktemp("model"))), device="cpu")


@pytest.fixture(scope="module")
def task(subject):
    return ioi_task(encode, bos_id=subject.bos_id, pad_id=subject.pad_id, prompts=6, seed=0)


@pytest.fixture(scope="module")
def rows(subject):
    ids = torch.randint(2, subject.d_vocab, (20, 20), generator=torch.Generator().manual_seed(0))
    return subject.activations(ids, [SITE])[SITE].flatten(0, 1).clone()


@pytest.fixture(scope="module")
def pca(rows):
    return pca_basis(SITE, rows, rows.mean(0))


@pytest.fixture(scope="module")
def sae(rows):
    """Random features with a threshold, so that some are silent everywhere."""
    generator = torch.Generator().manual_seed(1)
    weight = torch.nn.functional.normalize(torch.randn(60, HIDDEN, generator=generator), dim=1)
    spread = (rows - rows.mean(0)).norm(dim=1).mean()
    return sae_basis(SITE, Dictionary.from_tied(weight, torch.full((60,), -0.3 * float(spread)), rows.mean(0)))


def kl_by_hand(subject, task, codes, swapped: list[int]) -> tuple[list[float], float]:
    """KL of every prompt, and mean size of the edit: position by position, with the whole model."""
    x, other = (subject.activations(ids, [SITE])[SITE] for ids in (task.ids, task.counterfactual_ids))
    kls, sizes = [], []
    edited = x.clone()
    for i, last in enumerate(task.last.tolist()):
        for at in range(1, last + 1):
            change = (codes.encode(other[i, at]) - codes.encode(x[i, at]))[swapped] @ codes.directions[swapped]
            edited[i, at] += change
            sizes.append(change.norm().item())
    found = subject.spliced_logits(task.ids, SITE, lambda _: edited)
    wanted = subject.logits(task.counterfactual_ids)
    for i, last in enumerate(task.last.tolist()):
        p, q = found[i, last].double().log_softmax(-1), wanted[i, last].double().log_softmax(-1)
        kls.append((p.exp() * (p - q)).sum().item())
    return kls, sum(sizes) / len(sizes)


@pytest.mark.parametrize("kind", ["sae", "nonneg", "signed"])
def test_a_measure_is_what_the_formula_says(subject, task, sae, pca, kind):
    codes = {"sae": codes_of(sae), "nonneg": codes_of(pca), "signed": signed_pairs(pca)}[kind]
    with patching(subject, task, SITE, codes) as problem:
        which = problem.all()
        which[::3] = False
        found = problem.measure(which)
        chosen = problem.features[which].tolist()
    kls, edit = kl_by_hand(subject, task, codes, chosen)
    assert found.kls == pytest.approx(kls, rel=1e-3, abs=1e-6)
    assert found.kl == pytest.approx(np.mean(kls), rel=1e-3, abs=1e-6)
    assert len(set(found.kls)) == len(task.prompts)
    assert found.edit == pytest.approx(edit, rel=1e-4)


def test_a_whole_rotation_is_the_counterfactual_itself(subject, task, pca):
    for codes in (signed_pairs(pca), codes_of(pca)):
        with patching(subject, task, SITE, codes) as problem:
            nothing, everything = ends(problem)
        assert nothing.edit == 0
        assert nothing.kl > 1e-3
        assert abs(everything.kl) < 1e-5


def test_only_features_that_differ_are_looked_at(subject, task, sae):
    x, other = (subject.activations(ids, [SITE])[SITE] for ids in (task.ids, task.counterfactual_ids))
    differs = ((sae.encode(x) - sae.encode(other)) * task.mask()[..., None]).abs().amax((0, 1)) > 0
    with patching(subject, task, SITE, codes_of(sae)) as problem:
        assert problem.features.tolist() == torch.nonzero(differs).flatten().tolist()
        assert 0 < len(problem.features) < problem.n_features == 60


def test_effects_are_first_order_changes(subject, task, sae):
    """Against differences of the KL about the middle of the whole edit."""
    with patching(subject, task, SITE, codes_of(sae)) as problem:
        effects = problem.effects
        delta = problem._delta.clone()
        for at in (int(effects.argmin()), int(effects.argmax())):
            found = []
            for sign in (1, -1):
                shift = torch.full((len(effects),), 0.5)
                shift[at] += sign * 0.05
                problem._delta = delta * shift
                found.append(problem.kl(problem.all()))
            problem._delta = delta
            assert effects[at].item() == pytest.approx((found[0] - found[1]) / 0.1, rel=0.05, abs=1e-5)


def one_by_one(problem, thresholds, seed):
    """The authors' procedure in plain loops: sets of features by their numbers, with the threshold of each; every set
    that was accepted, and the set after each threshold."""
    features = problem.features.tolist()

    def kl(chosen):
        which = problem.none()
        which[[features.index(f) for f in sorted(chosen)]] = True
        return float(np.mean(problem.measure(which).kls))

    swapped = frozenset(features)
    now, accepted, ended = kl(swapped), [], []
    for place, threshold in enumerate(thresholds):
        there = sorted(swapped)
        for at in np.random.default_rng([seed, place]).permutation(len(there)):
            fewer = swapped - {there[at]}
            value = kl(fewer)
            if value - now < threshold:
                swapped, now = fewer, value
                accepted.append((swapped, threshold))
        ended.append(swapped)
    return accepted, ended


def test_acdc_in_groups_of_one_is_the_authors_procedure(subject, task, sae):
    thresholds = (1e-4, 1e-3, 1e-2)
    with patching(subject, task, SITE, codes_of(sae)) as problem:
        accepted, ended = one_by_one(problem, thresholds, seed=5)
        points = acdc(problem, thresholds=thresholds, seed=5, group=1)
        everything = problem.features.tolist()
    assert points[0].features == tuple(everything)
    assert [(frozenset(p.features), p.threshold) for p in points[1:]] == accepted
    last = {p.threshold: frozenset(p.features) for p in points}
    kept = [(t, there) for t, there in zip(thresholds, ended, strict=True) if t in last]
    assert [last[t] for t, _ in kept] == [there for _, there in kept]
    assert len({p.threshold for p in points}) > 2, "thresholds that take nothing out show nothing"


@pytest.mark.parametrize(("order", "group"), [("random", 1), ("effect", 8)])
def test_a_search_goes_on_where_it_was_written_down(subject, task, sae, order, group):
    """From every place, through JSON: the same sets, the same number of runs, and only those that are left."""
    settings = {"thresholds": (1e-3, 1e-2, 1.0), "order": order, "group": group, "seed": 2, "max_runs": 60}
    kept: list[str] = []
    with patching(subject, task, SITE, codes_of(sae)) as problem:
        ends(problem)
        by_effect(problem, [4])
        whole = acdc(problem, on_run=lambda walk: kept.append(json.dumps(walk.as_json())), **settings)
        runs = problem.runs
    assert len(kept) > 9
    for place in (0, len(kept) // 3, len(kept) - 2):
        with patching(subject, task, SITE, codes_of(sae)) as problem:
            ends(problem)
            by_effect(problem, [4])
            again: list[int] = []
            walk = Walk.from_json(json.loads(kept[place]))
            found = acdc(problem, walk=walk, on_run=lambda walk, seen=again: seen.append(walk.runs), **settings)
            assert (found, problem.runs) == (whole, runs)
        assert len(again) == len(kept) - place - 1


@pytest.mark.parametrize("order", ["random", "effect"])
def test_acdc_in_groups_loosens_nothing_and_costs_less(subject, task, sae, order):
    thresholds = (1e-3, 1e-2, 1e-1, 1.0)
    with patching(subject, task, SITE, codes_of(sae)) as problem:
        began = problem.runs
        points = acdc(problem, thresholds=thresholds, order=order, group=8)
        cost = problem.runs - began
        again = acdc(problem, thresholds=thresholds, order=order, group=8)
        m = len(problem.features)
        for point in points:
            which = torch.isin(problem.features, torch.tensor(point.features, dtype=torch.long))
            assert problem.measure(which) == point.found
            assert torch.equal(problem.of(point.features), which)
    assert points == again
    assert points[0].threshold is None
    for before, after in itertools.pairwise(points):
        assert set(after.features) < set(before.features)
        removed = len(before.features) - len(after.features)
        assert after.kl - before.kl < removed * after.threshold
    assert points[-1].features == (), "a threshold above every KL takes all out"
    assert cost < 4 * m


def test_acdc_stops_when_it_may_run_no_more(subject, task, sae):
    with patching(subject, task, SITE, codes_of(sae)) as problem:
        whole = acdc(problem, thresholds=(1e-2, 1.0), group=4)
        before = problem.runs
        cut = acdc(problem, thresholds=(1e-2, 1.0), group=4, max_runs=5)
        assert problem.runs - before == 5
    assert cut[0] == whole[0]
    assert len(cut[-1].features) > len(whole[-1].features)


def test_every_threshold_has_its_share_of_the_runs(subject, task, sae):
    """The first one alone could spend them all."""
    with patching(subject, task, SITE, codes_of(sae)) as problem:
        m = len(problem.features)
        strict = acdc(problem, thresholds=(1e-9,), group=1, max_runs=m)
        before = problem.runs
        both = acdc(problem, thresholds=(1e-9, 10.0), group=1, max_runs=m)
        assert problem.runs - before == m
    assert len(strict[-1].features) > m // 2, "few can go at so small a threshold"
    assert len(both[-1].features) <= len(strict[-1].features) - m // 4
    assert point_of(both[-1].as_json()) == both[-1]


def test_a_ranking_by_effect_ends_with_everything(subject, task, sae):
    with patching(subject, task, SITE, codes_of(sae)) as problem:
        points, (nothing, everything) = by_effect(problem), ends(problem)
        effects = problem.effects
        best = problem.features[effects.argmin()].item()
        chosen = by_effect(problem, sizes=[3])
    assert points[0].features == (best,)
    assert [len(p.features) for p in points[:3]] == [1, 2, 4]
    assert points[-1] == everything
    assert min(p.kl for p in points) < nothing.kl
    assert [len(p.features) for p in chosen] == [3, len(everything.features)]


def test_points_as_json(subject, task, sae):
    with patching(subject, task, SITE, codes_of(sae)) as problem:
        first, second = acdc(problem, thresholds=(10.0,), group=100)
    assert first.as_json()["n"] == len(first.features)
    assert "threshold" not in first.as_json()
    kls = list(second.found.kls)
    assert len(kls) == 6
    assert second.as_json() == {
        "features": [], "n": 0, "kl": second.kl, "edit": 0.0, "kls": kls, "threshold": 10.0,
    }  # fmt: skip
    assert second.kl == pytest.approx(sum(kls) / 6)


def test_chains_come_back(subject, task, sae):
    with patching(subject, task, SITE, codes_of(sae)) as problem:
        points = acdc(problem, thresholds=(1e-3, 1.0), group=4)
        points[1:2] = held_out(problem, points[1:2])
    values = json.loads(json.dumps(chain(points)))
    assert unchain(values) == points
    assert sum(len(one["removed"]) for one in values[1:]) + points[-1].as_json()["n"] == len(points[0].features)
    assert unchain(chain(points[:1])) == points[:1]
    assert unchain([]) == []


def test_sets_on_other_prompts(subject, task, sae):
    """What was chosen on one task, measured on another by the numbers of its features."""
    other = ioi_task(encode, bos_id=subject.bos_id, pad_id=subject.pad_id, prompts=5, seed=9)
    codes = codes_of(sae)
    with patching(subject, task, SITE, codes) as problem:
        points = by_effect(problem, [4, 16])
    with patching(subject, other, SITE, codes) as problem:
        found = held_out(problem, points)
        assert problem.runs == len(points)
    for point, one in zip(points, found, strict=True):
        assert (one.features, one.found) == (point.features, point.found)
        kls, edit = kl_by_hand(subject, other, codes, list(point.features))
        assert one.held.kls == pytest.approx(kls, rel=1e-3, abs=1e-6)
        assert one.held.edit == pytest.approx(edit, rel=1e-4)
        assert point_of(json.loads(json.dumps(one.as_json()))) == one


def test_the_best_set_is_that_of_the_lowest_kl(subject, task, sae):
    with patching(subject, task, SITE, codes_of(sae)) as problem:
        points = acdc(problem, thresholds=(1e-2, 10.0), group=4)
    for k in (1, 9, 10**6):
        small = [p for p in points if 1 <= len(p.features) <= k]
        assert best(points, k) == (min(small, key=lambda p: p.kl) if small else None)
    assert best(points[-1:], 5) is None, "no feature is no set"


def test_what_is_measured_once_costs_one_run(subject, task, sae):
    with patching(subject, task, SITE, codes_of(sae)) as problem:
        ends(problem)
        ends(problem)
        by_effect(problem, [2])
        by_effect(problem, [2])
        assert problem.runs == 2 + 1 + 2


def test_refusals(subject, task, sae, pca):
    far = AffineBasis("far", SITE, "none", pca.weight, torch.full((len(pca.weight),), -1e9), pca.centre)
    wide = AffineBasis("wide", SITE, "none", torch.eye(3, HIDDEN + 1), torch.zeros(3), torch.zeros(HIDDEN + 1))
    for basis, site, message in (
        (far, SITE, "a feature that differs between the texts, found none"),
        (wide, SITE, f"width {HIDDEN}, found width {HIDDEN + 1}"),
        (pca, Site(LAYERS, "resid_post"), f"0 to {LAYERS - 1}"),
        (pca, Site(1, "mlp_out"), "a resid_post"),
    ):
        codes = codes_of(basis)
        if basis is wide:
            codes = codes._replace(encode=lambda x: x[..., :3])
        with pytest.raises(InputError, match=message), patching(subject, task, site, codes):
            raise AssertionError
    with pytest.raises(InputError, match="pairs of opposite directions"):
        signed_pairs(sae)
    with pytest.raises(InputError, match="directions of length 1, found lengths 2 to 2"):
        codes_of(AffineBasis("long", SITE, "none", 2 * pca.weight, torch.zeros(len(pca.weight)), pca.centre))
    with patching(subject, task, SITE, codes_of(sae)) as problem:
        for thresholds in ((), (0.1, 0.1), (1.0, 0.5), (0.0, 1.0)):
            with pytest.raises(InputError, match="rising numbers above 0"):
                acdc(problem, thresholds=thresholds)
        for options in ({"group": 0}, {"max_runs": 0}):
            with pytest.raises(InputError, match="1 or more"):
                acdc(problem, **options)
    assert len(THRESHOLDS) == 50
    assert (THRESHOLDS[0], THRESHOLDS[-1]) == (pytest.approx(1e-5), 1.0)


# --- the command ----------------------------------------------------------------------------------------------

PEOPLE = ("Ann", "Bob", "Mary", "John", "Paris", "London", "Oslo", "Berlin")
"""Names that are one token for the tiny model."""


@pytest.fixture
def given(tmp_path, tiny_model, tiny_corpus, monkeypatch):
    """A dictionary of the tiny model with few features, and the options of an analysis."""
    monkeypatch.setattr(ioi_command, "ioi_task", partial(ioi_task, names=PEOPLE))
    weight = torch.randn(24, HIDDEN, generator=torch.Generator().manual_seed(4))
    one = Dictionary.from_tied(torch.nn.functional.normalize(weight, dim=1), torch.zeros(24), torch.zeros(HIDDEN))
    save_saelens(tmp_path / "few", one, SaeMetadata(str(tiny_model), "blocks.1.hook_resid_post", 32, True))
    return {
        "model": str(tiny_model), "corpus": str(tiny_corpus), "tokens": 2000, "width": 32, "device": "cpu",
        "dictionary": [str(tmp_path / "few")], "prompts": 2, "layer": 1, "reporter": Reporter(quiet=True),
    }  # fmt: skip


class Killed(BaseException):
    """Of a run that is stopped from outside."""


def stop_after(monkeypatch, runs: int) -> None:
    """Have the model die after that many runs."""
    plain, left = Patching.measure, [runs]

    def measure(self, which):
        left[0] -= 1
        if left[0] < 0:
            raise Killed
        return plain(self, which)

    monkeypatch.setattr(Patching, "measure", measure)


def contents(folder) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.model
def test_the_authors_procedure_to_its_end_killed_or_not(given, tmp_path, monkeypatch):
    """`--exact`: their fifty thresholds one by one, against the plain statement of it."""
    monkeypatch.setattr(ioi_command, "PRINCIPAL", ())  # a minute less
    whole, other = tmp_path / "whole", tmp_path / "killed"
    ioi_command.ioi(out=whole, exact=True, **given)
    site, subject = Site(1, "resid_post"), Subject.load(given["model"], device="cpu")
    one = sae_basis(site, load_dictionary(tmp_path / "few"))
    task = ioi_task(
        subject.encode, bos_id=subject.bos_id, pad_id=subject.pad_id, prompts=2, seed=0, names=PEOPLE
    )  # fmt: skip
    with patching(subject, task, site, codes_of(one)) as problem:
        accepted, _ = one_by_one(problem, THRESHOLDS, seed=0)
    stored = json.loads((whole / "bases" / "few" / "curves.json").read_text())
    found = unchain(stored["acdc"])
    assert [(frozenset(p.features), p.threshold) for p in found[1:]] == accepted
    assert len(accepted) == len(found[0].features) > 15, "one by one, and all of them"
    assert len({threshold for _, threshold in accepted}) > 4
    assert stored["runs"] > 250

    monkeypatch.setattr(ioi_command, "SAVE", 10)
    for runs, at_least in ((60, 50), (100, 130)):
        with monkeypatch.context() as patched:
            stop_after(patched, runs)
            with pytest.raises(Killed):
                ioi_command.ioi(out=other, exact=True, **given)
        walk = json.loads((other / "searches" / "few.json").read_text())["walk"]
        assert walk["runs"] >= at_least, "it goes on where it stopped"
        assert not (other / "bases" / "few").exists()
    ioi_command.ioi(out=other, exact=True, **given)
    assert contents(other / "bases") == contents(whole / "bases")
    assert contents(other / "report") == contents(whole / "report")
    assert list((other / "searches").iterdir()) == []


@pytest.mark.model
def test_a_finished_analysis_needs_no_model(given, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    path = ioi_command.ioi(out=out, runs=10, **given)
    first, before = capsys.readouterr().out, contents(out)
    assert first.startswith("The subject prefers")

    def refused(*_, **__):
        raise AssertionError("a finished analysis needs no model")

    monkeypatch.setattr(Subject, "load", refused)
    assert ioi_command.ioi(out=out, runs=10, **given) == path
    assert capsys.readouterr().out == first
    for other in ({"prompts": 3}, {"layer": 2}, {"layer": None}, {"seed": 1}, {"dictionary": []}, {"runs": 11}):
        with pytest.raises(AssertionError, match="needs no model"):
            ioi_command.ioi(out=out, **{"runs": 10, **given, **other})
    assert contents(out) == before
    weights = Dictionary.from_tied(torch.eye(HIDDEN), torch.zeros(HIDDEN), torch.zeros(HIDDEN))
    save_saelens(tmp_path / "few", weights, SaeMetadata(given["model"], "blocks.1.hook_resid_post", 32, True))
    with pytest.raises(AssertionError, match="needs no model"):
        ioi_command.ioi(out=out, runs=10, **given)


@pytest.mark.model
def test_a_damaged_search_is_refused(given, tmp_path, monkeypatch):
    monkeypatch.setattr(ioi_command, "SAVE", 2)
    with monkeypatch.context() as patched:
        stop_after(patched, 20)
        with pytest.raises(Killed):
            ioi_command.ioi(out=tmp_path / "out", runs=30, **given)
    path = tmp_path / "out" / "searches" / "few.json"
    value = json.loads(path.read_text())
    path.write_text(json.dumps({**value, "walk": {"points": []}}))
    with pytest.raises(ArtefactError, match=r"few\.json: expected a search"):
        ioi_command.ioi(out=tmp_path / "out", runs=30, **given)
    path.write_text(json.dumps({**value, "key": "other"}))
    assert ioi_command.ioi(out=tmp_path / "out", runs=30, **given).exists(), "a search of other settings is none"
