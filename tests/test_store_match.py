"""Graphs of a store over a text say what each graph says, whatever is in the text, the cache or the file."""

import json
import random
import shutil
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from atlases import SPECIAL, STRINGS, make_comparison, make_study, some_graph, tokenizer_json
from hypothesis import given, settings
from hypothesis import strategies as st
from test_store import dump
from test_subject import byte_level, sentence_piece

from saelens_n2g.errors import ArtefactError, InputError
from saelens_n2g.graphs.graph import Graph
from saelens_n2g.store import programs
from saelens_n2g.store import tokenizer as tokenizers
from saelens_n2g.store.collect import collect
from saelens_n2g.store.match import MOST_LETTERS, MOST_PREDICTED, MOST_TOKENS, Matcher
from saelens_n2g.store.programs import Cache, compile_graphs, unpack
from saelens_n2g.store.reader import Store
from saelens_n2g.store.records import LayerFacts, Source, UnitFacts
from saelens_n2g.store.services import graph_of, neuron2graph, tokens_of
from saelens_n2g.store.tokenizer import StoredTokenizer, keep_tokenizer
from saelens_n2g.store.writer import Writer
from saelens_n2g.subject import Tokenizer

IDS = st.lists(st.integers(0, 15), min_size=1, max_size=12)
"""Of the graphs' tokens, and two that none of them names."""


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    make_comparison(folder / "demo")
    make_study(folder / "study")
    tokenizer_json(folder)
    return folder


