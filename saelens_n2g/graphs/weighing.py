"""Weighing: which patterns of tokens fire, from a fit text and from what the subject said when it was asked.

Candidates stand in a trie like a graph's. At every node meet

- the fit text: of the n places that the pattern matches the unit fired on f,
- the subject: when the pattern was put behind texts that have nothing to do with it, a share q of them fired,
- the shorter pattern, which speaks where the two have seen little:

    share = (f + a share(shorter) + k q) / (n + a + k)

the smoothing of a back-off table (`explanations.tables`) with the subject's word as a prior. A graph needs only the
nodes at which the answer changes: one that fires below one that does not, or stays quiet below one that fires.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float, Int64

from saelens_n2g.errors import InputError
from saelens_n2g.graphs import elements
from saelens_n2g.graphs.elements import IGNORE, START
from saelens_n2g.graphs.evidence import EDGE, FitText
from saelens_n2g.graphs.graph import End, Graph, Node
from saelens_n2g.graphs.simplify import drop_covered, merge_classes

Path = tuple[int, ...]
"""Elements of a pattern, activating token first."""
Places = Int64[np.ndarray, "match"]
Fewer = Int64[np.ndarray, "found"]


LOOSE = -1
"""Depth of a pattern that is not of exact tokens all the way."""
SURE = 6
"""Answers to a question that what a token does without context counts for, where that is believed."""


@dataclass(frozen=True)
class Weights:
    """How evidence is weighed; in occurrences, but for `decision`. Chosen on neurons of SmolLM2-135M, layers 0 to 3,
    other than those of the benchmark (docs/lab-notes.md)."""

    rate: float = 0.5
    """What the unit's firing rate counts for at a single token."""
    shorter: float = 0.5
    """What the share of the shorter pattern counts for."""
    asked: float = 1.5
    """What the subject's answers to one pattern count for."""
    decision: float = 0.4
    """Share from which on a pattern is said to fire. Below one half, since recall is what graphs lack."""
    order: int = 2
    """Previous tokens up to which contexts are read off the fit text without asking the subject."""

    def __post_init__(self) -> None:
        if not 0 < self.decision < 1:
            raise InputError("decision share", "a share in (0, 1)", repr(self.decision))
        if min(self.rate, self.shorter, self.asked) < 0 or self.order < 0:
            raise InputError("weights of evidence", "numbers >= 0", repr(self))


@dataclass(slots=True)
class Candidate:
    """A pattern that may become a path, with the evidence for it."""

    children: dict[int, "Candidate"] = field(default_factory=dict)
    asked: int = 0
    """Texts in which the subject was asked for the pattern."""
    answered: float = 0.0
    """Those of them on which the unit fired."""
    strength: float = 0.0
    """Sum of the normalised activations on those."""
    n: int = 0
    fired: int = 0
    activation: float = 0.0
    """Sum of the normalised activations on the firing places of the fit text."""
    quiet: float = 0.0
    """The same on the other places."""
    share: float = 0.0


