import subprocess
import sys

import pytest
from path import Path

FOLDER = Path(__file__).absolute().parent
KILL_ONE_THAT_HOLDS_TQDMS_LOCK = """
import os, signal, sys, time
from pathlib import Path
import kill_and_resume as tool
from tqdm import tqdm

folder = Path(sys.argv[1])

def hold():
    with tqdm.get_lock():
        (folder / "held").touch()
        time.sleep(60)

tool.train.main = hold
bar = tqdm()
process = tool.start(tool.Path(folder), "killed", 1)
while not (folder / "held").exists():
    time.sleep(0.01)
os.kill(process, signal.SIGKILL)
os.waitpid(process, 0)
bar.refresh()
"""


def test_one_that_is_killed_with_a_lock_halts_nobody(tmp_path):
    command = [sys.executable, "-c", KILL_ONE_THAT_HOLDS_TQDMS_LOCK, tmp_path]
    result = subprocess.run(command, cwd=FOLDER, capture_output=True, text=True, check=False, timeout=200)
    assert result.returncode == 0, result.stderr


@pytest.mark.slow
def test_a_training_that_is_killed_twenty_times_ends_as_one_that_never_was():
    command = [sys.executable, FOLDER / "kill_and_resume.py", "--kills", "20", "--seed", "1"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "killed 20 times" in result.stdout
    assert "equal to the last bit" in result.stdout
