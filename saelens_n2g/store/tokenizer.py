"""The tokenizer of a store's model, kept in it, so that text can be pasted where there is neither model nor hub.

    keep_tokenizer(writer, "embedded", "embedded")
    tokenizer = StoredTokenizer.of(store.model_body(model.id, SERVICE))
    tokenizer.encode(" New York")

The body `tokenizer` of a model is its `tokenizer.json`, as the package `tokenizers` reads it, which needs neither
transformers nor PyTorch. What it says is what `subject.Tokenizer` says; that is tried before it is stored, and that it
names tokens as the graphs in the store do.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from saelens_n2g.errors import ArtefactError, InputError
from saelens_n2g.store.bodies import Body
from saelens_n2g.store.schema import GRAPH
from saelens_n2g.store.writer import Writer

SERVICE = "tokenizer"
"""Name of the model's body."""
TRIED = (
    "The old man's cat, 2 New Yorks!\n\n\tdef f(x):\r\n  return x",
    " caf\u00e9 \U0001f642\U0001f1e6\U0001f1f9 \u4f60\u597d \u0301\u200d",
    "<|endoftext|><s> </s>[CLS]<unk> <pad><|im_start|>",
    "",
)
"""Texts that a stored tokenizer must read as the model's own does."""
COMPARED = 64
"""Graphs whose token strings are compared with the tokenizer's."""


class StoredTokenizer:
    """Text to token ids and back, exactly as `subject.Tokenizer`."""

    def __init__(self, text: str) -> None:
        """From the text of a `tokenizer.json`. Raises `InputError` for text that is none."""
        from tokenizers import Tokenizer

        try:
            self.backend = Tokenizer.from_str(text)
        except Exception as error:  # the package raises no narrower one
            raise InputError("tokenizer", "the content of a tokenizer.json", " ".join(str(error).split())) from error
        self.backend.no_padding()
        self.backend.no_truncation()
        self.backend.encode_special_tokens = True  # special tokens are text like any other
        self._strings: dict[int, str] = {}

    @classmethod
    def of(cls, body: Body) -> "StoredTokenizer":
        """Raises `ArtefactError` if the body is damaged."""
        try:
            return cls(body.text().decode())
        except (InputError, UnicodeDecodeError) as error:
            raise ArtefactError("tokenizer in the store", "the content of a tokenizer.json", str(error)) from error

    def encode(self, text: str) -> list[int]:
        """Token ids of a text; no special token is added, and none is read out of the text."""
        ids: list[int] = self.backend.encode(text, add_special_tokens=False).ids
        return ids

    def string(self, token: int) -> str:
        """The text of one token, leading space kept; bytes that are no whole character show as U+FFFD."""
        found = self._strings.get(token)
        if found is None:
            text: str = self.backend.decode([token], skip_special_tokens=False)
            # SentencePiece decoders take the space off whatever comes first, which here is the only token.
            spaced = text[:1] != " " and str(self.backend.id_to_token(token)).startswith("\u2581")
            found = self._strings[token] = " " + text if spaced else text
        return found


def keep_tokenizer(writer: Writer, model: str, name: str | None = None, revision: str | None = None) -> bool:
    """Store the tokenizer of a model in the store; whether there was anything to do.

    name: a `tokenizer.json`, or a model as `Subject.load` takes it, which replaces a tokenizer that is there; None for
    that of the model that the units come from, which is loaded only if none is there.

    Raises `InputError` where it cannot be loaded, has no `tokenizer.json` that says the same, or names tokens otherwise
    than the graphs in the store do.
    """
    if name is None:
        if writer.says(model, SERVICE):
            return False
        name, revision = writer.origin(model)
    value = _loaded(name, revision)
    tokenizer = StoredTokenizer(json.dumps(value))
    for strings in _strings(writer, model):
        for token, text in strings.items():
            if (found := tokenizer.string(int(token))) != text:
                expected = f"that of {model}, whose token {token} is {text!r}"
                raise InputError(f"tokenizer {name}", expected, repr(found))
    with writer.batch():
        writer.say(model, SERVICE, value)
    return True


def _loaded(name: str, revision: str | None) -> Any:
    """The content of a `tokenizer.json`, tried against the tokenizer that it is of."""
    if Path(name).is_file():
        try:
            return json.loads(StoredTokenizer(Path(name).read_text(encoding="utf-8")).backend.to_str())
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"tokenizer {name}", "a tokenizer.json that can be read", str(error)) from error
    from saelens_n2g.booting import quiet
    from saelens_n2g.subject import Tokenizer

    try:
        with quiet():
            original = Tokenizer.load(name, revision=revision)
    except ImportError as error:
        raise InputError(f"tokenizer {name}", "the packages that it needs", " ".join(str(error).split())) from error
    backend = getattr(original.tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise InputError(f"tokenizer {name}", "one that has a tokenizer.json", type(original.tokenizer).__name__)
    value = json.loads(backend.to_str())
    stored = StoredTokenizer(json.dumps(value))
    for text in TRIED:
        ids = original.encode(text)
        if stored.encode(text) != ids or any(stored.string(token) != original.string(token) for token in ids):
            raise InputError(f"tokenizer {name}", "a tokenizer.json that says the same", f"another for {text!r}")
    return value


def _strings(writer: Writer, model: str) -> Iterable[Mapping[str, str]]:
    """Token strings of some graphs of a model, over all of it."""
    graphs = sorted(writer.etags(model, GRAPH))
    for unit in graphs[:: -(-len(graphs) // COMPARED) or 1]:
        yield writer.body(unit, GRAPH).json()["trie"]["token_strings"]
