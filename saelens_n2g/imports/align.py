"""Tokens as they were published -> ids of the subject, exactly where possible, else by characters.

    aligned = Aligner(subject).align(text, marks=True)      # ids, activations, how

Strings are looked up in the vocabulary in three spellings: the text of a token, the piece as the vocabulary has it
(`Ġthe`, `▁the`), and the piece with the marks replaced that SAEDashboard replaces (` the`); the latter two only for
formats that spell so. Where all strings of a text are found in one spelling, the ids are those. Else the joined text
is tokenised anew, and a token has the largest activation of the published tokens that it shares characters with.
"""

from collections.abc import Mapping
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np

from saelens_n2g.errors import InputError
from saelens_n2g.imports.published import PublishedText
from saelens_n2g.subject import Tokenizer

MARKS: Mapping[str, str] = {"Ġ": " ", "Ċ": "\n", "ĉ": "\t", "▁": " ", "↵": "\n"}
"""What stands for spaces and line breaks in vocabularies and on Neuronpedia's pages."""
_REPLACED: Mapping[str, str] = {
    "âĢĶ": "\u2014",
    "âĢĵ": "\u2013",
    "âĢľ": "\u201c",
    "âĢĿ": "\u201d",
    "âĢĺ": "\u2018",
    "âĢĻ": "\u2019",
    "âĢĭ": " ",
    "Ġ": " ",
    "Ċ": "\n",
    "ĉ": "\t",
}
"""What SAEDashboard replaces in pieces: dashes, quotation marks, spaces, as byte-level vocabularies spell them."""
PIECES = 8
"""Tokens of one character at most; UTF-8 has four bytes."""
LOST = "\ufffd"
"""What is shown of a part of a character by itself."""
How = Literal["exact", "characters"]


class Misaligned(InputError):
    """A text whose tokens cannot be told in the subject's."""


class Aligned(NamedTuple):
    """A text in the subject's tokens, its BOS taken off."""

    ids: tuple[int, ...]
    activations: np.ndarray
    """Float32 (token,), as published."""
    how: How


