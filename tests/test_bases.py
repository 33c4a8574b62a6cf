"""Bases: every one is checked against another way to say what its features are."""

import numpy as np
import pytest
import torch

from saelens_n2g.bases.base import AffineBasis, Basis
from saelens_n2g.bases.directions import ica_basis, pca_basis, random_basis
from saelens_n2g.bases.formats import Dictionary, SaeMetadata, save_saelens
from saelens_n2g.bases.neurons import NeuronBasis
from saelens_n2g.bases.registry import BASES, BasisInputs, basis_kind, build_basis
from saelens_n2g.bases.sae import sae_basis
from saelens_n2g.errors import ArtefactError, InputError
from saelens_n2g.sites import Site

SITE = Site(2, "resid_post")
WIDTH = 6


def activations(rows: int = 400, seed: int = 0) -> torch.Tensor:
    """Correlated rows with a mean far from the origin."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(WIDTH, WIDTH, generator=generator)
    return torch.randn(rows, WIDTH, generator=generator) @ mixing + torch.arange(WIDTH)


@pytest.fixture
def inputs(tmp_path):
    dictionary = Dictionary.from_tied(torch.eye(WIDTH), torch.full((WIDTH,), -0.1), torch.ones(WIDTH))
    save_saelens(tmp_path / "sae", dictionary, SaeMetadata("tiny", SITE.hook, 16, True))
    return BasisInputs(SITE, WIDTH, activations(), None, 3, tmp_path / "sae")


def test_the_registry_has_a_title_for_each_basis():
    titles = {name: kind.title for name, kind in BASES.items()}
    assert titles == {
        "neurons": "MLP neurons",
        "sae": "SAE features",
        "random": "Random directions",
        "pca": "PCA directions",
        "ica": "ICA directions",
    }


@pytest.mark.parametrize("name", ["neurons", "sae", "random", "pca", "ica"])
def test_every_basis_is_nonnegative_and_picks_the_same_columns(name, inputs):
    basis = build_basis(name, inputs)
    x = activations(24, seed=1).reshape(2, 12, WIDTH)
    features = basis.encode(x)
    assert isinstance(basis, Basis)
    assert basis.name == name
    assert basis.site == SITE
    assert basis.signs
    assert features.shape == (2, 12, basis.n_features)
    assert features.min() == 0 < features.max()
    columns = torch.tensor([4, 0, 5, 4])
    torch.testing.assert_close(basis.encode_features(x, columns), features[..., columns])
    torch.testing.assert_close(basis.to("cpu").encode(x), features, rtol=0, atol=0)


@pytest.mark.parametrize("name", ["random", "pca", "ica"])
def test_directions_repeat_bit_for_bit(name, inputs):
    first, second = build_basis(name, inputs), build_basis(name, inputs)
    assert torch.equal(first.weight, second.weight)


def test_neurons_rectify_or_split():
    x = activations(50)
    whole, split = NeuronBasis(SITE, WIDTH), NeuronBasis(SITE, WIDTH, split=True)
    assert torch.equal(whole.encode(x), x.clamp(min=0))
    features = split.encode(x)
    assert split.n_features == features.shape[1] == 2 * WIDTH
    assert torch.equal(features[:, :WIDTH] - features[:, WIDTH:], x)
    columns = torch.tensor([0, WIDTH, WIDTH + 2])
    assert torch.equal(split.encode_features(x, columns), features[:, columns])
    assert "6 + i" in split.signs


def test_random_directions_are_unit_and_seeded():
    mean = torch.ones(WIDTH)
    basis = random_basis(SITE, WIDTH, 40, mean, seed=1)
    torch.testing.assert_close(basis.weight.norm(dim=1), torch.ones(40))
    assert not torch.equal(basis.weight, random_basis(SITE, WIDTH, 40, mean, seed=2).weight)
    assert torch.equal(basis.encode(mean), torch.zeros(40))
    # No side of the sphere is preferred: the mean of many unit vectors is near the origin.
    assert random_basis(SITE, WIDTH, 20_000, mean).weight.mean(0).norm() < 0.05


def test_pca_agrees_with_scikit_learn():
    from sklearn.decomposition import PCA

    x = activations()
    basis = pca_basis(SITE, x, x.mean(0))
    peer = PCA().fit(x.double().numpy())
    overlap = np.abs(np.sum(basis.weight[::2].numpy() * peer.components_, axis=1))
    np.testing.assert_allclose(overlap, 1, atol=1e-5)
    assert torch.equal(basis.weight[1::2], -basis.weight[::2])
    folded = basis.encode(x)[:, ::2] + basis.encode(x)[:, 1::2]
    np.testing.assert_allclose(np.abs(peer.transform(x.double().numpy())), folded, atol=1e-4)
    assert basis.facts["variance_share_first"] == pytest.approx(peer.explained_variance_ratio_[0])


def test_ica_finds_independent_sources():
    generator = torch.Generator().manual_seed(0)
    sources = torch.rand(3000, WIDTH, generator=generator) - 0.5
    mixing = torch.randn(WIDTH, WIDTH, generator=generator)
    x = sources @ mixing + 5
    basis = ica_basis(SITE, x, x.mean(0), seed=0, max_iter=200)
    recovered = (x - x.mean(0)) @ basis.weight[::2].T
    correlation = torch.corrcoef(torch.cat([recovered, sources], 1).T)[:WIDTH, WIDTH:].abs()
    assert basis.facts["converged"] is True
    assert correlation.max(1).values.min() > 0.98
    assert correlation.argmax(1).unique().numel() == WIDTH
    torch.testing.assert_close(recovered.std(0, correction=0), torch.ones(WIDTH), atol=1e-3, rtol=0)


def test_ica_says_when_it_did_not_converge():
    x = activations(2000)
    basis = ica_basis(SITE, x, x.mean(0), max_iter=1, tol=1e-12, max_rows=500)
    assert basis.facts["converged"] is False
    assert basis.facts["iterations"] == 1
    assert basis.facts["rows"] == 500


def test_ica_seeks_no_more_components_than_the_data_have():
    x = activations(1000)
    x[:, 5] = x[:, 0]
    basis = ica_basis(SITE, x, x.mean(0))
    assert basis.facts["components"] == WIDTH - 1
    assert basis.n_features == 2 * (WIDTH - 1)
    assert torch.isfinite(basis.weight).all()


def test_a_tied_dictionary_shares_its_matrix_and_decodes():
    generator = torch.Generator().manual_seed(0)
    weight = torch.nn.functional.normalize(torch.randn(9, WIDTH, generator=generator), dim=1)
    bias, mean = torch.randn(9, generator=generator), torch.randn(WIDTH, generator=generator)
    basis = sae_basis(SITE, Dictionary.from_tied(weight, bias, mean))
    x = activations(30)
    expected = torch.relu((x - mean) @ weight.T + bias)
    assert basis.decoder is basis.weight
    torch.testing.assert_close(basis.encode(x), expected)
    torch.testing.assert_close(basis.decode(expected), expected @ weight + mean)


def test_an_untied_dictionary_that_keeps_its_input():
    generator = torch.Generator().manual_seed(0)
    w_enc, w_dec = torch.randn(WIDTH, 9, generator=generator), torch.randn(9, WIDTH, generator=generator)
    dictionary = Dictionary(w_enc, torch.zeros(9), w_dec, torch.ones(WIDTH), subtracts_b_dec=False)
    basis, x = sae_basis(SITE, dictionary), activations(30)
    torch.testing.assert_close(basis.encode(x), torch.relu(x @ w_enc))
    torch.testing.assert_close(basis.decode(basis.encode(x)), torch.relu(x @ w_enc) @ w_dec + 1)
    torch.testing.assert_close(basis.encode(x), dictionary.encode(x))


def test_what_is_missing_or_does_not_fit_is_named(inputs):
    with pytest.raises(InputError, match=r"basis 'fourier'.*one of ica, neurons"):
        basis_kind("fourier")
    with pytest.raises(InputError, match="activations to fit to"):
        build_basis("pca", BasisInputs(SITE, WIDTH))
    with pytest.raises(InputError, match="folder of a trained dictionary"):
        build_basis("sae", BasisInputs(SITE, WIDTH))
    with pytest.raises(InputError, match=r"width 7.*shape \(400, 6\)"):
        BasisInputs(SITE, 7, activations())
    with pytest.raises(InputError, match="more than 6 rows"):
        build_basis("ica", BasisInputs(SITE, WIDTH, activations(5)))
    with pytest.raises(ArtefactError, match="d_in 7"):
        build_basis("sae", BasisInputs(SITE, 7, folder=inputs.folder))
    with pytest.raises(InputError, match=r"hook blocks\.0\.hook_resid_post"):
        build_basis("sae", BasisInputs(Site(0, "resid_post"), WIDTH, folder=inputs.folder))
    # TypeError where shapes are checked at run time, before the basis itself gets to look.
    with pytest.raises((InputError, TypeError), match="bias"):
        AffineBasis("x", SITE, "", torch.zeros(2, WIDTH), torch.zeros(3), torch.zeros(WIDTH))
