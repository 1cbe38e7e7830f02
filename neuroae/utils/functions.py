"""The user's own functions, named "module:function" on the command line: models, data sets and attacks."""

import importlib
import inspect
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def is_function(name: str) -> bool:
    """Returns whether a name is "module:function". Names of folders may contain colons too."""
    return ":" in name and not Path(name).exists()


def load_function(name: str, *arguments: str) -> Callable[..., Any]:
    """Returns a user's function. Modules in the current folder can be imported too.

    Args:
        name: "module:function".
        arguments: The names of the arguments that it will be called with, in their order.

    Raises:
        ImportError: There is no such module.
        ValueError: The module has no such function, or it takes other arguments.
    """
    module, _, attribute = name.partition(":")
    with current_folder_first():
        try:
            function = getattr(importlib.import_module(module), attribute, None)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{module}.".startswith(f"{error.name}."):
                raise
            raise ImportError(f"there is no module {module!r} in {os.getcwd()} or among those installed") from error
    if not callable(function):
        raise ValueError(f"module {module} has no function {attribute!r}")
    parameters = inspect.signature(function).parameters.values()
    required = [
        parameter.name
        for parameter in parameters
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]
    try:
        inspect.signature(function).bind(*arguments)
    except TypeError as error:
        expected = f"a function of {', '.join(arguments)}" if arguments else "a function without arguments"
        raise ValueError(f"{name} takes {', '.join(required) or 'no arguments'}, expected {expected}") from error
    return function


@contextmanager
def current_folder_first() -> Iterator[None]:
    """Lets Python import modules of the current folder within the block."""
    folder = os.getcwd()
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)
