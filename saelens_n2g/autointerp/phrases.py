"""The small language of templated sentences: how it is written, and how it is read back.

    Fires on `·over` after `·all` (64 %); on `·York` or `·Orleans` after `·New` (12 %); and on 3 rarer patterns.
    Stays quiet on `claimed` after `pro`.

Tokens stand in backticks with spaces and newlines visible. `Clause` is one pattern: tokens, what stands before them in
reading order, and the share of the firing that it explains. `read` takes any sentence: what is no such language names
its quoted tokens and no context.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from saelens_n2g.graphs.labels import visible

ANY, START = "any token", "the start of the text"
TARGETS, BEFORE = 20, 6
"""Tokens of a set that are named: of those it fires on, of those that stand before."""
_QUOTED = re.compile(r"`((?:\\.|[^`\\])+)`")
_GAP = re.compile(r"up to (\d+) tokens?")
_LEADS = (("Fires", True), ("Stays quiet", False))


def quoted(text: str) -> str:
    """A token as sentences have it: in backticks, spaces as `·`, newlines as `⏎`, backslashes and backticks escaped."""
    return "`" + visible(text).replace("\\", "\\\\").replace("`", "\\`") + "`"


@dataclass(frozen=True)
class Item:
    """One place before a token: any of some tokens, any token at all, a gap, or the start of the text."""

    tokens: tuple[str, ...] = ()
    """Quoted. Empty for the others."""
    more: int = 0
    """Tokens that are not named."""
    gap: int | None = None
    """Tokens that may lie here at most; 0 to so many."""
    start: bool = False


class Clause(NamedTuple):
    """One pattern."""

    targets: Item
    """Tokens on which it is about."""
    before: tuple[Item, ...]
    """What stands before, in reading order."""
    fires: bool
    """Or stays quiet."""
    share: float | None
    """Share of the unit's firing that it explains, where known."""


# --- writing ------------------------------------------------------------------------------------------------------


def item(tokens: Sequence[str], most: int) -> Item:
    """Any of these tokens, of which the first `most` are named, those that are no whole characters never."""
    names = dict.fromkeys(quoted(token) for token in tokens)
    whole = [name for name in names if "\ufffd" not in name][:most]
    return Item(tuple(whole), len(names) - len(whole))


def said(clause: Clause) -> str:
    """A clause in words, without its verb: "on `·over` after `·all` (64 %)"."""
    share = "" if clause.share is None or clause.share < 0.005 else f" ({100 * clause.share:.0f} %)"
    before = [_place(one) for one in clause.before]
    if before == [START]:
        return f"on {_place(clause.targets)} at {START}{share}"
    context = f" after {' then '.join(before)}" if before else ""
    return f"on {_place(clause.targets)}{context}{share}"


def _place(one: Item) -> str:
    if one.start:
        return START
    if one.gap is not None:
        return f"up to {one.gap} token{'s' if one.gap > 1 else ''}"
    if not one.tokens:
        return f"{one.more} tokens that are no whole characters" if one.more else ANY
    if one.more:
        return f"{', '.join(one.tokens)} or {one.more} others"
    return " or ".join([", ".join(one.tokens[:-1]), one.tokens[-1]]) if len(one.tokens) > 1 else one.tokens[0]


def sentence(clauses: Sequence[Clause], left: int, limit: int) -> str:
    """The clauses as one or two sentences of at most about `limit` characters; `left` more patterns are not among them.

    At least the first clause is said; those that do not fit are counted.
    """
    firing, quiet = ([c for c in clauses if c.fires == fires] for fires in (True, False))
    texts = [said(clause) for clause in firing]
    n = _fitting(texts, limit)
    rest = left + len(texts) - n
    parts = [*texts[:n], *([f"and on {rest} rarer pattern{'s' if rest > 1 else ''}"] if rest else [])]
    out = "Fires " + "; ".join(parts) + "."
    kept = [said(clause) for clause in quiet][: _fitting([said(c) for c in quiet], limit - len(out), least=0)]
    return f"{out} Stays quiet {'; '.join(kept)}." if kept else out


def _fitting(texts: Sequence[str], limit: int, least: int = 1) -> int:
    """How many of the texts fit."""
    used = n = 0
    while n < len(texts) and (n < least or used + len(texts[n]) + 2 <= limit):
        used += len(texts[n]) + 2
        n += 1
    return n


# --- reading ------------------------------------------------------------------------------------------------------


def read(text: str) -> list[Clause]:
    """The clauses of a templated sentence; of any other one clause of all its quoted tokens, or none without any."""
    masked, names = _masked(text)
    found: list[Clause] = []
    for lead, fires in _LEADS:
        for body in re.findall(rf"(?:^|\. ){lead} (on .*?)\.(?=$| Stays quiet )", masked):
            found += [_clause(part, names, fires) for part in body.split("; ") if part.startswith("on ")]
    if found:
        return found
    return [Clause(Item(tuple(dict.fromkeys(names))), (), True, None)] if names else []


def _masked(text: str) -> tuple[str, list[str]]:
    """The text with numbers between control characters for its quoted tokens, and those tokens: nothing in them, which
    have no control characters, can be taken for grammar."""
    names: list[str] = []

    def instead(match: re.Match[str]) -> str:
        names.append(match[0])
        return f"\x02{len(names) - 1}\x03"

    return _QUOTED.sub(instead, re.sub("[\x02\x03]", "", text)), names


def _clause(part: str, names: Sequence[str], fires: bool) -> Clause:
    part, _, share = part.removeprefix("on ").partition(" (")
    digits = re.match(r"(\d+) %\)", share)
    if part.endswith(f" at {START}"):
        part = part.removesuffix(f" at {START}") + f" after {START}"
    target, _, before = part.partition(" after ")
    context = tuple(_read_item(one, names) for one in before.split(" then ")) if before else ()
    return Clause(_read_item(target, names), context, fires, int(digits[1]) / 100 if digits else None)


def _read_item(text: str, names: Sequence[str]) -> Item:
    if text == START:
        return Item(start=True)
    if gap := _GAP.fullmatch(text):
        return Item(gap=int(gap[1]))
    if parts := re.fullmatch(r"(\d+) tokens that are no whole characters", text):
        return Item(more=int(parts[1]))
    more = re.search(r" or (\d+) others", text)
    return Item(tuple(names[int(n)] for n in re.findall("\x02(\\d+)\x03", text)), int(more[1]) if more else 0)
