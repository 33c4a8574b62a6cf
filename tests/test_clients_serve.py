"""The HTTP client against `transformers serve` itself, where what that needs is installed."""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from tiny import with_template

from saelens_n2g.clients.config import ClientConfig
from saelens_n2g.clients.http import HttpClient
from saelens_n2g.clients.huggingface import HuggingFaceClient
from saelens_n2g.clients.messages import Answer, Message, PromptWish, Request

pytestmark = [pytest.mark.model, pytest.mark.usefixtures("one_thread")]

TEMPLATE = "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}[assistant]"
CHAT = (Message("system", "The cat sat."), Message("user", "Where is the old cat of Ann?"))


@pytest.fixture(scope="module")
def folder(tiny_model, tmp_path_factory) -> Path:
    return with_template(tiny_model, tmp_path_factory.mktemp("serve") / "model", TEMPLATE)


@pytest.fixture(scope="module")
def url(tmp_path_factory) -> Iterator[str]:
    for needed in ("fastapi", "openai", "uvicorn", "pydantic"):
        pytest.importorskip(needed)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    code = "from transformers.cli.transformers import app; app()"
    command = [sys.executable, "-c", code, "serve", "--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    said = tmp_path_factory.mktemp("said") / "server.txt"
    with open(said, "w") as out:
        environment = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
        server = subprocess.Popen(command, stdout=out, stderr=out, env=environment)
        try:
            for _ in range(600):
                assert server.poll() is None, said.read_text()
                try:
                    with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
                        break
                except OSError:
                    time.sleep(0.2)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            server.kill()
            server.wait()


def client(url: str, folder: Path, **settings) -> HttpClient:
    given = {"kind": "http", "model": str(folder), "base_url": url, "tries": 2, "backoff": 0.001}
    return HttpClient(ClientConfig(**(given | settings)))


def test_answers_are_those_of_the_model_in_process(url, folder):
    ours = HuggingFaceClient(ClientConfig(model=str(folder), device="cpu"))
    asked = client(url, folder, tokenizer=str(folder))
    for what in ({"messages": CHAT}, {"prompt": "In 1900 the cat of Ann slept."}):
        for more in ({}, {"stop": (ours.ask(Request(**what, max_tokens=12)).text[-4:-2],)}):
            request = Request(**what, max_tokens=12, **more)
            here, there = ours.ask(request), asked.ask(request)
            assert isinstance(there, Answer), there
            assert (there.text, there.finish) == (here.text, here.finish)
            assert there.usage.tokens_in == here.usage.tokens_in == asked.count(request)


def test_draws_need_a_setting_and_a_seed_holds_one_at_a_time(url, folder):
    sampled = client(url, folder, concurrency=1, extra={"generation_config": '{"do_sample": true}'})
    requests = [Request(messages=CHAT, max_tokens=8, temperature=1.0, seed=seed) for seed in (1, 1, 2)]
    one, again, other = sampled.ask_many(requests)
    assert isinstance(one, Answer)
    assert one.text == again.text != other.text
    plain = client(url, folder).ask_many(requests)
    assert plain[0].text == plain[2].text, "the server passes over the temperature of a model that draws nothing"


def test_what_it_cannot_do_is_a_failure(url, folder):
    asked = client(url, folder)
    assert not asked.capabilities().prompt_logprobs
    wish = PromptWish((4,), ())
    unable = [
        Request(prompt="The cat", max_tokens=2, logprobs=1),
        Request(messages=CHAT, max_tokens=2, logprobs=1),
        Request(prompt="The cat", max_tokens=0, prompt_logprobs=wish),
    ]
    assert [reply.status for reply in asked.ask_many(unable)] == ["unsupported"] * 3
    ids = asked.ask(Request(tokens=(5, 6), max_tokens=2))
    assert (ids.status, "must be a string" in ids.detail) == ("rejected", True)
    unknown = client(url, folder / "nowhere").ask(Request(messages=CHAT, max_tokens=2))
    assert unknown.retryable, "it says 500 to a model that is not there, and may break the connection"
