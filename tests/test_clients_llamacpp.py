"""The client by llama.cpp, against the same model in transformers. Where the library is not installed, only what needs
none is tested."""

import json
import shutil
import sys
from pathlib import Path

import jsonschema_rs
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import with_template, write_gguf

from saelens_n2g.clients import llama
from saelens_n2g.clients.base import Client
from saelens_n2g.clients.cache import Cached
from saelens_n2g.clients.config import ClientConfig
from saelens_n2g.clients.huggingface import HuggingFaceClient
from saelens_n2g.clients.llama import Grammar
from saelens_n2g.clients.llamacpp import LlamaCppClient
from saelens_n2g.clients.messages import Answer, Message, PromptWish, Request
from saelens_n2g.clients.places import Missing
from saelens_n2g.clients.registry import client_of
from saelens_n2g.clients.running import Sampler
from saelens_n2g.clients.spelling import Speller
from saelens_n2g.errors import InputError

pytestmark = pytest.mark.usefixtures("one_thread")

TEMPLATE = (
    "{% for m in messages %}{% if m.role == 'system' and not loop.first %}{{ raise_exception('system comes first') }}"
    "{% endif %}[{{ m.role }}] {{ m.content | trim }}\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)
TEXT = "The old cat sat on the mat in New York. Caf\u00e9 \u4e2d\u6587 \ufffd: Queen Mary\t3\nsaw\t"
FRONT = "In 1900 the cat of Ann slept. "
NEAR = 4e-3
"""llama.cpp keeps keys and values in float16."""


def made(path: Path, **settings) -> LlamaCppClient:
    return LlamaCppClient(ClientConfig(**({"kind": "llamacpp", "model": str(path), "device": "cpu"} | settings)))


@pytest.fixture(scope="module")
def folder(tiny_model, tmp_path_factory) -> Path:
    """The model as transformers has it, with a template."""
    return with_template(tiny_model, tmp_path_factory.mktemp("chat") / "model", TEMPLATE)


@pytest.fixture(scope="module")
def path(folder) -> Path:
    pytest.importorskip("llama_cpp")
    return write_gguf(folder, folder.parent / "tiny.gguf", TEMPLATE)


@pytest.fixture(scope="module")
def client(path) -> LlamaCppClient:
    return made(path)


@pytest.fixture(scope="module")
def theirs(folder) -> HuggingFaceClient:
    return HuggingFaceClient(ClientConfig(model=str(folder), device="cpu"))


def close(one: Answer, two: Answer) -> None:
    """The same answer, but for rounding."""
    assert (one.text, one.finish, one.usage[:2]) == (two.text, two.finish, two.usage[:2])
    for a, b in zip(one.logprobs, two.logprobs, strict=True):
        assert (a.token, a.logprob) == (b.token, pytest.approx(b.logprob, abs=NEAR))
        np.testing.assert_allclose([t.logprob for t in a.top], [t.logprob for t in b.top], atol=NEAR)
    for a, b in zip(one.prompt_logprobs, two.prompt_logprobs, strict=True):
        assert (a.position, a.actual.token, a.bound) == (b.position, b.actual.token, b.bound)
        assert a.actual.logprob == pytest.approx(b.actual.logprob, abs=NEAR)
        assert [c.token for c in a.candidates] == [c.token for c in b.candidates]
        np.testing.assert_allclose([c.logprob for c in a.candidates], [c.logprob for c in b.candidates], atol=NEAR)


# --- without the library --------------------------------------------------------------------------------------


def test_without_the_library_it_says_what_to_install(tmp_path, monkeypatch):
    (tmp_path / "a.gguf").write_bytes(b"GGUF")
    monkeypatch.setitem(sys.modules, "llama_cpp", None)
    llama.library.cache_clear()
    with pytest.raises(InputError, match=r"client llamacpp: expected package llama-cpp-python .*\[llamacpp\]") as error:
        client_of(ClientConfig(kind="llamacpp", model=str(tmp_path / "a.gguf")))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("name", "found"), [("nowhere.gguf", "no file"), ("", "a folder")])
