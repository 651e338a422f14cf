"""The command that writes shards: what it prints, and what it refuses."""

import sys

from cli.flags import run_script

import numpy as np
import pytest
from path import Path

from data import pack_shards
from datasets.layout import write_intrinsics
from datasets.shards import ShardedSnippets, read_index
from files.atomic import write_text
from files.images import write_jpeg


@pytest.fixture
def root(tmp_path):
    root = Path(tmp_path) / "prepared"
    picture = np.random.default_rng(0).integers(0, 255, (64, 250, 3), dtype=np.uint8)
    (root / "drive").makedirs()
    for number in range(9):
        write_jpeg(root / f"drive/{number:07d}.jpg", picture[:, 2 * number : 208 + 2 * number])
    write_intrinsics(root / "drive/cam.txt", np.array([[120.0, 0, 103], [0, 120, 30], [0, 0, 1]]))
    write_text(root / "train.txt", "drive\n")
    return root


@pytest.fixture
def pack(monkeypatch, capsys):
    def pack(*arguments):
        monkeypatch.setattr(sys, "argv", ["pack_shards.py", *map(str, arguments)])
        status = 0
        try:
            run_script(pack_shards.main)
        except SystemExit as end:
            status = end.code
        return status, *capsys.readouterr()

    return pack


def test_what_it_prints_and_writes(root, tmp_path, pack):
    out = Path(tmp_path) / "deep/packed"
    status, printed, _ = pack(root, out, "--shard-size", "0.1", "--overlap", 2)
    assert status == 0
    count = len(out.files("train-*.tar"))
    last = f"{out}: 7 snippets of 3 frames in {count} shards; shards.jsonl describes them"
    assert printed.splitlines()[-1] == last
    assert "fx fy cx cy" in printed  # the check of the data
    assert len(ShardedSnippets(read_index(out), 3)) == 7
    first = {file.name: file.read_bytes() for file in out.files("*.tar")}
    status, _, error = pack(root, out)
    assert (status, error) == (1, f"pack_shards.py: error: {out}: holds a packed set already, expected a new folder\n")
    assert pack(root, Path(tmp_path) / "again", "--shard-size", "0.1", "--overlap", 2, "--no-check")[0] == 0
    assert first == {file.name: file.read_bytes() for file in (Path(tmp_path) / "again").files("*.tar")}


def test_data_that_cannot_be_trained_with_are_refused(root, tmp_path, pack):
    write_intrinsics(root / "drive/cam.txt", np.array([[1200.0, 0, 103], [0, 120, 30], [0, 0, 1]]))
    status, _, error = pack(root, tmp_path / "out")
    assert status == 1
    assert "the data set is refused: wrong K" in error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("flags", ["--shard-size 0", "--overlap -1", "--overlap 1", "--shard-size many"])
def test_flags_out_of_range_are_wrong_use(root, tmp_path, pack, flags):
    assert pack(root, tmp_path / "out", *flags.split())[0] == 2
