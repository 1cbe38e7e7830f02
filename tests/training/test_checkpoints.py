"""Stops and resumes: a killed run ends with the weights of an uninterrupted one."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from killed_run import SETTINGS, untrained
from models import small_defense
from neuroae import Defense, resnet32
from neuroae.data import ImageSet, load_dataset
from neuroae.training import Epoch, Run, train_plain, train_supervised, train_unsupervised
from neuroae.training import loop as training_loop
from neuroae.training.checkpoint import Position, TrainingState
from neuroae.utils.files import claimed, load_tensors, save_tensors
from saved_models import small_model


@pytest.fixture(scope="module")
def digits() -> ImageSet:
    return load_dataset("digits", "train").take(slice(72))


class Killed(Exception):
    pass


@contextmanager
def stopped_after(monkeypatch: pytest.MonkeyPatch, steps: int) -> Iterator[list[TrainingState]]:
    """Makes trainings raise after so many steps, and yields the list of the states that steps changed."""
    step = training_loop.step
    states: list[TrainingState] = []

    def stopping(module: nn.Module, state: TrainingState, *arguments: object) -> None:
        if len(states) == steps:
            raise Killed
        states.append(state)
        step(module, state, *arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(training_loop, "step", stopping)
        yield states


def assert_equal_states(first: nn.Module, second: nn.Module) -> None:
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, second.state_dict()[name]), name


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("steps", [0, 1, 4, 5, 9], ids="stopped after {}".format)
def test_a_stopped_run_goes_on_bit_for_bit(
    digits: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int, precision: str
) -> None:
    settings = replace(SETTINGS, precision=precision)
    uninterrupted, first, second = untrained(), untrained(), untrained()
    torch.manual_seed(7)
    expected = train_plain(uninterrupted, digits, settings, validation=digits)
    torch.manual_seed(7)
    run = Run(tmp_path, seconds=0)
    with stopped_after(monkeypatch, steps), pytest.raises(Killed):
        train_plain(first, digits, settings, run, digits)
    torch.manual_seed(99 if steps else 7)
    resumed = train_plain(second, digits, settings, run, digits)
    assert resumed == expected
    assert_equal_states(second, uninterrupted)
    assert not second.training


@pytest.mark.parametrize("steps", [3, 5, 8, 12], ids="stopped after {}".format)
def test_both_stages_of_an_unsupervised_training_go_on(
    digits: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    uninterrupted, first, second = small_defense(), small_defense(), small_defense()
    for model in (first, second):
        model.load_state_dict(uninterrupted.state_dict())
    expected = train_unsupervised(uninterrupted, digits, SETTINGS, decoder_epochs=1)
    with stopped_after(monkeypatch, steps), pytest.raises(Killed):
        train_unsupervised(first, digits, SETTINGS, 1, Run(tmp_path, seconds=0))
    assert train_unsupervised(second, digits, SETTINGS, 1, Run(tmp_path)) == expected
    assert_equal_states(second, uninterrupted)


def momenta(steps: list[TrainingState]) -> list[tuple[Tensor, Tensor]]:
    """Returns each parameter with its momentum."""
    optimizer = steps[-1].optimizer
    parameters = optimizer.param_groups[0]["params"]
    return [(parameter, optimizer.state[parameter]["momentum_buffer"]) for parameter in parameters]


def test_the_real_decoder_and_classifier_go_on_bit_for_bit(
    digits: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights are channels_last in memory, which a file does not store."""
    settings, few = replace(SETTINGS, epochs=1, batch_size=2), digits.take(slice(6))
    uninterrupted = small_model("defense")
    first, second = copy.deepcopy(uninterrupted), copy.deepcopy(uninterrupted)
    assert isinstance(uninterrupted, Defense)
    assert isinstance(first, Defense)
    assert isinstance(second, Defense)
    run = Run(tmp_path, seconds=0)
    with stopped_after(monkeypatch, 3) as expected:
        train_supervised(uninterrupted, few, settings)
    with stopped_after(monkeypatch, 2), pytest.raises(Killed):
        train_supervised(first, few, settings, run)
    with stopped_after(monkeypatch, 1) as resumed:
        train_supervised(second, few, settings, run)
    assert_equal_states(second, uninterrupted)
    for (parameter, momentum), (_, other) in zip(momenta(resumed), momenta(expected), strict=True):
        assert momentum.stride() == parameter.stride()
        assert torch.equal(momentum, other)


