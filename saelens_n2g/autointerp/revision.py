"""The explainer `revised`: a sentence by another explainer, revised in the light of texts it was not written from.

After the revision step of Bills et al. 2023, whose code was not published. Counterexamples are, by default, activating
excerpts of the fit text drawn at random from those that the first sentence was not written from; or, where the subject
can be run (`subjects`), sentences that the model proposes from the first sentence, with what the unit does on them
(`proposed`). Of test texts it sees nothing. The first explainer has to be among those of the run, so that both
sentences, and the scores of both on the same excerpts, are kept beside each other.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from saelens_n2g.autointerp.asking import Asker, Question, why
from saelens_n2g.autointerp.excerpts import Evidence
from saelens_n2g.autointerp.explainers import EXPLAINERS, Explained, Explainer, Got, nobody
from saelens_n2g.autointerp.predictors import Costs, summed
from saelens_n2g.autointerp.records import FAILED, SILENT
from saelens_n2g.autointerp.registry import Options, only, whole
from saelens_n2g.autointerp.saying import LEAD, say
from saelens_n2g.autointerp.subjects import Runnable
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
KINDS = ("random", "proposed")
"""Where counterexamples come from."""


@dataclass(frozen=True)
class Revised:
    """See the top of this file. `texts`: counterexamples at most; `counterexamples`: one of `KINDS`; `subject`: runs
    those that are proposed."""

    asker: Asker
    first: Explainer
    texts: int = 5
    width: int = 64
    seed: int = 0
    counterexamples: str = "random"
    subject: Runnable | None = None
    name: str = "revised"
    settings: Options = field(init=False)

    def __post_init__(self) -> None:
        if self.texts < 1 or self.width < 1:
            raise InputError(self.name, "at least one text, of one token", f"{self.texts}, {self.width}")
        if self.seed < 0:
            raise InputError(f"seed of {self.name}", "a whole number >= 0", str(self.seed))
        if self.counterexamples not in KINDS:
            raise InputError(f"counterexamples of {self.name}", " or ".join(KINDS), repr(self.counterexamples))
        given = {
            "first": {self.first.name: dict(self.first.settings)},
            "counterexamples": self.counterexamples,
            **{"texts": self.texts, "width": self.width, "seed": self.seed, "prompt": VERSION},
        }
        object.__setattr__(self, "settings", {**given, "client": self.asker.identity})

    def explain(self, evidence: Evidence) -> Explained:
        """See `Explainer.explain`: both sentences, one after the other."""
        before = self.first.explain(evidence)
        (after,) = self.revise([evidence], [before], nobody)
        return replace(after, costs=summed([before.costs, after.costs]))

    def revise(self, several: Sequence[Evidence], before: Sequence[Explained], got: Got) -> list[Explained]:
        """The sentences after the counterexamples, of units with those before; costs of the revision alone. What failed
        before fails after."""
        shown = self._counterexamples(several, before)
        talks = [self._talk(b, one) for b, one in zip(before, shown, strict=True)]

        def whole(place: int, after: Explained) -> Explained:
            """With the costs of what was proposed."""
            if isinstance(talks[place], Explained):
                return after
            return replace(after, costs=summed([shown[place].costs, after.costs]))

        found = say(self.asker, talks, lambda place, after: got(place, whole(place, after)))
        return [whole(place, after) for place, after in enumerate(found)]

    def decides(self, evidence: Evidence) -> Any:
        """JSON values that decide a revision beside settings, evidence and first sentence: of proposed texts, what they
        are run through, and whether they can be."""
        if self.counterexamples == "random" or self.subject is None:
            return None
        return [self.subject.missing(evidence), self.subject.identity(evidence)]

    def _talk(self, before: Explained, shown: "_Shown") -> Talk | Explained:
        if before.text is None:
            return Explained(None, before.status, f"before revision: {before.reason}")
        if shown.failure:
            return Explained(None, shown.status, shown.failure, shown.costs)
        if not shown.shots:
            return Explained(None, SILENT, "no activating excerpt beside those of the first sentence", shown.costs)
        return talk_of(before.text, shown.shots)

    def _counterexamples(self, several: Sequence[Evidence], before: Sequence[Explained]) -> list["_Shown"]:
        """Texts with activations for each unit. Raises `InputError` where there is no subject to run them through."""
        if self.counterexamples == "random":
            known = int(self.first.settings.get("excerpts", 0))
            return [_Shown(drawn(one, known, self.texts, self.width, self.seed)) for one in several]
        if self.subject is None:
            raise InputError(f"{self.name} by proposed texts", "the runs whose subject reads them", "none")
        missing = [self.subject.missing(one) for one in several]
        able = [at for at, why_not in enumerate(missing) if not why_not and before[at].text is not None]
        told = dict(zip(able, self.asker.ask_each([self._proposal(before[at].text or "") for at in able]), strict=True))
        return [
            self._run(self.subject, one, *told[at]) if at in told else _Shown([], failure=missing[at], status=SILENT)
            for at, one in enumerate(several)
        ]

    def _proposal(self, before: str) -> Question:
        """Asks for texts."""
        talk = Talk(PROPOSAL.format(n=self.texts), (), f"Description: {described(before)}", "Sentences:")
        likely = "\n".join(["The old harbour lay quiet before the storm came in."] * self.texts)
        request = talk.request(self.asker.able, max_tokens=40 * self.texts)
        return Question(replace(request, stop=()), likely)  # several lines are wanted, where a text is continued too

    def _run(self, subject: Runnable, evidence: Evidence, reply: Reply, costs: Costs) -> "_Shown":
        """The proposed texts, with what the unit does on them; in a dry run they are not run."""
        if isinstance(reply, Failure):
            return _Shown([], costs, why(reply))
        lines = [bare for line in reply.text.splitlines() if (bare := _bare(line))][: self.texts]
        if not lines:
            return _Shown([], costs, "empty: no sentence was proposed")
        if self.asker.dry:
            return _Shown([Shot(tuple(line.split()), np.zeros(len(line.split()))) for line in lines], costs)
        return _Shown([_cut(shot, self.width) for shot in subject.run(evidence, lines)], costs)


def _bare(line: str) -> str:
    """A proposed sentence without the number or dash that models put in front of it; empty if nothing is said."""
    found = re.sub(r"^\s*(?:\d{1,2}[.):]|[-*•])\s+", "", line).strip()
    return found if any(map(str.isalnum, found)) else ""


def _cut(shot: Shot, width: int) -> Shot:
    return Shot(shot.strings[:width], shot.activations[:width])


class _Shown(NamedTuple):
    """Counterexamples of one unit."""

    shots: list[Shot]
    costs: Costs = MappingProxyType({})
    failure: str = ""
    """Why there are none."""
    status: str = FAILED
    """Of a unit without any."""


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
    only("explainer revised", options, ["first", "texts", "width", "seed", "counterexamples"])
    first = str(options.get("first", FIRST))
    if first == "revised":
        raise InputError("option first of explainer revised", "another explainer", "revised")
    texts, width, seed = (whole(options, name, value) for name, value in (("texts", 5), ("width", 64), ("seed", 0)))
    counterexamples = str(options.get("counterexamples", KINDS[0]))
    return Revised(asker, EXPLAINERS.make(first, None, asker), texts, width, seed, counterexamples)


EXPLAINERS.register_asking("revised", _make)
