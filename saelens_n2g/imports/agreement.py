"""Agreement: published activations beside the model's, so that no graph is fitted to one unit by asking another."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from saelens_n2g.bases.base import Basis
from saelens_n2g.exemplars import Exemplar
from saelens_n2g.scoring.graded import correlation
from saelens_n2g.sites import Site

SAMPLE = 8
"""Texts of a unit that are run through the model."""
CORRELATION = 0.9
"""Least correlation of both sides over the tokens of the sample."""
SCALE = (0.8, 1.25)
"""Bounds of the factor between them: a graph asks the model and is told activations on the model's scale."""
TOKENS = 4096
"""Tokens of one forward pass at most, unless a single text is longer."""


class Agreement(NamedTuple):
    """One unit on a sample of its texts."""

    texts: int
    tokens: int
    correlation: float | None
    """None where a side is the same on all tokens."""
    scale: float
    """The factor that turns published activations into the model's, by least squares."""
    largest_difference: float
    published_max: float
    model_max: float

    @property
    def good(self) -> bool:
        """Whether it can be the same unit."""
        return self.correlation is not None and self.correlation >= CORRELATION and SCALE[0] <= self.scale <= SCALE[1]

    def in_words(self) -> str:
        """For errors and reports."""
        r = "undefined" if self.correlation is None else f"{self.correlation:.3f}"
        largest = f"largest {self.published_max:.4g} published, {self.model_max:.4g} in the model"
        return f"correlation {r}, factor {self.scale:.3g}, {largest}"


@runtime_checkable
class Model(Protocol):
    """What is needed of a subject."""

    bos_id: int | None

    @property
    def pad_id(self) -> int: ...
    def activations(self, ids: Int[Tensor, "batch pos"], sites: Sequence[Site]) -> dict[Site, Any]: ...


def sample(exemplars: Sequence[Exemplar], n: int = SAMPLE) -> list[Exemplar]:
    """At most `n` of them, evenly from the strongest to the weakest."""
    ranked = sorted(exemplars, key=lambda one: (-float(one.activations.max()), one.window))
    places = np.linspace(0, len(ranked) - 1, min(n, len(ranked))).round().astype(int)
    return [ranked[at] for at in dict.fromkeys(places.tolist())]


def agreement(subject: Model, basis: Basis, index: int, exemplars: Sequence[Exemplar]) -> Agreement:
    """Run a sample of the exemplars through the subject and compare unit `index` of `basis` with what was published."""
    texts = sample(exemplars)
    model = np.concatenate([values for batch in _batches(texts) for values in _run(subject, basis, index, batch)])
    told = np.concatenate([one.activations for batch in _batches(texts) for one in batch])
    square = float(np.square(told, dtype=np.float64).sum())
    return Agreement(
        len(texts),
        len(told),
        correlation(told, model),
        float((told.astype(np.float64) * model).sum()) / square,
        float(np.abs(told - model).max()),
        float(told.max()),
        float(model.max()),
    )


def _batches(texts: Sequence[Exemplar]) -> Iterator[list[Exemplar]]:
    batch: list[Exemplar] = []
    for one in texts:
        if batch and (len(batch) + 1) * max(len(other.tokens) + 1 for other in (*batch, one)) > TOKENS:
            yield batch
            batch = []
        batch.append(one)
    yield batch


def _run(subject: Model, basis: Basis, index: int, batch: Sequence[Exemplar]) -> list[Float[np.ndarray, "token"]]:
    front = [] if subject.bos_id is None else [subject.bos_id]
    width = len(front) + max(len(one.tokens) for one in batch)
    ids = torch.full((len(batch), width), subject.pad_id, dtype=torch.long)
    for row, one in enumerate(batch):
        ids[row, : len(front) + len(one.tokens)] = torch.tensor([*front, *one.tokens])
    x = subject.activations(ids, [basis.site])[basis.site]
    values = basis.encode_features(x, torch.tensor([index], device=x.device))[..., 0].float().cpu().numpy()
    return [values[row, len(front) : len(front) + len(one.tokens)] for row, one in enumerate(batch)]
