"""Sentences and who reads them: templates of graphs and tables, the reader of quotes, the embedding simulator."""

import importlib.machinery
import re
import sys
import types

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_autointerp import excerpt, unit

from saelens_n2g.autointerp import encoders, phrases
from saelens_n2g.autointerp.controls import NEUTRAL
from saelens_n2g.autointerp.detection import Answers
from saelens_n2g.autointerp.embedding import Embedding
from saelens_n2g.autointerp.explainers import EXPLAINERS, Explained, Explainer
from saelens_n2g.autointerp.judge import Rules
from saelens_n2g.autointerp.phrases import Clause, Item, item, quoted, read, sentence
from saelens_n2g.autointerp.predictors import Failure, Predicted
from saelens_n2g.autointerp.scorers import SCORERS
from saelens_n2g.autointerp.simulators import SIMULATORS, SentencePredictor, Simulator, checked, hidden
from saelens_n2g.autointerp.templated import from_graph
from saelens_n2g.autointerp.wording import words_of
from saelens_n2g.errors import InputError
from saelens_n2g.graphs import elements
from saelens_n2g.graphs.graph import End, Graph

STRINGS = {
    0: " the",
    1: " over",
    2: " all",
    3: " York",
    4: " New",
    5: " `",
    6: "\\",
    7: "\n",
    8: "after",
    9: "; on",
    10: "<0>",
}
TOKEN = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1, max_size=4).filter(
    lambda text: "\ufffd" not in text
)


def graph_of(*paths, classes=()) -> Graph:
    """Paths are (elements, activation, support, seen)."""
    graph = Graph("1.mlp_post/neurons/3", 2.0, token_strings=dict(STRINGS))
    for members in classes:
        graph.add_class(members)
    for path, activation, support, seen in paths:
        graph.add([(e, 1.0) for e in path], activation)
        level = graph.roots
        for e in path:
            node, level = level[e], level[e].children
        node.end = End(activation, support, seen)
    return graph


def on(ids, **more):
    return excerpt([0.0] * len(ids), ids=ids, strings=[STRINGS[i] for i in ids], **more)


def predicted(text, *rows):
    found = SIMULATORS.make("quoted").simulate(text, [on(row) for row in rows]).predictions
    return [p.tolist() for p in found]


# --- sentences of graphs ----------------------------------------------------------------------------------------


def test_a_graph_in_words():
    graph = graph_of(
        ((1, 2), 0.9, 60, 60),
        ((3, 4), 0.9, 25, 25),
        ((8, 4), 0.8, 5, 5),
        ((0,), 0.7, 10, 12),
        ((3, 0), 0.1, 0, 4),
        classes=[(0, 4)],
    )
    assert from_graph(graph) == (
        "Fires on `·over` after `·all` (60 %); on `·York` or `after` after `·New` (30 %); on `·the` (10 %). "
        "Stays quiet on `·York` after `·the`."
    )


def test_gaps_classes_wildcards_and_starts_are_said():
    gap = elements.gap(3)
    graph = graph_of(
        ((1, gap, 2), 0.9, 50, 50),
        ((3, elements.IGNORE, elements.of_class(0)), 0.9, 30, 30),
        ((7, elements.START), 0.9, 20, 20),
        classes=[(0, 4)],
    )
    assert from_graph(graph) == (
        "Fires on `·over` after `·all` then up to 3 tokens (50 %); on `·York` after `·the` or `·New` then any token "
        "(30 %); on `⏎` at the start of the text (20 %)."
    )


def test_a_graph_that_never_fires_says_nothing():
    assert from_graph(Graph("u", 1.0)) == ""
    assert from_graph(graph_of(((1,), 0.2, 0, 3))) == ""
    found = EXPLAINERS.make("templated").explain(unit([], graph=Graph("u", 1.0)))
    assert (found.text, found.status, found.reason) == (None, "silent", "no graph that fires")


