"""The API: DeepDecipher's shapes, what is stored as it is stored, and a refusal in one shape for everything else."""

import asyncio
import gzip
import json
import time
from pathlib import Path
from urllib.parse import quote

import pytest
from atlases import make_comparison, make_study
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.testclient import TestClient

from saelens_n2g.server.address import place_name
from saelens_n2g.server.api import accepts_gzip, matches
from saelens_n2g.server.app import Atlas
from saelens_n2g.server.catalogue import BODIES
from saelens_n2g.server.endpoints import BY_NAME, SPELLINGS
from saelens_n2g.server.problems import Problem
from saelens_n2g.server.workers import WAITING, Workers
from saelens_n2g.store.collect import collect, connect
from saelens_n2g.store.reader import Store
from saelens_n2g.store.records import BasisFacts, LayerFacts, ModelFacts, SourceFacts, UnitFacts
from saelens_n2g.store.schema import INDEX_BITS
from saelens_n2g.store.writer import Writer

DEEPDECIPHER = {
    "name", "num_layers", "layer_size", "activation_function", "num_total_neurons", "num_total_parameters", "dataset",
    "available_services",
}  # fmt: skip
"""Fields of its metadata."""


@pytest.fixture(scope="module")
def filled(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("api")
    with Writer(folder / "atlas.db") as writer:
        collect(make_comparison(folder / "demo"), writer)
        collect(make_study(folder / "study"), writer, model="other/model")
        said = {"failure": "never fires"}
        silent = UnitFacts(index=40, figures={}, bodies={"statistics": said}, failure="never fires")
        with writer.batch():
            place = next(number for number, basis, *_ in writer.units_of("toy") if basis == "sae") >> INDEX_BITS
            source = writer.source(SourceFacts(checksum="by hand", name="by hand", kind="comparison", total=1))
            writer.unit(place, source, silent)
        connect(writer, "toy")
    return folder / "atlas.db"


@pytest.fixture(scope="module")
def client(filled):
    with TestClient(Atlas(filled)) as client:
        yield client


def get(client, path, status=200, **options):
    answer = client.get(path, **options)
    assert answer.status_code == status, answer.text
    assert answer.headers["access-control-allow-origin"] == "*"
    assert answer.headers["x-content-type-options"] == "nosniff"
    kind = "application/json" if status == 200 else "application/problem+json"
    assert answer.headers["content-type"] == kind
    return answer.json()


@pytest.fixture(scope="module")
def units(filled):
    with Store.open(filled) as store:
        return store.listing("toy", limit=100).units


# --- the shapes of DeepDecipher -----------------------------------------------------------------------------------


def test_models(client):
    found = get(client, "/api")
    assert [one["name"] for one in found["models"]] == ["other/model", "toy"]
    assert set(found) == {"models"}
    toy = found["models"][1]
    assert set(toy) == DEEPDECIPHER
    assert (toy["num_layers"], toy["layer_size"], toy["num_total_neurons"]) == (4, 64, 256)
    assert {"neuron2graph", "neuron2graph-search", "neuroscope", "neuron_explainer"} <= set(toy["available_services"])
    assert get(client, "/api/toy/metadata") == {"data": toy, "metadata": toy}


def test_a_unit_has_its_services_in_the_envelope(client, filled, units):
    with Store.open(filled) as store:
        for unit in units:
            place = f"{place_name(unit.basis, unit.layer)}/{unit.index}"
            for service, name in BODIES.items():
                body = store.body(unit.id, name)
                if body is None:
                    continue
                found = get(client, f"/api/toy/{service}/{place}")
                assert set(found) == {"data", "metadata"}
                assert set(found["metadata"]) == DEEPDECIPHER
                data = found["data"]
                if service == "neuron2graph":
                    assert data.pop("similar") == store.body(unit.id, "similarity").json()["similar"]
                assert data == body.json()


def test_neuron2graph(client, units):
    unit = next(one for one in units if one.basis == "neurons" and one.failure is None)
    data = get(client, f"/api/toy/neuron2graph/{unit.layer}/{unit.index}")["data"]
    assert {"graph", "graphviz", "similar"} <= set(data)
    assert set(data["graph"]) == {"subgraph_indices", "graph"}
    nodes = data["graph"]["graph"]
    assert all({"token", "required", "importance"} <= set(node) for node in nodes)
    assert all(0 <= i < len(nodes) for node in nodes for i in node["required"])
    assert data["graphviz"].startswith("digraph")
    assert all({"layer", "neuron", "similarity"} <= set(one) for one in data["similar"])


def test_neuroscope(client, units):
    unit = next(one for one in units if one.basis == "neurons" and one.failure is None)
    data = get(client, f"/api/toy/neuroscope/{unit.layer}/{unit.index}")["data"]
    assert data["neuron_index"] == {"layer": unit.layer, "neuron": unit.index}
    for text in data["texts"]:
        assert len(text["tokens"]) == len(text["activations"])
        assert text["activations"][text["max_activating_token_index"]] == text["max_activation"]
        assert {"min_range", "max_range", "min_activation", "data_index"} <= set(text)
    important = get(client, "/api/toy/neuroscope")["data"]["important_neurons"]
    assert [value for _, value in important] == sorted(value for _, value in important), "ascending, as there"
    assert all({"layer", "neuron"} <= set(one) for one, _ in important)
    layer = get(client, "/api/toy/neuroscope/1")["data"]
    assert layer["num_neurons"] == 64
    assert len(layer["important_neurons"]) == 5


def test_both_spellings(client, units):
    unit = next(one for one in units if one.basis == "neurons")
    there = f"{unit.layer}/{unit.index}"
    found = get(client, f"/api/toy/neuron-explainer/{there}")
    assert found == get(client, f"/api/toy/neuron_explainer/{there}") == get(client, f"/api/toy/explanation/{there}")
    assert {"explanation", "score"} <= set(found["data"])


def test_search(client, filled):
    found = get(client, "/api/toy/neuron2graph-search?query=any:the")
    assert found["total"] == len(found["data"]) > 0
    assert {one["basis"] for one in found["data"]} == {"neurons"}, "MLP neurons, as there, unless asked otherwise"
    with Store.open(filled) as store:
        expected = [(h.unit.layer, h.unit.index) for h in store.search("any:the and basis=neurons", model="toy").hits]
    assert [(one["layer"], one["neuron"]) for one in found["data"]] == expected == sorted(expected)
    every = get(client, "/api/toy/neuron2graph-search?query=any:the&bases=all")
    assert {one["basis"] for one in every["data"]} == {"neurons", "sae"}
    sae = get(client, "/api/toy/neuron2graph-search?query=any:the%20basis%3Dsae")
    assert {one["basis"] for one in sae["data"]} == {"sae"}
    page = get(client, "/api/toy/neuron2graph-search?query=any:the&bases=all&limit=1&offset=1&sort=strength")
    assert page["total"] == every["total"]
    assert len(page["data"]) == 1
    tricky = get(client, "/api/toy/neuron2graph-search?bases=all&query=" + quote('any:"a,b"'))
    with Store.open(filled) as store:
        assert tricky["total"] == store.search('any:"a,b"', model="toy").total > 0


def test_all(client, units):
    for unit in units:
        place = f"{unit.layer}-{unit.basis}/{unit.index}"
        found = get(client, f"/api/toy/all/{place}")
        assert "metadata" in found
        assert set(found["metadata"]) == {"data"}
        for service in BODIES:
            single = client.get(f"/api/toy/{service}/{place}")
            if single.status_code == 200:
                assert found[service] == {"data": single.json()["data"]}
            else:
                assert found[service] == {"missing_data_types": [service]}
    assert set(get(client, "/api/toy/all")) == {"metadata"}
    layer = get(client, "/api/toy/all/1-sae")
    assert layer["statistics"]["data"] == get(client, "/api/toy/statistics/1-sae")["data"]


def test_bases(client):
    found = get(client, "/api/toy")
    names = {basis["name"]: basis for basis in found["data"]}
    assert names["sae"]["layers"] == [{"layer": 1, "address": "1-sae", "width": 64, "units": 6}]
    assert set(found["metadata"]) == DEEPDECIPHER


def test_units_are_sorted_and_bounded(client):
    found = get(client, "/api/toy/units?sort=maximum")
    values = [one["figures"]["maximum"] for one in found["data"]]
    assert values.pop() is None, "what has none comes last"
    assert values == sorted(values, reverse=True)
    assert found["total"] == 11
    bounded = get(client, f"/api/toy/units?sort=maximum&order=ascending&min_maximum={values[3]}")
    assert [one["figures"]["maximum"] for one in bounded["data"]] == sorted(v for v in values if v >= values[3])
    assert get(client, "/api/toy/units/1-sae?limit=2&offset=4")["total"] == 6
    assert len(get(client, "/api/toy/units/1-sae?limit=2&offset=5")["data"]) == 1
    assert get(client, "/api/toy/units?basis=sae")["total"] == 6
    get(client, "/api/toy/units?basis=nothing", 404)
    get(client, "/api/toy/units/1-sae?basis=neurons", 404)


# --- what cannot be answered --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "status", "said"),
    [
        ("/api/nobody", 404, "one of other/model, toy"),
        ("/api/toy/nothing", 404, "neuron2graph"),
        ("/api/toy/neuron2graph", 404, "/api/{model}/neuron2graph/{layer}/{unit}"),
        ("/api/toy/neuron2graph/1", 404, "/{layer}/{unit}"),
        ("/api/toy/neuron2graph/1/63", 404, "was examined"),
        ("/api/toy/neuron2graph/1/64", 404, "at most 63"),
        ("/api/toy/neuron2graph/1/-1", 404, "a number"),
        ("/api/toy/neuron2graph/1/1.0", 404, "a number"),
        ("/api/toy/neuron2graph/1/999999999999", 404, "a number"),
        ("/api/toy/neuron2graph/1/1/1", 404, "nothing behind it"),
        ("/api/toy/neuron2graph/one/1", 404, "3-sae"),
        ("/api/toy/neuron2graph/3/1", 404, "one of"),
        ("/api/toy/neuron2graph/1-pca/1", 404, "1-sae"),
        ("/api/toy/neuron2graph-search", 400, "query"),
        ("/api/toy/neuron2graph-search?query=", 400, "at least 1"),
        ("/api/toy/neuron2graph-search?query=the", 400, "position 1"),
        ("/api/toy/neuron2graph-search?query=any:%22the", 400, "quotes"),
        ("/api/toy/neuron2graph-search?query=" + "not%20" * 20 + "any:a", 400, "levels"),
        ("/api/toy/neuron2graph-search?query=any:a&limit=1001", 400, "at most 1000"),
        ("/api/toy/neuron2graph-search?query=any:a&limit=x", 400, "integer"),
        ("/api/toy/neuron2graph-search?query=any:a&sort=x", 400, "strength"),
        ("/api/toy/neuron2graph-search?query=any:a&query=any:b", 400, "twice"),
        ("/api/toy/neuron2graph-search?query=%ff", 400, "UTF-8"),
        ("/api/toy/neuron2graph-search?query=any:a&more=1", 400, "'more'"),
        ("/api/toy/neuron2graph-search?query=any:" + "a" * 3000, 400, "at most 2000"),
        ("/api/toy/neuron2graph-search?query=any:" + "a" * 20_000, 414, "16384"),
        ("/api/toy/units?min_f1=nan", 400, "a number"),
        ("/api/toy/units?min_f1=1e999", 400, "a number"),
        ("/api/toy/units?limit=-1", 400, "at least 0"),
        ("/api/toy/neuron2graph/1/0?get=graph", 400, "none"),
        ("/api/%ff", 400, "UTF-8"),
        ("/api/toy/../toy/x", 404, "service"),
        ("/api/toy%2Fx", 404, "no such model"),
        ("/api?x=1", 400, "none"),
    ],
)
def test_refusals_have_one_shape(client, path, status, said):
    found = get(client, path, status)
    assert {"type", "title", "status", "detail"} <= set(found)
    assert found["status"] == status
    assert said in found["detail"]
    assert "\n" not in found["detail"]


