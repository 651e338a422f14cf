import io
import json
import os
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from path import Path

from datasets import layout
from files.errors import InputError
from files.images import write_jpeg

K = np.array([[50.0, 0, 31.5], [0, 49, 15.25], [0, 0, 1]])


@pytest.fixture
def folder(tmp_path):
    """A scene as the well-known PyTorch port writes it: cam.txt by np.savetxt, names of ten digits, missing frames."""
    scene = Path(tmp_path) / "2011_09_26_drive_0001_sync_02"
    scene.makedirs()
    np.savetxt(scene / "cam.txt", K)
    for number in (0, 1, 3, 7, 10):
        write_jpeg(scene / f"{number:010d}.jpg", np.full((32, 64, 3), number, np.uint8))
        np.save(scene / f"{number:010d}.npy", np.full((32, 64), number, np.float32))
    np.savetxt(scene / "poses.txt", np.tile(np.eye(3, 4).reshape(12), (5, 1)))
    return scene


def test_the_ports_layout_is_read_as_it_is(folder):
    scene = layout.read_scene(folder)
    assert scene.name == "2011_09_26_drive_0001_sync_02"
    assert [frame.name for frame in scene.frames] == [f"{k:010d}.jpg" for k in (0, 1, 3, 7, 10)]
    assert np.array_equal(scene.intrinsics, K)
    assert scene.poses.shape == (5, 3, 4)
    depth = layout.read_depth(layout.depth_file(scene.frames[3]))
    assert (depth.shape, depth.dtype, depth.max()) == ((32, 64), np.float32, 7)


def test_what_is_written_is_read_back_to_the_last_bit(tmp_path):
    folder = Path(tmp_path)
    random = np.random.default_rng(0)
    intrinsics = K * (1 + 1e-15)
    intrinsics[2, 2] = 1
    poses, depth = random.normal(size=(3, 3, 4)), random.random((4, 5)).astype(np.float32)
    layout.write_intrinsics(folder / "cam.txt", intrinsics)
    layout.write_poses(folder / "poses.txt", poses)
    layout.write_depth(folder / "0.npy", depth)
    layout.write_scene_names(folder / "train.txt", ["a", "b/c"])
    for k in range(3):
        write_jpeg(folder / f"{k}.jpg", np.zeros((4, 5, 3), np.uint8))
    scene = layout.read_scene(folder)
    assert np.array_equal(scene.intrinsics, intrinsics)
    assert np.array_equal(scene.poses, poses)
    assert np.array_equal(layout.read_depth(folder / "0.npy"), depth)
    assert layout.read_scene_names(folder / "train.txt") == ["a", "b/c"]
    assert not folder.files("*.part")


@pytest.mark.parametrize(
    "ordered",
    [
        [f"{k}.jpg" for k in range(1, 15)],
        [f"frame{k}.png" for k in range(12)],
        [f"{k:04d}.jpg" for k in (9998, 9999, 10000, 10001)],
        ["a_9.jpg", "a_10.jpg", "b_1.jpg", "b_2.jpg"],  # two recordings: not one frame of this, one of that
        ["take2_9_640x480.jpg", "take2_10_640x480.jpg", "take10_1_640x480.jpg"],
        ["0.25.png", "0.5.png", "1.png", "1.125.png"],  # seconds
        ["1305031102.175304.png", "1305031102.211214.png"],
        ["axle.jpg", "bonnet.jpg", "car.jpg"],
        ["01.jpg", "1.jpg", "1.png", "2.jpg"],
    ],
)
def test_frames_are_in_order_of_the_numbers_in_their_names(tmp_path, ordered):
    scene = Path(tmp_path)
    for name in sorted(ordered, reverse=True):
        (scene / name).touch()
    assert [file.name for file in layout.list_frames(scene)] == ordered
    shuffled = list(np.random.default_rng(0).permutation(ordered))
    assert sorted(shuffled, key=layout.frame_order) == ordered


@given(st.sets(st.integers(0, 10**9), min_size=1), st.sampled_from(["", "frame", "cam2_"]), st.integers(1, 9))
def test_padding_does_not_change_the_order(numbers, prefix, digits):
    ordered = sorted(numbers)
    for width in (1, digits):
        names = [f"{prefix}{number:0{width}d}.jpg" for number in numbers]
        assert sorted(names, key=layout.frame_order) == [f"{prefix}{number:0{width}d}.jpg" for number in ordered]


def test_poses_follow_the_order_of_the_numbers(tmp_path):
    """Pose k belongs to the k-th frame in order of time, whether the names are padded with zeros or not."""
    poses = np.tile(np.eye(3, 4), (14, 1, 1))
    poses[:, 2, 3] = range(1, 15)
    for width in (1, 4):
        scene = (Path(tmp_path) / str(width)).makedirs_p()
        for number in range(1, 15):
            write_jpeg(scene / f"{number:0{width}d}.jpg", np.full((8, 8, 3), number, np.uint8))
        layout.write_intrinsics(scene / "cam.txt", K)
        layout.write_poses(scene / "poses.txt", poses)
        read = layout.read_scene(scene)
        numbers = [int(frame.stem) for frame in read.frames]
        assert numbers == read.poses[:, 2, 3].tolist() == list(range(1, 15))


