"""The HTTP client against a real server that behaves and misbehaves."""

import asyncio
import logging
import shutil
import signal
import socket
import threading
import time
from collections import Counter as Count

import pytest
from hypothesis import given
from hypothesis import strategies as st
from misbehaving import KEY, VARIABLE, logprob_of, said, serving

from saelens_n2g.clients.config import ClientConfig
from saelens_n2g.clients.counting import estimated
from saelens_n2g.clients.http import HttpClient
from saelens_n2g.clients.messages import Answer, Failure, Message, PromptWish, Request, TokenLogprob
from saelens_n2g.clients.registry import client_of
from saelens_n2g.errors import InputError


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv(VARIABLE, KEY)


@pytest.fixture
def server():
    with serving() as found:
        yield found


def prompts(n: int, **more) -> list[Request]:
    return [Request(prompt=f"prompt number {i}.", **more) for i in range(n)]


def expected(request: Request) -> str:
    return said(f"{request.prompt} {request.seed}")


# --- good behaviour -------------------------------------------------------------------------------------------


def test_many_prompts_come_back_in_order_some_at_a_time(server):
    client, requests, server.pause = server.client(concurrency=3), prompts(20, seed=4), 0.02
    ticks, told = [], {}
    replies = client.ask_many(requests, lambda done, total: ticks.append((done, total)), told.__setitem__)
    assert [reply.text for reply in replies] == [expected(request) for request in requests]
    assert ticks == [(i + 1, 20) for i in range(20)]
    assert told == dict(enumerate(replies))
    assert 1 < server.most_under_way <= 3
    assert {reply.model for reply in replies} == {"tiny-v2"}
    assert replies[0].usage == (3, 2, 1)
    assert client.ask_many([]) == []


def test_a_chat_is_sent_as_one(server):
    request = Request(
        messages=(Message("system", "Be short."), Message("user", "Name it.")),
        max_tokens=9, temperature=0.5, top_p=0.9, seed=3, stop=("\n",), json_schema='{"type": "object"}',
    )  # fmt: skip
    reply = server.client(max_tokens_field="max_completion_tokens", extra={"user": "me"}).ask(request)
    assert isinstance(reply, Answer)
    assert server.asked == [
        {
            "model": "tiny",
            "messages": [{"role": "system", "content": "Be short."}, {"role": "user", "content": "Name it."}],
            "max_completion_tokens": 9,
            "temperature": 0.5,
            "top_p": 0.9,
            "seed": 3,
            "stop": ["\n"],
            "stream": False,
            "user": "me",
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "answer", "strict": True, "schema": {"type": "object"}},
            },
        }
    ]
    assert server.headers[0]["Authorization"] == f"Bearer {KEY}"


def test_an_answer_that_was_cut_off_says_so(server):
    reply = server.client().ask(Request(prompt="Say a lot.", max_tokens=1))
    assert (reply.text, reply.finish) == ("said", "length")


@pytest.mark.parametrize("chat", [False, True])
def test_log_probabilities_of_the_answer(server, chat):
    what = {"messages": (Message("user", "Hi there"),)} if chat else {"prompt": "Hi there"}
    reply = server.client().ask(Request(**what, max_tokens=2, logprobs=3))
    assert "".join(generated.token for generated in reply.logprobs) == reply.text
    for place, generated in enumerate(reply.logprobs):
        assert generated.logprob == logprob_of(generated.token, place)
        best = sorted(-logprob_of(f" {d}", place) for d in range(10))[:3]
        assert [-t.logprob for t in generated.top] == best


