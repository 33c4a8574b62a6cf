"""The shapes of OpenAI's HTTP interface: bodies of requests, answers read with suspicion. Nothing here sends anything.

Chat completions and completions as OpenAI describes them, with what servers have of log probabilities of the prompt:

- `vllm`: field `prompt_logprobs` in either body; a list with an object for each token,
  `{id: {logprob, rank, decoded_token}}`, the first one null. The prompt's own token comes first, and is there even if
  it is not among the likeliest.
- `echo`: `echo` and `logprobs` in the completions body, as OpenAI's first models had it: the prompt's tokens stand
  before the generated ones. vLLM and others have it; llama.cpp's server and OpenAI do not.

Servers generate at least one token (vLLM refuses `max_tokens` 0), so one is asked for and left out.
"""

import json
import math
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any, NamedTuple

from saelens_n2g.clients.config import ClientConfig
from saelens_n2g.clients.messages import Answer, Failure, Generated, PromptSlot, Reply, Request, TokenLogprob, Usage
from saelens_n2g.clients.places import Missing, Place, slots

CHAT, COMPLETIONS = "chat/completions", "completions"


class Post(NamedTuple):
    """What is sent: path below the base URL, JSON body."""

    path: str
    body: dict[str, Any]


class Malformed(ValueError):
    """An answer is not of the shape that was asked for."""


def post_of(request: Request, config: ClientConfig, mode: str) -> Post:
    """The request as a server wants it; `mode` is `vllm` or `echo` where it has wishes of the prompt."""
    body: dict[str, Any] = {"model": config.model, "temperature": request.temperature, "stream": False}
    limit = max(1, request.max_tokens)
    if request.messages:
        body["messages"] = [{"role": role, "content": text} for role, text in request.messages]
        body[config.max_tokens_field] = limit
        if request.logprobs is not None:
            body |= {"logprobs": True, "top_logprobs": request.logprobs}
        if request.json_schema and config.json_output:
            schema = {"name": "answer", "strict": True, "schema": json.loads(request.json_schema)}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
    else:
        body |= {"prompt": list(request.tokens) or request.prompt, "max_tokens": limit}
        if request.logprobs is not None:
            body["logprobs"] = request.logprobs
    if request.prompt_logprobs is not None and mode == "vllm":
        body["prompt_logprobs"] = config.top_logprobs
    if request.prompt_logprobs is not None and mode == "echo":
        body |= {"echo": True, "logprobs": max(config.top_logprobs, request.logprobs or 0)}
    if request.top_p != 1.0:
        body["top_p"] = request.top_p
    if request.seed is not None:
        body["seed"] = request.seed
    if request.stop:
        body["stop"] = list(request.stop)
    return Post(CHAT if request.messages else COMPLETIONS, body | dict(config.extra))


def parse(text: str) -> Any:
    """A JSON value without NaN and infinities. Raises `Malformed`."""

    def refuse(name: str) -> float:
        raise Malformed(f"the number {name}")

    try:
        return json.loads(text, parse_constant=refuse)
    except Malformed:
        raise
    except (ValueError, RecursionError) as error:
        raise Malformed(f"no JSON: {str(error)[:80]}") from None


def reply_of(request: Request, value: Any, config: ClientConfig, mode: str) -> Reply:
    """The answer in a JSON body of status 200, or why there is none."""
    try:
        return _read(request, value, config, mode)
    except Missing as error:
        return Failure("unsupported", str(error), False)
    except Malformed as error:
        return Failure("malformed", f"unexpected answer: {error}", True)


def _read(request: Request, value: Any, config: ClientConfig, mode: str) -> Reply:
    choices = _field(value, "choices", list)
    if not choices:
        return Failure("empty", "an answer without choices", True)
    choice = _object(choices[0], "choices[0]")
    finish: Any = choice.get("finish_reason")
    said = _said(request, choice)
    if finish == "content_filter":
        return Failure("filtered", "the provider's filter ended the answer", False)
    if said.refusal:
        return Failure("filtered", f"refused: {' '.join(said.refusal.split())[:200]}", False)
    if finish not in ("stop", "length"):
        raise Malformed(f"finish_reason {finish!r:.40}")
    text, generated = said.text, generated_of(choice)
    found: tuple[PromptSlot, ...] = ()
    usage = _usage(value)
    if request.prompt_logprobs is not None:
        places = places_of(value, choice, mode)
        if mode == "echo":
            text, generated, places = _without_prompt(request, text, generated, places, usage)
        found = slots(request, places, config.top_logprobs)
    if request.max_tokens == 0:
        text, generated, finish = "", (), "stop"
    else:
        if any(one in text for one in request.stop):
            text, generated, finish = *_stopped(request.stop, text, generated), "stop"
        if not text.strip():
            return Failure("empty", "an answer without text", True)
    if request.logprobs is None:
        generated = ()
    elif not generated and request.max_tokens:
        raise Missing("the server gives no log probabilities of what it generates")
    generated = tuple(g._replace(top=g.top[: request.logprobs]) for g in generated)
    model = value.get("model")
    return Answer(text, finish, usage, model if isinstance(model, str) else config.model, generated, found)


def _stopped(stop: Sequence[str], text: str, generated: tuple[Generated, ...]) -> tuple[str, tuple[Generated, ...]]:
    """An answer without the stop text that ended it and what is behind: some servers, such as `transformers serve`,
    leave it there."""
    size = min(text.find(one) for one in stop if one in text)
    begins = accumulate((len(one.token) for one in generated), initial=0)
    return text[:size], tuple(one for one, begin in zip(generated, begins, strict=False) if begin < size)


