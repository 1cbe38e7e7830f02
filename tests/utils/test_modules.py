"""Descriptions of a model: different for different models, the same in every process and version of PyTorch."""

import pytest
import torch
from torch import nn

from neuroae import resnet32
from neuroae.models.fingerprints import fingerprint
from neuroae.utils.modules import structure


def mixed(dropout: float = 0.1) -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(64, 10)]
    return nn.Sequential(*layers, nn.TransformerEncoderLayer(10, 2, 8, dropout, activation=lambda x: x))


def test_addresses_are_left_out() -> None:
    """The activation is a function, whose address differs between processes."""
    assert structure(mixed()) == structure(mixed())
    assert "0x" not in str(structure(mixed()))


def test_modules_are_told_by_path_kind_settings_and_tensors() -> None:
    descriptions = structure(mixed())
    assert descriptions["0"] == (
        "Conv2d(in_channels=3, out_channels=4, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1), dilation=(1, 1), "
        "groups=1, padding_mode='zeros'); weight torch.float32 (4, 3, 3, 3); bias torch.float32 (4,)"
    )
    assert descriptions["4.dropout1"] == "Dropout(p=0.1, inplace=False)"
    assert structure(mixed(dropout=0.2))["4.dropout1"] == "Dropout(p=0.2, inplace=False)"
    assert structure(resnet32()).keys() == {name or "model" for name, _ in resnet32().named_modules()}


def test_what_pytorch_prints_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch 2.14 says of batch normalization whether it has a bias, which 2.11 did not."""
    words, digest = structure(mixed()), fingerprint(mixed())
    for kind in (nn.Conv2d, nn.BatchNorm2d, nn.Linear):
        monkeypatch.setattr(kind, "extra_repr", lambda _: "printed otherwise")
    assert structure(mixed()) == words
    assert fingerprint(mixed()) == digest
    assert fingerprint(mixed(dropout=0.2)) != digest
