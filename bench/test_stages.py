"""The stages of one image gradient, compared with their floor: operations and bytes at the machine's measured rates.

Bytes are those that must move once: inputs and weights read, outputs written. Data that caches could keep from one
stage to the next counts as well.
"""

import statistics
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch.utils.flop_counter import FlopCounterMode

from bench.machine import machine
from bench.measure import Action, interleaved
from bench.report import Report, Stage
from bench.settings import CIFAR10, images, ours
from neuroae.nn.layer_autograd import dense_code_gradient

B = CIFAR10.batch
FLOAT, INDEX = 4, 2


@dataclass
class Case:
    """A stage's action, and its operations and bytes for the whole batch."""

    action: Action
    operations: float
    bytes: float
    rate: str = "float32"


class Pass:
    """The tensors of one forward pass, from which each stage runs alone."""

    def __init__(self) -> None:
        self.images = images(CIFAR10)
        self.model = ours(CIFAR10)
        self.encoder, self.decoder = self.model.encoder, self.model.decoder
        self.code = self.encoder.encode(self.images, seed=0)
        self.hidden1 = self.decoder.conv1(self.code, relu=True)
        self.hidden2 = self.decoder.conv2(self.hidden1, relu=True)
        self.survivors = float(self.code.count.sum())
        self.code_bytes = self.code.index.numel() * (INDEX + 2 * FLOAT) + self.code.count.nbytes
        self.num_atoms, self.length = CIFAR10.num_atoms, 3 * CIFAR10.patch**2
        self.patches = float(self.code.count.numel())
        self.weight = self.decoder.conv1.weight
        self.taps = float(self.weight[0].numel())  # k_h k_w C_out


def encode(run: Pass) -> Case:
    operations = 2 * run.patches * run.num_atoms * run.length
    return Case(lambda: run.encoder.encode(run.images, seed=0), operations, run.images.nbytes + run.code_bytes)


def draws(run: Pass) -> Case:
    """One more realization of a selection: no matrix work, only Philox and the code's bytes."""
    selection = run.encoder.select(run.images)
    moved = selection.atom.nbytes + selection.projection.nbytes + run.code_bytes
    return Case(lambda: selection.draw(0), 0, moved)


def first_layer(run: Pass) -> Case:
    moved = run.code.index.nbytes + run.code.value.nbytes + run.weight.nbytes + run.hidden1.nbytes
    return Case(lambda: run.decoder.conv1(run.code, relu=True), 2 * run.survivors * run.taps, moved)


def first_layer_backward(run: Pass) -> Case:
    towards = torch.ones_like(run.hidden1)
    arguments = (towards, run.hidden1, run.code.index, run.code.count, run.weight, [2, 2], [0, 0])
    moved = towards.nbytes + run.hidden1.nbytes + run.weight.nbytes + run.code.index.nbytes + run.code.value.nbytes
    backward = torch.ops.neuroae.conv_transpose_backward_value
    return Case(lambda: backward(*arguments), 2 * run.survivors * run.taps, moved)


def encoder_backward(run: Pass) -> Case:
    encoder, code = run.encoder, run.code
    parts = (code.value, code.index, code.projection, code.count)
    arguments = (*parts, encoder.atoms, encoder.norms, encoder.dead_zone)
    settings = (32, 32, 2, B, "smooth", 0.25, True, True)
    moved = code.value.nbytes + code.index.nbytes + code.projection.nbytes + run.images.nbytes
    backward = torch.ops.neuroae.encode_backward
    return Case(lambda: backward(*arguments, *settings), 2 * run.survivors * run.length, moved)


def second_layer(run: Pass) -> Case:
    """Forward and gradient to the input: 36 products for each tile of 4 x 4 outputs and pair of channels.

    The output has 34 x 34 pixels, the input 32 x 32.
    """
    layer, x = run.decoder.conv2, run.hidden1.detach().requires_grad_()
    towards = torch.ones_like(run.hidden2)
    tiles = 9 * 9 + 8 * 8
    operations = 2.0 * 36 * tiles * B * layer.in_channels * layer.out_channels
    moved = x.nbytes + towards.nbytes + layer.weight.nbytes
    return Case(lambda: torch.autograd.grad(layer(x, relu=True), x, towards), operations, 2 * moved)


