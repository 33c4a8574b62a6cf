"""What all figures share: ink, colours, shapes, and the way to a file.

    render(draw, (6.0, 4.0), "svg")                      # `draw` is given a matplotlib figure of that size in inches
    save(folder, "name", partial(some_figure, values))   # name.png and name.svg

Equal values give equal bytes, whatever a user's matplotlib settings are. Colours after Okabe and Ito (2008), told apart
by shape as well.
"""

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from saelens_n2g.jobs.artefacts import write_bytes

Kind = Literal["png", "svg"]

INK, MUTED, RULE = "#1c2430", "#5c6675", "#d5dae1"
"""Text, secondary text and lines; a page that inlines the SVG may replace these three by its own."""
COLOURS = ("#0072b2", "#d08a00", "#009e73", "#b3669a", "#c4511d", "#4a9bc7")
MARKERS = ("o", "s", "^", "D", "v", "P")
STYLE: dict[str, Any] = {
    "svg.hashsalt": "saelens-n2g",
    "svg.fonttype": "path",
    "font.family": "DejaVu Sans",
    "font.size": 8.0,
    "text.color": INK,
    "axes.edgecolor": RULE,
    "axes.linewidth": 0.8,
    "xtick.color": MUTED,
    "xtick.labelsize": 7.5,
    "text.parse_math": False,
}
"""matplotlib's settings in every figure; a figure may add its own."""


def render(
    draw: Callable[[Any], None], size: tuple[float, float], kind: Kind, style: Mapping[str, Any] | None = None
) -> bytes:
    """A figure of `size` inches, filled by `draw`, as the bytes of a PNG (200 dots an inch, on white) or an SVG
    (transparent), without time or version in them."""
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    out = io.BytesIO()
    with mpl.rc_context({**mpl.rcParamsDefault, **STYLE, **(style or {})}):
        figure = Figure(figsize=size)
        FigureCanvasAgg(figure)
        draw(figure)
        metadata = {"Software": None} if kind == "png" else dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(out, format=kind, dpi=200, metadata=metadata, transparent=kind == "svg")
    return out.getvalue()


def save(folder: Path, name: str, draw: Callable[[Kind], bytes]) -> list[Path]:
    """Write `draw("png")` and `draw("svg")` as `name.png` and `name.svg` into `folder`, each whole or not at all.

    Raises `InputError` if the folder cannot be written.
    """
    kinds: tuple[Kind, ...] = ("png", "svg")
    paths = []
    for kind in kinds:
        paths.append(folder / f"{name}.{kind}")
        write_bytes(paths[-1], draw(kind))
    return paths
