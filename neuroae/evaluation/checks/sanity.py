"""The sanity report of an evaluation: what its records and images show, and what experiments on its model add."""

import math
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from torch import nn

from ...attacks import PGDSettings
from ...attacks.settings import GradientSettings
from ...data import ImageSet
from ...nn.encoder import SELECTION
from ...utils.contexts import repeatable
from ...utils.progress import progress_bar
from ...utils.randomness import derive_seed
from ..attack import Attack, Clean, Perturbation, craft
from ..folder import Files
from ..manifest import require_manifest
from ..models import is_random
from ..plan import Evaluation, device_of
from ..ready_made import ball_tolerance
from ..records import CLEAN, Record
from ..results import Results, image_pairs, load_partial
from ..scoring import Block, Scoring, judge
from .check import Check, load_checks, merged, save_checks, unmeasured
from .draws import BATCHES, SEVERAL_DRAWS, batch_independence, one_at_a_time, one_draw, several_draws
from .gradients import gradient_agreement, invalid_gradients, no_agreement, selection_checks, zero_gradients
from .outcomes import COMPARISONS, ITERATIVE, Threat, Verdicts, compare, records_of
from .stages import suite_checks, suite_names
from .threat_model import (
    CHANCE,
    FALLS,
    INPUT_RANGE,
    LARGE,
    TOLERANCE,
    Measured,
    check_images,
    falls_with_epsilon,
    input_range,
    reaches_chance,
)

PENDING = unmeasured(
    INPUT_RANGE,
    "experiments with the model have not run yet; other checks need them too",
    "They tell a weak attack from a strong defense.",
    "Start the evaluation again: it makes what is missing.",
)
EARLIER_PENDING = (
    "not measured: the small experiments that need the model have not been made, on which further checks depend"
)


def sanity_checks(results: Results) -> list[Check]:
    """Returns the sanity report of an evaluation in a folder, without running its model.

    Checks that records and images can decide are made again. The others are those that the folder's sanity.json has
    from before: probes, and checks of images that have been removed since.
    """
    assert results.folder is not None
    threats = [Threat.of(name, results.attack(name)) for name in results.records]
    records = [record for group in results.records.values() for record in group]
    images = check_images(measure_images(results.folder, threats))
    checks = images + checks_from_records(records, threats, results.deterministic)
    for name in [name for name in suite_names(results) if results.records[name]][-1:]:
        checks = merged(checks, suite_checks(results.attack(name), results.records[name]))
    checks = merged(checks, earlier_checks(results.folder))
    return checks if any(check.name == INPUT_RANGE for check in checks) else [*checks, PENDING]


def checks_from_records(
    records: Sequence[Record], threats: Sequence[Threat], fixed_masks: bool = False
) -> list[Check]:
    """Returns the checks that records decide. One that could not be made is a warning that says what is missing.

    Args:
        records: The records of all attacks, at least one.
        threats: The attacks; some may have no records yet.
        fixed_masks: Whether the evaluation drew the same masks in every call.

    Raises:
        ValueError: There are no records.
    """
    if not records:
        raise ValueError("records is empty, expected at least one")
    groups = records_of(records)
    verdicts = {attack: Verdicts(attack, group) for attack, group in groups.items()}
    labels = list({record.image: record.label for record in records}.values())
    return [
        zero_gradients(groups),
        invalid_gradients(groups),
        several_draws(groups.get(CLEAN, ()), fixed_masks),
        *(compare(comparison, threats, verdicts) for comparison in COMPARISONS),
        falls_with_epsilon(threats, verdicts),
        reaches_chance(threats, verdicts, labels),
    ]


def measure_images(folder: Path, threats: list[Threat]) -> list[Measured]:
    """Measures every saved block of adversarial images again."""
    return [
        Measured.of(threat.name, threat.budget, pairs.clean, pairs.perturbed, image_tolerance(threat))
        for threat in threats
        if threat.access != CLEAN
        for pairs in image_pairs(folder, threat.name)
    ]


# Methods whose images other code made.
FROM_ELSEWHERE = ("images", "function")


