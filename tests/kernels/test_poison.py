"""Uninitialized memory is poisoned in tests, and a kernel that leaves an output unwritten is noticed."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch._subclasses import FakeTensorMode

from neuroae import kernels
from neuroae.kernels.cpu import encoder

ALLOCATIONS: dict[str, Callable[[torch.dtype], Tensor]] = {
    "empty": lambda dtype: torch.empty(3, 2, dtype=dtype),
    "empty channels_last": lambda dtype: torch.empty((1, 3, 2, 2), dtype=dtype, memory_format=torch.channels_last),
    "empty_like": lambda dtype: torch.empty_like(torch.zeros(3, dtype=dtype)),
    "new_empty": lambda dtype: torch.zeros(3, dtype=dtype).new_empty(2, 5),
    "new_empty of another dtype": lambda dtype: torch.zeros(3).new_empty((2, 5), dtype=dtype),
}
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64)
INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("name", ALLOCATIONS)
def test_floats_are_nan(name: str, dtype: torch.dtype) -> None:
    assert bool(ALLOCATIONS[name](dtype).isnan().all())


@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
@pytest.mark.parametrize("name", ALLOCATIONS)
def test_integers_are_large_and_odd(name: str, dtype: torch.dtype) -> None:
    values = ALLOCATIONS[name](dtype).flatten().tolist()
    assert set(values) == {torch.iinfo(dtype).max - 2}
    assert values[0] % 2 == 1


def test_a_kernel_that_writes_nothing_is_noticed(atoms: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing runs in place of the C++ kernel, which reports success."""
    images = torch.rand(2, 3, 9, 11)
    expected_atom, expected_projection = kernels.load_backend("reference").select(images, atoms, 2, 5)
    monkeypatch.setattr(encoder, "run", lambda *_: 0)
    atom, projection = encoder.select(images, atoms, 2, 5)
    assert bool(projection.isnan().all())
    assert not bool((atom == expected_atom).any())
    with pytest.raises(AssertionError, match="Tensor-likes are not close"):
        torch.testing.assert_close(projection, expected_projection)


def test_tensors_without_memory_stay_as_they_are() -> None:
    assert torch.empty(3, device="meta").is_meta
    with torch.device("meta"):
        assert torch.empty(3).is_meta
    assert torch.empty(0, 3).shape == (0, 3)
    with FakeTensorMode():
        assert torch.empty(3).new_empty(2).shape == (2,)


def test_out_and_leaves_of_a_graph_are_allowed() -> None:
    target = torch.zeros(3)
    assert torch.empty(3, out=target) is target
    assert torch.equal(target, torch.zeros(3))
    leaf = torch.empty(3, requires_grad=True)
    assert leaf.is_leaf
    leaf.sum().backward()
    assert torch.equal(leaf.grad, torch.ones(3))


def test_compiled_functions_are_not_poisoned() -> None:
    """Dynamo sees the allocation and nothing else, so that the graph stays whole and as it is without the poison."""

    def double(values: Tensor) -> Tensor:
        return torch.empty_like(values).copy_(values) * 2

    assert torch.equal(torch.compile(double, backend="eager", fullgraph=True)(torch.ones(3)), torch.full((3,), 2.0))
