"""Match: the graphs of a store run over a text, without the model.

    with Store.open(Path("atlas.db")) as store:
        matcher = Matcher(store)
        found = matcher.match("embedded", "The mayor of New York", bases=["sae"], sort="activation", limit=20)
        found.firings[0].unit, found.firings[0].matches[0].path
        matcher.predict("embedded", [unit.id], "The mayor of New York")

What it says of a unit is what `Graph.predict` says of its graph. The graphs are run in the form that the store keeps
(`saelens_n2g.store.programs`), a block of a layer after the other, loaded when first needed and kept while there is
room. The tokenizer comes out of the store, too; the text is all there is, no BOS stands before it.
"""

from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Int64

from saelens_n2g.errors import ArtefactError, InputError
from saelens_n2g.graphs import elements
from saelens_n2g.graphs.program import Counting, Program
from saelens_n2g.store.matches import Covered, Element, Firing, Match, Matches, Predicted, Text
from saelens_n2g.store.programs import Cache, Loaded, digest_of, is_ready, size_of, unpack
from saelens_n2g.store.reader import Store, check_page
from saelens_n2g.store.records import Model, Place
from saelens_n2g.store.schema import GRAPH, INDEX_BITS, PROGRAM_BITS
from saelens_n2g.store.services import graph_of
from saelens_n2g.store.tokenizer import SERVICE, StoredTokenizer

MOST_TOKENS = 1_000
MOST_LETTERS = 20_000
"""Of a text: what is longer is refused."""
MOST_PREDICTED = 64
"""Units that `Matcher.predict` takes."""
MOST_PATHS = 20_000
"""Paths of one answer, half a second's work. Where there are more, each unit gets those of its strongest positions."""
FIRES = 0.5
"""Share of its maximum from which on a unit is said to fire."""
TOKENIZER_BYTES = 10
"""What a tokenizer takes in memory, about, for each byte of its text."""
SORTS = ("activation", "positions", "place")
_TRIES = 3
"""A block that a writer changes while it is matched is begun again so many times."""


class _Block(NamedTuple):
    """A row of the table `programs`."""

    id: int
    layer: Place
    graphs: int
    graphs_of: str


class _Fires(NamedTuple):
    """The units of a block that fire."""

    block: _Block
    counting: Counting
    graph: Int64[np.ndarray, "unit"]
    number: Int64[np.ndarray, "unit"]
    maximum: Float32[np.ndarray, "unit"]
    positions: Int64[np.ndarray, "unit"]
    """How many."""


class _ChangedError(Exception):
    """A writer was there in between."""


