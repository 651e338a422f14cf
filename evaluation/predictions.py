"""Files of predictions: written whole, read without running code."""

import json
import os
import re
import zipfile
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import numpy as np
from path import Path

from files.atomic import atomic_write
from files.errors import InputError
from files.untrusted import parse_json, read_npz

# The beginnings of earlier outputs by flag. A run's config.json, another table or a photograph is of another kind.
_BEGINNINGS = {
    "--json": re.compile(rb'\{\s*"(protocols?|results)":'),
    "--csv": re.compile(rb"(protocol,index,image|image),"),
    "--pictures": re.compile(rb"\x89PNG.{,200}Matplotlib", re.DOTALL),  # not a camera's image
}


def default_file(checkpoint: Path, kind: str) -> Path:
    """Where predictions are saved unless told otherwise: beside the checkpoint, `best.pt` -> `best_depth.npz`."""
    return checkpoint.parent / f"{checkpoint.name.split('.')[0]}_{kind}.npz"


def check_writable(file: Path, flag: str) -> None:
    """InputError if `file` cannot be written: better known before an hour's work than after it."""
    folder = file.absolute().parent
    if not folder.is_dir():
        raise InputError(f"{flag} {file}: no such folder {folder}")
    if not os.access(folder, os.W_OK):
        raise InputError(f"{folder}: no permission to write there; choose another place with {flag} FILE")
    if file.is_dir():
        raise InputError(f"{flag} {file}: is a folder, expected a file's name")


def check_outputs(outputs: dict[str, Path | None], inputs: Iterable[Path | None]) -> None:
    """Refuse outputs that would destroy something, before work begins.

    Args:
        outputs: files to write, by flag; None for flags that were not given.
        inputs: files that are read.

    Raises:
        InputError: an output cannot be written, is an input or another output, or is a file of another kind.
    """
    read = {file.realpath() for file in inputs if file is not None}
    written: dict[Path, str] = {}
    for flag, file in outputs.items():
        if file is None:
            continue
        check_writable(file, flag)
        place = file.realpath()
        if place in read:
            raise InputError(f"{flag} {file}: is an input of this command, expected another file to write")
        if place in written:
            raise InputError(f"{flag} {file}: {written[place]} writes the same file, expected another one")
        written[place] = flag
        if file.is_file() and file.size and not _is_of_kind(file, flag):
            raise InputError(
                f"{flag} {file}: there is a file of another kind, which would be lost; expected a new name"
            )


def _is_of_kind(file: Path, flag: str) -> bool:
    """Whether an existing file looks like an earlier output of the flag."""
    if flag == "--save":
        with suppress(zipfile.BadZipFile, NotImplementedError, OSError), zipfile.ZipFile(file) as archive:
            return "about.npy" in archive.namelist()
        return False
    with open(file, "rb") as stream:
        beginning = stream.read(4096)
    return flag not in _BEGINNINGS or _BEGINNINGS[flag].match(beginning) is not None


def save_predictions(file: Path, kind: str, arrays: dict[str, np.ndarray], about: dict[str, Any]) -> None:
    """Write predictions as `.npz`: whole under their name, or not at all.

    Args:
        kind: what they are ("depth", "snippets"); `load_predictions` expects the same.
        arrays: by name; no Python objects.
        about: how they were made, as JSON.
    """
    content: dict[str, Any] = {"about": np.array(json.dumps({"kind": kind} | about)), **arrays}
    with atomic_write(file) as stream:
        np.savez(stream, **content)


def load_predictions(file: Path, kind: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """What `save_predictions` wrote: (arrays, about); InputError if the file is missing, damaged or something else.

    No code from the file runs, and no memory is taken for a size that only a damaged header claims.
    """
    file = Path(file)
    if not file.is_file():
        raise InputError(f"{file}: no such file")
    try:
        arrays = read_npz(file)
        about = parse_json(str(arrays.pop("about")))
        found = about["kind"]
    except Exception as error:  # zip, zlib, numpy and json each fail in their own ways on damage
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{file}: not a whole file of predictions ({reason:.200})") from None
    if found != kind:
        raise InputError(f"{file}: holds predictions of kind {found!r:.60}, expected {kind!r}")
    return arrays, about


def load_depth(file: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Predicted depth [h, w] by image name, and how it was made; InputError unless the file holds that."""
    arrays, about = load_predictions(file, "depth")
    return depth_by_name(arrays, file), about


def depth_by_name(arrays: dict[str, np.ndarray], file: Path) -> dict[str, np.ndarray]:
    """The depth [h, w] of each image, from the arrays of a file of predictions of depth; InputError if they aren't."""
    files, depth = arrays.get("files"), arrays.get("depth")
    if files is None or depth is None or files.dtype.kind != "U" or files.ndim != 1:
        raise InputError(f"{file}: expected arrays 'files' (names) and 'depth', found {', '.join(sorted(arrays))}")
    if depth.ndim != 3 or depth.dtype.kind != "f" or len(depth) != len(files) or 0 in depth.shape:
        raise InputError(f"{file}: depth is {depth.dtype} {[*depth.shape]}, expected [{len(files)}, height, width]")
    if depth.dtype == np.float16:  # its reciprocals and errors would overflow
        depth = depth.astype(np.float32)
    return dict(zip(files.tolist(), depth, strict=True))