@pytest.fixture(scope="module")
def filled(runs, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("store") / "atlas.db"
    with Writer(path) as writer:
        for name in ("demo", "study"):
            collect(runs / name, writer)
        assert compile_graphs(writer, "toy") == 18
        assert keep_tokenizer(writer, "toy", str(runs / "tokenizer.json"))
    return path


@pytest.fixture(scope="module")
def store(filled):
    with Store.open(filled) as opened:
        yield opened


@pytest.fixture(scope="module")
def graphs(store):
    return graphs_in(store)


@pytest.fixture
def copy(filled, tmp_path) -> Path:
    return Path(shutil.copy(filled, tmp_path / "atlas.db"))


def graphs_in(store: Store) -> dict[int, Graph]:
    """Every graph in a store, by number of its unit, in the order of place."""
    found = {u.id: store.body(u.id, "neuron2graph") for u in store.listing("toy", limit=1000).units}
    return {number: graph_of(body.json()) for number, body in found.items() if body is not None}


def check(matcher: Matcher, ids: list[int], graphs: dict[int, Graph]) -> None:
    """What a matcher finds is what the graphs say one by one."""
    found = matcher.match("toy", ids=ids, limit=1000)
    expected = {}
    for number, graph in graphs.items():
        values = graph.predict(ids)
        if values.max() >= 0.5:
            expected[number] = values
    assert {one.unit.id for one in found.firings} == expected.keys()
    assert (found.total, found.graphs) == (len(expected), len(graphs))
    for one in found.firings:
        graph, values = graphs[one.unit.id], expected[one.unit.id]
        assert {m.position: m.activation for m in one.matches if m.activation} == {
            p: values[p] for p in np.flatnonzero(values)
        }
        assert (one.activation, one.fires) == (values.max(), (values >= 0.5).sum())
        assert [m.position for m in one.matches] == [p for p in range(len(ids)) if graph.matches(ids, p)]
        for match in one.matches:
            matches = graph.matches(ids, match.position)
            counting = [m for m in matches if m.rank == matches[-1].rank]
            paths = [
                list(
                    zip(
                        map(graph.string, m.path),
                        ((r.start, r.stop) for r in graph.places(ids, match.position, m)),
                        strict=True,
                    )
                )
                for m in counting
            ]
            assert match.path is not None
            assert [(e.text, (e.start, e.stop)) for e in reversed(match.path)] in paths


# --- what is said ---------------------------------------------------------------------------------------------


@settings(max_examples=25)
@given(IDS)
def test_it_says_what_every_graph_says(store, graphs, ids):
    check(Matcher(store), ids, graphs)


@settings(max_examples=25)
@given(IDS)
def test_chosen_units_are_predicted_everywhere(store, graphs, ids):
    without = store.unit_id("toy", "tied-R2", 0, 21)
    numbers = [without, *reversed(graphs)]
    found = Matcher(store).predict("toy", numbers, ids=ids)
    assert [unit.id for unit in found.units] == numbers
    assert found.activations[0] is None
    for number, values in zip(numbers[1:], found.activations[1:], strict=True):
        assert list(values) == graphs[number].predict(ids).tolist()
    assert [row["activations"] for row in found.to_dict()["units"]] == [v and list(v) for v in found.activations]


@settings(max_examples=15)
@given(IDS)
def test_orders_and_pages(store, ids):
    matcher = Matcher(store)
    for sort, key in (
        ("activation", lambda one: -one.activation),
        ("positions", lambda one: (-one.fires, -one.activation)),
        ("place", lambda one: (one.unit.basis, one.unit.layer, one.unit.index)),
    ):
        whole = matcher.match("toy", ids=ids, limit=1000, sort=sort).firings
        assert list(whole) == sorted(sorted(whole, key=lambda o: (o.unit.basis, o.unit.layer, o.unit.index)), key=key)
        pages = [matcher.match("toy", ids=ids, limit=4, offset=at, sort=sort) for at in range(0, 24, 4)]
        assert [one for page in pages for one in page.firings] == list(whole)
        assert {page.total for page in pages} == {len(whole)}


def test_some_of_them(store):
    matcher, ids = Matcher(store), list(range(14))
    whole = matcher.match("toy", ids=ids, limit=1000)
    for options, holds in (
        ({"bases": ["sae"]}, lambda u: u.basis == "sae"),
        ({"layers": [0, 1]}, lambda u: u.layer < 2),
        ({"bases": ["neurons", "sae"], "layers": [1]}, lambda u: u.layer == 1),
        ({"units": [one.unit.id for one in whole.firings[:3]]}, lambda u: u in [w.unit for w in whole.firings[:3]]),
        ({"bases": []}, lambda _: False),
    ):
        found = matcher.match("toy", ids=ids, limit=1000, **options)
        assert found.firings == tuple(one for one in whole.firings if holds(one.unit))
        assert found.total == len(found.firings)
    loud = matcher.match("toy", ids=ids, limit=1000, at_least=1.0)
    assert 0 < loud.total < whole.total
    assert all(one.activation == 1.0 for one in loud.firings)
    bare = matcher.match("toy", ids=ids, limit=1000, with_paths=False)
    assert {match.path for one in bare.firings for match in one.matches} == {None}
    assert [one._replace(matches=()) for one in bare.firings] == [one._replace(matches=()) for one in whole.firings]


def test_too_many_paths_are_those_of_the_strongest_positions(store, monkeypatch):
    ids = list(range(14))
    whole = Matcher(store).match("toy", ids=ids, limit=4)
    assert whole.bare == 0
    monkeypatch.setattr("saelens_n2g.store.match.MOST_PATHS", 11)
    found = Matcher(store).match("toy", ids=ids, limit=4)
    assert found.bare == found.to_dict()["paths_left_out"] > 0
    for one, full in zip(found.firings, whole.firings, strict=True):
        kept = sorted(full.matches, key=lambda m: (-m.activation, m.position))[:2]
        assert one.matches == tuple(m if m in kept else m._replace(path=None) for m in full.matches)


def test_as_json(store):
    found = Matcher(store).match("toy", " the New York", limit=2)
    value = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert value["tokens"] == [" the", *found.text.tokens[1:]]
    assert (value["total"], len(value["units"]), value["skipped"]) == (found.total, 2, [])
    for one, firing in zip(value["units"], found.firings, strict=True):
        assert {"basis", "layer", "neuron"} <= one.keys()
        activations = {m["token_index"]: m["activation"] for m in one["matches"]}
        assert activations == {m.position: m.activation for m in firing.matches}
        assert max(activations.values()) == one["max_activation"] == firing.activation
        assert activations[one["max_activating_token_index"]] == firing.activation
        assert all(e.keys() == {"text", "start", "stop"} for m in one["matches"] for e in m["path"])


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"ids": [1], "text": "a"}, "both"),
        ({}, "neither"),
        ({"text": ""}, "1 to 1000 tokens, found 0"),
        ({"ids": [1] * (MOST_TOKENS + 1)}, "1 to 1000 tokens"),
        ({"text": "x" * (MOST_LETTERS + 1)}, "letters"),
        ({"text": "a\ud800"}, "half of one at 1"),
        ({"ids": [3, -1]}, "found -1"),
        ({"ids": [1 << 40]}, "from 0 on"),
        ({"ids": [1], "bases": ["sea"]}, "basis 'sea'"),
        ({"ids": [1], "layers": [7]}, "layer 7"),
        ({"ids": [1], "at_least": 0.0}, "at_least"),
        ({"ids": [1], "at_least": float("nan")}, "at_least"),
        ({"ids": [1], "sort": "size"}, "sort"),
        ({"ids": [1], "limit": -1}, "limit"),
    ],
)
def test_what_makes_no_sense_is_refused(store, options, named):
    with pytest.raises(InputError, match=named):
        Matcher(store).match("toy", **options)


