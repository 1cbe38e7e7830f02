"""The sanity report of an evaluation's folder."""

import warnings
from pathlib import Path

from ..contexts import repeatable
from ..encoder import SELECTION
from ..evaluation import CLEAN, Attack, Evaluation, Results
from ..evaluation.attack import Perturbation
from ..evaluation.evaluation import device_of
from ..evaluation.files import Files
from ..evaluation.manifest import require_manifest
from ..evaluation.ready_made import ball_tolerance
from ..evaluation.sanity import (
    BATCHES,
    INPUT_RANGE,
    Check,
    Measured,
    Threat,
    batch_independence,
    check_images,
    checks_from_records,
    examined,
    load_checks,
    merged,
    one_at_a_time,
    probe,
    save_checks,
)
from ..evaluation.sanity.images import TOLERANCE
from ..evaluation.scoring import Block
from .loading import image_pairs, load_so_far

COMPARED = 16
PENDING = Check(
    INPUT_RANGE,
    "warn",
    "not measured: the small experiments that need the model have not been made, on which further checks depend",
    "They tell a weak attack from a strong defense.",
    "Start the evaluation again, which makes what is missing.",
)


def probe_evaluation(evaluation: Evaluation, folder: str | Path) -> None:
    """Makes the small experiments that need the model, and writes what they found into the evaluation's folder.

    Where the folder has them already, nothing is done.
    """
    results = load_so_far(Path(folder))
    known = [check for check in sanity_checks(results) if check != PENDING]
    names = {check.name for check in known}
    found = []
    with repeatable():
        if BATCHES not in names:
            found.append(probe_batches(evaluation))
        if INPUT_RANGE not in names:
            attack = examined(evaluation.attacks, results.records)
            through_selection = any(follows_selection(one) for one in evaluation.attacks)
            found += probe(evaluation.model, evaluation.data, attack, evaluation.scoring, known, through_selection)
    if found:
        require_manifest(Files(results.folder, results.manifest.get("stamp", "")))
        save_checks(Files(results.folder).sanity, merged(known, found))


def probe_batches(evaluation: Evaluation) -> Check:
    """Of as many images as a block has, but few."""
    if evaluation.block == 1:
        return one_at_a_time()
    few = evaluation.data.limited(min(COMPARED, evaluation.block))
    block = Block.of(few, device_of(evaluation.model))
    return batch_independence(evaluation.model, block, evaluation.scoring)


def follows_selection(attack: Perturbation) -> bool:
    """Whether it follows the attacked model's own gradient through the selection."""
    return isinstance(attack, Attack) and not attack.transfer and attack.followed_surrogate == SELECTION


def sanity_checks(results: Results) -> list[Check]:
    """What records and images say, and what these cannot say as far as the folder's report has it from before.

    So probes are kept, and checks of images that have been removed.
    """
    threats = [Threat.of(name, results.attack(name)) for name in results.records]
    records = [record for own in results.records.values() for record in own]
    images = check_images(measure(results.folder, threats))
    found = merged(images + checks_from_records(records, threats, results.deterministic), before(results.folder))
    return found if any(check.name == INPUT_RANGE for check in found) else [*found, PENDING]


def before(folder: Path) -> list[Check]:
    """What the folder's report has; nothing where it is damaged, since all of it can be measured again."""
    path = Files(folder).sanity
    try:
        return [check for check in load_checks(path) if check != PENDING] if path.exists() else []
    except ValueError as error:
        warnings.warn(f"{error}; it is made anew", stacklevel=2)
        return []


def tolerance(threat: Threat) -> float:
    """Images that came from elsewhere are held to what they were accepted by."""
    if threat.budget is None or threat.crafting["method"] != "images":
        return TOLERANCE
    return ball_tolerance(threat.budget.epsilon)


def measure(folder: Path, threats: list[Threat]) -> list[Measured]:
    """Every saved image of an attack, measured again."""
    return [
        Measured.of(threat.name, threat.budget, pairs.clean, pairs.perturbed, tolerance(threat))
        for threat in threats
        if threat.name != CLEAN
        for pairs in image_pairs(folder, threat.name)
    ]
