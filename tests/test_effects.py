"""Direct effects of units on the next token: against plain transformers, edited by hand, and its derivatives."""

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import HIDDEN, LAYERS, MLP, VOCABULARY, write_gpt2, write_model, write_neox
from transformers import AutoModelForCausalLM, AutoTokenizer

from saelens_n2g.bases.base import AffineBasis
from saelens_n2g.bases.dictionary import Dictionary
from saelens_n2g.bases.neurons import NeuronBasis
from saelens_n2g.bases.sae import sae_basis
from saelens_n2g.causal import effects
from saelens_n2g.causal.effects import direct_effects, extremes, final_streams, into_stream, written
from saelens_n2g.corpus import Windows
from saelens_n2g.errors import InputError
from saelens_n2g.sites import Site
from saelens_n2g.subject import Subject

WRITERS = {"llama": write_model, "neox": write_neox, "gpt2": write_gpt2}
DOWN = {"llama": "model.layers.{}.mlp.down_proj", "neox": "gpt_neox.layers.{}.mlp.dense_4h_to_h"}
DOWN["gpt2"] = "transformer.h.{}.mlp.c_proj"
HEAD = {"llama": "model.norm", "neox": "gpt_neox.final_layer_norm", "gpt2": "transformer.ln_f"}
BLOCK = {"llama": "model.layers.{}", "neox": "gpt_neox.layers.{}", "gpt2": "transformer.h.{}"}
IDS = torch.tensor([[0, 17, 250, 33, 34, 390, 71, 8, 8, 120]])


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {name: write(folder / name) for name, write in WRITERS.items()}


@pytest.fixture(scope="module")
def subjects(folders) -> dict[str, Subject]:
    return {name: Subject.load(str(folder), device="cpu") for name, folder in folders.items()}


@pytest.fixture(scope="module")
def plain(folders) -> dict:
    return {name: AutoModelForCausalLM.from_pretrained(f, dtype=torch.float32).eval() for name, f in folders.items()}


@pytest.fixture(params=WRITERS)
def architecture(request) -> str:
    return request.param


def windows(rows: int = 12, width: int = 9) -> Windows:
    rng = np.random.default_rng(0)
    tokens = rng.integers(2, VOCABULARY, (rows, width)).astype(np.int32)
    tokens[:, 0] = 0
    lengths = rng.integers(1, width + 1, rows).astype(np.int32)  # some have no token that is scored
    return Windows(tokens, lengths, np.zeros(rows, dtype=np.int32), ("one",), 0, "test")


def dictionary_at(site: Site, width: int) -> AffineBasis:
    """Untied, so that what a feature reads is not what it writes; rows of all lengths."""
    generator = torch.Generator().manual_seed(3)
    reads, writes = (torch.randn(20, width, generator=generator) for _ in range(2))
    return sae_basis(site, Dictionary(reads.T.contiguous(), torch.zeros(20), writes, torch.zeros(width)))


def directions_at(site: Site, width: int) -> AffineBasis:
    rows = 3 * torch.randn(20, width, generator=torch.Generator().manual_seed(4))
    return AffineBasis("ica", site, "", rows, torch.zeros(20), torch.zeros(width))


def logits_with(model, module: str, change, *, of_input: bool = False) -> torch.Tensor:
    """The plain model's last logits (vocabulary,), in which `change` is added to what a module gives or takes at the
    last position."""

    def give(_, __, output):
        x = output[0] if isinstance(output, tuple) else output
        x = x.clone()
        x[:, -1] += change
        return (x, *output[1:]) if isinstance(output, tuple) else x

    def take(_, arguments):
        x = arguments[0].clone()
        x[:, -1] += change
        return (x, *arguments[1:])

    found = model.get_submodule(module)
    handle = found.register_forward_pre_hook(take) if of_input else found.register_forward_hook(give)
    with torch.no_grad():
        out = model(IDS).logits[0, -1].double()
    handle.remove()
    return out


def values(effect, size: int) -> tuple[list[int], torch.Tensor]:
    """Tokens that an effect names and what it says of them."""
    tokens, said = zip(*effect.raised, *effect.lowered, strict=True)
    assert len(effect.raised) == len(effect.lowered) == size
    return list(tokens), torch.tensor(said, dtype=torch.float64)


