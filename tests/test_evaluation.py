"""Evaluation: a spliced model against plain transformers, means against their definitions, matchings by brute force."""

import itertools
import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny import PlainModel

from saelens_n2g.bases.formats import Dictionary
from saelens_n2g.corpus import Windows
from saelens_n2g.errors import InputError
from saelens_n2g.sites import Site
from saelens_n2g.subject import Subject
from saelens_n2g.training import evaluate, evaluation, references
from saelens_n2g.training.evaluation import SplicedModel, behaviour, behaviours, judge_on, log_values, spread, widens
from saelens_n2g.training.metrics import (
    DENSITY,
    DENSITY_EDGES,
    density_values,
    evaluation_values,
    feature_density,
    reconstruction,
)
from saelens_n2g.training.references import chance_mmcs, matched_share, mmcs, mmcs_table, pca_curve
from saelens_n2g.training.rows import as_rows

SITE = Site(1, "resid_post")
HIDDEN, D = 32, 6
pytestmark = pytest.mark.usefixtures("one_thread")


def windows(tokens, lengths, bos_id: int | None = 0) -> Windows:
    n = len(tokens)
    rows = np.array(tokens, dtype=np.int32), np.array(lengths, dtype=np.int32), np.zeros(n, dtype=np.int32)
    return Windows(*rows, ("document",), bos_id, "a test")


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def mirror(d: int, gain: float = 1.0, centre: torch.Tensor | None = None) -> Dictionary:
    """Rebuilds everything exactly but for a gain about its centre: features are the positive and negative parts."""
    both = torch.cat([torch.eye(d), -torch.eye(d)])
    return Dictionary(
        both.T.contiguous(), torch.zeros(2 * d), gain * both, torch.zeros(d) if centre is None else centre
    )


def silent(d: int, centre: torch.Tensor) -> Dictionary:
    """Rebuilds everything as its centre."""
    return replace(mirror(d, centre=centre), b_enc=torch.full((2 * d,), -1e9))


def tied(n: int, d: int, seed: int = 1) -> Dictionary:
    weight = torch.nn.functional.normalize(draw(n, d, seed=seed), dim=1)
    return Dictionary.from_tied(weight, torch.full((n,), -0.1), 0.1 * draw(d, seed=seed + 1))


TEXT = windows(
    [[0, *range(30, 41)], [0, *range(90, 96), 1, 1, 1, 1, 1], [0, 7, *[1] * 10], [0, *[1] * 11]], [12, 7, 2, 1]
)
"""Of twelve, seven, two and one tokens: 11 + 6 + 1 + 0 positions are scored, 10 + 5 + 0 + 0 predict."""


@pytest.fixture(scope="module")
def subject(tiny_model) -> Subject:
    return Subject.load(str(tiny_model), device="cpu")


class ByHand:
    """Losses of one variant by plain transformers: one window at a time, no padding, in float64 from the logits on."""

    def __init__(self, folder, dictionary: Dictionary) -> None:
        self.model, self.dictionary = PlainModel(folder).model, dictionary
        self.inputs: list[torch.Tensor] = []

    def logits(self, ids: list[int], edit) -> torch.Tensor:
        def hook(_, __, out):
            x = out[0] if isinstance(out, tuple) else out
            new = torch.cat([x[:, :1], edit(x[:, 1:])], dim=1)
            return (new, *out[1:]) if isinstance(out, tuple) else new

        handle = self.model.model.layers[SITE.layer].register_forward_hook(hook)
        with torch.no_grad():
            out = self.model(torch.tensor([ids])).logits[0].double()
        handle.remove()
        return out

    def losses(self, rows: list[list[int]], edit) -> tuple[float, float]:
        """Mean cross-entropy and mean KL from the unaltered model."""
        ce, kl = [], []
        for ids in rows:
            own = torch.distributions.Categorical(logits=self.logits(ids, lambda x: x)[1:])
            altered = torch.distributions.Categorical(logits=self.logits(ids, edit)[1:])
            kl += torch.distributions.kl_divergence(own, altered).tolist()
            if len(ids) > 2:
                ce += (-altered.logits[range(len(ids) - 2), ids[2:]]).tolist()
        return sum(ce) / len(ce), sum(kl) / len(kl)


