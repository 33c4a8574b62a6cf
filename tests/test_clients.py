"""Requests and replies, pacing, the cache, recordings, estimates, and a run that is killed."""

import json
import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
import time
from dataclasses import fields, replace
from datetime import UTC, datetime
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from misbehaving import serving
from scripted import Scripted, answer

from saelens_n2g.clients.base import Client
from saelens_n2g.clients.cache import FILE, Cached
from saelens_n2g.clients.config import ClientConfig
from saelens_n2g.clients.estimating import Price, Spent, estimate, spent
from saelens_n2g.clients.messages import (
    Answer,
    Failure,
    Generated,
    Message,
    PromptSlot,
    PromptWish,
    Request,
    TokenLogprob,
    Usage,
    answer_of,
)
from saelens_n2g.clients.pacing import Backoff, Bucket, Limiter, retry_after
from saelens_n2g.clients.places import Missing, Place, slots
from saelens_n2g.clients.recording import Recording, Replaying
from saelens_n2g.clients.registry import client_of
from saelens_n2g.errors import ArtefactError, InputError

NO = Failure("server_error", "HTTP 500", True)

# --- requests -------------------------------------------------------------------------------------------------

# Strategies give plain values, and tests make requests of them: checking types draws at random, which hypothesis does
# not want while it draws itself.
texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
numbers = st.floats(allow_nan=False, allow_infinity=False)
some_tokens = st.lists(st.tuples(texts, numbers), max_size=2)


@st.composite
def requests(draw) -> dict[str, Any]:
    kind = draw(st.sampled_from(["messages", "prompt", "tokens"]))
    values = {
        "messages": st.lists(st.tuples(st.sampled_from(["system", "user"]), texts), min_size=1, max_size=3),
        "prompt": texts,
        "tokens": st.lists(st.integers(0, 99), min_size=2, max_size=5),
    }
    what = draw(values[kind])
    size = len(what[-1][1]) if kind == "messages" else len(what)
    places = st.lists(st.integers(int(kind == "tokens"), size - 1), min_size=1, max_size=3).map(tuple)
    return {
        kind: what,
        "max_tokens": draw(st.integers(1, 99)),
        "temperature": draw(st.floats(0, 2)),
        "top_p": draw(st.floats(0.01, 1)),
        "seed": draw(st.none() | st.integers()),
        "stop": tuple(draw(st.lists(texts, max_size=2))),
        "logprobs": draw(st.none() | st.integers(0, 5)),
        "prompt_logprobs": draw(st.none() | st.tuples(places, st.lists(texts, max_size=3).map(tuple))),
        "json_schema": draw(st.sampled_from(["", "{}", '{"type": "array"}'])),
        "prefix": draw(st.integers(0, len(what))),
        "draw": draw(st.integers(0, 3)),
    }


def made(values: dict[str, Any]) -> Request:
    wish, messages = values["prompt_logprobs"], values.get("messages", ())
    return Request(
        **values
        | {"messages": tuple(Message(*m) for m in messages), "tokens": tuple(values.get("tokens", ()))}
        | {"prompt_logprobs": wish and PromptWish(*wish)}
    )


@given(
    texts,
    st.sampled_from(["stop", "length"]),
    st.tuples(*[st.none() | st.integers(0, 99)] * 3),
    st.lists(st.tuples(texts, numbers, some_tokens), max_size=2),
    st.lists(st.tuples(st.integers(0, 9), texts, numbers, some_tokens, st.none() | numbers), max_size=2),
)
def test_answers_come_back_from_json_as_they_were(text, finish, usage, generated, slots):
    def pairs(rows) -> tuple[TokenLogprob, ...]:
        return tuple(TokenLogprob(*row) for row in rows)

    found = Answer(
        text, finish, Usage(*usage), "model",
        tuple(Generated(token, p, pairs(top)) for token, p, top in generated),
        tuple(PromptSlot(at, TokenLogprob(t, p), pairs(more), bound) for at, t, p, more, bound in slots),
    )  # fmt: skip
    assert answer_of(json.loads(json.dumps(found.to_json()))) == found


@pytest.mark.parametrize(
    "what",
    [{}, {"prompt": "a", "tokens": (1,)}, {"prompt": "a", "max_tokens": 0}, {"prompt": "a", "temperature": -1},
     {"prompt": "a", "top_p": 0}, {"prompt": "a", "logprobs": -1}, {"prompt": "a", "stop": ("",)},
     {"prompt": "a", "prefix": 2}, {"tokens": (1, -1)}, {"prompt": "\ud800"}, {"prompt": "a", "json_schema": "{"},
     {"messages": (Message("user", "\udfff"),)},
     {"prompt": "a", "prompt_logprobs": PromptWish((), ())}, {"prompt": "a", "prompt_logprobs": PromptWish((1,), ())},
     {"tokens": (1, 2), "prompt_logprobs": PromptWish((0,), ())}],
)  # fmt: skip
def test_requests_that_nobody_could_answer_are_refused(what):
    with pytest.raises(InputError):
        Request(**what)


