"""Units in notebooks: the last expression of a cell shows the graph and a few texts.

    from saelens_n2g.server.notebook import show
    show("atlas.db", "1-sae/42")

What is shown is one document in a frame of its own, which may run our scripts and do nothing else: no style of it
reaches the notebook, nothing is fetched, and it stays when the notebook is saved or sent.
"""

import base64
from html import escape
from pathlib import Path

from saelens_n2g.errors import InputError
from saelens_n2g.server.address import read_unit
from saelens_n2g.server.catalogue import Catalogue
from saelens_n2g.server.pages import unit as views
from saelens_n2g.server.pages.folder import FolderLinks
from saelens_n2g.server.pages.render import assets, render
from saelens_n2g.server.problems import Problem
from saelens_n2g.store.reader import Store

HEIGHT = 620
"""Of the frame, in px."""


class Inline(FolderLinks):
    """Links of a document that is alone: assets are inside of it, and there is nothing else."""

    def asset(self, name: str) -> str:
        """See `Links`."""
        data, kind = assets()[name]
        return f"data:{kind.replace(' ', '')};base64,{base64.b64encode(data).decode()}"


class Shown:
    """What a notebook displays; `html` is the document."""

    def __init__(self, name: str, html: str, height: int) -> None:
        self.name, self.html, self.height = name, html, height

    def _repr_html_(self) -> str:
        return (
            f'<iframe srcdoc="{escape(self.html)}" title="{escape(self.name)}" sandbox="allow-scripts" '
            f'width="100%" height="{self.height}" style="border:0"></iframe>'
        )

    def __repr__(self) -> str:
        return f"<{self.name}>"


def show(store: str | Path, unit: str, *, model: str | None = None, height: int = HEIGHT) -> Shown:
    """A unit of a store, such as `1-sae/42`; `model` may be left out where there is but one.

    Raises `InputError` for what the store does not have, `ArtefactError` for a damaged one.
    """
    found = read_unit(unit)
    if found is None:
        raise InputError(f"unit {unit!r}", "a layer and an index, such as 3-sae/42", "neither")
    place, index = found
    with Store.open(Path(store)) as opened:
        catalogue = Catalogue(opened)
        catalogue.refresh()
        names = list(catalogue.entries)
        if model is None and len(names) != 1:
            raise InputError("model", f"one of {', '.join(names) or '(none)'}", "none")
        try:
            entry = catalogue.model(names[0] if model is None else model)
            links = Inline("unit.html")
            page = views.embedded(opened, entry, entry.layer(*place), index, links)
        except Problem as problem:
            raise problem.as_error() from problem
        return Shown(f"{unit} of {entry.model.name}", render(page, links), height)