def test_files_that_are_none(tmp_path, name, found):
    with pytest.raises(InputError, match=f"expected `embedded` or a .gguf file, found {found}"):
        made(tmp_path / name)


@pytest.mark.parametrize("settings", [{"context": 0}, {"threads": -1}])
def test_settings_that_make_no_sense(settings):
    with pytest.raises(InputError, match=next(iter(settings))):
        ClientConfig(kind="llamacpp", **settings)


# --- the same as transformers ---------------------------------------------------------------------------------


def test_places_and_answers_are_those_of_transformers(client, theirs):
    assert isinstance(client, Client)
    ids = theirs.speller.ids(Request(prompt=TEXT))
    assert client.speller.ids(Request(prompt=TEXT)) == ids
    begins = client.speller._begins(ids, TEXT)
    assert begins == theirs.speller._begins(ids, TEXT)
    wish = PromptWish(tuple(begins)[1:], ("3", " cat", "\t"))
    assert len(wish.positions) > 15
    request = Request(prompt=TEXT, max_tokens=12, logprobs=3, prompt_logprobs=wish)
    close(client.ask(request), theirs.ask(request))


def test_chats_and_token_ids_are_those_of_transformers(client, theirs):
    messages = (Message("system", "cat 3"), Message("user", "  the cat 3 sat 3"))
    chat = Request(
        messages=messages, max_tokens=6, logprobs=1, prompt_logprobs=PromptWish((messages[-1].text.rindex(" 3"),), ())
    )
    tokens = Request(tokens=(0, 17, 80, 0, 255, 33), max_tokens=3, prompt_logprobs=PromptWish((3, 1, 5), ("3",)))
    for request in (chat, tokens):
        assert client.count(request) == theirs.count(request)
        close(client.ask(request), theirs.ask(request))
    assert [client.one_token(text) for text in ("3", " cat", " New York")] == [True, True, False]


def test_long_prompts_are_read_in_pieces(path, theirs, monkeypatch):
    monkeypatch.setattr(llama, "BATCH", 7)
    ids = tuple(range(3, 100))
    request = Request(tokens=ids, max_tokens=3, prompt_logprobs=PromptWish((1, 7, 8, 40, 96), ()), prefix=30)
    close(made(path).ask(request), theirs.ask(request))


def test_seeds_reproduce_and_differ(path, client, theirs):
    def texts(who, limit: int = 8) -> list[str]:
        request = {"prompt": TEXT, "max_tokens": limit, "temperature": 1.0}
        replies = [who.ask(Request(seed=seed, **request)) for seed in range(20)]
        return [reply.text if isinstance(reply, Answer) else reply.status for reply in replies]

    assert texts(client) == texts(made(path))
    assert len(set(texts(client))) == 20
    same = [one == two for one, two in zip(texts(client, 1), texts(theirs, 1), strict=True)]
    assert sum(same) >= 18, "the same draws, but where rounding moves a border over one of them"


def sentence_piece(path: Path) -> Speller:
    """As of Llama 2: a BOS in front, a space before whatever comes first, bytes for what is in no piece."""
    from gguf import GGUFWriter

    pieces = ["\u2581", *"thecas5", "th", "the", "\u2581the", "ca", "cat", "\u2581cat", "\u25815"]
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256)), *pieces]
    out = GGUFWriter(path, "llama")
    out.add_tokenizer_model("llama")
    out.add_token_list(tokens)
    out.add_token_scores([0.0] * 259 + [float(len(piece)) for piece in pieces])
    out.add_token_types([2, 3, 3] + [6] * 256 + [1] * len(pieces))
    out.add_bos_token_id(1)
    out.add_eos_token_id(2)
    out.add_add_bos_token(True)
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.close()
    return Speller(llama.LlamaVocabulary(llama.Model(path, weights=False)))


