"""Dictionary learning and its files."""

import math
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.stats import chisquare

from neuroae import derive_seed
from neuroae.data import ImageSet, load_dataset
from neuroae.dictionary import learn_dictionary, load_dictionary, random_patches, save_dictionary
from neuroae.dictionary.learning import normalize_rows
from neuroae.dictionary.measures import near_copies, sparse_fit
from neuroae.kernels.ops import MAX_ATOMS
from neuroae.utils.files import load_tensors, save_tensors

QUICK = {"num_atoms": 24, "patch": 4, "regularization": 0.2, "iterations": 30, "batch_size": 16}


@pytest.fixture(scope="module")
def digits() -> ImageSet:
    return load_dataset("digits", "train")


def image_set(images: torch.Tensor, name: str = "some") -> ImageSet:
    return ImageSet(name, images, torch.zeros(len(images), dtype=torch.int64), torch.arange(len(images)), ("a",))


def colour_images(count: int, height: int, width: int) -> ImageSet:
    """Returns noise without black pixels."""
    return image_set(torch.randint(1, 256, (count, 3, height, width), dtype=torch.uint8))


def test_atoms_are_unit_vectors_of_the_asked_shape(digits: ImageSet) -> None:
    atoms = learn_dictionary(digits, **QUICK)
    assert atoms.dtype == torch.float32
    assert atoms.shape == (24, 1, 4, 4)
    torch.testing.assert_close(atoms.flatten(1).norm(dim=1), torch.ones(24))


def test_learning_lowers_the_objective_on_patches_it_has_not_seen(digits: ImageSet) -> None:
    patches = random_patches(load_dataset("digits", "test"), 4, 300, np.random.default_rng(0)).values
    short, long = (learn_dictionary(digits, **QUICK | {"iterations": count}) for count in (1, 60))
    before, after = (sparse_fit(atoms, patches, QUICK["regularization"]).objective.mean() for atoms in (short, long))
    assert after < 0.97 * before


def smooth_images(brightness: float) -> ImageSet:
    coarse, fine = torch.rand(50, 3, 4, 4), torch.rand(50, 3, 16, 16)
    images = 0.8 * F.interpolate(coarse, size=(16, 16), mode="bilinear") + 0.2 * fine
    return image_set((255 * brightness * images).byte())


def test_dark_images_give_copies_and_a_warning_with_their_number() -> None:
    settings = {"num_atoms": 48, "iterations": 100}
    with pytest.warns(UserWarning, match="Lower the regularization") as caught:
        atoms = learn_dictionary(smooth_images(0.12), **settings)
    rank = torch.linalg.matrix_rank(atoms.flatten(1), rtol=0.01)
    assert rank < 10
    assert f"{near_copies(atoms)} of 48 atoms are near copies of others, and their rank is {rank} of 48" in str(
        caught[0].message
    )


@pytest.mark.filterwarnings("error")
def test_a_dictionary_of_bright_images_is_no_warning() -> None:
    learn_dictionary(smooth_images(1.0), num_atoms=48, iterations=100)


def test_one_bright_pixel_among_black_images_is_reached() -> None:
    """Random drawing would take a million draws for each patch with the only bright pixel."""
    images = torch.zeros(2000, 1, 32, 32, dtype=torch.uint8)
    images[1234, 0, 5, 31] = 9
    started = time.monotonic()
    values, image = random_patches(image_set(images), 4, 500, np.random.default_rng(0))
    assert (image == 1234).all()
    assert (np.count_nonzero(values, 1) == 1).all()
    # The pixel lies in the last column, and in each of four rows of a patch.
    assert sorted({int(place) for place in values.argmax(1)}) == [3, 7, 11, 15]
    assert time.monotonic() - started < 10


def test_black_images_have_no_patches_to_draw() -> None:
    with pytest.raises(ValueError, match="some holds only black patches of side 4"):
        random_patches(image_set(torch.zeros(3, 1, 8, 8, dtype=torch.uint8)), 4, 5, np.random.default_rng(0))


def lasso(patches: np.ndarray, dictionary: np.ndarray, weight: float) -> np.ndarray:
    """Returns the codes that minimize 0.5 ||x - D a||_2^2 + weight ||a||_1, by coordinate descent."""
    codes = np.zeros((len(patches), len(dictionary)))
    for _ in range(500):
        for atom, direction in enumerate(dictionary):
            codes[:, atom] = 0
            fit = (patches - codes @ dictionary) @ direction
            codes[:, atom] = np.sign(fit) * np.maximum(np.abs(fit) - weight, 0) / (direction @ direction)
    return codes


def test_iterations_are_those_of_mairal_and_others(digits: ImageSet) -> None:
    """Algorithms 1 and 2 of Mairal et al. with the minibatches of section 3.4, which weight the past less at first."""
    count, size, weight = 5, 12, 0.3
    learned = learn_dictionary(digits, num_atoms=count, patch=3, regularization=weight, iterations=3, batch_size=size)
    generator = np.random.default_rng(derive_seed(0, "dictionary"))
    dictionary = normalize_rows(random_patches(digits, 3, count, generator).values)
    dictionary *= generator.choice((-1.0, 1.0), (count, 1))
    # For scikit-learn, which draws atoms that no patch uses.
    generator.integers(2**31)
    gram, cross = np.zeros((count, count)), np.zeros((count, 9))
    for number in range(1, 4):
        patches = random_patches(digits, 3, size, generator).values
        codes = lasso(patches, dictionary, weight)
        past = (number * size + 1 - size) / (number * size + 1)
        gram, cross = past * gram + codes.T @ codes, past * cross + codes.T @ patches
        assert (gram.diagonal() > 0.01).all()
        for atom in range(count):
            dictionary[atom] += (cross[atom] - gram[atom] @ dictionary) / gram[atom, atom]
            dictionary[atom] /= max(np.linalg.norm(dictionary[atom]), 1)
    np.testing.assert_allclose(learned.flatten(1).numpy(), normalize_rows(dictionary), atol=1e-5)


