"""The method `paper`: Neuron to Graph as Foote et al. 2023 describe it (arXiv 2304.12918, section 3).

Exemplar by exemplar: prune to the shortest text that keeps the firing, measure which tokens matter, replace those
by likely others, and enter every activating token of the pruned text, and the key token of every variant, into the
trie with the tokens that matter to it. Where the authors' code does something else than their paper, the paper is
followed (docs/decisions.md).
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from saelens_n2g.errors import InputError, UnitError
from saelens_n2g.exemplars import Exemplar
from saelens_n2g.graphs.augment import augment
from saelens_n2g.graphs.graph import IGNORE, Graph
from saelens_n2g.graphs.prune import prune
from saelens_n2g.graphs.questions import Fit, Tokens, together
from saelens_n2g.graphs.saliency import saliency

Path = list[tuple[int, float]]
"""(token or wildcard, importance), activating token first."""


@dataclass(frozen=True)
class PaperOptions:
    """Settings of the method; the defaults are the paper's."""

    keep: float = 0.5
    """Share of the key token's activation that pruning must leave."""
    activation_threshold: float = 0.5
    """Normalised activation from which a token is an activating token."""
    importance_threshold: float = 0.75
    """Importance from which a token before an activating one is entered as itself, not as a wildcard."""
    max_after: int = 32
    """Tokens after the key token kept at most; the paper keeps the whole sentence."""
    augment: bool = True
    """Replace important tokens by substitutes. The graph's provenance names the augmenter."""

    def __post_init__(self) -> None:
        for name in ("keep", "activation_threshold", "importance_threshold"):
            value = getattr(self, name)
            if not 0.0 < value <= 1.0:
                raise InputError(f"option {name}", "a share in (0, 1]", repr(value))
        if self.max_after < 0:
            raise InputError("option max_after", "an integer >= 0", repr(self.max_after))


@dataclass(frozen=True)
class FitContext:
    """What a fit knows beside its exemplars."""

    mask_id: int
    """The token that stands in for a masked one."""
    ends_sentence: Callable[[int], bool]
    """Whether a token ends a sentence."""
    string: Callable[[int], str]
    """Text of a token, for graphs that are read without a tokenizer."""
    provenance: dict[str, Any]
    """Subject, basis, corpus, augmenter, seed: goes into every graph."""
    neighbours: Callable[[Sequence[int], int], Sequence[Sequence[int]]] | None = None
    """For each of some tokens the n nearest (`vocabulary.Neighbours`), for methods that try others in its place."""


def fit_paper(
    unit: str,
    max_activation: float,
    exemplars: Sequence[Exemplar],
    context: FitContext,
    options: PaperOptions | None = None,
) -> Fit[Graph]:
    """A fit that ends with the unit's graph.

    `max_activation`: the unit's maximum over the fit corpus, in the subject's units. Exemplars on which the unit
    does not reach the activation threshold are passed over. Raises `UnitError` if that leaves none.
    """
    options = options or PaperOptions()
    if not max_activation > 0.0:
        raise UnitError(f"unit {unit}", "a maximum activation > 0", f"{max_activation:.4g}")
    floor = options.activation_threshold * max_activation
    firing = [exemplar for exemplar in exemplars if float(exemplar.activations[exemplar.peak]) >= floor]
    if not firing:
        raise UnitError(f"unit {unit}", f"an exemplar with activation >= {floor:.4g}", f"{len(exemplars)} below it")
    graph = Graph(unit, float(max_activation))
    found = yield from together([_paths(exemplar, max_activation, context, options) for exemplar in firing])
    for path, activation in (item for paths in found for item in paths):
        graph.add(path, activation)
    tokens = sorted({node.token for node, _, _ in graph.walk()} - {IGNORE})
    graph.token_strings = {token: context.string(token) for token in tokens}
    graph.provenance = {
        "method": "paper",
        "options": asdict(options),
        "exemplars": len(firing),
        "mask": context.mask_id,
        **context.provenance,
    }
    return graph


def _paths(
    exemplar: Exemplar, max_activation: float, context: FitContext, options: PaperOptions
) -> Fit[list[tuple[Path, float]]]:
    """The paths of one exemplar and of its verified variants, each with the normalised activation at its end."""
    floor = options.activation_threshold * max_activation
    pruned = yield from prune(
        exemplar,
        exemplar.peak,
        keep=options.keep,
        watch=floor,
        ends_sentence=context.ends_sentence,
        max_after=options.max_after,
    )
    # A token counts as activating by what it does in the whole exemplar; the pruned text must keep `keep` of it.
    targets = [
        j
        for j in range(len(pruned.tokens))
        if j == pruned.key  # asked twice, in batches of different shape: rounding must not lose it at the threshold
        or (pruned.original[j] >= floor and pruned.activations[j] >= options.keep * pruned.original[j])
    ]
    importance = yield from saliency(pruned.tokens, pruned.activations, targets, context.mask_id)
    paths = [
        _path(pruned.tokens, j, importance[:, column], float(pruned.original[j]) / max_activation, options)
        for column, j in enumerate(targets)
    ]
    if not options.augment:
        return paths
    own = importance[:, targets.index(pruned.key)]
    matters = [k for k in range(pruned.key) if own[k] >= options.importance_threshold]
    # The pruned text may fire at half strength only; a variant is held to the same standard as the pruned text.
    loss = max(1.0, float(pruned.original[pruned.key]) / float(pruned.activations[pruned.key]))
    positions, longest = [*matters, pruned.key], len(exemplar.tokens)
    variants = yield from augment(pruned, positions, threshold=floor / loss, longest=longest)
    columns = yield from together(
        [saliency(v.tokens, {v.key: v.activation}, [v.key], context.mask_id) for v in variants]
    )
    for variant, column_of_key in zip(variants, columns, strict=True):
        activation = variant.activation * loss / max_activation
        paths.append(_path(variant.tokens, variant.key, column_of_key[:, 0], activation, options))
    return paths


def _path(
    tokens: Tokens, target: int, importance: np.ndarray, activation: float, options: PaperOptions
) -> tuple[Path, float]:
    """From `target` backwards to the furthest token that matters; the ones between that do not become wildcards."""
    activation = min(activation, 1.0)
    path = [(tokens[target], activation)]
    for k in range(target - 1, -1, -1):
        matters = importance[k] >= options.importance_threshold
        path.append((tokens[k] if matters else IGNORE, float(importance[k])))
    while path[-1][0] == IGNORE:
        path.pop()
    return path, activation
