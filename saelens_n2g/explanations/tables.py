"""Tables of counts as explanations: the baselines that a graph has to beat. They never ask the model anything.

    table = BackoffTable.fit(rows, fires)                            # a few texts of one unit
    counted = CountedText.of(windows.tokens, windows.mask)           # much text, counted once for all units
    tables = [BackoffTable.from_counted(counted, f) for f in fires]
    predicted = tables[0].predict_text(test.tokens, test.mask)       # in [0, 1], shaped as the tokens

A *context* is the current token with up to `order` tokens before it. After each context of the fit text stands the
share of its occurrences on which the unit fired, smoothed towards the share after the next shorter context:

    share(c) = (fired(c) + a share(shorter c)) / (n(c) + a)

where a single token is smoothed towards the unit's firing rate over the fit text. A position takes the share of the
longest context of the fit text that it ends, in the manner of back-off language models (Katz 1987; the recursion is
the Dirichlet prior of MacKay and Peto 1995). A token on which the unit never fired in the fit text predicts 0.

Contexts lie within one row of text and reach across no position that is masked out, such as the BOS or padding.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, NamedTuple, TypeVar

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int, Int32, Int64

from saelens_n2g.errors import ArtefactError, InputError
from saelens_n2g.graphs.labels import one_line

FORMAT, VERSION = "saelens-n2g/table", 1
COLUMNS = ("parent", "token", "n", "fired")
Table = TypeVar("Table", bound="BackoffTable")
LINES = 40
"""Entries that `to_text` shows; the text of their tokens is kept with the table."""

Rows = Sequence[Sequence[int]] | Int[np.ndarray, "n width"]
"""Token ids of several texts: ragged lists, or an array with a mask beside it."""
Fires = Sequence[Sequence[bool] | np.ndarray] | Bool[np.ndarray, "n width"]
"""Whether the unit fires on each token of `Rows`."""
Mask = Bool[np.ndarray, "..."]
"""Which positions of a text count; shaped as its tokens, which is checked."""


@dataclass(frozen=True)
class TableConfig:
    """How counts become predictions.

    The defaults are the best of a small grid on sixty neurons of SmolLM2-135M, layers 0 to 3, fitted on 130,000
    tokens and scored on as many others. A second previous token is worth a little there (mean F1 .471 instead of
    .464, .339 without any), a third nothing (.471).
    """

    order: int = 2
    """Most previous tokens in a context; 0 = the current token alone."""
    smoothing: float = 0.5
    """Occurrences that the share after the next shorter context counts for."""
    root_smoothing: float = 1.0
    """Occurrences that the unit's firing rate counts for in the share of a single token."""
    decision: float = 0.4
    """Smoothed share from which on firing is predicted, in (0, 1)."""

    def __post_init__(self) -> None:
        if self.order < 0:
            raise InputError("order of a table", "an integer >= 0", str(self.order))
        if not (0 <= self.smoothing < np.inf and 0 <= self.root_smoothing < np.inf):
            raise InputError("smoothing of a table", "numbers >= 0", f"{self.smoothing} and {self.root_smoothing}")
        if not 0 < self.decision < 1:
            raise InputError("decision of a table", "a share in (0, 1)", str(self.decision))


class Contexts(NamedTuple):
    """The distinct contexts of one length, sorted by key."""

    key: Int64[np.ndarray, "k"]
    """Place of the next shorter context (0 at length 1) times 2**32, plus the id of the token farthest back."""
    n: Int64[np.ndarray, "k"]
    """Occurrences."""

    @property
    def parent(self) -> Int64[np.ndarray, "k"]:
        """Place of the next shorter context in the contexts of its length."""
        return np.asarray(self.key >> 32)

    @property
    def token(self) -> Int64[np.ndarray, "k"]:
        """The token farthest back."""
        return np.asarray(self.key & 0xFFFFFFFF)


