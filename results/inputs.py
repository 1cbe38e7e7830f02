"""The inputs of experiments: models, CIFAR-10 test images, and the images that a finished evaluation attacked."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from neuroae import DropoutResNet32, FrontEndClassifier, GaussianBlur, resnet32
from neuroae.data import DatasetName, ImageSet, load_dataset
from neuroae.evaluation import CLEAN, MODES, Results
from neuroae.evaluation.statistics import papers_minimum
from neuroae.models import load_pretrained
from neuroae.models.fingerprints import fingerprint
from neuroae.nn.classifiers import ResNet32
from neuroae.nn.encoder import SELECTION
from neuroae.utils.files import load_tensors

# For each role of a model in the evaluations, the name of the shipped model.
SHIPPED_MODELS = {
    "defense": "cifar10",
    "unsupervised": "cifar10-unsupervised",
    "unquantized": "cifar10-unquantized",
    "undefended": "cifar10-undefended",
}
# For each role of a model of the paper's tables, the training of ``python -m results queue`` that makes it.
TRAINED_MODELS = {
    "complete": "complete",
    "no_quantization": "no-quantization",
    "no_dropout": "no-dropout",
    "no_top_t": "no-top-t",
    "no_dropout_us": "no-dropout-us",
    "no_top_t_us": "no-top-t-us",
    "t1_p0": "t1-p0",
    "t5_p05": "t5-p0.5",
    "t10_p075": "t10-p0.75",
    "k_sparse": "k-sparse",
    "r_fgsm": "r-fgsm-at",
    "imagenette": "imagenette",
    "imagenette_undefended": "imagenette-undefended",
    "imagenette_us": "imagenette-no-quantization-us",
    "imagenette_r_fgsm": "imagenette-r-fgsm-at",
}
TRAININGS = Path("runs/trainings")
ADVERSARIAL = "adversarial"
# The roles of classifiers whose weights were published with the paper, and their names in reports.
PUBLISHED_TITLES = {
    ADVERSARIAL: "adversarially trained ResNet-32",
    "published_r_fgsm": "R+FGSM adversarially trained ResNet-32",
    "published_trades": "ResNet-32 trained by TRADES",
    "published_dropout": "ResNet-32 with dropout in its first layer",
    "published_blur": "ResNet-32 behind a Gaussian blur",
}
SMOOTH, _ = MODES["w-nfga-smooth"]


def load_models(paths: Mapping[str, str | Path], device: torch.device) -> dict[str, nn.Module]:
    """Returns models in evaluation mode by their role.

    Args:
        paths: For each role a shipped name or the folder of a saved model; for a role of ``PUBLISHED_TITLES`` a file
            of published weights.
        device: Where the models compute.
    """
    return {
        role: (load_published(role, Path(path)) if role in PUBLISHED_TITLES else load_pretrained(path)[0]).to(device)
        for role, path in paths.items()
    }


def load_published(role: str, weights: Path) -> nn.Module:
    """Returns the model of a role in ``PUBLISHED_TITLES`` in evaluation mode, with the state that the file holds."""
    if role == "published_blur":
        return FrontEndClassifier(GaussianBlur(), load_classifier(weights)).eval()
    if role == "published_dropout":
        model = DropoutResNet32()
        model.load_state_dict(load_tensors(weights)[0])
        return model.eval()
    return load_classifier(weights)


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


def test_images(dataset: DatasetName, data_dir: Path, count: int) -> ImageSet:
    """Returns the first test images of a data set, of each class if they are sorted by class."""
    if dataset == "cifar10":
        return cifar10_test(data_dir, count)
    return load_dataset(dataset, "test", data_dir).limited(count)


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
    the transfer attack from another decoder (PW-T) that leaves the lowest accuracy; and the attack through the
    selection. If an evaluation has none of them, all of its attacks are returned.
    """
    attacks = {name: results.records[name] for name in attack_names(results)}
    pw_t = {name: records for name, records in attacks.items() if results.attack(name)["family"] == "PW-T"}
    names = [SMOOTH] if SMOOTH in attacks else []
    if pw_t:
        names.append(papers_minimum(pw_t)[0])
    names += [SELECTION] if SELECTION in attacks else []
    return names or list(attacks)
