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


class Pruned(NamedTuple):
    """What is left of an exemplar."""

    tokens: Tokens
    key: int
    """Position of the key token in `tokens`."""
    activations: np.ndarray
    """On the pruned text itself, (token,)."""
    original: np.ndarray
    """On the same tokens in the whole exemplar, (token,)."""


def prune(
    exemplar: Exemplar,
    key: int,
    *,
    keep: float,
    ends_sentence: Callable[[int], bool],
    max_after: int,
) -> Fit[Pruned]:
    """The pruned text around position `key`.

    `keep`: share of the key token's activation that must be left (the paper: 0.5). Lengths are tried in growing
    groups, one forward pass each, and the shortest that suffices is taken, as if tried one by one. `max_after`
    bounds how many tokens of the key token's sentence are kept after it. Raises `UnitError` if even the whole
    text gives less than `keep`, which happens only when the stored activations do not belong to this subject.
    """
    stop = _sentence_end(exemplar.tokens, key, ends_sentence, max_after)
    target = keep * float(exemplar.activations[key])
    tried, group = 0, 2
    while tried <= key:
        lengths = range(tried + 1, min(tried + group, key + 1) + 1)
        rows = [exemplar.tokens[key + 1 - n : key + 1] for n in lengths]
        answers = yield from ask_activations(rows)
        for n, activations in zip(lengths, answers, strict=True):
            if activations[-1] >= target:
                start = key + 1 - n
                tokens = exemplar.tokens[start:stop]
                full = activations if stop == key + 1 else (yield from ask_activations([tokens]))[0]
                return Pruned(tokens, n - 1, full, exemplar.activations[start:stop])
        tried, group = lengths[-1], group * 2
    found = float(answers[-1][-1])
    raise UnitError("pruning", f"at least {target:.4g} on the key token of the whole text", f"{found:.4g}")


def _sentence_end(tokens: Tokens, key: int, ends_sentence: Callable[[int], bool], max_after: int) -> int:
    """Where to cut after the key token: behind the token that ends its sentence."""
    stop = key + 1
    while stop < len(tokens) and stop - key <= max_after and not ends_sentence(tokens[stop - 1]):
        stop += 1
    return stop
