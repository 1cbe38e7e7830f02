"""Evaluation folders written by hand, for the tests of reports and checks."""

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from neuroae.evaluation import CLEAN, Record
from neuroae.evaluation.checks import Threat
from neuroae.evaluation.folder import Files, append_lines, save_images
from neuroae.evaluation.records import append_records

CLASSES = ("cat", "dog", "eel")
DRAWS = 4
BLOCK = 4


def record(attack: str, image: int, right: bool, **fields: Any) -> Record:
    """Returns the record of an image of class 0 or 1. Draws and selection agree with the verdict by default."""
    label = image % 2
    vote = label if right else 2
    passes = 0 if attack == CLEAN else 10
    default = Record(attack, image, label, vote, (vote,) * DRAWS, -0.5 if right else 0.5, 0.0, 0.0, passes, 0, 0, 0)
    return replace(default, **fields)


def records(attack: str, right: Sequence[bool], **fields: Any) -> list[Record]:
    """Returns the records of images 0, 1, 2, ..."""
    return [record(attack, image, verdict, **fields) for image, verdict in enumerate(right)]


def share(right: int, images: int) -> list[bool]:
    """Returns verdicts: the first ``right`` images are right, the others are fooled."""
    return [image < right for image in range(images)]


def identity(access: str = "white-box", epsilon: float | None = 0.1, **settings: Any) -> dict[str, Any]:
    """Returns an attack's identity in a manifest."""
    return {
        "method": "pgd",
        "family": "PW-T" if access == "transfer" else access,
        "access": access,
        "source": {"name": "other" if access == "transfer" else "", "kind": "Defense", "fingerprint": "5" * 64},
        "surrogate": "smooth",
        "variant": None,
        "precision": "float32",
        "settings": {"epsilon": epsilon, "step_size": 0.01, "steps": 5, "realizations": 2, "norm": "linf"} | settings,
        "gradients": 10,
        "forwards": 0,
    }


def threat(name: str, access: str = "white-box", epsilon: float | None = 0.1, **settings: Any) -> Threat:
    return Threat.of(name, identity(access, epsilon, **settings))


CLEAN_IDENTITY = {"method": CLEAN, "family": CLEAN, "access": CLEAN, "gradients": 0, "forwards": 0}


@dataclass(frozen=True)
class AttackCase:
    """One attack of a folder.

    Attributes:
        right: Whether each image is classified correctly.
        identity: The attack's identity in the manifest.
        images: The number of images that are saved and recorded so far; None is all.
        fields: Fields of the records that replace those of ``record``.
    """

    right: Sequence[bool]
    identity: Mapping[str, Any] = field(default_factory=identity)
    images: int | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)


def write_evaluation(folder: Path, attacks: Mapping[str, AttackCase], deterministic: bool = False) -> Path:
    """Writes manifest, records, times and images. The evaluation is finished if every attack has all of its images.

    Attacks move every pixel of the clean images (3 x 6 x 6 bytes) up or down by epsilon, or by 0.1 without one.
    """
    files, count = Files(folder), len(attacks[CLEAN].right)
    folder.mkdir(parents=True, exist_ok=True)
    files.manifest.write_text(json.dumps(manifest(attacks, count, deterministic)))
    is_finished = all(attack.images is None for attack in attacks.values())
    clean = clean_images(count)
    for name, attack in attacks.items():
        attack_records = records(name, attack.right, **attack.fields)[: attack.images]
        append_records(files.records if is_finished else files.record_part(0), attack_records)
        append_lines(
            files.times if is_finished else files.time_part(0), [{"attack": name, "block": 0, "seconds": 2.5}]
        )
        epsilon = (attack.identity.get("settings", {}).get("epsilon") or 0.1) * (name != CLEAN)
        perturbed = torch.where(clean > 0.5, clean - epsilon, clean + epsilon)
        for block, ids in enumerate(torch.arange(count)[: attack.images].split(BLOCK)):
            save_images(files.images(name, block), perturbed[ids], ids)
    return folder


def earlier_line(value: Any) -> str:
    """Returns a line in the form of earlier versions: the checksum before the JSON."""
    text = json.dumps(value, separators=(",", ":"))
    return f"{zlib.crc32(text.encode()):08x} {text}\n"


def clean_images(count: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, (count, 3, 6, 6), generator=generator).float() / 255


def manifest(attacks: Mapping[str, AttackCase], count: int, deterministic: bool) -> dict[str, Any]:
    return {
        "format": 2,
        "model": "small <model>",
        "classes": CLASSES,
        "identity": {
            "model": {"kind": "Defense", "fingerprint": "a" * 64},
            "data": {"name": "pets test", "images": count, "fingerprint": "b" * 64},
            "order": list(attacks),
            "attacks": {name: attack.identity for name, attack in attacks.items()},
            "scoring": {"draws": DRAWS, "seed": 0, "deterministic": deterministic, "precision": "float32"},
            "block": BLOCK,
            "device": "cpu",
            "engine": "reference",
            "threads": 1,
        },
        "costs": {
            name: {"K": 3.0, "C": 3.0 * attack.identity["gradients"]} if attack.identity["gradients"] else None
            for name, attack in attacks.items()
        },
        "versions": [{"neuroae": "1.0", "torch": "2.6"}],
    }


# They include a transfer attack that beats the white-box one, and an attack in a ball that holds every image.
ATTACKS = {
    "clean": AttackCase(share(11, 12), CLEAN_IDENTITY),
    "white <box>": AttackCase(share(8, 12), identity()),
    "transfer": AttackCase(share(2, 12), identity("transfer")),
    "white, $wide^$": AttackCase(share(1, 12), identity(epsilon=0.5)),
}
