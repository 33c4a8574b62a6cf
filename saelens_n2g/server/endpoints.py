"""Endpoints: what may be asked of the API. One declaration for reading requests and for describing them."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import parse_qsl

from saelens_n2g.errors import InputError
from saelens_n2g.server.problems import Problem
from saelens_n2g.store.grammar import MOST_LETTERS
from saelens_n2g.store.match import FIRES, MOST_PREDICTED, MOST_TOKENS, SORTS
from saelens_n2g.store.reader import MOST, PLACE
from saelens_n2g.store.schema import FIGURES
from saelens_n2g.store.search import STRENGTH

MOST_QUERY = 16_384
"""Bytes behind the question mark."""
MOST_TEXT = 10_000
"""Letters of a pasted text."""
Level = Literal["model", "layer", "unit"]


@dataclass(frozen=True, slots=True)
class Parameter:
    """Something behind the question mark."""

    name: str
    kind: Literal["integer", "number", "string", "boolean"]
    what: str
    """For people."""
    default: Any = None
    required: bool = False
    least: float | None = None
    most: float | None = None
    """Of numbers their bounds, of text its length."""
    choices: tuple[str, ...] = ()

    def read(self, text: str) -> Any:
        """The value. Raises `Problem` (400)."""
        value: Any = text
        try:
            if self.kind == "integer":
                value = int(text) if re.fullmatch(r"-?\d{1,18}", text, re.ASCII) else None
            elif self.kind == "number":
                value = float(text) if text.isascii() else None
                value = value if value is not None and math.isfinite(value) else None
            elif self.kind == "boolean":
                value = {"true": True, "1": True, "false": False, "0": False}.get(text)
        except ValueError:
            value = None
        size = len(text) if self.kind == "string" else value
        outside = value is not None and self.kind != "boolean" and (
            (self.least is not None and size < self.least) or (self.most is not None and size > self.most)
        )  # fmt: skip
        if value is None or outside or (self.choices and value not in self.choices):
            shown = text if len(text) <= 80 else text[:80] + "..."
            raise bad(f"parameter {self.name}", self.expected, repr(shown))
        return value

    @property
    def expected(self) -> str:
        """What it must be, in words."""
        if self.choices:
            return f"one of {', '.join(self.choices)}"
        if self.kind == "boolean":
            return "true or false"
        what = {"integer": "an integer", "number": "a number", "string": "text"}[self.kind]
        unit = " characters" if self.kind == "string" else ""
        low = "" if self.least is None else f" of at least {self.least:g}{unit}"
        high = "" if self.most is None else f"{' and' if low else ' of'} at most {self.most:g}{unit}"
        return what + low + high

    def schema(self) -> dict[str, Any]:
        """As OpenAPI has it."""
        found: dict[str, Any] = {"type": self.kind}
        low, high = ("minLength", "maxLength") if self.kind == "string" else ("minimum", "maximum")
        for name, value in ((low, self.least), (high, self.most), ("default", self.default)):
            if value is not None:
                found[name] = value
        return {**found, "enum": list(self.choices)} if self.choices else found


def bad(thing: str, expected: str, found: str) -> Problem:
    """400."""
    return Problem.of(400, InputError(thing, expected, found))


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A service at some levels."""

    service: str
    levels: tuple[Level, ...]
    what: str
    parameters: tuple[Parameter, ...] = ()


