"""Settings for a block: they hold inside, and are restored afterwards."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import pytest
import torch

from neuroae.kernels import reference
from neuroae.kernels.float32 import full_float32
from neuroae.models.presets import PRESETS, make_classifier
from neuroae.utils.contexts import drawing_from, repeatable, tuned_convolutions


def test_draws_follow_from_the_seed_and_leave_the_generator_as_it_was() -> None:
    expected = torch.rand(2)
    torch.manual_seed(0)
    drawn = []
    for seed in (7, 7, 8):
        with drawing_from(seed):
            drawn.append(torch.rand(2))
    assert torch.equal(torch.rand(2), expected)
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_models_are_made_without_a_look_at_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """Saving the states of other devices would start CUDA and take memory on each of them."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    for name in ("manual_seed_all", "get_rng_state", "set_rng_state"):
        monkeypatch.setattr(torch.cuda, name, lambda *_: pytest.fail("touched a GPU"))
    make_classifier(PRESETS["digits"], 10, 0)


@pytest.fixture
def rounded_products() -> Iterator[None]:
    """Products and convolutions of float32 may be computed in TF32 and bfloat16, by torch's older switch and newer."""
    before = torch.get_float32_matmul_precision(), torch.backends.mkldnn.conv.fp32_precision
    torch.set_float32_matmul_precision("medium")
    torch.backends.mkldnn.conv.fp32_precision = "bf16"
    yield
    torch.backends.mkldnn.conv.fp32_precision = before[1]
    torch.set_float32_matmul_precision(before[0])


def precisions() -> list[str]:
    cuda, cudnn, mkldnn = torch.backends.cuda, torch.backends.cudnn, torch.backends.mkldnn
    return [operation.fp32_precision for operation in (cuda.matmul, cudnn.conv, mkldnn.matmul, mkldnn.conv)]


@pytest.mark.parametrize("context", [full_float32, repeatable], ids=["full_float32", "repeatable"])
def test_float32_is_not_rounded_inside_and_may_be_afterwards(
    rounded_products: None, context: Callable[[], AbstractContextManager[None]]
) -> None:
    before = precisions()
    assert before == ["tf32", "tf32", "bf16", "bf16"]
    with context():
        assert set(precisions()) <= {"ieee", "none"}
    assert precisions() == before


def test_what_is_inherited_is_inherited_again(rounded_products: None) -> None:
    torch.backends.mkldnn.conv.fp32_precision = "none"
    before = torch.backends.mkldnn.fp32_precision
    torch.backends.mkldnn.fp32_precision = "bf16"
    with full_float32():
        assert torch.backends.mkldnn.conv.fp32_precision == "ieee"
    torch.backends.mkldnn.fp32_precision = "ieee"
    assert torch.backends.mkldnn.conv.fp32_precision == "ieee"
    torch.backends.mkldnn.fp32_precision = before


@pytest.mark.parametrize("products", ["highest", "high"])
def test_models_may_read_and_set_the_older_switches_inside(products: str) -> None:
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision(products)
    with full_float32():
        assert not torch.backends.cuda.matmul.allow_tf32
        assert not torch.backends.cudnn.allow_tf32
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            assert precisions()[:2] in ([each, "none"] for each in ("ieee", "none"))
    assert torch.get_float32_matmul_precision() == products
    torch.set_float32_matmul_precision(before[0])
    assert torch.backends.cudnn.allow_tf32 == before[1]


def test_settings_of_cudnn_are_as_before_even_after_an_error() -> None:
    cudnn = torch.backends.cudnn
    before = cudnn.enabled, cudnn.benchmark, cudnn.deterministic

    def fail() -> None:
        with repeatable():
            assert (cudnn.enabled, cudnn.benchmark, cudnn.deterministic) == (before[0], False, True)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert (cudnn.enabled, cudnn.benchmark, cudnn.deterministic) == before


def test_the_reference_convolves_in_float32_whatever_is_allowed(rounded_products: None) -> None:
    images, atoms = torch.rand(2, 3, 8, 8), torch.randn(3, 4, 3, 3)
    actual = reference.dense_conv_transpose(images, atoms, None, relu=False)
    expected = torch.nn.functional.conv_transpose2d(images.double(), atoms.double())
    torch.testing.assert_close(actual.double(), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("before", [False, True])
def test_convolutions_are_tuned_within_the_context_only(before: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", before)
    with tuned_convolutions():
        assert torch.backends.cudnn.benchmark
    assert torch.backends.cudnn.benchmark is before
