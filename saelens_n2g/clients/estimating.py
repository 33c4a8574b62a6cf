"""What asking will cost, and what it did cost. Prices are the user's; none is built in.

plan = estimate(client, requests, Price(per_million_in=0.15, per_million_out=0.60), expected_out=40)
replies = client.ask_many(requests)
spent(replies).over(plan)                          # tokens, as a share of what was planned
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

from saelens_n2g.clients.base import Client
from saelens_n2g.clients.messages import Answer, Reply, Request
from saelens_n2g.errors import InputError

MILLION = 1_000_000


@runtime_checkable
class Keeping(Protocol):
    """A client that keeps answers."""

    def key(self, request: Request) -> str:
        """What the answer is kept under."""
        ...

    def known(self, request: Request) -> Answer | None:
        """The answer that is kept."""
        ...


class Price(NamedTuple):
    """Of a million tokens, in any currency."""

    per_million_in: float
    per_million_out: float
    per_million_cached: float | None = None
    """Of tokens of the prompt that the server had at hand; None is the same as the others."""

    def of(self, tokens_in: float, tokens_out: float, cached: float = 0) -> float:
        """The cost of so many; `cached` are part of `tokens_in`."""
        kept = self.per_million_in if self.per_million_cached is None else self.per_million_cached
        return (
            (tokens_in - cached) * self.per_million_in + cached * kept + tokens_out * self.per_million_out
        ) / MILLION


class Estimate(NamedTuple):
    """What a run would take."""

    requests: int
    """That would be sent."""
    cached: int
    """That are answered already, or repeat another one."""
    tokens_in: int
    tokens_out: float
    """Expected."""
    tokens_out_most: int
    """If each answer were as long as it may be."""
    cost: float | None
    """Of the expected tokens, without what the server has at hand; None without a price."""
    cost_most: float | None

    def to_text(self) -> str:
        """One line for people."""
        money = "" if self.cost is None else f", cost {self.cost:.4g}, at most {self.cost_most:.4g}"
        kept = f" ({self.cached:,} more are answered already)" if self.cached else ""
        out = f"{self.tokens_out:,.0f} expected out, at most {self.tokens_out_most:,}"
        return f"{self.requests:,} requests{kept}: {self.tokens_in:,} tokens in, {out}{money}"


class Spent(NamedTuple):
    """What answers took. Failures are counted, but no server says what they took."""

    answers: int = 0
    failures: int = 0
    unmetered: int = 0
    """Answers of servers that do not say how many tokens; they are missing in what follows."""
    tokens_in: int = 0
    tokens_out: int = 0
    cached: int = 0
    """Of `tokens_in`, those that the server had at hand."""

    def plus(self, reply: Reply) -> "Spent":
        """With one more reply."""
        if not isinstance(reply, Answer):
            return self._replace(failures=self.failures + 1)
        usage = reply.usage
        if usage.tokens_in is None or usage.tokens_out is None:
            return self._replace(answers=self.answers + 1, unmetered=self.unmetered + 1)
        tokens = (
            self.tokens_in + usage.tokens_in,
            self.tokens_out + usage.tokens_out,
            self.cached + (usage.cached or 0),
        )
        return Spent(self.answers + 1, self.failures, self.unmetered, *tokens)

    def cost(self, price: Price) -> float:
        """Of what is metered."""
        return price.of(self.tokens_in, self.tokens_out, self.cached)

    def over(self, plan: Estimate) -> float | None:
        """Tokens spent, in and out, divided by those planned; None where one of them is not known."""
        planned = plan.tokens_in + plan.tokens_out
        return None if self.unmetered or planned == 0 else (self.tokens_in + self.tokens_out) / planned


def spent(replies: Iterable[Reply]) -> Spent:
    """What these replies took, if all of them were asked for."""
    total = Spent()
    for reply in replies:
        total = total.plus(reply)
    return total


def estimate(
    client: Client,
    requests: Sequence[Request],
    price: Price | None = None,
    expected_out: float | Sequence[float] | None = None,
) -> Estimate:
    """What asking all of them would take. Asks nothing.

    `expected_out`: tokens that an answer is expected to have, such as the mean of a few, or of each request its own;
    never more than a request allows. None takes what is allowed. Raises `InputError` if it is negative, and as `count`
    of the client does.
    """
    likely: list[float | None]
    if expected_out is None or isinstance(expected_out, int | float):
        likely = [expected_out] * len(requests)
    else:
        likely = list(expected_out)
    if wrong := [one for one in likely if one is not None and one < 0]:
        raise InputError("expected tokens of an answer", "0 or more", str(wrong[0]))
    pairs = list(zip(requests, likely, strict=True))
    if isinstance(client, Keeping):
        unique = {client.key(request): (request, one) for request, one in pairs}
        pairs = [(request, one) for request, one in unique.values() if client.known(request) is None]
    sent = [request for request, _ in pairs]
    tokens_in = sum(client.count(request) for request in sent)
    most = sum(request.max_tokens for request in sent)
    out = sum(r.max_tokens if one is None else min(one, r.max_tokens) for r, one in pairs)
    return Estimate(
        requests=len(sent),
        cached=len(requests) - len(sent),
        tokens_in=tokens_in,
        tokens_out=float(out),
        tokens_out_most=most,
        cost=None if price is None else price.of(tokens_in, out),
        cost_most=None if price is None else price.of(tokens_in, most),
    )
