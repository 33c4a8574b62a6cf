"""Fit texts for `benchmarks/n2g.py`: the rows of the data's protocol, and what else the Wikipedia extract holds."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch

from saelens_n2g.corpus import load_documents
from saelens_n2g.graphs.evidence import FitText
from saelens_n2g.sites import Site
from saelens_n2g.subject import Subject

SHINGLE = 20
"""Letters and digits in a row by which text is recognised, whatever stands between them."""
LEAST_CHARACTERS, LEAST_TOKENS, LEAST_DOCUMENT = 150, 32, 2000
"""Shorter stretches, windows and documents are passed over."""


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
    """Windows of the embedded extract without any stretch of text that occurs in `windows`; -1 fills short ones up."""
    known: set[str] = set()
    for row in windows.tolist():
        letters, _ = _letters("".join(subject.string(token) for token in row[1:]))
        known |= {letters[i : i + SHINGLE] for i in range(len(letters) - SHINGLE + 1)}
    width = windows.shape[1] - 1
    out: list[list[int]] = []
    for document in load_documents("embedded"):
        if len(document.text) <= LEAST_DOCUMENT:
            continue
        for stretch in _unknown(document.text, known):
            ids = subject.encode(stretch)
            cut = [ids[k : k + width] for k in range(0, len(ids), width)]
            out += [[int(windows[0, 0]), *w, *[-1] * (width - len(w))] for w in cut if len(w) >= LEAST_TOKENS]
    return np.array(out, dtype=np.int64)


def _letters(text: str) -> tuple[str, list[int]]:
    """Letters and digits in lower case, and where each stands in the text."""
    places = [i for i, character in enumerate(text) if character.isalnum()]
    return "".join(text[i].lower()[0] for i in places), places


def _unknown(text: str, known: set[str]) -> list[str]:
    """The stretches of a text that no known shingle covers."""
    letters, places = _letters(text)
    covered = np.zeros(len(text) + 2, dtype=np.bool_)
    covered[[0, -1]] = True
    for i in range(len(letters) - SHINGLE + 1):
        if letters[i : i + SHINGLE] in known:
            covered[places[i] + 1 : places[i + SHINGLE - 1] + 2] = True
    edges = np.flatnonzero(np.diff(covered.astype(np.int8)))
    bounds = zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)
    return [text[a:b] for a, b in bounds if b - a >= LEAST_CHARACTERS]


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
