"""Search, pasted text, comparisons, bookmarks: their numbers are the store's, their text is escaped, they work in a
browser and without scripts."""

import json
import random
from pathlib import Path
from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest
from atlases import STRINGS, make_comparison, make_study, tokenizer_json
from hypothesis import given, settings
from hypothesis import strategies as st
from serving import asking, browsing, check_html, serving

from saelens_n2g.errors import InputError
from saelens_n2g.graphs.labels import visible
from saelens_n2g.server.endpoints import MOST_QUERY, MOST_TEXT
from saelens_n2g.server.finding import MOST_KEPT
from saelens_n2g.server.pages import paste, search, strips
from saelens_n2g.server.pages.plain import fault, read
from saelens_n2g.store.collect import collect
from saelens_n2g.store.grammar import And, Not, Or, Term, parse, quoted
from saelens_n2g.store.match import MOST_TOKENS, Matcher
from saelens_n2g.store.matches import Element, Match
from saelens_n2g.store.programs import compile_graphs
from saelens_n2g.store.reader import Store
from saelens_n2g.store.search import tally
from saelens_n2g.store.tokenizer import keep_tokenizer
from saelens_n2g.store.writer import Writer

TEXT = 'The York in the New York<script>alert(1)</script>, a,b of " the\n or the York'
HOSTILE = (
    '"><script>alert(1)</script>',
    "' onmouseover='x",
    "</textarea><img src=x onerror=y>",
    "\u202e\u0000&lt;",
    "{{ 7*7 }}",
)
TAGS = {
    "html", "head", "meta", "title", "link", "script", "body", "a", "header", "svg", "path", "circle", "nav", "button",
    "main", "footer", "span", "form", "input", "textarea", "div", "p", "h1", "h2", "h3", "section", "article", "table",
    "caption", "thead", "tbody", "tr", "th", "td", "details", "summary", "dl", "dt", "dd", "ul", "ol", "li", "label",
    "select", "option", "fieldset", "legend", "code", "mark", "noscript",
}  # fmt: skip
"""Elements of our own."""


@pytest.fixture(scope="module")
def filled(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("finding")
    with Writer(folder / "atlas.db") as writer:
        collect(make_comparison(folder / "demo", units=40), writer)
        collect(make_study(folder / "study"), writer)
        collect(make_comparison(folder / "more", seed=1), writer, model="other/model")
        compile_graphs(writer, "toy")
        compile_graphs(writer, "other/model")
        keep_tokenizer(writer, "toy", str(tokenizer_json(folder)))
    return folder / "atlas.db"


@pytest.fixture(scope="module")
def store(filled):
    with Store.open(filled) as opened:
        yield opened


@pytest.fixture(scope="module")
def client(filled):
    with asking(filled) as found:
        yield found


def page(client, path, status=200, **query):
    answer = client.get(f"{path}?{urlencode(query)}" if query else path)
    assert answer.status_code == status, answer.text
    assert "script-src 'self'; style-src 'self'" in answer.headers["content-security-policy"]
    root = check_html(answer.text)
    assert {one.name for one in root if one.name} <= TAGS
    return root


def number(said: str) -> float | None:
    return None if said == "–" else float(said)


# --- plain words ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "run"),
    [
        ("york", 'any:"york"'),
        ("any:york", "any:york"),
        ("new york", 'any:"new" any:"york"'),
        ("york, not layer=0", 'any:"york", not layer=0'),
        ('"a,b" or of', 'any:"a,b" or any:"of"'),
        ('any: "new york" (the)', 'any: "new york" (any:"the")'),
        ("or", 'any:"or"'),
        (" NOT ", 'any:"NOT"'),
        (",", 'any:","'),
        ("()", 'any:"()"'),
        ("a\\b", 'any:"a\\\\b"'),
        ("don't", 'any:"don\'t"'),
        ("layer=0", "layer=0"),
        ("york layer=x", 'any:"york" layer=x'),
        ("token:york", "token:york"),
    ],
)
def test_plain_words(said, run):
    assert read(said).run == run


