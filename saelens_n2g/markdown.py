"""Markdown tables that text cannot break out of."""

from collections.abc import Sequence


def grid(head: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """A table of any text; the first `left` columns to the left, the others to the right."""
    return lines(list(map(cell, head)), [list(map(cell, row)) for row in rows], left)


def lines(head: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """A table of cells that are Markdown already."""
    rule = [":---"] * left + ["---:"] * (len(head) - left)
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, rule, *rows])


def cell(text: str) -> str:
    """A text that cannot end its cell, its row or the document's structure."""
    for mark, safe in (("\\", "\\\\"), ("|", "\\|"), ("<", "&lt;"), ("`", "\\`")):
        text = text.replace(mark, safe)
    return " ".join(text.split())
