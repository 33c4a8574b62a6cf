"""Simulators: what reads a sentence and says how much the unit it describes fires on each token.

A simulator is made by name, with its options, from a registry; a file that brings a new one registers it:

    SIMULATORS.register("mine", lambda options: Mine(float(options.get("scale", 1))))
    simulator = SIMULATORS.make("mine", {"scale": 2})
    simulator.simulate("words for colours", excerpts).predictions

It never sees an activation: `hidden` takes them off the excerpts before a simulator gets them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import numpy as np

from saelens_n2g.autointerp.excerpts import Excerpt
from saelens_n2g.autointerp.predictors import Failure, Predicted, Prediction
from saelens_n2g.autointerp.registry import Options, Registry
from saelens_n2g.errors import InputError

NEUTRAL = "something"
"""The explanation that says nothing: what a simulator predicts of it has nothing to do with the unit."""


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


SIMULATORS: Registry[Simulator] = Registry(
    "simulator", "quoted", "embedding", "all_at_once", "token_by_token", "structured"
)
"""All of them."""


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
