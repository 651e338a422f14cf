"""From an image as it was taken to the prepared one: lens distortion undone, cropped, resized; and its K."""

import math
from dataclasses import dataclass, replace
from functools import cached_property

import cv2
import numpy as np
import torch

from datasets.formats.camera_files import FISHEYE, RADIAL_TANGENTIAL, Calibration
from datasets.preparation.judgement import judge_intrinsics
from files.errors import InputError
from files.images import resize_area
from geometry.camera import crop_intrinsics, scale_intrinsics

MULTIPLE = 32  # pixels: networks halve an image five times and more
DEFAULT_LONG_SIDE = 416  # pixels, the paper's width
GUESSED_FIELD_OF_VIEW = 60.0  # degrees along the longer side of the picture; most phones and dash cams have 55 to 120
_SAME_ASPECT = 0.01
_BORDER_POINTS = 200  # of each side, and of each diagonal
_LEAST_ZOOM = 1e-3


@dataclass(frozen=True)
class View:
    """What is kept of an image, and at what size; `image` and `intrinsics` belong together.

    The image is undistorted first. `box` is in pixels of the undistorted image, which has the image's own size.
    """

    calibration: Calibration  # with the size of the images
    box: tuple[int, int, int, int]  # left, top, right, bottom: columns left .. right - 1 are kept
    width: int  # of the prepared image
    height: int
    zoom: float = 1.0  # of the undistorted image: as little as leaves no pixel without a value

    def image(self, image: np.ndarray) -> np.ndarray:
        """The prepared image [height, width, 3] of an image uint8 [H, W, 3] of the calibration's size."""
        return resize_area(np.ascontiguousarray(self.cropped(image)), self.height, self.width)

    def cropped(self, image: np.ndarray) -> np.ndarray:
        """The kept part of an image uint8 [H, W, 3], undistorted, at its own size."""
        left, top, right, bottom = self.box
        if self.calibration.model not in (RADIAL_TANGENTIAL, FISHEYE):
            return image[top:bottom, left:right]
        return cv2.remap(image, *self._map, interpolation=cv2.INTER_LINEAR)

    @cached_property
    def _map(self) -> tuple[np.ndarray, np.ndarray]:
        """Where each pixel of the box is found in the distorted image: x and y, float32."""
        left, top, right, bottom = self.box
        size = (right - left, bottom - top)
        target = self._undistorted_intrinsics()
        target[:2, 2] -= (left, top)
        k, coefficients = self.calibration.intrinsics, self.calibration.distortion
        if self.calibration.model == FISHEYE:
            return cv2.fisheye.initUndistortRectifyMap(k, coefficients, np.eye(3), target, size, cv2.CV_32FC1)
        return cv2.initUndistortRectifyMap(k, coefficients, None, target, size, cv2.CV_32FC1)

    def _undistorted_intrinsics(self) -> np.ndarray:
        k = self.calibration.intrinsics.copy()
        if self.calibration.model != "pinhole":
            k[0, 1] = 0  # OpenCV's formulas have no skew
        k[:2, :2] *= self.zoom
        return k

    def intrinsics(self) -> np.ndarray:
        """K [3, 3] of the prepared image."""
        left, top, right, bottom = self.box
        k = crop_intrinsics(torch.from_numpy(self._undistorted_intrinsics()), left, top)
        return scale_intrinsics(k, self.width / (right - left), self.height / (bottom - top)).numpy()

    def resized(self, width: int, height: int) -> "View":
        """The view at another size; of the box the largest part in the middle that has the new size's aspect."""
        left, top, right, bottom = self.box
        old_width, old_height = right - left, bottom - top
        new_width = min(old_width, max(1, round(old_height * width / height)))
        new_height = min(old_height, max(1, round(old_width * height / width)))
        left, top = left + (old_width - new_width) // 2, top + (old_height - new_height) // 2
        return replace(self, box=(left, top, left + new_width, top + new_height), width=width, height=height)


def make_view(calibration: Calibration, margins: tuple[int, int, int, int] = (0, 0, 0, 0)) -> View:
    """The view of all of an image but the margins, at its own size.

    Args:
        calibration: with the size of the images.
        margins: pixels to leave out at the left, top, right and bottom of the undistorted image.

    Raises:
        InputError: the margins leave nothing, or the lens formula cannot be undone on these images.
    """
    if calibration.size is None:
        raise ValueError("calibration: got no size, expected that of the images")
    width, height = calibration.size
    left, top, right, bottom = margins
    box = left, top, width - right, height - bottom
    if min(width, height) < MULTIPLE:
        raise InputError(f"{calibration.name}: {width} x {height} pixels, expected at least {MULTIPLE} x {MULTIPLE}")
    if box[2] - box[0] < MULTIPLE or box[3] - box[1] < MULTIPLE:
        raise InputError(
            f"{calibration.name}: the crop leaves {max(0, box[2] - box[0])} x {max(0, box[3] - box[1])} of {width} x "
            f"{height} pixels, expected at least {MULTIPLE} x {MULTIPLE}"
        )
    return View(calibration, box, box[2] - box[0], box[3] - box[1], find_zoom(calibration))


