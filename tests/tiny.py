"""A language model and a text small enough for tests of the whole road: real formats, real code, seconds.

The model is a Llama with fixed random weights, drawn wide enough that its units tell tokens and contexts apart; the
text is sentences out of templates, so that whatever a unit likes comes again and again. Both are in the formats that
a user brings: a Hugging Face folder, a .jsonl file.
"""

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

VOCABULARY, LAYERS, HIDDEN, MLP = 400, 3, 32, 64
WIDTH = 32
"""Tokens per window in all tests, BOS included."""

PLACES = ("New York", "New Orleans", "York", "London", "Paris", "Old Sarum", "Berlin", "Oslo")
ANIMALS = ("cat", "dog", "horse", "fox", "owl", "old cat", "small dog")
VERBS = ("sat", "slept", "waited", "stood", "sang")
THINGS = ("mat", "roof", "table", "stone", "red chair", "boat")
PEOPLE = ("Ann", "Bob", "Queen Mary", "King John", "Doctor Smith")
TEMPLATES = (
    "The {animal} {verb} on the {thing} in {place}.",
    "{person} went to {place} with a {animal}.",
    "In {year} the {animal} of {person} {verb} under the {thing}.",
    "\"Where is {place}?\" asked {person}.",
    "{person} and {person} never saw the {thing} again.",
    "After World War II, {place} was rebuilt by {person}.",
)  # fmt: skip


def sentences(n: int, seed: int) -> str:
    """`n` sentences of English, of a kind."""
    draw = random.Random(seed)

    def one() -> str:
        text = draw.choice(TEMPLATES)
        for name, words in (("animal", ANIMALS), ("verb", VERBS), ("thing", THINGS), ("place", PLACES)):
            text = text.replace("{" + name + "}", draw.choice(words))
        while "{person}" in text:
            text = text.replace("{person}", draw.choice(PEOPLE), 1)
        return text.replace("{year}", str(draw.randrange(1900, 1920)))

    return " ".join(one() for _ in range(n))


def with_template(model: Path, folder: Path, template: str) -> Path:
    """A copy of a model's folder with a chat template."""
    shutil.copytree(model, folder)
    (folder / "chat_template.jinja").write_text(template)
    return folder


