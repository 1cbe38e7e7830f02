"""The sanity report: signs that an evaluation is weaker than it looks, each pass, warn or fail with its numbers."""

from .batches import BATCHES, batch_independence, one_at_a_time
from .check import VERDICTS, Check, load_checks, merged, save_checks
from .from_records import checks_from_records
from .images import Measured, check_images
from .input_range import INPUT_RANGE
from .probes import examined, probe
from .threat import Budget, Threat

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
