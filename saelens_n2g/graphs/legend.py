"""What the marks of a drawing mean: a node's label and its tooltip, and the legend under the picture."""

import json
from collections.abc import Sequence

from saelens_n2g.graphs.condensed import LayeredGraph, LayerNode, Stop
from saelens_n2g.graphs.elements import START
from saelens_n2g.graphs.labels import LOW, elide, fill, text_width, visible
from saelens_n2g.graphs.svg import Block, entry, num

INK, LINE, OUTLINE, STILL = "#111827", "#7b8494", "#8b95a5", "#b45309"
"""Colours of text and bold outlines, edges, thin outlines, and outlines where the unit stays quiet."""
DASHES = "6 4"
MARKS = ((" ", "·", "space"), ("\n", "⏎", "newline"), ("\t", "⇥", "tab"))
START_LABEL = "start of text"
SEPARATOR = " | "
"""Between the members of a class; spaces inside of a token are drawn as marks, so it cannot be one."""
LISTED = 40
"""Members of a class that a tooltip lists."""


def node_label(node: LayerNode, size: float, most: float) -> str:
    """What stands in a node's box, at most `most` px wide at font size `size`: the token, or as many members as fit."""
    if node.token == START:
        return START_LABEL
    best, words = "", ""
    for n, name in enumerate(node.names, start=1):
        words += (SEPARATOR if words else "") + visible(name)
        if text_width(words, size) > most:
            break
        fitting = words + _rest(node, n)
        best = fitting if text_width(fitting, size) <= most else best
    rest = _rest(node, 1)
    return best or elide(visible(node.names[0]), size, most - text_width(rest, size)) + rest


def _rest(node: LayerNode, n: int) -> str:
    """How many members of a class are not among the first `n`."""
    return f" +{len(node.names) - n}" if len(node.names) > n else ""


def short_label(node: LayerNode, members: int) -> str:
    """The node's label without regard to width: whole tokens, of a class the first `members`."""
    if node.token == START:
        return START_LABEL
    return SEPARATOR.join(visible(name) for name in node.names[:members]) + _rest(node, members)


def tooltip(node: LayerNode) -> str:
    """The whole token in JSON's quotes, or the members of a class, and what is known about the node."""
    listed = ", ".join(_quoted(name) for name in node.names[:LISTED])
    more = f" and {len(node.names) - LISTED} more" if len(node.names) > LISTED else ""
    return f"{listed}{more}: {facts(node)}" if node.names else facts(node)


def _quoted(name: str) -> str:
    """A text in JSON's quotes, with escapes for what cannot be printed."""
    return "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in json.dumps(name, ensure_ascii=False))


def facts(node: LayerNode) -> str:
    """A node's numbers in words."""
    known = [_what(node)]
    if node.activation is None:
        near, far = node.nearest, node.farthest
        known.append(f"{near} before" if near == far else f"{near} to {far} before")
        known.append(f"importance {node.importance:.2f}")
    elif not node.only_quiet:
        known.append(f"fires, up to {node.activation:.2f} of the maximum")
    said = [", ".join(known)]
    if node.fires is not None:
        said.append(("in any context" if node.depth == 0 else "nothing earlier needed") + f" {counts(node.fires)}")
    if node.quiet is not None:
        where = "stays quiet here" if node.depth or node.only_quiet else "stays quiet here without more context"
        said.append(f"{where}, {node.quiet.activation:.2f} {counts(node.quiet)}")
    elif node.only_quiet:
        said.append("leads only to where the unit stays quiet")
    return "; ".join(said)


def _what(node: LayerNode) -> str:
    if node.token == START:
        return "the text begins here"
    return f"token {node.token}" if node.token >= 0 else f"any of {len(node.names)} tokens"


def counts(stop: Stop) -> str:
    """Examples of the ends, and the places where they counted if any were counted: "(n=12 of 15)", "(n=3)"."""
    return f"(n={stop.support} of {stop.seen})" if stop.seen else f"(n={stop.support})"


def outlines(node: LayerNode) -> list[str]:
    """Attributes of a box's outlines, lowest first: bold where the unit fires, dashed where it stays quiet.

    Where merged paths end both ways, the dashes lie over the bold outline.
    """
    bold = [f'stroke="{INK}" stroke-width="3"'] if node.fires is not None else []
    dashed = [f'stroke="{STILL}" stroke-width="3" stroke-dasharray="{DASHES}"'] if node.quiet is not None else []
    return bold + dashed or [f'stroke="{OUTLINE}"']


def legend_lines(layered: LayeredGraph, width: float) -> list[Block]:
    """What the marks mean, only those that occur, broken into lines of `width` px."""
    return _lines(legend_entries(layered), width)


def legend_entries(layered: LayeredGraph) -> list[Block]:
    """What the marks mean, one by one."""
    nodes = layered.nodes
    entries = [_scale("activation", depth=0)] if any(not n.only_quiet for n in nodes) else []
    if any(node.depth and not node.only_quiet for node in nodes):
        entries.append(_scale("importance", depth=1))
    if any(node.only_quiet for node in nodes):
        entries.append(_scale("importance for staying quiet", depth=1, quiet=True))
    if any(node.fires for node in nodes):
        entries.append(entry(_sample(f'stroke="{INK}" stroke-width="3"'), 22.0, "nothing earlier needed"))
    if any(node.quiet for node in nodes):
        dashed = f'stroke="{STILL}" stroke-width="3" stroke-dasharray="{DASHES}"'
        entries.append(entry(_sample(dashed), 22.0, "stays quiet here, whatever shorter paths say"))
    if any(len(node.names) > 1 for node in nodes):
        entries.append(entry("", -6.0, "a | b +3: any one of five tokens"))
    dash = f'<path d="M0 8h22" stroke="{LINE}" stroke-width="1.5" stroke-dasharray="5 4"/>'
    if any(edge.fewest for edge in layered.edges):
        entries.append(entry(dash, 22.0, "…2: two tokens of any kind between"))
    if any(edge.fewest < edge.most for edge in layered.edges):
        entries.append(entry("", -6.0, "…0–3: up to three"))
    names = "".join(name for node in nodes for name in node.names)
    marks = [f"{mark} {name}" for sign, mark, name in MARKS if sign in names]
    if marks:
        entries.append(entry("", -6.0, ", ".join(marks)))
    return entries


def _lines(entries: Sequence[Block], width: float) -> list[Block]:
    """Entries beside each other in lines of `width` px."""
    lines: list[Block] = []
    for one in entries:
        last = lines[-1] if lines else None
        if last is None or last.width + 18 + one.width > width:
            lines.append(one)
        else:
            moved = f'<g transform="translate({num(last.width + 18)} 0)">'
            lines[-1] = Block((*last.elements, moved, *one.elements, "</g>"), last.width + 18 + one.width, 16.0)
    return lines


def _sample(outline: str) -> str:
    return f'<rect x="1.5" y="1.5" width="19" height="13" rx="4" fill="#ffffff" {outline}/>'


def _scale(name: str, *, depth: int, quiet: bool = False) -> Block:
    """Five swatches from the lightest to the strongest colour, with the values at both ends."""
    values = [LOW + (1 - LOW) * i / 4 for i in range(5)]
    colours = [fill(depth, value, quiet=quiet) for value in values]
    swatches = "".join(
        f'<rect x="{num(i * 11)}" y="2" width="11" height="12" fill="{colour}"/>' for i, colour in enumerate(colours)
    )
    return entry(swatches, 55.0, f"{name} {LOW:g} to 1")
