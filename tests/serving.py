"""Stores behind a server: asked in this process, over a real socket, or by a browser.

    with asking(path) as client: client.get("/viz/toy/1/0")
    with serving(path) as address: ...                          # http://127.0.0.1:PORT
    with browsing() as browser: browser.new_page().goto(address)

`Tree` reads what a page says, so that tests need not look for pieces of text in it.
"""

import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

VOID = {"meta", "link", "br", "input", "img", "hr", "wbr"}
SECONDS = 20.0


@contextmanager
def asking(path: Path) -> Iterator[Any]:
    """A client that asks the application in this process; it does not follow redirections."""
    from starlette.testclient import TestClient

    from saelens_n2g.server.app import Atlas

    with TestClient(Atlas(path), follow_redirects=False) as client:
        yield client


@contextmanager
def serving(path: Path) -> Iterator[str]:
    """The address of a server on loopback, in a thread."""
    import uvicorn

    from saelens_n2g.server.app import Atlas

    config = uvicorn.Config(
        Atlas(path),
        host="127.0.0.1",
        port=0,
        log_level="error",
        access_log=False,
        ws="none",
        timeout_graceful_shutdown=1,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + SECONDS
    while not server.started:
        assert thread.is_alive(), "the server did not start"
        assert time.monotonic() < deadline, "the server does not start"
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(SECONDS)
        assert not thread.is_alive(), "the server does not stop"


@contextmanager
def browsing() -> Iterator[Any]:
    """Chromium; the test is skipped where there is none."""
    found = shutil.which("chromium") or shutil.which("google-chrome")
    if found is None:
        pytest.skip("neither chromium nor google-chrome is installed")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=found, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


class Element:
    """An element of a page."""

    def __init__(self, name: str, attributes: dict[str, str], parent: "Element | None") -> None:
        self.name, self.attributes, self.parent = name, attributes, parent
        self.parts: list[Element | str] = []

    def __iter__(self) -> Iterator["Element"]:
        """This one and all below it, in the order of the text."""
        yield self
        for part in self.parts:
            if isinstance(part, Element):
                yield from part

    def get(self, name: str) -> str | None:
        return self.attributes.get(name)

    @property
    def classes(self) -> set[str]:
        return set((self.get("class") or "").split())

    @property
    def text(self) -> str:
        return "".join(part if isinstance(part, str) else part.text for part in self.parts)

    @property
    def words(self) -> str:
        """The text with single spaces."""
        return " ".join(self.text.split())

    def all(self, name: str | None = None, kind: str | None = None, **attributes: str) -> list["Element"]:
        """Elements below with this name, class and attributes."""
        wanted = {key.replace("_", "-"): value for key, value in attributes.items()}
        return [
            one
            for one in self
            if one is not self
            and name in (None, one.name)
            and (kind is None or kind in one.classes)
            and all(one.get(key) == value for key, value in wanted.items())
        ]

    def one(self, name: str | None = None, kind: str | None = None, **attributes: str) -> "Element":
        """The only such element."""
        (found,) = self.all(name, kind, **attributes)
        return found


class Tree(HTMLParser):
    """A page, read; fails where elements are not closed as they were opened."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.root = self.at = Element("", {}, None)
        self.feed(html)
        self.close()
        assert self.at is self.root, f"<{self.at.name}> is not closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs), f"<{tag}> has an attribute twice: {attrs}"
        element = Element(tag, {name: value or "" for name, value in attrs}, self.at)
        self.at.parts.append(element)
        if tag not in VOID:
            self.at = element

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.at.parts.append(Element(tag, {name: value or "" for name, value in attrs}, self.at))

    def handle_endtag(self, tag: str) -> None:
        assert self.at.name == tag, f"</{tag}> within <{self.at.name}>"
        assert self.at.parent is not None
        self.at = self.at.parent

    def handle_data(self, data: str) -> None:
        self.at.parts.append(data)


def check_html(html: str) -> Element:
    """The page, which may be sent under a strict policy, and whose names and labels are sound."""
    root = Tree(html).root
    assert len(root.all("h1")) == 1
    names = [one.get("id") for one in root if one.get("id")]
    assert len(set(names)) == len(names)
    for one in root:
        assert "style" not in one.attributes, f"<{one.name}> has a style of its own"
        assert not [name for name in one.attributes if name.startswith("on")], one.attributes
        for label in (one.get("aria-labelledby") or "").split():
            assert label in names
        if one.name == "script":
            assert one.get("src"), "a script within the page"
            assert not one.text
        if one.name in ("a", "button"):
            assert one.words or one.get("aria-label"), f"<{one.name}> without a name"
        if one.name == "th" and one.text:
            assert one.get("scope")
        assert not (one.get("href") or "").lower().startswith(("javascript:", "data:"))
    assert not root.all("style")
    return root
