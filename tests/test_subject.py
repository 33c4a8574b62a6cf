"""Subject: tiny models of three architectures, built here and read back, against plain transformers.

GPT-2 (learned positions), GPT-NeoX (Pythia; attention and MLP in parallel) and Llama (gated MLP, SentencePiece
spacing), and a SoLU checkpoint in TransformerLens' own old format.
"""

import inspect
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
import torch

from saelens_n2g.booting import depth_of, find_device
from saelens_n2g.errors import InputError
from saelens_n2g.graphs.masked_lm import TextModel
from saelens_n2g.graphs.oracle import ActivationModel
from saelens_n2g.graphs.packing import PackedModel, can_pack, lines, pack
from saelens_n2g.sites import Site, SiteKind
from saelens_n2g.subject import Subject, Tokenizer

ARCHITECTURES = ("gpt2", "neox", "llama")
LAYERS, WIDTH, HIDDEN, CONTEXT = 3, 16, 24, 32
WORDS = ("the", "cat", "dog", "sat", "on", "mat")
IDS = torch.tensor([[0, 5, 3, 7, 4, 6], [0, 8, 2, 2, 9, 5]])


def byte_level():
    """A tokenizer as of GPT-2 and Pythia: id 0 is BOS and EOS, a leading space belongs to the word."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    pieces = [
        "<|endoftext|>",
        *WORDS,
        *(f"\u0120{word}" for word in WORDS),
        *sorted(pre_tokenizers.ByteLevel.alphabet()),
    ]
    built = Tokenizer(models.BPE({piece: i for i, piece in enumerate(dict.fromkeys(pieces))}, [], ignore_merges=True))
    built.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    built.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=built, bos_token="<|endoftext|>", eos_token="<|endoftext|>")


def sentence_piece():
    """A tokenizer as of Llama 2: BOS is id 1, and decoding one token alone loses its space."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    pieces = ["<unk>", "<s>", "</s>", *(f"\u2581{word}" for word in WORDS), *WORDS]
    built = Tokenizer(models.WordLevel({piece: i for i, piece in enumerate(pieces)}, unk_token="<unk>"))
    built.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    built.pre_tokenizer = pre_tokenizers.Split("\u2581", "merged_with_next")
    built.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=built, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def build(architecture: str, folder: Path) -> None:
    """Save a model with random weights and its tokenizer in Hugging Face format."""
    import transformers as hf

    tokenizer = sentence_piece() if architecture == "llama" else byte_level()
    vocabulary = len(tokenizer)
    torch.manual_seed(0)
    if architecture == "gpt2":
        config = hf.GPT2Config(
            vocab_size=vocabulary, n_embd=WIDTH, n_inner=HIDDEN, n_layer=LAYERS, n_head=2, n_positions=CONTEXT,
            bos_token_id=0, eos_token_id=0, initializer_range=0.3,
        )  # fmt: skip
        model = hf.GPT2LMHeadModel(config)
    else:
        common = {
            "vocab_size": vocabulary, "hidden_size": WIDTH, "intermediate_size": HIDDEN, "num_hidden_layers": LAYERS,
            "num_attention_heads": 2, "max_position_embeddings": CONTEXT, "initializer_range": 0.3,
        }  # fmt: skip
        if architecture == "neox":
            model = hf.GPTNeoXForCausalLM(hf.GPTNeoXConfig(**common, bos_token_id=0, eos_token_id=0))
        else:
            model = hf.LlamaForCausalLM(hf.LlamaConfig(**common, num_key_value_heads=1))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    for architecture in ARCHITECTURES:
        build(architecture, root / architecture)
    return root


@pytest.fixture(scope="session")
def subjects(folders):
    return {name: Subject.load(str(folders / name), device="cpu") for name in ARCHITECTURES}


@pytest.fixture(params=ARCHITECTURES)
def architecture(request):
    return request.param


@pytest.fixture
def subject(subjects, architecture):
    return subjects[architecture]


@pytest.fixture
def copy(folders, tmp_path):
    """A GPT-2 folder to damage."""
    return Path(shutil.copytree(folders / "gpt2", tmp_path / "copy"))


