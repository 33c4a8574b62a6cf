"""A case study for readers: `case.json`, `case.md`, and `case.png` and `case.svg`."""

import json
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from saelens_n2g import figures
from saelens_n2g.causal.cases import Ablation, ContextAblation, Downstream, Histogram, Pairs
from saelens_n2g.causal.patterns import Against
from saelens_n2g.figures import COLOURS, INK, MUTED, RULE, Kind, save
from saelens_n2g.jobs.artefacts import write_json, write_text
from saelens_n2g.markdown import lines

FORMAT, VERSION = "saelens-n2g/case", 1
STYLE: dict[str, Any] = {"axes.labelcolor": MUTED, "axes.labelsize": 8.0, "ytick.color": MUTED, "ytick.labelsize": 7.5}
"""What this figure has beside `figures.STYLE`."""


@dataclass(frozen=True)
class Lens:
    """Logit lens of a unit's direction."""

    lowered: Pairs
    """Tokens whose logit one unit of activation lowers most, most first."""
    raised: Pairs

    def as_json(self) -> dict[str, Any]:
        """JSON values."""
        return {"lowered": [list(pair) for pair in self.lowered], "raised": [list(pair) for pair in self.raised]}


@dataclass(frozen=True)
class Case:
    """All that was found about a unit."""

    unit: str
    maximum: float
    """Largest activation over the fit text."""
    histogram: Histogram
    ablation: Ablation
    lens: Lens | None
    """None where the model does not say what the unit adds to the residual stream."""
    contexts: tuple[ContextAblation, ...]
    """Of its strongest texts."""
    downstream: Downstream | None
    later: str | None
    """Site of the later dictionary."""
    pattern: str | None
    against: Mapping[str, Against]
    """By share of the maximum above which it fires."""
    provenance: Mapping[str, Any]
    string: Callable[[int], str]
    """Text of a token."""

    def as_json(self) -> dict[str, Any]:
        """JSON values (docs/formats.md); `strings` has the text of every token that is mentioned."""
        seen = {t for pairs in self._pairs() for t, _ in pairs} | {t for one in self.contexts for t in one.tokens}
        return {
            "format": FORMAT,
            "version": VERSION,
            "unit": self.unit,
            "maximum": self.maximum,
            "histogram": self.histogram.as_json(),
            "ablation": self.ablation.as_json(),
            "lens": self.lens and self.lens.as_json(),
            "contexts": [one.as_json() for one in self.contexts],
            "downstream": self.downstream and self.downstream.as_json(),
            "later": self.later,
            "pattern": self.pattern,
            "against": {share: one.as_json() for share, one in self.against.items()},
            "strings": {str(t): self.string(t) for t in sorted(seen)},
            "provenance": dict(self.provenance),
        }

    def _pairs(self) -> list[Pairs]:
        lens = [] if self.lens is None else [self.lens.lowered, self.lens.raised]
        return [self.ablation.lowered, self.ablation.raised, *lens]


def write_case(case: Case, folder: Path) -> None:
    """Write the four files into `folder`."""
    write_json(folder / "case.json", case.as_json())
    write_text(folder / "case.md", markdown(case))
    save(folder, "case", partial(render, case))


# --- text -----------------------------------------------------------------------------------------------------


def quoted(token: str) -> str:
    """A token as code in Markdown, spaces and line ends to be seen."""
    said = json.dumps(token, ensure_ascii=False)
    said = "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in said).replace("|", "\\|")
    return f"`` {said} ``" if "`" in said else f"`{said}`"


def markdown(case: Case) -> str:
    """The report."""
    known = case.histogram
    share = 100 * known.firing / known.positions
    parts = [
        f"**{case.unit}**",
        f"Above zero on {known.firing:,} of {known.positions:,} tokens ({share:.2f} %), at most {case.maximum:.4g}.",
        "**On what it fires**: positions above zero, by token",
        _tokens(known),
    ]
    if case.against:
        parts += [f"**Tokens that match** `{case.pattern}`", _against(case.against)]
    effect = case.ablation
    parts += [
        f"**Without it**: mean change of log-probabilities where it is strong ({effect.positions:,} positions), in "
        f"nats. KL {effect.kl:.4f}; the token that follows in the text {effect.next_token:+.4f}",
        _effects(case, effect.lowered, effect.raised),
    ]
    if case.lens is not None:
        parts += [
            "**Logit lens**: change of the logits per unit of its activation, through the last norm and the "
            "unembedding alone; what it raises here should fall without it",
            _effects(case, case.lens.lowered, case.lens.raised),
        ]
    parts += [
        "**What it needs**: its strongest texts, and the share of its activation that is left without a token (in "
        "brackets where less than 0.8)",
        "\n".join(f"- {_context(case, one)}" for one in case.contexts),
    ]
    if case.downstream is not None:
        parts += [
            f"**What follows** at {case.later}: largest mean changes of its dictionary's features without the unit, "
            f"over {case.downstream.positions:,} positions where it is strong",
            lines(
                ["Feature", "mean with it", "change without it"],
                [[str(i), f"{mean:.4g}", f"{change:+.4g}"] for i, mean, change in case.downstream.units],
            ),
        ]
    return "\n\n".join([*parts, _caveats()]) + "\n"


