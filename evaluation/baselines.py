"""The mean depth map of a training set: what a prediction must beat that never looked at the image."""

import sys

import numpy as np
from path import Path
from scipy.ndimage import distance_transform_edt
from tqdm import tqdm

from datasets.layout import depth_file, read_depth, read_scene, read_scene_names
from evaluation.cache import cached, code_state, file_states
from files.errors import InputError
from files.parallel import in_parallel


def mean_depth_map(root: Path, workers: int, cache: Path | None = None) -> tuple[np.ndarray, int]:
    """The mean over a prepared data set's training frames of each pixel's depth, where it is known.

    A pixel that no frame knows (a LiDAR doesn't reach the sky) gets the mean of the nearest pixel that is known.

    Args:
        root: a prepared data set with depth (`data/prepare_kitti.py --with-depth`).
        workers: threads that read.
        cache: where the map is kept, if anywhere; it is made anew when a depth map came, went or changed.

    Returns:
        float64 [H, W] in metres, and of how many frames it is the mean. InputError without depth maps, or with damaged
        ones.
    """
    files = depth_files(root)
    key = {"files": file_states(files), "code": code_state(sys.modules[__name__])}
    name = f"mean {Path(root).absolute()}"
    made = cached(cache and cache / "mean_maps", name, key, lambda: {"mean": _mean(root, files, workers)})
    return made["mean"], len(files)


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
