"""Rendering the drives of a world in several processes."""

import contextlib
import multiprocessing
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import FIRST_EXCEPTION, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool

from path import Path
from tqdm import tqdm

from datasets.synthetic.drive_files import render_drive
from datasets.synthetic.options import Drive, WorldOptions
from files.errors import InputError
from files.parallel import end_with_parent

_frames_done = None  # in a worker process: the counter that all workers share


def render_in_parallel(world: Path, options: WorldOptions, drives: list[Drive], jobs: int, bar: tqdm) -> None:
    """Render each of the drives in one of `jobs` processes, on the CPU; `bar` counts frames.

    Raises:
        InputError: a process was killed.
        OSError: a file could not be written.
    """
    context = multiprocessing.get_context("spawn")
    counter, first = context.Value("q", 0), bar.n
    pool = ProcessPoolExecutor(jobs, context, initializer=_start_worker, initargs=(counter,))
    try:
        with _ignoring_interrupts():
            waiting = {pool.submit(_render_counted, world, options, drive) for drive in drives}
        while waiting:
            done, waiting = wait(waiting, timeout=0.2, return_when=FIRST_EXCEPTION)
            if counter.value > bar.n - first:
                bar.update(counter.value - (bar.n - first))
            for future in done:
                future.result()
    except BrokenProcessPool:
        raise InputError(
            f"{world}: a rendering process was killed, perhaps for lack of memory; complete drives are kept; "
            f"start again with fewer --jobs than {jobs}"
        ) from None
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        for process in multiprocessing.active_children():
            process.terminate()
        raise
    finally:
        pool.shutdown()


@contextlib.contextmanager
def _ignoring_interrupts() -> Iterator[None]:
    # Processes that are started now inherit that Ctrl-C is ignored: their parent receives it and ends them.
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set signal handlers
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _start_worker(counter) -> None:
    global _frames_done
    _frames_done = counter
    end_with_parent()


def _render_counted(world: Path, options: WorldOptions, drive: Drive) -> None:
    render_drive(world, options, drive, "cpu", _count_frame)


def _count_frame() -> None:
    if _frames_done is not None:
        with _frames_done.get_lock():
            _frames_done.value += 1
