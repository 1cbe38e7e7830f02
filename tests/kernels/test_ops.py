"""The operations as torch.ops: opcheck, declared arguments, and refusals of unusable arguments."""

import inspect
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

import oracle
from dictionaries import unit_atoms
from neuroae.kernels import OPERATIONS, reference

LIBRARIES = ("neuroae", "neuroae_reference")
CODE = {"index", "value", "projection", "count"}
BATCHED = CODE | {"images", "grad_code", "image_ids", "atom", "grad_value", "grad_output", "output", "input"}


@pytest.fixture(params=LIBRARIES)
def library(request: pytest.FixtureRequest) -> Any:
    return getattr(torch.ops, request.param)


@pytest.fixture
def arguments() -> dict[str, dict[str, Any]]:
    """Valid arguments of all operations, by name: 2 rectangular images, 20 atoms, 5 coefficients in a patch."""
    atoms = unit_atoms(20, 3, 4)
    norms = atoms.abs().sum((1, 2, 3))
    images = torch.rand(2, 3, 9, 12)
    dictionary = {"atoms": atoms, "norms": norms, "dead_zone": 0.1 * norms}
    randomness = {"seed": torch.tensor(1), "image_ids": torch.arange(2)}
    quantizer = {"quantize": True, "signed": True}
    atom, projection = reference.select(images, atoms, 2, 5)
    levels = {"norms": norms, "dead_zone": dictionary["dead_zone"]}
    realizations = {"start": 0, "count": 3, "dropout_p": 0.5}
    draw: dict[str, Any] = {
        "atom": atom,
        "projection": projection,
        **levels,
        **randomness,
        **realizations,
        **quantizer,
    }
    index, value, projection, count = reference.draw(**draw)
    # Kernels do not write unused slots, whose contents would differ from run to run: these draws use all slots.
    draw["dropout_p"] = 0.0
    size = {"height": 9, "width": 12, "stride": 2, "num_images": 2, "surrogate": "smooth", "sigma": 0.25}
    encode = {**dictionary, **randomness, "stride": 2, "top_t": 5, "realization": 0, "dropout_p": 0.0, **quantizer}
    backward = {"grad_value": torch.randn_like(value), "index": index, "projection": projection, "count": count}
    weight, geometry = torch.randn(20, 7, 4, 3), {"stride": [2, 3], "padding": [1, 0]}
    code = {"index": index, "value": value, "count": count}
    conv: dict[str, Any] = {
        **code,
        "weight": weight,
        "bias": torch.randn(7),
        **geometry,
        "output_padding": [1, 2],
        "relu": True,
    }
    output = reference.conv_transpose(**conv)
    conv_backward = {"grad_output": torch.randn_like(output), "output": output, **code, "weight": weight, **geometry}
    selection = {"stride": 2, "top_t": 5, "selection_width": 0.1, **quantizer}
    return {
        "selection_backward": {"grad_code": torch.randn(2, *count.shape[1:], 20), "images": images}
        | dictionary
        | selection,
        "select": {"images": images, "atoms": atoms, "stride": 2, "top_t": 5},
        "draw": draw,
        "encode": {"images": images, **encode},
        "encode_backward": {**backward, **dictionary, **size, **quantizer},
        "conv_transpose": conv,
        "conv_transpose_backward_value": {name: conv_backward[name] for name in conv_backward if name != "value"},
        "conv_transpose_backward_weight": conv_backward,
    } | dense_arguments()


def dense_arguments() -> dict[str, dict[str, Any]]:
    """Returns the arguments of the dense convolution: 2 rows of 5 channels to 7."""
    dense: dict[str, Any] = {"input": torch.randn(2, 5, 6, 4), "weight": torch.randn(5, 7, 3, 3)}
    output = reference.dense_conv_transpose(**dense, bias=torch.randn(7), relu=True)
    backward = {"grad_output": torch.randn_like(output), "output": output}
    return {
        "dense_conv_transpose": {**dense, "bias": torch.randn(7), "relu": True},
        "dense_conv_transpose_backward_input": {**backward, "weight": dense["weight"]},
        "dense_conv_transpose_backward_weight": {**backward, "input": dense["input"]},
    }


@pytest.mark.parametrize("operation", OPERATIONS)
def test_opcheck(library: Any, operation: str, arguments: dict[str, dict[str, Any]]) -> None:
    """Checks the schema, the fake result against the real one, and tracing with dynamic shapes."""
    torch.library.opcheck(getattr(library, operation).default, (), arguments[operation])