def test_a_unit_without_a_graph_says_what_is_missing(client, units):
    unit = next(one for one in units if one.failure)
    found = get(client, f"/api/toy/neuron2graph/{unit.layer}-{unit.basis}/{unit.index}", 404)
    assert found["missing_data_types"] == ["neuron2graph"]
    assert set(found["metadata"]) == DEEPDECIPHER


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "TRACE", "QUERY"])
def test_nothing_can_be_written(client, method):
    answer = client.request(method, "/api/toy", content=b"x")
    assert answer.status_code == 405
    assert answer.headers["allow"] == "GET, HEAD, OPTIONS"
    assert answer.json()["status"] == 405


# --- how it is sent -----------------------------------------------------------------------------------------------


def paths(units):
    unit = next(one for one in units if one.failure is None)
    place = f"{unit.layer}-{unit.basis}/{unit.index}"
    return ["/api", "/api/toy", f"/api/toy/neuron2graph/{place}", f"/api/toy/all/{place}", "/api/toy/units"]


def test_compressed_or_not_it_is_the_same(client, units):
    for path in paths(units):
        plain = client.get(path, headers={"accept-encoding": "identity"})
        assert "content-encoding" not in plain.headers
        with client.stream("GET", path, headers={"accept-encoding": "br, gzip;q=0.5"}) as packed:
            raw = b"".join(packed.iter_raw())
        assert packed.headers["content-encoding"] == "gzip"
        assert packed.headers["vary"] == "accept-encoding"
        assert int(packed.headers["content-length"]) == len(raw)
        assert gzip.decompress(raw) == plain.content
        assert packed.headers["etag"] == plain.headers["etag"]


