"""Depth is learnt from images alone: on a drive that training never saw it gets better than the mean depth map."""

import numpy as np
import pytest
import torch
from path import Path

import demo
from datasets.augmentation import normalise
from datasets.layout import write_intrinsics
from datasets.synthetic import WorldOptions, list_drives, write_world
from evaluation.metrics.depth import DepthProtocol, image_metrics, mean_metrics
from files.atomic import write_text
from files.images import read_depth_picture, read_image, write_jpeg
from models.checkpoint import load_model

OPTIONS = WorldOptions(
    drives=6, frames=20, width=104, height=32, halts=False, stereo=False, dense_depth=True, scan_every=100
)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Prepared drives, by name; the last is the test drive."""
    raw, prepared = (Path(tmp_path_factory.mktemp(name)) for name in ("world", "prepared"))
    write_world(raw, OPTIONS)
    drives = {}
    for drive in list_drives(OPTIONS):
        (folder,) = [folder for folder in (raw / "raw").walkdirs("*_sync") if drive.name in folder]
        files = sorted((folder / "image_02/data").files("*.png"))
        (prepared / folder.name).makedirs()
        write_intrinsics(prepared / folder.name / "cam.txt", drive.intrinsics)
        for k, file in enumerate(files):
            write_jpeg(prepared / folder.name / f"{k:07d}.jpg", read_image(file))
        depths = [read_depth_picture(folder / "proj_depth/groundtruth/image_02" / file.name) for file in files]
        drives[folder.name] = (files, np.stack(depths))
    write_text(prepared / "train.txt", "\n".join([*drives][:-1]) + "\n")
    return prepared, drives


def mean_depth_map(depths: np.ndarray) -> np.ndarray:
    count = (depths > 0).sum(0)
    return np.where(count > 0, depths.sum(0) / np.maximum(count, 1), 80)


@pytest.mark.slow
def test_depth_gets_better_than_the_mean_depth_map(world, script_here, tmp_path):
    prepared, drives = world
    flags = ("--runs", tmp_path, "--name", "run", "--steps", 300, "--workers", 0, *demo.TRAINING, "--batch-size", 4)
    script_here("train.py", prepared, *flags, "--device", "cpu", "--no-check")

    depth_net = load_model(Path(tmp_path) / "run/last.pt").depth_net
    *training, (files, truth) = drives.values()
    images = torch.from_numpy(np.stack([read_image(file) for file in files])).movedim(-1, 1)
    with torch.no_grad():
        predicted = (1 / depth_net(normalise(images))[0][:, 0]).numpy()
    mean_map = mean_depth_map(np.concatenate([depths for _, depths in training]))

    def abs_rel(depths: np.ndarray) -> float:
        protocol = DepthProtocol(cap=80, crop="garg")
        scores = [image_metrics(depth, known, protocol, where="") for depth, known in zip(depths, truth, strict=True)]
        return mean_metrics(scores)["abs_rel"]

    learned, mean = abs_rel(predicted), abs_rel(np.repeat(mean_map[None], len(truth), 0))
    print(f"Abs Rel {learned:.4f}, mean depth map {mean:.4f}")
    assert learned < mean
