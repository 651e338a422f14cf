import faulthandler
import os
import signal
import subprocess
import sys
import time

import pytest
from path import Path
from tqdm import tqdm

from tests.tools import kill_and_resume as tool

FOLDER = Path(__file__).absolute().parent


def test_one_that_is_killed_with_a_lock_halts_nobody(tmp_path, monkeypatch):
    def hold():
        with tqdm.get_lock():
            (tmp_path / "held").touch()
            time.sleep(60)

    monkeypatch.setattr(tool.train, "main", hold)
    faulthandler.cancel_dump_traceback_later()  # a copy of this process would wait for the thread of pytest's timer
    parent = os.fork()
    if parent == 0:
        signal.alarm(100)  # ends a process that waits for the lock for ever
        bar = tqdm(file=sys.stderr)
        process = tool.start(Path(tmp_path), "killed", 1)
        while not (tmp_path / "held").exists():
            time.sleep(0.01)
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        bar.refresh()
        os._exit(0)
    assert os.waitpid(parent, 0)[1] == 0


@pytest.mark.slow
def test_a_training_that_is_killed_ten_times_ends_as_one_that_never_was():
    command = [sys.executable, FOLDER / "kill_and_resume.py", "--kills", "10", "--seed", "1"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "killed 10 times" in result.stdout
    assert "equal to the last bit" in result.stdout
