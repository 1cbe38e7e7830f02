"""The sanity report: signs that an evaluation is weaker than it looks, each pass, warn or fail with its numbers."""

from .check import VERDICTS, Budget, Check, Threat, load_checks, merged, save_checks
from .draws import BATCHES, batch_independence, one_at_a_time
from .probes import checks_from_records, examined, probe
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
    "examined",
    "load_checks",
    "merged",
    "one_at_a_time",
    "probe",
    "save_checks",
]
