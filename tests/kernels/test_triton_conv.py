"""The Triton transposed convolution, compared with the reference: on a GPU, or in ``test_triton_interpreter.py``."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import oracle
from neuroae.kernels import reference
from neuroae.kernels.ops import used_slots
from strategies import ConvCase, conv_cases, poisoned, random_code
from triton_device import MARKS, ON_GPU, examples, run, to_device

pytestmark = MARKS

EXAMPLES = examples(6)
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)


@DTYPES
@settings(max_examples=EXAMPLES)
@given(data=st.data(), relu=st.booleans())
def test_forward(dtype: torch.dtype, data: st.DataObject, relu: bool) -> None:
    case = data.draw(small_conv_cases(dtype))
    output = run("conv_transpose", *case.forward_arguments(relu))
    assert output.dtype == dtype
    assert output.is_contiguous(memory_format=torch.channels_last)
    case.weight = case.weight.float()
    case.bias = None if case.bias is None else case.bias.float()
    expected = reference.conv_transpose(*case.forward_arguments(relu))
    if dtype == torch.bfloat16 and not ON_GPU:
        assert_truncates_to(output, expected)
    else:
        oracle.assert_rounds_to(output, expected, "output")


def assert_truncates_to(actual: Tensor, expected: Tensor) -> None:
    """The interpreter truncates. ``test_triton_budgets.py`` checks for the GPU's rounding instruction."""
    slack = 1e-5 * expected.abs().max() if expected.numel() else 0.0
    assert ((actual.float() - expected).abs() <= 2**-7 * expected.abs() + slack).all()


@DTYPES
@settings(max_examples=EXAMPLES)
@given(data=st.data(), relu=st.booleans())
def test_gradient_to_the_values(dtype: torch.dtype, data: st.DataObject, relu: bool) -> None:
    case = data.draw(small_conv_cases(dtype))
    arguments = case.value_arguments(output_of(case) if relu else None)
    expected = reference.conv_transpose_backward_value(*arguments)
    oracle.assert_close(run("conv_transpose_backward_value", *arguments), expected, "gradient to the values")


@DTYPES
@settings(max_examples=EXAMPLES)
@given(data=st.data(), relu=st.booleans())
def test_gradient_to_weight_and_bias(dtype: torch.dtype, data: st.DataObject, relu: bool) -> None:
    case = data.draw(small_conv_cases(dtype))
    arguments = case.weight_arguments(output_of(case) if relu else None)
    weight, bias = run("conv_transpose_backward_weight", *arguments)
    expected_weight, expected_bias = reference.conv_transpose_backward_weight(*arguments)
    oracle.assert_close(weight, expected_weight, "gradient to the weight")
    oracle.assert_close(bias, expected_bias, "gradient to the bias")
    assert weight.is_contiguous(memory_format=torch.channels_last)


def test_survivors_are_grouped_by_atom_in_the_order_of_the_patches() -> None:
    """50 patches are four blocks; 40 slots are two tiles."""
    from neuroae.kernels.triton.occurrences import group_by_atom

    index, value, count = poisoned(*random_code((2, 5, 5, 40), 60, torch.Generator().manual_seed(3)))
    places = group_by_atom(*(to_device(part, "cuda") for part in (index, value, count)), 60, (9, 11), [2, 2], [1, 0])
    used = used_slots(count, 40)
    atoms, order = index[used].sort(stable=True)
    row, i, j, _ = used.nonzero()[order].unbind(1)
    top, left = 2 * i - 1, 2 * j
    expected = {"pixel": (9 * row + top) * 11 + left, "top": top, "left": left, "value": value[used][order]}
    for name, numbers in expected.items():
        assert torch.equal(getattr(places, name)[: len(atoms)].cpu(), numbers.to(getattr(places, name).dtype)), name
    ends = places.ends[:-1].reshape(60, -1)[:, -1].cpu()
    assert torch.equal(ends.long(), torch.bincount(atoms.long(), minlength=60).cumsum(0))