@given(st.integers(1, 60), st.integers(80, 400))
def test_sentences_are_bounded_and_count_what_they_leave_out(n, limit):
    clauses = [Clause(item([f" w{i}"], 9), (item([f" c{i}"], 9),), True, 0.1) for i in range(n)]
    text = sentence(clauses, 0, limit)
    assert len(text) <= limit + 40
    said = read(text)
    left = re.search(r"and on (\d+) rarer", text)
    assert len(said) + (int(left[1]) if left else 0) == n


@given(
    st.lists(
        st.tuples(
            st.lists(TOKEN, min_size=1, max_size=3, unique=True),
            st.lists(
                st.one_of(
                    st.lists(TOKEN, min_size=1, max_size=3, unique=True),
                    st.integers(1, 9),
                    st.just("any"),
                ),
                max_size=3,
            ),
            st.booleans(),
        ),
        min_size=1,
        max_size=4,
    ),
    st.booleans(),
)
def test_what_is_written_is_read_back_whatever_the_tokens(parts, at_start):
    clauses = []
    for targets, before, fires in parts:
        context = [
            Item(gap=one) if isinstance(one, int) else Item() if one == "any" else item(one, 9) for one in before
        ]
        clauses.append(Clause(item(targets, 9), tuple(context), fires, None))
    first = clauses[0]
    start = (Item(start=True), *first.before) if at_start else first.before
    clauses[0] = Clause(first.targets, start, True, 0.25)
    text = sentence(clauses, 0, 100_000)
    expected = [c for c in clauses if c.fires] + [c for c in clauses if not c.fires]
    assert [(c.targets, c.before, c.fires) for c in read(text)] == [(c.targets, c.before, c.fires) for c in expected]
    assert read(text)[0].share == 0.25


def test_sets_name_some_and_count_the_rest():
    one = item([" a", " b", " c", "\ufffd"], 2)
    assert one == Item(("`·a`", "`·b`"), 2)
    text = sentence([Clause(one, (item(["\ufffd"], 2),), True, None)], 0, 500)
    assert text == "Fires on `·a`, `·b` or 2 others after 1 token of no whole characters."
    assert read(text) == [Clause(one, (Item(more=1),), True, None)]


# --- the reader -------------------------------------------------------------------------------------------------


def test_the_reader_knows_contexts_gaps_starts_and_exceptions():
    text = "Fires on `·over` after `·all` then up to 1 token; on `·the`. Stays quiet on `·the` after `·New`."
    assert predicted(text, [2, 1], [2, 3, 1], [2, 3, 3, 1], [1]) == [[0, 1], [0, 0, 1], [0, 0, 0, 0], [0]]
    assert predicted(text, [0, 4, 0]) == [[1, 0, 0]]
    start = "Fires on `·York` at the start of the text."
    assert predicted(start, [3, 3]) == [[1, 0]]


def test_the_reader_of_any_other_sentence_takes_what_it_quotes():
    assert predicted("Names of cities such as `·York`, or `·New`.", [4, 3, 0]) == [[1, 1, 0]]
    assert predicted("something", [4, 3, 0]) == [[0, 0, 0]]


@given(st.lists(st.integers(0, 4), min_size=1, max_size=12))
def test_a_templated_sentence_read_back_fires_where_its_graph_does(ids):
    graph = graph_of(
        ((1, 2), 0.9, 60, 60),
        ((3, elements.gap(2), 4), 0.9, 25, 25),
        ((0,), 0.7, 10, 12),
        ((0, 3), 0.1, 0, 4),
        ((2, elements.START), 0.8, 9, 9),
        ((1, 4, elements.IGNORE, 0), 0.8, 8, 9),
    )
    (found,) = predicted(from_graph(graph), ids)
    assert found == (graph.predict(ids) >= 0.5).astype(float).tolist()