def test_what_the_client_has_is_not_sent_again(client, units):
    for path in paths(units):
        etag = client.get(path).headers["etag"]
        for known in (etag, f'"other", {etag}', etag.removeprefix("W/"), "*"):
            again = client.get(path, headers={"if-none-match": known})
            assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag)
        assert client.get(path, headers={"if-none-match": '"other"'}).status_code == 200


def test_etags_differ(client, units):
    etags = [client.get(path).headers["etag"] for path in paths(units)]
    assert len(set(etags)) == len(etags)


def test_head_and_preflight(client, units):
    for path in paths(units):
        whole, head = client.get(path), client.head(path)
        assert head.content == b""
        for name in ("etag", "content-length", "content-type", "content-encoding"):
            assert head.headers.get(name) == whole.headers.get(name)
    preflight = client.options("/api/toy", headers={"origin": "https://x", "access-control-request-method": "GET"})
    assert preflight.status_code == 204
    assert preflight.headers["access-control-allow-methods"] == "GET, HEAD, OPTIONS"


def test_slashes_at_the_end_and_in_names(client):
    assert get(client, "/api/toy/") == get(client, "/api/toy")
    assert get(client, "/api/other%2Fmodel/metadata")["data"]["name"] == "other/model"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"gzip", True), (b"gzip, deflate, br", True), (b"", False), (b"br", False), (b"gzip;q=0", False), (b"*", True),
        (b"gzip; q=0.0, *", False), (b"*;q=0", False), (b"GZIP;q=1", True), (b"br;q=1, gzip;q=0.1", True),
    ],
)  # fmt: skip
def test_what_clients_accept(value, expected):
    assert accepts_gzip(value) is expected


