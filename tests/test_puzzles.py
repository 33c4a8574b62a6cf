"""Puzzles: their shape, that each does what its explanation says, and the tests of readers and writers made of them."""

import json
import re
from collections import Counter

import numpy as np
import pytest

from saelens_n2g.autointerp.explainers import EXPLAINERS
from saelens_n2g.autointerp.predictors import Failure, Predicted
from saelens_n2g.autointerp.puzzle_table import markdown
from saelens_n2g.autointerp.puzzles import (
    KINDS,
    as_list,
    by_counts,
    left_out,
    load_puzzles,
    read_by,
    score_reader,
    validity_of,
    written_by,
)
from saelens_n2g.autointerp.simulators import SIMULATORS
from saelens_n2g.errors import ArtefactError, InputError

PUZZLES = load_puzzles()


def words(text: str):
    """A rule: the token without space and case is one of these words."""
    return lambda tokens, i: tokens[i] in text.split()


def after(*before: str):
    """A rule: the token stands right behind one of these."""
    return lambda tokens, i: i > 0 and tokens[i - 1] in before


def inside(tokens, i):
    return "(" in tokens[:i] and ")" in tokens[i:] and tokens[i] not in "()"


def number(tokens, i):
    return int(tokens[i]) if tokens[i].isdigit() else -1


QUANTITIES = "cup slices dozens pile kilos litre"
UN = "unhappy unlocked unknown unfair unwise unpaid unlikely"
GOOD = "good great happy pretty"
RULES = {
    "river": words("river"),
    "however": words("however"),
    "endings": lambda t, i: t[i].endswith("ing"),
    "undone": words(UN),
    "pasts": lambda t, i: t[i].endswith("ed") and t[i] not in ("red", "bed", "shed", "seed", "sled", "need"),
    "weather": words("rain thunder snow wind storm fog drizzle hail"),
    "kitchen": words("pan stove kettle ladle oven spoon saucepan"),
    "instruments": words("violin piano drums flute guitars cello"),
    "sea": words("whale dolphins crabs octopus shark squid"),
    "house": words("roof stairs door ceiling window floor attic"),
    "quantity": lambda t, i: t[i] == "of" and t[i - 1] in QUANTITIES.split(),
    "bank": lambda t, i: t[i] == "bank" and not {"money", "town", "friday"} & set(t) and bool(
        {"river", "reeds", "boat", "stream"} & set(t)
    ),
    "very": after("very"),
    "again": lambda t, i: t[i].isalpha() and t[i] in t[:i],
    "first": lambda _, i: i == 0,
    "last": lambda t, i: i == len(t) - 2,
    "notverb": after("not"),
    "nocomma": lambda t, i: t[i] == "." and "," not in t,
    "questions": words("?"),
    "brackets": inside,
    "years": lambda t, i: number(t, i) >= 1000,
    "even": lambda t, i: number(t, i) >= 0 and number(t, i) % 2 == 0,
    "numberwords": words("seven twelve three ninety two five"),
    "french": words("bonjour du pain bonne chance merci"),
    "german": words("achtung guten morgen danke eingang quatsch"),
    "assigned": lambda t, i: i == 0 and t[1:2] == ["="],
    "defined": after("def"),
    "praise": words("brilliant wonderful superb charming excellent marvellous"),
    "spoiled": lambda t, i: t[i] in GOOD.split() and i > 0 and t[i - 1] == "not",
    "relative": lambda t, i: t[i] in ("who", "which") and i > 0,
    "lists": after("and"),
}  # fmt: skip
"""Puzzle -> which of its tokens fire, stated once more."""
RULES["capitals"] = lambda tokens, i: i > 0 and tokens[i][0].isupper()
CASED = {"capitals"}


@pytest.mark.parametrize("puzzle", PUZZLES, ids=lambda puzzle: puzzle.name)
def test_every_puzzle_does_what_it_says(puzzle):
    for one in puzzle.sentences:
        tokens = [s.strip() if puzzle.name in CASED else s.strip().lower() for s in one.strings]
        expected = [bool(RULES[puzzle.name](tokens, i)) for i in range(len(tokens))]
        assert (one.activations > 0).tolist() == expected, one.strings


def test_there_are_enough_of_every_kind_and_they_are_of_one_shape():
    assert len(PUZZLES) >= 30
    kinds = Counter(one.kind for one in PUZZLES)
    assert set(kinds) == set(KINDS)
    assert min(kinds.values()) >= 2
    for one in PUZZLES:
        assert 6 <= len(one.sentences) <= 10
        assert len(set(one.false)) == 3
        assert one.explanation not in one.false
        strengths = {round(10 * a, 6) for e in one.sentences for a in e.activations}
        assert strengths <= {0, 7, 8, 9, 10}
        quiet = sum(not e.activations.any() for e in one.sentences)
        assert quiet >= 1 or one.kind == "position", one.name
        assert len(one.sentences) - quiet >= 3
        assert all(len(e.ids) <= 14 for e in one.sentences)


