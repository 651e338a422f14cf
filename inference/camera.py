"""The camera of a clip: K from a flag, the checkpoint, the prepared scene, or a guess that is named as such."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from path import Path

from datasets.formats.camera_files import PINHOLE, read_calibration
from datasets.layout import CAMERA_FILE, camera_is_guessed, check_intrinsics_fit, read_intrinsics
from datasets.preparation.view import GUESSED_FIELD_OF_VIEW
from files.errors import InputError
from files.text import read_lines
from geometry.camera import scale_intrinsics
from inference.frames import Clip
from models.checkpoint import LoadedModel
from models.learned_camera import LearnedCamera

_SAME_CAMERA = 0.01  # share of the width by which two K of one camera may differ
_SAME_SHAPE = 0.01  # relative difference of two aspects


@dataclass(frozen=True)
class GivenByFlag:
    """What the command line says about the camera; at most one of the three."""

    fov: float | None = None  # degrees, horizontal
    focal: float | None = None  # pixels of the input
    file: Path | None = None  # cam.txt, or a calibration file


def choose_intrinsics(clip: Clip, given: GivenByFlag, loaded: LoadedModel) -> tuple[np.ndarray, str]:
    """K of a clip in pixels of its frames, float64 [3, 3], and where it is from.

    The first that there is: a flag, the camera that the checkpoint has learned, the scene's cam.txt, a guess. Of a
    checkpoint that has learned several cameras, the one that began as the scene's cam.txt.

    Raises:
        InputError: a camera file that is damaged, of a lens with distortion, or of images of another shape.
    """
    height, width = clip.size
    if given.file is not None:
        return _from_file(given.file, height, width), str(given.file)
    if given.focal is not None:
        return centred(given.focal, height, width), f"--focal {given.focal:g}"
    if given.fov is not None:
        return centred(focal_of(given.fov, width), height, width), f"--fov {given.fov:g}"
    learned = _learned(clip, loaded)
    if learned is not None:
        return learned, "learned by the checkpoint"
    if clip.intrinsics is not None:
        guess = f", a guess ({CAMERA_FILE})" if camera_is_guessed(clip.source) else ""
        return clip.intrinsics, f"{clip.source}/cam.txt{guess}"
    guess = f"a guess: {GUESSED_FIELD_OF_VIEW:g} degrees along the longer side; --fov, --focal or --intrinsics say more"
    return centred(focal_of(GUESSED_FIELD_OF_VIEW, max(height, width)), height, width), guess


def _learned(clip: Clip, loaded: LoadedModel) -> np.ndarray | None:
    """K of the checkpoint's learned camera in pixels of the clip's frames; None where there is none that fits."""
    if not isinstance(loaded.camera, LearnedCamera) or loaded.height is None or loaded.width is None:
        return None
    training = loaded.height, loaded.width
    matrices = loaded.camera.matrices().detach().double().cpu().numpy()
    number = 0
    if loaded.camera.cameras > 1:
        if clip.intrinsics is None:
            return None
        starts = loaded.camera.start.double().cpu().numpy()
        own = resized_intrinsics(clip.intrinsics, clip.size, training)
        number = int(np.argmin(np.abs(starts - own).max((1, 2))))
        if np.abs(starts[number] - own).max() > _SAME_CAMERA * loaded.width:
            return None
    return resized_intrinsics(matrices[number], training, clip.size)


def _from_file(file: Path, height: int, width: int) -> np.ndarray:
    """K of a cam.txt, a folder with one, or a calibration file, in pixels of frames of this size."""
    if file.is_dir() or _is_cam_txt(file):
        intrinsics = read_intrinsics(file / "cam.txt" if file.is_dir() else file)
    else:
        calibration = read_calibration(file)
        if calibration.model != PINHOLE:
            raise InputError(
                f"{calibration}: the lens has distortion, expected a pinhole; data/prepare_video.py undoes it"
            )
        intrinsics = calibration.intrinsics
        if calibration.size is not None and calibration.size != (width, height):
            if abs(calibration.size[0] * height / (calibration.size[1] * width) - 1) > _SAME_SHAPE:
                shown = " x ".join(map(str, calibration.size))
                raise InputError(f"{file}: for images of {shown} pixels, the input has {width} x {height}")
            intrinsics = resized_intrinsics(intrinsics, calibration.size[::-1], (height, width))
    check_intrinsics_fit(intrinsics, height, width, file)
    return intrinsics


def _is_cam_txt(file: Path) -> bool:
    return file.suffix.lower() == ".txt" and all(len(line.split()) == 3 for line in read_lines(file) if line.strip())


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
