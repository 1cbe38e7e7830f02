"""What a result was made with and of."""

from pathlib import Path
from typing import Any

from neuroae.data import ImageSet
from neuroae.kernels import engine_name
from neuroae.versions import versions


def provenance(model: str, data: ImageSet) -> dict[str, Any]:
    """The model's name, the images, the engine and the versions, as JSON holds them."""
    return {
        "model": Path(model).name,
        "data": {"name": data.name, "images": len(data), "fingerprint": data.fingerprint()},
        "engine": engine_name("cpu"),
        "versions": versions(),
    }