@settings(max_examples=200)
@given(st.text(st.sampled_from('ab :=,()"\\\n' + "not"), max_size=30))
def test_whatever_is_typed(said):
    reading = read(said)
    try:
        parse(said)
    except InputError:
        pass
    else:
        assert reading.run == said
    try:
        parse(reading.run)
    except InputError as error:
        cut = fault(said, reading, error)
        assert cut is not None
        assert "".join(cut) == said
        assert cut.at or not cut.after


@pytest.mark.parametrize(
    ("said", "before", "at"),
    [("york, layer=x", "york, layer=", "x"), ("token:york", "", "token:york"), ("(york or", "(york or", "")],
)
def test_the_fault_is_marked_in_what_was_typed(said, before, at):
    reading = read(said)
    with pytest.raises(InputError) as found:
        parse(reading.run)
    cut = fault(said, reading, found.value)
    assert cut is not None
    assert cut[:2] == (before, at)


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_quoted_tokens_are_read_back(text):
    assert parse(f"any:{quoted(text)}") == Term("any", text)


# --- counts ---------------------------------------------------------------------------------------------------

QUERIES = st.recursive(
    st.builds(Term, st.sampled_from(("activating", "important", "any")), st.sampled_from(["york", "the", "new", '"'])),
    lambda inner: st.one_of(st.builds(Not, inner), st.tuples(inner, inner).map(And), st.tuples(inner, inner).map(Or)),
    max_leaves=4,
)


def written(node) -> str:
    if isinstance(node, Term):
        return f"{node.role}:{quoted(node.text)}"
    if isinstance(node, Not):
        return f"not ({written(node.part)})"
    return "(" + (" and " if isinstance(node, And) else " or ").join(map(written, node.parts)) + ")"


@settings(max_examples=25)
@given(QUERIES)
def test_a_tally_counts_what_a_search_finds(store, query):
    said = written(query)
    for model in (None, "toy"):
        counts = tally(store, said, model=model)
        assert all(counts.values())
        for place in store.places(model):
            asked = f"({said}) and basis={quoted(place.basis)} and layer={place.layer}"
            assert counts.get(place, 0) == store.search(asked, model=place.model, limit=0).total


@settings(max_examples=25)
@given(st.lists(st.integers(0, 15), min_size=1, max_size=12), st.sampled_from([0.3, 0.5, 0.9]))
def test_what_is_covered_is_what_fires(store, ids, at_least):
    units = [unit.id for unit in store.listing("toy", limit=1000).units][::2]
    for chosen in (None, units):
        found = Matcher(store).match("toy", ids=ids, at_least=at_least, units=chosen, limit=1000)
        assert sum(one.graphs for one in found.covered) == found.graphs
        for one in found.covered:
            place = (one.layer.basis, one.layer.layer)
            own = [f for f in found.firings if (f.unit.basis, f.unit.layer) == place]
            assert list(one.units) == sorted(f.unit.id for f in own)
            fires = [m.position for f in own for m in f.matches if m.activation >= at_least]
            assert list(one.at) == [fires.count(i) for i in range(len(ids))]


# --- search ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "more"),
    [
        ("york", {}),
        ("any:the or activating:new", {"sort": "place"}),
        ('any:"<script>"', {"basis": "sae"}),
        ('any:"\\""', {"layer": 1, "model": "toy"}),
        ("not any:zzz", {"page": 2}),
    ],
)
def test_results_are_those_of_the_store(client, store, query, more):
    run = read(query).run
    if "basis" in more or "layer" in more:
        run = f"({run})" + "".join(f" and {k}={more[k]}" for k in ("basis", "layer") if k in more)
    at = more.get("page", 1)
    hits = store.search(
        run,
        model=more.get("model"),
        sort=more.get("sort", "strength"),
        limit=search.ROWS,
        offset=(at - 1) * search.ROWS,
    )
    root = page(client, "/search", query=query, **more)
    rows = root.one("table", "list").one("tbody").all("tr")
    assert len(rows) == len(hits.hits) > 0
    for row, hit in zip(rows, hits.hits, strict=True):
        model, index, basis, layer, strength, f1, *_ = (cell.words for cell in row.all("td"))
        assert (model, int(index), basis, int(layer)) == (
            hit.unit.model,
            hit.unit.index,
            hit.unit.basis,
            hit.unit.layer,
        )
        assert float(strength) == pytest.approx(hit.strength, abs=0.006)
        known = hit.unit.figures["f1"]
        assert number(f1) == (None if known is None else pytest.approx(known, abs=0.006))
        assert client.get(row.one("a").get("href")).status_code in (200, 404)  # the unit's page is another room's
    assert root.one("p", "lead").words.startswith(f"{hits.total} unit")


