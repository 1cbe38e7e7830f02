"""Adversarial images that came from elsewhere."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from neuroae.data import ImageSet
from neuroae.evaluation import run_evaluation
from neuroae.evaluation.ready_made import load_ready_made
from neuroae.utils.files import save_tensors
from small_evaluation import random_data, small_evaluation

EPSILON = 0.05


@pytest.fixture
def data() -> ImageSet:
    return random_data(10)


@pytest.fixture
def images(data: ImageSet) -> Tensor:
    return (data.pixels() + EPSILON * torch.randn(10, 1, 8, 8).sign()).clamp(0, 1)


def test_ready_made_images_are_scored_like_an_attacks(tmp_path: Path) -> None:
    evaluation = small_evaluation()
    expected = run_evaluation(evaluation, tmp_path / "made")
    save_tensors(tmp_path / "theirs.safetensors", {"images": expected.images("W-AIGA"), "ids": evaluation.data.ids})
    attack = load_ready_made(tmp_path / "theirs.safetensors", evaluation.data, epsilon=0.1)
    results = run_evaluation(replace(evaluation, attacks=[attack]), tmp_path / "scored")
    assert list(results.records) == ["clean", "theirs"]
    for record, expected_record in zip(results.records["theirs"], expected.records["W-AIGA"], strict=True):
        assert record == replace(expected_record, attack="theirs", gradients=0)
    assert results.attack("theirs")["settings"] == {"norm": "linf", "epsilon": 0.1}
    assert results.attack("theirs")["access"] == "images"


def test_images_are_found_by_their_ids(tmp_path: Path, data: ImageSet, images: Tensor) -> None:
    order = torch.randperm(10)
    save_tensors(tmp_path / "x.safetensors", {"images": images[order].double(), "ids": data.ids[order]})
    few = data.take(slice(3, 7))
    results = load_ready_made(tmp_path / "x.safetensors", few, epsilon=EPSILON)
    torch.testing.assert_close(results.images, images[3:7])
    assert results.ids.tolist() == few.ids.tolist()


def test_without_ids_images_are_in_the_order_of_the_data(tmp_path: Path, data: ImageSet, images: Tensor) -> None:
    save_tensors(tmp_path / "x.safetensors", {"images": images})
    assert torch.equal(load_ready_made(tmp_path / "x.safetensors", data).images, images)
    with pytest.raises(ValueError, match="holds 10 images and there are 9 ids; expected as many as the data"):
        load_ready_made(tmp_path / "x.safetensors", data.take(slice(9)))


def test_rounding_of_other_libraries_is_let_pass(tmp_path: Path, data: ImageSet, images: Tensor) -> None:
    save_tensors(tmp_path / "x.safetensors", {"images": images - 3e-8})
    load_ready_made(tmp_path / "x.safetensors", data, epsilon=EPSILON)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_images_outside_the_ball_are_refused_where_an_epsilon_is_told(
    tmp_path: Path, data: ImageSet, images: Tensor, norm: str
) -> None:
    offsets = (images.double() - data.pixels().double()).flatten(1)
    sizes = offsets.abs().amax(1) if norm == "linf" else offsets.norm(dim=1)
    save_tensors(tmp_path / "x.safetensors", {"images": images})
    load_ready_made(tmp_path / "x.safetensors", data, norm)  # type: ignore[arg-type]
    load_ready_made(tmp_path / "x.safetensors", data, norm, float(sizes.max()))  # type: ignore[arg-type]
    worst = int(data.ids[sizes.argmax()])
    with pytest.raises(ValueError, match=rf"of 10 images leave the {norm} ball of epsilon .*; image {worst} is"):
        load_ready_made(tmp_path / "x.safetensors", data, norm, float(sizes.max()) - 1e-4)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        (lambda images, ids: {"pictures": images}, "holds pictures, expected images"),
        (lambda images, ids: {"images": (255 * images).byte()}, "images is torch.uint8, expected a floating point"),
        (lambda images, ids: {"images": images[:, :, 1:]}, r"shape \(10, 1, 7, 8\), expected \(N, 1, 8, 8\)"),
        (lambda images, ids: {"images": images, "ids": ids.int()}, "ids is torch.int32, expected int64"),
        (lambda images, ids: {"images": images, "ids": ids[:9]}, "10 images and there are 9 ids; expected an id for"),
        (lambda images, ids: {"images": images[1:], "ids": ids[1:]}, "lacks 1 of the 10 images, the first 5"),
        (lambda images, ids: {"images": images, "ids": ids.clamp(max=29)}, "several images of one id"),
        (lambda images, ids: {"images": images + 0.5}, r"images has values from .*, expected in \[0, 1\]"),
        (lambda images, ids: {"images": images * torch.nan}, "images has values from nan to nan"),
    ],
    ids=["no images", "bytes", "shape", "ids of int32", "too few ids", "an image lacks", "an id twice", "box", "nan"],
)
def test_what_are_no_images_of_the_data_is_refused(  # type: ignore[no-untyped-def]
    tmp_path: Path, data: ImageSet, images: Tensor, tensors, message: str
) -> None:
    save_tensors(tmp_path / "x.safetensors", tensors(images, data.ids))
    with pytest.raises(ValueError, match=message) as raised:
        load_ready_made(tmp_path / "x.safetensors", data)
    assert "x.safetensors" in str(raised.value)


def test_a_missing_or_damaged_file_is_named(tmp_path: Path, data: ImageSet) -> None:
    with pytest.raises(FileNotFoundError, match=r"x\.safetensors is missing"):
        load_ready_made(tmp_path / "x.safetensors", data)
    (tmp_path / "x.safetensors").write_bytes(b"no tensors")
    with pytest.raises(ValueError, match=r"x\.safetensors is not a whole safetensors file"):
        load_ready_made(tmp_path / "x.safetensors", data)
