"""Gather: what several files say, unit by unit, and what the files are."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from saelens_n2g.errors import InputError
from saelens_n2g.imports.files import files_in
from saelens_n2g.imports.formats import all_formats, format_of, published
from saelens_n2g.imports.published import PublishedText, PublishedUnit
from saelens_n2g.jobs.artefacts import sha256_of

KEPT = 200
"""Texts of a unit that are kept, the strongest."""


class Address(NamedTuple):
    """A unit, within one basis."""

    layer: int
    unit: int


class FileFacts(NamedTuple):
    """One file that was read."""

    name: str
    sha256: str
    size: int
    """Bytes."""
    format: str | None
    """None for a file of a folder that holds something else and was passed over."""
    records: int = 0
    """Of units that were asked for."""
    texts: int = 0


@dataclass(frozen=True)
class Gathered:
    """Everything that was published of the units that were asked for."""

    units: dict[Address, PublishedUnit]
    """Ascending."""
    files: tuple[FileFacts, ...]
    passed: int
    """Indices of units beyond the number that was asked for."""


def listed(paths: Sequence[Path]) -> list[tuple[Path, FileFacts]]:
    """Every file below `paths`, with its checksum and, by its content, its format.

    Raises `InputError` for a path that is not there, and where no file is of a known format; a file that was named
    itself must be of one. Raises `ArtefactError` for damaged ones.
    """
    found = []
    for path in paths:
        for file, name in files_in(path):
            kind = format_of(file)
            if kind is None and file == path:
                raise InputError(f"file {file}", f"one of the formats {', '.join(all_formats())}", "something else")
            facts = FileFacts(name, sha256_of(file), file.stat().st_size, None if kind is None else kind.name)
            found.append((file, facts))
    if not any(facts.format for _, facts in found):
        there = f"{len(found)} files of other kinds"
        raise InputError(f"files in {', '.join(map(str, paths))}", f"some of {', '.join(all_formats())}", there)
    return found


def gather(
    files: Sequence[tuple[Path, FileFacts]],
    *,
    layer: int | None = None,
    indices: frozenset[int] = frozenset(),
    units: int | None = None,
    report: Callable[[int, int], None] = lambda _done, _total: None,
) -> Gathered:
    """Read all files (`listed`). layer: in the place of what they state. indices: of the units that are read; empty
    for all. units: how many, in the order of the files. report: told of files.

    Raises `InputError` where no layer is known, or a layer's units come from two sources; `ArtefactError` for damage.
    """
    shelf = _Shelf(layer, indices, units)
    facts = []
    for done, (path, known) in enumerate(files):
        records = texts = 0
        kind = all_formats().get(known.format or "")
        for one in published(path, shelf.wants, kind) if kind else ():
            shelf.put(_named(one, path, known.name))
            records, texts = records + 1, texts + len(one.texts)
        facts.append(known._replace(records=records, texts=texts))
        report(done + 1, len(files))
    if missing := indices - {address.unit for address in shelf.units}:
        raise InputError("units that were asked for", "texts of them in the files", f"none of {sorted(missing)[:5]}")
    if not shelf.units:
        raise InputError("files", "at least one unit", "none")
    return Gathered({at: _kept(shelf.units[at]) for at in sorted(shelf.units)}, tuple(facts), len(shelf.passed))


def _named(unit: PublishedUnit, path: Path, name: str) -> PublishedUnit:
    """The unit with texts that name their file as the provenance does: where a folder lay is no part of a result."""
    old = f"file {path}, "
    return replace(unit, texts=tuple(replace(t, where=f"{name}, {t.where.removeprefix(old)}") for t in unit.texts))


class _Shelf:
    """Units as they come in, whatever the order of their records."""

    def __init__(self, layer: int | None, indices: frozenset[int], limit: int | None) -> None:
        self.layer, self.indices, self.limit = layer, indices, limit
        self.units: dict[Address, PublishedUnit] = {}
        self.known: set[int] = set()
        self.passed: set[int] = set()
        self.sources: dict[int, tuple[str | None, str, int | None]] = {}
        """Layer -> model, source and layer as stated by its first record."""

    @property
    def full(self) -> bool:
        return self.limit is not None and len(self.units) >= self.limit

    def wants(self, index: int) -> bool:
        """Whether units of an index are taken, at any layer; asked before they are built."""
        if self.indices and index not in self.indices:
            return False
        if self.full and index not in self.known:
            self.passed.add(index)
            return False
        return True

    def put(self, one: PublishedUnit) -> None:
        layer = one.layer if self.layer is None else self.layer
        if layer is None:
            raise InputError(f"layer of {one.where}", "a record that states it, or --layer", f"source {one.source!r}")
        stated = (one.model, one.source, one.layer)
        known = self.sources.setdefault(layer, stated)
        if known != stated:
            said = [" ".join(str(part) for part in parts if part not in (None, "")) for parts in (known, stated)]
            raise InputError(
                f"units of layer {layer}", f"one source, {one.where} included", " and ".join(map(repr, said))
            )
        address = Address(layer, one.index)
        if address in self.units:
            self.units[address] = _joined(self.units[address], one)
        elif self.full:
            self.passed.add(one.index)
        else:
            self.units[address] = replace(one, layer=layer)
            self.known.add(one.index)


def _joined(before: PublishedUnit, one: PublishedUnit) -> PublishedUnit:
    """Both records of a unit; trimmed now and then, so that a unit with ever more records does not grow."""
    known = [maximum for maximum in (before.maximum, one.maximum) if maximum is not None]
    both = replace(before, texts=(*before.texts, *one.texts), maximum=max(known, default=None))
    return _kept(both) if len(both.texts) > 2 * KEPT else both


def _kept(unit: PublishedUnit) -> PublishedUnit:
    """The unit with its strongest texts, strongest first; equal ones in the order in which they came."""
    texts: list[PublishedText] = sorted(unit.texts, key=lambda text: -text.peak)
    return replace(unit, texts=tuple(texts[:KEPT]))