@pytest.mark.parametrize(
    ("seconds", "steps"),
    [({"seconds": 0}, [1, 2, 3, 4, 5]), ({"seconds": 24}, [1, 2, 3, 4, 5]), ({"seconds": 26}, [2, 4]), ({}, [3])],
    ids=["after every step", "a little less than a step", "a little more than a step", "a minute by default"],
)
def test_checkpoints_are_so_many_seconds_apart(
    digits: ImageSet,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    seconds: dict[str, Any],
    steps: list[int],
) -> None:
    """The clock is replaced: steps take 25 seconds, and all else takes none."""
    clock, saved = [0.0], []
    step = training_loop.step

    def slow(*arguments: object) -> None:
        clock[0] += 25
        step(*arguments)  # type: ignore[arg-type]

    def noted(path: Path, state: TrainingState, position: Position, identity: object) -> None:
        saved.append((position.epoch, position.step))

    monkeypatch.setattr(training_loop, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    monkeypatch.setattr(training_loop, "step", slow)
    monkeypatch.setattr(training_loop, "save_checkpoint", noted)
    history = train_plain(untrained(), digits, SETTINGS, Run(tmp_path, **seconds))
    assert saved == [*((0, number) for number in steps), (1, 0), *((1, number) for number in steps), (2, 0)]
    assert [epoch.images_per_second for epoch in history] == [len(digits) / (5 * 25)] * 2


def test_a_finished_run_is_only_loaded(digits: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = (small_defense() for _ in range(2))
    second.encoder = first.encoder
    reported: list[list[Epoch]] = []
    run = Run(tmp_path, report=reported.append)
    expected = train_supervised(first, digits, SETTINGS, run)
    assert [len(epochs) for epochs in reported] == [2, 2]
    with stopped_after(monkeypatch, 0):
        assert train_supervised(second, digits, SETTINGS, run) == expected
    assert_equal_states(second, first)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 3}, r"settings\.epochs is 2 there and 3 here"),
        ({"learning_rate": 0.1}, r"settings\.learning_rate is 0\.05 there and 0\.1 here"),
        ({"seed": 4}, r"settings\.seed is 3 there and 4 here"),
    ],
    ids=["epochs", "learning rate", "seed"],
)
def test_another_run_is_not_continued(digits: ImageSet, tmp_path: Path, change: dict[str, int], message: str) -> None:
    run = Run(tmp_path)
    train_plain(untrained(), digits, SETTINGS, run)
    before = (tmp_path / "checkpoint-classifier.safetensors").read_bytes()
    with pytest.raises(ValueError, match=rf"checkpoint-classifier\.safetensors belongs to another run: {message}"):
        train_plain(untrained(), digits, replace(SETTINGS, **change), run)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="data is"):
        train_plain(untrained(), digits.take(slice(50)), SETTINGS, run)
    wider = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    with pytest.raises(ValueError, match=r"model\.classifier\.1 is None there and 'Linear\(in_features=64, "):
        train_plain(wider, digits, SETTINGS, run)
    with pytest.raises(ValueError, match="dictionary is None there and 'other' here"):
        train_plain(untrained(), digits, SETTINGS, replace(run, identity={"dictionary": "other"}))
    assert (tmp_path / "checkpoint-classifier.safetensors").read_bytes() == before


