import json
import sys

import numpy as np
import pytest
import torch
from path import Path

from benchmarks import broken_runs as benchmark
from benchmarks.broken_runs import (
    CASES,
    REAL,
    Case,
    Outcome,
    fill_picture,
    invert_depth,
    make_data,
    row,
    write_drive,
)
from datasets.layout import read_scene
from datasets.synthetic.drive_files import make_drive_renderer
from datasets.synthetic.options import WorldOptions, list_drives
from models.checkpoint import load_model
from training.collapse import CHECKS, VALIDATION_CHECKS
from training.options import new_options
from training.run import STRUCTURE_UNKNOWN

pytestmark = pytest.mark.usefixtures("process_as_before")
SIZE = (64, 32)


def type_benchmark(monkeypatch, *flags):
    monkeypatch.setattr(sys, "argv", ["broken_runs.py", *map(str, flags), "--device", "cpu"])
    benchmark.main()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder that holds the data of a small world whose K is too long: one drive to train on, two to validate."""
    folder = Path(tmp_path_factory.mktemp("broken"))
    make_data(folder, "long_focal", 3, 10, SIZE)
    return folder


def test_a_training_that_is_not_named_is_an_error_and_its_table_is_there(folder, monkeypatch, capsys):
    """A single drive of 10 frames holds too few clips to show K."""
    flags = ["--only", "K too long", "--steps", 2, "--folder", folder, "--json", folder / "result.json"]
    with pytest.raises(benchmark.InputError, match="did not give the expected warnings: K too long"):
        type_benchmark(monkeypatch, *flags)
    (result,) = json.loads((folder / "result.json").read_text())["runs"]
    assert result["broken"]
    assert result["warnings"]["data_check/too_few_frames"] == 0
    assert result["scores"]["abs_rel"] > 0
    assert "named: NO" in capsys.readouterr().out


def test_an_unknown_training_is_one_line(monkeypatch):
    with pytest.raises(benchmark.InputError, match="--only 'flat': expected some of 'constant depth', "):
        type_benchmark(monkeypatch, "--only", "flat")


def test_five_are_broken_and_five_healthy_and_their_warnings_exist():
    assert [bool(case.named_by) for case in CASES] == 5 * [True] + 5 * [False]
    known = {check.name for check in (*CHECKS, *VALIDATION_CHECKS)} | {STRUCTURE_UNKNOWN}
    assert {name for case in CASES for name in case.named_by if "/" not in name} <= known
    for case in (*CASES, REAL):
        prior = {"prior": "world"} if "prior_weight" in case.options else {}
        new_options({**case.options, **prior, "data": "nowhere"})


def test_what_is_right():
    broken, healthy = Case("a", "world", {}, ("x", "y")), Case("b", "world", {})
    assert Outcome(broken, 1.0, {}, {"y": 100}).is_right
    assert not Outcome(broken, 1.0, {}, {"z": 100}).is_right
    assert Outcome(healthy, 1.0, {}).is_right
    assert not Outcome(healthy, 1.0, {}, {"x": 0}).is_right
    assert row(Outcome(broken, 1.0, {"structure": 0.5}, {"y": 100}))["warnings, with the first step"] == "y 100"


def render(folder, change=None, pace=1.0):
    """A scene of 4 frames of a world's first drive, and the drive's K and path."""
    options = WorldOptions(3, 4, *SIZE, varied=change is not None)
    drive = list_drives(options)[0]
    renderer = make_drive_renderer(options, drive)
    if change is not None:
        change(renderer)
    write_drive(folder, renderer, drive, SIZE, pace)
    return read_scene(folder), drive.intrinsics, renderer.scene.world_from_camera


def test_a_slow_drive_is_the_beginning_of_the_drive(tmp_path):
    scene, intrinsics, path = render(Path(tmp_path) / "slow", pace=0.5)
    assert scene.intrinsics == pytest.approx(intrinsics)
    assert scene.poses[::2] == pytest.approx(path[:2, :3])
    assert scene.poses[1, :, 3] == pytest.approx(path[:2, :3, 3].mean(0))


def test_another_seed_is_another_world(tmp_path):
    drives = [read_scene(sorted(make_data(Path(tmp_path), "world", 3, 3, SIZE, seed).dirs())[0]) for seed in (0, 5)]
    assert drives[0].folder.parent != drives[1].folder.parent
    assert not np.allclose(drives[0].poses, drives[1].poses)


def test_vehicles_fill_the_picture(tmp_path):
    render(Path(tmp_path) / "filled", lambda renderer: fill_picture(renderer, np.random.default_rng(0)))
    depth = np.load(Path(tmp_path) / "filled/0000002.npy")
    assert ((depth > 0) & (depth < 25)).mean() > 0.7


def test_k_is_too_long_and_depth_is_turned_upside_down(folder):
    (scene, *_) = (read_scene(one) for one in sorted((folder / "long_focal").dirs()))
    assert scene.intrinsics[:2, :2] == pytest.approx(1.45 * 0.581 * SIZE[0] * np.eye(2))
    base = {"data": str(folder / "long_focal"), "device": "cpu", "steps": 1, "seed": 0, "workers": 0}
    file = invert_depth(folder, base | {"runs": str(folder / "runs"), "check": False})
    healthy = load_model(folder / "runs/before_it_is_turned_upside_down/last.pt").depth_net
    image = torch.rand(1, 3, 32, 64) * 2 - 1
    with torch.no_grad():
        before, after = (net.eval()(image)[1].ravel() for net in (healthy, load_model(Path(file)).depth_net))
    assert torch.corrcoef(torch.stack([before, after]))[0, 1] < -0.95
