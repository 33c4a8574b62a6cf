"""Replies written down, and a client that gives them again: for tests that need what a real model said, without it.

    client = Recording(inner, Path("replies.jsonl"))       # asks `inner`, writes down what it replies
    client = Replaying(Path("replies.jsonl"))              # asks nobody

JSON lines: the first says of which client, each further one has a request, its tokens and a reply, or the answer to
`one_token`. Keys and addresses beyond host and path are not in it.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from saelens_n2g.clients.base import Capabilities, Client, Counter, Got, Untaken, one_by_one
from saelens_n2g.clients.config import ClientConfig
from saelens_n2g.clients.messages import Answer, Failure, Reply, Request, answer_of, failure_of
from saelens_n2g.clients.registry import register
from saelens_n2g.errors import ArtefactError, InputError
from saelens_n2g.jobs.artefacts import ensure_folder
from saelens_n2g.progress import Tick

FORMAT, VERSION = "saelens-n2g-replies", 1


@register("replay")
def build_replay(config: ClientConfig) -> "Replaying":
    """Builder of the registry: `model` is the file."""
    return Replaying(Path(config.model))


class Recording:
    """Asks another client and writes every reply down as it comes, behind those that are there.

    Raises `InputError` if the file holds another client's replies, `ArtefactError` if it is damaged.
    """

    def __init__(self, inner: Client, path: Path) -> None:
        self.inner, self.path = inner, path
        self.name, self.model, self.identity = inner.name, inner.model, inner.identity
        ensure_folder(path.parent)
        if not path.exists():
            head = {"name": inner.name, "model": inner.model, "identity": inner.identity}
            self._write({"format": FORMAT, "version": VERSION, **head, "capabilities": list(inner.capabilities())})
        elif (found := _lines(path)[0]["identity"]) != inner.identity:
            raise InputError(f"file {path}", f"replies of {inner.identity}", f"replies of {found}")

    def capabilities(self) -> Capabilities:
        """Those of the client behind."""
        return self.inner.capabilities()

    def count(self, request: Request) -> int:
        """See `Client.count`."""
        return self.inner.count(request)

    def one_token(self, text: str) -> bool | None:
        """See `Client.one_token`."""
        known = self.inner.one_token(text)
        self._write({"one_token": text, "is": known})
        return known

    def ask(self, request: Request) -> Reply:
        """See `Client.ask`."""
        return self.ask_many([request])[0]

    def ask_many(self, requests: Sequence[Request], tick: Tick | None = None, got: Got | None = None) -> list[Reply]:
        """See `Client.ask_many`."""
        count = Counter(len(requests), tick, got)

        def write(index: int, reply: Reply) -> None:
            said = {"answer": reply.to_json()} if isinstance(reply, Answer) else {"failure": asdict(reply)}
            request = requests[index]
            self._write({"request": request.to_json(), "count": self._counted(request), **said})
            count(index, reply)

        return self.inner.ask_many(requests, None, write)

    def _counted(self, request: Request) -> int | None:
        """None for a request that is not taken."""
        try:
            return self.inner.count(request)
        except Untaken:
            return None

    def _write(self, value: dict[str, Any]) -> None:
        with open(self.path, "a", encoding="utf-8") as out:
            out.write(json.dumps(value, sort_keys=True, allow_nan=False) + "\n")


class Replaying:
    """Gives replies that were written down. A request that was asked several times gets them in order, then the last
    one again; one that is not there fails. Raises `ArtefactError` if the file is not whole."""

    def __init__(self, path: Path) -> None:
        self.path = path
        head, *rows = _lines(path)
        self.name, self.model, self.identity = str(head["name"]), str(head["model"]), dict(head["identity"])
        self._able = Capabilities(*head["capabilities"])
        self._replies: dict[str, list[Reply]] = {}
        self._counts: dict[str, int | None] = {}
        self._tokens: dict[str, bool | None] = {}
        for number, row in enumerate(rows, 2):
            try:
                self._read(row)
            except (KeyError, TypeError, ValueError) as error:
                raise ArtefactError(f"line {number} of {path}", "a request and a reply", repr(error)) from error

    def _read(self, row: dict[str, Any]) -> None:
        if "one_token" in row:
            self._tokens[row["one_token"]] = row["is"]
            return
        key = _key(row["request"])
        reply = answer_of(row["answer"]) if "answer" in row else failure_of(row["failure"])
        self._replies.setdefault(key, []).append(reply)
        self._counts[key] = None if row["count"] is None else int(row["count"])

    def capabilities(self) -> Capabilities:
        """Those of the client that was asked."""
        return self._able

    def count(self, request: Request) -> int:
        """As it was counted. Raises `Untaken` for a request that is not there, or was not taken."""
        known = self._counts.get(_key(request.to_json()))
        if known is None:
            raise Untaken("request", f"one that {self.path} has", request.text[:60] or "token ids")
        return known

    def one_token(self, text: str) -> bool | None:
        """See `Client.one_token`; None if that was not asked."""
        return self._tokens.get(text)

    def ask(self, request: Request) -> Reply:
        """See `Client.ask`."""
        there = self._replies.get(_key(request.to_json()))
        if there is None:
            return Failure("unsupported", f"not among the replies of {self.path.name}", False)
        return there.pop(0) if len(there) > 1 else there[0]

    def ask_many(self, requests: Sequence[Request], tick: Tick | None = None, got: Got | None = None) -> list[Reply]:
        """See `Client.ask_many`."""
        return one_by_one(self.ask, requests, tick, got)


def _key(request: dict[str, Any]) -> str:
    return json.dumps(request, sort_keys=True)


def _lines(path: Path) -> list[dict[str, Any]]:
    """The head and the rows. Raises `ArtefactError`."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    except (OSError, UnicodeDecodeError) as error:
        raise ArtefactError(f"file {path}", "replies as JSON lines", str(error)) from error
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            rows.append(json.loads(line))
        except ValueError as error:
            raise ArtefactError(f"line {number} of {path}", "JSON", str(error)) from error
        if not isinstance(rows[-1], dict) or not line.endswith("\n"):
            raise ArtefactError(f"line {number} of {path}", "a whole JSON object", line[:40].strip())
    head = rows[0] if rows else {}
    if (head.get("format"), head.get("version")) != (FORMAT, VERSION):
        raise ArtefactError(f"file {path}", f"format {FORMAT!r}, version {VERSION}", str(head.get("format")))
    return rows
