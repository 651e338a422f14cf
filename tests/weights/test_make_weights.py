import json
import subprocess
import sys

from cli.flags import run_script

import pytest
import torch
from path import Path

from models.checkpoint import load_model
from weights import make_weights


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (("--out", "no_such/x.safetensors"), 1, "--out no_such/x.safetensors: no such folder"),
        (("--out", "mine.bin"), 2, "--out mine.bin: expected a name that ends with .safetensors"),
        (("--out", "photo.safetensors"), 1, "there is a file of another kind, which would be lost"),
        (
            ("--world", "world", "--seed", 9),
            1,
            "is a world of --seed 7, not of --seed 9; give --seed 7, or a new folder",
        ),
        (("--world", "world", "--width", 416), 1, "is a world of --width 320, not of --width 416"),
        (("--world", "."), 1, "world.json"),
    ],
)
def test_what_cannot_be_used_is_refused_before_the_work(tmp_path, monkeypatch, capsys, words, status, message):
    def too_late(*_):
        raise AssertionError("rendered, or read the world")

    for name in ("render", "read_world"):
        monkeypatch.setattr(make_weights, name, too_late)
    monkeypatch.chdir(tmp_path)
    Path("photo.safetensors").write_bytes(b"a photograph")
    Path("world").makedirs()
    options = {"drives": 1000, "frames": 3, "width": 320, "height": 96, "seed": 7, "varied": True}
    (Path("world") / "world.json").write_text(json.dumps(options))
    common = ["--encoder-weights", "none", "--device", "cpu"]
    common += [] if "--out" in words else ["--out", "new.safetensors"]
    monkeypatch.setattr(sys, "argv", ["make_weights.py", *map(str, words), *common])
    try:
        with pytest.raises(SystemExit) as end:
            run_script(make_weights.main)
    finally:
        torch.set_flush_denormal(False)
    assert end.value.code == status
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


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
