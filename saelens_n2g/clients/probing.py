"""Finding out how a server gives log probabilities of the prompt: by asking for those of three words.

Servers that do not know a field refuse it or pass over it, so it is the answer that tells, not the status.
"""

from collections.abc import Callable
from typing import Any

from saelens_n2g.clients.config import ClientConfig, PromptLogprobs
from saelens_n2g.clients.messages import Answer, Failure, Message, PromptWish, Reply, Request, Usage
from saelens_n2g.clients.openai_shapes import Malformed, Post, places_of, post_of
from saelens_n2g.clients.places import Missing

TEXT = "one two three"


def next_mode(tried: PromptLogprobs | None, config: ClientConfig) -> PromptLogprobs:
    """The way to be tried after `tried`; `none` at the end. An echo is had of completions alone."""
    order: list[PromptLogprobs] = ["vllm"] if config.endpoints == "chat" else ["vllm", "echo"]
    left = order if tried is None else order[order.index(tried) + 1 :]
    return left[0] if left else "none"


def probe(config: ClientConfig, mode: PromptLogprobs) -> tuple[Post, Callable[[Any], Reply]]:
    """What to send, and how to read it: an answer if the server can do it in that way."""
    wish = PromptWish((0,), ())
    if config.endpoints == "chat":
        request = Request(messages=(Message("user", TEXT),), max_tokens=0, prompt_logprobs=wish)
    else:
        request = Request(prompt=TEXT, max_tokens=0, prompt_logprobs=wish)

    def read(value: Any) -> Reply:
        no = Failure("unsupported", f"no log probabilities of the prompt by {mode}", False)
        try:
            choices = value["choices"]
            places = places_of(value, choices[0], mode)
        except (KeyError, IndexError, TypeError, Malformed, Missing):
            return no
        # An echo that holds what was generated alone is none.
        known = sum(place.logprob is not None for place in places)
        return Answer("", "stop", Usage(None, None, None), config.model) if known >= 2 else no

    return post_of(request, config, mode), read