def test_a_vocabulary_that_puts_a_space_in_front(tmp_path):
    pytest.importorskip("llama_cpp")
    speller = sentence_piece(tmp_path / "words.gguf")
    request = Request(
        prompt="the cat\n5 \u00e95", max_tokens=0, prompt_logprobs=PromptWish((0, 3, 7, 8, 9, 10, 11), ())
    )
    ids = speller.ids(request)
    written = [speller.words.bytes_of(i) for i in ids]
    assert written == [b"<s>", b" the", b" cat", b"\n", b"5", b" ", b"\xc3", b"\xa9", b"5"]
    assert speller.places(request, ids) == (1, 2, 3, 4, 5, 6, 8)  # the BOS stands before the first
    known = [speller.candidate(text) for text in ("5", " 5", " cat", "55", "\n")]
    assert [i and speller.words.string(i) for i in known] == ["5", " 5", " cat", None, "\n"]
    assert speller.words.specials == ("<s>", "</s>")
    assert speller.words.said(ids) == " the cat\n5 \u00e95"


# --- what was asked before ------------------------------------------------------------------------------------


def asked_with(client: LlamaCppClient, prefix: int) -> list[Answer]:
    return [
        client.ask(
            Request(prompt=FRONT + rest, prefix=prefix, max_tokens=5, logprobs=2,
                    prompt_logprobs=PromptWish((len(FRONT) + 3,), ("3",)))
        )
        for rest in ("The dog", "The old cat sat", "The fox stood")
    ]  # fmt: skip


def bits(answer: Answer) -> tuple[object, ...]:
    return (answer.text, answer.logprobs, answer.prompt_logprobs)


def test_a_shared_beginning_is_read_once_and_changes_nothing(client):
    alone, shared = asked_with(client, 0), asked_with(client, 29)
    for one, two in zip(alone, shared, strict=True):
        close(one, two)
    assert [one.usage.cached for one in alone] == [0, 0, 0]
    assert shared[0].usage.cached == 0
    assert shared[1].usage.cached == shared[2].usage.cached > 5


def test_what_was_asked_before_changes_no_bit(path, client):
    first = asked_with(made(path), 29)
    client.ask(Request(prompt=TEXT, max_tokens=9, temperature=1.0))
    client.ask(Request(tokens=tuple(range(5, 105)), prefix=60, max_tokens=9))
    client.ask(Request(prompt=FRONT + "The", prefix=14, max_tokens=2))  # a part of the same prefix is another one
    again = asked_with(client, 29)[::-1] + asked_with(client, 29)
    assert [bits(a) for a in again] == [bits(a) for a in asked_with(client, 29)[::-1] + first]
    assert [bits(a) for a in asked_with(client, 0)] == [bits(a) for a in asked_with(made(path), 0)]


def test_only_the_last_that_was_read_can_be_continued(client):
    reader, _ = client._ready()
    read = reader.read([5, 6, 7], 0, [2])
    reader.read([5, 6, 7], 0, [2])
    with pytest.raises(AssertionError, match="something else"):
        reader.run([8], read.cache, [0])


# --- JSON -----------------------------------------------------------------------------------------------------

SCHEMA = {
    "type": "object",
    "properties": {
        "colour": {"enum": ["red", 'caf\u00e9 "\\"']},
        "notes": {"type": "array", "items": {"type": "string", "maxLength": 2}, "minItems": 1, "maxItems": 2},
        "sure": {"type": "boolean"},
        "more": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
    },
    "required": ["colour", "notes"],
    "additionalProperties": False,
}


@pytest.mark.parametrize("temperature", [0.0, 1.0, 2.0])
def test_answers_follow_the_schema(client, temperature):
    assert client.capabilities().json
    for seed in range(6):
        wish = {"max_tokens": 110, "temperature": temperature, "seed": seed, "logprobs": 1}
        request = Request(prompt="The", json_schema=json.dumps(SCHEMA), **wish)
        reply = client.ask(request)
        assert reply.finish == "stop"
        assert jsonschema_rs.is_valid(SCHEMA, json.loads(reply.text))
        assert all(g.logprob <= g.top[0].logprob for g in reply.logprobs), "those of the model, not of the grammar"
        assert reply == client.ask(request)


