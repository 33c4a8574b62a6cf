"""The folder of a report: what is in it, and that it is whole.

index.html          the summary, figures inside             report.md    the same as Markdown
CHAPTER.html        a chapter's own text, figures inside     figures/     of the summary, .svg and .png
units-CHAPTER.html  every unit, where there is such a page   data/        the JSON behind every chapter
"""

import shutil
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from saelens_n2g.errors import ArtefactError
from saelens_n2g.jobs.artefacts import canonical_json, publishing, write_text
from saelens_n2g.report.chapters import Chapter
from saelens_n2g.report.page import page_of
from saelens_n2g.report.summary import figure_name, summary, title_of


def write_report(
    chapters: Sequence[Chapter], folder: Path, key: str, command: str, missing: Mapping[str, str] | None = None
) -> None:
    """Publish the report of finished analyses as `folder`.

    key: what decides it, for the marker. command: what makes it again. missing: analyses that could not be done, and
    why. Raises `ArtefactError` for a file of an analysis that is missing.
    """
    title, text = title_of(chapters), summary(chapters, command, missing or {})
    links = [("index.html", "Summary"), *((f"{one.name}.html", one.title) for one in chapters)]
    with publishing(folder, {"key": key}) as work:
        for chapter in chapters:
            for figure in chapter.figures:
                for suffix in (".svg", ".png"):
                    name = figure_name(chapter, figure.path.name)
                    _copy(figure.path.with_name(figure.path.name + suffix), work / "figures" / f"{name}{suffix}")
            _copy(chapter.data, work / "data" / f"{chapter.name}.json")
            if chapter.units is not None:
                _copy(chapter.units, work / f"units-{chapter.name}.html")
            said, about = f"{chapter.title} – {title}", canonical_json(dict(chapter.provenance))
            body = f"# {chapter.title}\n\n{chapter.text}"
            own = page_of(body, said, partial(_inside, chapter.folder), links=links, provenance=about)
            write_text(work / f"{chapter.name}.html", own)
        write_text(work / "report.md", text)
        about = canonical_json({chapter.name: dict(chapter.provenance) for chapter in chapters})
        write_text(work / "index.html", page_of(text, title, partial(_inside, work), links=links, provenance=about))


def _inside(folder: Path, name: str) -> Path:
    """The file that Markdown names, which must lie in `folder`."""
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise ArtefactError(f"figure {name!r}", f"a file in {folder}", "one outside")
    return path


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(exist_ok=True)
    try:
        shutil.copyfile(source, target)
    except OSError as error:
        raise ArtefactError(f"file {source}", "a file of a finished analysis", str(error.strerror or error)) from error
