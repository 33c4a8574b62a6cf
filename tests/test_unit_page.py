"""The page of a unit: it says what the API says, escapes what is hostile, and is alive in a browser."""

import json
import re
import shutil
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit

import atlases
import pytest
from atlases import make_comparison, make_study
from serving import Element, asking, browsing, check_html, serving

from saelens_n2g.graphs import draw, labels, legend, svg
from saelens_n2g.graphs.condensed import condense
from saelens_n2g.graphs.graph import Graph
from saelens_n2g.server.catalogue import Catalogue
from saelens_n2g.server.pages import unit as views
from saelens_n2g.server.pages.effects import effects, signed
from saelens_n2g.server.pages.exemplars import groups, reading
from saelens_n2g.server.pages.links import ServerLinks
from saelens_n2g.server.pages.recorded import UNKNOWN, lines
from saelens_n2g.server.pages.render import assets, figure, render
from saelens_n2g.store.bodies import compress, digest, serialise
from saelens_n2g.store.collect import collect, connect
from saelens_n2g.store.grammar import MOST_LETTERS, Or, Term, parse, quoted
from saelens_n2g.store.reader import Store
from saelens_n2g.store.records import Unit
from saelens_n2g.store.schema import body_key
from saelens_n2g.store.services import graph_of
from saelens_n2g.store.writer import Writer

HOSTILE = [
    "</script><script>alert(1)</script>", '"onload=alert(1) x="', "' onfocus='alert(1)", "\u202eevil", "\n", " \n\n",
    "<img src=x onerror=alert(1)>", "&lt;b&gt;", "\x00\x1b", "�", "]]>", "javascript:alert(1)", "{{ 7 * 7 }}",
    "\\u0041",
]  # fmt: skip


def fill(path: Path, *folders: Path) -> Path:
    with Writer(path) as writer:
        for folder in folders:
            collect(folder, writer)
        connect(writer, "toy")
    return path


