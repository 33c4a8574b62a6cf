"""llama.cpp by its C interface: a model file, its vocabulary, reading it, grammars. Needs `llama-cpp-python`.

What comes out for some ids is a function of them, of how they are split and of the number of threads, never of what was
read before: a prefix is always run by itself, and stays in memory until another one is asked for; tokens behind it are
taken out again. A prefix that is longer or shorter is another one: cut elsewhere it would differ in the last bits.
"""

import codecs
import ctypes
import functools
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from saelens_n2g.clients.places import Missing
from saelens_n2g.clients.running import Read, Sampler
from saelens_n2g.clients.spelling import Refused
from saelens_n2g.errors import InputError

BATCH = 512
"""Tokens that are run at once; what comes out depends on it in the last bits."""
CONTROL = 1 << 3
"""llama.cpp's mark of a token that is special."""
ERROR = 4
"""llama.cpp's level of log lines that say what went wrong."""
_said: list[str] = []
"""Those lines, since a file was last opened."""
_listeners: list[Any] = []
"""What llama.cpp calls with a log line; it must not be freed."""


@functools.cache
def library() -> Any:
    """The library, silent from now on. Raises `InputError` if it is not there or does not load."""
    try:
        import llama_cpp
    except (ImportError, OSError, RuntimeError) as error:
        wanted = "package llama-cpp-python (pip install 'saelens-n2g[llamacpp]'; it is compiled, or see its own page)"
        raise InputError("client llamacpp", wanted, " ".join(str(error).split())[:200]) from error

    def listen(level: int, text: bytes, _: Any) -> None:
        if level == ERROR:
            _said.append(text.decode(errors="replace").strip())

    _listeners.append(llama_cpp.llama_log_callback(listen))
    llama_cpp.llama_log_set(_listeners[-1], ctypes.c_void_p(0))
    llama_cpp.llama_backend_init()
    return llama_cpp


def _heard() -> str:
    """The first thing that went wrong since a file was last opened, in one line."""
    return " ".join(_said[0].split())[:200] if _said else "no reason given"


class Model:
    """A GGUF file, with its weights or the vocabulary alone. Raises `InputError` if llama.cpp cannot read it."""

    def __init__(self, path: Path, *, weights: bool, gpu: int | None = None) -> None:
        """gpu: None keeps everything on the CPU, -1 takes all GPUs that there are, else the one of that number."""
        self.llama, self.path, self.gpu = library(), path, gpu
        settings = self.llama.llama_model_default_params()
        settings.vocab_only, settings.n_gpu_layers = not weights, 0 if gpu is None else -1
        if gpu is not None and gpu >= 0:
            settings.split_mode, settings.main_gpu = 0, gpu
        _said.clear()
        self.handle = self.llama.llama_model_load_from_file(str(path).encode(), settings)
        if not self.handle:
            found = _heard().removeprefix("llama_model_load: error loading model: ")
            raise InputError(f"model {path}", "a GGUF file that llama.cpp can read", found)
        self.vocabulary = self.llama.llama_model_get_vocab(self.handle)
        weakref.finalize(self, self.llama.llama_model_free, self.handle)

    def said(self, key: str) -> str | None:
        """What the file's metadata says under a key."""
        room = ctypes.create_string_buffer(1024)
        size = self.llama.llama_model_meta_val_str(self.handle, key.encode(), room, len(room))
        return None if size < 0 else room.value.decode(errors="replace")

    @property
    def n_ctx(self) -> int | None:
        """Tokens of context that it was trained on."""
        found = self.said(f"{self.said('general.architecture')}.context_length")
        return None if found is None else int(found)


