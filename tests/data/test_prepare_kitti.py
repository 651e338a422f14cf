"""prepare_kitti.py on small folders in KITTI's layouts: what comes out, and what happens when something is wrong."""

import os
import signal
import subprocess
import sys
import time

from cli.flags import run_script

import numpy as np
import pytest
from path import Path
from PIL import Image
from scipy.ndimage import gaussian_filter

from data import prepare_kitti
from datasets.formats import kitti
from datasets.layout import read_depth, read_scene
from files.errors import WriteError
from files.images import read_image, resize_area

SCRIPT = Path(__file__).absolute().parent.parent.parent / "data" / "prepare_kitti.py"
HEIGHT, WIDTH = 36, 120  # of the made images
FOCAL = {"2011_09_26": 70.0, "2011_09_28": 80.0}  # each date has its own calibration
OFFSET = {"00": 0.0, "01": -0.54, "02": 0.06, "03": -0.48}


def picture(frame, seed=0):
    """A textured picture that moves by 2 pixels a frame; colour 03 sees another part."""
    rng = np.random.default_rng(seed)
    base = gaussian_filter(rng.normal(size=(HEIGHT, 2 * WIDTH, 3)), (2, 2, 0), mode="wrap")
    base = np.interp(base, [base.min(), base.max()], [0, 255]).astype(np.uint8)
    return np.roll(base, -2 * frame, axis=1)[:, :WIDTH]


def save_image(file, image):
    file.parent.makedirs_p()
    Image.fromarray(image).save(file)


def write_calibration(date, focal):
    lines = ["calib_time: 09-Jan-2012 13:57:47", "R_rect_00: 1 0 0 0 1 0 0 0 1"]
    for camera, offset in OFFSET.items():
        lines.append(f"S_rect_{camera}: {WIDTH} {HEIGHT}")
        lines.append(f"P_rect_{camera}: {focal} 0 58 {focal * offset} 0 {focal} 17 0 0 0 1 0")
    (date / "calib_cam_to_cam.txt").write_text("\n".join(lines) + "\n")
    (date / "calib_velo_to_cam.txt").write_text("R: 0 -1 0 0 0 -1 1 0 0\nT: 0 -0.08 -0.27\n")
    (date / "calib_imu_to_velo.txt").write_text("R: 1 0 0 0 1 0 0 0 1\nT: -0.81 0.32 -0.8\n")


def packet(metres_east, yaw=0.0, speed=10.0):
    latitude = 49.0
    degrees = np.degrees(metres_east / (kitti.EARTH_RADIUS * np.cos(np.radians(latitude))))
    values = [latitude, 8.4 + degrees, 110, 0, 0, yaw, 0, speed] + [0] * 22
    return " ".join(repr(float(value)) for value in values)


def write_drive(root, date, number, frames=range(6), cameras=("02", "03"), seed=0):
    drive = root / date / f"{date}_drive_{number:04d}_sync"
    for camera in cameras:
        for frame in frames:
            image = picture(frame, seed + int(camera))
            save_image(drive / f"image_{camera}/data/{frame:010d}.png", image[..., 0] if camera < "02" else image)
    for frame in frames:
        (drive / "oxts/data").makedirs_p()
        (drive / f"oxts/data/{frame:010d}.txt").write_text(packet(1.5 * frame))
    for frame in list(frames)[::4]:
        (drive / "velodyne_points/data").makedirs_p()
        rng = np.random.default_rng(frame)
        points = rng.uniform([-20, -10, -2, 0], [30, 10, 2, 1], (3000, 4)).astype(np.float32)
        points.tofile(drive / f"velodyne_points/data/{frame:010d}.bin")
    return drive


@pytest.fixture
def folder(tmp_path):
    return Path(tmp_path)


@pytest.fixture
def raw(folder):
    """Two dates, four drives, one of them an Eigen test drive."""
    root = folder / "kitti"
    for date, focal in FOCAL.items():
        (root / date).makedirs_p()
        write_calibration(root / date, focal)
    write_drive(root, "2011_09_26", 1, seed=10)
    write_drive(root, "2011_09_26", 2, seed=20)  # of the Eigen test split
    write_drive(root, "2011_09_26", 5, seed=30)
    write_drive(root, "2011_09_28", 300, seed=40)
    return root


@pytest.fixture
def prepare(folder, monkeypatch, capsys):
    """Run the script in this process, 60 x 18, on one worker; gives what it printed."""

    def run(root, *flags, out="out", jobs=1, size=(18, 60)):
        where = ["--height", str(size[0]), "--width", str(size[1]), "--jobs", str(jobs)]
        monkeypatch.setattr(sys, "argv", ["prepare_kitti.py", str(root), str(folder / out), *where, *flags])
        run_script(prepare_kitti.main)
        return capsys.readouterr().out

    return run


@pytest.fixture
def refuse(prepare, capsys):
    """Run the script, which must end with one line and status 1; gives the line."""

    def run(*arguments, **options):
        with pytest.raises(SystemExit) as caught:
            prepare(*arguments, **options)
        lines = [line for line in capsys.readouterr().err.splitlines() if "error: " in line]
        assert caught.value.code == 1
        assert len(lines) == 1
        return lines[0]

    return run


def names(file):
    return file.read_text().split()


