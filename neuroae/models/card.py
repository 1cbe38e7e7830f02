"""The model card: what a saved model is, in words and tables, under the header that the Hugging Face hub reads.

Everything about the training comes from the notes, as far as they have it. The card reads these:

- ``run``: what was trained, on which images, with which settings; tables in tables.
- ``epochs``: one table an epoch, each with its ``stage``.
- ``seconds``: that the training took.
- ``earlier``: ``run``, ``epochs`` and ``seconds`` of each training that the weights had before, oldest first.
- ``classes``: the name of each class, in the order of the logits.
- ``scores``: a list of tables with ``data``, ``attack``, ``ensemble``, ``accuracy``, ``low``, ``high`` and ``images``.
- ``attacked``: the same under attacks.
- ``storage``: what rounding the weights changed, a list of tables with ``ensemble``, ``float32``, ``float16`` and
  ``changed``.
- ``versions``, ``scored_with``: of what trained and scored it, and the commits.
- ``continued_with``: a list of those that the training went on with after a stop, where they are others.
- ``license``: as the hub spells it.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..nn.defense import Defense
from ..utils.markdown import table
from .description import class_names

PAPER = "A Neuro-Inspired Autoencoding Defense Against Adversarial Perturbations"
DEFENSE_LIMITS = """\
- Made for research on adversarial robustness: to be attacked, and to be compared with.
- It is a defense without a proof, and it is broken. A white-box attack that follows how atoms enter and leave the top
  T (`with_surrogate("selection")`, 20 steps of 2 realizations) leaves about one image in seven of CIFAR-10 at epsilon
  8/255, where the paper's attacks leave 40% and more. Do not protect anything with it.
- An accuracy under attack is an upper bound: it holds for the attacks that were tried, at the budgets that were tried.
- The dropout in its encoder is part of the defense and always on, so two calls give two answers unless a seed is
  given.
- It knows the classes and the kind of images that it was trained on, and was not tested on others."""
CLASSIFIER_LIMITS = """\
- Made for research on adversarial robustness: the same classifier as in the defense, without the autoencoder in front
  of it, to compare with and to transfer attacks from.
- The architecture does nothing against adversarial images.
- It knows the classes and the kind of images that it was trained on, and was not tested on others."""


def model_card(name: str, model: nn.Module, tensors: Mapping[str, Tensor], config: dict[str, Any]) -> str:
    """The card as Markdown.

    Args:
        name: of the model's folder.
        model: that is saved.
        tensors: as they are stored.
        config: the model's configuration with the notes.

    Raises:
        ValueError: a note that the card reads has another form.
    """
    notes = config["notes"]
    try:
        parts = [
            header(name, notes),
            f"# {name}",
            summary(model, tensors, config),
            usage(name, model, config),
            accuracy(scores_of(notes)),
            "## Intended use and limits\n\n" + (DEFENSE_LIMITS if isinstance(model, Defense) else CLASSIFIER_LIMITS),
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
    """YAML between rules; the values are JSON, which is YAML too."""
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
    """Those of clean images first, then those under attacks."""
    return [*notes.get("scores", []), *notes.get("attacked", [])]


def result(score: dict[str, Any]) -> dict[str, Any]:
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
    """The data set of a split: "cifar10" of "cifar10 test" and of "5,000 held out of cifar10 train"."""
    return str(score["data"]).rpartition(" out of ")[2].split()[0]


def summary(model: nn.Module, tensors: Mapping[str, Tensor], config: dict[str, Any]) -> str:
    parameters = sum(parameter.numel() for parameter in model.parameters())
    classes = config["classifier"]["num_classes"]
    what = f"A ResNet-32 for {classes} classes"
    if isinstance(model, Defense):
        what = f"A sparse randomized autoencoder and the ResNet-32 behind it, for {classes} classes: the defense"
    half = sum(tensor.numel() for tensor in tensors.values() if tensor.dtype == torch.float16)
    kept = f"{half:,} of them as float16, the rest as float32" if half else "all of them as float32"
    megabytes = sum(tensor.nbytes for tensor in tensors.values()) / 1e6
    return (
        f"{what} of *{PAPER}* (Bakiskan, Cekic, Sezer, Madhow), made with neuroae.\n"
        f"{parameters:,} parameters, {kept}; {megabytes:.1f} MB."
    )


def usage(name: str, model: nn.Module, config: dict[str, Any]) -> str:
    kind = type(model).__name__
    shape, call = (config["classifier"]["in_channels"], 32, 32), "model(images).softmax(-1)"
    if isinstance(model, Defense):
        shape, call = (
            (config["decoder"]["out_channels"], *config["decoder"]["image_size"]),
            "model.predict_proba(images)",
        )
    return f"""\
```python
import torch
from neuroae import {kind}

model = {kind}.from_pretrained("{name}")  # or the path of this folder
images = torch.rand(4, {", ".join(map(str, shape))})  # yours: float32 in [0, 1]
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

E is the number of realizations whose softmax outputs are averaged. E = 1 of a defense is the mean over single draws,
with a bootstrap over the images; other intervals are Clopper-Pearson: the images are taken as a sample, the verdicts
as given."""


def architecture(tensors: Mapping[str, Tensor], config: dict[str, Any]) -> dict[str, Any]:
    atoms = {"atoms": list(tensors["encoder.atoms"].shape)} if "encoder.atoms" in tensors else {}
    names = class_names(config["notes"], config["classifier"]["num_classes"])
    classes = {"classes": list(names)} if names else {}
    return atoms | {part: config[part] for part in config if part not in ("model", "notes")} | classes


def training(notes: dict[str, Any]) -> dict[str, Any]:
    # What a preset decided is among the settings of the model and the training, so far as it was used.
    found = {name: value for name, value in notes.get("run", {}).items() if name != "preset"} | work(notes)
    for number, earlier in enumerate(notes.get("earlier", []), start=1):
        settings = earlier.get("run", {}).get("training", {})
        kept = {name: settings.get(name, "unknown") for name in ("seed", "learning_rate")}
        found[f"training before, {number}"] = kept | work(earlier)
    return found


def work(notes: dict[str, Any]) -> dict[str, Any]:
    """What a training took."""
    stages = Counter(epoch["stage"] for epoch in notes.get("epochs", []))
    done = {f"epochs done, {stage}": count for stage, count in stages.items()}
    return done | ({"hours": f"{notes['seconds'] / 3600:.3g}"} if "seconds" in notes else {})


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

The same images and masks with the weights of convolutions and linear layers as they were trained, and rounded to
float16."""


def settings(title: str, values: dict[str, Any]) -> str:
    """A section with a table of settings; "" where there are none."""
    if not values:
        return ""
    return f"## {title}\n\n{table(('setting', 'value'), list(flat(values)), text_columns=2)}"


def flat(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Names and values, of tables in tables with dots between the names."""
    for name, value in values.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, shown(value)


def shown(value: Any) -> str:
    match value:
        case bool():
            return "yes" if value else "no"
        case int():
            return f"{value:,}"
        case float():
            return f"{value:.6g}"
        case list():
            return ", ".join(map(shown, value))
    return str(value)
