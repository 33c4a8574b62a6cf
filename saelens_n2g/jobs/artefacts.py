"""Files that are either whole or absent.

A file is written under a temporary name in its own folder, flushed to disk and renamed. A folder of several
files is finished when its commit marker exists: `COMMIT.json`, written last, names every file with size and
SHA-256. Readers trust the marker alone; an existing folder proves nothing.
"""

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from saelens_n2g.errors import ArtefactError, InputError

COMMIT = "COMMIT.json"


def canonical_json(value: Any) -> str:
    """JSON with sorted keys, two-space indent and a final newline: equal values give equal bytes."""
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"


def fingerprint(value: Any) -> str:
    """Sixteen hex digits that identify a JSON value."""
    compact = json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(compact.encode()).hexdigest()[:16]


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def ensure_folder(path: Path) -> Path:
    """Create `path` and its parents. Raises `InputError` where that is not possible."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"folder {path}", "a folder that can be written", str(error.strerror or error)) from error
    return path


def _fsync_folder(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_bytes(path: Path, data: bytes) -> None:
    """Publish `data` at `path` atomically. Raises `InputError` if the place cannot be written."""
    ensure_folder(path.parent)
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    except OSError as error:
        raise InputError(f"file {path}", "a place that can be written", str(error.strerror or error)) from error
    try:
        with os.fdopen(handle, "wb") as out:
            out.write(data)
            out.flush()
            os.fsync(out.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
        raise
    _fsync_folder(path.parent)


def write_text(path: Path, text: str) -> None:
    """Publish `text` at `path` atomically, as UTF-8."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Publish `value` at `path` atomically, as canonical JSON."""
    write_text(path, canonical_json(value))


def read_json(path: Path) -> Any:
    """The JSON value in `path`. Raises `ArtefactError` if it is missing or not whole."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise ArtefactError(f"file {path}", "a JSON file", "nothing there") from None
    except (OSError, ValueError) as error:
        raise ArtefactError(f"file {path}", "a whole JSON file", str(error)) from error


def read_format(path: Path, name: str, version: int) -> dict[str, Any]:
    """The JSON object in `path`, which says of which format it is. Raises `ArtefactError` if it is missing, not whole,
    or of another format or version."""
    value = read_json(path)
    if not isinstance(value, dict) or (value.get("format"), value.get("version")) != (name, version):
        found = [value.get("format"), value.get("version")] if isinstance(value, dict) else type(value).__name__
        raise ArtefactError(f"file {path}", f"format {name!r}, version {version}", str(found))
    return value


def claim(folder: Path, key: str, *, refuse: str | None = None) -> None:
    """Make `folder` the place of what `key` decides, which `settings.json` in it records.

    A folder that is another's is cleared away; with `refuse`, the name of what lies in such folders, that raises
    `InputError` instead.
    """
    owner, known = folder / "settings.json", {"key": key}
    if refuse is not None and owner.exists() and read_json(owner) != known:
        raise InputError(f"folder {folder}", f"a {refuse} of these settings, or nothing", f"a {refuse} of others")
    if refuse is None and folder.exists() and not (owner.exists() and read_json(owner) == known):
        shutil.rmtree(folder)
    write_json(owner, known)


@contextlib.contextmanager
def publishing(folder: Path, meta: dict[str, Any]) -> Iterator[Path]:
    """Yield an empty temporary folder that becomes `folder`, with its commit marker, when the block succeeds.

    `meta` (JSON) goes into the marker. An earlier `folder` is replaced; if the block raises, it stays as it was.
    """
    ensure_folder(folder.parent)
    try:
        work = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}.", suffix=".tmp"))
    except OSError as error:
        raise InputError(f"folder {folder}", "a place that can be written", str(error.strerror or error)) from error
    try:
        yield work
        files = sorted(p for p in work.rglob("*") if p.is_file())
        listing = {p.relative_to(work).as_posix(): {"bytes": p.stat().st_size, "sha256": sha256_of(p)} for p in files}
        for path in files:
            os.chmod(path, 0o644)  # safetensors writes files that only their owner can read
            with open(path, "rb") as handle:
                os.fsync(handle.fileno())
        write_json(work / COMMIT, {"files": listing, "meta": meta})
        os.chmod(work, 0o755)
        aside = work.with_name(work.name.removesuffix(".tmp") + ".old.tmp")
        if folder.exists():  # moved, not removed: a crash half-way through must leave the old folder or none
            os.rename(folder, aside)
        os.replace(work, folder)
        _fsync_folder(folder.parent)
        if aside.exists():
            shutil.rmtree(aside)
    finally:
        if work.exists():
            shutil.rmtree(work, ignore_errors=True)


def remove_folder(folder: Path) -> None:
    """Remove a folder at one stroke: it is there as it was, or gone, even for one who is killed while removing it."""
    if not folder.exists():
        return
    aside = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}.", suffix=".old.tmp"))
    os.rename(folder, aside / folder.name)
    shutil.rmtree(aside)


def committed(folder: Path, *, check: bool = False) -> dict[str, Any] | None:
    """The `meta` of a finished folder, or None when there is none.

    Sizes are compared always, checksums only with `check`. Raises `ArtefactError` naming the first file that
    is missing or differs from what the marker says.
    """
    if not (folder / COMMIT).exists():
        return None
    marker = read_json(folder / COMMIT)
    if not isinstance(marker, dict) or not {"files", "meta"} <= marker.keys():
        raise ArtefactError(f"marker {folder / COMMIT}", "an object with `files` and `meta`", type(marker).__name__)
    for name, known in marker["files"].items():
        path = folder / name
        if not path.is_file():
            raise ArtefactError(f"file {path}", f"{known['bytes']} bytes", "nothing there")
        if path.stat().st_size != known["bytes"]:
            raise ArtefactError(f"file {path}", f"{known['bytes']} bytes", f"{path.stat().st_size} bytes")
        if check and sha256_of(path) != known["sha256"]:
            raise ArtefactError(f"file {path}", f"SHA-256 {known['sha256'][:12]}...", f"{sha256_of(path)[:12]}...")
    meta: dict[str, Any] = marker["meta"]
    return meta


def require(folder: Path, what: str) -> dict[str, Any]:
    """`committed`, checksums included, but an unfinished or missing folder raises `ArtefactError`."""
    meta = committed(folder, check=True)
    if meta is None:
        found = "a folder without commit marker" if folder.exists() else "nothing there"
        raise ArtefactError(f"{what} {folder}", "a finished artefact", found)
    return meta


def finished_before(folder: Path, key: str, what: str, note: Callable[[str], None]) -> bool:
    """Whether an earlier run finished `folder` for the settings of `key`, which `note` is told.

    `what` names it in errors. Raises `ArtefactError` where it was finished and is damaged.
    """
    if committed(folder) != {"key": key}:
        return False
    require(folder, what)
    note(f"nothing to do: {folder} is finished for these settings")
    return True
