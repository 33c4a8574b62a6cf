"""The simulator `embedding`: how much a word means what the sentence means, by a sentence encoder.

Each token is read in its word (the token with its neighbours up to the next space), and predicted by the cosine of the
word's embedding and the sentence's, at least 0. It knows nothing of contexts, negation or spelling: on puzzles it tells
topics apart and fails elsewhere (docs/autointerp.md). The encoder is any model of sentence-transformers, an optional
package; nothing is fetched unless it is not on the machine.
"""

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from saelens_n2g.autointerp.excerpts import Excerpt
from saelens_n2g.autointerp.predictors import Predicted
from saelens_n2g.autointerp.registry import Options, only
from saelens_n2g.autointerp.simulators import SIMULATORS
from saelens_n2g.errors import InputError

MODEL = "sentence-transformers/all-MiniLM-L6-v2"


@runtime_checkable
class Encoder(Protocol):
    """What makes vectors of texts."""

    def encode(self, texts: Sequence[str]) -> Float[np.ndarray, "text dim"]:
        """One vector for each text, of any length above 0."""
        ...


@dataclass(frozen=True)
class Embedding:
    """See the top of this file."""

    encoder: Encoder
    settings: Options
    name: str = "embedding"

    def simulate(self, explanation: str, excerpts: Sequence[Excerpt]) -> Predicted:
        """See `Simulator.simulate`."""
        words = [words_of(e.strings) for e in excerpts]
        distinct = list(dict.fromkeys(word for several in words for word in several))
        vectors = self.encoder.encode([explanation, *distinct])
        lengths = np.linalg.norm(vectors, axis=1)
        cosines = vectors[1:] @ vectors[0] / np.maximum(lengths[1:] * lengths[0], np.finfo(float).tiny)
        known = dict(zip(distinct, np.maximum(cosines, 0.0).tolist(), strict=True))
        return Predicted([np.array([known[word] for word in several]) for several in words])


def words_of(strings: Sequence[str]) -> list[str]:
    """Per token the word it is in: tokens up to the next that begins with a space, joined and stripped."""
    starts = [i for i, s in enumerate(strings) if i == 0 or not s or s[0].isspace()]
    ends = [*starts[1:], len(strings)]
    out: list[str] = []
    for start, end in zip(starts, ends, strict=True):
        out += ["".join(strings[start:end]).strip()] * (end - start)
    return out


def _make(options: Options) -> Embedding:
    only("simulator embedding", options, ["model"])
    model = str(options.get("model", MODEL))
    try:
        module: Any = importlib.import_module("sentence_transformers")
    except ImportError:
        found = "not installed: pip install sentence-transformers"
        raise InputError("simulator embedding", "the package sentence-transformers", found) from None
    return Embedding(_Numpy(module.SentenceTransformer(model)), {"model": model, "version": 1})


@dataclass(frozen=True)
class _Numpy:
    """A sentence-transformers model as an `Encoder`."""

    model: Any

    def encode(self, texts: Sequence[str]) -> Float[np.ndarray, "text dim"]:
        return np.asarray(self.model.encode(list(texts), show_progress_bar=False), dtype=np.float64)


SIMULATORS.register("embedding", _make)
