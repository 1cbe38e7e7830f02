"""The manifest of an evaluation: what was asked, what it was made with, and what a gradient costs."""

import base64
import hashlib
import json
import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ..attacks.checks import no_training_normalization
from ..attacks.protocol import realizer
from ..kernels import backend_name
from ..models.fingerprints import fingerprint, state_fingerprint
from ..nn.defense import Defense
from ..utils import distributed
from ..utils.contexts import autocast, frozen
from ..utils.files import ANOTHER_FOLDER, FolderReplacedError, load_json, require_empty, require_same, save_json
from ..utils.randomness import derive_seed
from ..utils.versions import versions
from .attack import Attack
from .folder import Files
from .plan import Evaluation, relative_cost
from .scoring import Block

IMAGES = 4
# A gradient of any size is kept as so many of its products with random signs, which differ where gradients do.
PRODUCTS = 64
# Of the largest logit or product: other processors round the last bits otherwise, and a ReLU at 0 passes them on.
TOLERANCE = {"logits": 1e-3, "gradient": 1e-2}


class Behavior(NamedTuple):
    """
    Attributes:
        logits: (n, classes) float32 of one realization of each image.
        gradient: (n, 64) float32, products of random signs with the gradient of a fixed sum of the logits to the
            image; empty for a model that gives no gradient.
    """

    logits: Tensor
    gradient: Tensor

    def difference(self, other: "Behavior") -> str:
        """In words; empty where the two are alike within rounding."""
        for name, limit in TOLERANCE.items():
            first, second = getattr(self, name), getattr(other, name)
            if first.shape != second.shape:
                return f"{name} of shape {list(first.shape)} there and {list(second.shape)} here"
            largest = float(first[first.isfinite()].abs().max()) if bool(first.isfinite().any()) else 0.0
            if not torch.allclose(first, second, rtol=0, atol=limit * largest, equal_nan=True):
                apart = float((first - second).abs().max())
                return f"{name} that differ by up to {apart:.3g}, where the largest is {largest:.3g}"
        return ""


def behaviors(evaluation: Evaluation) -> dict[str, Any]:
    """What the attacked model and each source answer, as JSON holds it; a name stands for what it answers."""
    block = evaluation.load(0)
    seed = derive_seed(evaluation.scoring.seed, "behavior")
    models: dict[str, nn.Module] = {}
    kept: dict[str, Any] = {}
    for name, model in asked_models(evaluation).items():
        known = next((other for other, each in models.items() if each is model), None)
        models[name] = model
        kept[name] = known or as_json(model, block, seed)
    return kept


def require_alike(path: object, kept: dict[str, Any], evaluation: Evaluation) -> None:
    """Refuses models that answer otherwise than those that the folder's records are of.

    Args:
        path: of the manifest, named in the error.
        kept: what ``behaviors`` gave to an evaluation with the same identity.
        evaluation: that is asked for.

    Raises:
        ValueError: one differs; the message says how.
    """
    here = behaviors(evaluation)
    for name in here:
        difference = differing(resolved(kept, name), resolved(here, name))
        if difference:
            raise ValueError(f"{path} belongs to another run: {name} gives {difference}. {ANOTHER_FOLDER}")


def resolved(kept: dict[str, Any], name: str) -> dict[str, Any]:
    value: dict[str, Any] | str = kept[name]
    return resolved(kept, value) if isinstance(value, str) else value


def differing(kept: dict[str, Any], here: dict[str, Any]) -> str:
    if kept.keys() != here.keys():
        return "answers that repeat in one of the two runs only"
    if "fingerprint" in kept:
        return "" if kept == here else f"fingerprint {kept['fingerprint']!r} there and {here['fingerprint']!r} here"
    return decoded(kept).difference(decoded(here))


def asked_models(evaluation: Evaluation) -> dict[str, nn.Module]:
    """The attacked model and the attacks' sources, by the names that errors give them."""
    sources = (attack for attack in evaluation.attacks if isinstance(attack, Attack))
    return {"model": evaluation.model} | {f"the source of {attack.name}": attack.source for attack in sources}


def as_json(model: nn.Module, block: Block, seed: int) -> dict[str, Any]:
    """Of a model whose answers do not repeat, the fingerprint of its state and code instead."""
    first, again = (behavior(model, block, seed) for _ in range(2))
    if first.difference(again):
        return {"fingerprint": fingerprint(model)}
    return {name: encode(tensor) for name, tensor in first._asdict().items()}


def behavior(model: nn.Module, block: Block, seed: int) -> Behavior:
    """The first few rows of the block's answers: a model may depend on the number of images."""
    with autocast("float32", block.images.device), no_training_normalization():
        try:
            with frozen(model):
                logits, gradient = with_gradient(model, block, seed)
        except RuntimeError:  # its images change in place, or there is no derivative, or no memory for it
            with torch.no_grad():
                logits = answers(model, block, seed, block.images.clone())
            gradient = torch.empty(0)
    return Behavior(logits.detach().float().cpu()[:IMAGES], products(gradient.cpu()[:IMAGES]))


