"""How many tokens a text has, where no tokenizer is at hand."""

import re
from collections.abc import Sequence

PIECES = re.compile(r" ?[^\W\d_]+| ?\d|_+| ?[^\w\s]+|\s+")
MESSAGE, CHAT = 4, 3
"""Tokens that a template puts around a message, and around the whole."""


def estimated(text: str) -> int:
    """About how many tokens a byte-level BPE of some 50,000 tokens cuts a text into.

    Words, digits, runs of punctuation and of white space are tokens; long ones, and letters outside ASCII, are several.
    Against SmolLM2's tokenizer: 2 % too few on Wikipedia, 3 % on Python, 1 % too many on tokens with tabs and digits
    (docs/lab-notes.md).
    """
    return sum(_tokens(piece) for piece in PIECES.findall(text))


def _tokens(piece: str) -> int:
    body = piece.strip(" ")
    if not piece.isascii():
        return -(-len(body.encode()) // 3)
    if body.isalpha():
        return 1 + (len(body) - 1) // 8
    return 1 if piece.isspace() else -(-max(1, len(body)) // 3)


def chat(counts: Sequence[int]) -> int:
    """Tokens of a chat whose messages have that many."""
    return sum(counts) + MESSAGE * len(counts) + CHAT
