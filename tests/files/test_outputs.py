import os

import numpy as np
import pytest
import torch
from path import Path
from PIL import Image
from safetensors.numpy import save as save_safetensors

from datasets.formats.trajectories import write_tum_trajectory
from datasets.layout import write_poses
from datasets.preparation.check import DataCheck
from evaluation.predictions import save_predictions
from files.atomic import write_json
from files.errors import InputError
from files.outputs import check_output, check_outputs, check_writable
from models.published import publish
from visualization.depth_sheet import write_sheet


def test_check_writable(tmp_path):
    check_writable(Path(tmp_path) / "new.npz", "--save")
    with pytest.raises(InputError, match=r"--save .*no such folder"):
        check_writable(Path(tmp_path) / "no/new.npz", "--save")
    with pytest.raises(InputError, match="is a folder"):
        check_writable(Path(tmp_path), "--save")


@pytest.fixture
def folder(tmp_path):
    """Files of a user: a checkpoint, a list, and earlier outputs."""
    folder = Path(tmp_path)
    (folder / "last.pt").write_bytes(b"PK\x03\x04 weights")
    (folder / "list.txt").write_text("a/0.png\n")
    (folder / "old.json").write_text('{\n  "protocols": {}}\n')
    (folder / "config.json").write_text('{"seed": 0}\n')
    (folder / "table.csv").write_text("name,price\n")
    (folder / "damaged.npz").write_bytes(b"PK\x05\x06" + bytes(18))
    Image.new("RGB", (4, 3)).save(folder / "photograph.png")
    write_sheet(folder / "old.png", "", ["a"], [[np.zeros((4, 8, 3), np.uint8)] * 4])
    (folder / "old.csv").write_text("image,abs_rel\n")
    save_predictions(folder / "old.npz", "depth", {"depth": np.zeros(1)}, {})
    return folder


@pytest.mark.parametrize(
    ("flag", "name", "message"),
    [
        ("--json", "last.pt", "is an input of this command"),
        ("--save", "last.pt", "is an input of this command"),
        ("--csv", "list.txt", "is an input of this command"),
        ("--json", "link", "is an input of this command"),
        ("--json", "old.csv", "a file of another kind, which would be lost"),
        ("--csv", "old.json", "a file of another kind"),
        ("--save", "old.json", "a file of another kind"),
        ("--pictures", "old.json", "a file of another kind"),
        ("--json", "config.json", "a file of another kind"),
        ("--csv", "table.csv", "a file of another kind"),
        ("--save", "damaged.npz", "a file of another kind"),
        ("--pictures", "photograph.png", "a file of another kind"),
        ("--json", "nowhere/a.json", "no such folder"),
    ],
)
def test_an_output_that_would_destroy_something_is_refused(folder, flag, name, message):
    os.symlink(folder / "last.pt", folder / "link")
    with pytest.raises(InputError, match=message):
        check_outputs({flag: folder / name}, [folder / "last.pt", folder / "list.txt", None])


def test_new_files_and_earlier_outputs_are_written(folder):
    names = {"--json": "old.json", "--csv": "old.csv", "--save": "old.npz", "--pictures": "old.png"}
    check_outputs({flag: folder / f"new_{name}" for flag, name in names.items()}, [folder / "last.pt"])
    check_outputs({flag: folder / name for flag, name in names.items()} | {"--other": None}, [folder / "last.pt"])


def test_the_data_checks_result_is_written_again(tmp_path):
    file = Path(tmp_path) / "check.json"
    write_json(file, DataCheck([], [], []).plain())
    check_outputs({"--json": file}, [])


def test_published_weights_are_written_again_and_no_others(tmp_path):
    ours, others = Path(tmp_path) / "ours.safetensors", Path(tmp_path) / "others.safetensors"
    record = {"scenes": ["2011_09_26_drive_0001_sync_02"] * 1000}  # a long header
    publish({"model": {"a": torch.zeros(3)}, "networks": {}, "record": record, "step": 1, "options": {}}, ours)
    others.write_bytes(save_safetensors({"a": np.zeros(3)}, {"format": "pt"}))
    check_outputs({"weights": ours}, [])
    with pytest.raises(InputError, match="a file of another kind"):
        check_outputs({"weights": others}, [])


@pytest.mark.parametrize("flag", ["--json", "--csv", "--save", "--pictures", "weights"])
def test_an_input_under_another_name_is_refused(folder, flag):
    """A hard link, a link to a folder, and another spelling."""
    os.link(folder / "last.pt", folder / "hard")
    os.symlink(folder, folder / "here")
    (folder / "nowhere").mkdir()
    for name in ("hard", "here/last.pt", "nowhere/../last.pt"):
        with pytest.raises(InputError, match="is an input of this command"):
            check_outputs({flag: folder / name}, [folder / "last.pt"])


@pytest.mark.parametrize("flag", ["--json", "--csv", "--save", "--pictures", "weights", "--export"])
def test_what_is_no_regular_file_is_refused(folder, flag):
    """Opening a pipe for writing waits for a reader, for ever; a file in the place of /dev/stdout takes it away."""
    os.mkfifo(folder / "pipe")
    os.symlink(folder / "pipe", folder / "link")
    os.symlink("/dev", folder / "devices")
    for name in (folder / "pipe", folder / "link", "/dev/null", "/dev/stdout", "/dev/new", folder / "devices/stdout"):
        with pytest.raises(InputError, match="is a pipe or a device"):
            check_output(flag, Path(name), "", [])


@pytest.mark.parametrize("write", [write_poses, lambda file, poses: write_tum_trajectory(file, np.arange(3.0), poses)])
def test_trajectories_of_ours_are_written_again_and_no_others(tmp_path, write):
    file = Path(tmp_path) / "11.txt"
    poses = np.tile(np.eye(3, 4), (3, 1, 1))
    poses[:, :, 3] = np.random.default_rng(0).normal(size=(3, 3))
    write(file, poses)
    check_output("--export", file, "trajectory", [])
    rows = np.loadtxt(file)
    for form in ("%.6e", "%.6f", "%.18e"):  # KITTI's, ORB-SLAM's, evo's
        np.savetxt(file, rows, fmt=form)
        with pytest.raises(InputError, match="a file of another kind"):
            check_output("--export", file, "trajectory", [])
    for text in ("notes\n", "1.0 2.0\n", "\xff" * 12):
        file.write_text(text)
        with pytest.raises(InputError, match="a file of another kind"):
            check_output("--export", file, "trajectory", [])


def test_two_outputs_in_one_file_are_refused(folder):
    with pytest.raises(InputError, match=r"--csv .*: --json writes the same file"):
        check_outputs({"--json": folder / "a", "--csv": folder / "a"}, [])
    os.link(folder / "old.json", folder / "second.json")
    with pytest.raises(InputError, match=r"--other .*: --json writes the same file"):
        check_outputs({"--json": folder / "old.json", "--other": folder / "second.json"}, [])
