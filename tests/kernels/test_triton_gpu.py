"""Tests of the Triton backend that need a GPU: graphs, several devices, real sizes, repeatability."""

import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

import oracle
from dictionaries import unit_atoms
from neuroae.kernels import is_interpreting, reference
from strategies import Case
from triton_device import run

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(is_interpreting() or not torch.cuda.is_available(), reason="needs a GPU"),
]

SIZES = {"cifar10": (16, 32, 4, 2, 500, 50), "imagenette": (2, 160, 8, 4, 1000, 50), "large": (2, 32, 8, 4, 3000, 100)}


@pytest.mark.parametrize("setting", SIZES)
@pytest.mark.parametrize("tf32", [False, True], ids=["TF32 off", "TF32 on"])
def test_codes_of_real_sizes(setting: str, tf32: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Arithmetic is IEEE, whatever settings are on outside."""
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", tf32)
    case = real_case(setting)
    oracle.assert_same_code(run("encode", *case.encode_arguments(3)), case, 3)


@pytest.mark.parametrize("setting", SIZES)
def test_gradients_of_real_sizes_repeat_to_the_bit(setting: str) -> None:
    case = real_case(setting)
    code = reference.encode(*case.encode_arguments(0))
    index, value, projection, count = code
    levels = (case.atoms, case.norms, case.dead_zone, *case.images.shape[2:], case.stride)
    arguments = (
        torch.randn(value.shape),
        index,
        projection,
        count,
        *levels,
        len(case.images),
        "smooth",
        0.25,
        True,
        True,
    )
    first = run("encode_backward", *arguments)
    oracle.assert_close(first, reference.encode_backward(*arguments), "image gradient")
    assert torch.equal(first, run("encode_backward", *arguments))

    weight = torch.randn(case.atoms.shape[0], 300, 4, 4)
    layer = ([2, 2], [1, 1])
    output = reference.conv_transpose(index, value, count, weight, None, *layer, [0, 0], True)
    oracle.assert_close(
        run("conv_transpose", index, value, count, weight, None, *layer, [0, 0], True), output, "output"
    )
    backward = (torch.randn_like(output), output, index, value, count, weight, *layer)
    gradients = run("conv_transpose_backward_weight", *backward)
    for actual, expected in zip(gradients, reference.conv_transpose_backward_weight(*backward), strict=True):
        oracle.assert_close(actual, expected, "gradient to weight and bias")
    oracle.assert_identical(run("conv_transpose_backward_weight", *backward), gradients, ("weight", "bias"))


@pytest.mark.parametrize("setting", SIZES)
@pytest.mark.parametrize("quantize", [True, False], ids=["quantized", "not quantized"])
def test_gradients_through_the_selection_repeat_to_the_bit(setting: str, quantize: bool) -> None:
    """In all runs, and for an image alone. With a narrow cut the rounding of projections causes more than 1e-5."""
    case, width = replace(real_case(setting), quantize=quantize), 0.02
    grad_code = torch.randn(oracle.projections(case)[0].shape)
    arguments = case.selection_arguments(grad_code, width)
    first = run("selection_backward", *arguments)
    expected = reference.selection_backward(*arguments)
    oracle.assert_close(first, expected, "image gradient", expected.abs(), oracle.TOLERANCE + 4e-7 / width)
    assert torch.equal(first, run("selection_backward", *arguments))
    alone = replace(case, images=case.images[1:2]).selection_arguments(grad_code[1:2], width)
    assert torch.equal(first[1:2], run("selection_backward", *alone))


def test_no_operation_waits_for_the_gpu() -> None:
    """A wrong value is refused all the same, by an assertion in the kernel that reads it."""
    case = on(real_case("cifar10"), "cuda")
    operations = torch.ops.neuroae
    weight = torch.randn(500, 300, 4, 4, device="cuda").contiguous(memory_format=torch.channels_last)

    def run_all() -> None:
        selection = operations.select(*case.select_arguments())
        index, value, projection, count = operations.draw(*case.draw_arguments(selection))
        operations.encode(*case.encode_arguments(0))
        layer = (weight, [2, 2], [0, 0])
        output = operations.conv_transpose(index, value, count, weight, None, [2, 2], [0, 0], [0, 0], True)
        grad = operations.conv_transpose_backward_value(output, output, index, count, *layer)
        operations.conv_transpose_backward_weight(output, output, index, value, count, *layer)
        levels = (case.atoms, case.norms, case.dead_zone, *case.images.shape[2:], case.stride)
        settings = (len(case.images), "smooth", 0.25, True, True)
        operations.encode_backward(grad, index, projection, count, *levels, *settings)
        grad_code = torch.ones(*count.shape, 500, device="cuda")
        operations.selection_backward(*case.selection_arguments(grad_code, 0.02))

    run_all()  # compiles the kernels
    torch.cuda.set_sync_debug_mode("error")
    try:
        run_all()
    finally:
        torch.cuda.set_sync_debug_mode("default")


WRONG_VALUES = {
    "an atom that the layer does not have": """
from neuroae import SparseCode, SparseConvTranspose2d

index, value = torch.full((1, 1, 1, 1), 9, dtype=torch.int16).cuda(), torch.ones(1, 1, 1, 1).cuda()
code = SparseCode(index, value, value, torch.ones(1, 1, 1, dtype=torch.int32).cuda(), atoms=9)
SparseConvTranspose2d(9, 2, 1).cuda()(code)
""",
    "images holds values outside [0, 1]": """
from neuroae import SparseEncoder

SparseEncoder(torch.ones(1, 1, 1, 1), stride=1, top_t=1).cuda().encode(torch.full((1, 1, 4, 4), 1.5).cuda())
""",
    "image_ids holds numbers outside [0, 2^32)": """
from neuroae import SparseEncoder

encoder = SparseEncoder(torch.ones(1, 1, 1, 1), stride=1, top_t=1).cuda()
encoder.encode(torch.ones(1, 1, 4, 4).cuda(), image_ids=torch.tensor([-1]).cuda())
""",
}


@pytest.mark.parametrize("message", WRONG_VALUES)
def test_a_wrong_value_ends_the_process_with_a_message(message: str) -> None:
    """After a device-side assertion a process cannot use the GPU any more."""
    program = f"import torch\n{WRONG_VALUES[message]}\ntorch.cuda.synchronize()"
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert finished.returncode != 0
    assert message in finished.stdout + finished.stderr


def test_a_graph_draws_new_realizations() -> None:
    """Each replay reads the seed from memory."""
    case = on(real_case("cifar10"), "cuda")
    torch.ops.neuroae.encode(*case.encode_arguments(0))
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        code = torch.ops.neuroae.encode(*case.encode_arguments(0))
    for seed in (7, 8):
        case.seed.fill_(seed)
        graph.replay()
        oracle.assert_identical_codes(code, torch.ops.neuroae.encode(*case.encode_arguments(0)))


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_tensors_on_another_device_than_the_current() -> None:
    case = real_case("cifar10")
    expected = run("encode", *case.encode_arguments(0))
    with torch.cuda.device(0):
        elsewhere = torch.ops.neuroae.encode(*on(case, "cuda:1").encode_arguments(0))
    assert elsewhere[0].device == torch.device("cuda:1")
    oracle.assert_identical_codes(tuple(tensor.cpu() for tensor in elsewhere), expected)


def real_case(setting: str) -> Case:
    torch.manual_seed(1)
    batch, size, patch, stride, atoms, top_t = SIZES[setting]
    dictionary = unit_atoms(atoms, 3, patch)
    norms = dictionary.abs().sum((1, 2, 3))
    randomness: dict[str, Any] = {"seed": torch.tensor(2**40 + 1), "image_ids": torch.arange(batch), "start": 0}
    return Case(
        torch.rand(batch, 3, size, size),
        dictionary,
        norms,
        0.1 * norms,
        stride=stride,
        top_t=top_t,
        dropout_p=0.95,
        quantize=True,
        signed=True,
        count=1,
        **randomness,
    )


def on(case: Case, device: str) -> Case:
    fields = {name: value.to(device) if isinstance(value, Tensor) else value for name, value in vars(case).items()}
    return Case(**fields)