class Matcher:
    """Runs the graphs of a store. One thread at a time may use it; several, each with a store, may share a `cache`."""

    def __init__(self, store: Store, *, cache: Cache | None = None) -> None:
        self.store, self.cache = store, Cache() if cache is None else cache

    def match(
        self,
        model: str,
        text: str | None = None,
        *,
        ids: Sequence[int] | None = None,
        bases: Collection[str] | None = None,
        layers: Collection[int] | None = None,
        units: Collection[int] | None = None,
        limit: int = 50,
        offset: int = 0,
        at_least: float = FIRES,
        sort: str = "activation",
        with_paths: bool = True,
    ) -> Matches:
        """Units of a model whose graphs say that they fire in `text` (or `ids`, without BOS), some of them with why.

        bases, layers, units (by number): of these only. at_least: share of the maximum from which on a unit fires.
        sort: by the largest activation; by the number of positions at which they fire, then by activation; by basis,
        layer and index. Ties are by place. Paths are those of the units that are given, and of at most
        `MOST_PATHS` positions.

        Raises `InputError` for unknown names, a text that is empty or too long, and text for a model whose tokenizer
        the store lacks.
        """
        check_page(limit, offset)
        if sort not in SORTS:
            raise InputError("sort", ", ".join(SORTS), repr(sort))
        if not 0.0 < at_least <= 1.0:
            raise InputError("at_least", "a share of the maximum, above 0 and at most 1", str(at_least))
        one, tokenizer = self._model(model)
        said = _text(one, tokenizer, text, ids)
        for _ in range(_TRIES):
            try:
                blocks, skipped = self._blocks(one, bases, layers, units)
                fires = [self._run(block, said.ids, at_least, units) for block in blocks]
                shown = _page(fires, sort, limit, offset)
                most = MOST_PATHS // max(len(shown), 1) if with_paths else 0
                firings = self._firings(shown, said, tokenizer, most)
            except _ChangedError:
                continue
            graphs, total = sum(block.graphs for block in blocks), sum(len(one.number) for one in fires)
            bare = sum(match.path is None for firing in firings for match in firing.matches)
            covered = _covered(fires, len(said.ids), at_least)
            return Matches(model, said, graphs, total, firings, skipped, bare, covered)
        raise InputError(f"store {self.store.path}", "graphs that stay while they are run", "others each time")

    def predict(
        self, model: str, units: Sequence[int], text: str | None = None, *, ids: Sequence[int] | None = None
    ) -> Predicted:
        """What the graphs of a few units (by number) predict on every token of `text`, or of `ids`, in that order.

        Raises `InputError` as `match` does, and for units that are not there, of another model, or too many.
        """
        if len(units) > MOST_PREDICTED:
            raise InputError("units to predict", f"at most {MOST_PREDICTED}", str(len(units)))
        one, tokenizer = self._model(model)
        said, found = _text(one, tokenizer, text, ids), self.store.units(units)
        if len(found) < len(units) or any(unit.model != model for unit in found):
            raise InputError("units to predict", f"units of {model} in the store", "others")
        rows: list[tuple[float, ...] | None] = []
        for unit in found:
            body = self.store.body(unit.id, GRAPH)
            rows.append(None if body is None else tuple(graph_of(body.json()).predict(said.ids).tolist()))
        return Predicted(model, said, tuple(found), tuple(rows))

    # --- what there is --------------------------------------------------------------------------------------------

    def _model(self, name: str) -> tuple[Model, StoredTokenizer | None]:
        models = {one.name: one for one in self.store.models()}
        if name not in models:
            raise InputError(f"model {name!r}", f"one of {', '.join(models) or '(none)'}", repr(name))
        etags = self.store.rows(
            "SELECT b.etag FROM model_bodies b JOIN services s ON s.id = b.service_id "
            "WHERE s.name = ? AND b.model_id = ?",
            SERVICE,
            models[name].id,
        )
        if not etags:
            return models[name], None

        def load() -> tuple[int, StoredTokenizer]:
            body = self.store.model_body(models[name].id, SERVICE)
            assert body is not None, "models keep their tokenizers"
            return TOKENIZER_BYTES * body.size, StoredTokenizer.of(body)

        return models[name], self.cache.get((SERVICE, etags[0][0]), load)

    def _blocks(
        self,
        model: Model,
        bases: Collection[str] | None,
        layers: Collection[int] | None,
        units: Collection[int] | None,
    ) -> tuple[list[_Block], tuple[Place, ...]]:
        """The blocks that are run, by basis, layer and place, and layers that lack some."""
        places = self.store.places(model.name)
        for what, asked, known in (
            ("basis", bases, sorted({one.basis for one in places})),
            ("layer", layers, sorted({one.layer for one in places})),
        ):
            for name in asked or ():
                if name not in known:
                    raise InputError(f"{what} {name!r}", f"one of {', '.join(map(str, known))}", repr(name))
        wanted = None if units is None else {number >> PROGRAM_BITS for number in units}
        rows: dict[int, list[tuple[int, int, str]]] = {}
        for number, graphs, graphs_of in self.store.rows("SELECT id, graphs, graphs_of FROM programs ORDER BY id"):
            if wanted is None or number in wanted:
                rows.setdefault(number >> (INDEX_BITS - PROGRAM_BITS), []).append((number, graphs, graphs_of))
        found: list[_Block] = []
        skipped: list[Place] = []
        for place in places:
            if (bases is None or place.basis in bases) and (layers is None or place.layer in layers):
                own = rows.get(place.id, [])
                found += [_Block(number, place, n, state) for number, n, state in own if is_ready(state)]
                if any(not is_ready(state) for *_, state in own):
                    skipped.append(place)
        return found, tuple(skipped)

    def _loaded(self, block: _Block) -> Loaded:
        def load() -> tuple[int, Loaded]:
            rows = self.store.rows("SELECT graphs, graphs_of, digest, program FROM programs WHERE id = ?", block.id)
            if [row[:2] for row in rows] != [(block.graphs, block.graphs_of)]:
                raise _ChangedError
            ((graphs, graphs_of, digest, data),) = rows
            if digest_of(graphs, graphs_of, data) != digest:
                raise ArtefactError(f"store {self.store.path}", f"program {block.id} of its checksum", "another one")
            loaded = unpack(data)
            if len(loaded.units) != graphs:
                raise ArtefactError(f"store {self.store.path}", f"{graphs} graphs in program {block.id}", "others")
            return size_of(loaded), loaded

        found: Loaded = self.cache.get((block.id, block.graphs_of), load)
        return found

    # --- running --------------------------------------------------------------------------------------------------

    def _run(self, block: _Block, ids: Sequence[int], at_least: float, units: Collection[int] | None) -> _Fires:
        loaded = self._loaded(block)
        counting = loaded.program.count(ids)
        firing = counting.activation >= at_least
        graphs = counting.graph[firing]
        positions = np.bincount(graphs, minlength=len(loaded.units))
        maximum = np.zeros(len(loaded.units), dtype=np.float32)
        np.maximum.at(maximum, graphs, counting.activation[firing])
        number = (block.id << PROGRAM_BITS) + loaded.units
        there = positions > 0
        if units is not None:
            there &= np.isin(number, np.fromiter(units, dtype=np.int64))
        graph = np.flatnonzero(there)
        return _Fires(block, counting, graph, number[graph], maximum[graph], positions[graph])

    def _firings(
        self, shown: Sequence[tuple[_Fires, int]], text: Text, tokenizer: StoredTokenizer | None, most: int
    ) -> tuple[Firing, ...]:
        """The units of a page, each with the paths of at most `most` positions."""
        units = {unit.id: unit for unit in self.store.units(int(fires.number[row]) for fires, row in shown)}
        return tuple(
            Firing(
                units[int(fires.number[row])],
                float(fires.maximum[row]),
                int(fires.positions[row]),
                self._matches(fires, int(fires.graph[row]), text, tokenizer, most),
            )
            for fires, row in shown
        )

    def _matches(
        self, fires: _Fires, graph: int, text: Text, tokenizer: StoredTokenizer | None, most: int
    ) -> tuple[Match, ...]:
        counting = fires.counting
        rows = np.flatnonzero(counting.graph == graph)
        strongest = rows[np.argsort(-counting.activation[rows], kind="stable")[:most]].tolist()
        paths: dict[int, tuple[Element, ...]] = {}
        if strongest:
            program = self._loaded(fires.block).program
            paths = {row: _path(program, counting, text, tokenizer, row) for row in strongest}
        return tuple(
            Match(int(counting.position[row]), float(counting.activation[row]), paths.get(row)) for row in rows.tolist()
        )


