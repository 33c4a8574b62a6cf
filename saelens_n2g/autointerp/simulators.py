"""Simulators: what reads a sentence and says how much the unit it describes fires on each token.

A simulator is made by name, with its options, from a registry; a file that brings a new one registers it:

    register_simulator("mine", lambda options: Mine(float(options.get("scale", 1))))
    simulator = make_simulator("mine", {"scale": 2})
    simulator.simulate("words for colours", excerpts).predictions

It never sees an activation: `hidden` takes them off the excerpts before a simulator gets them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np

from saelens_n2g.autointerp.asking import Asker, Askers
from saelens_n2g.autointerp.excerpts import Excerpt
from saelens_n2g.autointerp.predictors import Failure, Predicted, Prediction
from saelens_n2g.errors import InputError

NEUTRAL = "something"
"""The explanation that says nothing: what a simulator predicts of it has nothing to do with the unit."""
Options = Mapping[str, Any]


@runtime_checkable
class Simulator(Protocol):
    """Reads sentences."""

    @property
    def name(self) -> str:
        """As registered."""
        ...

    @property
    def settings(self) -> Options:
        """Everything that decides what it predicts, as JSON values: model, prompt version, scale. Answers are stored
        under it, so that another value is another simulator."""
        ...

    def simulate(self, explanation: str, excerpts: Sequence[Excerpt]) -> Predicted:
        """For each excerpt the expected share of the unit's maximum per token, finite, or a `Failure`; costs beside.

        All excerpts come at once, so that a simulator may batch them. Activations in them are zeros.
        """
        ...


Factory = Callable[[Options], Simulator]
"""Makes a simulator from its options. Raises `InputError` for options that cannot be, or where something it needs is
not installed."""
_FACTORIES: dict[str, Factory] = {}
ASKING: Askers[Simulator] = Askers("simulator")
"""Simulators that ask a language model."""


def register_simulator(name: str, factory: Factory) -> None:
    """Make a simulator known by name. Raises `InputError` if the name is taken."""
    if name in _FACTORIES or name in ASKING.makers:
        raise InputError(f"simulator {name!r}", "a name that is free", "one that is taken")
    _FACTORIES[name] = factory


def simulators() -> tuple[str, ...]:
    """Names of all simulators."""
    _known()
    return (*_FACTORIES, *ASKING.makers)


def make_simulator(name: str, options: Options | None = None, asker: Asker | None = None) -> Simulator:
    """The simulator of that name. Raises `InputError` if there is none, if it asks a language model and `asker` is not
    given or cannot serve it, or as its factory does."""
    if name not in simulators():
        raise InputError(f"simulator {name!r}", f"one of {', '.join(simulators())}", repr(name))
    return ASKING.make(name, options or {}, asker) if name in ASKING.makers else _FACTORIES[name](options or {})


def _known() -> None:
    """The files that bring simulators with the package."""
    from saelens_n2g.autointerp import (  # noqa: F401  (they register themselves)
        all_at_once,
        embedding,
        quoted,
        structured,
        token_by_token,
    )


def only(name: str, options: Options, known: Sequence[str]) -> None:
    """Raise `InputError` if there are options that `name` does not know."""
    if unknown := sorted(set(options) - set(known)):
        raise InputError(f"options of {name}", ", ".join(known) or "none", ", ".join(unknown))


def hidden(excerpts: Sequence[Excerpt]) -> list[Excerpt]:
    """The excerpts without what they are to be predicted: activations are zeros."""
    return [replace(e, activations=np.zeros(len(e.ids))) for e in excerpts]


@dataclass(frozen=True, eq=False)
class SentencePredictor:
    """A sentence with its simulator: a predictor like any other."""

    sentence: str
    simulator: Simulator

    def predict(self, excerpts: Sequence[Excerpt]) -> Predicted:
        """See `predictors.Predictor.predict`. Raises `InputError` for a simulator that leaves excerpts out."""
        found = self.simulator.simulate(self.sentence, hidden(excerpts))
        return Predicted(checked(self.simulator.name, excerpts, found.predictions), found.costs)


def checked(name: str, excerpts: Sequence[Excerpt], predictions: Sequence[Prediction]) -> list[Prediction]:
    """The predictions, where one that is misshapen or not finite is a failure. Raises `InputError` for too few."""
    if len(predictions) != len(excerpts):
        raise InputError(f"simulator {name}", f"{len(excerpts)} predictions", str(len(predictions)))
    return [_sound(e, p) for e, p in zip(excerpts, predictions, strict=True)]


def _sound(excerpt: Excerpt, found: Prediction) -> Prediction:
    if isinstance(found, Failure):
        return found
    if found.shape != excerpt.activations.shape:
        return Failure(f"{found.size} values for {len(excerpt.ids)} tokens")
    return found if np.isfinite(found).all() else Failure("values that are not finite")
