"""Corpus: documents from anywhere, cut into token windows that know which document they come from.

    documents = load_documents("embedded")                                # or hf:..., a file, a folder
    windows = tokenise(documents, subject.encode, width=128, bos_id=subject.bos_id, pad_id=subject.pad_id,
                       max_tokens=200_000, source="embedded")
    fit, test = split_documents(windows, test_share=0.25, seed=0)         # row indices, no document on both sides

A window never crosses a document, and the split is between documents: snippets of one document share names and
turns of phrase, which a graph fitted on one half would be rewarded for on the other.
"""

import gzip
import hashlib
import itertools
import json
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Int, Int32

from saelens_n2g.documents import Document as Document
from saelens_n2g.errors import ArtefactError, InputError
from saelens_n2g.jobs.artefacts import publishing, read_json, require, write_json
from saelens_n2g.progress import errors_only

SEPARATOR = "<|endoftext|>"
"""A line that holds only this separates the documents of a text file."""


# --- loading --------------------------------------------------------------------------------------------------

LOADERS: dict[str, Callable[[str], Iterator[Document]]] = {}
"""Prefix of a corpus spec -> function that takes what follows the colon. Register another with `loader`."""


def loader(prefix: str) -> Callable[[Callable[[str], Iterator[Document]]], Callable[[str], Iterator[Document]]]:
    """Decorator: make specs `PREFIX:REST` load with the decorated function, called with REST."""

    def register(function: Callable[[str], Iterator[Document]]) -> Callable[[str], Iterator[Document]]:
        LOADERS[prefix] = function
        return function

    return register


def load_documents(spec: str, *, limit: int | None = None) -> Iterator[Document]:
    """The documents of a corpus, in its own order, at most `limit` of them; blank ones are passed over.

    `spec` is one of

    - `embedded` or `embedded:wikipedia`, `embedded:python`: what comes with the installed packages;
    - `hf:NAME[@CONFIG][:SPLIT][#FIELD]`: a Hugging Face dataset or a local folder in one of its formats, streamed;
      split `train` and field `text` unless given;
    - a file: `.txt` (UTF-8, one document, or several with a line `<|endoftext|>` between them) or `.jsonl` (one
      object a line with `text` and optionally `id`), either also with `.gz`;
    - a folder of such files at any depth, in order of their paths.

    Raises `InputError`, some of it only while the iterator is consumed: unknown spec, missing file, undecodable
    bytes, a line without its field (file and line named), no text at all.
    """
    if limit is not None and limit < 1:
        raise InputError("limit of documents", "an integer >= 1, or none", str(limit))
    prefix, colon, rest = spec.partition(":")
    if prefix in LOADERS and (colon or prefix == "embedded"):
        documents = LOADERS[prefix](rest)
    elif Path(spec).exists():
        documents = _path_documents(Path(spec))
    else:
        expected = "embedded, embedded:python, hf:NAME[@CONFIG][:SPLIT][#FIELD], or a file or folder"
        raise InputError(f"corpus {spec!r}", expected, "no such file or folder")
    return _not_blank(spec, documents, limit)


def _not_blank(spec: str, documents: Iterator[Document], limit: int | None) -> Iterator[Document]:
    n = 0
    for document in documents:
        if document.text.strip():
            yield document
            n += 1
            if n == limit:
                return
    if n == 0:
        raise InputError(f"corpus {spec!r}", "at least one document with text", "none")


@loader("embedded")
def _embedded_documents(which: str) -> Iterator[Document]:
    from saelens_n2g import embedded

    if which in ("", "wikipedia"):
        return embedded.wikipedia_documents()
    if which == "python":
        return embedded.python_documents()
    raise InputError("embedded corpus", "wikipedia or python", repr(which))


@loader("hf")
def _hf_documents(rest: str) -> Iterator[Document]:
    match = re.fullmatch(r"([^@:#]+)(?:@([^:#]+))?(?::([^#]+))?(?:#(.+))?", rest)
    if match is None:
        raise InputError("corpus", "hf:NAME[@CONFIG][:SPLIT][#FIELD]", repr(f"hf:{rest}"))
    name, config, split, field = match[1], match[2], match[3] or "train", match[4] or "text"
    return _hf_texts(name, config, split, field)