class LlamaVocabulary:
    """See `Vocabulary`. Templates are rendered as transformers does, in its sandbox."""

    def __init__(self, model: Model) -> None:
        self.model, self.llama = model, model.llama
        self.written: dict[int, bytes] = {}
        llama, words = self.llama, model.vocabulary
        self.size: int = llama.llama_vocab_n_tokens(words)
        template = llama.llama_model_chat_template(model.handle, None)
        self.template: str = "" if template is None else template.decode()
        self.templated = bool(self.template)
        bos, eos = llama.llama_vocab_bos(words), llama.llama_vocab_eos(words)
        self.front: tuple[int, ...] = (bos,) if bos >= 0 and llama.llama_vocab_get_add_bos(words) else ()
        self.ends = frozenset(i for i in range(self.size) if llama.llama_vocab_is_eog(words, i))
        self.control = frozenset(i for i in range(self.size) if llama.llama_vocab_get_attr(words, i) & CONTROL)
        self.specials: tuple[str, ...] = tuple(text for i in sorted(self.control) if (text := self.string(i)))
        named = {"bos_token": bos, "eos_token": eos}
        self.named = {name: self.string(token) for name, token in named.items() if token >= 0}

    def encode(self, text: str) -> list[int]:
        """See `Vocabulary.encode`."""
        return self._ids(text, special=False)

    def marked(self, text: str) -> list[int]:
        """See `Vocabulary.marked`."""
        return self._ids(text, special=True)

    def _ids(self, text: str, *, special: bool) -> list[int]:
        data = text.encode()
        room = (self.llama.llama_token * (len(data) + 8))()
        size = self.llama.llama_tokenize(self.model.vocabulary, data, len(data), room, len(room), False, special)
        if size < 0:
            raise Refused(f"a text that makes more tokens ({-size}) than it has bytes")
        return list(room[:size])

    def bytes_of(self, token: int) -> bytes:
        """What a token is written as, special ones too."""
        if token not in self.written:
            self.written[token] = self._piece(token)
        return self.written[token]

    def _piece(self, token: int) -> bytes:
        room = ctypes.create_string_buffer(64)
        write = self.llama.llama_token_to_piece
        size = write(self.model.vocabulary, token, room, len(room), 0, True)
        if size < 0:
            room = ctypes.create_string_buffer(-size)
            size = write(self.model.vocabulary, token, room, len(room), 0, True)
        return room.raw[:size]

    def string(self, token: int) -> str:
        """See `Vocabulary.string`."""
        return self.bytes_of(token).decode(errors="replace")

    def joined(self, ids: Sequence[int]) -> str:
        """See `Vocabulary.joined`."""
        return b"".join(map(self.bytes_of, ids)).decode(errors="replace")

    def said(self, ids: Sequence[int]) -> str:
        """See `Vocabulary.said`."""
        return self.joined([i for i in ids if i not in self.control])

    def rendered(self, turns: Sequence[Mapping[str, str]], *, ask: bool) -> str:
        """See `Vocabulary.rendered`."""
        from transformers.utils.chat_template_utils import render_jinja_template

        chat = [dict(turn) for turn in turns]
        texts, _ = render_jinja_template(
            conversations=[chat], chat_template=self.template, add_generation_prompt=ask, **self.named
        )
        return str(texts[0])


class LlamaReader:
    """See `Reads`. What is read lies in the one memory that a model has here, so only the last of it can be continued.

    Raises `InputError` if there is no room for `n_ctx` tokens, or if it is no causal language model.
    """

    def __init__(self, model: Model, n_ctx: int, threads: int) -> None:
        self.model, self.llama = model, model.llama
        settings = self.llama.llama_context_default_params()
        settings.n_ctx, settings.n_batch, settings.n_ubatch, settings.n_seq_max = n_ctx, BATCH, BATCH, 1
        settings.n_threads = settings.n_threads_batch = threads
        settings.offload_kqv = settings.op_offload = model.gpu is not None
        settings.swa_full = True  # so that tokens can be taken out again
        _said.clear()
        self.handle = self.llama.llama_init_from_model(model.handle, settings)
        if not self.handle:
            raise InputError(f"model {model.path}", f"memory for {n_ctx} tokens", _heard())
        self.batch = self.llama.llama_batch_init(BATCH, 0, 1)
        weakref.finalize(self, _free, model, self.handle, self.batch)
        self.memory = self.llama.llama_get_memory(self.handle)
        if not self.memory or self.llama.llama_model_has_encoder(model.handle):
            raise InputError(f"model {model.path}", "one that continues text", "another kind")
        self.d_vocab: int = self.llama.llama_vocab_n_tokens(model.vocabulary)
        self.prefix: tuple[int, ...] = ()
        self.at = self.reads = 0

    def read(self, ids: Sequence[int], split: int, wanted: Sequence[int]) -> Read:
        """See `Reads.read`. Raises `Refused` if llama.cpp fails at it."""
        assert 0 <= split <= wanted[0] < len(ids)
        prefix = tuple(ids[:split])
        self.reads += 1
        known = bool(prefix) and prefix == self.prefix
        known = known and bool(self.llama.llama_memory_seq_rm(self.memory, 0, split, -1))  # not all models can
        if known:
            self.at = split
        else:
            self.llama.llama_memory_clear(self.memory, False)  # what was there counts for nothing
            self.prefix, self.at = (), 0
            self.run(prefix, self.reads, [])
            self.prefix = prefix
        logits = self.run(ids[split:], self.reads, [index - split for index in wanted])
        return Read(logits, self.reads, split if known else 0)

    def run(self, ids: Sequence[int], cache: Any, wanted: Sequence[int]) -> Float[Tensor, "wanted d_vocab"]:
        """See `Reads.run`; raises as `read` does."""
        assert cache == self.reads, "something else was read since"
        rows = torch.empty(len(wanted), self.d_vocab)
        for start in range(0, len(ids), BATCH):
            part = ids[start : start + BATCH]
            here = {index - start: row for row, index in enumerate(wanted) if start <= index < start + len(part)}
            self._decode(part, here.keys())
            for index, row in here.items():
                found = self.llama.llama_get_logits_ith(self.handle, index)
                rows[row] = torch.from_numpy(np.ctypeslib.as_array(found, (self.d_vocab,)))
        return rows

    def _decode(self, ids: Sequence[int], wanted: Any) -> None:
        batch = self.batch
        batch.n_tokens = len(ids)
        for i, token in enumerate(ids):
            batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.logits[i] = token, self.at + i, 1, i in wanted
            batch.seq_id[i][0] = 0
        code = self.llama.llama_decode(self.handle, batch)
        if code != 0:
            raise Refused(f"llama.cpp could not run {len(ids)} tokens behind {self.at} (code {code})")
        self.at += len(ids)


