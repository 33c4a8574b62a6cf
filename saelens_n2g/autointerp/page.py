"""An interpretation as an HTML page that opens from disk: the tables, and every sentence beside its scores.

Nothing is fetched and no script runs. All text of models and corpora is escaped.
"""

from pathlib import Path

from saelens_n2g.autointerp.results import MAIN, Interpretation
from saelens_n2g.autointerp.table import NOTES, headline, tables
from saelens_n2g.comparison.table import ABSENT, number
from saelens_n2g.jobs.artefacts import canonical_json, write_text
from saelens_n2g.pages import escaped, page


def write_page(result: Interpretation, folder: Path) -> Path:
    """Write `index.html` into `folder` and return its path. Raises `InputError` if it cannot be written."""
    values = {
        "lead": escaped(headline(result)),
        "tables": "\n".join(f"<h2>{escaped(title)}</h2>\n{_table(body)}" for title, body in tables(result)),
        "notes": "".join(f"<li>{escaped(note)}</li>" for note in NOTES),
        "head": "".join(f"<th>{escaped(way.label)}</th>" for way in result.outcomes),
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
