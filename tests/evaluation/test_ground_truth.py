import numpy as np
import pytest
from path import Path

from datasets.formats import kitti
from evaluation import ground_truth
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


@pytest.mark.parametrize("kept", [False, True])
def test_lidar_by_hand(root, tmp_path, kept):
    cache = Path(tmp_path) / "cache" if kept else None
    for _ in range(2):
        # z = x - 1 = 9 and 4; u = 20 + 20 X / z: 20 and 20 - 10 = 10, v = 10; each minus 1.
        for kind, depth in (("camera_z", [4, 9]), ("velodyne_x", [5, 10])):
            known = read_truth(root, NAME, kind, cache=cache)
            assert known.shape == (20, 40)
            assert known.rows.tolist() == [9, 9]
            assert known.columns.tolist() == [9, 19]
            assert known.depth.tolist() == depth


def test_kept_maps_follow_scan_calibration_and_code(root, tmp_path, monkeypatch):
    cache = Path(tmp_path) / "cache"
    made = []
    lidar_depth_map = kitti.lidar_depth_map

    def counted(*arguments):
        made.append(1)
        return lidar_depth_map(*arguments)

    monkeypatch.setattr(kitti, "lidar_depth_map", counted)

    def depth():
        return read_truth(root, NAME, "camera_z", cache=cache).depth.tolist(), len(made)

    assert [depth(), depth()] == [([4, 9], 1)] * 2
    write_scan(root, [[10, 0, 0, 0], [6, 2, 0, 0]])
    assert [depth(), depth()] == [([5, 9], 2)] * 2
    (root / "2011_09_26/calib_velo_to_cam.txt").write_text("R: 0 -1 0 0 0 -1 1 0 0\nT: 0 0 -2\n")
    assert [depth(), depth()] == [([4, 8], 3)] * 2
    monkeypatch.setattr(ground_truth, "_code", lambda: "another version")
    assert [depth(), depth()] == [([4, 8], 4)] * 2
    (file,) = cache.walkfiles()  # one file an image and kind, whatever became of the older ones
    file.write_bytes(file.read_bytes()[:-3])
    assert [depth(), depth()] == [([4, 8], 5)] * 2


def test_files_and_names():
    assert split_name(NAME) == ("2011_09_26", "2011_09_26_drive_0001_sync", "02", "0000000003")
    with pytest.raises(InputError, match="not the name of a KITTI raw image"):
        split_name("scene/0000003.jpg")
    assert truth_files(Path("k"), "scene/0000003.jpg", "npy") == ["k/scene/0000003.npy"]
    assert truth_files(Path("k"), NAME, "dense") == [f"k/{DRIVE}/proj_depth/groundtruth/image_02/0000000003.png"]
