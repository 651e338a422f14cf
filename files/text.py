"""Reading text files of numbers and names. Errors name the file and the line."""

import math
from typing import Any

import numpy as np
from path import Path

from files.errors import InputError
from files.untrusted import parse_json, read_bounded

_LARGEST_NUMBER = 1e20  # no calibration, pose or time is larger, and products of larger numbers overflow
_LARGEST_FILE = 256 * 2**20  # bytes; KITTI's longest list or trajectory has a thousandth of that


def printable(text: str) -> str:
    """The text with the bytes of file names that are no UTF-8 as escapes, for what takes UTF-8 alone."""
    return text.encode("utf-8", "backslashreplace").decode()


def read_lines(file: Path) -> list[str]:
    """The lines of a UTF-8 text file, without line ends; InputError if it is missing, a folder, binary or huge."""
    return _read_text(file).splitlines()


def _read_text(file: Path) -> str:
    if Path(file).is_dir():
        raise InputError(f"{file}: is a folder, expected a text file")
    try:
        return read_bounded(file, _LARGEST_FILE, "a text file").decode("utf-8-sig")  # some editors write a mark first
    except UnicodeDecodeError as error:
        raise InputError(f"{file}: byte {error.start} is not UTF-8 text") from None


def read_json(file: Path) -> dict[str, Any]:
    """The object in a JSON file; InputError if it is missing, damaged, huge, or anything but an object."""
    text = _read_text(file)
    try:
        content = parse_json(text, allow_nan=True)  # of other people's files, in a value that is not needed perhaps
    except ValueError as error:
        raise InputError(f"{file}: not readable as JSON ({error})") from None
    if not isinstance(content, dict):
        raise InputError(f"{file}: holds a {type(content).__name__}, expected a JSON object")
    return content


def parse_numbers(text: str, count: int, where: str) -> list[float]:
    """The `count` finite numbers of one line. InputError for any other line; `where` (file and line) begins it."""
    words = text.split()
    if len(words) != count:
        raise InputError(f"{where}: got {len(words)} numbers, expected {count}")
    numbers = []
    for word in words:
        try:
            numbers.append(float(word) if "_" not in word else float("no digit"))  # Python's 1_000 is no file's number
        except ValueError:
            raise InputError(f"{where}: could not convert string to float: {word[:40]!r}") from None
    if not all(map(math.isfinite, numbers)):
        raise InputError(f"{where}: got a number that is not finite")
    return numbers


def parse_bounded(text: str, count: int, where: str) -> list[float]:
    """Like `parse_numbers`, and InputError for a number so large that products of such numbers overflow."""
    numbers = parse_numbers(text, count, where)
    if max(map(abs, numbers), default=0) > _LARGEST_NUMBER:
        raise InputError(f"{where}: got {max(numbers, key=abs):g}, expected no number beyond {_LARGEST_NUMBER:g}")
    return numbers


def read_rows(file: Path, columns: int) -> np.ndarray:
    """A table of finite numbers with one row per line: float64 [n, columns]. Blank lines at the end are allowed."""
    lines = read_lines(file)
    while lines and not lines[-1].strip():
        lines.pop()
    rows = [parse_bounded(line, columns, f"{file}, line {number}") for number, line in enumerate(lines, 1)]
    return np.array(rows, dtype=np.float64).reshape(-1, columns)


def read_names(file: Path) -> list[str]:
    """The names in a list, one per line. Blank lines and lines that begin with # are skipped.

    Raises:
        InputError: a name that leads out of its folder (an absolute path, or one with `..`).
    """
    names = []
    for number, line in enumerate(read_lines(file), 1):
        name = line.strip()
        if not name or name.startswith("#"):
            continue
        if name.startswith(("/", "\\")) or ".." in name.replace("\\", "/").split("/") or "\0" in name:
            raise InputError(f"{file}, line {number}: {name!r:.100} leads out of its folder")
        names.append(name)
    return names
