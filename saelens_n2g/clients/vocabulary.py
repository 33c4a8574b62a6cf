"""What spelling needs of a model's tokenizer: the `Vocabulary` protocol, and that of Hugging Face tokenizers."""

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

from saelens_n2g.subject import Tokenizer


@runtime_checkable
class Vocabulary(Protocol):
    """The tokens of a model in process. Bytes that are no whole character show as U+FFFD in every text."""

    @property
    def size(self) -> int:
        """Token ids are below it."""
        ...

    @property
    def templated(self) -> bool:
        """Whether there is a chat template."""
        ...

    @property
    def front(self) -> tuple[int, ...]:
        """What the tokenizer puts before a text: the BOS or nothing."""
        ...

    @property
    def specials(self) -> Sequence[str]:
        """Texts that stand for special tokens in what a template makes."""
        ...

    def encode(self, text: str) -> list[int]:
        """Token ids of a text. Special tokens written out in it are text; none is added."""
        ...

    def marked(self, text: str) -> list[int]:
        """Token ids of what a template made: special tokens written out in it are themselves; none is added."""
        ...

    def string(self, token: int) -> str:
        """The text of one token, leading space kept."""
        ...

    def joined(self, ids: Sequence[int]) -> str:
        """The text of several tokens, special ones included."""
        ...

    def said(self, ids: Sequence[int]) -> str:
        """The text of generated tokens, without special ones."""
        ...

    def rendered(self, turns: Sequence[Mapping[str, str]], *, ask: bool) -> str:
        """What the template makes of messages (`role`, `content`); `ask` ends it where the answer begins. Raises
        `jinja2.TemplateError` for messages that it does not take."""
        ...


class Pretrained:
    """The vocabulary of a Hugging Face tokenizer."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.words, self.inner = tokenizer, tokenizer.tokenizer
        self.size = len(self.inner)
        self.templated = bool(getattr(self.inner, "chat_template", None))
        bos = self.inner.bos_token_id
        first = self.inner("a")["input_ids"][:1]
        self.front: tuple[int, ...] = (bos,) if bos is not None and list(first) == [bos] else ()
        self.specials: tuple[str, ...] = tuple(self.inner.all_special_tokens)
        self.end: int | None = self.inner.eos_token_id

    def encode(self, text: str) -> list[int]:
        """See `Vocabulary.encode`."""
        return self.words.encode(text)

    def marked(self, text: str) -> list[int]:
        """See `Vocabulary.marked`."""
        ids: list[int] = self.inner(text, add_special_tokens=False, verbose=False)["input_ids"]
        return ids

    def string(self, token: int) -> str:
        """See `Vocabulary.string`."""
        return self.words.string(token)

    def joined(self, ids: Sequence[int]) -> str:
        """See `Vocabulary.joined`."""
        text: str = self.inner.decode(list(ids), clean_up_tokenization_spaces=False)
        return text

    def said(self, ids: Sequence[int]) -> str:
        """See `Vocabulary.said`."""
        text: str = self.inner.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text

    def rendered(self, turns: Sequence[Mapping[str, str]], *, ask: bool) -> str:
        """See `Vocabulary.rendered`."""
        text: str = self.inner.apply_chat_template(list(turns), add_generation_prompt=ask, tokenize=False)
        return text