def test_the_losses_are_those_of_plain_transformers_with_a_hook_by_hand(subject, tiny_model):
    dictionary = tied(64, HIDDEN)
    found = behaviour(subject, dictionary, SITE, TEXT, batch_windows=3)
    assert (found.site, found.windows, found.tokens, found.predictions) == ("1.resid_post", 4, 18, 15)

    hand = ByHand(tiny_model, dictionary)
    rows = [TEXT.tokens[i, : TEXT.lengths[i]].tolist() for i in range(3)]
    seen: list[torch.Tensor] = []
    for ids in rows:
        hand.logits(ids, lambda x: seen.append(x) or x)
    x = torch.cat(seen, dim=1)[0]
    edits = {
        "without_sae": lambda x: x,
        "with_sae": lambda x: dictionary.decode(dictionary.encode(x)),
        "with_ablation": torch.zeros_like,
        "with_mean_ablation": lambda y: x.mean(0).expand_as(y),
    }
    ce, kl = ({name: hand.losses(rows, edit)[part] for name, edit in edits.items()} for part in (0, 1))
    for name in edits:
        assert getattr(found, f"ce_loss_{name}") == pytest.approx(ce[name], rel=1e-5), name
        if name != "without_sae":
            assert getattr(found, f"kl_div_{name}") == pytest.approx(kl[name], rel=1e-4), name
    worst, own, rebuilt = ce["with_ablation"], ce["without_sae"], ce["with_sae"]
    # The random model's zeros may do less harm than its reconstruction: the score is what it is, sign and all.
    assert worst > own
    assert found.ce_loss_score == pytest.approx((worst - rebuilt) / (worst - own), rel=1e-3)
    assert found.kl_div_score == pytest.approx(1 - kl["with_sae"] / kl["with_ablation"], rel=1e-3)
    assert found.kl_div_score_mean_ablation == pytest.approx(1 - kl["with_sae"] / kl["with_mean_ablation"], rel=1e-3)
    assert found.reconstruction.rows == 18
    outside = reconstruction(dictionary, x)
    assert vars(found.reconstruction) == pytest.approx(vars(outside), rel=1e-4)


def test_a_perfect_a_silent_and_a_mean_dictionary(subject):
    perfect = behaviour(subject, mirror(HIDDEN), SITE, TEXT)
    assert perfect.ce_loss_with_sae == pytest.approx(perfect.ce_loss_without_sae, rel=1e-6)
    assert perfect.kl_div_with_sae < 1e-6
    assert perfect.ce_loss_score == pytest.approx(1, abs=1e-5)
    assert perfect.kl_div_score == pytest.approx(1, abs=1e-5)
    zeros = behaviour(subject, silent(HIDDEN, torch.zeros(HIDDEN)), SITE, TEXT)
    assert zeros.ce_loss_with_sae == zeros.ce_loss_with_ablation == perfect.ce_loss_with_ablation
    assert (zeros.ce_loss_score, zeros.kl_div_score) == (0, 0)
    mean = draw(HIDDEN, seed=3)
    means = behaviour(subject, silent(HIDDEN, mean), SITE, TEXT, mean=mean)
    assert means.ce_loss_with_sae == means.ce_loss_with_mean_ablation != perfect.ce_loss_with_mean_ablation
    assert (means.ce_loss_score_mean_ablation, means.kl_div_score_mean_ablation) == (0, 0)


def test_batches_and_what_is_written_into_the_padding_change_nothing(subject):
    dictionary, done = tied(64, HIDDEN), []
    one = behaviour(subject, dictionary, SITE, TEXT, batch_windows=1, report=lambda *a: done.append(a))
    assert done == [(1, 4), (2, 4), (3, 4), (4, 4)]
    padded = TEXT.tokens.copy()
    padded[1:, 7:], padded[2:, 2:] = 50, 51
    other = behaviour(subject, dictionary, SITE, replace(TEXT, tokens=padded))
    assert log_values(other) == pytest.approx(log_values(one), rel=1e-5)
    assert behaviour(subject, dictionary, SITE, TEXT) == behaviour(subject, dictionary, SITE, TEXT)


