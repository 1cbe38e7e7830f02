"""Functions replayed from graphs: which calls are replays, and that they are the same as eager ones."""

import pytest
import torch
from torch import Tensor

from graphs import StandIn
from neuroae.utils import graphs
from neuroae.utils.graphs import Repeated, records_graphs


def double(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor | None]:
    return (first + second).mul_(2), None


@pytest.fixture
def graph(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    stand_in = StandIn()
    monkeypatch.setattr(graphs, "record_graph", stand_in.record)
    return stand_in


def call(repeated: Repeated, number: float, shape: tuple[int, ...] = (2, 3), dtype: torch.dtype | None = None) -> None:
    tensor = torch.full(shape, number, dtype=dtype)
    result, nothing = repeated(tensor, tensor + 1)
    assert torch.equal(result, 2 * (2 * tensor + 1))
    assert nothing is None


def test_the_shapes_that_repeat_first_are_replayed(graph: StandIn) -> None:
    repeated = Repeated(double, 2, "the test")
    for number in range(3):
        call(repeated, number, shape=(3, 3))
        call(repeated, number)
    assert (graph.recordings, graph.replays) == (1, 1)
    call(repeated, 3, shape=(3, 3))
    assert graph.replays == 2


OTHERS = {
    "shape": lambda: torch.ones(3, 2),
    "layout": lambda: torch.ones(3, 2).t(),
    "dtype": lambda: torch.ones(2, 3, dtype=torch.float64),
}


@pytest.mark.parametrize("other", OTHERS)
def test_other_inputs_are_eager(graph: StandIn, other: str) -> None:
    repeated = Repeated(double, 0, "the test")
    call(repeated, 1.0)
    for _ in range(3):
        assert torch.equal(repeated(OTHERS[other](), OTHERS[other]())[0], 4 * OTHERS[other]())
    assert (graph.recordings, graph.replays) == (1, 1)


def test_a_call_under_other_autocast_is_eager(graph: StandIn) -> None:
    repeated = Repeated(lambda first, second: (first @ second,), 0, "the test")
    inputs = torch.rand(4, 4), torch.rand(4, 4)
    assert repeated(*inputs)[0].dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        assert repeated(*inputs)[0].dtype == torch.bfloat16
    assert graph.replays == 1


def test_numbers_of_a_recording_stay_as_they_were(graph: StandIn) -> None:
    """The stand-in is as strict as a CUDA graph, which never runs Python again."""
    numbers = iter(range(100))
    repeated = Repeated(lambda tensor: (tensor + next(numbers),), 0, "the test")
    for _ in range(2):
        assert repeated(torch.zeros(1))[0] == 0
    assert next(numbers) == 1


@pytest.mark.parametrize("reading", [Tensor.item, Tensor.tolist, Tensor.nonzero], ids=lambda method: method.__name__)
def test_a_recording_does_not_wait(graph: StandIn, reading: object) -> None:
    with pytest.raises(AssertionError, match="waits for the device"):
        Repeated(lambda tensor: (reading(tensor),), 0, "the test")(torch.zeros(1))  # type: ignore[operator]


def test_a_recording_that_fails_is_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(function: object) -> None:
        raise RuntimeError("operation not permitted\nmore")

    monkeypatch.setattr(graphs, "record_graph", refuse)
    repeated = Repeated(double, 1, "the test")
    call(repeated, 0.0)
    with pytest.warns(UserWarning, match="^the test goes on without a CUDA graph, and may be slower: .* permitted$"):
        call(repeated, 1.0)
    call(repeated, 2.0)
    assert not repeated.can_record


def test_the_cpu_has_no_graphs() -> None:
    assert not records_graphs(torch.device("cpu"))