def _free(model: Model, context: Any, batch: Any) -> None:
    """Free what a reader has; holding the model keeps that alive until then."""
    model.llama.llama_batch_free(batch)
    model.llama.llama_free(context)


class Grammar:
    """A `Chooser` that takes only tokens with which the answer follows a grammar.

    Raises `Missing` if llama.cpp cannot read the grammar.
    """

    def __init__(self, sampler: Sampler, grammar: str, words: LlamaVocabulary) -> None:
        self.sampler, self.words, self.llama = sampler, words, words.llama
        start = self.llama.llama_sampler_init_grammar
        self.handle = start(words.model.vocabulary, grammar.encode(), b"root")
        if not self.handle:  # a pointer to nothing
            raise Missing("no grammar can be made of the JSON schema: llama.cpp does not read what came out")
        weakref.finalize(self, self.llama.llama_sampler_free, self.handle)
        self.begun = b""  # bytes of a character whose end is not there yet

    def choose(self, logits: Float[Tensor, "d_vocab"]) -> int:
        """See `Chooser.choose`. Raises `Missing` where the grammar leaves no token."""
        best = int(logits.argmax())
        if self.sampler.temperature > 0 or not self._takes([best])[0] or self._behind(best) is None:
            logits = torch.where(torch.from_numpy(self._takes(range(len(logits)))), logits, -torch.inf)
        while logits.max() > -torch.inf:
            token = self.sampler.choose(logits)
            if (behind := self._behind(token)) is not None:
                self.llama.llama_sampler_accept(self.handle, token)
                self.begun = behind
                return token
            logits = logits.index_fill(0, torch.tensor([token]), -torch.inf)
        raise Missing("the grammar of the JSON schema leaves no token")

    def _behind(self, token: int) -> bytes | None:
        """What a token leaves of an unfinished character; None for bytes that are no UTF-8, which llama.cpp takes."""
        if token in self.words.ends:
            return b""
        data = self.begun + self.words.bytes_of(token)
        try:
            _, size = codecs.utf_8_decode(data, "strict", False)
        except UnicodeDecodeError:
            return None
        return data[size:]

    def _takes(self, ids: Sequence[int]) -> "np.ndarray[Any, np.dtype[np.bool_]]":
        """Whether each of `ids` may come next."""
        llama = self.llama
        rows = np.zeros(len(ids), dtype=[("id", np.int32), ("logit", np.float32), ("p", np.float32)])
        rows["id"] = ids
        pointer = rows.ctypes.data_as(ctypes.POINTER(llama.llama_token_data))
        array = llama.llama_token_data_array(data=pointer, size=len(ids), selected=-1, sorted=False)
        llama.llama_sampler_apply(self.handle, ctypes.byref(array))
        takes: np.ndarray[Any, np.dtype[np.bool_]] = np.isfinite(rows["logit"])
        return takes
