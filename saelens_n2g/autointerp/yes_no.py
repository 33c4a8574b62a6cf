"""The scorers `detection` and `fuzzing`: yes or no, one excerpt a request. After Paulo et al. 2024 (arXiv 2410.13928).

Detection: does the description fit the text, that is, would the unit fire somewhere in it? Fuzzing: are the marked
tokens those on which it fires? Where the client gives log probabilities the answer is the probability of yes among yes
and no, else 0 or 1; from one half on it is a yes. One excerpt a request, because one answer that cannot be read then
costs one item, and because a list of answers has no probabilities.
"""

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from saelens_n2g.autointerp.asking import Asker, Question, why
from saelens_n2g.autointerp.detection import answers, highlighted
from saelens_n2g.autointerp.excerpts import Evidence, distinct
from saelens_n2g.autointerp.judge import Rules
from saelens_n2g.autointerp.predictors import Failure
from saelens_n2g.autointerp.registry import Options, only, yes_or_no
from saelens_n2g.autointerp.scorers import SCORERS, Scored
from saelens_n2g.autointerp.wording import EXAMPLES, LEFT, RIGHT, Shot, Talk, described, marked
from saelens_n2g.clients import messages
from saelens_n2g.clients.messages import Reply
from saelens_n2g.scoring import firing

VERSION = 1
LIKELIEST, LONGEST = 20, 3
"""Tokens whose probabilities are asked for; tokens of an answer."""
SYSTEMS = {
    "detection": (
        "A unit of a language model fires on some tokens of some texts. You get a description of what it fires on, and "
        "a text. Does the unit fire anywhere in this text? Answer with one word, yes or no."
    ),
    "fuzzing": (
        "A unit of a language model fires on some tokens of some texts. You get a description of what it fires on, and "
        f"a text in which some tokens are marked {LEFT}like this{RIGHT}. Are the marked tokens those on which the unit "
        "fires? Answer with one word, yes or no."
    ),
}


class Item(NamedTuple):
    """One text to be told."""

    strings: Sequence[str]
    marks: Sequence[bool]
    true: bool


@dataclass(frozen=True)
class YesNo:
    """See the top of this file."""

    name: str
    asker: Asker
    written: bool = False
    """The word that is said counts, 0 or 1, also where the client gives log probabilities."""
    settings: Options = field(init=False)

    @property
    def logprobs(self) -> bool:
        """Whether answers are probabilities."""
        return self.asker.able.logprobs and not self.written

    def __post_init__(self) -> None:
        given = {"prompt": VERSION, "logprobs": self.logprobs}
        object.__setattr__(self, "settings", {**given, "client": self.asker.identity})

    def score(self, explanation: str, evidence: Evidence, rules: Rules) -> Scored | Failure:
        """See `Scorer.score`."""
        items = self.items(evidence, rules.seed)
        if not items:
            return Failure("no excerpt to score on", again=False)
        replies, costs = self.asker.ask([self.question(explanation, item) for item in items])
        found = [yes(reply, self.logprobs) for reply in replies]
        failed = Counter(one.reason for one in found if isinstance(one, Failure))
        if failed.total() > rules.tolerated * len(items):
            reason = failed.most_common(1)[0][0]
            return Failure(f"{failed.total()} of {len(items)} questions not answered: {reason}")
        known = [(item.true, one) for item, one in zip(items, found, strict=True) if not isinstance(one, Failure)]
        true = np.array([t for t, _ in known], dtype=np.bool_)
        return Scored(answers(true, np.array([p for _, p in known], dtype=np.float64), 0.5), costs)

    def items(self, evidence: Evidence, seed: int) -> list[Item]:
        """The unit's test excerpts as items, the same as those of `detection.detection` and `detection.fuzzing`."""
        excerpts = distinct(evidence.of("test"))
        if self.name == "detection":
            fires = [bool(firing(e.activations, evidence.threshold).any()) for e in excerpts]
            return [Item(e.strings, [False] * len(e.strings), true) for e, true in zip(excerpts, fires, strict=True)]
        several = highlighted(excerpts, evidence.threshold, seed)
        return [Item(one.excerpt.strings, one.marks.tolist(), one.true) for one in several]

    def question(self, explanation: str, item: Item) -> Question:
        """What is asked about one text."""
        talk = Talk(SYSTEMS[self.name], _turns(self.name), _asked(explanation, item.strings, item.marks))
        top = LIKELIEST if self.logprobs else None
        return Question(talk.request(self.asker.able, max_tokens=LONGEST, logprobs=top), "yes")


def _asked(description: str, strings: Sequence[str], marks: Sequence[bool]) -> str:
    return f"Description: {described(description)}\nText: {marked(strings, marks)}"


def _turns(name: str) -> tuple[tuple[str, str], ...]:
    """Two examples with yes, two with no, in turn."""
    turns = []
    for place, example in enumerate(EXAMPLES[:2]):
        right, wrong = example.shots[0], EXAMPLES[place - 1].shots[1]
        fires = (right.activations >= 0.5).tolist()
        quiet = [not one for one in fires]
        if name == "detection":
            pairs = [(right, [False] * len(fires), "yes"), (wrong, [False] * len(wrong.strings), "no")]
        else:
            pairs = [(right, fires, "yes"), (right, _first(quiet, sum(fires)), "no")]
        turns += [(_asked(example.description, shot.strings, marks), said) for shot, marks, said in _both(pairs, place)]
    return tuple(turns)


def _both(pairs: list[tuple[Shot, list[bool], str]], place: int) -> list[tuple[Shot, list[bool], str]]:
    """Yes first, then no first, so that no order is learnt."""
    return pairs if place % 2 == 0 else pairs[::-1]


def _first(marks: Sequence[bool], n: int) -> list[bool]:
    """The first `n` of some marks."""
    out, left = [], n
    for mark in marks:
        out.append(mark and left > 0)
        left -= mark
    return out


def yes(reply: Reply, logprobs: bool) -> float | Failure:
    """The probability of yes in an answer: among yes and no at the first word, or 0 or 1 as it is written."""
    if isinstance(reply, messages.Failure):
        return Failure(why(reply))
    if not logprobs:
        word = _word(reply.text)
        return (
            Failure(f"malformed: neither yes nor no in {reply.text[:20]!r}") if word is None else float(word == "yes")
        )
    shares = {"yes": 0.0, "no": 0.0}
    first = next((one for one in reply.logprobs if one.token.strip()), None)
    for token, logprob in ({} if first is None else {**dict(first.top), first.token: first.logprob}).items():
        if (word := _word(token)) is not None and word == token.strip().lower():
            shares[word] += math.exp(logprob)
    whole = sum(shares.values())
    return shares["yes"] / whole if whole > 0 else Failure(f"malformed: neither yes nor no in {reply.text[:20]!r}")


def _word(text: str) -> str | None:
    """`yes` or `no` where a text begins with it."""
    found = re.match(r"\W*(yes|no)\b", text, re.IGNORECASE)
    return None if found is None else found[1].lower()


def _maker(name: str, options: Options, asker: Asker) -> YesNo:
    only(f"scorer {name}", options, ["written"])
    return YesNo(name, asker, yes_or_no(options, "written", f"scorer {name}"))


SCORERS.register_asking("detection", lambda options, asker: _maker("detection", options, asker))
SCORERS.register_asking("fuzzing", lambda options, asker: _maker("fuzzing", options, asker))
