"""HTML pages that open from disk: one skeleton for all rooms, in which nothing is fetched and no script runs but the
page's own.

    page("study", title, {"lead": escaped(said), ...})      # of the room's page.html, page.css and, if there, page.js

`page.html` of a room is the body, a template. All text of models and corpora goes through `escaped`.
"""

import base64
import hashlib
import html
import re
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from string import Template

from saelens_n2g.errors import ArtefactError

_HIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]")
_SKELETON = Template(
    """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="$policy">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>$title</title>
<style>
$style
</style>
</head>
<body>
$body$script</body>
</html>
"""
)


def page(room: str, title: str, values: Mapping[str, str]) -> str:
    """A page of a room, such as `study`. values: what the body's template names, as HTML; `title` too."""
    place = files(f"saelens_n2g.{room}")
    body = Template((place / "page.html").read_text(encoding="utf-8"))
    code = place / "page.js"
    script = f"\n{code.read_text(encoding='utf-8')}" if code.is_file() else ""
    allowed = [
        "default-src 'none'",
        "style-src 'unsafe-inline'",
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
    ]
    if script:
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        allowed.insert(2, f"script-src 'sha256-{digest}'")
    return _SKELETON.substitute(
        policy="; ".join(allowed),
        title=escaped(title),
        style=(place / "page.css").read_text(encoding="utf-8").rstrip("\n"),
        body=body.substitute(values, title=escaped(title)),
        script=f"<script>{script}</script>\n" if script else "",
    )


def escaped(said: str) -> str:
    """Any text as HTML that shows it."""
    return html.escape(visible(said))


def visible(said: str) -> str:
    """`said` with control, direction and lone surrogate characters shown by code point; newline and tab stay."""
    return _HIDDEN.sub(lambda match: f"⟨{ord(match[0]):02X}⟩", said)


def inlined(path: Path) -> str:
    """An SVG file as a data URI. Raises `ArtefactError` if it is not there."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ArtefactError(f"figure {path}", "an SVG file", str(error.strerror or error)) from error
    return f"data:image/svg+xml;base64,{base64.b64encode(data).decode()}"
