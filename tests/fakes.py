"""Stand-ins for a language model: exact, instant, and wrong about nothing.

`FakeSubject` has a vocabulary of some fifty tokens and units whose activation is a rule over the ids up to a token.
Like a feature of a sparse autoencoder a unit is exactly zero wherever its rule does not hold.
"""

import zlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from saelens_n2g.bases.neurons import NeuronBasis
from saelens_n2g.corpus import Windows
from saelens_n2g.errors import InputError
from saelens_n2g.exemplars import Exemplar
from saelens_n2g.graphs.oracle import Oracle
from saelens_n2g.graphs.paper import FitContext
from saelens_n2g.graphs.questions import Fit, Masked, Substitute, Tokens
from saelens_n2g.sites import Site

SITE = Site(0, "mlp_post")
LETTERS = "ABCDEFGH"
WORDS = ("the", "cat", "dog", "sat", "ran", "red", "blue", "don", "house", "it", "un", "kind")
VOCABULARY = (
    "<bos>", "<pad>", " _", ".", "\n", ",", "'", "t", "s", "\ufffd", " (",
    *(f" {letter}" for letter in LETTERS),
    *(f" {word}" for word in WORDS),
    *WORDS,
    " The", "The", " Cat", " Dog", " CAT", " DOG", " I",
)  # fmt: skip
ID = {text: i for i, text in enumerate(VOCABULARY)}
BOS, PAD, MASK, STOP = ID["<bos>"], ID["<pad>"], ID[" _"], ID["."]
A, B, C, D, E, F, G, H = (ID[f" {letter}"] for letter in LETTERS)
FILLERS = tuple(ID[f" {word}"] for word in WORDS)

Rule = Callable[[Tokens], float]
"""Activation on the last of the ids given."""


def after(token: int, before: Mapping[int, float], alone: float = 0.0, within: int = 1) -> Rule:
    """Fires on `token`: as `before` says of the nearest listed token at most `within` before it, else `alone`."""

    def rule(ids: Tokens) -> float:
        if ids[-1] != token:
            return 0.0
        near = ids[-2 : -2 - within : -1]
        return next((before[t] for t in near if t in before), alone)

    return rule


def scattered(ids: Tokens) -> float:
    """Depends on the last five tokens in no orderly way, so that a longer context may well fire less."""
    return (0.0, 0.0, 0.25, 0.5, 1.0)[zlib.crc32(bytes(ids[-5:])) % 5]


UNITS: dict[str, Rule] = {
    "A": after(A, {}, alone=1.0),
    "B after A": after(B, {A: 2.0}),
    "C with D within three": after(C, {D: 1.0}, within=3),
    "graded E": after(E, {F: 4.0, G: 1.0}, alone=3.0),
    "never": lambda _: 0.0,
    "G, and H after G": lambda ids: max(after(G, {}, alone=1.0)(ids), after(H, {G: 0.75})(ids)),
    "scattered": scattered,
    "first": lambda ids: float(len(ids) == 1),
    "A or D": lambda ids: float(ids[-1] in (A, D)),
    "A at the start": lambda ids: float(ids == (BOS, A)),
    "pad": lambda ids: float(ids[-1] == PAD),
}
UNIT = {name: i for i, name in enumerate(UNITS)}
BASIS = NeuronBasis(SITE, len(UNITS))


