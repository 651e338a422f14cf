"""Calibration files of other programs: OpenCV's YAML and JSON (also ROS, Kalibr, EuRoC, ORB-SLAM), KITTI's, COLMAP's.

Pixel centres are integers here and in OpenCV. COLMAP's are at half numbers: its centre is moved by -0.5.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import yaml
from path import Path

from datasets.formats import colmap
from files.errors import InputError
from files.text import parse_bounded, read_lines
from files.untrusted import one_line, parse_json, read_bounded

PINHOLE, RADIAL_TANGENTIAL, FISHEYE = "pinhole", "radial-tangential", "fisheye"
_LARGEST_FILE = 64 * 2**20  # bytes; COLMAP's list of cameras has 100 bytes for each
_LARGEST_NUMBER = 1e6  # pixels, or a lens's coefficient
_KITTI_LINE = re.compile(r"(?:P|P_rect_0?)([0-3]): ")
# Names of entries, without case, "_" and the prefix of a camera.
_MATRIX = ("cameramatrix", "cameramatrix1", "k", "intrinsicmatrix", "intrinsics", "intrinsic", "m1", "mtx")
_DISTORTION = (
    "distortioncoefficients", "distcoeffs", "distcoeffs1", "distcoeff", "distortioncoeffs", "distortion", "dist", "d",
    "d1",
)  # fmt: skip
_WIDTH, _HEIGHT = ("imagewidth", "width", "w"), ("imageheight", "height", "h")
_SIZE = ("imagesize", "resolution", "size")
_FISHEYE_WORDS = ("fisheye", "equidistant", "kannalabrandt")
_COEFFICIENTS = ("k1", "k2", "p1", "p2", "k3", "k4", "k5", "k6")


@dataclass(frozen=True)
class Calibration:
    """A camera as a file has it."""

    intrinsics: np.ndarray  # K [3, 3], pixel centres at integers
    size: tuple[int, int] | None  # (width, height) of the images that K is for; None: the file does not say
    model: str  # PINHOLE, RADIAL_TANGENTIAL or FISHEYE
    distortion: np.ndarray  # coefficients in OpenCV's order: 4, 5, 8, 12 or 14, for FISHEYE 4; none for PINHOLE
    name: str  # the file, and the camera in it

    def __str__(self) -> str:
        return f"{self.name} ({self.model})"


def read_calibration(file: Path, camera: str | None = None) -> Calibration:
    """A camera from a calibration file; its kind is detected by its content.

    Args:
        camera: which one of a file with several: COLMAP's camera id; KITTI's 0 to 3 (default: 2); the name of an entry
            (Kalibr's cam0; default: the first).

    Raises:
        InputError: missing, of an unknown kind, damaged, a camera model without a formula here, or `camera` is not in
            it.
    """
    file = Path(file)
    if file.is_dir():
        raise InputError(f"{file}: a folder, expected a calibration file")
    if file.suffix.lower() == ".bin":
        return _from_colmap(colmap.read_cameras(file), file, camera)
    start = read_bounded(file, _LARGEST_FILE, "a calibration file").lstrip()[:4096]
    if start.startswith((b"{", b"%YAML", b"---")) or file.suffix.lower() in (".yaml", ".yml", ".json"):
        return _from_tree(_read_tree(file, start), file, camera)
    if start.startswith(b"<"):
        raise InputError(f"{file}: XML, expected OpenCV's YAML or JSON (cv2.FileStorage writes them, too)")
    lines = read_lines(file)
    if any(_KITTI_LINE.match(line) for line in lines):
        return _from_kitti(lines, file, camera)
    if any(re.match(r"\s*\d+\s+[A-Z_]+\s+\d+\s+\d+\s", line) for line in lines):
        return _from_colmap(colmap.read_cameras(file), file, camera)
    raise InputError(
        f"{file}: not a calibration that is known: expected OpenCV's YAML or JSON, KITTI's calib.txt or "
        "calib_cam_to_cam.txt, or COLMAP's cameras.txt or cameras.bin"
    )


# KITTI


def _from_kitti(lines: list[str], file: Path, camera: str | None) -> Calibration:
    matrices, sizes = {}, {}
    for number, line in enumerate(lines, 1):
        where = f"{file}, line {number}"
        if match := _KITTI_LINE.match(line):
            matrices[int(match[1])] = parse_bounded(line.partition(":")[2], 12, where)
        elif match := re.match(r"S_rect_0([0-3]): ", line):
            width, height = parse_bounded(line.partition(":")[2], 2, where)
            sizes[int(match[1])] = int(width), int(height)
    wanted = 2 if camera is None and 2 in matrices else min(matrices) if camera is None else _number(camera)
    if wanted not in matrices:
        raise InputError(f"{file}: no camera {camera}, it has {_names(matrices)}")
    intrinsics = np.array(matrices[wanted]).reshape(3, 4)[:, :3]
    return _checked(intrinsics, sizes.get(wanted), PINHOLE, [], f"{file}, camera {wanted}")


# COLMAP


def _from_colmap(cameras: dict[int, colmap.Camera], file: Path, camera: str | None) -> Calibration:
    if camera is None and len(cameras) > 1:
        raise InputError(f"{file}: it has the cameras {_names(cameras)}, expected one; choose by --calibration-camera")
    wanted = next(iter(cameras)) if camera is None else _number(camera)
    if wanted not in cameras:
        raise InputError(f"{file}: no camera {camera}, it has {_names(cameras)}")
    return from_colmap(cameras[wanted], f"{file}, camera {wanted}")


def from_colmap(camera: colmap.Camera, name: str) -> Calibration:
    """One of COLMAP's cameras with this project's pixel centres.

    Raises:
        InputError: a model that OpenCV cannot undo.
    """
    p, model = camera.parameters, camera.model
    if model in ("SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL", "SIMPLE_RADIAL_FISHEYE", "RADIAL_FISHEYE"):
        fx, fy, cx, cy, rest = p[0], p[0], p[1], p[2], p[3:]
    else:
        fx, fy, cx, cy, rest = p[0], p[1], p[2], p[3], p[4:]
    if model in ("SIMPLE_PINHOLE", "PINHOLE"):
        kind, distortion = PINHOLE, []
    elif model in ("SIMPLE_RADIAL", "RADIAL", "OPENCV", "FULL_OPENCV"):
        kind, distortion = RADIAL_TANGENTIAL, [*rest, *[0.0] * (4 - len(rest))]
    elif model in ("OPENCV_FISHEYE", "SIMPLE_RADIAL_FISHEYE", "RADIAL_FISHEYE"):
        kind, distortion = FISHEYE, [*rest, *[0.0] * (4 - len(rest))]
    else:
        raise InputError(f"{name}: the model {model} is not undone here; use the images of colmap image_undistorter")
    intrinsics = np.array([[fx, 0, cx - 0.5], [0, fy, cy - 0.5], [0, 0, 1]])
    return _checked(intrinsics, (camera.width, camera.height), kind, distortion, name)


# OpenCV and others: trees of names and values


def _read_tree(file: Path, start: bytes) -> dict[str, Any]:
    """The content of a JSON or YAML file. OpenCV's YAML has a first line and tags that YAML itself refuses."""
    try:
        text = read_bounded(file, _LARGEST_FILE, "a calibration file").decode("utf-8-sig")
        if start.startswith(b"{"):
            tree = parse_json(text, allow_nan=True)
        else:
            text = re.sub(r"^%YAML[^\n]*\n?", "", text)
            tree = yaml.load(re.sub(r"!!opencv-[a-z-]+", "", text), Loader=_PlainLoader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"{file}: not readable as YAML or JSON ({one_line(error)})") from None
    if not isinstance(tree, dict):
        raise InputError(f"{file}: holds a {type(tree).__name__}, expected entries like camera_matrix")
    return tree


class _PlainLoader(yaml.SafeLoader):
    """Reads numbers, texts, lists and entries; an alias, by which a small file becomes huge, is refused."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("an alias, expected plain values")
        return super().compose_node(parent, index)


def _from_tree(tree: dict[str, Any], file: Path, camera: str | None) -> Calibration:
    name = str(file)
    if camera is not None:
        if not isinstance(tree.get(camera), dict):
            raise InputError(f"{file}: no camera {camera}, it has {_names(tree)}")
        tree, name = tree[camera], f"{file}, {camera}"
    entries = _entries(tree)
    if _find(entries, _MATRIX) is None and "fx" not in entries:  # Kalibr: the cameras are entries
        inner = [key for key, value in tree.items() if isinstance(value, dict) and _find(_entries(value), _MATRIX)]
        if not inner:
            raise InputError(f"{file}: no camera matrix, expected an entry like camera_matrix; it has {_names(tree)}")
        entries, name = _entries(tree[inner[0]]), f"{file}, {inner[0]}"
    matrix, distortion = _find(entries, _MATRIX), _find(entries, _DISTORTION)
    if matrix is not None:
        intrinsics = _camera_matrix(_numbers(matrix, f"{name}: camera matrix"), name)
    else:
        fx, fy, cx, cy = (_numbers(entries.get(key), f"{name}: {key}")[:1] for key in ("fx", "fy", "cx", "cy"))
        intrinsics = _camera_matrix([*fx, *fy, *cx, *cy], name)
    if distortion is not None:
        coefficients = _numbers(distortion, f"{name}: distortion")
    else:
        given = [key for key in _COEFFICIENTS if key in entries]
        coefficients = [_numbers(entries[k], k)[0] if k in entries else 0.0 for k in _COEFFICIENTS] if given else []
        coefficients = coefficients[: 5 if not {"k4", "k5", "k6"} & set(given) else 8]
    words = " ".join(str(value).lower() for key, value in entries.items() if "model" in key or key in ("type",))
    fisheye = any(word in words for word in _FISHEYE_WORDS) or _is_true(entries.get("fisheyemodel"))
    if fisheye and distortion is None:
        coefficients = [_numbers(entries.get(k, 0.0), k)[0] for k in ("k1", "k2", "k3", "k4")]
    return _checked(intrinsics, _size(entries, name), FISHEYE if fisheye else RADIAL_TANGENTIAL, coefficients, name)


def _entries(tree: dict[str, Any]) -> dict[str, Any]:
    """The entries by their plain names: "Camera.fx" and "Camera1.fx" are fx, "camera_matrix" is cameramatrix."""
    return {re.sub(r"^camera1?\.", "", str(key).lower()).replace("_", ""): value for key, value in tree.items()}


def _find(entries: dict[str, Any], names: tuple[str, ...]) -> Any:
    return next((entries[name] for name in names if name in entries), None)


def _is_true(value: Any) -> bool:
    return value in (1, True, "1", "true")


def _numbers(value: Any, where: str) -> list[float]:
    """The numbers of a value: a number, a list of any shape, or OpenCV's matrix with `data`."""
    if isinstance(value, dict):
        value = value.get("data")
    found: list[float] = []
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, list):
            waiting += item[::-1]
            continue
        try:
            found.append(float(item))
        except (TypeError, ValueError):
            raise InputError(f"{where}: got {item!r:.40}, expected numbers") from None
        if len(found) > 100 or not abs(found[-1]) <= _LARGEST_NUMBER:
            raise InputError(f"{where}: got {item!r:.40}, expected a few finite numbers")
    return found


