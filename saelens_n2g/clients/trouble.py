"""What a server's refusal means: the failure, and whether asking on is of any use."""

import json
from typing import NamedTuple

from saelens_n2g.clients.messages import Failure

FATAL = frozenset({401, 402, 404})
"""The key, the account or the model: what is true of one request is true of all."""
NO_CREDIT = "insufficient_quota"
"""OpenAI's code in a 429 that no waiting mends."""


class Trouble(NamedTuple):
    """A failure, and what it says about other requests."""

    failure: Failure
    fatal: bool
    """Whether every other request would fail likewise."""
    wait: float | None = None
    """Seconds that the server wants to be left alone."""


def refused(status: int, body: str, wait: float | None) -> Trouble:
    """What an HTTP status other than 200 means, with the reason that the body gives."""
    message, codes = _reason(body)
    detail = f"HTTP {status}: {message}" if message else f"HTTP {status}"
    if "content_filter" in codes or "content_policy_violation" in codes:
        return Trouble(Failure("filtered", detail, False), False)
    if status == 429 and NO_CREDIT not in codes:
        return Trouble(Failure("rate_limit", detail, True), False, wait)
    if status == 408:
        return Trouble(Failure("timeout", detail, True), False, wait)
    if status >= 500 and status not in (501, 505):
        return Trouble(Failure("server_error", detail, True), False, wait)
    return Trouble(Failure("rejected", detail, False), status in FATAL or NO_CREDIT in codes)


def _reason(body: str) -> tuple[str, set[str]]:
    """One line for people, and the codes that an error object bears."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return " ".join(body.split())[:200], set()
    error = value.get("error", value) if isinstance(value, dict) else value
    if not isinstance(error, dict):
        return " ".join(str(error).split())[:200], set()
    message = error.get("message") or error.get("detail") or ""
    return " ".join(str(message).split())[:200], {str(error.get(name)) for name in ("code", "type")}


def without(secret: str, failure: Failure) -> Failure:
    """The failure with `secret` blotted out of its detail."""
    if not secret or secret not in failure.detail:
        return failure
    return Failure(failure.status, failure.detail.replace(secret, "[key]"), failure.retryable)
