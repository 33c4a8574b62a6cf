"""The page of a unit: its graph, what it does on texts and what the graph says of them, scores, similar units, and
where all of it comes from; and the same in little, for the pages of others."""

import contextlib
import json
from collections.abc import Iterator, Mapping
from textwrap import shorten
from typing import Any, NamedTuple

from saelens_n2g.comparison.table import EXPLAINER_TITLES
from saelens_n2g.errors import ArtefactError
from saelens_n2g.graphs.condensed import LayerNode
from saelens_n2g.graphs.draw import MAX_NODES, Drawing, to_page
from saelens_n2g.graphs.graph import Graph
from saelens_n2g.pages import visible
from saelens_n2g.server.address import path, place_name
from saelens_n2g.server.catalogue import BODIES, Entry
from saelens_n2g.server.pages import exemplars, recorded, words
from saelens_n2g.server.pages.charts import activations
from saelens_n2g.server.pages.effects import effects
from saelens_n2g.server.pages.links import Links
from saelens_n2g.server.pages.render import Page
from saelens_n2g.server.problems import absent
from saelens_n2g.store.bodies import Body
from saelens_n2g.store.grammar import MOST_LETTERS, quoted
from saelens_n2g.store.reader import Store
from saelens_n2g.store.records import Layer, Unit
from saelens_n2g.store.services import graph_of

LEAD = 200
"""Letters of a sentence in words at the head of the page; the whole stands below."""
MOST_NODES = 400
"""Nodes that "all nodes" draws at most: more is no picture any more, and takes seconds."""
MEMBERS = 12
"""Tokens of a class that a search for it names."""
EMBEDDED = 3
"""Exemplars of a group in an embedded page."""
SCORES = ("precision", "recall", "f1", "auprc", "correlation")
TEXTS = {"held_out": "Held-out text", "random": "Random text"}


class Found(NamedTuple):
    """A unit of a store, with all that is stored of it."""

    entry: Entry
    layer: Layer
    unit: Unit
    bodies: Mapping[str, Body]

    def value(self, service: str) -> Any:
        """A body; None if there is none. Raises `ArtefactError` if it is damaged."""
        body = self.bodies.get(service)
        return None if body is None else body.json()

    @property
    def graph(self) -> Graph | None:
        """Its graph, rebuilt from the trie. Raises `ArtefactError`."""
        value = self.value("neuron2graph")
        return None if value is None else graph_of(value)

    @property
    def name(self) -> str:
        """As in addresses."""
        return f"{place_name(self.unit.basis, self.unit.layer)}/{self.unit.index}"


def find(store: Store, entry: Entry, layer: Layer, index: int) -> Found:
    """A unit. Raises `Problem` (404) if it is not in the store."""
    number = entry.unit_id(layer.basis, layer.layer, index)
    units = store.units([number])
    if not units:
        name = f"unit {place_name(layer.basis, layer.layer)}/{index} of {entry.model.name}"
        raise absent(name, f"one of the {layer.units} units of {layer.width} that were examined", "not in the store")
    return Found(entry, layer, units[0], store.bodies(number))


def unit(store: Store, entry: Entry, layer: Layer, index: int, links: Links, *, everything: bool = False) -> Page:
    """The page. `everything`: all nodes of the graph (`MOST_NODES`). Raises `Problem` (404) and `ArtefactError`."""
    found = find(store, entry, layer, index)
    one, basis = found.unit, next(b for b in entry.bases if b.name == layer.basis)
    with _whole(found):
        graph = found.graph
        values = {
            **_exemplars(found),
            **_scores(found, graph),
            **_effects(store, found),
            "entry": entry,
            "layer": layer,
            "basis": basis,
            "unit": one,
            "name": found.name,
            "graph": graph,
            "drawing": draw(graph, links, everything=everything),
            "everything": everything,
            "most": MOST_NODES,
            "around": tuple(_unit_link(links, one, other) for other in store.neighbours(one.id)),
            "similar": _similar(store, one),
            "services": [name for name, body in BODIES.items() if body in found.bodies],
            "recorded": _recorded(store, found),
            "bookmark": _bookmark(found, basis.title, links),
            "embed": embed_link(links, one) if links.live else None,
        }
    name = entry.model.name
    place = place_name(one.basis, one.layer)
    trail = (("Models", links.home()), (name, links.model(name)), (place, links.layer(name, one.basis, one.layer)))
    return Page("unit.html", f"{found.name} of {name}", values, trail)


def embedded(store: Store, entry: Entry, layer: Layer, index: int, links: Links) -> Page:
    """Its graph and its strongest exemplars, without the frame of the site. Raises as `unit` does."""
    found = find(store, entry, layer, index)
    with _whole(found):
        values = {
            "entry": entry,
            "unit": found.unit,
            "name": found.name,
            "basis": next(b for b in entry.bases if b.name == layer.basis),
            "drawing": draw(found.graph, links),
            "groups": _exemplars(found)["groups"],
            "each": EMBEDDED,
        }
    return Page("embed.html", f"{found.name} of {entry.model.name}", values)


def draw(graph: Graph | None, links: Links, *, everything: bool = False) -> Drawing | None:
    """The graph as a part of the page, its nodes links to the search for their tokens where there is one."""
    if graph is None:
        return None

    def link(node: LayerNode) -> str | None:
        query = search_for(node.names)
        return links.page("search", query=query) if links.live and query else None

    return to_page(graph, link=link, max_nodes=MOST_NODES if everything else MAX_NODES)