def _hf_texts(name: str, config: str | None, split: str, field: str) -> Iterator[Document]:
    for number, row in enumerate(_hf_rows(name, config, split)):
        where = f"dataset {name!r}, row {number}"
        if field not in row:
            raise InputError(where, f"a field {field!r}", f"only {', '.join(sorted(row))}")
        text = "" if row[field] is None else row[field]  # a null is a blank document
        if not isinstance(text, str):
            raise InputError(where, f"text in field {field!r}", type(text).__name__)
        yield Document(f"{split}/{number}", text)


def _hf_rows(name: str, config: str | None, split: str) -> Iterator[dict[str, Any]]:
    from datasets import load_dataset
    from datasets.exceptions import DatasetsError

    try:
        with errors_only("huggingface_hub"):
            yield from load_dataset(name, config, split=split, streaming=True)
    except (OSError, ValueError, RuntimeError, DatasetsError) as error:
        expected = f"a dataset that loads, with configuration {config or '(default)'} and split {split}"
        raise InputError(f"dataset {name!r}", expected, " ".join(str(error).split())[:200]) from error


def _path_documents(path: Path) -> Iterator[Document]:
    kinds = f"{', '.join(READERS)} (or .gz of these)"
    if not path.is_dir():
        if (reader := _reader(path)) is None:
            raise InputError(f"corpus file {path}", f"a name ending in {kinds}", path.name)
        return reader(path, path.name)
    names = sorted(p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file())
    files = [(reader, path / name, name) for name in names if (reader := _reader(path / name)) is not None]
    if not files:
        raise InputError(f"corpus folder {path}", f"files ending in {kinds}", "none")
    return itertools.chain.from_iterable(reader(file, name) for reader, file, name in files)


def _reader(path: Path) -> Callable[[Path, str], Iterator[Document]] | None:
    """The function that reads files named like this, or None."""
    return READERS.get(Path(path.name.removesuffix(".gz")).suffix)


def _byte_lines(path: Path) -> Iterator[bytes]:
    """Lines of a plain or gzipped file. Raises `InputError` where it cannot be read or is cut short."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as handle:
            yield from handle
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"file {path}", "a file that can be read", str(error)) from error


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Numbered lines, from 1, decoded. Raises `InputError` naming the first line that is not UTF-8."""
    for number, raw in enumerate(_byte_lines(path), 1):
        try:
            yield number, raw.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise InputError(f"file {path}, line {number}", "UTF-8", f"byte 0x{raw[error.start]:02x}") from None


def _text_documents(path: Path, name: str) -> Iterator[Document]:
    """`name` is the id of a file's only document; where there are several they are `name#0`, `name#1`, ..."""
    parts: list[list[str]] = [[]]
    for _, line in _lines(path):
        if line.strip() == SEPARATOR:
            parts.append([])
        else:
            parts[-1].append(line.replace("\r\n", "\n"))
    for number, part in enumerate(parts):
        yield Document(name if len(parts) == 1 else f"{name}#{number}", "".join(part))


def _jsonl_documents(path: Path, name: str) -> Iterator[Document]:
    """Ids are the field `id` where there is one, else `name:LINE`. Blank lines are passed over."""
    for number, line in _lines(path):
        if not line.strip():
            continue
        where, expected = f"file {path}, line {number}", "a JSON object with `text`, a string"
        try:
            row = json.loads(line)
        except ValueError as error:
            raise InputError(where, expected, str(error)) from None
        if not isinstance(row, dict) or not isinstance(row.get("text"), str):
            raise InputError(where, expected, f"fields {sorted(row)}" if isinstance(row, dict) else type(row).__name__)
        yield Document(str(row.get("id", f"{name}:{number}")), row["text"])


READERS: dict[str, Callable[[Path, str], Iterator[Document]]] = {".txt": _text_documents, ".jsonl": _jsonl_documents}
"""Suffix of a file -> function of (path, name for ids)."""


# --- windows --------------------------------------------------------------------------------------------------

FORMAT, VERSION = "saelens-n2g/windows", 1
PIECE = 1_000_000
"""Characters handed to a tokenizer at once; only longer documents are cut, before a line break."""