# --- what it says ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["sae", "directions", "neurons"])
def test_a_bit_of_the_direction_in_the_last_stream_moves_the_logits_by_it(subjects, plain, architecture, kind):
    """The statement itself: in the last layer the direct path is the only one, so that the model, run with a little of
    the direction added, has logits that differ by as much, but for what all of them change."""
    subject, model = subjects[architecture], plain[architecture]
    last = subject.n_layers - 1
    x = subject.activations(IDS, [Site(last, "resid_post")])[Site(last, "resid_post")][0, -1:]
    if kind == "neurons":
        module = DOWN[architecture].format(last)
        basis = NeuronBasis(Site(last, "mlp_post"), MLP if architecture != "gpt2" else 4 * subject.d_model, split=True)
    else:
        module = BLOCK[architecture].format(last)
        make = dictionary_at if kind == "sae" else directions_at
        basis = make(Site(last, "resid_post"), subject.d_model)
    for index in (0, 7, basis.n_features - 1):
        (found,) = direct_effects(subject, basis, [index], x)
        if kind == "neurons":
            way = torch.zeros(basis.width)
            way[index % basis.width] = 1 if index < basis.width else -1
        else:
            row = basis.decoder[index] if kind == "sae" else basis.weight[index]
            way = row if kind == "sae" else row / row.norm() ** 2
        little = 1e-2 * float(x.norm() / 10) / float(way.norm())
        up, down = (logits_with(model, module, sign * little * way, of_input=kind == "neurons") for sign in (1, -1))
        slope = (up - down) / (2 * little)
        slope -= slope.mean()
        tokens, said = values(found, 10)
        torch.testing.assert_close(said, slope[tokens], rtol=2e-2, atol=2e-3 * float(slope.abs().max()))
        assert slope[tokens[:10]].min() >= slope.topk(12).values.min() - 1e-3 * float(slope.abs().max())
        assert slope[tokens[10:]].max() <= slope.topk(12, largest=False).values.max() + 1e-3 * float(slope.abs().max())
        assert found.deviation == pytest.approx(float(slope.std(correction=0)), rel=1e-2)
        scaled = slope / slope.std(correction=0)
        assert found.skew == pytest.approx(float(scaled.pow(3).mean()), abs=0.02)
        assert found.kurtosis == pytest.approx(float(scaled.pow(4).mean()), rel=0.02)


def test_over_several_streams_it_is_the_mean_of_derivatives(subjects, plain):
    subject, model = subjects["llama"], plain["llama"]
    basis = dictionary_at(Site(0, "resid_post"), HIDDEN)
    streams = final_streams(subject, windows(), seed=1)
    head = torch.nn.Sequential(model.get_submodule(HEAD["llama"]), model.get_output_embeddings())
    for index, found in zip((2, 5), direct_effects(subject, basis, [2, 5], streams), strict=True):
        slopes = [torch.autograd.functional.jvp(head, x, basis.decoder[index])[1] for x in streams]
        slope = torch.stack(slopes).mean(0).double()
        slope -= slope.mean()
        tokens, said = values(found, 10)
        torch.testing.assert_close(said, slope[tokens], rtol=1e-3, atol=1e-4)
        assert found.deviation == pytest.approx(float(slope.std(correction=0)), rel=1e-3)


def test_half_neurons_have_opposite_effects(subjects):
    subject = subjects["llama"]
    streams = final_streams(subject, windows())
    basis = NeuronBasis(Site(1, "mlp_post"), MLP, split=True)
    one, other = direct_effects(subject, basis, [5, MLP + 5], streams)
    assert [t for t, _ in one.raised] == [t for t, _ in other.lowered]
    assert (one.deviation, one.kurtosis) == pytest.approx((other.deviation, other.kurtosis))
    assert one.skew == pytest.approx(-other.skew)


def test_many_are_the_same_as_one_by_one(subjects, monkeypatch):
    subject = subjects["llama"]
    streams = final_streams(subject, windows())
    basis, indices = dictionary_at(Site(1, "resid_pre"), HIDDEN), [4, 19, 0, 4]
    whole = direct_effects(subject, basis, indices, streams)
    assert whole[0] == whole[3]
    monkeypatch.setattr(effects, "VALUES", 1)
    for one, other in zip(whole, direct_effects(subject, basis, indices, streams), strict=True):
        assert [t for t, _ in one.raised] == [t for t, _ in other.raised]
        assert [v for _, v in one.lowered] == pytest.approx([v for _, v in other.lowered])


def test_padding_of_the_vocabulary_is_no_token(folders, tmp_path):
    """Models have rows beyond their tokenizer, to round sizes; here they would lead."""
    model = AutoModelForCausalLM.from_pretrained(folders["llama"])
    model.resize_token_embeddings(VOCABULARY + 16)
    model.get_output_embeddings().weight.data[-16:] = 50.0
    model.save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(folders["llama"]).save_pretrained(tmp_path)
    subject = Subject.load(str(tmp_path), device="cpu")
    known = len(subject.tokenizer)
    assert known < subject.d_vocab
    basis = dictionary_at(Site(1, "resid_post"), HIDDEN)
    padded = direct_effects(subject, basis, range(20), final_streams(subject, windows()))
    assert max(t for one in padded for t, _ in one.raised + one.lowered) < known
    own = Subject.load(str(folders["llama"]), device="cpu")
    for one, other in zip(padded, direct_effects(own, basis, range(20), final_streams(own, windows())), strict=True):
        assert [t for t, _ in one.raised] == [t for t, _ in other.raised]
        assert one.deviation == pytest.approx(other.deviation)


# --- what is written where ------------------------------------------------------------------------------------


