"""Pictures, depths, scans and poses are views of one geometry."""

import imageio.v3 as iio
import numpy as np
import pytest
import torch
from path import Path

from datasets.formats import kitti
from datasets.synthetic import Renderer, list_drives, make_drive_renderer, make_scene
from datasets.synthetic.sensors import LIDAR_RANGE
from datasets.synthetic.textures import NAMES
from inverse_warp import inverse_warp


def read_depth(file: Path) -> np.ndarray:
    return iio.imread(file) / 256.0


def warp_errors(images, depths, source_from_target, intrinsics) -> tuple[float, float, float]:
    """Mean absolute error of warp and identity on the pixels that both frames see, and the share of those."""

    def batch(array):
        return torch.tensor(np.asarray(array, np.float64))[None]

    depth = np.where(depths[0] > 0, depths[0], 1e6)  # the sky lies at infinity
    source = batch(np.moveaxis(images[1] / 255.0, 2, 0))[None]
    source_depth = batch(np.where(depths[1] > 0, depths[1], 1e6))[None, None]
    arguments = batch(depth)[None], batch(source_from_target)[None], batch(intrinsics)
    warped, valid = inverse_warp(source, *arguments)
    there, _ = inverse_warp(1 / source_depth, *arguments)
    y, x = np.indices(depth.shape)
    points = np.linalg.inv(intrinsics) @ (np.stack([x, y, np.ones_like(x)]) * depth).reshape(3, -1)
    z = (source_from_target[2, :3] @ points + source_from_target[2, 3]).reshape(depth.shape)
    both = valid[0, 0].numpy() & (np.abs(there[0, 0, 0].numpy() * z - 1) < 0.05)
    target = images[0] / 255.0
    error = np.abs(np.moveaxis(warped[0, 0].numpy(), 0, 2) - target)[both].mean()
    return error, np.abs(images[1] / 255.0 - target)[both].mean(), both.mean()


@pytest.mark.parametrize("number", [0, 1, 2])
def test_true_depth_pose_and_k_warp_a_frame_into_its_neighbour(world, number, options):
    drive = list_drives(options)[number]
    folder = world / "raw" / drive.name
    projection = kitti.read_calibration(folder.parent / "calib_cam_to_cam.txt")["P_rect_02"]
    poses = kitti.read_poses(world / "odometry" / "poses" / f"{drive.sequence}.txt")
    poses = np.concatenate([poses, np.tile([[[0, 0, 0, 1.0]]], (len(poses), 1, 1))], 1)
    for frame, neighbour in ((0, 1), (4, 5), (8, 7)):
        names = [f"{k:010d}.png" for k in (frame, neighbour)]
        images = [iio.imread(folder / "image_02" / "data" / name) for name in names]
        depths = [read_depth(folder / "proj_depth" / "groundtruth" / "image_02" / name) for name in names]
        source_from_target = np.linalg.inv(poses[neighbour]) @ poses[frame]
        error, identity, seen = warp_errors(images, depths, source_from_target, projection[:, :3])
        assert error < 0.016, (frame, error)
        assert identity > 3 * error, (frame, identity, error)
        assert seen > 0.5


def test_true_depth_and_baseline_warp_right_into_left(world, options):
    drive = list_drives(options)[0]
    folder = world / "raw" / drive.name
    calibration = kitti.read_calibration(folder.parent / "calib_cam_to_cam.txt")
    intrinsics = calibration["P_rect_03"][:, :3]
    right_from_left = kitti.camera_from_rectified(calibration["P_rect_03"])
    assert right_from_left[0, 3] == pytest.approx(-0.54)
    name = "0000000004.png"
    images = [iio.imread(folder / camera / "data" / name) for camera in ("image_02", "image_03")]
    depths = [read_depth(folder / "proj_depth" / "groundtruth" / c / name) for c in ("image_02", "image_03")]
    error, identity, seen = warp_errors(images, depths, right_from_left, intrinsics)
    assert error < 0.016
    assert identity > 3 * error
    assert seen > 0.5


@pytest.mark.parametrize("camera", ["02", "03"])
def test_lidar_and_dense_depth_agree(world, camera, options):
    drive = list_drives(options)[1]
    folder = world / "raw" / drive.name
    calibration = kitti.read_raw_calibration(folder.parent, camera)
    velo_to_cam = kitti.read_rigid_calibration(folder.parent / "calib_velo_to_cam.txt")
    scans = sorted((folder / "velodyne_points" / "data").files("*.bin"))
    assert [scan.stem for scan in scans] == ["0000000000", "0000000004", "0000000008"]
    for scan in scans:
        points = kitti.read_velodyne(scan)
        dense = read_depth(folder / "proj_depth" / "groundtruth" / f"image_{camera}" / f"{scan.stem}.png")
        ahead = points[points[:, 0] > 1, :3].astype(np.float64)
        transform = kitti.camera_from_velodyne(calibration, velo_to_cam, camera)
        seen = (ahead @ transform[:3, :3].T + transform[:3, 3]) @ calibration[f"P_rect_{camera}"][:, :3].T
        x, y, z = *(seen[:, :2] / seen[:, 2:]).T, seen[:, 2]
        inside = (x > 0) & (x < 207) & (y > 0) & (y < 63)
        x, y, z = x[inside], y[inside], z[inside]
        # On a plane 1 / z is linear in the picture: where the four pixels around lie on one, it can be interpolated.
        left, top = x.astype(int), y.astype(int)
        corners = [1 / np.maximum(dense[top + i, left + j], 1e-3) for i in (0, 1) for j in (0, 1)]
        upper = corners[0] + (corners[1] - corners[0]) * (x - left)
        lower = corners[2] + (corners[3] - corners[2]) * (x - left)
        inverse = upper + (lower - upper) * (y - top)
        flat = np.abs(corners[0] + corners[3] - corners[1] - corners[2]) < 0.01 * inverse
        flat &= np.ptp(corners, axis=0) < 0.1 * inverse
        assert flat.sum() > 2000
        error = np.abs(inverse * z - 1)[flat]
        assert np.median(error) < 0.002
        assert (error < 0.01).mean() > 0.97  # the rest: what only one of the two sensors can see


