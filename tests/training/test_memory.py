import ctypes
import platform
import resource
import subprocess
import sys

import pytest
from path import Path

from training import memory

ROOT = Path(__file__).absolute().parent.parent.parent
FAULTS = """
import resource, torch
from training.memory import keep_freed_memory
if {keep}: keep_freed_memory()
for step in range(30):
    tensors = [torch.ones(2_500_000) for _ in range(5)]
    del tensors
    if step == 9: before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(keep: bool) -> int:
    command = [sys.executable, "-c", FAULTS.format(keep=keep)]
    return int(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_freed_memory_is_used_again():
    pages = 20 * 5 * 10_000_000 // resource.getpagesize()
    assert page_faults(keep=False) > 0.5 * pages
    assert page_faults(keep=True) < 0.01 * pages


def test_another_c_library_is_no_error(monkeypatch):
    def missing(name):
        raise OSError("no such library")

    monkeypatch.setattr(ctypes, "CDLL", missing)
    assert memory.keep_freed_memory() is False