@pytest.mark.parametrize("chat", [False, True])
def test_a_stop_text_that_a_server_leaves_in_the_answer_is_taken_out(server, chat):
    server.stops = True
    what = {"messages": (Message("user", "Hi there"),)} if chat else {"prompt": "Hi there"}
    whole = server.client().ask(Request(**what, logprobs=1))
    stop = whole.text[-4:-2]
    cut = server.client().ask(Request(**what, logprobs=1, stop=("never", stop)))
    assert cut.text == whole.text[: whole.text.index(stop)]
    assert (cut.finish, len(cut.logprobs)) == ("stop", 2)  # the second token is cut in the middle
    cut = server.client().ask(Request(**what, logprobs=1, stop=(whole.text[4:6], stop)))
    assert (cut.text, cut.logprobs) == (whole.text[:4], whole.logprobs[:1])
    assert server.client().ask(Request(**what, stop=(whole.text[:2],), max_tokens=1)).status == "empty"


def test_log_probabilities_that_a_server_leaves_out_are_a_failure(server):
    server.plan("Hi", '{"choices": [{"text": "fine", "finish_reason": "stop"}]}')
    reply = server.client().ask(Request(prompt="Hi", logprobs=1))
    assert (reply.status, reply.retryable) == ("unsupported", False)


def test_who_interrupts_a_notebook_waits_for_nobody(server):
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    server.pause = 0.1
    before = signal.signal(signal.SIGALRM, interrupt)
    loop = asyncio.new_event_loop()

    async def in_a_notebook():
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        return server.client(concurrency=1).ask_many(prompts(50))

    try:
        with pytest.raises(KeyboardInterrupt):
            loop.run_until_complete(in_a_notebook())
    finally:
        signal.signal(signal.SIGALRM, before)
        loop.close()
    assert len(server.asked) < 10


def test_a_running_loop_is_no_hindrance(server):
    async def in_a_notebook():
        return server.client().ask(Request(prompt="Hi"))

    assert asyncio.run(in_a_notebook()).text == said("Hi None")


# --- log probabilities of the prompt --------------------------------------------------------------------------

TABLE = "a 0 b 1 cc 2"
WISH = PromptWish((1, 5, 10), (" 0", " 1", " 7"))


@pytest.mark.parametrize("ability", ["vllm", "echo"])
@pytest.mark.parametrize("limit", [0, 2])
def test_places_of_a_prompt(server, ability, limit):
    server.abilities = {ability}
    client = server.client(top_logprobs=10)
    assert client.capabilities().prompt_logprobs
    assert client.mode == ability
    reply = client.ask(Request(prompt=TABLE, max_tokens=limit, prompt_logprobs=WISH))
    assert reply.text == (said(f"{TABLE} None") if limit else "")
    for slot, position, place, own in zip(reply.prompt_logprobs, WISH.positions, (1, 3, 5), "012", strict=True):
        assert slot.position == position
        assert slot.actual == TokenLogprob(f" {own}", logprob_of(f" {own}", place))
        assert slot.candidates == tuple(TokenLogprob(c, logprob_of(c, place)) for c in WISH.candidates)
        assert slot.bound is None


@pytest.mark.parametrize("limit", [0, 1])
def test_an_echo_without_its_last_token_is_still_an_echo(server, limit):
    """The server generates one token, says so, and lists those of the prompt alone."""
    server.abilities, server.drops = {"echo"}, True
    client = server.client(top_logprobs=10)
    assert client.capabilities().prompt_logprobs
    reply = client.ask(Request(prompt=TABLE, max_tokens=limit, prompt_logprobs=WISH))
    assert [slot.actual.logprob for slot in reply.prompt_logprobs] == [
        logprob_of(f" {own}", place) for place, own in ((1, 0), (3, 1), (5, 2))
    ]
    assert reply.text == ("said" if limit else "")


@pytest.mark.parametrize("ability", ["vllm", "echo"])
def test_candidates_beyond_the_listed_ones_are_missing_not_zero(server, ability):
    reply = server.client(prompt_logprobs=ability, top_logprobs=3).ask(
        Request(prompt=TABLE, max_tokens=0, prompt_logprobs=PromptWish((5,), tuple(f" {d}" for d in range(10))))
    )
    (slot,) = reply.prompt_logprobs
    known = dict(slot.candidates)
    best = sorted((logprob_of(f" {d}", 3), f" {d}") for d in range(10))[::-1]
    assert {token for _, token in best[:3]} <= known.keys() <= {token for _, token in best[:3]} | {" 1"}
    assert all(logprob_of(f" {d}", 3) <= slot.bound for d in range(10) if f" {d}" not in known)


