"""A graph as a picture: standalone SVG, written without a drawing library.

Foote et al. 2023, section 3 ("Visualisation") and figures 2 to 6: activating tokens stand in a column on the right,
in red, the stronger the brighter; the tokens before them to the left, in blue by importance; a bold outline where a
path may end. Unlike the original, which draws with Graphviz, edges are labelled with the wildcards they skip, parts
that share no edge are drawn apart, and large graphs say how much of them is shown.

    Path("unit.svg").write_text(to_svg(graph), encoding="utf-8")

The text contains no ids and no style sheet, so that many drawings can stand in one page. Equal graphs give equal
bytes.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

from saelens_n2g.graphs.graph import Graph
from saelens_n2g.graphs.layout import (
    LOW,
    Key,
    LayerEdge,
    LayeredGraph,
    LayerNode,
    condense,
    elide,
    fill,
    ink_on,
    place,
    text_width,
    visible,
)

__all__ = ["MAX_NODES", "condense", "to_svg"]

UNFIT_FOR_XML = re.compile("[^\t\n\x20-\x7e\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010fffd]")
MAX_NODES = 40
"""Nodes drawn unless the caller asks otherwise: what still reads well on a screen or half a printed page."""
FONTS = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', 'DejaVu Sans', sans-serif"
NODE_TEXT, SMALL_TEXT, TITLE_TEXT = 14.0, 11.0, 14.0
NODE_HEIGHT, NODE_GAP, NODE_PADDING, NODE_LEAST, LABEL_MOST = 28.0, 10.0, 10.0, 44.0, 170.0
COLUMN_GAP_LEAST, COLUMN_GAP_MOST, PART_GAP, MARGIN, ROW_WIDTH, TITLE_MOST = 40.0, 72.0, 26.0, 18.0, 420.0, 720.0
ARROW, BOLD = 7.0, 3.0
ANY_CONTEXT = "fires on, in any context"
MARKS = ((" ", "·", "space"), ("\n", "⏎", "newline"), ("\t", "⇥", "tab"))
INK, QUIET, LINE, RULE, OUTLINE = "#111827", "#4b5563", "#7b8494", "#d5d9e0", "#8b95a5"


@dataclass(frozen=True, slots=True)
class _Box:
    """A node with its label and place (left edge, middle of the height, width), all in px."""

    node: LayerNode
    label: str
    x: float
    y: float
    width: float


@dataclass(frozen=True, slots=True)
class _Block:
    """A piece of the picture: its SVG elements, drawn from (0, 0) down, and its size in px."""

    elements: tuple[str, ...]
    width: float
    height: float


def to_svg(graph: Graph, *, title: str | None = None, max_nodes: int | None = MAX_NODES) -> str:
    """The graph as a standalone SVG document, read left to right like the text it matches.

    `title` is the heading (`None`: the unit's name; empty: none). At most `max_nodes` nodes are drawn (`None`: all),
    strongest paths first, and the picture says so. Raises `InputError` if `max_nodes` is below 1.
    """
    layered = condense(graph, max_nodes=max_nodes)
    heading = graph.unit if title is None else title
    blocks = _graph_blocks(layered) if layered.nodes else [_words("never fires", QUIET, NODE_TEXT)]
    content = max(block.width for block in blocks)
    legend = _legend(layered, max(content, ROW_WIDTH)) if layered.nodes else []
    if len(layered.nodes) < layered.total:
        note = f"{len(layered.nodes)} of {layered.total} nodes shown, strongest first"
        legend.append(_words(note, INK, SMALL_TEXT))
    if heading:
        shown = elide(" ".join(heading.split()), TITLE_TEXT, TITLE_MOST)
        blocks.insert(0, _words(shown, INK, TITLE_TEXT, weight="600"))
    return _document(blocks, legend, f"Token graph of {heading or graph.unit}", _description(graph, layered))


def xml_text(text: str) -> str:
    """`text` for the inside of an XML element: escaped, and what XML 1.0 forbids or discourages spelled out."""
    spelled = re.sub(UNFIT_FOR_XML, lambda m: f"\\u{ord(m[0]):04x}", text)
    return spelled.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;")


def _document(blocks: Sequence[_Block], legend: Sequence[_Block], name: str, description: str) -> str:
    """Stack the blocks on a light card; legend lines stand closer together than the rest."""
    body: list[str] = []
    y = MARGIN
    for block, space in [*((b, 14.0) for b in blocks), *((b, 6.0) for b in legend)]:
        body += [f'<g transform="translate({_n(MARGIN)} {_n(y)})">', *block.elements, "</g>"]
        y += block.height + space
    height = y - (6.0 if legend else 14.0) + MARGIN
    width = max(block.width for block in (*blocks, *legend)) + 2 * MARGIN
    size = f'width="{_n(width)}" height="{_n(height)}"'
    head = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} viewBox="0 0 {_n(width)} {_n(height)}" role="img" '
        f'font-family="{FONTS}" style="max-width:100%;height:auto">',
        f"<title>{xml_text(name)}</title>",
        f"<desc>{xml_text(description)}</desc>",
        f'<rect x="0.5" y="0.5" width="{_n(width - 1)}" height="{_n(height - 1)}" rx="10" fill="#ffffff" '
        f'stroke="{RULE}"/>',
    ]
    return "\n".join([*head, *body, "</svg>"]) + "\n"


def _description(graph: Graph, layered: LayeredGraph) -> str:
    """One paragraph for those who cannot see the picture."""
    if not layered.nodes:
        return "According to its graph this unit never fires."
    firing = sum(node.depth == 0 for node in layered.nodes)
    counts = f"{firing} activating and {len(layered.nodes) - firing} context tokens"
    parts = f"in {len(layered.components)} separate parts" if len(layered.components) > 1 else "in one part"
    strongest = "; ".join(" ".join(line.split()) for line in graph.to_text().splitlines()[:5])
    return f"{counts}, {parts}. Strongest patterns, activating token in brackets: {strongest}."


def _graph_blocks(layered: LayeredGraph) -> list[_Block]:
    """The parts with context in shared columns, and below them the tokens that fire in any context, in rows."""
    alone = [part[0] for part in layered.components if len(part) == 1 and part[0].end]
    parts = [part for part in layered.components if not (len(part) == 1 and part[0].end)]
    rows = _rows([_box(node, 0.0, 0.0) for node in alone])
    columns = _Columns.of([node for part in parts for node in part], layered.edges)
    width = max(columns.width, max((_row_width(row) for row in rows), default=0.0))
    if alone:
        width = max(width, text_width(ANY_CONTEXT, SMALL_TEXT))
    blocks = []
    if parts:
        blocks.append(_columns_block(columns, parts, layered.edges, width))
    if alone:
        blocks.append(_rows_block(rows, width, below=bool(parts)))
    return blocks


@dataclass(frozen=True, slots=True)
class _Columns:
    """Left edges and widths of the columns by depth, the width of all, and where edges carry their labels."""

    left: dict[int, float]
    widths: dict[int, float]
    width: float
    chips: dict[tuple[Key, Key], str]
    """For every edge with a label: at its `source`, its `target`, or in the `middle`."""
    leads: dict[int, tuple[float, float]]
    """By depth of the source: px that edges run straight, with room for a label, after the source and before the
    target."""

    @classmethod
    def of(cls, nodes: Sequence[LayerNode], edges: Sequence[LayerEdge]) -> "_Columns":
        """Columns just wide enough for their labels, farther apart where many edges or their labels need room."""
        widths: dict[int, float] = {}
        for node in nodes:
            widths[node.depth] = max(widths.get(node.depth, NODE_LEAST), _box(node, 0.0, 0.0).width)
        chips = _chip_places(edges)
        left: dict[int, float] = {}
        leads: dict[int, tuple[float, float]] = {}
        x = 0.0
        for depth in sorted(widths, reverse=True):
            left[depth] = x
            here = [edge for edge in edges if edge.source[0] == depth]
            room = dict.fromkeys(("source", "middle", "target"), 0.0)
            for edge in here:
                if place_of := chips.get((edge.source, edge.target)):
                    room[place_of] = max(room[place_of], text_width(edge.label, SMALL_TEXT) + 10.0)
            leads[depth] = (room["source"], room["target"])
            gap = min(max(36.0 + 3.0 * len(here), COLUMN_GAP_LEAST), COLUMN_GAP_MOST) + sum(room.values())
            x += widths[depth] + (gap if depth else 0.0)
        return cls(left, widths, x, chips, leads)


def _chip_places(edges: Sequence[LayerEdge]) -> dict[tuple[Key, Key], str]:
    """A label stands at an end of its edge where all edges have the same label, so that it is true of all of them."""
    out: dict[Key, set[str]] = {}
    into: dict[Key, set[str]] = {}
    for edge in edges:
        out.setdefault(edge.source, set()).add(edge.label)
        into.setdefault(edge.target, set()).add(edge.label)
    places = {}
    for edge in edges:
        if edge.label:
            at_target = "target" if len(into[edge.target]) == 1 else "middle"
            places[edge.source, edge.target] = "source" if len(out[edge.source]) == 1 else at_target
    return places


def _columns_block(
    columns: _Columns, parts: Sequence[Sequence[LayerNode]], edges: Sequence[LayerEdge], width: float
) -> _Block:
    """Column headings, then every part below the other; flush right, so that activating tokens stand in one column."""
    shift = width - columns.width
    elements = []
    for depth, left in sorted(columns.left.items(), reverse=True):
        middle = shift + left + columns.widths[depth] / 2
        words = _heading(depth, [node for part in parts for node in part if node.depth == depth])
        elements.append(_text(words, middle, SMALL_TEXT, QUIET, SMALL_TEXT, anchor="middle"))
    y = SMALL_TEXT + 10.0
    for number, part in enumerate(parts):
        if number:
            elements.append(_rule(y + PART_GAP / 2, width))
            y += PART_GAP
        heights = place(part, edges, spacing=NODE_HEIGHT + NODE_GAP)
        boxes = {}
        for node in part:
            x, at = shift + columns.left[node.depth], y + heights[node.key] + NODE_HEIGHT / 2
            boxes[node.key] = _box(node, x, at, columns.widths[node.depth])
        inner = [edge for edge in edges if edge.source in boxes and edge.target in boxes]
        elements += _edges_svg(boxes, inner, columns)
        elements += [_node_svg(boxes[node.key]) for node in part]
        y += max(heights.values()) + NODE_HEIGHT
    return _Block(tuple(elements), width, y)


def _heading(depth: int, nodes: Sequence[LayerNode]) -> str:
    """ "2 before" if that is where all of them stand, "2+ before" if wildcards may push some farther away."""
    if depth == 0:
        return "fires on"
    return f"{depth} before" if all(node.farthest == depth for node in nodes) else f"{depth}+ before"


def _rows(boxes: Sequence[_Box]) -> list[list[_Box]]:
    """Break boxes into rows of at most `ROW_WIDTH` px, in order."""
    rows: list[list[_Box]] = []
    used = 0.0
    for box in boxes:
        if not rows or used + NODE_GAP + box.width > ROW_WIDTH:
            rows.append([])
            used = -NODE_GAP
        rows[-1].append(box)
        used += NODE_GAP + box.width
    return rows


def _row_width(row: Sequence[_Box]) -> float:
    return sum(box.width for box in row) + NODE_GAP * (len(row) - 1)


def _rows_block(rows: Sequence[Sequence[_Box]], width: float, *, below: bool) -> _Block:
    """Tokens without context; `below` parts with context, flush right under the column of activating tokens."""
    elements = [_rule(0.0, width)] if below else []
    y = SMALL_TEXT + (8.0 if below else 0.0)
    x, anchor = (width, "end") if below else (0.0, "start")
    elements.append(_text(ANY_CONTEXT, x, y, QUIET, SMALL_TEXT, anchor=anchor))
    y += 10.0
    for row in rows:
        x = width - _row_width(row) if below else 0.0
        for box in row:
            elements.append(_node_svg(_Box(box.node, box.label, x, y + NODE_HEIGHT / 2, box.width)))
            x += box.width + NODE_GAP
        y += NODE_HEIGHT + NODE_GAP
    return _Block(tuple(elements), width, y - NODE_GAP)


def _box(node: LayerNode, x: float, y: float, width: float | None = None) -> _Box:
    label = elide(visible(node.text), NODE_TEXT, LABEL_MOST)
    fitting = max(NODE_LEAST, text_width(label, NODE_TEXT) + 2 * NODE_PADDING)
    return _Box(node, label, x, y, fitting if width is None else width)


def _node_svg(box: _Box) -> str:
    node = box.node
    ground = fill(node.depth, node.importance)
    outline = f'stroke="{INK}" stroke-width="{_n(BOLD)}"' if node.end else f'stroke="{OUTLINE}"'
    rect = (
        f'<rect x="{_n(box.x)}" y="{_n(box.y - NODE_HEIGHT / 2)}" width="{_n(box.width)}" height="{_n(NODE_HEIGHT)}" '
        f'rx="6" fill="{ground}" {outline}/>'
    )
    middle, baseline = box.x + box.width / 2, box.y + 0.35 * NODE_TEXT
    label = _text(box.label, middle, baseline, ink_on(ground), NODE_TEXT, anchor="middle")
    return f"<g><title>{xml_text(tooltip(node))}</title>{rect}{label}</g>"


def tooltip(node: LayerNode) -> str:
    """The whole token in JSON's quotes, what cannot be printed as escapes, and what is known about the node."""
    quoted = "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in json.dumps(node.text, ensure_ascii=False))
    return f"{quoted}: {facts(node)}"


def facts(node: LayerNode) -> str:
    """A node's numbers in words."""
    if node.activation is not None:
        known = f"token {node.token}, fires, up to {node.activation:.2f} of the maximum"
        return f"{known}; in any context" if node.end else known
    near, far = node.nearest, node.farthest
    before = f"{near} before" if near == far else f"{near} to {far} before"
    known = f"token {node.token}, {before}, importance {node.importance:.2f}"
    return f"{known}; nothing earlier needed" if node.end else known


def _edges_svg(boxes: dict[Key, _Box], edges: Sequence[LayerEdge], columns: _Columns) -> list[str]:
    """Curves from context to the next token; one arrowhead a target; labels above all curves."""
    curves, chips = [], []
    for edge in edges:
        a, b = boxes[edge.source], boxes[edge.target]
        x1, x2 = a.x + a.width + (BOLD / 2 if a.node.end else 0.5), b.x - ARROW - 1
        before, after = columns.leads[edge.source[0]]
        start, stop = x1 + before, x2 - after
        half = (start + stop) / 2
        dashes = "" if 0 in edge.gaps else ' stroke-dasharray="5 4"'
        curve = f"C{_n(half)} {_n(a.y)} {_n(half)} {_n(b.y)} {_n(stop)} {_n(b.y)}"
        curves.append(f'<path d="M{_n(x1)} {_n(a.y)}H{_n(start)}{curve}H{_n(x2)}"{dashes}/>')
        if chip := columns.chips.get((edge.source, edge.target)):
            middles = {"source": (x1 + start) / 2 + 2, "middle": half, "target": (stop + x2) / 2 - 2}
            heights = {"source": a.y, "middle": (a.y + b.y) / 2, "target": b.y}
            chips.append(_chip(edge.label, middles[chip], heights[chip]))
    targets = sorted({edge.target for edge in edges})
    heads = [f'<path d="{_arrowhead(boxes[key].x - 1, boxes[key].y)}" fill="{LINE}"/>' for key in targets]
    # A label that several edges share is written once.
    return [f'<g fill="none" stroke="{LINE}" stroke-width="1.5">', *curves, "</g>", *heads, *dict.fromkeys(chips)]


def _arrowhead(x: float, y: float) -> str:
    return f"M{_n(x)} {_n(y)}l{_n(-ARROW - 1)} -4v8z"


def _chip(label: str, x: float, y: float) -> str:
    """A small label on a white ground that keeps curves from running through it."""
    width = 0.9 * text_width(label, SMALL_TEXT)  # the guess is generous, and the ground hides a piece of the curve
    ground = f'<rect x="{_n(x - width / 2)}" y="{_n(y - 8)}" width="{_n(width)}" height="16" rx="4" fill="#ffffff"/>'
    return ground + _text(label, x, y + 0.35 * SMALL_TEXT, QUIET, SMALL_TEXT, anchor="middle")


def _legend(layered: LayeredGraph, width: float) -> list[_Block]:
    """What the marks mean, only those that occur, broken into lines of `width` px."""
    nodes = layered.nodes
    entries = [_scale("activation", depth=0)]
    if any(node.depth for node in nodes):
        entries.append(_scale("importance", depth=1))
    if any(node.end for node in nodes):
        box = f'<rect x="1.5" y="1.5" width="19" height="13" rx="4" fill="#ffffff" stroke="{INK}" stroke-width="3"/>'
        entries.append(_entry(box, 22.0, "nothing earlier needed"))
    if any(edge.gaps != (0,) for edge in layered.edges):
        dash = f'<path d="M0 8h22" stroke="{LINE}" stroke-width="1.5" stroke-dasharray="5 4"/>'
        entries.append(_entry(dash, 22.0, "…2: two tokens of any kind between"))
    text = "".join(node.text for node in nodes)
    marks = [f"{mark} {name}" for sign, mark, name in MARKS if sign in text]
    if marks:
        entries.append(_entry("", -6.0, ", ".join(marks)))
    lines: list[_Block] = []
    for entry in entries:
        last = lines[-1] if lines else None
        if last is None or last.width + 18 + entry.width > width:
            lines.append(entry)
        else:
            moved = f'<g transform="translate({_n(last.width + 18)} 0)">'
            lines[-1] = _Block((*last.elements, moved, *entry.elements, "</g>"), last.width + 18 + entry.width, 16.0)
    return lines


def _scale(name: str, *, depth: int) -> _Block:
    """Five swatches from the lightest to the strongest colour, with the values at both ends."""
    values = [LOW + (1 - LOW) * i / 4 for i in range(5)]
    colours = [fill(depth, value) for value in values]
    swatches = "".join(
        f'<rect x="{_n(i * 11)}" y="2" width="11" height="12" fill="{colour}"/>' for i, colour in enumerate(colours)
    )
    return _entry(swatches, 55.0, f"{name} {LOW:g} to 1")


def _entry(mark: str, mark_width: float, words: str) -> _Block:
    x = mark_width + 6.0
    text = _text(words, x, 8 + 0.35 * SMALL_TEXT, QUIET, SMALL_TEXT)
    return _Block((mark, text) if mark else (text,), x + text_width(words, SMALL_TEXT), 16.0)


def _words(words: str, colour: str, size: float, *, weight: str | None = None) -> _Block:
    return _Block((_text(words, 0.0, size, colour, size, weight=weight),), text_width(words, size) * 1.08, size * 1.2)


def _text(
    words: str, x: float, y: float, colour: str, size: float, *, anchor: str | None = None, weight: str | None = None
) -> str:
    """A line of text with its baseline at `y`."""
    more = (f' text-anchor="{anchor}"' if anchor else "") + (f' font-weight="{weight}"' if weight else "")
    return f'<text x="{_n(x)}" y="{_n(y)}" font-size="{_n(size)}" fill="{colour}"{more}>{xml_text(words)}</text>'


def _rule(y: float, width: float) -> str:
    return f'<path d="M0 {_n(y)}h{_n(width)}" stroke="{RULE}" stroke-dasharray="2 4"/>'


def _n(value: float) -> str:
    """A number with at most two decimals, the same text on every machine."""
    return f"{round(value, 2) + 0.0:.2f}".rstrip("0").rstrip(".")
