"""The mean depth map of a training set: what a prediction must beat that never looked at the image."""

import os
from contextlib import suppress
from hashlib import sha256

import numpy as np
from path import Path
from scipy.ndimage import distance_transform_edt
from tqdm import tqdm

from datasets.layout import depth_file, read_depth, read_scene, read_scene_names
from evaluation.predictions import load_predictions, save_predictions
from files.errors import InputError
from files.parallel import in_parallel

KEPT = "mean_depth.npz"


def mean_depth_map(root: Path, workers: int) -> tuple[np.ndarray, int]:
    """The mean over a prepared data set's training frames of each pixel's depth, where it is known.

    A pixel that no frame knows (a LiDAR does not reach the sky) gets the mean of the nearest pixel that is known.

    Reading all depth maps takes long, so the mean is kept as `root/mean_depth.npz`. It is computed anew when a depth
    map came, went or changed, or when that file is damaged. A folder that cannot be written is no error.

    Args:
        root: a prepared data set with depth (`data/prepare_kitti.py --with-depth`).
        workers: threads that read.

    Returns:
        float64 [H, W] in metres, and the number of depth maps that it is the mean of.

    Raises:
        InputError: no depth maps, or damaged ones.
    """
    files = depth_files(root)
    kept, source = Path(root) / KEPT, _fingerprint(root, files)
    mean = _read_kept(kept, source)
    if mean is None:
        mean = _mean(root, files, workers)
        with suppress(InputError, OSError):
            save_predictions(kept, "mean_depth", {"mean": mean}, {"count": len(files), "made_from": source})
    return mean, len(files)


def _fingerprint(root: Path, files: list[Path]) -> str:
    """A digest that changes when a depth map comes, goes or changes.

    It holds both of a file's times: unpacking an archive sets the modification time back to that of the archive, but
    cannot set the other.
    """
    digest = sha256(b"mean depth, version 1")
    for file in files:
        status = os.stat(file)
        times = f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"
        digest.update(f"\n{os.path.relpath(file, root)} {times}".encode(errors="surrogateescape"))
    return digest.hexdigest()


def _read_kept(file: Path, source: str) -> np.ndarray | None:
    """The mean that was kept, float64 [H, W]; None unless the file is whole and was made from these depth maps."""
    try:
        arrays, about = load_predictions(file, "mean_depth")
    except (InputError, OSError):
        return None
    mean = arrays.get("mean")
    if about.get("made_from") != source or mean is None or mean.ndim != 2 or mean.dtype != np.float64:
        return None
    return mean if mean.size and np.isfinite(mean).all() and (mean > 0).all() else None


def _mean(root: Path, files: list[Path], workers: int) -> np.ndarray:
    total = count = np.zeros(0)
    bar = tqdm(total=len(files), desc="mean depth map", unit="map", leave=False, delay=2)
    for file, depth in zip(files, in_parallel(read_depth, files, workers), strict=True):
        if not total.size:
            total, count = np.zeros(depth.shape), np.zeros(depth.shape)
        if depth.shape != total.shape:
            raise InputError(f"{file}: depth of {[*depth.shape]}, but {files[0]} has {[*total.shape]}")
        total += depth
        count += depth > 0
        bar.update()
    bar.close()
    if not count.any():
        raise InputError(f"{root}: not one of its {len(files)} depth maps knows a depth")
    mean = total / np.maximum(count, 1)
    nearest = distance_transform_edt(count == 0, return_distances=False, return_indices=True)
    return mean[tuple(nearest)]


def depth_files(root: Path) -> list[Path]:
    """The depth maps of the training scenes (`train.txt`) that are there; InputError if there are none."""
    if not (Path(root) / "train.txt").is_file():
        raise InputError(f"{root}: no prepared training set (no train.txt)")
    scenes = [read_scene(Path(root) / name) for name in read_scene_names(Path(root) / "train.txt")]
    stored = {file for scene in scenes for file in scene.folder.files("*.npy")}
    files = [file for scene in scenes for file in map(depth_file, scene.frames) if file in stored]
    if not files:
        raise InputError(f"{root}: no depth maps in its training scenes (prepare it with --with-depth)")
    return files
