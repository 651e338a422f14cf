"""KITTI's folders as people have them: other numbers, suffixes and places, but never another order or a wrong pair."""

import os
import subprocess
import sys
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from path import Path

from datasets.formats import kitti_folders
from datasets.formats.kitti_folders import (
    camera_poses,
    describe_conversion,
    detect_layout,
    drive_folders,
    find_image,
    find_recordings,
    find_sequence,
    frame_number,
    numbered_files,
    pose_file,
    read_calibration,
    read_drive_list,
    read_image_list,
    sequence_folder,
)
from datasets.layout import IMAGE_SUFFIXES
from files.errors import InputError
from geometry.rigid import to_homogeneous

ROOT = Path(__file__).absolute().parent.parent.parent.parent
DRIVE = "2011_09_26/2011_09_26_drive_0001_sync"


@pytest.fixture
def folder(tmp_path):
    return Path(tmp_path)


def touch(folder, *names):
    folder.makedirs_p()
    for name in names:
        (folder / name).touch()
    return folder


def straight(count):
    """world_from_camera [count, 3, 4]: frame k stands at z = k."""
    poses = np.tile(np.eye(3, 4), (count, 1, 1))
    poses[:, 2, 3] = range(count)
    return poses


def write_sequence(root, name, images, poses=None, base="."):
    """An odometry sequence with empty images of these names, and so many poses."""
    sequence = touch(root / base / "sequences" / name / "image_2", *images).parent
    (sequence / "calib.txt").write_text("P2: 70 0 58 0 0 70 17 0 0 0 1 0\nTr: 0 -1 0 0 0 0 -1 -0.08 1 0 0 -0.27\n")
    if poses is not None:
        (root / base / "poses").makedirs_p()
        np.savetxt(root / base / "poses" / f"{name}.txt", straight(poses).reshape(-1, 12))
    return sequence


# Files by number


def test_files_are_found_by_number_whatever_the_padding(folder):
    for names in (
        [f"{k}.png" for k in range(12)],
        [f"frame{k}.png" for k in range(12)],
        [f"{k:06d}.png" for k in range(12)],
    ):
        images = numbered_files(touch(folder / names[1], *names), (".png",))
        assert list(images) == list(range(12))
        assert [file.name for file in images.values()] == names
    assert list(numbered_files(touch(folder / "x", "9998.bin", "10000.bin", "9999.bin"), (".bin",))) == [
        9998,
        9999,
        10000,
    ]


def test_other_names_are_no_files_of_a_recording(folder):
    """macOS's files, results of other tools beside the images, and names without a number."""
    others = [
        "._000000.png",
        ".000001.png",
        "000002_disp.png",
        "000003_mask2.png",
        "cover.png",
        "000004.txt",
        "5",
        "6.png.part",
    ]
    touch(folder, *others, "000007.png")
    assert list(numbered_files(folder, (".png",))) == [7]
    assert numbered_files(folder / "nowhere", (".png",)) == {}
    assert numbered_files(folder / "cover.png", (".png",)) == {}


def test_suffixes_of_images(folder):
    touch(folder, "0.PNG", "1.jpeg", "2.JPG", "3.jpg", "3.png", "3.jpeg", "4.webp")
    names = [file.name for file in numbered_files(folder, IMAGE_SUFFIXES).values()]
    assert names == ["0.PNG", "1.jpeg", "2.JPG", "3.png"]


@pytest.mark.parametrize("twice", [("left1.png", "right1.png"), ("1.png", "000001.png"), ("1.png", "01.jpg")])
def test_one_number_for_two_images_is_refused(folder, twice):
    touch(folder, "0.png", *twice, "2.png")
    with pytest.raises(InputError, match=r"are both number 1, expected one file for a number") as caught:
        numbered_files(folder, IMAGE_SUFFIXES)
    assert all(name in str(caught.value) for name in twice)


def test_what_cannot_be_opened_is_found(folder):
    touch(folder, "0.png", "2.png")
    os.symlink("nowhere.png", folder / "1.png")
    (folder / "3.png").makedirs()
    assert list(numbered_files(folder, (".png",))) == [0, 1, 2, 3]


def test_frame_numbers():
    assert frame_number("a/0000000069.png") == 69
    assert frame_number("frame12") == 12
    with pytest.raises(InputError, match=r"a/cover.png: no frame number"):
        frame_number("a/cover.png")


# Drives and sequences


