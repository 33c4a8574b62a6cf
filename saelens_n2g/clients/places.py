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
    """Position in the text -> index among the server's tokens.

    Raises `Missing` if the tokens spell the text differently, as some servers' do where characters are cut into bytes,
    or if no token begins at a position.
    """
    wish = request.prompt_logprobs
    assert wish is not None
    begins = accumulate((len(place.token or "") for place in places), initial=0)
    index: dict[int, int] = {}
    for i, (place, begin) in enumerate(zip(places, begins, strict=False)):
        if place.logprob is not None or place.token:  # a BOS is often written as nothing
            index.setdefault(begin, i)  # of a character that is several tokens, the first
    start = _start(request, places)
    for position in wish.positions:
        if start + position not in index:
            raise Missing(f"no token begins at character {position} of the prompt")
    return {position: index[start + position] for position in wish.positions}


def _start(request: Request, places: Sequence[Place]) -> int:
    """Where the text begins in what the tokens spell together; negative by as much as is in a first token of which
    nothing is said."""
    spelled, text = "".join(place.token or "" for place in places), request.text
    silent = bool(places) and places[0].token is None
    if not request.messages:
        if not spelled.endswith(text) and not (silent and spelled and text.endswith(spelled)):
            raise Missing("the server's tokens do not spell the prompt; token ids as prompt would do")
        return len(spelled) - len(text)
    bare = text.strip()  # templates take the space off messages
    times = sum(message.text.count(bare) for message in request.messages) if bare else 0
    if not bare or spelled.count(bare) != times:
        raise Missing("the server's tokens do not spell the last message, or its text is in the template too")
    return spelled.rfind(bare) - (len(text) - len(text.lstrip()))
