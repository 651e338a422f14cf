"""The synthetic world is honest: its pictures, depths, scans and poses are views of one and the same geometry."""

import dataclasses
import errno
import hashlib
import itertools
import json
import os
import shutil

import imageio.v3 as iio
import numpy as np
import pytest
import torch
from path import Path

from datasets.formats import kitti
from datasets.synthetic import Renderer, WorldOptions, list_drives, make_drive_renderer, make_scene, write_world
from datasets.synthetic import render as render_module
from datasets.synthetic import textures as textures_module
from datasets.synthetic import world as world_module
from datasets.synthetic.scene import FRAME_TIME, LANE
from files.errors import InputError
from inverse_warp import inverse_warp

OPTIONS = WorldOptions(drives=3, frames=9, width=208, height=64, halts=False, dense_depth=True, seed=3)
TINY = WorldOptions(drives=2, frames=3, width=32, height=32, seed=5)


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    folder = Path(tmp_path_factory.mktemp("synthetic") / "world")
    write_world(folder, OPTIONS)
    return folder


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    folder = Path(tmp_path_factory.mktemp("synthetic") / "tiny")
    write_world(folder, TINY)
    return folder


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    return make_drive_renderer(OPTIONS, list_drives(OPTIONS)[0])


def digests(folder: Path) -> dict[str, str]:
    return {file.relpath(folder): hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.walkfiles()}


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
def test_true_depth_pose_and_k_warp_a_frame_into_its_neighbour(world, number):
    drive = list_drives(OPTIONS)[number]
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


def test_true_depth_and_baseline_warp_right_into_left(world):
    drive = list_drives(OPTIONS)[0]
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


def test_oxts_and_odometry_poses_agree(world):
    for drive in list_drives(OPTIONS):
        date = (world / "raw" / drive.name).parent
        files = sorted((world / "raw" / drive.name / "oxts" / "data").files("*.txt"))
        world_from_imu = kitti.oxts_to_poses(np.stack([kitti.read_oxts(file) for file in files]))
        calibration = kitti.read_raw_calibration(date, "02")
        velo_to_cam = kitti.read_rigid_calibration(date / "calib_velo_to_cam.txt")
        imu_to_velo = kitti.read_rigid_calibration(date / "calib_imu_to_velo.txt")
        camera_from_imu = kitti.camera_from_velodyne(calibration, velo_to_cam, "02") @ imu_to_velo
        poses = camera_from_imu @ world_from_imu @ np.linalg.inv(camera_from_imu)
        expected = kitti.read_poses(world / "odometry" / "poses" / f"{drive.sequence}.txt")
        assert np.abs(poses[:, :3, 3] - expected[:, :, 3]).max() < 0.001
        turned = np.swapaxes(expected[:, :, :3], 1, 2) @ poses[:, :3, :3]
        angle = np.linalg.norm(turned - np.eye(3), axis=(1, 2)) / np.sqrt(2)
        assert np.degrees(angle).max() < 0.001
        assert np.linalg.norm(expected[-1, :, 3]) > 2  # it drives


def test_oxts_speed_is_that_of_the_poses(world):
    drive = list_drives(OPTIONS)[0]
    files = sorted((world / "raw" / drive.name / "oxts" / "data").files("*.txt"))
    speed = kitti.oxts_speed(np.stack([kitti.read_oxts(file) for file in files]))
    poses = kitti.read_poses(world / "odometry" / "poses" / f"{drive.sequence}.txt")
    steps = np.linalg.norm(np.diff(poses[:, :, 3], axis=0), axis=1) / FRAME_TIME
    np.testing.assert_allclose(speed[1:-1], (steps[1:] + steps[:-1]) / 2, rtol=0.1)


@pytest.mark.parametrize("camera", ["02", "03"])
def test_lidar_and_dense_depth_agree(world, camera):
    drive = list_drives(OPTIONS)[1]
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


def test_lidar_depth_map_shows_the_dense_depth_one_pixel_off(world):
    """KITTI's projection puts a point on pixel (round(u) - 1, round(v) - 1)."""
    drive = list_drives(OPTIONS)[1]
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


