"""Models as settings that JSON holds, and back."""

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ..nn.classifiers import ResNet32, resnet32
from ..nn.decoder import CLAMP_WIDTH, Decoder
from ..nn.defense import AUTOENCODER_IDENTITY, Defense
from ..nn.encoder import SparseEncoder, check_atoms
from ..utils.contexts import drawing_from, float32_by_default
from ..utils.files import load_json
from ..utils.modules import direct_tensors, module_settings
from ..utils.validation import check_boolean, check_integer, check_number

CLASSES = "classes"


def class_names(notes: dict[str, Any], count: int) -> tuple[str, ...] | None:
    """The names under "classes", one a logit; None in the notes of earlier versions, which had none.

    Raises:
        ValueError: these are not ``count`` different names.
    """
    names = notes.get(CLASSES)
    if names is None:
        return None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"notes.{CLASSES} is {names!r}, expected a list of names")
    if len(set(names)) != len(names) or len(names) != count:
        raise ValueError(f"notes.{CLASSES} holds {', '.join(names)}, expected {count} different names")
    return tuple(names)


def load_class_names(path: Path) -> tuple[str, ...] | None:
    """Those of a configuration; see ``class_names``."""
    config = load_json(path)
    try:
        return class_names(config["notes"], config["classifier"]["num_classes"])
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} does not describe a model: {error!r}") from error


ATOMS = "encoder.atoms"
ENCODER_SETTINGS = ("stride", "top_t", "dropout_p", "epsilon", "beta", "quantize", "signed", "surrogate", "sigma")
LATER_SETTINGS: dict[type, dict[str, Any]] = {
    SparseEncoder: {"selection_width": None},
    Decoder: {"clamp_width": CLAMP_WIDTH},
}
PARTS = {"defense": ("encoder", "decoder", "classifier"), "classifier": ("classifier",)}
# Sizes by the tensor and its dimension that have them too.
DECODER_SIZES = {
    "in_channels": ("conv1.weight", 0),
    "kernel_size": ("conv1.weight", 2),
    "out_channels": ("conv3.weight", 1),
}
CLASSIFIER_SIZES = {"num_classes": ("linear.weight", 0), "in_channels": ("conv1.weight", 1)}


def describe(model: nn.Module) -> dict[str, Any]:
    """What ``build`` needs beside the tensors, for a ``Defense`` of our decoder and ResNet-32 or a ResNet-32 alone.

    Raises:
        TypeError: a model that ``build`` makes of it would be another; the message names the part.
    """
    found = described(model)
    try:
        with drawing_from(0), float32_by_default():
            twin = build(found | {"notes": {}}, model.state_dict())
    except UnfitTensors as error:
        raise TypeError(f"model has other tensors than a saved one holds: {error}") from error
    here, there = made_of(model), made_of(twin)
    for path in {**there, **here}:
        if here.get(path) != there.get(path):
            said = f"{here.get(path, 'missing')}, expected {there.get(path, 'nothing of that name')}"
            raise TypeError(f"{path or 'model'} is {said}: a saved model holds no other")
    return found


def made_of(model: nn.Module) -> dict[str, str]:
    """Each module by its path: what it is, and the settings and shapes that ``described`` does not tell."""
    found = {}
    for path, module in model.named_modules():
        shapes = [f"{name} {tuple(tensor.shape)}" for name, tensor in direct_tensors(module)]
        kept = "" if isinstance(module, SparseEncoder) else module_settings(module)
        found[path] = f"{type(module).__name__}({kept}) of {', '.join(shapes) or 'no tensors'}"
    return found


def described(model: nn.Module) -> dict[str, Any]:
    # Of a subclass nothing would be kept but what it comes from.
    if type(model) is ResNet32:
        return {"model": "classifier", "classifier": describe_classifier(model)}
    if type(model) is Defense and type(model.encoder) is SparseEncoder and type(model.decoder) is Decoder:
        return {
            "model": "defense",
            "encoder": describe_encoder(model.encoder),
            "decoder": describe_decoder(model.decoder),
            "classifier": describe_classifier(model.classifier),
        }
    kind = type(model).__name__
    if isinstance(model, Defense):
        kind += f" of {', '.join(type(part).__name__ for part in model.children())}"
    raise TypeError(f"model is a {kind}, expected a ResNet32, or a Defense of SparseEncoder, Decoder and ResNet32")


def describe_encoder(encoder: SparseEncoder) -> dict[str, Any]:
    return {name: getattr(encoder, name) for name in ENCODER_SETTINGS} | later_settings(encoder)


def describe_decoder(decoder: Decoder) -> dict[str, Any]:
    first, last = decoder.conv1, decoder.conv3
    for name, layer in {"conv1": first, "conv3": last}.items():
        if not isinstance(layer, nn.ConvTranspose2d):
            raise TypeError(f"decoder.{name} is a {type(layer).__name__}, expected a transposed convolution")
    return {
        "in_channels": first.in_channels,
        "kernel_size": first.kernel_size[0],
        "stride": first.stride[0],
        "image_size": list(decoder.image_size),
        "out_channels": last.out_channels,
        "resize": decoder.resize,
        **later_settings(decoder),
    }


def later_settings(part: nn.Module) -> dict[str, Any]:
    """Settings that came after the first folders were written, where they are not what those folders mean."""
    values = {name: getattr(part, name) for name in LATER_SETTINGS[type(part)]}
    return {name: value for name, value in values.items() if value != LATER_SETTINGS[type(part)][name]}


