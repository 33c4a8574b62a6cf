"""Neuron records of OpenAI's automated interpretability (Bills et al. 2023), JSON of `NeuronRecord`.

{"neuron_id": {"layer_index", "neuron_index"}, "most_positive_activation_records": [{"tokens", "activations"}],
 "random_sample": [...], "random_sample_by_quantile": [[...], ...] or null, ...}
"""

from collections.abc import Iterator, Mapping
from typing import Any

from saelens_n2g.errors import ArtefactError
from saelens_n2g.imports.formats import register
from saelens_n2g.imports.published import TEXTS, PublishedUnit, Wanted, integer, list_of, text_of

TOP = "most_positive_activation_records"


def _recognises(value: Any) -> bool:
    return isinstance(value, dict) and {"neuron_id", TOP} <= value.keys()


@register("openai", "neuron records of OpenAI's automated interpretability", _recognises)
def read_openai(value: Any, where: str, wanted: Wanted) -> Iterator[PublishedUnit]:
    """One unit a record, top records first. Raises `ArtefactError` that names the record."""
    place = value["neuron_id"]
    if not isinstance(place, dict) or not {"layer_index", "neuron_index"} <= place.keys():
        raise ArtefactError(f"{where}, neuron_id", "`layer_index` and `neuron_index`", repr(place)[:60])
    index = integer(f"{where}, neuron_index", place["neuron_index"])
    if not wanted(index):
        return
    texts = []
    for which, records in _sets(value, where).items():
        for at, one in enumerate(records):
            here = f"{where}, {which} {at}"
            if not isinstance(one, dict):
                raise ArtefactError(here, "an object", type(one).__name__)
            texts.append(text_of(here, one.get("tokens"), one.get("activations"), which=which))
            if len(texts) > TEXTS:
                raise ArtefactError(where, f"at most {TEXTS} records", "more")
    yield PublishedUnit(where, integer(f"{where}, layer_index", place["layer_index"]), index, "", tuple(texts))


def _sets(value: Mapping[str, Any], where: str) -> dict[str, Any]:
    found = {"top": list_of(where, TOP, value[TOP])}
    quantiles = value.get("random_sample_by_quantile")
    for at, one in enumerate([] if quantiles is None else list_of(where, "random_sample_by_quantile", quantiles)):
        found[f"quantile {at}"] = list_of(where, f"random_sample_by_quantile[{at}]", one)
    return found | {"random": list_of(where, "random_sample", value.get("random_sample", []))}
