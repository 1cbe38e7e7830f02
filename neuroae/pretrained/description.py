"""Models as settings that JSON holds, and back."""

from typing import Any

from torch import Tensor, nn

from ..classifiers import ResNet32, resnet32
from ..decoder import Decoder
from ..defense import Defense
from ..encoder import SparseEncoder, check_atoms, check_integer, check_number

ATOMS = "encoder.atoms"
ENCODER_SETTINGS = ("stride", "top_t", "dropout_p", "epsilon", "beta", "quantize", "signed", "surrogate", "sigma")


def describe(model: nn.Module) -> dict[str, Any]:
    """What ``build`` needs beside the tensors, for a ``Defense`` of our decoder and ResNet-32 or a ResNet-32 alone."""
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


class UnfitTensors(ValueError):
    """The tensors are wrong, not the settings."""


def build(config: dict[str, Any], tensors: dict[str, Tensor]) -> Defense | ResNet32:
    """An untrained model of these settings; its dictionary comes from the tensors.

    Raises:
        UnfitTensors: they lack the dictionary that a defense needs, or hold something else in its place.
        KeyError, TypeError, ValueError: the settings describe no model.
    """
    if config["model"] == "classifier":
        return build_classifier(config["classifier"])
    if config["model"] != "defense":
        raise ValueError(f"model is {config['model']!r}, expected 'defense' or 'classifier'")
    decoder, classifier = build_decoder(config["decoder"]), build_classifier(config["classifier"])
    return Defense(SparseEncoder(dictionary(tensors), **config["encoder"]), decoder, classifier)


def dictionary(tensors: dict[str, Tensor]) -> Tensor:
    if ATOMS not in tensors:
        raise UnfitTensors(f"{ATOMS} is missing, which a defense has")
    try:
        check_atoms(tensors[ATOMS])
    except (TypeError, ValueError) as error:
        raise UnfitTensors(f"{ATOMS}: {error}") from error
    return tensors[ATOMS]


def build_decoder(settings: dict[str, Any]) -> Decoder:
    size = settings["image_size"]
    if not isinstance(size, list) or len(size) != 2:
        raise ValueError(f"decoder.image_size is {size!r}, expected height and width")
    for name in ("in_channels", "kernel_size", "stride", "out_channels"):
        check_integer(f"decoder.{name}", settings[name], 1)
    for side in size:
        check_integer("decoder.image_size", side, 1)
    return Decoder(**settings | {"image_size": tuple(size)})


def build_classifier(settings: dict[str, Any]) -> ResNet32:
    if settings["name"] != "resnet32":
        raise ValueError(f"classifier is {settings['name']!r}, expected 'resnet32'")
    for name in ("num_classes", "in_channels"):
        check_integer(f"classifier.{name}", settings[name], 1)
    for mean in settings["mean"]:
        check_number("classifier.mean", mean, lambda _: True, "a finite number")
    for std in settings["std"]:
        check_number("classifier.std", std, lambda width: width > 0, "above 0")
    return resnet32(settings["num_classes"], settings["in_channels"], tuple(settings["mean"]), tuple(settings["std"]))