def test_a_table_in_words():
    seen = [excerpt([0.9, 0.1, 0.4], ids=[1, 2, 3], strings=[STRINGS[i] for i in (1, 2, 3)], side="fit")]
    found = EXPLAINERS.make("templated-table", {"limit": "300"}).explain(unit(seen))
    assert found.text == "Fires on `·over` or `·York`."
    assert EXPLAINERS.make("templated-table").explain(unit([])).status == "silent"


# --- registries ---------------------------------------------------------------------------------------------------


def test_registries_know_what_the_package_brings_and_refuse_the_rest():
    assert {"templated", "templated-table"} <= set(EXPLAINERS.names())
    assert {"quoted", "embedding"} <= set(SIMULATORS.names())
    assert isinstance(EXPLAINERS.make("templated"), Explainer)
    assert isinstance(SIMULATORS.make("quoted"), Simulator)
    with pytest.raises(InputError, match=r"one of .*templated"):
        EXPLAINERS.make("oracle")
    with pytest.raises(InputError, match=r"one of .*quoted"):
        SIMULATORS.make("oracle")
    with pytest.raises(InputError, match="options of explainer templated: expected limit, found size"):
        EXPLAINERS.make("templated", {"size": 3})
    with pytest.raises(InputError, match="options of simulator quoted: expected none"):
        SIMULATORS.make("quoted", {"size": 3})
    with pytest.raises(InputError, match="a name that is free"):
        EXPLAINERS.register("templated", lambda _: EXPLAINERS.make("templated-table"))
    with pytest.raises(InputError, match="a name that is free"):
        SIMULATORS.register("quoted", lambda _: SIMULATORS.make("embedding"))


@pytest.mark.parametrize(("text", "status"), [(None, "explained"), ("", "explained"), ("x", "failed"), ("x", "odd")])
def test_a_text_is_there_exactly_where_it_was_explained(text, status):
    with pytest.raises(InputError):
        Explained(text, status)


# --- what simulators may not do -----------------------------------------------------------------------------------


class Spy:
    """Says what it is told to; remembers what it saw."""

    name, settings = "spy", {}

    def __init__(self, *said) -> None:
        self.said, self.seen = said, []

    def simulate(self, explanation, excerpts) -> Predicted:  # noqa: ARG002  # the protocol's signature
        self.seen += excerpts
        return Predicted(list(self.said), {"requests": 1})


def test_simulators_see_no_activation():
    spy = Spy(np.zeros(2))
    SentencePredictor("x", spy).predict([excerpt([0.9, 0.3])])
    assert spy.seen[0].activations.tolist() == [0, 0]
    assert hidden([excerpt([0.9, 0.3])])[0].strings == (" t0", " t1")


def test_misshapen_and_infinite_predictions_are_failures():
    excerpts = [excerpt([0.9, 0.3], i) for i in range(3)]
    said = SentencePredictor("x", Spy(np.zeros(3), np.array([np.nan, 0.0]), np.ones(2))).predict(excerpts)
    assert said.predictions[0] == Failure("3 values for 2 tokens")
    assert said.predictions[1] == Failure("values that are not finite")
    assert said.predictions[2].tolist() == [1, 1]
    assert said.costs == {"requests": 1}
    with pytest.raises(InputError, match="simulator spy: expected 2 predictions, found 1"):
        checked("spy", excerpts[:2], [np.zeros(2)])


# --- embeddings ---------------------------------------------------------------------------------------------------


