"""The simulator `token-by-token`: one request a token, whose answer is one number.

The model's probabilities of the numbers it could have said give the expected activation (Bills et al. 2023). It costs a
whole prompt a token; most of it is the same each time, so that servers which keep prefixes do it for less. Without log
probabilities the number that was said counts, only if told so (`written=yes`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from saelens_n2g.autointerp.asking import Asker, Question, why
from saelens_n2g.autointerp.excerpts import Excerpt
from saelens_n2g.autointerp.numbers import VERSION, expected, number_of, opening, scale_of, shared, unknown_rows
from saelens_n2g.autointerp.predictors import Failure, Predicted, Prediction
from saelens_n2g.autointerp.registry import Options, only, yes_or_no
from saelens_n2g.autointerp.simulators import SIMULATORS
from saelens_n2g.clients import messages
from saelens_n2g.clients.messages import Message, Reply, Request

LIKELIEST = 20
"""Tokens whose probabilities are asked for."""
ORDER = "Answer with the activation that stands behind the last token, one whole number and nothing else.\n\n"


@dataclass(frozen=True)
class TokenByToken:
    """See the top of this file. `most`: the highest number; `written`: the number that is said counts, without log
    probabilities."""

    asker: Asker
    most: int
    written: bool = False
    name: str = "token-by-token"
    settings: Options = field(init=False)

    def __post_init__(self) -> None:
        given = {"scale": self.most, "written": self.written, "prompt": VERSION}
        object.__setattr__(self, "settings", {**given, "client": self.asker.identity})

    def simulate(self, explanation: str, excerpts: Sequence[Excerpt]) -> Predicted:
        """See `Simulator.simulate`."""
        asked = [Question(request, "0") for e in excerpts for request in self.requests(explanation, e)]
        replies, costs = self.asker.ask(asked)
        out: list[Prediction] = []
        for excerpt in excerpts:
            mine, replies = replies[: len(excerpt.ids)], replies[len(excerpt.ids) :]
            out.append(self._read(mine))
        return Predicted(out, costs)

    def requests(self, explanation: str, excerpt: Excerpt) -> list[Request]:
        """One for each token: the list up to it, ending where its number is to stand."""
        front, head = shared(self.most), opening(explanation)
        table, places = unknown_rows(excerpt.strings)
        texts = [f"{front}{head}{table[:at]}" for at in places]
        top = None if self.written else LIKELIEST
        if self.asker.able.completion:
            return [Request(prompt=text, max_tokens=1, logprobs=top, prefix=len(front)) for text in texts]
        return [Request(messages=(Message("user", ORDER + text),), max_tokens=1, logprobs=top) for text in texts]

    def _read(self, replies: Sequence[Reply]) -> Prediction:
        """The excerpt's activations; one token without a number is a failure of the excerpt."""
        values: list[float] = []
        for reply in replies:
            if isinstance(reply, messages.Failure):
                return Failure(why(reply))
            if self.written:
                number = number_of(reply.text, self.most)
                found = None if number is None else number / 10
            else:
                first = reply.logprobs[0] if reply.logprobs else None
                known = {} if first is None else {**dict(first.top), first.token: first.logprob}
                found = expected(known.items(), self.most)
            if found is None:
                return Failure(f"malformed: no number in {reply.text[:20]!r}")
            values.append(found)
        return np.array(values, dtype=np.float64)


def _make(options: Options, asker: Asker) -> TokenByToken:
    only("simulator token-by-token", options, ["scale", "written"])
    written = yes_or_no(options, "written", "simulator token-by-token")
    if not written and not asker.able.logprobs:
        expected_ = "a client that gives log probabilities of generated tokens, or the option written=yes"
        raise SIMULATORS.unserved("token-by-token", expected_, asker)
    return TokenByToken(asker, scale_of(asker, str(options.get("scale", "auto"))), written)


SIMULATORS.register_asking("token-by-token", _make)
