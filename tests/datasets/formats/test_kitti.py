"""KITTI's formats: what they hold comes out right, what is damaged is named, LiDAR depth is the published one."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from path import Path

from datasets.formats import kitti
from files.errors import InputError

CAM_TO_CAM = """calib_time: 09-Jan-2012 13:57:47
corner_dist: 9.950000e-02
S_02: 1.392000e+03 5.120000e+02
R_rect_00: 1 0 0 0 1 0 0 0 1
S_rect_02: 40 20
P_rect_02: 20 0 19.5 2 0 20 9.5 0 0 0 1 0
"""
# x forward, y left, z up to x right, y down, z forward; the LiDAR 0.3 m behind the camera.
VELO_TO_CAM = """calib_time: 15-Mar-2012 11:37:16
R: 0 -1 0 0 0 -1 1 0 0
T: 0 0 -0.3
"""


@pytest.fixture
def folder(tmp_path):
    return Path(tmp_path)


@pytest.fixture
def calibration(folder):
    (folder / "calib_cam_to_cam.txt").write_text(CAM_TO_CAM)
    (folder / "calib_velo_to_cam.txt").write_text(VELO_TO_CAM)
    cam_to_cam = kitti.read_raw_calibration(folder, "02")
    return kitti.read_rigid_calibration(folder / "calib_velo_to_cam.txt"), cam_to_cam


# Calibration


def test_calibration_has_its_shapes(calibration):
    velo_to_cam, cam_to_cam = calibration
    assert cam_to_cam["P_rect_02"].tolist() == [[20, 0, 19.5, 2], [0, 20, 9.5, 0], [0, 0, 1, 0]]
    assert cam_to_cam["S_rect_02"].tolist() == [40, 20]
    assert cam_to_cam["R_rect_00"].shape == (3, 3)
    assert "calib_time" not in cam_to_cam
    np.testing.assert_array_equal(velo_to_cam[:3, 3], [0, 0, -0.3])


def test_odometry_calibration(folder):
    (folder / "calib.txt").write_text("P0: 7 0 3 0 0 7 2 0 0 0 1 0\nP2: 7 0 3 0.5 0 7 2 0 0 0 1 0\n")
    assert sorted(kitti.read_odometry_calibration(folder / "calib.txt")) == ["P0", "P2"]
    (folder / "calib.txt").write_text("Tr: 1 0 0 0 0 1 0 0 0 0 1 0\n")
    with pytest.raises(InputError, match="none of P0"):
        kitti.read_odometry_calibration(folder / "calib.txt")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("P_rect_02: 20 0", "P_rect_02: 20", "line 6, P_rect_02: got 11 numbers, expected 12"),
        ("P_rect_02", "P_rect_03", "no line 'P_rect_02: ...'"),
        ("19.5 2", "nan 2", "line 6, P_rect_02: got a number that is not finite"),
        ("40 20", "40 x", "line 5, S_rect_02: could not convert"),
        ("S_rect_02: 40 20", "S_rect_02 40 20", "line 5: got 'S_rect_02 40 20', expected KEY"),
        ("P_rect_02: 20", "P_rect_02: -20", "focal lengths -20 and 20"),
        ("S_rect_02: 40 20", "S_rect_02: 40 20\nS_rect_02: 40 20", "S_rect_02 for the second time"),
        ("S_rect_02: 40 20", "S_rect_02: 0 20", "S_rect_02: image size 0 x 20"),
        ("S_rect_02: 40 20", "S_rect_02: 16385 20", "S_rect_02: image size 16385 x 20, expected that of a camera"),
        ("S_rect_02: 40 20", "S_rect_02: 8192 4097", "S_rect_02: image size 8192 x 4097, expected that of a camera"),
    ],
)
def test_damaged_calibration_is_named_with_its_line(folder, old, new, message):
    (folder / "calib_cam_to_cam.txt").write_text(CAM_TO_CAM.replace(old, new))
    with pytest.raises(InputError) as caught:
        kitti.read_raw_calibration(folder, "02")
    assert "calib_cam_to_cam.txt" in str(caught.value)
    assert message in str(caught.value)


def test_offset_of_a_camera_comes_from_its_projection():
    projection = np.array([[720.0, 0, 600, 720 * 0.06], [0, 720, 170, 0], [0, 0, 1, 0]])
    np.testing.assert_allclose(kitti.camera_from_rectified(projection)[:3, 3], [0.06, 0, 0], atol=1e-12)
    point = np.array([1.0, 2, 10, 1])
    seen = projection[:, :3] @ (kitti.camera_from_rectified(projection) @ point)[:3]
    np.testing.assert_allclose(seen, projection @ point, atol=1e-9)


# Scans


def test_scan_reads_back(folder):
    points = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    points.tofile(folder / "scan.bin")
    np.testing.assert_array_equal(kitti.read_velodyne(folder / "scan.bin"), points)


def test_damaged_scan_is_named(folder):
    file = folder / "scan.bin"
    with pytest.raises(InputError, match="no such file"):
        kitti.read_velodyne(file)
    for content, message in [(b"", "0 bytes"), (bytes(17), "17 bytes")]:
        file.write_bytes(content)
        with pytest.raises(InputError, match=message):
            kitti.read_velodyne(file)
    points = np.zeros((5, 4), np.float32)
    points[3, 1] = np.nan
    points.tofile(file)
    with pytest.raises(InputError, match="point 3 is not finite"):
        kitti.read_velodyne(file)
    with open(file, "wb") as stream:
        stream.truncate(1 << 30)  # a hole: takes no room on the disk, and must take no memory
    with pytest.raises(InputError, match="at most 64 MiB"):
        kitti.read_velodyne(file)


def published_depth_map(points, projection, shape, use_x):
    """What the published code computes, step by step: slow, and with its slip in numbering pixels."""
    height, width = shape
    depth, groups = {}, {}
    for point in points[points[:, 0] >= 0].astype(np.float64):
        u, v, z = projection @ [*point[:3], 1]
        column, row = int(np.round(u / z)) - 1, int(np.round(v / z)) - 1
        if 0 <= column < width and 0 <= row < height:
            value = point[0] if use_x else z
            depth[row, column] = value
            groups.setdefault(row * (width - 1) + column - 1, []).append((row, column, value))
    for members in groups.values():
        depth[members[0][:2]] = min(value for *_, value in members)
    image = np.zeros(shape)
    for place, value in depth.items():
        image[place] = value
    return image


@pytest.mark.parametrize("kind", kitti.DEPTH_KINDS)
def test_depth_map_is_the_published_one(calibration, kind):
    velo_to_cam, cam_to_cam = calibration
    rng = np.random.default_rng(3)
    points = rng.uniform([-5, -12, -6, 0], [10, 12, 6, 1], (4000, 4)).astype(np.float32)
    points = points[np.abs(points[:, 0]) > 0.4]  # nearer than the camera is no LiDAR's return
    projection = cam_to_cam["P_rect_02"] @ velo_to_cam
    expected = published_depth_map(points, projection, (20, 40), kind == "velodyne_x")
    got = kitti.lidar_depth_map(points, velo_to_cam, cam_to_cam, "02", (20, 40), kind)
    assert got.dtype == np.float32
    assert (expected > 0).mean() > 0.5  # many pixels are hit, many of them more than once
    np.testing.assert_allclose(got, expected, rtol=1e-6)
    # The slip shows in this data: without it, some pixel at a row's end is another.
    ends = [(expected[row, -1] > 0) and (expected[row + 1, 0] > 0) for row in range(19)]
    assert any(ends)


@pytest.mark.parametrize("shape", [(20, 40), (7, 11), (64, 200)])
def test_points_that_are_looked_at_are_all_that_count(calibration, shape, monkeypatch):
    """The quick choice of points near the view changes nothing, close to the camera's plane and far out either."""
    velo_to_cam, cam_to_cam = calibration
    rng = np.random.default_rng(5)
    wide = rng.uniform([-5, -12, -6, 0], [10, 12, 6, 1], (20000, 4))
    close = rng.uniform([0.299, -0.01, -0.01, 0], [0.31, 0.01, 0.01, 1], (20000, 4))  # the camera is 0.3 m ahead
    far = wide * [1000, 1000, 1000, 1]
    points = np.concatenate([wide, close, far]).astype(np.float32)
    quick = kitti.lidar_depth_map(points, velo_to_cam, cam_to_cam, "02", shape)
    monkeypatch.setattr(kitti, "_near_the_view", lambda points, *_: np.arange(len(points)))
    assert (quick > 0).mean() > 0.3
    np.testing.assert_array_equal(quick, kitti.lidar_depth_map(points, velo_to_cam, cam_to_cam, "02", shape))


