"""Shares of the gap with intervals over prompts.

    closed(nothing, found, seed=0)               # 1: the counterfactual run; below 0: farther from it than nothing
    apart(nothing, a, b, seed=0)                 # closed by a - closed by b, over the same prompts

Both are ratios of sums over prompts, so prompts with a large gap weigh more, as in the mean KL. The intervals say what
other prompts of the same kind might have given. They say nothing of other dictionaries, seeds or layers, and with a
dozen of prompts percentile intervals are somewhat too narrow.
"""

from saelens_n2g.causal.patching import Measured
from saelens_n2g.scoring import Summary, summarise_ratio


def closed(nothing: Measured, found: Measured, *, seed: int) -> Summary:
    """1 - KL with the swapped features / KL of the plain run, with its 95 % bootstrap interval."""
    return apart(nothing, found, nothing, seed=seed)


def apart(nothing: Measured, a: Measured, b: Measured, *, seed: int) -> Summary:
    """What `a` closes more than `b`, with its paired 95 % bootstrap interval: prompts are resampled, each with all of
    its three values."""
    parts = [y - x for x, y in zip(a.kls, b.kls, strict=True)]
    return summarise_ratio(parts, nothing.kls, seed=seed)
