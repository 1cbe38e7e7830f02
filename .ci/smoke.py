"""Smoke test of a package that is installed in this environment: smoke.py BACKEND, the backend that it must use."""

import sys
import sysconfig
import warnings
from pathlib import Path

import torch

import neuroae
from neuroae import Decoder, Defense, SparseEncoder, kernels, resnet32


def main(backend: str) -> None:
    folder = sysconfig.get_path("platlib")
    for module in (neuroae, kernels):
        assert Path(str(module.__file__)).is_relative_to(folder), f"{module.__file__} is not in {folder}"

    torch.manual_seed(0)
    atoms = torch.nn.functional.normalize(torch.randn(50, 48), dim=1).reshape(50, 3, 4, 4)
    images = torch.rand(2, 3, 32, 32)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        codes = [SparseEncoder(atoms, 2, 10, backend=name).encode(images, seed=7) for name in ("auto", "reference")]
        SparseEncoder(atoms, 2, 10).encode(images, seed=8)
    assert torch.equal(codes[0].index, codes[1].index)
    torch.testing.assert_close(codes[0].value, codes[1].value)

    fallbacks = [str(warning.message) for warning in caught if "reference backend" in str(warning.message)]
    assert len(fallbacks) == (backend == "reference"), fallbacks
    assert kernels.backend_name("cpu") == backend, kernels.backend_name("cpu")

    decoder = Decoder(in_channels=50, kernel_size=4, stride=2, image_size=32, out_channels=3)
    model = Defense(SparseEncoder(atoms, 2, 10), decoder, resnet32(num_classes=10))
    images.requires_grad_()
    model(images, seed=1).logsumexp(1).sum().backward()
    assert images.grad is not None
    assert images.grad.isfinite().all()
    print(f"neuroae {neuroae.__version__} on the {backend} backend", *fallbacks, sep="\n")


main(*sys.argv[1:])
