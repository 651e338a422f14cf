"""COLMAP's sparse models: cameras and poses of images, as text or binary.

https://colmap.github.io/format.html has the formats. Pixel centres are at half numbers there: the top left pixel's is
(0.5, 0.5).
"""

import struct
from dataclasses import dataclass

import numpy as np
from path import Path
from scipy.spatial.transform import Rotation

from files.errors import InputError
from files.text import parse_bounded, read_lines
from files.untrusted import read_bounded

_LARGEST_FILE = 4 * 2**30  # bytes; images.bin holds the points of every image
# In the order of the binary format's numbers: name, number of parameters.
_MODELS = (
    ("SIMPLE_PINHOLE", 3), ("PINHOLE", 4), ("SIMPLE_RADIAL", 4), ("RADIAL", 5), ("OPENCV", 8), ("OPENCV_FISHEYE", 8),
    ("FULL_OPENCV", 12), ("FOV", 5), ("SIMPLE_RADIAL_FISHEYE", 4), ("RADIAL_FISHEYE", 5), ("THIN_PRISM_FISHEYE", 12),
)  # fmt: skip


@dataclass(frozen=True)
class Camera:
    """A camera with COLMAP's own parameters."""

    model: str
    width: int
    height: int
    parameters: tuple[float, ...]


@dataclass(frozen=True)
class Image:
    """An image of the model: its name, camera and pose."""

    name: str
    camera: int
    world_from_camera: np.ndarray  # [4, 4]; the model's scale is arbitrary


def read_cameras(file: Path) -> dict[int, Camera]:
    """The cameras of cameras.txt or cameras.bin by id; InputError if it is missing or damaged, or has none."""
    file = Path(file)
    cameras = _binary_cameras(file) if file.suffix.lower() == ".bin" else _text_cameras(file)
    if not cameras:
        raise InputError(f"{file}: no camera in it")
    for number, camera in cameras.items():
        if min(camera.width, camera.height) < 1 or not np.isfinite(camera.parameters).all():
            raise InputError(f"{file}: camera {number} is damaged ({camera})")
    return cameras


def _text_cameras(file: Path) -> dict[int, Camera]:
    counts = dict(_MODELS)
    cameras = {}
    for number, line in enumerate(read_lines(file), 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        where = f"{file}, line {number}"
        if len(words) < 5 or not all(word.isdecimal() and len(word) < 10 for word in (words[0], *words[2:4])):
            raise InputError(f"{where}: expected CAMERA_ID MODEL WIDTH HEIGHT PARAMETERS")
        if words[1] not in counts:
            raise InputError(f"{where}: the camera model {words[1][:40]} is not known, expected {', '.join(counts)}")
        parameters = parse_bounded(" ".join(words[4:]), counts[words[1]], where)
        cameras[int(words[0])] = Camera(words[1], int(words[2]), int(words[3]), tuple(parameters))
    return cameras


def _binary_cameras(file: Path) -> dict[int, Camera]:
    data = _Bytes(file)
    cameras = {}
    for _ in range(data.count(24)):
        number, model, width, height = data.take("<iiQQ")
        if not 0 <= model < len(_MODELS):
            raise InputError(f"{file}: camera model {model} is not known, expected 0 to {len(_MODELS) - 1}")
        name, parameters = _MODELS[model]
        cameras[number] = Camera(name, width, height, data.take(f"<{parameters}d"))
    return cameras


def read_images(file: Path) -> list[Image]:
    """The images of images.txt or images.bin with their poses; InputError if it is missing or damaged."""
    file = Path(file)
    return _binary_images(file) if file.suffix.lower() == ".bin" else _text_images(file)


def _text_images(file: Path) -> list[Image]:
    images = []
    lines = [(n, line) for n, line in enumerate(read_lines(file), 1) if not line.startswith("#")]
    while lines and not lines[-1][1].strip():
        lines.pop()
    for number, line in lines[::2]:  # between them are the points, perhaps an empty line
        words = line.split(maxsplit=9)
        if len(words) != 10:
            raise InputError(f"{file}, line {number}: expected IMAGE_ID QW QX QY QZ TX TY TZ CAMERA_ID NAME")
        numbers = parse_bounded(" ".join(words[:9]), 9, f"{file}, line {number}")
        images.append(_image(file, words[9].strip(), int(numbers[8]), numbers[1:5], numbers[5:8]))
    return images


def _binary_images(file: Path) -> list[Image]:
    data = _Bytes(file)
    images = []
    for _ in range(data.count(73)):
        _, *pose, camera = data.take("<i7di")
        name = data.text()
        data.skip(24 * data.count(24))
        images.append(_image(file, name, camera, pose[:4], pose[4:]))
    return images


def _image(file: Path, name: str, camera: int, wxyz: list[float], translation: list[float]) -> Image:
    """COLMAP stores camera_from_world."""
    norm = np.linalg.norm(wxyz)
    if not 0.5 < norm < 2 or not np.isfinite(translation).all():
        raise InputError(f"{file}: the pose of {name[:80]} is damaged: quaternion {wxyz}, translation {translation}")
    world_from_camera = np.eye(4)
    world_from_camera[:3, :3] = Rotation.from_quat([*wxyz[1:], wxyz[0]]).as_matrix().T
    world_from_camera[:3, 3] = -world_from_camera[:3, :3] @ translation
    return Image(name, camera, world_from_camera)


class _Bytes:
    """The content of a binary file, read from front to back; InputError where it ends early."""

    def __init__(self, file: Path) -> None:
        self.file, self.position = file, 0
        self.data = read_bounded(file, _LARGEST_FILE, "COLMAP's binary file")

    def take(self, layout: str) -> tuple:
        start = self.position
        self.skip(struct.calcsize(layout))
        return struct.unpack_from(layout, self.data, start)

    def skip(self, count: int) -> None:
        self.position += count
        if self.position > len(self.data):
            raise InputError(f"{self.file}: ends early, after {len(self.data)} bytes")

    def count(self, least: int) -> int:
        """A number of items, each of at least `least` bytes."""
        (count,) = self.take("<Q")
        if count * least > len(self.data) - self.position:
            raise InputError(f"{self.file}: claims {count} items in {len(self.data)} bytes")
        return count

    def text(self) -> str:
        end = self.data.find(b"\0", self.position)
        if end < 0:
            raise InputError(f"{self.file}: ends early, after {len(self.data)} bytes")
        text = self.data[self.position : end].decode("utf-8", "replace")
        self.position = end + 1
        return text