@pytest.mark.parametrize("operation", OPERATIONS)
def test_opcheck_of_an_empty_batch(library: Any, operation: str, arguments: dict[str, dict[str, Any]]) -> None:
    empty = {
        name: argument[:0] if name in BATCHED and isinstance(argument, Tensor) else argument
        for name, argument in arguments[operation].items()
    }
    if operation == "encode_backward":
        empty["num_images"] = 0
    torch.library.opcheck(getattr(library, operation).default, (), empty)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_the_default_dtype_changes_nothing(
    library: Any, operation: str, arguments: dict[str, dict[str, Any]], default_dtype: torch.dtype
) -> None:
    """Backends write float32 into the outputs, whatever PyTorch's default is."""
    run = getattr(library, operation)
    actual = oracle.as_tuple(run(**arguments[operation]))
    torch.set_default_dtype(torch.float32)
    expected = oracle.as_tuple(run(**arguments[operation]))
    oracle.assert_identical(actual, expected, tuple(map(str, range(len(expected)))))


@pytest.mark.parametrize("operation", OPERATIONS)
def test_backends_and_schema_have_the_declared_arguments(library: Any, operation: str, backend: ModuleType) -> None:
    declared = list(inspect.signature(OPERATIONS[operation]).parameters)
    assert [argument.name for argument in getattr(library, operation).default._schema.arguments] == declared
    for module in (reference, backend):
        assert list(inspect.signature(getattr(module, operation)).parameters) == declared


@pytest.mark.parametrize("operation", OPERATIONS)
def test_tensors_on_several_devices_are_refused_by_name(
    library: Any, operation: str, arguments: dict[str, dict[str, Any]]
) -> None:
    """With a meta tensor among them the fake implementation would run, and leave the outputs unfilled."""
    run, values = getattr(library, operation), arguments[operation]
    tensors = [name for name, value in values.items() if isinstance(value, Tensor)]
    assert len(tensors) > 1
    for name in tensors:
        with pytest.raises(
            ValueError, match=rf"{operation} has .*\b{name} on meta.*expected all tensors on one device"
        ):
            run(**values | {name: values[name].to("meta")})
    on_meta = run(**{name: value.to("meta") if name in tensors else value for name, value in values.items()})
    assert all(result.is_meta for result in oracle.as_tuple(on_meta))