def test_outputs_of_a_block_are_added_as_they_are(subjects, architecture):
    subject = subjects[architecture]
    rows = torch.randn(3, subject.d_model)
    for kind in ("resid_pre", "resid_post", "mlp_out", "attn_out"):
        assert into_stream(subject, Site(1, kind), rows) is rows


def test_neurons_write_their_row_of_the_output_matrix(subjects, plain, architecture):
    subject = subjects[architecture]
    weight = plain[architecture].get_submodule(DOWN[architecture].format(1)).weight.detach()
    matrix = weight if architecture == "gpt2" else weight.T  # GPT-2 keeps its matrices the other way round
    found = into_stream(subject, Site(1, "mlp_post"), torch.eye(len(matrix))[[3, 0]])
    torch.testing.assert_close(found, matrix[[3, 0]])


def test_what_is_normalised_before_it_is_added_is_refused(tmp_path):
    """Gemma 2 does so: an MLP's matrix alone says nothing of what it adds."""
    from tiny import _write
    from transformers import Gemma2Config

    sizes = {"hidden_size": HIDDEN, "intermediate_size": MLP, "num_hidden_layers": 2, "num_attention_heads": 4}
    more = {"num_key_value_heads": 4, "head_dim": 8, "max_position_embeddings": 64, "sliding_window": 64}
    subject = Subject.load(str(_write(tmp_path / "gemma", Gemma2Config, **sizes, **more)), device="cpu")
    with pytest.raises(
        InputError, match=r"direct effects at MLP of layer 1 .*: expected a block that adds its outputs"
    ):
        into_stream(subject, Site(1, "mlp_post"), torch.eye(MLP))
    rows = torch.eye(HIDDEN)
    assert into_stream(subject, Site(1, "mlp_out"), rows) is rows, "behind the norm its output is added as it is"
    assert into_stream(subject, Site(1, "resid_post"), rows) is rows


def test_a_block_that_scales_its_outputs_is_refused(subjects, monkeypatch):
    subject = subjects["llama"]
    real = subject.activations

    def scaled(ids, sites):
        seen = real(ids, sites)
        return {s: x * 3 if s.kind == "mlp_out" else x for s, x in seen.items()}

    monkeypatch.setattr(subject, "activations", scaled)
    with pytest.raises(InputError, match=r"direct effects at site 1\.mlp_out .*: expected a block that adds"):
        into_stream(subject, Site(1, "mlp_out"), torch.eye(HIDDEN))


def test_an_mlp_without_one_matrix_is_refused(subjects, monkeypatch):
    subject = subjects["llama"]
    monkeypatch.setattr(type(subject.bridge.blocks[1].mlp), "W_out", torch.zeros(4, MLP, HIDDEN), raising=False)
    with pytest.raises(InputError, match=r"expected an MLP with one output matrix, found \(4, 64, 32\)"):
        into_stream(subject, Site(1, "mlp_post"), torch.eye(MLP))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_in_half_precision_nothing_is_refused(folders, architecture, dtype):
    half = Subject.load(str(folders[architecture]), device="cpu", dtype=dtype)
    width = half.width(Site(1, "mlp_post"))
    for kind, size in (("mlp_post", width), ("mlp_out", half.d_model), ("attn_out", half.d_model)):
        assert into_stream(half, Site(1, kind), torch.eye(size)[:2]).shape == (2, half.d_model)


def test_units_that_are_not_there():
    basis = NeuronBasis(Site(0, "mlp_post"), 4)
    with pytest.raises(InputError, match="unit of basis 'neurons': expected 0 to 3, found 4"):
        written(basis, [0, 4], 4)
    assert written(basis, [], 4).shape == (0, 4)


# --- streams ----------------------------------------------------------------------------------------------------


def test_final_streams_are_some_of_the_scored_positions(subjects):
    subject, text = subjects["llama"], windows()
    last = Site(LAYERS - 1, "resid_post")
    every = [
        subject.activations(torch.from_numpy(row[:n]).long()[None], [last])[last][0, 1:]
        for row, n in zip(text.tokens, text.lengths, strict=True)
        if n > 1
    ]
    rows = torch.cat(every)
    found = final_streams(subject, text, seed=3, most=9)
    assert found.shape == (9, HIDDEN)
    distances = torch.cdist(found.double(), rows.double())
    assert distances.min(1).values.max() < 1e-3
    assert len(set(distances.argmin(1).tolist())) == 9
    assert torch.equal(found, final_streams(subject, text, seed=3, most=9))
    assert not torch.equal(found, final_streams(subject, text, seed=4, most=9))
    with pytest.raises(InputError, match="text for direct effects: expected a token, found none"):
        final_streams(subject, text.subset(np.flatnonzero(text.lengths == 1)))


def test_extremes_of_few_tokens():
    low, high = extremes(torch.tensor([[0.5, -1.0, 2.0]]), 10)
    assert low == [((1, -1.0), (0, 0.5), (2, 2.0))]
    assert high == [((2, 2.0), (0, 0.5), (1, -1.0))]
