"""What running the graphs of a store over a text gives: plain values, and the JSON that is sent of them."""

from typing import Any, NamedTuple

from saelens_n2g.store.records import Place, Unit


class Text(NamedTuple):
    """A text as the model reads it, without BOS."""

    ids: tuple[int, ...]
    tokens: tuple[str, ...]
    """Text of each token; `<id>` where the store has no tokenizer."""


class Element(NamedTuple):
    """An element of a path, and where in the text it stands: the tokens from `start` to before `stop`, maybe none."""

    text: str
    """A token, `*`, `(..3)` for a gap of up to three, `{a|b}` for a class, `^` for the start of the text."""
    start: int
    stop: int


class Match(NamedTuple):
    """What a unit's graph predicts at one position, and why."""

    position: int
    activation: float
    """Share of the unit's maximum, in [0, 1]; small where the path that counts says that it stays quiet."""
    path: tuple[Element, ...] | None
    """The path that counts, in the order of the text, activating token last; None where paths were not asked
    for, or are too many."""


class Firing(NamedTuple):
    """A unit whose graph says that it fires in the text."""

    unit: Unit
    activation: float
    """The largest that its graph predicts."""
    fires: int
    """Positions at which it does."""
    matches: tuple[Match, ...]
    """Every position at which a path matches, ascending, those included where it stays quiet. Elsewhere the graph
    predicts 0."""

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        unit, best = self.unit, max(self.matches, key=lambda one: one.activation)
        return {
            "basis": unit.basis,
            "layer": unit.layer,
            "neuron": unit.index,
            "maximum": unit.figures["maximum"],
            "f1": unit.figures["f1"],
            "max_activation": self.activation,
            "max_activating_token_index": best.position,
            "fires": self.fires,
            "matches": [
                {
                    "token_index": one.position,
                    "activation": one.activation,
                    "path": None if one.path is None else [element._asdict() for element in one.path],
                }
                for one in self.matches
            ],
        }


class Covered(NamedTuple):
    """What fires in a text in one layer of a basis."""

    layer: Place
    graphs: int
    """How many were run."""
    units: tuple[int, ...]
    """Numbers of those that fire, ascending."""
    at: tuple[int, ...]
    """How many fire at each token of the text."""


class Matches(NamedTuple):
    """Which units fire in a text."""

    model: str
    text: Text
    graphs: int
    """How many were run."""
    total: int
    """Units that fire."""
    firings: tuple[Firing, ...]
    """Some of them, in the order asked for."""
    skipped: tuple[Place, ...]
    """Layers that were asked for and not run, or not all of them: their graphs are not compiled."""
    bare: int
    """Matches that are given without their path: all, where none were asked for, else those beyond the most."""
    covered: tuple[Covered, ...]
    """All that fires, layer by layer, whatever part of it is in `firings`; not in `to_dict`."""

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "model": self.model,
            "ids": list(self.text.ids),
            "tokens": list(self.text.tokens),
            "graphs": self.graphs,
            "total": self.total,
            "units": [one.to_dict() for one in self.firings],
            "skipped": [{"basis": place.basis, "layer": place.layer} for place in self.skipped],
            "paths_left_out": self.bare,
        }


class Predicted(NamedTuple):
    """What the graphs of chosen units predict on every token of a text."""

    model: str
    text: Text
    units: tuple[Unit, ...]
    activations: tuple[tuple[float, ...] | None, ...]
    """Of each unit, as shares of its maximum; None for one that has no graph."""

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        rows = [
            {
                "basis": unit.basis,
                "layer": unit.layer,
                "neuron": unit.index,
                "maximum": unit.figures["maximum"],
                "activations": None if values is None else list(values),
            }
            for unit, values in zip(self.units, self.activations, strict=True)
        ]
        return {"model": self.model, "ids": list(self.text.ids), "tokens": list(self.text.tokens), "units": rows}
