"""The camera of a clip: K from a flag, the checkpoint, the prepared scene, or a guess that is named as such."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from path import Path

from datasets.formats.camera_files import PINHOLE, read_calibration
from datasets.input_views import InputView
from datasets.layout import CAMERA_FILE, camera_is_guessed, check_intrinsics_fit, read_intrinsics
from datasets.preparation.view import GUESSED_FIELD_OF_VIEW
from files.errors import InputError
from files.text import read_lines
from geometry.camera import crop_intrinsics, scale_intrinsics
from inference.crop import find_view
from inference.frames import Clip
from models.checkpoint import LearnedK, LoadedModel
from models.learned_camera import LearnedCamera

_SAME_CAMERA = 0.01  # share of the width by which two K of one camera may differ
_SAME_SHAPE = 0.01  # relative difference of two aspects
_LEAST_KEPT = 0.75  # share of the input's pixels that the training images show; below it is another view


@dataclass(frozen=True)
class GivenByFlag:
    """What the command line says about the camera; at most one of the three."""

    fov: float | None = None  # degrees, horizontal
    focal: float | None = None  # pixels of the input
    file: Path | None = None  # cam.txt, or a calibration file


def choose_intrinsics(clip: Clip, given: GivenByFlag, loaded: LoadedModel) -> tuple[np.ndarray, str]:
    """K of a clip in pixels of its frames, float64 [3, 3], and where it is from. Flags are about the whole pictures.

    The first that there is: a flag, the scene's cam.txt unless it is a guess, the camera that the checkpoint has
    learned, the guess. Of a checkpoint that has learned several cameras, the one that recorded the scene.

    Raises:
        InputError: a camera file that is damaged, of a lens with distortion, or of images of another shape.
    """
    height, width = clip.whole
    if given.file is not None:
        return _cropped(_from_file(given.file, height, width), clip), str(given.file)
    if given.focal is not None:
        return _cropped(centred(given.focal, height, width), clip), f"--focal {given.focal:g}"
    if given.fov is not None:
        return _cropped(centred(focal_of(given.fov, width), height, width), clip), f"--fov {given.fov:g}"
    guessed = clip.intrinsics is not None and camera_is_guessed(clip.source)
    if clip.intrinsics is not None and not guessed:
        return clip.intrinsics, f"{clip.source}/cam.txt"
    learned = _learned(clip, loaded)
    if learned is not None:
        return learned
    if clip.intrinsics is not None:
        return clip.intrinsics, f"{clip.source}/cam.txt, a guess ({CAMERA_FILE})"
    guess = f"a guess: {GUESSED_FIELD_OF_VIEW:g} degrees along the longer side; --fov, --focal or --intrinsics say more"
    return _cropped(centred(focal_of(GUESSED_FIELD_OF_VIEW, max(height, width)), height, width), clip), guess


def _cropped(intrinsics: np.ndarray, clip: Clip) -> np.ndarray:
    """K of a clip's frames from K of its whole pictures."""
    return crop_intrinsics(torch.from_numpy(intrinsics), *clip.offset).numpy()


def _learned(clip: Clip, loaded: LoadedModel) -> tuple[np.ndarray, str] | None:
    """K of the checkpoint's learned camera in pixels of the clip's frames, and its source; None where none fits."""
    cameras = loaded.learned_cameras()
    if len(cameras) > 1:
        cameras = [camera for number, camera in enumerate(cameras) if _recorded(clip, number, camera, loaded)][:1]
    if not cameras:
        return None
    (camera,), (height, width) = cameras, clip.size
    source = f"learned by the checkpoint, for images of {camera.width} x {camera.height} pixels"
    view = find_view(clip, loaded)
    if isinstance(view, InputView):  # the training images are this part of the clip's pictures
        left, top, right, bottom = view.box
        part = torch.from_numpy(camera.resized(bottom - top, right - left))
        return _cropped(crop_intrinsics(part, -left, -top).numpy(), clip), source
    larger = max(camera.width / width, camera.height / height)
    kept = camera.width * camera.height / (larger * width * larger * height)  # 1: the same aspect
    if kept > 1 - _SAME_SHAPE:
        return camera.resized(height, width), source
    if kept < _LEAST_KEPT or clip.intrinsics is not None:
        return None
    return uncut_intrinsics(camera, height, width), f"{source}, as if they were the middle of {width} x {height}"


def _recorded(clip: Clip, number: int, camera: LearnedK, loaded: LoadedModel) -> bool:
    """Whether a learned camera of several recorded a scene: by the scene's name, or as both began with the same K."""
    if clip.intrinsics is None or not isinstance(loaded.camera, LearnedCamera):
        return False
    own = resized_intrinsics(clip.intrinsics, clip.size, (camera.height, camera.width))
    start = loaded.camera.start[number].double().cpu().numpy()
    return clip.source.absolute().name in camera.scenes or bool(np.abs(start - own).max() < _SAME_CAMERA * camera.width)


def uncut_intrinsics(camera: LearnedK, height: int, width: int) -> np.ndarray:
    """K of images whose sides were cut off evenly to give the training images their aspect, as
    data/prepare_video.py does it: float64 [3, 3].

    The scale s is the larger of the two sides' scales. f = f' / s, c = (c' + cut + 0.5) / s - 0.5.
    """
    scale = max(camera.width / width, camera.height / height)
    whole = camera.intrinsics.copy()
    whole[:2, 2] += [(scale * width - camera.width) / 2, (scale * height - camera.height) / 2]
    return scale_intrinsics(torch.from_numpy(whole), 1 / scale, 1 / scale).numpy()


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