def test_a_chats_last_message_is_found_in_the_template(server):
    messages = (Message("system", "a 0 b 1"), Message("user", TABLE))
    wish = PromptWish((5,), (" 1",))
    reply = server.client().ask(Request(messages=messages, max_tokens=0, prompt_logprobs=wish))
    # <system> a 0 b 1<user> a 0 b 1 cc 2: the place is the eighth token
    assert reply.prompt_logprobs[0].actual == TokenLogprob(" 1", logprob_of(" 1", 8))
    server.abilities = {"echo"}
    reply = server.client().ask(Request(messages=messages, max_tokens=0, prompt_logprobs=wish))
    assert reply.status == "unsupported"


def test_token_ids_as_prompt_are_counted_in_tokens(server):
    reply = server.client().ask(Request(tokens=(5, 6, 7), max_tokens=0, prompt_logprobs=PromptWish((2,), (" 7",))))
    assert reply.prompt_logprobs[0].actual == TokenLogprob(" 7", logprob_of(" 7", 2))


@pytest.mark.parametrize(
    ("ability", "position", "why"),
    [("vllm", 0, "no token begins at character 0"), ("echo", 0, "the first of the prompt"),
     ("vllm", 2, "no token begins at character 2"), ("echo", 2, "no token begins at character 2")],
)  # fmt: skip
def test_places_that_are_none_fail(server, ability, position, why):
    server.abilities = {ability}
    reply = server.client().ask(Request(prompt=TABLE, max_tokens=0, prompt_logprobs=PromptWish((position,), ())))
    assert reply.status == "unsupported"
    assert why in reply.detail


def test_a_server_without_them_is_found_out_once(server):
    server.abilities = set()
    client = server.client()
    wishes = [Request(prompt=TABLE, max_tokens=0, prompt_logprobs=WISH)] * 3
    assert [reply.status for reply in client.ask_many([*wishes, *prompts(1)])[:3]] == ["unsupported"] * 3
    assert not client.capabilities().prompt_logprobs
    assert len(server.asked) == 4  # one without wishes, two probes, one prompt


def test_a_server_that_breaks_at_a_field_has_not_the_ability(server):
    server.abilities, server.breaks_at = set(), {"echo"}
    client = server.client()
    assert not client.capabilities().prompt_logprobs
    assert isinstance(client.ask(prompts(1)[0]), Answer)


def test_a_probe_without_reply_says_nothing_about_the_server(server):
    server.plan("one two three", *["503"] * 2)
    client = server.client(tries=2)
    replies = client.ask_many([Request(prompt=TABLE, max_tokens=0, prompt_logprobs=WISH), *prompts(1)])
    assert replies[0].status == "server_error"
    assert replies[1].text == expected(prompts(1)[0])
    assert client.ask(Request(prompt=TABLE, max_tokens=0, prompt_logprobs=WISH)).prompt_logprobs
    server.plan("one two three", *["503"] * 2)
    with pytest.raises(InputError, match="an answer to a probe"):
        server.client(tries=2).capabilities()


# --- misbehaviour ---------------------------------------------------------------------------------------------

PASSING = [
    "429", "429 0", "500", "503", "408", "malformed", "not a number", "html", "not utf-8", "bad gzip", "half", "reset",
    "{\"choices\": []}", "{\"choices\": [{\"finish_reason\": \"stop\", \"text\": \" \"}]}", "{\"choices\": 3}",
    "{\"choices\": [{\"finish_reason\": null, \"text\": \"some\"}]}", "{\"usage\": {\"prompt_tokens\": \"many\"}}",
]  # fmt: skip


@pytest.mark.parametrize("trouble", PASSING)
def test_what_passes_is_waited_for(server, trouble):
    requests = prompts(3)
    server.plan("number 1", trouble, trouble, trouble)
    assert [r.text for r in server.client().ask_many(requests)] == [expected(r) for r in requests]
    assert len(server.asked) == 6


