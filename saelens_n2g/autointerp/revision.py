"""The explainer `revised`: a sentence by another explainer, revised in the light of texts it was not written from.

After the revision step of Bills et al. 2023, whose code was not published. Counterexamples are, by default, activating
excerpts of the fit text drawn at random from those that the first sentence was not written from; or, where the subject
can be run, sentences that the model proposes from the first sentence, with what the unit does on them (`proposed`). Of
test texts it sees nothing. The first explainer has to be among those of the run, so that both sentences, and the scores
of both on the same excerpts, are kept beside each other.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from saelens_n2g.autointerp.asking import Asker, Question, why
from saelens_n2g.autointerp.excerpts import Evidence
from saelens_n2g.autointerp.explainers import EXPLAINERS, FAILED, SILENT, Explained, Explainer, Tick
from saelens_n2g.autointerp.predictors import Costs
from saelens_n2g.autointerp.registry import Options, only
from saelens_n2g.autointerp.results import summed
from saelens_n2g.autointerp.saying import LEAD, say
from saelens_n2g.autointerp.token_activation import evidence_text, shots_of
from saelens_n2g.autointerp.wording import EXAMPLES, Shot, Talk, described
from saelens_n2g.clients.messages import Failure, Reply
from saelens_n2g.errors import InputError

VERSION = 1
FIRST = "token-activation"
"""Whose sentence is revised where nothing else is said."""
SYSTEM = (
    "A unit of a language model reads texts and gives each token an activation, here from 0 (quiet) to 10 (its "
    "strongest). You see a description of what it fires on, which may be wrong, too narrow or too wide, and further "
    "texts as lists of tokens, each followed by a tab and its activation. Write the description anew in one short "
    f'sentence, so that it fits these texts too. Keep what was right. Begin with "{LEAD}".'
)
PROPOSAL = (
    "A unit of a language model is described below. Write {n} short sentences, one a line and without numbers in "
    "front, that would show where the description is wrong: half of them with what it says, in unusual surroundings, "
    "half with what is close to it and yet another thing. Write nothing else."
)
Activate = Callable[[Evidence, Sequence[str]], Sequence[Shot]]
"""Runs texts through the subject: their tokens, and the unit's activations as shares of its maximum."""


@dataclass(frozen=True)
class Revised:
    """See the top of this file. `texts`: counterexamples at most; `activate`: runs the subject, None draws excerpts."""

    asker: Asker
    first: Explainer
    texts: int = 5
    width: int = 64
    seed: int = 0
    activate: Activate | None = None
    name: str = "revised"
    settings: Options = field(init=False)

    def __post_init__(self) -> None:
        if self.texts < 1 or self.width < 1:
            raise InputError(self.name, "at least one text, of one token", f"{self.texts}, {self.width}")
        given = {
            "first": {self.first.name: dict(self.first.settings)},
            "counterexamples": "random" if self.activate is None else "proposed",
            **{"texts": self.texts, "width": self.width, "seed": self.seed, "prompt": VERSION},
        }
        object.__setattr__(self, "settings", {**given, "client": dict(self.asker.client.identity)})

    def explain(self, evidence: Evidence) -> Explained:
        """See `Explainer.explain`: both sentences, one after the other."""
        before = self.first.explain(evidence)
        (after,) = self.revise([evidence], [before], lambda: None)
        return replace(after, costs=summed([before.costs, after.costs]))

    def revise(self, several: Sequence[Evidence], before: Sequence[Explained], tick: Tick) -> list[Explained]:
        """The sentences after the counterexamples, of units with those before; costs of the revision alone. What failed
        before fails after."""
        shown = self._counterexamples(several, before)
        talks = [self._talk(b, one) for b, one in zip(before, shown, strict=True)]
        after = say(self.asker, talks, tick)
        costs = [one.costs for one in shown]
        return [
            replace(one, costs=summed([spent, one.costs])) if isinstance(talk, Talk) else one
            for one, talk, spent in zip(after, talks, costs, strict=True)
        ]

    def _talk(self, before: Explained, shown: "_Shown") -> Talk | Explained:
        if before.text is None:
            return Explained(None, before.status, f"before revision: {before.reason}")
        if shown.failure:
            return Explained(None, FAILED, shown.failure, shown.costs)
        if not shown.shots:
            return Explained(None, SILENT, "no activating excerpt beside those of the first sentence", shown.costs)
        return talk_of(before.text, shown.shots)

    def _counterexamples(self, several: Sequence[Evidence], before: Sequence[Explained]) -> list["_Shown"]:
        """Texts with activations for each unit."""
        if self.activate is None:
            known = int(self.first.settings.get("excerpts", 0))
            return [_Shown(drawn(one, known, self.texts, self.width, self.seed)) for one in several]
        likely = "\n".join(["The old harbour lay quiet before the storm came in."] * self.texts)
        system = PROPOSAL.format(n=self.texts)
        talks = [Talk(system, (), f"Description: {described(b.text or '')}", "Sentences:") for b in before]
        asked = [
            Question(talk.request(self.asker.able, max_tokens=40 * self.texts), likely)
            for talk, b in zip(talks, before, strict=True)
            if b.text is not None
        ]
        told = iter(self.asker.ask_each(asked))
        return [
            _Shown([]) if b.text is None else self._run(one, *next(told))
            for one, b in zip(several, before, strict=True)
        ]

    def _run(self, evidence: Evidence, reply: Reply, costs: Costs) -> "_Shown":
        """The proposed texts, with what the unit does on them."""
        assert self.activate is not None
        if isinstance(reply, Failure):
            return _Shown([], costs, why(reply))
        lines = [line.strip() for line in reply.text.splitlines() if any(map(str.isalnum, line))][: self.texts]
        if not lines:
            return _Shown([], costs, "empty: no sentence was proposed")
        return _Shown(list(self.activate(evidence, lines)), costs)


class _Shown(NamedTuple):
    """Counterexamples of one unit."""

    shots: list[Shot]
    costs: Costs = MappingProxyType({})
    failure: str = ""
    """Why there are none."""


def drawn(evidence: Evidence, known: int, texts: int, width: int, seed: int) -> list[Shot]:
    """Activating excerpts of the fit text at random, without the `known` strongest, which the first sentence is of."""
    others = shots_of(evidence, len(evidence.excerpts), width)[known:]
    order = np.random.default_rng([seed, len(others)]).permutation(len(others))[:texts]
    return [others[place] for place in sorted(order.tolist())]


def talk_of(before: str, shots: Sequence[Shot]) -> Talk:
    """The question: the description, and the texts."""
    too_narrow = ("the word ' sloop'", EXAMPLES[0]), ("the last word of a sentence", EXAMPLES[2])
    turns = tuple((_asked(wrong, example.shots), f"{example.description}.") for wrong, example in too_narrow)
    return Talk(SYSTEM, turns, _asked(before, shots), LEAD)


def _asked(description: str, shots: Sequence[Shot]) -> str:
    return f"Description: {LEAD} {described(description)}.\n{evidence_text(shots)}"


def _make(options: Options, asker: Asker) -> Revised:
    only("explainer revised", options, ["first", "texts", "width", "seed"])
    first = str(options.get("first", FIRST))
    if first == "revised":
        raise InputError("option first of explainer revised", "another explainer", "revised")
    texts, width, seed = (int(options.get(name, value)) for name, value in (("texts", 5), ("width", 64), ("seed", 0)))
    return Revised(asker, EXPLAINERS.make(first, None, asker), texts, width, seed)


EXPLAINERS.register_asking("revised", _make)
