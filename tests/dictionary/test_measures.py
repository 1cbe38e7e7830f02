"""Measures of a dictionary, each against another way to compute it."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import sem
from sklearn.decomposition import sparse_encode
from torch import Tensor

from dictionaries import unit_atoms
from neuroae import SparseEncoder, resnet32
from neuroae.dictionary.measures import Mean, activations, correlations, l1_norms, lower_bound, near_copies, sparse_fit

SEEDS = st.integers(0, 2**32 - 1)


def objective(patches: np.ndarray, codes: np.ndarray, atoms: np.ndarray, regularization: float) -> np.ndarray:
    """Returns the terms of eq. 1 for any codes, (K,)."""
    squares = [0.5 * sum((patch - code @ atoms) ** 2) for patch, code in zip(patches, codes, strict=True)]
    return np.array(squares) + regularization * np.array([sum(abs(code)) for code in codes])


@given(seed=SEEDS, side=st.integers(1, 3), regularization=st.floats(0.01, 2))
def test_orthonormal_atoms_shrink_projections(seed: int, side: int, regularization: float) -> None:
    generator = np.random.default_rng(seed)
    atoms = np.linalg.qr(generator.normal(size=(side**2, side**2)))[0]
    patches = generator.uniform(size=(5, side**2))
    projections = patches @ atoms.T
    codes = np.sign(projections) * np.maximum(np.abs(projections) - regularization, 0)
    actual = sparse_fit(torch.from_numpy(atoms).reshape(-1, 1, side, side), patches, regularization)
    np.testing.assert_allclose(actual.objective, objective(patches, codes, atoms, regularization), rtol=1e-9)
    assert actual.nonzeros.tolist() == np.count_nonzero(codes, 1).tolist()
    assert actual.uses.tolist() == np.count_nonzero(codes, 0).tolist()


@pytest.mark.parametrize("regularization", [0.1, 1.0])
def test_overcomplete_codes_are_those_of_coordinate_descent(regularization: float) -> None:
    atoms = unit_atoms(60, 3, 2)
    patches = np.random.default_rng(0).uniform(size=(40, 12))
    actual = sparse_fit(atoms, patches, regularization)
    dictionary = atoms.flatten(1).double().numpy()
    codes = sparse_encode(patches, dictionary, algorithm="lasso_cd", alpha=regularization, max_iter=100_000)
    np.testing.assert_allclose(actual.objective, objective(patches, codes, dictionary, regularization), rtol=1e-5)
    assert actual.nonzeros.mean() == pytest.approx(np.count_nonzero(codes, 1).mean(), rel=0.1)
    assert bool((actual.gap > -1e-12).all())
    assert float(actual.gap.max()) < 1e-9


def test_many_patches_are_fitted_in_parts() -> None:
    atoms, patches = unit_atoms(9, 1, 2), np.random.default_rng(0).uniform(size=(1201, 4))
    at_once = sparse_fit(atoms, patches, 0.5)
    ends = [sparse_fit(atoms, part, 0.5) for part in (patches[:700], patches[700:])]
    np.testing.assert_allclose(at_once.objective, np.concatenate([end.objective for end in ends]))
    np.testing.assert_allclose(at_once.gap, np.concatenate([end.gap for end in ends]), atol=1e-12)
    assert at_once.nonzeros.tolist() == [*ends[0].nonzeros, *ends[1].nonzeros]
    assert at_once.uses.tolist() == (ends[0].uses + ends[1].uses).tolist()


@given(seed=SEEDS, regularization=st.floats(0.05, 2), sparsity=st.floats(0, 1))
def test_no_code_is_below_the_bound_of_another(seed: int, regularization: float, sparsity: float) -> None:
    generator = np.random.default_rng(seed)
    atoms = generator.normal(size=(20, 6))
    atoms /= np.linalg.norm(atoms, axis=1, keepdims=True)
    patches = generator.uniform(size=(4, 6))
    codes = generator.normal(size=(2, 4, 20)) * (generator.uniform(size=(2, 4, 20)) < sparsity)
    bound = lower_bound(patches, patches - codes[0] @ atoms, atoms, regularization)
    assert bool((bound <= objective(patches, codes[1], atoms, regularization) + 1e-12).all())
    best = sparse_encode(patches, atoms, algorithm="lasso_lars", alpha=regularization)
    assert bool((bound <= objective(patches, best, atoms, regularization) + 1e-9).all())


@given(seed=SEEDS, channels=st.sampled_from([1, 3]), side=st.integers(1, 4))
def test_no_patch_is_coded_where_lambda_is_its_largest_norm(seed: int, channels: int, side: int) -> None:
    generator = np.random.default_rng(seed)
    patches = generator.uniform(0.9, 1, size=(6, channels * side**2))
    atoms = torch.nn.functional.normalize(torch.from_numpy(patches[:3])).reshape(3, channels, side, side)
    assert not sparse_fit(atoms, patches, math.sqrt(channels) * side).nonzeros.any()
    assert sparse_fit(atoms, patches, 0.8 * math.sqrt(channels) * side).nonzeros.all()


def test_the_error_of_independent_patches_is_the_usual_one() -> None:
    values = np.random.default_rng(0).normal(3, 2, 50)
    actual = Mean.of(values, np.random.default_rng(1).permutation(50))
    assert actual.value == pytest.approx(values.mean())
    assert actual.error == pytest.approx(sem(values))


def test_the_error_of_patches_in_equal_numbers_is_that_of_their_images_means() -> None:
    values = np.random.default_rng(0).normal(size=(12, 5)) + 3 * np.arange(12)[:, None]
    actual = Mean.of(values.flatten(), np.repeat(np.arange(12) * 7, 5))
    assert actual.error == pytest.approx(sem(values.mean(1)))
    assert actual.error > 2 * sem(values.flatten())


def test_one_image_has_no_error() -> None:
    with pytest.raises(ValueError, match="image holds 1 image, expected at least 2"):
        Mean.of(np.arange(4.0), np.full(4, 9))


def test_correlations_are_projections_over_squared_norms() -> None:
    atoms, patches = torch.randn(7, 3, 2, 2), np.random.default_rng(0).uniform(size=(4, 12))
    actual = correlations(atoms, patches)
    assert actual.shape == (4, 7)
    for row, patch in zip(actual, patches, strict=True):
        for rho, atom in zip(row, atoms.double().reshape(7, 12).numpy(), strict=True):
            assert rho == pytest.approx(sum(patch * atom) / sum(atom**2))


@pytest.mark.parametrize(("channels", "patch"), [(3, 4), (1, 3), (3, 5)])
def test_activations_are_those_of_the_classifiers_first_layer(channels: int, patch: int) -> None:
    model = resnet32(4, channels, (0.4, 0.5, 0.6)[:channels], (0.2, 0.3, 0.25)[:channels]).eval()
    images = torch.rand(2, channels, 12, 8)
    outputs: list[Tensor] = []
    model.conv1.register_forward_hook(lambda _module, _inputs, output: outputs.append(output.detach()))
    model(images)
    top, left = 2, 3
    patches = images[:, :, top : top + patch, left : left + patch].flatten(1).double().numpy()
    # conv1 pads by one: its output at (y, x) belongs to the 3 x 3 pixels from (y - 1, x - 1) on.
    inside = outputs[0][:, :, top + 1 : top + patch - 1, left + 1 : left + patch - 1]
    squares = model.conv1.weight.detach().square().sum((1, 2, 3)).reshape(-1, 1, 1)
    expected = (inside / squares).flatten(1).double().numpy()
    np.testing.assert_allclose(activations(model, patches), expected, rtol=1e-4, atol=1e-4)
    assert expected.shape == (2, 16 * (patch - 2) ** 2)


@pytest.mark.parametrize("numbers", [pytest.param(12, id="2x2"), pytest.param(50, id="not-square")])
def test_patches_that_no_filter_fits_into_are_refused(numbers: int) -> None:
    with pytest.raises(ValueError, match=f"patches are {numbers} numbers each, expected 3 x n x n with n at least 3"):
        activations(resnet32(), np.zeros((2, numbers)))


def test_l1_norms_are_the_encoders(atoms: Tensor) -> None:
    torch.testing.assert_close(l1_norms(atoms).float(), SparseEncoder(atoms, top_t=5).norms)


def test_copies_are_counted_up_to_sign_and_noise(atoms: Tensor) -> None:
    assert near_copies(atoms) == 0
    repeated = atoms.clone()
    repeated[4], repeated[9], repeated[7] = -atoms[2], atoms[2] + 1e-3 * torch.randn(3, 4, 4), atoms[3]
    assert near_copies(repeated) == 5
    assert near_copies(repeated, cosine=1.1) == 0
