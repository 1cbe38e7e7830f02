"""``neuroae demo``: train, attack and draw the defense on handwritten digits."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import nn

from ..attacks import PGDSettings
from ..data import ImageSet, load_dataset
from ..evaluation import CLEAN, Attack, Evaluation, Results, Scoring, attacks_from, run_evaluation
from ..models.presets import PRESETS, Preset, make_classifier, make_defense, make_dictionary
from ..nn.defense import Defense
from ..nn.encoder import SELECTION
from ..nn.normalization import NormalizingClassifier
from ..reports import Row, Strip, draw_picture, markdown_table, stages
from ..training import TrainingSettings, train_plain, train_supervised, train_unsupervised
from ..utils.randomness import derive_seed

PICTURE = "demo.png"
NUM_EXAMPLES = 8


@dataclass(frozen=True)
class DemoSettings:
    """The size of the demonstration.

    Attributes:
        preset: Settings of dictionary, encoder, training and attacks.
        train_images: The number of training images, the first ones of the data set.
        test_images: The number of test images, the first ones of the data set.
        attacked_images: The number of test images that are attacked, the first ones of the data set.
        steps: The number of steps of projected gradient descent (PGD).
        realizations: N_E, the number of realizations averaged in each step of an attack on a randomized model.
        ensemble: E, the number of realizations that vote on an image.
    """

    preset: Preset = PRESETS["digits"]
    train_images: int = 1297
    test_images: int = 500
    attacked_images: int = 100
    steps: int = 20
    realizations: int = 10
    ensemble: int = 10


@dataclass(frozen=True, eq=False)
class Models:
    """The models that the demonstration trains.

    Attributes:
        defense: The defense, with decoder and classifier trained together.
        unsupervised: The defense with an unsupervised decoder, which attacks transfer from.
        undefended: The classifier alone.
    """

    defense: Defense
    unsupervised: Defense
    undefended: NormalizingClassifier


def demo(
    output: Annotated[Path, typer.Option(help=f"Folder for the picture, {PICTURE}.")] = Path("neuroae-demo"),
    seed: Annotated[int, typer.Option(help="Seed of all random draws.")] = 0,
) -> None:
    """Train, attack and draw the defense on scikit-learn's digits, in a minute or two. Downloads nothing."""
    run(DemoSettings(), output, seed)


def run(settings: DemoSettings, output: Path, seed: int) -> dict[str, dict[str, Results]]:
    """Prints the table, saves the picture, and returns the results of each model by attack, the clean images first."""
    train = load_dataset("digits", "train").take(slice(settings.train_images))
    test = load_dataset("digits", "test").take(slice(settings.test_images))
    models = train_models(train, settings.preset, seed)
    results = attack_models(models, test, settings, seed)
    rows = [
        Row.of(model, evaluation, attack)
        for model, evaluations in results.items()
        for attack, evaluation in evaluations.items()
    ]
    print(markdown_table(rows))
    picture = output / PICTURE
    draw_demo(picture, models, test, results, seed)
    print(f"\nattacks: l-infinity, epsilon {settings.preset.epsilon:g}; picture: {picture}")
    return results


def train_models(train: ImageSet, preset: Preset, seed: int) -> Models:
    """Returns the trained models; the two defenses share a dictionary."""
    classes = len(train.classes)
    height, width = train.images.shape[2:]
    atoms = make_dictionary(preset, train, seed)
    defense, unsupervised = (make_defense(preset, atoms, (height, width), classes, seed) for _ in range(2))
    undefended = make_classifier(preset, classes, seed)
    schedule = TrainingSettings(epochs=preset.epochs, learning_rate=preset.learning_rate, seed=seed)
    train_supervised(defense, train, schedule)
    train_unsupervised(unsupervised, train, schedule, preset.decoder_epochs)
    train_plain(undefended, train, schedule)
    return Models(defense, unsupervised, undefended)


def attack_models(models: Models, test: ImageSet, settings: DemoSettings, seed: int) -> dict[str, dict[str, Results]]:
    """Returns the results of the undefended model and of the defense, by attack, the clean images first."""
    preset = settings.preset
    budget = PGDSettings(preset.epsilon, preset.step_size, settings.steps, realizations=settings.realizations)
    recipe = PGDSettings.selection_recipe(epsilon=preset.epsilon, step_size=preset.step_size, steps=settings.steps)
    on_defense = attacks_from(models.defense, budget, ("w-nfga-identity", "w-nfga-smooth"))
    on_defense += attacks_from(models.unsupervised, budget, ("w-aiga",), transfer="unsupervised")
    on_defense += attacks_from(models.defense, recipe, (SELECTION,))
    attacked = test.take(slice(settings.attacked_images))

    def evaluate(name: str, model: nn.Module, attacks: list[Attack], draws: int) -> dict[str, Results]:
        scoring = Scoring(draws, seed)
        clean = run_evaluation(Evaluation(model, test, [], scoring, name=name))
        results = run_evaluation(Evaluation(model, attacked, attacks, scoring, name=name))
        return {CLEAN: clean} | {attack.name: results for attack in attacks}

    return {
        "undefended": evaluate("undefended", models.undefended, attacks_from(models.undefended, budget), 1),
        "defense": evaluate("defense", models.defense, on_defense, settings.ensemble),
    }


def draw_demo(path: Path, models: Models, test: ImageSet, results: dict[str, dict[str, Results]], seed: int) -> None:
    """Draws the first test images: clean, attacked, and as each defense decodes them."""
    masks = derive_seed(seed, "picture")
    on_defense, on_undefended = results["defense"], results["undefended"]
    worst = min(list(on_defense)[1:], key=lambda attack: on_defense[attack].accuracy(attack).value)
    (pgd,) = list(on_undefended)[1:]

    def images(results: dict[str, Results], attack: str) -> torch.Tensor:
        return results[attack].images(attack)[:NUM_EXAMPLES]

    def answers(title: str, results: dict[str, Results], attack: str) -> Strip:
        votes = torch.tensor([record.vote for record in results[attack].records[attack]])
        return Strip.of(title, images(results, attack), votes, test.labels, test.classes)

    @torch.no_grad()
    def decoded(title: str, model: Defense, attack: str) -> Strip:
        attacked = images(on_defense, attack)
        return Strip(title, model.autoencode(attacked, masks, test.ids[: len(attacked)]))

    strips = [
        answers("clean,\ndefense's answer", on_defense, CLEAN),
        decoded("decoded", models.defense, CLEAN),
        decoded("decoded,\nunsupervised", models.unsupervised, CLEAN),
        answers("PGD,\nundefended answer", on_undefended, pgd),
        answers(f"{worst},\ndefense's answer", on_defense, worst),
        decoded("decoded", models.defense, worst),
        decoded("decoded,\nunsupervised", models.unsupervised, worst),
    ]
    draw_picture(path, strips, stages(models.defense.encoder, images(on_defense, CLEAN)[0], masks))
