"""The sparse transposed convolution of the compiled backend, compared with the reference over drawn shapes."""

from types import ModuleType
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import oracle
from neuroae.kernels import reference
from strategies import ConvCase, conv_cases, poisoned, random_code


@given(case=conv_cases(torch.float32), relu=st.booleans())
def test_forward(backend: ModuleType, case: ConvCase, relu: bool) -> None:
    arguments = case.forward_arguments(relu)
    oracle.assert_agrees(backend.conv_transpose, reference.conv_transpose, arguments)
    assert backend.conv_transpose(*arguments).is_contiguous(memory_format=torch.channels_last)


@given(case=conv_cases(torch.bfloat16), relu=st.booleans())
def test_bfloat16_forward_accumulates_in_float32(backend: ModuleType, case: ConvCase, relu: bool) -> None:
    output = backend.conv_transpose(*case.forward_arguments(relu))
    assert output.dtype == torch.bfloat16
    case.weight = case.weight.float()
    case.bias = None if case.bias is None else case.bias.float()
    expected = reference.conv_transpose(*case.forward_arguments(relu))
    case.value, case.weight = case.value.abs(), case.weight.abs()
    case.bias = None if case.bias is None else case.bias.abs()
    oracle.assert_rounds_to(output, expected, "output", reference.conv_transpose(*case.forward_arguments(relu)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@given(data=st.data(), relu=st.booleans())
def test_gradient_to_the_values(backend: ModuleType, dtype: torch.dtype, data: st.DataObject, relu: bool) -> None:
    case = data.draw(conv_cases(dtype))
    arguments = case.value_arguments(output_of(case) if relu else None)
    oracle.assert_agrees(backend.conv_transpose_backward_value, reference.conv_transpose_backward_value, arguments)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@given(data=st.data(), relu=st.booleans())
def test_gradient_to_weight_and_bias(backend: ModuleType, dtype: torch.dtype, data: st.DataObject, relu: bool) -> None:
    case = data.draw(conv_cases(dtype))
    arguments = case.weight_arguments(output_of(case) if relu else None)
    oracle.assert_agrees(backend.conv_transpose_backward_weight, reference.conv_transpose_backward_weight, arguments)
    weight, _ = backend.conv_transpose_backward_weight(*arguments)
    assert weight.is_contiguous(memory_format=torch.channels_last)


def test_weight_gradients_add_up_over_chunks_of_images(backend: ModuleType) -> None:
    """At the decoder's channels and image size, of which a chunk holds five."""
    index, value, count = poisoned(*random_code((12, 15, 15, 4), 60, torch.Generator().manual_seed(4)))
    grad = torch.randn(12, 300, 32, 32)
    case = ConvCase(index, value, count, torch.randn(60, 300, 4, 4), None, grad, [2, 2], [0, 0], [0, 0])
    arguments = case.weight_arguments(None)
    oracle.assert_agrees(backend.conv_transpose_backward_weight, reference.conv_transpose_backward_weight, arguments)


def test_a_bias_gradient_of_many_equal_terms_is_not_rounded_away(backend: ModuleType) -> None:
    index, value, count = poisoned(*random_code((1, 83, 83, 2), 6, torch.Generator().manual_seed(5)))
    grad = torch.full((1, 5, 168, 168), 0.1)
    case = ConvCase(index, value, count, torch.randn(6, 5, 4, 4), None, grad, [2, 2], [0, 0], [0, 0])
    _, actual = backend.conv_transpose_backward_weight(*case.weight_arguments(None))
    oracle.assert_close(actual, grad.double().sum((0, 2, 3)).float(), "gradient to the bias")


@pytest.mark.parametrize("terms", [1, 129, 1000])
def test_long_sums_of_equal_terms_are_not_rounded_away(backend: ModuleType, terms: int) -> None:
    """Compares with the exact sum. Added up term by term, float32 would differ more."""
    index = torch.arange(terms, dtype=torch.int16).expand(1, 1, 1, terms).contiguous()
    value, count = torch.full((1, 1, 1, terms), 0.1), torch.full((1, 1, 1), terms, dtype=torch.int32)
    weight = torch.full((terms, 40, 1, 2), 0.07)
    exact = terms * torch.tensor(0.1).double() * torch.tensor(0.07).double()
    output = backend.conv_transpose(index, value, count, weight, None, [1, 1], [0, 0], [0, 0], False)
    assert (output.double() / exact - 1).abs().max() < 3e-6
    places = index.new_zeros(terms, 1, 1, 1), value.new_full((terms, 1, 1, 1), 0.1), count.new_ones(terms, 1, 1)
    grad = torch.full((terms, 40, 1, 2), 0.07)
    gradient, _ = backend.conv_transpose_backward_weight(grad, None, *places, weight[:1], [1, 1], [0, 0])
    assert (gradient.double() / exact - 1).abs().max() < 3e-6


def test_an_expanded_gradient(backend: ModuleType) -> None:
    """``output.sum().backward()`` passes one number with strides of zero."""
    case = plain_case()
    expected = case.grad_output.new_ones(case.grad_output.shape)
    case.grad_output = expected
    value = backend.conv_transpose_backward_value(*case.value_arguments(None))
    weights = backend.conv_transpose_backward_weight(*case.weight_arguments(None))
    case.grad_output = torch.ones(()).expand(expected.shape)
    again = backend.conv_transpose_backward_value(*case.value_arguments(None))
    oracle.assert_close(again, value, "gradient to the values")
    for actual, expected_gradient in zip(
        backend.conv_transpose_backward_weight(*case.weight_arguments(None)), weights, strict=True
    ):
        oracle.assert_close(actual, expected_gradient, "gradient to weight and bias")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_threads_do_not_change_a_bit(backend: ModuleType, dtype: torch.dtype) -> None:
    case = plain_case(dtype)

    def results() -> tuple[Tensor, ...]:
        output = backend.conv_transpose(*case.forward_arguments(True))
        value = backend.conv_transpose_backward_value(*case.value_arguments(output))
        return output, value, *backend.conv_transpose_backward_weight(*case.weight_arguments(output))

    expected = results()
    torch.set_num_threads(2)
    oracle.assert_identical(results(), expected, ("output", "gradient to the values", "to the weight", "to the bias"))


@pytest.mark.parametrize("atom", [60, 32_767, -1], ids=lambda atom: f"atom {atom}")
@pytest.mark.parametrize("slot", [0, 7], ids=["first slot", "last slot"])
def test_a_code_of_atoms_that_do_not_exist_is_refused(backend: ModuleType, atom: int, slot: int) -> None:
    case = plain_case()
    full = tuple((case.count == 8).nonzero()[-1].tolist())
    case.index[(*full, slot)] = atom
    calls: dict[str, tuple[Any, ...]] = {
        "conv_transpose": case.forward_arguments(False),
        "conv_transpose_backward_value": case.value_arguments(None),
        "conv_transpose_backward_weight": case.weight_arguments(None),
    }
    for operation, arguments in calls.items():
        with pytest.raises(ValueError, match=f"index names atom {atom}, expected 0 to 59 in the used slots"):
            getattr(backend, operation)(*arguments)


def output_of(case: ConvCase) -> Tensor:
    """Returns the forward output after ReLU, with zeros."""
    return reference.conv_transpose(*case.forward_arguments(True))


def plain_case(dtype: torch.dtype = torch.float32) -> ConvCase:
    """Returns 4 rows of 5 x 6 patches over 60 atoms with 8 slots, kernel 4 and stride 2 as for CIFAR-10."""
    index, value, count = poisoned(*random_code((4, 5, 6, 8), 60, torch.Generator().manual_seed(3)))
    weight, bias = torch.randn(60, 30, 4, 4, dtype=dtype), torch.randn(30, dtype=dtype)
    grad = torch.randn(4, 30, 12, 14, dtype=dtype)
    return ConvCase(index, value, count, weight, bias, grad, [2, 2], [0, 0], [0, 0])