def contents(root):
    """All files below a folder, to compare."""
    return {str(root.relpathto(file)): file.read_bytes() for file in root.walkfiles()}


# What comes out


def test_raw_images_cameras_and_lists(raw, prepare, folder):
    printed = prepare(raw, jobs=2)
    out = folder / "out"
    listed = names(out / "train.txt") + names(out / "val.txt")
    drives = ["2011_09_26_drive_0001_sync", "2011_09_26_drive_0005_sync", "2011_09_28_drive_0300_sync"]
    assert sorted(listed) == [f"{drive}_{camera}" for drive in drives for camera in ("02", "03")]
    assert not [name for name in out.dirs() if "drive_0002" in name]
    assert "1 of 4 drives are left out" in printed
    for name in listed:
        scene = read_scene(out / name)
        assert [frame.name for frame in scene.frames] == [f"{i:07d}.jpg" for i in range(6)]
        focal = FOCAL[name[:10]]
        # x' = (x + 0.5) / 2 - 0.5
        expected = [[focal / 2, 0, 58.5 / 2 - 0.5], [0, focal / 2, 17.5 / 2 - 0.5], [0, 0, 1]]
        np.testing.assert_allclose(scene.intrinsics, expected, atol=1e-9)
        assert scene.poses is None
        drive, camera = name.rsplit("_", 1)
        source = read_image(raw / name[:10] / drive / f"image_{camera}/data/0000000003.png")
        difference = read_image(scene.frames[3]).mean(2) - resize_area(source, 18, 60).mean(2)
        assert np.abs(difference).mean() < 6  # JPEG, on fine texture; another frame is 40 away
        assert not list(scene.folder.files("*.npy"))


def test_both_cameras_of_a_drive_are_on_the_same_side_and_the_seed_decides(raw, prepare, folder):
    sides = {}
    for out, flags in (("a", ["--seed", "1"]), ("b", ["--seed", "1"]), ("c", ["--seed", "2"])):
        prepare(raw, "--keep-test-scenes", "--val-fraction", "0.5", *flags, out=out)
        sides[out] = [names(folder / out / name) for name in ("train.txt", "val.txt")]
        train, val = ({name[:-3] for name in side} for side in sides[out])
        assert not train & val
        assert len(train) == len(val) == 2
    assert sides["a"] == sides["b"] != sides["c"]


def test_a_list_of_ones_own_is_left_out(raw, prepare, folder):
    (folder / "test.txt").write_text("2011_09_26_drive_0001\n2011_09_28/2011_09_28_drive_0300_sync\n")
    prepare(raw, "--test-scenes", folder / "test.txt", "--cameras", "3")
    assert sorted(names(folder / "out/train.txt") + names(folder / "out/val.txt")) == [
        "2011_09_26_drive_0002_sync_03",
        "2011_09_26_drive_0005_sync_03",
    ]


@pytest.mark.parametrize(
    "form",
    ["{drive}", "./{drive}/", "2011_09_26/{drive}_sync/", "2011_09_26\\{drive}_sync", "{root}/2011_09_26/{drive}_sync"],
)
def test_a_test_drive_is_left_out_however_its_list_writes_it(raw, prepare, refuse, folder, form):
    (folder / "test.txt").write_text(form.format(drive="2011_09_26_drive_0001", root=raw) + "\n")
    prepare(raw, "--test-scenes", folder / "test.txt", "--cameras", "02")
    listed = names(folder / "out/train.txt") + names(folder / "out/val.txt")
    assert len(listed) == 3
    assert "2011_09_26_drive_0001_sync_02" not in listed
    (folder / "test.txt").write_text("2011_09_26_drive_1\n")
    assert "'2011_09_26_drive_1' names no drive, expected" in refuse(raw, "--test-scenes", folder / "test.txt")


def test_a_single_drive_is_all_for_training(raw, prepare, folder):
    (folder / "test.txt").write_text("2011_09_26_drive_0001\n2011_09_28_drive_0300\n2011_09_26_drive_0002\n")
    assert "too few drives to split: all scenes are for training" in prepare(raw, "--test-scenes", folder / "test.txt")
    assert len(names(folder / "out/train.txt")) == 2
    assert names(folder / "out/val.txt") == []


def test_depth_where_there_is_a_scan(raw, prepare, folder):
    prepare(raw, "--with-depth")
    drive = raw / "2011_09_28/2011_09_28_drive_0300_sync"
    scene = read_scene(folder / "out/2011_09_28_drive_0300_sync_03")
    assert [frame.stem for frame in scene.frames if frame.with_suffix(".npy").exists()] == ["0000000", "0000004"]
    depth = read_depth(scene.folder / "0000004.npy")
    assert depth.shape == (18, 60)
    # By hand: the nearest point at each pixel of this camera, as cam.txt has it.
    points = kitti.read_velodyne(drive / "velodyne_points/data/0000000004.bin")[:, :3].astype(float)
    points = points[points[:, 0] >= 0]
    camera = np.stack([-points[:, 1] + OFFSET["03"], -points[:, 2] - 0.08, points[:, 0] - 0.27])
    camera = camera[:, camera[2] > 0]
    u, v, _ = np.rint(scene.intrinsics @ camera / camera[2]).astype(int)
    expected = np.full((18, 60), np.inf)
    inside = (u >= 0) & (u < 60) & (v >= 0) & (v < 18)
    np.minimum.at(expected, (v[inside], u[inside]), camera[2, inside])
    assert inside.sum() > 300
    np.testing.assert_allclose(depth, np.where(np.isinf(expected), 0, expected), rtol=1e-5)


