"""What a server's refusal means: the failure, and whether asking on is of any use."""

import json
from dataclasses import replace
from typing import NamedTuple

from saelens_n2g.clients.messages import Failure

FATAL = frozenset({401, 402, 404})
"""The key, the account or the model: what is true of one request is true of all."""
NO_CREDIT = "insufficient_quota"
"""OpenAI's code in a 429 that no waiting mends."""
BLOT = "[key]"
"""Stands where a key stood."""


class Trouble(NamedTuple):
    """A failure, and how long its server wants to be left alone."""

    failure: Failure
    wait: float | None = None
    """Seconds; None where it does not say."""


def refused(status: int, body: str, wait: float | None, secret: str = "") -> Trouble:
    """What an HTTP status other than 200 means, with the reason that the body gives, in which `secret` is blotted out
    before it is cut short: half a key is still one."""
    message, codes = _reason(body, secret)
    detail = f"HTTP {status}: {message}" if message else f"HTTP {status}"
    if "content_filter" in codes or "content_policy_violation" in codes:
        return Trouble(Failure("filtered", detail, False))
    if status == 429 and NO_CREDIT not in codes:
        return Trouble(Failure("rate_limit", detail, True), wait)
    if status == 408:
        return Trouble(Failure("timeout", detail, True), wait)
    if status >= 500 and status not in (501, 505):
        return Trouble(Failure("server_error", detail, True), wait)
    return Trouble(Failure("rejected", detail, False, fatal=status in FATAL or NO_CREDIT in codes))


def _reason(body: str, secret: str) -> tuple[str, set[str]]:
    """One line for people, and the codes that an error object bears."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return short(body, secret), set()
    error = value.get("error", value) if isinstance(value, dict) else value
    if not isinstance(error, dict):
        return short(str(error), secret), set()
    message = error.get("message") or error.get("detail") or ""
    return short(str(message), secret), {str(error.get(name)) for name in ("code", "type")}


def short(text: str, secret: str) -> str:
    """One line of at most 200 characters, without `secret` and without the beginning of it at its end."""
    line = " ".join(text.split())
    return (line.replace(secret, BLOT) if secret else line)[:200]


def without(secret: str, failure: Failure) -> Failure:
    """The failure with `secret` blotted out of its detail."""
    if not secret or secret not in failure.detail:
        return failure
    return replace(failure, detail=failure.detail.replace(secret, BLOT))
