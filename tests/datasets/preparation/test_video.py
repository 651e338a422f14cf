"""The parts of the preparation of videos: which frames stay, how an input is divided, memory."""

from dataclasses import replace
from itertools import chain

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from path import Path

from datasets.formats.camera_files import Calibration
from datasets.formats.video import Reading, open_video
from datasets.layout import GUESS
from datasets.preparation.static_frames import small_grey
from datasets.preparation.video import FrameSorter, Place, PreparedFrame, VideoJob, divide_by_time, is_blank
from datasets.preparation.video_inputs import VideoInput, find_inputs, open_folder, plain_name
from datasets.preparation.video_jobs import CameraChoice, choose_camera, choose_names, common_size
from datasets.preparation.view import make_view
from files.errors import InputError
from files.images import write_jpeg

NOTHING = np.zeros((0, 0))


def noise(seed, height=64, width=96):
    return np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)


def texture():
    return np.kron(np.random.default_rng(0).integers(0, 255, (16, 80, 3), dtype=np.uint8), np.ones((4, 4, 1), np.uint8))


def sort(images, gaps=(), static=True):
    """What becomes of frames; None in place of an image is a damaged one."""
    sorter = FrameSorter(static)
    result = []
    for n, image in enumerate(images):
        if image is None:
            frame = PreparedFrame(n, Place(n, None), n in gaps, NOTHING, NOTHING, b"", "damaged")
        else:
            frame = PreparedFrame(n, Place(n, None), n in gaps, image, small_grey(image), b"")
        result.append(sorter.sort(frame))
    return result


def test_frames_are_sorted_by_what_they_show():
    scene = texture()
    a, b, c, d = (np.ascontiguousarray(scene[:, 4 * n : 4 * n + 200]) for n in range(4))
    black = np.zeros_like(a)
    assert sort([a, b, c]) == [(None, True), (None, False), (None, False)]
    assert sort([a, a, b, b, c])[1::2] == [("repeated", False), ("repeated", False)]
    almost = (a.astype(int) + 1).clip(0, 255).astype(np.uint8)
    assert sort([a, almost, b])[1] == ("static", False)
    assert sort([a, almost, b], static=False)[1] == (None, False)
    assert sort([a, b, black, c, d]) == [(None, True), (None, False), ("black", True), (None, True), (None, False)]
    assert sort([a, b, None, c, d])[2:] == [("damaged", True), (None, True), (None, False)]
    assert [begins for _, begins in sort([a, b, c, d], gaps=[2])] == [True, False, True, False]
    # A gap before a frame that is left out counts for the next one.
    assert sort([a, b, black, black, c], gaps=[3])[4] == (None, True)
    assert [begins for _, begins in sort([a, b, noise(1, 64, 200), noise(2, 64, 200)])] == [True, False, True, True]


