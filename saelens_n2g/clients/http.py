"""A model behind an OpenAI-compatible HTTP interface: OpenAI, vLLM, llama.cpp's server, `transformers serve`, others.

    client = client_of(ClientConfig(kind="http", model="gpt-4o-mini", base_url="https://api.openai.com/v1",
                                    key_env="OPENAI_API_KEY", requests_per_minute=500))

Requests are tried again after what may pass (time-outs, 429, 5xx, broken connections, answers that make no sense), with
exponential back-off and full jitter, and not before the server's `Retry-After`. What comes of a request is an answer
or a failure. After one that is true of all requests (key, account, model), or when the server is not reached time and
again, no further one is sent.

The key is read from the environment when requests are sent. It is no attribute, in no `repr`, and blotted out of
whatever a server says.
"""

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from saelens_n2g.clients.base import Capabilities, Counter, Got, unsupported
from saelens_n2g.clients.config import ClientConfig, PromptLogprobs
from saelens_n2g.clients.counting import chat, estimated
from saelens_n2g.clients.messages import Answer, Failure, Reply, Request
from saelens_n2g.clients.openai_shapes import Malformed, Post, parse, post_of, reply_of
from saelens_n2g.clients.pacing import Backoff, Limiter, retry_after
from saelens_n2g.clients.probing import control, fine, probe, ways
from saelens_n2g.clients.registry import register
from saelens_n2g.clients.trouble import Trouble, refused, without
from saelens_n2g.errors import InputError
from saelens_n2g.jobs.artefacts import fingerprint
from saelens_n2g.progress import Tick

if TYPE_CHECKING:
    import httpx2

    from saelens_n2g.clients.spelling import Speller

UNREACHED = 8
"""Requests in a row that do not reach the server, after which no further one is sent."""
LARGEST = 64 * 1024 * 1024
"""Bytes of an answer that are read at most."""

Value = TypeVar("Value")


@register("http")
def build_http(config: ClientConfig) -> "HttpClient":
    """Builder of the registry."""
    return HttpClient(config)