def test_what_is_not_there_is_refused(store):
    unit = next(iter(graphs_in(store)))
    for call in (
        lambda m: m.match("other", ids=[1]),
        lambda m: m.predict("other", [unit], ids=[1]),
        lambda m: m.predict("toy", [unit, 1], ids=[1]),
        lambda m: m.predict("toy", [unit] * (MOST_PREDICTED + 1), ids=[1]),
    ):
        with pytest.raises(InputError):
            call(Matcher(store))


# --- text -----------------------------------------------------------------------------------------------------


def metaspace():
    """A tokenizer as of Llama, whose special tokens, added ones and spaces are all its own affair."""
    from tokenizers import Tokenizer as Backend
    from tokenizers import decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = "abcdefghijklmnopqrstuvwxyz <>|/s_."
    pieces = ["<unk>", "<s>", "</s>", "\u2581the", "\u2581", *dict.fromkeys(letters), "\n", "\u2581\u2581", "\u00e9"]
    backend = Backend(models.Unigram([(piece, -float(len(piece))) for piece in pieces], unk_id=0))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    backend.decoder = decoders.Metaspace(prepend_scheme="first")
    backend.add_tokens(["added"])
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


TEXTS = st.lists(
    st.one_of(
        st.text(max_size=6),
        st.sampled_from(
            ["<|endoftext|>", "<s>", "</s>", "<unk>", "\n\n", " the", "\U0001f642", "added", "  ", "\u2581"]
        ),
    ),
    max_size=6,
).map("".join)


@pytest.fixture(scope="module", params=[byte_level, sentence_piece, metaspace])
def both(request):
    made = request.param()
    return Tokenizer(made), StoredTokenizer(made.backend_tokenizer.to_str())


@given(text=TEXTS)
def test_a_stored_tokenizer_reads_as_its_original(both, text):
    original, stored = both
    assert stored.encode(text) == original.encode(text)


def test_a_stored_tokenizer_names_tokens_as_its_original(both):
    original, stored = both
    strings = [stored.string(token) for token in range(len(original.tokenizer))]
    assert strings == [original.string(token) for token in range(len(original.tokenizer))]
    assert any(text.startswith(" ") and len(text) > 1 for text in strings)
    assert [stored.string(token) for token in range(len(strings))] == strings, "asked twice"


