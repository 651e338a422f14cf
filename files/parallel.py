"""Threads that keep the order of their items, and worker processes that end with their parent."""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing.connection import wait
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_parallel(
    function: Callable[[Item], Result], items: Iterable[Item], workers: int, ahead: int = 32
) -> Iterator[Result]:
    """Yield `function(item)` for all items in their order, computed by `workers` threads.

    At most `ahead` results are computed before they are asked for. An exception of `function` is raised in place of
    its item's result. Image decoding and NumPy's large operations release the GIL, so threads suffice for them.
    """
    pool = ThreadPoolExecutor(workers)
    waiting: deque[Future[Result]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def signals_held(*signals: signal.Signals) -> Iterator[None]:
    """Hold signals back while worker processes are started; this process gets them afterwards.

    A new worker could otherwise end of them before it ignores them, and Python drops a Ctrl-C that comes while its own
    functions run after a fork. They are not blocked: another thread of the process would take them for the main one.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set handlers, and only it is interrupted
        return
    received: list[int] = []
    before = {each: signal.signal(each, lambda number, _: received.append(number)) for each in signals}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        for came in dict.fromkeys(received):
            signal.raise_signal(came)


def end_with_parent() -> None:
    """Make this worker process exit as soon as its parent process has ended. Call it once, in the worker.

    A parent that is killed cannot stop its workers; without this they would wait for tasks for ever.
    """
    threading.Thread(target=_exit_after_parent, daemon=True).start()


def _exit_after_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
