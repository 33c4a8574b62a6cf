"""ImportConfig: every choice of an import, from the files to how graphs are fitted."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from saelens_n2g.comparison.config import RunConfig
from saelens_n2g.errors import InputError
from saelens_n2g.imports.gather import FileFacts
from saelens_n2g.jobs.artefacts import fingerprint

FORMAT, VERSION = "saelens-n2g/import", 1
METHOD = 1
"""Raised by hand when the same settings give other results than before."""


@dataclass(frozen=True, kw_only=True)
class ImportConfig:
    """A whole import, but for the files."""

    run: RunConfig = field(default_factory=lambda: RunConfig(bases=("neurons",)))
    """Model, site, dictionary, method; its one basis is what the units belong to, its `layer` counts for a dictionary
    alone. `text` is scored on if `scored`."""
    layer: int | None = None
    """Layer of all units, in the place of what the files state; None believes them."""
    indices: tuple[int, ...] = ()
    """Units to import; empty for all."""
    units: int | None = None
    """Units to import at most, in the order of the files; None for all."""
    scored: bool = False
    """Whether graphs are also scored on all of the run's text, of which they know nothing."""
    test_share: float = 0.5
    """Share of a unit's texts that its graph is held against; Foote et al. halve them."""
    unchecked: bool = False
    """Whether units are kept that the model does not agree with."""

    def __post_init__(self) -> None:
        if len(self.run.bases) != 1 or self.run.bases[0] not in ("neurons", "sae"):
            raise InputError("basis of an import", "neurons or sae", ", ".join(self.run.bases))
        if not 0.0 < self.test_share < 1.0:
            raise InputError("option test_share", "a share between 0 and 1", str(self.test_share))
        if self.units is not None and self.units < 1:
            raise InputError("option units", "an integer >= 1", str(self.units))

    @property
    def basis(self) -> str:
        """Its name: `neurons` or `sae`."""
        return self.run.bases[0]

    def as_json(self) -> dict[str, Any]:
        """What goes into the provenance: the run's settings, its text only if it is scored on, and `import`."""
        value = self.run.as_json()
        own: dict[str, Any] = {"layer": self.layer, "indices": list(self.indices), "units": self.units}
        own |= {"test_share": self.test_share, "unchecked": self.unchecked}
        return {**value, "text": value["text"] if self.scored else None, "import": own}

    def key(self, files: Sequence[FileFacts]) -> str:
        """Fingerprint of what decides the result."""
        read = [[one.name, one.sha256] for one in files]
        return fingerprint(
            [METHOD, VERSION, self.run.key("explain", self.basis), self.as_json()["import"], self.scored, read]
        )
