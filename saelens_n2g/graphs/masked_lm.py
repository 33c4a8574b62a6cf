"""MaskedLanguageModel: substitutes proposed by BERT, as in the paper, or by any other fill-mask model.

    augmenter = MaskedLanguageModel.load("bert-base-uncased", subject)      # hub name or local folder
    augmenter = augmenter_for("auto", subject, report=print)                # BERT if it is at hand

Foote et al. 2023, section 3, "Augment". The helper model reads text and thinks in words, the subject in its own
tokens: the word around a masked token is found by character offsets in the token strings, masked as a whole, and
every proposal is written back in the subject's tokens with the spacing and casing of the original. All ids outside
the word stay what they were; nothing is re-tokenised.
"""

import unicodedata
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch

from saelens_n2g.booting import find_device, quiet
from saelens_n2g.errors import InputError
from saelens_n2g.graphs.augmenters import Augmenter, LanguageModel, Several, Spellings, SubjectInfill
from saelens_n2g.graphs.questions import Masked, Substitute, Tokens

BERT = "bert-base-uncased"
"""The paper's helper model."""
APOSTROPHES = "'\u2019"
NO_CHARACTER = "\ufffd"
"""How `Subject.string` shows bytes that are no whole character."""


@runtime_checkable
class Words(Protocol):
    """What writing words needs of a subject."""

    device: torch.device

    def encode(self, text: str) -> list[int]: ...
    def string(self, token: int) -> str: ...


@runtime_checkable
class TextModel(Words, LanguageModel, Protocol):
    """A subject that can also infill."""


class Word(NamedTuple):
    """A word and the subject tokens `start` to `stop` that spell it, possibly with other characters around it."""

    start: int
    stop: int
    before: str
    """Characters of the first token before the word, as a rule its leading space."""
    text: str
    after: str
    """Characters of the last token after the word, as a rule none."""


class _Gap(NamedTuple):
    """One position to fill: the word, and helper ids with the mask at `mask`."""

    word: Word
    ids: tuple[int, ...]
    mask: int


def word_at(pieces: Sequence[str], position: int) -> Word | None:
    """The word that token `position` of the token strings `pieces` belongs to.

    A word is a run of letters, digits and inner apostrophes. None for a token without any of these, and for a word
    that touches bytes of no whole character: it may go on inside them. Of several words in one token, the last.
    """
    text, ends = "".join(pieces), list(accumulate(len(piece) for piece in pieces))
    low, high = ends[position] - len(pieces[position]), ends[position]
    last = next((i for i in range(high - 1, low - 1, -1) if _in_word(text[i])), None)
    if last is None:
        return None
    start, stop = last, last + 1
    while start > 0 and _in_word(text[start - 1]):
        start -= 1
    while stop < len(text) and _in_word(text[stop]):
        stop += 1
    if NO_CHARACTER in text[start:stop]:
        return None
    while start < stop and text[start] in APOSTROPHES:
        start += 1
    while start < stop and text[stop - 1] in APOSTROPHES:
        stop -= 1
    if start == stop or stop <= low or start >= high:
        return None
    first = next(i for i, end in enumerate(ends) if end > start)
    final = next(i for i, end in enumerate(ends) if end >= stop)
    before = text[ends[first] - len(pieces[first]) : start]
    return Word(first, final + 1, before, text[start:stop], text[stop : ends[final]])


def cased_like(original: str, word: str) -> str:
    """`word` in the casing of `original`: lower, Title or UPPER; as it is where the original is none of these.

    One capital letter alone ("I", "A") counts as Title.
    """
    letters = [c for c in original if c.isalpha()]
    if len(letters) > 1 and original.isupper():
        return word.upper()
    if letters and letters[0].isupper() and not any(c.isupper() for c in letters[1:]):
        return word[:1].upper() + word[1:].lower()
    return word.lower() if original.islower() else word