def _covered(fires: Sequence[_Fires], n_tokens: int, at_least: float) -> tuple[Covered, ...]:
    """What fires in each layer: blocks of one are put together."""
    layers: dict[Place, list[_Fires]] = {}
    for one in fires:
        layers.setdefault(one.block.layer, []).append(one)
    found = []
    for layer, parts in layers.items():
        at = np.zeros(n_tokens, dtype=np.int64)
        for one in parts:
            chosen = np.zeros(one.block.graphs, dtype=bool)
            chosen[one.graph] = True
            firing = (one.counting.activation >= at_least) & chosen[one.counting.graph]
            at += np.bincount(one.counting.position[firing], minlength=n_tokens)
        numbers = np.sort(np.concatenate([one.number for one in parts]))
        graphs = sum(one.block.graphs for one in parts)
        found.append(Covered(layer, graphs, tuple(numbers.tolist()), tuple(at.tolist())))
    return tuple(found)


def _page(fires: Sequence[_Fires], sort: str, limit: int, offset: int) -> list[tuple[_Fires, int]]:
    """Those of all that fire that are to be given, and where they are in their blocks."""
    if not fires:
        return []
    which = np.repeat(np.arange(len(fires)), [len(one.number) for one in fires])
    row = np.concatenate([np.arange(len(one.number)) for one in fires])
    maximum = np.concatenate([one.maximum for one in fires])
    positions = np.concatenate([one.positions for one in fires])
    place = np.arange(len(row))
    keys = {"activation": (place, -maximum), "positions": (place, -maximum, -positions), "place": (place,)}
    chosen = np.lexsort(keys[sort])[offset : offset + limit]
    return [(fires[w], r) for w, r in zip(which[chosen].tolist(), row[chosen].tolist(), strict=True)]


def _path(
    program: Program, counting: Counting, text: Text, tokenizer: StoredTokenizer | None, row: int
) -> tuple[Element, ...]:
    """The path of one row, in the order of the text."""
    found = program.found(counting, row)
    places = program.places(text.ids, found)
    own = program.tables.classes_of(found.graph)
    said = []
    for element, place in zip(found.match.path, places, strict=True):
        members = [program.tables.members(own[elements.class_index(element)])] if elements.is_class(element) else []
        named = [element] if element >= 0 else [token for one in members for token in one[: elements.SHOWN]]
        strings = {} if tokenizer is None else {token: tokenizer.string(token) for token in named}
        if members:
            element = elements.of_class(0)
        said.append(Element(elements.string(element, members, strings), place.start, place.stop))
    return tuple(reversed(said))


def _text(model: Model, tokenizer: StoredTokenizer | None, text: str | None, ids: Sequence[int] | None) -> Text:
    """The text as it is run. Raises `InputError`."""
    if (text is None) == (ids is None):
        raise InputError("text to match", "a text or token ids", "both" if ids is not None else "neither")
    if text is not None:
        if len(text) > MOST_LETTERS:
            raise InputError("text to match", f"at most {MOST_LETTERS} letters", str(len(text)))
        if tokenizer is None:
            expected = f"a tokenizer of {model.name} in the store (`saelens-n2g collect --tokenizer` puts it there)"
            raise InputError("text to match", expected, "none")
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise InputError("text to match", "whole characters", f"half of one at {error.start}") from error
        ids = tokenizer.encode(text)
    assert ids is not None
    if not 1 <= len(ids) <= MOST_TOKENS:
        raise InputError("text to match", f"1 to {MOST_TOKENS} tokens", str(len(ids)))
    if any(not 0 <= token < 1 << 31 for token in ids):
        raise InputError("token ids", "integers from 0 on", str(next(t for t in ids if not 0 <= t < 1 << 31)))
    string = (lambda token: f"<{token}>") if tokenizer is None else tokenizer.string
    return Text(tuple(ids), tuple(map(string, ids)))