def answers(model: nn.Module, block: Block, seed: int, receiver: Tensor) -> Tensor:
    return realizer(model, block.images, seed, block.ids)(0, 1, receiver)


@torch.enable_grad()
def with_gradient(model: nn.Module, block: Block, seed: int) -> tuple[Tensor, Tensor]:
    """Logits, and the gradient of their sum with fixed weights, which saturates nowhere; empty where there is none."""
    images = block.images.clone().requires_grad_()
    logits = answers(model, block, seed, images)
    weights = torch.randn(logits.shape[-1], generator=torch.Generator().manual_seed(0)).to(logits)
    (gradient,) = torch.autograd.grad((logits * weights).sum(), images, allow_unused=True)
    return logits, torch.empty(0) if gradient is None else gradient


def products(gradient: Tensor) -> Tensor:
    if not gradient.numel():
        return torch.empty(0)
    flat = gradient.float().flatten(1)
    signs = torch.randint(2, (flat.shape[1], PRODUCTS), generator=torch.Generator().manual_seed(0)) * 2.0 - 1
    return flat @ signs


def encode(tensor: Tensor) -> dict[str, Any]:
    """A tensor of float32 as its shape and its bytes, little endian, in base 64."""
    values = base64.b64encode(tensor.numpy().astype("<f4").tobytes()).decode()
    return {"shape": "x".join(map(str, tensor.shape)), "float32": values}


def decoded(kept: dict[str, Any]) -> Behavior:
    def tensor(part: dict[str, Any]) -> Tensor:
        values = np.frombuffer(base64.b64decode(part["float32"]), "<f4").copy()
        return torch.from_numpy(values).reshape([int(side) for side in part["shape"].split("x")])

    return Behavior(*(tensor(kept[name]) for name in Behavior._fields))


FORMAT = 2
# So many of them fit into an int64, in which processes tell each other.
STAMP_DIGITS = 15
NUMBER = (int, float)
FIELDS: dict[str, tuple[type, ...]] = {
    "model": (str,),
    "classes": (list,),
    "costs": (dict,),
    "versions": (list,),
    "identity": (dict,),
    "identity.model": (dict,),
    "identity.model.kind": (str,),
    "identity.model.fingerprint": (str,),
    "identity.data": (dict,),
    "identity.data.name": (str,),
    "identity.data.images": (int,),
    "identity.data.fingerprint": (str,),
    "identity.order": (list,),
    "identity.attacks": (dict,),
    "identity.scoring": (dict,),
    "identity.scoring.draws": (int,),
    "identity.scoring.seed": (int,),
    "identity.scoring.deterministic": (bool,),
    "identity.block": (int,),
    "identity.device": (str,),
    "identity.engine": (str,),
    "identity.threads": (int, type(None)),
}
ITEMS: dict[str, type] = {"classes": str, "versions": dict, "identity.order": str}
OF_AN_ATTACK: dict[str, tuple[type, ...]] = {
    "method": (str,),
    "family": (str,),
    "access": (str,),
    "gradients": (int,),
    "forwards": (int,),
}
COST: dict[str, tuple[type, ...]] = {"K": NUMBER, "C": NUMBER}


def require_agreement(asked: dict[str, Any], device: torch.device) -> None:
    """Refuses processes that were started with different evaluations, as machines with other data may be."""
    own = torch.tensor(zlib.crc32(json.dumps(asked).encode()))
    if distributed.total(own, device).item() != distributed.world_size() * own.item():
        raise ValueError(
            "the processes were started with different evaluations, expected one model, data and settings"
        )


def open_manifest(files: Files, evaluation: Evaluation, asked: dict[str, Any]) -> None:
    """Writes the manifest where there is none, after a dry run of each attack's gradient.

    Args:
        files: of the evaluation.
        evaluation: that is asked for.
        asked: its ``identity``.

    Raises:
        ValueError: there is one of an evaluation with other settings or of models that answer otherwise, which the
            message names, or the file is something else; or there is none beside records of which nobody knows what
            was asked.
    """
    if files.manifest.exists():
        require_own(files, evaluation, asked)
        return
    require_empty(files.manifest, files.work())
    answers = behaviors(evaluation)
    first = evaluation.load(0)
    costs = {}
    for attack in evaluation.all_attacks:
        cost = relative_cost(attack, first, evaluation.scoring)
        # K, and the paper's budget C = K N_S N_R N_E.
        costs[attack.name] = cost and {"K": cost, "C": cost * asked["attacks"][attack.name]["gradients"]}
    manifest = {
        "format": FORMAT,
        "model": evaluation.name,
        "classes": list(evaluation.data.classes),
        "identity": asked,
        "behavior": answers,
        "stamp": stamp_of({"identity": asked, "behavior": answers}),
        "costs": costs,
        "versions": [versions()],
    }
    save_json(files.manifest, manifest)


