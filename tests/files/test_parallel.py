import os
import signal
import subprocess
import sys
import time

import pytest
from path import Path

from files.errors import InputError
from files.parallel import in_parallel

ROOT = Path(__file__).absolute().parent.parent.parent


def test_in_parallel_keeps_the_order_and_stays_near():
    taken = []

    def items():
        for item in range(100):
            taken.append(item)
            yield item

    def slow(item):
        time.sleep(0.002 * (item % 3))
        return item * item

    results = in_parallel(slow, items(), workers=4, ahead=8)
    assert next(results) == 0
    assert len(taken) == 9  # not the whole list
    assert list(results) == [item * item for item in range(1, 100)]


def test_in_parallel_raises_where_the_item_would_have_come():
    def fail_at_three(item):
        if item == 3:
            raise InputError("three")
        return item

    results = in_parallel(fail_at_three, range(10), workers=2)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(InputError, match="three"):
        next(results)


def test_the_next_items_are_not_computed_after_an_end():
    computed = []
    results = in_parallel(computed.append, range(1000), workers=1, ahead=4)
    next(results)
    results.close()
    assert len(computed) <= 6


PARENT = """
import os, time
from concurrent.futures import ProcessPoolExecutor
from files.parallel import end_with_parent

if __name__ == "__main__":
    with ProcessPoolExecutor(1, initializer=end_with_parent) as pool:
        print(pool.submit(os.getpid).result(), flush=True)
        time.sleep(60)
"""


def test_a_worker_ends_after_its_parent_was_killed(tmp_path):
    file = tmp_path / "parent.py"
    file.write_text(PARENT)
    parent = subprocess.Popen([sys.executable, file], stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": ROOT})
    worker = int(parent.stdout.readline())
    parent.kill()
    try:
        parent.communicate(timeout=10)  # returns once no process holds the pipe, the worker included
    except subprocess.TimeoutExpired:
        os.kill(worker, signal.SIGKILL)
        raise
