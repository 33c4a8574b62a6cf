"""A graph as a picture: standalone SVG, written without a drawing library.

Foote et al. 2023, section 3 ("Visualisation") and figures 2 to 6: activating tokens stand in a column on the right,
in red, the stronger the brighter; the tokens before them to the left, in blue by importance; a bold outline where a
path may end. Unlike the original, which draws with Graphviz, edges are labelled with the wildcards they skip, parts
that share no edge are drawn apart, and large graphs say how much of them is shown. What the paper's graphs do not
have: a class of tokens is one box with as many members as fit, the start of the text a box with round ends, and where
the unit stays quiet the outline is dashed, grey inside if no path through the box fires.

    Path("unit.svg").write_text(to_svg(graph), encoding="utf-8")
    to_page(graph, link=address_of).svg                # the same in a page of HTML, with links and names on its parts

The text contains no ids and no style sheet, so that many drawings can stand in one page. Equal graphs give equal
bytes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

from saelens_n2g.graphs.condensed import Key, LayerEdge, LayeredGraph, LayerNode, condense
from saelens_n2g.graphs.elements import START
from saelens_n2g.graphs.graph import Graph
from saelens_n2g.graphs.labels import elide, fill, ink_on, text_width
from saelens_n2g.graphs.layout import place
from saelens_n2g.graphs.legend import INK, LINE, legend_entries, legend_lines, node_label, outlines, tooltip
from saelens_n2g.graphs.marks import Link, Marks, PageMarks
from saelens_n2g.graphs.svg import (
    QUIET,
    SMALL_TEXT,
    Block,
    document,
    inline,
    line_of_text,
    num,
    rule,
    words_at,
    xml_text,
)

__all__ = ["MAX_NODES", "Drawing", "condense", "to_page", "to_svg"]

MAX_NODES = 40
"""Nodes drawn unless the caller asks otherwise: what still reads well on a screen or half a printed page."""
NODE_TEXT, TITLE_TEXT = 14.0, 14.0
NODE_HEIGHT, NODE_GAP, NODE_PADDING, NODE_LEAST, LABEL_MOST = 28.0, 10.0, 10.0, 44.0, 170.0
COLUMN_GAP_LEAST, COLUMN_GAP_MOST, PART_GAP, TITLE_MOST = 40.0, 72.0, 26.0, 720.0
ROW_LEAST, ROW_MOST, ROW_SHAPE = 420.0, 960.0, 1.6
"""Width of rows of boxes in px, and how much wider than high a block of them is in between."""
ARROW, BOLD = 7.0, 3.0
ANY_CONTEXT = "fires on, in any context"


@dataclass(frozen=True, slots=True)
class _Box:
    """A node with its label and place (left edge, middle of the height, width), all in px."""

    node: LayerNode
    label: str
    x: float
    y: float
    width: float


def to_svg(graph: Graph, *, title: str | None = None, max_nodes: int | None = MAX_NODES) -> str:
    """The graph as a standalone SVG document, read left to right like the text it matches.

    `title` is the heading (`None`: the unit's name; empty: none). At most `max_nodes` nodes are drawn (`None`: all),
    strongest paths first, and the picture says so. Raises `InputError` if `max_nodes` is below 1.
    """
    layered = condense(graph, max_nodes=max_nodes)
    heading = graph.unit if title is None else title
    blocks = _graph_blocks(layered, Marks()) if layered.nodes else [line_of_text("never fires", QUIET, NODE_TEXT)]
    content = max(block.width for block in blocks)
    lines = legend_lines(layered, max(content, ROW_LEAST)) if layered.nodes else []
    if len(layered.nodes) < layered.total:
        note = f"{len(layered.nodes)} of {layered.total} nodes shown, paths behind most firing first"
        lines.append(line_of_text(note, INK, SMALL_TEXT))
    if heading:
        shown = elide(" ".join(heading.split()), TITLE_TEXT, TITLE_MOST)
        blocks.insert(0, line_of_text(shown, INK, TITLE_TEXT, weight="600"))
    return document(blocks, lines, f"Token graph of {heading or graph.unit}", _description(graph, layered))


@dataclass(frozen=True, slots=True)
class Drawing:
    """A graph for a page of HTML, without style attributes and titles of its own."""

    svg: str
    """Empty if no path of the graph fires."""
    legend: tuple[str, ...]
    """What the marks in it mean, each a picture of one line."""
    shown: int
    """Nodes that are drawn."""
    total: int
    """Nodes that there are."""


def to_page(graph: Graph, *, link: Link, max_nodes: int | None = MAX_NODES) -> Drawing:
    """The picture of `to_svg` as a part of a page: nodes are links, and edges say which nodes they join.

    Colours are attributes, so a style sheet may change them. Raises `InputError` if `max_nodes` is below 1.
    """
    layered = condense(graph, max_nodes=max_nodes)
    if not layered.nodes:
        return Drawing("", (), 0, layered.total)
    name = f"Token graph of {graph.unit}"
    svg = inline(_graph_blocks(layered, PageMarks(link)), "drawing", name, _description(graph, layered))
    legend = tuple(inline([one], "mark") for one in legend_entries(layered))
    return Drawing(svg, legend, len(layered.nodes), layered.total)


def _description(graph: Graph, layered: LayeredGraph) -> str:
    """One paragraph for those who cannot see the picture."""
    firing = sum(node.depth == 0 and not node.only_quiet for node in layered.nodes)
    if not firing:
        return "According to its graph this unit never fires."
    quiet = sum(node.quiet is not None for node in layered.nodes)
    counts = f"{firing} activating and {len(layered.nodes) - firing} context tokens"
    counts += f", {quiet} of them where it stays quiet" if quiet else ""
    parts = f"in {len(layered.components)} separate parts" if len(layered.components) > 1 else "in one part"
    strongest = "; ".join(" ".join(line.split()) for line in graph.to_text().splitlines()[:5])
    return f"{counts}, {parts}. Strongest patterns, activating token in brackets: {strongest}."


def _graph_blocks(layered: LayeredGraph, marks: Marks) -> list[Block]:
    """The parts with context in shared columns, and below them the tokens that fire in any context, in rows."""
    alone = [part[0] for part in layered.components if len(part) == 1 and part[0].fires]
    parts = [part for part in layered.components if not (len(part) == 1 and part[0].fires)]
    boxes = [_box(node, 0.0, 0.0) for node in alone]
    rows = _rows(boxes, _row_room(boxes))
    columns = _Columns.of([node for part in parts for node in part], layered.edges)
    width = max(columns.width, max((_row_width(row) for row in rows), default=0.0))
    if alone:
        width = max(width, text_width(ANY_CONTEXT, SMALL_TEXT))
    blocks = []
    if parts:
        blocks.append(_columns_block(columns, parts, layered.edges, width, marks))
    if alone:
        blocks.append(_rows_block(rows, width, marks, below=bool(parts)))
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
    columns: _Columns,
    parts: Sequence[Sequence[LayerNode]],
    edges: Sequence[LayerEdge],
    width: float,
    marks: Marks,
) -> Block:
    """Column headings, then every part below the other; flush right, so that activating tokens stand in one column."""
    shift = width - columns.width
    elements = []
    for depth, left in sorted(columns.left.items(), reverse=True):
        middle = shift + left + columns.widths[depth] / 2
        words = _heading(depth, [node for part in parts for node in part if node.depth == depth])
        elements.append(words_at(words, middle, SMALL_TEXT, QUIET, SMALL_TEXT, anchor="middle"))
    y = SMALL_TEXT + 10.0
    for i, part in enumerate(parts):
        if i:
            elements.append(rule(y + PART_GAP / 2, width))
            y += PART_GAP
        heights = place(part, edges, spacing=NODE_HEIGHT + NODE_GAP)
        boxes = {}
        for node in part:
            x, at = shift + columns.left[node.depth], y + heights[node.key] + NODE_HEIGHT / 2
            boxes[node.key] = _box(node, x, at, columns.widths[node.depth])
        inner = [edge for edge in edges if edge.source in boxes and edge.target in boxes]
        elements += _edges_svg(boxes, inner, columns, marks)
        elements += [_node_svg(boxes[node.key], marks) for node in part]
        y += max(heights.values()) + NODE_HEIGHT
    return Block(tuple(elements), width, y)


def _heading(depth: int, nodes: Sequence[LayerNode]) -> str:
    """ "2 before" if that is where all of them stand, "2+ before" if wildcards may push some farther away."""
    if depth == 0:
        return "fires on"
    return f"{depth} before" if all(node.farthest == depth for node in nodes) else f"{depth}+ before"


def _row_room(boxes: Sequence[_Box]) -> float:
    """Width of rows that makes a block of the boxes somewhat wider than high, so that hundreds stay on one screen."""
    area = sum(box.width + NODE_GAP for box in boxes) * (NODE_HEIGHT + NODE_GAP)
    return min(max(sqrt(area * ROW_SHAPE), ROW_LEAST), ROW_MOST)


def _rows(boxes: Sequence[_Box], room: float) -> list[list[_Box]]:
    """Break boxes into rows of at most `room` px, in order."""
    rows: list[list[_Box]] = []
    used = 0.0
    for box in boxes:
        if not rows or used + NODE_GAP + box.width > room:
            rows.append([])
            used = -NODE_GAP
        rows[-1].append(box)
        used += NODE_GAP + box.width
    return rows


def _row_width(row: Sequence[_Box]) -> float:
    return sum(box.width for box in row) + NODE_GAP * (len(row) - 1)


def _rows_block(rows: Sequence[Sequence[_Box]], width: float, marks: Marks, *, below: bool) -> Block:
    """Tokens without context; `below` parts with context, flush right under the column of activating tokens."""
    elements = [rule(0.0, width)] if below else []
    y = SMALL_TEXT + (8.0 if below else 0.0)
    x, anchor = (width, "end") if below else (0.0, "start")
    elements.append(words_at(ANY_CONTEXT, x, y, QUIET, SMALL_TEXT, anchor=anchor))
    y += 10.0
    for row in rows:
        x = width - _row_width(row) if below else 0.0
        for box in row:
            elements.append(_node_svg(_Box(box.node, box.label, x, y + NODE_HEIGHT / 2, box.width), marks))
            x += box.width + NODE_GAP
        y += NODE_HEIGHT + NODE_GAP
    return Block(tuple(elements), width, y - NODE_GAP)


def _box(node: LayerNode, x: float, y: float, width: float | None = None) -> _Box:
    label = node_label(node, NODE_TEXT, LABEL_MOST)
    fitting = max(NODE_LEAST, text_width(label, NODE_TEXT) + 2 * NODE_PADDING)
    return _Box(node, label, x, y, fitting if width is None else width)


def _node_svg(box: _Box, marks: Marks) -> str:
    node = box.node
    ground = fill(node.depth, node.importance, quiet=node.only_quiet)
    shape = (
        f'<rect x="{num(box.x)}" y="{num(box.y - NODE_HEIGHT / 2)}" width="{num(box.width)}" '
        f'height="{num(NODE_HEIGHT)}" rx="{num(NODE_HEIGHT / 2) if node.token == START else 6}"'
    )
    first, *over = outlines(node)
    rects = "".join([f'{shape} fill="{ground}" {first}/>', *(f'{shape} fill="none" {one}/>' for one in over)])
    middle, baseline = box.x + box.width / 2, box.y + 0.35 * NODE_TEXT
    label = words_at(box.label, middle, baseline, ink_on(ground), NODE_TEXT, anchor="middle")
    before, behind = marks.node(node)
    return f"{before}<title>{xml_text(tooltip(node))}</title>{rects}{label}{behind}"


def _edges_svg(boxes: dict[Key, _Box], edges: Sequence[LayerEdge], columns: _Columns, marks: Marks) -> list[str]:
    """Curves from context to the next token; one arrowhead a target; labels above all curves."""
    curves, chips = [], []
    for edge in edges:
        a, b = boxes[edge.source], boxes[edge.target]
        x1, x2 = a.x + a.width + (BOLD / 2 if a.node.fires or a.node.quiet else 0.5), b.x - ARROW - 1
        before, after = columns.leads[edge.source[0]]
        start, stop = x1 + before, x2 - after
        half = (start + stop) / 2
        dashes = "" if edge.fewest == 0 else ' stroke-dasharray="5 4"'
        curve = f"C{num(half)} {num(a.y)} {num(half)} {num(b.y)} {num(stop)} {num(b.y)}"
        curves.append(f'<path d="M{num(x1)} {num(a.y)}H{num(start)}{curve}H{num(x2)}"{dashes}{marks.edge(edge)}/>')
        if chip := columns.chips.get((edge.source, edge.target)):
            middles = {"source": (x1 + start) / 2 + 2, "middle": half, "target": (stop + x2) / 2 - 2}
            heights = {"source": a.y, "middle": (a.y + b.y) / 2, "target": b.y}
            chips.append(marks.chip(_chip(edge.label, middles[chip], heights[chip]), edge, chip))
    targets = sorted({edge.target for edge in edges})
    heads = [
        f'<path d="{_arrowhead(boxes[key].x - 1, boxes[key].y)}" fill="{LINE}"{marks.head(key)}/>' for key in targets
    ]
    # A label that several edges share is written once.
    return [f'<g fill="none" stroke="{LINE}" stroke-width="1.5">', *curves, "</g>", *heads, *dict.fromkeys(chips)]


def _arrowhead(x: float, y: float) -> str:
    return f"M{num(x)} {num(y)}l{num(-ARROW - 1)} -4v8z"


def _chip(label: str, x: float, y: float) -> str:
    """A small label on a white ground that keeps curves from running through it."""
    width = 0.9 * text_width(label, SMALL_TEXT)  # the guess is generous, and the ground hides a piece of the curve
    place_of = f'x="{num(x - width / 2)}" y="{num(y - 8)}" width="{num(width)}"'
    ground = f'<rect {place_of} height="16" rx="4" fill="#ffffff"/>'
    return ground + words_at(label, x, y + 0.35 * SMALL_TEXT, QUIET, SMALL_TEXT, anchor="middle")
