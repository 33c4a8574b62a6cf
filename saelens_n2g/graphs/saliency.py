"""Saliency: how much of the activation on token j goes when token k before it is masked.

Foote et al. 2023, section 3, "Saliency": importance = 1 - masked / original, here clipped to [0, 1] and safe where
a feature is exactly zero: a token without activation has no importance to give (NaN column).
"""

import numpy as np

from saelens_n2g.graphs.questions import Fit, Tokens, ask_activations


def saliency(tokens: Tokens, activations: np.ndarray, targets: list[int], mask_id: int) -> Fit[np.ndarray]:
    """Importance matrix (token k, target column), k < target; everything else, also the diagonal, is 0.

    `targets` are the positions whose columns are wanted. One row per masked token serves all targets after it.
    A target with activation <= 0 gets a column of NaN.
    """
    last = max(targets)
    rows = [(*tokens[:k], mask_id, *tokens[k + 1 : last + 1]) for k in range(last)]
    masked = yield from ask_activations(rows)
    out = np.zeros((len(tokens), len(targets)), dtype=np.float64)
    for column, j in enumerate(targets):
        whole = float(activations[j])
        if whole <= 0.0:
            out[:, column] = np.nan
            continue
        for k in range(j):
            out[k, column] = min(max(1.0 - float(masked[k][j]) / whole, 0.0), 1.0)
    return out
