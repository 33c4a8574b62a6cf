"""Pages of models and layers, and how everything that is no JSON is sent."""

from html.parser import HTMLParser
from pathlib import Path

import pytest
from atlases import make_comparison, make_study
from starlette.testclient import TestClient

from saelens_n2g.server.app import Atlas
from saelens_n2g.server.pages.charts import histogram
from saelens_n2g.server.pages.render import SHADES, assets, environment, figure, percent, shade
from saelens_n2g.server.web import LAYER_PARAMETERS
from saelens_n2g.store.collect import collect, connect
from saelens_n2g.store.reader import Store
from saelens_n2g.store.writer import Writer

HOSTILE = '</title><script>alert(1)</script>"onload="x'


@pytest.fixture(scope="module")
def filled(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("web")
    with Writer(folder / "atlas.db") as writer:
        collect(make_comparison(folder / "demo", units=60), writer)
        collect(make_study(folder / "study"), writer, model=HOSTILE, rename={"neurons": HOSTILE})
        connect(writer, "toy")
    return folder / "atlas.db"


@pytest.fixture(scope="module")
def client(filled):
    with TestClient(Atlas(filled), follow_redirects=False) as client:
        yield client


class Tags(HTMLParser):
    """Elements with their attributes, and text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text.append(data)

    def all(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


def page(client, path, status=200) -> Tags:
    answer = client.get(path)
    assert answer.status_code == status, answer.text[:500]
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    policy = answer.headers["content-security-policy"]
    assert "'unsafe" not in policy
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    tags = Tags(answer.text)
    for name, attributes in tags.tags:
        assert "style" not in attributes, "the policy would leave it out"
        assert not [key for key in attributes if key.startswith("on")], attributes
        assert name != "script" or attributes.get("src", "").startswith("/static/")
        assert name != "style"
    assert len(tags.all("h1")) == 1
    assert tags.all("html")[0]["lang"] == "en"
    for field in tags.all("input"):
        assert field.get("type") == "hidden" or field.keys() & {"aria-label", "id"} or tags.all("label"), field
    return tags


def hrefs(tags: Tags) -> list[str]:
    return [a["href"] for a in tags.all("a") if "href" in a]


def test_models(client):
    tags = page(client, "/")
    assert "/viz/toy" in hrefs(tags)
    assert HOSTILE in "".join(tags.text)


def test_a_model(client, filled):
    tags = page(client, "/viz/toy")
    assert {"/viz/toy/1", "/viz/toy/1-sae"} <= set(hrefs(tags))
    with Store.open(filled) as store:
        layer = next(one for one in store.layers("toy") if one.basis == "sae")
        scores = [f1 for (f1,) in store.columns(layer.id, "f1") if f1 is not None]
    assert f"{sum(scores) / len(scores):.2f}" in tags.text


@pytest.mark.parametrize("sort", LAYER_PARAMETERS[0].choices)
@pytest.mark.parametrize("order", ["descending", "ascending"])
def test_a_layer_is_sorted(client, filled, sort, order):
    tags = page(client, f"/viz/toy/1-sae?sort={sort}&order={order}")
    with Store.open(filled) as store:
        found = store.listing("toy", basis="sae", layer=1, sort=sort, descending=order == "descending")
    links = [one for one in hrefs(tags) if one.startswith("/viz/toy/1-sae/")]
    assert links == [f"/viz/toy/1-sae/{unit.index}" for unit in found.units]


def test_pages_follow_each_other(client):
    first, second = page(client, "/viz/toy/1-sae"), page(client, "/viz/toy/1-sae?page=2")
    units = [one for tags in (first, second) for one in hrefs(tags) if one.startswith("/viz/toy/1-sae/")]
    assert len(units) == len(set(units)) == 60
    assert [a["href"] for a in first.all("a") if a.get("rel") == "next"] == ["/viz/toy/1-sae?sort=place&page=2"]
    assert page(client, "/viz/toy/1-sae?page=9999")


@pytest.mark.parametrize("path", ["/viz/nobody", "/viz/toy/9", "/viz/toy/x", "/nothing", "/viz/toy/1/x", "/static/x"])
def test_what_is_not_there(client, path):
    tags = page(client, path, 404)
    assert "Not Found" in tags.text


@pytest.mark.parametrize("path", ["/viz/toy/1?sort=x", "/viz/toy/1?page=0", "/viz/toy/1?more=1", "/?x"])
def test_what_cannot_be_asked(client, path):
    page(client, path, 400)


def test_texts_of_a_unit_without_a_graph(client):
    from saelens_n2g.server.address import path

    tags = page(client, path("viz", HOSTILE, "0-tied-R2", 21))
    assert len(tags.all("article")) == 6
    assert "This unit has no graph." in tags.text


def test_names_are_escaped(client):
    from saelens_n2g.server.address import path

    for layer in (0, 2):
        tags = page(client, path("viz", HOSTILE, f"{layer}-{HOSTILE}"))
        assert any(HOSTILE in text for text in tags.text)
        assert len(tags.all("script")) >= 1


@pytest.mark.parametrize(
    "path",
    [
        "/static/../app.py", "/static/..%2Fapp.py", "/static/%2e%2e/app.py", "/static/....//app.py",
        "/static/%2Fetc%2Fpasswd", "/static/templates%2Fbase.html", "/static/base.html", "/static/", "/static/a%00b",
    ],
)  # fmt: skip
def test_no_file_but_our_own_is_sent(client, path):
    assert client.get(path).status_code == 404


def test_assets(client):
    assert {"atlas.css", "atlas.js", "icon.svg"} <= set(assets())
    for name, (data, kind) in assets().items():
        answer = client.get(f"/static/{name}")
        assert (answer.content, answer.headers["content-type"]) == (data, kind)
        again = client.get(f"/static/{name}", headers={"if-none-match": answer.headers["etag"]})
        assert again.status_code == 304
        assert b"http://" not in data.replace(b"http://www.w3.org/", b""), "nothing is fetched from elsewhere"
        assert b"https://" not in data


def test_pages_that_did_not_change_are_not_sent_again(client):
    answer = client.get("/viz/toy")
    assert client.get("/viz/toy", headers={"if-none-match": answer.headers["etag"]}).status_code == 304


def test_addresses_of_deepdecipher_lead_to_ours(client):
    for path, target in (
        ("/viz", "/"),
        ("/viz/toy/all", "/viz/toy"),
        ("/viz/toy/neuron2graph/1", "/viz/toy/1"),
        ("/viz/toy/neuron-explainer/1/3", "/viz/toy/1/3"),
        ("/viz/toy/all/1-sae/3", "/viz/toy/1-sae/3"),
    ):
        answer = client.get(path)
        assert (answer.status_code, answer.headers["location"]) == (307, target)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_pages_are_only_read(client, method):
    assert client.request(method, "/viz/toy").status_code == 405


def test_every_template_escapes():
    assert environment().autoescape is True
    assert environment().from_string("{{ x }}").render(x="<b>") == "&lt;b&gt;"


def test_numbers_are_written_for_people():
    assert figure(1234) == "1,234"
    assert figure(0.125, 2) == "0.12"
    assert figure(-0.001) == "0.00"
    assert "undefined" in figure(None)
    assert [percent(x) for x in (0.5, 0.0123, 0.00012)] == ["50 %", "1.2 %", "0.012 %"]


def test_shades_keep_the_sign():
    assert [shade(x) for x in (None, 0.0, 1.0, -1.0, 2.0, 0.5, -0.02)] == ["", "", "p20", "n20", "p20", "p10", ""]
    css = assets()["atlas.css"][0].decode()
    assert all(f".{sign}{step} " in css for sign in "pn" for step in range(1, SHADES + 1))


def test_histograms_count_everything():
    chart = str(histogram([-5, 0, 0.05, 0.5, 1, 7], low=0, high=1, bins=10, label='<"&'))
    counts = [int(part.split("<")[0]) for part in chart.split(": ")[1:]]
    assert sum(counts) == 6
    assert 'aria-label="&lt;&quot;&amp;"' in chart
    assert "rect" not in str(histogram([], low=0, high=1, bins=10, label="none"))
