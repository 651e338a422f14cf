"""How fast a training is, which share of its time it waits for data, and advice."""

import os
import time
from collections.abc import Iterator

from datasets.loading import Batch

TOO_MUCH = 0.2  # share of the time spent waiting, above which there is advice
_SHORT = 10.0  # seconds; shorter epochs are reported together


class Throughput:
    """A clock that runs while the training runs, and separates the time spent waiting for data."""

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._started = False
        self._since, self._waited = time.perf_counter(), 0.0  # of the epochs not yet reported
        self._lap, self._lap_waited, self._lap_batches = self._since, 0.0, 0  # since the last lap
        self._first_epoch: int | None = None

    def next_batch(self, loader: Iterator[Batch]) -> Batch:
        """The loader's next batch; the time until it arrives counts as waiting."""
        start = time.perf_counter()
        batch = next(loader)
        if self._started:
            seconds = time.perf_counter() - start
            self._waited += seconds
            self._lap_waited += seconds
        else:  # no advice could shorten the start of the worker processes
            self._started = True
            self._since = time.perf_counter()
        self._lap_batches += 1
        return batch

    def pause(self, seconds: float) -> None:
        """Leave out time that went into validation or a checkpoint."""
        self._since += seconds
        self._lap += seconds

    def lap(self) -> tuple[float, float]:
        """(batches per second, share of the time spent waiting) since the last lap or the start."""
        now = time.perf_counter()
        seconds = now - self._lap
        result = self._lap_batches / seconds, self._lap_waited / seconds
        self._lap, self._lap_waited, self._lap_batches = now, 0.0, 0
        return result

    def end_of_epoch(self, epoch: int) -> tuple[float, str] | None:
        """The share of waiting in the epochs since the last report, and a line on it; None while they are short."""
        if self._first_epoch is None:
            self._first_epoch = epoch
        seconds = time.perf_counter() - self._since
        if seconds < _SHORT and epoch > 1:
            return None
        share = self._waited / max(seconds, 1e-9)
        epochs = f"epoch {epoch}" if self._first_epoch == epoch else f"epochs {self._first_epoch} to {epoch}"
        line = f"{epochs}: {100 * share:.0f} % of the time was spent waiting for data"
        if share > TOO_MUCH:
            line += f"; {advice(self._workers, os.cpu_count() or 1)}"
        self._since, self._waited, self._first_epoch = time.perf_counter(), 0.0, None
        return share, line


def advice(workers: int, cores: int) -> str:
    """Advice for a training that waits for data."""
    if workers < cores:
        return f"raise --workers (now {workers}; this machine has {cores} cores)"
    return (
        f"each of the {cores} cores has a worker already: put the data on a faster disk, prepare smaller images "
        "(--width, --height of prepare_kitti.py), or take a machine with more cores"
    )