@pytest.mark.parametrize("shape", [(375, 1242), (128, 416)])
def test_a_depth_map_of_a_scan_takes_milliseconds(calibration, folder, shape):
    """2 ms on one core, reading included; the limit is what a loop over pixels would break on a busy machine, too."""
    velo_to_cam, cam_to_cam = calibration
    cam_to_cam["S_rect_02"] = np.array([1242.0, 375])
    cam_to_cam["P_rect_02"] = np.array([[721.5, 0, 609.6, 44.9], [0, 721.5, 172.9, 0.2], [0, 0, 1, 0.003]])
    random, scan = np.random.default_rng(0), folder / "scan.bin"
    around, up = random.uniform(-np.pi, np.pi, 120_000), np.radians(random.uniform(-25, 2, 120_000))
    rays = np.stack([np.cos(around) * np.cos(up), np.sin(around) * np.cos(up), np.sin(up)], -1)
    points = np.concatenate([rays * random.uniform(3, 80, (120_000, 1)), np.zeros((120_000, 1))], 1)
    points.astype(np.float32).tofile(scan)
    seconds = []
    for _ in range(20):
        start = time.process_time()
        kitti.lidar_depth_map(kitti.read_velodyne(scan), velo_to_cam, cam_to_cam, "02", shape, "velodyne_x")
        seconds.append(time.process_time() - start)
    assert min(seconds) < 0.012