def test_the_query_that_was_run_is_said(client):
    assert page(client, "/search", query="york").one("p", "lead").one("code").text == 'any:"york"'
    assert not page(client, "/search", query="any:york").one("p", "lead").all("code")
    said = page(client, "/search", query="any:york", basis="sae", layer=1).one("p", "lead").one("code").text
    assert said == '(any:york) basis="sae" layer=1'


def test_facets_lead_to_as_many_units_as_they_say(client):
    root = page(client, "/search", query="the", basis="neurons", sort="place")
    seen = 0
    for nav in root.one("div", "facets").all("nav"):
        for link in nav.all("a"):
            there = page(client, link.get("href"))
            assert dict(parse_qsl(urlsplit(link.get("href")).query))["sort"] == "place"
            if counts := link.all("span", "n"):
                assert there.one("p", "lead").words.startswith(f"{counts[0].words} unit")
                seen += 1
    assert seen >= 6


def test_pages_together_have_every_unit_once(client, store):
    address, found = "/search?query=not+any:zzz", []
    while address:
        root = page(client, address)
        found += [row.one("a").get("href") for row in root.one("tbody").all("tr")]
        following = root.all("a", rel="next")
        address = following[0].get("href") if following else None
    assert len(found) == len(set(found)) == store.search("not any:zzz", limit=0).total > search.ROWS


def test_a_fault_is_a_page_with_a_mark(client):
    root = page(client, "/search", 400, query="york, layer=x <b>")
    assert root.one("p", "marked").text == "york, layer=x <b>"
    assert root.one("mark").text == "x"
    (field,) = [one for one in root.all("input") if one.get("name") == "query"]
    assert field.get("value") == "york, layer=x <b>"
    live = client.get("/search?query=york,+layer%3Dx", headers={"x-live": "1"})
    assert live.status_code == 200, "half a query, while it is typed"


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("query=york&page=9", 400),
        ("query=york&page=x", 400),
        ("query=york&sort=x", 400),
        ("query=york&nothing=1", 400),
        ("query=york&query=the", 400),
        ("query=york&model=no", 404),
        ("query=york&basis=no", 404),
        ("query=york&layer=77", 404),
        ("query=%FF", 400),
        ("query=" + "x" * 2001, 400),
        ("query=" + "not " * 400 + "york", 400),
    ],
)
def test_what_cannot_be_searched_keeps_the_form(client, query, status):
    root = page(client, f"/search?{query}", status)
    assert root.all(role="alert")
    assert root.all("form", "ask")
    assert not root.all("table")


def test_every_example_is_understood(client):
    root = page(client, "/search")
    links = root.one("dl", "examples").all("a")
    assert len(links) == len(search.EXAMPLES)
    for link in links:
        page(client, link.get("href"))


