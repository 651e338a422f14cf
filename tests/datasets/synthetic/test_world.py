"""A world on disk: its layout, what a stopped run leaves and continues, and what is refused."""

import dataclasses
import errno
import hashlib
import os
import shutil

import imageio.v3 as iio
import numpy as np
import pytest
from path import Path

from datasets.formats import kitti
from datasets.synthetic import Renderer, list_drives, write_world
from datasets.synthetic import world as world_module
from files.errors import InputError, WriteError


def digests(folder: Path) -> dict[str, str]:
    return {file.relpath(folder): hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.walkfiles()}


def test_layout_and_splits(world, options):
    drives = list_drives(options)
    assert [drive.split for drive in drives] == ["train", "val", "test"]
    assert [drive.sequence for drive in drives] == ["00", "01", "09"]
    splits = {name: (world / "splits" / name).read_text().split() for name in os.listdir(world / "splits")}
    assert splits["test_scenes.txt"] == ["2029_01_01_drive_0003"]
    folder = "2029_01_01/2029_01_01_drive_0003_sync/image_02/data"
    assert splits["test_files.txt"] == [f"{folder}/{frame:010d}.png" for frame in (0, 4, 8)]
    for drive in drives:
        assert len((world / "raw" / drive.name / "image_03" / "data").files("*.png")) == options.frames
        stamps = kitti.read_timestamps(world / "raw" / drive.name / "image_02" / "timestamps.txt")
        assert (np.diff(stamps) == np.timedelta64(100, "ms")).all()
        sequence = world / "odometry" / "sequences" / drive.sequence
        times = kitti.read_times(sequence / "times.txt")
        np.testing.assert_allclose(times, 0.1 * np.arange(options.frames))
        calibration = kitti.read_odometry_calibration(sequence / "calib.txt")
        np.testing.assert_allclose(calibration["P2"][:, :3], drive.intrinsics)
        image = iio.imread(sequence / "image_2" / "000008.png")
        assert image.shape == (64, 208, 3)
        raw = world / "raw" / drive.name / "image_02" / "data" / "0000000008.png"
        np.testing.assert_array_equal(image, iio.imread(raw))
    assert not (world / ".unfinished").exists()


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bytes_in_two_processes(tiny, tmp_path, tiny_options):
    write_world(tmp_path / "again", tiny_options, jobs=2)
    assert digests(Path(tmp_path / "again")) == digests(tiny)


def test_begun_before_it_goes_on_with_what_is_missing(tiny, tmp_path, tiny_options):
    folder = Path(tmp_path / "world")
    shutil.copytree(tiny, folder)
    kept, lost = (folder / "raw" / drive.name for drive in list_drives(tiny_options))
    lost.rmtree()
    (folder / "odometry" / "sequences" / "09").rmtree()
    (folder / "odometry" / "poses" / "00.txt").remove()
    (folder / ".unfinished" / "2031_01_01_drive_0002" / "image_02").makedirs()
    before = {file: file.stat().st_mtime_ns for file in kept.walkfiles()}
    write_world(folder, tiny_options)
    assert digests(folder) == digests(tiny)
    assert before == {file: file.stat().st_mtime_ns for file in kept.walkfiles()}


def test_a_drive_that_lost_images_is_named(tiny, tmp_path, tiny_options):
    folder = Path(tmp_path / "world")
    shutil.copytree(tiny, folder)
    (folder / "raw" / list_drives(tiny_options)[1].name / "image_02" / "data" / "0000000001.png").remove()
    with pytest.raises(
        InputError, match=r"drive_0002_sync/image_02/data: 2 images, expected the 3 .* renders it again"
    ):
        write_world(folder, tiny_options)


def test_a_failure_leaves_no_drive_that_looks_whole(tmp_path, monkeypatch, tiny_options):
    real = Renderer.image
    monkeypatch.setattr(
        Renderer, "image", lambda self, frame, *rest: real(self, frame, *rest) if frame < 2 else full_disk()
    )

    def full_disk():
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(WriteError, match=r"No space left on device; .* the same command continues"):
        write_world(tmp_path / "world", tiny_options)
    folder = Path(tmp_path / "world")
    assert not list(folder.walkdirs("*_sync*"))
    assert not (folder / ".unfinished").exists()
    monkeypatch.undo()
    write_world(folder, tiny_options)
    assert (folder / "raw" / list_drives(tiny_options)[1].name / "image_02").is_dir()


def test_a_folder_with_something_else_stays_as_it_is(tmp_path, tiny_options):
    Path(tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(InputError, match="has other contents"):
        write_world(tmp_path, tiny_options)
    with pytest.raises(InputError, match="is a file"):
        write_world(tmp_path / "letter.txt", tiny_options)
    assert os.listdir(tmp_path) == ["letter.txt"]


def test_a_world_of_other_options_stays_as_it_is(tiny, tiny_options):
    before = digests(tiny)
    with pytest.raises(InputError, match=r"seed 5 \(now 6\)"):
        write_world(tiny, dataclasses.replace(tiny_options, seed=6))
    assert digests(tiny) == before


@pytest.mark.parametrize("content", ["", "[]", "{", "\x00"])
def test_damaged_options(content, tmp_path, tiny_options):
    Path(tmp_path / "world.json").write_text(content)
    with pytest.raises(InputError, match="does not hold the options of a world"):
        write_world(tmp_path, tiny_options)


def test_no_room_on_the_disk(tmp_path, monkeypatch, tiny_options):
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(world_module.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(InputError, match="too little disk space for 2 drives"):
        write_world(tmp_path / "world", tiny_options)
    assert not os.listdir(tmp_path)


def test_a_disk_that_is_full_from_the_first_file_on_leaves_a_folder_to_begin_in(tmp_path, monkeypatch, tiny_options):
    folder = Path(tmp_path / "world")
    with monkeypatch.context() as full:
        full.setattr(os, "replace", lambda *_: _full())
        with pytest.raises(WriteError, match=r"world\.json: could not be written \(No space left"):
            write_world(folder, tiny_options)
    assert list(folder.walkfiles()) == [folder / ".lock"]
    (folder / ".world.json.0123456789ab.part").touch()  # killed there
    write_world(folder, dataclasses.replace(tiny_options, drives=1))
    assert (folder / "raw" / list_drives(tiny_options)[0].name).is_dir()


def _full():
    raise OSError(errno.ENOSPC, "No space left on device")
