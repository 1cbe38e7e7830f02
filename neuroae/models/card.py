"""The model card of a saved model: text and tables under the header that the Hugging Face hub reads.

The card describes training and scores as far as the model's notes hold them. It reads these notes:

- ``run``: The model, images and settings of the training, as nested objects.
- ``epochs``: A list with an object for each epoch, with its ``stage``.
- ``seconds``: The duration of the training.
- ``earlier``: A list with ``run``, ``epochs`` and ``seconds`` of each earlier training of the weights, oldest first.
- ``classes``: A list of the class names, in the order of the logits.
- ``scores``: A list of clean accuracies, objects with ``data``, ``attack``, ``ensemble``, ``accuracy``, ``low``,
  ``high`` and ``images``.
- ``attacked``: A list of accuracies under attacks, with the same fields.
- ``storage``: A list of the effects of rounding the weights, objects with ``ensemble``, ``float32``, ``float16`` and
  ``changed``.
- ``versions``, ``scored_with``: The versions and commits of the software that trained and scored the model.
- ``continued_with``: A list of other versions that continued the training after a stop.
- ``license``: The license, as the hub spells it.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..nn.architectures import TITLES
from ..nn.defense import Defense
from ..nn.front_ends import FrontEndClassifier
from ..utils.markdown import table
from .description import class_names

PAPER = "A Neuro-Inspired Autoencoding Defense Against Adversarial Perturbations"
DEFENSE_LIMITS = """\
- Use this model for research on adversarial robustness: attack it, and compare other defenses with it.
- The defense is without a proof, and it is broken: do not protect anything with it. A white-box attack that follows
  how atoms enter and leave the top T (`with_surrogate("selection")`, 20 steps of 2 realizations) leaves about one
  image in seven of CIFAR-10 classified correctly at epsilon 8/255. The paper's attacks leave 40% or more.
- An accuracy under attack is an upper bound: stronger attacks than the tested ones may exist, and it holds for the
  tested budgets only.
- Dropout in the encoder is part of the defense and always on, so two calls without a seed give different answers.
- The model knows only the classes and the kind of images that it was trained on, and was not tested on others."""
CLASSIFIER_LIMITS = """\
- Use this model for research on adversarial robustness. It is the defense's classifier without the autoencoder in
  front of it: compare the defense with it, and transfer attacks from it.
- It has no protection against adversarial images.
- The model knows only the classes and the kind of images that it was trained on, and was not tested on others."""
ADVERSARIAL_METHODS = {
    "pgd-at": "PGD adversarial training",
    "r-fgsm-at": "R+FGSM adversarial training",
    "trades": "TRADES",
}
OTHERS_LIMITS = """\
- Use this model for research on adversarial robustness: the paper compares its defense with such models.
- {protection}
- The model knows only the classes and the kind of images that it was trained on, and was not tested on others."""
FRONT_END_TITLES = {"k-sparse-autoencoder": "a k-sparse autoencoder", "gaussian-blur": "a Gaussian blur"}


def model_card(name: str, model: nn.Module, tensors: Mapping[str, Tensor], config: dict[str, Any]) -> str:
    """Returns the card as Markdown.

    Args:
        name: The name of the model's folder.
        model: The model.
        tensors: The stored tensors by name.
        config: The model's configuration with the notes.

    Raises:
        ValueError: A note that the card reads does not have the form above.
    """
    notes = config["notes"]
    try:
        parts = [
            header(name, notes),
            f"# {name}",
            summary(model, tensors, config),
            usage(name, model, config),
            accuracy(scores_of(notes)),
            "## Intended use and limits\n\n" + limits(model, notes),
            settings("Model", architecture(tensors, config)),
            settings("Training", training(notes)),
            storage(notes.get("storage", [])),
            settings("Trained with", notes.get("versions", {})),
            *(settings("Continued with", later) for later in notes.get("continued_with", [])),
            settings("Scored with", notes.get("scored_with", {})),
        ]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"notes do not fit a model card: {error!r}") from error
    return "\n\n".join(part for part in parts if part) + "\n"


def header(name: str, notes: dict[str, Any]) -> str:
    """Returns the YAML header between two rules; its values are written as JSON, which is YAML."""
    scores = scores_of(notes)
    fields = {
        "license": notes.get("license"),
        "library_name": "neuroae",
        "pipeline_tag": "image-classification",
        "tags": ["adversarial-robustness", "sparse-coding"],
        "datasets": sorted({dataset_of(score) for score in scores}),
        "metrics": ["accuracy"] if scores else [],
        "model-index": [{"name": name, "results": [result(score) for score in scores]}] if scores else [],
    }
    return "\n".join(["---", *(f"{field}: {json.dumps(value)}" for field, value in fields.items() if value), "---"])


def scores_of(notes: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns the scores on clean images, then those under attacks."""
    return [*notes.get("scores", []), *notes.get("attacked", [])]


