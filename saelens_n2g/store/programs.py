"""Programs: the graphs of a store in the form they are run in, a block of 16,384 units of a layer at a time.

    compile_graphs(writer, "embedded")          # of blocks whose graphs have changed
    one = unpack(data)                          # arrays only; no graph is built
    one.program.count(ids)

A program is a safetensors file: the columns of `graphs.program_tables.Tables` that a run needs, in the narrowest types
that hold them, and `unit`, the place of each graph's unit in its block. (Importances, counts, strings and provenance
are in the graphs' bodies, and would be most of the bytes.) `graphs_of` begins with the version of this form and
goes on with the fingerprint of the etags of the graphs' bodies. A writer that changes one of them empties the
program in the same batch, so that no reader runs graphs that are no longer there.
"""

import hashlib
import sqlite3
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int64

from saelens_n2g.errors import ArtefactError
from saelens_n2g.graphs.program import Program
from saelens_n2g.graphs.program_tables import Tables, check_range, merge, narrow, widen
from saelens_n2g.jobs.artefacts import fingerprint
from saelens_n2g.store.bodies import DIGEST, Body
from saelens_n2g.store.schema import GRAPH, PROGRAM_BITS, SERVICE_BITS
from saelens_n2g.store.services import graph_of
from saelens_n2g.store.writer import Writer

VERSION = 1
"""Of the form; programs of another one are compiled anew by a writer and run by no reader."""
MEMORY = 1 << 30
"""Bytes of loaded programs and tokenizers that are kept, unless told otherwise."""
_LEFT_OUT = {"held_importance": np.zeros(1), "end_support": np.zeros(1, int), "end_seen": np.zeros(1, int)}
_STORED = tuple(field.name for field in fields(Tables) if field.name not in _LEFT_OUT)
_UNIT = "unit"
Arrays = dict[str, np.ndarray]
Tick = Callable[[int, int], None]


class Loaded(NamedTuple):
    """A program, ready to run."""

    units: Int64[np.ndarray, "graph"]
    """Place of each graph's unit in its block, ascending."""
    program: Program


def state_of(etags: Mapping[int, str]) -> str:
    """What `graphs_of` says of a program of these graphs: unit -> etag of the body that its graph is in."""
    return f"{VERSION}-{fingerprint(sorted(etags.items()))}"


def is_ready(graphs_of: str) -> bool:
    """Whether there is a program, and of this form."""
    return graphs_of.startswith(f"{VERSION}-")


def etags_of(connection: sqlite3.Connection, block: int) -> dict[int, str]:
    """Etag of the graph's body, by number of the unit, of those units of a block that have a graph."""
    query = (
        "SELECT u.unit_id, u.etag FROM unit_bodies u JOIN services s ON s.id = u.service_id "
        "WHERE s.name = ? AND u.id BETWEEN ? AND ? ORDER BY u.id"
    )
    first, bits = block << (PROGRAM_BITS + SERVICE_BITS), PROGRAM_BITS + SERVICE_BITS
    return {number: etag.hex() for number, etag in connection.execute(query, (GRAPH, first, first + (1 << bits) - 1))}


def arrays_of(connection: sqlite3.Connection, units: list[int]) -> Arrays:
    """The program of the units' graphs, as its columns. Reads a graph at a time. Raises `ArtefactError` for damage."""

    def graphs() -> Iterator[Any]:
        query = (
            "SELECT u.body, u.etag, u.size FROM unit_bodies u JOIN services s ON s.id = u.service_id "
            "WHERE s.name = ? AND u.id BETWEEN ? AND ?"
        )
        for unit in units:
            key = unit << SERVICE_BITS
            body, etag, size = connection.execute(query, (GRAPH, key, key + (1 << SERVICE_BITS) - 1)).fetchone()
            yield graph_of(Body(body, etag.hex(), size).json())

    tables = merge(graphs())
    columns = {name: narrow(getattr(tables, name)) for name in _STORED}
    return columns | {_UNIT: narrow(np.array(units, dtype=np.int64) & ((1 << PROGRAM_BITS) - 1))}


