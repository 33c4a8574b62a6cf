"""Neuroscope's texts as DeepDecipher serves them (Garde et al. 2023; `/api/{model}/neuroscope/{layer}/{neuron}`).

    {"data": {"neuron_index": {"layer", "neuron"}, "texts": [{"tokens", "activations", "max_range", ...}]}}

The envelope may be missing. A store of this package serves the same fields, and with them `ids` and the `set`.
"""

from collections.abc import Iterator
from typing import Any

from saelens_n2g.errors import ArtefactError
from saelens_n2g.imports.formats import register
from saelens_n2g.imports.published import TEXTS, PublishedUnit, Wanted, integer, list_of, number, text_of


def _payload(value: Any) -> Any:
    return value["data"] if isinstance(value, dict) and "data" in value and "texts" not in value else value


def _recognises(value: Any) -> bool:
    found = _payload(value)
    return isinstance(found, dict) and {"neuron_index", "texts"} <= found.keys()


@register("neuroscope", "Neuroscope's texts in DeepDecipher's JSON", _recognises)
def read_neuroscope(value: Any, where: str, wanted: Wanted) -> Iterator[PublishedUnit]:
    """One unit a record. Raises `ArtefactError` that names the text."""
    found = _payload(value)
    place = found["neuron_index"]
    if not isinstance(place, dict) or not {"layer", "neuron"} <= place.keys():
        raise ArtefactError(f"{where}, neuron_index", "`layer` and `neuron`", repr(place)[:60])
    index = integer(f"{where}, neuron", place["neuron"])
    if not wanted(index):
        return
    texts, ranges = [], []
    given = list_of(where, "texts", found["texts"])
    if len(given) > TEXTS:
        raise ArtefactError(where, f"at most {TEXTS} texts", str(len(given)))
    for at, one in enumerate(given):
        place_of = f"{where}, text {at}"
        if not isinstance(one, dict):
            raise ArtefactError(place_of, "an object", type(one).__name__)
        which = one["set"] if one.get("set") in ("fit", "test") else "top"
        texts.append(text_of(place_of, one.get("tokens"), one.get("activations"), which=which, ids=one.get("ids")))
        if one.get("max_range") is not None:
            ranges.append(number(f"{place_of}, max_range", one["max_range"]))
    yield PublishedUnit(
        where, integer(f"{where}, layer", place["layer"]), index, "", tuple(texts), max(ranges, default=None)
    )
