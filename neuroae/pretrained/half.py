"""Weights as they are stored: those of large layers in float16 where that is asked for, everything else as it is."""

import torch
from torch import Tensor, nn

LAYERS = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)


def layer_weights(model: nn.Module) -> set[str]:
    """Names of the tensors that float16 may hold. Biases, batch normalization and atoms are not among them."""
    return {f"{name}.weight" for name, module in model.named_modules() if isinstance(module, LAYERS)}


def stored(model: nn.Module, half: bool) -> dict[str, Tensor]:
    """The model's tensors by name, its layers' weights rounded to float16 if ``half``.

    Raises:
        TypeError: the model is not in float32.
        ValueError: a weight is beyond float16's range, or a number is NaN or infinite.
    """
    tensors = model.state_dict()
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and tensor.dtype != torch.float32:
            raise TypeError(f"{name} is {tensor.dtype}, expected torch.float32; save the model as it was trained")
    require_finite(tensors)
    if half:
        for name in layer_weights(model):
            tensors[name] = rounded(name, tensors[name])
    return tensors


def require_finite(tensors: dict[str, Tensor]) -> None:
    """Refuses a model whose answers would be no numbers; ValueError names the first tensor that is to blame."""
    for name, tensor in tensors.items():
        wrong = int((~tensor.isfinite()).sum())
        if wrong:
            raise ValueError(f"{name} is NaN or infinite in {wrong:,} of {tensor.numel():,} places, expected none")


def rounded(name: str, weight: Tensor) -> Tensor:
    half = weight.half()
    if not bool(half.isfinite().all()):
        limit = torch.finfo(torch.float16).max
        raise ValueError(
            f"{name} reaches {weight.abs().max():g}, float16 holds at most {limit:g}; store it as float32"
        )
    return half


def restored(model: nn.Module, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Stored tensors in the model's own dtypes; TypeError for one that was stored in a dtype that it never has."""
    own = {name: tensor.dtype for name, tensor in model.state_dict().items()}
    weights = layer_weights(model)
    for name, tensor in tensors.items():
        dtypes = {own.get(name, tensor.dtype)} | ({torch.float16} if name in weights else set())
        if tensor.dtype not in dtypes:
            raise TypeError(f"{name} is {tensor.dtype}, expected {' or '.join(sorted(map(str, dtypes)))}")
    return {name: tensor.to(own.get(name, tensor.dtype)) for name, tensor in tensors.items()}
