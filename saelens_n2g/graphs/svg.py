"""The few pieces of SVG that drawings are put together from: text, rules, blocks stacked on a card.

Nothing here has ids or a style sheet, so that many drawings can stand in one page; numbers are written the same way on
every machine.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from saelens_n2g.graphs.labels import text_width

UNFIT_FOR_XML = re.compile("[^\t\n\x20-\x7e\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010fffd]")
FONTS = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', 'DejaVu Sans', sans-serif"
SMALL_TEXT, MARGIN, BLOCK_GAP, LINE_GAP = 11.0, 18.0, 14.0, 6.0
INLINE_MARGIN = 3.0
"""Room for outlines where the page has margins of its own."""
QUIET, RULE = "#4b5563", "#d5d9e0"


@dataclass(frozen=True, slots=True)
class Block:
    """A piece of the picture: its SVG elements, drawn from (0, 0) down, and its size in px."""

    elements: tuple[str, ...]
    width: float
    height: float


def document(blocks: Sequence[Block], lines: Sequence[Block], name: str, description: str) -> str:
    """A standalone picture: blocks stacked on a light card, then lines, which stand closer together.

    `name` and `description` are for those who cannot see it.
    """
    body, width, height = _stacked([*((b, BLOCK_GAP) for b in blocks), *((b, LINE_GAP) for b in lines)], MARGIN)
    size = f'width="{num(width)}" height="{num(height)}"'
    head = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} viewBox="0 0 {num(width)} {num(height)}" role="img" '
        f'font-family="{FONTS}" style="max-width:100%;height:auto">',
        f"<title>{xml_text(name)}</title>",
        f"<desc>{xml_text(description)}</desc>",
        f'<rect x="0.5" y="0.5" width="{num(width - 1)}" height="{num(height - 1)}" rx="10" fill="#ffffff" '
        f'stroke="{RULE}"/>',
    ]
    return "\n".join([*head, *body, "</svg>"]) + "\n"


def inline(blocks: Sequence[Block], kind: str, name: str = "", description: str = "") -> str:
    """Blocks for the inside of a page: on no card, with a class and no style. A named one is a group of links."""
    body, width, height = _stacked([(block, BLOCK_GAP) for block in blocks], INLINE_MARGIN)
    size = f'width="{num(width)}" height="{num(height)}" viewBox="0 0 {num(width)} {num(height)}"'
    named = f' role="group" aria-label="{xml_text(name)}"' if name else ""
    said = [f"<desc>{xml_text(description)}</desc>"] if description else []
    return "\n".join([f'<svg class="{kind}" {size} font-family="{FONTS}"{named}>', *said, *body, "</svg>"])


def _stacked(blocks: Sequence[tuple[Block, float]], margin: float) -> tuple[list[str], float, float]:
    """Blocks below each other, each with the space behind it, within a margin: elements, width and height of all."""
    body: list[str] = []
    y = margin
    for block, space in blocks:
        body += [f'<g transform="translate({num(margin)} {num(y)})">', *block.elements, "</g>"]
        y += block.height + space
    return body, max(block.width for block, _ in blocks) + 2 * margin, y - blocks[-1][1] + margin


def xml_text(words: str) -> str:
    """`words` for the inside of an XML element: escaped, and what XML 1.0 forbids or discourages spelled out."""
    spelled = re.sub(UNFIT_FOR_XML, lambda m: f"\\u{ord(m[0]):04x}", words)
    return spelled.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;")


def words_at(
    words: str, x: float, y: float, colour: str, size: float, *, anchor: str | None = None, weight: str | None = None
) -> str:
    """A line of text with its baseline at `y`."""
    more = (f' text-anchor="{anchor}"' if anchor else "") + (f' font-weight="{weight}"' if weight else "")
    place = f'x="{num(x)}" y="{num(y)}" font-size="{num(size)}"'
    return f'<text {place} fill="{colour}"{more}>{xml_text(words)}</text>'


def line_of_text(words: str, colour: str, size: float, *, weight: str | None = None) -> Block:
    """A line of text as a block of its own."""
    return Block((words_at(words, 0.0, size, colour, size, weight=weight),), text_width(words, size) * 1.08, size * 1.2)


def entry(mark: str, mark_width: float, words: str) -> Block:
    """An entry of a legend: a mark 16 px high and what it means; without a mark `mark_width` is -6."""
    x = mark_width + 6.0
    label = words_at(words, x, 8 + 0.35 * SMALL_TEXT, QUIET, SMALL_TEXT)
    return Block((mark, label) if mark else (label,), x + text_width(words, SMALL_TEXT), 16.0)


def rule(y: float, width: float) -> str:
    """A dotted line across."""
    return f'<path d="M0 {num(y)}h{num(width)}" stroke="{RULE}" stroke-dasharray="2 4"/>'


def num(value: float) -> str:
    """A number with at most two decimals, the same text on every machine."""
    return f"{round(value, 2) + 0.0:.2f}".rstrip("0").rstrip(".")