def test_depth_of_one_point_by_hand(calibration):
    velo_to_cam, cam_to_cam = calibration
    point = np.array([[10.3, -2, 1, 0]], np.float32)  # camera: X = 2 + 0.1, Y = -1, Z = 10
    column, row = 20 * 2.1 / 10 + 19.5, 20 * -1 / 10 + 9.5  # 23.7, 7.5
    for as_published, pixel in ((True, (round(row) - 1, round(column) - 1)), (False, (round(row), round(column)))):
        depth = kitti.lidar_depth_map(point, velo_to_cam, cam_to_cam, "02", (20, 40), as_published=as_published)
        assert np.argwhere(depth).tolist() == [list(pixel)]
        assert depth.max() == pytest.approx(10, abs=1e-5)
    x = kitti.lidar_depth_map(point, velo_to_cam, cam_to_cam, "02", (20, 40), "velodyne_x")
    assert x.max() == pytest.approx(10.3, abs=1e-5)


def test_points_behind_the_camera_leave_no_mark(calibration):
    velo_to_cam, cam_to_cam = calibration
    points = np.array([[0.2, 0.01, 0.01, 0], [-5, 0, 0, 0], [0.3, 0, 0, 0]], np.float32)
    assert not kitti.lidar_depth_map(points, velo_to_cam, cam_to_cam, "02", (20, 40)).any()
    assert not kitti.lidar_depth_map(points[:0], velo_to_cam, cam_to_cam, "02", (20, 40)).any()


def test_a_smaller_map_holds_the_nearest_of_what_it_covers(calibration):
    velo_to_cam, cam_to_cam = calibration
    rng = np.random.default_rng(4)
    points = rng.uniform([1, -12, -6, 0], [10, 12, 6, 1], (4000, 4)).astype(np.float32)
    for as_published in (True, False):
        full = kitti.lidar_depth_map(points, velo_to_cam, cam_to_cam, "02", (20, 40), as_published=as_published)
        # A third: each small pixel covers 3 full ones, whose rounded places fall to the same small pixel.
        cam_to_cam["S_rect_02"] = np.array([39.0, 18.0])
        whole = kitti.lidar_depth_map(points, velo_to_cam, cam_to_cam, "02", (18, 39), as_published=as_published)
        small = kitti.lidar_depth_map(points, velo_to_cam, cam_to_cam, "02", (6, 13), as_published=as_published)
        blocks = np.where(whole > 0, whole, np.inf).reshape(6, 3, 13, 3).min((1, 3))
        inner = np.s_[1:-1, 1:-1]  # at the border, and at a row's end, the published slip and the image's end show
        np.testing.assert_array_equal(small[inner], np.where(np.isinf(blocks), 0, blocks)[inner])
        cam_to_cam["S_rect_02"] = np.array([40.0, 20.0])
        assert full.any()