def image_tolerance(threat: Threat) -> float:
    """Returns by how much a perturbation may exceed epsilon; images from elsewhere were accepted with more."""
    if threat.budget is None or threat.crafting["method"] not in FROM_ELSEWHERE:
        return TOLERANCE
    return ball_tolerance(threat.budget.epsilon)


def earlier_checks(folder: Path) -> list[Check]:
    """Returns the checks of the folder's sanity.json; none where it is damaged, since all can be measured again."""
    path = Files(folder).sanity
    try:
        return [check for check in load_checks(path) if not is_pending(check)] if path.exists() else []
    except ValueError as error:
        warnings.warn(f"{error}; it will be written again", stacklevel=2)
        return []


def is_pending(check: Check) -> bool:
    """Returns whether the check only says, in this or an earlier version's words, that probes have not run yet."""
    return check.name == PENDING.name and check.finding in (PENDING.finding, EARLIER_PENDING)


# Images whose answers are compared alone and in a batch.
COMPARED = 16
# Images whose answers are scored.
ANSWERED = 100
# Images that are attacked: enough to see a difference of 15 points between two attacks. Few realizations save time.
ATTACKED = 64
STEPS = 20
REALIZATIONS = 5
# The steps together are so many radii long: they cross the ball and have room to turn.
REACH = 2.5
FACTORS = (0.5, 1.0, 2.0)


def probe_evaluation(evaluation: Evaluation, folder: str | Path) -> None:
    """Makes the checks that need the model, by small experiments, and adds them to the folder's sanity.json.

    Experiments that the folder's sanity.json has already are not repeated.

    Raises:
        FolderReplacedError: Another run has replaced the folder meanwhile.
    """
    results = load_partial(folder)
    earlier = [check for check in sanity_checks(results) if not is_pending(check)]
    names = {check.name for check in earlier}
    probes = []
    with repeatable():
        if BATCHES not in names:
            probes.append(probe_batches(evaluation))
        if INPUT_RANGE not in names:
            followed = [one for attack in evaluation.attacks for one in gradient_attacks(attack)]
            attack = examined_attack(followed, results.records)
            through_selection = any(follows_selection(one) for one in followed)
            probes += probe(evaluation.model, evaluation.data, attack, evaluation.scoring, earlier, through_selection)
    if probes:
        files = Files(Path(folder), results.manifest.get("stamp", ""))
        require_manifest(files)
        save_checks(files.sanity, merged(earlier, probes))


def probe_batches(evaluation: Evaluation) -> Check:
    """Compares answers to images alone and in a batch, on at most 16 images and no more than a block has."""
    if evaluation.block == 1:
        return one_at_a_time()
    few = evaluation.data.limited(min(COMPARED, evaluation.block))
    return batch_independence(evaluation.model, Block.of(few, evaluation.device), evaluation.scoring)


def gradient_attacks(attack: Perturbation) -> Sequence[Perturbation]:
    """Returns the attacks whose gradients may be examined: those of a suite's stages, or the attack itself."""
    stages: Callable[[], Sequence[Attack]] | None = getattr(attack, "gradient_attacks", None)
    return [attack] if stages is None else stages()


def follows_selection(attack: Perturbation) -> bool:
    """Returns whether the attack follows the attacked model's own gradient through the selection."""
    return isinstance(attack, Attack) and not attack.transfer and attack.followed_surrogate == SELECTION


