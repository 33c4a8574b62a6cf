"""Marks: what a drawing's nodes and edges carry beside their shape.

A picture that stands alone carries nothing. In a page, nodes lead somewhere, and nodes and edges say which they are, so
that a script can follow paths:

    <a href="..." data-node="0:42">   <path data-source="1:7" data-target="0:42">   <g data-target="0:42">   (a label)
"""

from collections.abc import Callable
from dataclasses import dataclass

from saelens_n2g.graphs.condensed import Key, LayerEdge, LayerNode
from saelens_n2g.graphs.svg import xml_text

Link = Callable[[LayerNode], str | None]
"""Where a node leads; None if nowhere."""


class Marks:
    """Nothing: for a picture that stands alone."""

    def node(self, _: LayerNode) -> tuple[str, str]:
        """What stands before and behind a node's shapes."""
        return "<g>", "</g>"

    def edge(self, _: LayerEdge) -> str:
        """Attributes of a curve."""
        return ""

    def head(self, _: Key) -> str:
        """Attributes of the arrowhead before a node."""
        return ""

    def chip(self, chip: str, _: LayerEdge, __: str) -> str:
        """An edge's label, which stands at its `source`, its `target` or in the `middle`."""
        return chip


@dataclass(frozen=True)
class PageMarks(Marks):
    """Links, and which node and edge it is."""

    link: Link

    def node(self, node: LayerNode) -> tuple[str, str]:
        """A link where it leads somewhere; what leads nowhere can be reached by keyboard all the same."""
        address = self.link(node)
        if address is None:
            return f'<g data-node="{_name(node.key)}" tabindex="0">', "</g>"
        return f'<a href="{xml_text(address)}" data-node="{_name(node.key)}">', "</a>"

    def edge(self, edge: LayerEdge) -> str:
        """Both ends."""
        return f' data-source="{_name(edge.source)}" data-target="{_name(edge.target)}"'

    def head(self, target: Key) -> str:
        """Where it points."""
        return f' data-target="{_name(target)}"'

    def chip(self, chip: str, edge: LayerEdge, place: str) -> str:
        """The ends that it is true of: at one end it is of all edges there, so it stays the same for all of them."""
        ends = {"source": f' data-source="{_name(edge.source)}"', "target": f' data-target="{_name(edge.target)}"'}
        return f"<g{ends.get(place, ''.join(ends.values()))}>{chip}</g>"


def _name(key: Key) -> str:
    return f"{key[0]}:{key[1]}"