def write_corpus(path: Path, documents: int = 40, length: int = 24) -> Path:
    """A .jsonl file of that many documents of `length` sentences."""
    rows = [{"id": f"doc{i}", "text": sentences(length, seed=i)} for i in range(documents)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def write_tokenizer(folder: Path) -> None:
    """A byte-level BPE trained on the templates; BOS is id 0."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator([sentences(2000, seed=-1)], trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe, bos_token="<s>", eos_token="</s>", clean_up_tokenization_spaces=False
    )
    assert tokenizer.bos_token_id == 0
    tokenizer.save_pretrained(folder)


def write_model(folder: Path) -> Path:
    """A Hugging Face folder of a Llama: weights, configuration, tokenizer."""
    from transformers import LlamaConfig

    return _write(
        folder,
        LlamaConfig,
        hidden_size=HIDDEN,
        intermediate_size=MLP,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        max_position_embeddings=128,
        initializer_range=0.1,
    )


def write_neox(folder: Path) -> Path:
    """The same of Pythia's architecture, smaller."""
    from transformers import GPTNeoXConfig

    return _write(
        folder,
        GPTNeoXConfig,
        hidden_size=HIDDEN // 2,
        intermediate_size=MLP,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=128,
    )


def write_gpt2(folder: Path) -> Path:
    """The same of GPT-2's architecture."""
    from transformers import GPT2Config

    return _write(folder, GPT2Config, n_embd=HIDDEN // 2, n_layer=2, n_head=2, n_positions=128)


def _write(folder: Path, kind: Callable[..., "PreTrainedConfig"], **sizes: float) -> Path:
    """Weights, configuration and tokenizer of a model of that kind; the weights are the same every time."""
    from transformers import AutoModelForCausalLM

    write_tokenizer(folder)
    config = kind(vocab_size=VOCABULARY, bos_token_id=0, eos_token_id=1, **sizes)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


_ROOMS: dict[str, Path] = {}


def _once(name: str, factory: pytest.TempPathFactory) -> tuple[Path, bool]:
    """A place for `name` in this session, and whether it is new: each importing module has its own fixture."""
    new = name not in _ROOMS
    if new:
        _ROOMS[name] = factory.mktemp("tiny") / name
    return _ROOMS[name], new


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the model."""
    folder, new = _once("model", tmp_path_factory)
    return write_model(folder) if new else folder


@pytest.fixture(scope="session")
def tiny_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The text."""
    path, new = _once("corpus.jsonl", tmp_path_factory)
    return write_corpus(path) if new else path


class PlainModel:
    """The same model through transformers alone: what activations are, stated without the package."""

    def __init__(self, folder: Path) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        self.tokenizer = AutoTokenizer.from_pretrained(folder)

    def run(self, ids: list[int], layer: int) -> tuple[np.ndarray, np.ndarray]:
        """(token, MLP) inputs of the block's down projection and (token, d) output of the block; BOS in front,
        left out of what is returned."""
        seen: dict[str, torch.Tensor] = {}
        block = self.model.model.layers[layer]
        handles = [
            block.mlp.down_proj.register_forward_pre_hook(lambda _, x: seen.update(mlp=x[0])),
            block.register_forward_hook(
                lambda _m, _i, out: seen.update(stream=out[0] if isinstance(out, tuple) else out)
            ),
        ]
        with torch.no_grad():
            self.model(torch.tensor([[0, *ids]]))
        for handle in handles:
            handle.remove()
        return tuple(seen[k].reshape(1 + len(ids), -1)[1:].numpy() for k in ("mlp", "stream"))  # type: ignore[return-value]


def write_gguf(folder: Path, path: Path, template: str = "") -> Path:
    """The model of `write_model` in `folder` as a GGUF file for llama.cpp, in float32, perhaps with a chat template."""
    from gguf import GGUFWriter
    from safetensors.torch import load_file

    config = json.loads((folder / "config.json").read_text())
    words = json.loads((folder / "tokenizer.json").read_text())["model"]
    weights = {name: value.float().numpy() for name, value in load_file(folder / "model.safetensors").items()}
    heads, depth = config["num_attention_heads"], config["num_hidden_layers"]
    out = GGUFWriter(path, "llama")
    out.add_context_length(config["max_position_embeddings"])
    out.add_embedding_length(config["hidden_size"])
    out.add_block_count(depth)
    out.add_feed_forward_length(config["intermediate_size"])
    out.add_head_count(heads)
    out.add_head_count_kv(config["num_key_value_heads"])
    out.add_layer_norm_rms_eps(config["rms_norm_eps"])
    out.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    out.add_tokenizer_model("gpt2")
    out.add_tokenizer_pre("gpt-2")
    tokens = sorted(words["vocab"], key=words["vocab"].__getitem__)
    out.add_token_list(tokens)
    out.add_token_types([3 if token in ("<s>", "</s>") else 1 for token in tokens])
    out.add_token_merges([" ".join(pair) for pair in words["merges"]])
    out.add_bos_token_id(0)
    out.add_eos_token_id(1)
    out.add_add_bos_token(False)
    if template:
        out.add_chat_template(template)

    def turned(rows: np.ndarray) -> np.ndarray:
        """Rotary pairs are neighbours in GGUF, and halves of a head in transformers."""
        return rows.reshape(heads, 2, -1, rows.shape[1]).swapaxes(1, 2).reshape(rows.shape)

    parts = {"self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate",
             "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm",
             "post_attention_layernorm": "ffn_norm"}  # fmt: skip
    out.add_tensor("token_embd.weight", weights["model.embed_tokens.weight"])
    out.add_tensor("output_norm.weight", weights["model.norm.weight"])
    out.add_tensor("output.weight", weights["lm_head.weight"])
    for i in range(depth):
        for theirs, ours in parts.items():
            out.add_tensor(f"blk.{i}.{ours}.weight", weights[f"model.layers.{i}.{theirs}.weight"])
        for name in ("q", "k"):
            rows = turned(weights[f"model.layers.{i}.self_attn.{name}_proj.weight"])
            out.add_tensor(f"blk.{i}.attn_{name}.weight", rows)
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()
    return path
