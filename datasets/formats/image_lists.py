"""Recordings as folders of images with times: TUM RGB-D, EuRoC MAV, and COLMAP's models with their images.

TUM RGB-D   rgb.txt ("time file" a line), rgb/, groundtruth.txt ("time tx ty tz qx qy qz qw")
EuRoC       mav0/cam0/data.csv ("time_ns,file"), mav0/cam0/data/, mav0/cam0/sensor.yaml,
            mav0/state_groundtruth_estimate0/data.csv ("time_ns,px,py,pz,qw,qx,qy,qz,...")
COLMAP      images/, sparse/0/cameras.{txt,bin}, sparse/0/images.{txt,bin}
"""

from dataclasses import dataclass, field

import numpy as np
import yaml
from path import Path
from scipy.spatial.transform import Rotation

from datasets.formats import colmap
from datasets.formats.camera_files import Calibration, from_colmap, read_calibration
from files.errors import InputError
from files.text import parse_bounded, read_lines
from files.untrusted import read_bounded

_FARTHEST_POSE = 0.02  # seconds between an image and the pose that it gets, as in TUM's own tools
_LARGEST_SENSOR_FILE = 2**20  # bytes


@dataclass(frozen=True)
class Recording:
    """The images of a camera in order of time."""

    images: list[Path] = field(repr=False)
    times: list[float] | None  # seconds; None: numbered
    poses: dict[str, np.ndarray] = field(repr=False)  # world_from_camera [4, 4] by an image's path
    calibration: Calibration | None
    kind: str  # "TUM RGB-D", "EuRoC", "COLMAP"


def find_recording(folder: Path) -> Recording | None:
    """The recording in a TUM RGB-D or EuRoC folder; None if it is neither.

    Raises:
        InputError: a list or a calibration in it is damaged.
    """
    folder = Path(folder)
    if (folder / "rgb.txt").is_file():
        return read_tum(folder)
    for root in (folder, folder / "mav0"):
        if (root / "cam0" / "data.csv").is_file():
            return read_euroc(root)
    return None


def read_tum(folder: Path) -> Recording:
    """A TUM RGB-D sequence; its poses are those of groundtruth.txt nearest in time. The folder has no calibration."""
    times, images = [], []
    for number, line in _rows(folder / "rgb.txt"):
        words = line.split(maxsplit=1)
        if len(words) != 2:
            raise InputError(f"{folder / 'rgb.txt'}, line {number}: expected a time and a file")
        times += parse_bounded(words[0], 1, f"{folder / 'rgb.txt'}, line {number}")
        images.append(_inside(folder, words[1].strip(), folder / "rgb.txt", number))
    poses: dict[str, np.ndarray] = {}
    if (folder / "groundtruth.txt").is_file():
        file = folder / "groundtruth.txt"
        rows = np.array([parse_bounded(line, 8, f"{file}, line {n}") for n, line in _rows(file)]).reshape(-1, 8)
        poses = _nearest_poses(images, times, rows[:, 0], _poses(rows[:, 1:4], rows[:, 4:8], file))
    return _sorted(images, times, poses, None, "TUM RGB-D", folder / "rgb.txt")


def read_euroc(root: Path) -> Recording:
    """Camera 0 of a EuRoC sequence, with its calibration, and poses where there is ground truth."""
    file = root / "cam0" / "data.csv"
    times, images = [], []
    for number, line in _rows(file):
        words = line.split(",")
        if len(words) != 2:
            raise InputError(f"{file}, line {number}: expected a time in nanoseconds and a file")
        times.append(parse_bounded(words[0], 1, f"{file}, line {number}")[0] * 1e-9)
        images.append(_inside(root / "cam0" / "data", words[1].strip(), file, number))
    sensor = root / "cam0" / "sensor.yaml"
    poses: dict[str, np.ndarray] = {}
    truth = root / "state_groundtruth_estimate0" / "data.csv"
    if truth.is_file():
        rows = [parse_bounded(" ".join(line.split(",")[:8]), 8, f"{truth}, line {n}") for n, line in _rows(truth)]
        table = np.array(rows).reshape(-1, 8)
        world_from_body = _poses(table[:, 1:4], table[:, [5, 6, 7, 4]], truth)
        poses = _nearest_poses(images, times, table[:, 0] * 1e-9, world_from_body @ _body_from_sensor(sensor))
    return _sorted(images, times, poses, read_calibration(sensor), "EuRoC", file)


