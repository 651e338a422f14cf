"""From a download to the tables, with the scripts as users type them."""

import json
import runpy
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from path import Path
from PIL import Image

from datasets.layout import write_intrinsics, write_scene_names
from files.images import write_jpeg
from models.checkpoint import load_model

ROOT = Path(__file__).absolute().parent.parent


def script(*words: object) -> str:
    """Run a script of the project; its standard output."""
    command = [sys.executable, *(str(word) for word in words)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture
def script_here(monkeypatch, capsys):
    """Run a script of the project in this process; its standard output."""

    def run(file: str, *words: object) -> str:
        monkeypatch.setattr(sys, "argv", [file, *(str(word) for word in words)])
        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)}
        capsys.readouterr()
        try:
            runpy.run_path(ROOT / file, run_name="__main__")
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
            torch.set_flush_denormal(False)
        return capsys.readouterr().out

    return run


def row(table: str) -> str:
    """The line of the paper's protocol."""
    (line,) = (line for line in table.splitlines() if line.startswith("paper "))
    return line


@pytest.mark.slow
def test_from_a_download_to_the_tables(tmp_path):
    """A small world stands in for KITTI: it has the same layouts, and nothing in the scripts knows it."""
    folder = Path(tmp_path)
    world, prepared, runs = folder / "world", folder / "prepared", folder / "runs"
    size = ("--height", 64, "--width", 96)
    script("data/make_world.py", world, "--drives", 3, "--frames", 8, *size, "--mono", "--no-halts")
    test_drives = world / "splits/test_scenes.txt"

    script(
        *("data/prepare_kitti.py", world / "raw", prepared, *size, "--with-depth", "--with-poses"),
        *("--test-scenes", test_drives, "--static", "none"),
    )
    trained_on = (prepared / "train.txt").read_text().split() + (prepared / "val.txt").read_text().split()
    assert not any(drive in scene for scene in trained_on for drive in test_drives.read_text().split())

    script("train.py", prepared, "--steps", 4, "--batch-size", 2, "--runs", runs, "--name", "run", "--workers", 1)
    lines = [json.loads(line) for line in (runs / "run/metrics.jsonl").read_text().splitlines()]
    (validation,) = (line for line in lines if line["split"] == "validation")
    assert validation["abs_rel"] > 0
    assert validation["ate"] > 0
    checkpoint = runs / "run/best_abs_rel.pt"

    images = world / "splits/test_files.txt"
    table = script("test_depth.py", checkpoint, "--kitti", world / "raw", "--list", images, "--json", folder / "d.json")
    assert "protocol" in table
    predictions = runs / "run/best_abs_rel_depth.npz"
    scored = script("test_depth.py", "--predictions", predictions, "--kitti", world / "raw", "--list", images)
    assert row(scored) == row(table)
    assert (folder / "d.json").is_file()

    sequence = max(file.stem for file in (world / "odometry/poses").files("*.txt"))
    table = script(
        *("test_pose.py", checkpoint, "--kitti", world / "odometry", "--sequences", sequence),
        *("--json", folder / "p.json"),
    )
    (result,) = json.loads((folder / "p.json").read_text())["results"]
    assert result["snippets"] == 8 - 3 + 1
    assert result["frames"] == 3
    assert f"{result['ate']['mean']:.4f}" in table


@pytest.mark.slow
def test_cityscapes_then_kitti_then_make3d(script_here, make3d, tmp_path):
    """The paper's way to its generalisation table, on small files in the formats of the three data sets."""
    folder = Path(tmp_path)
    size = ("--height", 64, "--width", 96)
    short = ("--steps", 2, "--batch-size", 2, "--workers", 1, "--network-width", 1 / 8)
    short += ("--device", "cpu", "--runs", folder / "runs")
    write_cityscapes(folder / "cityscapes")
    script_here("data/prepare_cityscapes.py", folder / "cityscapes", folder / "prepared/cityscapes", *size)
    script_here("train.py", folder / "prepared/cityscapes", "--name", "cityscapes", *short)

    write_prepared_kitti(folder / "prepared/kitti")
    first = folder / "runs/cityscapes/last.pt"
    script_here(
        "train.py", folder / "prepared/kitti", "--start-from", first, "--learning-rate", 2e-5, "--name", "both", *short
    )
    before, after = (load_model(folder / f"runs/{name}/last.pt").depth_net for name in ("cityscapes", "both"))
    for old, new in zip(before.parameters(), after.parameters(), strict=True):
        assert (old - new).abs().max() < 1e-4  # two steps of 2e-5: the second training began with the first's weights
    assert any(not torch.equal(old, new) for old, new in zip(before.parameters(), after.parameters(), strict=True))

    results = folder / "r.json"
    checkpoint = folder / "runs/both/last.pt"
    table = script_here("test_make3d.py", checkpoint, "--make3d", make3d, "--json", results)
    assert "protocol: 134 of the 134 test images of Make3D" in table
    result = json.loads(results.read_text())
    assert f"{result['result']['abs_rel']:.4f}" in table
    assert result["baselines"]["constant"]["abs_rel"] > 0


def write_cityscapes(root: Path) -> None:
    """Two cities, the first ten frames of one sequence each: driving towards a wall, which grows."""
    for number, city in enumerate(("aachen", "bochum")):
        images, cameras = (
            (root / f"{package}/train" / city).makedirs_p() for package in ("leftImg8bit_sequence", "camera")
        )
        texture = np.random.default_rng(number).uniform(0, 255, (16, 32, 3)).astype(np.uint8).repeat(8, 0).repeat(8, 1)
        for frame in range(10):
            picture = Image.fromarray(texture).resize((128, 64), box=(2 * frame, frame, 256 - 2 * frame, 128 - frame))
            picture.save(images / f"{city}_000000_{frame:06d}_leftImg8bit.png")
        camera = {"intrinsic": {"fx": 2262.52, "fy": 2265.3, "u0": 1096.98, "v0": 513.137}}
        (cameras / f"{city}_000000_000019_camera.json").write_text(json.dumps(camera))


def write_prepared_kitti(root: Path) -> None:
    """What prepare_kitti.py makes of a drive for training, and of one for validation."""
    for drive, side in (("2011_09_26_drive_0001_sync_02", "train"), ("2011_09_26_drive_0005_sync_02", "val")):
        (root / drive).makedirs_p()
        texture = np.random.default_rng(0).uniform(0, 255, (8, 16, 3)).astype(np.uint8).repeat(8, 0).repeat(8, 1)
        for frame in range(4):
            write_jpeg(root / drive / f"{frame:07d}.jpg", np.roll(texture, -2 * frame, axis=1)[:, :96])
        write_intrinsics(root / drive / "cam.txt", np.array([[56.0, 0, 47], [0, 60, 31], [0, 0, 1]]))
        write_scene_names(root / f"{side}.txt", [drive])
