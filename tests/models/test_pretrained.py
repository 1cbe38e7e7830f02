"""Models as folders: saving and loading, rounding to float16, names, and models that cannot be saved."""

import math
import os
from collections.abc import Callable
from pathlib import Path

import hypothesis
import pytest
import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from neuroae import Defense
from neuroae.models import folders, load_pretrained, save_pretrained, shipped_names
from neuroae.models.fingerprints import fingerprint
from neuroae.models.folders import round_to_half
from neuroae.nn.classifiers import ResNet32
from neuroae.utils.files import load_tensors
from saved_models import small_model

FILES = ("model.safetensors", "config.json", "README.md")
LARGEST_HALF = 65504.0


def logits_of(model: Defense | ResNet32) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    images = torch.rand(3, 1, 8, 8, generator=generator)
    if isinstance(model, Defense):
        return model(images, seed=3, image_ids=torch.tensor([1, 5, 2])).detach()
    return model(images).detach()


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Ships the models "one" and "two", and changes to an empty working directory."""
    shelf, working = tmp_path / "weights", tmp_path / "working"
    working.mkdir()
    monkeypatch.chdir(working)
    monkeypatch.setattr(folders, "SHIPPED", shelf)
    small_model("defense").save_pretrained(shelf / "one", {"which": "shipped one"})
    small_model("classifier").save_pretrained(shelf / "two", {"which": "shipped two"})
    return shelf


@pytest.mark.parametrize("kind", ["defense", "classifier"])
def test_a_saved_model_comes_back_bit_for_bit(tmp_path: Path, kind: str) -> None:
    model = small_model(kind)
    model.save_pretrained(tmp_path / "model", {"epochs done": 3})
    loaded, notes = load_pretrained(tmp_path / "model")
    assert notes == {"epochs done": 3}
    assert type(loaded) is type(model)
    assert not loaded.training
    assert loaded.state_dict().keys() == model.state_dict().keys()
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
    assert torch.equal(logits_of(loaded), logits_of(model))
    if isinstance(model, Defense):
        assert loaded.encoder.extra_repr() == model.encoder.extra_repr()
    again = type(model).from_pretrained(tmp_path / "model")
    again.save_pretrained(tmp_path / "again" / "model", notes)
    for name in FILES:
        assert (tmp_path / "again" / "model" / name).read_bytes() == (tmp_path / "model" / name).read_bytes()


def test_a_saved_model_is_float32_under_another_default_dtype(tmp_path: Path, default_dtype: torch.dtype) -> None:
    torch.set_default_dtype(torch.float32)
    small_model("defense").save_pretrained(tmp_path)
    torch.set_default_dtype(default_dtype)
    model = Defense.from_pretrained(tmp_path)
    assert {tensor.dtype for tensor in (*model.parameters(), *model.buffers())} == {torch.float32, torch.int64}
    assert torch.get_default_dtype() == default_dtype


@pytest.mark.parametrize("kind", ["defense", "classifier"])
def test_float16_changes_the_weights_of_layers_alone(tmp_path: Path, kind: str) -> None:
    model = small_model(kind)
    model.save_pretrained(tmp_path, half=True)
    stored, _ = load_tensors(tmp_path / "model.safetensors")
    loaded = type(model).from_pretrained(tmp_path).state_dict()
    layers = {
        f"{name}.weight"
        for name, module in model.named_modules()
        if any(word in type(module).__name__ for word in ("Conv", "Linear"))
    }
    assert {name for name, tensor in stored.items() if tensor.dtype == torch.float16} == layers
    for name, tensor in model.state_dict().items():
        assert loaded[name].dtype == tensor.dtype
        if name in layers:
            assert not torch.equal(loaded[name], tensor)
            torch.testing.assert_close(loaded[name], tensor, rtol=2**-11, atol=2**-25)
        else:
            assert torch.equal(stored[name], tensor), name


@hypothesis.given(st.lists(st.floats(-LARGEST_HALF, LARGEST_HALF, width=32), min_size=1))
def test_float16_is_as_close_as_documented(numbers: list[float]) -> None:
    weight = torch.tensor(numbers)
    half = round_to_half("weight", weight)
    assert half.dtype == torch.float16
    assert bool(((half.double() - weight).abs() <= (weight.double().abs() * 2**-11).clamp(min=2**-25)).all())


@hypothesis.given(
    st.floats(65520, width=32) | st.floats(max_value=-65520, width=32) | st.just(math.nan), st.integers(0, 4)
)
def test_numbers_that_float16_cannot_hold_are_refused(number: float, index: int) -> None:
    weight = torch.zeros(5)
    weight[index] = number
    with pytest.raises(ValueError, match=r"decoder\.conv1\.weight reaches .*, float16 holds at most 65504"):
        round_to_half("decoder.conv1.weight", weight)


def test_a_partly_written_model_is_not_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The configuration is removed before other files are replaced, and written last."""
    small_model("defense").save_pretrained(tmp_path)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(folders, "save_json", interrupt)
    with pytest.raises(KeyboardInterrupt):
        small_model("defense").save_pretrained(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"config\.json is missing"):
        load_pretrained(tmp_path)