@pytest.fixture(scope="module")
def store_path(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("unit-page")
    return fill(folder / "atlas.db", make_comparison(folder / "demo"), make_study(folder / "study", exemplars=False))


@pytest.fixture(scope="module")
def client(store_path) -> Iterator:
    with asking(store_path) as found:
        yield found


@pytest.fixture(scope="module")
def hostile_path(tmp_path_factory) -> Path:
    folder, kept = tmp_path_factory.mktemp("hostile"), dict(atlases.STRINGS)
    atlases.STRINGS.update(enumerate(HOSTILE))
    try:
        return fill(folder / "atlas.db", make_comparison(folder / "demo", units=8))
    finally:
        atlases.STRINGS.update(kept)


def replace_body(path: Path, service: str, value) -> None:
    """What a stranger's store may say of the unit 1-sae/0."""
    raw, connection = serialise(value), sqlite3.connect(path)
    ((kind,),) = connection.execute("SELECT id FROM services WHERE name = ?", (service,)).fetchall()
    with Store.open(path) as store:
        key = body_key(store.unit_id("toy", "sae", 1, 0), kind)
    connection.execute(
        "UPDATE unit_bodies SET etag = ?, size = ?, body = ? WHERE id = ?", (digest(raw), len(raw), compress(raw), key)
    )
    connection.commit()
    connection.close()


def page(client, address: str, status: int = 200) -> Element:
    answer = client.get(address)
    assert answer.status_code == status, answer.text[:500]
    return check_html(answer.text)


def data(client, service: str, place: str):
    answer = client.get(f"/api/toy/{service}/{place}")
    assert answer.status_code == 200
    return answer.json()["data"]


def shown(value: float | None) -> str:
    """As it stands in a cell."""
    return "–" if value is None else str(figure(value))


# --- what it says ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("index", range(5))
def test_scores_and_figures_are_those_of_the_api(client, index):
    root = page(client, f"/viz/toy/1-sae/{index}")
    figures = data(client, "statistics", f"1-sae/{index}")["figures"]
    tiles = [tile.words for tile in root.one("dl", "tiles").all("div")]
    said = {name: shown(value) for name, value in figures.items()}
    assert tiles[0] == f"F1, held-out text{said['f1']}precision {said['precision']}, recall {said['recall']}"
    assert tiles[1] == f"F1, random text{said['random_f1']}"
    assert tiles[3] == f"Maximum{said['maximum']}"
    assert tiles[4] == f"Firing tokens{said['fit_firing']}in the fit text, {said['test_firing']} in the test text"
    assert tiles[5] == f"Graph{said['nodes']}nodes in its trie, {said['paths']} paths"

    explained = data(client, "neuron_explainer", f"1-sae/{index}")
    rows = root.one("table", "scores").one("tbody").all("tr")
    found = [[cell.words for cell in row.all("td")] for row in rows]
    assert found == [
        [shown(each["scores"][text][name]) for text in ("held_out", "random") for name in views.SCORES]
        for each in explained["explanations"]
    ]
    counted = [
        [int(cell.words) for cell in row.all("td")] for row in root.one("table", "counts").one("tbody").all("tr")
    ]
    assert counted == [each["counts"]["held_out"] + each["counts"]["random"] for each in explained["explanations"]]
    assert any("–" in row for row in found), "the fixture has undefined scores"
    assert root.all("pre", "paths")[0].text == explained["explanation"]


def test_similar_units_are_those_of_the_api(client):
    rows = page(client, "/viz/toy/1-sae/0").one("table", "narrow").one("tbody").all("tr")
    found = [([cell.words for cell in row.all("td")], row.one("a").get("href")) for row in rows]
    wanted = []
    for other in data(client, "similarity", "1-sae/0")["similar"]:
        place = str(other["layer"]) + ("" if other["basis"] == "neurons" else f"-{other['basis']}")
        f1 = data(client, "statistics", f"{place}/{other['neuron']}")["figures"]["f1"]
        numbers = [shown(other[name]) for name in ("similarity", "own", "other")]
        wanted.append(([f"{place}/{other['neuron']}", *numbers, shown(f1)], f"/viz/toy/{place}/{other['neuron']}"))
    assert found == wanted
    assert found


@pytest.mark.parametrize("index", range(5))
def test_exemplars_say_what_the_api_says(client, index):
    """Values, kinds, counts: computed here from the JSON, read there from the page."""
    texts = data(client, "neuroscope", f"1-sae/{index}")["texts"]
    root = page(client, f"/viz/toy/1-sae/{index}")
    ordered = [text for which in ("test", "fit") for text in texts if text["set"] == which]
    snippets = root.all("article", "snippet")
    assert len(snippets) == len(ordered) == len(texts)
    for snippet, text in zip(snippets, ordered, strict=True):
        assert snippet.one(kind="top-value").words == shown(max(text["activations"]))
        (tokens,) = snippet.all("p", "tokens")
        spans = [one for one in tokens.all("span") if one.get("title")]
        values = [
            (a, a / text["max_range"], p) for a, p in zip(text["activations"], text["predicted"], strict=True) if a or p
        ]
        for span, (a, share, p) in zip(spans, values, strict=True):
            assert span.get("title").startswith(f"{a:.2f}, {share:.2f} of the maximum; predicted {p:.2f}")
            kind = {(True, True): "hit", (True, False): "missed", (False, True): "extra", (False, False): None}[
                share >= 0.5, p >= 0.5
            ]
            assert span.classes & {"hit", "missed", "extra"} == ({kind} if kind else set())
            assert bool(span.all(kind="heard")) == bool(kind), "those who do not see colours hear it"
    for section, which in zip(root.all("section", "group"), ("test", "fit"), strict=True):
        pairs = [
            (a / text["max_range"] >= 0.5, p >= 0.5)
            for text in texts
            if text["set"] == which
            for a, p in zip(text["activations"], text["predicted"], strict=True)
        ]
        tp, fp, fn = (pairs.count(case) for case in ((True, True), (False, True), (True, False)))
        rates = [shown(tp / n if n else None) for n in (tp + fp, tp + fn)]
        words = section.all("p")[0].words
        assert f"precision {rates[0]} and recall {rates[1]}: {tp} hit" in words
        assert f", {fp} false alarm" in words
        assert f"{fn} missed" in words


def test_the_histogram_counts_what_is_shown(client):
    texts = data(client, "neuroscope", "1-sae/2")["texts"]
    root = page(client, "/viz/toy/1-sae/2")
    titles = [one.words for one in root.one(kind="histogram").all("title")]
    above = [
        (a / t["max_range"], p) for t in texts for a, p in zip(t["activations"], t["predicted"], strict=True) if a > 0
    ]
    parts = [re.fullmatch(r"(\S+) (?:to \S+|and more): (\d+), (\d+) of them predicted", title) for title in titles]
    assert sum(int(part[2]) for part in parts) == len(above)
    assert sum(int(part[3]) for part in parts) == sum(p >= 0.5 for _, p in above)
    assert sum(int(part[2]) for part in parts if float(part[1]) >= 0.5) == sum(share >= 0.5 for share, _ in above)


def test_links_lead_somewhere(client):
    root = page(client, "/viz/toy/1-sae/1")
    for link in root.all("a"):
        address = link.get("href")
        if urlsplit(address).path not in ("/paste", "/compare", "/bookmarks", "/doc", "/search"):
            assert client.get(address).status_code in (200, 302, 307), address
    services = [link.words for link in root.one("p", "chips").all("a")]
    assert services == [
        "drawing", "logits", "neuron2graph", "neuron_explainer", "neuroscope", "provenance", "similarity", "statistics"
    ]  # fmt: skip


@pytest.mark.parametrize("index", range(5))
def test_effects_on_the_next_token_are_those_of_the_api(client, index):
    root, body = page(client, f"/viz/toy/1-sae/{index}"), data(client, "logits", f"1-sae/{index}")
    card = root.one("h2", id="effects-title").parent
    largest = max(abs(one["logit"]) for side in ("raised", "lowered") for one in body[side])
    for side, table in zip(("raised", "lowered"), card.all("table", "effect"), strict=True):
        rows = table.one("tbody").all("tr")
        said = [(row.one("bdi").text, row.one("td").words) for row in rows]
        assert said == [(labels.visible(one["token"]), signed(one["logit"], largest)) for one in body[side]]
        widths = [float(row.one("rect").get("width")) for row in rows]
        assert widths == pytest.approx([100 * abs(one["logit"]) / largest for one in body[side]], abs=0.06)
    assert table.all("td")[0].words.startswith("\u2212"), "a real minus"
    last = card.all("p")[-1].words
    assert f"{largest / 0.25:.1f} standard deviations (0.25) of all 14 tokens" in last
    assert ("Kurtosis 3.5" in last) == (body["kurtosis"] is not None)


def test_effects_that_are_not_known_are_not_shown_as_none(client):
    """A unit of a run of before says nothing; one of a model that does not tell says why."""
    assert not page(client, "/viz/toy/1/1").all("h2", id="effects-title")
    card = page(client, "/viz/toy/0/3").one("h2", id="effects-title").parent
    assert card.words.endswith(f"is not known. {atlases.MISSING}")
    assert not card.all("table")
    assert client.get("/api/toy/logits/0/3").status_code == 404


def test_effects_of_one_card_have_as_many_decimals():
    assert [signed(v, 0.862) for v in (0.862, 0.05, -0.3)] == ["+0.862", "+0.050", "\u22120.300"]
    assert [signed(v, 12.345) for v in (12.345, -0.04)] == ["+12.3", "\u22120.0"]
    assert [signed(v, 0.00123) for v in (0.00123, -0.0004)] == ["+0.00123", "\u22120.00040"]
    assert signed(-0.00042, 0.0005) == "\u22124.2e\u221204"
    assert signed(1234.0, 1234.0) == "+1234"


@pytest.mark.parametrize(
    "change",
    [{"deviation": 0.0}, {"raised": []}, {"raised": [], "lowered": [], "deviation": 0.0, "kurtosis": None}],
)
def test_effects_of_nothing(change):
    body = {"raised": [{"token": "a", "logit": 0.0}], "lowered": [{"token": "b", "logit": -0.0}], "vocabulary": 2}
    found = effects({**body, "deviation": 1.0, "skew": None, "kurtosis": 3.0, **change})
    assert all('width="0.0"' in line.bar for side in (found.raised, found.lowered) for line in side)
    with pytest.raises(ValueError, match="nan"):
        effects({**body, "deviation": float("nan"), "kurtosis": None})


def test_what_a_reader_must_know(client):
    root = page(client, "/viz/toy/1/0")
    said = {div.one("dt").words: div.one("dd").words for div in root.one("dl", "recorded").all("div")}
    assert said["Beginning of text"] == "BOS token 0 before every window, left out of exemplars and scores"
    assert said["Context"] == "windows of 6 tokens, the BOS token counted"
    assert said["Seed"] == "0"
    assert said["Text"] == f"{UNKNOWN}, fingerprint abc"
    assert said["Model"] == "toy, default revision, 4 layers, float32, cpu"
    whole = json.loads(root.one("dl", "recorded").parent.one("pre").text)
    assert whole["source"]["corpus"] == {"fingerprint": "abc"}
    assert whole["unit"] == data(client, "provenance", "1/0")


def test_provenance_in_words(store_path):
    shared = {
        "corpus": {"source": "wiki", "documents": 1234, "tokens": 99, "fit_tokens": 60, "test_tokens": 39},
        "subject": {"bos_id": None, "revision": "v1"},
        "config": {"run": {"seed": 7, "text": {"width": 129}}},
        "protocol": {"method": {"name": "refined", "lengths": [1, 2]}, "threshold": 0.25},
        "versions": {"torch": "2"},
    }
    with Store.open(store_path) as store:
        entry = Catalogue(store)
        entry.refresh()
        model = entry.model("toy")
        one = store.unit("toy", "sae", 1, 0)
        source = store.source(one.source)
        found = dict(lines(model, model.bases[1], one, source._replace(provenance=shared), {"graph": {"firing": 3}}))
        published = {
            "corpus": {
                "files": [{"name": "a.jsonl", "format": "delphi"}],
                "scored_on": {"source": "wiki", "tokens": 9},
            },
            "protocol": {"random": None, "held_out": "texts"},
        }
        others = dict(lines(model, model.bases[1], one, source._replace(provenance=published), {}))
        nothing = dict(lines(model, model.bases[1], one, source._replace(provenance={}), {}))
    assert found["Text"] == "wiki, 1,234 documents, 99 tokens (60 to fit and 39 to test)"
    assert (found["Beginning of text"], found["Seed"]) == ("no BOS token", "7")
    assert found["Context"] == "windows of 129 tokens, the BOS token counted"
    assert found["Method"] == "refined, 3 firing tokens; lengths 1 2"
    assert found["Fires"] == "at 0.25 of its maximum over the fit text or more"
    assert found["Model"].startswith("toy, revision v1, 4 layers")
    assert others["Text"] == "published by others: a.jsonl (delphi); scored on wiki, 9 tokens too"
    assert others["Context"] == "texts as long as they were published"
    assert (others["Held-out text"], others["Random text"]) == ("texts", "none")
    assert {nothing[term] for term in ("Text", "Context", "Seed", "Method", "Fires", "Versions")} == {UNKNOWN}


def test_an_explanation_in_words_is_shown_but_not_the_graph_twice(store_path, tmp_path, client):
    path = tmp_path / "atlas.db"
    shutil.copyfile(store_path, path)
    replace_body(path, "explanation", {"explanation": "Fires on <b>hellos</b>.", "explanations": []})
    with asking(path) as other:
        section = page(other, "/viz/toy/1-sae/0").one("section", aria_labelledby="scores-title")
    assert section.one("pre").text == "Fires on <b>hellos</b>."
    assert section.one("p", "notice").words == "No scores of this unit are in the store."
    assert not page(client, "/viz/toy/1-sae/0").one("section", aria_labelledby="scores-title").all("pre")


# --- what is not there ----------------------------------------------------------------------------------------


def test_a_unit_without_graph_and_without_exemplars(client):
    root = page(client, "/viz/toy/0/21")
    notices = [one.words for one in root.all("p", "notice")]
    assert notices == [
        "This unit has no graph. unit: expected a graph, found none", "No exemplars of this unit are in the store."
    ]  # fmt: skip
    assert not root.all("svg", "drawing")
    assert not root.all(kind="histogram")
    assert client.get("/viz/toy/0/21/graph.svg").status_code == 404
    assert page(client, "/embed/toy/0/21").one("p", "notice").words == "unit: expected a graph, found none"
    assert not page(client, "/viz/toy/0/3").all("article"), "a graph, and no exemplars"


@pytest.mark.parametrize(
    ("address", "status", "words"),
    [
        ("/viz/toy/1-sae/63", 404, "not in the store"),
        ("/viz/toy/1-sae/64", 404, "at most 63"),
        ("/viz/toy/1-sae/x", 404, "a number"),
        ("/viz/toy/1-sae/1/graph.png", 404, "graph.svg"),
        ("/viz/toy/1-sae/1/graph.svg/x", 404, "graph.svg"),
        ("/viz/toy/1-sae/1?nodes=some", 400, "one of strongest, all"),
        ("/viz/toy/1-sae/1?node=all", 400, "parameters"),
        ("/viz/toy/1-sae/random?x=1", 400, "parameters"),
        ("/embed/toy/1-sae", 404, "/embed/{model}/{layer}/{unit}"),
        ("/embed/toy/1-sae/63", 404, "not in the store"),
    ],
)
def test_what_cannot_be_shown_is_said(client, address, status, words):
    assert words in page(client, address, status).one("main").words


@pytest.mark.parametrize(
    ("service", "value"),
    [
        ("neuroscope", {"texts": [{"tokens": ["a"], "activations": [1.0, 2.0]}]}),
        ("neuroscope", {"texts": [{"tokens": [], "activations": []}]}),
        ("neuroscope", {"texts": [3]}),
        ("neuroscope", {}),
        ("explanation", {"explanation": "x", "explanations": [{}]}),
        ("neuron2graph", {"trie": {}}),
        ("neuron2graph", {}),
    ],
)
def test_bodies_of_strangers_end_in_a_problem(store_path, tmp_path, service, value):
    path = tmp_path / "atlas.db"
    shutil.copyfile(store_path, path)
    replace_body(path, service, value)
    with asking(path) as client:
        assert page(client, "/viz/toy/1-sae/0", 500).one("h1").words == "Internal Server Error"
        page(client, "/viz/toy/1-sae/1")


# --- the graph ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("index", range(5))
def test_the_drawing_is_the_picture_with_names(store_path, client, index):
    with Store.open(store_path) as store:
        graph = graph_of(store.body(store.unit_id("toy", "sae", 1, index), "neuron2graph").json())
    drawing = page(client, f"/viz/toy/1-sae/{index}").one("svg", "drawing")
    layered = condense(graph)
    named = [one.get("data-node") for one in drawing.all() if one.get("data-node")]
    assert sorted(named) == sorted(f"{depth}:{token}" for depth, token in (node.key for node in layered.nodes))
    pairs = {(one.get("data-source"), one.get("data-target")) for one in drawing.all("path") if one.get("data-source")}
    assert pairs == {tuple(f"{d}:{t}" for d, t in (edge.source, edge.target)) for edge in layered.edges}
    for node in layered.nodes:
        link = drawing.one(data_node=f"{node.depth}:{node.token}")
        query = parse(parse_qs(urlsplit(link.get("href")).query)["query"][0])
        terms = query.parts if isinstance(query, Or) else (query,)
        assert terms == tuple(Term("any", name) for name in node.names[: views.MEMBERS])
        assert link.one("title").text == svg_text(legend.tooltip(node))


def svg_text(words: str) -> str:
    return svg.UNFIT_FOR_XML.sub(lambda m: f"\\u{ord(m[0]):04x}", words)


@pytest.mark.parametrize("index", range(5))
def test_picture_and_page_are_drawn_by_the_same_hand(store_path, index):
    """Without names and links, and but for the card and the legend, the two are the same."""
    with Store.open(store_path) as store:
        graph = graph_of(store.body(store.unit_id("toy", "sae", 1, index), "neuron2graph").json())
    inline = draw.to_page(graph, link=lambda _: "?").svg
    plain = re.sub(r' (data-\w+|href)="[^"]*"', "", inline).replace("<a>", "<g>").replace("</a>", "</g>")
    bare = re.sub(r"<g>(<rect[^>]*/><text[^>]*>[^<]*</text>)</g>", r"\1", plain)  # labels of edges
    shapes = [line for line in bare.splitlines()[2:-1] if not line.startswith('<g transform="translate')]
    known = [line for line in graph.to_svg().splitlines() if not line.startswith('<g transform="translate')]
    assert len(shapes) > 2
    start = known.index(shapes[0])
    assert known[start : start + len(shapes)] == shapes


def test_a_graph_that_never_fires_is_no_drawing():
    assert draw.to_page(Graph("u", 1.0), link=lambda _: None) == draw.Drawing("", (), 0, 0)


def test_all_nodes_are_drawn_when_asked_for(client):
    graph = Graph("u", 1.0)
    for token in range(60):
        graph.add([(token, 1.0)], 0.9)
    graph.name_tokens("t{}".format)
    links = ServerLinks()
    assert views.draw(graph, links).shown == draw.MAX_NODES
    assert views.draw(graph, links, everything=True).shown == 60
    small = page(client, "/viz/toy/1-sae/1")
    every = page(client, "/viz/toy/1-sae/1?nodes=all")
    assert len(every.all(kind="drawing")) == len(small.all(kind="drawing")) == 1


def test_files_of_the_graph(client):
    picture, dot = client.get("/viz/toy/1-sae/1/graph.svg"), client.get("/viz/toy/1-sae/1/graph.dot")
    assert picture.text == data(client, "drawing", "1-sae/1")["svg"]
    assert picture.headers["content-type"] == "image/svg+xml"
    assert "sandbox" in picture.headers["content-security-policy"]
    assert dot.text == data(client, "neuron2graph", "1-sae/1")["graphviz"]
    assert dot.headers["content-disposition"] == 'inline; filename="1-sae-1.dot"'


def test_the_style_sheet_knows_the_colours_of_drawings():
    """It exchanges them by value, so it must name them all."""
    style = assets()["unit.css"][0].decode()
    named = set(re.findall(r'\[(?:fill|stroke)="(#\w+)"\]', style))
    assert named == {legend.INK, legend.STILL, svg.QUIET, svg.RULE, "#ffffff"}


def test_a_query_for_any_token_finds_that_token():
    for name in [*HOSTILE, "a\\b", "\t\r"]:
        assert parse(views.search_for((name,))) == Term("any", name)
        assert parse(quoted(name).join(("any:", ""))) == Term("any", name)
    assert views.search_for(()) is None
    assert views.search_for(("\ud800",)) is None
    assert views.search_for(("x" * MOST_LETTERS,)) is None
    assert views.search_for(tuple("abcdefghijklmnop")).count(" or ") == views.MEMBERS - 1


# --- other units ----------------------------------------------------------------------------------------------


def test_previous_next_and_random(store_path, client):
    with Store.open(store_path) as store:
        indices = [one.index for one in store.listing("toy", basis="neurons", layer=0).units]
        assert indices == [3, 8, 21]
        ids = {index: store.unit_id("toy", "neurons", 0, index) for index in range(64)}
        for index, number in ids.items():
            before, behind = [i for i in indices if i < index], [i for i in indices if i > index]
            assert store.neighbours(number) == (max(before, default=None), min(behind, default=None))
        assert [store.nth(ids[0] >> 24, n) for n in range(4)] == [3, 8, 21, None]
    root = page(client, "/viz/toy/0/8")
    assert root.one("a", rel="prev").get("href") == "/viz/toy/0/3"
    assert root.one("a", rel="next").get("href") == "/viz/toy/0/21"
    assert not page(client, "/viz/toy/0/3").all("a", rel="prev")
    assert not page(client, "/viz/toy/0/21").all("a", rel="next")
    keys = " ".join(one.get("aria-keyshortcuts") or "" for one in root).split()
    assert sorted(keys) == ["?", "ArrowLeft", "ArrowRight", "n", "p", "r"]
    found = {client.get("/viz/toy/0/random").headers["location"] for _ in range(60)}
    assert found == {f"/viz/toy/0/{index}" for index in indices}


# --- what is hostile ------------------------------------------------------------------------------------------


def test_hostile_tokens_stay_text(hostile_path):
    with asking(hostile_path) as client:
        said = ""
        for place in ("1-sae", "1"):
            for index in range(8):
                for address in (f"/viz/toy/{place}/{index}", f"/embed/toy/{place}/{index}"):
                    answer = client.get(address)
                    root = check_html(answer.text)
                    assert not root.all("img")
                    assert {one.get("src").split("/")[1] for one in root.all("script")} == {"static"}
                    assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e\u2066-\u2069]", answer.text)
                    said += root.text
        for token in HOSTILE:
            if token.isprintable():
                assert token in said, token
        assert "\\u202eevil" in said


