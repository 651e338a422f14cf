"""What a command writes, checked before its work begins: no file is lost that no such command has written."""

import os
import re
import zipfile
from collections.abc import Iterable
from contextlib import suppress

from path import Path

from files.errors import InputError

KIND_OF_FLAG = {
    "--save": "predictions",
    "--json": "json",
    "--csv": "csv",
    "--pictures": "picture",
    "weights": "weights",
}
# The beginnings of earlier outputs. A run's config.json, another table or a photograph is of another kind.
_BEGINNINGS = {
    "json": re.compile(rb'\{\s*"(protocols?|results|refused)":'),
    "csv": re.compile(rb"(protocol,index,image|image),"),
    "picture": re.compile(rb"\x89PNG.{,200}Matplotlib", re.DOTALL),  # not a camera's image
    "weights": re.compile(rb'.{8}\{"__metadata__":\{"(about":|format":"sfmlearner")', re.DOTALL),
}
_COLUMNS = (12, 8)  # numbers in a line of a trajectory, in KITTI's and in TUM's form


def check_outputs(outputs: dict[str, Path | None], inputs: Iterable[Path | None]) -> None:
    """Refuse outputs that would destroy something, before work begins.

    Args:
        outputs: files to write, by flag; None for flags that were not given. The flag tells the file's kind.
        inputs: files that are read.

    Raises:
        InputError: as `check_output` has it; or two outputs are one file.
    """
    inputs = [*inputs]
    written: dict[str, Path] = {}
    for flag, file in outputs.items():
        if file is None:
            continue
        check_output(flag, file, KIND_OF_FLAG.get(flag, ""), inputs)
        for other_flag, other in written.items():
            if _is_same(file, other):
                raise InputError(f"{flag} {file}: {other_flag} writes the same file, expected another one")
        written[flag] = file


def check_output(flag: str, file: Path, kind: str, inputs: Iterable[Path | None]) -> None:
    """Refuse a file to write that would destroy something.

    Args:
        flag: the flag that names the file, for the error.
        kind: "predictions", "trajectory", "json", "csv", "picture" or "weights"; "" for any file.
        inputs: files that are read.

    Raises:
        InputError: the file cannot be written, is an input under whatever name (a link, too), or is there already and
            of another kind.
    """
    check_writable(file, flag)
    if any(one is not None and _is_same(file, one) for one in inputs):
        raise InputError(f"{flag} {file}: is an input of this command, expected another file to write")
    if kind and file.is_file() and file.size and not _is_of_kind(file, kind):
        raise InputError(f"{flag} {file}: there is a file of another kind, which would be lost; expected a new name")


def check_writable(file: Path, flag: str) -> None:
    """InputError if `file` cannot be written: better known before an hour's work than after it."""
    folder = file.absolute().parent
    if not folder.is_dir():
        raise InputError(f"{flag} {file}: no such folder {folder}")
    if not os.access(folder, os.W_OK):
        raise InputError(f"{folder}: no permission to write there; choose another place with {flag} FILE")
    if file.is_dir():
        raise InputError(f"{flag} {file}: is a folder, expected a file's name")
    if _is_device(folder) or (file.exists() and not file.is_file()):  # opening a pipe waits for its reader
        raise InputError(f"{flag} {file}: is a pipe or a device, expected the name of a file")


def _is_device(folder: Path) -> bool:
    """Whether a folder holds devices: a file that replaced /dev/stdout, a link, would take it from all programs."""
    place = os.path.join(folder.realpath(), "")
    return place.startswith(("/dev/", "/proc/", "/sys/")) and not place.startswith("/dev/shm/")


def _is_same(file: Path, other: Path) -> bool:
    """Whether two names are one file: equal, through links, or hard links to it. They need not exist."""
    with suppress(OSError):
        return os.path.samefile(file, other)
    return file.realpath() == other.realpath()


def _is_of_kind(file: Path, kind: str) -> bool:
    """Whether an existing file looks like an earlier output of its kind."""
    if kind == "predictions":
        with suppress(zipfile.BadZipFile, NotImplementedError, OSError), zipfile.ZipFile(file) as archive:
            return "about.npy" in archive.namelist()
        return False
    with open(file, "rb") as stream:
        beginning = stream.read(4096)
    if kind == "trajectory":
        return _is_trajectory(beginning)
    return _BEGINNINGS[kind].match(beginning) is not None


def _is_trajectory(beginning: bytes) -> bool:
    """Whether text begins as trajectories are written here: full rows of numbers in Python's shortest form.

    KITTI's ground truth (1.000000e+00) and the files of ORB-SLAM and evo have other forms of numbers.
    """
    try:
        words = beginning.split(b"\n")[0].decode("ascii").split(" ")
        return len(words) in _COLUMNS and all(repr(float(word)) == word for word in words)
    except ValueError:
        return False