def test_files_of_others_are_read(tmp_path):
    path = tmp_path / "puzzles.json"
    path.write_text(json.dumps(as_list(PUZZLES)))
    theirs = load_puzzles(path)
    assert [one.name for one in theirs] == [one.name for one in PUZZLES]
    for a, b in zip(theirs, PUZZLES, strict=True):
        assert (a.explanation, a.false, a.kind) == (b.explanation, b.false, "")
        for x, y in zip(a.sentences, b.sentences, strict=True):
            assert (x.strings, x.activations.tolist()) == (y.strings, y.activations.tolist())


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ([], "puzzles with different names"),
        ({"format": "other", "version": 1}, "a list of puzzles, or 'saelens-n2g/puzzles' version 1"),
        ([{"name": "a"}], "KeyError"),
        (
            [{"name": "a", "explanation": "b", "false_explanations": ["c"], "sentences": [[["x", 11]]]}],
            "outside 0 to 10",
        ),
        ([{"name": "a", "explanation": "b", "false_explanations": [], "sentences": [["x"]]}], "without sentences"),
        ([{"name": "a", "explanation": "b", "false_explanations": ["c"], "sentences": [[]]}], "at least one"),
        (3, "TypeError"),
    ],
)
def test_what_is_no_puzzle_is_refused(tmp_path, value, words):
    (tmp_path / "p.json").write_text(json.dumps(value))
    with pytest.raises(ArtefactError, match=re.escape(words)):
        load_puzzles(tmp_path / "p.json")


# --- readers ------------------------------------------------------------------------------------------------------


class Knowing:
    """A simulator that knows which explanation is of which puzzle, and is right a share of the time."""

    name, settings = "knowing", {}

    def __init__(self, share: float = 1.0, lost: str | None = None) -> None:
        rng = np.random.default_rng(0)
        self.share, self.lost = share, lost
        self.said = {
            (p.explanation, e.strings): np.where(rng.random(len(e.ids)) < share, e.activations, rng.random(len(e.ids)))
            for p in PUZZLES
            for e in p.sentences
        }

    def simulate(self, explanation, excerpts) -> Predicted:
        if explanation == self.lost:
            return Predicted([Failure("lost") for _ in excerpts])
        noise = np.random.default_rng(len(explanation))
        found = [self.said.get((explanation, e.strings)) for e in excerpts]
        return Predicted([noise.random(len(e.ids)) if f is None else f for e, f in zip(excerpts, found, strict=True)])


def test_a_reader_who_knows_chooses_right_and_is_valid():
    reads = score_reader(Knowing(), PUZZLES)
    assert all(one.chosen and one.rank == 1 for one in reads)
    assert all(one.value("true", "correlation") == pytest.approx(1) for one in reads)
    assert validity_of(reads).verdict == "valid"


def test_a_reader_whose_answers_do_not_depend_on_the_sentence_is_invalid():
    class Same(Knowing):
        def simulate(self, explanation, excerpts):  # noqa: ARG002  # the protocol's signature
            return Predicted([np.array([float(len(s)) for s in e.strings]) for e in excerpts])

    reads = score_reader(Same(), PUZZLES)
    assert not any(one.chosen for one in reads), "a tie is no choice"
    assert {one.rank for one in reads} == {len(PUZZLES)}
    assert validity_of(reads).verdict == "invalid"


def test_a_reader_that_fails_on_a_puzzle_has_no_choice_there():
    lost = PUZZLES[3].explanation
    reads = score_reader(Knowing(lost=lost), PUZZLES)
    assert (reads[3].chosen, reads[3].rank, reads[3].scores["true"]) == (None, None, Failure("lost"))
    assert reads[3].value("true", "auprc") is None
    assert all(one.chosen for i, one in enumerate(reads) if i != 3)
    assert read_by(Knowing(lost=lost), lost, PUZZLES[3].sentences) == Failure("lost")


# --- writers and tables -------------------------------------------------------------------------------------------


def test_tables_predict_each_sentence_from_the_others():
    by_name = {one.name: one for one in PUZZLES}
    assert by_counts(by_name["river"], "table")["correlation"] > 0.95
    assert by_counts(by_name["undone"], "table")["auprc"] < 0.2, "no word of it comes twice"
    seen: list[set[int]] = []

    class Nothing:
        def predict(self, excerpts):
            seen[-1].update(100 + e.window for e in excerpts)
            return Predicted([np.zeros(len(e.ids)) for e in excerpts])

    def fit(evidence):
        seen.append({e.window for e in evidence.of("fit")})
        return Nothing()

    puzzle = by_name["river"]
    assert left_out(puzzle, fit)["correlation"] is None
    n = len(puzzle.sentences)
    assert seen == [{*range(n)} - {i} | {100 + i} for i in range(n)]
    seen.clear()
    left_out(puzzle, fit, 2)
    assert seen == [{1, 3, 5, 100, 102, 104, 106}, {0, 2, 4, 6, 101, 103, 105}]


def test_writers_are_scored_on_sentences_they_did_not_see():
    explainer, reader = EXPLAINERS.make("templated-table"), SIMULATORS.make("quoted")
    found = {one.name: written_by(explainer, reader, one) for one in PUZZLES}
    assert found["river"]["correlation"] > 0.9
    assert found["undone"]["auprc"] < 0.2
    silent = written_by(EXPLAINERS.make("templated"), reader, PUZZLES[0])
    assert silent == Failure("no graph that fires")


def test_the_table_of_puzzles_names_everybody_and_who_fails_is_not_counted():
    if "knowing" not in SIMULATORS.names():
        SIMULATORS.register("knowing", lambda _: Knowing())
    few = list({one.kind: one for one in PUZZLES}.values())
    text = markdown(few, ["quoted", "knowing"], ["templated-table", "templated"], {})
    lines = {tuple(c.strip() for c in line.split("|")[1:3]): line for line in text.splitlines() if line.startswith("|")}
    quoted_line = next(line for line in lines.values() if line.startswith("| quoted"))
    knowing = next(line for line in lines.values() if line.startswith("| knowing"))
    assert quoted_line.rstrip(" |").endswith("invalid")
    assert knowing.rstrip(" |").endswith("| 100 % | 1 | valid")
    assert "| templated | quoted | – |" in text.replace("–  |", "– |")
    assert all(f"| {kind} |" in text for kind in KINDS)
    with pytest.raises(InputError, match="one of"):
        markdown(PUZZLES, ["oracle"], [], {})
