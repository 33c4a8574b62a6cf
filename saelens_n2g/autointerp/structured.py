"""The simulator `structured`: one answer in JSON with a number for each token. Any chat model can serve it.

Every token is said again beside its number, so that an answer which has lost its place is found out: a token too many,
too few or another one, or what is no number, is a failure of the excerpt and never zeros.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from saelens_n2g.autointerp.asking import Asker, Question, why
from saelens_n2g.autointerp.excerpts import Excerpt
from saelens_n2g.autointerp.predictors import Failure, Predicted, Prediction
from saelens_n2g.autointerp.registry import Options, only
from saelens_n2g.autointerp.simulators import SIMULATORS
from saelens_n2g.autointerp.wording import EXAMPLES, Talk, described, scaled, shown
from saelens_n2g.clients import messages
from saelens_n2g.clients.counting import estimated
from saelens_n2g.clients.messages import Reply, Request

VERSION = 1
MOST = 10
SYSTEM = (
    "A unit of a language model gives each token of a text an activation, a whole number from 0 (quiet) to 10 "
    "(strongest). You get a description of what the unit fires on, and the tokens of a text as a JSON list. Answer "
    'with one JSON object {"activations": [{"token": ..., "activation": ...}, ...]} that has every token of the list, '
    "in order and unchanged, with the activation that fits the description. Most activations are 0. Write nothing else."
)
SCHEMA = json.dumps(
    {
        "type": "object",
        "properties": {
            "activations": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {"token": {"type": "string"}, "activation": {"type": "integer"}},
                    "required": ["token", "activation"],
                    "additionalProperties": False,
                },
            }
        },
        "required": ["activations"],
        "additionalProperties": False,
    }
)


def question(description: str, strings: Sequence[str]) -> str:
    """What is asked about one text."""
    tokens = json.dumps([shown(token) for token in strings], ensure_ascii=False)
    return f"Description: {described(description)}\nTokens: {tokens}"


def written(strings: Sequence[str], values: Sequence[int]) -> str:
    """An answer as it should be."""
    pairs = [{"token": shown(token), "activation": value} for token, value in zip(strings, values, strict=True)]
    return json.dumps({"activations": pairs}, ensure_ascii=False)


def read(text: str, strings: Sequence[str]) -> Prediction:
    """The activations in an answer, as shares of the maximum. Fences and words around the object are passed over."""
    start, end = text.find("{"), text.rfind("}")
    try:
        value: Any = json.loads(text[start : end + 1]) if 0 <= start < end else None
        pairs = [(one["token"], one["activation"]) for one in value["activations"]]
    except (ValueError, TypeError, KeyError, RecursionError):
        return Failure(f"malformed: no JSON object as asked for in {text[:40]!r}")
    if len(pairs) != len(strings):
        return Failure(f"malformed: {len(pairs)} values for {len(strings)} tokens")
    for token, (said, activation) in zip(strings, pairs, strict=True):
        if said != shown(token):
            return Failure(f"malformed: token {said!r:.40} in place of {shown(token)!r:.40}")
        whole = isinstance(activation, int | float) and not isinstance(activation, bool)
        if not whole or not 0 <= activation <= MOST:
            return Failure(f"malformed: activation {activation!r:.40}")
    return np.array([activation / MOST for _, activation in pairs], dtype=np.float64)


@dataclass(frozen=True)
class Structured:
    """See the top of this file."""

    asker: Asker
    name: str = "structured"
    settings: Options = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "settings", {"prompt": VERSION, "client": self.asker.identity})

    def simulate(self, explanation: str, excerpts: Sequence[Excerpt]) -> Predicted:
        """See `Simulator.simulate`."""
        asked = [
            Question(self.request(explanation, e.strings), written(e.strings, [0] * len(e.strings))) for e in excerpts
        ]
        replies, costs = self.asker.ask(asked)
        return Predicted([_read(reply, e) for reply, e in zip(replies, excerpts, strict=True)], costs)

    def request(self, explanation: str, strings: Sequence[str]) -> Request:
        """The question about one text, with room for half as much again as the answer needs."""
        turns = tuple(
            (question(one.description, one.shots[0].strings), written(one.shots[0].strings, values))
            for one in EXAMPLES[:2]
            for values in [scaled(one.shots[0].activations, MOST)]
        )
        talk = Talk(SYSTEM, turns, question(explanation, strings))
        room = 64 + 3 * estimated(written(strings, [0] * len(strings))) // 2
        return talk.request(self.asker.able, max_tokens=room, json_schema=SCHEMA)


def _read(reply: Reply, excerpt: Excerpt) -> Prediction:
    return Failure(why(reply)) if isinstance(reply, messages.Failure) else read(reply.text, excerpt.strings)


def _make(options: Options, asker: Asker) -> Structured:
    only("simulator structured", options, [])
    return Structured(asker)


SIMULATORS.register_asking("structured", _make)
