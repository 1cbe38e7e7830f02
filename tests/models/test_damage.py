"""Damaged models: loading refuses them, and the error names the file and the field or tensor."""

import json
import math
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from neuroae.models import load_pretrained
from neuroae.utils.files import load_json, load_tensors, save_tensors
from saved_models import small_model


def damage(folder: Path, kind: str) -> None:
    """Damages a saved defense."""
    weights, config = folder / "model.safetensors", folder / "config.json"
    content, fields = weights.read_bytes(), load_json(config)
    match kind:
        case "truncated weights":
            weights.write_bytes(content[: len(content) // 2])
        case "weights are text":
            weights.write_text("no tensors here")
        case "weights are a pickle":
            weights.write_bytes(pickle.dumps({"encoder.atoms": [1.0]}))
        case "truncated config":
            config.write_text(config.read_text()[:40])
        case "config of something else":
            config.write_text('{"name": "else"}')
        case "config is a list":
            config.write_text("[]")
        case "weights of a classifier":
            small_model("classifier").save_pretrained(folder / "other")
            (folder / "other" / "model.safetensors").replace(weights)
        case "atoms twice as long":
            tensors, _ = load_tensors(weights)
            save_tensors(weights, tensors | {"encoder.atoms": 2 * tensors["encoder.atoms"]})
        case "config of another shape":
            fields["decoder"]["kernel_size"] = 5
            config.write_text(json.dumps(fields))


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("truncated weights", r"model\.safetensors is not a whole safetensors file"),
        ("weights are text", r"model\.safetensors is not a whole safetensors file"),
        ("weights are a pickle", r"model\.safetensors is not a whole safetensors file"),
        ("truncated config", r"config\.json is not a JSON file"),
        ("config of something else", r"config\.json does not describe a model: .*model is None, expected 'defense'"),
        ("config is a list", r"config\.json does not describe a model"),
        ("weights of a classifier", r"model\.safetensors does not fit .*config\.json: encoder\.atoms is missing"),
        (
            "atoms twice as long",
            r"model\.safetensors does not fit .*config\.json: encoder\.atoms: .* norms from 2",
        ),
        ("config of another shape", r"model\.safetensors does not fit .*config\.json"),
    ],
)
def test_a_damaged_folder_is_refused_by_name(tmp_path: Path, kind: str, message: str) -> None:
    small_model("defense").save_pretrained(tmp_path)
    damage(tmp_path, kind)
    with pytest.raises(ValueError, match=message):
        load_pretrained(tmp_path)


@pytest.mark.filterwarnings("error")
def test_a_flipped_bit_of_a_weight_is_refused_by_name(tmp_path: Path) -> None:
    model = small_model("defense")
    model.save_pretrained(tmp_path)
    load_pretrained(tmp_path)
    weight = model.state_dict()["decoder.conv2.weight"].contiguous().numpy().tobytes()
    content = bytearray((tmp_path / "model.safetensors").read_bytes())
    content[content.index(weight) + 1] ^= 64
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(
        ValueError, match=r"model\.safetensors is damaged: decoder\.conv2\.weight does not fit its dig"
    ):
        load_pretrained(tmp_path)


def test_weights_without_digests_are_a_warning(tmp_path: Path) -> None:
    model = small_model("defense")
    model.save_pretrained(tmp_path)
    tensors, _ = load_tensors(tmp_path / "model.safetensors")
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.warns(UserWarning, match=r"model\.safetensors holds no digests of its tensors"):
        loaded, _ = load_pretrained(tmp_path)
    assert torch.equal(loaded.state_dict()["decoder.conv2.weight"], model.state_dict()["decoder.conv2.weight"])


WRONG_FIELDS = {
    "dropout-of-1": ("encoder", "dropout_p", 1.0, r"dropout_p is 1\.0"),
    "no-coefficients": ("encoder", "top_t", 0, r"top_t is 0, expected in \[1, 12\]"),
    "negative-atoms": ("decoder", "in_channels", -12, r"decoder\.in_channels is -12, expected at least 1"),
    "no-kernel": ("decoder", "kernel_size", 0, r"decoder\.kernel_size is 0, expected at least 1"),
    "negative-stride": ("decoder", "stride", -1, r"decoder\.stride is -1, expected at least 1"),
    "no-colours": ("decoder", "out_channels", 0, r"decoder\.out_channels is 0, expected at least 1"),
    "size-as-text": ("decoder", "kernel_size", "3", r"decoder\.kernel_size is a str, expected an int"),
    "negative-height": ("decoder", "image_size", [-8, 8], r"decoder\.image_size is -8, expected at least 1"),
    "no-width": ("decoder", "image_size", [8], r"decoder\.image_size is \[8\], expected height and width"),
    "negative-classes": ("classifier", "num_classes", -10, r"classifier\.num_classes is -10, expected at least 1"),
    "no-channels": ("classifier", "in_channels", 0, r"classifier\.in_channels is 0, expected at least 1"),
    "mean-not-a-number": ("classifier", "mean", [math.nan], r"classifier\.mean is nan, expected a finite number"),
    "mean-alone": ("classifier", "mean", 0.3, r"classifier\.mean is a float, expected a list"),
    "yes-in-words": ("encoder", "quantize", "yes", r"quantize is a str, expected a bool"),
    "no-as-a-number": ("encoder", "signed", 0, r"signed is a int, expected a bool"),
    "resize-as-a-number": ("decoder", "resize", 1, r"decoder\.resize is a int, expected a bool"),
    "unknown-to-the-encoder": ("encoder", "backend", "cpu", r"encoder\.backend is unknown, expected stride"),
    "unknown-to-the-decoder": ("decoder", "layers", 3, r"decoder\.layers is unknown"),
    "unknown-to-the-classifier": ("classifier", "depth", 3, r"classifier\.depth is unknown"),
    "no-deviation": ("classifier", "std", [0.0], r"classifier\.std is 0\.0, expected above 0"),
}


