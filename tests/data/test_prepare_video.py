"""data/prepare_video.py as a user runs it: videos and folders in, a data set that trains out; bad input is one line."""

import errno
import json
import os
import shutil
import signal
import sys

from cli.flags import run_script

import cv2
import numpy as np
import pytest
from path import Path

from data import prepare_video
from datasets.input_views import read_input_views
from datasets.layout import SELF_CALIBRATION, camera_is_guessed, read_scene, read_scene_names
from datasets.preparation import video_jobs
from datasets.preparation.self_calibration import SelfCalibration
from datasets.snippets import SnippetDataset
from datasets.synthetic import WorldOptions, list_drives, make_drive_renderer
from files.atomic import atomic_write, write_bytes
from files.images import read_image, write_jpeg

WIDTH, HEIGHT, FRAMES = 208, 96, 44


def render(drive_number, frames):
    """Frames of a drive of the synthetic world, and their K."""
    options = WorldOptions(drives=3, frames=frames, width=WIDTH, height=HEIGHT, halts=False)
    drive = list_drives(options)[drive_number]
    renderer = make_drive_renderer(options, drive)
    return [renderer.image(n, drive.intrinsics, HEIGHT, WIDTH) for n in range(frames)], drive.intrinsics


@pytest.fixture(scope="module")
def drive():
    return render(1, FRAMES)


@pytest.fixture(scope="module")
def video(drive, write_video, tmp_path_factory):
    """A drive at 10 frames a second."""
    return Path(write_video(tmp_path_factory.mktemp("video") / "drive.mp4", drive[0], 10, crf=12))


@pytest.fixture
def prepare(monkeypatch, capsys):
    """Run the script in this process; its output, or with `status` its error, which must be one line."""

    monkeypatch.setattr(prepare_video, "CHECKED_PAIRS", 10)  # about 0.03 s each

    def run(*arguments, status=0):
        monkeypatch.setattr(sys, "argv", ["prepare_video.py", *map(str, arguments)])
        capsys.readouterr()
        if not status:
            run_script(prepare_video.main)
            return capsys.readouterr().out
        with pytest.raises(SystemExit) as caught:
            run_script(prepare_video.main)
        assert caught.value.code == status
        errors = [line for line in capsys.readouterr().err.splitlines() if "error: " in line]
        assert len(errors) == 1
        return errors[0]

    return run


def lists(root):
    return [read_scene_names(root / name, may_be_empty=True) for name in ("train.txt", "val.txt")]


def files(root):
    """The content of all files but the records, which have times."""
    return {str(f.relpath(root)): f.read_bytes() for f in sorted(Path(root).walkfiles()) if f.parent.name != "inputs"}


def test_a_process_that_has_used_opencv_can_prepare(prepare, video, tmp_path):
    """A forked worker has none of OpenCV's threads, and must not wait for them."""
    threads = cv2.getNumThreads()
    cv2.setNumThreads(2)
    cv2.GaussianBlur(np.zeros((1000, 1000, 3), np.float32), (31, 31), 5)  # starts the threads
    prepare(video, tmp_path / "prepared", "--width", 96, "--height", 32)
    assert cv2.getNumThreads() == 2
    cv2.setNumThreads(threads)


def test_a_video_becomes_a_data_set_that_trains(prepare, video, drive, tmp_path):
    root = tmp_path / "prepared"
    output = prepare(video, root, "--width", 96, "--height", 32)
    assert lists(root) == [["drive_00"], ["drive_01"]]
    train, val = (read_scene(root / name) for name in ("drive_00", "drive_01"))
    assert [len(scene.frames) for scene in (train, val)] == [36, 4]
    assert [int(frame.stem) for frame in train.frames] == list(range(36))
    assert [int(frame.stem) for frame in val.frames] == list(range(40, 44))
    assert "left out 4 between training and validation" in output
    assert "depth and motion can be learned from it" in output
    assert "--camera learned" in output
    assert camera_is_guessed(root / "drive_00")
    assert SnippetDataset(root, "train.txt", 3)[0]["frames"].shape == (3, 3, 32, 96)
    # 60 degrees across 208 pixels; 96 of 208 rows are kept in the aspect 3:1, resized by 96 / 208.
    np.testing.assert_allclose(train.intrinsics[0, 0], 104 / np.tan(np.pi / 6) * 96 / 208)
    np.testing.assert_allclose(train.intrinsics[:2, 2], [47.5, 15.5], atol=0.3)
    before = files(root)
    assert "nothing to do" in prepare(video, root, "--width", 96, "--height", 32)
    assert files(root) == before


