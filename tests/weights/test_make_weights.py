import subprocess
import sys

import pytest
import torch
from path import Path

from models.checkpoint import load_model
from weights import make_weights


@pytest.mark.slow
def test_a_tiny_world_gives_weights_that_load(tmp_path, monkeypatch, capsys, script_here):
    def render_here(command, check):
        _, file, *words = command
        script_here(file, *words, "--jobs", 1)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(make_weights.subprocess, "run", render_here)
    out = Path(tmp_path) / "tiny.safetensors"
    flags = ["--out", out, "--world", Path(tmp_path) / "world", "--drives", 2, "--frames", 3, "--width", 64]
    flags += ["--height", 32, "--steps", 2, "--batch-size", 2, "--encoder-weights", "none", "--device", "cpu"]
    monkeypatch.setattr(sys, "argv", ["make_weights.py", *map(str, flags)])
    try:
        make_weights.main()
        make_weights.main()  # the world is there
    finally:
        torch.set_flush_denormal(False)
    out_text = capsys.readouterr().out
    assert out_text.count("data/make_world.py") == 1
    assert "tiny.safetensors: " in out_text
    loaded = load_model(out)
    assert (loaded.width, loaded.height, loaded.step) == (48, 32, 2)  # 0.65 of 64 x 32
    assert len(loaded.scenes) == 2
    assert loaded.depth_net(torch.zeros(1, 3, 32, 64))[0].isfinite().all()
