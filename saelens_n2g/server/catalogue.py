"""Catalogue: which models, bases and layers a store has, and the metadata that goes with every answer.

It is read once, and again when the store has changed.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from saelens_n2g.server.address import NEURONS, place_name
from saelens_n2g.server.problems import absent
from saelens_n2g.store.bodies import digest, serialise
from saelens_n2g.store.reader import Store
from saelens_n2g.store.records import Basis, Layer, Model
from saelens_n2g.store.schema import unit_key

FRESH = 0.5
"""Seconds for which the store is taken to be as it was."""
ALWAYS = ("match", "metadata", "neuron2graph-search", "predict", "units")
"""Services that are not bodies of units."""
BODIES = {
    "drawing": "drawing",
    "logits": "logits",
    "neuron2graph": "neuron2graph",
    "neuron_explainer": "explanation",
    "neuroscope": "neuroscope",
    "provenance": "provenance",
    "similarity": "similarity",
    "statistics": "statistics",
}
"""Service, in DeepDecipher's spelling where it has it -> what is stored of a unit under that name."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A model."""

    model: Model
    bases: tuple[Basis, ...]
    layers: Mapping[tuple[str, int], Layer]
    metadata: Mapping[str, Any]
    """DeepDecipher's fields; null where they are not known."""
    tail: bytes
    """`,"metadata":{...}}`: what every answer about the model ends with."""
    inner_tail: bytes
    """The same behind another closing brace."""
    etag: str
    """Changes with the metadata."""

    def layer(self, basis: str, layer: int) -> Layer:
        """A layer of a basis. Raises `Problem` (404)."""
        found = self.layers.get((basis, layer))
        if found is None:
            there = [place_name(b, n) for b, n in self.layers]
            shown = ", ".join(there[:12]) + (f" and {len(there) - 12} more" if len(there) > 12 else "")
            raise absent(f"layer {place_name(basis, layer)} of {self.model.name}", f"one of {shown}", "no such layer")
        return found

    def unit_id(self, basis: str, layer: int, index: int) -> int:
        """Number of a unit that the basis has. Raises `Problem` (404)."""
        there = self.layer(basis, layer)
        if index >= there.width:
            name = f"unit {place_name(basis, layer)}/{index} of {self.model.name}"
            raise absent(name, f"an index of at most {there.width - 1}", str(index))
        return unit_key(there.id, index)


class Catalogue:
    """What a store has. `store` is read in the thread that calls."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._entries: dict[str, Entry] = {}
        self._version: int | None = None
        self._checked = 0.0

    def refresh(self) -> None:
        """Read it again if the store has changed since; looks at the store at most twice a second. Then `entries` is
        another object."""
        now = time.monotonic()
        if self._version is not None and now - self._checked < FRESH:
            return
        ((version,),) = self.store.rows("PRAGMA data_version")
        self._checked = now
        if version == self._version:
            return
        self._entries = {model.name: _entry(self.store, model) for model in self.store.models()}
        self._version = version

    @property
    def entries(self) -> Mapping[str, Entry]:
        """The models by name."""
        return self._entries

    def model(self, name: str) -> Entry:
        """A model. Raises `Problem` (404)."""
        found = self._entries.get(name)
        if found is None:
            known = ", ".join(self._entries) or "(none)"
            raise absent(f"model {name!r}", f"one of {known}", "no such model")
        return found


def _entry(store: Store, model: Model) -> Entry:
    bases = tuple(store.bases(model.name))
    layers = {(basis.name, layer.layer): layer for basis in bases for layer in basis.layers}
    metadata = _metadata(store, model, bases)
    raw = serialise(metadata)
    tail = b',"metadata":' + raw + b"}"
    return Entry(model, bases, layers, metadata, tail, b"}" + tail, digest(raw).hex()[:8])


def _metadata(store: Store, model: Model, bases: tuple[Basis, ...]) -> dict[str, Any]:
    there = store.services_of(model.name)
    corpora = dict.fromkeys(one.provenance.get("corpus", {}).get("source") for one in store.sources_of(model.name))
    widths = {layer.width for basis in bases if basis.name == NEURONS for layer in basis.layers}
    width = widths.pop() if len(widths) == 1 else None
    services = [name for name, body in BODIES.items() if body in there]
    config = {**model.config, **model.provenance}
    return {
        "name": model.name,
        "num_layers": model.n_layers,
        "layer_size": width,
        "activation_function": config.get("activation_function"),
        "num_total_neurons": None if width is None else width * model.n_layers,
        "num_total_parameters": config.get("num_total_parameters"),
        "dataset": ", ".join(str(corpus) for corpus in corpora if corpus) or None,
        "available_services": sorted([*services, *ALWAYS]),
    }
