"""Answers in files of their own: where, and whether what is there is still what was asked for."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

from saelens_n2g.autointerp.excerpts import Evidence
from saelens_n2g.errors import ArtefactError
from saelens_n2g.jobs.artefacts import read_json, write_json


@runtime_checkable
class Keepable(Protocol):
    """What is kept of a unit."""

    @property
    def whole(self) -> bool:
        """Whether nothing of it failed; what did is tried again."""
        ...

    def as_json(self) -> dict[str, Any]:
        """JSON values."""
        ...


Answered = TypeVar("Answered", bound=Keepable)
Read = TypeVar("Read")


def file_of(folder: Path, unit: Evidence) -> Path:
    """The file of a unit."""
    return folder / unit.run / f"{unit.name.replace('/', '_')}.json"


def known(path: Path, key: str) -> Any:
    """What an earlier run stored for this key; None for anything else. Raises `ArtefactError` for a damaged file."""
    if not path.is_file():
        return None
    stored = read_json(path)
    if not isinstance(stored, dict) or stored.get("key") != key:
        return None
    if not isinstance(stored.get("value"), dict):
        raise ArtefactError(f"file {path}", "a kept answer", "none in it")
    return stored["value"]


def keep(path: Path, key: str, value: Any) -> None:
    """Store what `known` finds."""
    write_json(path, {"key": key, "value": value})


def understood(path: Path, read: Callable[[Any], Read], stored: Any) -> Read:
    """What `read` makes of a stored value. Raises `ArtefactError` where a field of it is amiss."""
    try:
        return read(stored)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ArtefactError(f"file {path}", "a kept answer", repr(error)) from error


def answer(
    path: Path, key: str, read: Callable[[Any], Answered], make: Callable[[], Answered], *, store: bool
) -> Answered:
    """What is in its file and whole, else made now and kept there, unless told not to."""
    stored = known(path, key)
    if stored is not None and (found := understood(path, read, stored)).whole:
        return found
    made = make()
    if store:
        keep(path, key, made.as_json())
    return made
