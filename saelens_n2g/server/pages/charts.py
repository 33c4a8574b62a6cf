"""Charts: small pictures as SVG that take their colours from the page."""

from collections.abc import Sequence
from html import escape
from math import floor, log1p

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


def activations(points: Sequence[tuple[float, bool]], *, threshold: float, label: str) -> Markup:
    """How often shares of the maximum occur, and how many of them are predicted to fire (the lower part of a bar).

    Bars are as high as the logarithm of 1 and the count, since small activations are so many more; those above the
    maximum stand in the last one.
    """
    bins, width, room = 21, 336, 132
    all_of, said = [0] * bins, [0] * bins
    for share, predicted in points:
        place = min(floor(share * 20 + 1e-9), bins - 1)
        all_of[place] += 1
        said[place] += predicted
    most = log1p(max(all_of, default=0)) or 1.0
    step, bars = width / bins, []
    for i, n in enumerate(all_of):
        if not n:
            continue
        tall = log1p(n) / most * (room - 14)
        low = tall * said[i] / n
        span = f"{i / 20:.2f} to {(i + 1) / 20:.2f}" if i < bins - 1 else "1 and more"
        x, wide = f"{step * i + 0.5:.2f}", f"{step - 1:.2f}"
        bars.append(
            f'<g><title>{span}: {n}, {said[i]} of them predicted</title><rect x="{x}" y="{room - tall:.2f}" '
            f'width="{wide}" height="{tall:.2f}"/><rect class="said-so" x="{x}" y="{room - low:.2f}" width="{wide}" '
            f'height="{low:.2f}"/></g>'
        )
    at = step * 20 * threshold
    ticks = "".join(
        f'<text x="{step * 20 * v:.1f}" y="{room + 14}" text-anchor="{anchor}">{v:g}</text>'
        for v, anchor in ((0, "start"), (0.25, "middle"), (0.5, "middle"), (0.75, "middle"), (1, "middle"))
    )
    return Markup(
        f'<svg class="chart" viewBox="0 0 {width} {room + 18}" width="{width}" height="{room + 18}" role="img" '
        f'aria-label="{escape(label)}">{"".join(bars)}<path d="M0 {room + 0.5}H{width}" class="axis"/>'
        f'<path d="M{at:.1f} 0V{room}" class="threshold"/><text x="{at + 4:.1f}" y="10">fires</text>{ticks}</svg>'
    )


def bar(share: float) -> Markup:
    """A line of a share in [0, 1] of the width of its place, which its words say as well."""
    return Markup(
        '<svg class="line" viewBox="0 0 100 3" preserveAspectRatio="none" aria-hidden="true">'
        f'<rect width="{100 * share:.1f}" height="3"/></svg>'
    )