def test_first_hits_are_those_of_plain_ray_casting(renderer):
    """Every tenth ray against every polygon and quadric of the scene, one by one, in float64."""
    intrinsics = list_drives(OPTIONS)[0].intrinsics
    depth = renderer.depth(4, intrinsics, 64, 208)
    scene, pose = renderer.scene, renderer.scene.world_from_camera[4]
    polygons, quadrics = scene.polygons_at(4), scene.quadrics
    rng = np.random.default_rng(0)
    rows, columns = rng.integers(0, 64, 300), rng.integers(0, 208, 300)
    rays = np.stack([columns, rows, np.ones_like(rows)]).T @ np.linalg.inv(intrinsics).T @ pose[:3, :3].T
    eye = pose[:3, 3]
    for ray, row, column in zip(rays, rows, columns, strict=True):
        hits = [-eye[2] / ray[2]] if ray[2] < 0 else []
        normal = np.cross(polygons.axis_u, polygons.axis_v)
        t = (normal * (polygons.origin - eye)).sum(1) / (normal @ ray)
        local = eye + t[:, None] * ray - polygons.origin
        u, v = (local * polygons.axis_u).sum(1), (local * polygons.axis_v).sum(1)
        inside = (
            polygons.edges[..., 0] + polygons.edges[..., 1] * u[:, None] + polygons.edges[..., 2] * v[:, None]
        ) > 0
        hits += t[inside.all(1) & (t > 0) & (normal @ ray < 0)].tolist()
        a = (ray**2 / quadrics.radius**2).sum(1)
        b = (ray * (eye - quadrics.centre) / quadrics.radius**2).sum(1)
        c = ((eye - quadrics.centre) ** 2 / quadrics.radius**2).sum(1) - 1
        with np.errstate(invalid="ignore"):
            t = (-b - np.sqrt(b * b - a * c)) / a
        height = eye[2] + t * ray[2]
        hits += t[(t > 0) & (height > quadrics.bottom) & (height < quadrics.top)].tolist()
        expected = min(hits, default=0.0)
        if expected < 200:
            assert depth[row, column] == pytest.approx(expected, rel=1e-3), (row, column)


def test_a_level_of_the_rip_map_holds_box_means():
    rng = np.random.default_rng(0)
    texture = rng.random((1, textures_module.SIZE, textures_module.SIZE, 4)).astype(np.float32)
    atlas = textures_module.rip_maps(texture)[0]
    for i, j in ((0, 0), (3, 1), (0, 8), (8, 8)):
        left, top = textures_module.level_offset(i), textures_module.level_offset(j)
        width, height = textures_module.SIZE >> i, textures_module.SIZE >> j
        expected = texture[0].reshape(height, 1 << j, width, 1 << i, 4).mean((1, 3))
        np.testing.assert_allclose(atlas[top : top + height, left : left + width], expected, atol=1e-5)


def test_far_texture_is_filtered_not_sampled(renderer):
    """A picture of half the size is about the mean of 2 x 2 pixels of the full one (its lens is softer)."""
    intrinsics = list_drives(OPTIONS)[0].intrinsics
    double = np.diag([2.0, 2.0, 1.0]) @ intrinsics
    double[:2, 2] += 0.5
    small = renderer.image(4, intrinsics, 64, 208).astype(float)
    large = renderer.image(4, double, 128, 416).astype(float)
    mean = large.reshape(64, 2, 208, 2, 3).mean((1, 3))
    assert np.abs(mean - small).mean() < 4
    assert np.abs(mean[1:] - small[:-1]).mean() > 8  # the bound can be missed: by one row, for example


def test_nearby_there_is_texture_on_the_road_and_far_away_on_the_houses(renderer):
    intrinsics = list_drives(OPTIONS)[0].intrinsics
    image = renderer.image(0, intrinsics, 64, 208).astype(float).mean(2)
    depth = renderer.depth(0, intrinsics, 64, 208)
    step = np.abs(np.diff(image, axis=1))
    for near, far in ((3, 8), (8, 20), (20, 60)):
        there = (depth[:, 1:] > near) & (depth[:, 1:] < far)
        assert np.median(step[there]) > 1, (near, far)


def test_speed_and_turns_are_those_of_a_car():
    for seed in range(6):
        scene = make_scene(np.random.default_rng(seed), 80)
        steps = np.linalg.norm(np.diff(scene.world_from_camera[:, :3, 3], axis=0), axis=1)
        assert steps.max() < 1.55
        assert (np.abs(np.diff(steps)) < 0.06).all()
        standing = steps < 1e-6
        rotation = scene.world_from_camera[:, :3, :3]
        turn = np.swapaxes(rotation[:-1], 1, 2) @ rotation[1:]
        assert np.degrees(np.arccos(np.clip((np.trace(turn, axis1=1, axis2=2) - 1) / 2, -1, 1))).max() < 4
        # It keeps to its lane.
        away = np.linalg.norm(scene.road.points[None] - scene.world_from_camera[:, None, :2, 3], axis=-1).min(1)
        assert np.abs(away - LANE).max() < 1.3
        if standing.any():
            assert (scene.world_from_camera[:-1][standing] == scene.world_from_camera[1:][standing]).all()