SCALARS = st.sampled_from(
    [{"type": "boolean"}, {"type": "null"}, {"type": "integer"}, {"type": "number"}, {"const": "a\nb\U0001f600"},
     {"type": ["null", "boolean"]}, {"type": "string", "minLength": 1, "maxLength": 3}, {"enum": [1.5, [2], {"a": ""}]}]
)  # fmt: skip


def larger(inner: st.SearchStrategy[dict[str, object]]) -> st.SearchStrategy[dict[str, object]]:
    def several(properties: dict[str, object], open_ends: bool) -> dict[str, object]:
        needed = [name for name in properties if name < "b"]
        return {"type": "object", "properties": properties, "required": needed, "additionalProperties": open_ends}

    names = st.sampled_from(["a", "a b", "c", '"', "\u00e9", "e\\"])
    lists = st.builds(
        lambda i, n: {"type": "array", "items": i, "minItems": n, "maxItems": 2}, inner, st.integers(0, 2)
    )
    choices = st.lists(inner, min_size=1, max_size=2).map(lambda several: {"anyOf": several})
    return lists | choices | st.builds(several, st.dictionaries(names, inner, max_size=4), st.booleans())


@settings(max_examples=60)
@given(schema=st.recursive(SCALARS, larger, max_leaves=6), seed=st.integers(0, 9))
def test_any_schema_that_is_understood_is_followed(client, schema, seed):
    # None of them asks for more than the 128 tokens of the model often; what is cut off says so.
    request = Request(prompt="a", max_tokens=126, temperature=2.0, seed=seed, json_schema=json.dumps(schema))
    reply = client.ask(request)
    assert isinstance(reply, Answer)
    if reply.finish == "stop":
        assert jsonschema_rs.is_valid(schema, json.loads(reply.text))


def test_a_schema_that_is_not_understood_is_a_failure(client):
    reply = client.ask(Request(prompt="a", max_tokens=4, json_schema='{"type": "integer", "minimum": 3}'))
    assert (reply.status, reply.retryable) == ("unsupported", False)
    assert "'minimum'" in reply.detail


def test_a_grammar_ends_where_it_ends(client):
    only = Grammar(Sampler(0.0, 1.0, "0"), 'root ::= "\\x01\\x02"', client.words)
    logits = torch.zeros(400)
    texts = [client.words.string(only.choose(logits)) for _ in range(2)]
    assert texts == ["\x01", "\x02"]
    assert only.choose(logits) in client.words.ends


def test_a_grammar_that_leaves_nothing_ends_in_a_failure(client):
    logits = torch.full((400,), -torch.inf)
    with pytest.raises(Missing, match="leaves no token"):
        Grammar(Sampler(0.0, 1.0, "0"), 'root ::= "a"', client.words).choose(logits)
    with pytest.raises(Missing, match="does not read"):
        Grammar(Sampler(0.0, 1.0, "0"), "root ::= (", client.words)


def test_bytes_that_are_no_character_are_not_chosen(client):
    """llama.cpp takes E0 81 A1 for an `a` in three bytes, as no other program does."""
    letter = {client.words.bytes_of(i): i for i in range(client.words.size)}
    only = Grammar(Sampler(0.0, 1.0, "0"), "root ::= [a-z]", client.words)
    logits = torch.zeros(400)
    logits[letter[b"\xe0"]], logits[letter[b"\x81"]], logits[letter[b"\xa1"]] = 3.0, 2.0, 1.0
    first = client.words.bytes_of(only.choose(logits))
    assert first == b"\xe0" or first.isalpha()


# --- what cannot be -------------------------------------------------------------------------------------------


