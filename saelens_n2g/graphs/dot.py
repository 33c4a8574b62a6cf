"""A graph for other tools: Graphviz DOT text and a networkx graph. The same condensed form as the drawing.

Path("unit.dot").write_text(to_dot(graph), encoding="utf-8")     # dot -Tpdf unit.dot -o unit.pdf
networkx.write_graphml(to_networkx(graph), "unit.graphml")
"""

from typing import TYPE_CHECKING

from saelens_n2g.graphs.condensed import LayerNode, Stop, condense
from saelens_n2g.graphs.elements import SHOWN, START
from saelens_n2g.graphs.graph import Graph
from saelens_n2g.graphs.labels import fill, ink_on, visible
from saelens_n2g.graphs.legend import INK, LINE, OUTLINE, STILL, facts, short_label

if TYPE_CHECKING:
    import networkx


def to_networkx(graph: Graph) -> "networkx.DiGraph":
    """The condensed graph, edges from a token to the next one of a path.

    Nodes are keyed (depth, element) and carry `text`, `depth`, `importance`, `nearest`, `farthest` (places before the
    activating token), `only_quiet` (no path through it fires) and, at depth 0 only, `activation`. `end` and
    `quiet_end` say whether a path that fires, or one that stays quiet, may stop there; `support` and `seen` count the
    examples and places of the former, `quiet_support` and `quiet_seen` of the latter. Edges carry `fewest_between` and
    `most_between`, the tokens of any kind that they skip. The graph carries `unit` and `max_activation`.
    """
    import networkx as nx

    layered = condense(graph)
    out = nx.DiGraph(unit=graph.unit, max_activation=graph.max_activation)
    for node in layered.nodes:
        out.add_node(node.key, **_facts(node))
    for edge in layered.edges:
        out.add_edge(edge.source, edge.target, fewest_between=edge.fewest, most_between=edge.most)
    return out


def _facts(node: LayerNode) -> dict[str, object]:
    """Attributes of a node, of types that GraphML can hold."""
    none = Stop(0.0, 0, 0)
    fires, quiet = node.fires or none, node.quiet or none
    known: dict[str, object] = {
        "text": node.text,
        "depth": node.depth,
        "importance": node.importance,
        "end": node.fires is not None,
        "support": fires.support,
        "seen": fires.seen,
        "quiet_end": node.quiet is not None,
        "quiet_support": quiet.support,
        "quiet_seen": quiet.seen,
        "only_quiet": node.only_quiet,
        "nearest": node.nearest,
        "farthest": node.farthest,
    }
    return known if node.activation is None else {**known, "activation": node.activation}


def to_dot(graph: Graph) -> str:
    """The condensed graph as DOT text in UTF-8, coloured like the SVG; every string quoted.

    Labels are whole tokens with white space as marks, so that they hold no line breaks; of a class its first members.
    Tooltips hold the numbers only: Graphviz undoes backslashes twice there.
    """
    layered = condense(graph)
    font = f"fontname={quoted('Helvetica,Arial,sans-serif')}"
    lines = [
        f"digraph {quoted(graph.unit)} {{",
        '  graph [rankdir=LR, charset="UTF-8", nodesep=0.2, ranksep=0.8, bgcolor="#ffffff"];',
        f'  node [shape=box, style="filled,rounded", height=0.4, margin="0.15,0.05", {font}];',
        f"  edge [color={quoted(LINE)}, fontcolor={quoted(INK)}, fontsize=10, {font}];",
    ]
    for depth in sorted({node.depth for node in layered.nodes}, reverse=True):
        lines.append("  { rank=same;")
        lines += [f"    {_name(node.key)} [{_attributes(node)}];" for node in layered.nodes if node.depth == depth]
        lines.append("  }")
    for edge in layered.edges:
        label = f" [label={quoted(edge.label)}]" if edge.label else ""
        lines.append(f"  {_name(edge.source)} -> {_name(edge.target)}{label};")
    return "\n".join([*lines, "}"]) + "\n"


def quoted(text: str) -> str:
    """A DOT double-quoted string that Graphviz shows as `text`.

    Graphviz reads backslash escapes and, in labels, HTML entities; what XML cannot hold is spelled out, since
    Graphviz writes SVG too.
    """
    shown = "".join(visible(char) if char != " " and not char.isprintable() else char for char in text)
    escaped = shown.replace("\\", "\\\\").replace('"', '\\"').replace("&", "&amp;")
    return f'"{escaped}"'


def _name(key: tuple[int, int]) -> str:
    return quoted(f"{key[0]}:{key[1]}")


def _attributes(node: LayerNode) -> str:
    ground = fill(node.depth, node.importance, quiet=node.only_quiet)
    # Graphviz has one outline a node: where merged paths end both ways it is bold, and the tooltip says the rest.
    colour = INK if node.fires else STILL if node.quiet else OUTLINE
    style = "filled,rounded" + (",dashed" if node.quiet and not node.fires else "")
    return ", ".join(
        [
            f"label={quoted(short_label(node, SHOWN))}",
            f"tooltip={quoted(facts(node))}",
            f"fillcolor={quoted(ground)}",
            f"fontcolor={quoted(ink_on(ground))}",
            f"color={quoted(colour)}",
            f"penwidth={3 if node.fires or node.quiet else 1}",
            *([f"style={quoted(style)}"] if node.quiet and not node.fires else []),
            *(["shape=oval"] if node.token == START else []),
        ]
    )