class Straight:
    """A model whose activation is a fixed vector per position and token, and whose logits are a projection of it."""

    def __init__(self, vocab: int = 9, *, deaf: bool = False, broken: bool = False, rigid: bool = False) -> None:
        self.table, self.out = draw(vocab, D, seed=4), draw(D, vocab, seed=5)
        self.deaf, self.broken, self.rigid = deaf, broken, rigid
        self.spliced: list[tuple[torch.Tensor, torch.Tensor]] = []

    def activations(self, ids, sites):
        return dict.fromkeys(sites, self.table[ids])

    def spliced_logits(self, ids, site, edit):  # noqa: ARG002  (one site)
        x = self.table[ids]
        new = edit(x.clone())
        if self.rigid and len(new) != len(x):
            raise RuntimeError("the size of tensor a must match")
        self.spliced.append((x, new))
        return (x if self.deaf else new) @ self.out / (0 if self.broken else 1)


@pytest.mark.parametrize("bos_id", [0, None])
@pytest.mark.parametrize("rigid", [True, False])
def test_every_scored_position_is_replaced_and_no_other(bos_id, rigid):
    text = windows([[0, 3, 5, 7], [0, 4, 2, 2]], [4, 2], bos_id)
    model = Straight(rigid=rigid)
    assert isinstance(model, SplicedModel)
    ids = torch.from_numpy(text.tokens[:1]).long()
    assert widens(model, SITE, ids) is not rigid
    model.spliced.clear()
    behaviour(model, tied(10, D), SITE, text)
    tries = 2 if rigid else 3
    passes = model.spliced[tries:]
    assert len(passes) == (4 if rigid else 2), "a pass a variant for both windows, or a pass a window"
    if rigid:
        scored, variants = torch.from_numpy(text.mask), [new for _, new in passes]
        old = passes[0][0]
    else:  # the second window is cut where its padding begins, which changes no scored position
        old, scored = passes[0][0], torch.from_numpy(text.mask[:1])
        variants = list(passes[0][1].split(1))
    assert len(variants) == 4
    own, *altered = variants  # as it is; zeros, mean, reconstruction
    assert torch.equal(own, old)
    for new in altered:
        assert torch.equal((old != new).all(-1), scored)
        assert torch.equal((old == new).all(-1), ~scored)
        assert torch.equal(old[:, 0], new[:, 0]) == (bos_id == 0)


def test_several_dictionaries_are_what_each_is_alone_and_share_what_they_can(subject):
    some = [tied(64, HIDDEN), mirror(HIDDEN, gain=0.7), tied(32, HIDDEN, seed=9)]
    together = behaviours(subject, some, SITE, TEXT)
    for one, found in zip(some, together, strict=True):
        alone = behaviour(subject, one, SITE, TEXT)
        assert log_values(found) == pytest.approx(log_values(alone), rel=1e-5)
        assert (found.site, found.windows, found.tokens) == (alone.site, alone.windows, alone.tokens)
    assert len({found.kl_div_with_sae for found in together}) == 3
    assert len({found.kl_div_with_ablation for found in together}) == 1
    model, text = Straight(rigid=True), windows([[0, 3, 5, 7], [0, 4, 2, 2]], [4, 2])
    behaviours(model, [tied(10, D, seed=k) for k in range(5)], SITE, text)
    assert len(model.spliced) == 2 + 3 + 5, "two to try, the model, zeros and mean once, a pass for each dictionary"
    with pytest.raises(InputError, match="one or more"):
        behaviours(model, [], SITE, text)


def test_side_by_side_or_one_by_one_is_the_same(subject, monkeypatch):
    some = [tied(64, HIDDEN), mirror(HIDDEN, gain=0.7)]
    side_by_side = behaviours(subject, some, SITE, TEXT)
    monkeypatch.setattr(evaluation, "VARIANTS", 2)  # several passes a window
    cut = behaviours(subject, some, SITE, TEXT)
    monkeypatch.setattr(evaluation, "widens", lambda *_: False)
    for size in (1, 3):
        one_by_one = behaviours(subject, some, SITE, TEXT, batch_windows=size)
        for a, b, c in zip(side_by_side, cut, one_by_one, strict=True):
            assert log_values(a) == pytest.approx(log_values(c), rel=1e-5)
            assert log_values(a) == pytest.approx(log_values(b), rel=1e-5)


@pytest.mark.parametrize("kind", ["resid_pre", "resid_post", "mlp_post", "mlp_out", "attn_out"])
def test_a_real_model_lets_a_text_become_several_at_any_site(subject, kind):
    assert widens(subject, Site(1, kind), torch.tensor([[0, 30, 31, 40, 41]]))


