"""A training as the options of ``neuroae train`` describe it: what decides it, its run, and its end."""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..data import ImageSet
from ..dictionary import dictionary_digest
from ..evaluation import Evaluation, Scoring, run_evaluation
from ..models import CONFIG, load_pretrained, save_pretrained
from ..models.fingerprints import fingerprint
from ..models.presets import Preset, make_defense, make_undefended
from ..nn.classifiers import DropoutResNet32, check_sides
from ..nn.defense import Defense
from ..reports import Row, TrainingRecord, markdown_table
from ..training import (
    Epoch,
    Run,
    TrainingSettings,
    train_adversarial,
    train_plain,
    train_supervised,
    train_unsupervised,
)
from ..training.adversarial import RECIPES, AdversarialMethod
from ..utils import distributed
from ..utils.contexts import drawing_from
from .runs import (
    RUN,
    Start,
    claimed_for_training,
    load_or_learn_atoms,
    load_run,
    make_placeholder_atoms,
    require_identity,
    require_run,
)

Method = Literal["supervised", "unsupervised", "plain", AdversarialMethod]
WITH_DEFENSE = ("supervised", "unsupervised")


@dataclass(frozen=True, eq=False)
class Plan:
    """A training as the options describe it.

    Attributes:
        method: The training method.
        dataset: The name of the data set.
        preset: The data set's preset with the user's options.
        settings: Optimizer, schedule and seed.
        images: The training images.
        validation: Training images that are held out, and scored after every epoch; None if none are held out.
        scoring_images: The images that the model is scored on at the end: the held-out or else the test images.
        start: The saved model to start from, or None.
        atoms: (L, C, n, n), or None if they are to be learned, or if the method trains no defense.
    """

    method: Method
    dataset: str
    preset: Preset
    settings: TrainingSettings
    images: ImageSet
    validation: ImageSet | None
    scoring_images: ImageSet
    start: Start | None
    atoms: Tensor | None

    def learns_atoms(self) -> bool:
        """Returns whether the atoms are still to be learned."""
        return self.method in WITH_DEFENSE and self.atoms is None

    def identity(self) -> dict[str, Any]:
        """Returns the values by which trainings differ, as they come back from JSON; "dictionary" only with atoms."""
        identity = {
            "method": self.method,
            "dataset": self.dataset,
            "images": len(self.images),
            "fingerprint": self.images.fingerprint(),
            "preset": self.preset.identity(),
            "training": asdict(self.settings),
        }
        if self.atoms is not None:
            identity["dictionary"] = dictionary_digest(self.atoms)
        if self.start is not None:
            identity["init"] = fingerprint(self.start.model)
        json_values: dict[str, Any] = json.loads(json.dumps(identity))
        return json_values


def show_finished(output: Path, identity: dict[str, Any]) -> None:
    """Prints that the training is complete, and the model's score.

    Raises:
        ValueError: The folder holds the model of another training.
    """
    _, notes = load_pretrained(output)
    if (output / RUN).exists():
        require_run(output, identity)
    else:
        require_identity(output / CONFIG, notes.get("run", {}), identity)
    if distributed.is_first():
        print(f"{output} is trained already{describe_score(output / CONFIG, notes)}")


def describe_score(path: Path, notes: dict[str, Any]) -> str:
    """Returns the model's score in words; "" if its notes have none, as when another program saved the model.

    Raises:
        ValueError: The notes hold scores of another form; the message names the path.
    """
    try:
        texts = [
            f": {score['accuracy']:.1%} of {score['images']:,} images of {score['data']}"
            for score in notes.get("scores", [])
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} holds scores that cannot be read: {error!r}") from error
    return "".join(texts[:1])


def run_plan(plan: Plan, output: Path, checkpoint_seconds: float, device: torch.device) -> None:
    """Trains the model, scores it and saves it.

    Args:
        plan: The training.
        output: The folder of the training.
        checkpoint_seconds: The time between two checkpoints.
        device: The device to compute on.
    """
    # Before the folder is created, so that unusable settings leave nothing behind.
    model = try_model(plan)
    with claimed_for_training(output, plan.identity()):
        if plan.learns_atoms():
            plan = replace(plan, atoms=load_or_learn_atoms(plan.preset, plan.images, output, plan.settings.seed))
            model = make_model(plan, plan.atoms)
        identity = plan.identity()
        run = Run(output, checkpoint_seconds, identity, TrainingRecord(output).update, held=True)
        history = learn(plan, model.to(device), run)
        if distributed.is_first():
            finish(plan, model, history, identity, output)


def try_model(plan: Plan) -> nn.Module:
    """Returns a model of the plan, with placeholders for atoms that are still to be learned.

    The model classifies an image, so that errors in the settings arise before anything is written.
    """
    model = make_model(plan, make_placeholder_atoms(plan.preset, plan.images) if plan.learns_atoms() else plan.atoms)
    with torch.no_grad(), drawing_from(0):
        model.eval()(plan.images.take(slice(1)).pixels())
    if plan.start is not None:
        plan.start.copy_into(model)
        plan.start.compare_classes(plan.images)
    return model


def make_model(plan: Plan, atoms: Tensor | None) -> nn.Module:
    """Returns an untrained defense with these atoms, or the model without a defense where there are no atoms."""
    classes, seed = len(plan.images.classes), plan.settings.seed
    height, width = plan.images.images.shape[2:]
    if plan.preset.classifier != "efficientnet-b0":
        check_sides(height, width)
    if atoms is None:
        return make_undefended(plan.preset, (height, width), classes, seed)
    return make_defense(plan.preset, atoms, (height, width), classes, seed)


def learn(plan: Plan, model: nn.Module, run: Run) -> list[Epoch]:
    """Trains the model by the plan's method, and returns the epochs."""
    if plan.method in RECIPES:
        return train_adversarial(
            model,
            plan.images,
            plan.settings,
            plan.method,
            run,
            plan.validation,
            plan.preset.epsilon,
        )
    if not isinstance(model, Defense):
        return train_plain(model, plan.images, plan.settings, run, plan.validation)
    if plan.method == "unsupervised":
        epochs = plan.preset.decoder_epochs
        return train_unsupervised(model, plan.images, plan.settings, epochs, run, plan.validation)
    return train_supervised(model, plan.images, plan.settings, run, plan.validation)


def finish(plan: Plan, model: nn.Module, history: list[Epoch], identity: dict[str, Any], output: Path) -> None:
    """Scores the model, saves it with notes on its training, and prints the score."""
    scoring_images, seed = plan.scoring_images, plan.settings.seed
    ensemble = 10 if isinstance(model, Defense | DropoutResNet32) else 1
    results = run_evaluation(Evaluation(model, scoring_images, [], Scoring(ensemble, seed), name=output.name))
    row = Row.of(output.name, results)
    first, *later = load_run(output)["versions"]
    notes = {
        "run": identity,
        "classes": list(plan.images.classes),
        "scores": [{"data": scoring_images.name, "ensemble": ensemble, **asdict(row)}],
        "seconds": sum(identity["images"] / epoch.images_per_second for epoch in history),
        "epochs": [asdict(epoch) for epoch in history],
        "versions": first,
    }
    if later:
        notes["continued_with"] = later
    if plan.start is not None:
        notes["earlier"] = plan.start.runs()
    save_pretrained(model, output, notes)
    print(markdown_table([row]))
