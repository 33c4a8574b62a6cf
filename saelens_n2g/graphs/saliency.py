"""Saliency: how much of the activation on token j goes when token k before it is masked.

Foote et al. 2023, section 3, "Saliency": importance = 1 - masked / original, here clipped to [0, 1] and safe where
a feature is exactly zero: a token without activation has no importance to give (NaN column).
"""

from collections.abc import Mapping

import numpy as np

from saelens_n2g.graphs.questions import Fit, Tokens, ask_activations

ROUND_TOKENS = 16_384
"""Tokens asked for at once at most; a longer matrix takes several rounds."""


def saliency(
    tokens: Tokens, activations: np.ndarray | Mapping[int, float], targets: list[int], mask_id: int
) -> Fit[np.ndarray]:
    """Importance matrix (token k, target column), k < target; everything else, also the diagonal, is 0.

    `activations` are those of the clean text, read at `targets` only: the positions whose columns are wanted. One row
    per masked token serves all targets after it. A target with activation <= 0 gets a column of NaN.
    """
    whole = np.array([float(activations[j]) for j in targets])
    out = np.zeros((len(tokens), len(targets)), dtype=np.float64)
    masked = range(max(targets))
    step = max(1, ROUND_TOKENS // len(tokens))
    for first in range(0, len(masked), step):
        some = masked[first : first + step]
        columns = [[c for c, j in enumerate(targets) if j > k] for k in some]
        ends = [max(targets[c] for c in after) + 1 for after in columns]
        answers = yield from ask_activations(
            [(*tokens[:k], mask_id, *tokens[k + 1 : end]) for k, end in zip(some, ends, strict=True)],
            [[targets[c] for c in after] for after in columns],
        )
        for k, after, values in zip(some, columns, answers, strict=True):
            with np.errstate(divide="ignore", invalid="ignore"):
                out[k, after] = np.clip(1.0 - values / whole[after], 0.0, 1.0)
    out[:, whole <= 0.0] = np.nan
    return out