STATUS = {
    "429": "rate_limit", "500": "server_error", "408": "timeout", "malformed": "malformed", "html": "malformed",
    "half": "connection", "reset": "connection", "{\"choices\": []}": "empty", "bad gzip": "malformed",
    "{\"choices\": [{\"finish_reason\": \"stop\", \"text\": null}]}": "empty",
}  # fmt: skip


@pytest.mark.parametrize("trouble", STATUS)
def test_what_stays_is_a_failure_of_its_own_kind_and_loses_no_other(server, trouble):
    requests = prompts(3)
    server.plan("number 1", *[trouble] * 2)
    first, bad, last = server.client(tries=2).ask_many(requests)
    assert [first.text, last.text] == [expected(requests[0]), expected(requests[2])]
    assert (bad.status, bad.retryable) == (STATUS[trouble], True)
    assert "\n" not in bad.detail
    assert bad.detail.endswith("(tried 2 times)")


@pytest.mark.parametrize(
    ("trouble", "status"),
    [("400", "rejected"), ("403", "rejected"), ("307", "rejected"), ("501", "rejected"),
     ("{\"choices\": [{\"finish_reason\": \"content_filter\", \"text\": \"so\"}]}", "filtered")],
)  # fmt: skip
def test_what_would_stay_wrong_is_asked_once(server, trouble, status):
    server.plan("number 1", trouble)
    replies = server.client().ask_many(prompts(3))
    assert (replies[1].status, replies[1].retryable) == (status, False)
    assert len(server.asked) == 3


def test_a_refusal_is_no_answer(server):
    refusal = '{"choices": [{"finish_reason": "stop", "message": {"content": null, "refusal": "I will not."}}]}'
    server.plan("Do", refusal)
    reply = server.client().ask(Request(messages=(Message("user", "Do it"),)))
    assert (reply.status, reply.detail) == ("filtered", "refused: I will not.")


def test_nobody_is_followed_elsewhere_with_the_key(server):
    server.plan("number 0", "elsewhere")
    assert server.client().ask(prompts(1)[0]).status == "rejected"
    assert len(server.asked) == 1


@pytest.mark.parametrize("trouble", ["401", "402", "404", "no credit"])
def test_after_trouble_that_is_everybodys_nobody_else_asks(server, trouble):
    server.plan("number", *[trouble] * 100)
    replies = server.client(concurrency=2).ask_many(prompts(30))
    kinds = Count(reply.status for reply in replies)
    assert len(server.asked) == kinds["rejected"] <= 2
    assert kinds["cancelled"] == 30 - kinds["rejected"]
    assert {reply.retryable for reply in replies if reply.status == "cancelled"} == {True}


def test_a_server_that_is_down_is_not_asked_for_hours(server):
    few = server.client(concurrency=1, tries=1)
    server.plan("number", *["reset"] * 7, "", *["reset"] * 7)
    replies = few.ask_many(prompts(20))
    assert [getattr(reply, "status", "answered") for reply in replies[:8]] == ["connection"] * 7 + ["answered"]
    assert not any(isinstance(reply, Failure) and (reply.fatal or reply.status == "cancelled") for reply in replies)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nowhere = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    down = server.client(base_url=nowhere, concurrency=2, tries=2)
    kinds = Count((reply.status, reply.fatal) for reply in down.ask_many(prompts(30)))
    assert kinds["cancelled", False] >= 30 - 9
    assert kinds["connection", False] == 7
    assert kinds["connection", True] == 30 - 7 - kinds["cancelled", False]


def test_silence_ends(server):
    server.plan("number 1", "silence")
    began = time.monotonic()
    replies = server.client(read_timeout=0.1, tries=1).ask_many(prompts(2))
    assert (replies[1].status, replies[1].retryable) == ("timeout", True)
    assert isinstance(replies[0], Answer)
    assert time.monotonic() - began < 0.9


