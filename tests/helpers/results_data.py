"""CIFAR-10 in miniature and the command line, for the tests of the experiments."""

from pathlib import Path

import torch
from typer.testing import CliRunner, Result

from dictionaries import unit_atoms
from neuroae import Decoder, Defense, SparseEncoder, resnet32
from results.__main__ import app


def run(*arguments: object) -> Result:
    """Runs ``python -m results ARGUMENTS``, which must succeed."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result


def cifar10_folder(folder: Path, images: int = 6) -> Path:
    """Writes a folder with a test file of random records in the official binary version."""
    records = torch.randint(256, (images, 3073), dtype=torch.uint8)
    records[:, 0] = torch.arange(images) % 10
    folder.mkdir(parents=True)
    (folder / "test_batch.bin").write_bytes(records.numpy().tobytes())
    return folder


def small_cifar10_defense(quantize: bool = True) -> Defense:
    """Returns an untrained defense for images of 3 x 32 x 32, with few atoms."""
    encoder = SparseEncoder(unit_atoms(12, 3, 8), stride=8, top_t=6, dropout_p=0.5, epsilon=0.02, quantize=quantize)
    return Defense(encoder, Decoder(12, 8, 8), resnet32()).eval()
