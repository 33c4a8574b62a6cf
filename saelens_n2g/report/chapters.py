"""Chapters of a report: each analysis with what it says in sentences, its main tables and figures, its whole text.

    chapter = of_study(Path("runs/report/study"), "saelens-n2g study --out runs/report/study")
    chapter.said          # sentences that follow from the numbers by rule
    chapter.text          # everything, as Markdown

They are read off the finished folders alone; no model is run.
"""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from saelens_n2g.errors import ArtefactError


class Figure(NamedTuple):
    """A figure that is there as .svg and .png."""

    path: Path
    """Without suffix."""
    caption: str


@dataclass(frozen=True, kw_only=True)
class Chapter:
    """What one analysis brings to a report."""

    name: str
    """One word, which its page and files are called after."""
    title: str
    question: str
    command: str
    """What makes it again."""
    said: tuple[str, ...]
    """Sentences in Markdown, the most important one first."""
    short: int = 1
    """How many of them stand in the summary's first section."""
    limits: tuple[str, ...]
    """What may not be concluded."""
    tables: tuple[tuple[str, str], ...]
    """Headings and tables in Markdown that the summary shows."""
    figures: tuple[Figure, ...]
    """Those that the summary shows."""
    text: str
    """Its own report in Markdown; figures are named relative to `folder`."""
    folder: Path
    data: Path
    """The JSON file behind it."""
    units: Path | None = None
    """An HTML page with every unit."""
    provenance: Mapping[str, Any]


@contextlib.contextmanager
def expecting(path: Path, what: str) -> Iterator[None]:
    """Reads what is in a file: where a value is missing or another one, raises `ArtefactError` that names it."""
    try:
        yield
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise ArtefactError(f"file {path}", what, repr(error)) from error


def read_text(path: Path) -> str:
    """The text of a finished analysis. Raises `ArtefactError` if it is not there."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ArtefactError(f"file {path}", "the text of a finished analysis", str(error)) from error
