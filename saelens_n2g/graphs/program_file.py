"""All graphs of a basis in one file that loads without a model: safetensors arrays and one JSON text among them.

    save_graphs(path, graphs)
    stored = load_graphs(path)          # arrays only; no graph is built yet
    stored.program.predict(ids)         # run all of them
    stored[7], stored.units[7]          # the graph as it was saved, and its unit

The format is `saelens-n2g/graphs`, version 1; docs/program-format.md lists every array. Whatever graphs share is there
once: nodes of the merged trie, classes, token strings, values of provenance.
"""

import copy
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64

from saelens_n2g.errors import ArtefactError
from saelens_n2g.graphs import elements
from saelens_n2g.graphs.graph import End, Graph, Node
from saelens_n2g.graphs.program import Program
from saelens_n2g.graphs.program_tables import Ids, Tables, check_first, check_range, merge, narrow, widen
from saelens_n2g.jobs.artefacts import write_bytes

FORMAT, VERSION = "saelens-n2g/graphs", 1
ABOUT = "about"
"""Key of the file's metadata under which format, version and checksum are, as JSON."""
Arrays = dict[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class Labels:
    """What graphs have beside their tries."""

    units: list[str]
    max_activation: Float64[np.ndarray, "graph"]
    strings: dict[int, str]
    """Text of tokens, for graphs that name exactly the tokens of their tries."""
    other_strings: dict[int, dict[int, str]]
    """Graph -> its token strings, for all others."""
    keys: list[list[str]]
    """Sets of provenance keys, in order."""
    values: list[Any]
    """Values of provenance."""
    provenance_keys: Ids
    """Per graph its set of keys."""
    provenance_first: Ids
    provenance_value: Ids
    """Per graph the places of its values, one for each key."""

    def check(self, tables: Tables) -> None:
        """Raise `ValueError` where the parts do not go together, or not with the graphs."""
        n = len(self.units)
        if n != tables.n_graphs:
            raise ValueError(f"{n} units for {tables.n_graphs} graphs")
        check_first("provenance_first", self.provenance_first, len(self.provenance_value))
        check_range("provenance_keys", self.provenance_keys, 0, len(self.keys))
        check_range("provenance_value", self.provenance_value, 0, len(self.values))
        lengths = np.array([len(keys) for keys in self.keys], dtype=np.int64)[self.provenance_keys]
        if not (len(lengths) == n and np.array_equal(np.diff(self.provenance_first), lengths)):
            raise ValueError("keys and values of provenance differ in number")
        if len(self.max_activation) != n or not np.isfinite(self.max_activation).all():
            raise ValueError("maxima that are no finite number for each graph")
        texts = [self.strings, *self.other_strings.values()]
        if not all(isinstance(text, str) for text in (*self.units, *(t for own in texts for t in own.values()))):
            raise ValueError("a text that is none")
        shared = np.repeat(~np.isin(np.arange(n), [*self.other_strings]), np.diff(tables.held_first))
        if not tables.named(np.unique(tables.held_node[shared])) <= self.strings.keys():
            raise ValueError("a token without text")

    def provenance(self, graph: int) -> dict[str, Any]:
        """The provenance of a graph, free to be changed."""
        places = self.provenance_value[self.provenance_first[graph] : self.provenance_first[graph + 1]].tolist()
        keys = self.keys[int(self.provenance_keys[graph])]
        return {key: copy.deepcopy(self.values[place]) for key, place in zip(keys, places, strict=True)}


@dataclass(frozen=True, eq=False)
class StoredGraphs(Sequence[Graph]):
    """Graphs as arrays. Indexing builds a `Graph` anew each time; equal to the one that was saved."""

    tables: Tables
    labels: Labels

    @property
    def units(self) -> list[str]:
        """Unit of each graph, by number."""
        return self.labels.units

    @cached_property
    def program(self) -> Program:
        """All graphs, ready to run; their numbers are those here."""
        return Program.of(self.tables)

    def __len__(self) -> int:
        return self.tables.n_graphs

    def __iter__(self) -> Iterator[Graph]:
        return (self.graph(number) for number in range(len(self)))

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self.graph(number) for number in range(len(self))[index]]
        return self.graph(range(len(self))[index])

    def graph(self, number: int) -> Graph:
        """Graph `number`, from 0, equal to the one that was saved."""
        tables, labels = self.tables, self.labels
        own = tables.classes_of(number)
        graph = Graph(
            labels.units[number], float(labels.max_activation[number]), classes=[tables.members(c) for c in own]
        )
        local = {elements.of_class(c): elements.of_class(i) for i, c in enumerate(own)}
        rows = slice(*tables.held_first[number : number + 2].tolist())
        held = tables.held_node[rows]
        parents, found = tables.parent[held].tolist(), tables.element[held].tolist()
        nodes: dict[int, Node] = {}
        for merged, parent, element, importance in zip(
            held.tolist(), parents, found, tables.held_importance[rows].tolist(), strict=True
        ):
            node = nodes[merged] = Node(local.get(element, element), importance)
            (nodes[parent].children if parent >= 0 else graph.roots)[node.token] = node
        ends = slice(*np.searchsorted(tables.end_held, (rows.start, rows.stop)).tolist())
        columns = (tables.held_node[tables.end_held[ends]], tables.end_activation[ends])
        counts = (tables.end_support[ends], tables.end_seen[ends])
        for merged, *end in zip(*(column.tolist() for column in (*columns, *counts)), strict=True):
            nodes[merged].end = End(*end)
        other = labels.other_strings.get(number)
        if other is None:
            named = {token for node in nodes.values() for token in graph.members(node.token)}
            other = {token: labels.strings[token] for token in sorted(named)}
        graph.token_strings = dict(other)
        graph.provenance = labels.provenance(number)
        return graph


