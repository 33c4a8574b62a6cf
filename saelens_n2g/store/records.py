"""What goes into a store, and what comes out of it: plain values."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

Json = Mapping[str, Any]
Figures = Mapping[str, float | int | None]
"""Column of `schema.FIGURES` -> value; None where it is undefined."""


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """A language model."""

    name: str
    n_layers: int
    config: Json
    """What decides what its units are: width, BOS, revision. Another one under the same name is refused."""
    provenance: Json = field(default_factory=dict)
    bodies: Json = field(default_factory=dict)
    """service -> what is said of the whole model."""


@dataclass(frozen=True, kw_only=True)
class BasisFacts:
    """A basis of a model, over all its layers."""

    name: str
    """In addresses: `neurons`, `sae`, `tied-R4`."""
    kind: str
    """Of its sites, such as `mlp_post`."""
    title: str
    """For people."""
    facts: Json = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class LayerFacts:
    """A basis at one layer."""

    layer: int
    width: int
    """Units that the basis has there, imported or not."""
    identity: str
    """Fingerprint of what the units are; another one at the same address is refused."""
    provenance: Json = field(default_factory=dict)
    bodies: Json = field(default_factory=dict)
    """service -> what is said of the whole layer."""


@dataclass(frozen=True, kw_only=True)
class SourceFacts:
    """A folder, or part of one, that units are imported from."""

    checksum: str
    """Of its content and of how it is imported: the same one is not imported twice."""
    name: str
    kind: str
    """`comparison` or `study`."""
    total: int
    """Units in it."""
    provenance: Json = field(default_factory=dict)
    """Subject, corpus, settings, versions, protocol: for all its units."""


@dataclass(frozen=True, kw_only=True)
class UnitFacts:
    """A unit to be stored."""

    index: int
    figures: Figures
    bodies: Json
    """service -> JSON value."""
    tokens: Mapping[tuple[int, str], float] = field(default_factory=dict)
    """(role, normal form of a token) -> strength in [0, 1]."""
    failure: str | None = None
    """Why it has no graph."""


class Layer(NamedTuple):
    """A layer of a basis in a store."""

    id: int
    model: str
    basis: str
    layer: int
    width: int
    units: int
    """How many are stored."""
    identity: str
    provenance: dict[str, Any]


class Place(NamedTuple):
    """Where a layer is, and its number."""

    id: int
    model: str
    basis: str
    layer: int


class Basis(NamedTuple):
    """A basis in a store."""

    id: int
    model: str
    name: str
    kind: str
    title: str
    facts: dict[str, Any]
    layers: tuple[Layer, ...]
    """Ascending."""


class Model(NamedTuple):
    """A model in a store."""

    id: int
    name: str
    n_layers: int
    config: dict[str, Any]
    provenance: dict[str, Any]


class Source(NamedTuple):
    """Where units come from."""

    id: int
    checksum: str
    name: str
    kind: str
    done: int
    """Units imported so far."""
    total: int
    provenance: dict[str, Any]

    @property
    def finished(self) -> bool:
        """Whether all its units are there."""
        return self.done == self.total


@dataclass(frozen=True, slots=True)
class Unit:
    """A unit in a store."""

    id: int
    model: str
    basis: str
    layer: int
    index: int
    source: int
    """Number of its `Source`."""
    failure: str | None
    figures: dict[str, float | int | None]


class Page(NamedTuple):
    """Some of many units."""

    total: int
    """How many there are."""
    units: tuple[Unit, ...]


class Similar(NamedTuple):
    """A unit whose graph names the same tokens (`graphs.similarity`)."""

    unit: Unit
    similarity: float
    own: float
    other: float


class Hit(NamedTuple):
    """A unit that a search found."""

    unit: Unit
    strength: float
    """Sum over the tokens asked for that it names, each in [0, 1]."""


class Hits(NamedTuple):
    """Some of what a search found."""

    total: int
    """How many units it found in all."""
    hits: tuple[Hit, ...]