@dataclass(frozen=True, eq=False)
class Windows:
    """Token windows of equal width with the document each comes from."""

    tokens: Int32[np.ndarray, "n width"]
    """Token ids, one window a row, padded on the right; with `bos_id` first unless that is None."""
    lengths: Int32[np.ndarray, "n"]
    """Real tokens of each row, BOS included; what follows is padding."""
    document: Int32[np.ndarray, "n"]
    """Index into `document_ids` for each row."""
    document_ids: tuple[str, ...]
    """Ids of the documents. After `subset` some may have no row."""
    bos_id: int | None
    """Id at position 0 of every row, never scored; None = there is no BOS. 0 is a valid id."""
    source: str
    """Where the text came from, for people."""
    dropped_tokens: int = 0
    """Tokens at the ends of documents that were too few for a window."""

    def __post_init__(self) -> None:
        n, width = self.tokens.shape
        for name, array in (("lengths", self.lengths), ("document", self.document)):
            if array.shape != (n,):
                raise InputError(f"windows with tokens ({n}, {width})", f"{name} ({n},)", str(array.shape))
        if n and not (self.lengths.min() > 0 and self.lengths.max() <= width):
            raise InputError("lengths of windows", f"1 to {width}", f"{self.lengths.min()} to {self.lengths.max()}")
        if n and not (self.document.min() >= 0 and self.document.max() < len(self.document_ids)):
            raise InputError("document indices", f"0 to {len(self.document_ids) - 1}", str(self.document.max()))

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def mask(self) -> Bool[np.ndarray, "n width"]:
        """True on the positions that are scored: real tokens other than the BOS at position 0."""
        position = np.arange(self.tokens.shape[1])
        return np.asarray((position < self.lengths[:, None]) & (position >= int(self.bos_id is not None)))

    @property
    def n_tokens(self) -> int:
        """Number of scored tokens, `mask.sum()`."""
        return int(self.lengths.sum()) - len(self) * int(self.bos_id is not None)

    def subset(self, rows: Int[np.ndarray, "k"]) -> "Windows":
        """The windows `rows`, in that order. Document indices keep their meaning."""
        picked = (self.tokens[rows], self.lengths[rows], self.document[rows])
        return Windows(*picked, self.document_ids, self.bos_id, self.source)

    def fingerprint(self) -> str:
        """Sixteen hex digits of what is in the windows: tokens, lengths, ids of the rows' documents, BOS.

        Equal windows from another path or after `subset` of a larger corpus have the same fingerprint.
        """
        digest = hashlib.sha256(json.dumps([self.tokens.shape, self.bos_id]).encode())
        digest.update(np.ascontiguousarray(self.tokens, dtype="<i4").tobytes())
        digest.update(np.ascontiguousarray(self.lengths, dtype="<i4").tobytes())
        digest.update(json.dumps([self.document_ids[d] for d in self.document]).encode())
        return digest.hexdigest()[:16]

    def save(self, folder: Path) -> None:
        """Publish as a folder: `windows.safetensors` and `windows.json` (docs/formats.md)."""
        from safetensors.numpy import save_file

        with publishing(folder, {"format": FORMAT, "version": VERSION, "fingerprint": self.fingerprint()}) as work:
            arrays = {"tokens": self.tokens, "lengths": self.lengths, "document": self.document}
            save_file({k: np.ascontiguousarray(v) for k, v in arrays.items()}, work / "windows.safetensors")
            about = {"document_ids": self.document_ids, "bos_id": self.bos_id, "source": self.source}
            write_json(work / "windows.json", about | {"dropped_tokens": self.dropped_tokens})

    @classmethod
    def load(cls, folder: Path) -> "Windows":
        """Inverse of `save`, checksums verified. Raises `ArtefactError` if missing, damaged or of another format."""
        from safetensors.numpy import load_file

        meta = require(folder, "token windows")
        if (meta.get("format"), meta.get("version")) != (FORMAT, VERSION):
            found = f"{meta.get('format')!r}, version {meta.get('version')!r}"
            raise ArtefactError(f"token windows {folder}", f"format {FORMAT!r}, version {VERSION}", found)
        try:
            about: dict[str, Any] = read_json(folder / "windows.json")
            about["document_ids"] = tuple(about["document_ids"])
            return cls(**load_file(folder / "windows.safetensors"), **about)
        except (OSError, KeyError, TypeError, InputError) as error:
            raise ArtefactError(f"token windows {folder}", "whole arrays and document ids", str(error)) from error


