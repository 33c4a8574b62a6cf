"""Files from strangers: JSON, JSON lines, gzip, safetensors, told apart by their first bytes and read within limits.

Nothing is unpickled, and nothing is read whole but a JSON document, up to a size.
"""

import gzip
import io
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from saelens_n2g.errors import ArtefactError, InputError

LINE = 2**26
"""Bytes of one line at most, unpacked."""
WHOLE = 2**28
"""Bytes of a JSON document over several lines at most, unpacked."""
_GZIP = b"\x1f\x8b"
_HEADER = 100_000_000
"""safetensors' own limit of a header."""
Container = Literal["json", "safetensors"]


def files_in(path: Path) -> list[tuple[Path, str]]:
    """The file, or every file of a folder at any depth in order of their paths, with a name for provenance.

    Raises `InputError` where there is nothing.
    """
    if path.is_file():
        return [(path, path.name)]
    if not path.is_dir():
        raise InputError(f"file {path}", "a file or folder of exemplars", "nothing there")
    names = sorted(p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file())
    if not names:
        raise InputError(f"folder {path}", "at least one file", "none")
    return [(path / name, f"{path.name}/{name}") for name in names]


def container_of(path: Path) -> Container | None:
    """What a file is by its first bytes; None for anything else, such as text or a pickle."""
    try:
        with open(path, "rb") as handle:
            head = handle.read(9)
        if head[:2] == _GZIP:
            with gzip.open(path) as packed:
                head = packed.read(9)
            return "json" if _begins_json(head) else None
    except (OSError, EOFError, zlib.error) as error:
        raise ArtefactError(f"file {path}", "a file that can be read", str(error)) from error
    if len(head) == 9 and head[8:] == b"{" and 0 < int.from_bytes(head[:8], "little") <= _HEADER:
        return "safetensors"
    return "json" if _begins_json(head) else None


def _begins_json(head: bytes) -> bool:
    return head.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] in (b"{", b"[")


# --- JSON ---------------------------------------------------------------------------------------------------------


def json_values(path: Path) -> Iterator[tuple[str, Any]]:
    """The records of a file with their places: lines, elements of a list, or one document; plain or gzipped.

    Lines are read one at a time. Raises `ArtefactError` for what is not JSON, not UTF-8, too long or cut short, and for
    NaN and infinities, which are no JSON.
    """
    try:
        with open(path, "rb") as plain:
            packed = plain.read(2) == _GZIP
        with gzip.open(path) if packed else open(path, "rb") as handle:
            yield from _values(path, handle)
    except (OSError, EOFError, zlib.error) as error:
        raise ArtefactError(f"file {path}", "a file that can be read to its end", str(error)) from error


def _values(path: Path, handle: io.BufferedIOBase) -> Iterator[tuple[str, Any]]:
    first = _line(path, handle, 1)
    try:
        value = _parse(first, f"file {path}, line 1")
    except ArtefactError:
        rest = handle.read(WHOLE + 1)
        if not rest.strip():
            raise
        if len(first) + len(rest) > WHOLE:
            raise ArtefactError(f"file {path}", f"JSON lines, or a document of at most {WHOLE} bytes", "more") from None
        yield from _elements(path, _parse(first + rest, f"file {path}"))
        return
    yield from _elements(path, value)
    number = 1
    while line := _line(path, handle, number + 1):
        number += 1
        if line.strip():
            where = f"file {path}, line {number}"
            yield where, _parse(line, where)


def _elements(path: Path, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, list):
        yield from ((f"file {path}, record {at}", one) for at, one in enumerate(value))
    else:
        yield f"file {path}, record 0", value


def _line(path: Path, handle: io.BufferedIOBase, number: int) -> bytes:
    line = handle.readline(LINE + 1)
    if len(line) > LINE:
        raise ArtefactError(f"file {path}, line {number}", f"at most {LINE} bytes", "more")
    return line


def _parse(data: bytes, where: str) -> Any:
    try:
        return json.loads(data.decode("utf-8-sig"), parse_constant=_refuse)
    except RecursionError:
        raise ArtefactError(where, "JSON", "values nested too deeply") from None
    except ValueError as error:
        raise ArtefactError(where, "JSON in UTF-8", str(error)[:120]) from None


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant}, which is no JSON")


# --- safetensors --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tensors:
    """A safetensors file that is not read yet."""

    path: Path
    names: frozenset[str]

    def read(self, name: str) -> np.ndarray:
        """One tensor. Raises `ArtefactError` if it is damaged or of a type that numpy lacks."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(self.path, "np") as handle:
                found: np.ndarray = handle.get_tensor(name)
                return found
        except (SafetensorError, OSError, TypeError, ValueError) as error:
            raise ArtefactError(f"file {self.path}, tensor {name}", "whole values", str(error)[:120]) from error


def tensors_of(path: Path) -> Tensors:
    """The file's table of contents. Raises `ArtefactError` if it is damaged."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "np") as handle:
            return Tensors(path, frozenset(handle.keys()))
    except (SafetensorError, OSError) as error:
        raise ArtefactError(f"file {path}", "a whole safetensors file", str(error)[:120]) from error