@pytest.mark.parametrize("kind", kitti.DEPTH_KINDS)
@pytest.mark.parametrize("frame", [0, 20, 40])
def test_depth_map_of_real_scans_equals_the_reference(shared, kind, frame):
    date = shared / "kitti_raw" / "2011_09_26"
    reference = np.load(shared / "reference" / "ground_truth_depth.npz")
    expected = np.zeros((375, 1242), np.float32)
    row, column = reference[f"{frame}_{kind}_row"], reference[f"{frame}_{kind}_col"]
    expected[row, column] = reference[f"{frame}_{kind}_depth"]
    points = kitti.read_velodyne(date / f"2011_09_26_drive_0000_sync/velodyne_points/data/{frame:010d}.bin")
    velo_to_cam = kitti.read_rigid_calibration(date / "calib_velo_to_cam.txt")
    cam_to_cam = kitti.read_raw_calibration(date, "02")
    depth = kitti.lidar_depth_map(points, velo_to_cam, cam_to_cam, "02", (375, 1242), kind)
    np.testing.assert_array_equal(depth > 0, expected > 0)
    assert np.abs(depth - expected).max() < 1e-4


# OXTS packets


def packet(latitude=49.0, longitude=8.4, altitude=110.0, roll=0.0, pitch=0.0, yaw=0.0, north=0.0, east=0.0):
    values = np.zeros(30)
    values[:8] = latitude, longitude, altitude, roll, pitch, yaw, north, east
    return values


def test_oxts_reads_back(folder):
    values = packet(yaw=0.5, north=3, east=4)
    (folder / "0.txt").write_text(" ".join(map(repr, values.tolist())) + "\n")
    read = kitti.read_oxts(folder / "0.txt")
    np.testing.assert_array_equal(read, values)
    assert kitti.oxts_speed(read) == 5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "0 lines, expected 1"),
        ("1 " * 29, "line 1: got 29 numbers, expected 30"),
        ("1 " * 30 + "\n" + "1 " * 30, "2 lines"),
        ("nan " * 30, "not finite"),
        ("1e9 " * 30, "no place on a map"),
        ("a " * 30, "could not convert"),
    ],
)
def test_damaged_oxts_is_named(folder, text, message):
    (folder / "0.txt").write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        kitti.read_oxts(folder / "0.txt")
    assert str(folder / "0.txt") in str(caught.value)


def test_first_pose_is_the_identity_and_east_is_forward_at_yaw_0():
    metres_per_degree = kitti.EARTH_RADIUS * np.pi / 180
    packets = np.stack([packet(), packet(longitude=8.4 + 1e-4, altitude=111.0)])
    poses = kitti.oxts_to_poses(packets)
    np.testing.assert_allclose(poses[0], np.eye(4), atol=1e-12)
    expected = [1e-4 * metres_per_degree * np.cos(np.radians(49)), 0, 1]
    np.testing.assert_allclose(poses[1, :3, 3], expected, atol=1e-6)
    assert poses[1, 0, 3] == pytest.approx(7.30, abs=0.01)  # a degree of longitude is 73 km there


def test_north_is_left_at_yaw_0_and_forward_when_heading_north():
    step = packet(latitude=49.0 + 1e-5)
    metres = 1e-5 * kitti.EARTH_RADIUS * np.pi / 180  # 1.11 m
    np.testing.assert_allclose(kitti.oxts_to_poses(np.stack([packet(), step]))[1, :3, 3], [0, metres, 0], atol=1e-5)
    heading_north = np.stack([packet(yaw=np.pi / 2), packet(latitude=49.0 + 1e-5, yaw=np.pi / 2)])
    np.testing.assert_allclose(kitti.oxts_to_poses(heading_north)[1, :3, 3], [metres, 0, 0], atol=1e-5)