def test_old_temporary_files_are_removed_when_a_model_is_saved(tmp_path: Path) -> None:
    old, new = tmp_path / ".model-abcd1234.safetensors", tmp_path / ".model-efgh5678.safetensors"
    for path in (old, new):
        path.touch()
    os.utime(old, (0, 0))
    small_model("defense").save_pretrained(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {*FILES, new.name}


def test_a_failed_save_does_not_change_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_model("defense").save_pretrained(tmp_path, {"which": "first"})
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def fail(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(folders, "save_tensors", fail)
    with pytest.raises(OSError, match="no space left"):
        small_model("defense").save_pretrained(tmp_path, {"which": "second"})
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_refused_model_leaves_no_files(tmp_path: Path) -> None:
    model = small_model("defense")
    model.decoder.conv2.weight.data[0, 0, 0, 0] = 1e5
    with pytest.raises(ValueError, match=r"decoder\.conv2\.weight reaches 100000"):
        model.save_pretrained(tmp_path, half=True)
    with pytest.raises(TypeError, match="not JSON serializable"):
        model.save_pretrained(tmp_path, {"model": model})
    with pytest.raises(TypeError, match=r"is torch\.bfloat16, expected torch\.float32"):
        small_model("classifier").bfloat16().save_pretrained(tmp_path)
    with pytest.raises(TypeError, match="model is a Linear"):
        save_pretrained(nn.Linear(2, 2), tmp_path)
    with pytest.raises(TypeError, match="classifier is a Linear"):
        save_pretrained(Defense(model.encoder, model.decoder, nn.Linear(2, 2)), tmp_path)
    assert not list(tmp_path.iterdir())
    model.save_pretrained(tmp_path)
    assert Defense.from_pretrained(tmp_path).decoder.conv2.weight[0, 0, 0, 0] == 1e5


def test_names_of_shipped_models(shelf: Path) -> None:
    assert shipped_names() == ["one", "two"]
    assert load_pretrained("one")[1] == load_pretrained(Path("one"))[1] == {"which": "shipped one"}
    assert isinstance(Defense.from_pretrained("one"), Defense)
    assert isinstance(ResNet32.from_pretrained("two"), ResNet32)


def test_a_folder_with_a_model_has_precedence_over_a_shipped_name(shelf: Path) -> None:
    Path("one").mkdir()
    Path("one", "test_batch.bin").write_text("images, not a model")
    assert load_pretrained("one")[1] == {"which": "shipped one"}
    small_model("classifier").save_pretrained("one", {"which": "folder"})
    assert load_pretrained("one")[1] == {"which": "folder"}
    Path("one", "config.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"^one/config\.json is missing"):
        load_pretrained("one")


@pytest.mark.parametrize("name", ["three", "ones", "../weights/three", "file.safetensors"])
def test_the_error_of_an_unknown_name_lists_the_shipped_names(shelf: Path, name: str) -> None:
    Path("file.safetensors").touch()
    with pytest.raises(FileNotFoundError, match=f"unknown name '{name}': neither a folder nor one of one, two"):
        Defense.from_pretrained(name)


def test_a_model_of_another_class_is_refused(shelf: Path) -> None:
    with pytest.raises(ValueError, match=r"two holds a ResNet32, expected a Defense; use ResNet32\.from_pretrained"):
        Defense.from_pretrained("two")
    with pytest.raises(ValueError, match=r"one holds a Defense, expected a ResNet32; use Defense\.from_pretrained"):
        ResNet32.from_pretrained("one")


def test_a_folder_keeps_w_aiga(tmp_path: Path) -> None:
    model = small_model("defense").with_surrogate("autoencoder-identity")
    model.save_pretrained(tmp_path)
    assert Defense.from_pretrained(tmp_path).autoencoder_identity
    small_model("defense").save_pretrained(tmp_path)
    assert not Defense.from_pretrained(tmp_path).autoencoder_identity


def wider_normalization(model: Defense) -> None:
    model.classifier.bn1.eps = 1e-3


def padded(model: Defense) -> None:
    model.decoder.conv3.padding = (1, 1)


def without_bias(model: Defense) -> None:
    model.classifier.linear = nn.Linear(64, 10, bias=False)


def parametrized(model: Defense) -> None:
    nn.utils.parametrizations.weight_norm(model.decoder.conv3)


def with_more(model: Defense) -> None:
    model.encoder.register_buffer("more", torch.zeros(2))


def nested(model: Defense) -> None:
    model.decoder.conv3 = nn.Sequential(model.decoder.conv3)


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (wider_normalization, r"classifier\.bn1 is BatchNorm2d"),
        (padded, r"decoder\.conv3 is ConvTranspose2d"),
        (without_bias, r"classifier\.linear is Linear"),
        (parametrized, r"decoder\.conv3"),
        (with_more, "encoder is SparseEncoder"),
        (nested, r"decoder\.conv3 is a Sequential"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_an_altered_model_is_not_saved(tmp_path: Path, change: Callable[[Defense], object], part: str) -> None:
    """Its fingerprint differs as well, so that evaluations do not confuse the two."""
    model = small_model("defense")
    before = fingerprint(model)
    change(model)
    with pytest.raises(TypeError, match=part):
        model.save_pretrained(tmp_path)
    assert not list(tmp_path.iterdir())
    assert fingerprint(model) != before
