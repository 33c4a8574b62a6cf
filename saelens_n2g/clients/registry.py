"""Registry: the kind of a client -> how to build it.

client = client_of(ClientConfig(kind="http", model="llama-3", base_url="http://localhost:8000/v1", cache="answers"))
"""

import importlib
from collections.abc import Callable
from pathlib import Path

from saelens_n2g.clients.base import Client
from saelens_n2g.clients.config import ClientConfig
from saelens_n2g.errors import InputError

Builder = Callable[[ClientConfig], Client]
FILES = {"http": "http", "huggingface": "huggingface", "llamacpp": "llamacpp", "replay": "recording"}
"""Kind -> the file of this folder that registers it, imported when the kind is asked for: a client that is not used
loads no library."""
CLIENTS: dict[str, Builder] = {}


def register(name: str) -> Callable[[Builder], Builder]:
    """Decorator that enters a builder under `name`."""

    def enter(build: Builder) -> Builder:
        assert name not in CLIENTS, f"client {name!r} is registered twice"
        CLIENTS[name] = build
        return build

    return enter


def client_of(config: ClientConfig, *, builders: str = "") -> Client:
    """The client that `config` describes, behind its cache if it names one.

    `builders` is a version of whatever makes the requests; it is part of what answers are kept by. Raises `InputError`
    for an unknown kind and as the client's own file says.
    """
    if config.kind not in CLIENTS:
        if config.kind not in FILES:
            known = ", ".join(sorted({*FILES, *CLIENTS}))
            raise InputError(f"client {config.kind!r}", f"one of {known}", repr(config.kind))
        importlib.import_module(f"saelens_n2g.clients.{FILES[config.kind]}")
    client: Client = CLIENTS[config.kind](config)
    if not config.cache:
        return client
    from saelens_n2g.clients.cache import Cached

    return Cached(client, Path(config.cache), builders=builders)