@pytest.mark.parametrize(
    ("angles", "axis", "seen_at"),
    [
        ({"yaw": 0.3}, [1, 0, 0], [np.cos(0.3), np.sin(0.3), 0]),  # left turn: forward goes to the left
        ({"pitch": 0.3}, [1, 0, 0], [np.cos(0.3), 0, -np.sin(0.3)]),  # positive = front down
        ({"roll": 0.3}, [0, 1, 0], [0, np.cos(0.3), np.sin(0.3)]),  # positive = left side up
    ],
)
def test_angles_turn_as_the_data_format_says(angles, axis, seen_at):
    poses = kitti.oxts_to_poses(np.stack([packet(), packet(**angles)]))
    np.testing.assert_allclose(poses[1, :3, :3] @ axis, seen_at, atol=1e-12)


def test_rotation_is_yaw_after_pitch_after_roll():
    yaw, pitch, roll = 0.4, -0.2, 0.1
    # The world is that of the first packet: level, looking east. Forward doesn't feel roll.
    rotation = kitti.oxts_to_poses(np.stack([packet(), packet(yaw=yaw, pitch=pitch, roll=roll)]))[1, :3, :3]
    forward = [np.cos(yaw) * np.cos(pitch), np.sin(yaw) * np.cos(pitch), -np.sin(pitch)]
    np.testing.assert_allclose(rotation[:, 0], forward, atol=1e-12)
    assert rotation[2, 1] == pytest.approx(np.sin(roll) * np.cos(pitch))  # how far up its left side looks
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)


@settings(max_examples=25, deadline=None)
@given(st.floats(-70, 70), st.floats(-179, 179), st.floats(-3, 3), st.integers(0, 10**6))
def test_poses_give_back_the_path_that_made_the_packets(latitude, longitude, heading, seed):
    rng = np.random.default_rng(seed)
    local = rng.normal(0, 30, (6, 3))
    local[0] = 0
    scale = np.cos(np.radians(latitude)) * kitti.EARTH_RADIUS
    mercator = np.log(np.tan(np.pi / 4 + np.radians(latitude) / 2)) + local[:, 1] / scale
    packets = np.zeros((6, 30))
    packets[:, 0] = np.degrees(2 * np.arctan(np.exp(mercator)) - np.pi / 2)
    packets[:, 1] = longitude + np.degrees(local[:, 0] / scale)
    packets[:, 2] = local[:, 2]
    packets[:, 5] = heading
    poses = kitti.oxts_to_poses(packets)
    cos, sin = np.cos(heading), np.sin(heading)
    expected = local @ np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
    np.testing.assert_allclose(poses[:, :3, 3], expected, atol=1e-5)
    np.testing.assert_allclose(poses[:, :3, :3], np.eye(3)[None].repeat(6, 0), atol=1e-12)


def test_real_packet_is_a_place_in_karlsruhe(shared):
    drive = shared / "kitti_raw" / "2011_09_26" / "2011_09_26_drive_0005_sync"
    packets = np.stack([kitti.read_oxts(file) for file in (drive / "oxts" / "data").files()])
    assert packets[0, :2] == pytest.approx([49.01, 8.42], abs=0.01)
    speed = kitti.oxts_speed(packets[0])
    assert speed == pytest.approx(packets[0, 8], rel=0.01)  # a car drives the way it looks
    # and it looks the way it moves: yaw counts from east, counter-clockwise
    assert np.arctan2(packets[0, 6], packets[0, 7]) == pytest.approx(packets[0, 5], abs=0.05)


# Times, poses, and any damage


def test_timestamps_and_times(folder):
    (folder / "timestamps.txt").write_text("2011-09-26 13:04:32.345808896\n2011-09-26 13:04:32.449188864\n\n")
    stamps = kitti.read_timestamps(folder / "timestamps.txt")
    assert np.diff(stamps).astype(int).tolist() == [103379968]
    (folder / "timestamps.txt").write_text("2011-09-26 13:04:32.345808896\nnoon\n")
    with pytest.raises(InputError, match="line 2: 'noon' is no time stamp"):
        kitti.read_timestamps(folder / "timestamps.txt")
    (folder / "times.txt").write_text("0.0\n1.037e-01\n")
    assert kitti.read_times(folder / "times.txt").tolist() == [0, 0.1037]


