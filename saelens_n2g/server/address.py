"""Addresses: how models, layers and units are named in paths.

    /api/gpt2/neuron2graph/3/42             MLP neuron 42 of layer 3
    /api/gpt2/neuron2graph/3-sae/42         unit 42 of the basis `sae` there
    /viz/EleutherAI%2Fpythia-70m/3-sae/42   its page; a slash in a name is %2F

A layer is a number, and, behind a hyphen, the basis, if that is not `neurons`.
"""

import re
from typing import NamedTuple
from urllib.parse import quote, unquote_to_bytes

NEURONS = "neurons"
"""The basis that is meant where none is named."""
_LAYER = re.compile(r"(\d{1,6})(?:-(.+))?", re.ASCII | re.DOTALL)
LAYER_PATTERN = r"^[0-9]{1,6}(-.+)?$"


class Place(NamedTuple):
    """A layer of a basis."""

    basis: str
    layer: int


def read_place(text: str) -> Place | None:
    """`3-sae` or `3`; None if it is neither."""
    found = _LAYER.fullmatch(text)
    return Place(found[2] or NEURONS, int(found[1])) if found else None


def read_index(text: str) -> int | None:
    """The index of a unit; None if it is no number."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 8 else None


def read_unit(text: str) -> tuple[Place, int] | None:
    """`3-sae/42`; None if it is no layer and index."""
    layer, _, number = text.rpartition("/")
    place, index = read_place(layer), read_index(number)
    return None if place is None or index is None else (place, index)


def place_name(basis: str, layer: int) -> str:
    """The other way round."""
    return str(layer) if basis == NEURONS else f"{layer}-{basis}"


def segments(scope_path: bytes, root: str) -> list[str] | None:
    """Parts of a path, taken out of their escapes one by one; None if they are no UTF-8.

    scope_path: as it was sent. root: what the application is mounted under. A slash at the end does not count.
    """
    raw = scope_path.decode("latin-1")
    if root and raw.startswith(root):
        raw = raw[len(root) :]
    parts = raw.strip("/").split("/")
    if "%" not in raw and raw.isascii():
        return parts
    try:
        return [unquote_to_bytes(part).decode() for part in parts]
    except UnicodeDecodeError:
        return None


def path(*parts: str | int) -> str:
    """A path of these parts, escaped."""
    return "".join("/" + quote(str(part), safe="") for part in parts)
