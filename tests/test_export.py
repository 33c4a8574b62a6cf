"""Exports: a folder whose every link leads to a file in it, with what the server would send; units in notebooks."""

import base64
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest
from atlases import make_comparison, make_study
from serving import asking, browsing

from saelens_n2g.errors import InputError
from saelens_n2g.server.address import place_name
from saelens_n2g.server.catalogue import BODIES
from saelens_n2g.server.export import export
from saelens_n2g.server.notebook import show
from saelens_n2g.server.pages.folder import FolderLinks, file_name
from saelens_n2g.server.pages.links import Links
from saelens_n2g.store.collect import collect, connect
from saelens_n2g.store.reader import Store
from saelens_n2g.store.subset import subset
from saelens_n2g.store.writer import Writer

NAMES = ["toy", "other/model", '..<b>"%2F']


@pytest.fixture(scope="module")
def filled(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("export")
    with Writer(folder / "atlas.db") as writer:
        collect(make_comparison(folder / "demo", units=60), writer)
        for seed, name in enumerate(NAMES[1:]):
            collect(make_study(folder / f"study{seed}", seed=seed), writer, model=name)
        for name in NAMES:
            connect(writer, name)
    return folder / "atlas.db"


@pytest.fixture(scope="module")
def site(filled, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("site") / "pages"
    done = export(filled, folder)
    assert done.units == 120 + 2 * 12
    return folder


class References(HTMLParser):
    """What a page refers to."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag, attrs):  # noqa: ARG002  # the parser's signature
        self.found += [value for name, value in attrs if name in ("href", "src", "action", "data-address") and value]


def no_link_leads_astray(site: Path) -> int:
    """Number of pages whose links were looked at."""
    pages = sorted(site.rglob("*.html"))
    for page in pages:
        for reference in References(page.read_text()).found:
            path, _, _ = reference.partition("#")
            if path:
                assert not re.match("[a-z]+:|/", path), (page, reference)
                assert (page.parent / unquote(path)).resolve().is_file(), (page, reference)
                assert (page.parent / unquote(path)).resolve().is_relative_to(site.resolve())
    return len(pages)


def test_every_link_leads_to_a_file_in_the_folder(site):
    assert no_link_leads_astray(site) > 150


def test_every_page_is_led_to(site):
    seen, left = set(), [site / "index.html"]
    while left:
        page = left.pop().resolve()
        if page in seen or page.suffix != ".html":
            continue
        seen.add(page)
        left += [
            page.parent / unquote(one.partition("#")[0]) for one in References(page.read_text()).found if one[0] != "#"
        ]
    assert seen == {path.resolve() for path in site.rglob("*.html")}


def test_the_json_is_that_of_the_api(site, filled):
    with asking(filled) as client, Store.open(filled) as store:
        for unit in store.listing("toy", limit=20).units:
            place = place_name(unit.basis, unit.layer)
            there = {path.stem for path in (site / "toy" / place / str(unit.index)).iterdir()}
            assert there == {name for name, body in BODIES.items() if body in store.services(unit.id)}
            for name in there:
                sent = client.get(f"/api/toy/{name}/{place}/{unit.index}").json()
                assert json.loads((site / "toy" / place / str(unit.index) / f"{name}.json").read_text()) == sent


def test_a_part_of_it_is_whole(filled, tmp_path):
    with Store.open(filled) as store:
        units = [unit.index for unit in store.listing("toy", basis="sae", layer=1).units]
    done = export(filled, tmp_path / "two", model="toy", units=[f"1-sae/{units[0]}", f"1/{units[1]}"])
    assert done.units == 2
    pages = {path.relative_to(tmp_path / "two").as_posix() for path in (tmp_path / "two").rglob("*.html")}
    own = {f"toy/1-sae/{units[0]}.html", f"toy/1/{units[1]}.html"}
    assert pages == {"index.html", "toy/index.html", "toy/1-sae/index.html", "toy/1/index.html", *own}
    assert no_link_leads_astray(tmp_path / "two") == 6
    layer = export(filled, tmp_path / "layer", model="toy", layers=["1-sae"])
    assert layer.units == 60


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"model": "nobody"}, "one of"),
        ({"model": "toy", "layers": ["7"]}, "no such layer"),
        ({"model": "toy", "layers": ["sae"]}, "a number"),
        ({"model": "toy", "units": ["1-sae/63"]}, "in the store"),
        ({"model": "toy", "units": ["1-sae/64"]}, "at most 63"),
        ({"model": "toy", "units": ["1-sae"]}, "an index"),
        ({"layers": ["1"]}, "option model"),
    ],
)
def test_what_is_not_there_is_refused(filled, tmp_path, options, said):
    with pytest.raises(InputError, match=said):
        export(filled, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.iterdir())


def test_nothing_but_an_export_is_replaced(filled, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("all of it")
    with pytest.raises(InputError, match="something else"):
        export(filled, tmp_path / "mine", model="toy", layers=["1-sae"])
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "all of it"
    for _ in range(2):
        export(filled, tmp_path / "site", model="toy", layers=["1-sae"])


def test_two_exports_are_the_same(filled, tmp_path):
    for name in ("one", "two"):
        export(filled, tmp_path / name, model="toy", layers=["1-sae"])
    first, second = (
        {
            path.relative_to(tmp_path / name): path.read_bytes()
            for path in (tmp_path / name).rglob("*")
            if path.is_file()
        }
        for name in ("one", "two")
    )
    assert first == second


def test_a_subset_has_what_is_in_it_and_nothing_else(filled, tmp_path):
    with Store.open(filled) as store:
        layer = next(one for one in store.layers("toy") if one.basis == "sae")
        wanted = store.listing("toy", basis="sae").units[:7]
        subset(filled, tmp_path / "part.db", layers=[layer.id], units=[unit.id for unit in wanted])
        with Store.open(tmp_path / "part.db") as part:
            assert part.listing("toy").units == wanted
            assert [one.name for one in part.models()] == ["toy"]
            assert [basis.name for basis in part.bases("toy")] == ["sae"]
            assert {source.id for source in part.sources()} == {unit.source for unit in wanted}
            for unit in wanted:
                assert part.bodies(unit.id) == store.bodies(unit.id)
                kept = [one for one in store.similar(unit.id) if one.unit in wanted]
                assert part.similar(unit.id) == kept


@pytest.mark.parametrize("name", ["a", "A-b_c.d~e", "..", ".hidden", "a/b", "%2F", "=2F", "é<>:|?*\\", " ", "a\nb"])
def test_file_names_are_safe_and_differ(name):
    safe = file_name(name)
    assert re.fullmatch(r"[A-Za-z0-9_=~-][A-Za-z0-9_.=~-]*", safe)
    assert unquote(safe.replace("=", "%")) == name


def test_links_keep_the_protocol():
    assert isinstance(FolderLinks("index.html"), Links)


# --- notebooks ----------------------------------------------------------------------------------------------------


def test_a_notebook_shows_a_document_that_is_alone(filled):
    with Store.open(filled) as store:
        unit = store.listing("toy", basis="sae").units[0]
    shown = show(filled, f"1-sae/{unit.index}", model="toy")
    assert repr(shown) == f"<1-sae/{unit.index} of toy>"
    assert shown._repr_html_().count("<iframe") == 1
    assert 'sandbox="allow-scripts"' in shown._repr_html_()
    assert "<script" not in shown._repr_html_(), "it is inside of the attribute, escaped"
    for reference in References(shown.html).found:
        assert reference.startswith(("data:", "#")), reference
    style = next(one for one in References(shown.html).found if one.startswith("data:text/css"))
    assert b"--ground" in base64.b64decode(style.partition("base64,")[2])


def test_a_notebook_says_what_is_wrong(filled):
    with pytest.raises(InputError, match="one of"):
        show(filled, "1-sae/0")
    with pytest.raises(InputError, match="a layer and an index"):
        show(filled, "sae", model="toy")
    with pytest.raises(InputError, match="at most 63"):
        show(filled, "1-sae/99", model="toy")


# --- in a browser -------------------------------------------------------------------------------------------------


def test_pages_open_from_disk(site, filled, tmp_path):
    with Store.open(filled) as store:
        unit = store.listing("toy", basis="sae", sort="nodes").units[0]
    notebook = tmp_path / "notebook.html"
    notebook.write_text(
        f"<!doctype html><title>n</title>{show(filled, f'1-sae/{unit.index}', model='toy')._repr_html_()}"
    )
    said: list[str] = []
    with browsing() as browser:
        page = browser.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto((site / "index.html").as_uri())
        page.click("text=toy")
        page.click('a[href$="1-sae/index.html"] >> nth=0')
        page.click("td a >> nth=0")
        page.goto((site / "toy" / "1-sae" / f"{unit.index}.html").as_uri())
        page.hover("svg [data-node] >> nth=0")
        page.wait_for_selector("svg.following .lit", state="attached")
        page.click("button.bookmark")
        assert page.evaluate("JSON.parse(localStorage.getItem('bookmarks')).length") == 1
        page.goto(notebook.as_uri())
        frame = page.frames[1]
        frame.wait_for_selector("svg [data-node]")
        assert frame.evaluate("getComputedStyle(document.documentElement).getPropertyValue('--ground')")
    assert said == []
