"""Links: where pages, data and assets are. A server has them under paths; an export under files."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable
from urllib.parse import urlencode

from saelens_n2g.server.address import path, place_name


@runtime_checkable
class Links(Protocol):
    """What templates and views ask for an address."""

    @property
    def live(self) -> bool:
        """Whether there is a server to ask: for searches, pasted text, comparisons."""
        ...

    def home(self) -> str:
        """All models."""
        ...

    def model(self, model: str) -> str:
        """A model."""
        ...

    def layer(self, model: str, basis: str, layer: int, **query: str | int) -> str:
        """A basis at a layer; `sort`, `order` and `page` of its list."""
        ...

    def unit(self, model: str, basis: str, layer: int, index: int) -> str:
        """A unit."""
        ...

    def data(self, service: str, model: str, basis: str, layer: int, index: int | None = None) -> str:
        """JSON of a unit, or of a layer."""
        ...

    def asset(self, name: str) -> str:
        """A file of `assets`."""
        ...

    def page(self, name: str, **query: str | int) -> str:
        """A page that only a server has: `search`, `paste`, `compare`, `bookmarks`, `doc`."""
        ...


@dataclass(frozen=True)
class ServerLinks:
    """Paths under `root`, where the application is mounted."""

    root: str = ""
    live: bool = True

    def home(self) -> str:
        """See `Links`."""
        return f"{self.root}/"

    def model(self, model: str) -> str:
        """See `Links`."""
        return self.root + path("viz", model)

    def layer(self, model: str, basis: str, layer: int, **query: str | int) -> str:
        """See `Links`."""
        return self.root + path("viz", model, place_name(basis, layer)) + (f"?{urlencode(query)}" if query else "")

    def unit(self, model: str, basis: str, layer: int, index: int) -> str:
        """See `Links`."""
        return self.root + path("viz", model, place_name(basis, layer), index)

    def data(self, service: str, model: str, basis: str, layer: int, index: int | None = None) -> str:
        """See `Links`."""
        end = () if index is None else (index,)
        return self.root + path("api", model, service, place_name(basis, layer), *end)

    def asset(self, name: str) -> str:
        """See `Links`."""
        return self.root + path("static", name)

    def page(self, name: str, **query: str | int) -> str:
        """See `Links`."""
        return self.root + path(name) + (f"?{urlencode(query)}" if query else "")