def test_blank_frames():
    assert is_blank(small_grey(np.full((64, 96, 3), 200, np.uint8)))
    assert is_blank(small_grey(noise(0) // 16))
    assert not is_blank(small_grey(texture()))


@given(
    st.lists(st.integers(1, 30), min_size=1, max_size=6),
    st.integers(0, 40),
    st.sampled_from([0.0, 0.1, 0.3, 0.5]),
)
def test_validation_is_the_end_and_every_frame_is_in_one_place(lengths, gap, fraction):
    starts = np.cumsum([0, *[length + 2 for length in lengths]])
    parts = [list(range(start, start + length)) for start, length in zip(starts, lengths, strict=False)]
    training, between, validation = divide_by_time(parts, fraction, gap)
    train, val, every = (list(chain(*some)) for some in (training, validation, parts))
    total = sum(lengths)
    assert train + between + val == every
    assert len(between) <= max(0.1 * total, 0)
    if val:
        assert len(val) == round(fraction * total)
        assert not between or train[-1] < between[0]
        assert len(between) == 0.1 * total // 1 or val[0] - train[-1] > gap or not train
    for part in [*training, *validation]:
        assert part == list(range(part[0], part[-1] + 1))


def test_memory_does_not_grow_with_the_length(write_video, tmp_path, peak_memory):
    wide = np.kron(
        np.random.default_rng(0).integers(0, 255, (60, 600, 3), dtype=np.uint8), np.ones((4, 4, 1), np.uint8)
    )

    def frames(count):
        return (np.ascontiguousarray(wide[:, 4 * n % 2000 : 4 * n % 2000 + 320]) for n in range(count))

    def prepare(file):
        source = VideoInput(video=open_video(Path(file)))
        calibration, camera = choose_camera(CameraChoice(), source)
        VideoJob(
            name=Path(file).stem,
            source=source,
            root=Path(tmp_path),
            view=make_view(calibration),
            width=64,
            height=32,
            auto_crop=False,
            camera=camera,
            fps=25,
            leave_out_static=True,
            val_fraction=0.1,
            val_gap=1,
            threads=1,
        ).run(lambda count: None)

    files = [write_video(tmp_path / f"v{n}.mp4", frames(n), preset="ultrafast") for n in (40, 400)]
    prepare(files[0])
    short, long = (peak_memory(lambda file=file: prepare(file)) for file in files)
    assert long < short + 12  # MiB; 360 frames more are 79 MiB


def test_folders_of_videos_and_names(write_video, tmp_path):
    folder = Path(tmp_path)
    images = [noise(n) for n in range(3)]
    write_video(folder / "b.mp4", images)
    write_video(folder / "a clip.mov", images)
    (folder / "frames").makedirs_p()
    for n, image in enumerate(images):
        write_jpeg(folder / f"frames/{n}.jpg", image)
    (folder / "notes.txt").write_text("not a video")
    (folder / "empty").makedirs_p()
    (folder / "bad.mp4").write_text("no video")
    inputs, problems = find_inputs([folder])
    assert [source.path.name for source in inputs] == ["a clip.mov", "b.mp4", "frames"]
    twice = find_inputs([folder / "b.mp4", folder, folder / "frames/", folder / "empty/../b.mp4"])[0]
    assert choose_names(twice, {}) == ["b", "a_clip", "frames"]
    assert len(problems) == 1
    assert "bad.mp4" in problems[0]
    with pytest.raises(InputError, match="no video and no JPEG or PNG"):
        find_inputs([folder / "empty"])
    with pytest.raises(InputError, match="an image, expected a video"):
        find_inputs([folder / "frames/0.jpg"])
    names = choose_names(inputs, {})
    assert names == ["a_clip", "b", "frames"]
    other = {"b": {"path": "/elsewhere/b.mp4", "fingerprint": "x"}}
    assert choose_names(inputs, other)[1].startswith("b-")
    moved = {"b": {"path": "/elsewhere/b.mp4", "fingerprint": inputs[1].fingerprint()}}
    assert choose_names(inputs, moved)[1] == "b"
    assert plain_name(Path("/x/.odd name[1]#.mp4")) == "odd_name_1"
    assert plain_name(Path("/x/Fahrt_grün.mp4")) == "Fahrt_grün"
    assert plain_name(Path("/x/---.mp4")) == "scene"


def test_a_fingerprint_covers_what_is_stated_of_images(tmp_path):
    folder = Path(tmp_path)
    for n in range(3):
        write_jpeg(folder / f"{n}.jpg", noise(n))
    plain = open_folder(folder)
    names = [str(file) for file in plain.images]
    pose = np.eye(4)
    camera = Calibration(np.eye(3), (96, 64), "pinhole", np.zeros(4), str(folder / "cameras.txt"))
    inputs = [
        plain,
        replace(plain, times=[0.0, 0.1, 0.2]),
        replace(plain, world_from_camera={names[0]: pose}),
        replace(plain, world_from_camera={names[1]: pose}),
        replace(plain, world_from_camera={names[1]: 2 * pose}),
        replace(plain, calibration=camera),
        replace(plain, calibration=replace(camera, model="fisheye")),
        replace(plain, calibration=replace(camera, intrinsics=2 * np.eye(3))),
    ]
    assert len({source.fingerprint() for source in inputs}) == len(inputs)
    moved = replace(plain, calibration=replace(camera, name="/elsewhere/cameras.txt"))
    assert moved.fingerprint() == inputs[5].fingerprint()


def test_cameras_and_sizes(write_video, tmp_path):
    source = VideoInput(video=open_video(Path(write_video(tmp_path / "tall.mp4", [noise(0, 192, 96)] * 3))))
    calibration, camera = choose_camera(CameraChoice(), source)
    assert camera == {"source": GUESS}
    assert calibration.intrinsics[0, 0] == pytest.approx(96 / np.tan(np.pi / 6))  # along the longer side
    calibration, camera = choose_camera(CameraChoice(field_of_view=90), source)
    assert (calibration.intrinsics[0, 0], camera) == (pytest.approx(48), {"source": "fov"})
    assert choose_camera(CameraChoice(focal=77), source)[0].intrinsics[0, 0] == 77
    view = make_view(calibration)
    assert common_size(view, None, None) == (192, 416)
    assert common_size(view, 64, None) == (64, 128)
    assert common_size(view, None, 64) == (32, 64)
    assert common_size(view, 64, 64) == (64, 64)
    assert not Reading().problems
