"""The manifest of an evaluation: what is evaluated, with which versions, and what a gradient costs.

Writing and checking a manifest runs no model: ``measurements.py`` measures, and hands the numbers over.
"""

import hashlib
import json
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from ..kernels import backend_name
from ..models.fingerprints import fingerprint, state_fingerprint
from ..nn.defense import Defense
from ..utils import distributed
from ..utils.files import FolderReplacedError, load_json, require_same, save_json
from ..utils.versions import versions
from .attack import Attack
from .folder import Files
from .plan import Evaluation

FORMAT = 2
# So many hexadecimal digits fit into an int64, in which processes tell each other the stamp.
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
ATTACK_FIELDS: dict[str, tuple[type, ...]] = {
    "method": (str,),
    "family": (str,),
    "access": (str,),
    "gradients": (int,),
    "forwards": (int,),
}
COST_FIELDS: dict[str, tuple[type, ...]] = {"K": NUMBER, "C": NUMBER}


def identity_of(evaluation: Evaluation) -> dict[str, Any]:
    """Returns what decides the records to the bit, except versions, as JSON gives it back."""
    device = evaluation.device.type
    identity = {
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
        # The backend's name; the key is that of earlier versions.
        "engine": backend_of(evaluation),
        "threads": torch.get_num_threads() if device == "cpu" else None,
    }
    stored: dict[str, Any] = json.loads(json.dumps(identity))
    return stored


def backend_of(evaluation: Evaluation) -> str:
    model = evaluation.model
    if isinstance(model, Defense) and model.encoder.backend != "auto":
        return model.encoder.backend
    return backend_name(evaluation.device.type)


def require_agreement(identity: dict[str, Any], device: torch.device) -> None:
    """Refuses processes that were started with different evaluations, say on machines with different data."""
    digest = torch.tensor(zlib.crc32(json.dumps(identity).encode()))
    if distributed.total(digest, device).item() != distributed.world_size() * digest.item():
        raise ValueError(
            "the processes were started with different evaluations, expected one model, data and settings"
        )


def new_manifest(
    evaluation: Evaluation,
    identity: dict[str, Any],
    costs: Mapping[str, float | None],
    behavior: Mapping[str, Any],
) -> dict[str, Any]:
    """Returns the manifest of an evaluation that begins.

    Args:
        evaluation: The evaluation.
        identity: Its ``identity_of``.
        costs: K of each attack, None for one without gradients (see ``gradient_costs``).
        behavior: How each model answers (see ``behaviors``).
    """
    return {
        "format": FORMAT,
        "model": evaluation.name,
        "classes": list(evaluation.data.classes),
        "identity": identity,
        "behavior": behavior,
        "stamp": stamp_of({"identity": identity, "behavior": behavior}),
        # K, and the paper's budget C = K N_S N_R N_E.
        "costs": {
            name: cost and {"K": cost, "C": cost * identity["attacks"][name]["gradients"]}
            for name, cost in costs.items()
        },
        "versions": [versions()],
    }


def stamp_of(parts: dict[str, Any]) -> str:
    """Returns a digest that tells an evaluation's records and images from those of any other."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:STAMP_DIGITS]


def require_identity(files: Files, manifest: dict[str, Any], evaluation: Evaluation, identity: dict[str, Any]) -> None:
    """Refuses a folder whose manifest is of another evaluation.

    Manifests of earlier versions say nothing about behavior; their fingerprints cover a model's code instead.

    Raises:
        ValueError: The identities differ; the message says where.
    """
    expected = identity if "behavior" in manifest else with_code(identity, evaluation)
    require_same(files.manifest, manifest["identity"], expected)


def with_code(identity: dict[str, Any], evaluation: Evaluation) -> dict[str, Any]:
    """Returns the identity as earlier versions wrote it, with the models' code in their fingerprints."""
    earlier: dict[str, Any] = json.loads(json.dumps(identity))
    earlier["model"]["fingerprint"] = fingerprint(evaluation.model)
    for attack in evaluation.attacks:
        if isinstance(attack, Attack):
            earlier["attacks"][attack.name]["source"]["fingerprint"] = fingerprint(attack.source)
    return earlier


def require_manifest(files: Files) -> None:
    """Refuses to go on in a folder whose manifest is gone or is another evaluation's.

    Raises:
        FolderReplacedError: It is.
    """
    stamp = load_json(files.manifest).get("stamp", "") if files.manifest.exists() else None
    if stamp != files.stamp:
        raise FolderReplacedError(
            f"{files.manifest} {'is gone' if stamp is None else 'is of another evaluation by now'}, so nothing more "
            "is written; start this evaluation again, in another folder"
        )


def note_seconds(files: Files, seconds: float) -> None:
    """Writes the seconds of all processes together into the manifest, unless it holds them already."""
    manifest = load_manifest(files)
    if manifest.get("seconds") != seconds:
        save_json(files.manifest, manifest | {"seconds": seconds})


def load_manifest(files: Files) -> dict[str, Any]:
    """Returns the manifest of a folder.

    Raises:
        FileNotFoundError: There is none.
        ValueError: It is damaged, or of another version's format.
    """
    if not files.manifest.exists():
        raise FileNotFoundError(f"{files.manifest} is missing: {files.folder} holds no evaluation")
    manifest = load_json(files.manifest)
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT or "identity" not in manifest:
        raise ValueError(f"{files.manifest} is not the manifest of an evaluation by this version")
    fault = next(faults(manifest), None)
    if fault is not None:
        raise ValueError(f"{files.manifest} is damaged: {fault}")
    return manifest


def faults(manifest: dict[str, Any]) -> Iterator[str]:
    """Yields what a manifest lacks or holds in another type, outer parts first. Only the first fault is reliable."""
    for path, allowed in FIELDS.items():
        yield from field_faults(manifest, path.split("."), allowed)
    for path, kind in ITEMS.items():
        for item in part_of(manifest, path.split(".")):
            if not isinstance(item, kind):
                yield f"{path} holds a {type(item).__name__}, expected {kind.__name__} alone"
    for name in manifest["identity"]["order"]:
        yield from field_faults(manifest, ["identity", "attacks", name], (dict,))
        yield from field_faults(manifest, ["costs", name], (dict, type(None)))
        for key, allowed in ATTACK_FIELDS.items():
            yield from field_faults(manifest, ["identity", "attacks", name, key], allowed)
        for key, allowed in COST_FIELDS.items() if manifest["costs"][name] is not None else ():
            yield from field_faults(manifest, ["costs", name, key], allowed)


def field_faults(manifest: dict[str, Any], path: list[str], allowed: tuple[type, ...]) -> Iterator[str]:
    outer = part_of(manifest, path[:-1])
    if path[-1] not in outer:
        yield f"{'.'.join(path)} is missing"
    elif type(outer[path[-1]]) not in allowed:
        expected = " or ".join(kind.__name__ for kind in allowed)
        yield f"{'.'.join(path)} is a {type(outer[path[-1]]).__name__}, expected {expected}"


def part_of(manifest: dict[str, Any], path: list[str]) -> Any:
    for name in path:
        manifest = manifest[name]
    return manifest
