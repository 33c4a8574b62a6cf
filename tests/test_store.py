"""The store: what was put in comes out, whatever interrupts it; damage is found; nothing is there twice."""

import gzip
import hashlib
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from atlases import MISSING, make_comparison, make_study
from hypothesis import given, settings
from hypothesis import strategies as st

from saelens_n2g.errors import ArtefactError, InputError, N2GError
from saelens_n2g.graphs.graph import Graph
from saelens_n2g.graphs.similarity import TokenIndex, neighbours
from saelens_n2g.jobs.artefacts import COMMIT, publishing, read_json, write_json
from saelens_n2g.store import schema
from saelens_n2g.store.bodies import Body, compress, serialise
from saelens_n2g.store.collect import collect, connect
from saelens_n2g.store.programs import compile_graphs
from saelens_n2g.store.reader import Store
from saelens_n2g.store.records import BasisFacts, LayerFacts, ModelFacts, SourceFacts, UnitFacts
from saelens_n2g.store.schema import FIGURES, Step
from saelens_n2g.store.services import graph_of
from saelens_n2g.store.writer import Writer

LOADED = "import sys, saelens_n2g.store.collect, saelens_n2g.store.search; print(*sys.modules)"
SERVICES = ["drawing", "explanation", "logits", "neuron2graph", "neuroscope", "provenance", "similarity", "statistics"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    make_comparison(folder / "demo")
    make_study(folder / "study")
    return folder


def fill(path: Path, *folders: Path, **options) -> Path:
    with Writer(path) as writer:
        for folder in folders:
            collect(folder, writer, **options)
        connect(writer, "toy")
        compile_graphs(writer, "toy")
    return path


@pytest.fixture(scope="module")
def filled(runs, tmp_path_factory) -> Path:
    return fill(tmp_path_factory.mktemp("store") / "atlas.db", runs / "demo", runs / "study")


def dump(path: Path) -> dict[str, list[tuple]]:
    """Every row of every table."""
    connection = sqlite3.connect(path)
    tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
    rows = {name: sorted(connection.execute(f"SELECT * FROM {name}").fetchall(), key=repr) for name in tables}
    connection.close()
    return rows


# --- what comes out -------------------------------------------------------------------------------------------


def test_what_is_there(filled):
    with Store.open(filled) as store:
        (model,) = store.models()
        assert (model.name, model.n_layers, model.config) == ("toy", 4, {"bos_id": 0, "d_model": 8, "revision": None})
        there = {b.name: (b.kind, [(one.layer, one.units, one.width) for one in b.layers]) for b in store.bases("toy")}
        assert there == {
            "neurons": ("mlp_post", [(0, 3, 64), (1, 5, 64), (2, 3, 64)]),
            "sae": ("resid_post", [(1, 5, 64)]),
            "tied-R2": ("resid_post", [(0, 3, 64), (2, 3, 64)]),
        }
        assert store.services(store.unit_id("toy", "sae", 1, 2)) == SERVICES
        without_graph = ["explanation", "logits", "neuroscope", "provenance", "statistics"]
        assert store.services(store.unit_id("toy", "tied-R2", 0, 21)) == without_graph
        texts = store.body(store.unit_id("toy", "tied-R2", 0, 21), "neuroscope").json()["texts"]
        assert {text["predicted"] for text in texts} == {None}
        assert store.unit("toy", "tied-R2", 0, 21).failure == "unit: expected a graph, found none"
        assert all(one.finished for one in store.sources())
        assert [one.kind for one in store.sources()] == ["comparison"] * 2 + ["study"] * 4
        assert (
            "torch"
            not in subprocess.run(
                [sys.executable, "-c", LOADED], capture_output=True, text=True, check=True
            ).stdout.split()
        )


@pytest.mark.parametrize("index", range(5))
def test_bodies_say_what_the_run_says(filled, runs, index):
    report = runs / "demo" / "report"
    basis = read_json(report / "results.json")["bases"][1]
    known = basis["units"][index]
    graph = Graph.from_dict(read_json(report / known["graph_file"]))
    exemplars = read_json(report / "exemplars" / Path(known["graph_file"]).name)
    with Store.open(filled) as store:
        unit = store.unit("toy", "sae", 1, index)
        values = {name: store.body(unit.id, name).json() for name in SERVICES}
        source = store.source(unit.source)
    found = graph_of(values["neuron2graph"])
    assert replace(found, provenance=graph.provenance).to_dict() == graph.to_dict()
    assert values["neuron2graph"]["graphviz"] == graph.to_dot()
    assert values["drawing"]["svg"] == graph.to_svg()
    scope = values["neuroscope"]
    assert scope["neuron_index"] == {"layer": 1, "neuron": index}
    windows = [*exemplars["fit"], *exemplars["test"]]
    assert [text["data_index"] for text in scope["texts"]] == [one["window"] for one in windows]
    for text, window in zip(scope["texts"], windows, strict=True):
        assert (text["tokens"], text["activations"]) == (window["tokens"], window["activations"])
        assert text["activations"][text["max_activating_token_index"]] == max(window["activations"])
        assert text["predicted"] == pytest.approx(graph.predict(window["ids"]).tolist(), abs=1e-4)
    held_out = known["scores"]["graph"]["held_out"]
    assert unit.figures == values["statistics"]["figures"]
    assert [unit.figures[name] for name in ("f1", "nodes", "maximum", "density")] == [
        held_out["f1"], known["nodes"], known["max_activation"], known["density"]
    ]  # fmt: skip
    assert values["explanation"]["explanation"] == graph.to_text()
    assert values["explanation"]["score"] == known["scores"]["graph"]["random"]["correlation"]
    assert values["explanation"]["explanations"][0]["scores"] == known["scores"]["graph"]
    assert {**source.provenance, **values["provenance"]["graph"]}.items() >= dict(graph.provenance).items()
    assert set(values["provenance"]["graph"]) == {"method", "drawn"}, "what is shared is kept once"


@pytest.mark.parametrize("name", ["neurons", "tied-R2"])
def test_units_of_a_study_say_what_its_cells_say(filled, runs, name):
    cell = runs / "study" / "layers" / "02" / name
    for known in read_json(cell / "cell.json")["units"]:
        with Store.open(filled) as store:
            unit = store.unit("toy", name, 2, known["index"])
            values = {service: store.body(unit.id, service).json() for service in store.services(unit.id)}
            assert store.source(unit.source).provenance["protocol"]["layers"] == [0, 2]
        said = values["statistics"]
        assert {key: said[key] for key in known if key in said} == {k: v for k, v in known.items() if k != "text"}
        assert (unit.failure, unit.figures["paths"]) == (known["failure"], known["paths"])
        assert values["explanation"]["explanation"] == known["text"]
        if known["failure"] is None:
            graph = Graph.from_dict(read_json(cell / "graphs" / f"{known['name'].replace('/', '_')}.json"))
            found = graph_of(values["neuron2graph"])
            assert replace(found, provenance=graph.provenance).to_dict() == graph.to_dict()
            assert values["neuron2graph"]["graphviz"] == graph.to_dot()
            assert values["drawing"]["svg"] == graph.to_svg()
        assert ("neuron2graph" in values) == (known["failure"] is None)


def test_logit_effects_are_those_of_the_file_and_may_be_missing(filled, runs):
    """Runs of before kept none, and of some models they are not known: both are collected, the reason too."""
    kept = read_json(runs / "study" / "layers" / "02" / "tied-R2" / "logits" / "2.resid_post_tied-R2_21.json")
    with Store.open(filled) as store:
        value = store.body(store.unit_id("toy", "tied-R2", 2, 21), "logits").json()
        assert value == {name: kept[name] for name in value}
        assert set(kept) - set(value) == {"format", "version", "unit", "provenance"}
        for basis, layer, index, there in (("neurons", 1, 1, False), ("neurons", 1, 2, True), ("neurons", 0, 3, False)):
            assert ("logits" in store.services(store.unit_id("toy", basis, layer, index))) == there
        (layer,) = (one for one in store.layers("toy") if (one.basis, one.layer) == ("neurons", 0))
        assert store.layer_body(layer.id, "statistics").json()["facts"]["logits"]["missing"] == MISSING
        assert "logits" not in layer.provenance["facts"], "how effects were found says nothing of what units are"


def test_nodes_of_the_graph_are_those_that_a_path_needs():
    graph = Graph("0.mlp_post/neurons/1", 1.0, token_strings={0: " b", 1: " a", 2: " c"})
    graph.add([(0, 0.9), (1, 0.5)], 0.9)
    graph.add([(2, 0.3)], 0.7)
    from saelens_n2g.store.services import neuron2graph

    value = neuron2graph(graph)
    nodes = value["graph"]["graph"]
    assert value["graph"]["subgraph_indices"] == [0, 2]
    assert [(n["token"], n["importance"], n["depth"], n["required"]) for n in nodes] == [
        (" b", 0.9, 0, [1]), (" a", 0.5, 1, []), (" c", 0.3, 0, [])
    ]  # fmt: skip


def test_similar_units_are_the_neighbours_of_their_graphs(filled):
    with Store.open(filled) as store:
        ids = [u.id for u in store.listing("toy", limit=1000).units if "neuron2graph" in store.services(u.id)]
        graphs = [graph_of(store.body(number, "neuron2graph").json()) for number in ids]
        found = neighbours(TokenIndex.of(graphs), 10)
        assert len(ids) == 18
        for row, number in enumerate(ids):
            expected = [(ids[g], s) for g, s in zip(found.graphs[row], found.similarity[row], strict=True) if g >= 0]
            similar = store.similar(number)
            assert sorted((one.unit.id, one.similarity) for one in similar) == sorted(expected)
            sent = store.body(number, "similarity").json()["similar"]
            assert [one["similarity"] for one in sent] == [one.similarity for one in similar]
            assert {(one["layer"], one["neuron"]) for one in sent} == {(o.unit.layer, o.unit.index) for o in similar}


def test_layers_have_bodies_of_their_own(filled, runs):
    basis = read_json(runs / "demo" / "report" / "results.json")["bases"][0]
    with Store.open(filled) as store:
        layer = next(one for one in store.layers("toy") if (one.basis, one.layer) == ("neurons", 1))
        said = store.layer_body(layer.id, "statistics").json()
        assert (said["counts"], said["summary"]) == (basis["counts"], basis["summary"])
        assert store.layer_body(layer.id, "neuroscope") is None


@pytest.mark.parametrize("sort", ["place", *FIGURES])
def test_lists_are_sorted_and_filtered_by_columns(filled, sort):
    with Store.open(filled) as store:
        everyone = [u for one in ("neurons", "sae", "tied-R2") for u in store.listing("toy", basis=one).units]
        for down in (True, False):
            page = store.listing("toy", sort=sort, descending=down, limit=1000)
            assert page.total == len(page.units) == len(everyone) == 22
            if sort == "place":
                assert list(page.units) == sorted(everyone, key=lambda u: (u.basis, u.layer, u.index))
                continue
            values = [unit.figures[sort] for unit in page.units]
            known = [value for value in values if value is not None]
            assert known == sorted(known, reverse=down)
            assert values[len(known) :] == [None] * (len(values) - len(known))
            assert list(page.units[5:9]) == list(
                store.listing("toy", sort=sort, descending=down, limit=4, offset=5).units
            )
        if sort != "place":
            bound = sorted(known)[len(known) // 2]
            many = store.listing("toy", at_least={sort: bound}, at_most={"density": 0.035}, limit=1000)
            expected = [u for u in everyone if (u.figures[sort] or -1) >= bound and u.figures["density"] <= 0.035]
            assert {u.id for u in many.units} == {u.id for u in expected}


@pytest.mark.parametrize("layers", [1, 7, 230])
def test_lists_of_many_layers(tmp_path, layers):
    """Of every other layer, so that their numbers do not follow each other."""
    path = tmp_path / "atlas.db"
    with Writer(path) as writer, writer.batch():
        for at in range(layers):
            for basis in ("sae", "pca"):
                layer, source = begin(writer, at, basis)
                for index in (0, (1 << 20) - 1):
                    writer.unit(layer, source, UnitFacts(index=index, figures={"f1": at}, bodies={}))
    with Store.open(path) as store:
        found = store.listing("m", basis="pca", sort="f1", descending=False, limit=1000)
        assert [(u.basis, u.layer, u.index) for u in found.units] == [
            ("pca", at, index) for at in range(layers) for index in (0, (1 << 20) - 1)
        ]
        assert found.total == 2 * layers
        assert store.listing("m", layer=layers - 1).total == 4


def test_what_is_not_there(filled):
    with Store.open(filled) as store:
        for call in (
            lambda: store.bases("other"),
            lambda: store.unit("toy", "sae", 1, 63),
            lambda: store.unit("toy", "sae", 0, 1),
            lambda: store.unit("toy", "sae", 1 << 80, 1),
            lambda: store.unit("toy", "sae", 1, 1 << 24),
            lambda: store.unit("toy", "'; DROP TABLE units", 1, 1),
            lambda: store.listing("toy", sort="failure"),
            lambda: store.listing("toy", at_least={"place": 1.0}),
            lambda: store.listing("toy", layer=17),
            lambda: store.listing("toy", limit=-1),
            lambda: store.listing("toy", offset=1 << 70),
            lambda: store.source(99),
        ):
            with pytest.raises(InputError):
                call()
        assert store.body(store.unit_id("toy", "sae", 1, 2), "weather") is None
        assert store.body(store.unit_id("toy", "sae", 1, 63), "statistics") is None


# --- twice ----------------------------------------------------------------------------------------------------


def test_twice_is_once(filled, runs, tmp_path):
    path = tmp_path / "atlas.db"
    shutil.copy(filled, path)
    before, written = dump(path), []
    with Writer(path) as writer:
        writer.connection.set_trace_callback(
            lambda text: written.append(text) if text.startswith("INSERT OR") else None
        )
        for folder in (runs / "demo", runs / "study"):
            assert collect(folder, writer)[1:] == ((0, 10) if folder.name == "demo" else (0, 12))
        for folder in (runs / "demo", runs / "study"):
            assert collect(folder, writer, again=True).new == (10 if folder.name == "demo" else 12)
        connect(writer, "toy")
    assert dump(path) == before
    assert written == [], "equal bodies and posting lists are not written again"


def test_order_and_batches_decide_nothing_but_numbers(filled, runs, tmp_path):
    path = fill(tmp_path / "atlas.db", runs / "study", runs / "demo", batch=2)
    with Store.open(path) as one, Store.open(filled) as other:
        for unit in other.listing("toy", limit=1000).units:
            mine = one.unit("toy", unit.basis, unit.layer, unit.index)
            assert one.services(mine.id) == other.services(unit.id)
            for service in set(one.services(mine.id)) - {"similarity", "provenance"}:  # which have numbers in them
                assert one.body(mine.id, service) == other.body(unit.id, service)
        for query in ("any:the", "not any:york", "important:in or activating:of"):
            found, expected = one.search(query, limit=1000), other.search(query, limit=1000)
            key = [(h.unit.basis, h.unit.layer, h.unit.index, h.strength) for h in found.hits]
            assert key == [(h.unit.basis, h.unit.layer, h.unit.index, h.strength) for h in expected.hits]
        assert one.verify() == []


def test_a_run_that_was_made_again_replaces_its_units(tmp_path):
    """Other bodies, other tokens: as if the first had never been, but for who is similar, which follows."""
    make_comparison(tmp_path / "new" / "demo", seed=0)
    other = tmp_path / "old" / "demo"
    make_comparison(other, seed=0)
    results = read_json(other / "report" / "results.json")
    with publishing(tmp_path / "changed" / "report", {"key": "x"}) as work:
        shutil.copytree(other / "report", work, dirs_exist_ok=True, ignore=shutil.ignore_patterns(COMMIT))
        for basis in results["bases"]:
            for unit in basis["units"]:
                graph = Graph(unit["name"], 1.0)
                graph.add([(3, 1.0)], 1.0)
                graph.name_tokens(lambda _: " other")
                write_json(work / unit["graph_file"], graph.to_dict())
    path = fill(tmp_path / "atlas.db", tmp_path / "changed")
    with Store.open(path) as store:
        assert store.search("activating:other").total == 10
    fill(path, tmp_path / "new" / "demo")
    fresh = fill(tmp_path / "fresh.db", tmp_path / "new" / "demo")
    with Store.open(path) as store, Store.open(fresh) as expected:
        assert store.search("activating:other").total == 0
        assert store.verify() == []
        ids = [unit.id for unit in expected.listing("toy").units]
        for number in ids:
            for service in set(SERVICES) - {"provenance"}:
                assert store.body(number, service) == expected.body(number, service)
    assert dump(path)["postings"] == _with_numbers_of(path, fresh)


def _with_numbers_of(path: Path, other: Path) -> list[tuple]:
    """Posting lists of `other` under the numbers that tokens have in `path`."""
    mine = {text: number for number, text in dump(path)["tokens"]}
    theirs = dict(dump(other)["tokens"])
    move = {number: mine[text] for number, text in theirs.items()} | {0: 0}
    rows = [((move[key >> 33] << 33) + (key & ((1 << 33) - 1)), *rest) for key, *rest in dump(other)["postings"]]
    return sorted(rows, key=repr)


def test_units_of_the_same_neurons_are_merged_and_others_refused(runs, tmp_path):
    make_comparison(tmp_path / "more", seed=0, first=10)
    make_comparison(tmp_path / "else", seed=7)
    path = tmp_path / "atlas.db"
    with Writer(path) as writer:
        collect(runs / "demo", writer)
        collect(tmp_path / "more", writer)
        before = writer.connection.execute("SELECT count(*) FROM units").fetchone()
        assert before == (20,)
        with pytest.raises(InputError, match=r"basis sae at layer 1.*--rename"):
            collect(tmp_path / "else", writer)
        collect(tmp_path / "else", writer, rename={"sae": "sae-7"})
        collect(tmp_path / "else", writer, model="toy-7")
    with Store.open(path) as store:
        assert {b.name: [one.units for one in b.layers] for b in store.bases("toy")} == {
            "neurons": [10], "sae": [10], "sae-7": [5]
        }  # fmt: skip
        assert {b.name: [one.units for one in b.layers] for b in store.bases("toy-7")} == {"neurons": [5], "sae": [5]}
        assert store.search("not any:weather", model="toy-7").total == 10
        assert store.search("not any:weather").total == 35


# --- interrupted ----------------------------------------------------------------------------------------------


def test_interrupted_between_batches_it_goes_on(filled, runs, tmp_path):
    path = tmp_path / "atlas.db"
    starts: list[int] = []

    def stop_after(done: int, _total: int) -> None:
        starts.append(done)
        raise KeyboardInterrupt

    for _ in range(12):
        with Writer(path) as writer:
            try:
                for name in ("demo", "study"):
                    collect(runs / name, writer, batch=3, tick=stop_after)
            except KeyboardInterrupt:
                continue
            connect(writer, "toy")
            compile_graphs(writer, "toy")
            break
    assert starts == [3, 5, 8, 10, 3, 6, 9, 12]
    assert dump(path) == dump(filled)


@pytest.mark.parametrize("where", ["batch", "commit"])
def test_killed_within_a_batch_it_is_readable_and_goes_on(filled, runs, tmp_path, where):
    """A process that is really killed: inside a transaction, with some of it written, and right after one."""
    path = tmp_path / "atlas.db"
    code = f"""
import sys, time
from pathlib import Path
from saelens_n2g.store import collect
from saelens_n2g.store.writer import Writer

written, plain = 0, Writer.unit
def unit(self, *arguments):
    global written
    number = plain(self, *arguments)
    written += 1
    if written == 5 and {where == "batch"}:
        self.connection.execute("PRAGMA cache_spill = 1")
        print("now", flush=True)
        time.sleep(600)
    return number
def tick(done, total):
    if done == 5 and {where == "commit"}:
        print("now", flush=True)
        time.sleep(600)
Writer.unit = unit
with Writer(Path({str(path)!r})) as writer:
    collect.collect(Path({str(runs / "demo")!r}), writer, batch=3, tick=tick)
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "now\n"
    with pytest.raises(InputError, match="another process"):
        Writer(path)
    with Store.open(path) as store:
        during = store.listing("toy", basis="neurons").total
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    with Store.open(path) as store:
        assert store.listing("toy", basis="neurons").total == during == (3 if where == "batch" else 5)
        assert store.verify() == []
        assert store.sources()[0].done == during
    fill(path, runs / "demo", runs / "study")
    assert dump(path) == dump(filled)
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith("atlas.db-")] == [], "one plain file again"


def test_a_batch_that_raises_leaves_nothing(tmp_path):
    path = tmp_path / "atlas.db"
    with Writer(path) as writer:
        before = dump(path)
        with pytest.raises(ValueError, match=r"NaN|Out of range"), writer.batch():
            write_two(writer)
        assert dump(path) == before
        with writer.batch():
            layer, source = begin(writer)
            writer.unit(layer, source, UnitFacts(index=2, figures={}, bodies={"a": 1}, tokens={(0, "b"): 1.0}))
    with Store.open(path) as store:
        assert store.search("any:b").total == 1
        assert store.verify() == []


def write_two(writer: Writer) -> None:
    """The first is fine."""
    layer, source = begin(writer)
    writer.unit(layer, source, UnitFacts(index=1, figures={}, bodies={"a": 1}, tokens={(0, "b"): 1.0}))
    writer.unit(layer, source, UnitFacts(index=2, figures={}, bodies={"a": float("nan")}))


def begin(writer: Writer, layer: int = 0, basis: str = "sae", total: int = 5):
    model = writer.model(ModelFacts(name="m", n_layers=999, config={}))
    number = writer.basis(model, BasisFacts(name=basis, kind="resid_post", title=""))
    source = writer.source(SourceFacts(checksum="c", name="n", kind="comparison", total=total))
    return writer.layer(number, LayerFacts(layer=layer, width=1 << 20, identity="i")), source


def test_readers_see_whole_batches_while_somebody_writes(tmp_path):
    path = tmp_path / "atlas.db"
    with Writer(path) as writer:
        with writer.batch():
            layer, source = begin(writer)
        with Store.open(path) as store:
            with writer.batch():
                writer.unit(layer, source, UnitFacts(index=1, figures={}, bodies={"a": 1}))
                assert store.listing("m").total == 0
            assert store.listing("m").total == 1
    with Store.open(path) as store:
        assert store.listing("m").total == 1


def test_a_writer_ends_while_others_read(runs, tmp_path):
    """The store then stays as SQLite writes it in between, and the next writer ends it."""
    path = tmp_path / "atlas.db"
    with Writer(path) as writer:
        collect(runs / "demo", writer)
        store = Store.open(path)
        assert store.listing("toy").total == 10
    assert store.listing("toy").total == 10
    with Store.open(path) as other:
        assert other.verify() == []
    store.close()
    Writer(path).close()
    path.chmod(0o444)
    with Store.open(path) as other:
        assert other.listing("toy").total == 10
    assert sorted(p.name for p in tmp_path.iterdir()) == ["atlas.db", "atlas.db.lock"]


def test_models_have_bodies_of_their_own(tmp_path):
    path = tmp_path / "atlas.db"
    with Writer(path) as writer, writer.batch():
        model = writer.model(ModelFacts(name="m", n_layers=1, config={}, bodies={"card": {"licence": "MIT"}}))
    with Store.open(path) as store:
        assert store.model_body(model, "card").json() == {"licence": "MIT"}
        assert store.model_body(model, "statistics") is None
        assert store.verify() == []


UNITS = st.builds(
    lambda index, values, tokens: UnitFacts(
        index=index,
        figures={"f1": values},
        bodies={"said": values, **({"x": index} if values else {})},
        tokens=tokens,
    ),
    st.sampled_from([0, 1, 2, 65_535, 65_536, 70_000]),
    st.integers(0, 3),
    st.dictionaries(st.tuples(st.integers(0, 1), st.sampled_from(["a", "b", "c"])), st.sampled_from([0.0, 0.25, 1.0])),
)


@settings(max_examples=25, deadline=None, derandomize=True, database=None)
@given(st.lists(st.lists(UNITS, max_size=4), max_size=6))
def test_whatever_is_written_in_whatever_order_the_last_word_counts(batches):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "atlas.db"
        with Writer(path) as writer:
            for batch in [[], *batches]:
                with writer.batch():
                    layer, source = begin(writer)
                    for facts in {facts.index: facts for facts in batch}.values():
                        writer.unit(layer, source, facts)
        last = {facts.index: facts for batch in batches for facts in batch}
        with Store.open(path) as store:
            found = {unit.index: unit for unit in store.listing("m").units}
            assert found.keys() == last.keys()
            for index, facts in last.items():
                assert found[index].figures["f1"] == facts.figures["f1"]
                bodies = {name: store.body(found[index].id, name).json() for name in store.services(found[index].id)}
                assert bodies == facts.bodies
            for role, name in ((0, "activating"), (1, "important")):
                for word in "abc":
                    hits = {hit.unit.index: hit.strength for hit in store.search(f"{name}:{word}").hits}
                    expected = {i: f.tokens[role, word] for i, f in last.items() if (role, word) in f.tokens}
                    assert hits == pytest.approx(expected, abs=1e-4)
            assert store.verify() == []


def test_a_unit_loses_what_it_no_longer_has(tmp_path):
    path = tmp_path / "atlas.db"
    with Writer(path) as writer:
        for bodies, tokens in (({"a": 1, "b": 2}, {(0, "x"): 0.5, (1, "y"): 0.25}), ({"b": 3}, {(1, "y"): 1.0})):
            with writer.batch():
                layer, source = begin(writer)
                # Beyond one block of postings, so that rows of several are changed.
                for index in (1, 70_000):
                    writer.unit(layer, source, UnitFacts(index=index, figures={}, bodies=bodies, tokens=tokens))
    with Store.open(path) as store:
        unit = store.unit("m", "sae", 0, 70_000)
        assert store.services(unit.id) == ["b"]
        assert store.body(unit.id, "b").json() == 3
        assert store.search("any:x").total == 0
        assert [(h.unit.index, h.strength) for h in store.search("any:y").hits] == [(1, 1.0), (70_000, 1.0)]
        assert store.verify() == []


# --- versions and strangers -----------------------------------------------------------------------------------


def test_an_older_store_is_migrated_by_a_writer_and_a_reader_says_so(filled, tmp_path, monkeypatch):
    path = tmp_path / "atlas.db"
    shutil.copy(filled, path)
    before = dump(path)
    new = (Step("notes", ("CREATE TABLE notes (id INTEGER PRIMARY KEY)", "INSERT INTO notes VALUES (7)")),)
    monkeypatch.setattr(schema, "STEPS", schema.STEPS + new)
    with pytest.raises(ArtefactError, match="version 2; `saelens-n2g collect"):
        Store.open(path)
    Writer(path).close()
    after = dump(path)
    assert after.pop("notes") == [(7,)]
    assert [row[0] for row in after.pop("schema_steps")] == [1, 2, 3]
    before.pop("schema_steps")
    assert after == before
    Store.open(path).close()
    monkeypatch.setattr(schema, "STEPS", schema.STEPS[:-1])
    for opened in (Store.open, Writer):
        with pytest.raises(ArtefactError, match="expected schema version 2 or older, found version 3"):
            opened(path)


def test_version_1_had_no_programs(filled, tmp_path):
    """A file as version 1 left it: brought up to date it can be read, and compiling fills what is new."""
    path = tmp_path / "atlas.db"
    shutil.copy(filled, path)
    connection = sqlite3.connect(path)
    connection.executescript("DROP TABLE programs; DELETE FROM schema_steps WHERE version = 2")
    connection.close()
    with pytest.raises(ArtefactError, match="expected schema version 2, found version 1"):
        Store.open(path)
    Writer(path).close()
    expected, after = dump(filled), dump(path)
    assert {row[:2] for row in after.pop("programs")} == {row[:2] for row in expected.pop("programs")}
    assert after == expected
    with Store.open(path) as store:
        assert store.verify() == []
    with Writer(path) as writer:
        assert compile_graphs(writer, "toy") == 18
    assert dump(path) == dump(filled)


def test_a_migration_that_fails_leaves_the_store_as_it_was(filled, tmp_path, monkeypatch):
    path = tmp_path / "atlas.db"
    shutil.copy(filled, path)
    before = dump(path)
    monkeypatch.setattr(schema, "STEPS", (*schema.STEPS, Step("x", ("CREATE TABLE notes (id INTEGER)", "nonsense"))))
    with pytest.raises(InputError):
        Writer(path)
    assert dump(path) == before


def test_files_of_other_kinds_are_refused_and_left_alone(tmp_path):
    foreign, text, empty = (tmp_path / name for name in ("foreign.db", "text.db", "empty.db"))
    connection = sqlite3.connect(foreign)
    connection.execute("CREATE TABLE mine (id INTEGER)")
    connection.commit()
    connection.close()
    text.write_text("this is no store, " * 500)
    empty.touch()
    for path in (foreign, text):
        before = path.read_bytes()
        for opened in (Store.open, Writer):
            with pytest.raises(ArtefactError, match=path.name):
                opened(path)
        assert path.read_bytes() == before
    with pytest.raises(ArtefactError, match="an empty file"):
        Store.open(empty)
    with pytest.raises(InputError, match="nothing there"):
        Store.open(tmp_path / "none.db")
    with pytest.raises(InputError):
        Writer(tmp_path)
    Writer(empty).close()
    Store.open(empty).close()


def test_a_reader_cannot_write(filled):
    with Store.open(filled) as store, pytest.raises(InputError):
        store.rows("DELETE FROM units")


# --- damage ---------------------------------------------------------------------------------------------------


def test_all_is_well(filled):
    with Store.open(filled) as store:
        assert store.verify() == []


def test_any_damaged_byte_is_found_or_says_nothing(filled, tmp_path):
    """A byte anywhere: it is found, or what is read is what it was (pages have room that nothing uses)."""
    whole, expected = filled.read_bytes(), readable(filled)
    draw, found = random.Random(5), 0
    named = [whole.rindex(text) + 2 for text in (b"neuroscope", b"tied-R2", b"<script>", b"toy", b"rectified")]
    for at in [*named, *(draw.randrange(len(whole)) for _ in range(150))]:
        path = tmp_path / "damaged.db"
        path.write_bytes(whole[:at] + bytes([whole[at] ^ (1 << draw.randrange(8))]) + whole[at + 1 :])
        try:
            with Store.open(path) as store:
                findings = store.verify()
        except N2GError:
            findings = ["cannot be opened"]
        found += bool(findings)
        if not findings:
            assert readable(path) == expected, f"byte {at} is damaged, and nobody noticed"
    assert found > 30, "the damage was not where anything is"


def test_a_body_unpacks_to_no_more_than_it_says():
    bomb = compress(b"0" * 10_000_000)
    for size in (100, 0, -1, 1 << 80):
        with pytest.raises(ArtefactError):
            Body(bomb, "00", size).text()


def readable(path: Path) -> dict[str, list[tuple]]:
    """What a store says; how far imports are decides only what is imported again, and versions have titles."""
    rows = dump(path)
    rows["sources"] = [row[:-2] for row in rows["sources"]]
    rows["models"] = [row[:-1] for row in rows["models"]]
    rows["schema_steps"] = []
    for table in (
        "unit_bodies",
        "layer_bodies",
        "model_bodies",
    ):  # the last byte of deflated data can have bits that say nothing
        rows[table] = [(*row[:-1], row[-1][:10], gzip.decompress(row[-1])) for row in rows[table]]
    return rows


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("UPDATE unit_bodies SET body = CAST(substr(body, 1, 20) || x'00' || substr(body, 22) AS BLOB)", "drawing"),
        ("UPDATE units SET f1 = 0.123", "columns"),
        ("UPDATE units SET failure = 'none'", "failure"),
        ("UPDATE layer_bodies SET size = size + 1", "layer"),
        (
            "INSERT INTO model_bodies SELECT 256 + service_id, 1, service_id, etag, 5, body FROM layer_bodies LIMIT 1",
            "model 1",
        ),
        ("UPDATE models SET name = 'toys'", "models 1"),
        (
            "PRAGMA ignore_check_constraints = ON; UPDATE unit_bodies SET id = id + 80 WHERE id = "
            "(SELECT max(id) FROM unit_bodies)",
            "its number",
        ),
        ("UPDATE models SET similar_of = 'x'", "models 1"),
        ("UPDATE tokens SET text = text || 'x'", "other tokens"),
        ("UPDATE similar SET own = own / 2", "similar units"),
        ("DELETE FROM unit_tokens", "not known what it names"),
        ("DELETE FROM postings", "missing"),
        ("UPDATE postings SET units = CAST(substr(units, 1, length(units) - 2) AS BLOB)", "postings"),
        ("PRAGMA foreign_keys = OFF; DELETE FROM bases WHERE name = 'sae'", "there is no bases"),
        ("UPDATE sources SET done = total + 1", "source"),
        ("UPDATE programs SET program = CAST(substr(program, 1, 300) || x'00' AS BLOB)", "checksum"),
        ("UPDATE programs SET graphs = graphs + 1", "checksum"),
        ("UPDATE programs SET graphs_of = ''", "none, and yet something"),
        ("DELETE FROM programs WHERE id = (SELECT max(id) FROM programs)", "missing"),
        ("DELETE FROM unit_bodies WHERE service_id = (SELECT id FROM services WHERE name = 'neuron2graph')", "not of"),
        ("PRAGMA ignore_check_constraints = ON; UPDATE programs SET id = id + 9999 WHERE layer_id = 1", "its number"),
    ],
)
def test_damage_is_named(filled, tmp_path, change, named):
    path = tmp_path / "atlas.db"
    shutil.copy(filled, path)
    connection = sqlite3.connect(path)
    connection.executescript(change)
    connection.close()
    with Store.open(path) as store:
        findings = store.verify()
    assert findings
    assert any(named in one for one in findings), findings


def test_bodies_are_the_same_bytes_everywhere():
    raw = serialise({"b": [" Ä", 0.1], "a": None})
    assert raw == '{"a":null,"b":[" Ä",0.1]}'.encode()
    packed = compress(raw)
    assert gzip.decompress(packed) == raw
    assert packed[:10] == gzip.compress(raw, 6, mtime=0)[:9] + b"\xff", "neither time nor system"
    etag = hashlib.sha256(raw).hexdigest()[:32]
    assert Body(packed, etag, len(raw)).text() == raw
    for wrong in (packed[:-1], packed[:12] + b"?" + packed[13:], b"", compress(b"[]")):
        with pytest.raises(ArtefactError):
            Body(wrong, etag, len(raw)).text()


# --- what is imported -----------------------------------------------------------------------------------------


def remake(folder: Path, to: Path, change) -> Path:
    """A comparison with something changed, and a marker that says that all is well."""
    with publishing(to / "report", {"key": "x"}) as work:
        shutil.copytree(folder / "report", work, dirs_exist_ok=True, ignore=shutil.ignore_patterns(COMMIT))
        change(work)
    return to


def edit(path: Path, change) -> None:
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


GRAPH, EXEMPLARS, LOGITS = (f"{part}/1.resid_post_sae_3.json" for part in ("graphs", "exemplars", "logits"))
CASES = {
    "truncated graph": (GRAPH, lambda p: p.write_text(p.read_text()[:100])),
    "another unit's graph": (GRAPH, lambda p: edit(p, lambda v: v.update(unit="1.resid_post/sae/4"))),
    "foreign graph": (GRAPH, lambda p: p.write_text('{"format": "dot"}')),
    "a graph that is a list": (GRAPH, lambda p: p.write_text("[]")),
    "another unit's effects": (LOGITS, lambda p: edit(p, lambda v: v.update(unit="1.resid_post/sae/4"))),
    "half of the effects": (LOGITS, lambda p: edit(p, lambda v: v.pop("lowered"))),
    "no exemplars": (EXEMPLARS, lambda p: p.unlink()),
    "another unit's exemplars": (EXEMPLARS, lambda p: edit(p, lambda v: v.update(unit="1.resid_post/sae/4"))),
    "fewer activations": (EXEMPLARS, lambda p: edit(p, lambda v: v["fit"][0]["activations"].pop())),
    "no windows": (EXEMPLARS, lambda p: edit(p, lambda v: v.pop("fit"))),
    "activations that are words": (EXEMPLARS, lambda p: edit(p, lambda v: v["fit"][0].update(activations=["x"] * 6))),
}


@pytest.mark.parametrize("case", CASES)
def test_damaged_and_foreign_files_are_named_and_nothing_of_the_unit_is_written(runs, tmp_path, case):
    name, change = CASES[case]
    folder = remake(runs / "demo", tmp_path / "run", lambda work: change(work / name))
    path = tmp_path / "atlas.db"
    with Writer(path) as writer, pytest.raises(ArtefactError, match=name):
        collect(folder, writer, batch=1)
    with Store.open(path) as store:
        assert [unit.index for unit in store.listing("toy", basis="sae").units] == [0, 1, 2]
        assert store.verify() == []


def test_values_that_are_no_json_name_the_unit(runs, tmp_path):
    for value in ("NaN", '"\\ud800"'):
        folder = remake(
            runs / "demo",
            tmp_path / f"run{value[0]}",
            lambda work, value=value: edit(
                work / "results.json", lambda v: v["bases"][0]["units"][2].update(spread="@")
            ) or (work / "results.json").write_text((work / "results.json").read_text().replace('"@"', value)),
        )  # fmt: skip
        with Writer(tmp_path / "atlas.db") as writer, pytest.raises(ArtefactError, match=r"unit neurons/2 of .*run"):
            collect(folder, writer)


def test_unfinished_and_other_folders_are_refused(runs, tmp_path):
    damaged = tmp_path / "damaged"
    shutil.copytree(runs / "demo", damaged)
    with open(damaged / "report" / GRAPH, "r+b") as handle:
        handle.write(b" ")
    unfinished = tmp_path / "unfinished"
    shutil.copytree(runs / "study", unfinished)
    (unfinished / "layers" / "02" / "tied-R2" / COMMIT).unlink()
    older = remake(runs / "demo", tmp_path / "older", lambda w: edit(w / "results.json", lambda v: v.update(version=2)))
    thin = remake(runs / "demo", tmp_path / "thin", lambda w: edit(w / "results.json", lambda v: v.pop("bases")))
    (tmp_path / "nothing").mkdir()
    with Writer(tmp_path / "atlas.db") as writer:
        empty = dump(tmp_path / "atlas.db")
        for folder, error, named in (
            (damaged, ArtefactError, Path(GRAPH).name),
            (unfinished, ArtefactError, "tied-R2"),
            (older, ArtefactError, "version 2"),
            (thin, ArtefactError, "results.json"),
            (tmp_path / "nothing", InputError, "a finished comparison or study"),
            (tmp_path / "absent", InputError, "absent"),
        ):
            with pytest.raises(error, match=named):
                collect(folder, writer)
        assert dump(tmp_path / "atlas.db") == empty


def test_versions_that_are_read_are_those_that_are_written():
    from saelens_n2g.comparison import results as comparison
    from saelens_n2g.imports import config as imports
    from saelens_n2g.store.runs import VERSIONS
    from saelens_n2g.study import results as study

    assert {one.FORMAT: one.VERSION for one in (comparison, study, imports)} == VERSIONS