def test_a_time_belongs_to_the_number_of_its_line(folder):
    """A blank line is one frame without a time; it must not move those behind it."""
    file = folder / "timestamps.txt"
    file.write_text("".join(f"2011-09-26 13:04:3{k}.5\n" if k != 2 else "\n" for k in range(6)))
    stamps = kitti.read_timestamps(file)
    assert len(stamps) == 6
    assert kitti.frame_seconds(stamps, [3, 4, 5], file).tolist() == [0, 1, 2]
    assert stamps[4] == np.datetime64("2011-09-26T13:04:34.5")
    assert kitti.frame_seconds(stamps, [0, 1, 4], file).tolist() == [0, 1, 4]
    for frames, message in (
        ([1, 2, 3], r"6 time stamps, none for frame 2 \(expected in line 3\)"),
        ([4, 5, 6], r"6 time stamps, none for frame 6 \(expected in line 7\)"),
        ([4, 4], "the time stamps of frames 4 to 4 do not rise"),
    ):
        with pytest.raises(InputError, match=message):
            kitti.frame_seconds(stamps, frames, file)


def test_poses_read_back(folder):
    (folder / "00.txt").write_text("1 0 0 0 0 1 0 0 0 0 1 0\n1 0 0 1 0 1 0 2 0 0 1 3\n")
    assert kitti.read_poses(folder / "00.txt")[1, :, 3].tolist() == [1, 2, 3]
    (folder / "00.txt").write_text("1 0 0 0 0 1 0 0 0 0 1 0\n1 0 0 1 0 1 0 2 0 0 1\n")
    with pytest.raises(InputError, match=r"00\.txt, line 2: got 11 numbers, expected 12"):
        kitti.read_poses(folder / "00.txt")
    (folder / "00.txt").write_text("\n")
    with pytest.raises(InputError, match="no poses"):
        kitti.read_poses(folder / "00.txt")


READERS = [
    kitti.read_calibration,
    kitti.read_rigid_calibration,
    kitti.read_odometry_calibration,
    kitti.read_velodyne,
    kitti.read_oxts,
    kitti.read_timestamps,
    kitti.read_times,
    kitti.read_poses,
]
GOOD = [CAM_TO_CAM, VELO_TO_CAM, "1 0 0 0 0 1 0 0 0 0 1 0\n", "2011-09-26 13:04:32.345808896\n"]


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.__name__)
@settings(max_examples=60, deadline=None)
@given(good=st.sampled_from(GOOD), position=st.integers(0, 400), junk=st.binary(max_size=30), cut=st.booleans())
def test_damage_gives_a_result_or_our_own_error(tmp_path_factory, reader, good, position, junk, cut):
    data = bytearray(good.encode())
    data[position : position + len(junk)] = junk
    file = Path(tmp_path_factory.getbasetemp()) / "damaged"
    file.write_bytes(data[:position] if cut else data)
    try:
        result = reader(file)
    except InputError as error:
        assert str(file) in str(error)  # noqa: PT017 - either outcome is right
    else:
        for values in result.values() if isinstance(result, dict) else [result]:
            assert values.dtype.kind == "M" or np.isfinite(values).all()


def test_frames_that_come_late():
    seconds = {k: 0.1 * k for k in range(10)}
    assert kitti.time_gaps(seconds) == {}
    late = {k: second + 0.06 * (k >= 4) + 0.04 * (k >= 7) for k, second in seconds.items()}
    assert list(kitti.time_gaps(late)) == [4]  # 0.16 s is more than 1.5 times 0.1 s, 0.14 s is not
    assert kitti.time_gaps(late)[4] == pytest.approx(0.16)
    del late[3]  # a missing number is a gap that is known already
    assert kitti.time_gaps(late) == {}
    assert kitti.time_gaps({}) == kitti.time_gaps({7: 1.0}) == kitti.time_gaps(dict.fromkeys(range(5), 0.0)) == {}