@pytest.mark.model
def test_the_embedded_models_tokenizer(tmp_path):
    """A whole vocabulary, by the road that `collect` takes; its graphs are of another, which is noticed."""
    original = Tokenizer.load("embedded")
    make_comparison(tmp_path / "demo")
    with Writer(tmp_path / "atlas.db") as writer:
        collect(tmp_path / "demo", writer)
        with pytest.raises(InputError, match="tokenizer embedded: expected that of toy, whose token"):
            keep_tokenizer(writer, "toy", "embedded")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(tokenizers, "_strings", lambda *_: [])
            assert keep_tokenizer(writer, "toy", "embedded")
    with Store.open(tmp_path / "atlas.db") as store:
        assert store.verify() == []
        stored = StoredTokenizer.of(store.model_body(store.models()[0].id, "tokenizer"))
    everything = range(stored.backend.get_vocab_size())
    assert len(everything) == 49_152
    assert [stored.string(token) for token in everything] == [original.string(token) for token in everything]
    for text in ("<|endoftext|>", "<|im_start|>user\n\U0001f642", " don't\r\n\t 1234", "\u0301\u200d\ufeff\x00"):
        assert stored.encode(text) == original.encode(text)
        assert 0 not in stored.encode(text), "no special token"


def test_text_is_read_by_the_tokenizer_in_the_store(store):
    text = f" York\n<script>{SPECIAL} the the the"
    found = Matcher(store).match("toy", text)
    assert found.text.ids[:3] == (6, 4, 10)
    assert found.text.tokens[-3:] == (" the",) * 3
    assert len(found.text.ids) == 3 + len(SPECIAL) + 3, "it neither cuts nor fills up, and reads no special token"
    assert found == Matcher(store).match("toy", ids=found.text.ids)


def test_a_store_without_tokenizer_takes_ids_and_says_what_it_lacks(copy):
    connection = sqlite3.connect(copy)
    connection.execute("DELETE FROM model_bodies")
    connection.commit()
    connection.close()
    with Store.open(copy) as store:
        matcher = Matcher(store)
        with pytest.raises(InputError, match=r"--tokenizer"):
            matcher.match("toy", " the")
        with pytest.raises(InputError, match=r"--tokenizer"):
            matcher.predict("toy", [], " the")
        found = matcher.match("toy", ids=[0, 6], limit=1000)
        assert found.text.tokens == ("<0>", "<6>")
        assert {e.text for o in found.firings for m in o.matches for e in m.path if e.text[0] == "<"} <= {"<0>", "<6>"}


def test_a_tokenizer_is_kept_once_and_must_be_the_right_one(copy, runs, tmp_path, monkeypatch):
    with Writer(copy) as writer:
        before = dump(copy)["model_bodies"]
        with monkeypatch.context() as patch:
            patch.setattr(tokenizers, "_loaded", lambda *_: pytest.fail("it was there"))
            assert not keep_tokenizer(writer, "toy")
        value = json.loads((runs / "tokenizer.json").read_text())
        value["model"]["vocab"].insert(3, value["model"]["vocab"].pop(2))
        other = tmp_path / "other.json"
        other.write_text(json.dumps(value))
        with pytest.raises(InputError, match=r"other.json: expected that of toy, whose token (2|3) is"):
            keep_tokenizer(writer, "toy", str(other))
        other.write_text("{}")
        for name in (str(other), str(tmp_path), str(tmp_path / "none.json")):
            with pytest.raises(InputError):
                keep_tokenizer(writer, "toy", name)
        with pytest.raises(InputError, match="model other"):
            keep_tokenizer(writer, "other", str(runs / "tokenizer.json"))
        assert keep_tokenizer(writer, "toy", str(runs / "tokenizer.json"))
        assert writer.origin("toy") == ("toy", None)
    assert dump(copy)["model_bodies"] == before


