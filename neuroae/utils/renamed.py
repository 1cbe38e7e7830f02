"""Names of modules in version 0.1: importing one still works, with a ``DeprecationWarning``."""

import importlib
import sys
import warnings
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

RENAMED = {
    "neuroae.classifiers": "neuroae.nn.classifiers",
    "neuroae.code": "neuroae.nn.code",
    "neuroae.decoder": "neuroae.nn.decoder",
    "neuroae.defense": "neuroae.nn.defense",
    "neuroae.encoder": "neuroae.nn.encoder",
    "neuroae.presets": "neuroae.models.presets",
    "neuroae.pretrained": "neuroae.models",
    "neuroae.randomness": "neuroae.utils.randomness",
    "neuroae.sparse_conv": "neuroae.nn.convolutions",
    "neuroae.variants": "neuroae.nn.variants",
    "neuroae.winograd": "neuroae.nn.convolutions",
    "neuroae.attacks.prediction": "neuroae.attacks.losses",
    "neuroae.attacks.realizations": "neuroae.attacks.protocol",
    "neuroae.evaluation.sanity": "neuroae.evaluation.checks",
}


class RenamedModules(MetaPathFinder, Loader):
    """Finds the old names in ``RENAMED``, and imports the module with the new name."""

    def find_spec(self, fullname: str, *_: Any) -> ModuleSpec | None:
        return ModuleSpec(fullname, self) if fullname in RENAMED else None

    def exec_module(self, module: ModuleType) -> None:
        old, new = module.__name__, RENAMED[module.__name__]
        warnings.warn(f"{old} is now {new}; the old name will be removed", DeprecationWarning, stacklevel=2)
        # An import returns the entry of sys.modules after the module has run.
        sys.modules[old] = importlib.import_module(new)


def install() -> None:
    """Makes the old names importable. Further calls do nothing."""
    if not any(isinstance(finder, RenamedModules) for finder in sys.meta_path):
        sys.meta_path.insert(0, RenamedModules())