def test_training_is_told_per_site_and_hears_why_not():
    model, text, said = Straight(), windows([[0, 3, 5, 7], [0, 4, 2, 2]], [4, 4]), []
    hooks = [SITE.hook, Site(2, "resid_post").hook, SITE.hook]
    some = [replace(tied(10, D, seed=k), metadata={"hook_name": hook}) for k, hook in enumerate(hooks)]
    found = judge_on(model, text, said.append)(some)
    for one, result in zip(some, found, strict=True):
        assert result == behaviour(model, one, Site.parse(one.metadata["hook_name"]), text)
    assert said == []
    narrow = replace(tied(10, 4), metadata={"hook_name": SITE.hook})
    assert judge_on(model, text, said.append)([narrow, some[1]]) == [None, found[1]]
    assert len(said) == 1
    assert "not evaluated in the model: activations at 1.resid_post: expected width 4" in said[0]


def test_windows_are_spread_over_those_that_predict():
    text = windows([[0, k, 2, 3] for k in range(10)], [4, 2, 1, 4, 4, 4, 4, 4, 4, 4])
    assert spread(text, 3).tokens[:, 1].tolist() == [0, 6, 9]
    assert len(spread(text, 50)) == 8
    none = windows([[0, 3, 1, 1]], [2])
    assert len(spread(none, 4)) == 1


def test_a_mean_from_elsewhere_changes_its_own_ablation_and_the_legacy_variance_alone():
    text, elsewhere = windows([[0, 3, 5, 7], [0, 4, 2, 6]], [4, 4]), draw(D, seed=20)
    own, other = (log_values(behaviour(Straight(), tied(10, D), SITE, text, mean=mean)) for mean in (None, elsewhere))
    # A score is in only one of them where an ablation of the random model happens to do no harm.
    differ = {name for name in own.keys() & other.keys() if own[name] != pytest.approx(other[name], rel=1e-9)}
    assert {name for name in differ if "mean_ablation" not in name} == {
        "reconstruction_quality/explained_variance_legacy"
    }
    assert {name for name in differ if "with_mean_ablation" in name} == {
        "model_performance_preservation/ce_loss_with_mean_ablation",
        "model_behavior_preservation/kl_div_with_mean_ablation",
    }


def test_scores_are_none_where_the_ablation_does_no_harm():
    found = behaviour(Straight(deaf=True), tied(10, D), SITE, windows([[0, 3, 5, 7]], [4]))
    assert found.ce_loss_with_ablation == found.ce_loss_without_sae
    assert found.kl_div_with_ablation == 0
    scores = (found.ce_loss_score, found.ce_loss_score_mean_ablation)
    assert scores == (found.kl_div_score, found.kl_div_score_mean_ablation) == (None, None)
    better = replace(found, ce_loss_with_ablation=found.ce_loss_without_sae - 0.1)
    assert better.ce_loss_score is None
    stored = json.loads(json.dumps(found.as_json(), allow_nan=False))
    assert stored["model_performance_preservation"]["ce_loss_score"] is None
    assert "model_performance_preservation/ce_loss_score" not in log_values(found)


def test_results_carry_the_names_of_saelens(subject):
    found = behaviour(subject, mirror(HIDDEN), SITE, TEXT)
    assert all(isinstance(values, dict) for values in found.as_json().values())
    values = log_values(found)
    ours = {name for name in values if name.endswith(("_centred", "mean_ablation"))}
    assert set(values) - ours == {
        *(f"model_performance_preservation/ce_loss_{n}" for n in ("score", "with_sae", "without_sae", "with_ablation")),
        *(f"model_behavior_preservation/kl_div_{n}" for n in ("score", "with_sae", "with_ablation")),
        *(f"shrinkage/{n}" for n in ("l2_norm_in", "l2_norm_out", "l2_ratio", "relative_reconstruction_bias")),
        *(f"reconstruction_quality/{n}" for n in ("explained_variance", "explained_variance_legacy", "mse", "cossim")),
        *(f"sparsity/{n}" for n in ("l0", "l1")),
        *(f"token_stats/total_tokens_eval_{n}" for n in ("reconstruction", "sparsity_variance")),
    }
    assert len(ours) == 8
    assert values["model_behavior_preservation/kl_div_score"] == found.kl_div_score
    assert values["shrinkage/l2_ratio"] == found.reconstruction.l2_ratio


