"""Registry: formats in which exemplars are published, recognised by what is in a file, never by its name.

    for unit in published(Path("batch-0.jsonl.gz")): ...

A new format is one new file whose reader carries `@register(...)`, and one line in `FILES`.
"""

import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from saelens_n2g.errors import ArtefactError
from saelens_n2g.imports.files import Container, container_of, json_values, tensors_of
from saelens_n2g.imports.published import PublishedUnit, Wanted

Reader = Callable[[Any, str, Wanted], Iterator[PublishedUnit]]
"""(record, its place, which units) -> what it says. A record is a JSON value, or `files.Tensors`."""
FILES = ("neuroscope", "neuronpedia", "openai", "delphi")
"""Files of this folder that register themselves when they are imported."""


@dataclass(frozen=True)
class Format:
    """One entry of the registry."""

    name: str
    description: str
    """One line for people."""
    container: Container
    recognises: Callable[[Any], bool]
    """Whether a record is of this format, by the fields it has; what is in them is checked by `read`."""
    read: Reader


FORMATS: dict[str, Format] = {}


def register(
    name: str, description: str, recognises: Callable[[Any], bool], container: Container = "json"
) -> Callable[[Reader], Reader]:
    """Decorator that enters a reader under `name`."""

    def enter(read: Reader) -> Reader:
        assert name not in FORMATS, f"format {name!r} is registered twice"
        FORMATS[name] = Format(name, description, container, recognises, read)
        return read

    return enter


def all_formats() -> dict[str, Format]:
    """Every format by name."""
    for file in FILES:
        importlib.import_module(f"{__package__}.{file}")
    return FORMATS


def format_of(path: Path) -> Format | None:
    """The format of a file, by its first record; None where it is of none.

    Raises `ArtefactError` for what begins as JSON or safetensors and is damaged.
    """
    container = container_of(path)
    if container is None:
        return None
    value = tensors_of(path) if container == "safetensors" else next((v for _, v in json_values(path)), None)
    kinds = (kind for kind in all_formats().values() if kind.container == container)
    return next((kind for kind in kinds if kind.recognises(value)), None)


def published(path: Path, wanted: Wanted = lambda _: True, kind: Format | None = None) -> Iterator[PublishedUnit]:
    """What a file says of units, record by record. kind: its format, where it is known.

    Raises `ArtefactError` for a file of no format, a record of another one than the first, and damage.
    """
    kind = kind or format_of(path)
    if kind is None:
        raise ArtefactError(f"file {path}", f"one of the formats {', '.join(all_formats())}", "something else")
    if kind.container == "safetensors":
        yield from kind.read(tensors_of(path), f"file {path}", wanted)
        return
    for where, value in json_values(path):
        if not kind.recognises(value):
            fields = ", ".join(sorted(map(str, value))[:8]) if isinstance(value, dict) else type(value).__name__
            raise ArtefactError(where, f"a record of format {kind.name}, as the first", f"fields {fields}"[:200])
        yield from kind.read(value, where, wanted)
