"""When a server may be asked: token buckets, pauses that it asks for, waiting between tries.

Nothing here sleeps or reads a clock: times are given and waits are returned, in seconds.
"""

import random
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime


@dataclass
class Bucket:
    """A token bucket that may run into debt: whoever takes more than is there waits until it would be.

    In any 60 seconds at most `per_minute + burst` are let through, where no single one is larger than `burst`.
    """

    per_minute: float
    burst: float
    """What may be taken at once after a rest."""
    level: float = field(init=False)
    at: float | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.level = self.burst

    def take(self, amount: float, now: float) -> float:
        """Take `amount` at the time `now`; returns how long to wait before it is used."""
        if self.at is not None:
            self.level = min(self.burst, self.level + max(0.0, now - self.at) * self.per_minute / 60)
        self.at = now if self.at is None else max(now, self.at)
        self.level -= amount
        return max(0.0, -self.level * 60 / self.per_minute)


@dataclass
class Limiter:
    """Requests and tokens a minute, and pauses. None is no limit."""

    requests: Bucket | None
    tokens: Bucket | None
    paused_until: float = 0.0

    @classmethod
    def of(cls, requests_per_minute: float | None, tokens_per_minute: float | None) -> "Limiter":
        """One request, or a second's worth, may come at once; of tokens a second's worth."""

        def bucket(rate: float | None, least: float) -> Bucket | None:
            return None if rate is None else Bucket(rate, max(least, rate / 60))

        return cls(bucket(requests_per_minute, 1.0), bucket(tokens_per_minute, 0.0))

    def take(self, tokens: int, now: float) -> float:
        """Take one request of that many tokens; returns how long to wait before it is sent."""
        waits = [self.paused_until - now, 0.0]
        waits += [self.requests.take(1.0, now)] if self.requests else []
        waits += [self.tokens.take(tokens, now)] if self.tokens else []
        return max(waits)

    def pause(self, until: float) -> None:
        """Nothing is to be sent before `until`."""
        self.paused_until = max(self.paused_until, until)


@dataclass(frozen=True)
class Backoff:
    """Exponential waiting with full jitter (Brooker 2015, "Exponential backoff and jitter"): uniform between 0 and
    `base * 2 ** tries`, at most `longest`."""

    base: float
    longest: float
    seed: int

    def wait(self, request: str, tries: int) -> float:
        """How long to wait after `tries` (0 is the first) failed. A function of its arguments and the seed, so that it
        does not depend on what else is under way."""
        share = random.Random(f"{self.seed}/{request}/{tries}").random()
        return share * min(self.longest, self.base * 2.0 ** min(tries, 60))


def retry_after(value: str | None, date: str | None, now: datetime) -> float | None:
    """Seconds that a `Retry-After` header asks for: a number of them or a date (RFC 9110, 10.2.3), which is compared
    with the server's own `Date` where there is one. None if there is no header that can be read."""
    if value is None:
        return None
    if re.fullmatch(r"\d{1,9}(\.\d{1,9})?", value.strip()):
        return float(value)
    then = _date(value)
    return None if then is None else max(0.0, (then - (_date(date) or now)).total_seconds())


def _date(value: str | None) -> datetime | None:
    if value is None:
        return None
    try:
        found = parsedate_to_datetime(value)
    except ValueError:
        return None
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)
