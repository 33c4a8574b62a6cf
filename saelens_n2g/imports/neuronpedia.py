"""Neuronpedia: features as its API gives them, and the activations of its public export.

    {"modelId", "layer", "index", "activations": [{"tokens", "values", ...}], "maxActApprox", ...}   # /api/feature/...
    {"modelId", "layer", "index", "tokens", "values", "maxValue", ...}          # a line of activations/batch-N.jsonl.gz

`layer` is the name of a source and begins with the layer's number (`20-gemmascope-res-16k`); `index` is text. Tokens
are the subject's own, as text or as its vocabulary spells them, some marks replaced (`align.MARKS`).
"""

import re
from collections.abc import Iterator
from typing import Any

from saelens_n2g.errors import ArtefactError
from saelens_n2g.imports.formats import register
from saelens_n2g.imports.published import TEXTS, PublishedText, PublishedUnit, Wanted, integer, list_of, number, text_of


def _recognises(value: Any) -> bool:
    if not isinstance(value, dict) or not {"modelId", "layer", "index"} <= value.keys():
        return False
    return "activations" in value or {"tokens", "values"} <= value.keys()


@register("neuronpedia", "features of Neuronpedia's API, activations of its export", _recognises)
def read_neuronpedia(value: Any, where: str, wanted: Wanted) -> Iterator[PublishedUnit]:
    """One unit a record, with all its texts or with one. Raises `ArtefactError` that names the activation."""
    index = integer(f"{where}, index", value["index"])
    if not wanted(index):
        return
    source = str(value["layer"])
    numbered = re.match(r"\d{1,6}(?!\d)", source)
    several = value.get("activations")
    given = [value] if several is None else list_of(where, "activations", several)
    if len(given) > TEXTS:
        raise ArtefactError(where, f"at most {TEXTS} activations", str(len(given)))
    texts = tuple(_text(one, where if several is None else f"{where}, activation {at}") for at, one in enumerate(given))
    known = value.get("maxActApprox")
    yield PublishedUnit(
        where,
        None if numbered is None else int(numbered[0]),
        index,
        source,
        texts,
        None if known is None else number(f"{where}, maxActApprox", known),
        str(value["modelId"]),
        marks=True,
    )


def _text(one: Any, where: str) -> PublishedText:
    if not isinstance(one, dict):
        raise ArtefactError(where, "an object", type(one).__name__)
    low, high = one.get("binMin"), one.get("binMax")
    binned = low is not None and high is not None and number(where, low) >= 0.0
    return text_of(where, one.get("tokens"), one.get("values"), which=f"bin {low:g} to {high:g}" if binned else "top")