def fit_calibration(calibration: Calibration, width: int, height: int) -> Calibration:
    """The calibration for images of this size, which may have been resized since, but not cropped or turned.

    Raises:
        InputError: another aspect, or a K that cannot be that of such images.
    """
    k, size = calibration.intrinsics, calibration.size
    if size is not None and size != (width, height):
        if abs(size[0] * height / (size[1] * width) - 1) > _SAME_ASPECT:
            turned = " (is one of them turned?)" if abs(size[0] * width / (size[1] * height) - 1) < 0.1 else ""
            raise InputError(
                f"{calibration.name}: calibrated for {size[0]} x {size[1]} pixels, the images have {width} x {height}, "
                f"another aspect{turned}; expected the calibration of this mode of the camera"
            )
        k = scale_intrinsics(torch.from_numpy(k), width / size[0], height / size[1]).numpy()
    faults = [text for certain, text in judge_intrinsics(k, height, width) if certain]
    if faults:
        raise InputError(f"{calibration.name}: not a camera of {width} x {height} images: {faults[0]}")
    return replace(calibration, intrinsics=k, size=(width, height))


def simple_calibration(focal: float, width: int, height: int, name: str) -> Calibration:
    """A camera without distortion, with its centre in the middle of the image."""
    k = np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1]])
    return Calibration(k, (width, height), "pinhole", np.zeros(0), name)


def focal_length(field_of_view: float, pixels: int) -> float:
    """The focal length in pixels of a side of this many pixels that has this field of view in degrees."""
    return pixels / 2 / math.tan(math.radians(field_of_view) / 2)


def default_size(width: int, height: int) -> tuple[int, int]:
    """(width, height) of prepared images for this aspect: the longer side has 416 pixels, both a multiple of 32."""
    scale = DEFAULT_LONG_SIDE / max(width, height)
    return round_to_multiple(width * scale), round_to_multiple(height * scale)


def round_to_multiple(pixels: float) -> int:
    """The multiple of 32 that is nearest, at least 32."""
    return max(MULTIPLE, MULTIPLE * round(pixels / MULTIPLE))


def find_zoom(calibration: Calibration) -> float:
    """The smallest zoom for which each pixel of the undistorted image lies inside the distorted one.

    Raises:
        InputError: the distortion folds the image, so that it cannot be undone.
    """
    if calibration.model not in (RADIAL_TANGENTIAL, FISHEYE) or calibration.size is None:
        return 1.0
    width, height = calibration.size
    k = calibration.intrinsics
    x, y = np.linspace(0, width - 1, _BORDER_POINTS), np.linspace(0, height - 1, _BORDER_POINTS)
    border = np.concatenate(
        [
            np.column_stack([x, np.zeros_like(x)]),
            np.column_stack([x, np.full_like(x, height - 1)]),
            np.column_stack([np.zeros_like(y), y]),
            np.column_stack([np.full_like(y, width - 1), y]),
        ]
    )
    rays = (border - k[:2, 2]) / np.diag(k)[:2]

    def inside(zoom: float) -> bool:
        found = distort(rays / zoom, calibration)
        return bool(((found >= -1e-6) & (found <= [width - 1 + 1e-6, height - 1 + 1e-6])).all())

    low, high = _LEAST_ZOOM, 1.0
    while not inside(high):
        low, high = high, 1.2 * high
        if high > 20:
            raise InputError(f"{calibration.name}: its distortion cannot be undone for {width} x {height} images")
    low = low if high > 1 else 0.5
    while high - low > 1e-4:
        middle = (low + high) / 2
        low, high = (low, middle) if inside(middle) else (middle, high)
    corners = rays[[0, _BORDER_POINTS - 1, _BORDER_POINTS, 2 * _BORDER_POINTS - 1]] / high
    steps = np.linspace(0, 1, _BORDER_POINTS)
    for corner in corners:
        radius = np.linalg.norm(distort(steps[:, None] * corner, calibration) - k[:2, 2], axis=1)
        if (np.diff(radius) <= 0).any():
            raise InputError(
                f"{calibration.name}: its distortion folds {width} x {height} images at a corner, expected "
                f"coefficients of this camera, got {calibration.distortion.tolist()}"
            )
    return high


def distort(rays: np.ndarray, calibration: Calibration) -> np.ndarray:
    """Pixels [n, 2] of the distorted image at which rays [n, 2] (x / z, y / z) are seen."""
    k, coefficients = calibration.intrinsics, calibration.distortion
    if calibration.model == FISHEYE:
        points = cv2.fisheye.distortPoints(rays[:, None].astype(np.float64), k, coefficients)
    else:
        points, _ = cv2.projectPoints(
            np.column_stack([rays, np.ones(len(rays))]), np.zeros(3), np.zeros(3), k, coefficients
        )
    return points.reshape(-1, 2)
