"""Frames that are stored more than once.

A video of variable frame rate gives copies when it is written at a constant rate, and a folder may hold every frame as
JPEG and as PNG. The frames of a standing camera differ at least by noise; copies are equal in every pixel.
"""

import filecmp
import os
from collections.abc import Sequence

import numpy as np
from path import Path

from files.errors import InputError
from files.images import read_image


def find_repeated_frames(frames: Sequence[Path]) -> list[int]:
    """Numbers (from 1) of the frames that repeat the frame before them: equal in every pixel, or of the same name.

    Only files of equal size are compared, which costs no more than their sizes where there are no copies. So a copy
    that was encoded again under another name is not found.

    Args:
        frames: images of one scene in order of time.
    """
    sizes = [_size(frame) for frame in frames]
    return [
        number
        for number in range(1, len(frames))
        if have_one_name(frames[number - 1], frames[number])
        or (sizes[number] and sizes[number] == sizes[number - 1] and _are_equal(frames[number - 1], frames[number]))
    ]


def have_one_name(first: Path, second: Path) -> bool:
    """Whether two frames differ only in their suffix, as 0000000.jpg and 0000000.png do."""
    return first.stem == second.stem


def _size(file: Path) -> int:
    """Bytes of a file; 0 where it cannot be opened."""
    try:
        return os.stat(file).st_size
    except OSError:
        return 0


def _are_equal(first: Path, second: Path) -> bool:
    """Whether two images of one size in bytes are equal in every pixel; a file that cannot be read equals no other."""
    try:
        if filecmp.cmp(first, second, shallow=False):
            return True
        return np.array_equal(read_image(first), read_image(second))
    except (InputError, OSError):
        return False
