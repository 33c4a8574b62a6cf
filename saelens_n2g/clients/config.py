"""Settings of a client, as a command line gives them."""

import string
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args
from urllib.parse import urlsplit

from saelens_n2g.errors import InputError

PromptLogprobs = Literal["auto", "none", "vllm", "echo"]
Endpoints = Literal["both", "chat", "completions"]
Dtype = Literal["float32", "bfloat16", "float16"]
MaxTokens = Literal["max_tokens", "max_completion_tokens"]
CHOICES = {
    "prompt_logprobs": PromptLogprobs,
    "endpoints": Endpoints,
    "dtype": Dtype,
    "max_tokens_field": MaxTokens,
}
"""Settings that take one of a few texts."""


@dataclass(frozen=True)
class ClientConfig:
    """Which language model is asked, where and how. Raises `InputError` for what makes no sense.

    Everything from `base_url` on is read by the `http` client alone, `revision` and `dtype` by `huggingface`, `context`
    and `threads` by `llamacpp`, `device` by both.
    """

    kind: str = "huggingface"
    """A registered client: `http`, `huggingface`, `llamacpp`, `replay`."""
    model: str = "embedded"
    """The model as the client knows it: `embedded`, a server's name for it, a hub name or folder, a GGUF file; a file
    to replay."""
    cache: str = ""
    """Folder of answers that are kept; empty keeps none."""
    revision: str | None = None
    """Branch, tag or commit on the hub; over HTTP only part of what answers are kept by."""
    dtype: Dtype = "float32"
    """Of the weights."""
    device: str = "auto"
    """`auto`, cpu or cuda[:N]."""
    context: int = 8192
    """Tokens that a prompt and its answer may have together, for which memory is taken; never more than the model's."""
    threads: int = 0
    """Of the CPU; 0 is as many as PyTorch takes."""
    base_url: str = "http://localhost:8000/v1"
    """Address up to what comes before `/chat/completions`; no user, no password, no query."""
    key_env: str = ""
    """Name of the environment variable that has the key; empty for servers without. The key itself is never kept."""
    endpoints: Endpoints = "both"
    """Which the server has: chat completions, completions or both."""
    prompt_logprobs: PromptLogprobs = "auto"
    """How the server gives log probabilities of the prompt; `auto` finds out with one or two small requests."""
    top_logprobs: int = 20
    """The most alternatives at a place that the server gives."""
    json_output: bool = True
    """Whether the server takes `response_format` with a JSON schema."""
    max_tokens_field: MaxTokens = "max_tokens"
    """What the server calls the limit of generated tokens in chats."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Further fields of every request's body, as JSON values. Answers are kept by them; no place for a key."""
    tokenizer: str = ""
    """A model whose tokenizer counts tokens, by hub name or folder; empty estimates them from the text."""
    concurrency: int = 8
    """Requests under way at the same time."""
    requests_per_minute: float | None = None
    """Limit kept to; None is none."""
    tokens_per_minute: float | None = None
    """Limit kept to, of tokens sent and at most generated together; None is none."""
    connect_timeout: float = 10.0
    """Seconds until a connection stands."""
    read_timeout: float = 120.0
    """Seconds without a byte."""
    total_timeout: float = 300.0
    """Seconds for one try, from connecting to the last byte."""
    tries: int = 6
    """How often a request is sent at most."""
    backoff: float = 1.0
    """Seconds waited at most after the first try; twice as many after each further one."""
    longest_wait: float = 120.0
    """Seconds waited at most between tries. A server that asks for more is given up on, with its wish in the reply."""
    seed: int = 0
    """Of the jitter in waiting; answers do not depend on it."""
    proxies: bool = False
    """Whether proxies and certificates named in the environment are used."""

    def __post_init__(self) -> None:
        try:
            parts = urlsplit(self.base_url)
        except ValueError:  # brackets that are no address
            raise InputError("base URL", "http(s)://host[:port]/path", repr(_without_user(self.base_url))) from None
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise InputError("base URL", "http(s)://host[:port]/path without query", repr(_without_user(self.base_url)))
        try:
            _ = parts.port
        except ValueError:
            raise InputError("base URL", "a port from 0 to 65535", repr(_without_user(self.base_url))) from None
        if parts.username is not None or parts.password is not None:
            raise InputError("base URL", "one without user and password (name a key by key_env)", "one with them")
        if self.key_env and not (set(self.key_env) <= set(string.ascii_letters + string.digits + "_")):
            raise InputError("key_env", "the name of an environment variable", "something else")  # perhaps the key
        for name, kind in CHOICES.items():
            if getattr(self, name) not in (known := get_args(kind)):
                raise InputError(name, f"one of {', '.join(known)}", repr(getattr(self, name)))
        for name, least in (("concurrency", 1), ("tries", 1), ("top_logprobs", 1), ("context", 1), ("threads", 0)):
            if getattr(self, name) < least:
                raise InputError(name, f"at least {least}", str(getattr(self, name)))
        times = ("connect_timeout", "read_timeout", "total_timeout", "backoff", "longest_wait")
        for name in (*times, "requests_per_minute", "tokens_per_minute"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise InputError(name, "above 0", str(value))


def _without_user(url: str) -> str:
    """The address as it may be shown: nothing before an @ and nothing after a question mark."""
    return url.partition("?")[0].rpartition("@")[2]