def reference(folder: Path, architecture: str, ids: torch.Tensor):
    """What stands at each site by plain transformers with hooks: (site -> tensor, hidden states, logits)."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager")
    blocks = {"gpt2": "transformer.h", "neox": "gpt_neox.layers", "llama": "model.layers"}[architecture]
    attention = {"gpt2": "attn", "neox": "attention", "llama": "self_attn"}[architecture]
    down = {"gpt2": "mlp.c_proj", "neox": "mlp.dense_4h_to_h", "llama": "mlp.down_proj"}[architecture]
    middle = {"gpt2": "ln_2", "llama": "post_attention_layernorm"}.get(architecture)
    found = {}

    def watch(path: str, site: Site, *, entering: bool) -> None:
        def keep(_, args, kwargs, out):
            value = (args[0] if args else kwargs["hidden_states"]) if entering else out
            found[site] = (value[0] if isinstance(value, tuple) else value).detach()

        model.get_submodule(path).register_forward_hook(keep, with_kwargs=True)

    for layer in range(LAYERS):
        block = f"{blocks}.{layer}"
        watch(block, Site(layer, "resid_pre"), entering=True)
        watch(block, Site(layer, "resid_post"), entering=False)
        watch(f"{block}.{attention}", Site(layer, "attn_out"), entering=False)
        watch(f"{block}.mlp", Site(layer, "mlp_out"), entering=False)
        watch(f"{block}.{down}", Site(layer, "mlp_post"), entering=True)
        if middle:
            watch(f"{block}.{middle}", Site(layer, "resid_mid"), entering=True)
    out = model(ids, output_hidden_states=True)
    return found, out.hidden_states, out.logits


def same(found, expected) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


class TestActivations:
    def test_every_site_is_what_plain_transformers_has_there(self, subject, folders, architecture):
        expected, hidden, logits = reference(folders / architecture, architecture, IDS)
        kinds = [kind for kind in get_args(SiteKind) if (architecture, kind) != ("neox", "resid_mid")]
        sites = [Site(layer, kind) for layer in range(LAYERS) for kind in kinds]
        assert set(sites) == set(expected)
        together = subject.activations(IDS, sites)
        for site in sites:
            same(together[site], expected[site])
            same(subject.activations(IDS, [site])[site], expected[site])
            assert subject.width(site) == (HIDDEN if site.kind == "mlp_post" else WIDTH)
        for layer in range(LAYERS - 1):  # the last hidden state of transformers is normalised
            same(together[Site(layer, "resid_post")], hidden[layer + 1])
        same(subject.logits(IDS), logits)

    def test_only_the_blocks_that_are_needed_run(self, subject):
        ran = []
        hooks = [
            block.attn.register_forward_pre_hook(lambda *_, layer=layer: ran.append(layer))
            for layer, block in enumerate(subject.bridge.blocks)
        ]
        hooks.append(subject.bridge.unembed.register_forward_pre_hook(lambda *_: ran.append("unembedding")))
        try:
            for layer in range(LAYERS):
                ran.clear()
                subject.activations(IDS, [Site(0, "resid_pre"), Site(layer, "mlp_post")])
                assert ran == list(range(layer + 1))
            ran.clear()
            subject.logits(IDS)
            assert ran == [*range(LAYERS), "unembedding"]
        finally:
            for hook in hooks:
                hook.remove()

    def test_without_gradients_in_float32(self, subject):
        grad = []
        hook = subject.bridge.blocks[0].register_forward_hook(lambda *_: grad.append(torch.is_grad_enabled()))
        found = subject.activations(IDS, [Site(0, "mlp_post")])[Site(0, "mlp_post")]
        logits = subject.logits(IDS)
        hook.remove()
        assert grad == [False, False]
        assert not found.requires_grad
        assert not logits.requires_grad
        assert found.dtype == logits.dtype == torch.float32
        assert found.device == subject.device

    def test_padding_on_the_right_changes_nothing(self, subject):
        site = Site(LAYERS - 1, "resid_post")
        padded = torch.cat([IDS, torch.full((2, 7), subject.pad_id)], dim=1)
        same(subject.activations(padded, [site])[site][:, : IDS.shape[1]], subject.activations(IDS, [site])[site])

    def test_the_last_call_leaves_no_hook(self, subject):
        site = Site(1, "mlp_post")
        first = subject.activations(IDS, [site])
        kept = first[site].clone()
        subject.activations(IDS.flip(1), [site])
        assert torch.equal(first[site], kept)

    def test_another_dtype_computes_in_it_and_answers_in_float32(self, folders):
        half = Subject.load(str(folders / "gpt2"), device="cpu", dtype="bfloat16")
        full = Subject.load(str(folders / "gpt2"), device="cpu")
        site = Site(1, "mlp_post")
        found, expected = (s.activations(IDS, [site])[site] for s in (half, full))
        assert (half.dtype, found.dtype) == (torch.bfloat16, torch.float32)
        assert half.describe()["dtype"] == "bfloat16"
        assert not torch.equal(found, expected)
        torch.testing.assert_close(found, expected, rtol=0.1, atol=0.1)

    def test_answers_to_what_oracle_and_augmenters_ask_of_a_subject(self, subject):
        assert isinstance(subject, ActivationModel)
        assert isinstance(subject, TextModel)


def spliced(folder: Path, architecture: str, ids: torch.Tensor, site: Site, edit) -> torch.Tensor:
    """Logits of plain transformers with `edit` put in by hand."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager")
    blocks = {"gpt2": "transformer.h", "neox": "gpt_neox.layers", "llama": "model.layers"}[architecture]
    attention = {"gpt2": "attn", "neox": "attention", "llama": "self_attn"}[architecture]
    down = {"gpt2": "mlp.c_proj", "neox": "mlp.dense_4h_to_h", "llama": "mlp.down_proj"}[architecture]
    block = model.get_submodule(f"{blocks}.{site.layer}")

    def entering(_, args, kwargs):
        if args:
            return (edit(args[0]), *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": edit(kwargs["hidden_states"])}

    def leaving(_, __, out):
        return (edit(out[0]), *out[1:]) if isinstance(out, tuple) else edit(out)

    if site.kind in ("resid_pre", "mlp_post"):
        place = block if site.kind == "resid_pre" else block.get_submodule(down)
        place.register_forward_pre_hook(entering, with_kwargs=True)
    else:
        place = {"resid_post": block, "attn_out": block.get_submodule(attention), "mlp_out": block.mlp}[site.kind]
        place.register_forward_hook(leaving)
    with torch.no_grad():
        return model(ids, use_cache=False).logits


class TestSplicedLogits:
    """The model with something else in place of its activations, against plain transformers with hooks by hand."""

    @staticmethod
    def edit(x):
        """Depends on what it is given, and leaves the first position alone."""
        out = -1.5 * x + 0.7 * x.roll(1, dims=-1)
        out[:, 0] = x[:, 0]
        return out

    def test_every_site_on_every_architecture(self, subject, folders, architecture):
        plain = subject.logits(IDS)
        kinds = [kind for kind in get_args(SiteKind) if kind != "resid_mid"]
        for site in [Site(layer, kind) for layer in (0, LAYERS - 1) for kind in kinds]:
            found = subject.spliced_logits(IDS, site, self.edit)
            same(found, spliced(folders / architecture, architecture, IDS, site, self.edit))
            same(found[:, 0], plain[:, 0])
            assert (found[:, 1:] - plain[:, 1:]).abs().max() > 0.01, site

    def test_the_edit_gets_the_activations_and_an_idle_one_changes_nothing(self, subject):
        site, seen = Site(1, "resid_post"), []

        def idle(x):
            seen.append(x)
            return x

        assert torch.equal(subject.spliced_logits(IDS, site, idle), subject.logits(IDS))
        assert len(seen) == 1
        same(seen[0], subject.activations(IDS, [site])[site])

    def test_no_hook_is_left_behind_whatever_happens(self, subject):
        site = Site(1, "mlp_out")
        plain, before = subject.logits(IDS), subject.activations(IDS, [site])[site]

        def broken(_):
            raise ZeroDivisionError("in the edit")

        for edit, error in ((broken, ZeroDivisionError), (lambda x: x[..., :-1], AssertionError)):
            with pytest.raises(error):
                subject.spliced_logits(IDS, site, edit)
            assert torch.equal(subject.logits(IDS), plain)
            assert torch.equal(subject.activations(IDS, [site])[site], before)
        subject.spliced_logits(IDS, site, torch.zeros_like)
        assert torch.equal(subject.logits(IDS), plain)

    def test_without_gradients_in_float32_whatever_the_models_dtype(self, folders):
        half = Subject.load(str(folders / "gpt2"), device="cpu", dtype="bfloat16")
        seen = []

        def idle(x):
            seen.append((x.dtype, torch.is_grad_enabled()))
            return x

        found = half.spliced_logits(IDS, Site(1, "resid_pre"), idle)
        assert seen == [(torch.float32, False)]
        assert (found.dtype, found.requires_grad) == (torch.float32, False)
        assert torch.equal(found, half.logits(IDS))

    def test_refusals(self, subjects):
        with pytest.raises(InputError, match=r"1\.resid_mid to splice into: expected a place where everything passes"):
            subjects["gpt2"].spliced_logits(IDS, Site(1, "resid_mid"), torch.zeros_like)
        with pytest.raises(InputError, match=r"layer of site 3\.mlp_post"):
            subjects["gpt2"].spliced_logits(IDS, Site(LAYERS, "mlp_post"), torch.zeros_like)
        for shape in ((0, 4), (1, CONTEXT + 1)):
            with pytest.raises(InputError, match=f"1 to {CONTEXT}"):
                subjects["gpt2"].spliced_logits(torch.zeros(shape, dtype=torch.long), Site(0, "mlp_post"), torch.neg)


class TestBehind:
    """What lies behind a site alone, against the whole model with the activations spliced in."""

    LAST = torch.tensor([IDS.shape[1] - 1, *range(IDS.shape[0] - 1)])

    @pytest.mark.parametrize("layer", range(LAYERS))
    def test_equals_the_whole_model(self, subject, layer):
        site = Site(layer, "resid_post")
        x = TestSplicedLogits.edit(subject.activations(IDS, [site])[site])
        whole = subject.spliced_logits(IDS, site, lambda _: x)
        with subject.behind(IDS, site, self.LAST) as run, torch.inference_mode():
            assert torch.equal(run(x), run(x))
            same(run(x), whole[torch.arange(len(IDS)), self.LAST])
            assert (run(-x) - run(x)).abs().max() > 0.01

    def test_gradients_are_those_of_differences(self, subject):
        site = Site(1, "resid_post")
        x = subject.activations(IDS, [site])[site].clone()
        along = torch.randn(x.shape, generator=torch.Generator().manual_seed(0)) * 1e-2
        with subject.behind(IDS, site, self.LAST) as run:
            leaf = x.clone().requires_grad_()
            (gradient,) = torch.autograd.grad(run(leaf).logsumexp(-1).sum(), leaf)
            with torch.inference_mode():
                ends = [run(x + sign * along).logsumexp(-1).sum().item() for sign in (1, -1)]
        assert (gradient * along).sum().item() == pytest.approx((ends[0] - ends[1]) / 2, rel=0.05)

    def test_the_model_is_whole_again_afterwards(self, subject):
        plain, site = subject.logits(IDS), Site(1, "resid_post")
        with subject.behind(IDS, site, self.LAST) as run:
            run(torch.zeros(*IDS.shape, subject.d_model))
        assert torch.equal(subject.logits(IDS), plain)
        with pytest.raises(ZeroDivisionError), subject.behind(IDS, site, self.LAST):
            raise ZeroDivisionError
        assert torch.equal(subject.logits(IDS), plain)

    def test_only_the_residual_stream_carries_everything(self, subjects):
        with pytest.raises(InputError, match=r"1\.mlp_post to go on from: expected a resid_post"):
            subjects["gpt2"].behind(IDS, Site(1, "mlp_post"), self.LAST).__enter__()


def following(folder: Path, architecture: str, ids: torch.Tensor, layer: int, edit) -> dict[Site, torch.Tensor]:
    """Outputs of the later blocks and inputs of their MLP's second matrix, with `edit` on the output of block `layer`,
    by plain transformers with hooks by hand."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager")
    blocks = {"gpt2": "transformer.h", "neox": "gpt_neox.layers", "llama": "model.layers"}[architecture]
    down = {"gpt2": "mlp.c_proj", "neox": "mlp.dense_4h_to_h", "llama": "mlp.down_proj"}[architecture]
    found = {}

    def bare(out):
        return out[0] if isinstance(out, tuple) else out

    def change(_, __, out):
        return (edit(out[0]), *out[1:]) if isinstance(out, tuple) else edit(out)

    model.get_submodule(f"{blocks}.{layer}").register_forward_hook(change)
    for later in range(layer + 1, LAYERS):
        block = model.get_submodule(f"{blocks}.{later}")
        block.register_forward_hook(lambda _m, _a, out, at=later: found.update({Site(at, "resid_post"): bare(out)}))
        block.get_submodule(down).register_forward_pre_hook(
            lambda _m, args, at=later: found.update({Site(at, "mlp_post"): args[0]})
        )
    with torch.no_grad():
        model(ids, use_cache=False)
    return found


class TestEditedActivations:
    """What later sites hold when an earlier one is edited, against plain transformers with hooks by hand."""

    @pytest.mark.parametrize("layer", range(LAYERS - 1))
    def test_later_sites_on_every_architecture(self, subject, folders, architecture, layer):
        site, edit = Site(layer, "resid_post"), TestSplicedLogits.edit
        expected = following(folders / architecture, architecture, IDS, layer, edit)
        assert len(expected) == 2 * (LAYERS - 1 - layer)
        found = subject.edited_activations(IDS, site, edit, list(expected))
        for later, values in expected.items():
            same(found[later], values)
            assert (values - subject.activations(IDS, [later])[later])[:, 1:].abs().max() > 0.01

    def test_an_idle_edit_changes_nothing_and_no_hook_is_left(self, subject):
        site, later = Site(0, "mlp_out"), Site(2, "resid_post")
        plain = subject.activations(IDS, [later])[later]
        assert torch.equal(subject.edited_activations(IDS, site, lambda x: x, [later])[later], plain)
        subject.edited_activations(IDS, site, torch.zeros_like, [later])
        with pytest.raises(ZeroDivisionError):
            subject.edited_activations(IDS, site, lambda _: 1 / 0, [later])
        assert torch.equal(subject.activations(IDS, [later])[later], plain)

    def test_refusals(self, subjects):
        for site, others, message in (
            (Site(1, "resid_post"), [Site(2, "mlp_out"), Site(1, "mlp_out")], r"layers from 2 on, found 1\.mlp_out"),
            (Site(1, "resid_mid"), [Site(2, "mlp_out")], "a place where everything passes"),
            (Site(1, "resid_post"), [Site(LAYERS, "mlp_out")], f"0 to {LAYERS - 1}"),
        ):
            with pytest.raises(InputError, match=message):
                subjects["gpt2"].edited_activations(IDS, site, torch.zeros_like, others)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_depth_is_read_off_the_configuration(folders, architecture, tmp_path):
    bare = tmp_path / "bare"
    shutil.copytree(folders / architecture, bare, ignore=shutil.ignore_patterns("*.safetensors"))
    assert depth_of(str(bare)) == LAYERS, "no weights are needed"


def test_depth_of_what_is_no_model(tmp_path):
    with pytest.raises(InputError, match="model 'no/such-model'"):
        depth_of("no/such-model")
    with pytest.raises(InputError, match=r"config\.json"):
        depth_of(str(tmp_path))


class TestDirectEffect:
    """The logit lens of a direction, against derivatives through plain transformers' last norm and unembedding."""

    @staticmethod
    def head(folder: Path, architecture: str):
        from transformers import AutoModelForCausalLM

        model = AutoModelForCausalLM.from_pretrained(folder)
        norm = {"gpt2": "transformer.ln_f", "neox": "gpt_neox.final_layer_norm", "llama": "model.norm"}[architecture]
        return torch.nn.Sequential(model.get_submodule(norm), model.get_output_embeddings())

    @pytest.mark.parametrize("length", [0.01, 3.0])
    def test_is_the_mean_derivative_of_the_logits(self, subject, folders, architecture, length):
        generator = torch.Generator().manual_seed(1)
        x = 2 * torch.randn(5, WIDTH, generator=generator)
        directions = length * torch.nn.functional.normalize(torch.randn(3, WIDTH, generator=generator), dim=1)
        head = self.head(folders / architecture, architecture)
        slopes = [[torch.autograd.functional.jvp(head, one, d)[1] for one in x] for d in directions]
        found = subject.direct_effects(x, directions)
        assert found.shape == (3, subject.d_vocab)
        wanted = torch.stack([torch.stack(several).mean(0) for several in slopes])
        torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-3 * length)

    def test_is_the_same_a_few_at_a_time(self, subject, monkeypatch):
        generator = torch.Generator().manual_seed(4)
        x, directions = torch.randn(6, WIDTH, generator=generator), torch.randn(7, WIDTH, generator=generator)
        whole = subject.direct_effects(x, directions)
        for room in (1, 2 * x.numel()):
            monkeypatch.setattr("saelens_n2g.subject._VALUES", room)
            torch.testing.assert_close(subject.direct_effects(x, directions), whole)

    def test_nothing_has_no_effect(self, subject):
        """Also where the unembedding has a bias; and only what is nothing has none."""
        x = torch.randn(2, WIDTH, generator=torch.Generator().manual_seed(5))
        found = subject.direct_effects(x, torch.eye(WIDTH)[:2] * torch.tensor([[0.0], [1.0]]))
        assert found.abs().sum(1)[0] == 0
        assert found.abs().sum(1)[1] > 0

    def test_in_half_precision_it_is_about_the_same(self, subjects, folders, architecture):
        half = Subject.load(str(folders / architecture), device="cpu", dtype="bfloat16")
        generator = torch.Generator().manual_seed(1)
        x, direction = 2 * torch.randn(20, WIDTH, generator=generator), torch.randn(1, WIDTH, generator=generator)
        both = torch.cat([one.direct_effects(x, direction) for one in (half, subjects[architecture])])
        assert torch.corrcoef(both)[0, 1] > 0.99

    def test_the_stream_itself_has_no_effect(self, subject):
        """Both kinds of norm forget the length of a stream."""
        x = torch.randn(1, WIDTH, generator=torch.Generator().manual_seed(2))
        across = torch.randn(1, WIDTH, generator=torch.Generator().manual_seed(3))
        along, beside = subject.direct_effects(x, torch.cat([x / x.norm(), across / across.norm()])).abs().amax(1)
        assert along < 1e-2 * beside


