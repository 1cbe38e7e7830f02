"""Configurations of models as JSON values, and models built from them."""

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ..nn.architectures import CLASSIFIERS, classifier_from_config, is_deterministic
from ..nn.atoms import check_atoms
from ..nn.decoder import CLAMP_WIDTH, Decoder
from ..nn.defense import Defense
from ..nn.encoder import SparseEncoder
from ..nn.front_ends import FRONT_ENDS, FrontEndClassifier
from ..nn.normalization import NormalizingClassifier
from ..utils.contexts import drawing_from, float32_by_default
from ..utils.files import load_json
from ..utils.modules import direct_tensors, module_settings
from ..utils.validation import check_boolean, check_integer, check_number

# For each kind of model that a folder can hold, the parts that have settings in the configuration.
PARTS = {
    "defense": ("encoder", "decoder", "classifier"),
    "classifier": ("classifier",),
    "front-end classifier": ("front_end", "classifier"),
}
# Settings that folders of early versions do not have, with the value that holds for these folders.
LATER_SETTINGS: dict[type, dict[str, Any]] = {
    SparseEncoder: {"selection_width": None},
    Decoder: {"clamp_width": CLAMP_WIDTH},
}
ENCODER_SETTINGS = tuple(name for name in SparseEncoder.CONFIG if name not in LATER_SETTINGS[SparseEncoder])
ATOMS = "encoder.atoms"
CLASSES = "classes"
# Sizes in the configuration that must match a tensor: the tensor's name and its dimension.
DECODER_SIZES = {
    "in_channels": ("conv1.weight", 0),
    "kernel_size": ("conv1.weight", 2),
    "out_channels": ("conv3.weight", 1),
}
# The same for each classifier and each front end by its name.
RESNET_SIZES = {"num_classes": ("linear.weight", 0), "in_channels": ("conv1.weight", 1)}
CLASSIFIER_SIZES = {
    "resnet32": RESNET_SIZES,
    "dropout-resnet32": RESNET_SIZES | {"filters": ("conv1.weight", 0)},
    "efficientnet-b0": {
        "num_classes": ("network.classifier.1.weight", 0),
        "in_channels": ("network.features.0.0.weight", 1),
    },
}
FRONT_END_SIZES = {
    "k-sparse-autoencoder": {"in_channels": ("conv1.weight", 1), "channels": ("conv3.weight", 0)},
    "gaussian-blur": {"kernel_size": ("kernel", 2)},
}
# Other fields than sizes, name, mean and std; the constructors check their values.
CLASSIFIER_FIELDS = {"dropout-resnet32": ("dropout_p",)}
FRONT_END_FIELDS = {"k-sparse-autoencoder": ("image_size", "k"), "gaussian-blur": ("sigma",)}
Model = Defense | NormalizingClassifier | FrontEndClassifier


class UnfitTensors(ValueError):
    """The tensors do not fit the configuration."""


def describe(model: nn.Module) -> dict[str, Any]:
    """Returns the configuration of a model, from which ``build`` makes the same model, given its tensors and notes.

    Later settings are left out if they have the value that holds for early folders (``LATER_SETTINGS``). Under W-AIGA
    (see ``Defense.with_surrogate``) the surrogate is the encoder's own.

    Args:
        model: A ``Defense`` of our encoder, decoder and a classifier, one of our classifiers alone, or one behind a
            front end.

    Raises:
        TypeError: ``build`` would make another model; the message names the part.
    """
    kind = kind_of(model)
    parts = {"classifier": model} if kind == "classifier" else dict(model.named_children())
    config = {"model": kind} | {name: part_config(parts[name]) for name in PARTS[kind]}
    try:
        with drawing_from(0), float32_by_default():
            twin = build(config | {"notes": {}}, model.state_dict())
    except UnfitTensors as error:
        raise TypeError(f"model has other tensors than a saved one holds: {error}") from error
    modules, twins = module_descriptions(model), module_descriptions(twin)
    for path in {**twins, **modules}:
        if modules.get(path) != twins.get(path):
            difference = f"{modules.get(path, 'missing')}, expected {twins.get(path, 'no such part')}"
            raise TypeError(f"{path or 'model'} is {difference}, as a saved model has")
    return config


