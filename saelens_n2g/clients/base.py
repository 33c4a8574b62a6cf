"""The Client protocol: a language model that can be asked, and what it can do.

A new client is one new file whose builder carries `@register(name)`, and one line in `saelens_n2g.clients.registry`.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

from saelens_n2g.clients.messages import Failure, Reply, Request
from saelens_n2g.errors import InputError
from saelens_n2g.progress import Tick

Got = Callable[[int, Reply], None]
"""Told of each reply as it comes: the index of the request, the reply."""


class Untaken(InputError):
    """A request that a client does not take, such as a chat with a special token of its template in a text. To ask it
    is a failure of that request alone; it has no tokens that could be counted."""


class Capabilities(NamedTuple):
    """What a client can be asked for."""

    chat: bool
    """`Request.messages`."""
    completion: bool
    """`Request.prompt`."""
    tokens: bool
    """`Request.tokens`."""
    logprobs: bool
    """Of generated tokens. A server that leaves them out makes the reply a failure."""
    prompt_logprobs: bool
    """Of places in the prompt."""
    seed: bool
    """The same seed gives the same answer; servers promise this at best by their own lights."""
    json: bool
    """Answers follow `Request.json_schema`."""


@runtime_checkable
class Client(Protocol):
    """A language model that can be asked."""

    @property
    def name(self) -> str:
        """Kind of client, as registered."""
        ...

    @property
    def model(self) -> str:
        """The model as it is asked for."""
        ...

    @property
    def identity(self) -> dict[str, Any]:
        """JSON values that decide answers beside the request: kind, place, model, revision. Without any secret."""
        ...

    def capabilities(self) -> Capabilities:
        """What it can do. Raises `InputError` where a server has to be asked and does not reply."""
        ...

    def count(self, request: Request) -> int:
        """Tokens that the request has: exact where the tokenizer is known, else an estimate. Raises `Untaken` for one
        that would not be asked."""
        ...

    def one_token(self, text: str) -> bool | None:
        """Whether `text` is one token of the model; None if that is not known here."""
        ...

    def ask(self, request: Request) -> Reply:
        """Ask one thing."""
        ...

    def ask_many(self, requests: Sequence[Request], tick: Tick | None = None, got: Got | None = None) -> list[Reply]:
        """Ask many things, at the same time where that is possible. Replies come back in the order of the requests;
        `tick` is told how many are there, `got` of each as it comes."""
        ...


def unsupported(request: Request, able: Capabilities) -> Failure | None:
    """The failure of a request that asks for what a client cannot do; None if it can."""
    kinds = (("chat", request.messages), ("completion", request.prompt), ("tokens", request.tokens))
    missing = [name for name, given in kinds if given and not getattr(able, name)]
    missing += ["logprobs"] if request.logprobs is not None and not able.logprobs else []
    missing += ["prompt_logprobs"] if request.prompt_logprobs is not None and not able.prompt_logprobs else []
    return Failure("unsupported", f"the client cannot do {', '.join(missing)}", False) if missing else None


class Counter:
    """Passes replies on and counts them: what `ask_many` of every client does with `tick` and `got`."""

    def __init__(self, total: int, tick: Tick | None, got: Got | None) -> None:
        self.total, self.done, self.tick, self.got = total, 0, tick, got

    def __call__(self, index: int, reply: Reply) -> None:
        """One more reply is there."""
        self.done += 1
        if self.got is not None:
            self.got(index, reply)
        if self.tick is not None:
            self.tick(self.done, self.total)


def one_by_one(
    ask: Callable[[Request], Reply], requests: Sequence[Request], tick: Tick | None, got: Got | None
) -> list[Reply]:
    """`ask_many` of a client that can do one thing at a time."""
    replies: list[Reply] = []
    count = Counter(len(requests), tick, got)
    for index, request in enumerate(requests):
        replies.append(ask(request))
        count(index, replies[-1])
    return replies
