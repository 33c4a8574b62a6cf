"""A real HTTP server with OpenAI's interface, for tests: it answers by rule, and misbehaves where it is told to.

    with serving() as server:
        server.plan("boom", "500", "500")     # prompts with `boom` in them get two errors, then an answer
        client = server.client()

What it says is a function of the request alone, so that two undisturbed runs say the same.
"""

import contextlib
import hashlib
import json
import socket
import struct
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from saelens_n2g.clients.config import ClientConfig
from saelens_n2g.clients.http import HttpClient

KEY, VARIABLE = "sk-secret-0123456789", "TEST_CLIENT_KEY"


def said(text: str) -> str:
    """What the server answers to a prompt."""
    return "said " + hashlib.sha256(text.encode()).hexdigest()[:8]


def words(text: str) -> list[str]:
    """The server's tokens: a word with the white space before it."""
    out: list[str] = []
    for letter in text:
        if not out or (letter.isspace() and not out[-1].isspace()):
            out.append(letter)
        else:
            out[-1] += letter
    return out


def logprob_of(token: str, place: int) -> float:
    """Some number that a token has at a place."""
    return -0.25 - (sum(token.encode()) + 7 * place) % 29 / 4


class Server(ThreadingHTTPServer):
    """Counts requests. `abilities`: which ways of giving log probabilities of the prompt it has; `breaks_at`: fields
    that it answers with an error of its own, as some servers do; `stops`: whether a stop text ends an answer, of which
    it is left a part then, as `transformers serve` does; `drops`: whether the last token of an echo that is cut off is
    left out of the list, as by the server of llama-cpp-python."""

    daemon_threads, block_on_close = True, False
    request_queue_size = 64

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.plans: list[tuple[str, list[str]]] = []
        self.asked: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.abilities = {"vllm", "echo"}
        self.breaks_at: set[str] = set()
        self.stops = self.drops = False
        self.under_way = self.most_under_way = 0
        self.pause = 0.0
        self.lock = threading.Lock()

    def plan(self, part: str, *troubles: str) -> None:
        """Prompts with `part` in them get these troubles, one after another, before they are answered."""
        self.plans.append((part, list(troubles)))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    def client(self, **settings: Any) -> HttpClient:
        """A client of this server that hardly waits between tries."""
        given = {"kind": "http", "model": "tiny", "base_url": self.url, "backoff": 0.001, "key_env": VARIABLE}
        return HttpClient(ClientConfig(**(given | settings)))

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Broken connections are what these tests are about."""


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        server = self.server
        with server.lock:
            server.asked.append(body)
            server.headers.append(dict(self.headers))
            server.under_way += 1
            server.most_under_way = max(server.most_under_way, server.under_way)
            text = json.dumps(body, ensure_ascii=False)
            trouble = "500" if server.breaks_at & body.keys() else ""
            trouble = trouble or next((left.pop(0) for part, left in server.plans if part in text and left), "")
        time.sleep(server.pause)
        try:
            self.misbehave(trouble, body) if trouble else self.send(200, self.answer(body))
        finally:
            with server.lock:
                server.under_way -= 1

    def send(self, status: int, value: Any, **headers: str) -> None:
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        for name, content in ({"Content-Type": "application/json"} | headers).items():
            self.send_header(name.replace("_", "-"), content)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def misbehave(self, trouble: str, body: dict[str, Any]) -> None:
        whole = json.dumps(self.answer(body)).encode()
        if trouble.isdigit():
            self.send(int(trouble), {"error": {"message": f"trouble with {self.headers.get('Authorization')}"}})
        elif trouble.startswith("429 "):
            self.send(429, {"error": {"message": "slower"}}, Retry_After=trouble.removeprefix("429 "))
        elif trouble == "elsewhere":
            self.send(307, {}, Location=f"{self.server.url}/elsewhere")
        elif trouble == "no credit":
            self.send(429, {"error": {"message": "no credit", "code": "insufficient_quota"}})
        elif trouble == "malformed":
            self.send(200, b'{"choices": [')
        elif trouble == "not a number":
            self.send(200, b'{"choices": [], "usage": NaN}')
        elif trouble == "html":
            self.send(200, b"<html>a proxy says hello</html>", Content_Type="text/html")
        elif trouble == "not utf-8":
            self.send(200, b'{"choices": "\xff"}')
        elif trouble == "bad gzip":
            self.send(200, b"no gzip at all", Content_Encoding="gzip")
        elif trouble.startswith("{"):
            self.send(200, self.answer(body) | json.loads(trouble))
        elif trouble == "half":
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(whole)))
            self.end_headers()
            self.wfile.write(whole[: len(whole) // 2])
            self.close_connection = True
        elif trouble == "reset":
            self.request.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.request.close()
            self.close_connection = True
        elif trouble == "silence":
            time.sleep(1.0)
            self.close_connection = True
        elif trouble == "drip":
            self.wfile.write(b"HTTP/1.1 200 OK\r\n")
            with contextlib.suppress(OSError):
                for i in range(100):
                    self.wfile.write(f"X-Slow-{i}: yes\r\n".encode())
                    time.sleep(0.02)
            self.close_connection = True
        else:
            raise AssertionError(trouble)

    # --- good behaviour ---------------------------------------------------------------------------------------

    def answer(self, body: dict[str, Any]) -> dict[str, Any]:
        chat = self.path.endswith("/chat/completions")
        if chat:
            prompt = "".join(f"<{m['role']}> {m['content']}" for m in body["messages"])
        else:
            prompt = body["prompt"] if isinstance(body["prompt"], str) else "".join(f" {i}" for i in body["prompt"])
        limit = body["max_tokens"] if "max_tokens" in body else body["max_completion_tokens"]
        text = said(f"{prompt} {body.get('seed')}")
        new = words(text)[:limit]
        if self.server.stops and (stop := next((s for s in body.get("stop", ()) if s in text), None)):
            new = words(text[: text.index(stop) + len(stop)])
        finish = "stop" if len(new) == len(words(text)) else "length"
        choice: dict[str, Any] = {"index": 0, "finish_reason": finish}
        tokens = words(prompt)
        if chat:
            choice["message"] = {"role": "assistant", "content": "".join(new), "refusal": None}
            if body.get("logprobs"):
                choice["logprobs"] = {"content": [self.of_chat(t, i, body["top_logprobs"]) for i, t in enumerate(new)]}
        else:
            choice["text"] = "".join(new)
            if "logprobs" in body:
                echo = body.get("echo") and "echo" in self.server.abilities
                listed = ([*tokens] if echo else []) + new
                listed = listed[:-1] if echo and self.server.drops and finish == "length" else listed
                choice["logprobs"] = self.of_completion(listed, body["logprobs"], bool(echo))
                choice["text"] = (prompt if echo else "") + choice["text"]
        value = {"id": "x", "model": "tiny-v2", "choices": [choice]}
        if "prompt_logprobs" in body and "vllm" in self.server.abilities:
            listed = [None, *(self.of_vllm(t, i, body["prompt_logprobs"]) for i, t in list(enumerate(tokens))[1:])]
            (value if chat else choice)["prompt_logprobs"] = listed
        details = {"cached_tokens": 1}
        value["usage"] = {
            "prompt_tokens": len(tokens), "completion_tokens": len(new), "prompt_tokens_details": details,
        }  # fmt: skip
        return value

    def likely(self, place: int, top: int) -> list[tuple[str, float]]:
        rows = [(f" {d}", logprob_of(f" {d}", place)) for d in range(10)]
        return sorted(rows, key=lambda row: -row[1])[:top]

    def of_chat(self, token: str, place: int, top: int) -> dict[str, Any]:
        listed = [{"token": t, "logprob": p, "bytes": None} for t, p in self.likely(place, top)]
        return {"token": token, "logprob": logprob_of(token, place), "top_logprobs": listed}

    def of_completion(self, tokens: list[str], top: int, echo: bool) -> dict[str, Any]:
        own = [None if echo and i == 0 else logprob_of(t, i) for i, t in enumerate(tokens)]
        tops = [None if echo and i == 0 else dict(self.likely(i, top)) for i in range(len(tokens))]
        return {"tokens": tokens, "token_logprobs": own, "top_logprobs": tops, "text_offset": [0] * len(tokens)}

    def of_vllm(self, token: str, place: int, top: int) -> dict[str, Any]:
        rows = {"999": {"logprob": logprob_of(token, place), "rank": 50, "decoded_token": token}}
        for rank, (text, logprob) in enumerate(self.likely(place, top), 1):
            if text != token:
                rows[str(rank)] = {"logprob": logprob, "rank": rank, "decoded_token": text}
        return rows


@contextlib.contextmanager
def serving() -> Iterator[Server]:
    """A server while the block runs."""
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