def test_frames_without_a_scan_are_in_the_report(raw, prepare, folder):
    (raw / "2011_09_26/2011_09_26_drive_0005_sync/velodyne_points").rmtree()
    printed = prepare(raw, "--with-depth", "--cameras", "02")
    report = (folder / "out/prepare_report.txt").read_text().splitlines()
    expected = [f"2011_09_26_drive_0001_sync_02 {frame:07d}: no depth: no scan" for frame in (1, 2, 3, 5)]
    expected += [f"2011_09_26_drive_0005_sync_02 {frame:07d}: no depth: no scan" for frame in range(6)]
    assert [line for line in report if "0300" not in line] == expected
    assert "14 frames have no scan, and so no depth" in printed
    assert "missing or damaged" not in printed
    again = prepare(raw, "--with-depth", "--cameras", "02")
    assert "nothing to do" in again
    assert "14 frames have no scan" in again
    assert "no scan" not in prepare(raw, out="without")
    assert "no scan" not in (folder / "without/prepare_report.txt").read_text()


def test_poses_from_oxts(raw, prepare, folder):
    # A straight line east at 1.5 m a frame, looking ahead; then, in another drive, a turn on the spot.
    turn = raw / "2011_09_28/2011_09_28_drive_0300_sync/oxts/data"
    for frame in range(6):
        (turn / f"{frame:010d}.txt").write_text(packet(0, yaw=0.2 * frame))
    prepare(raw, "--with-poses")
    poses = read_scene(folder / "out/2011_09_26_drive_0001_sync_03").poses
    np.testing.assert_allclose(poses[:, :, :3], np.broadcast_to(np.eye(3), (6, 3, 3)), atol=1e-9)
    np.testing.assert_allclose(poses[:, :, 3], 1.5 * np.arange(6)[:, None] * [0, 0, 1], atol=1e-4)
    for camera in ("02", "03"):
        poses = read_scene(folder / f"out/2011_09_28_drive_0300_sync_{camera}").poses
        np.testing.assert_array_equal(poses[0], np.eye(4)[:3])
        # A turn to the left about the IMU: the camera rotates about its y axis, which points down, by minus the yaw ...
        angle = 0.2 * 5
        rotation = [[np.cos(angle), 0, -np.sin(angle)], [0, 1, 0], [np.sin(angle), 0, np.cos(angle)]]
        np.testing.assert_allclose(poses[5, :, :3], rotation, atol=1e-9)
        # ... and the IMU, wherever it is in the camera's frame, stays in its place.
        imu = np.array([-0.32 + OFFSET[camera], 0.8 - 0.08, -0.81 - 0.27])
        np.testing.assert_allclose(poses[5] @ [*imu, 1], imu, atol=1e-9)


def test_static_by_the_speed(raw, prepare, folder):
    for frame in (2, 3):
        file = raw / f"2011_09_26/2011_09_26_drive_0001_sync/oxts/data/{frame:010d}.txt"
        file.write_text(packet(0, speed=0.4))
    printed = prepare(raw, "--static", "speed", "--with-poses")
    for camera in ("02", "03"):
        scene = read_scene(folder / f"out/2011_09_26_drive_0001_sync_{camera}")
        assert [int(frame.stem) for frame in scene.frames] == [0, 1, 4, 5]
        assert len(scene.poses) == 4
    assert "4 static frames left out" in printed
    prepare(raw, "--static", "speed", "--min-speed", "0.3", out="slower")
    assert len(read_scene(folder / "slower/2011_09_26_drive_0001_sync_02").frames) == 6
    assert read_scene(folder / "out/2011_09_26_drive_0001_sync_02").breaks == ()  # the camera stood


def test_static_by_the_published_list_for_both_cameras(raw, prepare, folder):
    write_drive(raw, "2011_09_26", 17)  # the list has 0, 1, 4 and 5 of it
    prepare(raw)
    for camera in ("02", "03"):
        scene = read_scene(folder / f"out/2011_09_26_drive_0017_sync_{camera}")
        assert [int(frame.stem) for frame in scene.frames] == [2, 3]
    prepare(raw, "--static", "none", out="all")
    assert len(read_scene(folder / "all/2011_09_26_drive_0017_sync_02").frames) == 6


def test_static_by_the_images(raw, prepare, folder):
    images = raw / "2011_09_26/2011_09_26_drive_0001_sync/image_02/data"
    for frame in range(6, 12):
        save_image(images / f"{frame:010d}.png", picture(frame, 12))
    files = sorted(images.files())
    for frame, file in reversed(list(enumerate(files))):
        file.move(images / f"{2 * frame:010d}.png")
        noise = np.random.default_rng(frame).normal(0, 1.5, (HEIGHT, WIDTH, 3))
        copy = (read_image(images / f"{2 * frame:010d}.png") + noise).clip(0, 255).astype(np.uint8)
        save_image(images / f"{2 * frame + 1:010d}.png", copy)
    printed = prepare(raw, "--static", "images")
    scene = read_scene(folder / "out/2011_09_26_drive_0001_sync_02")
    assert [int(frame.stem) for frame in scene.frames] == list(range(0, 24, 2))
    assert len(read_scene(folder / "out/2011_09_26_drive_0005_sync_02").frames) == 6
    assert "12 static frames left out" in printed
    assert "nothing to do" in prepare(raw, "--static", "images")


