"""Prune: the shortest text before the key token on which the unit still fires half as strongly.

Foote et al. 2023, section 3, "Prune": sentences after the key token's are dropped; everything before the key token
is removed and given back one token at a time until the activation on the key token has fallen by at most half.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from saelens_n2g.errors import UnitError
from saelens_n2g.exemplars import Exemplar
from saelens_n2g.graphs.questions import Fit, Tokens, ask_activations

FIRST_GROUP = 1
"""Lengths in the first group that is tried; each further group is twice as large. A third of texts need one token."""
GROUP_TOKENS = 16_384
"""Tokens of a group at most, so that no text, however long, asks for more at once."""


class Pruned(NamedTuple):
    """What is left of an exemplar."""

    tokens: Tokens
    key: int
    """Position of the key token in `tokens`."""
    activations: np.ndarray
    """On the pruned text itself, (token,); NaN where the whole exemplar is below `watch`: nobody asked there."""
    original: np.ndarray
    """On the same tokens in the whole exemplar, (token,)."""


def prune(
    exemplar: Exemplar,
    key: int,
    *,
    keep: float,
    watch: float = 0.0,
    ends_sentence: Callable[[int], bool],
    max_after: int,
) -> Fit[Pruned]:
    """The pruned text around position `key`.

    `keep`: share of the key token's activation that must be left (the paper: 0.5). Lengths are tried in growing
    groups, one forward pass each, and the shortest that suffices is taken, as if tried one by one. `max_after`
    bounds how many tokens of the key token's sentence are kept after it; of these, what follows the last token with
    an activation of at least `watch` (in the whole exemplar) is left out, because it cannot change anything before
    it. Raises `UnitError` if even the whole text gives less than `keep`, which happens only when the stored
    activations do not belong to this subject.
    """
    stop = _sentence_end(exemplar.tokens, key, ends_sentence, max_after)
    watched = [j for j in range(stop) if j == key or exemplar.activations[j] >= watch]
    stop, before = watched[-1] + 1, [j for j in watched if j <= key]
    target = keep * float(exemplar.activations[key])
    tried, group = 0, FIRST_GROUP
    while tried <= key:
        lengths = range(tried + 1, min(tried + _fitting(tried, group), key + 1) + 1)
        starts = [key + 1 - n for n in lengths]
        places = [[j - start for j in before if j >= start] for start in starts]
        answers = yield from ask_activations([exemplar.tokens[start : key + 1] for start in starts], places)
        for start, at, values in zip(starts, places, answers, strict=True):
            if values[-1] >= target:
                tokens = exemplar.tokens[start:stop]
                activations = np.full(len(tokens), np.nan, dtype=np.float32)
                activations[at] = values
                if after := [j - start for j in watched if j > key]:
                    activations[after] = (yield from ask_activations([tokens], [after]))[0]
                return Pruned(tokens, key - start, activations, exemplar.activations[start:stop])
        tried, group = lengths[-1], group * 2
    found = float(answers[-1][-1])
    raise UnitError("pruning", f"at least {target:.4g} on the key token of the whole text", f"{found:.4g}")


def _fitting(tried: int, group: int) -> int:
    """How many of the `group` next lengths make no more than `GROUP_TOKENS` tokens, one at least."""
    return max(1, min(group, GROUP_TOKENS // (tried + group)))


def _sentence_end(tokens: Tokens, key: int, ends_sentence: Callable[[int], bool], max_after: int) -> int:
    """Where to cut after the key token: behind the token that ends its sentence."""
    stop = key + 1
    while stop < len(tokens) and stop - key <= max_after and not ends_sentence(tokens[stop - 1]):
        stop += 1
    return stop
