"""An interpretation as an HTML page that opens from disk: figure, tables, and every sentence beside its scores.

Nothing is fetched and no script runs. All text of models and corpora is escaped.
"""

import re
from pathlib import Path

from saelens_n2g.autointerp import figure
from saelens_n2g.autointerp.results import MAIN, Interpretation
from saelens_n2g.autointerp.shown import described, shown
from saelens_n2g.autointerp.table import FIGURE, NOTES, headline, tables
from saelens_n2g.comparison.drawings import whole_svg
from saelens_n2g.comparison.table import ABSENT, number
from saelens_n2g.figures import COLOURS, INK, MUTED, RULE
from saelens_n2g.jobs.artefacts import canonical_json, write_bytes, write_text
from saelens_n2g.pages import escaped, page


def write_page(result: Interpretation, folder: Path) -> Path:
    """Write `index.html` and its figure, `figure.svg`, into `folder` and return the page's path.

    Raises `InputError` if they cannot be written.
    """
    seen = shown(result)
    wide, narrow = figure.render(seen, "svg"), figure.render(seen, "svg", narrow=True)
    write_bytes(folder / FIGURE, wide)
    values = {
        "lead": escaped(headline(result)),
        "figure_said": escaped(described(seen)),
        "figure_wide": _inlined(wide, "wide"),
        "figure_narrow": _inlined(narrow, "narrow"),
        "tables": "\n".join(f"<h2>{escaped(title)}</h2>\n{_table(body)}" for title, body in tables(result)),
        "notes": "".join(f"<li>{escaped(note)}</li>" for note in NOTES),
        "head": "".join(f"<th>{escaped(result.label(way))}</th>" for way in result.outcomes),
        "rows": "\n".join(_rows(result)),
        "provenance": escaped(
            canonical_json(
                {
                    "config": result.config,
                    "settings": result.settings,
                    "provenance": result.provenance,
                }
            )
        ),
    }
    path = folder / "index.html"
    write_text(path, page("autointerp", "Sentences beside graphs and tables", values))
    return path


def _inlined(drawn: bytes, name: str) -> str:
    """An SVG whose colours are the page's, so that it follows light and dark, and whose ids are its own."""
    source = whole_svg(drawn.decode(), f"{FIGURE}, {name}")
    inks = {INK: "ink", MUTED: "muted", RULE: "rule", **{colour: f"c{i}" for i, colour in enumerate(COLOURS)}}
    for colour, ink in inks.items():
        source = source.replace(colour, f"var(--{ink})")
    source = re.sub(r'( id="|href="#|url\(#)', rf"\g<1>{name}-", source)
    return source.replace("<svg", f'<svg class="{name}" aria-hidden="true"', 1)


def _table(markdown: str) -> str:
    """A table of Markdown as HTML; raw HTML in it stays text."""
    from markdown_it import MarkdownIt

    made = MarkdownIt("commonmark", {"html": False}).enable("table").render(markdown)
    return f'<div class="scroll">{made}</div>'


def _rows(result: Interpretation) -> list[str]:
    """One row for each unit: its sentences, and its score under every way."""
    ways = list(result.outcomes)
    rows = []
    for place, first in enumerate(result.outcomes[ways[0]]):
        said = [(name, several[place]) for name, several in result.sentences.items()]
        texts = "".join(
            f"<dt>{escaped(name)}</dt><dd>{escaped(one.text or f'{one.status}: {one.reason}')}</dd>"
            for name, one in said
        )
        scores = "".join(f"<td>{_value(result, place, w)}</td>" for w in range(len(ways)))
        rows.append(
            f'<tr><td class="w">{escaped(first.run)}</td><td class="w">{escaped(first.unit)}'
            f"{f'<dl>{texts}</dl>' if texts else ''}</td>{scores}</tr>"
        )
    return rows


def _value(result: Interpretation, place: int, way: int) -> str:
    one = list(result.outcomes.values())[way][place]
    return escaped(number(one.value(*MAIN)) if one.judged is not None else f"{ABSENT} {one.status}")
