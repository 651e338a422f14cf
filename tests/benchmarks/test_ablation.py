import json
import sys
from dataclasses import replace

import pytest
import torch
from path import Path

from benchmarks import ablation as benchmark
from benchmarks.surroundings import make_noise
from datasets.layout import write_depth, write_poses, write_scene_names
from training.options import new_options

pytestmark = pytest.mark.usefixtures("process_as_before")


def test_every_variant_is_a_valid_training_and_differs_from_the_others():
    chosen = {name: new_options(given) for name, given in benchmark.variants("weights.pth")}
    assert len(set(map(repr, chosen.values()))) == len(chosen)
    for options in chosen.values():
        options.networks()


def test_the_last_step_is_small_but_for_beta2():
    chosen = {name: new_options(given) for name, given in benchmark.variants(None)}
    last, small = chosen[benchmark.STEPS_TO_SMALL[-1][0]], chosen["small"]
    assert replace(last, recipe=small.recipe, steps=small.steps, beta2=0.99) == small


def test_table_with_the_spread_over_seeds(tmp_path, monkeypatch, capsys):
    root = Path(tmp_path) / "data"
    make_noise(root, 32, 48, 12)
    write_scene_names(root / "val.txt", ["noise"])
    write_depth(root / "noise/0000003.npy", torch.full((32, 48), 7.0).numpy())
    poses = torch.eye(3, 4).repeat(12, 1, 1).numpy() + torch.arange(12)[:, None, None].numpy()
    write_poses(root / "noise/poses.txt", poses)
    flags = ["--data", root, "--only", "small", "--seeds", 2, "--steps", 1, "--device", "cpu"]
    monkeypatch.setattr(sys, "argv", ["ablation.py", *map(str, flags), "--json", str(root / "scores.json")])
    benchmark.main()
    assert "± 0." in capsys.readouterr().out
    results = json.loads((root / "scores.json").read_text())["results"]
    assert [result["seed"] for result in results] == [0, 1]
    assert results[0]["scores"]["abs_rel"] != results[1]["scores"]["abs_rel"]


def test_an_unknown_variant_is_one_line(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["ablation.py", "--only", "large"])
    with pytest.raises(benchmark.InputError, match="--only 'large': expected some of 'paper-depth"):
        benchmark.main()
