"""The manifest of an evaluation: what was asked, what it was made with, and what a gradient costs."""

import hashlib
import json
import zlib
from collections.abc import Iterator
from typing import Any

import torch

from .. import processes
from ..defense import Defense
from ..kernels import engine_name
from ..storage import FolderReplacedError, load_json, require_empty, require_same, save_json
from ..versions import versions
from .attack import Attack
from .behavior import behaviors, require_alike
from .cost import relative_cost
from .evaluation import Evaluation
from .files import Files
from .fingerprints import fingerprint, state_fingerprint

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
    if processes.total(own, device).item() != processes.world_size() * own.item():
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
        "engine": engine_of(evaluation),
        "threads": torch.get_num_threads() if device == "cpu" else None,
    }
    stored: dict[str, Any] = json.loads(json.dumps(found))
    return stored


def engine_of(evaluation: Evaluation) -> str:
    model = evaluation.model
    if isinstance(model, Defense) and model.encoder.backend != "auto":
        return model.encoder.backend
    return engine_name(evaluation.device.type)