class TestRefusals:
    def test_a_site_that_the_architecture_lacks_lists_what_there_is(self, subjects):
        with pytest.raises(InputError, match=r"expected a hook blocks\.1\.hook_resid_mid, found only .*mlp\.hook_post"):
            subjects["neox"].activations(IDS, [Site(1, "resid_mid")])

    def test_a_layer_out_of_range(self, subject):
        with pytest.raises(InputError, match=r"layer of site 3\.mlp_post: expected 0 to 2 .* found 3"):
            subject.activations(IDS, [Site(LAYERS, "mlp_post")])

    @pytest.mark.parametrize("shape", [(0, 4), (2, 0), (1, CONTEXT + 1)])
    def test_no_token_or_too_many(self, subject, shape):
        with pytest.raises(InputError, match=f"1 to {CONTEXT}"):
            subject.activations(torch.zeros(shape, dtype=torch.long), [Site(0, "mlp_post")])

    def refused(self, name, **options) -> str:
        with pytest.raises(InputError) as caught:
            Subject.load(str(name), **{"device": "cpu", **options})
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 500
        return str(caught.value)

    @pytest.mark.parametrize("name", ["no-such/model", "gpt2", "solu-6l", "not a name"])
    def test_an_unknown_name_without_network(self, name):
        message = self.refused(name)
        assert message.startswith(f"model {name!r}: expected `embedded`, a folder")
        with pytest.raises(InputError, match="expected `embedded`, a folder"):
            Tokenizer.load(name)

    def test_a_folder_without_config(self, tmp_path):
        assert "config.json, found none there" in self.refused(tmp_path)

    def test_a_folder_without_weights(self, copy):
        (copy / "model.safetensors").unlink()
        assert "no file named model.safetensors" in self.refused(copy)

    def test_truncated_weights(self, copy):
        weights = copy / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:5000])
        assert "not fully covered" in self.refused(copy)

    def test_missing_weights_are_not_made_up(self, copy):
        from safetensors.torch import load_file, save_file

        weights = load_file(copy / "model.safetensors")
        left = {name: value for name, value in weights.items() if ".h.1." not in name}
        save_file(left, copy / "model.safetensors", metadata={"format": "pt"})
        assert "expected a weight for every parameter, found 12 without weights" in self.refused(copy)

    def test_weights_of_another_shape(self, copy):
        config = json.loads((copy / "config.json").read_text())
        (copy / "config.json").write_text(json.dumps({**config, "n_embd": 2 * WIDTH}))
        self.refused(copy)

    def test_a_damaged_config(self, copy):
        (copy / "config.json").write_text('{"model_type": ')
        assert "not a valid JSON file" in self.refused(copy)

    def test_a_folder_without_tokenizer(self, copy):
        for name in ("tokenizer.json", "tokenizer_config.json"):
            (copy / name).unlink()
        assert "a tokenizer with a vocabulary" in self.refused(copy)

    def test_a_model_that_looks_ahead(self, tmp_path):
        from transformers import BertConfig, BertForMaskedLM

        sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
        tokenizer = byte_level()
        BertForMaskedLM(BertConfig(vocab_size=len(tokenizer), **sizes)).save_pretrained(tmp_path)
        tokenizer.save_pretrained(tmp_path)
        assert "a causal language model, found bidirectional attention" in self.refused(tmp_path)

    def test_a_revision_where_there_are_none(self, folders):
        assert "revision of" in self.refused(folders / "gpt2", revision="main")
        assert "revision of" in self.refused("solu-6l", revision="main")

    def test_a_dtype_or_device_that_is_not_there(self, folders):
        unchecked = inspect.unwrap(Subject.load.__func__)  # beartype would be the first to object
        for dtype in ("int7", "int32", "load"):
            with pytest.raises(InputError, match="float32, bfloat16 or float16"):
                unchecked(Subject, str(folders / "gpt2"), dtype=dtype)
        for device in ("warp", "mps", "cuda:99"):
            assert device in self.refused(folders / "gpt2", device=device)
        assert find_device("cpu") == torch.device("cpu")
        assert find_device("auto").type in ("cpu", "cuda")