# --- pasted text ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sort", paste.SORTS)
def test_units_are_those_of_the_matcher(client, store, sort):
    found = Matcher(store).match("toy", TEXT, sort=sort, limit=1000)
    assert found.total > paste.ROWS
    address, rows = "/paste?" + urlencode({"text": TEXT, "model": "toy", "sort": sort}), []
    while address:
        root = page(client, address)
        rows += root.one("ol", "hits").all("li", "hit")
        following = root.all("a", rel="next")
        address = following[0].get("href") if following else None
    assert len(rows) == found.total
    tokens = found.text.tokens
    for row, firing in zip(rows, found.firings, strict=True):
        unit = firing.unit
        assert row.all("a")[0].words == f"{unit.basis} {unit.layer}/{unit.index}"
        assert float(row.one("p", "of").one("span", "value").words) == pytest.approx(firing.activation, abs=0.006)
        assert row.one("span", "more").words.startswith(f"{firing.fires} position")
        text = row.one("p", "strip")
        assert text.text == "".join(map(strips.reading, tokens))
        shaded = {int(one.get("data-at")): one for one in text.all("span") if one.get("data-path") is not None}
        assert shaded.keys() == {match.position for match in firing.matches}
        for match in firing.matches:
            one = shaded[match.position]
            assert ("fires" in one.classes) == (match.activation >= 0.5)
            assert f"p{round(20 * match.activation)}" in one.classes or match.activation < 0.025
            path = [i for element in match.path or () for i in range(element.start, element.stop)]
            assert one.get("data-path") == ",".join(map(str, path))
            assert one.get("title").startswith(f"{match.activation:.2f}")
            there = {span.get("data-at") for span in text.all("span")}
            assert {str(i) for i in path} <= there, "every token of a path can be lit"
        check_reasons(row.one("details"), firing)


def check_reasons(details, firing):
    """Every path by which the unit fires, once, with how often it does; strongest first."""
    fires = [match for match in firing.matches if match.activation >= 0.5]
    paths = {tuple(visible(element.text) for element in match.path) for match in fires}
    said = [one for one in details.all("li") if one.all("code")]
    assert len(said) == min(len(paths), strips.EXPLAINED)
    activations = []
    for one in said:
        path = tuple(code.text for code in one.all("code"))
        own = [m for m in fires if tuple(visible(element.text) for element in m.path) == path]
        (times,) = [int(span.words.split()[0]) for span in one.all("span", "quiet")] or [1]
        assert times == len(own) > 0
        activations.append(float(one.one("span", "value").words))
        assert activations[-1] == pytest.approx(max(m.activation for m in own), abs=0.006)
        assert one.all("mark")
    assert activations == sorted(activations, reverse=True)


def test_tokens_and_bars_count_units(client, store):
    found = Matcher(store).match("toy", TEXT, limit=1000)
    root = page(client, "/paste", text=TEXT, model="toy")
    pieces = root.one("p", "pieces").all("span")
    assert len(pieces) == len(found.text.tokens)
    fires = [m.position for f in found.firings for m in f.matches if m.activation >= 0.5]
    for i, piece in enumerate(pieces):
        assert piece.get("title") == f"token {i}, id {found.text.ids[i]}: " + search_count(fires.count(i))
    for row in root.one("table", "score").one("tbody").all("tr"):
        basis, own = row.one("th").words, [f for f in found.firings if f.unit.basis == row.one("th").words]
        cells = row.all("td")
        assert int(cells[0].words) == len(own)
        at = [m.position for f in own for m in f.matches if m.activation >= 0.5]
        assert len(cells) == 1 + len(pieces)
        for i, cell in enumerate(cells[1:]):
            assert bool(cell.get("class")) == bool(at.count(i))
            assert (cell.get("title") or f"{basis}: 0 ").startswith(f"{basis}: {at.count(i)} ")


def search_count(n: int) -> str:
    return f"{n} unit" if n == 1 else f"{n} units"


def test_bases_and_layers_are_chosen_by_boxes(client, store):
    found = Matcher(store).match("toy", TEXT, bases=["neurons", "tied-R2"], layers=[0, 2], limit=1000)
    chosen = [("bases", "neurons"), ("bases", "tied-R2"), ("layers", "0"), ("layers", "2"), ("page", "")]
    root = page(client, "/paste?" + urlencode([("text", TEXT), ("model", "toy"), *chosen]))
    assert root.one(id="units").words.startswith(f"{search_count(found.total)} of {found.graphs} graphs")
    ticked = [one.get("value") for one in root.all("input", type="checkbox") if "checked" in one.attributes]
    assert ticked == ["neurons", "tied-R2", "0", "2"]


def test_line_ends_of_forms_are_one_character(client):
    said = page(client, "/paste", text=" the\r\n York", model="toy")
    assert len(said.one("p", "pieces").all("span")) == 3
    assert said.one("textarea").text == "\n the\n York", "the browser takes the first away"