def test_halts_are_static_frames_and_can_be_left_out():
    standing: list[int] = []
    for halts in (True, False):
        steps = []
        for seed in range(6):
            scene = make_scene(np.random.default_rng(seed), 80, halts=halts)
            steps.append(np.linalg.norm(np.diff(scene.world_from_camera[:, :3, 3], axis=0), axis=1))
            static = np.flatnonzero(steps[-1] < 1e-6)
            assert (scene.light[static] == scene.light[static + 1]).all()
            assert len(np.unique(scene.light)) == 80 - len(static)
        standing.append((np.concatenate(steps) < 1e-6).sum())
    assert standing[0] >= 20
    assert standing[1] == 0
    assert np.concatenate(steps).min() > 0.25


def test_a_long_drive_halts_again_and_again():
    for seed in range(3):
        scene = make_scene(np.random.default_rng(seed), 600)
        standing = np.linalg.norm(np.diff(scene.world_from_camera[:, :3, 3], axis=0), axis=1) < 1e-6
        assert 2 <= (np.diff(standing.astype(int)) == 1).sum() <= 6
        assert 0.02 < standing.mean() < 0.25


def test_no_car_drives_backwards_or_through_another():
    for seed in range(8):
        scene = make_scene(np.random.default_rng(seed), 60, moving_cars=True)
        ahead, *oncoming = scene.movers
        forward = np.stack([np.cos(ahead.heading), np.sin(ahead.heading)], -1)[:-1]
        assert (np.einsum("nk,nk->n", np.diff(ahead.position, axis=0)[:, :2], forward) > -1e-6).all()
        for other, one in itertools.pairwise(oncoming):
            apart = np.linalg.norm(one.position - other.position, axis=-1)
            start = np.linalg.norm(one.position - scene.road.points[0], axis=-1)
            assert apart[start > 20].min(initial=99) > 10  # the road's start is far behind the camera


def test_moving_cars_move_and_nothing_else_does():
    scene = make_scene(np.random.default_rng(1), 20, moving_cars=True)
    parked = make_scene(np.random.default_rng(1), 20)
    assert len(scene.movers) >= 2
    first, last = scene.polygons_at(0).corners, scene.polygons_at(19).corners
    still = len(parked.polygons.corners)
    np.testing.assert_array_equal(first[:still], parked.polygons.corners)
    np.testing.assert_array_equal(first[:still], last[:still])
    moved = np.linalg.norm(last[still:] - first[still:], axis=-1)
    assert moved.min() > 1
    np.testing.assert_allclose(  # rigidly
        np.linalg.norm(first[-1, 0] - first[-1, 2]), np.linalg.norm(last[-1, 0] - last[-1, 2]), atol=1e-9
    )


def test_exposure_changes_the_light_and_not_the_geometry():
    plain, changing = (make_scene(np.random.default_rng(1), 20, exposure_changes=e) for e in (False, True))
    np.testing.assert_array_equal(plain.world_from_camera, changing.world_from_camera)
    np.testing.assert_array_equal(plain.polygons.corners, changing.polygons.corners)
    assert (plain.exposure == 1).all()
    assert changing.exposure.std() > 0.03
    images = []
    for scene in (plain, changing):
        renderer = Renderer(scene, np.full((len(textures_module.NAMES), 256, 256, 4), 0.2))
        intrinsics = np.array([[120, 0, 103.5], [0, 120, 31], [0, 0, 1.0]])
        images.append(renderer.image(3, intrinsics, 64, 208).astype(float))
    dark = (images[0] > 20) & (images[0] < 150)
    assert np.median(images[1][dark] / images[0][dark]) == pytest.approx(changing.exposure[3], abs=0.02)


def test_the_focal_length_can_differ_between_drives():
    options = dataclasses.replace(OPTIONS, drives=5, vary_focal=True)
    drives = list_drives(options)
    focal = [drive.intrinsics[0, 0] for drive in drives]
    assert len(set(focal)) == len({drive.date for drive in drives}) == 5
    assert 0.8 * 0.581 * 208 <= min(focal) < max(focal) <= 1.25 * 0.581 * 208
    assert len({drive.intrinsics[0, 0] for drive in list_drives(OPTIONS)}) == 1