def test_tokens_in_running_text():
    assert reading(" word") == " word"
    assert reading("·x") == "·x"
    assert reading("  a b ") == "  a b "
    assert reading(" ") == '<span class="sign">·</span>'
    assert reading("\n") == '<span class="sign">⏎</span><br>'
    assert reading("\n", "\n") == '<span class="sign">⏎</span>'
    assert reading("<b>\n") == '&lt;b&gt;<span class="sign">⏎</span><br>'
    assert reading("\u202e\x00") == "\\u202e\\x00"
    assert reading("\ufffd") == "\ufffd"


def test_texts_of_others_need_no_predictions():
    (group,) = groups({"texts": [{"tokens": ["a", "b"], "activations": [-2.0, 4.0], "max_range": 4.0}]})
    (one,) = group.snippets
    assert (group.title, group.counts, group.scores, one.counts, one.maximum) == ("Texts", None, None, None, 4.0)
    assert 'class="n10" title="-2.00, -0.50 of the maximum"' in one.around, "the sign is kept"
    assert 'class="p20 fires"' in one.around
    assert one.points == ((1.0, False),)
    (dead,) = groups({"texts": [{"tokens": ["a"], "activations": [0.0], "predicted": [0.0]}]})
    assert (dead.counts, dead.scores.precision, dead.scores.recall) == ((0, 0, 0, 1), None, None)


