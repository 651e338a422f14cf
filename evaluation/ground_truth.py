"""The true depth of KITTI's images: which files it is made from, and how it is read."""

import os
from functools import lru_cache

import numpy as np
from path import Path

from datasets.formats import kitti
from datasets.formats.depth_archive import read_depth_archive
from datasets.layout import depth_file, read_depth
from evaluation.metrics.depth import KnownDepth, known_depth
from files.errors import InputError
from files.images import read_depth_picture

TRUTHS = {
    "velodyne_x": "the LiDAR's x, as published",
    "camera_z": "LiDAR, true depth along the camera's axis",
    "improved": "KITTI's improved depth maps",
    "dense": "dense depth of a synthetic world",
    "npy": "stored .npy beside the images",
}
CAMERAS = ("image_02", "image_03")


def split_name(
    name: str, advice: str = "for images with stored depth use --ground-truth npy"
) -> tuple[str, str, str, str]:
    """(date, drive, camera, frame) of DATE/DRIVE/image_CAMERA/data/FRAME.png; the camera is "02" or "03".

    Args:
        advice: ends the error for another name.
    """
    parts = name.split("/")
    if len(parts) != 5 or parts[2] not in CAMERAS or parts[3] != "data":
        raise InputError(
            f"{name:.200}: not the name of a KITTI raw image, expected DATE/DRIVE/image_02/data/FRAME.png (or "
            f"image_03); {advice}"
        )
    return parts[0], parts[1], parts[2].removeprefix("image_"), Path(parts[4]).stem


def is_archive(kind: str) -> bool:
    """Whether a ground truth is a file with the depth maps of a whole list."""
    return kind.endswith((".npz", ".npy"))


def describe_truth(kind: str) -> str:
    return f"depth maps of {Path(kind).name}" if is_archive(kind) else TRUTHS[kind]


def truth_files(kitti: Path, name: str, kind: str) -> list[Path]:
    """The files that the ground truth of an image is made from, there or not; that of the frame itself comes first.

    Improved depth maps lie below the raw drive, as the field's code bases have them, or in the folders train/ and val/
    of their own archive, unpacked into the same folder.
    """
    if is_archive(kind):
        return [Path(kind)]
    if kind == "npy":
        return [depth_file(kitti / name)]
    date, drive, camera, frame = split_name(name)
    if kind in ("improved", "dense"):
        below_drive = f"{drive}/proj_depth/groundtruth/image_{camera}/{frame}.png"
        places = [kitti / folder / below_drive for folder in (date, "train", "val")]
        return [next((file for file in places if file.is_file()), places[0])]
    return [
        kitti / date / drive / "velodyne_points/data" / f"{frame}.bin",
        kitti / date / "calib_velo_to_cam.txt",
        kitti / date / "calib_cam_to_cam.txt",
    ]


def read_truth(root: Path, name: str, kind: str, index: int = 0) -> KnownDepth:
    """The known depth of an image in metres, at the size that KITTI recorded it at (npy: that it is stored at).

    Args:
        root: the folder that `name` is relative to.
        index: of the image in its list, for a file with the depth maps of the whole list.
    """
    if is_archive(kind):
        return archived_truths(Path(kind))[index]
    files = truth_files(root, name, kind)
    if kind == "npy":
        return known_depth(read_depth(files[0]))
    if kind in ("improved", "dense"):
        return known_depth(read_depth_picture(files[0]))
    return known_depth(_lidar_map(root, name, kind))


@lru_cache(maxsize=2)
def archived_truths(file: Path) -> list[KnownDepth]:
    """The known depths of each map of a file, in its order; InputError if it is damaged or something else."""
    return [known_depth(depth) for depth in read_depth_archive(file)]


def _lidar_map(root: Path, name: str, kind: str) -> np.ndarray:
    """Depth [H, W] in metres of an image from its LiDAR scan, 0 = unknown."""
    date, _, camera, _ = split_name(name)
    scan_file, *calibration_files = truth_files(root, name, kind)
    changed = tuple(os.stat(file).st_mtime_ns for file in calibration_files)
    velo_to_cam, cam_to_cam = _calibration(root / date, camera, changed)
    # Not the image's own size: an image that was resized beforehand is judged on the same pixels as the original.
    width, height = cam_to_cam[f"S_rect_{camera}"]
    scan = kitti.read_velodyne(scan_file)
    return kitti.lidar_depth_map(scan, velo_to_cam, cam_to_cam, camera, (round(height), round(width)), kind)


@lru_cache
def _calibration(date_folder: Path, camera: str, changed: tuple[int, ...]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The calibration of a date's LiDAR and camera.

    Reading it takes longer than making a depth map, so it is kept until the files' times of change are others.
    """
    velo_to_cam = kitti.read_rigid_calibration(date_folder / "calib_velo_to_cam.txt")
    return velo_to_cam, kitti.read_raw_calibration(date_folder, camera)
