"""The folder that results go to: a new one, an empty one, or that of an earlier result that is to be replaced."""

import os
import shutil

from path import Path

from files.errors import InputError
from files.text import read_json
from inference.frames import MARKER


def check_folder(folder: Path, inputs: list[Path], replace: bool) -> list[str]:
    """Check that the folder of results can be taken. Nothing is changed.

    Args:
        inputs: must not lie in what is removed.
        replace: whether the clips of an earlier result may be removed.

    Returns:
        The names of what an earlier result has left in the folder.

    Raises:
        InputError: it is a file, holds something else, or an earlier result that is not to be replaced.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"--out {folder}: is a file, expected a folder")
    there = sorted(os.listdir(folder)) if folder.is_dir() else []
    if not there:
        return []
    if MARKER not in there:
        raise InputError(f"--out {folder}: holds {there[0]}, expected a new or empty folder")
    if not replace:
        raise InputError(f"--out {folder}: holds an earlier result; --replace removes it, or choose another folder")
    report = read_json(folder / MARKER)
    planned, finished = report.get("planned"), report.get("clips")  # the clips, also of a result that was stopped
    names = [*(planned if isinstance(planned, list) else []), *(finished if isinstance(finished, dict) else [])]
    others = [name for name in there if name != MARKER and name not in names]
    if others:
        raise InputError(f"--out {folder}: holds {others[0]}, which predict.py did not write; choose another folder")
    for path in inputs:
        if path.realpath().startswith(str(folder.realpath()) + os.sep):
            raise InputError(f"--out {folder} --replace: the input {path} lies in it; choose another folder")
    return there


def claim_folder(folder: Path, inputs: list[Path], replace: bool) -> None:
    """Make the folder of results, and remove an earlier result in it. Arguments and errors are `check_folder`'s."""
    there = check_folder(folder, inputs, replace)
    for name in there:
        if (folder / name).is_dir() and not (folder / name).islink():
            shutil.rmtree(folder / name)
    if there:
        os.unlink(folder / MARKER)  # last: until then the folder is known as a result
    folder.makedirs_p()
