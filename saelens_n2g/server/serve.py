"""Serve: the application behind uvicorn, on this machine's own address unless told otherwise."""

import copy
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from saelens_n2g.errors import InputError
from saelens_n2g.server.app import SECONDS, Atlas

HOST, PORT = "127.0.0.1", 8080
PATIENCE = 5
"""Seconds that requests have to end after Ctrl-C."""


def serve(
    path: Path,
    *,
    host: str = HOST,
    port: int = PORT,
    limit: float = SECONDS,
    log: bool = False,
    ready: Callable[[str], None] = lambda _address: None,
) -> None:
    """Show the store at `path` until interrupted.

    port: 0 takes a free one. limit: seconds a query may take. log: a line for every request, on stderr. ready: told the
    address once it answers. Raises `InputError` if the address cannot be had, and as `Store.open` does.
    """
    import uvicorn

    app = Atlas(path, limit=limit)
    listening = listen(host, port)
    address = address_of(host, listening)

    class Server(uvicorn.Server):
        async def startup(self, sockets: Any = None) -> None:
            await super().startup(sockets)
            ready(address)

    said = copy.deepcopy(uvicorn.config.LOGGING_CONFIG)
    said["handlers"]["access"]["stream"] = "ext://sys.stderr"
    config = uvicorn.Config(
        app,
        log_config=said,
        log_level="info" if log else "warning",
        access_log=log,
        server_header=False,
        timeout_graceful_shutdown=PATIENCE,
    )
    try:
        Server(config).run(sockets=[listening])
    except KeyboardInterrupt:  # uvicorn has stopped by then, and raises the signal again
        pass
    finally:
        listening.close()
        app.close()


def listen(host: str, port: int) -> socket.socket:
    """A socket that waits at an address. Raises `InputError` if it cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except (OSError, OverflowError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise InputError(f"address {host}:{port}", "one that is free (--port 0 finds one)", why) from error


def address_of(host: str, listening: socket.socket) -> str:
    """Where to look."""
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    return f"http://{shown}:{listening.getsockname()[1]}"