def _caveats() -> str:
    return (
        "Taking the unit out leaves what the dictionary does not rebuild, and the other units, as they are: a unit "
        "whose work others share can look idle. Effects are means over positions where it is above half of its "
        "maximum; it is taken out wherever it is above zero in the same windows."
    )


def _tokens(known: Histogram) -> str:
    rows = [[quoted(token), f"{sum(counts):,}", f"{_strong(counts):,}"] for token, counts in known.counts.items()]
    rows.append(["all others", f"{sum(known.others):,}", f"{_strong(known.others):,}"])
    return lines(["Token", "above zero", "above half of the maximum"], rows)


def _strong(counts: Sequence[int]) -> int:
    return sum(counts[len(counts) // 2 :])


def _against(found: Mapping[str, Against]) -> str:
    def cells(share: str, one: Against) -> list[str]:
        numbers = (one.matches, one.firing, one.both, one.false_positives, one.false_negatives)
        return [share, *(f"{n:,}" for n in numbers), "–" if one.f1 is None else f"{one.f1:.3f}"]

    head = ["Fires", "matches", "firing", "both", "false positives", "false negatives", "F1"]
    return lines(head, [cells(share, one) for share, one in found.items()])


def _effects(case: Case, low: Pairs, high: Pairs) -> str:
    rows = [
        [quoted(case.string(a)), f"{x:+.3f}", quoted(case.string(b)), f"{y:+.3f}"]
        for (a, x), (b, y) in zip(low, high, strict=True)
    ]
    return lines(["Most lowered", "by", "most raised", "by"], rows)


def _context(case: Case, one: ContextAblation) -> str:
    words = []
    for at in range(one.first, one.peak):
        left, text = one.kept[at - one.first], _plain(case.string(one.tokens[at]))
        words.append(f"{text}[{left:.2f}]" if left < 0.8 else text)
    before = "".join(words)
    return f"{before}**{_plain(case.string(one.tokens[one.peak]))}** ({one.activation:.4g})"


def _plain(text: str) -> str:
    for mark in ("\\", "*", "_", "`", "[", "<", "|", "#"):
        text = text.replace(mark, f"\\{mark}")
    text = text.replace("\n", "⏎")
    return "".join(c if c.isprintable() else "�" for c in text)


# --- figure ---------------------------------------------------------------------------------------------------


def drawn(token: str) -> str:
    """A token for a figure: quoted, with what its font may lack spelt out."""

    def one(char: str) -> str:
        known = 32 <= ord(char) < 0x250 or 0x2010 <= ord(char) < 0x2028
        return char if known and char.isprintable() else char.encode("unicode_escape").decode()

    return f"“{''.join(map(one, token))}”"


def render(case: Case, kind: Kind) -> bytes:
    """The figure as the bytes of a PNG (on white) or an SVG (transparent)."""
    return figures.render(partial(_fill, case), (9.0, 4.0), kind, STYLE)


def _fill(case: Case, figure: Any) -> None:
    left = figure.add_axes((0.065, 0.17, 0.42, 0.67))
    _bars(left, case)
    for place, (pairs, title) in enumerate(
        ((case.ablation.lowered, "Most lowered without it"), (case.ablation.raised, "Most raised without it"))
    ):
        axes = figure.add_axes((0.595 + 0.225 * place, 0.17, 0.125, 0.67))
        _effect(axes, case, pairs, title)
    figure.text(0.018, 0.935, case.unit, weight="bold", size=9.5)
    note = (
        f"{case.histogram.firing:,} of {case.histogram.positions:,} tokens above zero. Right: mean change of "
        f"log-probability, in nats, over {case.ablation.positions:,} positions above half of the maximum."
    )
    figure.text(0.018, 0.02, textwrap.fill(note, 170), size=7, color=MUTED, va="bottom")


def _bars(axes: Any, case: Case) -> None:
    """Activations by token, a line each, all others as a ground."""
    known = case.histogram
    axes.stairs(known.others, known.edges, fill=True, color=RULE, label="all other tokens")
    for (token, counts), colour in zip(known.counts.items(), COLOURS, strict=False):
        axes.stairs(counts, known.edges, color=colour, lw=1.6, label=drawn(token))
    highest = max(max(counts) for counts in (known.others, *known.counts.values()))
    axes.set_title("On what it fires", loc="left", size=8.5, color=MUTED, pad=6)
    axes.set_xlabel("activation")
    axes.set_ylabel("tokens (logarithmic)")
    axes.set_yscale("symlog", linthresh=1)
    axes.set_ylim(0, 2.5 * highest)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.minorticks_off()
    axes.tick_params(length=0, pad=4)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.legend(frameon=False, fontsize=7, labelcolor=INK, loc="upper right", handlelength=1.4)


def _effect(axes: Any, case: Case, pairs: Pairs, title: str) -> None:
    """Bars of tokens, the largest effect on top."""
    names = [drawn(case.string(token)) for token, _ in pairs][::-1]
    values = [value for _, value in pairs][::-1]
    colours = [COLOURS[4] if value < 0 else COLOURS[0] for value in values]
    axes.barh(range(len(values)), values, color=colours, height=0.72)
    axes.set_yticks(range(len(values)), names, color=INK)
    axes.axvline(0, color=MUTED, lw=0.8)
    axes.set_title(title, loc="right", size=8.5, color=MUTED, pad=6)
    axes.set_xlabel("nats")
    axes.tick_params(length=0, pad=3)
    axes.locator_params(axis="x", nbins=3)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