def test_odometry_below_dataset_and_beside_it(folder):
    write_sequence(folder, "00", ["000000.png"], 1, base="dataset")
    write_sequence(folder, "11", ["000000.png"], base="dataset")
    assert detect_layout(folder) == "odometry"
    assert [sequence.name for sequence in drive_folders(folder, "odometry")] == ["00", "11"]
    assert find_sequence(folder, "00").poses_file == folder / "dataset/poses/00.txt"
    assert find_sequence(folder / "dataset", "00").poses_file == folder / "dataset/poses/00.txt"
    assert find_sequence(folder, "11").poses_file is None
    # Archives unpacked into different places: images below dataset/, poses beside it.
    (folder / "dataset/poses").move(folder / "poses")
    assert find_sequence(folder, "00").poses_file == folder / "poses/00.txt"
    assert find_sequence(folder / "dataset", "00").poses_file == folder / "poses/00.txt"
    write_sequence(folder, "09", ["000000.png"])
    assert [sequence.name for sequence in drive_folders(folder, "odometry")] == ["00", "09", "11"]
    assert sequence_folder(folder, "11") == folder / "dataset/sequences/11"
    assert sequence_folder(folder, "12") == folder / "sequences/12"
    assert pose_file(folder, "12") == folder / "poses/12.txt"


def test_a_drive_that_cannot_be_opened_is_refused(folder):
    touch(folder / DRIVE / "image_02/data", "0.png")
    for name in ("2011_09_28", f"{DRIVE[:-6]}2_sync"):
        os.symlink("/nowhere", folder / name)
        with pytest.raises(InputError, match=f"{folder / name}: cannot be opened as a folder"):
            drive_folders(folder, "raw")
        (folder / name).unlink()
    assert len(drive_folders(folder, "raw")) == 1


def test_cameras_of_a_drive(folder):
    drive = folder / DRIVE
    touch(drive / "image_00/data", "0.png")
    assert [recording.camera for recording in find_recordings(drive, "raw", None)] == ["00"]
    touch(drive / "image_03/data", "0.jpeg")
    assert [recording.camera for recording in find_recordings(drive, "raw", None)] == ["03"]
    assert [recording.camera for recording in find_recordings(drive, "raw", ["03", "02", "00", "03"])] == ["03", "00"]
    assert find_recordings(drive, "raw", None)[0].scene == "2011_09_26_drive_0001_sync_03"


# Poses


@pytest.mark.parametrize(
    ("first", "names"), [(0, "{:06d}.png"), (0, "{}.jpg"), (1, "{}.jpg"), (1, "{:06d}.png"), (100, "frame{}.jpeg")]
)
def test_a_sequence_pairs_its_images_with_its_poses_in_order(folder, first, names):
    files = [names.format(first + k) for k in range(14)]
    write_sequence(folder, "09", files, 14)
    recording = find_sequence(folder, "09")
    assert [file.name for file in recording.images.values()] == files
    poses, problems = camera_poses(recording, read_calibration(recording, False, False), {})
    np.testing.assert_allclose(list(poses.values()), to_homogeneous(straight(14)))
    assert problems == {}


def test_a_missing_frame_does_not_shift_the_poses_of_the_others(folder):
    names = [f"{k}.png" for k in range(14) if k not in (3, 4)]
    write_sequence(folder, "09", names, 14)
    (recording,) = find_recordings(folder / "sequences/09", "odometry", ["02"])
    poses, _ = camera_poses(recording, read_calibration(recording, False, False), {})
    assert {frame: pose[2, 3] for frame, pose in poses.items()} == {k: k for k in range(14) if k not in (3, 4)}
    with pytest.raises(InputError, match="image_2: no images 3 to 4, expected one for each frame"):
        find_sequence(folder, "09")
    # The same of a sequence that is numbered from 1.
    for k in sorted(recording.images, reverse=True):
        recording.images[k].move(recording.images[k].parent / f"{k + 1}.png")
    (recording,) = find_recordings(folder / "sequences/09", "odometry", ["02"])
    poses, _ = camera_poses(recording, read_calibration(recording, False, False), {})
    assert {frame: pose[2, 3] for frame, pose in poses.items()} == {k + 1: k for k in range(14) if k not in (3, 4)}


def test_frames_behind_the_last_pose_have_none(folder):
    write_sequence(folder, "09", [f"{k:06d}.png" for k in range(6)], 4)
    (recording,) = find_recordings(folder / "sequences/09", "odometry", ["02"])
    poses, problems = camera_poses(recording, read_calibration(recording, False, False), {})
    assert (list(poses), list(problems)) == ([0, 1, 2, 3], [4, 5])
    assert problems[4].endswith("poses/09.txt: 4 lines, none for frame 4")
    with pytest.raises(InputError, match=r"09.txt: 4 poses for 6 images"):
        find_sequence(folder, "09")


def test_sequences_with_and_without_ground_truth(folder):
    write_sequence(folder, "09", ["0.png"], 1)
    write_sequence(folder, "11", ["0.png"], base="dataset")
    assert [kitti_folders.has_ground_truth(folder, name) for name in ("09", "11")] == [True, False]
    (folder / "sequences/09").rmtree()  # to score a file of predictions, poses will do
    assert kitti_folders.has_ground_truth(folder, "09")
    with pytest.raises(InputError, match=r"poses/12.txt: no such file, and no sequence .*sequences/12"):
        kitti_folders.has_ground_truth(folder, "12")