def _camera_matrix(numbers: list[float], name: str) -> np.ndarray:
    """K of its 9 numbers, of the 12 of a projection, or of fx, fy, cx, cy."""
    if len(numbers) == 9:
        return np.array(numbers).reshape(3, 3)
    if len(numbers) == 12:
        return np.array(numbers).reshape(3, 4)[:, :3]
    if len(numbers) == 4:
        fx, fy, cx, cy = numbers
        return np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])
    raise InputError(f"{name}: a camera matrix of {len(numbers)} numbers, expected 9, or fx fy cx cy")


def _size(entries: dict[str, Any], name: str) -> tuple[int, int] | None:
    size = _find(entries, _SIZE)
    if size is None:
        width, height = _find(entries, _WIDTH), _find(entries, _HEIGHT)
        if width is None or height is None:
            return None
        numbers = _numbers([width, height], f"{name}: size")
    elif isinstance(size, dict) and "data" not in size:
        numbers = _numbers([size.get("width"), size.get("height")], f"{name}: size")
    else:
        numbers = _numbers(size, f"{name}: size")
    if len(numbers) != 2 or min(numbers) < 1:
        raise InputError(f"{name}: image size {numbers}, expected width and height")
    return int(numbers[0]), int(numbers[1])


# All


def _checked(
    intrinsics: np.ndarray, size: tuple[int, int] | None, model: str, distortion: list[float], name: str
) -> Calibration:
    """The calibration, after checks of what every kind of file can have wrong."""
    k = np.asarray(intrinsics, dtype=np.float64)
    if not np.isfinite(k).all() or k[0, 0] <= 0 or k[1, 1] <= 0 or not np.allclose(k[[1, 2, 2], [0, 0, 1]], 0):
        raise InputError(f"{name}: K is {k.tolist()}, expected [fx s cx; 0 fy cy; 0 0 1] with fx, fy > 0")
    if not np.any(distortion):
        return Calibration(k, size, PINHOLE if model != FISHEYE else FISHEYE, np.zeros(4 * (model == FISHEYE)), name)
    expected: Callable[[int], bool] = (lambda n: n == 4) if model == FISHEYE else (lambda n: n in (4, 5, 8, 12, 14))
    if model == RADIAL_TANGENTIAL and len(distortion) < 4:  # k1, or k1 k2
        distortion = [*distortion, *[0.0] * (4 - len(distortion))]
    if not expected(len(distortion)):
        numbers = "4" if model == FISHEYE else "4, 5, 8, 12 or 14"
        raise InputError(f"{name}: {len(distortion)} distortion coefficients, expected {numbers}")
    if model == FISHEYE and k[0, 1] != 0:
        raise InputError(f"{name}: a fisheye camera with skew {k[0, 1]:g}, expected 0")
    return Calibration(k, size, model, np.array(distortion, dtype=np.float64), name)


def _number(camera: str) -> int:
    return int(camera) if camera.isdecimal() and len(camera) < 10 else -1


def _names(names: Any) -> str:
    found = [str(name)[:40] for name in names]
    return ", ".join(found[:8]) + (", ..." if len(found) > 8 else "")