@dataclass(frozen=True, eq=False)
class CountedText:
    """The contexts of a text, counted once; the tables of any number of units are made from it."""

    shape: tuple[int, int]
    """Rows and width of the text."""
    ids: tuple[Int32[np.ndarray, "position"], ...]
    """Per order the place, in `contexts[order]`, of the context that ends at the position; -1 where there is none."""
    contexts: tuple[Contexts, ...]
    """One for each number of previous tokens, from 0."""

    @classmethod
    def of(cls, rows: Rows, mask: Mask | None = None, *, order: int = TableConfig.order) -> "CountedText":
        """Count the contexts of up to `order` previous tokens in `rows`: ragged lists of ids, or an array (n, width).

        `mask`, shaped as the array, says which positions count; without one all do. Leave the BOS out unless it
        shall count as a token. Raises `InputError` if shapes differ, an id is negative or nothing counts.
        """
        tokens, mask = _text(rows, mask)
        if order < 0:
            raise InputError("order to count", "an integer >= 0", str(order))
        if not mask.any() or tokens[mask].min() < 0:
            found = f"an id {tokens[mask].min()}" if mask.any() else "none"
            raise InputError("text to count", "at least one token, ids >= 0", found)
        flat, counts = tokens.astype(np.int64).ravel(), mask.ravel()
        live = np.flatnonzero(counts)
        place = np.zeros(live.size, dtype=np.int64)
        ids, contexts = [], []
        for back in range(order + 1):
            reach = _reaches(live, back, tokens.shape[1], counts)
            live, place = live[reach], place[reach]
            key, place, n = np.unique(_key(place, flat[live - back]), return_inverse=True, return_counts=True)
            here = np.full(flat.size, -1, dtype=np.int32)
            here[live] = place
            ids.append(here)
            contexts.append(Contexts(key, n.astype(np.int64)))
        return cls((tokens.shape[0], tokens.shape[1]), tuple(ids), tuple(contexts))

    @property
    def n_tokens(self) -> int:
        """Number of tokens that count."""
        return int(self.contexts[0].n.sum())

    def fired(self, fires: Bool[np.ndarray, "..."]) -> tuple[Int64[np.ndarray, "_"], ...]:
        """Per order and context the occurrences on which a unit fired. Firing outside the mask is passed over.

        Raises `InputError` unless `fires` is shaped as the text.
        """
        if fires.shape != self.shape:
            raise InputError("firing of a unit", f"shape {self.shape} as the text", f"shape {fires.shape}")
        at = np.flatnonzero(fires)
        places = [(ids[at], len(contexts.n)) for ids, contexts in zip(self.ids, self.contexts, strict=True)]
        return tuple(np.bincount(place[place >= 0], minlength=k) for place, k in places)


def _key(parent: Int64[np.ndarray, "k"], token: Int64[np.ndarray, "k"]) -> Int64[np.ndarray, "k"]:
    return np.asarray((parent << 32) | token)


def _reaches(live: Int64[np.ndarray, "k"], back: int, width: int, mask: Mask) -> Bool[np.ndarray, "k"]:
    """Whether the token `back` before each position lies in the same row and counts."""
    return np.asarray((live % max(width, 1) >= back) & mask[np.maximum(live - back, 0)])


def _padded(rows: Sequence[Sequence[Any] | np.ndarray], dtype: Any) -> tuple[np.ndarray, np.ndarray]:
    """Ragged rows as an array padded on the right, and where it holds values."""
    lengths = np.array([len(row) for row in rows], dtype=np.int64)
    mask = np.arange(lengths.max(initial=0)) < lengths[:, None]
    out = np.zeros(mask.shape, dtype=dtype)
    out[mask] = np.array([value for row in rows for value in row], dtype=dtype)
    return out, mask


