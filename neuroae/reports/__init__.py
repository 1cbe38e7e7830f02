"""Reports: tables, pictures and files of results."""

from .pictures import Strip, draw_picture, stages
from .results import load_results, save_results
from .table import Row, print_table

__all__ = ["Row", "Strip", "draw_picture", "load_results", "print_table", "save_results", "stages"]