# Odometry


@pytest.fixture
def odometry(folder):
    """Sequences 00, 03, 09 with camera 2 and a turn, and 05 with grey images only."""
    root = folder / "odometry"
    for sequence in ("00", "03", "05", "09"):
        place = root / "sequences" / sequence
        for camera in "23" if sequence != "05" else "01":
            for frame in range(5):
                image = picture(frame, int(sequence))
                save_image(place / f"image_{camera}/{frame:06d}.png", image[..., 1] if camera < "2" else image)
        lines = [f"P{int(c)}: 70 0 58 {70 * OFFSET[c]} 0 70 17 0 0 0 1 0" for c in OFFSET]
        (place / "calib.txt").write_text("\n".join([*lines, "Tr: 0 -1 0 0 0 0 -1 -0.08 1 0 0 -0.27"]) + "\n")
        (root / "poses").makedirs_p()
        rows = []
        for frame in range(5):
            c, s = np.cos(0.1 * frame), np.sin(0.1 * frame)
            rows.append(" ".join(map(repr, map(float, [c, 0, s, frame, 0, 1, 0, 0, -s, 0, c, 2 * frame]))))
        (root / "poses" / f"{sequence}.txt").write_text("\n".join(rows) + "\n")
    return root


def test_odometry_trains_on_00_to_08(odometry, prepare, folder):
    printed = prepare(odometry, "--with-poses")
    out = folder / "out"
    listed = sorted(names(out / "train.txt") + names(out / "val.txt"))
    assert listed == ["00_2", "00_3", "03_2", "03_3", "05_0", "05_1"]
    assert "no colour images (so the grey ones are taken) in 1 of 3 drives: 05" in printed
    grey = read_image(out / "05_0/0000002.jpg").astype(int)
    assert np.ptp(grey, axis=2).max() <= 2
    expected = [[35, 0, 58.5 / 2 - 0.5], [0, 35, 17.5 / 2 - 0.5], [0, 0, 1]]
    np.testing.assert_allclose(read_scene(out / "00_2").intrinsics, expected, atol=1e-9)
    prepare(odometry, "--sequences", "09", out="test")
    assert names(folder / "test/train.txt") == ["09_2", "09_3"]


def test_scenes_of_an_earlier_run_that_are_in_no_list_are_noted(odometry, prepare, folder):
    out = folder / "out"
    assert "in no list" not in prepare(odometry, "--sequences", "00")
    printed = prepare(odometry, "--sequences", "03")
    note = f"note: 2 prepared scenes in {out} are in no list: 00_2, 00_3\n"
    assert note in printed
    assert note in (out / "prepare_report.txt").read_text()
    assert names(out / "train.txt") == ["03_2", "03_3"]
    (out / "00_3").rmtree()
    assert f"note: 1 prepared scene in {out} is in no list: 00_2\n" in prepare(odometry, "--sequences", "03")
    prepare(odometry, "--sequences", "00", "05")
    printed = prepare(odometry, "--sequences", "09")
    assert f"note: 6 prepared scenes in {out} are in no list: 00_2, 00_3, 03_2 and 3 more\n" in printed
    assert "00_2, 00_3, 03_2, 03_3, 05_0, 05_1\n" in (out / "prepare_report.txt").read_text()
    assert "in no list" not in prepare(odometry, "--sequences", "00", "03", "05", "09")


def test_gaps_in_times_are_told_and_no_snippet_crosses_them(odometry, prepare, folder):
    """0.1 s from frame to frame, but 0.3 s from frame 1 to frame 2: the camera dropped frames."""
    place = odometry / "sequences/03"
    (place / "times.txt").write_text("0\n0.1\n0.4\n0.5\n0.6\n")
    (odometry / "sequences/00/times.txt").write_text("0\n0.1\n0.19\n0.31\n0.4\n")  # as real ones jitter
    (odometry / "sequences/05/times.txt").write_text("no time\n")  # times are not needed
    printed = prepare(odometry, "--with-poses")
    assert "2 gaps between the times of frames, the longest 0.3 s, before 03_2 0000002: no snippet crosses" in printed
    assert "03_3 0000002: 0.3 s after the frame before it\n" in (folder / "out/prepare_report.txt").read_text()
    assert [read_scene(folder / "out" / name).breaks for name in ("00_2", "03_2", "03_3", "05_0")] == [
        (),
        (2,),
        (2,),
        (),
    ]
    for camera in "23":  # numbered from 1
        images = place / f"image_{camera}"
        for number in range(5, 0, -1):
            (images / f"{number - 1:06d}.png").move(images / f"{number:06d}.png")
    prepare(odometry, "--with-poses", out="renumbered")
    assert read_scene(folder / "renumbered/03_2").breaks == (2,)


