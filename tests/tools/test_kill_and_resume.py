import subprocess
import sys

import pytest
from path import Path

SCRIPT = Path(__file__).absolute().parent / "kill_and_resume.py"


@pytest.mark.slow
def test_a_training_that_is_killed_twenty_times_ends_as_one_that_never_was():
    command = [sys.executable, SCRIPT, "--kills", "20", "--seed", "1"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "killed 20 times" in result.stdout
    assert "equal to the last bit" in result.stdout