def test_layout_and_splits(world):
    drives = list_drives(OPTIONS)
    assert [drive.split for drive in drives] == ["train", "val", "test"]
    assert [drive.sequence for drive in drives] == ["00", "01", "09"]
    splits = {name: (world / "splits" / name).read_text().split() for name in os.listdir(world / "splits")}
    assert splits["test_scenes.txt"] == ["2029_01_01_drive_0003"]
    folder = "2029_01_01/2029_01_01_drive_0003_sync/image_02/data"
    assert splits["test_files.txt"] == [f"{folder}/{frame:010d}.png" for frame in (0, 4, 8)]
    for drive in drives:
        assert len((world / "raw" / drive.name / "image_03" / "data").files("*.png")) == OPTIONS.frames
        stamps = kitti.read_timestamps(world / "raw" / drive.name / "image_02" / "timestamps.txt")
        assert (np.diff(stamps) == np.timedelta64(100, "ms")).all()
        sequence = world / "odometry" / "sequences" / drive.sequence
        times = kitti.read_times(sequence / "times.txt")
        np.testing.assert_allclose(times, 0.1 * np.arange(OPTIONS.frames))
        calibration = kitti.read_odometry_calibration(sequence / "calib.txt")
        np.testing.assert_allclose(calibration["P2"][:, :3], drive.intrinsics)
        image = iio.imread(sequence / "image_2" / "000008.png")
        assert image.shape == (64, 208, 3)
        raw = world / "raw" / drive.name / "image_02" / "data" / "0000000008.png"
        np.testing.assert_array_equal(image, iio.imread(raw))
    assert not (world / ".unfinished").exists()


def test_a_large_world_has_all_splits_and_22_sequences():
    drives = list_drives(WorldOptions(drives=100))
    assert sum(drive.split == "test" for drive in drives) == 20
    assert sum(drive.split == "val" for drive in drives) == 10
    sequences = [drive.sequence for drive in drives if drive.sequence]
    assert sequences == [f"{k:02d}" for k in range(22)]
    assert all(int(drive.sequence) >= 9 for drive in drives if drive.split == "test" and drive.sequence)
    assert len({drive.name for drive in drives}) == 100


def test_another_seed_gives_another_world():
    options = [dataclasses.replace(TINY, seed=seed) for seed in (5, 6)]
    scenes = [world_module.make_drive_scene(o, list_drives(o)[0]) for o in options]
    assert not np.allclose(scenes[0].world_from_camera[1], scenes[1].world_from_camera[1])
    names = [
        {drive.scene for drive in list_drives(dataclasses.replace(o, vary_focal=True, drives=400))} for o in options
    ]
    assert not names[0] & names[1]
    assert len(names[0]) == 400


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bytes_in_two_processes(tiny, tmp_path):
    write_world(tmp_path / "again", TINY, jobs=2)
    assert digests(Path(tmp_path / "again")) == digests(tiny)


def test_begun_before_it_goes_on_with_what_is_missing(tiny, tmp_path):
    folder = Path(tmp_path / "world")
    shutil.copytree(tiny, folder)
    kept, lost = (folder / "raw" / drive.name for drive in list_drives(TINY))
    lost.rmtree()
    (folder / "odometry" / "sequences" / "09").rmtree()
    (folder / "odometry" / "poses" / "00.txt").remove()
    (folder / ".unfinished" / "2031_01_01_drive_0002" / "image_02").makedirs()
    before = {file: file.stat().st_mtime_ns for file in kept.walkfiles()}
    write_world(folder, TINY)
    assert digests(folder) == digests(tiny)
    assert before == {file: file.stat().st_mtime_ns for file in kept.walkfiles()}


def test_a_drive_that_lost_images_is_named(tiny, tmp_path):
    folder = Path(tmp_path / "world")
    shutil.copytree(tiny, folder)
    (folder / "raw" / list_drives(TINY)[1].name / "image_02" / "data" / "0000000001.png").remove()
    with pytest.raises(InputError, match=r"drive_0002_sync/image_02/data: 2 images, expected the 3 .* renders it anew"):
        write_world(folder, TINY)


