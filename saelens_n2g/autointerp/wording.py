"""What all prompts have in common: how tokens and activations are written down, examples, chats and plain texts.

The examples are our own, of units that were made up; none is in the puzzles.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from saelens_n2g.autointerp.excerpts import digits, tenths
from saelens_n2g.clients.base import Capabilities
from saelens_n2g.clients.messages import Message, Request

UNKNOWN = "?"
"""Stands where an activation is to be told."""
LEFT, RIGHT = "«", "»"
"""Around what is marked."""
_ESCAPES = {"\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r"}
_BREAKS = re.compile(r"[\v\f\x1c-\x1e\x85\u2028\u2029]")


def shown(token: str) -> str:
    """A token in one line: leading spaces as they are, tabs, breaks and backslashes escaped, half characters as `?`."""
    whole = sendable(token)
    return _BREAKS.sub(" ", "".join(_ESCAPES.get(letter, letter) for letter in whole))


def sendable(text: str) -> str:
    """A text with `?` for what is no whole character: no request can hold half ones, and the mark that stands for them
    is spelled alike by whole and by half ones, so that places behind it could not be told."""
    return text.encode("utf-8", "replace").decode().replace("\ufffd", "?")


def described(description: str) -> str:
    """A description in one line."""
    return sendable(" ".join(description.split()))


def scaled(activations: Float[np.ndarray, "token"], most: int) -> list[int]:
    """Shares of the maximum as whole numbers from 0 to `most`, 9 or 10; a tenth is 1 on both."""
    found: list[int] = (tenths(activations) if most == 10 else digits(activations)).tolist()
    return found


def row(token: str, value: int | str) -> str:
    """One line of a list of tokens: token, tab, activation."""
    return f"{shown(token)}\t{value}\n"


def rows(strings: Sequence[str], values: Sequence[int | str]) -> str:
    """A list of tokens and activations, one a line."""
    return "".join(row(token, value) for token, value in zip(strings, values, strict=True))


def marked(strings: Sequence[str], marks: Sequence[bool]) -> str:
    """A text with its marked tokens between `LEFT` and `RIGHT`, neighbours together, in one line."""
    out = []
    for place, (token, mark) in enumerate(zip(strings, marks, strict=True)):
        text = shown(token).replace(LEFT, "<").replace(RIGHT, ">")
        if mark and (place == 0 or not marks[place - 1]):
            blank = len(text) - len(text.lstrip(" "))
            text = text[:blank] + LEFT + text[blank:]
        out.append(text + (RIGHT if mark and (place + 1 == len(marks) or not marks[place + 1]) else ""))
    return "".join(out)


def words_of(strings: Sequence[str]) -> list[str]:
    """Per token the word it is in: tokens up to the next that begins with a space, joined and stripped."""
    starts = [i for i, s in enumerate(strings) if i == 0 or not s or s[0].isspace()]
    ends = [*starts[1:], len(strings)]
    out: list[str] = []
    for start, end in zip(starts, ends, strict=True):
        out += ["".join(strings[start:end]).strip()] * (end - start)
    return out


class Shot(NamedTuple):
    """An excerpt of an example."""

    strings: tuple[str, ...]
    activations: np.ndarray
    """Shares of the maximum, in tenths."""


class Example(NamedTuple):
    """A unit that was made up."""

    description: str
    shots: tuple[Shot, ...]


def _shot(text: str) -> Shot:
    """`a| b:7` is the token `a`, and ` b` with an activation of 0.7."""
    pairs = [re.fullmatch(r"(.*?)(?::(\d+))?", one) for one in text.split("|")]
    found = [(p[1], int(p[2] or 0)) for p in pairs if p is not None]
    return Shot(tuple(s for s, _ in found), np.array([a / 10 for _, a in found]))


_WRITTEN = (
    (
        "words for boats and sailing",
        "The| old| sloop:8| sailed:9| into| the| harbour:6| at| noon|.",
        "He| sold| his| house|,| bought| a| yacht:10| and| did| not| come| ashore:3| again|.",
    ),
    (
        "the number right before a unit of length or weight",
        "A| plank| of| 12:9| feet| and| two| nails|,| 5:8| inches| each|.",
        "In| 1931| she| carried| 40:10| kilograms| up| three| stairs|.",
    ),
    (
        "the second of two words that are joined by 'and'",
        "Salt| and| pepper:9|,| but| neither| bread| nor| cheese|.",
        "They| came| and| went:7|,| slowly| and| quietly:10|,| all| night|.",
    ),
)
EXAMPLES = tuple(Example(description, (_shot(a), _shot(b))) for description, a, b in _WRITTEN)


class Talk(NamedTuple):
    """A question that can be put as a chat or as a text to be continued."""

    system: str
    turns: tuple[tuple[str, str], ...]
    """Questions of examples, with their answers."""
    last: str
    """The question."""
    lead: str = ""
    """How every answer begins, in texts to be continued."""
    continued: bool = False
    """Whether it is rather put as a text to be continued, where the client has both: small models hold to a pattern
    that they see better than to what they are told."""

    def request(
        self, able: Capabilities, *, max_tokens: int, logprobs: int | None = None, json_schema: str = ""
    ) -> Request:
        """As a chat where the client has chats, else as a text that ends where the answer begins."""
        if able.chat and not (self.continued and able.completion):
            several = [Message("system", self.system)]
            for asked, answered in self.turns:
                several += [Message("user", asked), Message("assistant", f"{self.lead} {answered}".strip())]
            return Request(
                messages=(*several, Message("user", self.last)),
                max_tokens=max_tokens,
                logprobs=logprobs,
                json_schema=json_schema,
                prefix=len(several),
            )
        shared = self.system + "\n\n"
        lead = self.lead or "Answer:"
        for asked, answered in self.turns:
            shared += f"{asked}\n{lead} {answered}\n\n"
        return Request(
            prompt=f"{shared}{self.last}\n{lead}",
            max_tokens=max_tokens,
            logprobs=logprobs,
            json_schema=json_schema,
            prefix=len(shared),
            stop=("\n",),
        )
