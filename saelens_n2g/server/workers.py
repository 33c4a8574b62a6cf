"""Workers: threads for what takes longer than a look-up, each with a connection of its own and a limit of time."""

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from saelens_n2g.errors import N2GError
from saelens_n2g.server.problems import Problem
from saelens_n2g.store.reader import Store

Result = TypeVar("Result")
THREADS = 2
WAITING = 64
"""Requests that may wait for a thread; more are turned away."""
GRACE = 0.5
"""Seconds that a thread is given to notice that its time is over."""
_STEPS = 5000
"""Instructions of SQLite's machine between two looks at the clock."""


class Workers:
    """Runs functions of a store. `limit`: seconds for each; what takes longer is 503, and its query is broken off."""

    def __init__(self, path: Path, limit: float) -> None:
        self.path, self.limit = path, limit
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="atlas")
        self._own = threading.local()
        self._stores: list[Store] = []
        self._waiting = 0

    async def run(self, function: Callable[[Store], Result]) -> Result:
        """What `function` returns or raises, computed in a thread. Raises `Problem` (503)."""
        if self._waiting >= WAITING:
            raise Problem(503, "too many requests are waiting", headers=((b"retry-after", b"1"),))
        self._waiting += 1
        deadline = time.monotonic() + self.limit
        future = asyncio.get_running_loop().run_in_executor(self._threads, self._timed, function, deadline)
        future.add_done_callback(self._done)
        try:
            return await asyncio.wait_for(asyncio.shield(future), self.limit + GRACE)
        except TimeoutError:
            future.add_done_callback(_forget)
            raise self._late() from None

    def _done(self, _: Any) -> None:
        self._waiting -= 1

    def _late(self) -> Problem:
        return Problem(503, f"query: expected to take at most {self.limit:g} s, found that it takes longer")

    def _timed(self, function: Callable[[Store], Result], deadline: float) -> Result:
        store = self._store()
        store.connection.set_progress_handler(lambda: time.monotonic() > deadline, _STEPS)
        try:
            if time.monotonic() > deadline:
                raise self._late()
            return function(store)
        except N2GError:
            if time.monotonic() > deadline:
                raise self._late() from None
            raise
        finally:
            store.connection.set_progress_handler(None, 0)

    def _store(self) -> Store:
        found: Store | None = getattr(self._own, "store", None)
        if found is None:
            found = self._own.store = Store.open(self.path)
            self._stores.append(found)
        return found

    def close(self) -> None:
        """Wait for what is running, and let go of the file."""
        self._threads.shutdown(cancel_futures=True)
        while self._stores:
            self._stores.pop().close()


def _forget(future: "asyncio.Future[Any]") -> None:
    """Nobody asks any more what a late query ended with."""
    with suppress(asyncio.CancelledError):
        future.exception()
