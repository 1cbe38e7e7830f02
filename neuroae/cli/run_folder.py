"""The folder of ``neuroae train``: of one command from its first moment on, and of no other after it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .. import processes
from ..pretrained import CARD, CONFIG, WEIGHTS
from ..reports.curves import PICTURE, TABLE
from ..storage import claimed, load_json, load_tensors, remove_leftovers, require_empty, require_same, save_json
from ..versions import note_versions, versions

RUN = "run.json"
DICTIONARY = "dictionary.safetensors"
CHECKPOINTS = "checkpoint-*.safetensors"
ASKED = ("method", "dataset", "images", "fingerprint", "preset", "training", "init", "dictionary")


@contextmanager
def taken(folder: Path, asked: dict[str, Any]) -> Iterator[None]:
    """Keeps other commands out while the block is at work, and writes down what was asked, for all that come later.

    Args:
        folder: of the training, made if missing.
        asked: what makes two trainings the same. Without "dictionary" the atoms are still to be learned, and follow
            from the rest.

    Raises:
        BlockingIOError: another command is at work there.
        ValueError: the folder belongs to another training, or to none.
    """
    if not processes.is_first():
        yield
        return
    refuse_foreign(folder)
    with claimed(folder):
        for name in (RUN, DICTIONARY, WEIGHTS, CONFIG, CARD, TABLE, PICTURE):
            remove_leftovers(folder / name)
        checkpoints = sorted(folder.glob(CHECKPOINTS))
        if (folder / RUN).exists():
            require_asked(folder, asked)
            note_versions(folder / RUN, load_run(folder))
        else:
            # Folders of earlier versions say only in their checkpoints whose they are.
            for checkpoint in checkpoints:
                require_settings(checkpoint, load_tensors(checkpoint)[1].get("identity"), asked)
            begun = [{"neuroae": "unknown, the training was begun by an earlier version"}] if checkpoints else []
            save_json(folder / RUN, {"asked": asked, "versions": [*begun, versions()]})
        yield


def refuse_foreign(folder: Path) -> None:
    """Refuses a folder with files that a training would replace, and without any that says that they are a training's.

    Raises:
        ValueError: there is such a file.
    """
    if not (folder / RUN).exists() and not any(folder.glob(CHECKPOINTS)):
        require_empty(folder / RUN, [folder / name for name in (CARD, WEIGHTS, TABLE, PICTURE)])


def require_asked(folder: Path, asked: dict[str, Any]) -> None:
    """Refuses a folder that another training was asked for.

    Raises:
        ValueError: they differ; the message says where.
    """
    require_same(folder / RUN, load_run(folder)["asked"], asked)


def require_settings(path: Path, found: Any, asked: dict[str, Any]) -> None:
    """The same for a file that knows the atoms in any case, whether they were given or learned.

    Args:
        path: of the file.
        found: what it says that was asked, among other things.
        asked: see ``taken``.
    """
    if not isinstance(found, dict):
        raise ValueError(f"{path} does not say which training it belongs to")
    compared = [name for name in ASKED if name in asked or name != "dictionary"]
    require_same(path, {name: found.get(name) for name in compared}, asked)


def load_run(folder: Path) -> dict[str, Any]:
    run = load_json(folder / RUN)
    fits = isinstance(run, dict) and isinstance(run.get("asked"), dict) and isinstance(run.get("versions"), list)
    if not fits or not run["versions"] or not all(isinstance(each, dict) for each in run["versions"]):
        raise ValueError(f"{folder / RUN} is not what `neuroae train` writes")
    return run
