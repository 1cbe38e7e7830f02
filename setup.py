"""Builds the C++ backend with CMake and maps kernels/ to neuroae.kernels; everything else is in pyproject.toml.

The package installs even if the C++ backend does not build. Then build-error.txt gets the reason, in one line, in the
place of the library; the package reports it on first use and runs on its reference backend.
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


class CppBuildError(Exception):
    """The C++ backend could not be built; the message is one line."""


class BuildCpp(Command):
    description = "build the C++ backend"
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
            content, written, other = build_library(), LIBRARY, BUILD_ERROR
        except (CppBuildError, OSError) as error:
            self.warn(str(error))
            content, written, other = f"{error}\n".encode(), BUILD_ERROR, LIBRARY
        replace(folder / written, content)
        (folder / other).unlink(missing_ok=True)

    def folder(self) -> Path:
        return ROOT / "kernels/cpu" if self.editable_mode else Path(self.build_lib or "", "neuroae/kernels/cpu")

    def get_source_files(self) -> list[str]:
        return ["CMakeLists.txt", *map(str, Path("kernels/cpu/src").glob("*"))]

    def get_outputs(self) -> list[str]:
        return [str(self.folder() / name) for name in (LIBRARY, BUILD_ERROR) if (self.folder() / name).exists()]

    def get_output_mapping(self) -> dict[str, str]:
        return {}


def build_library() -> bytes:
    """The shared library's content."""
    if os.environ.get("NEUROAE_SKIP_CPP") == "1":
        raise CppBuildError("the C++ backend was left out of the build by NEUROAE_SKIP_CPP=1")
    try:
        import cmake
        import ninja
    except ImportError as error:
        raise CppBuildError(f"building the C++ backend needs the package {error.name}") from error
    program = str(Path(cmake.CMAKE_BIN_DIR, "cmake"))
    maker = Path(ninja.BIN_DIR, "ninja")
    with tempfile.TemporaryDirectory() as folder:
        configure = [program, "-S", str(ROOT), "-B", folder, "-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={maker}"]
        for command in (configure, [program, "--build", folder]):
            run(command)
        return Path(folder, LIBRARY).read_bytes()


def run(command: list[str]) -> None:
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    sys.stderr.write(result.stdout)
    if result.returncode != 0:
        raise CppBuildError(reason(result.stdout))


def reason(log: str) -> str:
    """What went wrong, in one line, from the output of a failed configuration or compilation."""
    if "CMAKE_CXX_COMPILER" in log:
        return "no working C++ compiler was found when the package was built"
    error = re.search(r"CMake Error.*\n.+|.*\berror: .+", log)
    return f"the C++ backend did not build: {' '.join(error[0].split()) if error else 'pip install -v shows why'}"


def replace(path: Path, content: bytes) -> None:
    """Writes a file in one step: a process that has the old library mapped keeps the old one."""
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
        file.write(content)
    os.chmod(file.name, 0o755 if path.suffix == ".so" else 0o644)
    os.replace(file.name, path)


class BuildWithCpp(build):
    sub_commands = [*build.sub_commands, ("build_cpp", None)]  # noqa: RUF012 (setuptools declares it so)


class PlatformWheel(bdist_wheel):
    """The library is loaded through a C ABI: one wheel a platform, for every Python."""

    def get_tag(self) -> tuple[str, str, str]:
        return "py3", "none", super().get_tag()[2]


class PlatformDistribution(Distribution):
    def has_ext_modules(self) -> bool:
        return True


def packages() -> list[str]:
    kernels = ["neuroae.kernels", *(f"neuroae.kernels.{name}" for name in find_packages("kernels"))]
    return ["neuroae", *(f"neuroae.{name}" for name in find_packages("neuroae", exclude=["kernels*"])), *kernels]


setup(
    packages=packages(),
    package_dir={"neuroae": "neuroae", "neuroae.kernels": "kernels"},
    distclass=PlatformDistribution,
    cmdclass={"build": BuildWithCpp, "build_cpp": BuildCpp, "bdist_wheel": PlatformWheel},
)
