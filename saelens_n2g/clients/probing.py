"""Finding out how a server gives log probabilities of the prompt: by asking for those of three words.

Servers that do not know a field pass over it, refuse it, or break: llama.cpp's says 500 to `echo`. So it is the answer
that tells, and a plain request comes first, which tells a server that breaks at a field from one that is down.
"""

from collections.abc import Callable
from typing import Any

from saelens_n2g.clients.config import ClientConfig, PromptLogprobs
from saelens_n2g.clients.messages import Answer, Failure, Message, PromptWish, Reply, Request, Usage
from saelens_n2g.clients.openai_shapes import Malformed, Post, places_of, post_of
from saelens_n2g.clients.places import Missing

TEXT = "one two three"


def ways(config: ClientConfig) -> tuple[PromptLogprobs, ...]:
    """The ways to be tried, in order. An echo is had of completions alone."""
    return ("vllm",) if config.endpoints == "chat" else ("vllm", "echo")


def control(config: ClientConfig) -> Post:
    """A plain request, whose answer may be any."""
    return post_of(_request(config), config, "none")


def probe(config: ClientConfig, mode: PromptLogprobs) -> tuple[Post, Callable[[Any], Reply]]:
    """What to send, and how to read it: an answer if the server can do it in that way."""

    def read(value: Any) -> Reply:
        no = Failure("unsupported", f"no log probabilities of the prompt by {mode}", False)
        try:
            choices = value["choices"]
            places = places_of(value, choices[0], mode)
        except (KeyError, IndexError, TypeError, Malformed, Missing):
            return no
        # An echo that holds what was generated alone is none.
        known = sum(place.logprob is not None for place in places)
        return fine(value) if known >= 2 else no

    return post_of(_request(config), config, mode), read


def fine(_value: Any) -> Reply:
    """Reads any answer as one."""
    return Answer("", "stop", Usage(None, None, None), "")


def _request(config: ClientConfig) -> Request:
    wish = PromptWish((0,), ())
    if config.endpoints == "chat":
        return Request(messages=(Message("user", TEXT),), max_tokens=0, prompt_logprobs=wish)
    return Request(prompt=TEXT, max_tokens=0, prompt_logprobs=wish)
