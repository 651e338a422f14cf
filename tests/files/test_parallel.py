import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from path import Path

from files.errors import InputError
from files.parallel import in_parallel, signals_held

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


def test_a_signal_that_is_held_comes_afterwards():
    reached = False
    with pytest.raises(KeyboardInterrupt):  # noqa: PT012, the signal comes at the end of the inner block
        with signals_held(signal.SIGINT):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.05)
            reached = True
        pytest.fail("the signal was lost")
    assert reached


def test_a_signal_is_held_where_another_thread_takes_it():
    end = threading.Event()
    thread = threading.Thread(target=end.wait, daemon=True)
    thread.start()
    try:
        test_a_signal_that_is_held_comes_afterwards()
    finally:
        end.set()
        thread.join()


def test_a_fork_within_held_signals_does_not_drop_ctrl_c():
    """Python ignores what is raised in the functions that it runs after a fork."""
    os.register_at_fork(after_in_parent=_send_interrupt)
    _interrupts[:] = [True]
    try:
        with pytest.raises(KeyboardInterrupt), signals_held(signal.SIGINT):  # noqa: PT012
            child = os.fork()
            if child == 0:
                os._exit(0)
    finally:
        _interrupts.clear()
        os.waitpid(child, 0)


_interrupts: list[bool] = []  # functions at a fork cannot be taken back


def _send_interrupt() -> None:
    if _interrupts:
        os.kill(os.getpid(), signal.SIGINT)


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