def test_unusable_input_is_named():
    text, dictionary = windows([[0, 3, 5, 7]], [4]), tied(10, D)
    other = replace(dictionary, metadata={"hook_name": "blocks.2.hook_resid_post"})
    with pytest.raises(InputError, match=r"hook blocks\.1\.hook_resid_post, found blocks\.2\.hook_resid_post"):
        behaviour(Straight(), other, SITE, text)
    with pytest.raises(InputError, match=r"activations at 1\.resid_post: expected width 4"):
        behaviour(Straight(), tied(10, 4), SITE, text)
    for few in (windows([[0, 3, 1, 1]], [2]), windows(np.zeros((0, 4), dtype=np.int32), [])):
        with pytest.raises(InputError, match="two tokens in a row besides the BOS"):
            behaviour(Straight(), dictionary, SITE, few)
    with pytest.raises(InputError, match=r"model without_sae at 1\.resid_post: expected finite losses"):
        behaviour(Straight(broken=True), dictionary, SITE, text)
    with pytest.raises(InputError, match="width 6"):
        reconstruction(dictionary, draw(9, 5))


# --- reconstruction -------------------------------------------------------------------------------------------


def test_reconstruction_agrees_with_its_definitions():
    dictionary, x = tied(15, D), draw(200, D, seed=7) + torch.arange(D)
    found = reconstruction(dictionary, x, size=64)
    code = dictionary.encode(x)
    y = dictionary.decode(code)
    for u, v, suffix in ((x, y, ""), (x - dictionary.b_dec, y - dictionary.b_dec, "_centred")):
        assert getattr(found, f"l2_norm_in{suffix}") == pytest.approx(u.norm(dim=1).mean().item(), rel=1e-5)
        assert getattr(found, f"l2_norm_out{suffix}") == pytest.approx(v.norm(dim=1).mean().item(), rel=1e-5)
        ratio = (v.norm(dim=1) / u.norm(dim=1)).mean().item()
        assert getattr(found, f"l2_ratio{suffix}") == pytest.approx(ratio, rel=1e-5)
        gamma = getattr(found, f"relative_reconstruction_bias{suffix}")
        # Its definition in the paper: of all factors, dividing by gamma leaves the least error.
        error = [(v.double() / (gamma * by) - u.double()).square().sum().item() for by in (0.99, 1, 1.01)]
        assert error[1] < min(error[0], error[2])
    squares, distances = (y - x).square().sum(1), (x - x.mean(0)).square().sum(1)
    assert found.mse == pytest.approx(squares.mean().item(), rel=1e-5)
    assert found.explained_variance == pytest.approx(1 - (squares.sum() / distances.sum()).item(), rel=1e-5)
    assert found.explained_variance == pytest.approx(1 - evaluate(dictionary, as_rows(x)).fvu, rel=1e-5)
    assert found.explained_variance_legacy == pytest.approx((1 - squares / distances).mean().item(), rel=1e-4)
    assert found.cossim == pytest.approx(torch.cosine_similarity(x, y).mean().item(), rel=1e-5)
    assert found.l0 == pytest.approx((code > 0).sum(1).float().mean().item())
    assert found.l1 == pytest.approx(code.sum(1).mean().item(), rel=1e-5)


def test_shrinkage_of_a_known_gain():
    x, centre = draw(100, D) + 5, torch.full((D,), 5.0)
    raw = reconstruction(mirror(D, gain=0.8), x)
    assert raw.l2_ratio == pytest.approx(0.8)
    assert raw.relative_reconstruction_bias == pytest.approx(0.8)
    about = reconstruction(mirror(D, gain=0.8, centre=centre), x)
    assert about.l2_ratio_centred == pytest.approx(0.8)
    assert about.relative_reconstruction_bias_centred == pytest.approx(0.8)
    assert about.l2_ratio > 0.98  # what the centre hides
    assert raw.cossim == pytest.approx(1)


def test_what_has_no_ratio_is_none_and_rows_of_zeros_are_left_out():
    x = draw(10, D)
    x[0] = 0
    assert reconstruction(mirror(D, gain=0.5), x).l2_ratio == pytest.approx(0.5)
    nothing = reconstruction(silent(D, torch.zeros(D)), x)
    assert nothing.l2_ratio == 0
    assert nothing.relative_reconstruction_bias is None
    assert nothing.cossim == 0
    json.dumps(nothing.as_json(), allow_nan=False)
    assert "shrinkage/relative_reconstruction_bias" not in log_values(nothing)
    equal = behaviour(Straight(), tied(10, D), SITE, windows([[0, 3, 3, 3]], [4])).reconstruction
    assert equal.explained_variance is None


