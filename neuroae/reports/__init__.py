"""Reports: tables, pictures and files of results."""

import warnings
from typing import Any

from .pictures import Strip, draw_picture, stages
from .report import Report, write_report
from .tables import Row, markdown_table
from .training_record import TrainingRecord

__all__ = [
    "Report",
    "Row",
    "Strip",
    "TrainingRecord",
    "draw_picture",
    "markdown_table",
    "stages",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name == "probe_evaluation":
        warnings.warn(
            "run_evaluation probes as its last step; neuroae.reports.probe_evaluation will go",
            DeprecationWarning,
            stacklevel=2,
        )
        from ..evaluation.checks import probe_evaluation

        return probe_evaluation
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
