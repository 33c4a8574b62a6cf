"""A language model's sentence about a unit: asked for, and taken out of what it answers."""

import re
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from saelens_n2g.autointerp.asking import Asker, Question, why
from saelens_n2g.autointerp.excerpts import Evidence
from saelens_n2g.autointerp.explainers import Explained, Got, nobody
from saelens_n2g.autointerp.predictors import Costs
from saelens_n2g.autointerp.records import FAILED
from saelens_n2g.autointerp.registry import Options
from saelens_n2g.autointerp.wording import Talk
from saelens_n2g.clients.messages import Failure, Reply
from saelens_n2g.errors import InputError

LEAD = "This unit fires on"
"""How a sentence begins; what follows is kept."""
LONGEST = 60
"""Tokens of a sentence at most."""
LIKELY = "words and names that have to do with travel by sea, number"
"""A sentence of the usual length, for dry runs; a number behind it tells those of different units apart."""
_LEADS = re.compile(
    r"(?:(?:explanation|description|answer|sentence|in common)\s*:\s*)?"
    r"(?:(?:this|the) (?:unit|neuron|feature) fires on\s*:?\s*)?",
    re.IGNORECASE,
)
_REFUSED = re.compile(
    r"(?:i['’]?m sorry|i am sorry|sorry,|i can(?:no|['’])t|i am unable|i['’]?m unable|as an ai)", re.IGNORECASE
)


@dataclass(frozen=True)
class Saying:
    """An explainer that puts one question about each unit to a language model."""

    name: str
    asker: Asker
    talk: Callable[[Evidence], Talk | Explained]
    """The question about a unit, or why there is none."""
    decides: Options
    """What decides the question beside the client: sizes, the version of the prompt."""
    settings: Options = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "settings", {**self.decides, "client": self.asker.identity})

    def explain(self, evidence: Evidence) -> Explained:
        """See `Explainer.explain`."""
        return self.explain_all([evidence], nobody)[0]

    def explain_all(self, several: Sequence[Evidence], got: Got) -> list[Explained]:
        """See `explainers.Together`."""
        return say(self.asker, [self.talk(one) for one in several], got)


def say(asker: Asker, talks: Sequence[Talk | Explained], got: Got) -> list[Explained]:
    """Ask for a sentence each, all at once; a failed, refused or empty answer is a status. What is explained already is
    passed through. `got` is told of each as it comes."""
    found: dict[int, Explained] = {}

    def arrived(place: int, explained: Explained) -> None:
        found[place] = explained
        got(place, explained)

    asked = {place: talk for place, talk in enumerate(talks) if isinstance(talk, Talk)}
    for place, talk in enumerate(talks):
        if isinstance(talk, Explained):
            arrived(place, talk)
    places = list(asked)
    questions = [_question(asker, talk) for talk in asked.values()]
    asker.ask(questions, lambda index, told: arrived(places[index], _read(*told)))
    return [found[place] for place in range(len(talks))]


def check_examples(name: str, examples: int, most: int) -> None:
    """Raise `InputError` unless there are so many examples to show."""
    if not 0 <= examples <= most:
        raise InputError(f"examples of {name}", f"0 to {most}", str(examples))


def _question(asker: Asker, talk: Talk) -> Question:
    number = zlib.crc32(talk.last.encode("utf-8", "replace")) % 10_000
    return Question(talk.request(asker.able, max_tokens=LONGEST), f"{LEAD} {LIKELY} {number}.")


def _read(reply: Reply, costs: Costs) -> Explained:
    """What an answer says."""
    if isinstance(reply, Failure):
        return Explained(None, FAILED, why(reply), costs)
    text = sentence_of(reply.text, cut=reply.finish == "length")
    if not text:
        return Explained(None, FAILED, "empty: nothing but how a sentence begins", costs)
    if _REFUSED.match(text):
        return Explained(None, FAILED, f"refused: {text[:100]}", costs)
    return Explained(text, costs=costs)


def sentence_of(text: str, *, cut: bool = False) -> str:
    """The first line of an answer that says something, without how it begins, quotes around it and the full stop.

    cut: the answer was cut off; if that is in this line, and whole sentences stand before, these are taken.
    """
    lines = text.splitlines()
    if cut and lines:
        whole = re.match(r"(.*[.!?])[\"”)]*\s+\S", lines[-1])
        lines[-1] = whole[1] if whole is not None else lines[-1]
    for line in lines:
        bare = line.strip().strip('"“”*').strip()
        bare = bare[_prefix(bare) :].strip().strip('"“”*').strip()
        bare = bare.removesuffix(".").strip()
        if any(letter.isalnum() for letter in bare):
            return bare
    return ""


def _prefix(line: str) -> int:
    """Where what is said begins."""
    found = _LEADS.match(line)
    return found.end() if found is not None else 0
