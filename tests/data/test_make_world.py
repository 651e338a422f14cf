"""The command that renders a world: what it prints, what it leaves, and how it refuses."""

import json
import os
import re
import resource
import shlex
import signal
import subprocess
import sys
import time

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


@pytest.mark.slow
def test_the_commands_of_the_help_run(tmp_path):
    """In order, with fewer and smaller frames in the first."""
    shown = subprocess.run(
        [sys.executable, "data/make_world.py", "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    commands = [shlex.split(line) for line in shown.stdout.splitlines() if line.strip().startswith("python ")]
    assert [command[1] for command in commands] == ["data/make_world.py", "data/prepare_kitti.py"]
    smaller = ["--drives", "3", "--frames", "4", "--width", "64", "--height", "32", "--mono"]
    for command, more in zip(commands, (smaller, ["--jobs", "1"]), strict=True):
        words = [
            word.replace("WORLD", f"{tmp_path}/world").replace("PREPARED", f"{tmp_path}/ready") for word in command
        ]
        done = subprocess.run([sys.executable, *words[1:], *more], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "ready/train.txt").read_text().split() == ["2026_01_01_drive_0001_sync_02"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("jobs", "limit", "name"), [("1", 2000, "raw/2026_01_01/calib_cam_to_cam.txt"), ("2", 10_000, ".png")]
)
def test_a_full_disk_ends_in_one_line_that_names_the_file(tmp_path, jobs, limit, name):
    """A limit on the size of files stands for the full disk: the system refuses the write in the same way."""
    flags = ["--drives", "2", "--frames", "3", "--width", "104", "--height", "64", "--mono", "--jobs", jobs]
    command = [sys.executable, "data/make_world.py", tmp_path / "world", *flags]
    full = subprocess.run(
        command,
        cwd=ROOT,
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY)),
    )
    assert full.returncode == 1
    assert "Traceback" not in full.stderr
    message = full.stderr.splitlines()[-1]
    assert re.fullmatch(
        rf"make_world\.py: error: {tmp_path}/world/\S*{re.escape(name)}: could not be written \(File too large\); "
        "complete drives are kept; with more disk space the same command continues",
        message,
    )
    assert not [file for file in tmp_path.rglob("*") if file.suffix == ".part" or file.name == ".unfinished"]
    assert subprocess.run(command, cwd=ROOT, capture_output=True).returncode == 0


@pytest.mark.slow
def test_killed_it_goes_on_alone(tmp_path):
    flags = ["--drives", "3", "--frames", "60", "--width", "64", "--height", "32", "--mono", "--jobs", "2"]
    command = [sys.executable, "data/make_world.py", tmp_path / "killed", *flags]
    first = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    while len(list(tmp_path.glob("killed/.unfinished/*/image_02/data/*.png"))) < 8:
        assert first.poll() is None
        time.sleep(0.02)
    first.send_signal(signal.SIGSTOP)  # so that it is still there, however slow the second is to start
    second = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert second.returncode == 1
    assert "another process is at work there" in second.stderr
    first.kill()
    first.wait()
    again = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    whole = [sys.executable, "data/make_world.py", tmp_path / "whole", *flags[:-1], "1"]
    assert subprocess.run(whole, cwd=ROOT, capture_output=True).returncode == 0
    files = [
        {str(file.relative_to(root)): file.read_bytes() for file in root.rglob("*") if file.is_file()}
        for root in (tmp_path / "killed", tmp_path / "whole")
    ]
    assert files[0] == files[1]
