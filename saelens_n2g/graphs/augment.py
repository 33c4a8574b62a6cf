"""Augment: more examples by replacing important tokens with likely others, each verified by the subject.

Foote et al. 2023, section 3, "Augment"; verification after equation 4 of the follow-up (arXiv 2305.19911): a new text
counts only if the unit keeps enough of its strength on the key token. Who proposes is an `Augmenter` (`augmenters.py`).
"""

from typing import NamedTuple

from saelens_n2g.graphs.prune import Pruned
from saelens_n2g.graphs.questions import Fit, Masked, Substitute, Tokens, ask_activations, ask_substitutes


class Variant(NamedTuple):
    """A pruned text with one word replaced, on which the unit keeps enough of its strength."""

    tokens: Tokens
    key: int
    activation: float
    """On the key token."""


def augment(pruned: Pruned, positions: list[int], *, threshold: float, longest: int) -> Fit[list[Variant]]:
    """Variants of `pruned` with the token at each of `positions` replaced in turn.

    Kept when the activation on the key token is at least `threshold` (in the subject's units); texts that come up
    twice are kept once. What follows the key token is left out: it cannot change the activation there. A new word
    may be more tokens than the old one; a text of more than `longest` tokens is dropped, since the subject's
    context may not hold it.
    """
    head = pruned.tokens[: pruned.key + 1]
    proposals = yield from ask_substitutes([Masked(head, position) for position in positions])
    texts: dict[Tokens, int] = {}
    for substitute in (s for found in proposals for s in found):
        tokens = (*head[: substitute.start], *substitute.replacement, *head[substitute.stop :])
        if tokens != head and len(tokens) <= longest:
            texts.setdefault(tokens, _moved(pruned.key, substitute))
    if not texts:
        return []
    answers = yield from ask_activations(list(texts), [[key] for key in texts.values()])
    return [
        Variant(tokens, key, float(activation))
        for (tokens, key), (activation,) in zip(texts.items(), answers, strict=True)
        if activation >= threshold
    ]


def _moved(key: int, substitute: Substitute) -> int:
    """Where the key token is after the replacement; the last token of the new word if it was replaced itself."""
    if substitute.start <= key < substitute.stop:
        return substitute.start + len(substitute.replacement) - 1
    return key + len(substitute.replacement) - (substitute.stop - substitute.start)
