"""Models as folders: ``model.safetensors`` and a readable ``config.json``."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from .classifiers import ResNet32, resnet32
from .decoder import Decoder
from .defense import Defense
from .encoder import SparseEncoder
from .storage import load_json, load_tensors, save_json, save_tensors

WEIGHTS = "model.safetensors"
CONFIG = "config.json"
ENCODER_SETTINGS = ("stride", "top_t", "dropout_p", "epsilon", "beta", "quantize", "signed", "surrogate", "sigma")


def save_pretrained(model: nn.Module, folder: Path, notes: dict[str, Any] | None = None) -> None:
    """Writes a ``Defense`` of our decoder and ResNet-32, or a ResNet-32 alone.

    Args:
        model: what to save.
        folder: made if missing.
        notes: anything that JSON holds, kept in the configuration under "notes": data, training, accuracy.
    """
    config = describe(model) | {"notes": notes or {}}
    save_tensors(folder / WEIGHTS, model.state_dict())
    save_json(folder / CONFIG, config)


def load_pretrained(folder: Path) -> tuple[nn.Module, dict[str, Any]]:
    """The model, in evaluation mode, and its notes.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is damaged, or the two do not belong together; the message names the file.
    """
    config = load_json(folder / CONFIG)
    tensors, _ = load_tensors(folder / WEIGHTS)
    try:
        model = build(config, tensors)
        notes = dict(config["notes"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{folder / CONFIG} does not describe a model: {error!r}") from error
    try:
        model.load_state_dict(tensors)
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"{folder / WEIGHTS} does not fit {folder / CONFIG}: {error}") from error
    return model.eval(), notes


def describe(model: nn.Module) -> dict[str, Any]:
    if isinstance(model, ResNet32):
        return {"model": "classifier", "classifier": describe_classifier(model)}
    if isinstance(model, Defense) and isinstance(model.decoder, Decoder):
        return {
            "model": "defense",
            "encoder": {name: getattr(model.encoder, name) for name in ENCODER_SETTINGS},
            "decoder": describe_decoder(model.decoder),
            "classifier": describe_classifier(model.classifier),
        }
    raise TypeError(f"model is a {type(model).__name__}, expected a ResNet-32 or a Defense with a Decoder")


def describe_decoder(decoder: Decoder) -> dict[str, Any]:
    first = decoder.conv1
    return {
        "in_channels": first.in_channels,
        "kernel_size": first.kernel_size[0],
        "stride": first.stride[0],
        "image_size": list(decoder.image_size),
        "out_channels": decoder.conv3.out_channels,
        "resize": decoder.resize,
    }


def describe_classifier(classifier: nn.Module) -> dict[str, Any]:
    if not isinstance(classifier, ResNet32):
        raise TypeError(f"classifier is a {type(classifier).__name__}, expected a ResNet-32")
    return {
        "name": "resnet32",
        "num_classes": classifier.linear.out_features,
        "in_channels": classifier.conv1.in_channels,
        "mean": classifier.mean.flatten().tolist(),
        "std": classifier.std.flatten().tolist(),
    }


def build(config: dict[str, Any], tensors: dict[str, torch.Tensor]) -> nn.Module:
    if config["model"] == "classifier":
        return build_classifier(config["classifier"])
    if config["model"] != "defense":
        raise ValueError(f"model is {config['model']!r}, expected 'defense' or 'classifier'")
    decoder = dict(config["decoder"])
    decoder["image_size"] = tuple(decoder["image_size"])
    return Defense(
        SparseEncoder(tensors["encoder.atoms"], **config["encoder"]),
        Decoder(**decoder),
        build_classifier(config["classifier"]),
    )


def build_classifier(settings: dict[str, Any]) -> ResNet32:
    if settings["name"] != "resnet32":
        raise ValueError(f"classifier is {settings['name']!r}, expected 'resnet32'")
    return resnet32(settings["num_classes"], settings["in_channels"], tuple(settings["mean"]), tuple(settings["std"]))
