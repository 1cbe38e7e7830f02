"""What an evaluation's folder says: a row an attack, what the attacks come to together, and the sanity report."""

import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from ..evaluation import CLEAN, Attack, Evaluation, Results, load_evaluation
from ..evaluation.attack import Perturbation
from ..evaluation.checks import (
    BATCHES,
    INPUT_RANGE,
    VERDICTS,
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
from ..evaluation.checks.threat_model import TOLERANCE
from ..evaluation.folder import IMAGES, Files, slug
from ..evaluation.manifest import load_manifest, require_manifest
from ..evaluation.plan import device_of
from ..evaluation.ready_made import ball_tolerance
from ..evaluation.records import read_records
from ..evaluation.results import seconds_of
from ..evaluation.scoring import Block
from ..nn.encoder import SELECTION
from ..utils.contexts import repeatable
from ..utils.files import load_tensors
from .tables import AttackRow, Pairing, attack_rows, joint_rows, markdown, pairing


class ImagePairs(NamedTuple):
    """Images of an attack that were saved together.

    Attributes:
        ids: (B,) int64.
        clean, perturbed: (B, C, H, W) float32.
    """

    ids: Tensor
    clean: Tensor
    perturbed: Tensor


def load_so_far(folder: Path) -> Results:
    """The results of an evaluation; of one that is not done, what its processes have appended until now.

    Then an attack's records are those of some of the images, in the order of their ids.

    Raises:
        FileNotFoundError: there is no evaluation in the folder.
        ValueError: a file is damaged, or nothing is recorded yet.
    """
    files = Files(folder)
    manifest = load_manifest(files)
    if files.records.exists():
        # One that is being mended, or was stopped there, holds less than all.
        with suppress(ValueError):
            return load_evaluation(folder)
    parts = (read_records(path, manifest.get("stamp", "")) for path in files.record_parts())
    known = {(record.attack, record.image): record for records in parts for record in records}
    if not known:
        raise ValueError(f"{folder} holds no records yet")
    names = manifest["identity"]["order"]
    records = {name: [known[key] for key in sorted(known) if key[0] == name] for name in names}
    return Results(folder, manifest, records, seconds_of(files, names))


def is_finished(results: Results) -> bool:
    images = results.manifest["identity"]["data"]["images"]
    return all(len(records) == images for records in results.records.values())


def image_pairs(folder: Path, attack: str) -> Iterator[ImagePairs]:
    """The saved images of an attack beside the clean ones, a file after the other."""
    # What a killed process was writing begins with a dot.
    for path in sorted((folder / IMAGES / slug(attack)).glob("[!.]*.safetensors")):
        clean = folder / IMAGES / slug(CLEAN) / path.name
        if clean.exists():
            perturbed, _ = load_tensors(path)
            yield ImagePairs(perturbed["ids"], load_tensors(clean)[0]["images"], perturbed["images"])


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


FIXED_MASKS = "FIXED MASKS, for debugging: these results say nothing about the random model."
BATCH_DEPENDENT = (
    "NOT ROBUSTNESS: the model answers an image by the images beside it, so these accuracies hold for these batches "
    "alone; see the sanity report."
)
UNFINISHED = "UNFINISHED: accuracies are of the images that are done, which may not be the same for all attacks."


@dataclass(frozen=True, eq=False)
class Report:
    """
    Attributes:
        results: of the evaluation, as far as it is done.
        rows: of the attacks.
        joint: of the attacks of one budget together.
        paired: the attacks beside the first; None where there are no two.
        checks: the sanity report.
    """

    results: Results
    rows: Sequence[AttackRow]
    joint: Sequence[AttackRow]
    paired: Pairing | None
    checks: Sequence[Check]

    @classmethod
    def of(cls, folder: Path) -> "Report":
        """Read from an evaluation's folder; see ``load_so_far``."""
        results = load_so_far(folder)
        return cls(results, attack_rows(results), joint_rows(results), pairing(results), sanity_checks(results))

    @property
    def finished(self) -> bool:
        return is_finished(self.results)

    @property
    def warnings(self) -> list[str]:
        """What must be known before any number is read."""
        dependent = any(check.name == BATCHES and check.verdict == "fail" for check in self.checks)
        found = {
            FIXED_MASKS: self.results.deterministic,
            BATCH_DEPENDENT: dependent,
            UNFINISHED: not self.finished,
        }
        return [text for text, holds in found.items() if holds]

    @property
    def table(self) -> str:
        """Of all rows, in Markdown."""
        return markdown([*self.rows, *self.joint])

    @property
    def verdicts(self) -> dict[str, int]:
        """How many checks passed, warned and failed."""
        count = Counter(check.verdict for check in self.checks)
        return {verdict: count[verdict] for verdict in VERDICTS}

    def __str__(self) -> str:
        """For a terminal."""
        parts = [*self.warnings, self.table, "\n".join(check.line for check in self.checks)]
        return "\n\n".join(parts)
