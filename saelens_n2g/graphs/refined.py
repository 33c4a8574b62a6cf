"""The method `refined`: Neuron to Graph that asks the subject before it generalises, and the text before it believes.

Beyond Foote et al. 2023 (`graphs.paper`):

1. Every firing token is an example, not the strongest of each window.
2. A pattern must fire behind *other* texts: the shortest text before an activating token that keeps it firing is
   sought with unrelated text in front of it, so that what only works at the start of a text is not believed.
3. What stands between is loosened jointly: wildcards and gaps stay only if the pattern fires with them filled in.
4. Tokens near to those of a pattern (input embeddings) take their places, and are kept where the subject fires.
5. All of it, and the contexts of the fit text itself, is weighed on the fit text (`graphs.weighing`): patterns that
   misfire there are specialised, silenced in some contexts, or dropped.

What each step is worth is measured in docs/lab-notes.md.
"""

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property

import numpy as np
from jaxtyping import Float

from saelens_n2g.errors import InputError, UnitError
from saelens_n2g.graphs import elements
from saelens_n2g.graphs.elements import IGNORE, START
from saelens_n2g.graphs.evidence import EDGE, Evidence, FitText
from saelens_n2g.graphs.graph import Graph
from saelens_n2g.graphs.methods import register
from saelens_n2g.graphs.paper import FitContext
from saelens_n2g.graphs.questions import Fit, Tokens, ask_activations
from saelens_n2g.graphs.weighing import Path, Weighing, Weights


@dataclass(frozen=True)
class RefinedOptions:
    """Settings of the method. Chosen on neurons other than the benchmark's; docs/lab-notes.md has the alternatives."""

    examples: int = 60
    """Firing tokens from which patterns are sought, drawn from all of them; all count when patterns are weighed."""
    lengths: tuple[int, ...] = (1, 2, 3, 4, 6, 9)
    """Numbers of tokens a pattern may have, tried in this order."""
    fronts: int = 4
    """Unrelated texts that every pattern is asked behind."""
    front: int = 8
    """Tokens of each."""
    fires: float = 0.45
    """Share of the maximum that counts as firing behind an unrelated text."""
    share: float = 0.5
    """Share of the texts on which a pattern must fire."""
    neighbours: int = 60
    """Nearest tokens tried in place of each token of a pattern."""
    proposals: int = 500
    """Patterns with a token replaced that are tried at most in a round, nearest first."""
    rounds: int = 2
    """Rounds of replacement; each starts from what the one before found."""
    glance: float = 0.35
    """Share of the maximum that such a pattern must reach behind a single text to be asked about further."""
    neighbour_fires: float = 0.4
    """Share of the maximum that then counts as firing."""
    silent: int = 3
    """Occurrences in the fit text from which on a token that stays below `glance` there is not tried."""
    alone: float = 0.4
    """F1 on the fit text from which on the activations of single tokens without context are believed."""
    trust: float = 0.35
    """What an occurrence in the exemplars counts for where there is no fit text: they were chosen for their firing."""
    weights: Weights = field(default_factory=Weights)
    """How the evidence is weighed."""
    seed: int = 0
    """Of the texts that are drawn."""

    def __post_init__(self) -> None:
        for name in ("fires", "share", "glance", "neighbour_fires", "alone", "trust"):
            if not 0.0 < getattr(self, name) <= 1.0:
                raise InputError(f"option {name}", "a share in (0, 1]", repr(getattr(self, name)))
        for name, least in (
            ("examples", 1),
            ("fronts", 1),
            ("front", 0),
            ("neighbours", 0),
            ("proposals", 0),
            ("rounds", 0),
        ):
            if getattr(self, name) < least:
                raise InputError(f"option {name}", f"an integer >= {least}", repr(getattr(self, name)))
        if not self.lengths or self.lengths[0] < 1 or list(self.lengths) != sorted(set(self.lengths)):
            raise InputError("option lengths", "ascending integers >= 1", repr(self.lengths))


@register(
    "refined",
    "verified patterns, neighbours and counts on the fit text",
    RefinedOptions,
    reads=("text", "alone", "neighbours"),
)
def fit_refined(
    unit: str, evidence: Evidence, context: FitContext, options: RefinedOptions | None = None
) -> Fit[Graph]:
    """A fit that ends with the unit's graph.

    Reads the fit text if the evidence has one, else the exemplars. Without `context.neighbours` no token is replaced.
    Raises `UnitError` where the unit never reaches half its maximum in what is read.
    """
    options = options or RefinedOptions()
    search = _Search(unit, evidence, context, options)
    patterns = yield from search.patterns()
    yield from search.loosen(patterns)
    yield from search.replace(patterns)
    if evidence.alone is not None:
        search.listen(evidence.alone / evidence.max_activation)
    search.weighing.weigh()
    graph = search.weighing.graph(unit, float(evidence.max_activation))
    graph.name_tokens(context.string)
    graph.provenance = {
        "method": "refined",
        "options": {**asdict(options), "lengths": list(options.lengths)},
        "examples": len(search.examples),
        "firing": int(search.weighing.fires.sum()),
        "fit_tokens": int(search.text.mask.sum()),
        "text": "fit documents" if evidence.text is not None else "exemplars",
        "alone": search.believed,
        "neighbours": context.neighbours is not None,
        **context.provenance,
    }
    return graph


