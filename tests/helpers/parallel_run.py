"""A short training in one process or several: parallel_run.py FILE IMAGES METHOD writes the weights to FILE.

Batch normalization is frozen and the learning rate constant, so that the number of processes makes no difference.
"""

import sys
from pathlib import Path

import torch
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

from models import small_defense
from neuroae import Decoder, Defense, resnet32
from neuroae.data import ImageSet
from neuroae.training import TrainingSettings, train_adversarial, train_supervised
from neuroae.utils import distributed
from neuroae.utils.files import save_tensors

STEPS, BATCH = 50, 8
SETTINGS = TrainingSettings(epochs=2, batch_size=BATCH, learning_rate=0.05, schedule="constant", augment=True, seed=5)


def freeze_batch_normalization(module: nn.Module) -> None:
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            setattr(module, name, FrozenBatchNorm2d(child.num_features))
        else:
            freeze_batch_normalization(child)


def untrained(images: int) -> tuple[Defense, ImageSet]:
    torch.manual_seed(2)
    encoder = small_defense().encoder
    model = Defense(encoder, Decoder(20, 4, 2, 8, 1), resnet32(10, 1, (0.5,), (0.3,)))
    freeze_batch_normalization(model)
    with torch.no_grad():
        # Without normalization the residual branches add up; started small, they stay in range.
        for name, parameter in model.classifier.named_parameters():
            parameter.mul_(0.1 if "conv2" in name else 1)
    pixels = torch.randint(256, (images, 1, 8, 8), dtype=torch.uint8)
    classes = tuple(str(number) for number in range(10))
    return model, ImageSet("random", pixels, torch.arange(images) % 10, torch.arange(images), classes)


def main(path: Path, images: int, method: str = "supervised") -> None:
    with distributed.group(torch.device("cpu")):
        model, data = untrained(images)
        if method == "supervised":
            history = train_supervised(model, data, SETTINGS)
        else:
            history = train_adversarial(model.classifier, data, SETTINGS, method)  # type: ignore[arg-type]
        if distributed.is_first():
            notes = {"losses": [epoch.loss for epoch in history], "processes": distributed.world_size()}
            save_tensors(path, model.state_dict(), notes)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
