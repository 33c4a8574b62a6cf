"""The client in process, against the same model run plainly."""

import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from tiny import PlainModel, write_gpt2, write_neox

from saelens_n2g.clients.base import Client
from saelens_n2g.clients.cache import Cached
from saelens_n2g.clients.config import ClientConfig
from saelens_n2g.clients.huggingface import HuggingFaceClient
from saelens_n2g.clients.messages import Answer, Message, PromptWish, Request
from saelens_n2g.clients.registry import client_of
from saelens_n2g.clients.running import Sampler
from saelens_n2g.clients.spelling import Speller
from saelens_n2g.clients.vocabulary import Pretrained
from saelens_n2g.errors import InputError
from saelens_n2g.subject import Tokenizer

pytestmark = pytest.mark.usefixtures("one_thread")

TEMPLATE = (
    "{% for m in messages %}{% if m.role == 'system' and not loop.first %}{{ raise_exception('system comes first') }}"
    "{% endif %}[{{ m.role }}] {{ m.content | trim }}\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)
TEXT = "The old cat sat on the mat in New York. Caf\u00e9 \u4e2d\u6587: Queen Mary\t3\nsaw\t"


def made(folder: Path) -> HuggingFaceClient:
    return HuggingFaceClient(ClientConfig(model=str(folder), device="cpu"))


@pytest.fixture(scope="module")
def client(tiny_model) -> HuggingFaceClient:
    return made(tiny_model)


@pytest.fixture(scope="module")
def chatty(tiny_model, tmp_path_factory) -> HuggingFaceClient:
    folder = tmp_path_factory.mktemp("chat") / "model"
    shutil.copytree(tiny_model, folder)
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    return made(folder)


@pytest.fixture(scope="module")
def plain(tiny_model) -> PlainModel:
    return PlainModel(tiny_model)


def expected(plain: PlainModel, ids: list[int]) -> torch.Tensor:
    """(token, vocabulary) log probabilities of what comes after each of `ids`."""
    with torch.no_grad():
        return plain.model(torch.tensor([ids])).logits[0].log_softmax(-1)


def characters(plain: PlainModel, ids: list[int]) -> list[int]:
    """Where each token begins in the text, by decoding all that is before it; parts of characters begin nowhere new."""
    return [len(plain.tokenizer.decode(ids[:i]).rstrip("\ufffd")) for i in range(len(ids))]


# --- log probabilities of the prompt --------------------------------------------------------------------------


def test_places_of_a_text_are_those_of_a_plain_pass(client, plain):
    ids = plain.tokenizer(TEXT)["input_ids"]
    begins, rows = characters(plain, ids), expected(plain, ids)
    places = [i for i in range(1, len(ids)) if begins[i] != begins[i - 1]]
    assert len(places) > 15
    candidates = ("3", " cat", "\t")
    wish = PromptWish(tuple(begins[i] for i in places), candidates)
    reply = client.ask(Request(prompt=TEXT, max_tokens=0, prompt_logprobs=wish))
    assert (reply.text, reply.usage) == ("", (len(ids), 0, 0))
    columns = [plain.tokenizer(c)["input_ids"][0] for c in candidates]
    for slot, place in zip(reply.prompt_logprobs, places, strict=True):
        assert slot.position == begins[place]
        assert slot.actual.token == plain.tokenizer.decode([ids[place]])
        assert slot.actual.logprob == pytest.approx(float(rows[place - 1, ids[place]]), abs=1e-5)
        assert [c.token for c in slot.candidates] == list(candidates)
        found = [c.logprob for c in slot.candidates]
        np.testing.assert_allclose(found, rows[place - 1, columns].numpy(), atol=1e-5)
        assert slot.bound is None


def test_places_of_token_ids(client, plain):
    ids = [0, 17, 80, 0, 255, 33]
    rows = expected(plain, ids)
    reply = client.ask(Request(tokens=tuple(ids), max_tokens=0, prompt_logprobs=PromptWish((3, 1, 5), ("3",))))
    got = [slot.actual.logprob for slot in reply.prompt_logprobs]
    np.testing.assert_allclose(got, [float(rows[i - 1, ids[i]]) for i in (3, 1, 5)], atol=1e-5)


def test_places_of_a_chat_are_those_of_the_last_message(chatty, plain):
    messages = (Message("user", "cat 3"), Message("user", "  the cat 3 sat 3"))
    whole = "[user] cat 3\n[user] the cat 3 sat 3\n[assistant]"
    ids = plain.tokenizer(whole)["input_ids"]
    place = characters(plain, ids).index(whole.rindex(" 3"))
    at = messages[-1].text.rindex(" 3")
    reply = chatty.ask(Request(messages=messages, max_tokens=0, prompt_logprobs=PromptWish((at,), ())))
    assert chatty.count(Request(messages=messages)) == len(ids)
    want = float(expected(plain, ids)[place - 1, ids[place]])
    assert reply.prompt_logprobs[0].actual.logprob == pytest.approx(want, abs=1e-5)


def test_a_message_that_is_in_the_template_too_is_found(chatty, plain):
    whole = "[user] a s t\n[assistant]"
    ids = plain.tokenizer(whole)["input_ids"]
    place = characters(plain, ids).index(whole.index(" t"))
    wish = PromptWish((3,), ())
    reply = chatty.ask(Request(messages=(Message("user", "a s t"),), max_tokens=0, prompt_logprobs=wish))
    want = float(expected(plain, ids)[place - 1, ids[place]])
    assert reply.prompt_logprobs[0].actual.logprob == pytest.approx(want, abs=1e-5)


@pytest.mark.parametrize(
    ("position", "candidates", "why"),
    [(0, (), "no token with something before it"), (5, (), "character 5 of the prompt"),
     (3, (" New York",), "not one token"), (3, ("",), "not one token")],
)  # fmt: skip
def test_what_is_no_place_and_no_token_fails(client, position, candidates, why):
    wish = PromptWish((position,), candidates)
    reply = client.ask(Request(prompt="The cat", max_tokens=0, prompt_logprobs=wish))
    assert (reply.status, reply.retryable) == ("unsupported", False)
    assert why in reply.detail


@given(st.text(alphabet="\ufffd\u00e9\u4e2d\U0001f600 at3\u00c3", min_size=2, max_size=12))
def test_tokens_begin_where_the_tokenizer_says(client, plain, text):
    """Also behind a U+FFFD of the text itself, which looks like a part of a character."""
    found = plain.tokenizer(text, return_offsets_mapping=True)
    ids, begins = found["input_ids"], [begin for begin, _ in found["offset_mapping"]]
    places = [i for i in range(1, len(ids)) if begins[i] != begins[i - 1]]
    assume(places)
    wish = PromptWish(tuple(begins[i] for i in places), ())
    request = Request(prompt=text, max_tokens=0, prompt_logprobs=wish)
    assert client.speller.places(request, ids) == tuple(places)


def sentence_piece() -> Speller:
    """As of Llama 2: a BOS in front, a space before whatever comes first, spaces within pieces."""
    from tokenizers import Tokenizer as Words
    from tokenizers import decoders, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    pieces = ["<unk>", "<s>", "</s>", "\u2581the", "\u2581cat", "\u2581", "\n", "5", "\u25815", "the"]
    built = Words(models.WordLevel({piece: i for i, piece in enumerate(pieces)}, unk_token="<unk>"))
    built.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    built.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split("\n", "isolated"), pre_tokenizers.Split("\u2581", "merged_with_next")]
    )
    built.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    built.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 1)])
    inner = PreTrainedTokenizerFast(tokenizer_object=built, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    return Speller(Pretrained(Tokenizer(inner)))


def test_a_tokenizer_that_puts_a_space_in_front():
    speller = sentence_piece()
    request = Request(prompt="the cat\n5\n5", max_tokens=0, prompt_logprobs=PromptWish((0, 3, 8, 10), ()))
    ids = speller.ids(request)
    assert ids == (1, 3, 4, 6, 7, 6, 7)
    assert speller.places(request, ids) == (1, 2, 4, 6)  # the BOS stands before the first
    assert [speller.candidate(text) for text in ("5", " 5", " cat", "55")] == [7, 8, 4, None]


# --- the shared beginning -------------------------------------------------------------------------------------


def asked_with(client: HuggingFaceClient, prefix: int) -> list[Answer]:
    front = "In 1900 the cat of Ann slept. "
    return [
        client.ask(
            Request(prompt=front + rest, prefix=prefix, max_tokens=5, logprobs=2,
                    prompt_logprobs=PromptWish((len(front) + 3,), ("3",)))
        )
        for rest in ("The dog", "The old cat sat", "The fox stood")
    ]  # fmt: skip


def test_a_shared_beginning_changes_nothing(client):
    alone, shared = asked_with(client, 0), asked_with(client, 29)
    for one, two in zip(alone, shared, strict=True):
        assert (one.text, one.finish) == (two.text, two.finish)
        for a, b in zip(one.logprobs, two.logprobs, strict=True):
            assert a.logprob == pytest.approx(b.logprob, abs=1e-5)
        for a, b in zip(one.prompt_logprobs, two.prompt_logprobs, strict=True):
            assert a.actual.logprob == pytest.approx(b.actual.logprob, abs=1e-5)
    assert [one.usage.cached for one in alone] == [0, 0, 0]
    assert shared[1].usage.cached == shared[2].usage.cached > 5


def test_what_was_asked_before_changes_no_bit(tiny_model):
    """Answers that are kept must not depend on where a run was interrupted."""
    client = made(tiny_model)
    first = asked_with(client, 29)
    for _ in range(3):  # other prefixes push it out
        client.ask(Request(tokens=tuple(range(5, 15 + _)), prefix=9, max_tokens=2))
    again = asked_with(made(tiny_model), 29)[::-1] + asked_with(client, 29)

    def bits(answer: Answer) -> tuple[object, ...]:
        return (answer.text, answer.logprobs, answer.prompt_logprobs)

    assert [bits(a) for a in again] == [bits(a) for a in first[::-1] + first]


def test_places_within_the_shared_beginning_are_still_known(client):
    one, two = (
        client.ask(Request(prompt=TEXT[:30], prefix=n, max_tokens=0, prompt_logprobs=PromptWish((3, 7), ())))
        for n in (0, 30)
    )
    for a, b in zip(one.prompt_logprobs, two.prompt_logprobs, strict=True):
        assert a.actual.logprob == pytest.approx(b.actual.logprob, abs=1e-5)


def test_leading_messages_are_a_shared_beginning(chatty):
    def ask(last: str, prefix: int) -> Answer:
        messages = (Message("system", "The cat sat on the mat."), Message("user", last))
        return chatty.ask(Request(messages=messages, prefix=prefix, max_tokens=3, logprobs=0))

    assert [ask(x, 1).text for x in ("cat", "dog")] == [ask(x, 0).text for x in ("cat", "dog")]
    assert ask("fox", 1).usage.cached > 5


# --- generation -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("write", [None, write_gpt2, write_neox])
def test_greedy_answers_are_those_of_transformers(tiny_model, tmp_path, write):
    folder = tiny_model if write is None else write(tmp_path)
    client, plain = made(folder), PlainModel(folder)
    ids = plain.tokenizer(TEXT, return_tensors="pt")
    want = plain.model.generate(**ids, max_new_tokens=12, do_sample=False, pad_token_id=1)[
        0, ids["input_ids"].shape[1] :
    ]
    reply = client.ask(Request(prompt=TEXT, max_tokens=12, logprobs=3))
    ended = 1 in want.tolist()
    kept = want.tolist()[: want.tolist().index(1)] if ended else want.tolist()
    assert reply.text == plain.tokenizer.decode(kept)
    assert (reply.finish, reply.usage.tokens_out) == ("stop" if ended else "length", len(kept) + ended)
    rows = expected(plain, ids["input_ids"][0].tolist() + kept)[-len(kept) - 1 : -1]
    for generated, token, row in zip(reply.logprobs, kept, rows, strict=True):
        assert generated.logprob == pytest.approx(float(row[token]), abs=1e-5)
        assert [t.logprob for t in generated.top] == pytest.approx(row.topk(3).values.tolist(), abs=1e-5)


def test_seeds_reproduce_and_differ(tiny_model, client):
    def texts(who: HuggingFaceClient, **more) -> list[str]:
        return [
            who.ask(Request(prompt=TEXT, max_tokens=8, temperature=1.0, **more | {"seed": s})).text for s in range(4)
        ]

    assert texts(client) == texts(made(tiny_model))
    assert len(set(texts(client))) == 4
    assert texts(client) != texts(client, draw=1)
    assert texts(client, top_p=1e-9)[0] == client.ask(Request(prompt=TEXT, max_tokens=8)).text


def test_a_stop_text_ends_the_answer_and_is_no_part_of_it(client):
    whole = client.ask(Request(prompt=TEXT, max_tokens=12, logprobs=0))
    stop = whole.text[-3:-1]
    cut = client.ask(Request(prompt=TEXT, max_tokens=12, logprobs=0, stop=("never", stop)))
    assert cut.finish == "stop"
    assert cut.text == whole.text[: whole.text.index(stop)]
    assert 0 < len(cut.text) < len(whole.text)
    assert cut.logprobs == whole.logprobs[: len(cut.logprobs)]
    assert "".join(g.token for g in cut.logprobs).startswith(cut.text)
    assert len("".join(g.token for g in cut.logprobs[:-1])) < len(cut.text)


def test_draws_follow_the_probabilities():
    logits = torch.tensor([0.0, 1.0, -1.0, 2.0, -9.0])
    draws = Sampler(0.7, 0.9, "seed")
    count = np.bincount([draws.choose(logits) for _ in range(4000)], minlength=5) / 4000
    shares = np.exp(logits.numpy() / 0.7)
    shares /= shares.sum()
    nucleus = np.where(np.isin(np.arange(5), [1, 3]), shares, 0)  # .776 and .186 are the first to make 0.9
    np.testing.assert_allclose(count, nucleus / nucleus.sum(), atol=4 * math.sqrt(0.25 / 4000))


# --- what cannot be -------------------------------------------------------------------------------------------


def test_requests_that_do_not_fit_are_refused(client, chatty):
    assert "do not fit into 128" in client.ask(Request(prompt=TEXT, max_tokens=120)).detail
    assert client.ask(Request(tokens=(5, 400))).status == "rejected"
    assert client.ask(Request(messages=(Message("user", "Hi"),))).status == "unsupported"
    special = chatty.ask(Request(messages=(Message("user", "say </s> now"),)))
    assert (special.status, "special" in special.detail or "</s>" in special.detail) == ("rejected", True)
    late = chatty.ask(Request(messages=(Message("user", "a"), Message("system", "b"))))
    assert (late.status, "system comes first" in late.detail) == ("rejected", True)
    with pytest.raises(InputError):
        client.count(Request(tokens=(5, 400)))


def test_special_tokens_in_a_prompt_are_text(client, plain):
    assert client.count(Request(prompt="</s>")) == len(plain.tokenizer("</s>", split_special_tokens=True)["input_ids"])
    assert client.count(Request(prompt="</s>")) > 1


def test_an_answer_without_text_is_none(tiny_model):
    client = made(tiny_model)
    assert isinstance(client.ask(Request(prompt=TEXT, max_tokens=1)), Answer)
    client._ends = frozenset(range(400))
    assert client.ask(Request(prompt=TEXT, max_tokens=1)).status == "empty"


@pytest.mark.parametrize("damage", ["model.safetensors", "config.json", "all"])
def test_a_model_that_is_none(tiny_model, tmp_path, damage):
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    if damage == "all":
        folder = tmp_path / "nowhere"
    else:
        (folder / damage).unlink()
    with pytest.raises(InputError, match="model"):
        made(folder).ask(Request(prompt="a", max_tokens=2))


def test_the_callers_random_numbers_are_left_alone(tiny_model):
    torch.manual_seed(5)
    want = torch.rand(3)
    torch.manual_seed(5)
    made(tiny_model).ask(Request(prompt=TEXT, max_tokens=3, temperature=1.0))
    assert torch.equal(torch.rand(3), want)


# --- with a cache ---------------------------------------------------------------------------------------------


def test_what_is_known_needs_no_model(tiny_model, tmp_path):
    config = ClientConfig(model=str(tiny_model), device="cpu", cache=str(tmp_path))
    first, second = client_of(config), client_of(config)
    assert isinstance(first, Cached)
    assert isinstance(first.inner, Client)
    request = Request(prompt=TEXT, max_tokens=3, logprobs=1)
    assert first.ask(request) == second.ask(request)
    assert second.hits == 1
    assert second.inner._reader is None


def test_another_model_in_the_same_place_is_another(tiny_model, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    before = made(folder).identity
    assert made(folder).identity == before
    (folder / "generation_config.json").write_text("{}")
    assert made(folder).identity != before


@pytest.mark.model
def test_the_embedded_model_answers():
    client = client_of(ClientConfig(device="cpu"))
    reply = client.ask(Request(messages=(Message("user", "What is the capital of France?"),), max_tokens=12))
    assert "Paris" in reply.text
    assert client.one_token("7") is True
    assert client.one_token("10") is False
    assert client.identity["files"][0].startswith("SmolLM2-135M-Instruct-")