def test_gaps_in_time_stamps_of_a_drive_are_told(raw, prepare, folder):
    drive = raw / "2011_09_28/2011_09_28_drive_0300_sync"
    stamps = [f"2011-09-28 13:04:32.{tenth}00000000" for tenth in (0, 1, 2, 5, 6, 7)]
    (drive / "image_02/timestamps.txt").write_text("\n".join(stamps) + "\n")
    (drive / "image_03/timestamps.txt").write_text("\n".join(["", *stamps[1:3], "", *stamps[4:]]))  # no time: no gap
    printed = prepare(raw)
    assert "1 gaps between the times of frames, the longest 0.3 s, before 2011_09_28_drive_0300_sync_02" in printed
    scenes = [folder / f"out/2011_09_28_drive_0300_sync_{camera}" for camera in ("02", "03")]
    assert [read_scene(scene).breaks for scene in scenes] == [(3,), ()]


def test_odometry_poses_are_those_of_the_camera(odometry, prepare, folder):
    prepare(odometry, "--with-poses", out="colour")
    truth = kitti.read_poses(odometry / "poses/00.txt")
    for camera in ("02", "03"):
        poses = read_scene(folder / f"colour/00_{int(camera)}").poses
        # A point of the world, by way of camera 0, must be where the camera's own poses put it.
        point = np.array([3.0, -1, 12])
        for i in range(5):
            in_camera0 = truth[i, :, :3].T @ (point - truth[i, :, 3])
            in_camera = in_camera0 + [OFFSET[camera], 0, 0]
            np.testing.assert_allclose(poses[i] @ [*in_camera, 1], point + [OFFSET[camera], 0, 0], atol=1e-9)
    grey = read_scene(folder / "colour/05_0").poses
    np.testing.assert_allclose(grey, truth, atol=1e-12)


def test_odometry_depth_comes_by_tr(odometry, prepare, folder):
    scans = (odometry / "sequences/00/velodyne").makedirs_p()
    np.array([[10.27, 0, -0.08, 0]], np.float32).tofile(scans / "000001.bin")
    prepare(odometry, "--with-depth")
    depth = read_depth(folder / "out/00_2/0000001.npy")
    # X = 0.06, Y = 0, Z = 10: u = 70 * 0.006 + 58 = 58.42, so 28.96 in the half; v = 17, so 8.25
    assert np.argwhere(depth).tolist() == [[8, 29]]
    assert depth.max() == pytest.approx(10, abs=1e-5)


def test_odometry_below_dataset_and_numbered_from_1(odometry, prepare, folder):
    prepare(odometry, "--with-poses", out="a")
    for images in odometry.walkdirs("image_*"):
        for file in sorted(images.files(), reverse=True):
            file.move(images / f"{int(file.stem) + 1}.png")
    (odometry / "dataset").makedirs()
    for part in ("sequences", "poses"):
        (odometry / part).move(odometry / "dataset" / part)
    prepare(odometry, "--with-poses", out="b")
    for name in names(folder / "a/train.txt"):
        assert (folder / "a" / name / "poses.txt").read_text() == (folder / "b" / name / "poses.txt").read_text()
        first, second = (read_scene(folder / out / name) for out in ("a", "b"))
        assert [int(frame.stem) for frame in second.frames] == [int(frame.stem) + 1 for frame in first.frames]
        assert [frame.read_bytes() for frame in first.frames] == [frame.read_bytes() for frame in second.frames]


def test_sequences_without_poses_are_prepared_without(odometry, prepare, folder):
    (odometry / "sequences/09").move(odometry / "sequences/11")
    printed = prepare(odometry, "--with-poses", "--sequences", "00", "11")
    assert "no poses file in 1 of 2 drives: 11" in printed
    assert read_scene(folder / "out/11_2").poses is None
    assert len(read_scene(folder / "out/00_2").poses) == 5


@pytest.mark.parametrize("static", ["list", "speed"])
def test_odometry_knows_no_speed(odometry, refuse, static):
    assert "KITTI odometry has no such information" in refuse(odometry, "--static", static)


def test_sequences_that_are_not_there(odometry, refuse):
    assert "--sequences: 07 not found" in refuse(odometry, "--sequences", "00", "07")


# Again, and on after a stop


def test_run_twice_does_nothing_twice(raw, prepare, folder):
    prepare(raw, "--with-depth", "--with-poses")
    before = {file: file.stat().st_mtime_ns for file in (folder / "out").walkfiles("*.jpg")}
    whole = contents(folder / "out")
    assert "nothing to do" in prepare(raw, "--with-depth", "--with-poses")
    assert before == {file: file.stat().st_mtime_ns for file in (folder / "out").walkfiles("*.jpg")}
    assert contents(folder / "out") == whole


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--with-depth"], "with-depth was False, is now True"),
        (["--cameras", "02"], "cameras was default, is now 02"),
        (["--static", "images"], "static was list, is now images"),
    ],
)
def test_other_options_are_refused(raw, prepare, refuse, folder, flags, message):
    prepare(raw)
    before = contents(folder / "out")
    assert message in refuse(raw, *flags)
    assert contents(folder / "out") == before
    assert "size was 60 x 18, is now 60 x 20" in refuse(raw, size=(20, 60))


