"""The explainer `token-list`: the words on which a unit fires most, and what they have in common.

The shortest question there is, some hundred tokens, for small models: a few lists with what their words have in common,
and one more, as a text to be continued. It shows no text and no activation, and the lists are so unlike each other that
what is said of one is rarely copied. What stands before a token it does not see, so it is of no use for units that
depend on context.
"""

from dataclasses import asdict, dataclass

from saelens_n2g.autointerp.asking import Asker
from saelens_n2g.autointerp.excerpts import Evidence
from saelens_n2g.autointerp.explainers import EXPLAINERS, Explained
from saelens_n2g.autointerp.records import SILENT
from saelens_n2g.autointerp.registry import Options, only, whole
from saelens_n2g.autointerp.saying import Saying
from saelens_n2g.autointerp.wording import Talk, sendable, words_of
from saelens_n2g.errors import InputError

VERSION = 1
SYSTEM = "Lists of words, and what the words of each list have in common."
WORDS, LEAD = "Words:", "In common:"
TURNS = (
    ("misread, mislaid, misjudge, misuse", 'words that begin with "mis"'),
    ("metre, kilograms, litres", "units of measure"),
    ("trotted, sprinting, crawl, leaps", "verbs of movement"),
    ("sloop, sailing, Sailors, harbour", "words for boats and sailing"),
)


@dataclass(frozen=True)
class TokenList:
    """See the top of this file. `tokens`: words at most, those of the strongest tokens, each once."""

    tokens: int = 12

    def __post_init__(self) -> None:
        if self.tokens < 1:
            raise InputError("token-list", "at least one token", str(self.tokens))

    def talk(self, evidence: Evidence) -> Talk | Explained:
        """The question about a unit, or why there is none."""
        words = strongest(evidence, self.tokens)
        if not words:
            return Explained(None, SILENT, "no word that fires")
        turns = tuple((f"{WORDS} {some}", common) for some, common in TURNS)
        return Talk(SYSTEM, turns, f"{WORDS} {', '.join(words)}", LEAD, continued=True)


def strongest(evidence: Evidence, most: int) -> list[str]:
    """The words of the tokens that fire in the fit excerpts, strongest first, each once; at most `most`."""
    found: dict[str, float] = {}
    for one in evidence.of("fit"):
        for word, activation in zip(words_of(one.strings), one.activations.tolist(), strict=True):
            bare = " ".join(sendable(word).split()).strip(" .,;:!?()[]\"'")
            if activation >= evidence.threshold and bare:
                found[bare] = max(activation, found.get(bare, 0.0))
    return sorted(found, key=lambda word: (-found[word], word))[:most]


def _make(options: Options, asker: Asker) -> Saying:
    only("explainer token-list", options, ["tokens"])
    made = TokenList(whole(options, "tokens", 12))
    return Saying("token-list", asker, made.talk, {**asdict(made), "prompt": VERSION})


EXPLAINERS.register_asking("token-list", _make)
