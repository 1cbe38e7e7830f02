"""The Triton backend's checks of values on a GPU, where nothing may be read back, with a GPU's choices on the CPU.

``test_triton_gpu.py`` tests the same on a GPU, where an assertion ends the process.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from dictionaries import unit_atoms
from neuroae.kernels import OPERATIONS, load_backend, reference
from triton_device import MARKS, ON_GPU
from waits import no_waits

pytestmark = [*MARKS, pytest.mark.skipif(ON_GPU, reason="replaces the choices that depend on the device")]

Arguments = dict[str, dict[str, Any]]


@pytest.fixture
def arguments() -> Arguments:
    """Returns arguments of all operations: 2 images, 20 atoms, T 5."""
    atoms = unit_atoms(20, 3, 4)
    images = torch.rand(2, 3, 9, 12)
    norms = atoms.abs().sum((1, 2, 3))
    levels = {"norms": norms, "dead_zone": 0.1 * norms}
    dictionary = {"atoms": atoms, **levels}
    randomness = {"seed": torch.tensor(1), "image_ids": torch.arange(2)}
    quantizer = {"quantize": True, "signed": True}
    atom, projection = reference.select(images, atoms, 2, 5)
    draw: dict[str, Any] = {"atom": atom, "projection": projection, **levels, **randomness}
    draw |= {"start": 0, "count": 1, "dropout_p": 0.5, **quantizer}
    index, value, survivors, count = reference.draw(**draw)
    geometry = {"stride": [2, 3], "padding": [1, 0]}
    code, weight = {"index": index, "value": value, "count": count}, torch.randn(20, 3, 4, 3)
    conv = {**code, "weight": weight, "bias": None, **geometry, "output_padding": [0, 0], "relu": False}
    grad = {"grad_output": reference.conv_transpose(**conv), "output": None}
    size = {"height": 9, "width": 12, "stride": 2, "num_images": 2, "surrogate": "smooth", "sigma": 0.25}
    backward = {"grad_value": value, "index": index, "projection": survivors, "count": count}
    selection = {"grad_code": torch.randn(*count.shape, 20), "images": images, **dictionary, "stride": 2, "top_t": 5}
    return {
        "select": {"images": images, "atoms": atoms, "stride": 2, "top_t": 5},
        "encode": {"images": images, **dictionary, **randomness, "stride": 2, "top_t": 5, "realization": 0}
        | {"dropout_p": 0.5, **quantizer},
        "draw": draw,
        "encode_backward": {**backward, **dictionary, **size, **quantizer},
        "selection_backward": {**selection, "selection_width": 0.1, **quantizer},
        "conv_transpose": conv,
        "conv_transpose_backward_value": {**grad, "index": index, "count": count, "weight": weight, **geometry},
        "conv_transpose_backward_weight": {**grad, **code, "weight": weight, **geometry},
    }


@pytest.fixture(autouse=True)
def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    from neuroae.kernels.triton import checks

    monkeypatch.setattr(checks, "has_device_assertions", lambda tensor: True)


@pytest.mark.parametrize("operation", [name for name in OPERATIONS if not name.startswith("dense")])
def test_no_operation_waits(operation: str, arguments: Arguments, monkeypatch: pytest.MonkeyPatch) -> None:
    from neuroae.kernels.triton.launch import Launch

    launched: list[Launch] = []
    monkeypatch.setattr(Launch, "run", lambda launch: launched.append(launch))
    with no_waits():
        getattr(load_backend("triton"), operation)(**arguments[operation])
    assert launched


@pytest.mark.parametrize("wait", [Tensor.item, Tensor.tolist, Tensor.nonzero, bool], ids=lambda wait: wait.__name__)
def test_waits_are_noticed(wait: Callable[[Tensor], object]) -> None:
    with pytest.raises(AssertionError, match="waits for the device"), no_waits():
        wait(torch.ones(1))


def spoil_pixel(arguments: dict[str, Any]) -> None:
    arguments["images"][1, 2, 8, 11] = 1.5


def spoil_with_nan(arguments: dict[str, Any]) -> None:
    arguments["images"][0, 0, 0, 0] = torch.nan


def spoil_image_id(arguments: dict[str, Any]) -> None:
    arguments["image_ids"][1] = 2**32


def spoil_selected_atom(arguments: dict[str, Any]) -> None:
    arguments["atom"][0, 1, 0, 4] = 20


def spoil_survivor(arguments: dict[str, Any]) -> None:
    row, i, j = (arguments["count"] > 0).nonzero()[-1].tolist()
    arguments["index"][row, i, j, 0] = 20


CODE_READERS = ("encode_backward", "conv_transpose", "conv_transpose_backward_value", "conv_transpose_backward_weight")
SPOILED = [
    *((name, spoil_pixel, "images holds values") for name in ("select", "encode", "selection_backward")),
    ("encode", spoil_with_nan, "images holds values"),
    *((name, spoil_image_id, "image_ids holds numbers outside") for name in ("encode", "draw")),
    ("draw", spoil_selected_atom, "atom names an atom that the dictionary does not have"),
    *((name, spoil_survivor, "index names an atom that the") for name in CODE_READERS),
]


@pytest.mark.parametrize(
    ("operation", "spoil", "message"), SPOILED, ids=[f"{name} {spoil.__name__}" for name, spoil, _ in SPOILED]
)
def test_kernels_assert_what_they_need(
    operation: str,
    spoil: Callable[[dict[str, Any]], None],
    message: str,
    arguments: Arguments,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In the interpreter an assertion is an error; nothing reads outside of a tensor before it."""
    from triton.runtime.interpreter import InterpreterOptions, interpreter_builder

    # The interpreter ignores the launch's options.
    monkeypatch.setattr(interpreter_builder, "options", InterpreterOptions(debug=True, sanitize_overflow=False))
    spoil(arguments[operation])
    with pytest.raises(Exception, match=message) as raised:
        getattr(load_backend("triton"), operation)(**arguments[operation])
    assert type(raised.value).__name__ == "InterpreterError"
