"""Where places of a prompt are among a server's tokens, and what is known there."""

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import NamedTuple

from saelens_n2g.clients.messages import PromptSlot, PromptWish, Request, TokenLogprob


class Missing(ValueError):
    """What was wished for is not in the answer, and would not be another time."""


class Place(NamedTuple):
    """What a server says of one token of the prompt."""

    token: str | None
    """None where it does not say, as of the first token."""
    logprob: float | None
    """None for the first token, before which there is nothing."""
    top: Mapping[str, float]
    """The likeliest tokens there, and perhaps the own one beside them."""


def slots(request: Request, places: Sequence[Place], top: int) -> tuple[PromptSlot, ...]:
    """The wanted places, where each lists its `top` likeliest tokens. Raises `Missing` if one cannot be found."""
    wish = request.prompt_logprobs
    assert wish is not None
    if request.tokens and len(places) != len(request.tokens):
        raise Missing(f"{len(request.tokens)} tokens were sent, the server speaks of {len(places)}")
    where = dict(zip(wish.positions, wish.positions, strict=True)) if request.tokens else _located(request, places)
    return tuple(_slot(position, places[where[position]], wish, top) for position in wish.positions)


def _slot(position: int, place: Place, wish: PromptWish, top: int) -> PromptSlot:
    if place.token is None or place.logprob is None:
        raise Missing(f"nothing is known of place {position}, the first of the prompt")
    known = {**place.top, place.token: place.logprob}
    found = tuple(TokenLogprob(c, known[c]) for c in wish.candidates if c in known)
    listed = sorted(place.top.values(), reverse=True)[:top]
    bound = None if len(found) == len(wish.candidates) else (listed[-1] if listed else 0.0)
    return PromptSlot(position, TokenLogprob(place.token, place.logprob), found, bound)


def _located(request: Request, places: Sequence[Place]) -> dict[int, int]:
    """Position in the text -> index among the server's tokens, which may have a template or a BOS around the text.

    The text is looked for in what the tokens spell together, from the end. Raises `Missing` if they spell it
    differently (characters cut into bytes do) or if no token begins at a position.
    """
    wish = request.prompt_logprobs
    assert wish is not None
    first = 1 if places and places[0].token is None else 0
    spelled = "".join(place.token or "" for place in places)
    begins = accumulate((len(place.token or "") for place in places), initial=0)
    index = {begin: i for i, begin in zip(range(len(places)), begins, strict=False) if i >= first}
    text = request.text
    start = spelled.rfind(text)
    if start < 0 and first and spelled and text.endswith(spelled):
        start = len(spelled) - len(text)  # the first token, of which nothing is said, is part of the text
    if start < 0 and spelled.rfind(text.strip()) >= 0 and text.strip():  # templates take the space off messages
        start = spelled.rfind(text.strip()) - (len(text) - len(text.lstrip()))
    elif start < 0 and not (first and spelled and text.endswith(spelled)):
        raise Missing("the server's tokens do not spell the prompt; token ids as prompt would do")
    for position in wish.positions:
        if start + position not in index:
            raise Missing(f"no token begins at character {position} of the prompt")
    return {position: index[start + position] for position in wish.positions}
