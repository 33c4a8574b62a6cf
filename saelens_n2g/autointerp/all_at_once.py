"""The simulator `all-at-once`: one reading of a list of tokens says what is expected behind each of them.

After Bills et al. 2023 and their code: the list has `?` behind every token; at each of these places the model's
probabilities of the numbers give the expected activation. It costs one prompt an excerpt and no answer, and needs a
client that gives log probabilities of the prompt.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from saelens_n2g.autointerp.asking import Asker, Question, why
from saelens_n2g.autointerp.excerpts import Excerpt
from saelens_n2g.autointerp.numbers import VERSION, expected, opening, scale_of, shared, unknown_rows
from saelens_n2g.autointerp.predictors import Failure, Predicted, Prediction
from saelens_n2g.autointerp.registry import Options, only
from saelens_n2g.autointerp.simulators import SIMULATORS
from saelens_n2g.clients import messages
from saelens_n2g.clients.messages import Message, PromptWish, Reply, Request


@dataclass(frozen=True)
class AllAtOnce:
    """See the top of this file. `most`: the highest number, 10 or 9."""

    asker: Asker
    most: int
    name: str = "all-at-once"
    settings: Options = field(init=False)

    def __post_init__(self) -> None:
        settings = {"scale": self.most, "prompt": VERSION, "client": self.asker.identity}
        object.__setattr__(self, "settings", settings)

    def simulate(self, explanation: str, excerpts: Sequence[Excerpt]) -> Predicted:
        """See `Simulator.simulate`."""
        replies, costs = self.asker.ask([Question(self.request(explanation, e), "") for e in excerpts])
        return Predicted([self._read(reply) for reply in replies], costs)

    def request(self, explanation: str, excerpt: Excerpt) -> Request:
        """The list of an excerpt's tokens behind the description."""
        front, (table, places) = shared(self.most), unknown_rows(excerpt.strings)
        head = front + opening(explanation)
        wish = PromptWish(tuple(len(head) + at for at in places), tuple(str(n) for n in range(self.most + 1)))
        if self.asker.able.completion:
            return Request(prompt=head + table, max_tokens=0, prompt_logprobs=wish, prefix=len(front))
        return Request(messages=(Message("user", head + table),), max_tokens=0, prompt_logprobs=wish)

    def _read(self, reply: Reply) -> Prediction:
        """Expected activations; a place at which no number is known is a failure of the excerpt."""
        if isinstance(reply, messages.Failure):
            return Failure(why(reply))
        found = [expected(slot.candidates, self.most) for slot in reply.prompt_logprobs]
        if any(value is None for value in found):
            return Failure("malformed: no number among the likeliest tokens")
        return np.array(found, dtype=np.float64)


def _make(options: Options, asker: Asker) -> AllAtOnce:
    only("simulator all-at-once", options, ["scale"])
    return AllAtOnce(asker, scale_of(asker, str(options.get("scale", "auto"))))


SIMULATORS.register_asking("all-at-once", _make, "prompt_logprobs")