# --- elsewhere ------------------------------------------------------------------------------------------------


def test_only_embedded_pages_may_be_framed(client):
    embedded = client.get("/embed/toy/1-sae/1")
    assert "frame-ancestors *" in embedded.headers["content-security-policy"]
    assert "frame-ancestors 'none'" in client.get("/viz/toy/1-sae/1").headers["content-security-policy"]
    root = check_html(embedded.text)
    assert len(root.all("article")) == views.EMBEDDED
    assert root.one("svg", "drawing")
    assert root.one("a", target="_blank").get("href") == "/viz/toy/1-sae/1"


def test_without_a_server_nothing_asks_for_one(store_path):
    with Store.open(store_path) as store:
        catalogue = Catalogue(store)
        catalogue.refresh()
        entry = catalogue.model("toy")
        links = ServerLinks("/folder", live=False)
        root = check_html(render(views.unit(store, entry, entry.layer("sae", 1), 1, links), links))
        check_html(render(views.embedded(store, entry, entry.layer("sae", 1), 1, links), links))
    addresses = [one.get("href") for one in root if one.get("href")]
    assert not [one for one in addresses if re.search("search|random|embed|graph.svg|nodes=", one)]
    assert not root.all("form")
    assert root.one("svg", "drawing").all("g", tabindex="0"), "nodes can be reached without links too"
    assert not [one for one in root.all("script") if one.get("type") == "module"], "a folder has no modules"