def test_what_cannot_be_opened_stays_a_frame(folder):
    (folder / "0000000003.jpg").remove()
    os.symlink("nowhere.jpg", folder / "0000000003.jpg")
    (folder / "0000000007.jpg").remove()
    (folder / "0000000007.jpg").makedirs()
    assert [frame.name for frame in layout.read_scene(folder).frames] == [f"{k:010d}.jpg" for k in (0, 1, 3, 7, 10)]
    (folder / "poses.txt").remove()
    os.symlink("nowhere.txt", folder / "poses.txt")
    with pytest.raises(InputError, match=r"poses.txt: no such file"):
        layout.read_scene(folder)


def write_record(scene, **changes):
    record = {"source": {}, "frames": 8, "static": [6], "problems": {}, "not_opened": [], "gaps": []}
    (scene / "prepared.json").write_text(json.dumps(record | changes))


def test_a_frame_that_preparation_left_out_as_damaged_breaks_the_scene(tmp_path):
    scene = Path(tmp_path)
    numbers = [0, 1, 3, 4, 5, 7, 8, 13]
    for number in numbers:
        (scene / f"{number:07d}.jpg").touch()
    poses = np.tile(np.eye(3, 4), (8, 1, 1))
    poses[:, 2, 3] = numbers
    layout.write_poses(scene / "poses.txt", poses)
    layout.write_intrinsics(scene / "cam.txt", K)
    assert layout.read_scene(scene).breaks == ()  # the port's: nothing is known of missing numbers
    write_record(scene)
    assert layout.read_scene(scene).breaks == ()  # 6 is static: the camera stood
    write_record(scene, problems={"2": "2.png: truncated", "4": "no depth: 4.bin: 15 bytes"}, gaps=[[9, 12]])
    read = layout.read_scene(scene)
    assert read.breaks == (2, 7)
    runs = read.runs()
    assert [[int(frame.stem) for frame in run.frames] for run in runs] == [[0, 1], [3, 4, 5, 7, 8], [13]]
    assert [run.poses[:, 2, 3].tolist() for run in runs] == [[0, 1], [3, 4, 5, 7, 8], [13]]
    assert {run.name for run in runs} == {scene.name}
    (scene / "poses.txt").remove()
    assert [run.poses for run in layout.read_scene(scene).runs()] == [None, None, None]


def test_a_frame_that_comes_late_breaks_the_scene(tmp_path):
    scene = Path(tmp_path)
    for number in (0, 1, 3, 4, 5, 7, 8, 13):
        (scene / f"{number:07d}.jpg").touch()
    layout.write_intrinsics(scene / "cam.txt", K)
    write_record(scene, time_gaps={"4": 0.3, "6": 0.4, "8": 0.2})  # 6 was static
    runs = layout.read_scene(scene).runs()
    assert [[int(frame.stem) for frame in run.frames] for run in runs] == [[0, 1, 3], [4, 5], [7], [8, 13]]


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[" * 100_000,
        "[]",
        "{}",
        {"source": 1},
        {"frames": "8"},
        {"frames": True},
        {"static": [[]]},
        {"static": None},
    ]
    + [
        {"problems": {"x": "y"}},
        {"problems": {"1": 2}},
        {"problems": []},
        {"gaps": [[1]]},
        {"gaps": 1},
        {"time_gaps": [1]},
        {"time_gaps": {"1": "late"}},
        {"time_gaps": {"x": 0.2}},
        {"not_opened": {}},
    ],
)
def test_a_damaged_record_is_refused(folder, content):
    if isinstance(content, dict):
        write_record(folder, **content)
    else:
        (folder / "prepared.json").write_text(content)
    with pytest.raises(InputError, match=r"prepared\.json: ") as caught:
        layout.read_scene(folder)
    assert len(str(caught.value)) < 500


def test_other_files_are_no_frames(folder):
    for name in ("._0000000000.jpg", "0000000001.jpg.part", "notes.txt"):  # the first is macOS's beside each file
        (folder / name).write_bytes(b"x")
    assert len(layout.read_scene(folder).frames) == 5


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("50 0 31.5\n0 49 15\n", "cam.txt: 2 lines of 3 numbers, expected K as 3 x 3"),
        ("50 0 31.5 0\n0 49 15 0\n0 0 1 0\n", "cam.txt, line 1: got 4 numbers, expected 3"),
        ("50 0 31.5\n0 49 15\n0 0 1\n0 0 1\n", "4 lines of 3 numbers"),
        ("", "0 lines of 3 numbers"),
        ("0 0 31.5\n0 49 15\n0 0 1\n", "focal lengths 0 and 49, expected both above 0"),
        ("50 0 31.5\n0 -49 15\n0 0 1\n", "focal lengths 50 and -49"),
        ("50 0 31.5\n0 49 15\n0 0 2\n", r"expected K = \[fx s cx; 0 fy cy; 0 0 1\]"),
        ("50 0 31.5\n1 49 15\n0 0 1\n", "expected K ="),
        ("50 0 nan\n0 49 15\n0 0 1\n", "line 1: got a number that is not finite"),
    ],
)
def test_a_camera_that_cannot_be_is_refused(folder, content, message):
    (folder / "cam.txt").write_text(content)
    with pytest.raises(InputError, match=message):
        layout.read_scene(folder)


