"""delphi's cache of latents (EleutherAI): `HOOKPOINT/START_END.safetensors`.

`locations` (n, 3): row, position and latent, the latent counted from START; `activations` (n,) float16, those that are
not zero; `tokens` (row, position), which a cache may leave out, and then it cannot be read. In a file of another name
latents are counted from 0.
"""

import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from saelens_n2g.errors import ArtefactError
from saelens_n2g.imports.files import Tensors
from saelens_n2g.imports.formats import register
from saelens_n2g.imports.published import INDEX, TOKENS, PublishedText, PublishedUnit, Wanted

KEPT = 200
"""Rows of a latent that are handed on, the strongest."""


def _recognises(value: Any) -> bool:
    return isinstance(value, Tensors) and {"locations", "activations"} <= value.names


@register("delphi", "delphi's cache of latents", _recognises, "safetensors")
def read_delphi(value: Any, where: str, wanted: Wanted) -> Iterator[PublishedUnit]:
    """Every latent of a file that fires. Raises `ArtefactError` where shapes, types or places do not fit."""
    locations, activations, tokens = _arrays(value, where)
    split = re.fullmatch(r"(\d{1,8})_(\d{1,8})\.safetensors", value.path.name)
    first = int(split[1]) if split else 0
    hookpoint = value.path.parent.name if split else value.path.stem
    if len(locations):
        top = locations.max(axis=0)
        last = int(split[2]) - first if split else INDEX - 1
        for name, largest, limit in zip(
            ("row", "position", "latent"), top.tolist(), (*(n - 1 for n in tokens.shape), last), strict=True
        ):
            if largest > limit:
                raise ArtefactError(f"{where}, locations", f"{name} from 0 to {limit}", str(largest))
    layer = re.search(r"(?:^|\.)(?:layers|blocks|h)\.(\d{1,6})(?:\.|$)", hookpoint)
    order = np.argsort(locations[:, 2], kind="stable")
    latents, starts = np.unique(locations[order, 2], return_index=True)
    for latent, own in zip(latents.tolist(), np.split(order, starts[1:]), strict=True):
        if wanted(first + latent):
            yield PublishedUnit(
                f"{where}, latent {first + latent}",
                int(layer[1]) if layer else None,
                first + latent,
                hookpoint,
                _texts(where, locations[own], activations[own], tokens),
                float(activations[own].max()),
            )


def _arrays(value: Tensors, where: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    if "tokens" not in value.names:
        raise ArtefactError(where, "tensors locations, activations, tokens", f"only {', '.join(sorted(value.names))}")
    locations, activations, tokens = (value.read(name) for name in ("locations", "activations", "tokens"))
    if locations.ndim != 2 or locations.shape[1] != 3 or activations.shape != locations.shape[:1] or tokens.ndim != 2:
        found = ", ".join(str(a.shape) for a in (locations, activations, tokens))
        raise ArtefactError(where, "locations (n, 3), activations (n,), tokens (rows, positions)", found)
    if not 0 < tokens.shape[1] <= TOKENS:
        raise ArtefactError(f"{where}, tokens", f"1 to {TOKENS} positions", str(tokens.shape[1]))
    for name, array, kinds in (
        ("locations", locations, "iu"),
        ("activations", activations, "f"),
        ("tokens", tokens, "iu"),
    ):
        if array.dtype.kind not in kinds:
            raise ArtefactError(f"{where}, {name}", "whole numbers" if kinds == "iu" else "floats", str(array.dtype))
        if kinds == "iu" and array.size and not 0 <= int(array.min()) <= int(array.max()) < 2**31:
            raise ArtefactError(f"{where}, {name}", "whole numbers from 0 on", f"{array.min()} to {array.max()}")
    if not np.isfinite(activations).all():
        raise ArtefactError(
            f"{where}, activations", "finite numbers", f"{int((~np.isfinite(activations)).sum())} others"
        )
    return locations, activations, tokens  # as they are: a cache may have a hundred million places


def _texts(where: str, locations: np.ndarray, activations: np.ndarray, tokens: np.ndarray) -> tuple[PublishedText, ...]:
    """The strongest rows of one latent, whole, zero where nothing is stored."""
    locations, activations = locations.astype(np.int64), activations.astype(np.float32)
    rows, inverse = np.unique(locations[:, 0], return_inverse=True)
    peaks = np.full(len(rows), -np.inf, dtype=np.float32)
    np.maximum.at(peaks, inverse, activations)
    found = []
    for at in np.lexsort((rows, -peaks))[:KEPT]:
        own = inverse == at
        values = np.zeros(tokens.shape[1], dtype=np.float32)
        values[locations[own, 1]] = activations[own]
        ids = tuple(int(t) for t in tokens[rows[at]])
        found.append(PublishedText(f"{where}, row {rows[at]}", values, None, ids))
    return tuple(found)
