"""Training: the schedule, fresh masks, what each method touches, and models as folders."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from conftest import unit_atoms
from models import small_defense
from neuroae import Decoder, Defense, SparseEncoder, resnet32
from neuroae.data import ImageSet, load_dataset
from neuroae.pretrained import load_pretrained, save_pretrained
from neuroae.training import TrainingSettings, train_plain, train_supervised, train_unsupervised
from neuroae.training.loop import Batch, Objective, batches, fit

QUICK = TrainingSettings(epochs=2, batch_size=32, learning_rate=0.05)


@pytest.fixture(scope="module")
def digits() -> ImageSet:
    return load_dataset("digits", "train").take(slice(100))


def snapshot(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def changed(module: nn.Module, before: dict[str, torch.Tensor]) -> bool:
    return any(not torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())


@pytest.mark.parametrize(("epochs", "batch_size"), [(1, 100), (1, 50), (3, 30), (2, 7)])
def test_learning_rate_rises_and_falls_in_a_triangle(
    digits: ImageSet, monkeypatch: pytest.MonkeyPatch, epochs: int, batch_size: int
) -> None:
    rates = []
    step = torch.optim.SGD.step

    def recorded(self: torch.optim.SGD) -> None:
        rates.append(self.param_groups[0]["lr"])
        step(self)

    monkeypatch.setattr(torch.optim.SGD, "step", recorded)
    model = nn.Linear(1, 1)
    settings = TrainingSettings(epochs=epochs, batch_size=batch_size, learning_rate=0.4)
    fit(model, lambda batch: Objective(model(batch.images.mean((1, 2, 3))[:, None]).mean()), digits, settings, "")
    steps = epochs * -(-len(digits) // batch_size)
    peak = max(1, steps // 2)
    expected = [
        0.4 * (number / peak if number <= peak else (steps - number) / (steps - peak)) for number in range(steps)
    ]
    assert rates == pytest.approx(expected)


def test_every_epoch_shows_every_image_once_in_an_order_of_its_own(digits: ImageSet) -> None:
    epochs = [list(batches(digits, QUICK, epoch, torch.device("cpu"))) for epoch in (0, 1, 0)]
    orders = [torch.cat([batch.ids for batch in epoch]).tolist() for epoch in epochs]
    assert orders[0] == orders[2] != orders[1]
    for order in orders:
        assert sorted(order) == list(range(len(digits)))
    seeds = [batch.seed for epoch in epochs[:2] for batch in epoch]
    assert len(set(seeds)) == len(seeds)
    one = epochs[0][1]
    torch.testing.assert_close(one.images, digits.pixels()[one.ids])
    assert torch.equal(one.labels, digits.labels[one.ids])


def test_augmentation_is_an_option(digits: ImageSet) -> None:
    plain, augmented = (
        next(batches(digits, replace(QUICK, augment=augment), 0, torch.device("cpu"))) for augment in (False, True)
    )
    assert torch.equal(plain.ids, augmented.ids)
    assert not torch.equal(plain.images, augmented.images)


def test_masks_differ_at_every_step(digits: ImageSet, monkeypatch: pytest.MonkeyPatch) -> None:
    model, seen = small_defense(), []
    encode = SparseEncoder.encode

    def recorded(self, images, realizations=1, seed=None, image_ids=None):  # type: ignore[no-untyped-def]
        seen.append((seed, image_ids))
        return encode(self, images, realizations, seed, image_ids)

    monkeypatch.setattr(SparseEncoder, "encode", recorded)
    train_supervised(model, digits, QUICK)
    seeds = [seed for seed, _ in seen]
    assert None not in seeds
    assert len(set(seeds)) == len(seeds) == 2 * 4
    assert torch.cat([ids for _, ids in seen[:4]]).sort().values.tolist() == list(range(len(digits)))


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
    assert all(parameter.dtype == torch.float32 for parameter in models[0].parameters())


def test_bfloat16_reaches_decoder_and_classifier(digits: ImageSet) -> None:
    model, dtypes = small_defense(), set()
    model.classifier.layer.register_forward_hook(lambda _module, _inputs, output: dtypes.add(output.dtype))
    model.decoder.layer.register_forward_hook(lambda _module, _inputs, output: dtypes.add(output.dtype))
    train_supervised(model, digits, replace(QUICK, epochs=1, precision="bfloat16"))
    assert dtypes == {torch.bfloat16}


def test_a_loss_that_is_not_finite_stops_the_training(digits: ImageSet) -> None:
    model = nn.Linear(1, 1)

    def broken(batch: Batch) -> Objective:
        return Objective(model(batch.images.mean((1, 2, 3))[:, None]).sum() * torch.inf)

    with pytest.raises(FloatingPointError, match="the loss became"):
        fit(model, broken, digits, QUICK, "")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 0}, "epochs is 0"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"precision": "float16"}, "precision is 'float16'"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainingSettings(**settings)  # type: ignore[arg-type]


def trained_defense() -> Defense:
    encoder = SparseEncoder(unit_atoms(12, 1, 3), stride=1, top_t=5, dropout_p=0.25, epsilon=0.1, beta=1.5, sigma=0.4)
    classifier = resnet32(10, 1, (0.3,), (0.4,))
    classifier(torch.rand(4, 1, 8, 8))
    return Defense(encoder, Decoder(12, 3, 1, (8, 8), 1), classifier).eval()


@pytest.mark.parametrize("kind", ["defense", "classifier"])
def test_a_saved_model_comes_back_bit_for_bit(tmp_path: Path, kind: str) -> None:
    model: nn.Module = trained_defense() if kind == "defense" else trained_defense().classifier
    save_pretrained(model, tmp_path / "model", {"epochs": 3})
    loaded, notes = load_pretrained(tmp_path / "model")
    assert notes == {"epochs": 3}
    assert not loaded.training
    assert not changed(loaded, snapshot(model))
    images, ids = torch.rand(3, 1, 8, 8), torch.tensor([1, 5, 2])
    seeded = {"seed": 3, "image_ids": ids} if kind == "defense" else {}
    assert torch.equal(loaded(images, **seeded), model(images, **seeded))
    if isinstance(model, Defense):
        assert isinstance(loaded, Defense)
        assert loaded.encoder.extra_repr() == model.encoder.extra_repr()
    save_pretrained(loaded, tmp_path / "again", notes)
    for name in ("model.safetensors", "config.json"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "model" / name).read_bytes()


def damage(folder: Path, how: str) -> None:
    weights, config = folder / "model.safetensors", folder / "config.json"
    whole, described = weights.read_bytes(), json.loads(config.read_text())
    match how:
        case "truncated weights":
            weights.write_bytes(whole[: len(whole) // 2])
        case "weights are text":
            weights.write_text("no tensors here")
        case "truncated config":
            config.write_text(config.read_text()[:40])
        case "config of something else":
            config.write_text('{"name": "else"}')
        case "config is a list":
            config.write_text("[]")
        case "config of another shape":
            described["decoder"]["kernel_size"] = 5
            config.write_text(json.dumps(described))
        case "encoder setting out of range":
            described["encoder"]["dropout_p"] = 1.0
            config.write_text(json.dumps(described))


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("truncated weights", r"model\.safetensors is not a whole safetensors file"),
        ("weights are text", r"model\.safetensors is not a whole safetensors file"),
        ("truncated config", r"config\.json is not a JSON file"),
        ("config of something else", r"config\.json does not describe a model: KeyError\('model'\)"),
        ("config is a list", r"config\.json does not describe a model"),
        ("config of another shape", r"model\.safetensors does not fit .*config\.json"),
        ("encoder setting out of range", r"config\.json does not describe a model: .*dropout_p is 1\.0"),
    ],
)
def test_a_damaged_folder_is_refused_by_name(tmp_path: Path, how: str, message: str) -> None:
    save_pretrained(trained_defense(), tmp_path)
    damage(tmp_path, how)
    with pytest.raises(ValueError, match=message):
        load_pretrained(tmp_path)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    save_pretrained(trained_defense(), tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(FileNotFoundError, match=name):
        load_pretrained(tmp_path)


def test_models_of_other_kinds_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="model is a Linear"):
        save_pretrained(nn.Linear(2, 2), tmp_path)
    with pytest.raises(TypeError, match="classifier is a Linear"):
        save_pretrained(Defense(trained_defense().encoder, trained_defense().decoder, nn.Linear(2, 2)), tmp_path)
    assert not list(tmp_path.iterdir())