class Letters:
    """An encoder of fakes: how often each letter stands in a text."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def encode(self, texts):
        self.asked += texts
        return np.array(
            [[text.count(letter) for letter in "abcdefghijklmnopqrstuvwxyz"] for text in texts], dtype=float
        )


def test_words_are_whole_and_shared_by_their_tokens():
    assert words_of(["un", "happy", " dog", "s", ".", " a"]) == ["unhappy", "unhappy", "dogs.", "dogs.", "dogs.", "a"]


def test_a_word_is_predicted_by_its_cosine_with_the_sentence_and_asked_once():
    encoder = Letters()
    one = excerpt([0.0] * 4, ids=[0, 1, 2, 3], strings=["ab", " ab", " cc", " --"])
    (found,) = Embedding(encoder, "letters").simulate("a", [one]).predictions
    assert found == pytest.approx([1 / np.sqrt(2), 1 / np.sqrt(2), 0.0, 0.0])
    assert encoder.asked == ["a", "ab", "cc", "--"], "each once, the sentence by itself"


def test_without_sentence_transformers_the_embedding_simulator_says_what_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    for kind in (SIMULATORS, SCORERS):
        with pytest.raises(InputError, match="pip install sentence-transformers"):
            kind.make("embedding", {"model": "x"})


@pytest.fixture
def installed(monkeypatch):
    """The package, with one model `x` that gives each text a vector of its own."""
    loaded, encoded = [], []

    class Model:
        def __init__(self, name) -> None:
            if name != "x":
                raise OSError(f"no {name}")
            loaded.append(name)

        def encode(self, texts, show_progress_bar):
            assert not show_progress_bar
            encoded.append(tuple(texts))
            return np.eye(26, dtype=np.float32)[["abcdefghijklmnopqrstuvwxyz".index(text.strip()[0]) for text in texts]]

    fake = types.ModuleType("sentence_transformers")
    fake.SentenceTransformer, fake.__spec__ = Model, importlib.machinery.ModuleSpec("sentence_transformers", None)
    monkeypatch.setitem(sys.modules, "sentence_transformers", fake)
    encoders._loaded.cache_clear()
    yield loaded, encoded
    encoders._loaded.cache_clear()


def test_sentence_transformers_is_asked_for_arrays_and_loaded_once_at_the_first_text(installed):
    loaded, encoded = installed
    simulator = SIMULATORS.make("embedding", {"model": "x"})
    assert simulator.settings == {"model": "x", "files": [], "version": 1}
    assert loaded == []
    some = [excerpt([0.0, 0.0], strings=["ab", " cd"])]
    assert simulator.simulate("a", some).predictions[0].tolist() == [1.0, 0.0]
    assert simulator.simulate("c", some).predictions[0].tolist() == [0.0, 1.0]
    assert encoded == [("a",), ("ab", "cd"), ("c",)], "what sentences are held against is encoded once"
    SCORERS.make("embedding", {"model": "x"}).score("y", unit([excerpt([0.9])]), Rules())
    assert loaded == ["x"]
    with pytest.raises(InputError, match="a model of sentence-transformers, found no z"):
        SIMULATORS.make("embedding", {"model": "z"}).simulate("y", [excerpt([0.0, 0.0])])


def test_excerpts_that_mean_what_the_sentence_says_are_told_by_their_cosine():
    def one(place, fires, word):
        return excerpt([0.9 if fires else 0.1, 0.0], place, strings=[word, " q"], ids=[2 * place, 2 * place + 1])

    some = [one(0, True, "ab"), one(1, True, "ccc"), one(2, False, "ba"), one(3, False, "xyz")]
    scorer = Embedding(Letters(), "letters")
    found = scorer.score("abab", unit(some), Rules())
    # ab ties with ba, which does not fire: half a win; it wins over xyz; ccc ties with xyz and loses to ba.
    assert found.answers == Answers(None, None, (0.5 + 1 + 0.5 + 0) / 4, 2, 2)
    assert scorer.score("abab", unit([]), Rules()) == Failure("no excerpt to score on", again=False)


def test_the_neutral_sentence_quotes_nothing():
    from saelens_n2g.autointerp.simulators import NEUTRAL as NOTHING

    assert NEUTRAL != NOTHING  # the name of the control, and what it says
    assert phrases.read(NOTHING) == []


@given(TOKEN)
def test_quotes_tell_tokens_apart(text):
    assert quoted(text) == quoted(text)
    assert quoted(text)[0] == quoted(text)[-1] == "`"
    assert phrases.read(f"It is {quoted(text)}, no doubt") == [Clause(Item((quoted(text),)), (), True, None)]
