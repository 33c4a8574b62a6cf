"""Asking a language model: questions out, replies and what they cost back; or, in a dry run, the questions counted.

    asker = Asker(client).named("all-at-once")
    replies, costs = asker.ask([Question(Request(prompt="..."), likely="colours")])

In a dry run nothing is asked: an answer that is kept is given, any other question gets one of the likely shape and
length, so that the very same code goes on to its next question, and `plan` says what all of it would take.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from saelens_n2g.autointerp.predictors import Costs, summed
from saelens_n2g.clients.base import Capabilities, Client, Untaken
from saelens_n2g.clients.counting import estimated
from saelens_n2g.clients.estimating import Estimate, Keeping, Price, estimate
from saelens_n2g.clients.messages import (
    Answer,
    Failure,
    Generated,
    PromptSlot,
    Reply,
    Request,
    TokenLogprob,
    Usage,
)
from saelens_n2g.errors import InputError

PROMPTS = "autointerp 1"
"""Version of all prompts together, part of what answers are kept by. Each file of prompts has one of its own too, which
is in its settings."""


COSTS = ("requests", "tokens_in", "tokens_out", "planned_in", "planned_out")
"""What is always there of `Said.costs`."""


class Question(NamedTuple):
    """A request, and an answer of the shape and length that is expected."""

    request: Request
    likely: str


class Said(NamedTuple):
    """What came of several questions."""

    replies: list[Reply]
    costs: Costs
    """`requests`, `tokens_in`, `tokens_out`; `planned_in`, `planned_out` as a dry run counts them; `unmetered`, where
    there are any, answers of servers that do not say how many tokens."""


class Told(NamedTuple):
    """What came of one question."""

    reply: Reply
    costs: Costs
    """As those of `Said`."""


class Asker:
    """A client with the accounts kept. Raises `InputError` where a server has to be asked what it can and does not
    reply.

    dry: nothing is asked. able: what the client can do, where it is not to be asked for that either.
    """

    def __init__(self, client: Client, *, dry: bool = False, able: Capabilities | None = None, name: str = "") -> None:
        self.client, self.dry, self.name = client, dry, name
        self.able = client.capabilities() if able is None else able
        self.planned: dict[str, list[Question]] = {}

    @property
    def identity(self) -> dict[str, Any]:
        """JSON values that decide answers beside the question: those of the client, and whether it has chats and texts
        to be continued, since questions are put as the one or the other."""
        return {**self.client.identity, "chat": self.able.chat, "completion": self.able.completion}

    def named(self, name: str) -> "Asker":
        """The same client and accounts, for questions of one explainer, simulator or scorer."""
        other = Asker(self.client, dry=self.dry, able=self.able, name=name)
        other.planned = self.planned
        return other

    def ask(self, questions: Sequence[Question], got: Callable[[int, Told], None] | None = None) -> Said:
        """One reply for each question, in their order; `got` is told of each as it comes. Raises `InputError` where one
        says that every other would fail too, as with a wrong key; what was answered is kept as the client keeps it."""
        told = self.ask_each(questions, got)
        return Said([one.reply for one in told], summed([dict.fromkeys(COSTS, 0), *(one.costs for one in told)]))

    def ask_each(self, questions: Sequence[Question], got: Callable[[int, Told], None] | None = None) -> list[Told]:
        """The same, the costs of each question apart."""
        told: dict[int, Told] = {}

        def arrived(index: int, reply: Reply) -> None:
            told[index] = Told(reply, self._costs(questions[index], reply))
            if got is not None:
                got(index, told[index])

        if self.dry:
            for index, question in enumerate(questions):
                arrived(index, self._made_up(question))
            would = [q for index, q in enumerate(questions) if isinstance(told[index].reply, Answer)]
            if would:
                self.planned.setdefault(self.name, []).extend(would)
        elif questions:
            self.client.ask_many([question.request for question in questions], got=arrived)
        for one in told.values():
            if isinstance(one.reply, Failure) and one.reply.fatal:
                thing = f"client {self.client.name} of model {self.client.model!r}"
                raise InputError(thing, "answers", why(one.reply))
        return [told[index] for index in range(len(questions))]

    def _made_up(self, question: Question) -> Reply:
        """The answer that is kept, or one that says nothing in the right shape; a failure of what is not sent."""
        known = self.client.known(question.request) if isinstance(self.client, Keeping) else None
        if known is not None:
            return known
        try:
            return made_up(question, self.client.count(question.request))
        except Untaken as error:
            return Failure("rejected", error.found, False)

    def _costs(self, question: Question, reply: Reply) -> Costs:
        """See `Said.costs`."""
        found = dict.fromkeys(COSTS, 0) | {"requests": 1}
        try:
            found["planned_in"] = self.client.count(question.request)
        except Untaken:  # it was not sent, and its reply says why
            return found
        found["planned_out"] = _length(question)
        if isinstance(reply, Answer):
            tokens_in, tokens_out, _ = reply.usage
            if tokens_in is None or tokens_out is None:
                found["unmetered"] = 1
            else:
                found["tokens_in"], found["tokens_out"] = tokens_in, tokens_out
        return found

    def plan(self, price: Price | None = None) -> dict[str, Estimate]:
        """Who asks -> what that would take, of a dry run. What several ask alike is counted for each of them."""
        return {name: _estimate(self.client, several, price) for name, several in self.planned.items()}

    def total(self, price: Price | None = None) -> Estimate:
        """What all of it would take; what is asked several times is counted once where answers are kept."""
        return _estimate(self.client, [one for several in self.planned.values() for one in several], price)


def _length(question: Question) -> int:
    """Tokens of the likely answer, the one that ends it included."""
    return min(question.request.max_tokens, estimated(question.likely) + 1)


def _estimate(client: Client, questions: Sequence[Question], price: Price | None) -> Estimate:
    """With every question's own likely length."""
    return estimate(client, [one.request for one in questions], price, [_length(one) for one in questions])


def made_up(question: Question, tokens_in: int = 0) -> Answer:
    """An answer that says what is likely, and finds all wanted tokens equally so."""
    wish = question.request.prompt_logprobs
    slots: tuple[PromptSlot, ...] = ()
    if wish is not None:
        even = tuple(TokenLogprob(c, -math.log(len(wish.candidates) or 1)) for c in wish.candidates)
        slots = tuple(PromptSlot(at, TokenLogprob("", -1.0), even, None) for at in wish.positions)
    said = Generated(question.likely, -0.1, ())
    return Answer(question.likely, "stop", Usage(tokens_in, _length(question), None), "nobody", (said,), slots)


def why(reply: Failure) -> str:
    """A failure in one line."""
    return f"{reply.status}: {reply.detail}"
