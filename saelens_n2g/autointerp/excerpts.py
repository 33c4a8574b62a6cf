"""Excerpts: pieces of text with one unit's activations, and what each is used for.

An excerpt is of one `kind`, strong (`top`) or drawn at random, and on one `side`: explanations are written from `fit`,
calibrations fitted on `calibration`, scores taken on `test`. No document is on two sides: two excerpts of one article
are worth 0.06 to 0.09 of correlation (docs/lab-notes.md), which no explanation has earned.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Float, Int64

from saelens_n2g.errors import InputError
from saelens_n2g.graphs.graph import Graph

Kind = Literal["top", "random"]
Side = Literal["fit", "calibration", "test"]


@dataclass(frozen=True, eq=False)
class Excerpt:
    """One piece of text as the unit saw it, BOS and padding taken off.

    Raises `InputError` unless there is one string and one finite activation of at least 0 for each token.
    """

    ids: tuple[int, ...]
    """Token ids of the subject."""
    strings: tuple[str, ...]
    """Text of each token."""
    activations: Float[np.ndarray, "token"]
    """Shares of the unit's maximum over the fit text: above 1 where a text that is held out has a stronger one."""
    window: int
    """Which window of the corpus it is."""
    document: str
    kind: Kind
    side: Side

    def __post_init__(self) -> None:
        thing = f"excerpt of window {self.window}"
        if not len(self.ids) == len(self.strings) == len(self.activations) or not self.ids:
            found = f"{len(self.ids)} ids, {len(self.strings)} strings, {len(self.activations)} activations"
            raise InputError(thing, "as many ids, strings and activations, at least one", found)
        wrong = self.activations[~(np.isfinite(self.activations) & (self.activations >= 0))]
        if wrong.size:
            raise InputError(f"activations in {thing}", "finite numbers >= 0", str(wrong[0]))

    @property
    def peak(self) -> int:
        """Position of the strongest activation, the first of equal ones."""
        return int(self.activations.argmax())

    def around(self, width: int) -> "Excerpt":
        """At most `width` tokens with the peak in them, as much before it as after it where there is as much.

        For showing only: what an explanation says of a piece can differ from what it says of the whole.
        """
        start = max(0, min(self.peak - width // 2, len(self.ids) - width))
        here = slice(start, start + width)
        return replace(self, ids=self.ids[here], strings=self.strings[here], activations=self.activations[here])


def tenths(activations: Float[np.ndarray, "..."], maximum: float = 1.0) -> Int64[np.ndarray, "..."]:
    """Activations on Bills et al.'s scale for language models, 0 to 10: `min(10, floor(10 relu(x) / maximum))`.

    0 everywhere where the maximum is not above 0.
    """
    if maximum <= 0:
        return np.zeros(activations.shape, dtype=np.int64)
    return np.asarray(np.minimum(10, np.floor(10 * np.maximum(activations, 0) / maximum)), dtype=np.int64)


def digits(activations: Float[np.ndarray, "..."], maximum: float = 1.0) -> Int64[np.ndarray, "..."]:
    """The same in one digit, 0 to 9, for models that write 10 as two tokens: what would be 10 is 9, all else stays."""
    return np.asarray(np.minimum(9, tenths(activations, maximum)))


@dataclass(frozen=True, eq=False)
class Evidence:
    """What is known of one unit: what an explainer may read, and what its explanations are scored on.

    Raises `InputError` if a document is on two sides.
    """

    name: str
    """`LAYER.KIND/BASIS/INDEX`."""
    run: str
    """Of the run it was found in, for people."""
    basis: str
    layer: int
    max_activation: float
    """Over the fit text, in the subject's units."""
    threshold: float
    """Share of the maximum from which a token fires."""
    excerpts: tuple[Excerpt, ...]
    """Strong ones strongest first."""
    graph: Graph | None
    """None where none was fitted."""
    checksum: str
    """Of the files it was read from."""

    def __post_init__(self) -> None:
        owner: dict[str, Side] = {}
        for one in self.excerpts:
            if owner.setdefault(one.document, one.side) != one.side:
                both = f"one in {owner[one.document]} and {one.side}"
                raise InputError(f"document {one.document!r} of unit {self.name}", "a document on one side", both)

    @property
    def group(self) -> tuple[str, str, int]:
        """Run, basis and layer: units that can stand in for each other as controls."""
        return self.run, self.basis, self.layer

    def of(self, side: Side, kind: Kind | None = None) -> tuple[Excerpt, ...]:
        """Excerpts of a side, of one kind where it is given."""
        return tuple(e for e in self.excerpts if e.side == side and kind in (None, e.kind))


def sided(fit: Sequence[Excerpt], hold_back: float) -> list[Excerpt]:
    """Excerpts of the fit text, of which a share is held back for calibration: whole documents.

    Documents are taken in the order of their first excerpt, every so many-th is held back; without two documents none
    is. Raises `InputError` for a share outside [0, 1).
    """
    if not 0 <= hold_back < 1:
        raise InputError("share to hold back", "a share in [0, 1)", str(hold_back))
    documents = list(dict.fromkeys(e.document for e in fit))
    places = np.arange(1, len(documents) + 1)
    held = set(np.array(documents, dtype=object)[np.floor(places * hold_back) > np.floor((places - 1) * hold_back)])
    return [replace(e, side="calibration" if e.document in held else "fit") for e in fit]


def balanced(top: Sequence[Excerpt], random: Sequence[Excerpt]) -> list[Excerpt]:
    """Strong excerpts and as many random ones that are not among them, as Bills et al. score on; fewer where there are
    too few of either."""
    known = {e.window for e in top}
    others = [e for e in random if e.window not in known]
    n = min(len(top), len(others))
    return [*top[:n], *others[:n]]


def distinct(excerpts: Iterable[Excerpt]) -> list[Excerpt]:
    """The excerpts without those whose window was there before."""
    found: dict[int, Excerpt] = {}
    for one in excerpts:
        found.setdefault(one.window, one)
    return list(found.values())