def _text(rows: Rows, mask: Mask | None) -> tuple[Int[np.ndarray, "n width"], Bool[np.ndarray, "n width"]]:
    """`rows` as an array with its mask. Raises `InputError` if the two do not go together."""
    if not isinstance(rows, np.ndarray):
        if mask is not None:
            raise InputError("mask of a text", "none beside lists of ids", f"shape {mask.shape}")
        return _padded(rows, np.int64)
    mask = np.ones(rows.shape, dtype=np.bool_) if mask is None else mask
    if mask.shape != rows.shape:
        raise InputError("mask of a text", f"shape {rows.shape} as the tokens", f"shape {mask.shape}")
    return rows, mask


@dataclass(frozen=True, eq=False)
class BackoffTable:
    """Predicts firing from the longest context of the fit text, see the top of this file.

    Predictions are a share s mapped piecewise linearly onto [0, 1] with `decision` d at one half, so that any scorer
    with the threshold 0.5 sees firing exactly where s >= d: s / (2 d) below, 1/2 + (s - d) / (2 (1 - d)) above.
    Only contexts that end in a token on which the unit fired are kept, all others predicting 0.
    """

    config: TableConfig
    n_fired: int
    """Firing tokens of the fit text."""
    n_tokens: int
    """Tokens of the fit text."""
    contexts: tuple[Contexts, ...]
    """Contexts of the fit text, one entry for each number of previous tokens from 0 to `config.order`."""
    fired: tuple[Int64[np.ndarray, "_"], ...]
    """Per context the occurrences on which the unit fired."""
    token_strings: dict[int, str] = field(default_factory=dict)
    """Text of the tokens that `to_text` shows, so that a table can be read without a tokenizer."""
    shares: tuple[Float64[np.ndarray, "_"], ...] = field(init=False, repr=False)
    """Smoothed share per context."""
    DEFAULT: ClassVar[TableConfig] = TableConfig()
    """The configuration where none is given."""

    def __post_init__(self) -> None:
        if len(self.contexts) != self.config.order + 1:
            raise InputError("contexts of a table", f"{self.config.order + 1} lengths", str(len(self.contexts)))
        weight, shorter = self.config.root_smoothing, np.array([self.n_fired / self.n_tokens])
        shares = []
        for contexts, fired in zip(self.contexts, self.fired, strict=True):
            # Rounding must not carry a share above 1.
            shorter = np.minimum((fired + weight * shorter[contexts.parent]) / (contexts.n + weight), 1.0)
            shares.append(shorter)
            weight = self.config.smoothing
        object.__setattr__(self, "shares", tuple(shares))

    @classmethod
    def fit(
        cls: type[Table],
        rows: Rows,
        fires: Fires,
        *,
        mask: Mask | None = None,
        config: TableConfig | None = None,
        string: Callable[[int], str] | None = None,
    ) -> Table:
        """The table of one unit from texts (`CountedText.of` says what `rows` and `mask` are) and where it fires.

        `string` gives the text of a token id, for `to_text`. Raises `InputError` if firing and texts do not go
        together or there is no text. A unit that fires nowhere gets a table that predicts 0 everywhere.
        """
        config = cls.DEFAULT if config is None else config
        if not isinstance(rows, np.ndarray):
            wanted, found = [len(row) for row in rows], [len(row) for row in fires]
            if wanted != found:
                raise InputError("firing of a unit", f"rows of {wanted} tokens", f"rows of {found}")
        counted = CountedText.of(rows, mask, order=config.order)
        where = fires if isinstance(fires, np.ndarray) else _padded(fires, np.bool_)[0]
        return cls.from_counted(counted, where, config=config, string=string)

    @classmethod
    def from_counted(
        cls: type[Table],
        counted: CountedText,
        fires: Bool[np.ndarray, "..."],
        *,
        config: TableConfig | None = None,
        string: Callable[[int], str] | None = None,
    ) -> Table:
        """The table of one unit from text counted before; `fires` is shaped as that text.

        Raises `InputError` if it is not, or if the text was counted to a lower order than `config.order`.
        """
        config = cls.DEFAULT if config is None else config
        if len(counted.contexts) <= config.order:
            raise InputError("counted text", f"order >= {config.order}", f"order {len(counted.contexts) - 1}")
        all_fired = counted.fired(fires)[: config.order + 1]
        levels, kept_fired = [], []
        kept, place = np.ones(1, dtype=np.bool_), np.zeros(1, dtype=np.int64)
        for length, (contexts, fired) in enumerate(zip(counted.contexts, all_fired, strict=False)):
            kept = kept[contexts.parent] if length else fired > 0
            levels.append(Contexts(_key(place[contexts.parent[kept]], contexts.token[kept]), contexts.n[kept]))
            kept_fired.append(fired[kept])
            place = np.cumsum(kept) - 1
        table = cls(config, int(all_fired[0].sum()), counted.n_tokens, tuple(levels), tuple(kept_fired))
        if string is not None:
            shown = {token for rule in table.rules()[:LINES] for token in rule.context}
            table.token_strings.update((token, string(token)) for token in sorted(shown))
        return table

    def predict(self, tokens: Sequence[int]) -> Float[np.ndarray, "token"]:
        """Prediction per token of one text without BOS, float32 in [0, 1]; at least 0.5 where it says "fires"."""
        out: np.ndarray = self.predict_text(np.asarray(tokens, dtype=np.int64)[None])[0]
        return out

    def predict_text(self, tokens: Int[np.ndarray, "n w"], mask: Mask | None = None) -> Float32[np.ndarray, "n w"]:
        """The same for many rows at once; 0 where `mask` is False, and no context reaches across such a position.

        Raises `InputError` if the shapes differ.
        """
        tokens, mask = _text(tokens, mask)
        flat, counts = tokens.ravel(), mask.ravel()
        share = np.zeros(flat.size)
        live = np.flatnonzero(counts)
        place = np.zeros(live.size, dtype=np.int64)
        for back, (contexts, shares) in enumerate(zip(self.contexts, self.shares, strict=True)):
            if contexts.key.size == 0:
                break
            reach = _reaches(live, back, tokens.shape[1], counts)
            live, place = live[reach], place[reach]
            key = _key(place, flat[live - back].astype(np.int64))
            place = np.minimum(np.searchsorted(contexts.key, key), contexts.key.size - 1)
            seen = contexts.key[place] == key
            live, place = live[seen], place[seen]
            share[live] = shares[place]
        decision = self.config.decision
        below = (share / (2 * decision)).astype(np.float32)
        above = (0.5 + (share - decision) / (2 * (1 - decision))).astype(np.float32)
        under_half = np.nextafter(np.float32(0.5), np.float32(0))  # where a share just below the decision may round to
        mapped: np.ndarray = np.where(share >= decision, above, np.minimum(below, under_half))
        return mapped.reshape(tokens.shape)

    def rules(self) -> list["Rule"]:
        """The contexts that say "fires" while the next shorter one does not, strongest first: what there is to say."""
        found: list[Rule] = []
        shorter = np.zeros(1)
        for length, (contexts, fired, shares) in enumerate(zip(self.contexts, self.fired, self.shares, strict=True)):
            says = shares >= self.config.decision
            at = place = np.flatnonzero(says & (shorter[contexts.parent] < self.config.decision))
            tokens = []
            for level in self.contexts[length::-1]:
                tokens.append(level.token[place].tolist())
                place = level.parent[place]
            numbers = (shares[at].tolist(), fired[at].tolist(), contexts.n[at].tolist())
            found += map(Rule, zip(*tokens, strict=True), *numbers)
            shorter = shares
        return sorted(found, key=lambda rule: (-rule.share, -rule.fired, rule.context))

    def to_text(self) -> str:
        """One line per rule, read left to right: context, the token in brackets, smoothed share, counts.

        At most `LINES` lines, the strongest; a last one says how many were left out.
        """
        rules = self.rules()
        lines = [self._line(rule) for rule in rules[:LINES]]
        if len(rules) > LINES:
            lines.append(f"... and {len(rules) - LINES} weaker")
        return "\n".join(lines) or "(never fires)"

    def _line(self, rule: "Rule") -> str:
        *before, current = (self.token_strings.get(token, f"<{token}>") for token in rule.context)
        return one_line(f"{''.join(before)}[{current}]  {rule.share:.2f}  ({rule.fired} of {rule.n})")

    def to_dict(self) -> dict[str, Any]:
        """The table as JSON values (format `saelens-n2g/table`, version 1)."""
        levels = [(c.parent, c.token, c.n, fired) for c, fired in zip(self.contexts, self.fired, strict=True)]
        return {
            "format": FORMAT,
            "version": VERSION,
            "config": asdict(self.config),
            "n_fired": self.n_fired,
            "n_tokens": self.n_tokens,
            "contexts": [{k: v.tolist() for k, v in zip(COLUMNS, level, strict=True)} for level in levels],
            "token_strings": {str(k): v for k, v in sorted(self.token_strings.items())},
        }

    @classmethod
    def from_dict(cls: type[Table], value: Any) -> Table:
        """Inverse of `to_dict`. Raises `ArtefactError` for another format, another version or damaged entries."""
        if not isinstance(value, dict) or value.get("format") != FORMAT or value.get("version") != VERSION:
            found = [value.get("format"), value.get("version")] if isinstance(value, dict) else type(value).__name__
            raise ArtefactError("table", f"format {FORMAT!r}, version {VERSION}", str(found))
        try:
            levels: list[Contexts] = []
            fired = []
            for columns in value["contexts"]:
                contexts, firings = _contexts(columns, len(levels[-1].n) if levels else 1)
                levels.append(contexts)
                fired.append(firings)
            strings = {int(k): str(v) for k, v in value["token_strings"].items()}
            config, sizes = TableConfig(**value["config"]), (int(value["n_fired"]), int(value["n_tokens"]))
            return cls(config, *sizes, tuple(levels), tuple(fired), strings)
        except (KeyError, TypeError, ValueError, AttributeError, ZeroDivisionError) as error:
            raise ArtefactError("table", "whole configuration, contexts and strings", repr(error)) from error