def test_k_follows_crop_and_size_and_the_crop_is_shown(prepare, video, drive, tmp_path):
    """Cropped and resized by the script, points lie where the true K of the world projects them."""
    images, k = drive
    root = tmp_path / "prepared"
    output = prepare(video, root, "--focal", k[0, 0], "--crop", "16,0,0,32", "--width", 192, "--height", 64)
    scene = read_scene(root / "drive_00")
    np.testing.assert_allclose(scene.intrinsics[0, 0], k[0, 0])
    np.testing.assert_allclose(scene.intrinsics[:2, 2], [103.5 - 16, 47.5])
    assert np.abs(read_image(scene.frames[3]).astype(int) - images[3][:64, 16:]).mean() < 4
    assert not camera_is_guessed(root / "drive_00")
    assert "guess" not in output
    (view,) = read_input_views(root)  # from which predict.py knows the crop
    assert (view.size, view.box) == ((WIDTH, HEIGHT), (16, 0, WIDTH, HEIGHT - 32))
    shown = read_image(root / "crop_drive.jpg")
    assert shown.shape == (HEIGHT, WIDTH, 3)
    assert shown[70:].mean() < 0.5 * images[0][70:].mean()


def test_cuts_black_repeated_and_static_frames(prepare, write_video, drive, tmp_path):
    images, other = drive[0][:20], render(2, 20)[0]
    black = [np.zeros_like(images[0])] * 4
    frames = [*images[:12], *[images[11]] * 8, *images[12:20], *other[:9], *black, *other[9:20]]
    file = write_video(tmp_path / "film.mp4", frames, 10, crf=5)
    root = tmp_path / "prepared"
    output = prepare(file, root, "--val-fraction", 0, "--width", 96, "--height", 32)
    record = json.loads((root / "inputs/film.json").read_text())
    assert [scene["frames"] for scene in record["scenes"]] == [20, 9, 11]
    assert [scene["first"] for scene in record["scenes"]] == [0, 28, 41]
    assert record["cuts"] == 1
    assert record["left_out"]["black"] == 4
    assert record["left_out"].get("repeated", 0) + record["left_out"].get("static", 0) == 8
    assert "film: 1 cuts" in output
    assert lists(root) == [["film_00", "film_01", "film_02"], []]


def test_many_inputs_and_what_cannot_be_used(prepare, write_video, video, drive, tmp_path):
    folder = tmp_path / "frames"
    folder.mkdir()
    for number, image in enumerate(drive[0][:12]):
        write_jpeg(Path(folder) / f"{number}.jpg", image)
    (Path(folder) / "5.jpg").write_bytes(b"\xff\xd8\xff damaged")
    (tmp_path / "broken.mp4").write_text("no video")
    root = tmp_path / "prepared"
    output = prepare(video, folder, tmp_path / "broken.mp4", root, "--width", 96, "--height", 32, "--jobs", 2)
    assert "broken.mp4: no video that can be read" in output
    assert "frames: left out 1 damaged" in output
    record = json.loads((root / "inputs/frames.json").read_text())
    assert [scene["frames"] for scene in record["scenes"]] == [5, 6]
    # The times of numbered images are not known.
    assert [(root / name / "times.txt").is_file() for name in ("drive_00", "frames_00")] == [True, False]
    assert [len(names) for names in lists(root)] == [3, 1]
    # More of them later, one with the name of another.
    (tmp_path / "more").mkdir()
    other = write_video(tmp_path / "more/drive.mp4", render(2, 12)[0], 10)
    prepare(other, root, "--width", 96, "--height", 32)
    assert len(list((root / "inputs").glob("drive*.json"))) == 2
    assert [len(names) for names in lists(root)] == [4, 1]


