"""The command that renders a world: what it prints, what it leaves, and how it refuses."""

import json
import os
import re
import resource
import runpy
import shlex
import signal
import subprocess
import sys
import time

from cli.flags import run_script

import pytest
from path import Path

from data import make_world
from files.errors import InputError

ROOT = Path(__file__).absolute().parent.parent.parent


def test_flags_become_options(tmp_path, capsys):
    folder = Path(tmp_path / "world")
    flags = "--drives 1 --frames 3 --width 64 --height 32 --seed 7 --moving-cars 1 --no-halts --exposure-changes"
    flags += " --vary-focal --mono --dense-depth --scan-every 2 --jobs 1"
    make_world.main([str(folder), *flags.split()])
    assert "1 drives of 3 frames, 64 x 32 (1 train, 0 val, 0 test)" in capsys.readouterr().out
    stored = json.loads((folder / "world.json").read_text())
    assert stored["moving_cars"] == 1
    assert stored["seed"] == 7
    assert not stored["halts"]
    assert not stored["stereo"]
    drive = folder / "raw" / "2033_01_01" / "2033_01_01_drive_0001_sync"
    assert sorted(os.listdir(drive)) == ["image_02", "oxts", "proj_depth", "velodyne_points"]
    assert sorted(os.listdir(drive / "velodyne_points" / "data")) == ["0000000000.bin", "0000000002.bin"]


def test_wrong_values_are_refused_before_anything_is_written(tmp_path):
    for flags, message in (
        ("--drives 0", "drives: got 0"),
        ("--width 7", "width: got 7"),
        ("--frames 1", "frames: got 1"),
    ):
        with pytest.raises(InputError, match=message):
            make_world.main([str(tmp_path / "world"), *flags.split()])
    assert not os.listdir(tmp_path)


def test_text_for_a_number_is_wrong_use(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        make_world.main([str(tmp_path / "world"), "--drives", "many"])
    assert stop.value.code == 2
    assert "invalid int value: 'many'" in capsys.readouterr().err


@pytest.mark.slow
def test_typed_in_a_shell_one_line_and_status_1(tmp_path):
    Path(tmp_path / "holiday.jpg").write_text("not ours")
    command = [sys.executable, "data/make_world.py", tmp_path, "--drives", "1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "has other contents" in done.stderr
    assert os.listdir(tmp_path) == ["holiday.jpg"]


def test_the_commands_of_the_help_run(tmp_path, monkeypatch, capsys):
    """In order, with fewer and smaller frames in the first."""
    with pytest.raises(SystemExit):
        make_world.main(["--help"])
    shown = capsys.readouterr().out
    commands = [shlex.split(line) for line in shown.splitlines() if line.strip().startswith("python ")]
    assert [command[1] for command in commands] == ["data/make_world.py", "data/prepare_kitti.py"]
    smaller = ["--drives", "3", "--frames", "4", "--width", "64", "--height", "32", "--mono", "--jobs", "1"]
    for command, more in zip(commands, (smaller, ["--jobs", "1"]), strict=True):
        words = [
            word.replace("WORLD", f"{tmp_path}/world").replace("PREPARED", f"{tmp_path}/ready") for word in command
        ]
        monkeypatch.setattr(sys, "argv", [*words[1:], *more])
        runpy.run_path(ROOT / words[1], run_name="__main__")
    assert (tmp_path / "ready/train.txt").read_text().split() == ["2026_01_01_drive_0001_sync_02"]


@pytest.mark.parametrize(
    ("jobs", "limit", "name"), [("1", 2000, "raw/2026_01_01/calib_cam_to_cam.txt"), ("2", 10_000, ".png")]
)
def test_a_full_disk_ends_in_one_line_that_names_the_file(tmp_path, monkeypatch, capfd, jobs, limit, name):
    """A limit on the size of files stands for the full disk: the system refuses the write in the same way."""
    folder = tmp_path / "world"
    words = [str(folder), "--drives", "2", "--frames", "3", "--width", "104", "--height", "64", "--mono", "--jobs"]
    monkeypatch.setattr(sys, "argv", ["make_world.py", *words, jobs])
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limits[1]))
    try:
        with pytest.raises(SystemExit) as end:
            run_script(make_world.main)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert end.value.code == 1
    errors = capfd.readouterr().err  # of all processes
    assert "Traceback" not in errors
    message = errors.splitlines()[-1]
    assert re.fullmatch(
        rf"make_world\.py: error: {folder}/\S*{re.escape(name)}: could not be written \(File too large\); "
        "complete drives are kept; with more disk space the same command continues",
        message,
    )
    assert not [file for file in tmp_path.rglob("*") if file.suffix == ".part" or file.name == ".unfinished"]
    make_world.main([*words, "1"])


@pytest.mark.slow
def test_killed_it_goes_on_alone(tmp_path):
    flags = ["--drives", "3", "--frames", "24", "--width", "64", "--height", "32", "--mono", "--jobs", "2"]
    command = [str(tmp_path / "killed"), *flags]
    first = subprocess.Popen(
        [sys.executable, "data/make_world.py", *command], cwd=ROOT, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    while len(list(tmp_path.glob("killed/.unfinished/*/image_02/data/*.png"))) < 8:
        assert first.poll() is None
        time.sleep(0.02)
    first.send_signal(signal.SIGSTOP)  # so that it is still there, however slow the second is to start
    with pytest.raises(InputError, match="another process is at work there"):
        make_world.main(command)
    first.kill()
    first.wait()
    make_world.main([*command[:-1], "1"])
    make_world.main([str(tmp_path / "whole"), *flags[:-1], "1"])
    files = [
        {str(file.relative_to(root)): file.read_bytes() for file in root.rglob("*") if file.is_file()}
        for root in (tmp_path / "killed", tmp_path / "whole")
    ]
    assert files[0] == files[1]
