"""The checks that need no model: what the records of an evaluation say by themselves."""

from collections.abc import Sequence

from ..records import CLEAN, Record
from .check import Check
from .comparisons import COMPARISONS, compare
from .epsilons import falls_with_epsilon, reaches_chance
from .gradients import invalid_gradients, zero_gradients
from .randomness import randomness
from .threat import Threat
from .verdicts import Verdicts, records_of


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