class Weighing:
    """The candidates of one unit over one fit text."""

    def __init__(
        self, text: FitText, activations: Float[np.ndarray, "row pos"], weights: Weights, *, trust: float = 1.0
    ) -> None:
        """`activations` are normalised by the unit's maximum; a place fires from 0.5 on. `trust`: what an occurrence
        in the text counts for; below 1 where the text was chosen because the unit fires in it."""
        self.text, self.weights, self.trust = text, weights, trust
        self.values = text.spread(np.where(text.mask, activations, 0.0), 0.0)
        self.fires = self.values >= 0.5
        self.rate = float(self.fires.sum()) / max(int(text.mask.sum()), 1)
        self.roots: dict[int, Candidate] = {}
        self._explained = np.zeros(self.fires.shape, dtype=np.bool_)

    def hear(self, path: Path, activations: Sequence[float]) -> None:
        """Take in the subject's answers to one pattern: normalised activations on its activating token."""
        node = self._at(path)
        for value in activations:
            node.asked += 1
            if value >= 0.5:
                node.answered += 1
                node.strength += value

    def believe(self, token: int, share: float, strength: float) -> None:
        """Take in that a token alone fires in a share of texts, as sure as `SURE` answers of the subject."""
        node = self._at((token,))
        node.asked += SURE
        node.answered += SURE * share
        node.strength += SURE * share * strength

    def _at(self, path: Path) -> Candidate:
        level = self.roots
        for element in path:
            node = level.setdefault(element, Candidate())
            level = node.children
        return node

    def weigh(self) -> None:
        """Count all candidates in the text, grow those that the text tells more about, and fill in the shares.

        Places at which a wildcard or gap fires are explained by it: contexts that merely stood there are counted
        without them.
        """
        for token in np.unique(self.text.flat[self.fires]).tolist():
            self.roots.setdefault(token, Candidate())
        for grown in (False, True):
            for token, node in self.roots.items():
                places = self.text.places(token)
                self._fill(node, places, places, self.rate, self.weights.rate, 0 if grown else LOOSE)

    def _fill(self, node: Candidate, roots: Places, at: Places, shorter: float, weight: float, depth: int) -> None:
        """`roots` are the activating places of the matches, `at` how far back each has come; `depth` counts the exact
        tokens since the root, `LOOSE` as soon as there was something else (and in the first round)."""
        places = np.unique(roots)
        if depth > 0:
            places = places[~self._explained[places]]
        fires = self.fires[places]
        node.n, node.fired = len(places), int(fires.sum())
        node.activation = float(np.minimum(self.values[places[fires]], 1.0).sum())
        node.quiet = float(self.values[places[~fires]].sum())
        asked = self.weights.asked if node.asked else 0.0
        prior = asked * node.answered / node.asked if node.asked else 0.0
        total = self.trust * node.n + weight + asked
        node.share = (self.trust * node.fired + weight * shorter + prior) / total if total else shorter
        if 0 <= depth < self.weights.order and node.n:
            unexplained = ~self._explained[roots]
            self._grow(node, at[unexplained], self.fires[roots[unexplained]])
        for element, child in node.children.items():
            matched, reached = self._follow(element, roots, at)
            exact = depth + 1 if element >= 0 and depth >= 0 else LOOSE
            self._fill(child, matched, reached, node.share, self.weights.shorter, exact)
            if (element == IGNORE or elements.is_gap(element)) and depth < 0:
                self._explain(child, matched, reached)

    def _explain(self, node: Candidate, roots: Places, at: Places) -> None:
        """Note the places that patterns below a wildcard or gap match and fire on."""
        if node.asked and node.share >= self.weights.decision:
            self._explained[roots] = True
        for element, child in node.children.items():
            self._explain(child, *self._follow(element, roots, at))

    def _grow(self, node: Candidate, at: Places, fires: Bool[np.ndarray, "match"]) -> None:
        """Add the previous tokens that make a difference: those before firings, and those that silence."""
        before = self.text.flat[at - 1]
        tokens, inverse, n = np.unique(before, return_inverse=True, return_counts=True)
        fired = np.bincount(inverse, weights=fires, minlength=len(tokens))
        a = self.weights.shorter
        shares = (self.trust * fired + a * node.share) / (self.trust * n + a) if a else fired / n
        says = node.share >= self.weights.decision
        mixed = (fired > 0) & (fired < len(at))
        for token in tokens[mixed | ((shares >= self.weights.decision) != says)].tolist():
            node.children.setdefault(START if token == EDGE else token, Candidate())

    def _follow(self, element: int, roots: Places, at: Places) -> tuple[Fewer, Fewer]:
        """The matches that go on with `element`, and where they have come."""
        before = self.text.flat[at - 1]
        if element == START:
            return roots[before == EDGE], at[before == EDGE]
        if elements.is_gap(element):
            matched, reached, alive = [roots], [at], before != EDGE
            for _ in range(elements.gap_width(element)):
                roots, at = roots[alive], at[alive] - 1
                matched.append(roots)
                reached.append(at)
                alive = self.text.flat[at - 1] != EDGE
            return np.concatenate(matched), np.concatenate(reached)
        same = before != EDGE if element == IGNORE else before == element
        return roots[same], at[same] - 1

    def graph(self, unit: str, max_activation: float) -> Graph:
        """The candidates at which the answer changes, as a graph; quiet ones predict what the unit does there.

        Then simplified (`graphs.simplify`) to the same answers: tokens that say the same in the same place become one
        class, among activating tokens those that the fit text does not have.
        """
        graph = self.kept(unit, max_activation)
        drop_covered(graph)
        merge_classes(graph, {token for token, candidate in self.roots.items() if candidate.n == 0})
        return graph

    def kept(self, unit: str, max_activation: float) -> Graph:
        """The same before it is simplified. A pattern is kept if it answers unlike the pattern that it extends."""
        graph = Graph(unit, max_activation)
        for token, candidate in sorted(self.roots.items()):
            if (node := self._kept(token, candidate, False)) is not None:
                graph.roots[token] = node
        return graph

    def _kept(self, element: int, candidate: Candidate, says: bool) -> Node | None:
        fires = candidate.share >= self.weights.decision
        node = Node(element, 1.0 if fires else candidate.share)
        if element == IGNORE or elements.is_gap(element):
            fires = says  # what matches anything says nothing by itself: it only leads on
        elif fires != says:
            node.end = _end(candidate, fires)
        for key, child in sorted(candidate.children.items()):
            if (kept := self._kept(key, child, fires)) is not None:
                node.children[key] = kept
        if node.end is None and not node.children:
            return None
        return node


def _end(candidate: Candidate, fires: bool) -> End:
    seen = candidate.n + candidate.asked
    support = candidate.fired + round(candidate.answered)
    if not fires:
        quiet = candidate.quiet / max(candidate.n - candidate.fired, 1)
        return End(min(quiet, 0.49), support, seen)
    firing = candidate.fired + candidate.answered
    mean = (candidate.activation + candidate.strength) / firing if firing else 0.5
    return End(min(max(mean, 0.5), 1.0), support, seen)
