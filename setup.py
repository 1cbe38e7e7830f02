"""Builds the C++ library with CMake and maps kernels/ to neuroae.kernels; everything else is in pyproject.toml.

An installation does not fail if the library cannot be built. One line in build-error.txt, in the library's place, says
why. The package reports it on first use and runs on its reference backend.
"""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from setuptools import Command, Distribution, find_packages, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build import build

ROOT = Path(__file__).parent.resolve()
LIBRARY = "libneuroae_cpu.so"
BUILD_ERROR = "build-error.txt"


class LibraryBuildError(Exception):
    """The library could not be built; the message is one line."""


class BuildLibrary(Command):
    """Writes the library, or the reason why there is none, into the built package."""

    description = "build the C++ library"
    user_options = [("build-lib=", "b", "directory of the built package")]  # noqa: RUF012 (setuptools declares it so)

    def initialize_options(self) -> None:
        self.editable_mode = False
        self.build_lib: str | None = None

    def finalize_options(self) -> None:
        self.set_undefined_options("build", ("build_lib", "build_lib"))

    def run(self) -> None:
        folder = self.folder()
        folder.mkdir(parents=True, exist_ok=True)
        try:
            content, name, obsolete = build_library(), LIBRARY, BUILD_ERROR
        except (LibraryBuildError, OSError) as error:
            self.warn(str(error))
            content, name, obsolete = f"{error}\n".encode(), BUILD_ERROR, LIBRARY
        replace(folder / name, content)
        (folder / obsolete).unlink(missing_ok=True)

    def folder(self) -> Path:
        return ROOT / "kernels/cpu" if self.editable_mode else Path(self.build_lib or "", "neuroae/kernels/cpu")

    def get_source_files(self) -> list[str]:
        return ["CMakeLists.txt", *map(str, Path("kernels/cpu/src").glob("*"))]

    def get_outputs(self) -> list[str]:
        return [str(self.folder() / name) for name in (LIBRARY, BUILD_ERROR) if (self.folder() / name).exists()]

    def get_output_mapping(self) -> dict[str, str]:
        return {}


def build_library() -> bytes:
    """Returns the content of the shared library.

    Raises:
        LibraryBuildError: It could not be built.
    """
    if os.environ.get("NEUROAE_SKIP_CPP") == "1":
        raise LibraryBuildError("the C++ library was left out of the build by NEUROAE_SKIP_CPP=1")
    try:
        import cmake
        import ninja
    except ImportError as error:
        raise LibraryBuildError(f"building the C++ library needs the package {error.name}") from error
    program = str(Path(cmake.CMAKE_BIN_DIR, "cmake"))
    build_program = Path(ninja.BIN_DIR, "ninja")
    with tempfile.TemporaryDirectory() as folder:
        configure = [program, "-S", str(ROOT), "-B", folder, "-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={build_program}"]
        for command in (configure, [program, "--build", folder]):
            run(command)
        return Path(folder, LIBRARY).read_bytes()


def run(command: list[str]) -> None:
    """Runs a command and shows its output.

    Raises:
        LibraryBuildError: It failed.
    """
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    sys.stderr.write(result.stdout)
    if result.returncode != 0:
        raise LibraryBuildError(reason(result.stdout))


def reason(log: str) -> str:
    """Returns in one line why a configuration or compilation failed, from its output."""
    if "CMAKE_CXX_COMPILER" in log:
        return "no working C++ compiler was found when the package was built"
    error = re.search(r"CMake Error.*\n.+|.*\berror: .+", log)
    return f"the C++ library did not build: {' '.join(error[0].split()) if error else 'pip install -v shows why'}"


def replace(path: Path, content: bytes) -> None:
    """Writes a file in one step, so that a process that has the old library mapped keeps the old one."""
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
        file.write(content)
    os.chmod(file.name, 0o755 if path.suffix == ".so" else 0o644)
    os.replace(file.name, path)


class BuildWithLibrary(build):
    sub_commands = [*build.sub_commands, ("build_library", None)]  # noqa: RUF012 (setuptools declares it so)


class PlatformWheel(bdist_wheel):
    """A wheel for one platform and every Python version, since the library is loaded through a C ABI."""

    def get_tag(self) -> tuple[str, str, str]:
        return "py3", "none", super().get_tag()[2]


class PlatformDistribution(Distribution):
    def has_ext_modules(self) -> bool:
        return True


def packages() -> list[str]:
    """Returns the names of all packages, those in kernels/ as parts of neuroae.kernels."""
    kernels = ["neuroae.kernels", *(f"neuroae.kernels.{name}" for name in find_packages("kernels"))]
    return ["neuroae", *(f"neuroae.{name}" for name in find_packages("neuroae", exclude=["kernels*"])), *kernels]


setup(
    packages=packages(),
    package_dir={"neuroae": "neuroae", "neuroae.kernels": "kernels"},
    distclass=PlatformDistribution,
    cmdclass={"build": BuildWithLibrary, "build_library": BuildLibrary, "bdist_wheel": PlatformWheel},
)
