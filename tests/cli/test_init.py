import signal
import subprocess
import sys

import pytest
from path import Path

ROOT = Path(__file__).absolute().parent.parent.parent


@pytest.mark.parametrize(
    ("error", "line", "status"),
    [("KeyboardInterrupt", "stopped by Ctrl-C", -signal.SIGINT), ("ValueError('a bug')", "ValueError: a bug", 1)],
)
def test_ctrl_c_during_the_imports_is_one_line_and_a_bug_keeps_its_traceback(error, line, status):
    ended = subprocess.run(
        [sys.executable, "-c", f"import cli; raise {error}"], capture_output=True, text=True, cwd=ROOT, timeout=60
    )
    assert ended.returncode == status
    lines = ended.stderr.strip().splitlines()
    assert lines[-1] == line
    assert (len(lines) == 1) == (error == "KeyboardInterrupt")
