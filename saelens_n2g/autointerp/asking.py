"""Asking a language model: questions out, replies and what they cost back; or, in a dry run, the questions counted.

    asker = Asker(client).named("all-at-once")
    replies, costs = asker.ask([Question(Request(prompt="..."), likely="colours")])

In a dry run nothing is asked: an answer that is kept is given, any other question gets one of the likely shape and
length, so that the very same code goes on to its next question, and `plan` says what all of it would take.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from saelens_n2g.autointerp.predictors import Costs
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
        if not questions:
            return Said([], self._costs([], []))

        def arrived(index: int, reply: Reply) -> None:
            if got is not None:
                got(index, Told(reply, self._costs([questions[index]], [reply])))

        if self.dry:
            replies: list[Reply] = [self._made_up(question) for question in questions]
            would = [q for q, reply in zip(questions, replies, strict=True) if isinstance(reply, Answer)]
            self.planned.setdefault(self.name, []).extend(would)
            for index, reply in enumerate(replies):
                arrived(index, reply)
        else:
            replies = self.client.ask_many([question.request for question in questions], got=arrived)
        for reply in replies:
            if isinstance(reply, Failure) and reply.fatal:
                raise InputError(f"client {self.client.name} of model {self.client.model!r}", "answers", why(reply))
        return Said(replies, self._costs(questions, replies))

    def ask_each(self, questions: Sequence[Question]) -> list[Told]:
        """The same, the costs of each question apart."""
        replies = self.ask(questions).replies
        return [Told(r, self._costs([q], [r])) for q, r in zip(questions, replies, strict=True)]

    def _made_up(self, question: Question) -> Reply:
        """The answer that is kept, or one that says nothing in the right shape; a failure of what is not sent."""
        known = self.client.known(question.request) if isinstance(self.client, Keeping) else None
        if known is not None:
            return known
        try:
            return made_up(question, self.client.count(question.request))
        except Untaken as error:
            return Failure("rejected", error.found, False)

    def _costs(self, questions: Sequence[Question], replies: Sequence[Reply]) -> Costs:
        found = dict.fromkeys(("requests", "tokens_in", "tokens_out", "planned_in", "planned_out"), 0)
        found["requests"] = len(questions)
        for question, reply in zip(questions, replies, strict=True):
            try:
                found["planned_in"] += self.client.count(question.request)
            except Untaken:  # it was not sent, and its reply says why
                continue
            found["planned_out"] += _length(question)
            if isinstance(reply, Answer):
                tokens_in, tokens_out, _ = reply.usage
                if tokens_in is None or tokens_out is None:
                    found["unmetered"] = found.get("unmetered", 0) + 1
                else:
                    found["tokens_in"] += tokens_in
                    found["tokens_out"] += tokens_out
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
    """`clients.estimate` with every question's own likely length."""
    found = estimate(client, [question.request for question in questions], price)
    sent = list(questions)
    if isinstance(client, Keeping):
        unique = {client.key(one.request): one for one in questions}
        sent = [one for one in unique.values() if client.known(one.request) is None]
    out = float(sum(_length(one) for one in sent))
    cost = None if price is None else price.of(found.tokens_in, out)
    return found._replace(tokens_out=out, cost=cost)


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