def test_bytes_that_trickle_in_do_not_keep_a_request_alive(server):
    server.plan("number 0", "drip")
    began = time.monotonic()
    reply = server.client(read_timeout=1.0, total_timeout=0.2, tries=1).ask(prompts(1)[0])
    assert (reply.status, reply.detail) == ("timeout", "no answer in 0.2 s (tried 1 times)")
    assert time.monotonic() - began < 0.9


def test_nobody_there():
    with serving() as server:
        client = server.client(tries=2)
    reply = client.ask(Request(prompt="Hello?"))
    assert (reply.status, reply.retryable) == ("connection", True)
    with pytest.raises(InputError, match="an answer to a probe"):
        client.capabilities()


def test_an_error_of_the_caller_comes_through_as_it_is(server):
    def full(_index, _reply):
        raise InputError("disk", "room", "none")

    with pytest.raises(InputError, match="disk: expected room, found none"):
        server.client().ask_many(prompts(9), None, full)


# --- waiting, without a clock ---------------------------------------------------------------------------------


class Time:
    """A clock that goes on when somebody sleeps."""

    def __init__(self) -> None:
        self.now, self.slept = 1000.0, []

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def timed(server, **settings) -> tuple[HttpClient, Time]:
    config, clock = server.client(**settings).config, Time()
    return HttpClient(config, clock=clock, sleep=clock.sleep), clock


def test_retry_after_is_kept_to_by_everybody(server):
    server.plan("number 0", "429 30")
    client, clock = timed(server, concurrency=1, backoff=1.0)
    replies = client.ask_many(prompts(2))
    assert all(isinstance(reply, Answer) for reply in replies)
    assert 30.0 <= clock.slept[0] <= 31.0
    assert client.limiter.paused_until == 1030.0


def test_retry_after_beyond_reason_is_given_up_on(server):
    server.plan("number 0", "429 3600")
    client, clock = timed(server)
    reply = client.ask(prompts(1)[0])
    assert (reply.status, reply.retryable) == ("rate_limit", True)
    assert "left alone for 3600 s" in reply.detail
    assert clock.slept == []


def test_waiting_grows_within_bounds_and_by_the_seed(server):
    def waits(seed: int) -> list[float]:
        server.plan("number 0", *["500"] * 6)
        client, clock = timed(server, backoff=1.0, longest_wait=5.0, seed=seed)
        assert client.ask(prompts(1)[0]).status == "server_error"
        return clock.slept

    first = waits(0)
    assert first == waits(0) != waits(1)
    assert all(0 <= wait <= bound for wait, bound in zip(first, (1, 2, 4, 5, 5), strict=True))


def test_requests_a_minute(server):
    client, clock = timed(server, requests_per_minute=60, concurrency=1)
    client.ask_many(prompts(5))
    assert clock.slept == pytest.approx([1.0] * 4)


def test_tokens_a_minute_count_what_may_be_generated(server):
    client, clock = timed(server, tokens_per_minute=6000, concurrency=1)
    requests = prompts(3, max_tokens=96)  # 4 tokens and 96
    assert {client.count(request) for request in requests} == {estimated("prompt number 0.")} == {4}
    client.ask_many(requests)
    assert clock.slept == pytest.approx([1.0] * 2)


# --- the key --------------------------------------------------------------------------------------------------


def test_the_key_is_nowhere(server, tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    config = ClientConfig(**(vars(server.client(tries=1).config) | {"cache": str(tmp_path / "answers")}))
    client = client_of(config)
    server.plan("number 0", "400")
    server.plan("number 1", "500")
    replies = client.ask_many(prompts(3))
    assert [type(reply) for reply in replies] == [Failure, Failure, Answer]
    assert "[key]" in replies[0].detail  # the server says it, the failure does not
    assert all(headers["Authorization"].endswith(KEY) for headers in server.headers)
    shown = [repr(replies), repr(client), repr(vars(client.inner)), str(client.identity), repr(config), caplog.text]
    files = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) >= 1
    assert not any(KEY in text for text in shown)
    assert not any(KEY.encode() in data for data in files)