def test_a_run_goes_on_with_its_own_atoms_and_validation_alone(digits: ImageSet, tmp_path: Path) -> None:
    """The checkpoint's atoms would replace the model's."""
    train_supervised(small_defense(), digits, SETTINGS, Run(tmp_path))
    other = small_defense()
    atoms = other.encoder.atoms.clone()
    with pytest.raises(ValueError, match=r"belongs to another run: atoms"):
        train_supervised(other, digits, SETTINGS, Run(tmp_path))
    assert torch.equal(other.encoder.atoms, atoms)
    train_plain(untrained(), digits, SETTINGS, Run(tmp_path), validation=digits.take(slice(20)))
    with pytest.raises(ValueError, match=r"belongs to another run: validation"):
        train_plain(untrained(), digits, SETTINGS, Run(tmp_path), validation=digits.take(slice(30)))


@pytest.mark.parametrize("name", ["settings", "data", "model"])
def test_an_identity_of_ones_own_replaces_nothing(digits: ImageSet, tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match=f"run.identity holds '{name}', expected another name"):
        train_plain(untrained(), digits, SETTINGS, Run(tmp_path, identity={name: "mine"}))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_weights_of_another_type_are_refused(digits: ImageSet, dtype: torch.dtype) -> None:
    with pytest.raises(TypeError, match=rf"weight is {dtype}, expected torch.float32"):
        train_plain(untrained().to(dtype), digits, SETTINGS)


