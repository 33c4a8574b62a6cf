"""Links within a folder of pages: relative, so that the folder opens from disk wherever it lies.

index.html
MODEL/index.html
MODEL/LAYER/index.html, page-2.html, ...
MODEL/LAYER/42.html
MODEL/LAYER/42/neuron2graph.json
assets/atlas.css
"""

from dataclasses import dataclass
from urllib.parse import quote

from saelens_n2g.server.address import place_name

INDEX = "index.html"


def file_name(text: str) -> str:
    """A name as one of a file: letters, digits, hyphen, dot, underscore and tilde stay, all else is =XX."""
    name = quote(text, safe="").replace("%", "=")
    return "=2E" + name[1:] if name.startswith(".") else name


def home_file() -> str:
    """Path of the first page in the folder; likewise those below."""
    return INDEX


def model_file(model: str) -> str:
    """Of a model's page."""
    return f"{file_name(model)}/{INDEX}"


def layer_file(model: str, basis: str, layer: int, page: int = 1) -> str:
    """Of a layer's page."""
    name = INDEX if page == 1 else f"page-{page}.html"
    return f"{file_name(model)}/{file_name(place_name(basis, layer))}/{name}"


def unit_file(model: str, basis: str, layer: int, index: int) -> str:
    """Of a unit's page."""
    return f"{file_name(model)}/{file_name(place_name(basis, layer))}/{index}.html"


def data_file(service: str, model: str, basis: str, layer: int, index: int | None) -> str:
    """Of the JSON of a unit's or a layer's service."""
    place = f"{file_name(model)}/{file_name(place_name(basis, layer))}"
    return f"{place}/{service}.json" if index is None else f"{place}/{index}/{service}.json"


@dataclass(frozen=True)
class FolderLinks:
    """Links from the page at `file`."""

    file: str
    live: bool = False

    def _to(self, file: str) -> str:
        return "../" * self.file.count("/") + file

    def home(self) -> str:
        """See `Links`."""
        return self._to(home_file())

    def model(self, model: str) -> str:
        """See `Links`."""
        return self._to(model_file(model))

    def layer(self, model: str, basis: str, layer: int, **query: str | int) -> str:
        """See `Links`; of what is asked, only the page."""
        return self._to(layer_file(model, basis, layer, int(query.get("page", 1))))

    def unit(self, model: str, basis: str, layer: int, index: int) -> str:
        """See `Links`."""
        return self._to(unit_file(model, basis, layer, index))

    def data(self, service: str, model: str, basis: str, layer: int, index: int | None = None) -> str:
        """See `Links`."""
        return self._to(data_file(service, model, basis, layer, index))

    def asset(self, name: str) -> str:
        """See `Links`."""
        return self._to(f"assets/{name}")

    def page(self, name: str, **query: str | int) -> str:
        """There is no server; nothing should ask."""
        raise AssertionError(f"{name}{query} needs a server")