class Aligner:
    """Knows a subject's vocabulary in all spellings."""

    def __init__(self, tokenizer: Tokenizer, bos_id: int | None) -> None:
        self.tokenizer, self.bos_id = tokenizer, bos_id
        self.size = len(tokenizer.tokenizer)

    def align(self, text: PublishedText, *, marks: bool = False) -> Aligned:
        """The text's tokens and activations. marks: whether the format spells tokens with marks for spaces.

        A BOS in front is taken off. Raises `Misaligned`.
        """
        found, sure = self._given(text), True
        if found is None and text.strings is not None:
            found, sure = self._exact(text.strings, marks=marks)
        how: How = "exact"
        values = text.activations
        if found is None or not sure:
            try:
                (found, values), how = self._by_characters(text, marks), "characters"
            except Misaligned:
                if found is None:
                    raise
        if found and found[0] == self.bos_id:
            found, values = found[1:], values[1:]
        if not found:
            raise Misaligned(text.where, "a token beside the BOS", "none")
        return Aligned(found, values, how)

    def _given(self, text: PublishedText) -> tuple[int, ...] | None:
        """The ids that were published, if they are the subject's: beside strings they must mean these."""
        if text.ids is None:
            return None
        if text.strings is None:
            if max(text.ids) >= self.size:
                raise Misaligned(text.where, f"token ids from 0 to {self.size - 1}", str(max(text.ids)))
            return text.ids
        same = all(t < self.size and self._strings[t] == s for t, s in zip(text.ids, text.strings, strict=True))
        return text.ids if same else None

    def _exact(self, strings: tuple[str, ...], *, marks: bool) -> tuple[tuple[int, ...] | None, bool]:
        """Ids by look-up, and whether they are beyond doubt.

        Where spellings disagree, those count that the tokenizer gives for their own text. A letter such as `é` may
        also be how a byte-level vocabulary spells a byte, so pieces that make no whole characters are doubted.
        """
        found: list[tuple[int, ...]] = []
        for table in self._tables if marks else self._tables[:1]:
            ids = tuple(table.get(one, -1) for one in strings)
            if min(ids) >= 0 and ids not in found:
                found.append(ids)
        if not found:
            return None, False
        if not marks:
            return found[0], True
        texts = [str(self.tokenizer.tokenizer.decode(ids, clean_up_tokenization_spaces=False)) for ids in found]
        own = [tuple(self.tokenizer.encode(text)) == ids for ids, text in zip(found, texts, strict=True)]
        at = own.index(True) if True in own else 0
        return found[at], own[at] or LOST not in texts[at]

    def _by_characters(self, text: PublishedText, marks: bool) -> tuple[tuple[int, ...], np.ndarray]:
        assert text.strings is not None, "ids alone are taken or refused"
        strings, values, front = list(text.strings), text.activations, []
        if self.bos_id is not None and strings[0] in {self._strings[self.bos_id], self._pieces[self.bos_id]}:
            strings, values, front = strings[1:], values[1:], [self.bos_id]
        if marks:
            strings = [_unmarked(one) for one in strings]
        joined = "".join(strings)
        ids = self.tokenizer.encode(joined) if joined else []
        if LOST in joined:
            raise Misaligned(text.where, "whole characters", "U+FFFD, in whose place others stood")
        spans = self._spans(ids, joined)
        if not spans:
            raise Misaligned(text.where, "a text that the subject's tokens spell", repr(joined[:40]))
        if any(not one and value > 0.0 for one, value in zip(strings, values, strict=True)):
            raise Misaligned(text.where, "activations on tokens that have characters", "one on an empty token")
        owner = np.repeat(np.arange(len(strings)), [len(one) for one in strings])
        largest = [float(values[np.unique(owner[start:stop])].max()) for start, stop in spans]
        skipped = [0.0] * len(front)
        return (*front, *ids), np.array([*skipped, *largest], dtype=np.float32)

    def _spans(self, ids: list[int], text: str) -> list[tuple[int, int]]:
        """Which characters each token stands for, empty where it does not come out. Tokens that are parts of one
        character stand for it all."""
        spans: list[tuple[int, int]] = []
        at, group = 0, list[int]()
        for token in ids:
            group.append(token)
            shown = self._shown(group)
            if not spans and shown[:1] == " " != text[:1]:
                shown = shown[1:]  # SentencePiece puts a space before a text
            if shown and text.startswith(shown, at):
                spans += [(at, at + len(shown))] * len(group)
                at, group = at + len(shown), []
            elif len(group) == PIECES:
                return []
        return spans if at == len(text) and not group else []

    def _shown(self, group: list[int]) -> str:
        if len(group) == 1:
            return self._strings[group[0]] if group[0] < self.size else ""
        text: str = self.tokenizer.tokenizer.decode(group, clean_up_tokenization_spaces=False)
        return text

    @cached_property
    def _strings(self) -> list[str]:
        return [self.tokenizer.string(token) for token in range(self.size)]

    @cached_property
    def _pieces(self) -> list[str]:
        pieces = self.tokenizer.tokenizer.convert_ids_to_tokens(list(range(self.size)))
        return ["" if piece is None else str(piece) for piece in pieces]

    @cached_property
    def _tables(self) -> tuple[dict[str, int], ...]:
        shown = [_replaced(piece) for piece in self._pieces]
        return tuple(self._table(spelt) for spelt in (self._strings, self._pieces, shown))

    def _table(self, spelt: list[str]) -> dict[str, int]:
        """String -> its token. Of several the one that the tokenizer gives for it counts. U+FFFD, which stands for any
        part of a character, says too little."""
        found: dict[str, list[int]] = {}
        for token, string in enumerate(spelt):
            if string:
                found.setdefault(string, []).append(token)
        out = {string: tokens[0] for string, tokens in found.items() if len(tokens) == 1}
        for string, tokens in found.items():
            if len(tokens) > 1 and LOST not in string:
                ids = self.tokenizer.encode(string)
                if len(ids) == 1 and ids[0] in tokens:
                    out[string] = ids[0]
        return out


def _replaced(piece: str) -> str:
    for mark, text in _REPLACED.items():
        piece = piece.replace(mark, text)
    return piece


def _unmarked(string: str) -> str:
    for mark, text in MARKS.items():
        string = string.replace(mark, text)
    return string
