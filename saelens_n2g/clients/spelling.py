"""Text to token ids and back for a model in process: templates, the places of a text among its tokens, candidates."""

from collections.abc import Sequence

from saelens_n2g.clients.messages import Message, Request
from saelens_n2g.clients.places import Missing
from saelens_n2g.subject import Tokenizer


class Refused(ValueError):
    """A request that this model's tokenizer or template does not take."""


class Speller:
    """A tokenizer as requests need it. Special tokens written out in a text are text."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.words, self.inner = tokenizer, tokenizer.tokenizer
        self.templated = bool(getattr(self.inner, "chat_template", None))
        bos = self.inner.bos_token_id
        first = self.inner("a")["input_ids"][:1]
        self.front: tuple[int, ...] = (bos,) if bos is not None and list(first) == [bos] else ()
        """What the tokenizer puts before a text: the BOS or nothing."""

    def ids(self, request: Request) -> tuple[int, ...]:
        """Token ids of the whole request. Raises `Refused`."""
        if request.tokens:
            if max(request.tokens) >= len(self.inner) or min(request.tokens) < 0:
                raise Refused(f"a token id outside 0 to {len(self.inner) - 1}")
            return request.tokens
        if request.prompt:
            return (*self.front, *self.words.encode(request.prompt))
        return self._templated(self._rendered(request.messages, ask=True))

    def prefix(self, request: Request, ids: Sequence[int]) -> int:
        """How many of `ids` belong to the part that `Request.prefix` says is shared; not the last one."""
        if request.prefix == 0:
            return 0
        if request.tokens:
            shared: Sequence[int] = request.tokens[: request.prefix]
        elif request.prompt:
            shared = (*self.front, *self.words.encode(request.prompt[: request.prefix]))
        else:
            shared = self._templated(self._rendered(request.messages[: request.prefix], ask=False))
        same = next((i for i, (a, b) in enumerate(zip(shared, ids, strict=False)) if a != b), len(shared))
        return min(same, len(ids) - 1)

    def places(self, request: Request, ids: Sequence[int]) -> tuple[int, ...]:
        """Indices in `ids` of the wanted places. Raises `Missing` if no token begins there."""
        wish = request.prompt_logprobs
        if wish is None or request.tokens:
            return () if wish is None else wish.positions
        skip, text, start = len(self.front), request.prompt, 0
        if request.messages:
            skip, text = 0, self._rendered(request.messages, ask=True)
            start = self._last(request.messages, text)
        index = {begin: i + skip for begin, i in self._begins(ids[skip:], text).items()}
        for position in wish.positions:
            if index.get(start + position, 0) == 0:  # index 0 has nothing before it
                what = f"character {position} of {'the last message' if request.messages else 'the prompt'}"
                raise Missing(f"no token with something before it begins at {what}")
        return tuple(index[start + position] for position in wish.positions)

    def candidate(self, text: str) -> int | None:
        """The token that is written `text`, or None if there is no single one."""
        alone, line = self.words.encode(text), self.words.encode("\n")
        behind = self.words.encode("\n" + text)
        # Behind a line break too: some tokenizers put a space in front of whatever comes first.
        for ids in (alone, behind[len(line) :] if behind[: len(line)] == line else []):
            if len(ids) == 1 and self.words.string(ids[0]) == text:
                return ids[0]
        return None

    def decode(self, ids: Sequence[int]) -> str:
        """The text of generated ids, without special tokens."""
        text: str = self.inner.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text

    def _begins(self, ids: Sequence[int], text: str) -> dict[int, int]:
        """Character -> index of the token that begins there. Tokens that are parts of characters are taken together."""
        found: dict[int, int] = {}
        at, first = 0, 0
        for i in range(len(ids)):
            part = ids[first : i + 1]
            written = self.words.string(part[0]) if len(part) == 1 else self._whole(part)
            if at == 0 and written[:1] == " " != text[:1]:
                written = written[1:]
            if written and text.startswith(written, at):
                found.setdefault(at, first)
                at, first = at + len(written), i + 1
        return found

    def _whole(self, ids: Sequence[int]) -> str:
        text: str = self.inner.decode(list(ids), clean_up_tokenization_spaces=False)
        return text

    def _rendered(self, messages: Sequence[Message], *, ask: bool) -> str:
        from jinja2 import TemplateError

        for message in messages:
            for special in self.inner.all_special_tokens:
                if special in message.text:
                    raise Refused(f"a message with {special!r} in it, which the template would take for its own")
        turns = [{"role": role, "content": text} for role, text in messages]
        try:
            text: str = self.inner.apply_chat_template(turns, add_generation_prompt=ask, tokenize=False)
        except TemplateError as error:
            raise Refused(f"the chat template: {' '.join(str(error).split())[:200]}") from None
        return text

    def _last(self, messages: Sequence[Message], rendered: str) -> int:
        """Where the last message's text stands in what the template made of all: where another text would."""
        text, marker = messages[-1].text, "here"
        while any(marker in message.text for message in messages) or marker in rendered:
            marker += "!"
        other = self._rendered([*messages[:-1], Message(messages[-1].role, marker)], ask=True)
        start, bare = other.find(marker), text.strip()
        if start >= 0 and rendered.startswith(text, start):
            return start
        if start < 0 or not bare or not rendered.startswith(bare, start):
            raise Missing("the chat template changes the last message")
        return start - (len(text) - len(text.lstrip()))  # it takes the space off

    def _templated(self, text: str) -> tuple[int, ...]:
        return tuple(self.inner(text, add_special_tokens=False, verbose=False)["input_ids"])
