"""Choice: which of a unit's published texts a graph is fitted to, and which it is held against."""

import hashlib
from dataclasses import dataclass

import numpy as np

from saelens_n2g.errors import UnitError
from saelens_n2g.exemplars import Exemplar, ExemplarSet, is_duplicate
from saelens_n2g.imports.align import Aligner, Misaligned
from saelens_n2g.imports.published import PublishedText, PublishedUnit

COUNTS = ("texts", "exact", "characters", "misaligned", "too_long", "silent", "duplicates", "beyond", "fit", "test")
"""What became of a unit's texts: `texts` in all, of which `exact` and by `characters` aligned and `misaligned` refused;
of the aligned `too_long` for the model, `silent` (never above 0), `duplicates`, `beyond` the number wanted, and used as
`fit` and `test`."""


@dataclass(frozen=True, eq=False)
class Chosen:
    """A unit's exemplars out of published texts."""

    exemplars: ExemplarSet
    """`random` is empty; `Exemplar.window` is the text's place among the unit's, strongest first."""
    documents: dict[int, str]
    """Window -> where it was published."""
    counts: dict[str, int]
    """By `COUNTS`."""
    refused: str
    """Why the first text that could not be aligned was refused; empty where none was."""

    @property
    def maximum(self) -> float:
        """The largest activation over the fit texts, of which everything is a share."""
        return max(float(one.activations.max()) for one in self.exemplars.fit)


def choose(
    name: str, unit: PublishedUnit, aligner: Aligner, *, room: int, top: int, test_share: float, seed: int
) -> Chosen:
    """Align, leave out near-duplicates, keep the `2 * top` strongest, split.

    room: tokens that the model takes behind a BOS. Texts that all say whether they are `fit` or `test` stay so. Else
    nothing is known of their documents, and a share of the texts is put into test by the hash of their tokens; since
    no two are near-duplicates (`exemplars.is_duplicate`), none is on both sides.

    Raises `UnitError` where less than one text is left for either side.
    """
    counts, reasons = dict.fromkeys(COUNTS, 0), []
    counts["texts"] = len(unit.texts)
    aligned: list[Exemplar] = []
    for at, text in enumerate(unit.texts):
        try:
            found = aligner.align(text, marks=unit.marks)
        except Misaligned as error:
            counts["misaligned"] += 1
            reasons.append(str(error))
            continue
        counts[found.how] += 1
        aligned.append(Exemplar(found.ids, np.maximum(found.activations, 0.0), at))
    # Anew, since a BOS may have been the largest. Equal ones, such as texts that begin alike, in an order of their own.
    aligned.sort(key=lambda one: (-float(one.activations.max()), one.tokens))
    taken: list[Exemplar] = []
    for one in aligned:
        if reason := _unfit(one, room, taken, 2 * top):
            counts[reason] += 1
        else:
            taken.append(one)
    fit, test = _split(unit.texts, taken, test_share, seed)
    counts |= {"fit": len(fit), "test": len(test)}
    if not fit or not test:
        why = f"{len(taken)} of {len(unit.texts)}" + (f" ({reasons[0]})" if reasons else "")
        raise UnitError(f"texts of unit {name}", "one to fit and one to test, aligned and different", why)
    documents = {one.window: unit.texts[one.window].where for one in taken}
    return Chosen(ExemplarSet(fit, test, (), counts["duplicates"]), documents, counts, reasons[0] if reasons else "")


def _unfit(new: Exemplar, room: int, taken: list[Exemplar], most: int) -> str | None:
    """Why a text is no exemplar, a name of `COUNTS`."""
    if len(new.tokens) > room:
        return "too_long"
    if not new.activations.max() > 0.0:
        return "silent"
    if len(taken) >= most:
        return "beyond"
    return "duplicates" if is_duplicate(new, taken) else None


def _split(
    texts: tuple[PublishedText, ...], taken: list[Exemplar], share: float, seed: int
) -> tuple[tuple[Exemplar, ...], tuple[Exemplar, ...]]:
    """Fit and test, each strongest first."""
    if all(text.which in ("fit", "test") for text in texts):
        test = {one.window for one in taken if texts[one.window].which == "test"}
    else:
        ranked = sorted(taken, key=lambda one: _rank(one, seed))
        n = min(max(round(share * len(taken)), 1), max(len(taken) - 1, 0))
        test = {one.window for one in ranked[:n]}
    sides = ([one for one in taken if (one.window in test) == side] for side in (False, True))
    fit, held = (tuple(side) for side in sides)
    return fit, held


def _rank(one: Exemplar, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}:{one.tokens}".encode()).digest()
