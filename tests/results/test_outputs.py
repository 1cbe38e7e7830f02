"""The outputs of measurements: saved images are not crafted again after a stop."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from models import random_images
from neuroae.data import ImageSet
from results.outputs import SavedImages, drop_commit


class Stopped(Exception):
    """Raised instead of a kill."""


def data(count: int = 7) -> ImageSet:
    images, _, ids = random_images(count)
    return ImageSet("some", (images * 255).byte(), torch.zeros(count, dtype=torch.int64), ids, ("a", "b"))


class Attack:
    """Inverts images, records their ids, and stops before one of them."""

    def __init__(self, last: int | None = None) -> None:
        self.last = last
        self.attacked: list[int] = []

    def __call__(self, part: ImageSet) -> Tensor:
        if self.last in part.ids.tolist():
            raise Stopped
        self.attacked += part.ids.tolist()
        return 1 - part.pixels()


def test_a_stopped_attack_goes_on_at_the_block_where_it_stopped(tmp_path: Path) -> None:
    images = data()
    first, second, third = Attack(last=int(images.ids[4])), Attack(), Attack()
    with pytest.raises(Stopped):
        SavedImages(tmp_path, {"epsilon": 1}).images("an attack, ours", images, first, 2)
    saved = SavedImages(tmp_path, {"epsilon": 1})
    attacked_images = saved.images("an attack, ours", images, second, 2)
    again = SavedImages(tmp_path, {"epsilon": 1}).images("an attack, ours", images, third, 2)
    assert first.attacked == images.ids[:4].tolist()
    assert second.attacked == images.ids[4:].tolist()
    assert third.attacked == []
    assert torch.equal(attacked_images, 1 - images.pixels())
    assert torch.equal(again, attacked_images)
    assert saved.seconds > 0


def test_attacks_of_other_names_have_files_of_their_own(tmp_path: Path) -> None:
    saved, attacks = SavedImages(tmp_path, {}), (Attack(), Attack())
    for name, attack in zip(("20 steps", "100 steps"), attacks, strict=True):
        saved.images(name, data(), attack, 3)
    assert len(attacks[0].attacked) == len(attacks[1].attacked) == 7


def test_blocks_of_other_images_are_refused(tmp_path: Path) -> None:
    """Which images get more restarts depends on verdicts, which may change after a stop."""
    images = data()
    SavedImages(tmp_path, {}).images("the others", images, Attack(), 2)
    with pytest.raises(ValueError, match=r"2\.safetensors holds other images than expected"):
        SavedImages(tmp_path, {}).images("the others", images.take(torch.tensor([0, 1, 3, 4])), Attack(), 2)


def test_another_experiment_is_refused(tmp_path: Path) -> None:
    SavedImages(tmp_path, {"epsilon": 1, "steps": 2})
    with pytest.raises(ValueError, match=r"identity\.json belongs to another run: epsilon is 1 there and 3 here"):
        SavedImages(tmp_path, {"epsilon": 3, "steps": 2})


def test_blocks_of_nobody_knows_what_are_not_taken_for_done(tmp_path: Path) -> None:
    SavedImages(tmp_path, {"epsilon": 1}).images("an attack", data(), Attack(), 2)
    (tmp_path / "identity.json").unlink()
    with pytest.raises(
        ValueError, match=r"holds an-attack and no identity\.json.*Use another folder, or remove this one"
    ):
        SavedImages(tmp_path, {"epsilon": 3})


def test_an_experiment_goes_on_under_another_commit_and_not_under_another_version(tmp_path: Path) -> None:
    def identity(**versions: str) -> dict[str, object]:
        return drop_commit({"model": "m", "versions": {"neuroae": "1", "commit": "a"} | versions})

    SavedImages(tmp_path, identity())
    SavedImages(tmp_path, identity(commit="b"))
    with pytest.raises(ValueError, match=r"versions\.neuroae is '1' there and '2' here"):
        SavedImages(tmp_path, identity(neuroae="2"))