@pytest.mark.parametrize(("part", "field", "value", "message"), WRONG_FIELDS.values(), ids=WRONG_FIELDS.keys())
def test_an_invalid_configuration_is_refused_by_its_field(
    tmp_path: Path, part: str, field: str, value: object, message: str
) -> None:
    small_model("defense").save_pretrained(tmp_path)
    fields = load_json(tmp_path / "config.json")
    fields[part][field] = value
    (tmp_path / "config.json").write_text(json.dumps(fields))
    with pytest.raises(ValueError, match=rf"config\.json does not describe a model: .*{message}"):
        load_pretrained(tmp_path)


@pytest.mark.parametrize("field", ["notes", "decoder", "encoder.sigma", "decoder.resize", "classifier.std"])
def test_a_field_that_is_missing_is_named(tmp_path: Path, field: str) -> None:
    small_model("defense").save_pretrained(tmp_path)
    fields = load_json(tmp_path / "config.json")
    part, _, name = field.rpartition(".")
    del (fields[part] if part else fields)[name]
    (tmp_path / "config.json").write_text(json.dumps(fields))
    with pytest.raises(ValueError, match=rf"config\.json does not describe a model: .*'{field} is missing"):
        load_pretrained(tmp_path)


def test_a_part_that_the_model_does_not_have_is_named(tmp_path: Path) -> None:
    small_model("classifier").save_pretrained(tmp_path)
    fields = load_json(tmp_path / "config.json")
    (tmp_path / "config.json").write_text(json.dumps(fields | {"decoder": {}}))
    with pytest.raises(ValueError, match=r"config\.json does not describe a model: .*decoder is unknown"):
        load_pretrained(tmp_path)


HUGE = 10**12


@pytest.mark.parametrize(
    ("part", "field"),
    [
        ("decoder", "in_channels"),
        ("decoder", "kernel_size"),
        ("decoder", "out_channels"),
        ("classifier", "num_classes"),
        ("classifier", "in_channels"),
    ],
)
def test_a_size_that_differs_from_the_weights_is_refused_before_it_takes_memory(
    tmp_path: Path, part: str, field: str
) -> None:
    small_model("defense").save_pretrained(tmp_path)
    fields = load_json(tmp_path / "config.json")
    fields[part][field] = HUGE
    (tmp_path / "config.json").write_text(json.dumps(fields))
    message = rf"model\.safetensors does not fit .*config\.json: {part}\.{field} is {HUGE}, but {part}\..* has shape"
    with pytest.raises(ValueError, match=message):
        load_pretrained(tmp_path)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", ["encoder.atoms", "decoder.conv2.bias", "classifier.block3.4.bn2.running_var"])
def test_weights_with_nan_or_infinity_are_neither_loaded_nor_saved(tmp_path: Path, name: str, value: float) -> None:
    model = small_model("defense")
    model.save_pretrained(tmp_path / "good")
    tensors, _ = load_tensors(tmp_path / "good" / "model.safetensors")
    tensors[name].view(-1)[1] = value
    save_tensors(tmp_path / "good" / "model.safetensors", tensors)
    with pytest.raises(ValueError, match=rf"model\.safetensors does not fit .*: {name}[ :].* (NaN|nan|inf)"):
        load_pretrained(tmp_path / "good")
    model.state_dict()[name].view(-1)[1] = value
    with pytest.raises(ValueError, match=f"^{name} is NaN or infinite in 1 of "):
        model.save_pretrained(tmp_path / "bad")
    assert not (tmp_path / "bad").exists()


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    small_model("defense").save_pretrained(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(FileNotFoundError, match=name):
        load_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("encoder.atoms", torch.float16),
        ("classifier.bn1.weight", torch.float16),
        ("classifier.bn1.running_mean", torch.float16),
        ("decoder.conv1.bias", torch.float16),
        ("decoder.conv1.weight", torch.bfloat16),
        ("classifier.bn1.num_batches_tracked", torch.float32),
    ],
)
def test_a_tensor_stored_in_another_dtype_is_refused(tmp_path: Path, name: str, dtype: torch.dtype) -> None:
    small_model("defense").save_pretrained(tmp_path)
    tensors, _ = load_tensors(tmp_path / "model.safetensors")
    save_tensors(tmp_path / "model.safetensors", tensors | {name: tensors[name].to(dtype)})
    with pytest.raises(ValueError, match=rf"{name.split('.')[-1]}.* {dtype}, expected torch\."):
        load_pretrained(tmp_path)
