"""What a language model is asked and what comes back: `Request`, and an `Answer` or a `Failure`.

    request = Request(prompt="a\\t0\\nb\\t", max_tokens=0, prompt_logprobs=PromptWish((6,), ("0", "1", "2")))
    request = Request(messages=(Message("user", "Name a colour."),), max_tokens=8, temperature=1.0, seed=3)

A failure is a reply of its own kind. It is never an exception that would lose the replies to other requests, and never
an answer with an empty text.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple, get_args

from saelens_n2g.errors import InputError

Role = Literal["system", "user", "assistant"]
Finish = Literal["stop", "length"]
Status = Literal[
    "timeout",
    "rate_limit",
    "server_error",
    "connection",
    "rejected",
    "malformed",
    "empty",
    "filtered",
    "unsupported",
    "cancelled",
]
"""Why there is no answer.

`connection`: none was made, or it broke. `rejected`: the server will not have this request, key or model. `filtered`:
refused by the model or its provider. `unsupported`: this client cannot do what was wished. `cancelled`: not asked,
because an earlier reply says that asking is of no use.
"""


class Message(NamedTuple):
    """One turn of a chat."""

    role: Role
    text: str


class PromptWish(NamedTuple):
    """Wanted of the prompt itself: what the model would have expected at some of its places."""

    positions: tuple[int, ...]
    """Places. Of a prompt in text: characters at which a token begins; of messages: characters of the last one; of
    token ids: indices, from 1 on."""
    candidates: tuple[str, ...]
    """Tokens, as text, whose log probabilities are wanted at each place."""


@dataclass(frozen=True)
class Request:
    """One thing to be asked. Exactly one of `messages`, `prompt` and `tokens` is given.

    Raises `InputError` for values that no model takes.
    """

    messages: tuple[Message, ...] = ()
    """A chat, which the model's own template writes down."""
    prompt: str = ""
    """A text to be continued as it stands."""
    tokens: tuple[int, ...] = ()
    """Token ids to be continued as they stand; nothing is put in front of them."""
    max_tokens: int = 256
    """The most that are generated; 0 where only `prompt_logprobs` are wanted."""
    temperature: float = 0.0
    """0 takes the likeliest token each time."""
    top_p: float = 1.0
    """Tokens are drawn from the likeliest ones that have this much probability together."""
    seed: int | None = None
    """Of what is drawn at a temperature above 0; None leaves it to the server, and in process is 0."""
    stop: tuple[str, ...] = ()
    """Texts that end the answer; they are not part of it."""
    logprobs: int | None = None
    """Log probabilities of generated tokens: None for none, else with this many of the likeliest beside each."""
    prompt_logprobs: PromptWish | None = None
    """Log probabilities at places of the prompt."""
    json_schema: str = ""
    """A JSON schema, as JSON, that the answer should follow. A wish: clients without `json` leave it aside."""
    prefix: int = 0
    """How much of the front other requests share: messages, characters or tokens. In process it is read once."""
    draw: int = 0
    """Tells apart requests that are the same otherwise, such as five answers at temperature 1 without a seed."""

    def __post_init__(self) -> None:
        given = [name for name in ("messages", "prompt", "tokens") if getattr(self, name)]
        if len(given) != 1:
            raise InputError("request", "one of messages, prompt and tokens", " and ".join(given) or "none")
        if not (0.0 <= self.temperature <= 2.0 and 0.0 < self.top_p <= 1.0):
            found = f"{self.temperature} and {self.top_p}"
            raise InputError("temperature and top_p of a request", "0 to 2 and above 0 to 1", found)
        if self.max_tokens < 0 or (self.max_tokens == 0 and self.prompt_logprobs is None):
            raise InputError("max_tokens of a request", "at least 1, or 0 with prompt_logprobs", str(self.max_tokens))
        if self.logprobs is not None and self.logprobs < 0:
            raise InputError("logprobs of a request", "None, or 0 or more", str(self.logprobs))
        if "" in self.stop:
            raise InputError("stop of a request", "texts that are not empty", repr(self.stop))
        size = len(self.messages or self.prompt or self.tokens)
        if not 0 <= self.prefix <= size:
            raise InputError("prefix of a request", f"0 to {size}", str(self.prefix))
        if any(token < 0 for token in self.tokens):
            raise InputError("tokens of a request", "ids from 0 on", str(min(self.tokens)))
        self._check_texts()
        self._check_places()

    def _check_texts(self) -> None:
        for text in (self.prompt, *(message.text for message in self.messages), *self.stop):
            try:
                text.encode()
            except UnicodeEncodeError as error:
                raise InputError("text of a request", "whole characters", f"half of one at {error.start}") from None
        try:
            schema = json.loads(self.json_schema or "{}")
        except ValueError:
            schema = None
        if not isinstance(schema, dict):
            raise InputError("json_schema of a request", "a JSON object, as text", repr(self.json_schema[:40]))

    def _check_places(self) -> None:
        if self.prompt_logprobs is None:
            return
        first, size = (1 if self.tokens else 0), len(self.tokens or self.text)
        places = self.prompt_logprobs.positions
        if not places or not all(first <= place < size for place in places):
            raise InputError("positions of prompt_logprobs", f"some of {first} to {size - 1}", str(places)[:80])

    @property
    def text(self) -> str:
        """The text that places are counted in: the prompt or the last message; empty for token ids."""
        return self.messages[-1].text if self.messages else self.prompt

    def to_json(self) -> dict[str, Any]:
        """Every field, as JSON values; equal requests give equal ones."""
        return asdict(self) | {
            "messages": [list(message) for message in self.messages],
            "prompt_logprobs": None if self.prompt_logprobs is None else [list(w) for w in self.prompt_logprobs],
            "temperature": float(self.temperature),
            "top_p": float(self.top_p),
        }


