"""References: what principal components leave unexplained, and how alike two dictionaries are.

pca_curve(rows, [1, 8, 64], test_rows)                  # what as many principal components leave unexplained
mmcs(one, other), matched_share(one, other)             # do two dictionaries hold the same directions?
mmcs_table(dictionaries)                                # every pair of several
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from saelens_n2g.bases.formats import Dictionary
from saelens_n2g.errors import InputError
from saelens_n2g.training.metrics import typical_limit
from saelens_n2g.training.rows import as_rows, chunks, statistics

BLOCK = 4096
"""Rows of a dictionary that are compared at a time: two blocks' cosines take 64 MiB."""
TABLE_FEATURES = 1024
"""Features gone through for a cell of `mmcs_table`: its error is then a thirtieth of their spread, at a fraction of the
time that all pairs of features take."""


@torch.no_grad()
def pca_curve(rows: Any, ks: Sequence[int], test_rows: Any = None, *, typical: bool = False) -> list[tuple[int, float]]:
    """(k, FVU) for each of `ks`: what is left of `test_rows` when only k principal components of `rows` are kept.

    rows, test_rows: raw activations, (rows, d) or `Rows`; None tests on `rows`. typical: test on the typical rows alone
    (`metrics.TYPICAL`, about the mean of `rows`). The components and the mean are those of all `rows`, the variance
    that errors are divided by is that of the rows tested on, about their own mean. With k numbers a row this is the
    best that any linear code of `rows` does (Eckart and Young 1936); a dictionary with L0 = k may choose other k
    directions for every row. Exact, by eigen-decomposition in float64.
    Raises `InputError` for a k outside [0, d], and for unusable rows as training does.
    """
    fit = as_rows(rows)
    test = fit if test_rows is None else as_rows(test_rows)
    mean = statistics(fit).mean
    if typical:
        limit = typical_limit(test, mean.cpu())
        near = [chunk[torch.linalg.vector_norm(chunk.cpu() - mean.cpu(), dim=1) <= limit] for chunk in chunks(test)]
        test = as_rows(torch.cat(near))
    known = statistics(test)
    d = len(mean)
    if len(known.mean) != d:
        raise InputError("test rows", f"width {d} as the fit rows", f"width {len(known.mean)}")
    for k in ks:
        if not 0 <= k <= d:
            raise InputError("number of principal components", f"0 to {d}", str(k))
    scatter = torch.zeros(d, d, dtype=torch.float64)
    for chunk in chunks(fit):
        centred = chunk.cpu().double() - mean.cpu()
        scatter.addmm_(centred.T, centred)
    axes = torch.linalg.eigh(scatter).eigenvectors.flip(1)
    along = torch.zeros(d, dtype=torch.float64)
    for chunk in chunks(test):
        along += ((chunk.cpu().double() - mean.cpu()) @ axes).square().sum(0)
    # Tail sums from the smallest up: a difference from the total would lose what little is left at large k.
    left = torch.cat([along.flip(0).cumsum(0).flip(0), along.new_zeros(1)])
    return [(k, left[k].item() / (known.mean_square * len(test))) for k in ks]


def _directions(dictionary: Dictionary) -> Float[Tensor, "n d"]:
    """Decoder rows at unit length in float32; a row of zeros stays one, with cosine 0 to everything."""
    return torch.nn.functional.normalize(dictionary.W_dec.detach().float(), dim=1)


def _smaller_first(one: Dictionary, other: Dictionary) -> tuple[Float[Tensor, "n d"], Float[Tensor, "m d"]]:
    if one.d_in != other.d_in:
        raise InputError("dictionaries to compare", f"equal d_in ({one.d_in})", str(other.d_in))
    if one.d_sae > other.d_sae:
        one, other = other, one
    a = _directions(one)
    return a, _directions(other).to(a.device)


@torch.no_grad()
def mmcs(one: Dictionary, other: Dictionary) -> float:
    """Mean over the smaller dictionary's features of the largest cosine to a feature of the other, in [-1, 1].

    Mean max cosine similarity: Sharkey et al. 2022 ("Taking features out of superposition with sparse
    autoencoders"), Cunningham et al. 2023. Two features may be closest to the same one (`matched_share` forbids it).
    Among dictionaries of equal size the features of `one` are gone through: swapping them may change the value.
    Never holds more than `BLOCK` x `BLOCK` cosines. Raises `InputError` if the widths differ.
    """
    return _mean_of_largest(*_smaller_first(one, other))


def _mean_of_largest(small: Float[Tensor, "n d"], large: Float[Tensor, "m d"]) -> float:
    total = 0.0
    for rows in small.split(BLOCK):
        best = torch.stack([(rows @ block.T).amax(1) for block in large.split(BLOCK)]).amax(0)
        total += best.clamp(-1, 1).sum(dtype=torch.float64).item()
    return total / len(small)


@torch.no_grad()
def mmcs_table(dictionaries: Sequence[Dictionary], *, features: int = TABLE_FEATURES) -> list[list[float]]:
    """`mmcs` of every pair, symmetric, 1 on the diagonal; of equal ones the earlier goes through its features.

    features: how many of the smaller dictionary's are gone through, evenly spaced, if it has more. Raises `InputError`
    if the widths differ.
    """
    n = len(dictionaries)
    table = [[1.0] * n for _ in range(n)]
    for i, one in enumerate(dictionaries):
        for j in range(i + 1, n):
            small, large = _smaller_first(one, dictionaries[j])
            places = torch.linspace(0, len(small) - 1, min(features, len(small)), dtype=torch.float64)
            table[i][j] = table[j][i] = _mean_of_largest(small[places.round().long()], large)
    return table


def chance_mmcs(features: int, d: int) -> float:
    """`mmcs` to be expected of a direction and a dictionary of `features` random ones in `d` dimensions.

    The mean of the largest of as many cosines, of which (1 + cos) / 2 has a beta distribution with both parameters
    (d - 1) / 2. Raises `InputError` for no feature or less than two dimensions.
    """
    from scipy.special import betainc

    if features < 1 or d < 2:
        raise InputError("random dictionary", "at least one feature and two dimensions", f"{features} and {d}")
    grid = torch.linspace(-1, 1, 20_001, dtype=torch.float64)
    below = torch.from_numpy(betainc((d - 1) / 2, (d - 1) / 2, ((1 + grid) / 2).numpy())) ** features
    return 1.0 - float(torch.trapezoid(below, grid))


@torch.no_grad()
def matched_share(one: Dictionary, other: Dictionary, at: float = 0.9) -> float:
    """Share of the smaller dictionary's features whose partner in the best matching has a cosine above `at`.

    Each feature has one partner of its own, such that the sum of cosines is largest (Hungarian matching, as in the
    code of Cunningham et al. 2023). Holds all n x m cosines, and time grows about as n^2 m: seconds at 4,096 features.
    Raises `InputError` if the widths differ.
    """
    from scipy.optimize import linear_sum_assignment

    small, large = _smaller_first(one, other)
    cosines = (small @ large.T).cpu().numpy()
    rows, columns = linear_sum_assignment(cosines, maximize=True)
    return float((cosines[rows, columns] > at).mean())