def digest_of(graphs: int, graphs_of: str, data: bytes) -> bytes:
    """Over a row of the table."""
    return hashlib.sha256(f"{graphs} {graphs_of}\n".encode() + data).digest()[:DIGEST]


def compile_graphs(writer: Writer, model: str, *, tick: Tick = lambda _done, _total: None) -> int:
    """Compile the blocks of a model whose graphs have changed; how many graphs that were.

    A block is a batch: interrupted, the next call goes on. In memory are the arrays of one block. Raises
    `ArtefactError` for damaged graphs.
    """
    from safetensors.numpy import save

    todo = []
    for block, graphs_of in writer.blocks(model):
        etags = etags_of(writer.connection, block)
        state = state_of(etags)
        if state != graphs_of:
            todo.append((block, state, list(etags)))
    total, done = sum(len(units) for *_, units in todo), 0
    for block, state, units in todo:
        data = save({name: np.ascontiguousarray(a) for name, a in arrays_of(writer.connection, units).items()})
        with writer.batch():
            writer.program(block, len(units), state, digest_of(len(units), state, data), data)
        done += len(units)
        tick(done, total)
    return total


def read(data: bytes) -> Arrays:
    """The columns of a stored program. Raises `ArtefactError` for bytes that are none."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        return dict(load(data))
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ArtefactError("program", "whole safetensors data", " ".join(str(error).split())) from error


def unpack(data: bytes) -> Loaded:
    """Inverse of what `compile_graphs` stores. Raises `ArtefactError` for what cannot be run."""
    try:
        arrays = read(data)
        for name, array in arrays.items():
            if array.dtype != np.float64 if name == "end_activation" else array.dtype.kind not in "iu":
                raise ValueError(f"{name} of type {array.dtype}")
        arrays = widen(arrays)
        sizes = {"held_importance": "held_node", "end_support": "end_held", "end_seen": "end_held"}
        for name, zero in _LEFT_OUT.items():  # repeated without taking room
            arrays[name] = np.broadcast_to(zero, arrays[sizes[name]].shape)
        units = arrays.pop(_UNIT)
        tables = Tables(**arrays)
        tables.check()
        check_range(_UNIT, units, 0, 1 << PROGRAM_BITS)
        if len(units) != tables.n_graphs or (np.diff(units) <= 0).any():
            raise ValueError("units that are not those of the graphs")
    except (KeyError, TypeError, ValueError, OverflowError, IndexError) as error:
        raise ArtefactError("program", "graphs that can be run", repr(error)) from error
    return Loaded(units, Program.of(tables))


def size_of(value: Any) -> int:
    """Bytes of all arrays in a value made of tuples and dataclasses."""
    if isinstance(value, np.ndarray):
        return value.nbytes if all(value.strides) else 0
    if is_dataclass(value):
        return sum(size_of(getattr(value, field.name)) for field in fields(value))
    return sum(map(size_of, value)) if isinstance(value, tuple) else 0


class Cache:
    """Values by key, those used longest ago dropped first, so that all together take no more than `memory` bytes.

    Several threads, each with a store of its own, may share one.
    """

    def __init__(self, memory: int = MEMORY) -> None:
        self.memory, self.used = memory, 0
        self._kept: OrderedDict[Any, tuple[int, Any]] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._kept)

    def __contains__(self, key: Any) -> bool:
        return key in self._kept

    def get(self, key: Any, make: Callable[[], tuple[int, Any]]) -> Any:
        """The value of `key`; `make` gives its bytes and it where it is not there. Too large a one is not kept."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key][1]
        size, value = make()
        with self._lock:
            if key not in self._kept and size <= self.memory:
                self._kept[key] = size, value
                self.used += size
                while self.used > self.memory:
                    _, (dropped, _) = self._kept.popitem(last=False)
                    self.used -= dropped
        return value