def test_a_models_own_tokenizer_is_loaded_by_its_name(tmp_path, monkeypatch):
    """The name is the model's own, whatever the store calls it; one that cannot say the same as a file is refused."""
    make_comparison(tmp_path / "demo")
    asked = []

    def load(name, *, revision=None):
        asked.append((name, revision))
        return Tokenizer(made)

    monkeypatch.setattr(Tokenizer, "load", load)
    from transformers import PreTrainedTokenizerFast

    made = PreTrainedTokenizerFast(tokenizer_file=str(tokenizer_json(tmp_path)))
    with Writer(tmp_path / "atlas.db") as writer:
        collect(tmp_path / "demo", writer, model="mine")
        assert keep_tokenizer(writer, "mine")
        assert asked == [("toy", None)]
        with monkeypatch.context() as patch:
            patch.setattr(PreTrainedTokenizerFast, "__call__", lambda *_, **__: {"input_ids": [1]})
            with pytest.raises(InputError, match="says the same"):
                keep_tokenizer(writer, "mine", "toy")
        made = object()
        with pytest.raises(InputError, match=r"one that has a tokenizer\.json, found object"):
            keep_tokenizer(writer, "mine", "toy")


# --- programs -------------------------------------------------------------------------------------------------


def replace_graph(writer: Writer, number: int, graph: Graph | None) -> None:
    """Give a unit another graph, or none."""
    bodies, tokens = ({}, {}) if graph is None else ({"neuron2graph": neuron2graph(graph)}, tokens_of(graph))
    layer, index = number >> 24, number & ((1 << 24) - 1)
    source = Source(1, "", "", "", 0, 1, {})
    with writer.batch():
        writer.unit(layer, source, UnitFacts(index=index, figures={}, bodies=bodies, tokens=tokens))


def other_graph(unit: int) -> Graph:
    return some_graph(f"1.mlp_post/neurons/{unit}", 99, {})


def test_what_changes_is_not_run_until_it_is_compiled_again(copy):
    ids = list(range(14))
    with Writer(copy) as writer, Store.open(copy) as store:
        matcher = Matcher(store)
        before = matcher.match("toy", ids=ids, limit=1000)
        number = store.unit_id("toy", "neurons", 1, 2)
        for graph in (other_graph(5), None, other_graph(6)):
            replace_graph(writer, number, graph)
            found = matcher.match("toy", ids=ids, limit=1000)
            assert [(place.basis, place.layer) for place in found.skipped] == [("neurons", 1)]
            rest = [one for one in before.firings if (one.unit.basis, one.unit.layer) != ("neurons", 1)]
            assert list(found.firings) == rest
            assert found.to_dict()["skipped"] == [{"basis": "neurons", "layer": 1}]
            assert matcher.match("toy", ids=ids, bases=["sae"]).skipped == ()
            assert not [line for line in store.verify() if "program" in line]
            assert compile_graphs(writer, "toy") == (5 if graph else 4)
            assert matcher.match("toy", ids=ids).skipped == ()
            check(matcher, ids, graphs_in(store))
        assert compile_graphs(writer, "toy") == 0


def test_collecting_the_same_leaves_programs_and_another_run_empties_them(copy, runs, tmp_path):
    make_comparison(tmp_path / "else", seed=7)
    before = dump(copy)["programs"]
    with Writer(copy) as writer, Store.open(copy) as store:
        collect(runs / "demo", writer, again=True)
        assert dump(copy)["programs"] == before
        collect(tmp_path / "else", writer, rename={"sae": "sae-7"})
        assert len(Matcher(store).match("toy", ids=[1]).skipped) == 2
        assert compile_graphs(writer, "toy") == 10
        check(Matcher(store), list(range(14)), graphs_in(store))


def test_interrupted_it_goes_on(copy):
    connection = sqlite3.connect(copy)
    connection.execute("UPDATE programs SET graphs = 0, graphs_of = '', digest = x'', program = x''")
    connection.commit()
    connection.close()

    def stop(done, total):
        assert total == 18
        if done >= 5:
            raise KeyboardInterrupt

    with Writer(copy) as writer:
        with pytest.raises(KeyboardInterrupt):
            compile_graphs(writer, "toy", tick=stop)
        with Store.open(copy) as store:
            assert 0 < len(Matcher(store).match("toy", ids=[1]).skipped) < 6
            assert store.verify() == []
        assert 0 < compile_graphs(writer, "toy") < 18
    with Store.open(copy) as store:
        assert store.verify() == []
        check(Matcher(store), list(range(14)), graphs_in(store))


