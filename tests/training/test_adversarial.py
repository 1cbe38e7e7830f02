"""Adversarial training: the images that it learns from, its losses, and what its attacks leave unchanged."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from models import Linear, random_images
from neuroae import resnet32
from neuroae.attacks import PGDSettings, pgd
from neuroae.data import ImageSet, load_dataset
from neuroae.training import Run, TrainingSettings, train_adversarial
from neuroae.training import loop as training_loop
from neuroae.training.adversarial import METHODS, RECIPES, AdversarialClassification, Trades, divergence
from neuroae.training.history import Epoch

SEED, EPSILON = 5, 0.1


@pytest.fixture(scope="module")
def digits() -> ImageSet:
    return load_dataset("digits", "train").take(slice(20))


class Recorded(nn.Module):
    """A classifier that keeps the batches that it was called with, and whether it tracked their statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Sequential(nn.BatchNorm2d(1), Linear(1, 8, 10))
        self.calls: list[tuple[torch.Tensor, bool]] = []

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        normalization = self.layer[0]
        self.calls.append((images.detach(), normalization.track_running_stats))  # type: ignore[arg-type]
        logits: torch.Tensor = self.layer(images)
        return logits


def test_the_published_recipes_are_the_defaults() -> None:
    budget = {method: (recipe.steps, 255 * 8 / 255 * recipe.step_size) for method, recipe in RECIPES.items()}
    assert budget == {"pgd-at": (10, 1.0), "r-fgsm-at": (1, 10.0), "trades": (10, 1.0)}
    schedules = {method: (each.epochs, each.learning_rate, each.schedule) for method, each in RECIPES.items()}
    assert schedules == {
        "pgd-at": (100, 0.05, "triangular"),
        "r-fgsm-at": (100, 0.05, "triangular"),
        "trades": (76, 0.01, "stepwise"),
    }
    assert [RECIPES[method].beta for method in METHODS] == [None, None, 6.0]


def test_pgd_training_learns_from_the_images_of_the_library_s_pgd() -> None:
    model, (images, labels, ids) = Linear(1, 8, 10).eval(), random_images()
    settings = PGDSettings(epsilon=EPSILON, step_size=EPSILON / 8, steps=10, realizations=1)
    attacked = pgd(model, images, labels, settings, seed=0, image_ids=ids).images
    loss, logits = AdversarialClassification(model, RECIPES["pgd-at"], EPSILON)(images, labels, ids, SEED)
    torch.testing.assert_close(logits, model(attacked))
    torch.testing.assert_close(loss, F.cross_entropy(model(attacked), labels))


def test_r_fgsm_starts_at_a_random_point_of_each_image_and_step() -> None:
    model, (images, labels, ids) = Recorded(), random_images()
    task = AdversarialClassification(model, RECIPES["r-fgsm-at"], EPSILON)
    for seed in (SEED, SEED, SEED + 1):
        task(images, labels, ids, seed)
    starts = [call for call, tracked in model.calls if not tracked]
    assert torch.equal(starts[0], starts[1])
    assert not torch.equal(starts[0], starts[2])
    assert (starts[0] - images).abs().max() <= EPSILON + 1e-6
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    task(images[order], labels[order], ids[order], SEED)
    assert torch.equal(model.calls[-2][0], starts[0][order])


@pytest.mark.parametrize("method", METHODS)
def test_attacks_raise_the_loss_within_the_ball_and_leave_no_trace(method: str) -> None:
    torch.manual_seed(0)
    model, (images, labels, ids) = Recorded().train(), random_images(32)
    kind = Trades if method == "trades" else AdversarialClassification
    recipe = RECIPES[method]  # type: ignore[index]
    task = kind(model, recipe, EPSILON)
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    start = images + 1e-3
    attacked = task.attack(images, start, lambda logits: F.cross_entropy(logits, labels))
    assert (attacked - images).abs().max() <= EPSILON + 1e-6
    assert attacked.min() >= 0
    assert attacked.max() <= 1
    assert not attacked.requires_grad
    for name, buffer in model.named_buffers():
        assert torch.equal(buffer, before[name])
    assert model.training
    losses = [F.cross_entropy(model.eval()(each), labels).item() for each in (images, attacked)]
    assert losses[1] > losses[0] + 0.05
    model.train()
    model.calls.clear()
    task(images, labels, ids, SEED)
    # Only what the step learns from changes the running statistics.
    assert [tracked for _, tracked in model.calls].count(True) == (2 if method == "trades" else 1)


def test_trades_weighs_clean_images_and_their_divergence() -> None:
    model, (images, labels, ids) = Recorded().eval(), random_images()
    loss, logits = Trades(model, RECIPES["trades"], EPSILON)(images, labels, ids, SEED)
    attacked = model.calls[-1][0]
    clean, changed = (model.layer(each).detach().double().softmax(-1) for each in (images, attacked))
    expected = -clean[torch.arange(6), labels].log().mean()
    expected += 6 * (clean * (clean / changed).log()).sum(1).mean()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4)
    torch.testing.assert_close(logits, model.layer(attacked).detach())
    assert (attacked - images).abs().max() > EPSILON / 2


def test_divergence_is_zero_at_equal_predictions_alone() -> None:
    logits = torch.randn(4, 10)
    assert divergence(logits, logits + 3).item() == pytest.approx(0, abs=1e-6)
    assert divergence(logits, -logits).item() > 0.1


class Stopped(Exception):
    pass


@pytest.mark.parametrize("method", METHODS)
def test_a_stopped_training_goes_on_bit_for_bit(
    digits: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    recipe = RECIPES[method]  # type: ignore[index]
    monkeypatch.setitem(RECIPES, method, replace(recipe, steps=min(recipe.steps, 2)))  # type: ignore[misc]
    settings = TrainingSettings(epochs=2, batch_size=10, learning_rate=0.01)
    torch.manual_seed(1)
    start = resnet32(10, 1, (0.3,), (0.4,)).state_dict()

    def train(run: Run | None) -> tuple[list[Epoch], nn.Module]:
        model = resnet32(10, 1, (0.3,), (0.4,))
        model.load_state_dict(start)
        return train_adversarial(model, digits, settings, method, run, digits, 0.05), model  # type: ignore[arg-type]

    expected, uninterrupted = train(None)
    step, steps = training_loop.step, 0

    def stopping(*arguments: object) -> None:
        nonlocal steps
        if steps == 3:
            raise Stopped
        steps += 1
        step(*arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(training_loop, "step", stopping)
        with pytest.raises(Stopped):
            train(Run(tmp_path, seconds=0))
    history, resumed = train(Run(tmp_path, seconds=0))
    assert history == expected
    assert not resumed.training
    for name, tensor in resumed.state_dict().items():
        assert torch.equal(tensor, uninterrupted.state_dict()[name]), name
    other = replace(settings, learning_rate=0.02)
    with pytest.raises(ValueError, match="learning_rate"):
        train_adversarial(resumed, digits, other, method, Run(tmp_path))  # type: ignore[arg-type]


def test_an_unknown_method_is_refused(digits: ImageSet) -> None:
    with pytest.raises(ValueError, match="method is 'fgsm', expected one of pgd-at, r-fgsm-at, trades"):
        train_adversarial(Linear(1, 8, 10), digits, TrainingSettings(), "fgsm")  # type: ignore[arg-type]
