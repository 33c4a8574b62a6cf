"""Markdown of our reports as HTML pages that open from disk: no server, no network, no script.

Figures are put into the page. Text of models and corpora is escaped: HTML in Markdown is shown as text, and a content
security policy allows nothing but styles and figures of the page's own.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saelens_n2g.pages import escaped, inlined, page

if TYPE_CHECKING:
    from markdown_it.token import Token

FigureOf = Callable[[str], Path]
"""Where the figure lies that Markdown names."""


def page_of(
    markdown: str, title: str, figure: FigureOf, *, links: Sequence[tuple[str, str]] = (), provenance: str = ""
) -> str:
    """A page of Markdown.

    figure: from a name in the text to an SVG file. links: targets and titles for the top of the page. provenance: JSON
    for its end. Raises `ArtefactError` for a figure that is not there.
    """
    said = f"<pre>{escaped(provenance)}</pre>"
    fold = f"<details><summary>Everything needed to make this again (JSON)</summary>{said}</details>"
    values = {
        "nav": "".join(f'<a href="{escaped(to)}">{escaped(name)}</a>' for to, name in links),
        "body": rendered(markdown, figure),
        "provenance": fold if provenance else "",
    }
    return page("report", title, values)


def rendered(markdown: str, figure: FigureOf) -> str:
    """Markdown as HTML: tables scroll, a paragraph that is all bold is a heading, figures are put in."""
    from markdown_it import MarkdownIt
    from markdown_it.renderer import RendererHTML

    class Renderer(RendererHTML):
        """Figures inside the page, with what they show below."""

        def image(self, tokens: Sequence["Token"], idx: int, options: Any, env: Any) -> str:
            """An image as the file itself."""
            said = escaped(self.renderInlineAsText(tokens[idx].children, options, env))
            source = inlined(figure(str(tokens[idx].attrs["src"])))
            return f'<img alt="{said}" src="{source}"><figcaption>{said}</figcaption>'

    reader = MarkdownIt("commonmark", {"html": False}, renderer_cls=Renderer).enable("table")
    made = str(reader.renderer.render(_figures(_headings(reader.parse(markdown))), reader.options, {}))
    return made.replace("<table>", '<div class="scroll"><table>').replace("</table>", "</table></div>")


def _headings(tokens: list["Token"]) -> list["Token"]:
    """Paragraphs that begin with nothing but bold text become headings of the third level."""
    for opening, inline, closing in zip(tokens, tokens[1:], tokens[2:], strict=False):
        if opening.type != "paragraph_open" or closing.type != "paragraph_close" or opening.level:
            continue
        kinds = [token.type for token in inline.children or [] if token.type != "text" or token.content]
        if kinds[:1] == ["strong_open"] and kinds[-1:] == ["strong_close"] and kinds.count("strong_open") == 1:
            opening.type, closing.type = "heading_open", "heading_close"
            opening.tag = closing.tag = "h3"
            inline.children = [t for t in inline.children or [] if t.type not in ("strong_open", "strong_close")]
    return tokens


def _figures(tokens: list["Token"]) -> list["Token"]:
    """Paragraphs that are one image become figures."""
    for opening, inline, closing in zip(tokens, tokens[1:], tokens[2:], strict=False):
        if opening.type == "paragraph_open" and [token.type for token in inline.children or []] == ["image"]:
            opening.tag = closing.tag = "figure"
    return tokens
