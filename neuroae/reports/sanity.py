"""The sanity report of an evaluation's folder."""

from pathlib import Path

from ..contexts import repeatable
from ..evaluation import Evaluation, Results
from ..evaluation.ready_made import ball_tolerance
from ..evaluation.sanity import (
    INPUT_RANGE,
    Check,
    Measured,
    Threat,
    check_images,
    checks_from_records,
    examined,
    load_checks,
    merged,
    probe,
    save_checks,
)
from ..evaluation.sanity.images import TOLERANCE
from .loading import image_pairs, load_so_far

SANITY = "sanity.json"


def probe_evaluation(evaluation: Evaluation, folder: str | Path) -> None:
    """Makes the small experiments that need the model, and writes what they found into the evaluation's folder.

    Where the folder has them already, nothing is done.
    """
    folder = Path(folder)
    known = sanity_checks(load_so_far(folder))
    if any(check.name == INPUT_RANGE for check in known):
        return
    with repeatable():
        found = probe(evaluation.model, evaluation.data, examined(evaluation.attacks), evaluation.scoring, known)
    save_checks(folder / SANITY, merged(known, found))


def sanity_checks(results: Results) -> list[Check]:
    """What records and images say, and what these cannot say as far as the folder's report has it from before.

    So probes are kept, and checks of images that have been removed.
    """
    threats = [Threat.of(name, results.attack(name)) for name in results.records]
    records = [record for own in results.records.values() for record in own]
    images = check_images(measure(results.folder, threats))
    path = results.folder / SANITY
    before = load_checks(path) if path.exists() else []
    return merged(images + checks_from_records(records, threats, results.deterministic), before)


def tolerance(threat: Threat) -> float:
    """Images that came from elsewhere are held to what they were accepted by."""
    if threat.budget is None or threat.crafting["method"] != "images":
        return TOLERANCE
    return ball_tolerance(threat.budget.epsilon)


def measure(folder: Path, threats: list[Threat]) -> list[Measured]:
    """Every saved image with a budget, measured again."""
    return [
        Measured.of(threat.name, threat.budget, pairs.clean, pairs.perturbed, tolerance(threat))
        for threat in threats
        if threat.budget is not None
        for pairs in image_pairs(folder, threat.name)
    ]
