"""What a node of a graph may stand for, as one integer: a token id, or a negative number for everything else.

    token          t >= 0   this token
    `IGNORE`           -1   any one token (the paper's ignore node)
    `START`            -2   no token: the text begins here
    gap         -10 - d     any 0 to d tokens, d >= 1
    class     -1000 - i     any one token of the graph's class i

A path is read backwards from its activating token. One that begins or ends with something that matches anything says
no more than the path without it, so `check` refuses it. `reach` says where each element leads in a text.
"""

from bisect import bisect_left
from collections.abc import Collection, Mapping, Sequence

IGNORE = -1
START = -2
GAP, CLASS = -10, -1000
"""Where gaps and classes are counted from, downwards."""
MAX_GAP = GAP - CLASS - 1
"""Widest gap that can be said."""
SHOWN = 4
"""Members of a class that its text names."""


def gap(width: int) -> int:
    """The element for "at most `width` tokens in between". Raises `ValueError` outside 1 to `MAX_GAP`."""
    if not 1 <= width <= MAX_GAP:
        raise ValueError(f"a gap of 1 to {MAX_GAP} tokens, found {width}")
    return GAP - width


def is_gap(element: int) -> bool:
    """Whether the number stands for a gap."""
    return CLASS < element < GAP


def gap_width(element: int) -> int:
    """The most tokens that a gap stands for."""
    return GAP - element


def of_class(index: int) -> int:
    """The element for the graph's class `index`."""
    return CLASS - index


def is_class(element: int) -> bool:
    """Whether the number stands for a class."""
    return element <= CLASS


def class_index(element: int) -> int:
    """Which of the graph's classes the element stands for."""
    return CLASS - element


def is_known(element: int) -> bool:
    """Whether the number stands for anything."""
    return element >= 0 or element in (IGNORE, START) or is_gap(element) or is_class(element)


def check(path: Sequence[int], n_classes: int) -> None:
    """Raise `ValueError` for a path that cannot stand in a graph with `n_classes` classes."""
    if not path:
        raise ValueError("a path has at least its activating token")
    for place, element in enumerate(path):
        check_node(element, path[place - 1] if place else None, place == len(path) - 1, n_classes)


def check_node(element: int, parent: int | None, ends: bool, n_classes: int) -> None:
    """Raise `ValueError` for an element that cannot stand below `parent` (None: at depth 0), or cannot end a path."""
    if not is_known(element) or (is_class(element) and class_index(element) >= n_classes):
        raise ValueError(f"element {element} of a path stands for nothing")
    if parent is None and element < 0 and not is_class(element):
        raise ValueError(f"a path begins with a token or a class, found {element}")
    if parent == START:
        raise ValueError("the start of the text is the last element of a path")
    if ends and (element == IGNORE or is_gap(element)):
        raise ValueError("a path ends with something that must be there")


def is_member(token: int, members: Sequence[int]) -> bool:
    """Whether `token` is one of the ascending `members`."""
    place = bisect_left(members, token)
    return place < len(members) and members[place] == token


def open_ones(level: Collection[int], n_classes: int) -> list[int]:
    """The elements of a level that are no single tokens, in a number of steps that a large level does not raise."""
    if len(level) <= MAX_GAP + n_classes:
        return [element for element in level if element < 0]
    return [element for element in range(CLASS - n_classes + 1, 0) if element in level]


def reach(element: int, members: Sequence[int], tokens: Sequence[int], at: int) -> Sequence[int]:
    """Where to go on after `element` has matched backwards from position `at`; nowhere if it does not match.

    `members` are those of a class element. The start of the text is the position -1, where only a start matches,
    and a gap of no tokens.
    """
    if element == START:
        return (at,) if at < 0 else ()
    if is_gap(element):
        return range(at, max(at - gap_width(element), -1) - 1, -1)
    if at < 0:
        return ()
    matched = element == tokens[at] if element >= 0 else element == IGNORE or is_member(tokens[at], members)
    return (at - 1,) if matched else ()


def places(
    path: Sequence[int], members: Sequence[Sequence[int]], tokens: Sequence[int], position: int, length: int
) -> list[range]:
    """Where each element of a path stands that matches backwards from `position` and takes `length` tokens.

    `members` are those of each element. A start stands nowhere, a gap may too; of several ways those with the
    shortest gaps farther back. Raises `ValueError` if the path does not match so.
    """
    reached = [{position}]
    for element, names in zip(path, members, strict=True):
        reached.append({after for at in reached[-1] for after in reach(element, names, tokens, at)})
    at = position - length
    if at not in reached[-1]:
        raise ValueError(f"no match of {tuple(path)} over {length} tokens at {position}")
    found: list[range] = []
    for element, names, before in zip(reversed(path), reversed(members), reversed(reached[:-1]), strict=True):
        start = min(b for b in before if at in reach(element, names, tokens, b))
        found.append(range(at + 1, start + 1))
        at = start
    return found[::-1]


def string(element: int, classes: Sequence[Sequence[int]], strings: Mapping[int, str]) -> str:
    """Text for a reader: the token, `*`, `^`, `(..3)` for a gap of up to three, `{a|b|c|+9}` for a class."""
    if element >= 0:
        return strings.get(element, f"<{element}>")
    if element == IGNORE:
        return "*"
    if element == START:
        return "^"
    if is_gap(element):
        return f"(..{gap_width(element)})"
    members = classes[class_index(element)]
    shown = [strings.get(token, f"<{token}>") for token in members[:SHOWN]]
    return "{" + "|".join(shown + ([f"+{len(members) - SHOWN}"] if len(members) > SHOWN else [])) + "}"
