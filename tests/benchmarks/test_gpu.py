import time

import pytest
import torch

from benchmarks import gpu as benchmark
from files.errors import InputError


def test_without_a_gpu_it_is_one_line(monkeypatch):
    monkeypatch.setattr("sys.argv", ["gpu.py"])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match="no CUDA device"):
        benchmark.main()


def test_a_command_ends_within_its_time_and_its_failure_is_told(capsys):
    end = time.monotonic() + 60
    assert benchmark.run("good", 30, ["-c", "print('step              8.5 ms (best')"], end)["figures"] == {
        "step": "8.5"
    }
    assert benchmark.run("bad", 30, ["-c", "raise SystemExit(3)"], end)["status"] == "failed with status 3"
    assert benchmark.run("late", 30, ["-c", ""], time.monotonic() + 1)["status"] == "there was no time left for it"
    monkey = benchmark.run("slow", 6, ["-c", "import time; time.sleep(30)"], end)
    assert monkey["status"] == "ended after 6 s"
    assert "## slow: ended after 6 s" in capsys.readouterr().out


def test_the_commands_are_those_of_the_project():
    for _, seconds, command in benchmark.TASKS:
        assert command[0] == "-m" or (benchmark.ROOT / command[0]).is_file()
        assert seconds > 5
    assert sum(seconds for _, seconds, _ in benchmark.TASKS[:-1]) < 7.5 * 60
