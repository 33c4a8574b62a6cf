"""Baseline directions: random, principal and independent components (Cunningham et al. 2023, section 3).

All are centred with the mean of the data, and none has a bias: unit i fires where the centred activation has a
positive product with direction i. Principal and independent components have no sign of their own, so each becomes
two units next to each other, +v and -v. Fits run on the CPU.
"""

import warnings
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from saelens_n2g.bases.base import AffineBasis
from saelens_n2g.bases.registry import BasisInputs, register
from saelens_n2g.errors import InputError
from saelens_n2g.sites import Site

PAIRS = "split: unit 2i is component i where positive, unit 2i + 1 the same component where negative"
RANK_TOLERANCE = 1e-10
"""Components with less than this share of the largest component's variance are noise of the arithmetic."""


def _directions(name: str, site: Site, signs: str, weight: Tensor, mean: Tensor, facts: dict[str, Any]) -> AffineBasis:
    """Directions (n, d) in any precision -> a float32 basis without bias."""
    bias = torch.zeros(weight.shape[0], device=mean.device)
    weight = weight.to(mean.device, torch.float32).contiguous()
    return AffineBasis(name, site, signs, weight, bias, mean.float(), facts)


def _pairs(rows: Float[Tensor, "n d"]) -> Float[Tensor, "m d"]:
    """+v_0, -v_0, +v_1, -v_1, ... ; m = 2n."""
    return torch.stack([rows, -rows], dim=1).flatten(0, 1)


def _centred(basis: str, activations: Float[Tensor, "rows d"], mean: Float[Tensor, "d"]) -> Float[Tensor, "rows d"]:
    """Centred rows in float64 on the CPU. Raises `InputError` where there are too few to tell d components apart."""
    count, d = activations.shape
    if count <= d:
        raise InputError(f"activations for {basis}", f"more than {d} rows of width {d}", f"{count} rows")
    return activations.to("cpu", torch.float64) - mean.to("cpu", torch.float64)


def random_basis(site: Site, d: int, n: int, mean: Float[Tensor, "d"], seed: int = 0) -> AffineBasis:
    """`n` directions drawn uniformly from the unit sphere (Gaussian, then normalised), centred on `mean`."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.nn.functional.normalize(torch.randn(n, d, generator=generator, dtype=torch.float64), dim=1)
    signs = "rectified: a negative projection counts as 0"
    return _directions("random", site, signs, weight, mean, {"directions": n, "seed": seed})


def principal_axes(centred: Float[Tensor, "rows d"]) -> tuple[Float[Tensor, "d d"], Float[Tensor, "d"]]:
    """Unit principal axes as rows and the variance along each, largest first, in the dtype of `centred`.

    The sign of an axis is arbitrary; its largest coordinate is made positive, so that equal data give equal axes.
    """
    variances, columns = torch.linalg.eigh(centred.T @ centred / len(centred))
    axes, variances = columns.T.flip(0), variances.flip(0).clamp(min=0)
    largest = axes.gather(1, axes.abs().argmax(1, keepdim=True))
    return axes * torch.sign(largest), variances


def pca_basis(site: Site, activations: Float[Tensor, "rows d"], mean: Float[Tensor, "d"]) -> AffineBasis:
    """All d principal directions of the activations about `mean`, most variance first, each as a pair: 2d units.

    Raises `InputError` if there are not more rows than dimensions.
    """
    axes, variances = principal_axes(_centred("pca", activations, mean))
    shares = variances / variances.sum()
    facts = {
        "rows": len(activations),
        "components": len(axes),
        "variance_share_first": shares[0].item(),
        "components_for_90_percent_of_variance": int((shares.cumsum(0) < 0.9).sum()) + 1,
    }
    return _directions("pca", site, PAIRS, _pairs(axes), mean, facts)


def ica_basis(
    site: Site,
    activations: Float[Tensor, "rows d"],
    mean: Float[Tensor, "d"],
    *,
    seed: int = 0,
    max_rows: int = 20_000,
    max_iter: int = 80,
    tol: float = 1e-3,
    dtype: torch.dtype = torch.float32,
) -> AffineBasis:
    """Independent components by scikit-learn's FastICA (log cosh, parallel), each row of the unmixing as a pair.

    A source has unit variance over the rows fitted to. Of more than `max_rows` rows a seeded choice is used. Where
    the data have fewer dimensions than the width (by `RANK_TOLERANCE`), only so many components are sought.
    FastICA often stops at `max_iter` short of `tol` on real activations; `facts["converged"]` says whether it did.
    Raises `InputError` if there are not more rows than dimensions.
    """
    if len(activations) > max_rows:
        chosen = torch.randperm(len(activations), generator=torch.Generator().manual_seed(seed))[:max_rows]
        activations = activations[chosen.sort().values.to(activations.device)]
    centred = _centred("ica", activations, mean)
    axes, variances = principal_axes(centred)
    rank = int((variances > RANK_TOLERANCE * variances[0]).sum())
    # Whitened here and not by FastICA, whose `whiten_solver="eigh"` trips over data that are already decorrelated or
    # of lower rank, and whose "svd" is slow. Sources of unit variance come out either way.
    whitening = axes[:rank] / variances[:rank, None].sqrt()
    rotation, iterations, converged = _fast_ica((centred @ whitening.T).to(dtype), seed, max_iter, tol)
    facts = {
        "rows": len(activations),
        "components": rank,
        "iterations": iterations,
        "converged": converged,
        "max_iter": max_iter,
        "tol": tol,
        "dtype": str(dtype).removeprefix("torch."),
        "seed": seed,
    }
    return _directions("ica", site, PAIRS, _pairs(rotation.double() @ whitening), mean, facts)


def _fast_ica(
    white: Float[Tensor, "rows k"], seed: int, max_iter: int, tol: float
) -> tuple[Float[Tensor, "k k"], int, bool]:
    """The rotation of whitened rows to sources, iterations used, and whether it converged.

    FastICA says that it did not by a warning alone. That warning becomes a value; any other is passed on.
    """
    from sklearn.decomposition import FastICA
    from sklearn.exceptions import ConvergenceWarning

    ica = FastICA(whiten=False, random_state=seed, max_iter=max_iter, tol=tol)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        ica.fit(white.numpy())
    for warning in caught:
        if not issubclass(warning.category, ConvergenceWarning):
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    converged = not any(issubclass(w.category, ConvergenceWarning) for w in caught)
    return torch.from_numpy(ica.components_), int(ica.n_iter_), converged


@register("random", "Random directions")
def build_random(inputs: BasisInputs) -> AffineBasis:
    """As many directions as the site is wide."""
    return random_basis(inputs.site, inputs.width, inputs.width, inputs.centre("random"), inputs.seed)


@register("pca", "PCA directions")
def build_pca(inputs: BasisInputs) -> AffineBasis:
    """Needs `activations`."""
    return pca_basis(inputs.site, inputs.rows("pca"), inputs.centre("pca"))


@register("ica", "ICA directions")
def build_ica(inputs: BasisInputs) -> AffineBasis:
    """Needs `activations`."""
    return ica_basis(inputs.site, inputs.rows("ica"), inputs.centre("ica"), seed=inputs.seed)
