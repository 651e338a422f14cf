import numpy as np
import pytest
from path import Path

from inference.cloud import Fusion, PointCloud, write_ply


def test_each_voxel_has_the_mean_of_its_points():
    cloud = PointCloud(1.0)
    points = np.array([[0.2, 0.2, 0.2], [0.4, 0.6, 0.8], [-0.5, 0.5, 0.5]])
    cloud.add(points[:1], np.array([[10, 20, 30]], np.uint8))
    cloud.add(points[1:], np.array([[20, 40, 60], [7, 8, 9]], np.uint8))
    found, colours = cloud.points()
    order = np.argsort(found[:, 0])
    np.testing.assert_allclose(found[order], [[-0.5, 0.5, 0.5], [0.3, 0.4, 0.5]], atol=1e-6)
    np.testing.assert_array_equal(colours[order], [[7, 8, 9], [15, 30, 45]])


def test_memory_is_bounded():
    cloud = PointCloud(0.01, most=1000)
    random = np.random.default_rng(0)
    for _ in range(20):
        cloud.add(random.uniform(-1, 1, (2000, 3)), np.zeros((2000, 3), np.uint8))
    points, _ = cloud.points()
    assert len(points) <= 1000
    assert cloud.voxel > 0.1
    np.testing.assert_allclose(points.mean(0), 0, atol=0.1)


def test_points_beyond_the_range_of_the_numbers():
    cloud = PointCloud(1e-6)
    cloud.add(np.array([[0, 0, 5.0], [1e5, 0, 0]]), np.zeros((2, 3), np.uint8))
    points, _ = cloud.points()
    np.testing.assert_allclose(points[np.argsort(points[:, 0])], [[0, 0, 5], [1e5, 0, 0]], atol=1e-3)


def test_a_wall_seen_from_a_moving_camera_is_one_plane():
    """Two cameras before a wall at z = 8 (m): depth 4 and 3 units of 2 m and 2.5 / 2 units of motion apart."""
    intrinsics = np.array([[10, 0, 4.5], [0, 10, 2.5], [0, 0, 1.0]])
    cloud = PointCloud(0.1)
    fusion = Fusion(cloud, intrinsics, scale=2.0, far=100, sure=0.5)
    image, sure = np.full((12, 20, 3), 200, np.uint8), np.ones((6, 10))
    sure[0, 0] = 0.1
    for depth in (4.0, 3.0):
        pose = np.eye(3, 4)
        pose[2, 3] = 4 - depth
        fusion.add(image, np.full((6, 10), 1 / depth), sure, pose)
    points, colours = cloud.points()
    np.testing.assert_allclose(points[:, 2], 8, atol=1e-5)
    assert (colours == 200).all()
    assert points[:, 0].max() == pytest.approx(8 * 4.5 / 10)
    corner = (points[:, 0] < -3.59) & (points[:, 1] < -1.99)
    assert not corner.any()  # the pixel that is not sure
    Fusion(cloud, intrinsics, 2.0, far=7.9, sure=0.5).add(image, np.full((6, 10), 1 / 4.0), sure, np.eye(3, 4))
    assert len(cloud.points()[0]) == len(points)  # too far


def test_points_on_an_outline_are_left_out():
    """A near thing in front of a far one, with a column of blurred depth between them."""
    disparity = np.full((6, 10), 1 / 4.0)
    disparity[:, 5], disparity[:, 6:] = 1 / 6.0, 1 / 10.0
    cloud = PointCloud(0.01)
    image = np.zeros((6, 10, 3), np.uint8)
    Fusion(cloud, np.diag([10.0, 10, 1]), 1.0, 100, 0.5).add(image, disparity, np.ones((6, 10)), np.eye(3, 4))
    depth = np.sort(cloud.points()[0][:, 2])
    np.testing.assert_allclose(depth, [4] * 24 + [10] * 18)  # without the blurred column and those beside it

    road = PointCloud(0.01)  # its disparity grows by a tenth and less from row to row
    disparity = np.linspace(1.0, 1.5, 6)[:, None].repeat(10, 1)
    Fusion(road, np.diag([10.0, 10, 1]), 1.0, 100, 0.5).add(image, disparity, np.ones((6, 10)), np.eye(3, 4))
    assert len(road.points()[0]) == 60


def test_ply(tmp_path):
    file = Path(tmp_path) / "cloud.ply"
    points = np.array([[1, 2, 3], [4, 5, 6.5]], np.float32)
    colours = np.array([[255, 0, 1], [2, 3, 4]], np.uint8)
    write_ply(file, points, colours, ["unit: metres"])
    header, _, body = file.read_bytes().partition(b"end_header\n")
    assert header.startswith(b"ply\nformat binary_little_endian 1.0\ncomment unit: metres\nelement vertex 2\n")
    rows = np.frombuffer(body, [("xyz", "<f4", 3), ("rgb", "u1", 3)])
    np.testing.assert_array_equal(rows["xyz"], points)
    np.testing.assert_array_equal(rows["rgb"], colours)
