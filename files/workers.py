"""What the processes of a pool need that outlives no parent."""

import multiprocessing
import os
import threading
from multiprocessing.connection import wait


def end_with_parent() -> None:
    """For a pool's process: from now on it ends as soon as its parent has.

    A parent that is killed can't tell its workers: they would work on, and then wait for tasks for ever.
    """
    threading.Thread(target=_wait_for_its_end, daemon=True).start()


def _wait_for_its_end() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
