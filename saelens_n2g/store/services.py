"""Services: what is kept of a unit, as the JSON that is sent.

DeepDecipher's names and fields where it has them (`neuron2graph`, `neuroscope`, and `explanation` and `score` of its
`neuron_explainer`), with floats where it had eight bits, and more beside them; docs/formats.md lists every field.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from saelens_n2g.graphs.condensed import LayerNode, condense
from saelens_n2g.graphs.graph import Graph
from saelens_n2g.graphs.similarity import words_of

SETS = ("fit", "test")
"""Exemplars that are kept. The random windows are the same for every unit and mostly quiet."""


def neuron2graph(graph: Graph, dot: str | None = None) -> dict[str, Any]:
    """The graph: DeepDecipher's fields of the condensed graph, and the trie, which predicts and is drawn.

    dot: the graph as DOT text where it is known.
    """
    layered = condense(graph)
    place = {node.key: i for i, node in enumerate(layered.nodes)}
    required: list[list[int]] = [[] for _ in layered.nodes]
    for edge in layered.edges:
        required[place[edge.target]].append(place[edge.source])
    first, starts = 0, []
    for part in layered.components:
        starts.append(first)
        first += len(part)
    trie = graph.to_dict()
    trie.pop("provenance")
    return {
        "graph": {
            "subgraph_indices": starts,
            "graph": [{**_node(node), "required": required[i]} for i, node in enumerate(layered.nodes)],
        },
        "edges": [[place[edge.source], place[edge.target], edge.fewest, edge.most] for edge in layered.edges],
        "graphviz": graph.to_dot() if dot is None else dot,
        "text": graph.to_text(),
        "trie": trie,
    }


def _node(node: LayerNode) -> dict[str, Any]:
    return {
        "token": node.text,
        "importance": node.importance,
        "depth": node.depth,
        "activation": node.activation,
        "fires": None if node.fires is None else list(node.fires),
        "quiet": None if node.quiet is None else list(node.quiet),
    }


def graph_of(value: Mapping[str, Any]) -> Graph:
    """The graph in a body of `neuron2graph`, without its provenance. Raises `ArtefactError`."""
    return Graph.from_dict({**value["trie"], "provenance": {}})


def tokens_of(graph: Graph) -> dict[tuple[int, str], float]:
    """What the unit is found by: (role, normal form of a token) -> strength."""
    return {(int(role), word): strength for (role, word), (_, strength) in words_of(graph).items()}


def drawing(svg: str) -> dict[str, Any]:
    """The graph as it is drawn, its strongest part."""
    return {"svg": svg}


def neuroscope(layer: int, exemplars: Mapping[str, Any], graph: Graph | None) -> dict[str, Any]:
    """Exemplars in DeepDecipher's fields, with what the graph predicts on each token, as a share of the maximum.

    `exemplars` is the JSON of an exemplar file (docs/formats.md). Raises `KeyError`, `TypeError` or `ValueError` if it
    is not whole.
    """
    maximum = float(exemplars["max_activation"])
    texts = [_text(which, one, maximum, graph) for which in SETS for one in exemplars[which]]
    return {"neuron_index": {"layer": layer, "neuron": index_of(exemplars["unit"])}, "texts": texts}


def _text(which: str, one: Mapping[str, Any], maximum: float, graph: Graph | None) -> dict[str, Any]:
    activations = [float(a) for a in one["activations"]]
    if not len(activations) == len(one["tokens"]) == len(one["ids"]) or not activations:
        raise ValueError(f"window {one['window']}: as many tokens as activations are expected")
    predicted = None if graph is None else [round(float(p), 4) for p in graph.predict(one["ids"])]
    return {
        "min_range": 0.0,
        "max_range": maximum,
        "min_activation": min(activations),
        "max_activation": max(activations),
        "data_index": one["window"],
        "max_activating_token_index": activations.index(max(activations)),
        "tokens": one["tokens"],
        "activations": activations,
        "ids": one["ids"],
        "set": which,
        "document": one["document"],
        "predicted": predicted,
    }


def logits(effects: Mapping[str, Any]) -> dict[str, Any]:
    """What the unit does to the next token directly; `effects` is the JSON of a file of logit effects.

    Raises `KeyError`, `TypeError` or `ValueError` if it is not whole.
    """

    def tokens(side: str) -> list[dict[str, Any]]:
        return [
            {"id": int(one["id"]), "token": str(one["token"]), "logit": float(one["logit"])} for one in effects[side]
        ]

    return {
        "raised": tokens("raised"),
        "lowered": tokens("lowered"),
        "deviation": float(effects["deviation"]),
        "skew": _float(effects["skew"]),
        "kurtosis": _float(effects["kurtosis"]),
        "vocabulary": int(effects["vocabulary"]),
        "positions": int(effects["positions"]),
    }


def explanation(unit: Mapping[str, Any]) -> dict[str, Any]:
    """What is said of the unit, and how well it predicts: the graph first, then the tables of counts.

    `score` is the graph's correlation on all test text; null where it is undefined.
    """
    scores, counts = unit["scores"], unit["counts"]
    score = scores.get("graph", {}).get("random", {}).get("correlation")  # imports may have no such text
    each = [
        {
            "explainer": name,
            "text": unit["text"] if name == "graph" else None,
            "scores": scores[name],
            "counts": counts[name],
        }
        for name in sorted(scores, key=lambda name: (name != "graph", name))
    ]
    return {"explanation": unit["text"], "score": score, "explanations": each}


def statistics(unit: Mapping[str, Any], skipped: Sequence[str]) -> dict[str, Any]:
    """Everything else that is known of the unit in numbers, and `figures`, by which lists are sorted."""
    rest = {name: value for name, value in unit.items() if name not in skipped}
    return {**rest, "figures": figures(unit)}


def figures(unit: Mapping[str, Any]) -> dict[str, float | int | None]:
    """Values of the columns `schema.FIGURES`."""
    graph = unit["scores"].get("graph", {})
    held_out, random = graph.get("held_out", {}), graph.get("random", {})
    found: dict[str, float | int | None] = {
        "maximum": float(unit["max_activation"]),
        "density": _float(unit["density"]),
        "active": _float(unit["active"]),
        **{name: None if unit[name] is None else int(unit[name]) for name in _COUNTED},
        **{name: _float(held_out.get(name)) for name in ("precision", "recall", "f1", "auprc", "correlation")},
        "random_f1": _float(random.get("f1")),
    }
    return found


_COUNTED = ("fit_firing", "test_firing", "nodes", "paths")


def _float(value: Any) -> float | None:
    return None if value is None else float(value)


def provenance(graph: Graph | None, source: int, shared: Mapping[str, Any]) -> dict[str, Any]:
    """How this unit's graph was fitted, but for what all units of its source share; `source` is the source's number."""
    own = {} if graph is None else {k: v for k, v in graph.provenance.items() if k not in shared or shared[k] != v}
    return {"source": source, "graph": own}


def index_of(name: str) -> int:
    """The index in a unit's name, `LAYER.KIND/BASIS/INDEX`. Raises `ValueError`."""
    return int(name.rpartition("/")[2])
