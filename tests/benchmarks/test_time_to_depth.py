import json
import sys

import pytest
import torch
from path import Path

from benchmarks import time_to_depth as benchmark
from benchmarks.surroundings import make_noise
from datasets.layout import write_depth, write_poses, write_scene_names

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


def test_an_unknown_recipe_is_one_line(data, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["time_to_depth.py", "--data", str(data), "--recipes", "large"])
    with pytest.raises(benchmark.InputError, match="--recipes large: expected some of paper-depth"):
        benchmark.main()
