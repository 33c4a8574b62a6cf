"""Answers that are kept on disk, for as many processes as like.

    client = Cached(inner, Path("answers"), builders="explainer 3")

One SQLite file; an answer is in it as soon as it is there, so a killed run loses none. It is kept under a digest of
everything that decides it: the client's identity (kind, place, model, revision), every field of the request, and the
version of whatever makes requests. Failures are never kept as answers: the last one of a request is remembered
beside them, and it is asked again.
"""

import hashlib
import json
import os
import sqlite3
import threading
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from saelens_n2g.clients.base import Capabilities, Client, Counter, Got
from saelens_n2g.clients.estimating import Spent
from saelens_n2g.clients.messages import Answer, Failure, Reply, Request, answer_of, failure_of
from saelens_n2g.errors import ArtefactError, InputError
from saelens_n2g.jobs.artefacts import ensure_folder
from saelens_n2g.progress import Tick

FILE, VERSION = "answers.sqlite", 1
APPLICATION = 0x4E324743
"""Marks the file as ours (SQLite's `application_id`): "N2GC"."""
PATIENCE = 60.0
"""Seconds to wait for another process that writes."""
TABLES = """
CREATE TABLE answers (key TEXT PRIMARY KEY, digest TEXT NOT NULL, answer TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE failures (key TEXT PRIMARY KEY, times INTEGER NOT NULL, failure TEXT NOT NULL) STRICT, WITHOUT ROWID;
"""


class Cached:
    """A client that asks another one only what is not known. `hits` counts answers that were, `spent` what was asked.

    Raises `InputError` if the folder cannot be written, `ArtefactError` if its file is not one of these or is damaged.
    """

    def __init__(self, inner: Client, folder: Path, *, builders: str = "") -> None:
        self.inner, self.builders, self.hits, self.spent = inner, builders, 0, Spent()
        self.identity = inner.identity
        self.path = ensure_folder(folder) / FILE
        self._lock, self._opened = threading.Lock(), (-1, None)  # type: tuple[threading.Lock, tuple[int, Any]]
        self._rows("SELECT 1 FROM answers LIMIT 1")

    @property
    def name(self) -> str:
        """That of the client behind."""
        return self.inner.name

    @property
    def model(self) -> str:
        """That of the client behind."""
        return self.inner.model

    def capabilities(self) -> Capabilities:
        """Those of the client behind."""
        return self.inner.capabilities()

    def count(self, request: Request) -> int:
        """See `Client.count`."""
        return self.inner.count(request)

    def one_token(self, text: str) -> bool | None:
        """See `Client.one_token`."""
        return self.inner.one_token(text)

    def key(self, request: Request) -> str:
        """What the answer is kept under, in hex."""
        everything = {
            "version": VERSION,
            "client": self.identity,
            "builders": self.builders,
            "request": request.to_json(),
        }
        written = json.dumps(everything, sort_keys=True, ensure_ascii=True, allow_nan=False)
        return hashlib.sha256(written.encode()).hexdigest()

    def known(self, request: Request) -> Answer | None:
        """The answer that is kept; counts no hit."""
        return self._load(self.key(request))

    def last_failure(self, request: Request) -> Failure | None:
        """Why the request had no answer when it was last asked; None if it has one or was never asked."""
        rows = self._rows("SELECT failure FROM failures WHERE key = ?", self.key(request))
        return failure_of(json.loads(rows[0][0])) if rows else None

    def ask(self, request: Request) -> Reply:
        """See `Client.ask`."""
        return self.ask_many([request])[0]

    def ask_many(self, requests: Sequence[Request], tick: Tick | None = None, got: Got | None = None) -> list[Reply]:
        """See `Client.ask_many`. Requests that are the same are asked once."""
        count, replies = Counter(len(requests), tick, got), dict[int, Reply]()
        wanting: dict[str, list[int]] = {}

        def arrived(index: int, reply: Reply) -> None:
            replies[index] = reply
            count(index, reply)

        for index, request in enumerate(requests):
            key = self.key(request)
            answer = None if key in wanting else self._load(key)
            if answer is None:
                wanting.setdefault(key, []).append(index)
            else:
                self.hits += 1
                arrived(index, answer)
        keys = list(wanting)

        def keep(asked: int, reply: Reply) -> None:
            self.spent = self.spent.plus(reply)
            kept = self._keep(keys[asked], reply)
            for index in wanting[keys[asked]]:
                arrived(index, kept)

        self.inner.ask_many([requests[wanting[key][0]] for key in keys], None, keep)
        return [replies[index] for index in range(len(requests))]

    # --- the file ---------------------------------------------------------------------------------------------

    def _load(self, key: str) -> Answer | None:
        rows = self._rows("SELECT digest, answer FROM answers WHERE key = ?", key)
        if not rows:
            return None
        digest, text = rows[0]
        try:
            if hashlib.sha256(text.encode()).hexdigest() != digest:
                raise ValueError("other bytes than were written")
            return answer_of(json.loads(text))
        except (ValueError, TypeError, KeyError) as error:
            raise ArtefactError(f"answer {key[:12]} in {self.path}", "the answer as it was kept", str(error)) from error

    def _keep(self, key: str, reply: Reply) -> Reply:
        """Keep a reply; returns the one that counts, which is another process's if that was faster."""
        if isinstance(reply, Failure):
            if reply.status != "cancelled":  # that one was not asked
                self._rows(
                    "INSERT INTO failures VALUES (?, 1, ?)"
                    " ON CONFLICT (key) DO UPDATE SET times = times + 1, failure = excluded.failure",
                    key,
                    json.dumps(asdict(reply), sort_keys=True),
                )
            return reply
        text = json.dumps(reply.to_json(), sort_keys=True, allow_nan=False)
        digest = hashlib.sha256(text.encode()).hexdigest()
        self._rows("INSERT OR IGNORE INTO answers VALUES (?, ?, ?)", key, digest, text)
        self._rows("DELETE FROM failures WHERE key = ?", key)
        return self._load(key) or reply

    def _rows(self, statement: str, *values: str) -> list[Any]:
        """Run one statement, a transaction of its own."""
        with self._lock:
            try:
                return list(self._connection().execute(statement, values))
            except sqlite3.DatabaseError as error:
                raise ArtefactError(
                    f"answers {self.path}", "a file that can be read and written", str(error)
                ) from error

    def _connection(self) -> sqlite3.Connection:
        """This process's connection: one may not be carried over a fork."""
        if self._opened[0] != os.getpid():
            self._opened = (os.getpid(), _open(self.path))
        connection: sqlite3.Connection = self._opened[1]
        return connection


def _open(path: Path) -> sqlite3.Connection:
    """The file, made if there is none."""
    try:
        connection = sqlite3.connect(path, timeout=PATIENCE, isolation_level=None, check_same_thread=False)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")  # in WAL mode a killed process loses nothing
    except sqlite3.OperationalError as error:
        raise InputError(f"answers {path}", "a file that can be written", str(error)) from error
    connection.execute("BEGIN IMMEDIATE")
    found = [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")]
    tables = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
    if found == [0, 0] and tables == 0:
        for statement in TABLES.strip().splitlines():
            connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION}")
        connection.execute(f"PRAGMA user_version = {VERSION}")
        found = [APPLICATION, VERSION]
    connection.execute("COMMIT")
    if found != [APPLICATION, VERSION]:
        connection.close()
        raise ArtefactError(f"file {path}", f"kept answers, version {VERSION}", f"another file ({found})")
    return connection
