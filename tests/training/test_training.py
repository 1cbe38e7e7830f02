"""Training: the schedule, the steps, fresh masks, scores, and the parameters that each method trains."""

from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from models import small_defense
from neuroae import SparseEncoder
from neuroae.data import ImageSet, load_dataset
from neuroae.training import Run, TrainingSettings, train_plain, train_supervised, train_unsupervised
from neuroae.training.batches import Batch, batches
from neuroae.training.loop import fit, make_state, model_draws
from neuroae.training.methods import FrozenAutoencoder, Objective
from neuroae.training.settings import SCHEDULES, Schedule
from neuroae.utils.contexts import frozen
from neuroae.utils.files import load_tensors

QUICK = TrainingSettings(epochs=2, batch_size=32, learning_rate=0.05)
CPU = torch.device("cpu")


class Brightness(nn.Module):
    """A task without logits: the mean brightness, weighted."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.scale = scale

    def forward(self, images: torch.Tensor, labels: torch.Tensor, ids: torch.Tensor, seed: int) -> Objective:
        return Objective(images.mean() * self.weight * self.scale)


@pytest.fixture(scope="module")
def digits() -> ImageSet:
    return load_dataset("digits", "train").take(slice(100))


def snapshot(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def changed(module: nn.Module, before: dict[str, torch.Tensor]) -> bool:
    return any(not torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())


@pytest.mark.parametrize(("epochs", "batch_size"), [(1, 50), (3, 30), (2, 7)])
def test_learning_rate_rises_and_falls_in_a_triangle(
    digits: ImageSet, monkeypatch: pytest.MonkeyPatch, epochs: int, batch_size: int
) -> None:
    rates = []
    step = torch.optim.SGD.step

    def recorded(self: torch.optim.SGD) -> None:
        rates.append(self.param_groups[0]["lr"])
        step(self)

    monkeypatch.setattr(torch.optim.SGD, "step", recorded)
    settings = TrainingSettings(epochs=epochs, batch_size=batch_size, learning_rate=0.4)
    fit(Brightness(), digits, settings, "brightness")
    steps = epochs * -(-len(digits) // batch_size)
    peak = max(1, steps // 2)
    expected = [
        0.4 * (number / peak if number <= peak else (steps - number) / (steps - peak)) for number in range(steps)
    ]
    assert rates == pytest.approx(expected)


def test_a_training_of_one_step_takes_it_at_the_peak(digits: ImageSet) -> None:
    """The foot of the triangle is 0: nothing would be learned."""
    task = Brightness()
    (epoch,) = fit(task, digits, TrainingSettings(epochs=1, batch_size=100, learning_rate=0.4), "brightness")
    assert epoch.learning_rate == 0.4
    assert task.weight != 1


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_steps_are_those_of_sgd_with_the_papers_constants(schedule: Schedule) -> None:
    """Momentum stays at 0.9 all along, which PyTorch's schedule would cycle, and weights decay by 5e-4."""
    task = nn.Linear(3, 2, bias=False).double()
    state = make_state(task, TrainingSettings(epochs=2, schedule=schedule), steps_per_epoch=4)
    weight, velocity = task.weight.detach().clone(), torch.zeros(2, 3).double()
    for number in range(8):
        # 50 of 76 epochs are 5.3 of 8 steps.
        shares = {"triangular": 1 - abs(number - 4) / 4, "constant": 1, "stepwise": 1 if number < 6 else 0.1}
        rate = 0.05 * shares[schedule]
        task.weight.grad = torch.randn(2, 3).double()
        state.optimizer.step()
        state.scheduler.step()
        velocity = 0.9 * velocity + task.weight.grad + 5e-4 * weight
        weight = weight - rate * velocity
        torch.testing.assert_close(task.weight.detach(), weight)


def test_the_papers_settings_are_the_defaults() -> None:
    assert TrainingSettings() == TrainingSettings(70, 64, 0.05, "triangular", 0.9, 5e-4, "float32", False, 0)


