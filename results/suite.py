"""The standard suite on our defense and on an adversarially trained classifier, there beside AutoAttack."""

from pathlib import Path
from typing import Annotated

import typer

from neuroae.evaluation import CLEAN, Evaluation, Results, Scoring, Verdict, load_evaluation, suite_attack
from neuroae.evaluation.statistics import vote_accuracy
from neuroae.models import load_pretrained
from neuroae.utils.devices import choose_device
from neuroae.utils.markdown import table
from results.inputs import SHIPPED_MODELS, attack_names, cifar10_test, load_classifier
from results.libraries import AutoAttack
from results.options import OUTPUT, WORK, DataDir, Device, Output, Weights, Work
from results.outputs import interval_cell, write_results
from results.runs import run

EPSILON = 8 / 255
BLOCK = 50
# The source of transfers that ``neuroae attack cifar10`` takes by itself.
UNDEFENDED = SHIPPED_MODELS["undefended"]
Limit = Annotated[int, typer.Option(min=1, help="Number of test images, from the front.")]

SUITE_NOTE = """\
The first {images:,} test images of CIFAR-10, epsilon 8/255, votes of 10 draws that no attack saw. "Alone" is the
accuracy under each single attack of the package on the same images, from the evaluations beside this one.

Made by `python -m results suite --data-dir DIR`; `report.html` holds the evaluation in full."""

AUTOATTACK_NOTE = """\
The PGD adversarially trained ResNet-32 whose weights were published with the paper, the first {images:,} test images
of CIFAR-10, epsilon 8/255. AutoAttack is the version "standard" of Croce and Hein (2020), put together from
torchattacks' APGD, targeted APGD, targeted FAB and Square with the published 100 steps and 5,000 queries;
torchattacks' own default is 10 steps. The two disagree on {apart} of the images. Passes are means over all images,
those included that were wrong already; a gradient pass includes its forward pass.

Made by `python -m results autoattack --data-dir DIR --weights FILE`; `report.html` holds the evaluation in full."""


def suite(
    data_dir: DataDir, limit: Limit = 200, device: Device = None, work: Work = WORK, output: Output = OUTPUT
) -> None:
    """The standard suite on the shipped defense."""
    model, undefended = (
        load_pretrained(name)[0].to(choose_device(device)) for name in (SHIPPED_MODELS["defense"], UNDEFENDED)
    )
    data, folder = cifar10_test(data_dir, limit), work / "suite"
    attack = suite_attack(model, data, epsilon=EPSILON, sources={UNDEFENDED: undefended}, folder=folder)
    if run(Evaluation(model, data, [attack], Scoring(), BLOCK, "cifar10"), folder, output / "suite"):
        write_suite(output, Verdict.of(load_evaluation(folder)))


def autoattack(
    data_dir: DataDir,
    weights: Weights,
    limit: Limit = 200,
    device: Device = None,
    work: Work = WORK,
    output: Output = OUTPUT,
) -> None:
    """The standard suite beside AutoAttack."""
    model = load_classifier(weights).to(choose_device(device))
    data, folder = cifar10_test(data_dir, limit), work / "autoattack"
    attacks = [suite_attack(model, data, epsilon=EPSILON, folder=folder), AutoAttack(EPSILON)]
    title = "adversarially trained ResNet-32"
    if run(Evaluation(model, data, attacks, Scoring(draws=1), BLOCK, title), folder, output / "autoattack"):
        write_autoattack(output / "autoattack", Verdict.of(load_evaluation(folder)))


def write_suite(output: Path, verdict: Verdict) -> None:
    """Writes the page of the suite on our defense, with the single attacks of other evaluations beside it.

    Args:
        output: The folder of all results.
        verdict: The suite's, of the evaluation with all its images, which hold the passes.
    """
    images = {record.image for record in verdict.results.records[CLEAN]}
    rows = [(verdict.attack, f"{verdict.accuracy.value:.1%}", interval_cell(*verdict.interval))]
    for other in ("selection", "selection-more", "beyond", "table1"):
        if (output / other / "manifest.json").exists():
            rows += alone(load_evaluation(output / other), images)
    note = SUITE_NOTE.format(images=len(images))
    single = table(("attack", "accuracy", "95% interval"), rows)
    write_results(output / "suite", "The suite on our defense", [str(verdict), single, note])


def alone(results: Results, images: set[int]) -> list[tuple[str, str, str]]:
    """Returns the row of each attack of an evaluation on some of its images; none where it lacks one of them."""
    rows = []
    for name in attack_names(results):
        records = [record for record in results.records[name] if record.image in images]
        if len(records) == len(images):
            accuracy = vote_accuracy(records)
            rows.append((f"alone: {name}", f"{accuracy.value:.1%}", interval_cell(*accuracy.interval())))
    return rows


def write_autoattack(folder: Path, verdict: Verdict) -> None:
    """Writes the page of the suite beside AutoAttack, with what each cost.

    Args:
        folder: Where the page goes.
        verdict: The suite's, of the evaluation with all its images, which hold the passes.
    """
    results = verdict.results
    rows = [comparison_row(results, name) for name in attack_names(results)]
    columns = ("attack", "left", "accuracy", "95% interval", "gradient passes", "forward passes")
    first, second = (
        [record.vote == record.label for record in results.records[name]] for name in attack_names(results)
    )
    apart = sum(one != other for one, other in zip(first, second, strict=True))
    note = AUTOATTACK_NOTE.format(images=verdict.images, apart=apart)
    parts = [table(columns, rows), note, verdict.table()]
    write_results(folder, "The suite beside AutoAttack", parts)


def comparison_row(results: Results, name: str) -> tuple[str, ...]:
    """Returns an attack's accuracy and its mean passes on an image."""
    accuracy, details = results.accuracy(name), results.details(name)
    passes = [float(details[kind].sum()) / accuracy.images for kind in ("gradients", "forwards")]
    return (
        name,
        f"{accuracy.correct} of {accuracy.images}",
        f"{accuracy.value:.1%}",
        interval_cell(*accuracy.interval()),
        *(f"{mean:,.0f}" for mean in passes),
    )
