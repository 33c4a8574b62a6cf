"""Text to token ids and back for a model in process: templates, the places of a text among its tokens, candidates."""

from collections.abc import Sequence

from saelens_n2g.clients.messages import Message, Request
from saelens_n2g.clients.places import Missing
from saelens_n2g.clients.vocabulary import Vocabulary


class Refused(ValueError):
    """A request that this model's tokenizer or template does not take."""


class Speller:
    """A vocabulary as requests need it. Special tokens written out in a text are text."""

    def __init__(self, words: Vocabulary) -> None:
        self.words, self.front, self.templated = words, words.front, words.templated

    def ids(self, request: Request) -> tuple[int, ...]:
        """Token ids of the whole request. Raises `Refused`."""
        if request.tokens:
            if max(request.tokens) >= self.words.size or min(request.tokens) < 0:
                raise Refused(f"a token id outside 0 to {self.words.size - 1}")
            return request.tokens
        if request.prompt:
            return (*self.front, *self.words.encode(request.prompt))
        return tuple(self.words.marked(self._rendered(request.messages, ask=True)))

    def prefix(self, request: Request, ids: Sequence[int]) -> int:
        """How many of `ids` belong to the part that `Request.prefix` says is shared; not the last one."""
        if request.prefix == 0:
            return 0
        if request.tokens:
            shared: Sequence[int] = request.tokens[: request.prefix]
        elif request.prompt:
            shared = (*self.front, *self.words.encode(request.prompt[: request.prefix]))
        else:
            shared = self.words.marked(self._rendered(request.messages[: request.prefix], ask=False))
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

    def _begins(self, ids: Sequence[int], text: str) -> dict[int, int]:
        """Character -> index of the token that begins there. Tokens that are parts of characters are taken together."""
        found: dict[int, int] = {}
        at, first = 0, 0
        for i in range(len(ids)):
            part = ids[first : i + 1]
            written = self._written(part)
            # A U+FFFD may stand in the text itself: its bytes look the same until the last of them is there.
            if written.endswith("\ufffd") and i + 1 < len(ids) and self._written(ids[first : i + 2]) == written:
                continue
            if at == 0 and written[:1] == " " != text[:1]:
                written = written[1:]
            if written and text.startswith(written, at):
                found.setdefault(at, first)
                at, first = at + len(written), i + 1
        return found

    def _written(self, ids: Sequence[int]) -> str:
        return self.words.string(ids[0]) if len(ids) == 1 else self.words.joined(ids)

    def _rendered(self, messages: Sequence[Message], *, ask: bool) -> str:
        from jinja2 import TemplateError

        for message in messages:
            for special in self.words.specials:
                if special in message.text:
                    raise Refused(f"a message with {special!r} in it, which the template would take for its own")
        turns = [{"role": role, "content": text} for role, text in messages]
        try:
            return self.words.rendered(turns, ask=ask)
        except TemplateError as error:
            raise Refused(f"the chat template: {' '.join(str(error).split())[:200]}") from None

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