def test_the_learning_rate_can_stay_where_it_is(digits: ImageSet) -> None:
    settings = replace(QUICK, schedule="constant", momentum=0.0, weight_decay=0.0)
    task = Brightness()
    history = fit(task, digits, settings, "brightness")
    assert [epoch.learning_rate for epoch in history] == [QUICK.learning_rate] * 2
    means = [float(batch.images.mean()) for epoch in (0, 1) for batch in batches(digits, settings, "", epoch, CPU)]
    assert task.weight.item() == pytest.approx(1 - QUICK.learning_rate * sum(means), rel=1e-5)


def test_validation_images_are_scored_and_not_learned_from(digits: ImageSet) -> None:
    held_out = load_dataset("digits", "test").take(slice(90))
    with_scores, without = small_defense(), small_defense()
    without.load_state_dict(with_scores.state_dict())
    history = train_supervised(with_scores, digits, QUICK, validation=held_out)
    plain = train_supervised(without, digits, QUICK)
    assert not changed(with_scores, snapshot(without))
    assert [epoch.loss for epoch in history] == [epoch.loss for epoch in plain]
    assert plain[0].validation_loss is None
    masked = batches(held_out, replace(QUICK, batch_size=64), "defense validation", 1, CPU)
    scored = [(batch.labels, with_scores(batch.images, seed=batch.seed, image_ids=batch.ids)) for batch in masked]
    labels, logits = (torch.cat(parts) for parts in zip(*scored, strict=True))
    loss = torch.nn.functional.cross_entropy(logits, labels).item()
    assert history[-1].validation_loss == pytest.approx(loss, rel=1e-5)
    assert history[-1].validation_accuracy == (logits.argmax(1) == labels).double().mean().item()


def test_masks_differ_at_every_step(digits: ImageSet, monkeypatch: pytest.MonkeyPatch) -> None:
    model, calls = small_defense(), []
    encode = SparseEncoder.encode

    def recorded(self, images, realizations=1, seed=None, image_ids=None):  # type: ignore[no-untyped-def]
        calls.append((seed, image_ids))
        return encode(self, images, realizations, seed, image_ids)

    monkeypatch.setattr(SparseEncoder, "encode", recorded)
    train_supervised(model, digits, QUICK)
    seeds = [seed for seed, _ in calls]
    assert None not in seeds
    # The first is of the check before the first step.
    assert len(set(seeds)) == len(seeds) == 1 + 2 * 4
    assert torch.cat([ids for _, ids in calls[1:5]]).sort().values.tolist() == list(range(len(digits)))


