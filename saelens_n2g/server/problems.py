"""Problems: what is answered when a request cannot be, always in one shape (RFC 9457)."""

from http import HTTPStatus
from typing import Any

from saelens_n2g.errors import InputError, N2GError

TYPE = b"application/problem+json"


class Problem(Exception):
    """Ends a request with a status and a JSON body `{"type", "title", "status", "detail", ...}`."""

    def __init__(self, status: int, detail: str, *, headers: tuple[tuple[bytes, bytes], ...] = (), **more: Any) -> None:
        super().__init__(detail)
        self.status, self.detail, self.headers, self.more = status, detail, headers, more

    @classmethod
    def of(cls, status: int, error: N2GError) -> "Problem":
        """An error of the package as a problem: its sentence, and its parts."""
        return cls(status, str(error), thing=error.thing, expected=error.expected, found=error.found)

    @classmethod
    def of_store(cls, error: N2GError) -> "Problem":
        """What a store refuses though it was asked well: 503 for a file that cannot be used now, 500 for damage."""
        return cls.of(503 if isinstance(error, InputError) else 500, error)

    def as_error(self) -> InputError:
        """The other way round, for those who do not ask over HTTP; of problems that were errors."""
        return InputError(self.more["thing"], self.more["expected"], self.more["found"])

    def value(self) -> dict[str, Any]:
        """The body."""
        title = HTTPStatus(self.status).phrase
        return {"type": "about:blank", "title": title, "status": self.status, "detail": self.detail, **self.more}


def absent(thing: str, expected: str, found: str) -> Problem:
    """404, in the words of the package's errors."""
    return Problem.of(404, N2GError(thing, expected, found))
