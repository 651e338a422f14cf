"""The command: what it prints, what it writes, how it ends."""

import json
import subprocess
import sys

from cli.flags import run_script

import numpy as np
import pytest
from path import Path

from data import check_data
from datasets.layout import write_intrinsics
from files.atomic import write_text
from files.images import write_jpeg

ROOT = Path(__file__).absolute().parent.parent.parent
K = np.array([[120.0, 0, 103], [0, 120, 30], [0, 0, 1]])


@pytest.fixture
def check(monkeypatch, capsys):
    """Run the script in this process: (exit status, standard output, standard error)."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["check_data.py", *map(str, arguments)])
        status = 0
        try:
            run_script(check_data.main)
        except SystemExit as end:
            status = end.code
        return status, *capsys.readouterr()

    return run


def write_scene(root, name, intrinsics):
    folder = (Path(root) / name).makedirs_p()
    picture = np.random.default_rng(0).integers(0, 255, (64, 250, 3), dtype=np.uint8)
    for number in range(8):
        write_jpeg(folder / f"{number:07d}.jpg", picture[:, 2 * number : 208 + 2 * number])
    write_intrinsics(folder / "cam.txt", intrinsics)


@pytest.mark.parametrize("broken", [False, True])
def test_what_it_prints_and_writes(check, tmp_path, broken):
    write_scene(tmp_path, "drive", K * [[1 + 9 * broken, 1, 1], [1, 1, 1], [1, 1, 1]])
    write_scene(tmp_path, "more", K)
    write_text(tmp_path / "train.txt", "drive\nmore\n")
    status, out, err = check(tmp_path, "--pairs", "8", "--json", tmp_path / "check.json")
    stored = json.loads((tmp_path / "check.json").read_text())
    assert len(stored["scenes"]) == 2
    assert "fx fy cx cy" in out
    if broken:
        assert status == 1
        assert err.splitlines()[-1].startswith("check_data.py: error: the data set is refused: wrong K: drive:")
        assert stored["refused"]
    else:
        assert status == 0, err
        assert stored["refused"] == []


def test_a_download_is_named_as_such(tmp_path):
    (Path(tmp_path) / "2011_09_26/2011_09_26_drive_0001_sync/image_02/data").makedirs()
    command = [sys.executable, ROOT / "data/check_data.py", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr == (
        f"check_data.py: error: {tmp_path}/train.txt: no such file: {tmp_path} is KITTI raw as downloaded, expected a "
        f"prepared data set; prepare it with: python data/prepare_kitti.py {tmp_path} PREPARED\n"
    )


def test_its_result_destroys_no_other_file(check, tmp_path):
    write_scene(tmp_path, "drive", K)
    for name in ("train.txt", "val.txt", "drive/prepared.json"):
        write_text(Path(tmp_path) / name, "drive\n")
        status, _, err = check(tmp_path, "--json", tmp_path / name)
        assert status == 1
        assert f"--json {tmp_path / name}: there is a file of another kind" in err
        assert (tmp_path / name).read_text() == "drive\n"


@pytest.mark.parametrize("length", ["1", "4"])
def test_a_snippet_has_an_odd_number_of_frames(check, tmp_path, length):
    status, _, errors = check(tmp_path, "--sequence-length", length)
    assert (status, "expected an odd number of frames from 3 on" in errors) == (2, True)