def read_colmap(folder: Path) -> Recording:
    """The images of a COLMAP model that have a pose, of one camera, in order of the numbers in their names.

    Raises:
        InputError: no model in the folder, or images of several cameras.
    """
    roots = [folder / "sparse" / "0", folder / "sparse", folder]
    found = [(r, s) for r in roots for s in ("bin", "txt") if (r / f"images.{s}").is_file()]
    if not found:
        raise InputError(
            f"{folder}: no COLMAP model, expected images/ and sparse/0/ with cameras and images as .bin or .txt"
        )
    root, suffix = found[0]
    cameras, images = colmap.read_cameras(root / f"cameras.{suffix}"), colmap.read_images(root / f"images.{suffix}")
    used = {image.camera for image in images}
    if len(used) != 1 or not used <= cameras.keys():
        raise InputError(
            f"{root}: its images are of the cameras {sorted(used)[:5]}, expected one camera for all images "
            "(--ImageReader.single_camera 1)"
        )
    number = used.pop()
    pictures = folder / "images"
    files = [_inside(pictures, image.name, root / f"images.{suffix}", 0) for image in images]
    poses = {str(file): image.world_from_camera for file, image in zip(files, images, strict=True)}
    return Recording(files, None, poses, from_colmap(cameras[number], f"{root}, camera {number}"), "COLMAP")


def _rows(file: Path) -> list[tuple[int, str]]:
    """The lines of a list with their numbers, without comments."""
    return [(n, line) for n, line in enumerate(read_lines(file), 1) if line.strip() and not line.startswith("#")]


def _inside(folder: Path, name: str, file: Path, number: int) -> Path:
    if name.startswith(("/", "\\")) or ".." in name.replace("\\", "/").split("/") or "\0" in name or not name:
        raise InputError(f"{file}, line {number}: {name!r:.80} leads out of its folder")
    return folder / name


def _poses(translations: np.ndarray, quaternions: np.ndarray, file: Path) -> np.ndarray:
    """[n, 4, 4] of translations [n, 3] and quaternions [n, 4], w last."""
    norms = np.linalg.norm(quaternions, axis=1)
    if not ((norms > 0.5) & (norms < 2)).all():
        raise InputError(f"{file}: a quaternion of length {norms[np.abs(norms - 1).argmax()]:g}, expected 1")
    poses = np.tile(np.eye(4), (len(translations), 1, 1))
    poses[:, :3, :3] = Rotation.from_quat(quaternions).as_matrix() if len(translations) else poses[:, :3, :3]
    poses[:, :3, 3] = translations
    return poses


def _nearest_poses(
    images: list[Path], times: list[float], pose_times: np.ndarray, poses: np.ndarray
) -> dict[str, np.ndarray]:
    """The pose nearest in time of each image that has one within 20 ms."""
    if len(pose_times) == 0:
        return {}
    order = np.argsort(pose_times)
    pose_times, poses = pose_times[order], poses[order]
    after = np.searchsorted(pose_times, times).clip(1, max(1, len(pose_times) - 1))
    before = after - 1
    after = after.clip(max=len(pose_times) - 1)
    nearer = np.where(np.abs(pose_times[before] - times) <= np.abs(pose_times[after] - times), before, after)
    close = np.abs(pose_times[nearer] - times) <= _FARTHEST_POSE
    return {str(file): poses[n] for file, n, is_close in zip(images, nearer, close, strict=True) if is_close}


def _body_from_sensor(file: Path) -> np.ndarray:
    """T_BS of a EuRoC sensor.yaml: [4, 4]."""
    try:
        tree = yaml.safe_load(read_bounded(file, _LARGEST_SENSOR_FILE, "a sensor's description").decode())
        matrix = np.array(tree["T_BS"]["data"], dtype=np.float64).reshape(4, 4)
    except (yaml.YAMLError, ValueError, KeyError, TypeError, RecursionError):
        raise InputError(f"{file}: no T_BS of 16 numbers, expected the camera's pose in the body") from None
    return matrix


def _sorted(
    images: list[Path],
    times: list[float],
    poses: dict[str, np.ndarray],
    calibration: Calibration | None,
    kind: str,
    file: Path,
) -> Recording:
    if not images:
        raise InputError(f"{file}: names no image")
    order = np.argsort(times, kind="stable")
    return Recording([images[n] for n in order], [times[n] for n in order], poses, calibration, kind)