def test_a_layer_of_several_blocks(copy):
    """Units far apart are in blocks of their own, and nothing else of the layer is compiled again."""
    with Writer(copy) as writer, Store.open(copy) as store:
        layer = store.unit_id("toy", "neurons", 1, 0) >> 24
        places = [1 << 14, (1 << 14) + 3, (1 << 23) + 5]
        for index in places:
            replace_graph(writer, (layer << 24) + index, other_graph(index))
        assert compile_graphs(writer, "toy") == 3
        check(Matcher(store), list(range(14)), graphs_in(store))
        assert store.verify() == []


def test_programs_of_another_form_are_not_run(copy, monkeypatch):
    with Writer(copy) as writer, Store.open(copy) as store:
        monkeypatch.setattr(programs, "VERSION", 2)
        found = Matcher(store).match("toy", ids=[1])
        assert (found.graphs, len(found.skipped)) == (0, 6)
        assert compile_graphs(writer, "toy") == 18
        assert Matcher(store).match("toy", ids=[1]).skipped == ()


def test_a_program_of_other_graphs_is_found_out(copy):
    """Checksum and fingerprint are right; only compiling again tells."""
    with Store.open(copy) as store:
        ((block, graphs, state, data),) = store.rows("SELECT id, graphs, graphs_of, program FROM programs LIMIT 1")
    at = data.rindex(np.float64(0.75).tobytes())
    forged = data[:at] + np.float64(0.5).tobytes() + data[at + 8 :]
    with Writer(copy) as writer, writer.batch():
        writer.program(block, graphs, state, programs.digest_of(graphs, state, forged), forged)
    with Store.open(copy) as store:
        assert store.verify() == [f"program {block}: not what the graphs give when they are compiled"]


def test_a_damaged_program_is_an_error(copy):
    connection = sqlite3.connect(copy)
    connection.execute("UPDATE programs SET digest = CAST('x' || substr(digest, 2) AS BLOB)")
    connection.commit()
    connection.close()
    with Store.open(copy) as store, pytest.raises(ArtefactError, match="checksum"):
        Matcher(store).match("toy", ids=[1])


def test_a_forged_program_is_refused_or_runs(store):
    """Checksums do not help against strangers: whatever passes can be run."""
    ((data,),) = store.rows("SELECT program FROM programs ORDER BY graphs DESC LIMIT 1")
    draw, refused = random.Random(3), 0
    for _ in range(400):
        forged = bytearray(data)
        for _ in range(draw.choice((1, 1, 3))):
            forged[draw.randrange(len(forged))] ^= 1 << draw.randrange(8)
        try:
            loaded = unpack(bytes(forged))
        except ArtefactError:
            refused += 1
            continue
        counting = loaded.program.count(list(range(14)))
        found = [loaded.program.found(counting, row) for row in range(len(counting.graph))]
        assert all(0 <= one.position < 14 and one.match.path for one in found)
    assert 100 < refused < 400
    for cut in (0, 7, 100, len(data) - 1):
        with pytest.raises(ArtefactError):
            unpack(data[:cut])


# --- cache and others -----------------------------------------------------------------------------------------


