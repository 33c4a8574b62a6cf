"""Fit texts for `benchmarks/n2g.py`: the rows of the data's protocol, and what else the Wikipedia extract holds."""

import bz2
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path

import numpy as np
import torch

from saelens_n2g.errors import InputError
from saelens_n2g.graphs.evidence import FitText
from saelens_n2g.sites import Site
from saelens_n2g.subject import Subject

LEAST_DOCUMENT = 2000
"""Characters; the windows of the data were cut from longer documents alone."""


def protocol_rows(windows: np.ndarray) -> np.ndarray:
    """Row numbers that the data's README fits count-based references on."""
    chosen = np.random.RandomState(0).permutation(len(windows))[: len(windows) // 2]
    return np.asarray(np.sort(chosen))


def fit_text(rows: np.ndarray) -> FitText:
    """Windows with the BOS first and -1 where a short one is filled up."""
    mask = rows >= 0
    mask[:, 0] = False
    return FitText(np.maximum(rows, 0), mask)


def rest_of_extract(subject: Subject, windows: np.ndarray) -> np.ndarray:
    """All other windows of the Wikipedia extract that the data's windows are of, cleaned and cut as they were.

    Raises `InputError` without gensim's cleaner, and where a window of the data is not found again: then the text or
    the tokenizer is another, and stretches of the scored windows could be among the rest.
    """
    width, known = windows.shape[1] - 1, set(map(tuple, windows[:, 1:].tolist()))
    found: list[tuple[int, ...]] = []
    for text in _documents():
        if len(text) > LEAST_DOCUMENT:
            ids = subject.encode(text)
            found += [tuple(ids[k : k + width]) for k in range(0, len(ids) - width + 1, width)]
    if missing := known - set(found):
        raise InputError("the extract", f"{len(known)} windows of the data in it", f"{len(known) - len(missing)}")
    rest = [window for window in found if window not in known]
    return np.array([[int(windows[0, 0]), *window] for window in rest], dtype=np.int64)


def _documents() -> Iterator[str]:
    """Pages of the extract in gensim's wheel, without markup, headings and runs of empty lines."""
    try:
        from gensim.corpora.wikicorpus import filter_wiki
    except ImportError as error:
        raise InputError("evidence extract", "gensim's cleaner: pip install smart_open", str(error)) from error
    folder = Path(str(files("gensim"))) / "test" / "test_data"
    with bz2.open(next(folder.glob("enwiki-*-shortened.bz2"))) as stream:
        for _, element in ET.iterparse(stream):
            if element.tag.endswith("}text"):
                text = re.sub(r"'{2,}", "", filter_wiki(element.text or ""))
                yield re.sub(r"\n{3,}", "\n\n", re.sub(r"={2,}[^=\n]+={2,}", "", text))


def harvest(
    subject: Subject, rows: np.ndarray, columns: Mapping[int, Sequence[int]], done: Callable[[int], None]
) -> dict[int, np.ndarray]:
    """Layer -> activations (neuron, row, pos) of its chosen MLP neurons, one pass for all layers."""
    sites = {layer: Site(layer, "mlp_post") for layer in columns}
    out = {layer: np.zeros((len(chosen), *rows.shape), dtype=np.float32) for layer, chosen in columns.items()}
    for start in range(0, len(rows), 16):
        ids = torch.from_numpy(np.where(rows[start : start + 16] < 0, subject.pad_id, rows[start : start + 16])).long()
        found = subject.activations(ids, list(sites.values()))
        for layer, chosen in columns.items():
            values = found[sites[layer]][..., list(chosen)].relu().permute(2, 0, 1)
            out[layer][:, start : start + len(ids)] = values.cpu().numpy()
        done(len(ids))
    return out