def test_requests_that_do_not_fit_are_refused(path, client, folder, tmp_path):
    assert "do not fit into 128" in client.ask(Request(prompt=TEXT, max_tokens=120)).detail
    assert "do not fit into 20" in made(path, context=20).ask(Request(prompt=TEXT, max_tokens=2)).detail
    assert client.ask(Request(tokens=(5, 400))).status == "rejected"
    special = client.ask(Request(messages=(Message("user", "say </s> now"),)))
    assert (special.status, "</s>" in special.detail) == ("rejected", True)
    late = client.ask(Request(messages=(Message("user", "a"), Message("system", "b"))))
    assert (late.status, "system comes first" in late.detail) == ("rejected", True)
    assert client.count(Request(prompt="</s>")) > 1
    bare = made(write_gguf(folder, tmp_path / "bare.gguf"))
    assert bare.ask(Request(messages=(Message("user", "Hi"),))).status == "unsupported"


@pytest.mark.parametrize(
    ("change", "found"),
    [(lambda data: data[: len(data) // 2], "corrupted"), (lambda data: b"not a model at all" + data, "magic"),
     (lambda _: b"", "no reason|failed")],
)  # fmt: skip
def test_files_that_are_broken(path, tmp_path, capfd, change, found):
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(change(path.read_bytes()))
    with pytest.raises(InputError, match=f"a GGUF file that llama.cpp can read, found .*({found})") as error:
        made(broken)
    assert "\n" not in str(error.value)
    assert capfd.readouterr() == ("", "")


def test_a_model_that_continues_nothing_is_none(path, monkeypatch):
    monkeypatch.setattr(llama.library(), "llama_get_memory", lambda _: None)  # as of a BERT
    with pytest.raises(InputError, match="one that continues text"):
        made(path).ask(Request(prompt="a", max_tokens=2))


@pytest.mark.parametrize("device", ["tpu", "cuda:x", "cuda"])
def test_devices_that_are_none(path, device):
    if device == "cuda" and llama.library().llama_supports_gpu_offload():
        pytest.skip("this llama.cpp has GPUs")
    with pytest.raises(InputError, match="device"):
        made(path, device=device)


def test_nothing_is_printed(path, capfd):
    assert isinstance(made(path).ask(Request(prompt=TEXT, max_tokens=2)), Answer)
    assert capfd.readouterr() == ("", "")


# --- with a cache ---------------------------------------------------------------------------------------------


def test_what_is_known_needs_no_weights(path, tmp_path):
    config = ClientConfig(kind="llamacpp", model=str(path), device="cpu", cache=str(tmp_path))
    first, second = client_of(config), client_of(config)
    assert isinstance(first, Cached)
    request = Request(prompt=TEXT, max_tokens=3, logprobs=1)
    assert first.ask(request) == second.ask(request)
    assert (second.hits, second.inner._reader) == (1, None)


def test_another_file_in_the_same_place_is_another(path, tmp_path):
    copied = tmp_path / "model.gguf"
    shutil.copy(path, copied)
    before = made(copied).identity
    assert made(copied).identity == before
    assert made(copied, threads=2).identity != before
    copied.write_bytes(path.read_bytes() + bytes(32))
    assert made(copied).identity != before


# --- the embedded model ---------------------------------------------------------------------------------------


@pytest.mark.model
def test_the_embedded_model_is_that_of_transformers_but_for_rounded_activations():
    """llama.cpp multiplies quantised weights with activations in eight bits (docs/lab-notes.md)."""
    pytest.importorskip("llama_cpp")
    client, theirs = made(Path("embedded")), HuggingFaceClient(ClientConfig(device="cpu"))
    text = "The Eiffel Tower is a lattice tower in Paris, France. It was completed in 1889 for the World's Fair."
    ids = client.speller.ids(Request(prompt=text))
    assert ids == theirs.speller.ids(Request(prompt=text))
    wish = PromptWish(tuple(range(1, len(ids))), ())
    request = Request(tokens=ids, max_tokens=0, prompt_logprobs=wish)
    one, two = (
        np.array([slot.actual.logprob for slot in who.ask(request).prompt_logprobs]) for who in (client, theirs)
    )
    assert np.abs(one - two).mean() < 0.15
    assert np.corrcoef(one, two)[0, 1] > 0.995
    chat = Request(messages=(Message("user", "What is 2 + 2?"),), max_tokens=12)
    assert client.count(chat) == theirs.count(chat)
    assert "4" in client.ask(chat).text
