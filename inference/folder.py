"""The folder that results go to: a new one, an empty one, or that of an earlier result that is to be replaced."""

import os
import shutil

from path import Path

from files.errors import InputError
from files.text import read_json
from inference.frames import MARKER


def claim_folder(folder: Path, clips: list[str], inputs: list[Path], replace: bool) -> None:
    """Make the folder of results.

    Args:
        clips: names of the clips, whose folders are to be made in it.
        inputs: must not lie in what is removed.
        replace: remove the clips of an earlier result.

    Raises:
        InputError: it is a file, holds something else, or an earlier result that is not to be replaced.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"--out {folder}: is a file, expected a folder")
    if not folder.is_dir():
        folder.makedirs()
        return
    there = sorted(os.listdir(folder))
    if not there:
        return
    if MARKER not in there:
        raise InputError(f"--out {folder}: holds {there[0]}, expected a new or empty folder")
    if not replace:
        raise InputError(f"--out {folder}: holds an earlier result; --replace removes it, or choose another folder")
    earlier = read_json(folder / MARKER).get("clips")
    names = {name for name in earlier if os.path.basename(name) == name} if isinstance(earlier, dict) else set()
    names |= set(clips)  # of a result that was stopped
    others = [name for name in there if name != MARKER and name not in names]
    if others:
        raise InputError(f"--out {folder}: holds {others[0]}, which predict.py did not write; choose another folder")
    for path in inputs:
        if path.realpath().startswith(str(folder.realpath()) + os.sep):
            raise InputError(f"--out {folder} --replace: the input {path} lies in it; choose another folder")
    for name in names & set(there):
        if (folder / name).is_dir() and not (folder / name).islink():
            shutil.rmtree(folder / name)
    os.unlink(folder / MARKER)
