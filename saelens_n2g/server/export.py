"""Export: pages of a store as a folder that opens from disk and can be put on any web server.

Pages are those of the server, but for what only a server can do: search, pasted text, comparisons.
"""

import json
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from saelens_n2g import __version__
from saelens_n2g.errors import InputError
from saelens_n2g.jobs.artefacts import COMMIT, publishing
from saelens_n2g.progress import Tick
from saelens_n2g.server import answers
from saelens_n2g.server.address import Place, read_place, read_unit
from saelens_n2g.server.answers import Asked
from saelens_n2g.server.catalogue import BODIES, Catalogue, Entry
from saelens_n2g.server.pages import folder as files
from saelens_n2g.server.pages import unit as unit_views
from saelens_n2g.server.pages import views
from saelens_n2g.server.pages.folder import FolderLinks
from saelens_n2g.server.pages.render import Page, assets, render
from saelens_n2g.server.problems import Problem
from saelens_n2g.store.reader import PLACE, Store
from saelens_n2g.store.records import Layer
from saelens_n2g.store.splice import unspliced
from saelens_n2g.store.subset import subset

KIND = "saelens-n2g/pages"
"""In the commit marker's `meta`, as `kind`."""


class Exported(NamedTuple):
    """What an export wrote."""

    units: int
    pages: int


def export(
    path: Path,
    folder: Path,
    *,
    model: str | None = None,
    layers: Sequence[str] = (),
    units: Sequence[str] = (),
    tick: Tick = lambda _done, _total: None,
) -> Exported:
    """Write the pages of the store at `path` into `folder`, whole or not at all; an earlier export is replaced.

    model: of this one only. layers: of these only, as in addresses (`1`, `1-sae`). units: these only (`1-sae/42`), with
    the pages above them. Raises `InputError` for what the store does not have, and where `folder` holds something else.
    """
    _check_folder(folder)
    with Store.open(path) as store:
        chosen, numbers = _chosen(store, model, layers, units)
    meta = {"kind": KIND, "version": __version__, "model": model, "layers": list(layers), "units": list(units)}
    with tempfile.TemporaryDirectory() as temporary:
        part = path
        if model is not None or layers or units:
            part = Path(temporary) / "part.db"
            subset(path, part, layers=chosen, units=numbers)
        with Store.open(part) as store, publishing(folder, meta) as work:
            return _write(store, work, tick)


def _check_folder(folder: Path) -> None:
    """Nothing but an earlier export is replaced."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    try:
        kind = json.loads((folder / COMMIT).read_text())["meta"]["kind"]
    except (OSError, ValueError, KeyError, TypeError):
        kind = None
    if kind != KIND:
        raise InputError(f"folder {folder}", "nothing there, or an earlier export", "something else")


def _chosen(
    store: Store, model: str | None, layers: Sequence[str], units: Sequence[str]
) -> tuple[list[int], list[int] | None]:
    """Numbers of layers and, if some are named, of units. Raises `InputError`."""
    catalogue = Catalogue(store)
    catalogue.refresh()
    try:
        entries = list(catalogue.entries.values()) if model is None else [catalogue.model(model)]
        if (layers or units) and len(entries) != 1:
            names = ", ".join(entry.model.name for entry in entries)
            raise InputError("option model", f"one of {names}, since layers or units are named", "none")
        wanted = [_place(one) for one in layers]
        named = [_unit(one) for one in units]
        if not layers and not units:
            return [layer.id for entry in entries for layer in entry.layers.values()], None
        entry = entries[0]
        numbers = [entry.unit_id(*place, index) for place, index in named]
        places = dict.fromkeys([*wanted, *(place for place, _ in named)])
        there = [entry.layer(*place).id for place in places]
    except Problem as problem:
        raise problem.as_error() from problem
    if not units:
        return there, None
    whole = {entry.layer(*place).id for place in wanted}
    found = {unit.id for unit in store.units(numbers)}
    if missing := [name for name, number in zip(units, numbers, strict=True) if number not in found]:
        raise InputError(f"unit {missing[0]}", "one that is in the store", "none")
    return there, [*numbers, *(number for layer in whole for number in _units_of(store, layer))]


def _units_of(store: Store, layer: int) -> list[int]:
    return [number for (number,) in store.rows("SELECT id FROM units WHERE layer_id = ?", layer)]


def _place(text: str) -> Place:
    place = read_place(text)
    if place is None:
        raise InputError(f"layer {text!r}", "a number, or a number, a hyphen and a basis, such as 3-sae", "neither")
    return place


def _unit(text: str) -> tuple[Place, int]:
    found = read_unit(text)
    if found is None:
        raise InputError(f"unit {text!r}", "a layer and an index, such as 3-sae/42", "neither")
    return found


def _write(store: Store, work: Path, tick: Tick) -> Exported:
    catalogue = Catalogue(store)
    catalogue.refresh()
    entries = list(catalogue.entries.values())
    total = sum(layer.units for entry in entries for layer in entry.layers.values())
    for name, (data, _) in assets().items():
        _put(work / "assets" / name, data)
    links = FolderLinks(files.home_file())
    _page(work, links, views.home(store, entries, links))
    pages, done = 1, 0
    for entry in entries:
        links = FolderLinks(files.model_file(entry.model.name))
        _page(work, links, views.model(store, entry, links))
        pages += 1
        for layer in entry.layers.values():
            pages += _layer(store, entry, layer, work)
            for index in _indices(store, layer):
                _unit_pages(store, entry, layer, index, work)
                done += 1
                tick(done, total)
    return Exported(done, pages + done)


def _layer(store: Store, entry: Entry, layer: Layer, work: Path) -> int:
    """The pages of a layer; how many there are."""
    name, count = entry.model.name, max(-(-layer.units // views.ROWS), 1)
    for page in range(1, count + 1):
        links = FolderLinks(files.layer_file(name, layer.basis, layer.layer, page))
        _page(work, links, views.layer(store, entry, layer, links, sort=PLACE, ascending=False, page=page))
    asked = Asked(entry, Place(layer.basis, layer.layer))
    if store.layer_body(layer.id, "statistics") is not None:
        answer = answers.of_layer(store, asked, "statistics", layer.id)
        _put(work / files.data_file("statistics", name, layer.basis, layer.layer, None), unspliced(answer.pieces))
    return count


def _indices(store: Store, layer: Layer) -> Iterator[int]:
    for start in range(0, layer.units, views.ROWS):
        found = store.listing(layer.model, basis=layer.basis, layer=layer.layer, limit=views.ROWS, offset=start)
        yield from (unit.index for unit in found.units)


def _unit_pages(store: Store, entry: Entry, layer: Layer, index: int, work: Path) -> None:
    """A unit's page, and its services as the API has them."""
    place = (entry.model.name, layer.basis, layer.layer, index)
    links = FolderLinks(files.unit_file(*place))
    _page(work, links, unit_views.unit(store, entry, layer, index, links))
    number = entry.unit_id(layer.basis, layer.layer, index)
    there, asked = store.services(number), Asked(entry, Place(layer.basis, layer.layer), index)
    for service, body in BODIES.items():
        if body in there:
            answer = answers.one(store, asked, service, number)
            _put(work / files.data_file(service, *place), unspliced(answer.pieces))


def _page(work: Path, links: FolderLinks, page: Page) -> None:
    _put(work / links.file, render(page, links).encode())


def _put(path: Path, data: bytes) -> None:
    """Write a file of a folder that is published as a whole. Raises `InputError`."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    except OSError as error:
        raise InputError(f"file {path}", "a place that can be written", str(error.strerror or error)) from error
