"""The explainer `from-graph`: the patterns of a unit's graph, said by the template, become one plain sentence.

What the model reads is what `templated` says, so that the difference between the two sentences is the model's.
"""

from dataclasses import asdict, dataclass

from saelens_n2g.autointerp.asking import Asker
from saelens_n2g.autointerp.excerpts import Evidence
from saelens_n2g.autointerp.explainers import EXPLAINERS, Explained
from saelens_n2g.autointerp.records import SILENT
from saelens_n2g.autointerp.registry import Options, only, whole
from saelens_n2g.autointerp.saying import LEAD, Saying, check_examples
from saelens_n2g.autointerp.templated import LIMIT, from_graph
from saelens_n2g.autointerp.wording import Talk
from saelens_n2g.errors import InputError

VERSION = 1
SYSTEM = (
    "Patterns of tokens that make a unit of a language model fire were found by experiment. Tokens stand in backticks, "
    "a space in them is written as ·; percentages are shares of the unit's firing. Say in one short sentence what the "
    "unit fires on: what the patterns have in common, or the main ones where they have nothing in common. "
    f'Begin with "{LEAD}".'
)
TURNS = (
    (
        "Fires on `·sailed` or `·sloop` or `·yacht` (71 %); on `·harbour` after `·the` (20 %).",
        "words for boats and sailing.",
    ),
    (
        "Fires on `·York` or `·Orleans` or `·Jersey` after `·New` (96 %). Stays quiet on `·York` after `·the`.",
        "the second word of American place names that begin with 'New'.",
    ),
)


@dataclass(frozen=True)
class FromGraph:
    """See the top of this file. `limit`: characters of the patterns, about. Behind so many `examples`: small models
    copy them."""

    limit: int = LIMIT
    examples: int = len(TURNS)

    def __post_init__(self) -> None:
        if self.limit < 1:
            raise InputError("from-graph", "a limit >= 1", str(self.limit))
        check_examples("from-graph", self.examples, len(TURNS))

    def talk(self, evidence: Evidence) -> Talk | Explained:
        """The question about a unit, or why there is none."""
        text = "" if evidence.graph is None else from_graph(evidence.graph, self.limit)
        return (
            Talk(SYSTEM, TURNS[: self.examples], text, LEAD) if text else Explained(None, SILENT, "no graph that fires")
        )


def _make(options: Options, asker: Asker) -> Saying:
    only("explainer from-graph", options, ["limit", "examples"])
    made = FromGraph(whole(options, "limit", LIMIT), whole(options, "examples", len(TURNS)))
    return Saying("from-graph", asker, made.talk, {**asdict(made), "prompt": VERSION})


EXPLAINERS.register_asking("from-graph", _make)