def third_layer(run: Pass) -> Case:
    """Forward and gradient to the input, by PyTorch's own layer."""
    layer, x = run.decoder.conv3, run.hidden2.detach().requires_grad_()
    towards = torch.ones_like(layer(x))
    operations = 2.0 * x.shape[2] * x.shape[3] * B * layer.weight.numel()
    moved = x.nbytes + towards.nbytes + layer.weight.nbytes
    return Case(lambda: torch.autograd.grad(layer(x), x, towards), 2 * operations, 2 * moved)


def classifier(run: Pass) -> Case:
    """K_AT, by PyTorch's count of operations; the gradient to the image costs as much as the forward pass."""
    network = run.model.classifier
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(run.images)
    x = run.images.clone().requires_grad_()
    return Case(lambda: torch.autograd.grad(network(x).sum(), x), 2 * counter.get_total_flops(), 2 * x.nbytes)


def first_layer_to_all_atoms(run: Pass) -> Case:
    """The dense backward pass of the first layer, once in each step of the attack through the selection."""
    towards, weight = torch.ones_like(run.hidden1), run.weight.detach()
    moved = towards.nbytes + weight.nbytes + FLOAT * run.patches * run.num_atoms
    operations = 2 * run.patches * run.num_atoms * run.taps
    return Case(lambda: dense_code_gradient(towards, weight, (2, 2), (0, 0), (15, 15)), operations, moved)


def selection_backward(run: Pass) -> Case:
    """Projections, the gradient to them, and the way back to the pixels."""
    encoder = run.encoder
    grad_code = torch.ones(*run.code.count.shape, run.num_atoms)
    arguments = (grad_code, run.images, encoder.atoms, encoder.norms, encoder.dead_zone, 2, encoder.top_t, 0.02)
    operations = 4 * run.patches * run.num_atoms * run.length
    backward = torch.ops.neuroae.selection_backward
    return Case(lambda: backward(*arguments, True, True), operations, grad_code.nbytes + 2 * run.images.nbytes)


STAGES: dict[str, Callable[[Pass], Case]] = {
    "encode (projection, top T, draw)": encode,
    "draw one more realization": draws,
    "encoder backward": encoder_backward,
    "first layer, forward": first_layer,
    "first layer, backward to the code": first_layer_backward,
    "first layer, backward to all atoms": first_layer_to_all_atoms,
    "selection backward": selection_backward,
    "second layer, fwd + input grad": second_layer,
    "third layer, fwd + input grad": third_layer,
    "ResNet-32, forward + image gradient": classifier,
}


@pytest.mark.parametrize("name", STAGES)
def test_stage(benchmark: BenchmarkFixture, report: Report, rounds: int, name: str) -> None:
    with torch.no_grad():
        run = Pass()
    case = STAGES[name](run)
    seconds = statistics.median(interleaved({"stage": case.action}, rounds)["stage"])
    rates = machine(torch.get_num_threads())
    floor = rates.floor(case.operations, case.bytes, case.rate)
    report.stages.append(
        Stage(name, case.operations / B, case.bytes / B, case.rate, seconds / B * 1e3, floor / B * 1e3)
    )
    report.note(
        f"measured rates: {rates.float32 / 1e9:.0f} Gop/s float32, {rates.bfloat16 / 1e9:.0f} Gop/s bfloat16, "
        f"{rates.bandwidth / 1e9:.1f} GB/s copied"
    )
    benchmark.extra_info.update(
        stage=name, operations=case.operations, bytes=case.bytes, floor_seconds=floor, machine=vars(rates)
    )
    benchmark.pedantic(case.action, rounds=min(rounds, 3))
