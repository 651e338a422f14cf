"""From a download to the tables, with the scripts as users type them."""

import json
import subprocess
import sys

import pytest
from path import Path

ROOT = Path(__file__).absolute().parent.parent


def script(*words: object) -> str:
    """Run a script of the project; its standard output."""
    command = [sys.executable, *(str(word) for word in words)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


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

    sequence = min(file.stem for file in (world / "odometry/poses").files("*.txt"))
    table = script(
        *("test_pose.py", checkpoint, "--kitti", world / "odometry", "--sequences", sequence),
        *("--json", folder / "p.json"),
    )
    (result,) = json.loads((folder / "p.json").read_text())["results"]
    assert result["snippets"] == 8 - 3 + 1
    assert result["frames"] == 3
    assert f"{result['ate']['mean']:.4f}" in table