def test_what_is_there_stays_and_what_is_missing_is_made(raw, prepare, folder):
    flags = ["--with-depth", "--with-poses"]
    prepare(raw, *flags)
    whole = contents(folder / "out")
    scene = folder / "out/2011_09_26_drive_0005_sync_02"
    kept = (scene / "0000003.jpg").stat().st_mtime_ns
    for name in ("0000001.jpg", "0000004.npy", "poses.txt", "prepared.json"):
        (scene / name).remove()
    (scene / "0000002.jpg.part").write_bytes(b"half a picture")
    prepare(raw, *flags)
    assert contents(folder / "out") == whole
    assert (scene / "0000003.jpg").stat().st_mtime_ns == kept


def test_what_is_downloaded_later_is_added(raw, prepare, folder):
    prepare(raw)
    write_drive(raw, "2011_09_28", 2, seed=50)  # of the test split, too
    write_drive(raw, "2011_09_28", 301, seed=60)
    save_image(raw / "2011_09_26/2011_09_26_drive_0001_sync/image_02/data/0000000006.png", picture(6, 12))
    prepare(raw)
    assert len(read_scene(folder / "out/2011_09_26_drive_0001_sync_02").frames) == 7
    assert len(names(folder / "out/train.txt") + names(folder / "out/val.txt")) == 8


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[" * 100_000,
        "[]",
        "{}",
        '{"source": 1, "frames": 6, "static": [], "problems": {}}',
        '{"source": {"images": 6}, "frames": "6", "static": [], "problems": {}}',
        '{"source": {"images": 6}, "frames": 6, "static": [[]], "problems": {}}',
        '{"source": {"images": 6}, "frames": 6, "static": [], "problems": {"x": "y"}}',
        '{"source": {"images": 6}, "frames": 6, "static": [], "problems": {"1": 2}}',
        '{"source": {"images": 6}, "frames": 6, "static": [], "problems": {}, "gaps": [[1]]}',
        '{"source": {"images": 6}, "frames": 6, "static": [], "problems": {}, "not_opened": {}}',
        '{"source": {"images": 6}, "frames": 6, "static": [], "problems": {"%s": "y"}}' % ("9" * 5000),
        '{"source": {"images": 6}, "frames": 6, "static": [], "problems": {}, "gaps": [[-1, %s]]}' % ("9" * 4300),
        '{"source": {"images": 6}, "frames": 6, "static": [], "problems": {}, "more": %s}' % ("[" * 100_000),
    ],
)
def test_a_damaged_record_is_no_record(raw, prepare, refuse, folder, content):
    prepare(raw, "--cameras", "02")
    whole = contents(folder / "out")
    (folder / "out/2011_09_26_drive_0001_sync_02/prepared.json").write_text(content)
    assert "nothing to do" not in prepare(raw, "--cameras", "02")
    assert contents(folder / "out") == whole
    (folder / "out/prepare.json").write_text(content)
    assert "prepare.json" in (line := refuse(raw, "--cameras", "02")) or "prepared with other options" in line


@pytest.mark.slow
def test_killed_at_any_moment_it_goes_on(raw, prepare, folder):
    for number in range(10, 16):
        write_drive(raw, "2011_09_26", number, frames=range(12), seed=number)
    flags = ["--with-depth", "--with-poses", "--static", "images"]
    prepare(raw, *flags, out="whole")
    command = [sys.executable, SCRIPT, raw, folder / "out", "--height", "18", "--width", "60", "--jobs", "2", *flags]
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    for progress in (1, 60):  # files there when the blow comes
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while (
            process.poll() is None and sum(1 for _ in (folder / "out").walkfiles("*.jpg", errors="ignore")) < progress
        ):
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.wait()
        for file in (folder / "out").walkfiles("*.jpg", errors="ignore"):
            read_image(file)  # no file is ever half there
    prepare(raw, *flags)
    assert contents(folder / "out") == contents(folder / "whole")


# Parts missing and damaged