def tokenise(
    documents: Iterable[Document],
    encode: Callable[[str], list[int]],
    *,
    width: int = 128,
    bos_id: int | None,
    pad_id: int,
    max_tokens: int | None = None,
    min_tokens: int = 16,
    source: str,
    report: Callable[[int], None] | None = None,
) -> Windows:
    """Cut every document into consecutive windows of `width` tokens, BOS included where there is one.

    `encode` gives the ids of a text without special tokens. The last window of a document may be shorter; with
    fewer than `min_tokens` tokens (BOS not counted) it is dropped and its tokens are counted in `dropped_tokens`.
    A full window is never dropped. Ends after the window that brings the scored tokens to `max_tokens`. `report`
    is called with the scored tokens so far, after every document.

    Raises `InputError` for a width below 2, limits below 1, or if no window comes out.
    """
    for name, value, least in (
        ("window width", width, 2),
        ("min_tokens", min_tokens, 1),
        ("max_tokens", max_tokens, 1),
    ):
        if value is not None and value < least:
            raise InputError(name, f"an integer >= {least}", str(value))
    front = [] if bos_id is None else [bos_id]
    room = width - len(front)
    least = min(min_tokens, room)
    rows: list[np.ndarray[Any, Any]] = []
    lengths: list[int] = []
    document: list[int] = []
    index: dict[str, int] = {}
    scored = dropped = 0
    for one in documents:
        ids = _encoded(one.text, encode)
        while chunk := list(itertools.islice(ids, room)):
            if len(chunk) < least:
                dropped += len(chunk)
                continue
            rows.append(np.array(front + chunk + [pad_id] * (room - len(chunk)), dtype=np.int32))
            lengths.append(len(front) + len(chunk))
            document.append(index.setdefault(one.id, len(index)))
            scored += len(chunk)
            if max_tokens is not None and scored >= max_tokens:
                break
        if report is not None:
            report(scored)
        if max_tokens is not None and scored >= max_tokens:
            break
    if not rows:
        raise InputError(f"text of {source}", f"at least {least} tokens in one document", f"{dropped} tokens in all")
    arrays = (np.stack(rows), np.array(lengths, dtype=np.int32), np.array(document, dtype=np.int32))
    return Windows(*arrays, tuple(index), bos_id, source, dropped)


def _encoded(text: str, encode: Callable[[str], list[int]]) -> Iterator[int]:
    """Ids of a text, encoded as they are asked for: a huge document costs no more than what is used of it."""
    at = 0
    while at < len(text):
        end = text.find("\n", at + PIECE)
        end = len(text) if end < 0 else end
        yield from encode(text[at:end])
        at = end


def split_documents(
    windows: Windows, *, test_share: float = 0.25, seed: int = 0
) -> tuple[Int[np.ndarray, "fit"], Int[np.ndarray, "test"]]:
    """Row indices (fit, test), ascending; no document is on both sides.

    Documents are ranked by the SHA-256 of seed and id, then each is put into test if that brings the test side's
    share of the scored tokens closer to `test_share`. The order in which documents arrived plays no part.
    Raises `InputError` for a share outside (0, 1) or fewer than two documents.
    """
    if not 0 < test_share < 1:
        raise InputError("test_share", "a number between 0 and 1, both excluded", str(test_share))
    tokens: dict[str, int] = {}
    for row, count in zip(windows.document.tolist(), windows.mask.sum(axis=1).tolist(), strict=True):
        name = windows.document_ids[row]
        tokens[name] = tokens.get(name, 0) + count
    if len(tokens) < 2:
        raise InputError("documents to split into fit and test", "at least 2", str(len(tokens)))
    ranked = sorted(tokens, key=lambda name: (hashlib.sha256(f"{seed}:{name}".encode()).hexdigest(), name))
    target, filled = test_share * windows.n_tokens, 0
    test: set[str] = set()
    for name in ranked:
        if abs(filled + tokens[name] - target) < abs(filled - target):
            test.add(name)
            filled += tokens[name]
    smallest = min(ranked, key=lambda name: tokens[name])  # of equally small ones the first in rank
    if not test:
        test.add(smallest)
    elif len(test) == len(tokens):
        test.remove(smallest)
    is_test = np.array([windows.document_ids[d] in test for d in windows.document.tolist()])
    return np.flatnonzero(~is_test), np.flatnonzero(is_test)
