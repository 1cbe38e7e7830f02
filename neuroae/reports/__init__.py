"""Reports: tables, pictures and files of results."""

from .charts import TrainingRecord
from .page import write_report
from .pictures import Strip, draw_picture, stages
from .report import Report, probe_evaluation
from .tables import Row, markdown_table

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
