"""Settings of a run that explains, simulates and scores."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from saelens_n2g.autointerp.calibration import METHODS, Method
from saelens_n2g.autointerp.explainers import EXPLAINERS
from saelens_n2g.autointerp.judge import Rules
from saelens_n2g.autointerp.predictors import predictors
from saelens_n2g.autointerp.reading import Reading
from saelens_n2g.autointerp.scorers import SCORERS
from saelens_n2g.autointerp.simulators import SIMULATORS
from saelens_n2g.clients.config import ClientConfig
from saelens_n2g.errors import InputError

VERSION = 2
"""Raised by hand when the same settings give other results than before: all is then computed again."""


@dataclass(frozen=True)
class InterpretConfig:
    """Who explains, who simulates, on how much."""

    explainers: tuple[str, ...] = ("templated",)
    """Names of explainers (`explainers.EXPLAINERS`), whose sentences every simulator of sentences reads."""
    simulators: tuple[str, ...] = ("graph", "table", "backoff", "quoted")
    """Names of predictors that need no sentence (`predictors.predictors()`) and of simulators of sentences
    (`simulators.SIMULATORS`)."""
    scorers: tuple[str, ...] = ()
    """Names of scorers that say whether sentences fit (`scorers.SCORERS`)."""
    client: ClientConfig | None = None
    """The language model that is asked; None where nothing asks one."""
    units: int | None = None
    """Units at most of each basis and layer, drawn at random; None takes all."""
    excerpts: int = 10
    """Test excerpts of a kind at most: so many strong ones, and so many random ones."""
    calibration: Method = "none"
    """Map from simulated to expected activations: none, linear or percentile."""
    hold_back: float = 0.25
    """Share of the fit documents kept for calibration where there is one; without calibration none is kept."""
    tolerated: float = 0.0
    """Share of a unit's excerpts that may fail to be predicted; above it the unit has a status and no score."""
    seed: int = 0
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Name of an explainer or simulator -> its options."""

    def __post_init__(self) -> None:
        for what, given, known in (
            ("explainers", self.explainers, EXPLAINERS.names()),
            ("simulators", self.simulators, (*predictors(), *SIMULATORS.names())),
            ("scorers", self.scorers, SCORERS.names()),
        ):
            if unknown := [name for name in given if name not in known] or len(set(given)) < len(given):
                found = f"{', '.join(unknown)}" if isinstance(unknown, list) else f"{', '.join(given)}"
                raise InputError(what, f"some of {', '.join(known)}, each once", found)
        if not self.simulators:
            raise InputError("simulators", "at least one", "none")
        if self.calibration not in METHODS:
            raise InputError("calibration", f"one of {', '.join(METHODS)}", repr(self.calibration))
        if self.excerpts < 1 or (self.units is not None and self.units < 1):
            raise InputError("excerpts and units", "at least one", f"{self.excerpts} and {self.units}")
        if self.seed < 0:
            raise InputError("seed", "a whole number >= 0", str(self.seed))
        if not (0 <= self.tolerated < 1 and 0 < self.hold_back < 1):
            found = f"{self.tolerated} and {self.hold_back}"
            raise InputError("tolerated and held back", "shares in [0, 1) and (0, 1)", found)
        if stray := sorted(set(self.options) - {*self.explainers, *self.simulators, *self.scorers}):
            raise InputError("options", "of explainers and simulators that are used", ", ".join(stray))

    @property
    def rules(self) -> Rules:
        """How predictions are judged."""
        return Rules(self.calibration, self.tolerated, self.seed)

    @property
    def reading(self) -> Reading:
        """How evidence is cut."""
        return Reading(self.excerpts, 0.0 if self.calibration == "none" else self.hold_back)

    def as_json(self) -> dict[str, Any]:
        """JSON values. Of the client its kind and model: the rest of what decides answers is in the settings of those
        who ask."""
        lists = {name: list(getattr(self, name)) for name in ("explainers", "simulators", "scorers")}
        client = None if self.client is None else {"kind": self.client.kind, "model": self.client.model}
        return {**asdict(self), **lists, "client": client}
