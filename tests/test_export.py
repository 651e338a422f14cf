import subprocess
import sys

import pytest
from path import Path

ROOT = Path(__file__).absolute().parent.parent
RECORDED = ROOT / "tests/recorded/version_1/demo.pt"


def export(*words) -> subprocess.CompletedProcess:
    command = [sys.executable, ROOT / "export.py", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_checkpoint_becomes_published_weights(tmp_path):
    file = Path(tmp_path) / "weights.safetensors"
    done = export(RECORDED, file, "--half")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{file}: 0.")


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        ((RECORDED, "weights.pt"), 2, "weights.pt: expected a name that ends with .safetensors"),
        (("nowhere.pt", "weights.safetensors"), 1, "nowhere.pt: no such file, expected a checkpoint"),
        ((ROOT / "tests", "weights.safetensors"), 1, "found no checkpoint of a run in this folder"),
        ((RECORDED, "nowhere/weights.safetensors"), 1, "no such folder"),
    ],
)
def test_wrong_use_is_one_line(words, status, message):
    done = export(*words)
    assert done.returncode == status
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
