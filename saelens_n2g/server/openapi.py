"""The description of the API as OpenAPI 3.1, out of `endpoints` and `schemas`."""

from collections.abc import Iterable
from typing import Any

from saelens_n2g import __version__
from saelens_n2g.server import schemas
from saelens_n2g.server.address import LAYER_PATTERN, place_name
from saelens_n2g.server.catalogue import Entry
from saelens_n2g.server.endpoints import ENDPOINTS, SPELLINGS, Endpoint, Parameter
from saelens_n2g.server.problems import TYPE

Json = dict[str, Any]
PROBLEMS = {
    "400": "What was asked cannot be read.",
    "404": "There is no such model, layer, unit or service, or nothing of it.",
    "405": "Another method than GET, HEAD or OPTIONS.",
    "414": "The query is too long.",
    "503": "It took too long, or too many wait; ask again.",
}
_PATHS = {
    "model": Parameter("model", "string", "Name of the model; a slash in it as %2F.", required=True, least=1),
    "layer": Parameter(
        "layer", "string", "A layer; with a hyphen and a basis behind it if not of MLP neurons.", required=True
    ),
    "unit": Parameter("unit", "integer", "Index of the unit.", required=True, least=0),
}
_ENDS = {"model": "", "layer": "/{layer}", "unit": "/{layer}/{unit}"}
_FORMS = {"layer": {"type": "string", "pattern": LAYER_PATTERN}, "unit": {"type": "integer", "minimum": 0}}


def description(root: str = "", entries: Iterable[Entry] = ()) -> Json:
    """The whole of it; `root` is what the application is mounted under, `entries` give examples of what there is."""
    paths: Json = {
        "/api": _operation("models", "All models.", schemas.thing({"models": schemas.array(schemas.ref("Metadata"))})),
        "/api/{model}": _operation("bases", "The bases of a model.", _enveloped(schemas.BASES), path=("model",)),
    }
    names = {endpoint.service: [endpoint.service] for endpoint in ENDPOINTS}
    for other, name in SPELLINGS.items():
        names[name].append(other)
    for endpoint in ENDPOINTS:
        for level in endpoint.levels:
            for name in names[endpoint.service]:
                paths[f"/api/{{model}}/{name}{_ENDS[level]}"] = _service(endpoint, level, name)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Atlas",
            "version": __version__,
            "description": "Units of language models, their graphs, texts and scores. Read only. Paths, names and the "
            "envelope are those of DeepDecipher (Garde et al. 2023); other bases than MLP neurons are named behind the "
            "layer, as in 3-sae.",
        },
        "servers": [{"url": root or "/"}],
        "paths": paths,
        "components": {"schemas": dict(schemas.COMPONENTS), "parameters": _paths(entries)},
    }


def _paths(entries: Iterable[Entry]) -> Json:
    """Parameters of paths, with the first model and layers as examples."""
    found = {
        name: {**_parameter(one, "path"), "schema": _FORMS.get(name, one.schema())} for name, one in _PATHS.items()
    }
    first = next(iter(entries), None)
    if first is not None:
        layers = [place_name(*one) for one in list(first.layers)[:3]]
        for name, values in (("model", [first.model.name]), ("layer", layers), ("unit", [0])):
            found[name]["examples"] = {f"{i}": {"value": value} for i, value in enumerate(values)}
    return found


def _service(endpoint: Endpoint, level: str, name: str) -> Json:
    path = {"model": ("model",), "layer": ("model", "layer"), "unit": ("model", "layer", "unit")}[level]
    parameters = () if level == "unit" else endpoint.parameters
    if endpoint.service == "all":
        value = schemas.ALL
    else:
        counted = schemas.COUNTED if any(one.name == "offset" for one in parameters) else {}
        value = _enveloped(schemas.DATA[endpoint.service, level], **counted)
    return _operation(f"{name}_{level}", endpoint.what, value, path=path, parameters=parameters)


def _enveloped(data: Json, **more: Json) -> Json:
    return schemas.thing({"data": data, "metadata": schemas.ref("Metadata"), **more})


def _operation(
    name: str, what: str, value: Json, *, path: tuple[str, ...] = (), parameters: tuple[Parameter, ...] = ()
) -> Json:
    given: list[Json] = [{"$ref": f"#/components/parameters/{one}"} for one in path]
    given += [_parameter(one, "query") for one in parameters]
    answers: Json = {
        "200": {
            "description": "As asked.",
            "headers": {"ETag": {"schema": {"type": "string"}}},
            "content": {"application/json": {"schema": value}},
        },
        "304": {"description": "The client has it (If-None-Match)."},
    }
    for status, said in PROBLEMS.items():
        content = {TYPE.decode(): {"schema": schemas.ref("Problem")}}
        answers[status] = {"description": said, "content": content}
    return {"get": {"operationId": name, "summary": what, "parameters": given, "responses": answers}}


def _parameter(one: Parameter, where: str) -> Json:
    return {
        "name": one.name,
        "in": where,
        "required": one.required,
        "description": one.what,
        "schema": one.schema(),
    }