@pytest.mark.parametrize("value", ["", "  ", "sk-a b", "sk-\u00e9", "sk-a\nX: y"])
def test_a_key_that_cannot_be_is_refused_unseen(server, monkeypatch, value):
    monkeypatch.setenv(VARIABLE, value)
    with pytest.raises(InputError, match=VARIABLE) as error:
        server.client()
    assert "sk-" not in str(error.value)


@pytest.mark.parametrize(
    "settings",
    [{"base_url": "ftp://x/v1"}, {"base_url": "x"}, {"base_url": "http://me:sk-1@x/v1"}, {"key_env": "sk-1"},
     {"base_url": "https://x/v1?key=sk-1"}, {"tries": 0}, {"total_timeout": 0.0}, {"requests_per_minute": -1.0},
     {"prompt_logprobs": "yes"}, {"base_url": "http://sk-1@x:abc/v1"}, {"base_url": "http://x:99999/v1"}],
)  # fmt: skip
def test_settings_that_make_no_sense(settings):
    with pytest.raises((InputError, TypeError)) as error:
        ClientConfig(kind="http", **settings)
    assert "sk-1" not in str(error.value)


def test_proxies_of_the_environment_are_passed_by(server, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    assert isinstance(server.client(tries=1).ask(prompts(1)[0]), Answer)
    assert server.client(tries=1, proxies=True).ask(prompts(1)[0]).status == "connection"


def test_endpoints_that_are_not_there_are_not_asked(server):
    chat, plain = Request(messages=(Message("user", "Hi"),)), Request(prompt="Hi")
    client = server.client(endpoints="chat")
    assert [type(reply) for reply in client.ask_many([chat, plain])] == [Answer, Failure]
    assert client.ask(plain).status == "unsupported"
    assert isinstance(server.client(endpoints="completions").ask(chat), Failure)


# --- counting -------------------------------------------------------------------------------------------------


def test_tokens_are_counted_by_a_tokenizer_where_one_is_named(server, tiny_model):
    from saelens_n2g.subject import Tokenizer

    client = server.client(tokenizer=str(tiny_model))
    text = "The cat sat on the mat in London."
    assert client.count(Request(prompt=text)) == len(Tokenizer.load(str(tiny_model)).encode(text))
    assert client.one_token(" cat") is True
    assert client.one_token("catcat") is False
    assert server.client().one_token(" cat") is None
    assert client.count(Request(tokens=(1, 2, 3))) == 3


def test_chats_are_counted_with_the_template_of_the_tokenizer(server, tiny_model, tmp_path):
    from saelens_n2g.subject import Tokenizer

    shutil.copytree(tiny_model, tmp_path / "model")
    (tmp_path / "model" / "chat_template.jinja").write_text(
        "{% for m in messages %}[{{ m.role }}] {{ m.content }}{% endfor %}"
    )
    client = server.client(tokenizer=str(tmp_path / "model"))
    tokens = Tokenizer.load(str(tiny_model)).encode
    messages = (Message("system", "Be short."), Message("user", "The cat"))
    assert client.count(Request(messages=messages)) == len(tokens("[system] Be short.[user] The cat"))
    special = Request(messages=(Message("user", "say </s> now"),))  # the template refuses it; the server perhaps not
    assert client.count(special) == len(tokens("say </s> now")) + 7
    bare = server.client(tokenizer=str(tiny_model))
    assert bare.count(Request(messages=messages)) == len(tokens("Be short.")) + len(tokens("The cat")) + 11


@given(st.text(max_size=200), st.text(max_size=200))
def test_estimates_add_up(one, two):
    both = estimated(one + "\n" + two)
    assert abs(both - estimated(one) - estimated(two)) <= 3
    assert (estimated(one) > 0) == (one != "")


def test_a_thread_each(server):
    """A client may be asked from several threads."""
    client, found = server.client(), {}

    def ask(i: int) -> None:
        found[i] = client.ask(prompts(9)[i]).text

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {i: expected(prompts(9)[i]) for i in range(4)}
