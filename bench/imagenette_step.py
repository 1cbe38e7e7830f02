"""Prints time and memory of one step at 160 x 160: ``python -m bench.imagenette_step MODEL DECODER STEP THREADS``.

MODEL is "ours" or "eager" (dense float32 PyTorch), both with EfficientNet-B0. DECODER is "three" (the paper's three
transposed convolutions, with T 50) or "resize" (the published one, with T 100). STEP is "training", "W-NFGA" (the
gradient of one realization through the survivors) or "selection" (one step of two realizations through the top T; ours
only). The output is milliseconds an image and the peak memory of the process in MiB.

Each measurement has its own process, since a process's peak memory never decreases.
"""

import statistics
import sys
import time

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.eager import EagerDefense
from bench.measure import Action
from bench.peak_memory import peak_mebibytes
from bench.settings import FASTEST, IMAGENETTE, encoder, frozen, images
from neuroae import Decoder, Defense, EfficientNetB0, SparseEncoder
from neuroae.attacks import eot_gradient
from neuroae.utils.contexts import autocast
from neuroae.utils.devices import keep_freed_memory

DECODERS = {"three": (50, 8, 4, False), "resize": (100, 3, 1, True)}
REPEATS = 3


def make_defense(decoder: str) -> Defense:
    """Returns the defense with a decoder and its T."""
    torch.manual_seed(0)
    top_t, kernel_size, stride, resize = DECODERS[decoder]
    parts = SparseEncoder(encoder(IMAGENETTE).atoms, stride=IMAGENETTE.stride, top_t=top_t)
    size = IMAGENETTE.image_size
    layers = Decoder(IMAGENETTE.num_atoms, kernel_size, stride, size, resize=resize)
    return Defense(parts, layers, EfficientNetB0())


def training_step(model: nn.Module, x: Tensor, labels: Tensor, precision: str) -> Action:
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9, weight_decay=5e-4)

    def run() -> None:
        with autocast(precision, x.device):
            loss = F.cross_entropy(model(x).float(), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    return run


def attack_step(model: nn.Module, x: Tensor, labels: Tensor, precision: str, realizations: int) -> Action:
    frozen(model)
    ids = torch.arange(len(x))

    def run() -> None:
        with autocast(precision, x.device):
            eot_gradient(model, x, labels, realizations=realizations, seed=0, image_ids=ids)

    return run


def make_step(model: str, decoder: str, step: str) -> Action:
    defense: nn.Module = make_defense(decoder)
    x = images(IMAGENETTE)
    labels = torch.arange(len(x)) % 10
    precision = "float32" if model == "eager" else FASTEST
    if model == "eager":
        defense = EagerDefense(defense.encoder, defense.decoder, defense.classifier)  # type: ignore[arg-type]
    if step == "training":
        return training_step(defense, x, labels, precision)
    if step == "W-NFGA":
        return attack_step(defense, x, labels, precision, 1)
    return attack_step(defense.with_surrogate("selection"), x, labels, precision, 2)  # type: ignore[operator]


def main(model: str, decoder: str, step: str, threads: int) -> None:
    keep_freed_memory()
    torch.set_num_threads(threads)
    action = make_step(model, decoder, step)
    action()
    seconds = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        action()
        seconds.append(time.perf_counter() - start)
    print(statistics.median(seconds) / IMAGENETTE.batch * 1e3, peak_mebibytes())


if __name__ == "__main__":
    main(*sys.argv[1:4], int(sys.argv[4]))
