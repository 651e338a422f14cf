"""The camera of a clip: K from a flag, the checkpoint, the prepared scene, or a guess that is named as such."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from path import Path

from datasets.layout import check_intrinsics_fit
from files.errors import InputError
from geometry.camera import scale_intrinsics
from inference.frames import Clip, read_camera_file
from models.checkpoint import LoadedModel
from models.sfm_learner import GivenCamera

GUESSED_FOV = 70.0  # degrees, horizontal: dash cams and phones held across have 60 to 80


@dataclass(frozen=True)
class GivenByFlag:
    """What the command line says about the camera; at most one of the three."""

    fov: float | None = None  # degrees, horizontal
    focal: float | None = None  # pixels of the input
    file: Path | None = None  # 3 x 3, as cam.txt


def choose_intrinsics(clip: Clip, given: GivenByFlag, loaded: LoadedModel) -> tuple[np.ndarray, str]:
    """K of a clip in pixels of its frames, float64 [3, 3], and where it is from.

    The first that there is: a flag, the camera that the checkpoint has learned, the scene's cam.txt, a guess.

    Raises:
        InputError: a camera file of another image size.
    """
    height, width = clip.size
    if given.file is not None:
        intrinsics = read_camera_file(given.file)
        check_intrinsics_fit(intrinsics, height, width, given.file)
        return intrinsics, str(given.file)
    if given.focal is not None:
        return centred(given.focal, height, width), f"--focal {given.focal:g}"
    if given.fov is not None:
        return centred(focal_of(given.fov, width), height, width), f"--fov {given.fov:g}"
    if loaded.camera is not None and not isinstance(loaded.camera, GivenCamera):
        raise InputError("a learned camera")
    if clip.intrinsics is not None:
        return clip.intrinsics, f"{clip.source}/cam.txt"
    guess = f"a guess: {GUESSED_FOV:g} degrees of horizontal view; --fov, --focal or --intrinsics say better"
    return centred(focal_of(GUESSED_FOV, width), height, width), guess


def centred(focal: float, height: int, width: int) -> np.ndarray:
    """K with square pixels and its centre in the middle of the image."""
    return np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1.0]])


def focal_of(fov: float, width: int) -> float:
    """Focal length in pixels of a horizontal field of view in degrees. Example: 90 degrees of 100 pixels give 50."""
    return width / (2 * math.tan(math.radians(fov) / 2))


def resized_intrinsics(intrinsics: np.ndarray, size: tuple[int, int], new_size: tuple[int, int]) -> np.ndarray:
    """K of the image resized from (height, width) `size` to `new_size`."""
    scaled = scale_intrinsics(torch.from_numpy(intrinsics), new_size[1] / size[1], new_size[0] / size[0])
    return scaled.numpy()
