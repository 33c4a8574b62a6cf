"""Schemas: the JSON of answers, as JSON Schema. docs/formats.md says what the fields mean."""

from collections.abc import Mapping
from typing import Any

from saelens_n2g.store.schema import FIGURES

Schema = dict[str, Any]
INTEGER: Schema = {"type": "integer"}
NUMBER: Schema = {"type": "number"}
TEXT: Schema = {"type": "string"}
ANY_OBJECT: Schema = {"type": "object"}


def optional(schema: Schema) -> Schema:
    """It, or null."""
    return {**schema, "type": [schema["type"], "null"]}


def array(items: Schema) -> Schema:
    """A list of these."""
    return {"type": "array", "items": items}


def thing(required: Mapping[str, Schema], **more: Schema) -> Schema:
    """An object that has `required` and may have `more`."""
    return {"type": "object", "properties": {**required, **more}, "required": list(required)}


def ref(name: str) -> Schema:
    """One of `COMPONENTS`."""
    return {"$ref": f"#/components/schemas/{name}"}


ADDRESS = {"basis": TEXT, "layer": INTEGER, "neuron": INTEGER}
METADATA = thing(
    {
        "name": TEXT,
        "num_layers": INTEGER,
        "layer_size": optional(INTEGER),
        "activation_function": optional(TEXT),
        "num_total_neurons": optional(INTEGER),
        "num_total_parameters": optional(INTEGER),
        "dataset": optional(TEXT),
        "available_services": array(TEXT),
    }
)
PROBLEM = thing({"type": TEXT, "title": TEXT, "status": INTEGER, "detail": TEXT})
FIGURE_VALUES = thing({name: optional(INTEGER if kind == "INTEGER" else NUMBER) for name, kind in FIGURES.items()})
NODE = thing(
    {"token": TEXT, "importance": NUMBER, "required": array(INTEGER), "depth": INTEGER},
    activation=optional(NUMBER),
    fires=optional(array(NUMBER)),
    quiet=optional(array(NUMBER)),
)
SIMILAR = thing({**ADDRESS, "similarity": NUMBER, "own": NUMBER, "other": NUMBER})
SNIPPET = thing(
    {
        "min_range": NUMBER,
        "max_range": NUMBER,
        "min_activation": NUMBER,
        "max_activation": NUMBER,
        "data_index": INTEGER,
        "max_activating_token_index": INTEGER,
        "tokens": array(TEXT),
        "activations": array(NUMBER),
    }
)
EFFECT = thing({"id": INTEGER, "token": TEXT, "logit": NUMBER})
IMPORTANT = array({"type": "array", "minItems": 2, "maxItems": 2})
"""Pairs of an address and an activation."""
LAYER = thing({"layer": INTEGER, "address": TEXT, "width": INTEGER, "units": INTEGER})
COMPONENTS: Mapping[str, Schema] = {"Metadata": METADATA, "Problem": PROBLEM}
DATA: Mapping[tuple[str, str], Schema] = {
    ("metadata", "model"): ref("Metadata"),
    ("metadata", "layer"): ref("Metadata"),
    ("metadata", "unit"): ref("Metadata"),
    ("neuron2graph", "unit"): thing(
        {
            "graph": thing({"subgraph_indices": array(INTEGER), "graph": array(NODE)}),
            "graphviz": TEXT,
            "similar": array(SIMILAR),
            "text": TEXT,
            "trie": ANY_OBJECT,
            "edges": array(array(INTEGER)),
        }
    ),
    ("neuron2graph-search", "model"): array(thing({**ADDRESS, "strength": NUMBER, "f1": optional(NUMBER)})),
    ("neuroscope", "model"): thing({"important_neurons": IMPORTANT}),
    ("neuroscope", "layer"): thing({"important_neurons": IMPORTANT, "num_neurons": INTEGER}),
    ("neuroscope", "unit"): thing(
        {"neuron_index": thing({"layer": INTEGER, "neuron": INTEGER}), "texts": array(SNIPPET)}
    ),
    ("neuron_explainer", "unit"): thing(
        {"explanation": optional(TEXT), "score": optional(NUMBER), "explanations": array(ANY_OBJECT)}
    ),
    ("drawing", "unit"): thing({"svg": TEXT}),
    ("logits", "unit"): thing(
        {
            "raised": array(EFFECT),
            "lowered": array(EFFECT),
            "deviation": NUMBER,
            "skew": optional(NUMBER),
            "kurtosis": optional(NUMBER),
            "vocabulary": INTEGER,
            "positions": INTEGER,
        }
    ),
    ("statistics", "layer"): ANY_OBJECT,
    ("statistics", "unit"): thing({"figures": FIGURE_VALUES}),
    ("similarity", "unit"): thing({"similar": array(SIMILAR)}),
    ("provenance", "unit"): thing({"source": INTEGER, "graph": ANY_OBJECT}),
    ("match", "model"): thing(
        {
            "ids": array(INTEGER),
            "tokens": array(TEXT),
            "graphs": INTEGER,
            "total": INTEGER,
            "units": array(
                thing(
                    {
                        **ADDRESS,
                        "max_activation": NUMBER,
                        "max_activating_token_index": INTEGER,
                        "fires": INTEGER,
                        "matches": array(thing({"token_index": INTEGER, "activation": NUMBER})),
                    }
                )
            ),
            "skipped": array(thing({"basis": TEXT, "layer": INTEGER})),
            "paths_left_out": INTEGER,
        }
    ),
    ("predict", "model"): thing(
        {
            "ids": array(INTEGER),
            "tokens": array(TEXT),
            "units": array(thing({**ADDRESS, "activations": optional(array(NUMBER))})),
        }
    ),
    ("units", "model"): array(thing({**ADDRESS, "failure": optional(TEXT), "figures": FIGURE_VALUES})),
    ("units", "layer"): array(thing({**ADDRESS, "failure": optional(TEXT), "figures": FIGURE_VALUES})),
}
"""Service and level -> its `data`."""
BASES = array(thing({"name": TEXT, "kind": TEXT, "title": TEXT, "layers": array(LAYER)}))
ALL = {
    "type": "object",
    "additionalProperties": {
        "type": "object",
        "properties": {"data": {}, "missing_data_types": array(TEXT)},
        "minProperties": 1,
        "maxProperties": 1,
    },
}
COUNTED = {"total": INTEGER, "limit": INTEGER, "offset": INTEGER}
