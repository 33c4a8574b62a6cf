"""The method `suffix`: Neuron to Graph as Gao et al. 2024 simplify it (arXiv 2406.04093, section 4.3).

Theirs is the code in openai/sparse_autoencoder, `explanations.py`. Of each exemplar the text up to the key token is
taken; the shortest end of it that keeps half of the activation; if it no longer does behind a padding token, it holds
at the start of a text only; each token before the key token is replaced by the padding token, and becomes a wildcard
if less than half of the activation goes with it. What is left is one path of exact tokens. No sentences, no other
activating tokens, no augmentation, no case folding.

Where this differs from that code, and why:

- Whatever matches there is a firing, however small the stored value. A graph fires from 0.5 on, so an end holds the
  activation on the shortest text as a share of the unit's maximum, but at least `activation_threshold`; and exemplars
  below that threshold are passed over, as they show no firing.
- Their search returns at the first, that is the shortest, match, where a graph takes the one that reaches furthest.
  A path that begins like a shorter one (wildcards included) is therefore not entered: it could match only where the
  shorter one does, which there is all that counts. Its example is added to the shorter one's end. Of two other paths
  that match at one place the longer gives the value here. Whether the unit fires is the same either way.
- Their search follows an exact token and never comes back for the wildcard beside it; a graph tries both, and so do
  the figures of that method that `benchmarks/n2g_peer.py` shows.
- The key token is never a wildcard, and wildcards before the first token that matters are left out, unless the path
  is tied to the start: there they say how far away it is, here only that the text is long enough.
- The subject's BOS, if it has one, stands in front of every text that is tried; there none does.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from saelens_n2g.errors import InputError, UnitError
from saelens_n2g.exemplars import Exemplar
from saelens_n2g.graphs.elements import IGNORE, START
from saelens_n2g.graphs.evidence import Evidence
from saelens_n2g.graphs.graph import Graph, Node
from saelens_n2g.graphs.methods import register
from saelens_n2g.graphs.paper import FitContext
from saelens_n2g.graphs.prune import prune
from saelens_n2g.graphs.questions import Fit, Tokens, ask_activations, together
from saelens_n2g.graphs.saliency import saliency

Path = list[tuple[int, float]]
"""(token, wildcard or start, importance), key token first."""


@dataclass(frozen=True)
class SuffixOptions:
    """Settings of the method; the defaults are those of the published code."""

    keep: float = 0.5
    """Share of the key token's activation that the shortest text must leave, also behind a padding token."""
    importance_threshold: float = 0.5
    """Share of the shortest text's activation that must go with a token for it to be entered as itself."""
    activation_threshold: float = 0.5
    """Normalised activation from which an exemplar is fitted to, and the least that a path predicts."""

    def __post_init__(self) -> None:
        for name in ("keep", "importance_threshold", "activation_threshold"):
            value = getattr(self, name)
            if not 0.0 < value <= 1.0:
                raise InputError(f"option {name}", "a share in (0, 1]", repr(value))


@register("suffix", "Gao et al. 2024: shortest suffix, saliency of the key token, exact tokens", SuffixOptions)
def fit_suffix(unit: str, evidence: Evidence, context: FitContext, options: SuffixOptions | None = None) -> Fit[Graph]:
    """A fit that ends with the unit's graph; `evidence.text` is not read.

    Raises `UnitError` if the unit has no maximum above 0 or no exemplar reaches the activation threshold.
    """
    options = options or SuffixOptions()
    maximum = evidence.max_activation
    if not maximum > 0.0:
        raise UnitError(f"unit {unit}", "a maximum activation > 0", f"{maximum:.4g}")
    floor = options.activation_threshold * maximum
    firing = [exemplar for exemplar in evidence.exemplars if float(exemplar.activations[exemplar.peak]) >= floor]
    if not firing:
        found = f"{len(evidence.exemplars)} below it"
        raise UnitError(f"unit {unit}", f"an exemplar with activation >= {floor:.4g}", found)
    graph = Graph(unit, float(maximum))
    paths = yield from together([_path(exemplar, context, options) for exemplar in firing])
    for path, activation in sorted(paths, key=lambda item: len(item[0])):
        share = min(max(activation / maximum, options.activation_threshold), 1.0)
        path[0] = (path[0][0], share)
        known = covering(graph, [element for element, _ in path])
        graph.add(path if known is None else [(e, path[i][1] if e >= 0 else 0.0) for i, e in enumerate(known)], share)
    graph.name_tokens(context.string)
    graph.provenance = {
        "method": "suffix",
        "options": asdict(options),
        "exemplars": len(firing),
        "mask": context.mask_id,
        **context.provenance,
    }
    return graph


def _path(exemplar: Exemplar, context: FitContext, options: SuffixOptions) -> Fit[tuple[Path, float]]:
    """The one path of an exemplar, and the activation on the key token of its shortest text."""
    pruned = yield from prune(
        exemplar,
        exemplar.peak,
        keep=options.keep,
        watch=math.inf,
        ends_sentence=context.ends_sentence,
        max_after=0,
    )
    tokens, key = pruned.tokens, pruned.key
    activation, original = float(pruned.activations[key]), float(pruned.original[key])
    padded, importance = yield from together(
        [
            _activation_on_key((context.mask_id, *tokens)),
            saliency(tokens, {key: activation}, [key], context.mask_id),
        ]
    )
    path: Path = [(tokens[key], 1.0)]
    for k in range(key - 1, -1, -1):
        matters = importance[k, 0] >= options.importance_threshold
        path.append((tokens[k] if matters else IGNORE, float(importance[k, 0])))
    if float(padded[0]) < options.keep * original:
        path.append((START, 1.0))
    while path[-1][0] == IGNORE:
        path.pop()
    return path, activation


def _activation_on_key(tokens: Tokens) -> Fit[np.ndarray]:
    """The unit's activation on the last token, as an array of one value."""
    return (yield from ask_activations([tokens], [[len(tokens) - 1]]))[0]


def covering(graph: Graph, path: Sequence[int]) -> list[int] | None:
    """The shortest path of `graph` that matches wherever `path` does and is shorter, the most exact of several.

    `path` holds tokens, wildcards and perhaps a start at its end. Of two equally long paths neither covers the other:
    where both match, the more exact one counts anyway.
    """
    level: list[tuple[list[int], dict[int, Node]]] = [([], graph.roots)]
    for element in path[:-1]:
        below: list[tuple[list[int], dict[int, Node]]] = []
        for prefix, nodes in level:
            for known in dict.fromkeys((element, IGNORE)):
                if known not in nodes:
                    continue
                if nodes[known].end is not None:
                    return [*prefix, known]
                below.append(([*prefix, known], nodes[known].children))
        level = below
    return None
