"""Rendering: a page as HTML. Everything that is not markup of ours is escaped."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from saelens_n2g.graphs.labels import visible as token_label
from saelens_n2g.pages import visible
from saelens_n2g.server.pages.links import Links

SHADES = 20
"""Steps of a token's colour: classes `p1` to `p20` for what fires, `n1` to `n20` for what is negative."""
ASSETS = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}


@dataclass(frozen=True)
class Page:
    """What a template is given."""

    template: str
    title: str
    values: Mapping[str, Any] = field(default_factory=dict)
    trail: tuple[tuple[str, str], ...] = ()
    """The pages above this one: name and address."""
    status: int = 200


def render(page: Page, links: Links) -> str:
    """The page as a document."""
    template = environment().get_template(page.template)
    return template.render(page.values, title=page.title, trail=page.trail, links=links)


@cache
def environment() -> Environment:
    """Templates and what they may call."""
    found = Environment(
        loader=PackageLoader("saelens_n2g.server.pages"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters.update(
        figure=figure,
        percent=percent,
        count=count,
        token=token_label,
        shade=shade,
        shown=lambda said: visible(str(said)),
    )
    return found


@cache
def assets() -> Mapping[str, tuple[bytes, str]]:
    """Name -> content and media type of every asset."""
    folder = files("saelens_n2g.server.pages") / "assets"
    found = {}
    for file in folder.iterdir():
        kind = ASSETS.get("." + file.name.rpartition(".")[2])
        if kind:
            found[file.name] = file.read_bytes(), kind
    return found


def figure(value: float | None, digits: int = 2) -> Markup | str:
    """A number; a dash where there is none."""
    if value is None:
        return Markup('<span class="none" title="undefined">–</span>')
    return f"{value:,}" if isinstance(value, int) else f"{round(value, digits) + 0.0:.{digits}f}"


def percent(value: float | None) -> Markup | str:
    """A share in percent, with as many digits as it needs."""
    if value is None:
        return figure(None)
    share = 100 * value
    return f"{share:.0f} %" if share >= 10 else f"{share:.1f} %" if share >= 1 else f"{share:.2g} %"


def count(n: int, one: str, many: str | None = None) -> str:
    """`1 unit`, `2 units`."""
    return f"{n:,} {one if n == 1 else many or one + 's'}"


def shade(share: float | None) -> str:
    """Class of a token by its share of the maximum, sign kept; empty for nothing."""
    if share is None:
        return ""
    step = min(round(abs(share) * SHADES), SHADES)
    return f"{'p' if share > 0 else 'n'}{step}" if step else ""