def search_for(names: tuple[str, ...]) -> str | None:
    """The query for units that name one of these tokens; None if none can be asked for."""
    whole = [name for name in names[:MEMBERS] if name and not any("\ud800" <= letter <= "\udfff" for letter in name)]
    query = " or ".join(f"any:{quoted(name)}" for name in whole)
    return query if query and len(query) <= MOST_LETTERS else None


def embed_link(links: Links, one: Unit) -> str:
    """The address of the embedded page."""
    return links.page("embed") + path(one.model, place_name(one.basis, one.layer), one.index)


def _unit_link(links: Links, one: Unit, index: int | None) -> str | None:
    return None if index is None else links.unit(one.model, one.basis, one.layer, index)


@contextlib.contextmanager
def _whole(found: Found) -> Iterator[None]:
    """Raises `ArtefactError` where bodies lack what they should have: a store may be a stranger's."""
    try:
        yield
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, RecursionError) as error:
        raise ArtefactError(f"unit {found.name}", "bodies as docs/formats.md says", repr(error)) from error


def _exemplars(found: Found) -> dict[str, Any]:
    body = found.value("neuroscope")
    groups = () if body is None else exemplars.groups(body)
    points = exemplars.points(groups)
    words = f"Activations above 0 of {sum(len(group.snippets) for group in groups)} windows, as shares of the maximum"
    return {
        "groups": groups,
        "first": exemplars.FIRST,
        "threshold": exemplars.FIRES,
        "points": points,
        "histogram": activations(points, threshold=exemplars.FIRES, label=words) if points else None,
        "predicted": any(group.counts for group in groups),
    }


def _effects(store: Store, found: Found) -> dict[str, Any]:
    """Its logit effects; where there are none the reason, if the run gave one."""
    body = found.value("logits")
    if body is not None:
        return {"effects": effects(body), "no_effects": None}
    layer = store.layer_body(found.layer.id, "statistics")
    said = {} if layer is None else layer.json().get("facts", {}).get("logits") or {}
    return {"effects": None, "no_effects": said.get("missing")}


def _scores(found: Found, graph: Graph | None) -> dict[str, Any]:
    """What is said of the unit, and every explainer's scores and counts."""
    body = found.value("explanation")
    if body is None:
        body = {"explanation": "", "explanations": []}
    rows = []
    for each in body["explanations"]:
        name, scores, counts = each["explainer"], each.get("scores") or {}, each.get("counts") or {}
        if not scores:  # scored on other texts, see `words`
            continue
        rows.append(
            {
                "title": EXPLAINER_TITLES.get(name, name),
                "scores": {text: [_number((scores.get(text) or {}).get(name)) for name in SCORES] for text in TEXTS},
                "counts": {text: [int(n) for n in counts.get(text) or ()] for text in TEXTS},
            }
        )
    text = "" if graph is None else graph.to_text()
    said, spoken = str(body["explanation"] or ""), words.ways(body)
    own = {*text.splitlines(), "(never fires)"}
    repeats = all(line in own or line.startswith("... and ") for line in said.splitlines())
    sentence = shorten(said, LEAD, placeholder=" …") if any(way.text == said for way in spoken) else ""
    repeats = repeats or bool(sentence)
    known = {"explainers": rows, "texts": TEXTS, "text": text, "said": "" if repeats else said, "sentence": sentence}
    spoken_of = {"told": words.told(body), "told_answers": words.ANSWERS}
    return {**known, **spoken_of, "ways": spoken, "way_sets": words.SETS, "way_metrics": words.METRICS}


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def _similar(store: Store, one: Unit) -> list[dict[str, Any]]:
    found = store.similar(one.id)
    said = {other.unit.id: store.body(other.unit.id, "explanation") for other in found}
    return [
        {
            "other": other,
            "name": f"{place_name(other.unit.basis, other.unit.layer)}/{other.unit.index}",
            "said": visible(str(body.json()["explanation"]).partition("\n")[0]) if body else "",
        }
        for other in found
        for body in (said[other.unit.id],)
    ]


def _recorded(store: Store, found: Found) -> dict[str, Any]:
    source, body = store.source(found.unit.source), found.value("provenance") or {}
    basis = next(b for b in found.entry.bases if b.name == found.unit.basis)
    whole = {
        "model": {**found.entry.model.config, **found.entry.model.provenance},
        "layer": found.layer.provenance,
        "source": {"name": source.name, "kind": source.kind, "checksum": source.checksum, **source.provenance},
        "unit": body,
    }
    return {
        "texts": recorded.texts(source),
        "lines": recorded.lines(found.entry, basis, found.unit, source, body),
        "json": visible(json.dumps(whole, indent=1, ensure_ascii=False)),
    }


def _bookmark(found: Found, title: str, links: Links) -> dict[str, Any]:
    """What the browser keeps of it."""
    one = found.unit
    return {
        "model": one.model,
        "basis": one.basis,
        "layer": one.layer,
        "unit": one.index,
        "title": f"{title}, layer {one.layer}, unit {one.index}",
        "address": links.unit(one.model, one.basis, one.layer, one.index),
    }
