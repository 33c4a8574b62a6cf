"""Sentence encoders: texts to vectors, by any model of sentence-transformers, an optional package.

Which model is the option `model` of what uses it: a folder, or a name of the hub. Nothing is fetched unless it is not
on the machine, and nothing is loaded before the first text; two who name the same model share it.
"""

import functools
import importlib
import importlib.util
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from saelens_n2g.autointerp.registry import Options, only
from saelens_n2g.errors import InputError

MODEL = "sentence-transformers/all-MiniLM-L6-v2"
MOST = 2**28
"""Bytes of vectors that are remembered."""


@runtime_checkable
class Encoder(Protocol):
    """What makes vectors of texts."""

    def encode(self, texts: Sequence[str]) -> Float[np.ndarray, "text dim"]:
        """One vector for each text, of any length above 0."""
        ...


@dataclass(frozen=True)
class SentenceTransformer:
    """A model of sentence-transformers, on the device that it chooses itself. Raises `InputError` where the package is
    not installed, and at the first text if there is no such model.

    Lists of texts that were encoded are remembered as whole lists: a sentence and its controls are held against the
    same ones. Single texts are not, since a vector depends in its last bits on what is encoded beside it, and a run
    that is resumed has to end with the same ones.
    """

    model: str
    remembered: "OrderedDict[tuple[str, ...], np.ndarray]" = field(default_factory=OrderedDict, repr=False)

    def __post_init__(self) -> None:
        if importlib.util.find_spec("sentence_transformers") is None:
            found = "not installed: pip install sentence-transformers"
            raise InputError(f"encoder {self.model!r}", "the package sentence-transformers", found)

    def encode(self, texts: Sequence[str]) -> Float[np.ndarray, "text dim"]:
        """See `Encoder.encode`."""
        key = tuple(texts)
        if key not in self.remembered:
            found = _loaded(self.model).encode(list(texts), show_progress_bar=False)
            self.remembered[key] = np.asarray(found, dtype=np.float32)
            while sum(one.nbytes for one in self.remembered.values()) > MOST and len(self.remembered) > 1:
                self.remembered.popitem(last=False)
        self.remembered.move_to_end(key)
        return self.remembered[key].astype(np.float64)


@functools.lru_cache(maxsize=1)
def _loaded(model: str) -> Any:
    from saelens_n2g.booting import quiet

    try:
        with quiet():
            return importlib.import_module("sentence_transformers").SentenceTransformer(model)
    except (OSError, ValueError, KeyError) as error:
        found = " ".join(str(error).split())[:200]
        raise InputError(f"encoder {model!r}", "a model of sentence-transformers", found) from error


def files_of(model: str) -> list[list[str | int]]:
    """Name, size and time of change of the files of a model that is a folder, since another one may be put into its
    place; none for a name of the hub."""
    folder = Path(model)
    some = sorted(p for p in folder.rglob("*") if p.is_file()) if folder.is_dir() else []
    return [[str(p.relative_to(folder)), p.stat().st_size, p.stat().st_mtime_ns] for p in some]


def encoder_of(who: str, options: Options) -> SentenceTransformer:
    """The encoder that the options of `who` name. Raises `InputError` for other options, and as the encoder does."""
    only(who, options, ["model"])
    return SentenceTransformer(str(options.get("model", MODEL)))


def cosines(encoder: Encoder, text: str, others: Sequence[str]) -> Float[np.ndarray, "other"]:
    """Cosine of a text with each of several others, which are encoded once where they repeat, and without the text,
    so that they are the same whatever they are held against; 0 for a vector of zeros."""
    distinct = list(dict.fromkeys(others))
    (one,), vectors = encoder.encode([text]), encoder.encode(distinct)
    lengths = np.linalg.norm(vectors, axis=1) * np.linalg.norm(one)
    found = vectors @ one / np.maximum(lengths, np.finfo(float).tiny)
    known = dict(zip(distinct, found.tolist(), strict=True))
    return np.array([known[other] for other in others], dtype=np.float64)