# --- places among a server's tokens ---------------------------------------------------------------------------


def cut(text: str, at: set[int]) -> list[str]:
    ends = sorted({0, len(text)} | {i for i in at if 0 < i < len(text)})
    return [text[a:b] for a, b in pairwise(ends)]


@given(st.text("abc \n", min_size=2, max_size=30), st.sets(st.integers(1, 29)), st.sampled_from(["", "<s>", None]))
def test_places_are_those_where_a_token_begins(text, at, bos):
    pieces = cut(text, at)
    begins = dict(zip(accumulate(map(len, pieces), initial=0), range(len(pieces)), strict=False))
    if bos is None:  # there is none, and the server says nothing of the first token
        places, begins = [Place(None, None, {})], {b: i for b, i in begins.items() if i}
        assume(len(pieces) > 1)
        pieces = pieces[1:]
    else:
        places, begins = [Place(bos, None, {})], {b: i + 1 for b, i in begins.items()}
    places += [Place(piece, -float(i), {"x": -9.0}) for i, piece in enumerate(pieces, len(places))]
    for position in range(len(text)):
        request = Request(prompt=text, max_tokens=0, prompt_logprobs=PromptWish((position,), ("x", "y")))
        if position in begins:
            i = begins[position]
            (slot,) = slots(request, places, 1)
            assert slot == (position, (places[i].token, -float(i)), (("x", -9.0),), -9.0)
        else:
            with pytest.raises(Missing, match="no token begins"):
                slots(request, places, 1)


def test_a_character_that_is_several_tokens_begins_with_the_first():
    places = [Place("a", None, {}), Place("", -1.0, {}), Place("", -2.0, {}), Place("\u4e2d", -3.0, {})]
    request = Request(prompt="a\u4e2d", max_tokens=0, prompt_logprobs=PromptWish((1,), ()))
    assert slots(request, places, 1)[0].actual.logprob == -1.0


def test_the_prompts_own_token_says_nothing_of_those_that_are_not_listed():
    places = [Place("a", None, {}), Place("b", -9.0, {"x": -1.0, "y": -2.0, "b": -9.0})]
    request = Request(prompt="ab", max_tokens=0, prompt_logprobs=PromptWish((1,), ("z", "b")))
    (slot,) = slots(request, places, 2)  # a server that lists the two likeliest, and the own one beside them
    assert (slot.candidates, slot.bound) == ((("b", -9.0),), -2.0)


@pytest.mark.parametrize("tokens", [["The", "cat"], ["The", " \ufffd", "\ufffdat"], ["The", " cat", "</s>"], []])
def test_tokens_that_do_not_spell_the_prompt_are_of_no_use(tokens):
    request = Request(prompt="The cat", max_tokens=0, prompt_logprobs=PromptWish((3,), ()))
    with pytest.raises(Missing, match="do not spell"):
        slots(request, [Place(token, -1.0, {}) for token in tokens], 1)


def test_a_message_that_a_template_could_hold_is_not_guessed_at():
    def ask(*texts: str) -> list[float]:
        places = [Place(t, -float(i), {}) for i, t in enumerate(["<user>", texts[-1], "\n", "<assistant>"])]
        messages = tuple(Message("user", text) for text in texts)
        wish = PromptWish((0,), ())
        return [
            s.actual.logprob for s in slots(Request(messages=messages, max_tokens=0, prompt_logprobs=wish), places, 1)
        ]

    assert ask("cat") == [-1.0]
    for texts in (["us"], [" "], ["cat", "cat"]):
        with pytest.raises(Missing, match="last message"):
            ask(*texts)


# --- the cache's key ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def keeper(tmp_path_factory) -> Cached:
    return Cached(Scripted(), tmp_path_factory.mktemp("keys"))


@given(one=requests(), two=requests())
def test_requests_that_differ_have_keys_that_differ(keeper, one, two):
    one, two = made(one), made(two)
    assert (keeper.key(one) == keeper.key(two)) == (one == two)


