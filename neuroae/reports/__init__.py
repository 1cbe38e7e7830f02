"""Reports: tables, pictures and files of results."""

from .curves import TrainingRecord
from .evaluation_report import Report
from .pictures import Strip, draw_picture, stages
from .sanity import probe_evaluation
from .saving import write_report
from .table import Row, markdown_table

__all__ = [
    "Report",
    "Row",
    "Strip",
    "TrainingRecord",
    "draw_picture",
    "markdown_table",
    "probe_evaluation",
    "stages",
    "write_report",
]