def save_graphs(path: Path, graphs: Sequence[Graph]) -> None:
    """Write `graphs` as one file, whole or not at all. Equal graphs give equal bytes.

    Raises `InputError` if the place cannot be written, and `TypeError` or `ValueError` if provenance is no JSON or a
    graph has numbers that are not finite or an empty class.
    """
    from safetensors.numpy import save

    tables = merge(graphs)
    tables.check()
    arrays = {field.name: narrow(getattr(tables, field.name)) for field in fields(Tables)}
    text: dict[str, Any] = {"units": [graph.unit for graph in graphs]}
    arrays["max_activation"] = np.array([graph.max_activation for graph in graphs], dtype=np.float64)
    text |= _share_strings(graphs)
    text["provenance"], columns = _share_provenance(graphs)
    arrays |= {name: narrow(column) for name, column in columns.items()}
    body = json.dumps(text, separators=(",", ":"), allow_nan=False)
    arrays["json"] = np.frombuffer(body.encode(), dtype=np.uint8)
    about = json.dumps({"format": FORMAT, "version": VERSION, "sha256": _digest(arrays)})
    metadata = {ABOUT: about}  # one entry, since safetensors writes several in no order
    write_bytes(path, save({name: np.ascontiguousarray(a) for name, a in arrays.items()}, metadata=metadata))


def load_graphs(path: Path) -> StoredGraphs:
    """Inverse of `save_graphs`. Raises `ArtefactError` if the file is missing, damaged or of another format."""
    about, arrays = _read(path)
    if _digest(arrays) != about.get("sha256"):
        raise ArtefactError(f"file {path}", "the arrays that were written", "others (checksums differ)")
    try:
        text = json.loads(arrays.pop("json").tobytes())
        wide = widen(arrays)
        tables = Tables(**{field.name: wide[field.name] for field in fields(Tables)})
        strings = dict(zip(map(int, text["strings"]["token"]), text["strings"]["text"], strict=True))
        labels = Labels(
            units=text["units"],
            max_activation=wide["max_activation"],
            strings=strings,
            other_strings={int(g): {int(t): s for t, s in own.items()} for g, own in text["other_strings"].items()},
            keys=text["provenance"]["keys"],
            values=text["provenance"]["values"],
            provenance_keys=wide["provenance_keys"],
            provenance_first=wide["provenance_first"],
            provenance_value=wide["provenance_value"],
        )
        tables.check()
        labels.check(tables)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise ArtefactError(f"file {path}", "whole graphs", repr(error)) from error
    return StoredGraphs(tables, labels)


def _read(path: Path) -> tuple[dict[str, Any], Arrays]:
    """What the file says about itself, and its arrays as they lie there."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "np") as handle:
            about = _about((handle.metadata() or {}).get(ABOUT, ""))
            if (about.get("format"), about.get("version")) != (FORMAT, VERSION):
                found = f"{about.get('format')!r}, version {about.get('version')!r}"
                raise ArtefactError(f"file {path}", f"format {FORMAT!r}, version {VERSION}", found)
            return about, {name: handle.get_tensor(name) for name in sorted(handle.keys())}
    except FileNotFoundError:
        raise ArtefactError(f"file {path}", "a file of graphs", "nothing there") from None
    except (OSError, SafetensorError) as error:
        raise ArtefactError(f"file {path}", "a whole safetensors file", " ".join(str(error).split())) from error


def _about(text: str) -> dict[str, Any]:
    """The metadata of a file; none if it is not one of ours."""
    try:
        about = json.loads(text)
    except ValueError:
        return {}
    return about if isinstance(about, dict) else {}


def _digest(arrays: Mapping[str, np.ndarray]) -> str:
    """SHA-256 over names, types, shapes and bytes of all arrays, by name."""
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _share_strings(graphs: Sequence[Graph]) -> dict[str, Any]:
    """Token strings that graphs agree on, once, and those of graphs that say something else."""
    shared: dict[int, str] = {}
    other: dict[str, dict[str, str]] = {}
    for number, graph in enumerate(graphs):
        own = graph.token_strings
        agrees = own.keys() == graph.named_tokens() and all(shared.get(t, text) == text for t, text in own.items())
        if agrees:
            shared |= own
        else:
            other[str(number)] = {str(t): text for t, text in sorted(own.items())}
    tokens = sorted(shared)
    return {"strings": {"token": tokens, "text": [shared[t] for t in tokens]}, "other_strings": other}


def _share_provenance(graphs: Sequence[Graph]) -> tuple[dict[str, Any], Arrays]:
    """Keys and values of all provenance, each once, and per graph where its own are."""
    keys: dict[tuple[str, ...], int] = {}
    values: dict[str, int] = {}
    kept: list[Any] = []
    of_graph: list[int] = []
    places: list[int] = []
    first = [0]
    for graph in graphs:
        own = dict(sorted(graph.provenance.items()))
        of_graph.append(keys.setdefault(tuple(own), len(keys)))
        for value in own.values():
            text = json.dumps(value, allow_nan=False)  # by text, since 1, 1.0 and True are equal
            if text not in values:
                values[text] = len(kept)
                kept.append(value)
            places.append(values[text])
        first.append(len(places))
    columns = {"provenance_keys": of_graph, "provenance_first": first, "provenance_value": places}
    arrays = {name: np.array(column, dtype=np.int64) for name, column in columns.items()}
    return {"keys": [list(one) for one in keys], "values": kept}, arrays