def test_damage_costs_the_frame_and_is_listed(raw, prepare, folder):
    drive = raw / "2011_09_26/2011_09_26_drive_0001_sync"
    image = drive / "image_02/data/0000000001.png"
    whole_image = image.read_bytes()
    image.write_bytes(whole_image[: len(whole_image) // 2])
    (drive / "image_02/data/0000000003.png").remove()
    (drive / "oxts/data/0000000002.txt").write_text("1 2 3")
    (drive / "velodyne_points/data/0000000004.bin").write_bytes(bytes(15))
    printed = prepare(raw, "--with-depth", "--with-poses")
    left = read_scene(folder / "out/2011_09_26_drive_0001_sync_02")
    assert [int(frame.stem) for frame in left.frames] == [0, 4, 5]
    assert len(left.poses) == 3
    np.testing.assert_allclose(left.poses[:, 2, 3], [0, 6, 7.5], atol=1e-4)
    right = read_scene(folder / "out/2011_09_26_drive_0001_sync_03")
    assert [int(frame.stem) for frame in right.frames] == [0, 1, 3, 4, 5]
    assert not left.frames[1].with_suffix(".npy").exists()
    assert "4 frames left out, 2 without depth" in printed
    assert [[int(frame.stem) for frame in run.frames] for run in left.runs()] == [[0], [4, 5]]
    assert [[int(frame.stem) for frame in run.frames] for run in right.runs()] == [[0, 1], [3, 4, 5]]
    report = (folder / "out/prepare_report.txt").read_text()
    for what in ("0000000001.png", "no image 3", "0000000002.txt, line 1: got 3 numbers", "0000000004.bin: 15 bytes"):
        assert what in report

    assert "nothing to do" in prepare(raw, "--with-depth", "--with-poses")
    time.sleep(0.02)
    image.write_bytes(whole_image)  # downloaded again
    assert "nothing to do" not in prepare(raw, "--with-depth", "--with-poses")
    assert [int(f.stem) for f in read_scene(left.folder).frames] == [0, 1, 4, 5]


def test_a_link_that_leads_nowhere_is_a_damaged_frame_until_it_leads_somewhere(raw, prepare, folder):
    drive = raw / "2011_09_26/2011_09_26_drive_0001_sync"
    elsewhere = (folder / "disk").makedirs_p()
    for kind, name in (("image_02/data", "0000000002.png"), ("velodyne_points/data", "0000000004.bin")):
        (drive / kind / name).move(elsewhere / name)
        os.symlink(elsewhere / name, drive / kind / name)
    elsewhere.move(folder / "taken out")
    printed = prepare(raw, "--with-depth", "--cameras", "02")
    scene = folder / "out/2011_09_26_drive_0001_sync_02"
    assert [int(frame.stem) for frame in read_scene(scene).frames] == [0, 1, 3, 4, 5]
    assert "1 frames left out, 1 without depth" in printed
    report = (folder / "out/prepare_report.txt").read_text()
    assert report.count("0000000002.png: no such file") == report.count("0000000004.bin: no such file") == 1
    assert "nothing to do" in prepare(raw, "--with-depth", "--cameras", "02")
    (folder / "taken out").move(elsewhere)  # the disk is back; its files are as old as before
    assert "nothing to do" not in prepare(raw, "--with-depth", "--cameras", "02")
    assert [int(frame.stem) for frame in read_scene(scene).frames] == list(range(6))
    assert (scene / "0000004.npy").exists()
    assert "missing or damaged" not in prepare(raw, "--with-depth", "--cameras", "02")


def test_a_frame_with_a_huge_number_takes_no_time(raw, prepare, folder):
    images = raw / "2011_09_26/2011_09_26_drive_0001_sync/image_02/data"
    save_image(images / "20000000.png", picture(0))
    start = time.process_time()
    printed = prepare(raw, "--cameras", "02")
    assert time.process_time() - start < 5  # a set of all numbers between would take a minute, and gigabytes
    scene = read_scene(folder / "out/2011_09_26_drive_0001_sync_02")
    assert [frame.name for frame in scene.frames] == [*(f"{k:07d}.jpg" for k in range(6)), "20000000.jpg"]
    assert scene.breaks == (6,)
    assert "19999994 frames left out" in printed
    assert "no images 6 to 19999999" in printed
    report = (folder / "out/prepare_report.txt").read_text().splitlines()
    assert report == ["2011_09_26_drive_0001_sync_02 0000006: no images 6 to 19999999"]
    assert "nothing to do" in prepare(raw, "--cameras", "02")


@pytest.mark.parametrize("names", ["{}.png", "frame{}.jpg", "{:06d}.JPEG"])
def test_names_of_any_form_make_the_same_scenes(folder, prepare, names):
    """Of 12 frames: 9 comes before 10, and each has its own pose and depth."""
    roots = {name: folder / name for name in ("padded", "other")}
    for name, root in roots.items():
        (root / "2011_09_26").makedirs_p()
        write_calibration(root / "2011_09_26", 70)
        images = write_drive(root, "2011_09_26", 1, range(12), cameras=("02",)) / "image_02/data"
        if name == "other":
            for file in images.files():
                (images / f"._{file.name}").write_bytes(b"Mac OS X")
                file.move(images / names.format(int(file.stem)))  # its content stays that of a PNG
    prepare(roots["padded"], "--with-depth", "--with-poses", out="a")
    prepare(roots["other"], "--with-depth", "--with-poses", out="b")
    scene = "2011_09_26_drive_0001_sync_02"
    assert contents(folder / "a" / scene) == contents(folder / "b" / scene)
    assert len(read_scene(folder / "a" / scene).frames) == 12


def test_a_name_that_is_no_utf_8_is_a_frame_like_others(raw, prepare, folder):
    images = raw / "2011_09_26/2011_09_26_drive_0001_sync/image_02/data"
    for frame in range(6):
        os.rename(images / f"{frame:010d}.png", os.fsencode(images) + b"/b\xe9b\xe9%d.png" % frame)
    (images / os.fsdecode(b"b\xe9b\xe92.png")).write_bytes(b"gone")
    prepare(raw, "--cameras", "02")
    scene = read_scene(folder / "out/2011_09_26_drive_0001_sync_02")
    assert [int(frame.stem) for frame in scene.frames] == [0, 1, 3, 4, 5]
    assert "b\\udce9b\\udce92.png: begins with 67 6f 6e 65" in (folder / "out/prepare_report.txt").read_text()


def test_partial_downloads(raw, prepare, folder):
    (raw / "2011_09_26/2011_09_26_drive_0001_sync/oxts").rmtree()
    (raw / "2011_09_26/2011_09_26_drive_0005_sync/velodyne_points").rmtree()
    (raw / "2011_09_28/2011_09_28_drive_0300_sync/image_03").rmtree()
    (raw / "2011_09_28/2011_09_28_drive_0301_sync/image_02/data").makedirs()
    printed = prepare(raw, "--with-depth", "--with-poses")
    for notice in (
        "no oxts packets in 1 of 3",
        "no LiDAR scans in 1 of 3",
        "no second camera in 1 of 3",
        "no images in 1",
    ):
        assert printed.count(notice) == 1
    assert read_scene(folder / "out/2011_09_26_drive_0001_sync_02").poses is None
    assert read_scene(folder / "out/2011_09_26_drive_0005_sync_02").poses is not None


@pytest.mark.parametrize(
    ("missing", "flags", "message"),
    [
        ("oxts", ["--with-poses"], "no oxts packets in any"),
        ("oxts", ["--static", "speed"], "no oxts packets"),
        ("velodyne_points", ["--with-depth"], "no LiDAR scans in any"),
        ("image_03", ["--cameras", "03"], "no camera 03 in any"),
    ],
)
def test_what_was_asked_for_and_is_nowhere_is_an_error(raw, refuse, folder, missing, flags, message):
    for drive in raw.walkdirs(missing):
        drive.rmtree()
    assert message in refuse(raw, *flags)
    assert not (folder / "out").exists()


# Bad input


def test_no_kitti(raw, refuse, folder):
    assert "nowhere: no such folder" in refuse(folder / "nowhere")
    (folder / "empty").makedirs()
    assert "no KITTI in it, expected DATE" in refuse(folder / "empty")
    assert f"is it {raw} that you mean?" in refuse(raw / "2011_09_26")
    assert f"is it {raw} that you mean?" in refuse(raw / "2011_09_26/2011_09_26_drive_0001_sync")


def test_both_layouts_in_one_folder(raw, odometry, refuse, prepare, folder):
    (odometry / "sequences").move(raw)
    assert "choose by --layout" in refuse(raw)
    prepare(raw, "--layout", "raw")
    assert names(folder / "out/train.txt")[0].startswith("2011")


def test_empty_drives(folder, refuse):
    (folder / "kitti/2011_09_26/2011_09_26_drive_0001_sync/image_02/data").makedirs()
    assert "no images in any of the 1 drives" in refuse(folder / "kitti")


def test_calibration_missing_or_damaged(raw, refuse, folder):
    file = raw / "2011_09_28/calib_cam_to_cam.txt"
    text = file.read_text()
    file.write_text(text.replace("P_rect_03: 80.0", "P_rect_03: x"))
    assert "calib_cam_to_cam.txt, line 10, P_rect_03: could not convert" in refuse(raw)
    file.remove()
    assert f"{file}: no such file" in refuse(raw)
    file.write_text(text)
    (raw / "2011_09_28/calib_imu_to_velo.txt").remove()
    assert "calib_imu_to_velo.txt: no such file" in refuse(raw, "--with-poses")
    assert not (folder / "out").exists()


def test_only_test_drives(raw, refuse):
    for drive in ("2011_09_26/2011_09_26_drive_0001_sync", "2011_09_26/2011_09_26_drive_0005_sync", "2011_09_28"):
        (raw / drive).rmtree()
    assert "only test drives in it" in refuse(raw)


def test_all_images_damaged(odometry, refuse):
    for file in odometry.walkfiles("*.png"):
        file.write_bytes(b"gone")
    assert "no scene has 3 frames or more (e.g. " in refuse(odometry)


def test_images_of_another_shape_do_not_fit_the_calibration(raw, prepare, folder):
    drive = raw / "2011_09_26/2011_09_26_drive_0001_sync/image_02/data"
    save_image(drive / "0000000002.png", picture(2)[:, :90])
    save_image(drive / "0000000003.png", resize_area(picture(3), 18, 60))  # smaller by half, whole: fits
    prepare(raw)
    assert "90 x 36 pixels, calibration is for 120 x 36" in (folder / "out/prepare_report.txt").read_text()
    assert len(read_scene(folder / "out/2011_09_26_drive_0001_sync_02").frames) == 5


def test_a_folder_that_holds_something_else_is_left_alone(raw, refuse, folder):
    (folder / "out").makedirs()
    (folder / "out/thesis.txt").write_text("years of work")
    assert "holds something else" in refuse(raw)
    assert [file.name for file in (folder / "out").files()] == ["thesis.txt"]
    (folder / "file").write_text("")
    assert "a file, expected a folder" in refuse(raw, out="file")
    (folder / "out/prepare.json").write_text("{")
    assert "prepare.json: " in refuse(raw)
    (folder / "out/prepare.json").write_text('{"height": [[1, 2], "a\\nb"], "width": 1e999}')
    assert "prepared with other options" in refuse(raw)


def test_a_full_disk_is_one_line(raw, refuse, monkeypatch):
    def full(*_):
        raise WriteError("0000000.jpg: could not be written (No space left on device)", 28)

    monkeypatch.setattr(prepare_kitti.KittiScene, "prepare_frames", full)
    message = refuse(raw)
    assert "0000000.jpg: could not be written (No space left on device); " in message
    assert message.endswith("out: the disk is full; with more room, the same command goes on")