class Rule(NamedTuple):
    """One thing a table says: it fires on the last token of `context` when the others stand before it."""

    context: tuple[int, ...]
    """Token ids in reading order."""
    share: float
    """Smoothed share of firings after it."""
    fired: int
    """Occurrences on which the unit fired."""
    n: int
    """Occurrences in the fit text."""


def _contexts(columns: dict[str, list[int]], n_shorter: int) -> tuple[Contexts, Int64[np.ndarray, "k"]]:
    """JSON columns as contexts and firings. Raises `ValueError` where they contradict each other."""
    parent, token, n, fired = (np.array(columns[name], dtype=np.int64) for name in COLUMNS)
    if not parent.shape == token.shape == n.shape == fired.shape or parent.ndim != 1:
        raise ValueError(f"columns of {parent.size}, {token.size}, {n.size} and {fired.size} values")
    key = _key(parent, token)
    if not ((parent >= 0) & (parent < n_shorter) & (token >= 0) & (token < 1 << 32)).all() or (np.diff(key) <= 0).any():
        raise ValueError("contexts out of order or without the next shorter one")
    if not ((fired >= 0) & (fired <= n) & (n > 0)).all():
        raise ValueError("more firings than occurrences")
    return Contexts(key, n), fired


@dataclass(frozen=True, eq=False)
class TokenTable(BackoffTable):
    """The back-off table without context: per token the smoothed share of its occurrences on which the unit fired.

    Alone, a token does better with less smoothing: one firing in two occurrences still predicts firing.
    """

    DEFAULT: ClassVar[TableConfig] = TableConfig(order=0, root_smoothing=0.5)

    def __post_init__(self) -> None:
        if self.config.order:
            raise InputError("order of a token table", "0", str(self.config.order))
        super().__post_init__()
