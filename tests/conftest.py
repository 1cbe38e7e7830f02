"""Fixtures that the test files share: the compiled backend, small dictionaries, and real data beside the project.

In all tests uninitialized memory is poisoned (``helpers/poison.py``).
"""

import os
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import hypothesis
import numpy as np
import pytest
import torch
from torch import Tensor

from dictionaries import unit_atoms
from neuroae import kernels
from neuroae.kernels import BackendMissing
from poison import poison_empty_memory
from shared_data import SHARED, existing, load_module

IN_CI = os.environ.get("CI") == "true"

hypothesis.settings.register_profile("quick", deadline=None, print_blob=True, derandomize=IN_CI)
hypothesis.settings.register_profile("thorough", deadline=None, print_blob=True, max_examples=3000)
hypothesis.settings.load_profile("quick")


@pytest.fixture(scope="session", autouse=True)
def poisoned_memory() -> Iterator[None]:
    """Fills uninitialized memory, so that an output that a kernel forgets to write fails its test."""
    with pytest.MonkeyPatch.context() as patches:
        poison_empty_memory(patches)
        yield


@pytest.fixture(autouse=True)
def one_thread_and_a_fixed_generator() -> None:
    """Small tensors gain nothing from threads, and what a test draws should not depend on the tests before it."""
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.fixture(scope="session", params=["triton" if kernels.is_interpreting() else "cpu"])
def backend(request: pytest.FixtureRequest) -> ModuleType:
    """The compiled backend that CPU tensors get in this process; where it must exist, its absence is a failure."""
    try:
        return kernels.load_backend(request.param)
    except BackendMissing as reason:
        if IN_CI or os.environ.get("NEUROAE_REQUIRE_CPU_BACKEND") == "1":
            pytest.fail(f"the {request.param} backend is required here: {reason}")
        pytest.skip(str(reason))


@pytest.fixture(params=[torch.float64, torch.bfloat16], ids=str)
def default_dtype(request: pytest.FixtureRequest) -> Iterator[torch.dtype]:
    """Sets PyTorch's default dtype until the end of the test."""
    torch.set_default_dtype(request.param)
    yield request.param
    torch.set_default_dtype(torch.float32)


@pytest.fixture
def atoms() -> Tensor:
    """(20, 3, 4, 4) random atoms of unit l2 norm."""
    return unit_atoms(20, 3, 4)


@pytest.fixture(scope="session")
def shared_reference() -> Path:
    """The folder with the published dictionaries and weights."""
    return existing(SHARED / "reference")


@pytest.fixture(scope="session")
def cifar10_test(tmp_path_factory: pytest.TempPathFactory) -> tuple[Tensor, Tensor]:
    """The first 1,000 test images, (1000, 3, 32, 32) float32 in [0, 1], and their labels."""
    unpack = load_module(existing(SHARED / "data" / "unpack.py"))
    labels = np.load(existing(SHARED / "data" / "cifar10" / "labels.npz"))["test_batch"]
    path = tmp_path_factory.mktemp("cifar10") / "test_batch.bin"
    path.write_bytes(unpack.records("test_batch", labels))
    records = np.fromfile(path, np.uint8).reshape(-1, 1 + 3 * 32 * 32)
    images = torch.from_numpy(records[:, 1:].reshape(-1, 3, 32, 32)).float() / 255
    return images, torch.from_numpy(records[:, 0].astype(np.int64))