def test_what_a_model_draws_follows_from_the_step_and_the_process(
    digits: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = islice(batches(digits, QUICK, "defense", 0, CPU), 2)

    def drawn(batch: Batch) -> list[float]:
        with model_draws(batch):
            return torch.rand(3).tolist()

    first_draws = drawn(first)
    assert drawn(first) == first_draws != drawn(second)
    monkeypatch.setattr("neuroae.utils.distributed.rank", lambda: 1)
    assert drawn(first) != first_draws


def test_supervised_training_learns_decoder_and_classifier(digits: ImageSet) -> None:
    model = small_defense()
    before = snapshot(model.decoder), snapshot(model.classifier), snapshot(model.encoder)
    history = train_supervised(model, digits, replace(QUICK, epochs=24, learning_rate=0.1))
    assert history[-1].loss < 0.8 * history[0].loss
    assert history[-1].accuracy is not None
    assert history[-1].accuracy > 0.5
    assert changed(model.decoder, before[0])
    assert changed(model.classifier, before[1])
    assert not changed(model.encoder, before[2])
    assert not model.training


def test_unsupervised_training_regresses_first_and_then_leaves_the_decoder(digits: ImageSet) -> None:
    first, second = small_defense(), small_defense()
    second.load_state_dict(first.state_dict())
    second.encoder.refresh_norms()
    history = train_unsupervised(first, digits, QUICK, decoder_epochs=6)
    assert len(history) == 6 + QUICK.epochs
    assert history[5].loss < 0.9 * history[0].loss
    assert [epoch.accuracy is None for epoch in history] == [True] * 6 + [False] * QUICK.epochs
    train_unsupervised(second, digits, replace(QUICK, epochs=1), decoder_epochs=6)
    assert not changed(second.decoder, snapshot(first.decoder))
    assert changed(second.classifier, snapshot(first.classifier))
    assert not first.training


def test_a_frozen_decoder_keeps_its_statistics(digits: ImageSet) -> None:
    """The autoencoder is in evaluation mode while the classifier learns, as when the defense is used."""
    model = small_defense()
    model.decoder.layer = nn.Sequential(model.decoder.layer, nn.BatchNorm2d(1))
    model.classifier.layer = nn.Sequential(model.classifier.layer, nn.BatchNorm1d(10))
    train_unsupervised(model, digits, replace(QUICK, epochs=1), decoder_epochs=1)
    before = snapshot(model.decoder)
    assert int(before["layer.1.num_batches_tracked"]) == 4
    with frozen(model.decoder):
        fit(FrozenAutoencoder(model), digits, replace(QUICK, epochs=1), "classifier")
    assert not changed(model.decoder, before)
    assert int(model.classifier.layer[1].num_batches_tracked) == 8


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_plain_training_learns_and_its_seed_repeats_it(digits: ImageSet, precision: str) -> None:
    torch.manual_seed(0)
    models = [nn.Sequential(nn.Flatten(), nn.Linear(64, 10)) for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    settings = replace(QUICK, epochs=8, precision=precision)
    histories = [train_plain(model, digits, settings) for model in models]
    assert histories[0] == histories[1]
    assert not changed(models[0], snapshot(models[1]))
    assert histories[0][-1].loss < 0.8 * histories[0][0].loss
    assert [epoch.number for epoch in histories[0]] == list(range(1, 9))
    assert all(parameter.dtype == torch.float32 for parameter in models[0].parameters())


@pytest.mark.parametrize("part", ["decoder", "classifier"])
def test_bfloat16_is_of_the_steps_and_not_of_the_scores(digits: ImageSet, part: str) -> None:
    """The first two answers are to the checks before the first step."""
    model, dtypes = small_defense(), []
    layer = model.get_submodule(f"{part}.layer")
    layer.register_forward_hook(lambda _module, _inputs, output: dtypes.append(output.dtype))
    settings = replace(QUICK, epochs=1, precision="bfloat16")
    train_supervised(model, digits, settings, validation=digits.take(slice(70)))
    assert dtypes == [torch.bfloat16] * (2 + 4) + [torch.float32] * 2


def test_a_loss_that_is_not_finite_stops_the_training(digits: ImageSet) -> None:
    with pytest.raises(FloatingPointError, match=r"the loss became (inf|nan)"):
        fit(Brightness(scale=torch.inf), digits, QUICK, "brightness")


def test_what_is_not_finite_is_not_saved(digits: ImageSet, tmp_path: Path) -> None:
    """A checkpoint after every step, and a loss that is infinite in the second one; the first answer is a check's."""
    task, scales = Brightness(), iter([1.0, torch.inf, torch.inf])
    task.register_forward_hook(lambda module, *_: setattr(module, "scale", next(scales)))
    with pytest.raises(FloatingPointError):
        fit(task, digits, QUICK, "brightness", Run(tmp_path, seconds=0.0))
    tensors, notes = load_tensors(tmp_path / "checkpoint-brightness.safetensors")
    assert notes["position"]["step"] == 1
    assert all(bool(tensor.isfinite().all()) for tensor in tensors.values() if tensor.is_floating_point())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 0}, "epochs is 0"),
        ({"epochs": "3"}, "epochs is a str, expected an int"),
        ({"epochs": 2.5}, "epochs is a float, expected an int"),
        ({"epochs": np.int64(3)}, "epochs is a int64, expected an int"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"learning_rate": -0.1}, "learning_rate is -0.1, expected at least 0"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
        ({"momentum": float("inf")}, "momentum is inf"),
        ({"weight_decay": "5e-4"}, "weight_decay is a str, expected a number"),
        ({"augment": "no"}, "augment is a str, expected a bool"),
        ({"seed": 1.0}, "seed is a float, expected an int"),
        ({"precision": "float16"}, "precision is 'float16'"),
        ({"schedule": "cosine"}, "schedule is 'cosine', expected one of triangular, constant"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        TrainingSettings(**settings)  # type: ignore[arg-type]