class TestBos:
    @pytest.mark.parametrize(("bos", "expected"), [("auto", 0), ("none", None), (0, 0), ("0", 0), (7, 7), ("7", 7)])
    def test_policies(self, subjects, bos, expected):
        subject = Subject(subjects["gpt2"].bridge, "tiny", bos=bos)
        assert subject.bos_id == expected
        assert subject.describe()["bos_id"] == expected

    def test_auto_takes_the_tokenizers(self, subjects):
        assert subjects["llama"].bos_id == 1
        assert subjects["neox"].bos_id == 0

    def test_auto_takes_eos_where_there_is_no_bos(self, folders):
        subject = Subject.load(str(folders / "llama"), device="cpu")
        subject.tokenizer.bos_token = None
        assert Subject(subject.bridge, "tiny").bos_id == subject.tokenizer.eos_token_id == 2
        subject.tokenizer.eos_token = None
        assert Subject(subject.bridge, "tiny").bos_id is None

    @pytest.mark.parametrize("bos", ["-1", -1, 10_000, "BOS", ""])
    def test_out_of_range(self, subjects, bos):
        with pytest.raises(InputError, match=r"BOS: expected auto, none or an id in \[0, "):
            Subject(subjects["gpt2"].bridge, "tiny", bos=bos)


class TestText:
    @pytest.mark.parametrize("text", ["the cat sat on the mat", "cat", "the dog"])
    def test_strings_of_tokens_join_to_the_text(self, subject, architecture, text):
        space = " " if architecture == "llama" else ""  # SentencePiece puts one in front
        assert "".join(subject.string(token) for token in subject.encode(text)) == space + text

    def test_no_special_token_is_added_or_read_out_of_the_text(self, subject):
        special = set(subject.tokenizer.all_special_ids) - {subject.tokenizer.unk_token_id}
        assert not special & set(subject.encode(f"cat {subject.tokenizer.bos_token} dog"))

    def test_the_tokenizer_alone_says_the_same(self, subject, folders, architecture):
        alone = Tokenizer.load(str(folders / architecture))
        assert alone.encode("the cat sat") == subject.encode("the cat sat")

    def test_bytes_of_no_whole_character_show_as_such(self, subjects):
        subject = subjects["gpt2"]
        assert {subject.string(token) for token in subject.encode("\u00e9")} == {"\ufffd"}


