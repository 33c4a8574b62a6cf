"""Texts and colours of a drawing: tokens made visible, how wide they are, fills and the ink that stands out on them."""

import unicodedata
from itertools import groupby

RED, BLUE, GREY = ("#fdeceb", "#cc1820"), ("#eaf1fe", "#1d4ed8"), ("#f3f4f6", "#5b6472")
"""Fills for the weakest and the strongest: activating tokens by activation, context by importance, and either where
all paths end in the unit staying quiet."""
LOW = 0.3
"""Value that gets the weakest fill; fixed, unlike in the original, so that two pictures can be compared."""


def visible(text: str) -> str:
    """A token as a label: spaces as `·`, newlines as `⏎`, tabs as `⇥`, other characters without a shape as escapes.

    More than three equal white-space marks in a row are counted, as "·", a multiplication sign and their number.
    The empty string reads `(empty)`.
    """
    if not text:
        return "(empty)"
    shown = []
    for char, run in groupby(text):
        n, mark = sum(1 for _ in run), _mark(char)
        shown.append(f"{mark}×{n}" if n > 3 and char.isspace() else mark * n)
    first = "◌" if unicodedata.combining(text[0]) else ""  # a combining character needs something to sit on
    return first + "".join(shown)


def _mark(char: str) -> str:
    if char in (named := {" ": "·", "\n": "⏎", "\t": "⇥", "\r": "\\r"}):
        return named[char]
    if unicodedata.category(char)[0] in "CZ":  # controls, directions, surrogates, private and unknown; other spaces
        code = ord(char)
        return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" if code < 65536 else f"\\U{code:08x}"
    return char


def one_line(text: str) -> str:
    """A text for terminals and files of lines: newlines and tabs as in Python, other characters without a shape as
    escapes, spaces as they are."""
    named = {" ": " ", "\n": "\\n", "\t": "\\t"}
    return "".join(char if char.isprintable() else named.get(char) or _mark(char) for char in text)


def text_width(text: str, size: float) -> float:
    """A safe guess of a text's width in px at font size `size`: not less than in DejaVu Sans, a wide typeface."""
    return size * sum(_em(char) for char in text)


def _em(char: str) -> float:
    """Width of a character in units of the font size, by class, rounded up."""
    if unicodedata.category(char) in ("Mn", "Me"):
        return 0.0
    if unicodedata.east_asian_width(char) in "WF":
        return 1.4 if unicodedata.category(char) == "So" else 1.05  # emoji are wider than ideographs
    base = unicodedata.normalize("NFD", char)[0]
    if base in "iljI.,:;|'· ":
        return 0.38
    if base in 'frt()[]/\\-!"`':
        return 0.5
    if base in "mwMW@%—…":
        return 1.0
    if base.isascii():
        return 0.85 if base.isupper() or base in "&<>=+~#^" else 0.65
    return 1.1


def elide(label: str, size: float, most: float) -> str:
    """The label itself if it is at most `most` px wide at font size `size`, else as much as fits and an ellipsis."""
    if text_width(label, size) <= most:
        return label
    room, kept = most - text_width("…", size), ""
    for char in label:
        room -= text_width(char, size)
        if room < 0:
            break
        kept += char
    return kept + "…"


def fill(depth: int, strength: float, *, quiet: bool = False) -> str:
    """Colour of a node as `#rrggbb` by a strength in [0, 1]: red at depth 0, else blue; grey where it is `quiet`."""
    weak, strong = GREY if quiet else RED if depth == 0 else BLUE
    share = min(max((strength - LOW) / (1 - LOW), 0.0), 1.0)
    mixed = (a + (b - a) * share for a, b in zip(_channels(weak), _channels(strong), strict=True))
    return "#" + "".join(f"{round(255 * value):02x}" for value in mixed)


def ink_on(ground: str) -> str:
    """Black or white, whichever stands out more; on any ground that is at least 4.58 : 1."""
    return max("#000000", "#ffffff", key=lambda ink: contrast(ink, ground))


def contrast(one: str, other: str) -> float:
    """Contrast ratio of two colours `#rrggbb`, 1 to 21 (WCAG 2.2, relative luminance)."""
    low, high = sorted((_luminance(one), _luminance(other)))
    return (high + 0.05) / (low + 0.05)


def _luminance(colour: str) -> float:
    r, g, b = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in _channels(colour))
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


def _channels(colour: str) -> tuple[float, float, float]:
    r, g, b = bytes.fromhex(colour[1:])
    return r / 255, g / 255, b / 255
