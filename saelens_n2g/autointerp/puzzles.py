"""Puzzles: units that were made up, whose explanation is therefore known; a test of who writes and who reads sentences.

A puzzle has a true explanation, false ones, and sentences with activations from 0 to 10. The idea is that of Bills et
al. 2023; ours (`puzzles.json`) are other ones, spread over `KINDS`, and their `puzzles.json` is read too. There:

    {"name": "river", "explanation": "the word 'river'", "false_explanations": ["names of cities", ...],
     "sentences": [["They", " crossed", " the", [" river", 9], "."], ...]}

Readers are tested by whether the true explanation predicts better than the false ones (multiple choice), than
"something" and than those of other puzzles; writers by whether their sentence, read by a simulator, predicts better
than the false ones. Sentences are few, so what a writer or a table says of some is always scored on others.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from saelens_n2g.autointerp.controls import NEUTRAL, OTHER, SHUFFLED, Validity, validity
from saelens_n2g.autointerp.excerpts import Evidence, Excerpt
from saelens_n2g.autointerp.explainers import Explainer
from saelens_n2g.autointerp.predictors import Failure, Predicted, Prediction, Predictor, own_predictor
from saelens_n2g.autointerp.scores import score_tokens
from saelens_n2g.autointerp.simulators import NEUTRAL as NOTHING
from saelens_n2g.autointerp.simulators import SentencePredictor, Simulator
from saelens_n2g.errors import ArtefactError
from saelens_n2g.jobs.artefacts import read_json
from saelens_n2g.scoring import cycle

FORMAT, VERSION = "saelens-n2g/puzzles", 1
KINDS = (
    "token", "morphology", "topic", "context", "position", "negation", "punctuation", "numbers", "language", "code",
    "sentiment", "syntax",
)  # fmt: skip
THRESHOLD = 0.5
"""Share of 10 from which a token fires."""
STRONGEST = 10
Metrics = Mapping[str, float | None]
"""`correlation` and `auprc`; None where undefined, or where nothing was predicted."""


@dataclass(frozen=True, eq=False)
class Puzzle:
    """A unit that was made up."""

    name: str
    kind: str
    """One of `KINDS`; empty for puzzles of others."""
    explanation: str
    false: tuple[str, ...]
    sentences: tuple[Excerpt, ...]

    def evidence(self, fit: Sequence[Excerpt]) -> Evidence:
        """What a writer may know of it: some of its sentences."""
        return Evidence(
            name=f"0.puzzle/{self.name}/0",
            run="puzzles",
            basis=self.name,
            layer=0,
            max_activation=float(STRONGEST),
            threshold=THRESHOLD,
            excerpts=tuple(fit),
            graph=None,
            checksum=self.name,
        )


def load_puzzles(path: Path | None = None) -> list[Puzzle]:
    """Our puzzles, or those in a file, in our format or as the plain list of OpenAI's repository.

    Raises `ArtefactError` for anything else.
    """
    place = path or Path(str(files("saelens_n2g.autointerp") / "puzzles.json"))
    value = read_json(place)
    if isinstance(value, dict):
        if (value.get("format"), value.get("version")) != (FORMAT, VERSION):
            found = f"{value.get('format')!r}, {value.get('version')!r}"
            raise ArtefactError(f"file {place}", f"a list of puzzles, or {FORMAT!r} version {VERSION}", found)
        value = value.get("puzzles")
    ids: dict[str, int] = {}
    try:
        puzzles = [_puzzle(one, ids) for one in value]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ArtefactError(f"file {place}", "whole puzzles", f"{type(error).__name__}: {error}") from error
    if not puzzles or len({one.name for one in puzzles}) < len(puzzles):
        raise ArtefactError(f"file {place}", "puzzles with different names", f"{len(puzzles)} puzzles")
    return puzzles


def _puzzle(value: Mapping[str, Any], ids: dict[str, int]) -> Puzzle:
    """One puzzle; `ids` numbers the tokens of all of them."""
    name, false = str(value["name"]), tuple(str(text) for text in value["false_explanations"])
    sentences = [_sentence(name, place, one, ids) for place, one in enumerate(value["sentences"])]
    if not sentences or not false or not value["explanation"]:
        raise ValueError(f"puzzle {name!r} without sentences, or true and false explanations")
    return Puzzle(name, str(value.get("kind", "")), str(value["explanation"]), false, tuple(sentences))


def _sentence(name: str, place: int, tokens: Sequence[Any], ids: dict[str, int]) -> Excerpt:
    pairs = [(one, 0) if isinstance(one, str) else (str(one[0]), float(one[1])) for one in tokens]
    if any(not 0 <= activation <= STRONGEST for _, activation in pairs):
        raise ValueError(f"an activation outside 0 to {STRONGEST} in sentence {place} of {name!r}")
    return Excerpt(
        ids=tuple(ids.setdefault(text, len(ids)) for text, _ in pairs),
        strings=tuple(text for text, _ in pairs),
        activations=np.array([activation for _, activation in pairs], dtype=np.float64) / STRONGEST,
        window=place,
        document=f"{name} {place}",
        kind="random",
        side="fit",
    )


# --- scores of one puzzle -----------------------------------------------------------------------------------------


def score(sentences: Sequence[Excerpt], predictions: Sequence[Prediction]) -> Metrics | Failure:
    """Scores over all tokens of all sentences; the first failure where there is one."""
    for found in predictions:
        if isinstance(found, Failure):
            return found
    actual = np.concatenate([one.activations for one in sentences])
    values = score_tokens(actual, np.concatenate(list(predictions)), THRESHOLD).values
    return {name: values[name] for name in ("correlation", "auprc")}


def read_by(simulator: Simulator, text: str, sentences: Sequence[Excerpt]) -> Metrics | Failure:
    """How well a sentence predicts with a simulator."""
    return score(sentences, SentencePredictor(text, simulator).predict(sentences).predictions)


def left_out(puzzle: Puzzle, fit: Callable[[Evidence], Predictor], folds: int | None = None) -> Metrics | Failure:
    """How well what is fitted on some sentences predicts the others: every sentence once, in so many folds (every so
    many-th sentence together), each sentence by itself where no number is given."""
    n = len(puzzle.sentences)
    folds = min(folds or n, n)
    predictions: list[Prediction] = [Failure("never predicted")] * n
    for fold in range(folds):
        here = range(fold, n, folds)
        known = [one for place, one in enumerate(puzzle.sentences) if place not in here]
        predictor = fit(puzzle.evidence(known))
        asked = [replace(puzzle.sentences[place], side="test") for place in here]
        for place, found in zip(here, predictor.predict(asked).predictions, strict=True):
            predictions[place] = found
    return score(puzzle.sentences, predictions)


def by_counts(puzzle: Puzzle, name: str) -> Metrics | Failure:
    """A table of counts, each sentence predicted from the others."""
    return left_out(puzzle, lambda evidence: own_predictor(name, evidence))


class _Silent(NamedTuple):
    """Predicts nothing."""

    reason: str

    def predict(self, excerpts: Sequence[Excerpt]) -> Predicted:
        return Predicted([Failure(self.reason) for _ in excerpts])


def written_by(explainer: Explainer, simulator: Simulator, puzzle: Puzzle) -> Metrics | Failure:
    """How well an explainer's sentences predict with a simulator: written from one half, scored on the other, twice."""

    def fit(evidence: Evidence) -> Predictor:
        said = explainer.explain(evidence)
        return _Silent(said.reason) if said.text is None else SentencePredictor(said.text, simulator)

    return left_out(puzzle, fit, 2)


