"""The application: the API and the pages of one store."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from saelens_n2g.server.api import Api
from saelens_n2g.server.catalogue import Catalogue
from saelens_n2g.server.sending import Sender
from saelens_n2g.server.web import Web
from saelens_n2g.server.workers import Workers
from saelens_n2g.store.programs import Cache
from saelens_n2g.store.reader import Store

SECONDS = 5.0
"""What a query may take."""


class Atlas:
    """An ASGI application that shows the store at `path`; another one may mount it.

    limit: seconds a query may take. Raises `InputError` and `ArtefactError` as `Store.open` does. `close` when done; a
    server that speaks the lifespan protocol does that.
    """

    def __init__(self, path: Path, *, limit: float = SECONDS) -> None:
        self.store = Store.open(path)
        self.workers = Workers(path, limit)
        catalogue, cache = Catalogue(self.store), Cache()
        self.api = Api(self.store, catalogue, self.workers, cache)
        self.web = Web(Sender(catalogue, self.workers, cache))

    async def __call__(self, scope: Mapping[str, Any], receive: Any, send: Any) -> None:
        """Answer one request."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "http":
            path: str = scope["path"].removeprefix(scope.get("root_path", ""))
            api = path.startswith("/api") and path[4:5] in ("", "/")
            await (self.api if api else self.web)(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1000})

    async def _lifespan(self, receive: Any, send: Any) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                await send({"type": "lifespan.startup.complete"})
            else:
                self.close()
                await send({"type": "lifespan.shutdown.complete"})
                return

    def close(self) -> None:
        """Let go of the file; may be called twice."""
        self.api.release()
        self.workers.close()
        self.store.close()