class FakeSubject:
    """Answers like `Subject`; counts calls, rows and tokens. `likely`: per token its likeliest successors, in order."""

    def __init__(
        self, bos_id: int | None = BOS, *, n_ctx: int = 64, likely: Mapping[int, Sequence[int]] | None = None
    ) -> None:
        self.bos_id, self.n_ctx, self.likely = bos_id, n_ctx, likely or {}
        self.d_vocab, self.pad_id, self.device = len(VOCABULARY), PAD, torch.device("cpu")
        self.calls = self.rows = self.tokens = self.logit_rows = 0

    def front(self) -> Tokens:
        return () if self.bos_id is None else (self.bos_id,)

    def direct(self, unit: str, row: Sequence[int]) -> Float[np.ndarray, "token"]:
        """The unit's activation on each token of a row, BOS put in front and left out again: the definition."""
        ids, skip = (*self.front(), *row), len(self.front())
        return np.array([UNITS[unit](ids[: i + 1]) for i in range(skip, len(ids))], dtype=np.float32)

    def activations(self, ids: Int[Tensor, "batch pos"], sites: Sequence[Site]) -> dict[Site, Float[Tensor, "..."]]:
        if ids.numel() == 0 or ids.shape[1] > self.n_ctx:
            raise InputError("token ids", f"(batch, 1 to {self.n_ctx}) integers", str(tuple(ids.shape)))
        self.calls, self.rows, self.tokens = self.calls + 1, self.rows + len(ids), self.tokens + ids.numel()
        rows = [tuple(row) for row in ids.tolist()]
        values = [[[rule(row[: i + 1]) for rule in UNITS.values()] for i in range(len(row))] for row in rows]
        return {site: torch.tensor(values, dtype=torch.float32) for site in sites}

    def logits(self, ids: Int[Tensor, "batch pos"]) -> Float[Tensor, "batch pos d_vocab"]:
        """Each likely successor of the last token half as likely as the one before it, everything else e^-20."""
        self.logit_rows += len(ids)
        out = torch.full((*ids.shape, self.d_vocab), -20.0)
        for place, token in np.ndenumerate(ids.numpy()):
            for rank, successor in enumerate(self.likely.get(int(token), ())):
                out[(*place, successor)] = -rank * float(np.log(2.0))
        return out

    def string(self, token: int) -> str:
        return VOCABULARY[token]

    def encode(self, text: str) -> list[int]:
        """Longest token first; empty for a text that the vocabulary cannot write."""
        ids: list[int] = []
        while text:
            piece = max((t for t in VOCABULARY if text.startswith(t)), key=len, default=None)
            if piece is None:
                return []
            ids.append(ID[piece])
            text = text[len(piece) :]
        return ids


class FakeAugmenter:
    """Proposes what it was told for a token, wherever it stands: token -> replacements."""

    name = "fake"

    def __init__(self, proposals: Mapping[int, Sequence[Tokens]]) -> None:
        self.proposals, self.asked = proposals, 0

    def substitutes(self, rows: Sequence[Masked]) -> list[list[Substitute]]:
        self.asked += len(rows)
        return [[Substitute(p, p + 1, new, 0.5) for new in self.proposals.get(tokens[p], ())] for tokens, p in rows]


def exemplar(subject: FakeSubject, unit: str, tokens: Sequence[int]) -> Exemplar:
    """A window with the unit's true activations."""
    return Exemplar(tuple(tokens), subject.direct(unit, tokens))


def context() -> FitContext:
    """What a fit knows, for the fake vocabulary."""
    return FitContext(MASK, lambda token: token in (STOP, ID["\n"]), VOCABULARY.__getitem__, {"subject": "fake"})


class Tables:
    """A subject whose activations are looked up by token and position; counts the positions it is run on."""

    d, width, vocabulary = 6, 9, 40
    sites = (Site(0, "resid_post"), Site(1, "resid_post"))

    def __init__(self) -> None:
        draws, shape = torch.Generator().manual_seed(4), (self.vocabulary, self.width, self.d)
        self.values = {site: torch.randn(*shape, generator=draws) + site.layer for site in self.sites}
        self.tokens = 0

    def activations(self, ids: Int[Tensor, "batch pos"], sites: Sequence[Site]) -> dict[Site, Float[Tensor, "..."]]:
        self.tokens += ids.numel()
        places = torch.arange(ids.shape[1]).expand(ids.shape)
        return {site: self.values[site][ids, places] for site in sites}

    def describe(self) -> dict[str, str]:
        return {"model": "tables"}


def table_windows(n: int, seed: int, *, ragged: bool = False) -> Windows:
    """Text for `Tables`: windows with BOS 0, each its own document; `ragged` ones are of several lengths."""
    draws, width = np.random.default_rng(seed), Tables.width
    tokens = draws.integers(1, Tables.vocabulary, size=(n, width)).astype(np.int32)
    tokens[:, 0] = 0
    lengths = np.full(n, width, dtype=np.int32)
    if ragged:
        lengths = draws.integers(3, width + 1, size=n).astype(np.int32)
        lengths[: n // 2] = np.minimum(lengths[: n // 2], 5)  # the longest window of a block is not that of all
    return Windows(tokens, lengths, np.arange(n, dtype=np.int32), tuple(map(str, range(n))), 0, "tables")


def run(fit: Fit, unit: str, subject: FakeSubject | None = None, augmenter=None):
    """Run one fit to its end; an error that it ended with is raised."""
    result = Oracle(subject or FakeSubject(), BASIS, augmenter).run({UNIT[unit]: fit})[UNIT[unit]]
    if isinstance(result, Exception):
        raise result
    return result
