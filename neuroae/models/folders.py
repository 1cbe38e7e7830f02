"""A model's folder: writing, finding and reading it. Loading runs no pickle."""

import json
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..nn.defense import AUTOENCODER_IDENTITY, Defense
from ..utils.contexts import float32_by_default
from ..utils.files import (
    LEFTOVER_SECONDS,
    has_digests,
    load_json,
    load_tensors,
    remove_leftovers,
    replacing,
    save_json,
    save_tensors,
)
from .card import model_card
from .description import UnfitTensors, build, describe, load_class_names

LAYERS = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
WEIGHTS = "model.safetensors"
CONFIG = "config.json"
CARD = "README.md"
SHIPPED = Path(__file__).resolve().parents[1] / "weights"


def save_pretrained(
    model: nn.Module, folder: str | Path, notes: dict[str, Any] | None = None, half: bool = False
) -> None:
    """Saves a ``Defense``, a classifier or a ``FrontEndClassifier`` of our parts (see ``Defense.save_pretrained``)."""
    folder = Path(folder)
    tensors = pack_tensors(model, half)
    config = describe(model) | {"notes": json.loads(json.dumps(notes or {}))}
    if isinstance(model, Defense) and model.autoencoder_identity:
        config["encoder"]["surrogate"] = AUTOENCODER_IDENTITY
    for name in (WEIGHTS, CONFIG, CARD):
        remove_leftovers(folder / name, LEFTOVER_SECONDS)
    card = model_card(folder.resolve().name, model, tensors, config)
    with replacing(folder / WEIGHTS) as weights, replacing(folder / CARD) as page:
        save_tensors(weights, tensors)
        page.write_text(card, encoding="utf-8")
        # A folder with a configuration is complete. If the process is killed after this line, the folder has no
        # configuration, and loading it reports the missing file.
        (folder / CONFIG).unlink(missing_ok=True)
    save_json(folder / CONFIG, config)


def load_pretrained(name_or_folder: str | Path) -> tuple[nn.Module, dict[str, Any]]:
    """Returns the model, in evaluation mode, and its notes (see ``Defense.from_pretrained``)."""
    folder = find_folder(name_or_folder)
    config = load_json(folder / CONFIG)
    tensors, _ = load_tensors(folder / WEIGHTS)
    if not has_digests(folder / WEIGHTS):
        warnings.warn(
            f"{folder / WEIGHTS} holds no digests of its tensors, like files of earlier versions, so that damage "
            "cannot be detected; save_pretrained adds them",
            stacklevel=2,
        )
    try:
        with float32_by_default():
            model = build(config, tensors)
        notes = dict(config["notes"])
    except UnfitTensors as error:
        raise ValueError(f"{folder / WEIGHTS} does not fit {folder / CONFIG}: {error}") from error
    except (TypeError, ValueError) as error:
        raise ValueError(f"{folder / CONFIG} does not describe a model: {error!r}") from error
    try:
        model.load_state_dict(unpack_tensors(model, tensors))
        check_finite(model.state_dict())
    except (RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f"{folder / WEIGHTS} does not fit {folder / CONFIG}: {error}") from error
    return model.eval(), notes


def pretrained_classes(name_or_folder: str | Path) -> tuple[str, ...] | None:
    """Returns the class names of a saved model, in the order of its logits.

    Args:
        name_or_folder: As in ``Defense.from_pretrained``.

    Returns:
        None for a folder of an earlier version, which kept no names.

    Raises:
        FileNotFoundError: No such name or folder exists.
        ValueError: The configuration is damaged.
    """
    return load_class_names(find_folder(name_or_folder) / CONFIG)


def find_folder(name_or_folder: str | Path) -> Path:
    """Returns the folder of a saved model. A folder that holds a model has precedence over a shipped name."""
    folder = Path(name_or_folder)
    names = shipped_names()
    if str(name_or_folder) in names and not any((folder / file).exists() for file in (WEIGHTS, CONFIG)):
        return SHIPPED / name_or_folder
    if not folder.is_dir():
        raise FileNotFoundError(
            f"unknown name {str(name_or_folder)!r}: neither a folder nor one of {', '.join(names) or '(none)'}, "
            "the models that ship with the package"
        )
    return folder


def shipped_names() -> list[str]:
    """Returns the names of the models that ship with the package."""
    return sorted(path.parent.name for path in SHIPPED.glob(f"*/{CONFIG}"))


def pack_tensors(model: nn.Module, half: bool) -> dict[str, Tensor]:
    """Returns the model's tensors by name, with the weights of its layers rounded to float16 if ``half``.

    Raises:
        TypeError: The model is not in float32.
        ValueError: A weight is beyond float16's range, or a number is NaN or infinite.
    """
    tensors = model.state_dict()
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and tensor.dtype != torch.float32:
            raise TypeError(f"{name} is {tensor.dtype}, expected torch.float32; save the model as it was trained")
    check_finite(tensors)
    if half:
        for name in layer_weights(model):
            tensors[name] = round_to_half(name, tensors[name])
    return tensors


def unpack_tensors(model: nn.Module, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Returns stored tensors in the model's dtypes.

    Raises:
        TypeError: A tensor has a dtype in which no folder stores it.
    """
    dtypes = {name: tensor.dtype for name, tensor in model.state_dict().items()}
    weights = layer_weights(model)
    for name, tensor in tensors.items():
        expected = {dtypes.get(name, tensor.dtype)} | ({torch.float16} if name in weights else set())
        if tensor.dtype not in expected:
            raise TypeError(f"{name} is {tensor.dtype}, expected {' or '.join(sorted(map(str, expected)))}")
    return {name: tensor.to(dtypes.get(name, tensor.dtype)) for name, tensor in tensors.items()}


def layer_weights(model: nn.Module) -> set[str]:
    """Returns the names of the tensors that may be stored as float16: weights of layers, not biases or atoms."""
    return {f"{name}.weight" for name, module in model.named_modules() if isinstance(module, LAYERS)}


def check_finite(tensors: dict[str, Tensor]) -> None:
    """Raises ``ValueError`` for NaN and infinity; the message names the first tensor that has them."""
    for name, tensor in tensors.items():
        count = int((~tensor.isfinite()).sum())
        if count:
            raise ValueError(f"{name} is NaN or infinite in {count:,} of {tensor.numel():,} places, expected none")


def round_to_half(name: str, weight: Tensor) -> Tensor:
    """Returns a weight in float16; raises ``ValueError`` if it is beyond float16's range."""
    half = weight.half()
    if not bool(half.isfinite().all()):
        limit = torch.finfo(torch.float16).max
        raise ValueError(
            f"{name} reaches {weight.abs().max():g}, float16 holds at most {limit:g}; store it as float32"
        )
    return half
