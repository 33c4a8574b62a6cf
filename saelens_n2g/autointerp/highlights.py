"""The explainer `highlights`: excerpts with their strong tokens marked, one a line. Shorter than lists of activations.

The idea is that of Paulo et al. 2024 (arXiv 2410.13928), who mark what is above 0.3 of the maximum; wording and
examples are our own.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from saelens_n2g.autointerp.asking import Asker
from saelens_n2g.autointerp.excerpts import Evidence
from saelens_n2g.autointerp.explainers import EXPLAINERS, Explained
from saelens_n2g.autointerp.records import SILENT
from saelens_n2g.autointerp.registry import Options, number, only, whole
from saelens_n2g.autointerp.saying import LEAD, Saying, check_examples
from saelens_n2g.autointerp.token_activation import shots_of
from saelens_n2g.autointerp.wording import EXAMPLES, LEFT, RIGHT, Shot, Talk, marked
from saelens_n2g.errors import InputError

VERSION = 1
SYSTEM = (
    f"A unit of a language model fires on some tokens of a text; they are marked {LEFT}like this{RIGHT}. Say in one "
    "short sentence what the unit fires on: what the marked tokens, or what stands before them, have in common. Name "
    f'the common property instead of listing examples. Begin with "{LEAD}".'
)


@dataclass(frozen=True)
class Highlighting:
    """See the top of this file. Reads the strongest `excerpts`, `width` tokens around the peak of each; marks what is
    above `threshold` of the unit's maximum, and the peak. Behind so many `examples`: small models copy them."""

    excerpts: int = 10
    width: int = 32
    threshold: float = 0.3
    examples: int = len(EXAMPLES)

    def __post_init__(self) -> None:
        if self.excerpts < 1 or self.width < 1 or not 0 <= self.threshold < 1:
            found = f"{self.excerpts}, {self.width}, {self.threshold}"
            raise InputError("highlights", "at least one excerpt, of one token, a threshold in [0, 1)", found)
        check_examples("highlights", self.examples, len(EXAMPLES))

    def talk(self, evidence: Evidence) -> Talk | Explained:
        """The question about a unit, or why there is none."""
        shots = shots_of(evidence, self.excerpts, self.width)
        if not shots:
            return Explained(None, SILENT, "no excerpt that fires")
        turns = tuple((self._text(example.shots), f"{example.description}.") for example in EXAMPLES[: self.examples])
        return Talk(SYSTEM, turns, self._text(shots), LEAD)

    def _text(self, shots: Sequence[Shot]) -> str:
        """The excerpts, one a line."""
        lines = []
        for i, (strings, activations) in enumerate(shots, 1):
            marks = (activations > self.threshold).tolist()
            marks[int(activations.argmax())] = True
            lines.append(f"Text {i}: {marked(strings, marks)}")
        return "\n".join(lines)


def _make(options: Options, asker: Asker) -> Saying:
    only("explainer highlights", options, ["excerpts", "width", "threshold", "examples"])
    sizes = whole(options, "excerpts", 10), whole(options, "width", 32)
    made = Highlighting(*sizes, number(options, "threshold", 0.3), whole(options, "examples", len(EXAMPLES)))
    return Saying("highlights", asker, made.talk, {**asdict(made), "prompt": VERSION})


EXPLAINERS.register_asking("highlights", _make)
