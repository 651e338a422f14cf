import ctypes
import os
import platform
import subprocess
import sys

import pytest
from path import Path

from files import memory

ROOT = Path(__file__).absolute().parent.parent.parent
FAULTS = """
import resource, torch
from files.memory import keep_freed_memory
if {keep}: keep_freed_memory()
for step in range(30):
    tensors = [torch.ones(2_500_000) for _ in range(5)]
    del tensors
    if step == 9: before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(keep: bool) -> int:
    command = [sys.executable, "-c", FAULTS.format(keep=keep)]
    # These thresholds are glibc's first ones. Naming them ends its own adaptation, whose result differs between runs.
    variables = os.environ | {"MALLOC_MMAP_THRESHOLD_": "131072", "MALLOC_TRIM_THRESHOLD_": "131072"}
    done = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_freed_memory_is_used_again():
    blocks = 20 * 5  # a block of 10 MB takes one page fault at least, where pages are huge
    assert page_faults(keep=False) > blocks
    assert page_faults(keep=True) < 0.5 * blocks


def test_another_c_library_is_no_error(monkeypatch):
    def missing(name):
        raise OSError("no such library")

    monkeypatch.setattr(ctypes, "CDLL", missing)
    assert memory.keep_freed_memory() is False
