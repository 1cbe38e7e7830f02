"""Reports: tables, pictures and files of results."""

from .curves import TrainingRecord
from .pictures import Strip, draw_picture, stages
from .results import load_results, save_results
from .table import Row, markdown_table

__all__ = [
    "Row",
    "Strip",
    "TrainingRecord",
    "draw_picture",
    "load_results",
    "markdown_table",
    "save_results",
    "stages",
]
