"""Detection and fuzzing: does an excerpt fire, are these the tokens? Computed from any predictor, after Paulo et al.
2024 (arXiv 2410.13928), who ask a language model both.

Detection: the items are excerpts, true where a token fires; a predictor answers with its highest prediction. Fuzzing:
the items are excerpts with highlights, the firing tokens (true) or as many others (false), each excerpt that fires and
has enough quiet tokens giving one of both; a predictor answers with its mean prediction on the highlights. An answer of
at least the firing threshold is a yes.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from saelens_n2g.autointerp.excerpts import Excerpt
from saelens_n2g.scoring import confusion, firing


class Answers(NamedTuple):
    """How well items are told apart; None where there are none of one sort, or for F1 nothing true and no yes."""

    balanced_accuracy: float | None
    f1: float | None
    auc: float | None
    """Chance that a true item gets more than a false one, ties counting half."""
    true: int
    """Items that are true."""
    false: int


def answers(true: Bool[np.ndarray, "item"], values: Float[np.ndarray, "item"], threshold: float) -> Answers:
    """Scores of the values given to items."""
    said = firing(values, threshold)
    counts = confusion(true, said)
    n, m = int(true.sum()), int((~true).sum())
    whole = 2 * counts.tp + counts.fp + counts.fn
    both = n > 0 and m > 0
    return Answers(
        balanced_accuracy=(counts.tp / n + counts.tn / m) / 2 if both else None,
        f1=2 * counts.tp / whole if whole else None,
        auc=_auc(values[true], values[~true]) if both else None,
        true=n,
        false=m,
    )


def _auc(high: Float[np.ndarray, "n"], low: Float[np.ndarray, "m"]) -> float:
    """Share of pairs in the right order; ties count half (Mann and Whitney 1947)."""
    ordered = np.sort(low)
    below, upto = (np.searchsorted(ordered, high, side=side) for side in ("left", "right"))
    return float((below + upto).sum() / (2 * high.size * low.size))


def detection(excerpts: Sequence[Excerpt], predicted: Sequence[np.ndarray], threshold: float) -> Answers:
    """Which excerpts have a firing token, told by the highest prediction in each."""
    true = np.array([bool(firing(e.activations, threshold).any()) for e in excerpts], dtype=np.bool_)
    return answers(true, np.array([p.max() for p in predicted], dtype=np.float64), threshold)


class Highlights(NamedTuple):
    """An excerpt with marks on some tokens."""

    excerpt: Excerpt
    marks: np.ndarray
    """Bool (token,): which tokens are marked."""
    true: bool
    """Whether they are the ones that fire."""


def highlighted(excerpts: Sequence[Excerpt], threshold: float, seed: int) -> list[Highlights]:
    """Each excerpt that fires, once with the firing tokens marked and once with as many quiet ones drawn at random.

    Excerpts with fewer quiet tokens than firing ones are left out. The draw depends on seed and window alone.
    """
    found: list[Highlights] = []
    for one in excerpts:
        fires = firing(one.activations, threshold)
        quiet = np.flatnonzero(~fires)
        n = int(fires.sum())
        if not 0 < n <= quiet.size:
            continue
        moved = np.zeros(fires.size, dtype=np.bool_)
        moved[np.random.default_rng([seed, abs(one.window)]).choice(quiet, n, replace=False)] = True
        found += [Highlights(one, fires, True), Highlights(one, moved, False)]
    return found


def fuzzing(excerpts: Sequence[Excerpt], predicted: Sequence[np.ndarray], threshold: float, seed: int) -> Answers:
    """Which highlights are right, told by the mean prediction on the marked tokens."""
    known = {id(e): p for e, p in zip(excerpts, predicted, strict=True)}
    items = highlighted(excerpts, threshold, seed)
    values = np.array([known[id(item.excerpt)][item.marks].mean() for item in items], dtype=np.float64)
    return answers(np.array([item.true for item in items], dtype=np.bool_), values, threshold)
