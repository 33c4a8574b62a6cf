"""The simulator and the scorer `embedding`: how much a text means what the sentence means, by a sentence encoder.

Simulator: each token is read in its word (the token with its neighbours up to the next space), and predicted by the
cosine of the word's embedding and the sentence's, at least 0. Scorer: whole excerpts by their cosine with the sentence,
those that fire against those that do not, as AUC (after the embedding scorer of Paulo et al. 2024, arXiv 2410.13928);
a cosine has no threshold of its own, so there is no accuracy. Both know nothing of contexts, negation or spelling: on
puzzles they tell topics apart and fail elsewhere (docs/autointerp.md).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from saelens_n2g.autointerp.detection import answers
from saelens_n2g.autointerp.encoders import Encoder, cosines, encoder_of, files_of
from saelens_n2g.autointerp.excerpts import Evidence, Excerpt, distinct
from saelens_n2g.autointerp.judge import Rules
from saelens_n2g.autointerp.predictors import Failure, Predicted
from saelens_n2g.autointerp.registry import Options
from saelens_n2g.autointerp.scorers import SCORERS, Scored
from saelens_n2g.autointerp.simulators import SIMULATORS
from saelens_n2g.autointerp.wording import words_of
from saelens_n2g.scoring import firing

VERSION = 1


@dataclass(frozen=True)
class Embedding:
    """Simulator and scorer; see the top of this file."""

    encoder: Encoder
    model: str
    name: str = "embedding"

    @property
    def settings(self) -> Options:
        """The encoder's model, with its files where it is a folder."""
        return {"model": self.model, "files": files_of(self.model), "version": VERSION}

    def simulate(self, explanation: str, excerpts: Sequence[Excerpt]) -> Predicted:
        """See `Simulator.simulate`."""
        words = [words_of(e.strings) for e in excerpts]
        found = np.maximum(cosines(self.encoder, explanation, [word for several in words for word in several]), 0.0)
        return Predicted(np.split(found, np.cumsum([len(several) for several in words])[:-1]))

    def score(self, explanation: str, evidence: Evidence, rules: Rules) -> Scored | Failure:  # noqa: ARG002  (protocol)
        """See `scorers.Scorer.score`."""
        excerpts = distinct(evidence.of("test"))
        if not excerpts:
            return Failure("no excerpt to score on", again=False)
        true = np.array([bool(firing(e.activations, evidence.threshold).any()) for e in excerpts])
        values = cosines(self.encoder, explanation, ["".join(e.strings) for e in excerpts])
        return Scored(answers(true, values, 0.5)._replace(balanced_accuracy=None, f1=None), {})


def _of(kind: str) -> Callable[[Options], Embedding]:
    """Makes one from its options, for the registry of that kind."""

    def make(options: Options) -> Embedding:
        encoder = encoder_of(f"{kind} embedding", options)
        return Embedding(encoder, encoder.model)

    return make


SIMULATORS.register("embedding", _of("simulator"))
SCORERS.register("embedding", _of("scorer"))
