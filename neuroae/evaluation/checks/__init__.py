"""The sanity report: signs that an evaluation is weaker than it looks.

Each check is a verdict, pass, warn or fail, with its numbers. A check lies in the file of its subject: ``outcomes``
(attacks against each other), ``threat_model`` (epsilon, pixels, saved images), ``gradients`` or ``draws``;
``sanity`` puts them together.
"""

from .check import VERDICTS, Check, load_checks, merged, save_checks
from .draws import BATCHES, batch_independence, one_at_a_time
from .outcomes import Budget, Threat
from .sanity import checks_from_records, examined_attack, probe, probe_evaluation, sanity_checks
from .threat_model import INPUT_RANGE, Measured, check_images

__all__ = [
    "BATCHES",
    "INPUT_RANGE",
    "VERDICTS",
    "Budget",
    "Check",
    "Measured",
    "Threat",
    "batch_independence",
    "check_images",
    "checks_from_records",
    "examined_attack",
    "load_checks",
    "merged",
    "one_at_a_time",
    "probe",
    "probe_evaluation",
    "sanity_checks",
    "save_checks",
]