@pytest.mark.parametrize(
    ("query", "status", "kept"),
    [
        ({"text": "x" * (MOST_TEXT + 1)}, 400, True),
        ({"text": " the" * (MOST_TOKENS + 1)}, 400, True),
        ({"text": "\u4f60" * (MOST_QUERY // 9 + 1)}, 414, True),
        ({"text": "x" * MOST_KEPT}, 414, False),
        ({"text": " York", "bases": "no"}, 404, True),
        ({"text": " York", "layers": "x"}, 400, True),
        ({"text": " York", "layers": "9"}, 404, True),
        ({"text": " York", "model": "other/model"}, 400, True),
        ({"text": " York", "model": "no"}, 404, True),
        ({"text": " York", "page": "5"}, 400, True),
    ],
)
def test_what_cannot_be_run_is_said_and_the_text_is_kept(client, query, status, kept):
    root = page(client, "/paste", status, **{"model": "toy", **query})
    if kept:
        assert root.all(role="alert")
        assert root.one("textarea").text == "\n" + query["text"]
    assert not root.all("ol", "hits")


def test_a_store_without_the_tokenizer_says_so_before_and_after(client):
    for query in ({}, {"text": " York"}):
        root = page(client, "/paste", 400 if query else 200, model="other/model", **query)
        assert any("tokenizer" in one.words for one in root.all("p", "notice"))
    assert not page(client, "/paste", model="toy").all("p", "notice")


def test_layers_that_are_not_compiled_are_named(tmp_path):
    with Writer(tmp_path / "atlas.db") as writer:
        collect(make_comparison(tmp_path / "demo"), writer)
        keep_tokenizer(writer, "toy", str(tokenizer_json(tmp_path)))
    with asking(tmp_path / "atlas.db") as client:
        for path in ("/paste", "/compare"):
            (said,) = page(client, path, text=TEXT).all("p", "notice")
            assert "1, 1-sae" in said.words


def test_long_texts_show_what_is_around(client, store):
    text = " of" * 200 + " York" + " in" * 300
    root = page(client, "/paste", text=text, model="toy")
    assert not root.all("table", "score")
    found = Matcher(store).match("toy", text, limit=1000)
    for row, firing in zip(root.all("li", "hit"), found.firings, strict=False):
        strip = row.one("p", "strip")
        assert strip.all("span", "gap")
        more = row.all("p", "small")
        hidden = int(more[0].words.split("with ")[1].split()[0]) if more else 0
        assert len(strip.all("span", "fires")) + hidden == firing.fires
        if more:
            whole = page(client, more[0].one("a").get("href"))
            assert len(whole.one("p", "strip").all("span", "fires")) == firing.fires


# --- comparisons ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layer", ["0", "1", "all", None])
def test_a_text_through_bases(client, store, layer):
    layers = None if layer == "all" else [int(layer or 0)]  # usually that with most bases, the first of several
    more = {} if layer is None else {"layer": layer}
    root = page(client, "/compare", text=TEXT, model="toy", **more)
    rows = root.one("table", "sums").one("tbody").all("tr")
    there = {place.basis for place in store.places("toy") if layers is None or place.layer in layers}
    assert {row.one("th").words for row in rows} == there
    for row in rows:
        basis = row.one("th").words
        found = Matcher(store).match("toy", TEXT, bases=[basis], layers=layers, limit=1000)
        graphs, total, _, f1, covered = (cell.words for cell in row.all("td"))
        assert (int(graphs), int(total)) == (found.graphs, found.total)
        scored = [f.unit.figures["f1"] for f in found.firings if f.unit.figures["f1"] is not None]
        assert number(f1) == (pytest.approx(sum(scored) / len(scored), abs=0.006) if scored else None)
        at = {m.position for f in found.firings for m in f.matches if m.activation >= 0.5}
        assert covered == f"{len(at)} of {len(found.text.tokens)}"
        if found.total:
            assert (
                f"{search_count(found.total)} of"
                in page(client, row.all("td")[1].one("a").get("href")).one(id="units").words
            )
    cards = [card for card in root.all("article") if "sae" in card.one("h3").words]
    for card in cards:
        own = Matcher(store).match("toy", TEXT, bases=["sae"], layers=layers, limit=5)
        assert len(card.all("p", "strip")) == len(own.firings)


@pytest.mark.parametrize(("token", "layer"), [(" York", None), ("<script>", "1"), ('"', "0"), ("nothing", None)])
def test_a_token_through_bases(client, store, token, layer):
    root = page(client, "/compare", token=token, model="toy", **({} if layer is None else {"layer": layer}))
    inside = "" if layer is None else f" and layer={layer}"
    for row in root.one("table", "sums").one("tbody").all("tr"):
        said = f"basis={quoted(row.one('th').words)}{inside}"
        units, *counts, _, f1 = (cell.words for cell in row.all("td"))
        assert int(units) == store.search(said, model="toy", limit=0).total
        for role, n in zip(("activating", "important", "any"), counts, strict=True):
            assert int(n) == store.search(f"{role}:{quoted(token)} and {said}", model="toy", limit=0).total
        hits = store.search(f"any:{quoted(token)} and {said}", model="toy", limit=1000).hits
        scored = [hit.unit.figures["f1"] for hit in hits if hit.unit.figures["f1"] is not None]
        assert number(f1) == (pytest.approx(sum(scored) / len(scored), abs=0.006) if scored else None)


def test_units_on_a_text(client, store):
    units = [
        store.unit("toy", *place) for place in (("sae", 1, 3), ("neurons", 1, 0), ("tied-R2", 2, 8), ("tied-R2", 2, 21))
    ]
    said = "1-sae/3, 1/0,2-tied-R2/8,2-tied-R2/21,1/0"
    found = Matcher(store).predict("toy", [unit.id for unit in units], TEXT)
    root = page(client, "/compare", units=said, text=TEXT, model="toy")
    rows = root.one("table", "sums").one("tbody").all("tr")
    for row, unit, values in zip(rows, units, found.activations, strict=True):
        assert row.one("th").words == f"{unit.basis} {unit.layer}/{unit.index}"
        cells = [cell.words for cell in row.all("td")]
        for cell, name in zip(cells, ("f1", "precision", "recall", "random_f1"), strict=False):
            known = unit.figures[name]
            assert number(cell) == (None if known is None else pytest.approx(known, abs=0.006))
        assert number(cells[-1]) == (None if values is None else pytest.approx(max(values), abs=0.006))
    bars = root.one("table", "score").one("tbody").all("tr")
    for bar, values in zip(bars, [v for v in found.activations if v is not None], strict=True):
        assert [bool(cell.get("class")) for cell in bar.all("td")[1:]] == [round(20 * v) > 0 for v in values]
        assert int(bar.all("td")[0].words) == sum(v >= 0.5 for v in values)
    without = page(client, "/compare", units=said, model="toy")
    assert not without.all("table", "score")
    assert len(without.all("article")) == 4


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ({"units": "x"}, 400),
        ({"units": "1/63"}, 404),
        ({"units": "9/1"}, 404),
        ({"units": ","}, 404),
        (
            {
                "units": ",".join(f"1/{i}" for i in range(40)) + "," + ",".join(f"1-sae/{i}" for i in range(40)),
                "text": "x",
            },
            400,
        ),
        ({"text": "x", "layer": "7"}, 404),
        ({"text": "x", "bases": "no"}, 404),
        ({"token": "x" * 201}, 400),
        ({"by": "no", "token": "x"}, 400),
        ({"text": "x", "model": "other/model"}, 400),
        ({"text": "x", "model": "no"}, 404),
    ],
)
def test_what_cannot_be_compared_keeps_the_form(client, query, status):
    root = page(client, "/compare", status, **{"model": "toy", **query})
    assert root.all(role="alert")
    assert root.all("form", "ask")
    assert not root.all("table")


def test_ways_lead_to_each_other_and_keep_what_is_there(client):
    root = page(client, "/compare", text=TEXT, bases="sae", model="toy")
    for link in root.one("nav", "ways").all("a"):
        kept = dict(parse_qsl(urlsplit(link.get("href")).query))
        assert (kept["text"], kept["bases"], kept["model"]) == (TEXT, "sae", "toy")
        page(client, link.get("href"))


# --- what is hostile, and what is not there --------------------------------------------------------------------


@pytest.mark.parametrize("said", [*HOSTILE, *STRINGS.values()])
def test_hostile_words_stay_words(client, said):
    for path, name in (
        ("/search", "query"),
        ("/paste", "text"),
        ("/compare", "text"),
        ("/compare", "token"),
        ("/compare", "units"),
    ):
        for more in ({}, {"model": said}, {"bases": said}):
            if path == "/search" and "bases" in more:
                more = {"basis": said}
            answer = client.get(f"{path}?{urlencode({'model': 'toy', name: said, **more})}")
            assert answer.status_code in (200, 400, 404)
            root = check_html(answer.text)
            assert {one.name for one in root if one.name} <= TAGS
            assert all((one.get("src") or "").startswith("/static/") for one in root.all("script"))
            if name == "text":
                assert root.one("textarea").text.replace("\n", "") == "".join(
                    c for c in said.replace("\r\n", "\n") if c != "\n"
                )


@settings(max_examples=30, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40))
def test_any_text_is_answered(client, text):
    for path, name in (("/search", "query"), ("/paste", "text"), ("/compare", "token")):
        answer = client.get(f"{path}?{urlencode({'model': 'toy', name: text})}")
        assert answer.status_code in (200, 400)
        check_html(answer.text)


