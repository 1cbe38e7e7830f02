"""Batches of a training: their order, their masks, their augmentation, and each process's share of them."""

from dataclasses import replace

import pytest
import torch

from neuroae.data import ImageSet, crop_and_flip, load_dataset
from neuroae.training import TrainingSettings
from neuroae.training.batches import batches
from neuroae.utils import distributed

QUICK = TrainingSettings(batch_size=32)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def digits() -> ImageSet:
    return load_dataset("digits", "train").take(slice(100))


def test_every_epoch_shows_every_image_once_in_an_order_of_its_own(digits: ImageSet) -> None:
    epochs = [list(batches(digits, QUICK, "some", epoch, CPU)) for epoch in (0, 1, 0)]
    orders = [torch.cat([batch.ids for batch in epoch]).tolist() for epoch in epochs]
    assert orders[0] == orders[2] != orders[1]
    for order in orders:
        assert sorted(order) == list(range(len(digits)))
    seeds = [batch.seed for epoch in epochs[:2] for batch in epoch]
    assert len(set(seeds)) == len(seeds)
    one = epochs[0][1]
    torch.testing.assert_close(one.images, digits.pixels()[one.ids])
    assert torch.equal(one.labels, digits.labels[one.ids])


def test_another_seed_gives_another_order_and_other_masks(digits: ImageSet) -> None:
    first, second = (list(batches(digits, replace(QUICK, seed=seed), "some", 0, CPU)) for seed in (0, 1))
    assert not torch.equal(*(torch.cat([batch.ids for batch in each]) for each in (first, second)))
    assert {batch.seed for batch in first}.isdisjoint(batch.seed for batch in second)


def test_a_pass_that_starts_late_is_the_end_of_the_whole_one(digits: ImageSet) -> None:
    full, rest = (list(batches(digits, QUICK, "some", 1, CPU, first_step=first)) for first in (0, 2))
    assert len(full) == 4
    for one, same in zip(full[2:], rest, strict=True):
        assert torch.equal(one.images, same.images)
        assert torch.equal(one.ids, same.ids)
        assert one.seed == same.seed


def test_stages_of_one_training_share_no_masks(digits: ImageSet) -> None:
    first, second = (next(batches(digits, QUICK, stage, 0, CPU)) for stage in ("decoder", "classifier"))
    assert torch.equal(first.images, second.images)
    assert first.seed != second.seed


@pytest.mark.parametrize(("seed", "epoch"), [(0, 0), (1, 0), (0, 1)], ids=["first", "another seed", "another epoch"])
def test_augmented_images_are_those_of_the_seed_and_the_epoch(digits: ImageSet, seed: int, epoch: int) -> None:
    for batch in batches(digits, replace(QUICK, augment=True, seed=seed), "some", epoch, CPU):
        expected = crop_and_flip(digits.images[batch.ids], seed, epoch, batch.ids) / digits.white
        assert torch.equal(batch.images, expected)
        assert not torch.equal(expected, digits.pixels()[batch.ids])


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("count", [32, 33, 100])
def test_processes_share_every_step_out(
    digits: ImageSet, monkeypatch: pytest.MonkeyPatch, world: int, count: int
) -> None:
    part = digits.take(slice(count))
    full = list(batches(part, QUICK, "some", 0, CPU))
    shares = []
    for rank in range(world):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        monkeypatch.setattr(distributed, "world_size", lambda: world)
        shares.append(list(batches(part, QUICK, "some", 0, CPU)))
    for step, expected in zip(zip(*shares, strict=True), full, strict=True):
        counted = [share for share in step if share.weight]
        assert torch.equal(torch.cat([share.ids for share in counted]).sort().values, expected.ids.sort().values)
        assert {share.seed for share in step} == {expected.seed}
        mean = sum(float(share.images.mean()) * share.weight for share in step) / world
        assert mean == pytest.approx(float(expected.images.mean()), rel=1e-5)