def test_a_run_goes_on_where_pytorch_prints_its_layers_otherwise(
    digits: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PyTorch 2.14 says of batch normalization whether it has a bias, which 2.11 did not."""
    history = train_plain(untrained(), digits, SETTINGS, Run(tmp_path))
    for kind in (nn.Conv2d, nn.BatchNorm2d, nn.Linear):
        monkeypatch.setattr(kind, "extra_repr", lambda _: "printed otherwise")
    assert train_plain(untrained(), digits, SETTINGS, Run(tmp_path)) == history


def damaged(path: Path, kind: str) -> None:
    content = path.read_bytes()
    tensors, metadata = load_tensors(path)
    match kind:
        case "truncated":
            path.write_bytes(content[:-100])
        case "text":
            path.write_text("no checkpoint")
        case "other format":
            save_tensors(path, tensors, metadata | {"format": 0})
        case "weight missing":
            del tensors["task.classifier.layers.3.weight"]
            save_tensors(path, tensors, metadata)
        case "identity missing":
            save_tensors(path, tensors, {name: value for name, value in metadata.items() if name != "identity"})
        case "position missing":
            save_tensors(path, tensors, {name: value for name, value in metadata.items() if name != "position"})


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("truncated", "is not a whole safetensors file"),
        ("text", "is not a whole safetensors file"),
        ("other format", "is not a checkpoint of this version: format 0"),
        ("weight missing", "does not hold the state of this run"),
        ("identity missing", "does not say which run it belongs to"),
        ("position missing", "does not hold the state of this run"),
    ],
)
def test_a_damaged_checkpoint_is_refused_by_name(digits: ImageSet, tmp_path: Path, kind: str, message: str) -> None:
    run = Run(tmp_path)
    train_plain(untrained(), digits, SETTINGS, run)
    damaged(tmp_path / "checkpoint-classifier.safetensors", kind)
    with pytest.raises(ValueError, match=rf"checkpoint-classifier\.safetensors {message}"):
        train_plain(untrained(), digits, SETTINGS, run)


class Tied(nn.Module):
    """Two layers with one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(64, 64), nn.Linear(64, 64)
        self.last.weight = self.first.weight

    def forward(self, images: Tensor) -> Tensor:
        return self.last(self.first(images.flatten(1)).relu())[:, :10]


def test_tied_weights_go_on_bit_for_bit(digits: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uninterrupted = Tied()
    first, second = copy.deepcopy(uninterrupted), copy.deepcopy(uninterrupted)
    expected = train_plain(uninterrupted, digits, SETTINGS)
    with stopped_after(monkeypatch, 3), pytest.raises(Killed):
        train_plain(first, digits, SETTINGS, Run(tmp_path, seconds=0))
    assert train_plain(second, digits, SETTINGS, Run(tmp_path)) == expected
    assert second.first.weight is second.last.weight
    assert_equal_states(second, uninterrupted)


def test_what_a_killed_write_left_is_removed(digits: ImageSet, tmp_path: Path) -> None:
    leftover = tmp_path / ".checkpoint-classifier-abc12_45.safetensors"
    leftover.write_bytes(b"half a checkpoint")
    train_plain(untrained(), digits, SETTINGS, Run(tmp_path))
    assert not leftover.exists()


def test_a_folder_where_another_training_is_at_work_is_refused(digits: ImageSet, tmp_path: Path) -> None:
    with claimed(tmp_path), pytest.raises(BlockingIOError, match="another run is at work"):
        train_plain(untrained(), digits, SETTINGS, Run(tmp_path))
    assert train_plain(untrained(), digits, SETTINGS, Run(tmp_path))


POSITIONS: dict[str, tuple[dict[str, Any], str]] = {
    "an epoch before the first": ({"epoch": -1}, r"epoch is -1, expected in \[0, 2\]"),
    "an epoch after the last": ({"epoch": 3}, r"epoch is 3, expected in \[0, 2\]"),
    "a fraction of an epoch": ({"epoch": 1.0}, "epoch is a float, expected an int"),
    "a step before the first": ({"step": -1}, r"step is -1, expected in \[0, 5\]"),
    "a step after the last": ({"step": 6}, r"step is 6, expected in \[0, 5\]"),
    "a step after the last epoch": ({"epoch": 2, "step": 1}, r"step is 1, expected in \[0, 0\]"),
    "without history": ({"history": []}, r"epochs of the history is \[\], expected \[1\]"),
    "more images than steps": ({"meter": {"seen": 72}}, "meter.seen is 72, expected 48"),
    "more right answers than images": ({"meter": {"correct": 49}}, r"meter.correct is 49, expected in \[0, 48\]"),
    "less than nothing": ({"meter": {"classified": -1}}, "meter.classified is -1"),
    "an infinite loss": ({"meter": {"loss": torch.inf}}, "meter.loss is inf, expected a finite number"),
    "a step that the schedule has not made": (
        {"step": 2, "meter": {"seen": 32, "classified": 32, "correct": 0}},
        "steps of the schedule is 8, expected 7",
    ),
}


@pytest.mark.parametrize("change", POSITIONS)
def test_positions_that_no_training_comes_to_are_refused(
    digits: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    run = Run(tmp_path, seconds=0)
    with stopped_after(monkeypatch, 8), pytest.raises(Killed):
        train_plain(untrained(), digits, SETTINGS, run)
    path = tmp_path / "checkpoint-classifier.safetensors"
    tensors, metadata = load_tensors(path)
    position, (fields, message) = metadata["position"], POSITIONS[change]
    assert (position["epoch"], position["step"]) == (1, 3)
    changed = position | fields | {"meter": position["meter"] | fields.get("meter", {})}
    save_tensors(path, tensors, metadata | {"position": changed})
    model = untrained()
    with pytest.raises(ValueError, match=rf"{path.name} holds no position of this run: {message}"):
        train_plain(model, digits, SETTINGS, run)
    assert_equal_states(model, untrained())


@pytest.mark.parametrize("earlier", [False, True], ids=["now", "of an earlier version"])
def test_a_classifier_goes_on_with_its_constants(
    digits: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, earlier: bool
) -> None:
    few, settings, run = digits.take(slice(4)), replace(SETTINGS, epochs=1, batch_size=4), Run(tmp_path)
    train_plain(resnet32(10, 1, (0.1,), (0.4,)), few, settings, run)
    if earlier:
        path = tmp_path / "checkpoint-classifier.safetensors"
        tensors, metadata = load_tensors(path)
        del metadata["modules"]
        save_tensors(path, tensors, metadata)
    model = resnet32(10, 1, (0.5,), (0.5,))
    with stopped_after(monkeypatch, 0):
        train_plain(model, few, settings, run)
    assert float(model.mean) == pytest.approx(0.5 if earlier else 0.1)