@given(one=requests(), two=requests(), data=st.data())
def test_any_one_field_changes_the_key(keeper, one, two, data):
    name = data.draw(st.sampled_from([field.name for field in fields(Request)]))
    one, two = made(one), made(two)
    assume(getattr(one, name) != getattr(two, name))
    try:
        changed = replace(one, **{name: getattr(two, name)})
    except InputError:
        assume(False)
    assert keeper.key(one) != keeper.key(changed)


def test_every_field_is_in_the_key():
    request = Request(prompt="a")
    assert set(request.to_json()) == {field.name for field in fields(Request)}


def test_whoever_answers_is_part_of_the_key(tmp_path):
    request = Request(prompt="a")

    def key(builders: str = "", **settings) -> str:
        config = ClientConfig(**({"kind": "http", "model": "m", "base_url": "http://a/v1"} | settings))
        return Cached(client_of(config), tmp_path, builders=builders).key(request)

    others = [
        key(), key("2"), key(model="n"), key(base_url="http://b/v1"), key(base_url="http://a:80/v2"),
        key(revision="x"), key(extra={"top_k": 4}), key(top_logprobs=5), key(json_output=False),
    ]  # fmt: skip
    assert len(set(others)) == len(others)
    assert key() == key(base_url="https://a/v1/", concurrency=3, tries=1, read_timeout=3.0, seed=4)


# --- the cache ------------------------------------------------------------------------------------------------

A, B, C = (Request(prompt=letter, max_tokens=4) for letter in "abc")


def test_what_is_known_is_not_asked_again(tmp_path):
    inner = Scripted({"c": [NO]})
    client, told = Cached(inner, tmp_path), {}
    assert isinstance(client, Client)
    assert client.ask_many([A, B, A, C], None, told.__setitem__) == [answer("a"), answer("b"), answer("a"), NO]
    assert [r.prompt for r in inner.asked] == ["a", "b", "c"]
    assert told == {0: answer("a"), 1: answer("b"), 2: answer("a"), 3: NO}
    assert (client.hits, client.spent.answers, client.spent.failures) == (0, 2, 1)
    assert client.last_failure(C) == NO
    again, ticks = Cached(inner, tmp_path), []
    assert again.ask_many([C, B, A], lambda *t: ticks.append(t)) == [answer("c"), answer("b"), answer("a")]
    assert [r.prompt for r in inner.asked] == ["a", "b", "c", "c"]
    assert (again.hits, again.spent) == (2, Spent(1, 0, 0, 5, 1, 0))
    assert ticks == [(1, 3), (2, 3), (3, 3)]
    assert (again.last_failure(C), again.known(C)) == (None, answer("c"))
    assert again.ask(A) == answer("a")


def test_what_was_not_asked_is_no_failure_to_remember(tmp_path):
    gone = Failure("cancelled", "not asked", True)
    client = Cached(Scripted({"a": [gone]}), tmp_path)
    assert client.ask(A) == gone
    assert client.last_failure(A) is None


def test_answers_are_kept_as_they_come(tmp_path):
    class Breaks(Scripted):
        def ask(self, request):
            if request == C:
                raise KeyboardInterrupt
            return super().ask(request)

    with pytest.raises(KeyboardInterrupt):
        Cached(Breaks(), tmp_path).ask_many([A, B, C])
    inner = Scripted()
    assert Cached(inner, tmp_path).ask_many([A, B, C]) == [answer(r.prompt) for r in (A, B, C)]
    assert inner.asked == [C]


def _one_of_many(folder: Path, start: int) -> None:
    order = [Request(prompt=f"{(i + start) % 40}") for i in range(40)]
    Cached(Scripted(), folder).ask_many(order)