class HttpClient:
    """See the module. Raises `InputError` if `key_env` names a variable without a usable key."""

    name = "http"

    def __init__(
        self,
        config: ClientConfig,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """`clock` and `sleep` are given by tests that wait for nothing."""
        self.config, self.clock, self.sleep = config, clock, sleep
        self.model = config.model
        self.limiter = Limiter.of(config.requests_per_minute, config.tokens_per_minute)
        self.backoff = Backoff(config.backoff, config.longest_wait, config.seed)
        self.mode = config.prompt_logprobs
        self.unreached = 0
        self._words: Speller | None = None
        self._certificates: Any = None
        self._key()

    @property
    def identity(self) -> dict[str, Any]:
        """See `Client.identity`."""
        parts = urlsplit(self.config.base_url)
        return {
            "client": self.name,
            "place": f"{parts.netloc}{parts.path.rstrip('/')}",
            "model": self.model,
            "revision": self.config.revision,
            "prompt_logprobs": [self.config.prompt_logprobs, self.config.top_logprobs],
            "json_output": self.config.json_output,
            "extra": dict(self.config.extra),
        }

    def capabilities(self) -> Capabilities:
        """See `Client.capabilities`; asks the server once where `prompt_logprobs` is `auto`."""
        if self.mode == "auto":
            trouble = in_a_loop(self._probe_alone)
            if trouble is not None:
                raise InputError(f"server {self.identity['place']}", "an answer to a probe", trouble.failure.detail)
        return self._able()

    def count(self, request: Request) -> int:
        """With `tokenizer` set exact, of chats too if it has the server's template; else an estimate from the text."""
        if request.tokens:
            return len(request.tokens)
        speller = self._speller()
        if speller is None:
            return (
                chat([estimated(m.text) for m in request.messages]) if request.messages else estimated(request.prompt)
            )
        from saelens_n2g.clients.spelling import Refused

        if request.prompt or speller.templated:
            with contextlib.suppress(Refused):  # by the template, which may not be the server's
                return len(speller.ids(request))
        return chat([len(speller.words.encode(message.text)) for message in request.messages])

    def one_token(self, text: str) -> bool | None:
        """See `Client.one_token`; known where `tokenizer` is set."""
        speller = self._speller()
        return None if speller is None else speller.candidate(text) is not None

    def _speller(self) -> "Speller | None":
        """That of the tokenizer that is named, loaded when it is first wanted."""
        if self.config.tokenizer and self._words is None:
            from saelens_n2g.clients.spelling import Speller
            from saelens_n2g.clients.vocabulary import Pretrained
            from saelens_n2g.subject import Tokenizer

            self._words = Speller(Pretrained(Tokenizer.load(self.config.tokenizer)))
        return self._words

    def ask(self, request: Request) -> Reply:
        """See `Client.ask`. A connection is opened each time, so ask many at once where there are many."""
        return self.ask_many([request])[0]

    def ask_many(self, requests: Sequence[Request], tick: Tick | None = None, got: Got | None = None) -> list[Reply]:
        """See `Client.ask_many`. `got` is called in the thread that talks to the server."""
        count = Counter(len(requests), tick, got)
        return in_a_loop(lambda: self._ask_all(list(requests), count)) if requests else []

    # --- many requests ----------------------------------------------------------------------------------------

    async def _ask_all(self, requests: list[Request], count: Counter) -> list[Reply]:
        replies: dict[int, Reply] = {}
        given_up: Failure | None = None
        queue = iter(enumerate(requests))

        async def worker() -> None:
            nonlocal given_up
            for index, request in queue:
                if given_up is None:
                    trouble = self._noted(await self._ask(session, request, unknown))
                    reply = trouble.failure if isinstance(trouble, Trouble) else trouble
                    given_up = given_up or (reply if isinstance(reply, Failure) and reply.fatal else None)
                else:
                    reply = Failure("cancelled", f"not asked after: {given_up.detail}", True)
                replies[index] = reply
                count(index, reply)

        async with self._session() as session:
            wanted = any(request.prompt_logprobs is not None for request in requests)
            unknown = await self._probe(session) if wanted and self.mode == "auto" else None
            await _together([worker() for _ in range(min(self.config.concurrency, len(requests)))])
        return [replies[index] for index in range(len(requests))]

    def _noted(self, found: Answer | Trouble) -> Answer | Trouble:
        """What came of a request; fatal if the server was not reached so many times in a row, each of them tried as
        often as it may be: it is down, and waiting for every other request would take hours."""
        lost = isinstance(found, Trouble) and found.failure.status == "connection"
        self.unreached = self.unreached + 1 if lost else 0
        if not isinstance(found, Trouble) or self.unreached < UNREACHED:
            return found
        said = f"the server was not reached by {self.unreached} requests in a row: {found.failure.detail}"
        return found._replace(failure=replace(found.failure, detail=said, fatal=True))

    @contextlib.asynccontextmanager
    async def _session(self) -> AsyncIterator["httpx2.AsyncClient"]:
        import httpx2

        key = self._key()
        if self._certificates is None:  # reading them takes longer than a request may
            self._certificates = httpx2.create_ssl_context(trust_env=self.config.proxies)
        async with httpx2.AsyncClient(
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=httpx2.Timeout(self.config.read_timeout, connect=self.config.connect_timeout, pool=None),
            limits=httpx2.Limits(max_connections=self.config.concurrency),
            verify=self._certificates,
            trust_env=self.config.proxies,
            follow_redirects=False,  # the key goes to nobody else
        ) as session:
            yield session

    def _key(self) -> str:
        """The key, or an empty text where none is asked for. Raises `InputError` if it is not there."""
        name = self.config.key_env
        if not name:
            return ""
        key = os.environ.get(name, "").strip()
        if not key:
            raise InputError(f"environment variable {name}", "a key", "nothing")
        if not all("!" <= letter <= "~" for letter in key):
            raise InputError(f"environment variable {name}", "a key of printable ASCII", "other characters in it")
        return key

    # --- one request ------------------------------------------------------------------------------------------

    async def _ask(self, session: "httpx2.AsyncClient", request: Request, unknown: Trouble | None) -> Answer | Trouble:
        """The answer, or why there is none; `unknown` is why the server could not be probed."""
        if request.prompt_logprobs is not None and unknown is not None:
            return unknown
        failure = unsupported(request, self._able())
        if failure is None and request.messages and request.prompt_logprobs is not None and self.mode == "echo":
            failure = Failure("unsupported", "this server gives log probabilities of prompts, not of chats", False)
        if failure is not None:
            return Trouble(failure)
        post = post_of(request, self.config, self.mode)
        key, size = fingerprint(request.to_json()), self.count(request) + request.max_tokens
        return await self._persist(session, post, key, size, lambda v: reply_of(request, v, self.config, self.mode))

    async def _persist(
        self,
        session: "httpx2.AsyncClient",
        post: Post,
        key: str,
        size: int,
        read: Callable[[Any], Reply],
        *,
        tries: int | None = None,
    ) -> Answer | Trouble:
        """Send until there is an answer, what is wrong would stay wrong, or it was tried often enough."""
        allowed = tries or self.config.tries
        for tried in range(1, allowed + 1):
            await self._turn(size)
            trouble = await self._once(session, post, read)
            if isinstance(trouble, Answer) or not trouble.failure.retryable:
                break
            wait = trouble.wait or 0.0
            if wait > self.config.longest_wait:
                more = f"{trouble.failure.detail}; the server wants to be left alone for {wait:.0f} s"
                return trouble._replace(failure=replace(trouble.failure, detail=more))
            self.limiter.pause(self.clock() + wait)
            if tried == allowed:
                said = f"{trouble.failure.detail} (tried {tried} times)"
                return trouble._replace(failure=replace(trouble.failure, detail=said))
            await self.sleep(wait + self.backoff.wait(key, tried - 1))
        return trouble

    async def _turn(self, tokens: int) -> None:
        """Wait until a request of that many tokens may be sent."""
        wait = self.limiter.take(tokens, self.clock())
        while wait > 0:
            await self.sleep(wait)
            wait = self.limiter.paused_until - self.clock()  # another request may have been told to wait meanwhile

    async def _once(self, session: "httpx2.AsyncClient", post: Post, read: Callable[[Any], Reply]) -> Answer | Trouble:
        """Send once."""
        import httpx2

        url = f"{self.config.base_url.rstrip('/')}/{post.path}"
        try:
            async with (
                asyncio.timeout(self.config.total_timeout),
                session.stream("POST", url, json=post.body) as response,
            ):
                body = await _body(response)
        except TimeoutError:
            trouble = Trouble(Failure("timeout", f"no answer in {self.config.total_timeout:g} s", True))
        except httpx2.TimeoutException as error:
            trouble = Trouble(Failure("timeout", _said(error), True))
        except Malformed as error:
            trouble = Trouble(Failure("malformed", str(error), True))
        except httpx2.DecodingError as error:
            trouble = Trouble(Failure("malformed", _said(error), True))
        except httpx2.TransportError as error:
            trouble = Trouble(Failure("connection", _said(error), True))
        else:
            reply = _reply(response, body, read, self._key())
            if isinstance(reply, Answer):
                return reply
            trouble = reply
        return trouble._replace(failure=without(self._key(), trouble.failure))

    # --- log probabilities of the prompt ----------------------------------------------------------------------

    def _able(self) -> Capabilities:
        has = self.config.endpoints
        return Capabilities(
            chat=has != "completions",
            completion=has != "chat",
            tokens=has != "chat",
            logprobs=True,
            prompt_logprobs=self.mode in ("vllm", "echo"),
            seed=True,
            json=self.config.json_output and has != "completions",
        )

    async def _probe_alone(self) -> Trouble | None:
        async with self._session() as session:
            return await self._probe(session)

    async def _probe(self, session: "httpx2.AsyncClient") -> Trouble | None:
        """Find the way in which the server gives them; the trouble of a server that cannot be asked now."""
        plain = await self._persist(session, control(self.config), "probe", 8, fine)
        if isinstance(plain, Trouble):
            return plain
        found: PromptLogprobs = "none"
        for mode in ways(self.config):
            post, read = probe(self.config, mode)
            reply = await self._persist(session, post, f"probe {mode}", 8, read, tries=min(2, self.config.tries))
            if isinstance(reply, Answer):
                found = mode
                break
            if reply.failure.status in ("rate_limit", "timeout", "connection", "malformed"):
                return reply  # no word on what the server can do
        self.mode = found
        return None


def _reply(response: "httpx2.Response", body: str, read: Callable[[Any], Reply], key: str) -> Answer | Trouble:
    """What a whole response says; `key` is in nothing that a refusal says."""
    if response.status_code != 200:
        wait = retry_after(response.headers.get("retry-after"), response.headers.get("date"), datetime.now(UTC))
        return refused(response.status_code, body, wait, key)
    kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json" and not kind.endswith("+json"):
        return Trouble(Failure("malformed", f"an answer of type {kind[:40] or 'none'}, not JSON", True))
    try:
        reply = read(parse(body))
    except Malformed as error:
        return Trouble(Failure("malformed", str(error), True))
    return reply if isinstance(reply, Answer) else Trouble(reply)


async def _body(response: "httpx2.Response") -> str:
    """The text of a response, read to its end. Raises `Malformed` if it is too long or not UTF-8."""
    parts, size = [], 0
    async for part in response.aiter_bytes():
        size += len(part)
        if size > LARGEST:
            raise Malformed(f"an answer of more than {LARGEST} bytes")
        parts.append(part)
    try:
        return b"".join(parts).decode()
    except UnicodeDecodeError:
        raise Malformed("an answer that is not UTF-8") from None


def _said(error: Exception) -> str:
    """One line of an exception; many of the HTTP library have no text."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}".removesuffix(": ")


async def _together(work: list[Coroutine[Any, Any, None]]) -> None:
    """Run all; the first exception ends the others and is raised as it is."""
    try:
        async with asyncio.TaskGroup() as group:
            for one in work:
                group.create_task(one)
    except BaseExceptionGroup as error:
        raise error.exceptions[0] from None


def in_a_loop(work: Callable[[], Coroutine[Any, Any, Value]]) -> Value:
    """Run a coroutine to its end, also where a loop is running in this thread already, as in a notebook. Whoever
    interrupts the waiting ends the work."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work())
    running: list[Callable[[], object]] = []

    async def main() -> Value:
        task, loop = asyncio.current_task(), asyncio.get_running_loop()
        assert task is not None
        running.append(lambda: loop.call_soon_threadsafe(task.cancel))
        return await work()

    with ThreadPoolExecutor(1) as thread:
        future = thread.submit(lambda: asyncio.run(main()))
        try:
            return future.result()
        except BaseException:
            if running and not future.done():
                running[0]()
            raise