def describe_classifier(classifier: nn.Module) -> dict[str, Any]:
    if type(classifier) is not ResNet32:
        raise TypeError(f"classifier is a {type(classifier).__name__}, expected a ResNet-32")
    if not isinstance(classifier.linear, nn.Linear) or not isinstance(classifier.conv1, nn.Conv2d):
        raise TypeError("classifier has other layers than a ResNet-32")
    return {
        "name": "resnet32",
        "num_classes": classifier.linear.out_features,
        "in_channels": classifier.conv1.in_channels,
        "mean": classifier.mean.flatten().tolist(),
        "std": classifier.std.flatten().tolist(),
    }


class UnfitTensors(ValueError):
    """The tensors are wrong, not the settings."""


def build(config: Any, tensors: Mapping[str, Tensor]) -> Defense | ResNet32:
    """An untrained model of a configuration, its dictionary and no size but those of the tensors.

    Raises:
        UnfitTensors: they lack what the model has, or are of other sizes.
        TypeError, ValueError: the configuration says more or less than ``describe`` and the notes, or describes no
            model.
    """
    kind = config.get("model") if isinstance(config, dict) else config
    if kind not in list(PARTS):
        raise ValueError(f"model is {kind!r}, expected {' or '.join(map(repr, PARTS))}")
    require_fields("", config, ("model", "notes", *PARTS[kind]))
    if kind == "classifier":
        return build_classifier(config["classifier"], tensors, "")
    require_fields("encoder.", config["encoder"], ENCODER_SETTINGS, LATER_SETTINGS[SparseEncoder])
    identity = config["encoder"]["surrogate"] == AUTOENCODER_IDENTITY
    encoder = SparseEncoder(dictionary(tensors), **config["encoder"] | ({"surrogate": "smooth"} if identity else {}))
    decoder = build_decoder(config["decoder"], tensors)
    model = Defense(encoder, decoder, build_classifier(config["classifier"], tensors, "classifier."))
    model.autoencoder_identity = identity
    return model


def require_fields(part: str, settings: Any, expected: Iterable[str], optional: Collection[str] = ()) -> None:
    """Refuses settings that lack a field or have one too many; the error names it, after its part."""
    if not isinstance(settings, dict):
        raise TypeError(f"{part.rstrip('.')} is a {type(settings).__name__}, expected fields by name")
    fields = list(expected)
    for field in (*fields, *settings):
        if field not in settings:
            raise ValueError(f"{part}{field} is missing")
        if field not in fields and field not in optional:
            raise ValueError(f"{part}{field} is unknown, expected {', '.join(fields)}")


def dictionary(tensors: Mapping[str, Tensor]) -> Tensor:
    require_tensor(tensors, ATOMS)
    try:
        check_atoms(tensors[ATOMS])
    except (TypeError, ValueError) as error:
        raise UnfitTensors(f"{ATOMS}: {error}") from error
    return tensors[ATOMS]


def build_decoder(settings: dict[str, Any], tensors: Mapping[str, Tensor]) -> Decoder:
    require_fields("decoder.", settings, (*DECODER_SIZES, "stride", "image_size", "resize"), LATER_SETTINGS[Decoder])
    size = settings["image_size"]
    if not isinstance(size, list) or len(size) != 2:
        raise ValueError(f"decoder.image_size is {size!r}, expected height and width")
    for side in size:
        check_integer("decoder.image_size", side, 1)
    check_integer("decoder.stride", settings["stride"], 1)
    check_boolean("decoder.resize", settings["resize"])
    require_sizes("decoder.", settings, DECODER_SIZES, tensors, "decoder.")
    return Decoder(**settings | {"image_size": tuple(size)})


def build_classifier(settings: dict[str, Any], tensors: Mapping[str, Tensor], prefix: str) -> ResNet32:
    require_fields("classifier.", settings, ("name", *CLASSIFIER_SIZES, "mean", "std"))
    if settings["name"] != "resnet32":
        raise ValueError(f"classifier is {settings['name']!r}, expected 'resnet32'")
    for field in ("mean", "std"):
        if not isinstance(settings[field], list):
            raise TypeError(f"classifier.{field} is a {type(settings[field]).__name__}, expected a list of numbers")
    for mean in settings["mean"]:
        check_number("classifier.mean", mean, lambda _: True, "a finite number")
    for std in settings["std"]:
        check_number("classifier.std", std, lambda width: width > 0, "above 0")
    require_sizes("classifier.", settings, CLASSIFIER_SIZES, tensors, prefix)
    return resnet32(settings["num_classes"], settings["in_channels"], tuple(settings["mean"]), tuple(settings["std"]))


def require_sizes(
    part: str,
    settings: dict[str, Any],
    sizes: dict[str, tuple[str, int]],
    tensors: Mapping[str, Tensor],
    prefix: str,
) -> None:
    """Refuses sizes that the tensors do not have, before a model of them takes memory."""
    for field, (name, dimension) in sizes.items():
        check_integer(part + field, settings[field], 1)
        require_tensor(tensors, prefix + name)
        shape = tensors[prefix + name].shape
        if settings[field] not in shape[dimension : dimension + 1]:
            raise UnfitTensors(f"{part}{field} is {settings[field]}, but {prefix}{name} has shape {tuple(shape)}")


def require_tensor(tensors: Mapping[str, Tensor], name: str) -> None:
    if name not in tensors:
        raise UnfitTensors(f"{name} is missing")