def test_processes_share_a_cache(tmp_path):
    fork = multiprocessing.get_context("fork")
    before = Cached(Scripted(), tmp_path)
    workers = [fork.Process(target=_one_of_many, args=(tmp_path, 13 * i)) for i in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert before.ask_many([Request(prompt=str(i)) for i in range(40)]) == [answer(str(i)) for i in range(40)]
    assert before.hits == 40


def test_the_first_answer_counts_for_all_processes(tmp_path):
    late = Cached(Scripted(), tmp_path)

    class Slow(Scripted):
        def ask(self, request):
            late.ask(request)  # another process is faster
            return answer("something else")

    assert Cached(Slow(), tmp_path).ask(A) == answer("a")


def test_damage_is_found(tmp_path):
    client = Cached(Scripted(), tmp_path)
    client.ask(A)
    with sqlite3.connect(tmp_path / FILE) as connection:
        connection.execute("UPDATE answers SET answer = replace(answer, '0.5', '0.6')")
    connection.close()
    with pytest.raises(ArtefactError, match="other bytes than were written"):
        client.ask(A)


@pytest.mark.parametrize("data", [b"no database at all, whatever its name says" * 30, None])
def test_another_file_is_left_alone(tmp_path, data):
    path = tmp_path / FILE
    if data is None:
        connection = sqlite3.connect(path)
        connection.execute("CREATE TABLE mine (x)")
        connection.close()
    else:
        path.write_bytes(data)
    before = path.read_bytes()
    with pytest.raises(ArtefactError, match=FILE):
        Cached(Scripted(), tmp_path)
    assert path.read_bytes()[:16] == before[:16]
    assert path.stat().st_size == len(before)


# --- a run that is killed -------------------------------------------------------------------------------------

RUN = """
import sys
from pathlib import Path
from saelens_n2g.clients.config import ClientConfig
from saelens_n2g.clients.messages import Request
from saelens_n2g.clients.registry import client_of
client = client_of(ClientConfig(kind="http", model="tiny", base_url=sys.argv[1], cache=sys.argv[2], concurrency=3,
                                backoff=0.001))
replies = client.ask_many([Request(prompt=f"prompt number {i}.", seed=i, logprobs=2) for i in range(60)])
print(client.hits)
for reply in replies:
    print(reply)
"""


def start(url: str, folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", RUN, url, str(folder)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def ended(run: subprocess.Popen[str]) -> tuple[int, str]:
    out, err = run.communicate(timeout=60)
    assert run.returncode == 0, err
    hits, _, rest = out.partition("\n")
    return int(hits), rest


def test_a_killed_run_goes_on_and_ends_like_an_undisturbed_one(tmp_path):
    with serving() as server:
        whole = ended(start(server.url, tmp_path / "whole"))
        asked, server.pause = len(server.asked), 0.02
        run = start(server.url, tmp_path / "killed")
        while len(server.asked) < asked + 20:
            assert run.poll() is None
            time.sleep(0.005)
        os.kill(run.pid, signal.SIGKILL)
        run.communicate()
        time.sleep(0.2)  # what it had sent is counted
        server.pause, seen = 0.0, len(server.asked) - asked
        server.plan("number", "500", "half", "429 0", "malformed")
        hits, rest = ended(start(server.url, tmp_path / "killed"))
        assert hits >= seen - 6  # those under way, and those whose reply was not read yet
        assert 0 < hits < 60
        assert len(server.asked) - asked - seen == 60 - hits + 4
        assert (whole[0], rest) == (0, whole[1])


# --- recordings -----------------------------------------------------------------------------------------------


def test_a_recording_says_again_what_was_said(tmp_path):
    path = tmp_path / "replies.jsonl"
    script = {"a": [answer("first"), answer("second")], "c": [NO]}
    client = Recording(Scripted(script), path)
    said = client.ask_many([A, C, A])
    assert client.one_token("10") is False
    assert Recording(Scripted(script), path).ask(B) == answer("b")
    replay = client_of(ClientConfig(kind="replay", model=str(path)))
    assert isinstance(replay, Replaying)
    assert replay.ask_many([A, C, A, B, A]) == [*said, answer("b"), answer("second")]
    assert replay.one_token("10") is False
    assert (replay.identity, replay.capabilities()) == (client.identity, client.capabilities())
    assert replay.count(A) == client.count(A)
    other = replace(A, seed=3)
    assert replay.ask(other).status == "unsupported"
    with pytest.raises(InputError, match="replies"):
        replay.count(other)


def test_recordings_of_another_client_and_torn_ones_are_refused(tmp_path):
    path = tmp_path / "replies.jsonl"
    Recording(Scripted(), path).ask(A)
    with pytest.raises(InputError, match="replies of"):
        Recording(Scripted(model="another"), path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ArtefactError, match="line 2"):
        Replaying(path)
    path.write_text("[]\n")
    with pytest.raises(ArtefactError, match="line 1"):
        Replaying(path)
    with pytest.raises(ArtefactError, match="nowhere"):
        Replaying(tmp_path / "nowhere")


# --- estimates ------------------------------------------------------------------------------------------------


def test_a_dry_run_asks_nothing_and_counts_what_would_be_sent(tmp_path):
    inner = Scripted()
    client = Cached(inner, tmp_path)
    client.ask(A)
    plan = estimate(client, [A, B, B, C], Price(2.0, 10.0), expected_out=1)
    assert plan == (2, 2, 10, 2.0, 8, pytest.approx(40e-6), pytest.approx(100e-6))
    assert "2 more are answered already" in plan.to_text()
    assert "at most 0.0001" in plan.to_text()
    assert inner.asked == [A]
    assert client.hits == 0
    client.ask_many([A, B, B, C])
    assert spent([]).over(plan) == 0.0
    assert client.spent == Spent(3, 0, 0, 15, 3, 0)
    assert estimate(inner, [A, A]) == (2, 0, 10, 8.0, 8, None, None)
    with pytest.raises(InputError):
        estimate(inner, [A], expected_out=-1)


def test_what_was_spent():
    plan = estimate(Scripted(), [A, B])
    half = replace(answer("x"), usage=Usage(100, 10, 60))
    total = spent([half, NO, half])
    assert total == Spent(2, 1, 0, 200, 20, 120)
    assert total.cost(Price(1.0, 2.0, 0.5)) == pytest.approx((80 + 60 + 40) / 1e6)
    assert total.cost(Price(1.0, 2.0)) == pytest.approx(240 / 1e6)
    assert total.over(plan) == pytest.approx(220 / 18)
    unknown = spent([replace(half, usage=Usage(None, 3, None))])
    assert unknown == Spent(1, 0, 1, 0, 0, 0)
    assert unknown.over(plan) is None


# --- pacing ---------------------------------------------------------------------------------------------------


@given(
    st.floats(0.5, 600),
    st.floats(1, 20),
    st.lists(st.tuples(st.floats(0, 30), st.floats(0.1, 1)), min_size=1, max_size=60),
)
def test_no_minute_sees_more_than_its_share(per_minute, burst, steps):
    bucket, now, sent = Bucket(per_minute, burst), 0.0, []
    for pause, share in steps:
        now += pause
        wait = bucket.take(share * burst, now)
        sent.append((now + wait, share * burst))
    for begin, _ in sent:
        assert sum(n for at, n in sent if begin <= at < begin + 60) <= (per_minute + burst) * (1 + 1e-6) + 1e-6


def test_a_request_larger_than_the_burst_is_let_through_and_paid_for():
    bucket = Bucket(60.0, 1.0)
    assert [bucket.take(10.0, 0.0), bucket.take(1.0, 0.0), bucket.take(1.0, 100.0)] == [9.0, 10.0, 0.0]


def test_rest_is_saved_up_no_further_than_the_burst():
    bucket = Bucket(60.0, 2.0)
    assert [bucket.take(1.0, 0.0), *(bucket.take(1.0, 1000.0) for _ in range(4))] == [0.0, 0.0, 0.0, 1.0, 2.0]


def test_a_limiter_takes_the_longest_wait():
    limiter = Limiter.of(60.0, 600.0)
    assert limiter.take(10, 0.0) == 0.0
    assert limiter.take(30, 0.0) == pytest.approx(3.0)
    limiter.pause(50.0)
    limiter.pause(40.0)
    assert limiter.take(0, 20.0) == pytest.approx(30.0)
    assert Limiter.of(None, None).take(10**9, 0.0) == 0.0


@given(st.integers(0, 10**6), st.text(max_size=5), st.integers(0, 2000))
def test_jitter_is_within_its_bound_and_the_same_each_time(seed, name, tries):
    backoff = Backoff(0.5, 60.0, seed)
    assert 0 <= backoff.wait(name, tries) <= min(60.0, 0.5 * 2.0 ** min(tries, 60))
    assert backoff.wait(name, tries) == backoff.wait(name, tries)


NOON = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "date", "seconds"),
    [(None, None, None), ("30", None, 30.0), (" 1.5 ", None, 1.5), ("-3", None, None), ("soon", None, None),
     ("Sun, 01 Mar 2026 12:01:00 GMT", None, 60.0), ("Sun, 01 Mar 2026 11:00:00 GMT", None, 0.0),
     ("Sun, 01 Mar 2026 12:01:00 GMT", "Sun, 01 Mar 2026 12:00:50 GMT", 10.0),
     ("Sun, 01 Mar 2026 12:01:00 GMT", "yesterday", 60.0), ("nan", None, None), ("99999999999", None, None)],
)  # fmt: skip
def test_retry_after_in_seconds_and_as_a_date(value, date, seconds):
    assert retry_after(value, date, NOON) == seconds


# --- the registry ---------------------------------------------------------------------------------------------


def test_an_unknown_client():
    with pytest.raises(InputError, match="one of http, huggingface, llamacpp, replay"):
        client_of(ClientConfig(kind="telepathy"))


def test_asking_over_http_loads_no_model_library():
    code = """
import sys
from saelens_n2g.clients.config import ClientConfig
from saelens_n2g.clients.registry import client_of
client_of(ClientConfig(kind="http", model="m"))
print({"torch", "transformers", "httpx2", "numpy"} & set(sys.modules))
"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