class TestLegacy:
    """`solu-6l` is an alias of a repository in TransformerLens' format; here its files are served from a folder."""

    @pytest.fixture
    def weights(self, folders, tmp_path, monkeypatch):
        import huggingface_hub

        size, heads, head = len(byte_level()), 2, 8
        config = {
            "d_model": WIDTH, "n_layers": 2, "d_mlp": HIDDEN, "d_head": head, "n_heads": heads, "n_ctx": CONTEXT,
            "d_vocab": size, "act_fn": "solu_ln", "attn_only": False, "normalization": "LNPre",
            "tokenizer_name": str(folders / "gpt2"),
        }  # fmt: skip
        generator = torch.Generator().manual_seed(0)

        def random(*shape):
            return torch.randn(*shape, generator=generator) * 0.3

        state = {
            "embed.W_E": random(size, WIDTH),
            "pos_embed.W_pos": random(CONTEXT, WIDTH),
            "unembed.W_U": random(WIDTH, size),
        }
        for layer in range(2):
            block = {f"attn.W_{n}": random(heads, WIDTH, head) for n in "QKV"}
            block |= {f"attn.b_{n}": random(heads, head) for n in "QKV"}
            block |= {"attn.W_O": random(heads, head, WIDTH), "attn.b_O": random(WIDTH)}
            block |= {"mlp.W_in": random(WIDTH, HIDDEN), "mlp.b_in": random(HIDDEN)}
            block |= {"mlp.W_out": random(HIDDEN, WIDTH), "mlp.b_out": random(WIDTH)}
            block |= {"mlp.ln.w": torch.ones(HIDDEN), "mlp.ln.b": torch.zeros(HIDDEN)}
            state |= {f"blocks.{layer}.{name}": value for name, value in block.items()}
        (tmp_path / "config.json").write_text(json.dumps(config))
        torch.save(state, tmp_path / "model_final.pth")
        repositories = []

        def serve(repository, name, **_):
            repositories.append(repository)
            return str(tmp_path / name)

        monkeypatch.setattr(huggingface_hub, "hf_hub_download", serve)
        monkeypatch.setattr(
            huggingface_hub.HfApi, "list_repo_files", lambda *_, **__: ["config.json", "model_final.pth"]
        )
        state["repositories"] = repositories
        return state

    def test_boots_and_answers(self, weights):
        subject = Subject.load("solu-6l", device="cpu")
        assert set(weights["repositories"]) == {"NeelNanda/SoLU_6L768W_C4_Code"}
        assert (subject.name, subject.n_layers, subject.bos_id) == ("solu-6l", 2, 0)
        sites = [Site(0, kind) for kind in get_args(SiteKind)]
        found = {site.kind: value for site, value in subject.activations(IDS, sites).items()}
        same(found["resid_pre"], weights["embed.W_E"][IDS] + weights["pos_embed.W_pos"][: IDS.shape[1]])
        same(found["resid_mid"], found["resid_pre"] + found["attn_out"])
        same(found["resid_post"], found["resid_mid"] + found["mlp_out"])
        same(found["mlp_out"], found["mlp_post"] @ weights["blocks.0.mlp.W_out"] + weights["blocks.0.mlp.b_out"])


