"""Site: a place in a language model where activations are read, and the TransformerLens hook it stands for."""

import re
from dataclasses import dataclass
from typing import Literal, get_args

from saelens_n2g.errors import InputError

SiteKind = Literal["resid_pre", "resid_mid", "resid_post", "mlp_post", "mlp_out", "attn_out"]
_HOOKS: dict[str, str] = {
    "resid_pre": "hook_resid_pre",
    "resid_mid": "hook_resid_mid",
    "resid_post": "hook_resid_post",
    "mlp_post": "mlp.hook_post",
    "mlp_out": "hook_mlp_out",
    "attn_out": "hook_attn_out",
}


@dataclass(frozen=True, order=True)
class Site:
    """One place in the model, e.g. `Site(3, "mlp_post")`: the neurons of layer 3's MLP.

    `mlp_post` is the MLP's hidden vector after the nonlinearity and, in gated MLPs, after the gate: the input of
    the down projection. The residual kinds are before the block, between attention and MLP, and after the block.
    """

    layer: int
    """Block index, from 0."""
    kind: SiteKind
    """Which vector of the block."""

    def __post_init__(self) -> None:
        if self.kind not in get_args(SiteKind):
            raise InputError(f"site kind {self.kind!r}", f"one of {', '.join(get_args(SiteKind))}", repr(self.kind))
        if self.layer < 0:
            raise InputError("site layer", "an integer >= 0", str(self.layer))

    @property
    def hook(self) -> str:
        """The hook name in TransformerLens, e.g. `blocks.3.mlp.hook_post`."""
        return f"blocks.{self.layer}.{_HOOKS[self.kind]}"

    def __str__(self) -> str:
        return f"{self.layer}.{self.kind}"

    @classmethod
    def parse(cls, text: str) -> "Site":
        """Read `3.mlp_post` or the hook name `blocks.3.mlp.hook_post`. Raises `InputError` otherwise."""
        if match := re.fullmatch(r"(\d+)\.(\w+)", text):
            return cls(int(match[1]), match[2])  # type: ignore[arg-type]  # checked in __post_init__
        if match := re.fullmatch(r"blocks\.(\d+)\.(.+)", text):
            for kind, hook in _HOOKS.items():
                if hook == match[2]:
                    return cls(int(match[1]), kind)  # type: ignore[arg-type]  # a key of _HOOKS
        raise InputError(f"site {text!r}", "LAYER.KIND such as 3.mlp_post", repr(text))