def test_gradients_are_float32_under_another_default_dtype(default_dtype: torch.dtype) -> None:
    index, value, count = poisoned(*random_code((1, 2, 2, 5), 9, torch.Generator().manual_seed(3)))
    weight, grad = torch.randn(9, 3, 5, 5, dtype=torch.float32), torch.randn(1, 3, 7, 7, dtype=torch.float32)
    case = ConvCase(index, value.float(), count, weight, None, grad, [2, 2], [0, 0], [0, 0])
    gradients = run("conv_transpose_backward_weight", *case.weight_arguments(None))
    assert [gradient.dtype for gradient in gradients] == [torch.float32] * 2


def test_more_channels_than_a_tile() -> None:
    """130 channels need two programs, and a run of 5 x 130 weights needs two chunks."""
    index, value, count = poisoned(*random_code((1, 2, 2, 5), 9, torch.Generator().manual_seed(3)))
    weight, grad = torch.randn(9, 130, 5, 5), torch.randn(1, 130, 7, 7)
    case = ConvCase(index, value, count, weight, torch.randn(130), grad, [2, 2], [0, 0], [0, 0])
    arguments = case.forward_arguments(True)
    output = reference.conv_transpose(*arguments)
    oracle.assert_close(run("conv_transpose", *arguments), output, "output")
    expected = reference.conv_transpose_backward_value(*case.value_arguments(output))
    actual = run("conv_transpose_backward_value", *case.value_arguments(output))
    oracle.assert_close(actual, expected, "gradient to the values")
    expected_weight, _ = reference.conv_transpose_backward_weight(*case.weight_arguments(output))
    actual_weight, _ = run("conv_transpose_backward_weight", *case.weight_arguments(output))
    oracle.assert_close(actual_weight, expected_weight, "gradient to the weight")


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_unused_slots_get_no_gradient_even_from_infinities() -> None:
    index = torch.tensor([2, -1, -1], dtype=torch.int16).reshape(1, 1, 1, 3)
    count, weight = torch.ones(1, 1, 1, dtype=torch.int32), torch.ones(4, 2, 1, 1)
    grad = torch.full((1, 2, 1, 1), torch.inf)
    result = run("conv_transpose_backward_value", grad, None, index, count, weight, [1, 1], [0, 0])
    assert result.flatten().tolist() == [torch.inf, 0, 0]


@pytest.mark.skipif(ON_GPU, reason="ends the process on a GPU: test_triton_gpu.py")
@pytest.mark.parametrize(
    "operation", ["conv_transpose", "conv_transpose_backward_value", "conv_transpose_backward_weight"]
)
def test_a_code_of_atoms_that_do_not_exist_is_refused(operation: str) -> None:
    index, value, count = poisoned(*random_code((1, 2, 2, 3), 9, torch.Generator().manual_seed(3)))
    index[0, 0, 0, 0] = 9
    weight, grad = torch.randn(9, 2, 1, 1), torch.randn(1, 2, 2, 2)
    case = ConvCase(index, value, count, weight, None, grad, [1, 1], [0, 0], [0, 0])
    arguments: dict[str, tuple[Any, ...]] = {
        "conv_transpose": case.forward_arguments(False),
        "conv_transpose_backward_value": case.value_arguments(None),
        "conv_transpose_backward_weight": case.weight_arguments(None),
    }
    with pytest.raises(ValueError, match="index names atom 9, expected 0 to 8 in the used slots"):
        run(operation, *arguments[operation])


def small_conv_cases(dtype: torch.dtype) -> st.SearchStrategy[ConvCase]:
    """Cases without the largest, for which the interpreter needs long."""
    return conv_cases(dtype).filter(lambda case: ON_GPU or case.grad_output[:, 0].numel() <= 120)


def output_of(case: ConvCase) -> Tensor:
    """Returns the forward output after ReLU, with zeros."""
    return reference.conv_transpose(*case.forward_arguments(True))
