"""The description of the API holds: whatever is asked that it allows, or does not, is answered as it says."""

from pathlib import Path

import pytest
import schemathesis
from atlases import make_comparison
from hypothesis import HealthCheck, given, settings
from starlette.testclient import TestClient

from saelens_n2g.server.app import Atlas
from saelens_n2g.server.catalogue import BODIES
from saelens_n2g.server.endpoints import BY_NAME
from saelens_n2g.server.openapi import description
from saelens_n2g.store.collect import collect, connect
from saelens_n2g.store.writer import Writer

EXAMPLES = 25
LAYERS, UNITS = ["1", "1-neurons", "1-sae", "1-pca", "7"], [0, 1, 2, 3, 4, 40, 1000]
VALUES = {
    "query": ["any:the", "activating:of or not important:york", 'any:"a,b" and layer=0..3', "(", "basis=sae", "york"],
    "ids": ["6", "7,6", "0,1,2,3,4,5,6,7,8", "1,x", ""],
    "units": ["1/0,1-sae/2", "1/0", "1-neurons/3", "1/40", "1/1000", "one"],
    "bases": ["sae", "neurons,sae", "pca"],
    "layers": ["1", "1,7"],
    "basis": ["sae"],
}


@pytest.fixture(scope="module")
def app(tmp_path_factory) -> Atlas:
    folder: Path = tmp_path_factory.mktemp("openapi")
    with Writer(folder / "atlas.db") as writer:
        collect(make_comparison(folder / "demo"), writer)
        connect(writer, "toy")
    return Atlas(folder / "atlas.db")


@pytest.fixture(scope="module")
def client(app):
    with TestClient(app) as client:
        yield client


def schema_of(app: Atlas, *, known: bool):
    """The description; with `known`, models, layers and units are mostly those that there are."""
    said = description(entries=app.api.catalogue.entries.values())
    if known:
        places = said["components"]["parameters"]
        for name, values in (("model", ["toy", "toy", "other"]), ("layer", LAYERS), ("unit", UNITS)):
            places[name] = {**places[name], "schema": {"enum": values}}
        for methods in said["paths"].values():
            asked = methods["get"]["parameters"]
            asked[:] = [one for one in asked if one.get("name") != "text"]  # the toy has no tokenizer
            for one in asked:
                if one.get("name") in VALUES and one["schema"].get("enum") is None:
                    one |= {"schema": {"type": "string", "enum": VALUES[one["name"]]}, "required": True}
    return schemathesis.openapi.from_dict(said)


PATHS = list(description()["paths"])


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("path", PATHS)
def test_answers_are_as_described(app, client, path, known):
    app.api.catalogue.refresh()
    operation = schema_of(app, known=known)[path]["GET"]
    seen = set()

    @settings(max_examples=EXAMPLES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy())
    def ask(case):
        asked = case.as_transport_kwargs(base_url="http://testserver")
        answer = client.request(asked["method"], asked["url"], params=asked.get("params"))
        seen.add(answer.status_code)
        assert answer.status_code < 500, answer.text
        operation.validate_response(schemathesis.Response.from_any(answer))
        assert str(answer.status_code) in operation.definition.raw["responses"]

    ask()
    assert seen & ({200} if known else {200, 400, 404}), seen


def test_every_service_is_described():
    said = description()
    for endpoint in BY_NAME.values():
        for level, end in (("model", ""), ("layer", "/{layer}"), ("unit", "/{layer}/{unit}")):
            assert (f"/api/{{model}}/{endpoint.service}{end}" in said["paths"]) == (level in endpoint.levels)
    names = [operation["get"]["operationId"] for operation in said["paths"].values()]
    assert len(set(names)) == len(names)
    assert set(BODIES) < set(BY_NAME)


def test_the_description_is_served_and_read_by_people(app, client):
    said = client.get("/doc/openapi.json")
    assert said.json() == description(entries=app.api.catalogue.entries.values())
    page = client.get("/doc")
    assert page.status_code == 200
    assert all(f"<code>{path}</code>" in page.text for path in PATHS)
