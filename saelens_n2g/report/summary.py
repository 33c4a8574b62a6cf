"""The summary of a report as Markdown: for each chapter what it says, its main tables and figures; limits; commands."""

from collections.abc import Mapping, Sequence
from typing import Any

from saelens_n2g.embedded import MODEL
from saelens_n2g.markdown import cell, grid
from saelens_n2g.report.chapters import Chapter


def title_of(chapters: Sequence[Chapter]) -> str:
    """What the report is of."""
    model = chapters[0].provenance.get("subject", {}).get("model", "a model")
    return f"What the units of {MODEL if model == 'embedded' else model} do, and how we know"


def summary(chapters: Sequence[Chapter], command: str, missing: Mapping[str, str]) -> str:
    """The summary; figures are named `figures/CHAPTER-NAME.svg`, pages `CHAPTER.html`.

    command: what makes the whole report again. missing: analyses that could not be done, and why.
    """
    parts = [f"# {cell(title_of(chapters))}", _facts(chapters), "## In short", _bullets(_first(chapters))]
    if missing:
        parts += ["**Not in this report**", _bullets([f"{name}: {cell(why)}" for name, why in missing.items()])]
    for number, chapter in enumerate(chapters, 1):
        parts += [f"## {number}. {cell(chapter.title)}", f"*{cell(chapter.question)}*", _bullets(chapter.said)]
        parts += [f"![{cell(f.caption)}](figures/{figure_name(chapter, f.path.name)}.svg)" for f in chapter.figures]
        for heading, table in chapter.tables:
            parts += [f"### {heading}", table]
        parts.append(_more(chapter))
    parts += ["## What may not be concluded"]
    for chapter in chapters:
        parts += [f"**{cell(chapter.title)}**", _bullets(chapter.limits)]
    parts += ["## How to make it again", _again(chapters, command)]
    return "\n\n".join(part for part in parts if part) + "\n"


def figure_name(chapter: Chapter, name: str) -> str:
    """The file name of a chapter's figure in the report's `figures/`, without suffix."""
    return f"{chapter.name}-{name}"


def _first(chapters: Sequence[Chapter]) -> list[str]:
    return [f"**{cell(one.title)}.** {' '.join(one.said[: one.short])}" for one in chapters if one.said]


def _bullets(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _more(chapter: Chapter) -> str:
    units = "" if chapter.units is None else f" · [Every unit](units-{chapter.name}.html)"
    return f"[The whole analysis]({chapter.name}.html){units} · [Data](data/{chapter.name}.json)"


def _facts(chapters: Sequence[Chapter]) -> str:
    """Model, text and versions: of all chapters, where they agree; a row for each where they do not."""
    rows = []
    for name, (part, key) in {
        "Model": ("subject", "model"),
        "Revision": ("subject", "revision"),
        "Text": ("corpus", "source"),
        "Tokens": ("corpus", "tokens"),
    }.items():
        found = {one.title: one.provenance.get(part, {}).get(key) for one in chapters}
        values = {value for value in found.values() if value is not None}
        if len(values) == 1:
            rows.append([name, _plain(values.pop())])
        elif values:
            rows += [[f"{name}, {title}", _plain(value)] for title, value in found.items() if value is not None]
    versions: dict[str, Any] = {}
    for one in chapters:
        known = one.provenance.get("versions", {})
        versions |= known if isinstance(known, Mapping) else {}
    rows.append(["Versions", ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))])
    return grid(["", ""], rows, left=2)


def _plain(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


def _again(chapters: Sequence[Chapter], command: str) -> str:
    lines = [command, "", "# or one after the other:", *(chapter.command for chapter in chapters)]
    return "```\n" + "\n".join(lines) + "\n```"
