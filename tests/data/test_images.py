"""Data sets by name, and sets of images."""

import hashlib
import os
import tracemalloc
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from neuroae.data import ImageSet, load_dataset


def numbered(count: int, first_id: int = 100) -> ImageSet:
    """Returns images that can be told apart: all bytes of image i are i, and its id is ``first_id`` + i."""
    positions = torch.arange(count)
    images = positions.to(torch.uint8).reshape(-1, 1, 1, 1).expand(-1, 1, 2, 2).contiguous()
    return ImageSet("some train", images, positions % 3, positions + first_id, ("a", "b", "c"))


def test_digits_are_real_and_split_apart() -> None:
    train, test = load_dataset("digits", "train"), load_dataset("digits", "test")
    assert (len(train), len(test)) == (1297, 500)
    assert train.images.shape[1:] == (1, 8, 8)
    assert float(train.pixels().max()) == 1.0
    assert torch.unique(test.labels).tolist() == list(range(10))
    train_bytes = {image.numpy().tobytes() for image in train.images}
    assert not any(image.numpy().tobytes() in train_bytes for image in test.images)


@pytest.mark.parametrize(
    ("name", "split", "settings", "message"),
    [
        pytest.param("imagenet", "train", {}, "dataset is 'imagenet', expected one of digits, cifar10", id="name"),
        pytest.param("digits", "validation", {}, "split is 'validation', expected one of train, test", id="split"),
        pytest.param("cifar10", "train", {}, "cifar10 needs data_dir, the folder with cifar-10", id="cifar10"),
        pytest.param("imagenette", "train", {}, "imagenette needs data_dir, the folder with imagenette2", id="nette"),
        pytest.param("image-folder", "test", {}, r"image-folder needs data_dir, .* train/CLASS/\*", id="folder"),
        pytest.param("digits", "test", {"download": True}, "digits come with scikit-learn", id="digits-download"),
        pytest.param("image-folder", "test", {"download": True}, "images of your own", id="folder-download"),
    ],
)
def test_what_cannot_be_loaded_is_refused(name: str, split: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_dataset(name, split, **settings)


IMAGES, THREE = torch.zeros(3, 1, 2, 2, dtype=torch.uint8), torch.arange(3)


@pytest.mark.parametrize(
    ("images", "labels", "ids", "error", "message"),
    [
        pytest.param(
            IMAGES.double(), THREE, THREE, TypeError, r"images is torch\.float64 of .*uint8 \(N, C", id="pixels"
        ),
        pytest.param(
            IMAGES.float() + 9, THREE, THREE, ValueError, "images holds values from 9 to .*; divide by 255", id="range"
        ),
        pytest.param(
            IMAGES[0], THREE, THREE, TypeError, r"images is .* of shape \(1, 2, 2\), expected", id="one-image"
        ),
        pytest.param(IMAGES.numpy(), THREE, THREE, TypeError, "images is a ndarray, expected a tensor", id="array"),
        pytest.param(IMAGES, THREE.int(), THREE, TypeError, r"labels is torch\.int32 of .*int64 \(N\)", id="int32"),
        pytest.param(
            IMAGES, THREE[:, None], THREE, TypeError, r"labels is .* of shape \(3, 1\), expected", id="column"
        ),
        pytest.param(
            IMAGES, THREE, THREE.double(), TypeError, r"ids is torch\.float64 of .*int64 \(N\)", id="real-ids"
        ),
        pytest.param(IMAGES, THREE[:2], THREE, ValueError, "images, labels and ids hold 3, 2 and 3", id="two-labels"),
        pytest.param(IMAGES, THREE, THREE[:1], ValueError, "images, labels and ids hold 3, 3 and 1", id="one-id"),
        pytest.param(
            IMAGES, THREE + 1, THREE, ValueError, "labels holds 3, expected .* 3 classes, 0 to 2", id="class-3"
        ),
        pytest.param(IMAGES, THREE - 1, THREE, ValueError, "labels holds -1, expected", id="negative-label"),
        pytest.param(IMAGES, THREE, THREE - 1, ValueError, "ids holds -1, expected", id="negative-id"),
        pytest.param(IMAGES, THREE, THREE + 2**32 - 2, ValueError, "ids holds 4294967296, expected", id="33-bits"),
    ],
)
def test_image_sets_refuse_what_does_not_fit(
    images: Any, labels: Tensor, ids: Tensor, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        ImageSet("some", images, labels, ids, ("a", "b", "c"))


def test_image_sets_take_the_last_class_and_number_and_no_images_at_all() -> None:
    data = ImageSet("some", IMAGES, torch.full((3,), 2), THREE + 2**32 - 3, ("a", "b", "c"))
    assert len(data) == 3
    assert len(ImageSet("none", IMAGES[:0], THREE[:0], THREE[:0], ())) == 0


def test_taken_images_are_not_checked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every training step calls ``take``."""
    data = numbered(10)
    monkeypatch.setattr(ImageSet, "__post_init__", lambda _: pytest.fail("checked again"))
    part = data.take(torch.tensor([3, 3]))
    assert (part.name, part.classes, part.white) == (data.name, data.classes, data.white)
    assert (len(part), len(data)) == (2, 10)


def test_taken_images_keep_labels_and_ids() -> None:
    part = numbered(10).take(torch.tensor([5, 2]))
    assert part.ids.tolist() == [105, 102]
    assert part.images[:, 0, 0, 0].tolist() == [5, 2]
    assert part.labels.tolist() == [2, 2]


@given(count=st.integers(1, 600), step=st.integers(1, 3), white=st.integers(1, 255))
def test_fingerprint_is_of_shape_white_images_labels_and_ids(count: int, step: int, white: int) -> None:
    every = numbered(count)
    data = ImageSet("some", every.images, every.labels, every.ids, every.classes, white).take(slice(None, None, step))
    arrays = (data.images.numpy(), data.labels.numpy(), data.ids.numpy())
    content = f"{arrays[0].shape} {white}".encode() + b"".join(array.tobytes() for array in arrays)
    assert data.fingerprint() == hashlib.sha256(content).hexdigest()


def map_of_zeros(path: Path, rows: int) -> ImageSet:
    """Returns images of a megabyte each, mapped from a sparse file."""
    np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=(rows, 1, 1024, 1024)).flush()
    positions = torch.arange(rows)
    images = torch.from_numpy(np.load(path, mmap_mode="c"))
    return ImageSet("zeros", images, torch.zeros_like(positions), positions, ("zero",))


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_only_the_chosen_rows_of_a_map_are_read(tmp_path: Path) -> None:
    data = map_of_zeros(tmp_path / "zeros.npy", 256)
    before = resident_bytes()
    parts = data.take(torch.tensor([3, 130, 255])), data.take(slice(60, 64))
    assert [len(one) for one in parts] == [3, 4]
    assert resident_bytes() - before < 32 * 2**20


def test_fingerprint_of_a_map_copies_nothing(tmp_path: Path) -> None:
    data = map_of_zeros(tmp_path / "zeros.npy", 64)
    tracemalloc.start()
    data.fingerprint()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**20


@given(st.data())
def test_held_out_images_and_the_rest_are_the_whole(data: st.DataObject) -> None:
    size = data.draw(st.integers(2, 200), label="size")
    count = data.draw(st.integers(1, size - 1), label="count")
    seed = data.draw(st.integers(0, 2**63 - 1), label="seed")
    remaining, held_out = numbered(size).hold_out(count, seed)
    assert (len(remaining), len(held_out)) == (size - count, count)
    assert sorted(remaining.ids.tolist() + held_out.ids.tolist()) == list(range(100, 100 + size))
    for part in (remaining, held_out):
        assert part.ids.tolist() == sorted(part.ids.tolist())
        assert torch.equal(part.images[:, 0, 0, 0].long(), part.ids - 100)
        assert torch.equal(part.labels, (part.ids - 100) % 3)
    assert numbered(size).hold_out(count, seed)[1].fingerprint() == held_out.fingerprint()


def test_every_image_is_held_out_by_some_seeds() -> None:
    held_out = Counter(one for seed in range(200) for one in numbered(10).hold_out(3, seed)[1].ids.tolist())
    assert len(held_out) == 10
    assert all(30 < times < 90 for times in held_out.values())


def test_names_say_what_was_held_out() -> None:
    remaining, held_out = numbered(10).hold_out(3, 0)
    assert (remaining.name, held_out.name) == ("some train without 3 held out", "3 held out of some train")


@pytest.mark.parametrize("count", [-1, 0, 10, 11])
def test_all_or_none_cannot_be_held_out(count: int) -> None:
    with pytest.raises(ValueError, match=f"count is {count}, expected 1 to 9 of the 10 of some train"):
        numbered(10).hold_out(count, 0)


def test_a_limited_set_sorted_by_class_has_every_class() -> None:
    labels = torch.tensor([0] * 5 + [1] * 2 + [2] * 4)
    data = ImageSet(
        "sorted", torch.zeros(11, 1, 2, 2, dtype=torch.uint8), labels, torch.arange(11) + 7, ("a", "b", "c")
    )
    assert data.limited(4).labels.tolist() == [0, 0, 1, 2]
    assert data.limited(8).ids.tolist() == [7, 8, 9, 12, 13, 14, 15, 16]
    assert data.limited(None) is data
    assert data.limited(20) is data


def test_a_limited_set_that_is_mixed_comes_from_the_front() -> None:
    labels = torch.tensor([1, 0, 1, 1])
    data = ImageSet("mixed", torch.zeros(4, 1, 2, 2, dtype=torch.uint8), labels, torch.arange(4), ("a", "b"))
    assert data.limited(2).ids.tolist() == [0, 1]


@pytest.mark.parametrize("count", [0, -1])
def test_a_set_is_not_limited_to_nothing(count: int) -> None:
    with pytest.raises(ValueError, match=f"count is {count}, expected at least 1"):
        numbered(10).limited(count)


@pytest.mark.parametrize("white", [0, -1, 256])
def test_white_is_a_byte_above_black(white: int) -> None:
    with pytest.raises(ValueError, match=rf"white is {white}, expected in \[1, 255\]"):
        replace(numbered(3), white=white)
