"""The study as an HTML page that opens from disk: conclusions, figures, and every unit in a table that sorts.

No server and no network: a content security policy allows no request but for the figures inside, and no script but the
page's own. All text of models and corpora is escaped.
"""

from collections.abc import Sequence
from pathlib import Path

from saelens_n2g.comparison.table import ABSENT
from saelens_n2g.jobs.artefacts import canonical_json, write_text
from saelens_n2g.pages import escaped, inlined, page
from saelens_n2g.study.cell import title_of
from saelens_n2g.study.conclusions import conclusions, limits
from saelens_n2g.study.config import SHUFFLED
from saelens_n2g.study.records import Cell, UnitRecord
from saelens_n2g.study.results import StudyResult
from saelens_n2g.study.table import headline

HEADS = (
    ("Layer", False), ("Basis", True), ("Unit and graph", True), ("F1 random", False), ("F1 held-out", False),
    ("Precision", False), ("Recall", False), ("AUPRC", False), ("Correlation", False), ("Density", False),
    ("Massive", False), ("Spread", False), ("Exemplars", False), ("Nodes", False), ("Back-off F1", False),
    ("Back-off F1, whole text", False), ("Shuffled F1", False), ("Status", True),
)  # fmt: skip
"""Columns, and whether they hold words. Precision to correlation are on random test text."""


def write_page(result: StudyResult, folder: Path, figures: Sequence[str]) -> Path:
    """Write `index.html` into `folder`, which holds the figures `NAME.svg`, and return its path.

    Raises `InputError` if it cannot be written.
    """
    units = sum(len(cell.units) for cell in result.cells)
    values = {
        "lead": escaped(f"{units} units in {len(result.names)} bases and {len(result.layers)} layers, one protocol."),
        "conclusions": _items(conclusions(result)),
        "limits": _items(limits(result)),
        "figures": "\n".join(_figure(folder, name) for name in figures),
        "bases": "".join(
            f'<option value="{escaped(name)}">{escaped(title_of(name))}</option>' for name in result.names
        ),
        "layers": "".join(f'<option value="{layer}">{layer}</option>' for layer in result.layers),
        "head": "".join(f'<th{_word(words)}><button type="button">{head}</button></th>' for head, words in HEADS),
        "rows": "\n".join(_row(cell, unit) for cell in result.cells for unit in cell.units),
        "provenance": escaped(canonical_json(dict(result.provenance))),
    }
    path = folder / "index.html"
    write_text(path, page("study", headline(result), values))
    return path


def _figure(folder: Path, name: str) -> str:
    return f'<figure><img alt="{name.replace("_", " ")}" src="{inlined(folder / f"{name}.svg")}"></figure>'


def _items(lines: Sequence[str]) -> str:
    return "".join(f"<li>{escaped(line)}</li>" for line in lines)


def _word(words: bool) -> str:
    return ' class="w"' if words else ""


def _row(cell: Cell, unit: UnitRecord) -> str:
    scores = unit.scores["graph"]
    f1 = {name: unit.scores.get(name, {}).get("random", {}).get("f1") for name in unit.scores}
    status = "no graph" if unit.failure else f"twin of {unit.twin}" if unit.twin else "explained"
    values: list[float | int | str | None] = [
        cell.layer, cell.title, "", scores["random"]["f1"], scores["held_out"]["f1"], scores["random"]["precision"],
        scores["random"]["recall"], scores["random"]["auprc"], scores["random"]["correlation"], unit.density,
        unit.massive, unit.spread, unit.exemplars, unit.nodes, f1.get("backoff_table"), f1.get("backoff_table_corpus"),
        f1.get(SHUFFLED), status,
    ]  # fmt: skip
    cells = [_cell(value) for value in values]
    said = unit.failure or unit.text
    cells[2] = (
        f'<td class="w"><details><summary>{escaped(unit.name)}</summary><pre>{escaped(said)}</pre></details></td>'
    )
    kind = ' class="twin"' if unit.twin else ""
    return f'<tr{kind} data-b="{escaped(cell.basis)}" data-l="{cell.layer}">{"".join(cells)}</tr>'


def _cell(value: float | int | str | None) -> str:
    if value is None:
        return f'<td data-v="">{ABSENT}</td>'
    if isinstance(value, str):
        return f'<td class="w">{escaped(value)}</td>'
    shown = str(value) if isinstance(value, int) else f"{value:.2g}" if abs(value) < 0.01 else f"{value:.2f}"
    return f'<td data-v="{value!r}">{shown}</td>'