@pytest.mark.parametrize("crop", ["0,0,0,8", "auto"])
def test_a_damaged_first_image_and_an_input_without_a_frame_do_not_stop_a_crop(prepare, drive, tmp_path, crop):
    frames, broken = Path(tmp_path) / "frames", Path(tmp_path) / "broken"
    for folder, images in ((frames, drive[0][:12]), (broken, drive[0][:3])):
        folder.makedirs_p()
        for number, image in enumerate(images):
            write_jpeg(folder / f"{number}.jpg", image)
    for file in (frames / "0.jpg", *broken.files()):  # the headers are whole
        file.write_bytes(file.read_bytes()[: file.size // 2])
    (frames / "11.jpg").unlink()
    (frames / "11.jpg").symlink_to("nowhere")  # OSError, not InputError
    root = Path(tmp_path) / "prepared"
    output = prepare(frames, broken, root, "--crop", crop, "--width", 96, "--height", 32, "--fov", 60)
    assert "frames: left out 2 damaged" in output
    assert "broken: left out 3 damaged" in output
    assert [len(read_scene(root / name).frames) for name in lists(root)[0]] == [10]
    assert (root / "crop_frames.jpg").is_file()
    assert not (root / "crop_broken.jpg").exists()
    assert "crop_broken.jpg" not in output


def test_a_stop_leaves_whole_files_and_the_same_command_goes_on(prepare, video, tmp_path, monkeypatch):
    """Ctrl-C after five frames; the worker process waits until its parent has seen it."""
    root, whole = Path(tmp_path / "prepared"), Path(tmp_path / "whole")
    options = ("--width", "192", "--height", "64")
    prepare(video, whole, *options)

    def write(file, content):
        write_bytes(file, content)
        if file.endswith("0000005.jpg"):
            os.kill(os.getppid(), signal.SIGINT)
            assert video_jobs._Shared.stop.wait(60)

    with monkeypatch.context() as patch:
        patch.setattr("datasets.preparation.video.write_bytes", write)
        with pytest.raises(SystemExit) as end:
            prepare(video, root, *options)
    assert end.value.code == 130
    assert not (root / "drive_00").exists()
    assert not (root / "train.txt").exists()
    for name in ("drive.part", "drive_00"):  # as a kill would leave it
        (root / name).makedirs_p()
        (root / name / "0000000.jpg").write_bytes(b"old")
    prepare(video, root, *options)
    assert files(root) == files(whole)


def test_what_a_user_can_get_wrong_is_one_line(prepare, video, write_video, drive, tmp_path):
    root = tmp_path / "prepared"
    (tmp_path / "full").mkdir()
    (tmp_path / "full/thing").write_text("mine")
    assert "holds something else" in prepare(video, tmp_path / "full", status=1)
    assert "--width: got '100', expected a multiple of 32, such as 96" in prepare(video, root, "--width", 100, status=2)
    assert "expected auto, none, or LEFT" in prepare(video, root, "--crop", "1,2,3", status=2)
    assert "goes with --calibration" in prepare(video, root, "--calibration-camera", "1", status=2)
    assert "leaves 208 x 6 of 208 x 96" in prepare(video, root, "--crop", "0,0,0,90", status=1)
    assert "no such file" in prepare(tmp_path / "none.mp4", root, status=1)
    assert not root.exists()
    calibration = tmp_path / "camera.json"
    calibration.write_text(json.dumps({"fx": 600, "fy": 600, "cx": 320, "cy": 240, "width": 640, "height": 480}))
    assert "calibrated for 640 x 480 pixels, the images have 208 x 96" in prepare(
        video, root, "--calibration", calibration, status=1
    )
    mixed = Path(tmp_path / "mixed")
    mixed.makedirs_p()
    write_jpeg(mixed / "0.jpg", drive[0][0])
    write_jpeg(mixed / "1.jpg", drive[0][0][:90])
    assert "images of 2 sizes: 208 x 96 (1, e.g. 0.jpg), 208 x 90 (1, e.g. 1.jpg)" in prepare(mixed, root, status=1)
    short = write_video(tmp_path / "short.mp4", drive[0][:2], 10)
    assert "no scene has 3 frames or more" in prepare(short, root, status=1)
    flat = write_video(tmp_path / "flat.mkv", [drive[0][0][:1]] * 5, 10, "ffv1", "yuv444p")
    assert "flat.mkv: 208 x 1 pixels, expected at least 32 x 32" in prepare(flat, root, status=1)
    prepare(video, root)
    assert "prepared with other options (fps was 10.0, is now 5.0)" in prepare(video, root, "--fps", 5, status=1)


def test_the_focal_length_comes_from_the_videos_of_one_size(prepare, write_video, video, tmp_path, monkeypatch):
    """Inputs of one size have one estimate, which a later run takes over; K is then no guess. With a flag for the
    camera, or without self-calibration, nothing is estimated."""
    asked = []

    def estimate(inputs, processes, margins):
        asked.append(([str(source.path.name) for source in inputs], margins))
        sections = [{"input": "drive.mp4", "frames": [0, 40]}]
        figures = {"size": [WIDTH, HEIGHT], "images": 60, "points": 900, "turn_degrees": 50.0, "spread": None}
        record = {"source": SELF_CALIBRATION, "focal": 130.0, "sections": sections} | figures
        return SelfCalibration(130.0, record)

    monkeypatch.setattr(prepare_video, "self_calibrate", estimate)
    second, third = (Path(shutil.copy(video, tmp_path / name)) for name in ("second.mp4", "third.mp4"))
    small = Path(write_video(tmp_path / "small.mp4", [image[:64, :96] for image in render(1, 12)[0]], 10, crf=12))
    root = tmp_path / "out"
    out = prepare(video, second, root, "--crop", "0,0,0,16", "--width", "96", "--height", "32")
    assert asked == [(["drive.mp4", "second.mp4"], (0, 0, 0, 16))]
    assert "f = 130.0 pixels" in out
    assert "--camera learned" not in out
    assert "--focal 130.0" in out
    for name in ("drive_00", "second_00"):
        assert not camera_is_guessed(root / name)
        assert read_scene(root / name).intrinsics[0, 0] == pytest.approx(130 * 96 / WIDTH, rel=0.2)
    assert json.loads((root / "drive_00/camera.json").read_text())["points"] == 900
    prepare(video, second, third, root, "--crop", "0,0,0,16", "--width", "96", "--height", "32")
    assert len(asked) == 1
    assert not camera_is_guessed(root / "third_00")

    monkeypatch.setattr(prepare_video, "self_calibrate", lambda *_: "the view hardly turns")
    out = prepare(small, tmp_path / "other", "--width", "96", "--height", "64")
    assert "note: self-calibration: the view hardly turns; K is a guess" in out
    assert "--camera learned" in out
    monkeypatch.setattr(prepare_video, "self_calibrate", lambda *_: pytest.fail("asked for"))
    for flags in (["--fov", "60"], ["--no-self-calibration"]):
        prepare(small, tmp_path / flags[0], "--width", "96", "--height", "64", *flags)
    monkeypatch.setattr(prepare_video, "missing_package", lambda: "pycolmap is not installed (pip install pycolmap)")
    out = prepare(small, tmp_path / "without", "--width", "96", "--height", "64")
    assert "note: self-calibration: pycolmap is not installed (pip install pycolmap); without it, K is a guess" in out
    assert camera_is_guessed(tmp_path / "without/small_00")


def test_a_calibration_with_distortion(prepare, video, drive, tmp_path):
    k = drive[1]
    calibration = tmp_path / "camera.yaml"
    calibration.write_text(
        f"%YAML:1.0\nimage_width: {2 * WIDTH}\nimage_height: {2 * HEIGHT}\n"
        f"camera_matrix: [{2 * k[0, 0]}, 0, {2 * k[0, 2]}, 0, {2 * k[1, 1]}, {2 * k[1, 2]}, 0, 0, 1]\n"
        "distortion_coefficients: [-0.1, 0.01, 0, 0]\n"
    )
    root = tmp_path / "prepared"
    prepare(video, root, "--calibration", calibration, "--width", 192, "--height", 96)
    assert json.loads((root / "drive_00/camera.json").read_text())["model"] == "radial-tangential"
    found = read_scene(root / "drive_00").intrinsics
    assert 0.7 * k[0, 0] < found[0, 0] < 1.2 * k[0, 0]
    again = (video, root, "--calibration", calibration, "--width", 192, "--height", 96)
    assert "nothing to do" in prepare(*again)
    calibration.write_text(calibration.read_text().replace("-0.1", "-0.2"))
    assert "prepared with other options (calibration-sha256 was" in prepare(*again, status=1)


def test_the_next_step_after_warnings(tmp_path, capsys):
    prepare_video.report_next_step(Path("prepared"), {}, warned=True)
    expected = "The data check printed warnings, see above. To train anyway: python train.py prepared --recipe small"
    assert capsys.readouterr().out.startswith(expected)


def test_a_full_disk_is_one_line(prepare, video, tmp_path, monkeypatch):
    def write(file, content):
        with atomic_write(file) as stream:
            if file.endswith("0000005.jpg"):
                raise OSError(errno.ENOSPC, "No space left on device")
            stream.write(content)

    with monkeypatch.context() as patch:
        patch.setattr("datasets.preparation.video.write_bytes", write)
        assert "disk is full; with more room, the same command goes on" in prepare(
            video, tmp_path / "prepared", status=1
        )
    prepare(video, tmp_path / "prepared")
    assert lists(tmp_path / "prepared") == [["drive_00"], ["drive_01"]]