def test_lidar_depth_map_shows_the_dense_depth_one_pixel_off(world, options):
    """KITTI's projection puts a point on pixel (round(u) - 1, round(v) - 1)."""
    drive = list_drives(options)[1]
    folder = world / "raw" / drive.name
    points = kitti.read_velodyne(folder / "velodyne_points" / "data" / "0000000004.bin")
    velo_to_cam = kitti.read_rigid_calibration(folder.parent / "calib_velo_to_cam.txt")
    calibration = kitti.read_raw_calibration(folder.parent, "02")
    sparse = kitti.lidar_depth_map(points, velo_to_cam, calibration, "02", (64, 208), "camera_z")
    dense = read_depth(folder / "proj_depth" / "groundtruth" / "image_02" / "0000000004.png")
    there = sparse[:-1, :-1] > 0
    ratio = sparse[:-1, :-1][there] / np.maximum(dense[1:, 1:][there], 1e-3)
    assert there.sum() > 2000
    assert abs(np.median(ratio) - 1) < 0.003
    assert (np.abs(ratio - 1) < 0.05).mean() > 0.85


def test_far_texture_is_filtered_not_sampled(renderer, options):
    """A picture of half the size is about the mean of 2 x 2 pixels of the full one (its lens is softer)."""
    intrinsics = list_drives(options)[0].intrinsics
    double = np.diag([2.0, 2.0, 1.0]) @ intrinsics
    double[:2, 2] += 0.5
    small = renderer.image(4, intrinsics, 64, 208).astype(float)
    large = renderer.image(4, double, 128, 416).astype(float)
    mean = large.reshape(64, 2, 208, 2, 3).mean((1, 3))
    assert np.abs(mean - small).mean() < 4
    assert np.abs(mean[1:] - small[:-1]).mean() > 8  # the bound can be missed: by one row, for example


def test_nearby_there_is_texture_on_the_road_and_far_away_on_the_houses(renderer, options):
    intrinsics = list_drives(options)[0].intrinsics
    image = renderer.image(0, intrinsics, 64, 208).astype(float).mean(2)
    depth = renderer.depth(0, intrinsics, 64, 208)
    step = np.abs(np.diff(image, axis=1))
    for near, far in ((3, 8), (8, 20), (20, 60)):
        there = (depth[:, 1:] > near) & (depth[:, 1:] < far)
        assert np.median(step[there]) > 1, (near, far)


def test_exposure_changes_the_light_and_not_the_geometry():
    plain, changing = (make_scene(np.random.default_rng(1), 20, exposure_changes=e) for e in (False, True))
    np.testing.assert_array_equal(plain.world_from_camera, changing.world_from_camera)
    np.testing.assert_array_equal(plain.polygons.corners, changing.polygons.corners)
    assert (plain.exposure == 1).all()
    assert changing.exposure.std() > 0.03
    images = []
    for scene in (plain, changing):
        renderer = Renderer(scene, np.full((len(NAMES), 256, 256, 4), 0.2))
        intrinsics = np.array([[120, 0, 103.5], [0, 120, 31], [0, 0, 1.0]])
        images.append(renderer.image(3, intrinsics, 64, 208).astype(float))
    dark = (images[0] > 20) & (images[0] < 150)
    assert np.median(images[1][dark] / images[0][dark]) == pytest.approx(changing.exposure[3], abs=0.02)


@pytest.mark.gpu
def test_a_gpu_sees_the_same(renderer, options):
    other = make_drive_renderer(options, list_drives(options)[0], "cuda")
    intrinsics = list_drives(options)[0].intrinsics
    difference = np.abs(
        other.image(4, intrinsics, 64, 208).astype(int) - renderer.image(4, intrinsics, 64, 208).astype(int)
    )
    assert (difference > 2).mean() < 0.002
    depths = other.depth(4, intrinsics, 64, 208), renderer.depth(4, intrinsics, 64, 208)
    assert (np.abs(depths[0] - depths[1]) > 1e-3 * depths[1] + 1e-3).mean() < 0.001


def test_the_lidar_has_64_beams_over_the_whole_turn(world, options):
    drive = list_drives(options)[0]
    points = kitti.read_velodyne(world / "raw" / drive.name / "velodyne_points" / "data" / "0000000000.bin")
    elevation = np.degrees(np.arctan2(points[:, 2], np.hypot(points[:, 0], points[:, 1])))
    beam = (2.0 - elevation) / (26.8 / 63)
    assert np.abs(beam - np.round(beam)).max() < 0.01
    assert len(np.unique(np.round(beam))) >= 60
    assert np.ptp(np.arctan2(points[:, 1], points[:, 0])) > 6
    assert np.linalg.norm(points[:, :3], axis=1).max() <= LIDAR_RANGE + 0.01
    assert (points[:, 3] >= 0).all()
    assert (points[:, 3] <= 1).all()
