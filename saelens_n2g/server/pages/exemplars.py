"""Exemplars: what a unit does on texts, what its graph says of them, and how often the two agree.

Every token that does anything is a `<span>` whose class is its share of the maximum (`render.shade`) and what it is: a
`hit` (fires, as predicted), an `extra` (predicted, but quiet) or `missed` (fires, not predicted).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import isfinite
from typing import Any

from markupsafe import Markup, escape

from saelens_n2g.errors import ArtefactError
from saelens_n2g.graphs.labels import visible
from saelens_n2g.scoring.counts import Confusion, FiringScores
from saelens_n2g.server.pages.render import shade

FIRES = 0.5
"""Share of the maximum at which a unit fires, and is predicted to (Foote et al. 2023, section 4)."""
BEFORE, AFTER = 18, 8
"""Tokens around the most active one that are shown first."""
FIRST = 6
"""Windows of a group that are shown first."""
GROUPS = {"test": "Held out", "fit": "Fitted on"}
"""Sets of exemplars, in this order, and how they are called; others come behind."""
_VERDICTS = {"hit": "a hit", "extra": "a false alarm", "missed": "missed"}
LEADS = {
    "test": "Windows of text that the graph was not fitted on.",
    "fit": "Windows of the text that the graph was fitted on.",
}


@dataclass(frozen=True)
class Snippet:
    """A window of a text."""

    around: Markup
    """The part around its most active token."""
    whole: Markup | None
    """All of it, if that is more."""
    length: int
    maximum: float
    document: str
    window: Any
    counts: Confusion | None
    """Tokens by whether they fire and whether that was predicted; None without predictions."""
    points: tuple[tuple[float, bool], ...]
    """Shares of the maximum above 0, and whether the graph says that they fire."""

    @property
    def scores(self) -> FiringScores | None:
        """Of this window alone."""
        return None if self.counts is None else FiringScores.from_confusion(self.counts)


@dataclass(frozen=True)
class Group:
    """Windows of one set."""

    name: str
    title: str
    lead: str
    snippets: tuple[Snippet, ...]

    @property
    def counts(self) -> Confusion | None:
        """Added up over its windows; None unless all have predictions."""
        each = [one.counts for one in self.snippets]
        known = [one for one in each if one is not None]
        return Confusion(*map(sum, zip(*known, strict=True))) if known and len(known) == len(each) else None

    @property
    def scores(self) -> FiringScores | None:
        """Of all its windows together."""
        return None if self.counts is None else FiringScores.from_confusion(self.counts)


def groups(body: Mapping[str, Any]) -> tuple[Group, ...]:
    """The exemplars of a body of `neuroscope`. Raises `ArtefactError` if it is none."""
    try:
        found: dict[str, list[Snippet]] = {}
        for text in body["texts"]:
            found.setdefault(str(text.get("set", "")), []).append(_snippet(text))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ArtefactError("exemplars", "texts with tokens and activations", repr(error)) from error
    order = [*(name for name in GROUPS if name in found), *(name for name in found if name not in GROUPS)]
    return tuple(
        Group(name, GROUPS.get(name, name or "Texts"), LEADS.get(name, ""), tuple(found[name])) for name in order
    )


def _snippet(text: Mapping[str, Any]) -> Snippet:
    tokens, activations = [str(one) for one in text["tokens"]], [float(one) for one in text["activations"]]
    given = text.get("predicted")
    predicted = None if given is None else [float(one) for one in given]
    lengths = {len(tokens), len(activations), len(tokens if predicted is None else predicted)}
    if lengths == {0} or len(lengths) > 1 or not all(map(isfinite, (*activations, *(predicted or ())))):
        raise ValueError("as many tokens as finite activations and predictions are expected")
    top = max(activations)
    limit = float(text.get("max_range", top))
    shares = [one / limit if limit > 0 else 0.0 for one in activations]
    said: Sequence[float | None] = [None] * len(tokens) if predicted is None else predicted
    kinds = [_kind(share, p) for share, p in zip(shares, said, strict=True)]
    spans = [_token(*one) for one in zip(tokens, [*tokens[1:], ""], activations, shares, said, strict=True)]
    at = activations.index(top)
    low, high = max(at - BEFORE, 0), at + AFTER + 1
    part = low > 0 or high < len(tokens)
    left, right = Markup("…") if low else Markup(), Markup("…") if high < len(tokens) else Markup()
    return Snippet(
        around=left + Markup().join(spans[low:high]) + right,
        whole=Markup().join(spans) if part else None,
        length=len(tokens),
        maximum=top,
        document=str(text.get("document", "")),
        window=text.get("data_index"),
        counts=None if predicted is None else _counts(kinds),
        points=tuple(
            (share, predicted is not None and predicted[i] >= FIRES) for i, share in enumerate(shares) if share > 0
        ),
    )


def _kind(share: float, predicted: float | None) -> str:
    fires, said = share >= FIRES, predicted is not None and predicted >= FIRES
    if predicted is None:
        return "fires" if fires else ""
    return ("hit" if said else "missed") if fires else ("extra" if said else "")


def _counts(kinds: Sequence[str]) -> Confusion:
    return Confusion(*(kinds.count(kind) for kind in ("hit", "extra", "missed", "")))


def _token(token: str, following: str, activation: float, share: float, predicted: float | None) -> Markup:
    """A token; nothing is said of those on which nothing happens. Spaces before it stay outside, where lines break."""
    shown = reading(token, following)
    if not activation and not predicted:
        return shown
    spaces = len(token) - len(token.lstrip(" ")) if token.strip() else 0
    kind = _kind(share, predicted)
    said = f"{activation:.2f}, {share:.2f} of the maximum"
    if predicted is not None:
        said += f"; predicted {predicted:.2f}" + (f": {_VERDICTS[kind]}" if kind else "")
    heard = f'<span class="heard"> ({_heard(kind, share, predicted)}) </span>' if kind else ""
    names = " ".join(filter(None, (shade(share), kind)))
    # All but the token is ours, and that is escaped: `Markup.format` would take half of the page's time.
    return Markup(f'{" " * spaces}<span class="{names}" title="{said}">{shown[spaces:]}{heard}</span>')


def _heard(kind: str, share: float, predicted: float | None) -> str:
    """What is said of a token to those who do not see it."""
    activation = f"{'quiet' if kind == 'extra' else 'fires'}, {share:.2f}"
    return activation if predicted is None else f"{activation}, predicted {predicted:.2f}: {_VERDICTS[kind]}"


@lru_cache(4096)
def reading(token: str, following: str = "") -> Markup:
    """A token in running text: spaces beside words stay spaces, the last of several newlines breaks the line, and what
    has no shape is made visible."""
    core = token.strip(" ")
    if core.strip():
        start = token.index(core)
        words = " ".join(visible(word) if word else "" for word in core.split(" "))
        said = " " * start + words + " " * (len(token) - start - len(core))
    else:
        said = visible(token)
    marked = escape(said)
    if not core.strip():
        marked = Markup('<span class="sign">{}</span>').format(said)
    elif "\n" in token:
        marked = marked.replace("⏎", Markup('<span class="sign">⏎</span>'))
    breaks = token.endswith("\n") and not following.startswith("\n")
    return marked + Markup("<br>") if breaks else marked


def points(found: Sequence[Group]) -> list[tuple[float, bool]]:
    """All activations above 0, as shares of the maximum, with what is predicted."""
    return [point for group in found for one in group.snippets for point in one.points]
