"""Dictionary learning and its files."""

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.decomposition import sparse_encode

from neuroae.data import ImageSet, load_dataset
from neuroae.dictionary import learn_dictionary, load_dictionary, random_patches, save_dictionary
from neuroae.storage import load_tensors, save_tensors

QUICK = {"atoms": 24, "patch": 4, "regularization": 0.2, "iterations": 30, "batch_size": 16}


@pytest.fixture(scope="module")
def digits() -> ImageSet:
    return load_dataset("digits", "train")


def objective(atoms: np.ndarray, patches: np.ndarray) -> float:
    """Eq. 1, a patch."""
    codes = sparse_encode(patches, atoms, algorithm="lasso_cd", alpha=QUICK["regularization"])
    return float(
        (0.5 * ((patches - codes @ atoms) ** 2).sum(1) + QUICK["regularization"] * np.abs(codes).sum(1)).mean()
    )


def test_atoms_are_unit_vectors_of_the_asked_shape(digits: ImageSet) -> None:
    atoms = learn_dictionary(digits, **QUICK)
    assert atoms.dtype == torch.float32
    assert atoms.shape == (24, 1, 4, 4)
    torch.testing.assert_close(atoms.flatten(1).norm(dim=1), torch.ones(24))


def test_learning_lowers_the_objective_on_patches_it_has_not_seen(digits: ImageSet) -> None:
    patches = random_patches(load_dataset("digits", "test"), 4, 300, np.random.default_rng(0))
    short, long = (learn_dictionary(digits, **QUICK | {"iterations": count}) for count in (1, 60))
    before, after = (objective(atoms.flatten(1).double().numpy(), patches) for atoms in (short, long))
    assert after < 0.97 * before


def test_the_seed_decides(digits: ImageSet) -> None:
    first, second, other = (learn_dictionary(digits, **QUICK, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_colour_patches_are_cut_channel_by_channel() -> None:
    images = torch.randint(1, 256, (5, 3, 6, 7), dtype=torch.uint8)
    data = ImageSet("some", images, torch.zeros(5, dtype=torch.int64), torch.arange(5), ("a",))
    patches = random_patches(data, 2, 40, np.random.default_rng(0))
    every = images.unfold(2, 2, 1).unfold(3, 2, 1).permute(0, 2, 3, 1, 4, 5).reshape(-1, 12)
    known = {tuple(patch.tolist()) for patch in every}
    assert all(tuple(np.rint(patch * 255).astype(int).tolist()) in known for patch in patches)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"patch": 9}, "patch is 9, expected 1 to 8"),
        ({"patch": 0}, "patch is 0"),
        ({"atoms": 0}, "atoms is 0"),
        ({"iterations": 0}, "iterations is 0"),
        ({"batch_size": 0}, "batch_size is 0"),
    ],
)
def test_settings_out_of_range_are_refused(digits: ImageSet, settings: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        learn_dictionary(digits, **QUICK | settings)


def test_black_images_teach_nothing() -> None:
    black = torch.zeros(3, 1, 8, 8, dtype=torch.uint8)
    data = ImageSet("night", black, torch.zeros(3, dtype=torch.int64), torch.arange(3), ("a",))
    with pytest.raises(ValueError, match="night holds only black images"):
        learn_dictionary(data, **QUICK)


def test_a_saved_dictionary_comes_back(tmp_path: Path, atoms: torch.Tensor) -> None:
    path = tmp_path / "atoms.safetensors"
    save_dictionary(path, atoms, {"seed": 3})
    assert torch.equal(load_dictionary(path), atoms)
    assert load_tensors(path)[1] == {"seed": 3}


def test_the_published_dictionary_loads(shared_reference: Path) -> None:
    assert load_dictionary(shared_reference / "cifar10_dictionary.safetensors").shape == (500, 3, 4, 4)


def test_other_files_are_refused_by_name(tmp_path: Path, atoms: torch.Tensor) -> None:
    path = tmp_path / "file.safetensors"
    save_tensors(path, {"weights": atoms})
    with pytest.raises(ValueError, match=r"file\.safetensors holds weights, expected a tensor named atoms"):
        load_dictionary(path)
    save_tensors(path, {"atoms": 2 * atoms})
    with pytest.raises(ValueError, match=r"file\.safetensors does not hold a dictionary: atoms has l2 norms"):
        load_dictionary(path)
