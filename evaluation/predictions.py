"""Files of predictions: written whole, read without running code."""

import json
from collections import Counter
from typing import Any

import numpy as np
from path import Path

from files.atomic import atomic_write
from files.errors import InputError
from files.untrusted import parse_json, read_npz


def default_file(checkpoint: Path, kind: str) -> Path:
    """Where predictions are saved unless told otherwise: beside the checkpoint, `best.pt` -> `best_depth.npz`."""
    return checkpoint.parent / f"{checkpoint.name.split('.')[0]}_{kind}.npz"


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
        raise InputError(f"{file}: expected arrays 'files' (names) and 'depth', found {', '.join(sorted(arrays)):.200}")
    if depth.ndim != 3 or depth.dtype.kind != "f" or len(depth) != len(files) or 0 in depth.shape:
        raise InputError(f"{file}: depth is {depth.dtype} {[*depth.shape]}, expected [{len(files)}, height, width]")
    if depth.dtype == np.float16:  # its reciprocals and errors would overflow
        depth = depth.astype(np.float32)
    names = files.tolist()
    if len(set(names)) < len(names):
        twice = next(name for name, count in Counter(names).items() if count > 1)
        raise InputError(f"{file}: 'files' names {twice:.100} twice, expected one prediction of each image")
    return dict(zip(names, depth, strict=True))