SELECT = {
    "images of float64": (
        "images",
        Tensor.double,
        TypeError,
        "images has dtype torch.float64, expected torch.float32",
    ),
    "images of bytes": ("images", Tensor.byte, TypeError, "images has dtype torch.uint8"),
    "one image": ("images", lambda x: x[0], ValueError, r"images has shape \(3, 9, 12\), expected 4 dimensions"),
    "two channels": ("images", lambda x: x[:, :2], ValueError, "images has 2 channels, expected 3"),
    "small images": ("images", lambda x: x[:, :, :3], ValueError, "images are 3 x 12, expected at least one patch"),
    "bright images": ("images", lambda x: x * 255, ValueError, "expected pixels in .0, 1.; divide by 255"),
    "oblong atoms": ("atoms", lambda x: x[..., :3], ValueError, "atoms has shape .*expected square patches"),
    "no atoms": ("atoms", lambda x: x[:0], ValueError, "atoms holds 0 atoms"),
    "atoms of no channels": ("atoms", lambda x: x[:, :0], ValueError, "atoms has shape .*expected square patches"),
    "stride 0": ("stride", lambda _: 0, ValueError, "stride is 0"),
    "top_t 0": ("top_t", lambda _: 0, ValueError, "top_t is 0, expected 1 to 20"),
    "top_t above L": ("top_t", lambda _: 21, ValueError, "top_t is 21, expected 1 to 20"),
}
RANDOMNESS = {
    "seed of float": ("seed", Tensor.float, TypeError, "seed has dtype torch.float32"),
    "two seeds": ("seed", lambda x: x.repeat(2), ValueError, "seed holds 2 numbers"),
    "int32 ids": ("image_ids", Tensor.int, TypeError, "image_ids has dtype torch.int32"),
    "an id too few": ("image_ids", lambda x: x[:1], ValueError, "image_ids holds 1 ids, expected 2"),
    "negative id": ("image_ids", lambda x: x - 1, ValueError, "image_ids holds numbers from -1"),
    "id of 33 bits": ("image_ids", lambda x: x + 2**32, ValueError, "image_ids holds numbers"),
    "dropout_p 1": ("dropout_p", lambda _: 1.0, ValueError, r"dropout_p is 1.0, expected in \[0, 1\)"),
    "dropout_p NaN": ("dropout_p", lambda _: float("nan"), ValueError, "dropout_p is nan"),
    "norms of float64": ("norms", Tensor.double, TypeError, "norms has dtype torch.float64"),
    "dead zones too few": ("dead_zone", lambda x: x[:-1], ValueError, "norms and dead_zone hold 20 and 19 numbers"),
}
DRAW = {
    "atoms of int32": ("atom", Tensor.int, TypeError, "atom has dtype torch.int32, expected torch.int16"),
    "other shapes": ("projection", lambda x: x[..., :4], ValueError, "projection has shape .*expected .*as atom has"),
    "negative start": ("start", lambda _: -1, ValueError, "start is -1 and count is 3, expected realizations in"),
    "start too large": (
        "start",
        lambda _: 2**32 - 2,
        ValueError,
        r"start is \d+ and count is 3, expected realizations in .0, 2.32",
    ),
    "negative count": ("count", lambda _: -1, ValueError, "count is -1"),
}
ENCODE = {
    "negative realization": ("realization", lambda _: -1, ValueError, r"realization is -1, expected in \[0, 2.32")
}
ENCODE_BACKWARD = {
    "gradient of bfloat16": ("grad_value", Tensor.bfloat16, TypeError, "grad_value has dtype torch.bfloat16"),
    "other shapes": ("index", lambda x: x[..., :4], ValueError, "grad_value, index and projection have shapes"),
    "another image": ("height", lambda _: 11, ValueError, "an image of 11 x 12 does not give 3 x 5 patches"),
    "image too small": ("width", lambda _: 11, ValueError, "an image of 9 x 11 does not give"),
    "rows of no image": ("num_images", lambda _: 4, ValueError, "6 rows, expected a multiple of num_images, 4"),
    "no images": ("num_images", lambda _: 0, ValueError, "6 rows, expected a multiple of num_images, 0"),
    "unknown surrogate": ("surrogate", lambda _: "tanh", ValueError, "surrogate is 'tanh', expected one of identity"),
    "sigma 0": ("sigma", lambda _: 0.0, ValueError, "sigma is 0.0, expected above 0"),
    "norms too few": ("norms", lambda x: x[:-1], ValueError, "norms and dead_zone hold 19 and 20 numbers"),
    "oblong atoms": ("atoms", lambda x: x[:, :, :, :3], ValueError, "atoms has shape .*expected square patches"),
    "no slots": (
        "index",
        lambda x: x[..., :0],
        ValueError,
        "index has shape .*expected at least one patch and one slot",
    ),
}
CODE_AND_WEIGHT = {
    "index of int64": ("index", Tensor.long, TypeError, "index has dtype torch.int64, expected torch.int16"),
    "count of int64": ("count", Tensor.long, TypeError, "count has dtype torch.int64, expected torch.int32"),
    "a row too few": ("count", lambda x: x[:-1], ValueError, "count has shape .*expected .*as index has"),
    "flat weight": ("weight", lambda x: x.flatten(2), ValueError, "weight has shape .*expected 4 dimensions"),
    "weight of float64": ("weight", Tensor.double, TypeError, "weight has dtype torch.float64"),
    "no output channels": ("weight", lambda x: x[:, :0], ValueError, "weight has shape .*of at least 1"),
    "no slots": (
        "index",
        lambda x: x[..., :0],
        ValueError,
        "index has shape .*expected at least one patch and one slot|as index",
    ),
    "stride 0": ("stride", lambda _: [0, 1], ValueError, r"stride is \[0, 1\]"),
    "negative padding": ("padding", lambda _: [0, -1], ValueError, r"padding is \[0, -1\]"),
}
VALUE = {
    "value of bfloat16": ("value", Tensor.bfloat16, TypeError, "value has dtype torch.bfloat16"),
    "other shapes": ("value", lambda x: x[..., :4], ValueError, "value has shape .*expected .*as index has"),
}
CONV = {
    "bias too long": ("bias", lambda x: x.repeat(2), ValueError, r"bias has shape \(14,\), expected \(7,\)"),
    "bias of bfloat16": ("bias", Tensor.bfloat16, TypeError, "bias has dtype torch.bfloat16, expected torch.float32"),
    "output_padding": ("output_padding", lambda _: [2, 0], ValueError, r"output_padding is \[2, 0\], expected 0 to"),
    "no output": ("padding", lambda _: [5, 0], ValueError, "the output would be -1 x 17, expected at least 1 x 1"),
}
CONV_BACKWARD = {
    "gradient of bfloat16": ("grad_output", Tensor.bfloat16, TypeError, "grad_output has dtype torch.bfloat16"),
    "gradient too small": (
        "grad_output",
        lambda x: x[:, :, :5],
        ValueError,
        "grad_output has shape .*dimension 2 of 6",
    ),
    "gradient too wide": (
        "grad_output",
        lambda x: x.repeat(1, 1, 1, 2),
        ValueError,
        "grad_output has shape .*dimension 3",
    ),
    "other channels": (
        "grad_output",
        lambda x: x[:, :6],
        ValueError,
        r"grad_output has shape .*expected \(6, 7, H, W\)",
    ),
    "another output": ("output", lambda x: x[:, :, :6], ValueError, "output has shape .*as grad_output has"),
}
DENSE_WEIGHT = {
    "weight of bfloat16": (
        "weight",
        Tensor.bfloat16,
        TypeError,
        "weight has dtype torch.bfloat16",
    ),
    "no channels": (
        "weight",
        lambda x: x[:, :0],
        ValueError,
        "weight has shape .*with at least one channel of each kind",
    ),
    "large filters": ("weight", lambda x: x.repeat(1, 1, 2, 2), ValueError, r"weight has shape .*expected .*3, 3"),
}
DENSE = {
    "input of float64": ("input", Tensor.double, TypeError, "input has dtype torch.float64, expected float32, "),
    "one map": ("input", lambda x: x[0], ValueError, r"input has shape \(5, 6, 4\), expected 4 dimensions"),
    "other channels": ("input", lambda x: x[:, :4], ValueError, "input has 4 channels, expected 5 as the weight has"),
    "no pixels": ("input", lambda x: x[..., :0], ValueError, "input is 6 x 0, expected at least 1 x 1"),
    "bias too long": ("bias", lambda x: x.repeat(2), ValueError, r"bias has shape \(14,\), expected \(7,\)"),
    "bias of bfloat16": ("bias", Tensor.bfloat16, TypeError, "bias has dtype torch.bfloat16, expected torch.float32"),
}
DENSE_OUTPUT = {"another output": ("output", lambda x: x[:1], ValueError, "output has shape .*as grad_output has")}
DENSE_BACKWARD_INPUT = {
    "other channels": ("grad_output", lambda x: x[:, :6], ValueError, "grad_output has 6 channels, expected 7"),
    "gradient too small": (
        "grad_output",
        lambda x: x[:, :, :2],
        ValueError,
        "grad_output is 2 x 6, expected",
    ),
}
DENSE_BACKWARD_WEIGHT = {
    "gradient too small": ("grad_output", lambda x: x[:, :, :7], ValueError, r"grad_output has shape .*2, 7, 8, 6"),
    "gradient of bfloat16": ("grad_output", Tensor.bfloat16, TypeError, "grad_output has dtype torch.bfloat16"),
    "flat gradient": ("grad_output", lambda x: x.flatten(), ValueError, "grad_output has shape .*expected 4 dimen"),
    "no channels": ("grad_output", lambda x: x[:, :0], ValueError, "grad_output has no channels"),
}
SELECTION_BACKWARD = {
    "gradient of other patches": (
        "grad_code",
        lambda x: x[:, 1:],
        ValueError,
        r"grad_code has shape .*expected \(2, 3, 5, 20\), a number for each patch and atom",
    ),
    "gradient of other atoms": ("grad_code", lambda x: x[..., 1:], ValueError, "grad_code has shape"),
    "gradient of float64": ("grad_code", Tensor.double, TypeError, "grad_code has dtype torch.float64"),
    "width of 0": (
        "selection_width",
        lambda _: 0.0,
        ValueError,
        "selection_width is 0.0, expected above 0 and finite",
    ),
    "infinite width": (
        "selection_width",
        lambda _: float("inf"),
        ValueError,
        "selection_width is inf, expected above 0",
    ),
    "too few norms": ("norms", lambda x: x[1:], ValueError, "norms and dead_zone hold 19 and 20 numbers"),
}
REFUSALS = {
    "select": SELECT,
    "draw": RANDOMNESS | DRAW,
    "encode": SELECT | RANDOMNESS | ENCODE,
    "encode_backward": ENCODE_BACKWARD,
    "selection_backward": SELECT | SELECTION_BACKWARD,
    "conv_transpose": CODE_AND_WEIGHT | VALUE | CONV,
    "conv_transpose_backward_value": CODE_AND_WEIGHT | CONV_BACKWARD,
    "conv_transpose_backward_weight": CODE_AND_WEIGHT | VALUE | CONV_BACKWARD,
    "dense_conv_transpose": DENSE | DENSE_WEIGHT,
    "dense_conv_transpose_backward_input": DENSE_OUTPUT | DENSE_WEIGHT | DENSE_BACKWARD_INPUT,
    "dense_conv_transpose_backward_weight": DENSE_OUTPUT | DENSE_BACKWARD_WEIGHT,
}


@pytest.mark.parametrize(
    ("operation", "refusal"),
    [
        pytest.param(op, refusal, id=f"{op}: {name}")
        for op, refusals in REFUSALS.items()
        for name, refusal in refusals.items()
    ],
)
def test_unusable_arguments_are_refused(
    library: Any, operation: str, refusal: tuple[str, Callable[[Any], Any], type[Exception], str], arguments: Any
) -> None:
    name, change, error, message = refusal
    wrong = arguments[operation] | {name: change(arguments[operation][name])}
    with pytest.raises(error, match=message):
        getattr(library, operation)(**wrong)