def probe(
    model: nn.Module,
    data: ImageSet,
    attack: Attack | None,
    scoring: Scoring,
    earlier: Sequence[Check],
    through_selection: bool = False,
) -> list[Check]:
    """Probes the input's range, the agreement of gradients, and what records did not tell of draws, steps and epsilon.

    Args:
        model: The attacked model.
        data: The images. The probes answer the first 100 of them and attack the first 64; where images are sorted by
            class, the first ones of every class.
        attack: The attack whose gradients are examined; None examines none.
        scoring: The draws of the evaluation; the seeds of the probes derive from its seed.
        earlier: The checks from records. What these measured is not measured again.
        through_selection: Whether an attack of the evaluation follows the surrogate "selection".
    """
    scoring = replace(scoring, seed=derive_seed(scoring.seed, "probe"))
    missing = {check.name for check in earlier if not check.measured}
    many, few = (data.limited(count) for count in (ANSWERED, ATTACKED))
    checks = [input_range(model, Block.of(many, device_of(model)), scoring)]
    checks += selection_checks(model, Block.of(few, device_of(model)), scoring, through_selection)
    if SEVERAL_DRAWS in missing:
        checks.append(one_draw(is_random(model, many)))
    if attack is None:
        checks.append(no_agreement())
    else:
        block = Block.of(few, device_of(model))
        checks.append(gradient_agreement(attack, block, scoring))
        if not attack.transfer and missing & {ITERATIVE.name, FALLS, CHANCE}:
            checks += [check for check in attack_a_few(model, block, attack, scoring) if check.name in missing]
    return checks


def examined_attack(attacks: Iterable[Perturbation], records: Mapping[str, Sequence[Record]]) -> Attack | None:
    """Returns the attack whose gradients the probes examine; None where none follows gradients.

    Attacks on the attacked model come before transfers, and attacks on single realizations before variants, whose
    draws are whole ensembles. Among these, it is the attack that fools most images on the selection draws. Transfers
    and variants that average nothing have no agreement to examine.
    """
    candidates = [
        attack
        for attack in attacks
        if isinstance(attack, Attack)
        and isinstance(attack.settings, GradientSettings)
        and (attack.settings.realizations > 1 or not (attack.transfer or attack.variant))
    ]

    def place(attack: Attack) -> tuple[bool, bool, int]:
        fooled = sum(record.selection > 0 for record in records.get(attack.name, ()))
        return bool(attack.transfer), attack.variant is not None, -fooled

    return min(candidates, key=place, default=None)


def attack_a_few(model: nn.Module, block: Block, attack: Attack, scoring: Scoring) -> list[Check]:
    """Attacks the block by small attacks, and returns the checks of steps and epsilons on their records."""
    attacks = small_attacks(attack)
    every: list[Perturbation] = [Clean(), *attacks]
    verdicts = {}
    with progress_bar(total=sum(one.passes for one in attacks) * len(block.ids), desc="probes", unit="pass") as bar:
        for one in every:
            records = judge(model, one.name, block, craft(one, model, block, scoring, bar.update), scoring)
            verdicts[one.name] = Verdicts(one.name, records)
    threats = [Threat.of(one.name, one.identity()) for one in attacks]
    return [
        compare(ITERATIVE, threats, verdicts),
        falls_with_epsilon(threats, verdicts),
        reaches_chance(threats, verdicts, block.labels.tolist()),
    ]


def small_attacks(attack: Attack) -> list[Attack]:
    """Returns small versions of an attack: one step, several at three epsilons, and in the ball with the gray image.

    The epsilons are the attack's, half of it and twice of it. The names end with the attack's name.
    """
    settings = attack.settings
    assert isinstance(settings, GradientSettings)
    base = PGDSettings(
        epsilon=settings.epsilon,
        steps=STEPS,
        realizations=min(settings.realizations, REALIZATIONS),
        average=settings.average,
        loss=settings.loss,
        norm=settings.norm,
        chunk=settings.chunk,
        momentum=settings.momentum if isinstance(settings, PGDSettings) else 0.0,
    )
    widest = 1.0 if base.norm == "linf" else math.inf
    small = {f"PGD, {factor:g} epsilon": with_epsilon(base, min(factor * base.epsilon, widest)) for factor in FACTORS}
    small[f"PGD, epsilon {LARGE:g}"] = replace(with_epsilon(base, LARGE), norm="linf")
    small["FGSM"] = replace(base, steps=1, step_size=base.epsilon or base.step_size)
    return [replace(attack, name=f"{name} by {attack.name}", settings=each) for name, each in small.items()]


def with_epsilon(settings: PGDSettings, epsilon: float) -> PGDSettings:
    """Returns the settings with another epsilon, and steps that cross its ball."""
    return replace(settings, epsilon=epsilon, step_size=REACH * epsilon / settings.steps or settings.step_size)