class MaskedLanguageModel:
    """A fill-mask model as `Augmenter`."""

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        subject: Words,
        name: str,
        *,
        top: int = 5,
        min_probability: float = 1e-5,
        batch_tokens: int = 1024,
    ) -> None:
        """Wrap a loaded Hugging Face model and tokenizer; most callers want `load`, which explains the options.

        Raises `InputError` if the tokenizer has no mask token.
        """
        if tokenizer.mask_token_id is None:
            raise InputError(f"masked language model {name!r}", "a tokenizer with a mask token", "none")
        self.model, self.tokenizer, self.subject, self.model_name = model, tokenizer, subject, name
        self.top, self.min_probability, self.batch_tokens = top, min_probability, batch_tokens
        around = list(tokenizer(tokenizer.mask_token)["input_ids"])
        at = around.index(tokenizer.mask_token_id)
        self._front, self._back = around[:at], around[at + 1 :]
        # RoBERTa counts positions from behind its padding id, so two of them can be spoken for.
        self._room = min(int(tokenizer.model_max_length), int(model.config.max_position_embeddings) - 2)
        self._words = _whole_words(tokenizer, int(model.config.vocab_size))
        self._proposable = torch.zeros(int(model.config.vocab_size), dtype=torch.bool)
        self._proposable[list(self._words)] = True
        self._written: dict[str, Tokens | None] = {}

    @classmethod
    def load(
        cls,
        name: str,
        subject: Words,
        *,
        device: str = "auto",
        top: int = 5,
        min_probability: float = 1e-5,
        local_only: bool = False,
    ) -> "MaskedLanguageModel":
        """Load a fill-mask model by hub name or from a folder in Hugging Face format.

        `top` words at most are proposed per position, each with at least `min_probability` (the defaults are those
        of the authors' code; the paper gives none). `device`: `auto` is where the subject is. With `local_only` no
        network is used. Raises `InputError` that says what to do if the model cannot be had or is no fill-mask
        model.
        """
        from safetensors import SafetensorError
        from transformers import AutoModelForMaskedLM, AutoTokenizer

        where = subject.device if device == "auto" else find_device(device)
        expected = "a fill-mask model; give a local folder of one, or use the subject's own infilling (`subject`)"
        try:
            with quiet():
                tokenizer = AutoTokenizer.from_pretrained(name, local_files_only=local_only)
                model, info = AutoModelForMaskedLM.from_pretrained(
                    name, local_files_only=local_only, output_loading_info=True
                )
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            reason = " ".join(str(error).split())[:200]
            raise InputError(f"masked language model {name!r}", expected, reason) from error
        if missing := sorted(info["missing_keys"]):  # it would have been filled with random numbers
            raise InputError(f"masked language model {name!r}", expected, f"no weights for {', '.join(missing[:3])}")
        model = model.float().to(where).eval()
        return cls(model, tokenizer, subject, name, top=top, min_probability=min_probability)

    @property
    def name(self) -> str:
        return f"masked language model {self.model_name} (top {self.top}, p >= {self.min_probability:g})"

    def substitutes(self, rows: Sequence[Masked]) -> list[list[Substitute]]:
        """See `Augmenter.substitutes`. The whole word around the masked token is replaced, by other whole words.

        Nothing is proposed for tokens that belong to no word. Never proposed: word pieces, special tokens, whatever
        is not all letters, the same word in another casing, and words that the subject's tokenizer cannot write
        with the original's spacing.
        """
        gaps = [self._gap(row) for row in rows]
        unique = list(dict.fromkeys(gap for gap in gaps if gap is not None))
        found = dict(zip(unique, self._fill(unique), strict=True))
        return [[] if gap is None else found[gap] for gap in gaps]

    def _gap(self, row: Masked) -> _Gap | None:
        pieces = [self.subject.string(token) for token in row.tokens]
        word = word_at(pieces, row.position)
        if word is None:
            return None
        left = self._encode("".join(pieces[: word.start]) + word.before)
        right = self._encode(word.after + "".join(pieces[word.stop :]))
        room = self._room - len(self._front) - len(self._back) - 1
        left = left[max(0, len(left) - max(room // 2, room - len(right))) :]
        right = right[: room - len(left)]
        ids = (*self._front, *left, self.tokenizer.mask_token_id, *right, *self._back)
        return _Gap(word, ids, len(self._front) + len(left))

    def _encode(self, text: str) -> list[int]:
        """Helper ids of a text; the space next to the mask belongs to the masked word."""
        ids: list[int] = self.tokenizer(
            text.rstrip(), add_special_tokens=False, split_special_tokens=True, verbose=False
        )["input_ids"]
        return ids

    def _fill(self, gaps: Sequence[_Gap]) -> list[list[Substitute]]:
        out: dict[_Gap, list[Substitute]] = {}
        for batch in self._batches(gaps):
            width = max(len(gap.ids) for gap in batch)
            padding = self.tokenizer.pad_token_id
            ids = torch.full((len(batch), width), 0 if padding is None else padding, dtype=torch.long)
            attention = torch.zeros_like(ids)
            for i, gap in enumerate(batch):
                ids[i, : len(gap.ids)] = torch.tensor(gap.ids)
                attention[i, : len(gap.ids)] = 1
            with torch.inference_mode():
                logits = self.model(ids.to(self.model.device), attention_mask=attention.to(self.model.device)).logits
            at = torch.tensor([gap.mask for gap in batch])
            chosen = torch.softmax(logits[torch.arange(len(batch)), at].float().cpu(), dim=-1)
            chosen[:, ~self._proposable] = 0.0
            # Some of the likeliest fall away when they are written down, so more than `top` are looked at.
            values, words = chosen.topk(min(4 * self.top + 4, chosen.shape[-1]), dim=-1)
            for gap, p, w in zip(batch, values.tolist(), words.tolist(), strict=True):
                out[gap] = self._choose(gap.word, [(self._words[i], x) for i, x in zip(w, p, strict=True) if x > 0.0])
        return [out[gap] for gap in gaps]

    def _choose(self, word: Word, proposals: list[tuple[str, float]]) -> list[Substitute]:
        found: dict[Tokens, Substitute] = {}
        for proposal, probability in proposals:
            if len(found) == self.top or probability < self.min_probability:
                break
            if proposal.casefold() == word.text.casefold():
                continue
            replacement = self._write(word.before + cased_like(word.text, proposal) + word.after)
            if replacement is not None and replacement not in found:
                found[replacement] = Substitute(word.start, word.stop, replacement, probability)
        return list(found.values())

    def _write(self, text: str) -> Tokens | None:
        """Subject ids that spell exactly `text`, if its tokenizer can.

        Tokenizers of the SentencePiece kind put a space before whatever they are given, so the text is tried
        without its own as well; what counts is what the ids spell.
        """
        if text not in self._written:
            tries = (tuple(self.subject.encode(t)) for t in dict.fromkeys((text, text.removeprefix(" "))))
            spelt = (ids for ids in tries if ids and "".join(map(self.subject.string, ids)) == text)
            self._written[text] = next(spelt, None)
        return self._written[text]

    def _batches(self, gaps: Sequence[_Gap]) -> Iterator[list[_Gap]]:
        batch: list[_Gap] = []
        for gap in sorted(gaps, key=lambda gap: (len(gap.ids), gap.ids)):
            if batch and (len(batch) + 1) * len(gap.ids) > self.batch_tokens:
                yield batch
                batch = []
            batch.append(gap)
        if batch:
            yield batch


def augmenter_for(
    name: str,
    subject: TextModel,
    *,
    device: str = "auto",
    report: Callable[[str], None] = lambda _: None,
) -> Augmenter | None:
    """The augmenter called `name`, which its own `name` describes for the provenance.

    `none`: None. `subject`: the subject's own infilling. `spellings`: the token in another case or spacing. `auto`:
    BERT as in the paper if it loads without network, else `spellings+subject`, and `report` is told in one line
    which and why. `A+B`: both, one after the other. Anything else: a fill-mask model on the hub or in a folder.
    Raises `InputError` if that cannot be loaded.
    """
    if name == "none":
        return None
    if name == "subject":
        return SubjectInfill(subject)
    if name == "spellings":
        return Spellings(subject)
    if "+" in name and not Path(name).exists():  # the hub allows no plus in a name
        parts = [augmenter_for(part, subject, device=device, report=report) for part in name.split("+")]
        return Several([part for part in parts if part is not None])
    if name != "auto":
        return MaskedLanguageModel.load(name, subject, device=device)
    try:
        augmenter = MaskedLanguageModel.load(BERT, subject, device=device, local_only=True)
    except InputError as error:
        reason = error.found.split(". ")[0].split(" to load")[0]
        report(f"augmenter: spellings and the subject's own infilling, since {BERT} is not on this machine ({reason})")
        return Several([Spellings(subject), SubjectInfill(subject)])
    report(f"augmenter: {augmenter.name}, as in the paper")
    return augmenter


def _in_word(c: str) -> bool:
    return c.isalnum() or c in APOSTROPHES or c == NO_CHARACTER or unicodedata.category(c).startswith("M")


def _whole_words(tokenizer: Any, size: int) -> dict[int, str]:
    """The ids below `size` that stand for a whole word of letters, with that word.

    WordPiece marks what continues a word ("##"), byte-level BPE and SentencePiece mark what begins one ("Ġ", "▁").
    """
    special = set(tokenizer.all_special_ids)
    pieces: list[str] = tokenizer.convert_ids_to_tokens(list(range(min(len(tokenizer), size))))
    marks = ("Ġ", "▁")
    marked = any(piece.startswith(marks) for piece in pieces)
    words = {}
    for token, piece in enumerate(pieces):
        if token in special or piece.startswith("##") or (marked and not piece.startswith(marks)):
            continue
        word = tokenizer.decode([token]).strip() if marked else piece
        if word.isalpha():
            words[token] = word
    return words
