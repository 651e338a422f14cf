import json
import signal
import sys
from dataclasses import replace

import pytest
import torch
from path import Path

from benchmarks import time_to_depth as benchmark
from benchmarks.surroundings import make_noise
from datasets.layout import write_depth, write_poses, write_scene_names
from training.options import new_options
from training.recipes import RECIPES

pytestmark = pytest.mark.usefixtures("process_as_before")


@pytest.fixture
def data(tmp_path):
    root = Path(tmp_path) / "data"
    make_noise(root, 32, 48, 12)
    write_scene_names(root / "val.txt", ["noise"])
    write_depth(root / "noise/0000003.npy", torch.full((32, 48), 7.0).numpy())
    write_poses(
        root / "noise/poses.txt", torch.eye(3, 4).repeat(12, 1, 1).numpy() + torch.arange(12)[:, None, None].numpy()
    )
    return root


def test_curves_of_recipes_over_the_training_s_time(data, monkeypatch, capsys):
    flags = ["--data", data, "--recipes", "small", "paper-depth", "--devices", "cpu", "--minutes", 60, "--points", 2]
    flags += ["--steps", 2, "--batch-size", 2, "--workers", 0, "--json", data / "curves.json"]
    monkeypatch.setattr(sys, "argv", ["time_to_depth.py", *map(str, flags)])
    benchmark.main()
    out = capsys.readouterr().out
    assert "small on cpu: " in out
    assert "minutes  step  abs_rel      a1" in out
    curves = json.loads((data / "curves.json").read_text())["curves"]
    assert [curve["recipe"] for curve in curves] == ["small", "paper-depth"]
    (point,) = curves[0]["curve"]  # the last step comes before the first point's time
    assert point["step"] == 2
    assert point["seconds"] > 0
    assert {"abs_rel", "ate"} <= point.keys()


def test_the_schedule_spans_the_steps_that_the_time_allows(data, monkeypatch, capsys):
    flags = ["--data", data, "--recipes", "small", "--devices", "cpu", "--minutes", 60, "--points", 3]
    flags += ["--batch-size", 2, "--workers", 0]
    monkeypatch.setattr(sys, "argv", ["time_to_depth.py", *map(str, flags)])
    speed = new_options({"recipe": "monodepth2", "encoder_weights": "none", "batch_size": 2, "data": str(data)})
    given = {"runs": str(data / "runs"), "workers": 0, "check": False, "depth_net": RECIPES["small"]["depth_net"]}
    given["pose_net"] = RECIPES["small"]["pose_net"]  # fast ones; the recipe counts epochs, not steps
    assert benchmark.steps_in(replace(speed, **given), torch.device("cpu"), 100) > 1
    monkeypatch.setattr(benchmark, "steps_in", lambda options, device, seconds: 3 if seconds == 3600 else 0)
    benchmark.main()
    assert "   3  " in capsys.readouterr().out.splitlines()[-1]


def test_a_stop_while_the_speed_is_measured_ends_it(tmp_path, monkeypatch):
    make_noise(Path(tmp_path) / "data", 32, 48, 12)
    given = {"recipe": "small", "data": str(tmp_path / "data"), "runs": str(tmp_path), "workers": 0, "check": False}

    def stopped(run, seconds):
        run.stopping = True
        return 0.0

    monkeypatch.setattr(benchmark, "train_for", stopped)
    with pytest.raises(KeyboardInterrupt):
        benchmark.steps_in(new_options(given), torch.device("cpu"), 10)


def test_after_a_training_ctrl_c_and_the_output_are_as_before(data):
    """A run's own handler would lose the Ctrl-C that comes before the next training."""
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM), sys.stdout, sys.stderr
    options = new_options({"recipe": "small", "data": str(data), "workers": 0, "batch_size": 2, "steps": 1})
    benchmark.train_and_judge(replace(options, runs=str(data / "runs")), torch.device("cpu"), 60, 1)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM), sys.stdout, sys.stderr) == before


def test_an_unknown_recipe_is_one_line(data, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["time_to_depth.py", "--data", str(data), "--recipes", "large"])
    with pytest.raises(benchmark.InputError, match="--recipes large: expected some of paper-depth"):
        benchmark.main()