class _Search:
    """What one fit keeps between its steps."""

    def __init__(self, unit: str, evidence: Evidence, context: FitContext, options: RefinedOptions) -> None:
        self.maximum, self.context, self.options = float(evidence.max_activation), context, options
        if not self.maximum > 0.0:
            raise UnitError(f"unit {unit}", "a maximum activation > 0", f"{self.maximum:.4g}")
        if evidence.text is not None and evidence.activations is not None:
            self.text, activations, trust = evidence.text, evidence.activations, 1.0
        elif evidence.exemplars:
            (self.text, activations), trust = FitText.of_exemplars(evidence.exemplars), options.trust
        else:
            raise UnitError(f"unit {unit}", "a fit text or exemplars", "neither")
        self.weighing = Weighing(self.text, activations / self.maximum, options.weights, trust=trust)
        self.believed = False
        self._asked: dict[Path, bool] = {}
        self._fires: dict[Path, bool] = {}
        rng = np.random.default_rng([options.seed, zlib.crc32(unit.encode())])
        firing = np.flatnonzero(self.weighing.fires)
        if firing.size == 0:
            raise UnitError(f"unit {unit}", f"a token with activation >= {self.maximum / 2:.4g}", "none")
        if firing.size > options.examples:
            firing = np.sort(rng.permutation(firing)[: options.examples])
        self.examples: list[int] = firing.tolist()
        self.fronts = self._draw(rng)

    def _draw(self, rng: np.random.Generator) -> list[Tokens]:
        """Stretches of the text to put before patterns; shorter ones where the text has no rows that long."""
        live = self.text.flat != EDGE
        for length in range(self.options.front, 0, -1):
            whole = np.flatnonzero(np.convolve(live, np.ones(length, dtype=np.int64))[length - 1 : len(live)] == length)
            if whole.size:
                starts = rng.choice(whole, size=self.options.fronts, replace=whole.size < self.options.fronts)
                return [tuple(self.text.flat[start : start + length].tolist()) for start in starts.tolist()]
        return [()]

    def _back(self, place: int, n: int) -> Path:
        """The pattern of `n` tokens that ends at a place, with a start of text where the row is that short."""
        path: list[int] = []
        for at in range(place, place - n, -1):
            token = int(self.text.flat[at])
            if token == EDGE:
                path.append(START)
                break
            path.append(token)
        return tuple(path)

    # --- questions ----------------------------------------------------------------------------------------------

    def _rows(self, path: Path, fronts: Sequence[Tokens]) -> list[Tokens]:
        """Texts that end with the pattern, one per front; what matches anything is filled from the front."""
        anchored = path[-1] == START
        rows = []
        for front in fronts:
            filler = iter(front * (1 + len(path)))
            body = [next(filler) if element == IGNORE else element for element in path if element >= IGNORE]
            rows.append((() if anchored else front) + tuple(reversed(body)))
        return list(dict.fromkeys(rows))

    def _ask(self, paths: Sequence[Path], fronts: Sequence[Tokens]) -> Fit[list[list[float]]]:
        """Normalised activations on the activating token, per pattern and text."""
        rows = [self._rows(path, fronts) for path in paths]
        flat = [row for group in rows for row in group]
        answers = iter((yield from ask_activations(flat, [(len(row) - 1,) for row in flat])))
        return [[float(next(answers)[0]) / self.maximum for _ in group] for group in rows]

    def _hear(self, path: Path, values: Sequence[float], fires: float) -> bool:
        """Note the answers; whether enough of them fire. What counts as firing is mapped to 0.5 and more."""
        self.weighing.hear(path, [value + 0.5 - fires for value in values])
        known = self._asked[path] = sum(v >= fires for v in values) >= self.options.share * len(values)
        return known

    # --- steps --------------------------------------------------------------------------------------------------

    def patterns(self) -> Fit[list[Path]]:
        """Per example the shortest pattern that fires behind unrelated texts, in rounds of one length."""
        found: dict[Path, None] = {}
        open_examples = self.examples
        for n in self.options.lengths:
            ends = {place: self._back(place, n) for place in open_examples}
            fresh = [path for path in dict.fromkeys(ends.values()) if path not in self._asked]
            answers = yield from self._ask(fresh, self.fronts)
            for path, values in zip(fresh, answers, strict=True):
                if self._hear(path, values, self.options.fires):
                    found[path] = None
            open_examples = [p for p, path in ends.items() if not self._asked[path] and path[-1] != START]
        return list(found)

    def loosen(self, patterns: Sequence[Path]) -> Fit[None]:
        """Beside the patterns the same with wildcards for what need not be as it is, and gaps for distances that need
        not be: only what fires behind every text, with other tokens in the places of the wildcards."""
        now = {path: path for path in patterns}
        for k in range(1, max(self.options.lengths) - 1):
            tried = {p: (*q[:k], IGNORE, *q[k + 1 :]) for p, q in now.items() if k < len(q) - 1 and q[k + 1] != START}
            strict = yield from self._strict(list(tried.values()))
            now |= {p: path for p, path in tried.items() if strict[path]}
        loose = [path for path in dict.fromkeys(now.values()) if IGNORE in path]
        yield from self._gaps(loose)

    def _strict(self, paths: Sequence[Path]) -> Fit[dict[Path, bool]]:
        """Whether the unit fires behind every text; the patterns on which it does are noted."""
        fresh = [path for path in dict.fromkeys(paths) if path not in self._fires]
        answers = yield from self._ask(fresh, self.fronts)
        for path, values in zip(fresh, answers, strict=True):
            self._fires[path] = min(values) >= 0.5
            if self._fires[path]:
                self.weighing.hear(path, values)
        return {path: self._fires[path] for path in paths}

    def _gaps(self, patterns: Sequence[Path]) -> Fit[None]:
        """For patterns of a token, wildcards and a token: the same with a gap, if every smaller distance fires too."""
        reach = 2 * max(self.options.lengths)
        simple = [p for p in patterns if len(p) > 2 and set(p[1:-1]) == {IGNORE} and p[-1] >= 0]
        tried = {p: [(p[0], *[IGNORE] * d, p[-1]) for d in range(reach + 1)] for p in simple}
        fires = yield from self._strict([q for group in tried.values() for q in group])
        for p, group in tried.items():
            says = [fires[q] for q in group]
            width = says.index(False) - 1 if False in says else reach
            if width >= len(p) - 2:
                self.weighing.hear((p[0], elements.gap(width), p[-1]), [1.0] * len(self.fronts))

    def replace(self, patterns: Sequence[Path]) -> Fit[None]:
        """Try near tokens in place of each token of the patterns, first behind one text, then behind all; then the
        same with the patterns that were found so."""
        first, rest = self.fronts[:1], self.fronts[1:]
        for _ in range(self.options.rounds):
            proposals = list(self._proposals(patterns))
            glances = yield from self._ask(proposals, first)
            kept = [(p, g) for p, g in zip(proposals, glances, strict=True) if g[0] >= self.options.glance]
            answers = yield from self._ask([path for path, _ in kept], rest)
            patterns = [
                path
                for (path, glance), values in zip(kept, answers, strict=True)
                if self._hear(path, [*glance, *values], self.options.neighbour_fires)
            ]

    def _proposals(self, patterns: Sequence[Path]) -> Iterator[Path]:
        """Patterns with one token replaced, nearest first, without what the fit text shows to be silent."""
        near = self.context.neighbours
        if near is None:
            return
        ranked: dict[Path, int] = {}
        tokens = sorted({token for pattern in patterns for token in pattern if token >= 0})
        nearest = dict(zip(tokens, near(tokens, self.options.neighbours), strict=True))
        for pattern in patterns:
            for k, token in enumerate(pattern):
                for rank, other in enumerate(nearest.get(token, ())):
                    path = (*pattern[:k], other, *pattern[k + 1 :])
                    if path not in self._asked and not (k == 0 and other in self._silent):
                        ranked[path] = min(rank, ranked.get(path, rank))
        yield from sorted(ranked, key=lambda path: (ranked[path], len(path), path))[: self.options.proposals]

    @cached_property
    def _silent(self) -> frozenset[int]:
        """Tokens that the fit text has often enough to know that they never come near to firing."""
        tokens, counts, largest = self.text.summarised(self.weighing.values)
        silent = (counts >= self.options.silent) & (largest < self.options.glance)
        return frozenset(tokens[silent].tolist())

    def listen(self, alone: Float[np.ndarray, "vocab"]) -> None:
        """Believe what single tokens do without context, if that predicts the fit text well."""
        live = self.text.flat != EDGE
        says = np.zeros(live.shape, dtype=np.bool_)
        says[live] = alone[self.text.flat[live]] >= 0.5
        fires = self.weighing.fires
        both = int((says & fires).sum())
        self.believed = 2 * both >= self.options.alone * (int(says.sum()) + int(fires.sum())) > 0
        if not self.believed:
            return
        for token in np.flatnonzero(alone >= 0.3).tolist():
            value = float(alone[token])
            self.weighing.believe(token, min((value - 0.3) / 0.4, 1.0), max(value, 0.5))
