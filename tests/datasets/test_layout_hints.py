"""Errors for folders that are no prepared data set name the likely reason."""

import pytest
from path import Path

from datasets import layout
from files.errors import InputError


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        (
            ["2011_09_26"],
            r"train.txt: no such file: \S+/data is KITTI raw as downloaded, .* data/prepare_kitti.py \S+/data ",
        ),
        (["sequences/00"], r"data is KITTI odometry as downloaded"),
        (["dataset/sequences/00"], r"data is KITTI odometry as downloaded"),
        (
            ["raw/2026_01_01", "odometry"],
            r"data/raw is KITTI raw as downloaded, .* data/prepare_kitti.py \S+/data/raw ",
        ),
        (["drive"], r"train.txt: no such file, expected a prepared data set \(see data/prepare_kitti.py\)"),
    ],
)
def test_a_folder_without_a_list(tmp_path, folders, message):
    for folder in folders:
        (Path(tmp_path) / "data" / folder).makedirs()
    with pytest.raises(InputError, match=message):
        layout.read_scene_names(Path(tmp_path) / "data" / "train.txt")


def test_a_list_of_monodepth2(tmp_path):
    file = Path(tmp_path) / "train.txt"
    file.write_text("2011_09_26/2011_09_26_drive_0022_sync 473 r\n2011_09_29/2011_09_29_drive_0026_sync 1 l\n")
    with pytest.raises(InputError, match=r"drive_0022_sync 473 r' is a line of monodepth2's split files") as error:
        layout.read_scene_names(file)
    assert "\n" not in str(error.value)


def test_a_scene_may_be_called_like_that(tmp_path):
    (Path(tmp_path) / "camera 1 l").makedirs()
    (Path(tmp_path) / "train.txt").write_text("camera 1 l\n")
    assert layout.read_scene_names(Path(tmp_path) / "train.txt") == ["camera 1 l"]


def test_frames_of_other_kinds_are_named(tmp_path):
    folder = Path(tmp_path)
    for number in range(3):
        (folder / f"{number}.pgm").touch()
    for name in ("0.webp", "cam.txt", "0.npy", "._1.jpg"):
        (folder / name).touch()
    with pytest.raises(InputError, match=r"no frames: found files 3 \.pgm, 1 \.webp, expected ") as error:
        layout.read_scene(folder)
    for suffix in layout.IMAGE_SUFFIXES:
        assert suffix in str(error.value)