LIMIT = Parameter("limit", "integer", "How many to send at most.", 50, least=0, most=MOST)
MANY = Parameter("limit", "integer", "How many to send at most.", MOST, least=0, most=MOST)
OFFSET = Parameter("offset", "integer", "How many to pass over.", 0, least=0, most=10**9)
_NAME = 200
BASIS = Parameter("basis", "string", "Units of this basis only.", least=1, most=_NAME)
LAYER = Parameter("layer", "integer", "Units of this layer only.", least=0, most=10**6)
QUERY = Parameter(
    "query",
    "string",
    "Which tokens units name: activating:, important: or any:TOKEN; layer=1..5, basis=NAME; and, or, not, parentheses, "
    "a comma for and; tokens with spaces or marks in double quotes.",
    required=True,
    least=1,
    most=MOST_LETTERS,
)
BASES = Parameter("bases", "string", "Of these bases only, with commas between.", least=1, most=2000)
_TEXT = (
    Parameter("text", "string", f"What to run graphs on, at most {MOST_TOKENS} tokens.", least=1, most=MOST_TEXT),
    Parameter("ids", "string", "Or token ids, without BOS, with commas between.", least=1, most=MOST_TEXT),
)
_ORDER = Parameter("order", "string", "Largest or smallest first.", "descending", choices=("descending", "ascending"))
_BOUNDS = tuple(
    Parameter(f"{side}_{name}", "number", f"Only units whose {name} is at {word} this.")
    for name in FIGURES
    for side, word in (("min", "least"), ("max", "most"))
)
ENDPOINTS = (
    Endpoint("all", ("model", "layer", "unit"), "Every service there is, each with its data or what is missing."),
    Endpoint("metadata", ("model", "layer", "unit"), "What is known of the model."),
    Endpoint(
        "neuron2graph",
        ("unit",),
        "The unit's graph: nodes and what may stand before each, DOT, text, the trie that predicts; similar units.",
    ),
    Endpoint(
        "neuron2graph-search",
        ("model",),
        "MLP neurons whose graphs name tokens, or units of the bases that the query names.",
        (
            QUERY,
            MANY,
            OFFSET,
            Parameter("sort", "string", "By place or by strength.", PLACE, choices=(PLACE, STRENGTH)),
            Parameter("bases", "string", "Where the query names no basis.", "neurons", choices=("neurons", "all")),
        ),
    ),
    Endpoint(
        "neuroscope",
        ("model", "layer", "unit"),
        "Texts on which the unit is most active; of a layer or model, units by their largest activation, ascending.",
        (MANY,),
    ),
    Endpoint("neuron_explainer", ("unit",), "What is said of the unit, and how well that predicts."),
    Endpoint("drawing", ("unit",), "The graph as SVG."),
    Endpoint(
        "logits",
        ("unit",),
        "Next tokens that the unit raises and lowers most through its direct path, in logits per unit of activation.",
    ),
    Endpoint("statistics", ("layer", "unit"), "Densities, firings, scores, sizes."),
    Endpoint("similarity", ("unit",), "Units whose graphs name the same tokens, best first."),
    Endpoint("provenance", ("unit",), "What the unit's explanation was made from, with which settings."),
    Endpoint(
        "units",
        ("model", "layer"),
        "Units with what lists are sorted by.",
        (
            Parameter("sort", "string", "By what.", PLACE, choices=(PLACE, *FIGURES)),
            _ORDER,
            LIMIT,
            OFFSET,
            BASIS,
            LAYER,
            *_BOUNDS,
        ),
    ),
    Endpoint(
        "match",
        ("model",),
        "Units whose graphs say that they fire in a text, where and by which path. No model is run.",
        (
            *_TEXT,
            BASES,
            Parameter("layers", "string", "Of these layers only, with commas between.", least=1, most=_NAME),
            Parameter(
                "at_least", "number", "Share of its maximum from which on a unit fires.", FIRES, least=0.001, most=1
            ),
            Parameter("sort", "string", "By what.", SORTS[0], choices=SORTS),
            Parameter("paths", "boolean", "Whether to say by which path.", True),
            LIMIT,
            OFFSET,
        ),
    ),
    Endpoint(
        "predict",
        ("model",),
        "What the graphs of some units predict on every token of a text, as shares of their maxima.",
        (
            *_TEXT,
            Parameter(
                "units",
                "string",
                f"Units, at most {MOST_PREDICTED}, with commas between: 3/42,3-sae/7.",
                required=True,
                least=1,
                most=4000,
            ),
        ),
    ),
)
BY_NAME = {endpoint.service: endpoint for endpoint in ENDPOINTS}
SPELLINGS = {"neuron-explainer": "neuron_explainer", "explanation": "neuron_explainer"}
"""Other names of services."""


def read_query(raw: bytes, parameters: Sequence[Parameter]) -> dict[str, Any]:
    """The values of all parameters. Raises `Problem`: 414 for a long query, 400 for what cannot be read."""
    if not raw and not any(one.required for one in parameters):
        return {one.name: one.default for one in parameters}
    if len(raw) > MOST_QUERY:
        raise Problem(414, f"query: expected at most {MOST_QUERY} bytes, found {len(raw)}")
    given = _pairs(raw)
    known = {one.name: one for one in parameters}
    for name in given:
        if name not in known:
            there = f"one of {', '.join(known)}" if known else "none"
            raise bad("parameters", there, repr(name[:80]))
    values = {}
    for name, one in known.items():
        if name in given:
            values[name] = one.read(given[name])
        elif one.required:
            raise bad(f"parameter {name}", one.expected, "nothing")
        else:
            values[name] = one.default
    return values


def _pairs(raw: bytes) -> Mapping[str, str]:
    try:
        pairs = parse_qsl(raw.decode("latin-1"), keep_blank_values=True, errors="strict", max_num_fields=100)
    except UnicodeDecodeError:
        raise bad("query", "UTF-8 in percent escapes", "other bytes") from None
    except ValueError:
        raise bad("query", "at most 100 parameters", "more") from None
    found: dict[str, str] = {}
    for name, value in pairs:
        if name in found:
            raise bad(f"parameter {name[:80]}", "it once", "it twice")
        if any("\ud800" <= letter <= "\udfff" for letter in value):
            raise bad(f"parameter {name[:80]}", "whole characters", "half of one")
        found[name] = value
    return found
