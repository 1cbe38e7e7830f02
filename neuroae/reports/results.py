"""The results of an evaluation as files: a summary, a verdict for each image, and the images."""

import csv
import platform
import re
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from ..data import ImageSet
from ..evaluation import Outcome
from ..kernels import engine_name
from ..storage import load_json, load_tensors, replacing, save_json, save_tensors
from .table import Row

SUMMARY = "results.json"
VERDICTS = "verdicts.csv"
LIBRARIES = ("torch", "numpy", "scipy")


def save_results(
    folder: Path, model: str, data: ImageSet, outcomes: Sequence[Outcome], settings: dict[str, Any]
) -> list[Row]:
    """Writes the images and predictions of each outcome, the verdicts as CSV, and last the summary.

    Args:
        folder: made if missing.
        model: its name in the table.
        data: what was attacked.
        outcomes: their names differ.
        settings: that JSON holds; kept in the summary.
    """
    files = {outcome.name: file_name(outcome.name) for outcome in outcomes}
    if len(set(files.values())) < len(outcomes):
        raise ValueError(f"outcomes are named {', '.join(outcome.name for outcome in outcomes)}; names must differ")
    for outcome in outcomes:
        tensors = {
            "images": outcome.images,
            "predictions": outcome.predictions,
            "labels": outcome.labels,
            "ids": data.ids,
        }
        save_tensors(folder / files[outcome.name], tensors)
    save_verdicts(folder / VERDICTS, data, outcomes)
    rows = [Row.of(model, outcome) for outcome in outcomes]
    summary = {
        "rows": [asdict(row) for row in rows],
        "files": files,
        "classes": data.classes,
        "data": {"name": data.name, "images": len(data), "fingerprint": data.fingerprint()},
        "settings": settings,
        "engine": engine_name("cpu"),
        "versions": {"python": platform.python_version()} | {name: version(name) for name in LIBRARIES},
    }
    save_json(folder / SUMMARY, summary)
    return rows


def file_name(outcome: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", outcome.lower()).strip("-") + ".safetensors"


def save_verdicts(path: Path, data: ImageSet, outcomes: Sequence[Outcome]) -> None:
    """A line an image: its id, its class, and what the model took it for in each outcome."""
    columns = torch.stack([data.labels, *(outcome.predictions for outcome in outcomes)], 1).tolist()
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "class", *(outcome.name for outcome in outcomes)])
        for number, classes in zip(data.ids.tolist(), columns, strict=True):
            writer.writerow([number, *(data.classes[position] for position in classes)])


def load_results(folder: Path) -> tuple[list[Row], dict[str, dict[str, torch.Tensor]], list[str]]:
    """Rows, the tensors of each outcome by its name, and the names of the classes."""
    summary = load_json(folder / SUMMARY)
    try:
        rows = [Row(**row) for row in summary["rows"]]
        files = dict(summary["files"])
        classes = list(summary["classes"])
    except (KeyError, TypeError) as error:
        raise ValueError(f"{folder / SUMMARY} does not hold the results of an evaluation: {error!r}") from error
    return rows, {name: load_tensors(folder / file)[0] for name, file in files.items()}, classes