def test_names_with_slashes_and_spaces_are_escaped():
    one = Unit(1, "a/b c", "x y", 1, 2, 1, None, {})
    assert views.embed_link(ServerLinks("/r"), one) == f"/r/embed/a%2Fb%20c/{quote('1-x y')}/2"


def test_colours_of_nodes_stand_out():
    for depth in (0, 1):
        for strength in (0.3, 0.6, 1.0):
            ground = labels.fill(depth, strength)
            assert labels.contrast(labels.ink_on(ground), ground) >= 4.5


# --- in a browser ---------------------------------------------------------------------------------------------


def test_the_page_is_alive(store_path):
    with serving(store_path) as address, browsing() as browser:
        context = browser.new_context(viewport={"width": 1200, "height": 900})
        tab = context.new_page()
        said: list[str] = []
        tab.on("console", lambda message: said.append(message.text) if message.type in ("error", "warning") else None)
        tab.on("pageerror", lambda error: said.append(str(error)))
        with Store.open(store_path) as store:
            index = next(one.index for one in store.listing("toy", basis="sae", layer=1).units if has_parts(store, one))
        tab.goto(f"{address}/viz/toy/1-sae/{index}")
        _paths_are_followed(tab)
        _picture_moves(tab)
        _values_appear(tab)
        _bookmarks_are_kept(tab, index)
        tab.goto(f"{address}/embed/toy/1-sae/{index}")
        assert tab.locator(".canvas.live").count() == 1
        tab.set_viewport_size({"width": 390, "height": 800})
        for place in ("0/3", "0/21", f"1-sae/{index}"):
            tab.goto(f"{address}/viz/toy/{place}")
            assert tab.evaluate("document.documentElement.scrollWidth") <= 390, "a phone need not scroll sideways"
        node = tab.locator(".drawing a[data-node]").last
        wanted = node.get_attribute("href")
        assert not said
        node.focus()
        tab.keyboard.press("Enter")
        tab.wait_for_url(f"**{wanted}")
        context.close()