def test_a_half_precision_dictionary_takes_float_rows():
    full = tied(15, D)
    half = replace(full, **{n: getattr(full, n).bfloat16() for n in ("W_enc", "b_enc", "W_dec", "b_dec")})
    x = draw(50, D)
    assert reconstruction(half, x).l2_ratio == pytest.approx(reconstruction(full, x).l2_ratio, rel=0.02)


# --- firing rates ---------------------------------------------------------------------------------------------


def test_feature_density_counts_every_feature_once():
    rates = torch.tensor([0.0, 0.0, 1e-9, 1e-8, 0.5, 0.5, 1.0, 3e-4])
    found = feature_density(torch.log10(rates + 1e-10))
    assert found.never == 2
    assert found.counts.sum() == 6
    low, high = found.edges[:-1], found.edges[1:]
    filled = {(round(low[i], 1), round(high[i], 1)): found.counts[i] for i in np.flatnonzero(found.counts)}
    assert filled == {(-8.0, -7.9): 2, (-0.4, -0.3): 2, (-0.1, 0.0): 1, (-3.6, -3.5): 1}
    assert found.edges.tolist() == list(DENSITY_EDGES)
    values = density_values(found)
    assert json.loads(json.dumps(values)) == values
    assert len(values[f"{DENSITY}/edges"]) == len(values[f"{DENSITY}/counts"]) + 1
    assert values[f"{DENSITY}/never"] == 2


def test_evaluation_values_carry_saelens_names_and_units():
    dictionary, x = replace(tied(15, D), b_enc=torch.linspace(-9, 0, 15)), draw(200, D)
    found = evaluate(dictionary, as_rows(x))
    values = evaluation_values(found, D)
    whole = log_values(reconstruction(dictionary, x))
    for name in values.keys() & whole.keys():
        assert values[name] == pytest.approx(whole[name], rel=1e-5), name
    assert len(values.keys() & whole.keys()) == 4
    assert values["sparsity/dead_features"] == found.dead == values["sparsity/below_1e-6"] > 0
    assert "reconstruction_quality/explained_variance" not in evaluation_values(replace(found, fvu=None), D)


# --- references -----------------------------------------------------------------------------------------------


def test_pca_curve_is_what_singular_vectors_leave():
    fit = draw(300, D, seed=8) * torch.tensor([9.0, 5, 3, 2, 1, 0.1]) @ torch.linalg.qr(draw(D, D))[0] + 4
    test = fit[:90] + 0.3 * draw(90, D, seed=9)
    mean = fit.double().mean(0)
    _, _, axes = torch.linalg.svd(fit.double() - mean, full_matrices=False)
    for rows, given in ((test, test), (fit, None)):
        x = rows.double()
        found = pca_curve(fit, [0, 2, 5, 6, 1], given)
        assert [k for k, _ in found] == [0, 2, 5, 6, 1]
        for k, fvu in found:
            rebuilt = mean + (x - mean) @ axes[:k].T @ axes[:k]
            expected = (rebuilt - x).square().sum() / (x - x.mean(0)).square().sum()
            assert fvu == pytest.approx(expected.item(), rel=1e-9, abs=1e-12)
    assert dict(pca_curve(fit, [0, D])) == pytest.approx({0: 1.0, D: 0.0})
    assert pca_curve(fit.numpy(), [3]) == pca_curve(fit, [3])
    for k in (-1, D + 1):
        with pytest.raises(InputError, match="0 to 6"):
            pca_curve(fit, [k])
    with pytest.raises(InputError, match="width 6 as the fit rows, found width 4"):
        pca_curve(fit, [1], draw(20, 4))


