import os

import numpy as np
import pytest
from path import Path

from evaluation.ground_truth import read_truth, split_name, truth_files
from files.errors import InputError

DRIVE = "2011_09_26/2011_09_26_drive_0001_sync"
NAME = f"{DRIVE}/image_02/data/0000000003.png"


@pytest.fixture
def root(tmp_path):
    """A camera of 20 x 40 at the LiDAR, f = 20, and a scan of two points, 10 m ahead and 5 m ahead to the left."""
    root = Path(tmp_path) / "kitti"
    (root / DRIVE / "velodyne_points/data").makedirs_p()
    (root / "2011_09_26/calib_cam_to_cam.txt").write_text(
        "R_rect_00: 1 0 0 0 1 0 0 0 1\nS_rect_02: 40 20\nP_rect_02: 20 0 20 0 0 20 10 0 0 0 1 0\n"
    )
    (root / "2011_09_26/calib_velo_to_cam.txt").write_text("R: 0 -1 0 0 0 -1 1 0 0\nT: 0 0 -1\n")
    write_scan(root, [[10, 0, 0, 0], [5, 2, 0, 0]])
    return root


def write_scan(root, points):
    (root / DRIVE / "velodyne_points/data/0000000003.bin").write_bytes(np.array(points, "<f4").tobytes())


def test_lidar_by_hand(root):
    # z = x - 1 = 9 and 4; u = 20 + 20 X / z: 20 and 20 - 10 = 10, v = 10; each minus 1.
    for kind, depth in (("camera_z", [4, 9]), ("velodyne_x", [5, 10])):
        known = read_truth(root, NAME, kind)
        assert known.shape == (20, 40)
        assert known.rows.tolist() == [9, 9]
        assert known.columns.tolist() == [9, 19]
        assert known.depth.tolist() == depth


def test_a_changed_calibration_counts_at_once(root):
    assert read_truth(root, NAME, "camera_z").depth.tolist() == [4, 9]
    file = root / "2011_09_26/calib_velo_to_cam.txt"
    file.write_text("R: 0 -1 0 0 0 -1 1 0 0\nT: 0 0 -2\n")
    os.utime(file, ns=(0, 0))
    assert read_truth(root, NAME, "camera_z").depth.tolist() == [3, 8]


def test_files_and_names():
    assert split_name(NAME) == ("2011_09_26", "2011_09_26_drive_0001_sync", "02", "0000000003")
    with pytest.raises(InputError, match="not the name of a KITTI raw image"):
        split_name("scene/0000003.jpg")
    assert truth_files(Path("k"), "scene/0000003.jpg", "npy") == ["k/scene/0000003.npy"]
    assert truth_files(Path("k"), NAME, "dense") == [f"k/{DRIVE}/proj_depth/groundtruth/image_02/0000000003.png"]