def test_an_empty_store(tmp_path):
    with Writer(tmp_path / "atlas.db"):
        pass
    with asking(tmp_path / "atlas.db") as client:
        for path in (
            "/search",
            "/search?query=york",
            "/paste",
            "/paste?text=x",
            "/compare?text=x",
            "/compare?token=x",
            "/bookmarks",
        ):
            page(client, path)


def test_strips_show_every_token_once():
    draw = random.Random(0)
    for n in (1, strips.WHOLE, strips.WHOLE + 1, 400):
        tokens = [f" {i}" for i in range(n)]
        cells = strips.cells_of([Match(draw.randrange(n), 0.75, (Element(" x", 0, 1),)) for _ in range(3)])
        shown = strips.strip(tokens, cells).striptags().replace("…", " ").split()
        assert shown == sorted(set(shown), key=int)
        assert {str(at) for at in cells} <= set(shown)
        assert (len(shown) == n) == (n <= strips.WHOLE)


def test_the_frame_of_bookmarks(client):
    root = page(client, "/bookmarks")
    assert "kept in this browser" in root.one("p", "lead").words
    assert root.one("noscript").words
    assert "hidden" in root.one("div", "marked-units").attributes


# --- in a browser ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def address(filled):
    with serving(filled) as found:
        yield found