def build(config: Any, tensors: Mapping[str, Tensor]) -> Model:
    """Builds an untrained model from a configuration, after checking its sizes against the tensors.

    Args:
        config: The value of a configuration file, with ``describe``'s fields and "notes".
        tensors: The model's tensors by name.

    Raises:
        UnfitTensors: A tensor is missing or has another size.
        TypeError, ValueError: A field is missing, unknown or holds a value that does not fit.
    """
    kind = config.get("model") if isinstance(config, dict) else config
    if kind not in list(PARTS):
        raise ValueError(f"model is {kind!r}, expected {' or '.join(map(repr, PARTS))}")
    check_fields("", config, ("model", "notes", *PARTS[kind]))
    if kind == "classifier":
        check_classifier(config["classifier"], tensors, "")
        return classifier_from_config(config["classifier"])
    if kind == "front-end classifier":
        check_front_end(config["front_end"], tensors)
        check_classifier(config["classifier"], tensors, "classifier.")
        front_end = FRONT_ENDS[config["front_end"]["name"]].from_config(config["front_end"])
        return FrontEndClassifier(front_end, classifier_from_config(config["classifier"]))
    check_fields("encoder.", config["encoder"], ENCODER_SETTINGS, LATER_SETTINGS[SparseEncoder])
    atoms = dictionary_of(tensors)
    check_decoder(config["decoder"], tensors)
    check_classifier(config["classifier"], tensors, "classifier.")
    return Defense.from_config(config, atoms)


def class_names(notes: dict[str, Any], count: int) -> tuple[str, ...] | None:
    """Returns the class names in the notes, in the order of the logits; None in the notes of early versions.

    Args:
        notes: The notes, with the names under "classes".
        count: The number of classes.

    Raises:
        ValueError: The notes do not hold ``count`` different names.
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
    """Reads the class names from a configuration file (see ``class_names``)."""
    config = load_json(path)
    try:
        return class_names(config["notes"], config["classifier"]["num_classes"])
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} does not describe a model: {error!r}") from error


def kind_of(model: nn.Module) -> str:
    """Returns the key of ``PARTS`` for a model.

    Raises:
        TypeError: A folder cannot hold the model's class, a part or a layer. Subclasses are refused, since loading
            would return the base class.
    """
    if type(model) in CLASSIFIERS.values():
        check_classifier_layers(model)
        return "classifier"
    if type(model) is Defense and type(model.encoder) is SparseEncoder and type(model.decoder) is Decoder:
        check_decoder_layers(model.decoder)
        check_classifier_layers(model.classifier)
        check_deterministic(model.classifier)
        return "defense"
    if type(model) is FrontEndClassifier and type(model.front_end) in FRONT_ENDS.values():
        check_classifier_layers(model.classifier)
        check_deterministic(model.classifier)
        return "front-end classifier"
    kind = type(model).__name__
    if isinstance(model, Defense | FrontEndClassifier):
        kind += f" of {', '.join(type(part).__name__ for part in model.children())}"
    raise TypeError(
        f"model is a {kind}, expected a ResNet32 or another classifier of neuroae, one behind a front end, or a "
        "Defense of SparseEncoder, Decoder and a classifier"
    )


def part_config(part: Any) -> dict[str, Any]:
    """Returns a part's ``config()`` without the later settings that have the value of early folders."""
    later = LATER_SETTINGS.get(type(part), {})
    return {name: value for name, value in part.config().items() if name not in later or value != later[name]}


def check_decoder_layers(decoder: Decoder) -> None:
    for name in ("conv1", "conv3"):
        layer = getattr(decoder, name)
        if not isinstance(layer, nn.ConvTranspose2d):
            raise TypeError(f"decoder.{name} is a {type(layer).__name__}, expected a transposed convolution")


def check_classifier_layers(classifier: nn.Module) -> None:
    if type(classifier) not in CLASSIFIERS.values():
        raise TypeError(
            f"classifier is a {type(classifier).__name__}, expected a ResNet-32 or another classifier of neuroae"
        )
    tensors = dict(classifier.named_parameters())
    for name, _ in CLASSIFIER_SIZES[classifier.NAME].values():  # type: ignore[index]
        if name not in tensors:
            raise TypeError(f"classifier has other layers than a {type(classifier).__name__}: {name} is missing")


def check_deterministic(classifier: nn.Module) -> None:
    if not is_deterministic(classifier):
        raise TypeError(
            f"classifier is a {type(classifier).__name__}, which draws, expected a deterministic one behind others"
        )


def module_descriptions(model: nn.Module) -> dict[str, str]:
    """Returns a text for each module by its path: its class, its tensors' shapes, and settings besides ``config``."""
    descriptions = {}
    for path, module in model.named_modules():
        shapes = [f"{name} {tuple(tensor.shape)}" for name, tensor in direct_tensors(module)]
        others = "" if isinstance(module, SparseEncoder) else module_settings(module)
        descriptions[path] = f"{type(module).__name__}({others}) of {', '.join(shapes) or 'no tensors'}"
    return descriptions