def test_a_failure_leaves_no_drive_that_looks_whole(tmp_path, monkeypatch):
    real = Renderer.image
    monkeypatch.setattr(
        Renderer, "image", lambda self, frame, *rest: real(self, frame, *rest) if frame < 2 else full_disk()
    )

    def full_disk():
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match=r"No space left on device; .* the same command goes on"):
        write_world(tmp_path / "world", TINY)
    folder = Path(tmp_path / "world")
    assert not list(folder.walkdirs("*_sync*"))
    assert not (folder / ".unfinished").exists()
    monkeypatch.undo()
    write_world(folder, TINY)
    assert (folder / "raw" / list_drives(TINY)[1].name / "image_02").is_dir()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"drives": 0}, "drives: got 0"),
        ({"drives": -3}, "drives: got -3"),
        ({"frames": 2}, "frames: got 2"),
        ({"width": 16}, "width: got 16"),
        ({"height": 5000}, "height: got 5000"),
        ({"moving_cars": 1.5}, "share of 1.5"),
        ({"moving_cars": float("nan")}, "share of nan"),
        ({"moving_cars": 0.1}, "less than one drive"),
        ({"scan_every": 0}, "scan every: got 0"),
        ({"jitter": -1.0}, "jitter: got -1"),
        ({"seed": -1}, "seed: got -1"),
    ],
)
def test_options_that_no_world_can_be_made_of(change, message, tmp_path):
    with pytest.raises(InputError, match=message):
        write_world(tmp_path / "world", dataclasses.replace(TINY, **change))
    assert not os.listdir(tmp_path)


def test_a_folder_with_something_else_stays_as_it_is(tmp_path):
    Path(tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(InputError, match="holds something else"):
        write_world(tmp_path, TINY)
    with pytest.raises(InputError, match="is a file"):
        write_world(tmp_path / "letter.txt", TINY)
    assert os.listdir(tmp_path) == ["letter.txt"]


def test_a_world_of_other_options_stays_as_it_is(tiny):
    before = digests(tiny)
    with pytest.raises(InputError, match=r"seed 5 \(now 6\)"):
        write_world(tiny, dataclasses.replace(TINY, seed=6))
    assert digests(tiny) == before


@pytest.mark.parametrize("content", ["", "[]", "{", "\x00"])
def test_damaged_options(content, tmp_path):
    Path(tmp_path / "world.json").write_text(content)
    with pytest.raises(InputError, match="world's options"):
        write_world(tmp_path, TINY)


def test_no_room_on_the_disk(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(world_module.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(InputError, match="no room for 2 drives"):
        write_world(tmp_path / "world", TINY)
    assert not os.listdir(tmp_path)


def test_a_disk_that_is_full_from_the_first_file_on_leaves_a_folder_to_begin_in(tmp_path, monkeypatch):
    folder = Path(tmp_path / "world")
    with monkeypatch.context() as full:
        full.setattr(Path, "write_text", lambda file, text, **_: file.touch() and _full())
        with pytest.raises(OSError, match="No space left"):
            write_world(folder, TINY)
    assert list(folder.walkfiles()) == [folder / ".lock"]
    (folder / "world.json.part").touch()  # killed there
    write_world(folder, dataclasses.replace(TINY, drives=1))
    assert (folder / "raw" / list_drives(TINY)[0].name).is_dir()


def _full():
    raise OSError(errno.ENOSPC, "No space left on device")


def test_stored_options_are_those_it_was_made_with(tiny):
    assert WorldOptions(**json.loads((tiny / "world.json").read_text())) == TINY


@pytest.mark.gpu
def test_a_gpu_sees_the_same(renderer):
    other = make_drive_renderer(OPTIONS, list_drives(OPTIONS)[0], "cuda")
    intrinsics = list_drives(OPTIONS)[0].intrinsics
    difference = np.abs(
        other.image(4, intrinsics, 64, 208).astype(int) - renderer.image(4, intrinsics, 64, 208).astype(int)
    )
    assert (difference > 2).mean() < 0.002
    depths = other.depth(4, intrinsics, 64, 208), renderer.depth(4, intrinsics, 64, 208)
    assert (np.abs(depths[0] - depths[1]) > 1e-3 * depths[1] + 1e-3).mean() < 0.001


def test_the_lidar_has_64_beams_over_the_whole_turn(world):
    drive = list_drives(OPTIONS)[0]
    points = kitti.read_velodyne(world / "raw" / drive.name / "velodyne_points" / "data" / "0000000000.bin")
    elevation = np.degrees(np.arctan2(points[:, 2], np.hypot(points[:, 0], points[:, 1])))
    beam = (2.0 - elevation) / (26.8 / 63)
    assert np.abs(beam - np.round(beam)).max() < 0.01
    assert len(np.unique(np.round(beam))) >= 60
    assert np.ptp(np.arctan2(points[:, 1], points[:, 0])) > 6
    assert np.linalg.norm(points[:, :3], axis=1).max() <= render_module.LIDAR_RANGE + 0.01
    assert (points[:, 3] >= 0).all()
    assert (points[:, 3] <= 1).all()