def result(score: dict[str, Any]) -> dict[str, Any]:
    """Returns a score in the form of the header's model index."""
    return {
        "task": {"type": "image-classification"},
        "dataset": {"type": dataset_of(score), "name": score["data"]},
        "metrics": [
            {
                "type": "accuracy",
                "value": score["accuracy"],
                "name": f"accuracy, {score['attack']}, E = {score['ensemble']}",
            }
        ],
    }


def dataset_of(score: dict[str, Any]) -> str:
    """Returns a score's data set: "cifar10" of "cifar10 test" and of "5,000 held out of cifar10 train"."""
    return str(score["data"]).rpartition(" out of ")[2].split()[0]


def summary(model: nn.Module, tensors: Mapping[str, Tensor], config: dict[str, Any]) -> str:
    parameters = sum(parameter.numel() for parameter in model.parameters())
    classes = config["classifier"]["num_classes"]
    classifier = TITLES[config["classifier"]["name"]]
    title, parts = classifier, f"for {classes} classes, without the defense in front of it"
    if isinstance(model, Defense):
        title, parts = (
            "defense",
            f"for {classes} classes: a sparse randomized autoencoder with {article(classifier)} behind it",
        )
    elif isinstance(model, FrontEndClassifier):
        front_end = FRONT_END_TITLES[config["front_end"]["name"]]
        parts = f"for {classes} classes, behind {front_end} instead of the defense"
    half = sum(tensor.numel() for tensor in tensors.values() if tensor.dtype == torch.float16)
    storage = f"{half:,} of them as float16, the rest as float32" if half else "all of them as float32"
    megabytes = sum(tensor.nbytes for tensor in tensors.values()) / 1e6
    return (
        f"The {title} of *{PAPER}* (Bakiskan, Cekic, Sezer, Madhow),\n"
        f"{parts}. Made with neuroae.\n\n"
        f"{parameters:,} parameters, {storage}; {megabytes:.1f} MB."
    )


def limits(model: nn.Module, notes: dict[str, Any]) -> str:
    """Returns what the model is for, and what protection against adversarial images to expect of it."""
    if isinstance(model, Defense):
        return DEFENSE_LIMITS
    method = notes.get("run", {}).get("method")
    if method in ADVERSARIAL_METHODS:
        return OTHERS_LIMITS.format(
            protection=f"It was trained on adversarial images ({ADVERSARIAL_METHODS[method]}). That protects in part, "
            "and\n  for budgets like the one of its training only."
        )
    if config_name(model) == "resnet32":
        return CLASSIFIER_LIMITS
    return OTHERS_LIMITS.format(protection="It has no protection against adversarial images.")


def config_name(model: nn.Module) -> str:
    """Returns the name of a classifier alone; "" for one behind a front end."""
    return "" if isinstance(model, FrontEndClassifier) else str(getattr(model, "NAME", ""))


def article(title: str) -> str:
    """Returns a title with its article."""
    return f"an {title}" if title[0] in "AEIO" else f"a {title}"


def usage(name: str, model: nn.Module, config: dict[str, Any]) -> str:
    kind = type(model).__name__
    shape, call = (config["classifier"]["in_channels"], 32, 32), "model(images).softmax(-1)"
    if isinstance(model, Defense):
        shape, call = (
            (config["decoder"]["out_channels"], *config["decoder"]["image_size"]),
            "model.predict_proba(images)",
        )
    elif isinstance(model, FrontEndClassifier) and "image_size" in config["front_end"]:
        shape = (config["classifier"]["in_channels"], *config["front_end"]["image_size"])
    return f"""\
```python
import torch
from neuroae import {kind}

model = {kind}.from_pretrained("{name}")  # or the path of this folder
images = torch.rand(4, {", ".join(map(str, shape))})  # your images: float32 in [0, 1]
probabilities = {call}
```"""


