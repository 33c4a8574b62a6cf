"""Bookmarks: a page that the browser fills."""

from saelens_n2g.server.pages.links import Links
from saelens_n2g.server.pages.render import Page
from saelens_n2g.store.reader import Store


def bookmarks(_: Store, links: Links) -> Page:
    """The frame; units and their titles are in the reader's browser alone."""
    return Page("bookmarks.html", "Bookmarks", {}, (("Models", links.home()),))
