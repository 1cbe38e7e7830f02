"""A defense for images of one's own: ``python examples/own_images.py``, in a minute.

The images lie in folders, ``photos/train/CLASS/*`` and ``photos/test/CLASS/*``. This example makes them: noisy stripes
in three directions. Put your own there, and adapt size, settings and epochs.
"""

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from neuroae.attacks import PGDSettings
from neuroae.data import load_dataset
from neuroae.evaluation import Evaluation, Scoring, attacks_from, run_evaluation
from neuroae.models.presets import PRESETS, make_defense, make_dictionary
from neuroae.training import Run, TrainingSettings, train_supervised

SIZE = 16
ANGLES = {"flat": 0.0, "slanted": 0.8, "upright": 1.57}
# The defaults for folders are for images of 160 x 160 pixels; these are for small ones, and few steps.
PRESET = replace(PRESETS["image-folder"], patch=4, stride=2, atoms=100, iterations=100, dictionary_batch=32)
PRESET = replace(PRESET, top_t=15, dropout_p=0.5, learning_rate=0.01)


def make_images(folder: Path, count: int, generator: np.random.Generator) -> None:
    """Writes ``count`` images of each class."""
    rows, columns = np.mgrid[:SIZE, :SIZE]
    for name, angle in ANGLES.items():
        (folder / name).mkdir(parents=True)
        for number in range(count):
            waves = np.sin((rows * np.cos(angle) + columns * np.sin(angle)) / 2 + generator.uniform(0, 6))
            noisy = 128 + 60 * waves[..., None] + generator.normal(0, 30, (SIZE, SIZE, 3))
            Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(folder / name / f"{number}.png")


def main(work: Path) -> None:
    generator = np.random.default_rng(0)
    make_images(work / "photos/train", 100, generator)
    make_images(work / "photos/test", 10, generator)

    train, test = (load_dataset("image-folder", name, work / "photos", image_size=SIZE) for name in ("train", "test"))
    model = make_defense(PRESET, make_dictionary(PRESET, train, seed=0), (SIZE, SIZE), len(ANGLES), seed=0)
    settings = TrainingSettings(epochs=4, learning_rate=PRESET.learning_rate, batch_size=16)
    train_supervised(model, train, settings, run=Run(work / "run"))
    model.save_pretrained(work / "run")  # Defense.from_pretrained(work / "run") loads it again

    attacks = attacks_from(model, PGDSettings.selection(), ["selection"])
    results = run_evaluation(Evaluation(model, test, attacks, Scoring(draws=10, seed=0), name="stripes"))
    for name in results.records:
        low, high = results.accuracy(name).interval()
        print(f"{name}: {results.accuracy(name).value:.1%} ({low:.1%} to {high:.1%}) of {len(test)} images")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        main(Path(temporary))