@pytest.fixture
def browser():
    with browsing() as found:
        yield found


def opened(browser, **more):
    tab, said = browser.new_context(**more).new_page(), []
    tab.set_default_timeout(10_000)
    tab.on("console", lambda message: said.append(message.text) if message.type in ("error", "warning") else None)
    tab.on("pageerror", lambda error: said.append(str(error)))
    return tab, said


def test_a_walk_in_a_browser(address, browser, store):
    tab, said = opened(browser)
    tab.goto(address)
    tab.keyboard.press("/")
    tab.keyboard.type("york")
    tab.keyboard.press("Enter")
    tab.wait_for_url("**/search?query=york")
    total = store.search('any:"york"', limit=0).total
    assert tab.locator(".lead").inner_text().startswith(f"{total} unit")

    tab.locator('input[name="query"]').fill("activating:")  # half a query is no error
    tab.locator("#fault").wait_for()
    tab.locator('input[name="query"]').fill("activating:new")
    fewer = store.search("activating:new", limit=0).total
    tab.locator(".lead", has_text=f"{fewer} unit").wait_for()
    assert tab.url.endswith("query=activating%3Anew")
    assert tab.locator("#results tbody tr").count() == min(fewer, search.ROWS)
    tab.keyboard.press("Escape")

    tab.keyboard.press("g")
    tab.keyboard.press("p")
    tab.wait_for_url("**/paste")
    tab.locator('select[name="model"]').select_option("toy")
    tab.locator("textarea").fill(" the<script>\n New York")
    tab.get_by_role("button", name="Run").click()
    tab.locator("ol.hits").wait_for()
    assert tab.locator("textarea").input_value() == " the<script>\n New York"
    found = Matcher(store).match("toy", " the<script>\n New York", limit=1000)
    assert tab.locator("#units").inner_text().startswith(f"{found.total} unit")
    token = tab.locator('.hit .strip [data-path*=","]').first
    token.hover()
    lit = tab.locator(".strip .on").evaluate_all("all => all.map(one => one.dataset.at)")
    assert ",".join(lit) == token.get_attribute("data-path")
    assert (
        tab.locator(".hit .strip .fires").first.evaluate("one => getComputedStyle(one).backgroundColor")
        != "rgba(0, 0, 0, 0)"
    )

    tab.get_by_role("link", name="Compare bases on this text").click()
    tab.locator("table.sums").wait_for()
    assert tab.locator("table.score").count() == 1
    tab.keyboard.press("?")
    assert tab.locator("dialog[open] div").count() > 5
    tab.keyboard.press("Escape")
    assert tab.locator("dialog[open]").count() == 0
    assert said == []