def check_fields(part: str, fields: Any, expected: Iterable[str], optional: Collection[str] = ()) -> None:
    """Checks the names of a part's fields. The error names a missing or unknown field with its part."""
    if not isinstance(fields, dict):
        raise TypeError(f"{part.rstrip('.')} is a {type(fields).__name__}, expected fields by name")
    names = list(expected)
    for name in (*names, *fields):
        if name not in fields:
            raise ValueError(f"{part}{name} is missing")
        if name not in names and name not in optional:
            raise ValueError(f"{part}{name} is unknown, expected {', '.join(names)}")


def check_decoder(config: Any, tensors: Mapping[str, Tensor]) -> None:
    """Checks a decoder's configuration, also against the tensors."""
    check_fields("decoder.", config, (*DECODER_SIZES, "stride", "image_size", "resize"), LATER_SETTINGS[Decoder])
    size = config["image_size"]
    if not isinstance(size, list) or len(size) != 2:
        raise ValueError(f"decoder.image_size is {size!r}, expected height and width")
    for side in size:
        check_integer("decoder.image_size", side, 1)
    check_integer("decoder.stride", config["stride"], 1)
    check_boolean("decoder.resize", config["resize"])
    check_sizes("decoder.", config, DECODER_SIZES, tensors, "decoder.")


def check_classifier(config: Any, tensors: Mapping[str, Tensor], prefix: str) -> None:
    """Checks a classifier's configuration, also against the tensors, whose names start with ``prefix``."""
    name = name_of("classifier", config, CLASSIFIER_SIZES)
    sizes = CLASSIFIER_SIZES[name]
    check_fields("classifier.", config, ("name", *sizes, "mean", "std", *CLASSIFIER_FIELDS.get(name, ())))
    for field in ("mean", "std"):
        if not isinstance(config[field], list):
            raise TypeError(f"classifier.{field} is a {type(config[field]).__name__}, expected a list of numbers")
    for mean in config["mean"]:
        check_number("classifier.mean", mean, lambda _: True, "a finite number")
    for std in config["std"]:
        check_number("classifier.std", std, lambda width: width > 0, "above 0")
    check_sizes("classifier.", config, sizes, tensors, prefix)


def check_front_end(config: Any, tensors: Mapping[str, Tensor]) -> None:
    """Checks a front end's configuration, also against the tensors."""
    name = name_of("front_end", config, FRONT_END_SIZES)
    check_fields("front_end.", config, ("name", *FRONT_END_SIZES[name], *FRONT_END_FIELDS[name]))
    check_sizes("front_end.", config, FRONT_END_SIZES[name], tensors, "front_end.")


def name_of(part: str, config: Any, names: Collection[str]) -> str:
    """Returns the name in a part's configuration; raises ``TypeError`` or ``ValueError`` for an unknown one."""
    if not isinstance(config, dict):
        raise TypeError(f"{part} is a {type(config).__name__}, expected fields by name")
    if "name" not in config:
        raise ValueError(f"{part}.name is missing")
    if config["name"] not in list(names):
        raise ValueError(f"{part} is {config['name']!r}, expected {' or '.join(map(repr, names))}")
    return str(config["name"])


def check_sizes(
    part: str,
    config: dict[str, Any],
    sizes: dict[str, tuple[str, int]],
    tensors: Mapping[str, Tensor],
    prefix: str,
) -> None:
    """Checks sizes against the tensors, before a model of wrong sizes takes memory.

    Args:
        part: The part's name in error messages, with a dot.
        config: The part's configuration.
        sizes: For each size the name of a tensor and its dimension.
        tensors: The model's tensors by name.
        prefix: The part's prefix in these names.
    """
    for field, (name, dimension) in sizes.items():
        check_integer(part + field, config[field], 1)
        shape = tensor_of(tensors, prefix + name).shape
        if config[field] not in shape[dimension : dimension + 1]:
            raise UnfitTensors(f"{part}{field} is {config[field]}, but {prefix}{name} has shape {tuple(shape)}")


def dictionary_of(tensors: Mapping[str, Tensor]) -> Tensor:
    """Returns the dictionary among a defense's tensors; raises ``UnfitTensors`` if it is missing or unusable."""
    atoms = tensor_of(tensors, ATOMS)
    try:
        check_atoms(atoms)
    except (TypeError, ValueError) as error:
        raise UnfitTensors(f"{ATOMS}: {error}") from error
    return atoms


def tensor_of(tensors: Mapping[str, Tensor], name: str) -> Tensor:
    if name not in tensors:
        raise UnfitTensors(f"{name} is missing")
    return tensors[name]
