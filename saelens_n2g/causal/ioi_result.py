"""What an IOI analysis of a site found, all bases together.

result = IoiResult(site, performance(subject, task, held), massive, (curves, ...), config, provenance)
result.gap("held_out")                       # nats, with its interval over prompts
result.versus()                              # each dictionary against principal components, paired by prompt
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from saelens_n2g.causal.ioi import Performance
from saelens_n2g.causal.shares import apart
from saelens_n2g.causal.study import METHODS, SIDES, SIZES, Curves, IoiConfig, Massive, interval, side_of
from saelens_n2g.scoring import Summary, summarise
from saelens_n2g.sites import Site

FORMAT, VERSION = "saelens-n2g/ioi", 2
PASSES = 0.75
"""Share of texts on which a subject must prefer the right name for conclusions to be drawn."""


class Versus(NamedTuple):
    """What a dictionary closes more than principal components by as many features."""

    dictionary: str
    other: str
    method: str
    """One of `METHODS`."""
    k: int
    held_out: Summary | None
    """Closed by the dictionary - closed by the other, paired over held-out prompts; None where a side has no set."""
    fit: Summary | None
    """The same on the prompts that sets were chosen on."""

    def as_json(self) -> dict[str, Any]:
        """JSON values."""
        sides = {side: None if (one := getattr(self, side)) is None else interval(one) for side in SIDES}
        return {"dictionary": self.dictionary, "other": self.other, "method": self.method, "k": self.k, **sides}


@dataclass(frozen=True)
class IoiResult:
    """The whole analysis of one site."""

    site: Site
    performance: Performance
    massive: Massive
    curves: tuple[Curves, ...]
    config: IoiConfig
    provenance: Mapping[str, Any]

    @property
    def valid(self) -> bool:
        """Whether the subject does the task; if not, nothing may be concluded."""
        return self.performance.preferred >= PASSES

    @property
    def dictionaries(self) -> list[Curves]:
        """The bases that were measured as dictionaries, not principal components."""
        return [one for one in self.curves if "fvu" in one.facts]

    def gap(self, side: str) -> Summary:
        """KL(plain run || counterfactual run) in nats on one of `SIDES`, with its interval over prompts."""
        return summarise(side_of(self.curves[0].nothing, side).kls, seed=self.config.seed)

    def versus(self) -> list[Versus]:
        """Every dictionary against every other basis that is none, by both methods, at every size."""
        others = [one for one in self.curves if one not in self.dictionaries]
        return [
            self._versus(a, b, method, k)
            for a in self.dictionaries
            for b in others
            for method in METHODS
            for k in SIZES
        ]

    def _versus(self, a: Curves, b: Curves, method: str, k: int) -> Versus:
        ours, theirs = a.chosen(k)[method], b.chosen(k)[method]
        if ours is None or theirs is None:
            return Versus(a.name, b.name, method, k, None, None)
        held, fit = (
            apart(side_of(a.nothing, side), side_of(ours, side), side_of(theirs, side), seed=self.config.seed)
            for side in SIDES
        )
        return Versus(a.name, b.name, method, k, held, fit)

    def as_json(self) -> dict[str, Any]:
        """JSON values (docs/formats.md)."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "site": str(self.site),
            "performance": self.performance.as_json(),
            "valid": self.valid,
            "gap": {side: interval(self.gap(side)) for side in SIDES},
            "massive": self.massive._asdict(),
            "bases": [one.told(self.config.seed) for one in self.curves],
            "versus": [one.as_json() for one in self.versus()],
            "config": asdict(self.config),
            "differences": self.config.differences(),
            "provenance": dict(self.provenance),
        }
