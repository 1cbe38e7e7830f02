"""The layout of the sources: which folder may import which.

Imports inside functions and those for types alone count as well.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# A folder may import from itself and from those before it.
ORDER = (
    "kernels",
    "utils",
    "nn",
    "data",
    "dictionary",
    "models",
    "attacks",
    "training",
    "evaluation",
    "reports",
    "cli",
)
# from_pretrained and save_pretrained are methods of models, which look up how models are kept when they are called.
LATE = {("neuroae.nn.pretrained_model", "neuroae.models")}


def modules() -> dict[str, Path]:
    """Returns every module of the package by its name; kernels/ is neuroae.kernels."""
    modules = {}
    for folder, prefix in ((ROOT / "neuroae", ("neuroae",)), (ROOT / "kernels", ("neuroae", "kernels"))):
        for path in folder.rglob("*.py"):
            parts = path.relative_to(folder).with_suffix("").parts
            if folder.name == "kernels" or parts[0] != "kernels":
                modules[".".join((*prefix, *parts)).removesuffix(".__init__")] = path
    return modules


MODULES = modules()


def imports(name: str) -> Iterator[str]:
    """Yields the names of the package's modules that a module imports."""
    path = MODULES[name]
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in MODULES)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package.split(".")[: len(package.split(".")) - node.level + 1]) if node.level else ""
            target = ".".join(filter(None, (base, node.module)))
            if target in MODULES:
                inner = [f"{target}.{alias.name}" for alias in node.names]
                yield from (each if each in MODULES and is_module(target, each) else target for each in inner)


def is_module(package: str, name: str) -> bool:
    """Returns whether this name of the package is a module, and not a function of the same name."""
    tree = ast.parse(MODULES[package].read_text(encoding="utf-8"))
    exported = (
        alias.name for node in tree.body if isinstance(node, ast.ImportFrom) and node.module for alias in node.names
    )
    return name.rpartition(".")[2] not in exported


def folder(name: str) -> str:
    return [*name.split("."), ""][1]


GRAPH = {name: set(imports(name)) - {name} for name in MODULES}


def test_nothing_else_stands_at_the_root() -> None:
    files = {path.name for path in (ROOT / "neuroae").iterdir() if path.is_file()}
    assert files == {"__init__.py", "__main__.py", "py.typed"}


@pytest.mark.parametrize("name", sorted(name for name in MODULES if folder(name) in ORDER))
def test_no_import_goes_upwards(name: str) -> None:
    place = ORDER.index(folder(name))
    upwards = {
        target
        for target in GRAPH[name]
        if (folder(target) not in ORDER or ORDER.index(folder(target)) > place) and (name, target) not in LATE
    }
    assert not upwards, (
        f"{name} imports {', '.join(sorted(upwards))}; {folder(name)}/ may use {', '.join(ORDER[:place])}"
    )


def test_attacks_do_not_know_our_layers() -> None:
    """Attacks use only what a model offers by the protocol (``attacks/protocol.py``)."""
    ours = {name: [target for target in GRAPH[name] if folder(target) in ("nn", "models")] for name in GRAPH}
    assert not {name: targets for name, targets in ours.items() if folder(name) == "attacks" and targets}


def test_no_import_goes_in_a_circle() -> None:
    """A package's ``__init__`` only re-exports names of its modules, and is left out."""
    visited: set[str] = set()

    def follow(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, f"a circle: {' imports '.join((*path[path.index(name) :], name))}"
        if name in visited:
            return
        for target in sorted(GRAPH[name]):
            if (name, target) not in LATE:
                follow(target, (*path, name))
        visited.add(name)

    for name in sorted(GRAPH):
        follow(name, ())
