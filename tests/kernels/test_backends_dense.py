"""The dense 3 x 3 convolution of the compiled backend, compared with the reference over drawn shapes."""

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import oracle
from neuroae.kernels import cpu, reference
from strategies import generators, layouts

DTYPES = [torch.float32, torch.bfloat16]
# Winograd's transforms add numbers that cancel later: up to this part of the sum of all magnitudes is lost.
ROUNDING = 2.0**-20
# In gradients of bfloat16 maps, transformed numbers may be rounded to bfloat16 before they are multiplied.
ROUNDINGS = {torch.float32: ROUNDING, torch.bfloat16: 2.0**-5}
ROWS = (1, 2, 3, 0)


@dataclass
class DenseCase:
    input: Tensor
    weight: Tensor
    bias: Tensor | None
    grad_output: Tensor
    output: Tensor | None


@st.composite
def dense_cases(draw: st.DrawFn, dtype: torch.dtype, rows: tuple[int, ...] = ROWS) -> DenseCase:
    """Maps, filters and gradients in any memory order, with or without the output of a ReLU."""
    generator = draw(generators())
    count = draw(st.sampled_from(rows))
    inputs, outputs = (draw(st.one_of(st.integers(1, 40), st.sampled_from((64, 65, 100, 300)))) for _ in range(2))
    height, width = draw(st.integers(1, 11)), draw(st.integers(1, 11))
    maps = torch.randn(count, inputs, height, width, generator=generator).to(dtype)
    weight = torch.randn(inputs, outputs, 3, 3, generator=generator)
    grad = torch.randn(count, outputs, height + 2, width + 2, generator=generator).to(dtype)
    bias = torch.randn(outputs, generator=generator) if draw(st.booleans()) else None
    output = reference.dense_conv_transpose(maps, weight, bias, True) if draw(st.booleans()) else None
    return DenseCase(draw(layouts(maps)), draw(layouts(weight)), bias, draw(layouts(grad)), output)


@given(case=dense_cases(torch.float32), relu=st.booleans())
def test_forward(backend: ModuleType, case: DenseCase, relu: bool) -> None:
    arguments = (case.input, case.weight, case.bias, relu)
    oracle.assert_agrees(backend.dense_conv_transpose, reference.dense_conv_transpose, arguments, ROUNDING)
    assert backend.dense_conv_transpose(*arguments).is_contiguous(memory_format=torch.channels_last)


@given(case=dense_cases(torch.float32))
def test_gradient_to_the_input(backend: ModuleType, case: DenseCase) -> None:
    arguments = (case.grad_output, case.output, case.weight)
    oracle.assert_agrees(
        backend.dense_conv_transpose_backward_input, reference.dense_conv_transpose_backward_input, arguments, ROUNDING
    )
    assert backend.dense_conv_transpose_backward_input(*arguments).is_contiguous(memory_format=torch.channels_last)


@given(case=dense_cases(torch.bfloat16), relu=st.booleans())
def test_the_output_in_bfloat16_is_computed_in_float32(backend: ModuleType, case: DenseCase, relu: bool) -> None:
    """The output is the rounded result of float32."""
    actual = backend.dense_conv_transpose(case.input, case.weight, case.bias, relu)
    exact = (case.input.float(), case.weight, case.bias, relu)
    bias = None if case.bias is None else case.bias.abs()
    terms = reference.dense_conv_transpose(case.input.float().abs(), case.weight.abs(), bias, relu)
    assert actual.dtype == torch.bfloat16
    oracle.assert_rounds_to(actual, reference.dense_conv_transpose(*exact), "output", terms, ROUNDING)


@given(case=dense_cases(torch.bfloat16))
def test_gradient_of_bfloat16_maps_to_the_input(backend: ModuleType, case: DenseCase) -> None:
    actual = backend.dense_conv_transpose_backward_input(case.grad_output, case.output, case.weight)
    assert actual.dtype == torch.bfloat16
    arguments = (case.grad_output.float(), None if case.output is None else case.output.float(), case.weight)
    assert_close_in_bfloat16(backend, actual, reference.dense_conv_transpose_backward_input, arguments, factors=(0, 2))


@given(case=dense_cases(torch.float32))
def test_gradient_to_weight_and_bias(backend: ModuleType, case: DenseCase) -> None:
    arguments = (case.grad_output, case.output, case.input)
    oracle.assert_agrees(
        backend.dense_conv_transpose_backward_weight,
        reference.dense_conv_transpose_backward_weight,
        arguments,
        ROUNDING,
    )
    weight, _ = backend.dense_conv_transpose_backward_weight(*arguments)
    assert weight.is_contiguous(memory_format=torch.channels_last)


@given(case=dense_cases(torch.bfloat16))
def test_gradient_of_bfloat16_maps_to_weight_and_bias(backend: ModuleType, case: DenseCase) -> None:
    """The gradient to the bias has no products, and is that of float32."""
    weight, bias = backend.dense_conv_transpose_backward_weight(case.grad_output, case.output, case.input)
    assert (weight.dtype, bias.dtype) == (torch.float32, torch.float32)
    assert weight.is_contiguous(memory_format=torch.channels_last)
    output = None if case.output is None else case.output.float()
    arguments = (case.grad_output.float(), output, case.input.float())

    def to_weight(*tensors: Tensor) -> Tensor:
        return reference.dense_conv_transpose_backward_weight(*tensors)[0]

    assert_close_in_bfloat16(backend, weight, to_weight, arguments, factors=(0, 2))
    _, sums = reference.dense_conv_transpose_backward_weight(*arguments)
    _, terms = reference.dense_conv_transpose_backward_weight(arguments[0].abs(), output, arguments[2])
    oracle.assert_close(bias, sums, "gradient to the bias", terms)