class _Said(NamedTuple):
    text: str
    refusal: str


def _said(request: Request, choice: Mapping[str, Any]) -> _Said:
    """Text and refusal of a choice. A missing text is an empty one: tool calls and reasoning alone are no answer."""
    if not request.messages:
        return _Said(_text(choice.get("text"), "text"), "")
    message = _object(choice.get("message"), "message")
    return _Said(_text(message.get("content"), "content"), _text(message.get("refusal"), "refusal"))


def generated_of(choice: Mapping[str, Any]) -> tuple[Generated, ...]:
    """Log probabilities of generated tokens, in the shape of chats or that of completions; empty if there are none."""
    given = choice.get("logprobs")
    if given is None:
        return ()
    given = _object(given, "logprobs")
    if isinstance(content := given.get("content"), list):
        return tuple(_of_chat(entry) for entry in content)
    if not isinstance(given.get("tokens"), list):
        return ()
    known = ((p, p.logprob) for p in _echoed(given) if p.logprob is not None)
    return tuple(Generated(p.token or "", logprob, _likeliest(p.top)) for p, logprob in known)


def _of_chat(entry: Any) -> Generated:
    entry = _object(entry, "logprobs.content[]")
    top = {
        _text(_object(t, "top_logprobs[]").get("token"), "token"): _number(t.get("logprob"))
        for t in entry.get("top_logprobs") or ()
    }
    return Generated(_text(entry.get("token"), "token"), _number(entry.get("logprob")), _likeliest(top))


def places_of(value: Mapping[str, Any], choice: Mapping[str, Any], mode: str) -> list[Place]:
    """What the answer says of each token of the prompt, in mode `echo` followed by the generated ones. Raises
    `Missing` where it says nothing."""
    if mode == "echo":
        given = choice.get("logprobs")
        if not isinstance(given, dict) or not isinstance(given.get("tokens"), list):
            raise Missing("the server gives no log probabilities of the prompt")
        return _echoed(given)
    entries = choice.get("prompt_logprobs") or value.get("prompt_logprobs")
    if not isinstance(entries, list):
        raise Missing("the server gives no log probabilities of the prompt")
    return [_of_vllm(entry) for entry in entries]


def _of_vllm(entry: Any) -> Place:
    if entry is None:
        return Place(None, None, {})
    listed = [
        (_text(_object(e, "prompt_logprobs[]").get("decoded_token"), "decoded_token"), _number(e.get("logprob")))
        for e in _object(entry, "prompt_logprobs[]").values()
    ]
    if not listed:
        raise Malformed("a place of prompt_logprobs without tokens")
    top: dict[str, float] = {}
    for token, logprob in sorted(listed, key=lambda pair: -pair[1]):
        top.setdefault(token, logprob)  # several ids may be written alike; the likeliest counts
    return Place(*listed[0], top)


def _echoed(given: Mapping[str, Any]) -> list[Place]:
    tokens, own, tops = given["tokens"], given.get("token_logprobs"), given.get("top_logprobs")
    tops = tops if tops is not None else [None] * len(tokens)
    if not isinstance(own, list) or not isinstance(tops, list) or not len(tokens) == len(own) == len(tops):
        raise Malformed("logprobs whose lists differ in length")
    return [
        Place(
            _text(token, "token"),
            None if logprob is None else _number(logprob),
            {_text(t, "token"): _number(p) for t, p in _object(top or {}, "top_logprobs[]").items()},
        )
        for token, logprob, top in zip(tokens, own, tops, strict=True)
    ]


def _without_prompt(
    request: Request, text: str, generated: Sequence[Generated], places: Sequence[Place], usage: Usage
) -> tuple[str, tuple[Generated, ...], list[Place]]:
    """An echoed answer taken apart: text and tokens that were generated, places of the prompt."""
    if usage.tokens_out is None or usage.tokens_out > len(places):
        raise Malformed("an echo without the number of generated tokens")
    cut = len(places) - usage.tokens_out
    # The server of llama-cpp-python leaves out the last generated token where the answer is cut off.
    if request.prompt and "".join(p.token or "" for p in places[: usage.tokens_in or 0]) == request.prompt:
        cut = min(usage.tokens_in or 0, len(places))
    new = tuple(generated[len(generated) - len(places) + cut :]) if cut < len(places) else ()
    rest = text.removeprefix(request.prompt) if request.prompt else "".join(p.token or "" for p in places[cut:])
    return rest, new, list(places[:cut])


def _usage(value: Mapping[str, Any]) -> Usage:
    given = value.get("usage")
    if given is None:
        return Usage(None, None, None)
    given = _object(given, "usage")
    details = given.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else None
    return Usage(_whole(given.get("prompt_tokens")), _whole(given.get("completion_tokens")), _whole(cached))


def _likeliest(top: Mapping[str, float]) -> tuple[TokenLogprob, ...]:
    return tuple(TokenLogprob(*pair) for pair in sorted(top.items(), key=lambda pair: -pair[1]))


def _field(value: Any, name: str, kind: type[Any]) -> Any:
    if not isinstance(value, dict) or not isinstance(value.get(name), kind):
        raise Malformed(f"no {name}")
    return value[name]


def _object(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Malformed(f"{name} is no object")
    return value


def _text(value: Any, name: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise Malformed(f"{name} is no text")
    return value


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise Malformed("a log probability that is no number")
    return float(value)


def _whole(value: Any) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise Malformed("a number of tokens that is none")
    return value