def test_bookmarks_in_a_browser(address, browser, tmp_path):
    places = (("neurons", "1", 2), ("sae", "1-sae", 3))
    marks = [
        {"model": "toy", "basis": basis, "layer": 1, "unit": unit, "title": f"<b>{basis}</b> {unit}"}
        | {"address": f"/viz/toy/{at}/{unit}"}
        for basis, at, unit in places
    ]
    evil = [
        {**marks[0], "unit": 9, "address": "javascript:alert(1)"},
        {**marks[0], "unit": 9, "address": "//elsewhere/x"},
        7,
    ]
    tab, said = opened(browser)
    tab.goto(f"{address}/bookmarks")
    assert "None yet" in tab.locator(".marked-list").inner_text()
    file = tmp_path / "marks.json"
    file.write_text(json.dumps([*marks, marks[0], *evil]))
    tab.locator('input[type="file"]').set_input_files(file)
    tab.get_by_text("2 added, 3 that").wait_for()
    assert tab.locator(".marked-list li a").all_inner_texts() == [mark["title"] for mark in marks]
    with tab.expect_download() as download:
        tab.get_by_role("button", name="Save as a file").click()
    assert json.loads(Path(download.value.path()).read_text()) == marks
    tab.reload()
    tab.get_by_role("link", name="Compare these").click()
    tab.locator("table.sums").wait_for()
    assert tab.locator("table.sums tbody th").all_inner_texts() == ["neurons 1/2", "sae 1/3"]
    tab.goto(f"{address}/bookmarks")
    tab.get_by_role("button", name="Remove <b>sae</b> 3").click()
    assert tab.locator(".marked-list li").count() == 1
    tab.get_by_role("button", name="Remove all").click()
    assert tab.evaluate("localStorage.getItem('bookmarks')") == "[]"
    tab.get_by_role("button", name="Take them back").click()
    assert tab.locator(".marked-list li").count() == 1
    assert said == []


def test_pages_without_scripts_and_on_phones(address, browser):
    tab, _ = opened(browser, java_script_enabled=False, viewport={"width": 390, "height": 800})
    for path in (
        "/search?query=york",
        "/paste?" + urlencode({"text": TEXT, "model": "toy"}),
        "/compare?token=york&model=toy",
    ):
        tab.goto(address + path)
        assert tab.locator("table").first.is_visible()
    wide, said = opened(browser, viewport={"width": 390, "height": 800})
    for path in (
        "/search?query=york",
        "/paste?" + urlencode({"text": TEXT, "model": "toy"}),
        "/compare?token=york&model=toy",
        "/bookmarks",
    ):
        wide.goto(address + path)
        assert wide.evaluate("document.documentElement.scrollWidth") == 390
    assert said == []