def test_etags_match_weakly():
    assert matches(b'"a", W/"b"', b'W/"b"')
    assert matches(b'"b"', b'W/"b"')
    assert not matches(b'"c"', b'W/"b"')


def test_mounted_in_another_application(filled):
    atlas = Atlas(filled)
    with TestClient(Starlette(routes=[Mount("/atlas", app=atlas)])) as client:
        assert get(client, "/atlas/api/toy/metadata")["data"]["name"] == "toy"
        page = client.get("/atlas/viz/toy")
        assert page.status_code == 200
        assert 'href="/atlas/viz/toy/1-sae"' in page.text
        assert client.get("/atlas/doc/openapi.json").json()["servers"] == [{"url": "/atlas"}]
    atlas.close()


def test_a_store_that_grows_is_shown_as_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr("saelens_n2g.server.catalogue.FRESH", 0.0)
    path = tmp_path / "atlas.db"
    with Writer(path) as writer:
        collect(make_comparison(tmp_path / "one"), writer)
    with TestClient(Atlas(path)) as client:
        before = client.get("/api/toy").headers["etag"]
        get(client, "/api/more", 404)
        with Writer(path) as writer:
            collect(make_comparison(tmp_path / "two", seed=1), writer, model="more")
        assert get(client, "/api/more/metadata")["data"]["name"] == "more"
        assert client.get("/api/toy").headers["etag"] == before
        assert get(client, "/api/more/units")["total"] == 10


