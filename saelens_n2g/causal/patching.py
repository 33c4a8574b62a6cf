"""Counterfactual patching by features: how many of a basis's features must change for a model to change its answer
(Cunningham et al. 2023, section 4).

    with patching(subject, task, site, codes_of(basis)) as problem:
        problem.kl(problem.all())                                    # every feature swapped
        problem.measure(problem.of([3, 17])).kls                     # two of them, prompt by prompt

At every position of a prompt, x' = x + sum over f in F of (c'_f - c_f) d_f: the features F take the values c' that they
have in the counterfactual text, d_f being their directions. What the basis does not rebuild stays as it is. The measure
is KL(patched || counterfactual) of the last token's distribution, averaged over prompts. Only features whose value
differs somewhere can do anything, and only those are looked at. Which sets to look at: `searches.py`.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from saelens_n2g.bases.base import AffineBasis
from saelens_n2g.bases.sae import SaeBasis
from saelens_n2g.causal.ioi import IoiTask
from saelens_n2g.errors import InputError
from saelens_n2g.sites import Site
from saelens_n2g.subject import Subject


class Codes(NamedTuple):
    """What patching needs of a basis."""

    name: str
    encode: Callable[[Float[Tensor, "*batch d"]], Float[Tensor, "*batch n"]]
    """Features of activations; of any sign."""
    directions: Float[Tensor, "n d"]
    """What 1 of each feature adds to the activation."""


def codes_of(basis: AffineBasis, name: str | None = None) -> Codes:
    """Non-negative features as they are: a dictionary, or directions (for principal components "non-negative PCA").

    Raises `InputError` for directions that are not of length 1, such as independent components: there what is read off
    an activation is not what is added to it.
    """
    if isinstance(basis, SaeBasis):
        return Codes(name or basis.name, basis.encode, basis.decoder)
    length = basis.weight.norm(dim=-1)
    if not torch.allclose(length, torch.ones_like(length), atol=1e-4):
        found = f"lengths {float(length.min()):.4g} to {float(length.max()):.4g}"
        raise InputError(f"basis {basis.name!r} to patch with", "directions of length 1", found)
    return Codes(name or basis.name, basis.encode, basis.weight)


def signed_pairs(basis: AffineBasis, name: str | None = None) -> Codes:
    """Pairs of units +v, -v as one signed feature: principal components as the rotation that they are."""
    rows = basis.weight[0::2]
    if not torch.equal(basis.weight[1::2], -rows) or bool(basis.bias.any()):
        raise InputError(f"basis {basis.name!r}", "pairs of opposite directions without bias", "others")
    return Codes(name or basis.name, lambda x: (x - basis.centre) @ rows.T, rows)


class Measured(NamedTuple):
    """What a set of swapped features does."""

    kls: tuple[float, ...]
    """Of every prompt, in nats."""
    edit: float
    """Mean over prompts and positions (BOS and padding left out) of the norm of x' - x."""

    @property
    def kl(self) -> float:
        """Mean over prompts, in nats."""
        return math.fsum(self.kls) / len(self.kls)


@dataclass(eq=False)
class Patching:
    """One task at one site in one basis. Made by `patching`, within whose block it can run the model."""

    name: str
    features: Int[Tensor, "m"]
    """Features whose value differs between the texts of a prompt somewhere; sets of them are masks over these."""
    n_features: int
    """Of the whole basis."""
    runs: int = 0
    """Forward passes so far."""
    _x: Tensor = field(default_factory=lambda: torch.empty(0), repr=False)
    _delta: Tensor = field(default_factory=lambda: torch.empty(0), repr=False)
    _directions: Tensor = field(default_factory=lambda: torch.empty(0), repr=False)
    _target: Tensor = field(default_factory=lambda: torch.empty(0), repr=False)
    _scored: Tensor = field(default_factory=lambda: torch.empty(0), repr=False)
    _run: Callable[[Tensor], Tensor] = field(default=lambda x: x, repr=False)

    def all(self) -> Bool[Tensor, "m"]:
        """Every feature."""
        return torch.ones(len(self.features), dtype=torch.bool)

    def none(self) -> Bool[Tensor, "m"]:
        """No feature: the plain run."""
        return ~self.all()

    def of(self, features: Iterable[int]) -> Bool[Tensor, "m"]:
        """Those of these features, by their numbers in the basis, that differ here."""
        return torch.isin(self.features, torch.tensor(list(features), dtype=torch.long))

    def measure(self, which: Bool[Tensor, "m"]) -> Measured:
        """Swap these features."""
        at = which.to(self._delta.device)
        edit = self._delta[..., at] @ self._directions[at]
        with torch.inference_mode():
            found = self._kl(self._run(self._x + edit)).tolist()
        self.runs += 1
        return Measured(tuple(found), float(edit.norm(dim=-1)[self._scored].mean()))

    @cached_property
    def nothing(self) -> Measured:
        """No feature swapped; measured once."""
        return self.measure(self.none())

    @cached_property
    def everything(self) -> Measured:
        """Every feature swapped; measured once."""
        return self.measure(self.all())

    def kl(self, which: Bool[Tensor, "m"]) -> float:
        """The mean over prompts alone."""
        return self.measure(which).kl

    @cached_property
    def effects(self) -> Float[Tensor, "m"]:
        """First-order change of the KL when each feature is swapped, negative where that lowers it. The gradient is
        taken where half of the whole edit is made: at either end it says little about the other. One forward and one
        backward pass, once."""
        with torch.enable_grad():
            x = (self._x + 0.5 * (self._delta @ self._directions)).clone().requires_grad_()
            loss = self._kl(self._run(x)).mean()
            (gradient,) = torch.autograd.grad(loss, x)
        self.runs += 1
        return (self._delta * (gradient @ self._directions.T)).sum((0, 1)).cpu()

    def _kl(self, logits: Float[Tensor, "prompts vocab"]) -> Float[Tensor, "prompts"]:
        found = logits.log_softmax(-1)
        return (found.exp() * (found - self._target)).sum(-1)


@contextmanager
def patching(subject: Subject, task: IoiTask, site: Site, codes: Codes) -> Iterator[Patching]:
    """The problem of a task at a residual site. Raises `InputError` as `Subject.behind` does, if the basis has another
    width, or if no feature differs between the texts."""
    x, other = (subject.activations(ids, [site])[site].clone() for ids in (task.ids, task.counterfactual_ids))
    directions = codes.directions.to(x.device, torch.float32)
    if directions.shape[1] != x.shape[-1]:
        raise InputError(f"basis {codes.name!r} at {site}", f"width {x.shape[-1]}", f"width {directions.shape[1]}")
    scored = task.mask()
    if subject.bos_id is not None:
        scored[:, 0] = False
    delta = (codes.encode(other) - codes.encode(x)) * scored[..., None].to(x.device)
    features = torch.nonzero(delta.abs().amax((0, 1)) > 0).squeeze(1)
    if len(features) == 0:
        raise InputError(f"basis {codes.name!r} at {site}", "a feature that differs between the texts", "none")
    with subject.behind(task.ids, site, task.last) as run:
        with torch.inference_mode():
            target = run(other).log_softmax(-1).clone()
        yield Patching(
            codes.name,
            features.cpu(),
            len(directions),
            _x=x,
            _delta=delta[..., features].clone(),
            _directions=directions[features],
            _target=target,
            _scored=scored.to(x.device),
            _run=run,
        )
