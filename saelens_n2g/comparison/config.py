"""RunConfig: every choice of a run, from the model's name to the number of units."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saelens_n2g.bases.foreign import dictionary_files
from saelens_n2g.comparison.results import VERSION
from saelens_n2g.comparison.units import UnitRule
from saelens_n2g.errors import InputError
from saelens_n2g.graphs.methods import DEFAULT, augments, find_method
from saelens_n2g.jobs.artefacts import fingerprint, sha256_of
from saelens_n2g.sites import Site, SiteKind
from saelens_n2g.training.config import TrainingConfig

if TYPE_CHECKING:
    from saelens_n2g.subject import Subject

METHOD = 3
"""Raised by hand when the same settings give other results than before; finished stages are then done again."""
BASES = ("neurons", "sae", "random", "pca", "ica")


@dataclass(frozen=True, kw_only=True)
class SubjectConfig:
    """Which model."""

    model: str = "embedded"
    """`embedded`, a folder in Hugging Face format, or a name that the hub and TransformerLens know."""
    revision: str | None = None
    """Branch, tag or commit on the hub; None takes the default."""
    device: str = "auto"
    """`auto` (a GPU if there is one), `cpu`, `cuda`, `cuda:1`."""
    dtype: str = "float32"
    """Precision of the subject: float32, bfloat16 or float16. Activations come out in float32."""
    bos: str = "auto"
    """`auto` (the tokenizer's), `none`, or an id."""

    def load(self) -> "Subject":
        """The model. Raises as `Subject.load` does."""
        from saelens_n2g.subject import Subject

        return Subject.load(
            self.model,
            device=self.device,
            dtype=self.dtype,  # type: ignore[arg-type]  # checked by Subject.load
            revision=self.revision,
            bos=self.bos,
        )


@dataclass(frozen=True, kw_only=True)
class TextConfig:
    """Which text."""

    corpus: str = "embedded"
    """`embedded`, `embedded:python`, `hf:NAME[@CONFIG][:SPLIT][#FIELD]`, a .txt or .jsonl file, or a folder of them."""
    tokens: int = 400_000
    """Tokens to use, windows drawn at random from the whole corpus; fewer if the corpus is smaller."""
    read: int = 20_000_000
    """Tokens to read from the corpus at most before drawing."""
    width: int = 128
    """Tokens per window, BOS included."""
    test_share: float = 0.25
    """Share of the tokens whose documents are kept for testing."""

    def __post_init__(self) -> None:
        if self.tokens < 1 or self.read < 1:
            raise InputError("option tokens", "an integer >= 1", str(min(self.tokens, self.read)))
        if not 0.0 < self.test_share < 1.0:
            raise InputError("option test_share", "a share between 0 and 1", str(self.test_share))


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """A whole run. The defaults are the demo's."""

    subject: SubjectConfig = field(default_factory=SubjectConfig)
    text: TextConfig = field(default_factory=TextConfig)
    layer: int = 1
    """Block whose neurons and residual stream are explained."""
    neurons: SiteKind = "mlp_post"
    """Site of the neurons; the coordinates of any other site can be looked at the same way."""
    stream: SiteKind = "resid_post"
    """Site of the dictionary and of the random, PCA and ICA directions."""
    bases: tuple[str, ...] = BASES
    """Which bases, in the order of the tables."""
    dictionary: str | None = None
    """Folder of a trained dictionary (SAELens, sparsify or dictionary_learning); None trains one."""
    training: TrainingConfig = field(
        default_factory=lambda: TrainingConfig(alpha=3e-3, lr=3e-3, batch=256, samples=1_200_000)
    )
    """Not the paper's alpha: see docs/decisions.md, "Training scale"."""
    rule: UnitRule = field(default_factory=UnitRule)
    exemplars: int = 20
    """Top windows per unit, for fitting and for testing each."""
    method: str = DEFAULT
    """How graphs are fitted: a name that `graphs.methods` knows."""
    options: Any = None
    """The method's settings, such as `PaperOptions(keep=0.4)`; None takes its defaults."""
    augmenter: str = "auto"
    """Who proposes substitutes where the method's options ask for any (`paper`): `auto` (BERT if it is on this machine,
    else `spellings+subject`), `spellings`, `subject`, `none`, or another name that `graphs.masked_lm.augmenter_for`
    knows. Other methods load none."""
    mask: str = "auto"
    """What a masked token becomes: `auto`, `pad` (the padding token) or a text that is one token (see `mask_id`)."""
    seed: int = 0

    def __post_init__(self) -> None:
        unknown = [name for name in self.bases if name not in BASES]
        if unknown or not self.bases:
            raise InputError("option bases", f"some of {', '.join(BASES)}", ", ".join(unknown) or "none")
        if self.exemplars < 1:
            raise InputError("option exemplars", "an integer >= 1", str(self.exemplars))
        Site(self.layer, self.stream)
        find_method(self.method).settings(self.options)

    @property
    def method_options(self) -> Any:
        """`options`, or the method's defaults."""
        return find_method(self.method).settings(self.options)

    def site(self, basis: str) -> Site:
        """Where a basis reads: neurons at `neurons`, the others at the stream."""
        return Site(self.layer, self.neurons if basis == "neurons" else self.stream)

    def as_json(self) -> dict[str, Any]:
        """All fields as JSON values, the method's options spelt out."""
        value: dict[str, Any] = json.loads(json.dumps({**asdict(self), "options": asdict(self.method_options)}))
        return value

    def key(self, stage: str, basis: str | None = None) -> str:
        """Fingerprint of what decides a stage's result; a finished stage with another key is done again."""
        from saelens_n2g import __version__

        every = self.as_json()
        local = {name: _on_disk(name) for name in (self.subject.model, self.text.corpus)}
        text = {
            "version": [__version__, METHOD, VERSION],
            "text": every["text"],
            "subject": every["subject"],
            "local": local,
        }
        text["seed"] = self.seed
        sites = {"layer": self.layer, "stream": self.stream, "neurons": self.neurons, "rule": every["rule"]}
        learnt = [self.training.identity(), self.training.samples] if self.dictionary is None else self._given()
        given = learnt if basis == "sae" else []
        fit = {name: every[name] for name in ("method", "options", "mask")}
        fit["augmenter"] = self.augmenter if augments(self.method_options) else None
        parts: dict[str, list[Any]] = {
            "text": [text],
            "dictionary": [text, self.layer, self.stream, learnt],
            "units": [text, sites, given, self.exemplars, basis],
            "explain": [text, sites, given, self.exemplars, fit, basis],
            "report": [text, sites, learnt, self.exemplars, fit, list(self.bases)],
        }
        return fingerprint([stage, *parts[stage]])

    def _given(self) -> list[str]:
        """What a dictionary from elsewhere is, so that another one in the same place is not taken for it."""
        files = [Path(self.dictionary or "") / name for name in sorted(dictionary_files())]
        return [str(self.dictionary), *(sha256_of(path) if path.is_file() else "missing" for path in files)]


def _on_disk(name: str) -> list[list[str | int]]:
    """Names, sizes and times of change of a local file or folder, so that new content is not taken for the old."""
    path = Path(name)
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path] if path.is_file() else []
    return [[p.name, p.stat().st_size, p.stat().st_mtime_ns] for p in files]