def test_importing_the_package_loads_no_model_library():
    code = "import sys, saelens_n2g.subject; print(sorted({'transformers', 'transformer_lens'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


class TestActivationsAt:
    """Texts packed into trees give what they give one by one, at every kind of site, on every architecture."""

    ROWS = ((0, 5, 3, 7, 4), (0, 5, 3, 2), (0, 5), (0, 8, 2, 2, 9, 5), (0, 8), (0, 5, 3, 7, 4, 4))

    def packed(self, subject, site, line):
        found = pack(self.ROWS, line)
        ids, positions, mask = lines(found.packs, 1)
        starts = [number * ids.shape[1] for number in found.pack]
        at = [start + node for start, nodes in zip(starts, found.nodes, strict=True) for node in reversed(nodes)]
        return subject.activations_at(ids, site, torch.tensor(at), positions=positions, mask=mask)

    def test_equals_the_plain_way(self, subject, architecture):
        parallel = architecture == "neox"  # attention and MLP side by side: there is nothing between them
        kinds = [kind for kind in get_args(SiteKind) if not (parallel and kind == "resid_mid")]
        sites = [Site(layer, kind) for layer in (0, LAYERS - 1) for kind in kinds]
        plain = [subject.activations(torch.tensor([row]), sites) for row in self.ROWS]
        for site in sites:
            expected = torch.cat([found[site][0].flip(0) for found in plain])
            same(self.packed(subject, site, 6), expected)
            same(self.packed(subject, site, 100), expected)

    @pytest.mark.parametrize("kind", ["mlp_post", "resid_post"])
    def test_is_found_to_hold(self, subject, kind):
        assert isinstance(subject, PackedModel)
        assert can_pack(subject, Site(LAYERS - 1, kind))

    def test_leaves_nothing_behind(self, subject):
        site = Site(1, "mlp_post")
        before = subject.activations(IDS, [site])[site]
        logits = subject.logits(IDS)
        self.packed(subject, site, 100)
        assert torch.equal(subject.activations(IDS, [site])[site], before)
        assert torch.equal(subject.logits(IDS), logits)

    def test_runs_the_last_mlp_on_the_wanted_places_alone(self, subject):
        sizes = []
        out = subject.bridge.hook_dict["blocks.1.mlp.hook_post"]
        out.add_perma_hook(lambda value, hook: sizes.append(tuple(value.shape[:-1])))  # noqa: ARG005
        try:
            ids, positions = torch.tensor([[0, 5, 3]]), torch.tensor([[0, 1, 2]])
            mask = torch.ones(1, 3, 3, dtype=torch.bool).tril()
            subject.activations_at(ids, Site(1, "mlp_post"), torch.tensor([2]), positions=positions, mask=mask)
        finally:
            out.remove_hooks(including_permanent=True)
        assert sizes == [(1, 1)]

    def test_a_mask_that_is_not_followed_is_noticed(self, subject):
        class Deaf:
            """The same subject, but masks or positions do not get through."""

            def __init__(self, lost):
                self.lost = lost

            def __getattr__(self, name):
                return getattr(subject, name)

            def activations_at(self, ids, site, at, *, positions, mask):
                if self.lost == "mask":
                    mask = torch.ones_like(mask).tril()
                else:
                    positions = (positions + 1).clamp(max=CONTEXT - 1)
                return subject.activations_at(ids, site, at, positions=positions, mask=mask)

        assert not can_pack(Deaf("mask"), Site(1, "mlp_post"))
        if subject.bridge.cfg.positional_embedding_type == "standard":  # rotary positions are relative
            assert not can_pack(Deaf("positions"), Site(1, "mlp_post"))

    def test_a_position_beyond_the_context_is_refused(self, subject):
        ids, mask = torch.tensor([[0, 5]]), torch.ones(1, 2, 2, dtype=torch.bool).tril()
        with pytest.raises(InputError, match=f"positions 0 to {CONTEXT - 1}, found {CONTEXT}"):
            subject.activations_at(
                ids, Site(0, "mlp_post"), torch.tensor([1]), positions=torch.tensor([[0, CONTEXT]]), mask=mask
            )