def accuracy(scores: list[dict[str, Any]]) -> str:
    if not scores:
        return ""
    rows = [
        (
            score["data"],
            score["attack"],
            f"{score['ensemble']}",
            f"{score['accuracy']:.2%}",
            f"{score['low']:.2%} to {score['high']:.2%}",
            f"{score['images']:,}",
        )
        for score in scores
    ]
    columns = ("data", "attack", "E", "accuracy", "95% interval", "images")
    return f"""\
## Accuracy

{table(columns, rows, text_columns=2)}

E is the number of realizations (draws of the dropout) whose softmax outputs are averaged. The row of a defense with
E = 1 is the mean over several single realizations, with an interval by a bootstrap over the images. All other
intervals are Clopper-Pearson. Intervals account for the choice of the images, not for the draws."""


def architecture(tensors: Mapping[str, Tensor], config: dict[str, Any]) -> dict[str, Any]:
    """Returns the settings of the model's parts, the shape of its dictionary and the class names."""
    atoms = {"atoms": list(tensors["encoder.atoms"].shape)} if "encoder.atoms" in tensors else {}
    names = class_names(config["notes"], config["classifier"]["num_classes"])
    classes = {"classes": list(names)} if names else {}
    return atoms | {part: config[part] for part in config if part not in ("model", "notes")} | classes


def training(notes: dict[str, Any]) -> dict[str, Any]:
    """Returns the settings and the duration of the training, and of each earlier training of the weights."""
    # The preset is left out: those of its values that were used are among the settings of the model and the training.
    rows = {name: value for name, value in notes.get("run", {}).items() if name != "preset"} | duration(notes)
    for number, earlier in enumerate(notes.get("earlier", []), start=1):
        settings = earlier.get("run", {}).get("training", {})
        values = {name: settings.get(name, "unknown") for name in ("seed", "learning_rate")}
        rows[f"training before, {number}"] = values | duration(earlier)
    return rows


def duration(notes: dict[str, Any]) -> dict[str, Any]:
    """Returns the epochs of each stage of a training, and its hours."""
    stages = Counter(epoch["stage"] for epoch in notes.get("epochs", []))
    epochs = {f"epochs done, {stage}": count for stage, count in stages.items()}
    return epochs | ({"hours": f"{notes['seconds'] / 3600:.3g}"} if "seconds" in notes else {})


def storage(checks: list[dict[str, Any]]) -> str:
    if not checks:
        return ""
    columns = ("E", "accuracy, float32", "accuracy, float16", "answers that differ")
    rows = [
        (f"{check['ensemble']}", f"{check['float32']:.2%}", f"{check['float16']:.2%}", f"{check['changed']:,}")
        for check in checks
    ]
    return f"""\
## Rounding to float16

{table(columns, rows, text_columns=0)}

Accuracies on the same images and dropout masks, with the weights of convolutions and linear layers as trained
(float32), and rounded to float16."""


def settings(title: str, values: dict[str, Any]) -> str:
    """Returns a section with a table of settings; "" where there are none."""
    if not values:
        return ""
    return f"## {title}\n\n{table(('setting', 'value'), list(flatten(values)), text_columns=2)}"


def flatten(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yields names and values as text; the names of nested values are joined by dots."""
    for name, value in values.items():
        if isinstance(value, dict):
            yield from flatten(value, f"{prefix}{name}.")
        else:
            yield prefix + name, format_value(value)


def format_value(value: Any) -> str:
    """Returns a setting as readers expect it: yes and no, grouped digits, lists with commas."""
    match value:
        case bool():
            return "yes" if value else "no"
        case int():
            return f"{value:,}"
        case float():
            return f"{value:.6g}"
        case list():
            return ", ".join(map(format_value, value))
    return str(value)
