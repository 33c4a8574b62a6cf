"""Collect: what lies in folders goes into a store, a batch at a time; interrupted, it goes on where it stopped.

with Writer(Path("atlas.db")) as writer:
    collect(Path("runs/demo"), writer)
    connect(writer, "embedded")             # which units are similar
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from saelens_n2g.errors import ArtefactError
from saelens_n2g.graphs.similarity import Neighbours, TokenIndex, neighbours
from saelens_n2g.jobs.artefacts import fingerprint
from saelens_n2g.store.records import SourceFacts
from saelens_n2g.store.runs import Part, parts
from saelens_n2g.store.services import graph_of
from saelens_n2g.store.writer import Writer

BATCH = 128
"""Units that are stored together."""
VERSION = 1
"""Raised by hand when the same folder gives other bodies than before: it is then imported again."""
NEAREST = 10
"""Similar units that are kept of each."""
Tick = Callable[[int, int], None]
Row = tuple[int, str, int, int]
"""Number, basis, layer and index of a unit."""


class Collected(NamedTuple):
    """What an import did."""

    models: tuple[str, ...]
    new: int
    """Units that were stored."""
    known: int
    """Units that were in the store from this folder before."""


def collect(
    folder: Path,
    writer: Writer,
    *,
    model: str | None = None,
    rename: Mapping[str, str] | None = None,
    again: bool = False,
    batch: int = BATCH,
    tick: Tick = lambda _done, _total: None,
) -> Collected:
    """Import the folder of a finished comparison, study or import.

    model: name of the model in the store, where not its own. rename: basis -> its name in the store. again: also what
    was imported before. What is in the store is not imported again; a unit that another folder has brought is replaced.

    Raises `InputError` where a name in the store stands for something else, `ArtefactError` for an unfinished or
    damaged folder; what was stored before stays, and the next call goes on behind it.
    """
    chosen = [_named(part, model, rename or {}) for part in parts(folder)]
    total, ended, new, known = sum(part.total for part in chosen), 0, 0, 0
    for part in chosen:
        with writer.batch():
            basis = writer.basis(writer.model(part.model), part.basis)
            layer = writer.layer(basis, part.layer)
            source = writer.source(
                SourceFacts(
                    checksum=part.checksum,
                    name=part.name,
                    kind=part.kind,
                    total=part.total,
                    provenance=part.provenance,
                )
            )
        done = 0 if again else source.done
        known += done
        for start in range(done, part.total, batch):
            stop = min(start + batch, part.total)
            with writer.batch():
                for place in range(start, stop):
                    unit = part.load(place, source.id)  # one at a time: exemplars of many units are large
                    try:
                        writer.unit(layer, source, unit)
                    except ValueError as error:  # NaN or half characters, which JSON files can hold all the same
                        thing = f"unit {part.basis.name}/{unit.index} of {folder}"
                        raise ArtefactError(thing, "numbers and whole characters", str(error)) from error
                writer.progress(source, max(stop, source.done))
            new += stop - start
            tick(ended + stop, total)
        ended += part.total
    return Collected(tuple(dict.fromkeys(part.model.name for part in chosen)), new, known)


def _named(part: Part, model: str | None, rename: Mapping[str, str]) -> Part:
    """The part under its names in the store, by which it is known as imported, too."""
    model_name, basis = model or part.model.name, rename.get(part.basis.name, part.basis.name)
    return replace(
        part,
        model=replace(part.model, name=model_name),
        basis=replace(part.basis, name=basis),
        checksum=fingerprint([VERSION, part.checksum, model_name, basis]),
    )


def connect(writer: Writer, model: str, *, k: int = NEAREST, tick: Tick = lambda _done, _total: None) -> int:
    """Find the `k` most similar units of every unit of a model, over all its bases and layers; how many have a graph.

    Reads all graphs of the model and compares all pairs: 10,000 units take seconds, 100,000 minutes. Does nothing if
    the graphs are those of the last time. Raises `ArtefactError` for damaged graphs.
    """
    rows = writer.units_of(model)
    graphs = writer.etags(model, "neuron2graph")
    state = fingerprint([VERSION, k, sorted(graphs.items())])
    if writer.similar_of(model) == state:
        return len(graphs)
    places = [row for row in rows if row[0] in graphs]
    stored = (writer.body(row[0], "neuron2graph").json() for row in places)
    found = neighbours(TokenIndex.of(map(graph_of, stored)), k) if places else None
    silent = [row[0] for row in rows if row[0] not in graphs]
    for start in range(0, max(len(places), 1), BATCH):
        stop = min(start + BATCH, len(places))
        with writer.batch():
            for row in range(start, stop):
                assert found is not None
                _connect(writer, places, found, row)
            if stop == len(places):
                for number in silent:
                    writer.similar(number, [], None)
                writer.set_similar_of(model, state)
        tick(stop, len(places))
    return len(graphs)


def _connect(writer: Writer, places: list[Row], found: Neighbours, row: int) -> None:
    columns = (found.graphs[row], found.similarity[row], found.own[row], found.other[row])
    others = [(places[g], *rest) for g, *rest in zip(*(c.tolist() for c in columns), strict=True) if g >= 0]
    values = [
        {"basis": basis, "layer": layer, "neuron": index, "similarity": similarity, "own": own, "other": other}
        for (_, basis, layer, index), similarity, own, other in others
    ]
    writer.similar(places[row][0], [(place[0], *rest) for place, *rest in others], {"similar": values})