def has_parts(store: Store, one) -> bool:
    """Whether its drawing has edges, and nodes that they do not lead to."""
    layered = condense(graph_of(store.body(one.id, "neuron2graph").json()))
    return bool(layered.edges) and len(layered.components) > 1


def until(tab, truth: str) -> None:
    """Wait for it; the browser's own waiting would evaluate text in the page, which its policy forbids."""
    deadline = time.monotonic() + 10
    while not tab.evaluate(truth):
        assert time.monotonic() < deadline, truth
        tab.wait_for_timeout(20)


def test_the_page_reads_without_a_script(store_path):
    with serving(store_path) as address, browsing() as browser:
        tab = browser.new_context(java_script_enabled=False).new_page()
        tab.goto(f"{address}/viz/toy/1-sae/1")
        assert tab.locator(".drawing").is_visible()
        assert tab.locator(".tokens").first.is_visible()
        assert not [one for one in tab.locator("main button").all() if one.is_visible()], "buttons that do nothing"
        assert tab.locator(".drawing a[data-node]").count()


def test_no_hostile_token_runs_in_a_browser(hostile_path):
    with serving(hostile_path) as address, browsing() as browser:
        tab = browser.new_page()
        said: list[str] = []
        tab.on("console", lambda message: said.append(message.text))
        tab.on("pageerror", lambda error: said.append(str(error)))
        tab.on("dialog", lambda dialog: said.append(dialog.message) or dialog.dismiss())
        for index in range(4):
            tab.goto(f"{address}/viz/toy/1-sae/{index}")
            for token in tab.locator(".tokens > span[title]").all()[:5]:
                token.hover()
        assert not said