@pytest.mark.parametrize(("features", "d"), [(1, 2), (5, 3), (40, 16)])
def test_chance_is_what_random_dictionaries_have(features, d):
    draws = torch.nn.functional.normalize(draw(4000, d), dim=1) @ torch.tensor([1.0, *[0.0] * (d - 1)])
    largest = draws[: 4000 // features * features].view(-1, features).amax(1)
    error = 4 * largest.std().item() / len(largest) ** 0.5
    assert chance_mmcs(features, d) == pytest.approx(largest.mean().item(), abs=error)
    with pytest.raises(InputError, match="two dimensions"):
        chance_mmcs(features, 1)


def test_pca_on_typical_rows_leaves_out_the_far_ones():
    rows = draw(200, D)
    far = torch.cat([rows, 1000 * draw(2, D)])
    alone = dict(pca_curve(far, [0, 1, 3, D], typical=True))
    mean = far.mean(0)
    axes = torch.linalg.svd((far - mean).double(), full_matrices=False).Vh
    for k, fvu in alone.items():
        left = (rows - mean).double() @ axes[k:].T
        about = (rows - rows.mean(0)).double().square().sum()
        assert fvu == pytest.approx((left.square().sum() / about).item(), rel=1e-4, abs=1e-9)
    assert dict(pca_curve(far, [3]))[3] < 0.01 < alone[3], "two rows decide the FVU of all"


def rows_of(weight: torch.Tensor) -> Dictionary:
    """A dictionary of these decoder rows."""
    return Dictionary(weight.T.contiguous(), torch.zeros(len(weight)), weight, torch.zeros(weight.shape[1]))


def test_mmcs_is_the_mean_of_the_largest_cosines(monkeypatch):
    a, b = draw(7, D, seed=10), draw(11, D, seed=11)
    expected = torch.stack([torch.stack([torch.cosine_similarity(u, v, dim=0) for v in b]).max() for u in a]).mean()
    for block in (4096, 3):
        monkeypatch.setattr(references, "BLOCK", block)
        assert mmcs(rows_of(a), rows_of(b)) == pytest.approx(expected.item(), rel=1e-6)
        assert mmcs(rows_of(b), rows_of(a)) == pytest.approx(expected.item(), rel=1e-6)
    shuffled = b[torch.randperm(11, generator=torch.Generator().manual_seed(0))] * torch.linspace(0.1, 3, 11)[:, None]
    assert mmcs(rows_of(b), rows_of(shuffled)) == pytest.approx(1, abs=1e-6)
    assert mmcs(rows_of(a), rows_of(torch.cat([-a, torch.zeros(1, D)]))) < 1
    assert mmcs(rows_of(torch.zeros(2, D)), rows_of(b)) == 0
    with pytest.raises(InputError, match="equal d_in"):
        mmcs(rows_of(a), rows_of(draw(3, 4)))


def test_the_table_of_pairs_is_mmcs_of_each():
    some = [rows_of(draw(n, D, seed=n)) for n in (7, 11, 11)]
    found = mmcs_table(some)
    for i, j in itertools.product(range(3), repeat=2):
        expected = 1.0 if i == j else mmcs(some[min(i, j)], some[max(i, j)])
        assert found[i][j] == pytest.approx(expected, rel=1e-6)
    sample = rows_of(some[1].W_dec[[0, 5, 10]])
    assert mmcs_table(some[1:], features=3)[0][1] == pytest.approx(mmcs(sample, some[2]), rel=1e-6)
    with pytest.raises(InputError, match="equal d_in"):
        mmcs_table([some[0], rows_of(draw(3, 4))])


def test_matched_share_gives_everyone_a_partner_of_its_own():
    a, b = draw(4, 3, seed=12), draw(5, 3, seed=13)
    cosines = torch.cosine_similarity(a[:, None], b[None], dim=2)
    best = max(itertools.permutations(range(5), 4), key=lambda p: cosines[range(4), p].sum().item())
    chosen = cosines[range(4), best]
    for at in (-1.1, 0.5, chosen.max().item() - 1e-3, 0.99999):
        expected = (chosen > at).float().mean().item()
        assert matched_share(rows_of(a), rows_of(b), at) == matched_share(rows_of(b), rows_of(a), at) == expected
    twice = torch.tensor([[1.0, 0.0], [1.0, 0.01]])
    assert mmcs(rows_of(twice), rows_of(torch.eye(2))) > 0.99
    assert matched_share(rows_of(twice), rows_of(torch.eye(2))) == 0.5
    assert math.isclose(matched_share(rows_of(a), rows_of(a * 3)), 1)
    with pytest.raises(InputError, match="equal d_in"):
        matched_share(rows_of(a), rows_of(draw(3, 4)))