class TokenLogprob(NamedTuple):
    """A token, as text, and the natural logarithm of its probability."""

    token: str
    logprob: float


class Generated(NamedTuple):
    """A generated token, with the likeliest ones at its place, likeliest first."""

    token: str
    logprob: float
    top: tuple[TokenLogprob, ...]


class PromptSlot(NamedTuple):
    """What the model expected at one place of the prompt."""

    position: int
    """As in the wish."""
    actual: TokenLogprob
    """The token that stands there."""
    candidates: tuple[TokenLogprob, ...]
    """Those of the wanted ones that are known, in the order of the wish."""
    bound: float | None
    """None where all of them are known; else none of the missing ones is more probable than this."""


class Usage(NamedTuple):
    """Tokens of one answer; None where the server does not say."""

    tokens_in: int | None
    tokens_out: int | None
    cached: int | None
    """Of `tokens_in`, those that the server had at hand."""


@dataclass(frozen=True)
class Answer:
    """What a model said."""

    text: str
    """Empty only where nothing was to be generated."""
    finish: Finish
    """`length`: it was cut off at `max_tokens`."""
    usage: Usage
    model: str
    """The model as it names itself in the answer."""
    logprobs: tuple[Generated, ...] = ()
    """Of generated tokens, before temperature and `top_p`, where they were wanted."""
    prompt_logprobs: tuple[PromptSlot, ...] = ()
    """One for each wanted place, in the order of the wish."""

    def to_json(self) -> dict[str, Any]:
        """As JSON values, which `answer_of` reads."""
        return asdict(self) | {
            "usage": list(self.usage),
            "logprobs": [[token, logprob, [list(t) for t in top]] for token, logprob, top in self.logprobs],
            "prompt_logprobs": [
                [slot.position, list(slot.actual), [list(c) for c in slot.candidates], slot.bound]
                for slot in self.prompt_logprobs
            ],
        }


@dataclass(frozen=True)
class Failure:
    """Why there is no answer. It is no answer, and no score can be made of it."""

    status: Status
    detail: str
    """One line for people."""
    retryable: bool
    """Whether the same request may be answered at another time."""
    fatal: bool = False
    """Whether every other request would fail likewise: it is the key, the account or the model."""


Reply = Answer | Failure


def answer_of(value: Any) -> Answer:
    """The answer that `Answer.to_json` wrote. Raises `ValueError`, `TypeError` or `KeyError` for anything else."""
    if value["finish"] not in get_args(Finish):
        raise ValueError(f"finish {value['finish']!r}")
    return Answer(
        text=str(value["text"]),
        finish=value["finish"],
        usage=Usage(*value["usage"]),
        model=str(value["model"]),
        logprobs=tuple(Generated(str(t), float(p), _tokens(top)) for t, p, top in value["logprobs"]),
        prompt_logprobs=tuple(
            PromptSlot(int(at), TokenLogprob(*actual), _tokens(found), bound)
            for at, actual, found, bound in value["prompt_logprobs"]
        ),
    )


def failure_of(value: Any) -> Failure:
    """The failure of which `value` is `dataclasses.asdict`. Raises as `answer_of` does."""
    if value["status"] not in get_args(Status):
        raise ValueError(f"status {value['status']!r}")
    return Failure(value["status"], str(value["detail"]), bool(value["retryable"]), bool(value.get("fatal", False)))


def _tokens(pairs: Sequence[Any]) -> tuple[TokenLogprob, ...]:
    return tuple(TokenLogprob(str(token), float(logprob)) for token, logprob in pairs)