def test_whoever_notices_a_change_first_all_answers_follow(tmp_path, monkeypatch):
    monkeypatch.setattr("saelens_n2g.server.catalogue.FRESH", 0.0)
    path, place = tmp_path / "atlas.db", "/api/toy/statistics/1-sae/0"
    with Writer(path) as writer:
        collect(make_comparison(tmp_path / "one"), writer)
    with TestClient(Atlas(path)) as client:
        for _ in range(2):
            before = get(client, place)["metadata"]["available_services"]
        assert "similarity" not in before
        with Writer(path) as writer:
            connect(writer, "toy")
        assert client.get("/").status_code == 200  # a page sees it before the API does
        assert get(client, place)["metadata"]["available_services"] == sorted([*before, "similarity"])


def test_a_service_of_the_last_unit_alone_is_available(tmp_path):
    path, units = tmp_path / "atlas.db", 200
    with Writer(path) as writer, writer.batch():
        source = writer.source(SourceFacts(checksum="by hand", name="by hand", kind="comparison", total=units))
        model = writer.model(ModelFacts(name="m", n_layers=1, config={}))
        basis = writer.basis(model, BasisFacts(name="neurons", kind="mlp_post", title="Neurons"))
        layer = writer.layer(basis, LayerFacts(layer=0, width=units, identity=""))
        for index in range(units):
            bodies = {"statistics": {"n": index}, **({"neuroscope": {"n": 1}} if index == units - 1 else {})}
            writer.unit(layer, source, UnitFacts(index=index, figures={}, bodies=bodies))
        other = writer.model(ModelFacts(name="other", n_layers=1, config={}))
        basis = writer.basis(other, BasisFacts(name="b", kind="mlp_post", title="B"))
        writer.layer(basis, LayerFacts(layer=0, width=9, identity=""))
    with TestClient(Atlas(path)) as client:
        assert {"neuroscope", "statistics"} <= set(get(client, "/api/m/metadata")["data"]["available_services"])
        assert not set(BODIES) & set(get(client, "/api/other/metadata")["data"]["available_services"])


def test_a_damaged_body_is_an_error_and_not_an_answer(tmp_path):
    path = tmp_path / "atlas.db"
    with Writer(path) as writer:
        collect(make_comparison(tmp_path / "one"), writer)
        writer.connection.execute("UPDATE unit_bodies SET body = zeroblob(20)")
    with TestClient(Atlas(path)) as client:
        found = get(client, "/api/toy/statistics/1-sae/0", 500)
        assert "gzip" in found["detail"]


# --- workers ------------------------------------------------------------------------------------------------------


def test_what_takes_too_long_is_broken_off(filled):
    workers = Workers(filled, limit=0.2)
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"

    async def ask():
        start = time.monotonic()
        with pytest.raises(Problem) as caught:
            await workers.run(lambda store: store.rows(endless))
        assert caught.value.status == 503
        assert time.monotonic() - start < 2
        assert await workers.run(lambda store: len(store.models())) == 2, "the thread serves again"
        with pytest.raises(Problem) as caught:
            await workers.run(lambda _: time.sleep(1.0))
        assert caught.value.status == 503, "also where no statement can be broken off"

    asyncio.run(ask())
    workers.close()


def test_too_many_are_turned_away(filled):
    workers = Workers(filled, limit=5.0)

    async def ask():
        tasks = [asyncio.ensure_future(workers.run(lambda _: time.sleep(0.01))) for _ in range(WAITING + 5)]
        done = await asyncio.gather(*tasks, return_exceptions=True)
        refused = [one for one in done if isinstance(one, Problem)]
        assert len(refused) == 5
        assert {one.status for one in refused} == {503}
        assert await workers.run(lambda store: len(store.models())) == 2

    asyncio.run(ask())
    workers.close()


def test_every_service_is_declared_once():
    assert set(BODIES) <= set(BY_NAME)
    assert set(SPELLINGS.values()) <= set(BY_NAME)
    assert json.dumps(sorted(BY_NAME))
