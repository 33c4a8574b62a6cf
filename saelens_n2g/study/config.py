"""StudyConfig: every choice of a study, and which part of its results each choice decides."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from saelens_n2g.comparison.config import RunConfig, TextConfig
from saelens_n2g.comparison.units import UnitRule
from saelens_n2g.errors import InputError
from saelens_n2g.jobs.artefacts import fingerprint
from saelens_n2g.sites import Site
from saelens_n2g.training.architectures.registry import find_architecture
from saelens_n2g.training.config import TrainingConfig

VERSION = 2
"""Raised by hand when the same settings give other results than before; finished parts are then done again."""
PLAIN = ("neurons", "pca", "ica", "random")
"""Bases that are no dictionaries."""
SHUFFLED = "shuffled"
"""The control: the graphs of other units of the same basis and layer."""
NAME = re.compile(r"[a-z][a-z0-9]*(-[A-Za-z0-9.]+)*")
TRAINING = TrainingConfig(
    alpha=3e-3, lr=3e-3, batch=256, samples=200_000, clip=10.0, wandb="disabled", checkpoint_every=200
)
"""What the variants have in common; see docs/decisions.md, "Training scale"."""


def variant(name: str, base: TrainingConfig = TRAINING) -> TrainingConfig:
    """The settings that a name such as `tied-R2` or `topk-R4` stands for: architecture and expansion.

    Raises `InputError` for a name of another form or an unknown architecture.
    """
    found = re.fullmatch(r"([a-z]+)-R(\d+(?:\.\d+)?)", name)
    if found is None:
        raise InputError("name of a dictionary", "ARCHITECTURE-R and the expansion, such as tied-R4", repr(name))
    return replace(base, architecture=find_architecture(found[1]).name, expansion=float(found[2]))


def seed_of(seed: int, layer: int) -> int:
    """The seed of the order in which units of a layer are examined: with one order for all layers a study would look at
    the same few ranks of principal components everywhere."""
    return int(fingerprint([seed, layer])[:8], 16)


def _variants() -> dict[str, TrainingConfig | str]:
    return {name: variant(name) for name in ("tied-R2", "tied-R4", "topk-R4")}


@dataclass(frozen=True, kw_only=True)
class StudyConfig:
    """Every choice of a study. Raises `InputError` for what cannot be."""

    run: RunConfig = field(
        default_factory=lambda: RunConfig(
            text=TextConfig(tokens=200_000, width=129), rule=UnitRule(units=16, max_density=0.05)
        )
    )
    """Model, text, rule of units, exemplars, method, seed. Its layer, bases, training and dictionary are not read."""
    layers: tuple[int, ...] = (0, 1, 2, 3, 6, 12)
    """Which layers, in the order of the tables."""
    dictionaries: Mapping[str, TrainingConfig | str] = field(default_factory=_variants)
    """Dictionaries by name: settings of one to train, or the folder of one that is there, `{layer}` standing for the
    layer. Those that are trained share batch, samples and seed: one pass over the activations serves all."""
    bases: tuple[str, ...] = PLAIN
    """Which of `PLAIN` stand beside the dictionaries."""
    caliper: float = 0.25
    """Units are matched if their densities are at most so many decades (log10) apart."""
    exemplar_caliper: int = 4
    """Units are matched if their numbers of exemplars are at most so far apart."""
    twin: float = 0.95
    """Cosine of directions, or of activations over the text, above which two features of a basis are one twice."""
    fragment: int = 64
    """Tokens of a fragment, for the interpretability score."""
    fragments: int = 20
    """Fragments of each kind (strongest; random of those with any activation) for the interpretability score."""
    uniform: int = 200
    """Fragments drawn without looking at activations, the same for every unit."""
    nonzero: int = 16
    """Random non-zero activations for fitting and for recall each, in the protocol of Gao et al."""

    def __post_init__(self) -> None:
        if not self.layers or len(set(self.layers)) < len(self.layers):
            raise InputError("option layers", "layers, each once", str(self.layers))
        unknown = [name for name in self.bases if name not in PLAIN]
        if unknown or len(set(self.bases)) < len(self.bases) or not self.names:
            raise InputError("option bases", f"some of {', '.join(PLAIN)}, each once", ", ".join(self.bases) or "none")
        for name, given in self.dictionaries.items():
            if name in (*PLAIN, SHUFFLED) or not NAME.fullmatch(name):
                raise InputError("name of a dictionary", "a word such as tied-R4, no other basis' name", repr(name))
            if isinstance(given, str) and "{layer}" not in given and len(self.layers) > 1:
                raise InputError(f"dictionary {name}", "a folder for each layer, such as runs/sae-{layer}", given)
        shared = {(t.batch, t.samples, t.seed, t.precision) for t in self.trained.values()}
        if len(shared) > 1:
            raise InputError("dictionaries to train", "the same batch, samples, seed and precision", f"{len(shared)}")
        for name in ("fragment", "fragments", "uniform", "nonzero"):
            if getattr(self, name) < 1:
                raise InputError(f"option {name}", "an integer >= 1", str(getattr(self, name)))
        if self.fragment >= self.run.text.width:
            raise InputError("option fragment", f"less than the window of {self.run.text.width}", str(self.fragment))
        if not self.caliper > 0 or self.exemplar_caliper < 0 or not 0 < self.twin < 1:
            found = f"{self.caliper}, {self.exemplar_caliper}, {self.twin}"
            raise InputError("options caliper, exemplar caliper, twin", "above 0, >= 0, a cosine below 1", found)
        for layer in self.layers:
            Site(layer, self.run.stream)

    @property
    def trained(self) -> dict[str, TrainingConfig]:
        """The dictionaries that the study trains."""
        return {name: given for name, given in self.dictionaries.items() if isinstance(given, TrainingConfig)}

    @property
    def names(self) -> tuple[str, ...]:
        """All bases in the order of the tables: neurons, dictionaries, the others."""
        plain = [name for name in PLAIN if name in self.bases]
        return (*plain[: "neurons" in plain], *self.dictionaries, *plain["neurons" in plain :])

    def at(self, layer: int, basis: str) -> RunConfig:
        """The settings of one basis of one layer."""
        given = self.dictionaries.get(basis)
        return replace(
            self.run,
            layer=layer,
            rule=replace(self.run.rule, seed=seed_of(self.run.rule.seed, layer)),
            bases=("sae" if given is not None else basis,),
            training=given if isinstance(given, TrainingConfig) else self.run.training,
            dictionary=given.replace("{layer}", str(layer)) if isinstance(given, str) else None,
        )

    def key(self, layer: int, basis: str) -> str:
        """Fingerprint of what decides one cell: a basis of a layer."""
        own = self.at(layer, basis).key("explain", "sae" if basis in self.dictionaries else basis)
        fragments = [self.fragment, self.fragments, self.uniform]
        return fingerprint([VERSION, own, basis, fragments, self.nonzero, self.twin])

    def training_key(self) -> str:
        """Fingerprint of what decides the dictionaries that are trained."""
        known = {name: [t.identity(), t.samples] for name, t in self.trained.items()}
        text = self.at(self.layers[0], self.names[0]).key("text")
        return fingerprint([VERSION, text, list(self.layers), self.run.stream, known])

    def report_key(self) -> str:
        """Fingerprint of what decides the report."""
        cells = [[layer, name, self.key(layer, name)] for layer in self.layers for name in self.names]
        return fingerprint([VERSION, cells, self.caliper, self.exemplar_caliper])

    def as_json(self) -> dict[str, Any]:
        """All fields as JSON values; of the run what a study reads."""
        run = self.run.as_json()
        own = {k: v for k, v in run.items() if k not in ("layer", "bases", "training", "dictionary")}
        kinds = {n: g if isinstance(g, str) else g.as_json() for n, g in self.dictionaries.items()}
        rest = ("caliper", "exemplar_caliper", "twin", "fragment", "fragments", "uniform", "nonzero")
        parts = {"layers": list(self.layers), "bases": list(self.bases), "dictionaries": kinds}
        return {"run": own, **parts, **{name: getattr(self, name) for name in rest}}
