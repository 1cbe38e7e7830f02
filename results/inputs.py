"""The inputs of experiments: models, CIFAR-10 test images, and the images that a finished evaluation attacked."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from neuroae import resnet32
from neuroae.data import ImageSet, load_dataset
from neuroae.evaluation import CLEAN, MODES, Results
from neuroae.evaluation.statistics import papers_minimum
from neuroae.models import load_pretrained
from neuroae.models.fingerprints import fingerprint
from neuroae.nn.classifiers import ResNet32
from neuroae.utils.files import load_tensors

# For each role of a model in the evaluations, the name of the shipped model.
SHIPPED_MODELS = {
    "defense": "cifar10",
    "unsupervised": "cifar10-unsupervised",
    "unquantized": "cifar10-unquantized",
    "undefended": "cifar10-undefended",
}
ADVERSARIAL = "adversarial"  # the role of the classifier whose weights were published with the paper
SMOOTH, _ = MODES["w-nfga-smooth"]


def load_models(paths: Mapping[str, str | Path], device: torch.device) -> dict[str, nn.Module]:
    """Returns models in evaluation mode by their role.

    Args:
        paths: For each role a shipped name or the folder of a saved model; for "adversarial" a file for
            ``load_classifier``.
        device: Where the models compute.
    """
    return {
        role: (load_classifier(Path(path)) if role == ADVERSARIAL else load_pretrained(path)[0]).to(device)
        for role, path in paths.items()
    }


def load_classifier(weights: Path) -> ResNet32:
    """Returns a ResNet-32 in evaluation mode with the state that the safetensors file holds."""
    model = resnet32()
    model.load_state_dict(load_tensors(weights)[0])
    return model.eval()


def file_digest(path: Path) -> dict[str, str]:
    """Returns a file's name and its SHA-256, for JSON."""
    return {"name": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def cifar10_test(data_dir: Path, limit: int | None = None) -> ImageSet:
    """Returns the first ``limit`` test images of CIFAR-10; all of them for None."""
    return load_dataset("cifar10", "test", data_dir).take(slice(limit))


def evaluated_images(results: Results, data: ImageSet) -> ImageSet:
    """Returns the images of the data set that the evaluation attacked, in the order of its records.

    Raises:
        ValueError: The data set lacks one of the images, or has other images under their ids.
    """
    positions = {image: position for position, image in enumerate(data.ids.tolist())}
    images = [record.image for record in results.records[CLEAN]]
    missing = [image for image in images if image not in positions]
    if missing:
        raise ValueError(f"data lacks image {missing[0]} of {results.folder}, and {len(missing) - 1:,} more")
    part = data.take(torch.tensor([positions[image] for image in images]))
    if part.fingerprint() != identity(results)["data"]["fingerprint"]:
        raise ValueError(f"data holds other images than {results.folder} under the same ids")
    return part


def require_evaluated_model(results: Results, model: nn.Module) -> None:
    """Raises ``ValueError`` if the evaluation attacked another model."""
    if fingerprint(model) != identity(results)["model"]["fingerprint"]:
        raise ValueError(f"model is not the one that {results.folder} evaluates")


def identity(results: Results) -> dict[str, Any]:
    """Returns an evaluation's identity from its manifest: the values on which its records depend."""
    decisive: dict[str, Any] = results.manifest["identity"]
    return decisive


def attack_names(results: Results) -> list[str]:
    """Returns the names of an evaluation's attacks, without the clean images."""
    return [name for name in results.records if name != CLEAN]


def attacks_to_draw(results: Results) -> list[str]:
    """Returns the few attacks to show in a picture, so that it stays legible.

    They are those of the paper's Figure 4: W-NFGA smooth, a white-box attack through the surviving coefficients, and
    the transfer attack from another decoder (PW-T) that leaves the lowest accuracy. If an evaluation has neither, all
    of its attacks are returned.
    """
    attacks = {name: results.records[name] for name in attack_names(results)}
    pw_t = {name: records for name, records in attacks.items() if results.attack(name)["family"] == "PW-T"}
    names = [SMOOTH] if SMOOTH in attacks else []
    if pw_t:
        names.append(papers_minimum(pw_t)[0])
    return names or list(attacks)
