"""Charts: small pictures as SVG that take their colours from the page."""

from collections.abc import Sequence
from html import escape
from math import floor

from markupsafe import Markup


def histogram(
    values: Sequence[float],
    *,
    low: float,
    high: float,
    bins: int,
    label: str,
    width: int = 240,
    height: int = 64,
    axis: bool = True,
) -> Markup:
    """Counts of values between two bounds; what lies outside is counted at its end. A value on an edge counts above.

    `label` says what is counted, for those who do not see the picture.
    """
    counts = [0] * bins
    for value in values:
        place = floor((value - low) / (high - low) * bins)
        counts[min(max(place, 0), bins - 1)] += 1
    most = max(counts, default=0) or 1
    step, room = width / bins, height - (16 if axis else 0)
    bars = []
    for i, n in enumerate(counts):
        if n:
            tall = max(n / most * (room - 2), 1.5)
            a, b = low + (high - low) * i / bins, low + (high - low) * (i + 1) / bins
            bars.append(
                f'<rect x="{step * i + 0.5:.2f}" y="{room - tall:.2f}" width="{step - 1:.2f}" height="{tall:.2f}">'
                f"<title>{a:g} to {b:g}: {n}</title></rect>"
            )
    ends = ""
    if axis:
        y = height - 3
        ends = (
            f'<path d="M0 {room + 0.5}H{width}" class="axis"/><text x="0" y="{y}">{low:g}</text>'
            f'<text x="{width}" y="{y}" text-anchor="end">{high:g}</text>'
        )
    return Markup(
        f'<svg class="chart" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" '
        f'aria-label="{escape(label)}">{"".join(bars)}{ends}</svg>'
    )