def test_sequences_that_cannot_be_tested(folder):
    with pytest.raises(InputError, match="sequences/11: no such sequence"):
        find_sequence(folder, "11")
    (folder / "sequences/11/image_2").makedirs()
    with pytest.raises(InputError, match="no images in image_2"):
        find_sequence(folder, "11")
    touch(folder / "sequences/11/image_0", "0.png", "20000000.png")
    start = time.process_time()
    with pytest.raises(InputError, match="image_0: no images 1 to 19999999"):
        find_sequence(folder, "11")
    assert time.process_time() - start < 0.5  # without a set of all numbers between
    (folder / "poses").makedirs()
    os.symlink("nowhere.txt", folder / "poses/11.txt")
    (folder / "sequences/11/image_0/20000000.png").remove()
    with pytest.raises(InputError, match=r"11.txt: no such file"):
        find_sequence(folder, "11")


# Lists


def name_of(frame, suffix=".png"):
    return f"{DRIVE}/image_02/data/{frame:010d}{suffix}"


def test_lists_in_all_the_forms_that_people_have(folder):
    root = folder / "kitti"
    root.makedirs()
    lines = [
        name_of(0),
        f"./{name_of(1)}",
        f"{root}/{name_of(2)}",
        name_of(3).replace("/", "\\"),
        f"{DRIVE} 4 l",
        f"{DRIVE}  0000000005 r",
        f"./{DRIVE} 6 l",
        "my drives/day 1/frame 7.jpg",
        f"my drives/{DRIVE} 8 l",
    ]
    file = folder / "list.txt"
    file.write_text("# images\n\n" + "\r\n".join(lines) + "\n")
    expected = [*map(name_of, range(5)), name_of(5).replace("image_02", "image_03"), name_of(6)]
    expected += ["my drives/day 1/frame 7.jpg", f"my drives/{name_of(8)}"]
    assert read_image_list(file, root) == expected


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("", "the list is empty"),
        (f"{DRIVE} 5 m\n", "is not an image's path nor"),
        ("a b c\n", "is not an image's path nor"),
        ("/elsewhere/0.png\n", "line 1: '/elsewhere/0.png' leads out of its folder"),
        (f"{name_of(0)}\n./{name_of(0)}\n", "twice"),
        (f"{name_of(7)}\n{DRIVE} 7 l\n", "twice"),
    ],
)
def test_bad_lists(folder, lines, message):
    (folder / "list.txt").write_text(lines)
    with pytest.raises(InputError, match=message):
        read_image_list(folder / "list.txt", folder)


@given(st.lists(st.sampled_from(["a b/0.png", "x/1.png", "x/2.JPG", "y/3.jpeg"]), min_size=1, unique=True), st.data())
def test_how_a_path_is_written_does_not_matter(tmp_path_factory, names, data):
    root = Path(tmp_path_factory.getbasetemp())
    styles = [
        lambda n: n,
        lambda n: f"./{n}",
        lambda n: f"{root}/{n}",
        lambda n: n.replace("/", "\\"),
        lambda n: f" {n} ",
    ]
    written = [data.draw(st.sampled_from(styles))(name) for name in names]
    (root / "paths.txt").write_text("\n".join(written))
    assert read_image_list(root / "paths.txt", root) == names


def test_drives_of_a_list(folder):
    drives = {f"2011_09_26_drive_000{k}" for k in range(1, 6)}
    lines = [
        "2011_09_26_drive_0001",
        f"2011_09_26/{'2011_09_26_drive_0002_sync'}/",
        "2011_09_26\\2011_09_26_drive_0003_sync",
    ]
    lines += [
        "2011_09_26_drive_0004_sync_02",
        "./2011_09_26_drive_0005_extract",
        f"{folder}/2011_09_26/2011_09_26_drive_0001_sync",
    ]
    (folder / "test.txt").write_text("\n".join(lines))
    assert read_drive_list(folder / "test.txt", folder) == drives
    (folder / "test.txt").write_text("2011_09_26_drive_1\n")
    with pytest.raises(InputError, match=r"test\.txt: '2011_09_26_drive_1' names no drive"):
        read_drive_list(folder / "test.txt", folder)


def test_kitti_converted_to_jpeg_is_found(folder):
    names = [name_of(k) for k in range(5)]
    data = (folder / names[0]).parent
    touch(data, "0000000000.png", "0000000001.jpg", "0000000002.JPEG", "0000000003.jpg", "0000000003.png")
    found = [find_image(folder, name).name for name in names]
    assert found == ["0000000000.png", "0000000001.jpg", "0000000002.JPEG", "0000000003.png", "0000000004.png"]
    expected = "1 images read as .jpg, not as .png, 1 images read as .JPEG, not as .png"
    assert describe_conversion(folder, names) == expected
    assert describe_conversion(folder, names[:1]) == ""
    assert find_image(folder, name_of(1, ".jpg")).name == "0000000001.jpg"


def test_the_formats_are_read_without_torch():
    """It takes a second to import, which a reader of text files does not need."""
    modules = ["kitti", "kitti_folders", "cityscapes", "trajectories", "depth_archive"]
    code = (
        f"import sys; {'; '.join(f'import datasets.formats.{name}' for name in modules)}; print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
