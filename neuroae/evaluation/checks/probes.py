"""The checks that need the model: small experiments on a few images."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from torch import nn

from ...attacks import PGDSettings
from ...attacks.settings import GradientSettings
from ...data import ImageSet
from ...utils.progress import progress_bar
from ...utils.randomness import derive_seed
from ..attack import Attack, Clean, Perturbation
from ..models import is_random
from ..plan import device_of
from ..records import CLEAN, Record
from ..run import craft, judge
from ..scoring import Block, Scoring
from .check import Check, Threat
from .draws import SINGLE_DRAWS, one_draw, randomness
from .gradients import gradient_agreement, invalid_gradients, nothing_to_agree, selection_checks, zero_gradients
from .outcomes import COMPARISONS, ITERATIVE, Verdicts, compare, records_of
from .threat_model import CHANCE, FALLS, LARGE, falls_with_epsilon, input_range, reaches_chance


def checks_from_records(
    records: Sequence[Record], threats: Sequence[Threat], fixed_masks: bool = False
) -> list[Check]:
    """What was not measured is a warning that says what is missing.

    Args:
        records: of all attacks, at least one.
        threats: what each attack was allowed; attacks without records may be among them.
        fixed_masks: the evaluation drew the same masks in every call.
    """
    if not records:
        raise ValueError("records is empty, expected at least one")
    groups = records_of(records)
    verdicts = {attack: Verdicts(attack, own) for attack, own in groups.items()}
    labels = list({record.image: record.label for record in records}.values())
    return [
        zero_gradients(groups),
        invalid_gradients(groups),
        randomness(groups.get(CLEAN, ()), fixed_masks),
        *(compare(comparison, threats, verdicts) for comparison in COMPARISONS),
        falls_with_epsilon(threats, verdicts),
        reaches_chance(threats, verdicts, labels),
    ]


ANSWERED = 100
# Enough to tell attacks apart of which one leaves 15 points more, at few realizations, so that it takes no longer.
ATTACKED = 64
STEPS = 20
REALIZATIONS = 5
# All steps together are so many radii long: they cross the ball and have room to turn.
REACH = 2.5
FACTORS = (0.5, 1.0, 2.0)


def probe(
    model: nn.Module,
    data: ImageSet,
    attack: Attack | None,
    scoring: Scoring,
    known: Sequence[Check],
    through_selection: bool = False,
) -> list[Check]:
    """The input's range, the agreement of gradients, and what records do not tell of draws, steps and epsilons.

    Args:
        model: that was attacked.
        data: 100 images from its front, or from that of each class, are answered, and 64 attacked.
        attack: whose gradients are examined; None examines none.
        scoring: as in the evaluation. The seeds of the probes follow from its seed and are their own.
        known: the checks from records; what these measured is not measured again.
        through_selection: an attack of the evaluation follows the surrogate "selection".
    """
    own = replace(scoring, seed=derive_seed(scoring.seed, "probe"))
    missing = {check.name for check in known if not check.measured}
    many, few = (data.limited(count) for count in (ANSWERED, ATTACKED))
    checks = [input_range(model, Block.of(many, device_of(model)), own)]
    checks += selection_checks(model, Block.of(few, device_of(model)), own, through_selection)
    if SINGLE_DRAWS in missing:
        checks.append(one_draw(is_random(model, many)))
    if attack is None:
        checks.append(nothing_to_agree())
    else:
        block = Block.of(few, device_of(model))
        checks.append(gradient_agreement(attack, block, own))
        if not attack.transfer and missing & {ITERATIVE.name, FALLS, CHANCE}:
            checks += [check for check in attack_a_few(model, block, attack, own) if check.name in missing]
    return checks


def examined(attacks: Iterable[Perturbation], records: Mapping[str, Sequence[Record]]) -> Attack | None:
    """The attack whose gradients fool the most images on the selection draws, None where none follows gradients.

    One on the attacked model comes before a transfer, and one on single realizations before those of a variant, whose
    draws are whole ensembles. Of these two, one that draws nothing has nothing to agree.
    """
    found = [
        attack
        for attack in attacks
        if isinstance(attack, Attack)
        and isinstance(attack.settings, GradientSettings)
        and (attack.settings.realizations > 1 or not (attack.transfer or attack.variant))
    ]

    def place(attack: Attack) -> tuple[bool, bool, int]:
        fooled = sum(record.selection > 0 for record in records.get(attack.name, ()))
        return bool(attack.transfer), attack.variant is not None, -fooled

    return min(found, key=place, default=None)


def attack_a_few(model: nn.Module, block: Block, attack: Attack, scoring: Scoring) -> list[Check]:
    """The checks on steps and epsilons, made as they are from records, of small attacks on the block."""
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
    """One step at the attack's epsilon, several there and at half and twice of it, and in the ball that holds all.

    Their names say whose gradients they follow.
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
    chosen = {f"PGD, {factor:g} epsilon": within(base, min(factor * base.epsilon, widest)) for factor in FACTORS}
    chosen[f"PGD, epsilon {LARGE:g}"] = replace(within(base, LARGE), norm="linf")
    chosen["FGSM"] = replace(base, steps=1, step_size=base.epsilon or base.step_size)
    return [replace(attack, name=f"{name} by {attack.name}", settings=own) for name, own in chosen.items()]


def within(settings: PGDSettings, epsilon: float) -> PGDSettings:
    return replace(settings, epsilon=epsilon, step_size=REACH * epsilon / settings.steps or settings.step_size)