# --- scores of a reader, of a writer ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Read:
    """A simulator on one puzzle."""

    puzzle: str
    kind: str
    scores: Mapping[str, Metrics | Failure]
    """`true`, `neutral`, `other`, `shuffled`, and `false 1` and so on."""
    chosen: bool | None
    """Whether the true explanation predicts better, in correlation, than each false one; None where one failed."""
    rank: int | None
    """Place of the true explanation among those of all puzzles, on these sentences; equal ones come before it. None
    where one failed, or the true one predicts the same everywhere."""

    def value(self, name: str, metric: str) -> float | None:
        """A score; None where it is undefined or failed."""
        found = self.scores.get(name)
        return None if found is None or isinstance(found, Failure) else found[metric]


def score_reader(
    simulator: Simulator, puzzles: Sequence[Puzzle], seed: int = 0, tick: Callable[[], None] = lambda: None
) -> list[Read]:
    """A simulator on every puzzle, after each of which `tick` is called. It reads each puzzle's explanations, and those
    of all others on its sentences."""
    order = cycle(len(puzzles), [seed, 7])
    found = []
    for place, puzzle in enumerate(puzzles):
        sentences = puzzle.sentences
        every = [read_by(simulator, one.explanation, sentences) for one in puzzles]
        false = [read_by(simulator, text, sentences) for text in puzzle.false]
        scores: dict[str, Metrics | Failure] = {"true": every[place], NEUTRAL: read_by(simulator, NOTHING, sentences)}
        if order:
            scores[OTHER] = every[order[place]]
        mixed = np.random.default_rng([seed, place]).permutation(np.concatenate([e.activations for e in sentences]))
        cuts = np.cumsum([len(e.ids) for e in sentences])[:-1]
        moved = [replace(e, activations=a) for e, a in zip(sentences, np.split(mixed, cuts), strict=True)]
        scores[SHUFFLED] = read_by(simulator, puzzle.explanation, moved)
        scores |= {f"false {i}": one for i, one in enumerate(false, 1)}
        others = [one for at, one in enumerate(every) if at != place]
        found.append(Read(puzzle.name, puzzle.kind, scores, best(every[place], false), _rank(every[place], others)))
        tick()
    return found


def best(true: Metrics | Failure, false: Sequence[Metrics | Failure]) -> bool | None:
    """Whether one explanation predicts better than each of several; None where one failed: it is not beaten."""
    if isinstance(true, Failure) or any(isinstance(one, Failure) for one in false):
        return None
    return _rank(true, false) == 1


def _rank(own: Metrics | Failure, others: Sequence[Metrics | Failure]) -> int | None:
    """1 + the number of others that are at least as good; what is undefined is never as good. None where one failed."""
    if isinstance(own, Failure) or own["correlation"] is None:
        return None
    values = [one["correlation"] for one in others if not isinstance(one, Failure)]
    if len(values) < len(others):
        return None
    return 1 + sum(value is not None and value >= own["correlation"] for value in values)


def validity_of(reads: Sequence[Read], seed: int = 0) -> Validity:
    """Whether the simulator's true explanations beat its controls."""
    metrics = ("correlation", "auprc")
    true = {metric: [one.value("true", metric) for one in reads] for metric in metrics}
    controls = {
        name: {metric: [one.value(name, metric) for one in reads] for metric in metrics}
        for name in (NEUTRAL, OTHER, SHUFFLED)
    }
    return validity(true, controls, seed=seed)


def as_list(puzzles: Sequence[Puzzle]) -> list[dict[str, Any]]:
    """Puzzles in the shape of OpenAI's file."""
    out = []
    for one in puzzles:
        sentences = [
            [[s, round(10 * a)] if a else s for s, a in zip(e.strings, e.activations.tolist(), strict=True)]
            for e in one.sentences
        ]
        about = {"name": one.name, "explanation": one.explanation, "false_explanations": list(one.false)}
        out.append({**about, "sentences": sentences})
    return out
