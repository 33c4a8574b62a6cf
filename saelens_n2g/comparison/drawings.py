"""Drawings that go into the report's page: whole SVGs that ask for nothing outside themselves."""

import xml.etree.ElementTree as ET
from collections.abc import Mapping
from pathlib import Path

from saelens_n2g.errors import ArtefactError


def read_svg(path: Path) -> str:
    """The `<svg>` element in the file of a unit's graph.

    Raises `ArtefactError` if there is no such file, if it cannot be read, and as `whole_svg`.
    """
    try:
        source = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ArtefactError(f"file {path}", "a unit's graph as SVG", "nothing there") from None
    except (OSError, ValueError) as error:
        raise ArtefactError(f"file {path}", "a unit's graph as SVG", str(error)) from error
    return whole_svg(source, str(path))


def whole_svg(source: str, thing: str) -> str:
    """The `<svg>` element of an SVG document; `thing` names the document in errors.

    Raises `ArtefactError` for what is no whole SVG, and for one with script or references outside itself.
    """
    try:
        root = ET.fromstring(source)
    except ET.ParseError as error:
        raise ArtefactError(f"file {thing}", "a whole SVG", str(error)) from error
    start = source.find("<svg")
    if root.tag != "{http://www.w3.org/2000/svg}svg" or start < 0:
        raise ArtefactError(f"file {thing}", "an <svg> element", root.tag)
    for node in root.iter():
        names: Mapping[str, str] = {key.rpartition("}")[2].lower(): value for key, value in node.attrib.items()}
        if str(node.tag).endswith(("}script", "}foreignObject")) or any(key.startswith("on") for key in names):
            raise ArtefactError(f"file {thing}", "an SVG without script", f"{node.tag} with {sorted(names)}")
        if not names.get("href", "#").startswith("#"):
            raise ArtefactError(f"file {thing}", "an SVG without outside references", names["href"])
    return source[start:].strip()
