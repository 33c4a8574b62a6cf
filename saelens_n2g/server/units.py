"""Units: what is behind the address of a unit.

/viz/MODEL/3-sae/42                its page; ?nodes=all draws more of its graph
/viz/MODEL/3-sae/42/graph.svg      its graph as a picture that stands alone; graph.dot for Graphviz
/viz/MODEL/3-sae/random            some unit of the layer
/embed/MODEL/3-sae/42              the graph and a few exemplars, for frames in other pages
"""

import random
from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from saelens_n2g.graphs.draw import to_svg
from saelens_n2g.server.address import place_name, read_index, read_place, segments
from saelens_n2g.server.catalogue import Entry
from saelens_n2g.server.endpoints import Parameter, read_query
from saelens_n2g.server.pages import unit as views
from saelens_n2g.server.pages.links import ServerLinks
from saelens_n2g.server.problems import absent
from saelens_n2g.server.sending import Sender
from saelens_n2g.store.reader import Store
from saelens_n2g.store.records import Layer

NODES = Parameter("nodes", "string", "Which of the graph.", "strongest", choices=("strongest", "all"))
DRAWN = {"graph.svg": "image/svg+xml", "graph.dot": "text/vnd.graphviz; charset=utf-8"}
"""Files of a unit, and their media types."""
PICTURE_POLICY = "default-src 'none'; style-src 'unsafe-inline'; sandbox"
"""A picture has a style of its own."""


async def answer(sender: Sender, request: Request, entry: Entry, layer: Layer, rest: Sequence[str]) -> Response:
    """What is behind `/viz/MODEL/LAYER/` and the parts `rest`. Raises `Problem` (400, 404)."""
    query, links = request.scope["query_string"], ServerLinks(request.scope.get("root_path", ""))
    if list(rest) == ["random"]:
        read_query(query, ())
        address = await sender.workers.run(lambda store: _any(store, entry, layer, links))
        return RedirectResponse(address, headers={"cache-control": "no-store"})
    index = _index(rest[0])
    if len(rest) == 2 and rest[1] in DRAWN:
        read_query(query, ())
        text = await sender.workers.run(lambda store: _drawn(store, entry, layer, index, rest[1]))
        name = f"{place_name(layer.basis, layer.layer)}-{index}.{rest[1].rpartition('.')[2]}"
        name = "".join(c if c.isascii() and (c.isalnum() or c in "-._") else "_" for c in name)
        headers = {"content-disposition": f'inline; filename="{name}"', "content-security-policy": PICTURE_POLICY}
        headers |= {"cache-control": "no-cache", "x-content-type-options": "nosniff"}
        return Response(text, media_type=DRAWN[rest[1]], headers=headers)
    if len(rest) > 1:
        raise absent("unit in the path", f"a number, and behind it nothing or {' or '.join(DRAWN)}", "/".join(rest))
    everything = read_query(query, (NODES,))["nodes"] == "all"
    return await sender.page(
        request, lambda store, links: views.unit(store, entry, layer, index, links, everything=everything)
    )


async def embedded(sender: Sender, request: Request) -> Response:
    """`/embed/MODEL/LAYER/UNIT`. Raises `Problem` (400, 404)."""
    read_query(request.scope["query_string"], ())
    parts = segments(request.scope["raw_path"], request.scope.get("root_path", "")) or []
    if len(parts) != 4 or (place := read_place(parts[2])) is None:
        raise absent("embedded page", "/embed/{model}/{layer}/{unit}", "another path")
    entry = sender.entry(parts[1])
    layer, index = entry.layer(*place), _index(parts[3])
    return await sender.page(
        request, lambda store, links: views.embedded(store, entry, layer, index, links), embedded=True
    )


def _index(text: str) -> int:
    index = read_index(text)
    if index is None:
        raise absent("unit in the path", "a number", repr(text))
    return index


def _any(store: Store, entry: Entry, layer: Layer, links: ServerLinks) -> str:
    """The address of some unit; layers grow, so there may be more than the catalogue has counted."""
    index = store.nth(layer.id, random.randrange(layer.units)) if layer.units else None
    if index is None:
        raise absent(f"units of {place_name(layer.basis, layer.layer)}", "at least one in the store", "none")
    return links.unit(entry.model.name, layer.basis, layer.layer, index)


def _drawn(store: Store, entry: Entry, layer: Layer, index: int, name: str) -> str:
    graph = views.find(store, entry, layer, index).graph
    if graph is None:
        raise absent(name, "a unit with a graph", f"{place_name(layer.basis, layer.layer)}/{index}, which has none")
    return graph.to_dot() if name == "graph.dot" else to_svg(graph)