def test_iterations_are_minibatches_and_show_their_progress(
    digits: ImageSet, capsys: pytest.CaptureFixture[str]
) -> None:
    learn_dictionary(digits, **QUICK | {"iterations": 7})
    assert "7/7" in capsys.readouterr().err


def test_the_seed_decides(digits: ImageSet) -> None:
    first, second, other = (learn_dictionary(digits, **QUICK, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_the_old_name_of_the_number_of_atoms_still_works(digits: ImageSet) -> None:
    settings = {"atoms" if name == "num_atoms" else name: value for name, value in QUICK.items()}
    with pytest.warns(DeprecationWarning, match="atoms is now num_atoms"):
        atoms = learn_dictionary(digits, **settings)
    assert torch.equal(atoms, learn_dictionary(digits, **QUICK))


def test_atoms_that_no_patch_uses_end_as_patches_of_the_last_minibatch() -> None:
    data = colour_images(9, 6, 7)
    unused = QUICK | {"regularization": math.sqrt(3) * 4 - 1e-9, "iterations": 2, "batch_size": 3}
    atoms = learn_dictionary(data, **unused)
    every = data.images.unfold(2, 4, 1).unfold(3, 4, 1).permute(0, 2, 3, 1, 4, 5).reshape(-1, 48).double()
    closest, nearest = (atoms.flatten(1).double() @ torch.nn.functional.normalize(every).T).max(1)
    assert bool((closest > 0.999).all())
    assert len(nearest.unique()) <= 3
    assert near_copies(atoms) >= 22


def test_colour_patches_are_cut_channel_by_channel_from_the_image_they_name() -> None:
    data = colour_images(5, 6, 7)
    actual = random_patches(data, 2, 40, np.random.default_rng(0))
    every = data.images.unfold(2, 2, 1).unfold(3, 2, 1).permute(0, 2, 3, 1, 4, 5).reshape(5, -1, 12)
    patches_by_image = [{tuple(patch.tolist()) for patch in image} for image in every]
    assert actual.values.shape == (40, 12)
    assert set(actual.image.tolist()) == set(range(5))
    for patch, image in zip(actual.values, actual.image, strict=True):
        assert tuple(np.rint(patch * 255).astype(int).tolist()) in patches_by_image[image]


def test_every_position_of_every_image_is_drawn_as_often() -> None:
    """Pixels numbered from 1 show where a patch was cut."""
    images = torch.arange(1, 61, dtype=torch.uint8).reshape(2, 1, 5, 6)
    actual = random_patches(image_set(images), 2, 8000, np.random.default_rng(0))
    corners = np.bincount(np.rint(actual.values[:, 0] * 255).astype(int) - 1, minlength=60).reshape(2, 5, 6)
    assert not corners[:, 4:].any()
    assert not corners[:, :, 5:].any()
    assert chisquare(corners[:, :4, :5].flatten()).pvalue > 0.01


def test_black_patches_are_passed_over() -> None:
    images = torch.zeros(4, 1, 8, 8, dtype=torch.uint8)
    images[2, 0, 3, 3] = 200
    actual = random_patches(image_set(images), 2, 30, np.random.default_rng(0))
    assert actual.values.shape == (30, 4)
    assert bool((actual.values.max(1) == 200 / 255).all())
    assert set(actual.image.tolist()) == {2}


REFUSED = {
    "no-atoms": ({"num_atoms": 0}, ValueError, f"num_atoms is 0, expected in \\[1, {MAX_ATOMS}\\]"),
    "too-many-atoms": ({"num_atoms": MAX_ATOMS + 1}, ValueError, "num_atoms is 32768"),
    "fractional-atoms": ({"num_atoms": 2.5}, TypeError, "num_atoms is a float, expected an int"),
    "no-iterations": ({"iterations": 0}, ValueError, "iterations is 0, expected at least 1"),
    "empty-minibatches": ({"batch_size": 0}, ValueError, "batch_size is 0"),
    "negative-lambda": ({"regularization": -1.0}, ValueError, "regularization is -1.0, expected above 0"),
    "zero-lambda": ({"regularization": 0.0}, ValueError, "regularization is 0.0, expected above 0"),
    "nan-lambda": ({"regularization": math.nan}, ValueError, "regularization is nan"),
    "infinite-lambda": ({"regularization": math.inf}, ValueError, "regularization is inf"),
    "lambda-above-every-patch": ({"regularization": 4.0}, ValueError, "regularization is 4.0, expected below 4"),
    "patch-wider-than-images": ({"patch": 9}, ValueError, "patch is 9, expected in \\[1, 8\\]"),
    "no-patch": ({"patch": 0}, ValueError, "patch is 0"),
}


@pytest.mark.parametrize(("settings", "kind", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_settings_out_of_range_are_refused(
    digits: ImageSet, settings: dict[str, float], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        learn_dictionary(digits, **QUICK | settings)


def test_black_images_teach_nothing() -> None:
    night = image_set(torch.zeros(3, 1, 8, 8, dtype=torch.uint8), "night")
    with pytest.raises(ValueError, match="night holds only black images"):
        learn_dictionary(night, **QUICK)


def test_a_zero_atom_is_no_direction() -> None:
    with pytest.raises(ValueError, match="1 of 2 atoms are zero"):
        normalize_rows(np.array([[0.0, 3.0], [0.0, 0.0]]))


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
