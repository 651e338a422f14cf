"""The true depth of KITTI's images: which files it is made from, and how it is read."""

from functools import lru_cache

import numpy as np
from path import Path

from datasets.images import read_depth_picture
from datasets.kitti import (
    lidar_depth_map,
    read_raw_calibration,
    read_rigid_calibration,
    read_velodyne,
)
from datasets.layout import depth_file, read_depth
from errors import InputError
from evaluation.depth_metrics import KnownDepth, known_depth

TRUTHS = {
    "velodyne_x": "the LiDAR's x, as published",
    "camera_z": "LiDAR, true depth along the camera's axis",
    "improved": "KITTI's improved depth maps",
    "dense": "dense depth of a synthetic world",
    "npy": "stored .npy beside the images",
}
CAMERAS = ("image_02", "image_03")


def split_name(name: str) -> tuple[str, str, str, str]:
    """(date, drive, camera, frame) of DATE/DRIVE/image_CAMERA/data/FRAME.png; the camera is "02" or "03"."""
    parts = name.split("/")
    if len(parts) != 5 or parts[2] not in CAMERAS or parts[3] != "data":
        raise InputError(
            f"{name}: not the name of a KITTI raw image, expected DATE/DRIVE/image_02/data/FRAME.png (or image_03); "
            "for images with stored depth use --ground-truth npy"
        )
    return parts[0], parts[1], parts[2].removeprefix("image_"), Path(parts[4]).stem


def truth_files(kitti: Path, name: str, kind: str) -> list[Path]:
    """The files that the ground truth of an image is made from, there or not; that of the frame itself comes first.

    Improved depth maps lie below the raw drive, as the field's code bases have them, or in the folders train/ and val/
    of their own archive, unpacked into the same folder.
    """
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


def read_truth(kitti: Path, name: str, kind: str) -> KnownDepth:
    """The known depth of an image in metres, at the size that KITTI recorded it at (npy: that it is stored at)."""
    files = truth_files(kitti, name, kind)
    if kind == "npy":
        return known_depth(read_depth(files[0]))
    if kind in ("improved", "dense"):
        return known_depth(read_depth_picture(files[0]))
    date, _, camera, _ = split_name(name)
    velo_to_cam, cam_to_cam = _calibration(kitti / date, camera)
    # Not the image's own size: an image that was resized beforehand is judged on the same pixels as the original.
    width, height = cam_to_cam[f"S_rect_{camera}"]
    shape = (round(height), round(width))
    return known_depth(lidar_depth_map(read_velodyne(files[0]), velo_to_cam, cam_to_cam, camera, shape, kind))


@lru_cache
def _calibration(date_folder: Path, camera: str) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    return read_rigid_calibration(date_folder / "calib_velo_to_cam.txt"), read_raw_calibration(date_folder, camera)