def assert_close_in_bfloat16(
    backend: ModuleType,
    actual: Tensor,
    operation: Callable[..., Tensor],
    arguments: tuple[Any, ...],
    factors: tuple[int, ...],
) -> None:
    """Requires the rounded result of float32, or one near it if the backend multiplies bfloat16 numbers.

    Then the error may be, as a root mean square, a tenth of the sum's for independent terms: less than a channel or a
    tile contributes.

    Args:
        backend: The tested backend.
        actual: Its result.
        operation: The reference's operation, in float32.
        arguments: Arguments of ``operation``.
        factors: Positions of the factors of its products.
    """

    def on_factors(function: Callable[[Tensor], Tensor]) -> Tensor:
        return operation(*(function(each) if i in factors else each for i, each in enumerate(arguments)))

    expected = operation(*arguments)
    if backend is cpu and cpu.instruction_set() == "avx512_bf16":
        assert (actual.float() - expected).norm() <= 0.1 * on_factors(torch.square).sum().sqrt()
    else:
        oracle.assert_rounds_to(actual, expected, "gradient", on_factors(torch.abs), ROUNDING)


def test_gradients_of_bfloat16_maps_lose_a_hundredth(backend: ModuleType) -> None:
    """At the decoder's channels, as a root mean square relative to the gradient's."""
    maps, weight, grad = decoder_case(torch.bfloat16)
    ours = (
        backend.dense_conv_transpose_backward_input(grad, None, weight),
        backend.dense_conv_transpose_backward_weight(grad, None, maps)[0],
    )
    exact = (
        reference.dense_conv_transpose_backward_input(grad.float(), None, weight),
        reference.dense_conv_transpose_backward_weight(grad.float(), None, maps.float())[0],
    )
    for actual, expected in zip(ours, exact, strict=True):
        assert (actual.float() - expected).norm() <= 0.015 * expected.norm()


@given(case=dense_cases(torch.float32, rows=(3,)), relu=st.booleans())
def test_a_row_is_the_same_alone(backend: ModuleType, case: DenseCase, relu: bool) -> None:
    """To the bit: tiles of several rows share nothing but a block."""
    together = backend.dense_conv_transpose(case.input, case.weight, case.bias, relu)
    back = backend.dense_conv_transpose_backward_input(case.grad_output, case.output, case.weight)
    for row in range(3):
        one = slice(row, row + 1)
        alone = backend.dense_conv_transpose(case.input[one], case.weight, case.bias, relu)
        output = None if case.output is None else case.output[one]
        back_alone = backend.dense_conv_transpose_backward_input(case.grad_output[one], output, case.weight)
        oracle.assert_identical((together[one], back[one]), (alone, back_alone), ("output", "gradient to the input"))


def decoder_case(dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Returns maps, filters and a gradient with the decoder's channels, on 224 tiles.

    These are several blocks, and several of the weight gradient's chunks of 105 tiles, or 210 in pairs.
    """
    maps, weight, grad = torch.randn(14, 300, 16, 15), torch.randn(300, 100, 3, 3), torch.randn(14, 100, 18, 17)
    return maps.to(dtype), weight, grad.to(dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_gradient_to_the_weight_adds_up_over_chunks_of_tiles(backend: ModuleType, dtype: torch.dtype) -> None:
    maps, _, grad = decoder_case(dtype)
    arguments = (grad, None, maps)
    oracle.assert_agrees(
        backend.dense_conv_transpose_backward_weight,
        reference.dense_conv_transpose_backward_weight,
        arguments,
        ROUNDINGS[dtype],
    )


def test_a_bias_gradient_of_many_equal_terms_is_not_rounded_away(backend: ModuleType) -> None:
    """The gradient of the mean of a large output; the oracle is the float64 sum."""
    grad = torch.full((1, 5, 166, 166), 0.1)
    _, actual = backend.dense_conv_transpose_backward_weight(grad, None, torch.zeros(1, 2, 164, 164))
    oracle.assert_close(actual, grad.double().sum((0, 2, 3)).float(), "gradient to the bias")


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_threads_do_not_change_a_bit(backend: ModuleType, dtype: torch.dtype) -> None:
    maps, weight, grad = decoder_case(dtype)

    def results() -> tuple[Tensor, ...]:
        output = backend.dense_conv_transpose(maps, weight, None, True)
        back = backend.dense_conv_transpose_backward_input(grad, output, weight)
        return output, back, *backend.dense_conv_transpose_backward_weight(grad, output, maps)

    expected = results()
    torch.set_num_threads(2)
    oracle.assert_identical(results(), expected, ("output", "to the input", "to the weight", "to the bias"))


def test_nan_passes_through_relu(backend: ModuleType) -> None:
    maps = torch.zeros(1, 2, 4, 4)
    maps[0, 0, 1, 1] = float("nan")
    assert backend.dense_conv_transpose(maps, torch.ones(2, 5, 3, 3), None, True)[0, :, 2, 2].isnan().all()