def stamp_of(parts: dict[str, Any]) -> str:
    """What tells an evaluation's records and images from those of any other."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:STAMP_DIGITS]


def require_manifest(files: Files) -> None:
    """Refuses to go on where the manifest is gone or is another evaluation's.

    Raises:
        FolderReplacedError: so it is.
    """
    there = load_json(files.manifest).get("stamp", "") if files.manifest.exists() else None
    if there != files.stamp:
        raise FolderReplacedError(
            f"{files.manifest} {'is gone' if there is None else 'is of another evaluation by now'}, so that nothing "
            "more is written; start this evaluation again, in another folder"
        )


def require_own(files: Files, evaluation: Evaluation, asked: dict[str, Any]) -> None:
    """Refuses a manifest of another evaluation: by its settings, and by what its models answer.

    Folders of earlier versions kept no answers; there a model is known by its fingerprint with its code.
    """
    manifest = load_manifest(files)
    if "behavior" in manifest:
        require_same(files.manifest, manifest["identity"], asked)
        require_alike(files.manifest, manifest["behavior"], evaluation)
    else:
        require_same(files.manifest, manifest["identity"], with_code(asked, evaluation))


def with_code(asked: dict[str, Any], evaluation: Evaluation) -> dict[str, Any]:
    """The identity as earlier versions wrote it, with models' code in their fingerprints."""
    earlier: dict[str, Any] = json.loads(json.dumps(asked))
    earlier["model"]["fingerprint"] = fingerprint(evaluation.model)
    for attack in evaluation.attacks:
        if isinstance(attack, Attack):
            earlier["attacks"][attack.name]["source"]["fingerprint"] = fingerprint(attack.source)
    return earlier


def note_seconds(files: Files, seconds: float) -> None:
    """Adds what the evaluation took, over all processes, unless it stands there already."""
    manifest = load_manifest(files)
    if manifest.get("seconds") != seconds:
        save_json(files.manifest, manifest | {"seconds": seconds})


def load_manifest(files: Files) -> dict[str, Any]:
    manifest = load_json(files.manifest)
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT or "identity" not in manifest:
        raise ValueError(f"{files.manifest} is not the manifest of an evaluation by this version")
    fault = next(faults(manifest), None)
    if fault is not None:
        raise ValueError(f"{files.manifest} is damaged: {fault}")
    return manifest


def faults(manifest: dict[str, Any]) -> Iterator[str]:
    """What a manifest lacks or has in another type, outer parts first, so that the first of them is certain."""
    for path, allowed in FIELDS.items():
        yield from field_faults(manifest, path.split("."), allowed)
    for path, kind in ITEMS.items():
        for item in part(manifest, path.split(".")):
            if not isinstance(item, kind):
                yield f"{path} holds a {type(item).__name__}, expected {kind.__name__} alone"
    for name in manifest["identity"]["order"]:
        yield from field_faults(manifest, ["identity", "attacks", name], (dict,))
        yield from field_faults(manifest, ["costs", name], (dict, type(None)))
        for key, allowed in OF_AN_ATTACK.items():
            yield from field_faults(manifest, ["identity", "attacks", name, key], allowed)
        for key, allowed in COST.items() if manifest["costs"][name] is not None else ():
            yield from field_faults(manifest, ["costs", name, key], allowed)


def field_faults(manifest: dict[str, Any], path: list[str], allowed: tuple[type, ...]) -> Iterator[str]:
    outer = part(manifest, path[:-1])
    if path[-1] not in outer:
        yield f"{'.'.join(path)} is missing"
    elif type(outer[path[-1]]) not in allowed:
        expected = " or ".join(kind.__name__ for kind in allowed)
        yield f"{'.'.join(path)} is a {type(outer[path[-1]]).__name__}, expected {expected}"


def part(manifest: dict[str, Any], path: list[str]) -> Any:
    for name in path:
        manifest = manifest[name]
    return manifest


def identity(evaluation: Evaluation) -> dict[str, Any]:
    """What decides the records to the bit, but for the versions, in the form in which JSON gives it back."""
    device = evaluation.device.type
    found = {
        "model": {"kind": type(evaluation.model).__name__, "fingerprint": state_fingerprint(evaluation.model)},
        "data": {
            "name": evaluation.data.name,
            "images": len(evaluation.data),
            "fingerprint": evaluation.data.fingerprint(),
        },
        "order": [attack.name for attack in evaluation.all_attacks],
        "attacks": {attack.name: attack.identity() for attack in evaluation.all_attacks},
        "scoring": {
            "draws": evaluation.scoring.draws,
            "seed": evaluation.scoring.seed,
            "deterministic": evaluation.scoring.deterministic,
            "precision": "float32",
        },
        "block": evaluation.block,
        "device": device,
        "engine": backend_of(evaluation),
        "threads": torch.get_num_threads() if device == "cpu" else None,
    }
    stored: dict[str, Any] = json.loads(json.dumps(found))
    return stored


def backend_of(evaluation: Evaluation) -> str:
    model = evaluation.model
    if isinstance(model, Defense) and model.encoder.backend != "auto":
        return model.encoder.backend
    return backend_name(evaluation.device.type)