def test_programs_are_kept_while_there_is_room(store):
    ids, expected = [0, 6, 7], Matcher(store).match("toy", ids=[0, 6, 7], limit=1000)
    loaded = []
    store.connection.set_trace_callback(lambda text: loaded.append(text) if "digest, program" in text else None)
    cache = Cache()
    for matcher in (Matcher(store, cache=cache), Matcher(store, cache=cache)):
        for _ in range(2):
            assert matcher.match("toy", ids=ids, limit=1000) == expected
    assert len(loaded) == 6, "each once, over all matchers"
    sizes = cache.used
    for memory in (0, sizes // 3):
        small = Cache(memory)
        for _ in range(2):
            assert Matcher(store, cache=small).match("toy", ids=ids, limit=1000) == expected
        assert small.used <= memory
        assert bool(len(small)) == bool(memory)
    store.connection.set_trace_callback(None)
    assert len(loaded) > 6 + 12


def test_what_was_used_longest_ago_is_dropped():
    cache, made = Cache(10), []

    def get(key, size=4):
        return cache.get(key, lambda: (size, made.append(key) or key))

    assert [get(key) for key in "abacadb"] == list("abacadb")
    assert made == ["a", "b", "c", "d", "b"]
    assert (cache.used, len(cache)) == (8, 2)
    assert "b" in cache
    assert get("e", 11) == "e"
    assert "e" not in cache
    assert (cache.used, len(cache)) == (8, 2)
    with pytest.raises(ZeroDivisionError):
        cache.get("f", lambda: 1 // 0)
    assert (cache.used, len(cache)) == (8, 2)


def test_threads_may_share_a_cache(filled):
    cache, found = Cache(200_000), []

    def work():
        with Store.open(filled) as store:
            found.extend(Matcher(store, cache=cache).match("toy", " the New York", limit=1000) for _ in range(5))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 20
    assert all(one == found[0] for one in found)
    assert cache.used <= cache.memory


def test_while_a_writer_adds(copy):
    """A request sees whole batches, before or after; what changes under it is begun again."""
    ids = list(range(14))
    with Writer(copy) as writer, Store.open(copy) as store:
        number = store.unit_id("toy", "neurons", 1, 2)
        matcher = Matcher(store)
        before = matcher.match("toy", ids=ids, limit=1000)
        with writer.batch():
            layer, source = number >> 24, Source(1, "", "", "", 0, 1, {})
            body = {"neuron2graph": neuron2graph(other_graph(5))}
            writer.unit(layer, source, UnitFacts(index=2, figures={}, bodies=body))
            assert Matcher(store).match("toy", ids=ids, limit=1000) == before
        assert Matcher(store).match("toy", ids=ids, limit=1000).skipped != ()

        compile_graphs(writer, "toy")
        changing = iter(range(2))

        class Slow(Matcher):
            def _blocks(self, *options):
                found = super()._blocks(*options)
                if next(changing, None) is not None:
                    replace_graph(writer, number, other_graph(random.randrange(1000)))
                    compile_graphs(writer, "toy")
                return found

        found = Slow(store).match("toy", ids=ids, limit=1000)
        assert next(changing, None) is None
        assert found == matcher.match("toy", ids=ids, limit=1000)
        check(matcher, ids, graphs_in(store))
        changing = iter(range(3))
        with pytest.raises(InputError, match="others each time"):
            Slow(store).match("toy", ids=ids)


def test_a_match_loads_neither_pytorch_nor_transformers(filled):
    code = f"""
import sys
from pathlib import Path
from saelens_n2g.store.match import Matcher
from saelens_n2g.store.reader import Store
with Store.open(Path({str(filled)!r})) as store:
    assert Matcher(store).match("toy", " the New York").total
print(*sys.modules)
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert {"torch", "transformers", "transformer_lens", "huggingface_hub", "datasets", "pandas"} & {*found} == set()
    assert "tokenizers" in found


def test_strings_are_those_of_the_graphs(store):
    ids = list(STRINGS)
    found = Matcher(store).match("toy", ids=ids)
    assert found.text.tokens == tuple(STRINGS.values())


def test_a_layer_without_units_is_not_missing(copy):
    with Writer(copy) as writer:
        with writer.batch():
            (basis,) = writer.connection.execute("SELECT id FROM bases WHERE name = 'sae'").fetchone()
            writer.layer(basis, LayerFacts(layer=3, width=4, identity="x"))
        assert compile_graphs(writer, "toy") == 0
    with Store.open(copy) as store:
        found = Matcher(store).match("toy", ids=[1], layers=[3])
        assert (found.total, found.graphs, found.skipped) == (0, 0, ())