def _paths_are_followed(tab) -> None:
    target = tab.locator(".drawing path[data-source]").first
    source = target.get_attribute("data-source")
    tab.locator(f'[data-node="{source}"]').hover()
    lit = tab.eval_on_selector_all("[data-node].lit", "all => all.map(one => one.dataset.node)")
    assert {source, target.get_attribute("data-target")} <= set(lit)
    others = tab.locator(".drawing.following [data-node]:not(.lit)")
    assert others.count() + len(lit) == tab.locator("[data-node]").count()
    assert others.count()
    until(tab, "getComputedStyle(document.querySelector('.drawing.following [data-node]:not(.lit)')).opacity < 0.3")
    assert tab.locator(".of-node").inner_text()
    tab.mouse.move(5, 5)
    assert tab.locator(".drawing.following").count() == 0


def _picture_moves(tab) -> None:
    def box() -> list[float]:
        return [float(n) for n in tab.locator(".drawing").get_attribute("viewBox").split()]

    before = box()
    tab.locator('[data-zoom="in"]').click()
    assert box()[2] == pytest.approx(before[2] / 1.25)
    tab.locator('[data-zoom="fit"]').click()
    frame = tab.locator(".canvas").bounding_box()
    place = frame["x"] + frame["width"] / 4, frame["y"] + frame["height"] - 4
    tab.mouse.move(*place)
    scrolled, fitting = tab.evaluate("scrollY"), box()
    tab.mouse.wheel(0, 120)
    until(tab, f"scrollY > {scrolled}")
    assert box() == fitting, "the page scrolls where nobody has clicked into the graph"
    tab.evaluate(f"scrollTo(0, {scrolled})")
    tab.locator(".canvas").focus()
    for _ in range(4):
        tab.keyboard.press("+")
    zoomed = box()
    assert zoomed[2] < fitting[2]
    tab.keyboard.press("ArrowRight")
    assert "/viz/toy/1-sae/" in tab.url
    assert box()[0] >= zoomed[0]
    tab.keyboard.press("0")
    assert box() == fitting
    tab.keyboard.press("Escape")


def _values_appear(tab) -> None:
    token = tab.locator(".tokens > span[title]").first
    wanted = token.get_attribute("title")
    token.hover()
    assert tab.locator('[role="tooltip"]').inner_text() == wanted
    tab.mouse.move(5, 5)
    tab.locator('.tokens > span[tabindex="0"]').first.focus()
    assert "of the maximum" in tab.locator('[role="tooltip"]').inner_text()
    tab.keyboard.press("Escape")
    assert tab.locator('[role="tooltip"]').is_hidden()


def _bookmarks_are_kept(tab, index: int) -> None:
    button = tab.locator("button.bookmark")
    assert button.get_attribute("aria-pressed") == "false"
    button.click()
    assert button.get_attribute("aria-pressed") == "true"
    (kept,) = json.loads(tab.evaluate("localStorage.getItem('bookmarks')"))
    assert kept == {
        "model": "toy", "basis": "sae", "layer": 1, "unit": index, "title": f"Sae, layer 1, unit {index}",
        "address": f"/viz/toy/1-sae/{index}",
    }  # fmt: skip
    tab.reload()
    assert button.get_attribute("aria-pressed") == "true"
    button.click()
    assert tab.evaluate("bookmarks.list()") == []
