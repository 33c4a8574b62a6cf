"""The explainer `token-activation`: tokens with activations from 0 to 10, one a line, after Bills et al. 2023.

As there, tokens whose activation is not zero are listed again where they are less than a fifth: in a long list of zeros
they are easily passed over. Wording and examples are our own.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from saelens_n2g.autointerp.asking import Asker
from saelens_n2g.autointerp.excerpts import Evidence
from saelens_n2g.autointerp.explainers import EXPLAINERS, Explained
from saelens_n2g.autointerp.records import SILENT
from saelens_n2g.autointerp.registry import Options, only, whole
from saelens_n2g.autointerp.saying import LEAD, Saying, check_examples
from saelens_n2g.autointerp.wording import EXAMPLES, Shot, Talk, rows, scaled
from saelens_n2g.errors import InputError

VERSION = 1
SPARSE = 0.2
"""Share of tokens that are not zero below which these are listed again (Bills et al. 2023, their explainer's code)."""
SYSTEM = (
    "A unit of a language model reads texts and gives each token an activation, here from 0 (quiet) to 10 (its "
    "strongest). You see lists of tokens, each followed by a tab and its activation. Say in one short sentence what "
    "the unit fires on: what the tokens with high activations, or what stands before them, have in common. Name the "
    f'common property instead of listing examples. Begin with "{LEAD}".'
)


def evidence_text(shots: Sequence[Shot]) -> str:
    """Lists of tokens with activations; those that are not zero once more where they are few."""
    scales = [scaled(shot.activations, 10) for shot in shots]
    parts = [
        f"Text {i}:\n{rows(shot.strings, values)}"
        for i, (shot, values) in enumerate(zip(shots, scales, strict=True), 1)
    ]
    if np.mean([value > 0 for values in scales for value in values]) < SPARSE:
        for i, (shot, values) in enumerate(zip(shots, scales, strict=True), 1):
            some = [(s, v) for s, v in zip(shot.strings, values, strict=True) if v > 0]
            if some:
                parts.append(f"Text {i}, without the zeros:\n{rows(*map(list, zip(*some, strict=True)))}")
    return "\n".join(parts).rstrip("\n")


def talk_of(shots: Sequence[Shot], examples: int = len(EXAMPLES)) -> Talk:
    """The question about some excerpts, behind so many examples."""
    turns = tuple((evidence_text(example.shots), f"{example.description}.") for example in EXAMPLES[:examples])
    return Talk(SYSTEM, turns, evidence_text(shots), LEAD)


@dataclass(frozen=True)
class TokenActivation:
    """See the top of this file. Reads the strongest `excerpts`, `width` tokens around the peak of each, behind so many
    `examples`: small models copy them."""

    excerpts: int = 5
    width: int = 64
    examples: int = len(EXAMPLES)

    def __post_init__(self) -> None:
        if self.excerpts < 1 or self.width < 1:
            raise InputError("token-activation", "at least one excerpt, of one token", f"{self.excerpts}, {self.width}")
        check_examples("token-activation", self.examples, len(EXAMPLES))

    def talk(self, evidence: Evidence) -> Talk | Explained:
        """The question about a unit, or why there is none."""
        shots = shots_of(evidence, self.excerpts, self.width)
        return talk_of(shots, self.examples) if shots else Explained(None, SILENT, "no excerpt that fires")


def shots_of(evidence: Evidence, excerpts: int, width: int) -> list[Shot]:
    """The strongest excerpts of the fit text that are not quiet, `width` tokens of each."""
    some = [e.around(width) for e in evidence.of("fit") if e.activations.max() > 0]
    some.sort(key=lambda e: -float(e.activations.max()))  # puzzles do not have them in order
    return [Shot(e.strings, e.activations) for e in some[:excerpts]]


def _make(options: Options, asker: Asker) -> Saying:
    only("explainer token-activation", options, ["excerpts", "width", "examples"])
    sizes = whole(options, "excerpts", 5), whole(options, "width", 64)
    made = TokenActivation(*sizes, whole(options, "examples", len(EXAMPLES)))
    return Saying("token-activation", asker, made.talk, {**asdict(made), "prompt": VERSION})


EXPLAINERS.register_asking("token-activation", _make)