@pytest.mark.parametrize(
    ("centre", "fits"),
    [((31.5, 15.5), True), ((-0.5, 31.5), True), ((63.5, 0), True), ((-0.6, 9), False), ((64, 9), False)]
    + [((9, 31.6), False), ((621, 187), False)],
)
def test_the_centre_must_lie_in_the_image(centre, fits):
    intrinsics = K.copy()
    intrinsics[:2, 2] = centre
    if fits:
        layout.check_intrinsics_fit(intrinsics, 32, 64, Path("cam.txt"))
    else:
        with pytest.raises(InputError, match=r"cam.txt: centre .* lies outside the 64 x 32 image"):
            layout.check_intrinsics_fit(intrinsics, 32, 64, Path("cam.txt"))


def test_missing_parts_are_named(folder):
    with pytest.raises(InputError, match="nowhere: no such scene folder"):
        layout.read_scene(folder / "nowhere")
    np.savetxt(folder / "poses.txt", np.zeros((4, 12)))
    with pytest.raises(InputError, match=r"poses.txt: 4 poses for 5 frames, expected one for each"):
        layout.read_scene(folder)
    (folder / "poses.txt").remove()
    assert layout.read_scene(folder).poses is None
    (folder / "cam.txt").remove()
    with pytest.raises(InputError, match=r"cam.txt: no such file"):
        layout.read_scene(folder)
    for file in folder.files("*.jpg"):
        file.remove()
    with pytest.raises(InputError, match="no frames, expected images"):
        layout.read_scene(folder)


@pytest.mark.parametrize("content", ["", "\n\n", "# nothing yet\n"])
def test_an_empty_list_of_scenes_is_refused(tmp_path, content):
    file = Path(tmp_path) / "train.txt"
    file.write_text(content)
    with pytest.raises(InputError, match=r"train.txt: the list is empty"):
        layout.read_scene_names(file)


def test_paths_in_a_list_are_relative_to_its_folder(tmp_path):
    root = Path(tmp_path) / "data"
    root.makedirs()
    os.symlink(root, Path(tmp_path) / "link")
    lines = ["a", "./b/", " my drive/c d ", "# no scene", "", f"{root}/e/f", "g\\h", ".\\i\\", "j//k", f"{root}//l/"]
    expected = ["a", "b", "my drive/c d", "e/f", "g/h", "i", "j/k", "l"]
    for folder in (root, Path(tmp_path) / "link"):  # absolute names below a link's target, too
        (root / "train.txt").write_text("\n".join(lines) + "\n")
        assert layout.read_paths(root / "train.txt", folder) == expected
        assert layout.read_scene_names(folder / "train.txt") == expected


@pytest.mark.parametrize(
    "name",
    ["../x", "a/../../b", "..", "/etc/passwd", "ROOT", "ROOT/../x", "ROOTx/y", "\\\\host\\x", "..\\x", "a\0b", "/"],
)
def test_no_path_leads_out_of_the_folder(tmp_path, name):
    file = Path(tmp_path) / "train.txt"
    file.write_text(f"fine\n{name.replace('ROOT', str(tmp_path))}\n")
    with pytest.raises(InputError, match=r"train.txt, line 2: .* leads out of its folder"):
        layout.read_scene_names(file)


class Evil:
    def __reduce__(self):
        return os.mkdir, ("executed",)


def npy(array, **options) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, **options)
    return stream.getvalue()


HUGE = npy(np.zeros((4, 5), np.float32)).replace(b"(4, 5), }" + b" " * 13, b"(400000, 5000000), }  ")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x93NUMPY",
        b"not an array",
        npy(np.zeros((4, 5), np.float32))[:-7],
        npy(np.zeros((4, 5, 1), np.float32)),
        npy(np.zeros((4, 5), np.int16)),
        npy(np.array([[-1.0, 1]])),
        npy(np.array([[np.nan, 1]])),
        npy(np.array([[np.inf, 1]])),
        npy(np.array([[Evil()]], dtype=object), allow_pickle=True),
        pickle.dumps(Evil()),
        HUGE,
        b"\x93NUMPY\x01\x00\x10\x00{'descr': (((((\n",
    ],
)
def test_damaged_depth_is_refused_and_runs_nothing(tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    file = Path(tmp_path) / "0.npy"
    file.write_bytes(content)
    with pytest.raises(InputError, match=r"0\.npy: "):
        layout.read_depth(file)
    assert os.listdir() == ["0.npy"]
